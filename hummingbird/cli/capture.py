# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird capture"""

from __future__ import annotations

import argparse

from hummingbird.cli.arguments import add_name, count, seconds

DESCRIPTION = """\
Write the packets that go along one edge of a running instance's graph to a
capture file with nanosecond time stamps. An edge is FROM:TO, two ports or NFs;
one of them may be left out. The instance never waits for this command: packets
that it cannot write in time are missing in the file, and counted."""

EPILOG = """\
edges:
  in0:nids0     what goes from in0 to nids0
  nids0:        what leaves nids0
  :nids0        what comes to nids0
  outside:in0   what the port in0 has received, malformed packets too
  out0:outside  what is given to the driver of the port out0 to be sent

example:
  hummingbird capture in0:nids0 out.pcap --count 100
  hummingbird capture nids0: - | tshark -r -"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "capture",
        help="write packets of one edge of a running instance to a file",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("edge", metavar="FROM:TO", help="the edge")
    parser.add_argument(
        "out",
        metavar="FILE",
        help="the capture, which is replaced if it is one; '-' is standard output",
    )
    add_name(parser)
    parser.add_argument("--count", type=count, metavar="N", help="end after N packets")
    parser.add_argument("--seconds", type=seconds, metavar="S", help="end after S seconds")
    parser.add_argument(
        "--size",
        type=_size,
        default=1_000_000_000,
        metavar="BYTES",
        help="end before the file gets larger than this (default: 1000000000)",
    )
    parser.add_argument(
        "--snap",
        type=_snap,
        default=0,
        metavar="BYTES",
        help="so many bytes of each packet at most (default: all)",
    )
    parser.set_defaults(main=main)


def _size(text: str) -> int:
    if not text.isdecimal() or not 24 <= int(text) < 1 << 62:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write bytes, 24 or more")
    return int(text)


def _snap(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no length; write bytes, 1 to 65535")
    return int(text)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from hummingbird.capture_edge import Options, run

    run(
        Options(args.edge, args.out, args.name, args.count, args.seconds, args.size, args.snap),
    )
    return 0
