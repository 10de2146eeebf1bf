# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird run"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TextIO, cast

from hummingbird.cli.arguments import instance_name, seconds

DESCRIPTION = """\
Run a topology until its inputs are exhausted, the duration is over, or Ctrl-C. While it runs,
a terminal shows live counters; at the end every packet is accounted for."""

EPILOG = """\
example:
  hummingbird run policies/forward.yaml --duration 10
  hummingbird run policies/branch_gateway.yaml --in policies/demo/branch.pcap --out out.pcap \\
      --json summary.json --report report.html"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "run",
        help="run a topology",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("topology", type=Path, metavar="TOPOLOGY", help="the topology's YAML file")
    _add_files(parser)
    _add_device(parser)
    _add_service(parser)
    parser.set_defaults(main=main)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--in", dest="input", metavar="FILE", help="the capture that the topology calls $in"
    )
    parser.add_argument(
        "--out", dest="output", metavar="FILE", help="the capture that it calls $out; is replaced"
    )
    parser.add_argument(
        "--pace",
        choices=("fast", "original"),
        help="instead of the topology's pace of captures: as fast as the chain takes them, or with "
        "the capture's own gaps",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the summary to FILE as JSON, too; '-' is standard output, and then all that "
        "is said goes to standard error",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write a page for a browser to FILE: the chain as a graph, what happened over time, "
        "latencies, settings",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="instead of the topology's device.use: auto, required, none, or a part of the name "
        "of a device or platform ('hummingbird devices' lists them)",
    )
    parser.add_argument(
        "--executor",
        choices=("auto", "persistent", "launch"),
        help="instead of the topology's device.executor",
    )


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--duration",
        type=seconds,
        metavar="SECONDS",
        help="stop after this long (default: when the inputs are exhausted)",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="load the route policy anew whenever its file changes; one with a mistake is "
        "reported and changes nothing",
    )
    parser.add_argument(
        "--name",
        type=instance_name,
        default="default",
        help="name of this instance; several may run side by side (default: %(default)s)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="count where the time of the CPU goes and print it by port, NF and part",
    )
    parser.add_argument(
        "--no-live", action="store_true", help="show no live counters, only the summary"
    )
    parser.add_argument(
        "--log",
        choices=("text", "json"),
        default="text",
        help="json: what happens is one JSON object a line, and nothing else is written to "
        "standard output (default: %(default)s)",
    )


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from rich.console import Console

    from hummingbird.logs import Stream
    from hummingbird.service import STDOUT, Options, run

    files = {"in": args.input, "out": args.output}
    overrides = {"use": args.device, "executor": args.executor}
    options = Options(
        topology=args.topology,
        bindings={name: Path(file) for name, file in files.items() if file},
        json=args.json,
        report=args.report,
        watch=args.watch,
        name=args.name,
        duration=args.duration,
        live=not args.no_live,
        profile=args.profile,
        overrides={name: value for name, value in overrides.items() if value},
        pace=args.pace,
        log=args.log,
    )
    place = sys.stderr if args.json == STDOUT else sys.stdout
    out = cast("TextIO", Stream(place, alone=args.log == "json"))
    # Files and pipes get whole lines: a file name that is broken in two is hard to find.
    return run(options, Console(file=out, width=None if out.isatty() else 1000))
