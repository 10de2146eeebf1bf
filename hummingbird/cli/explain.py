# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird explain"""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Explain which way one packet goes: the rule that gives it its type, each hop, and the line of the
route policy that decides it. The packet is judged by the same code as when the topology runs.
Where an NF may give packets another type by their content, the way from there is shown, too.
What NFs do to packets besides, such as dropping one without a route, only a run shows."""

EPILOG = """\
example:
  hummingbird explain policies/branch_gateway.yaml --flow "tcp 10.1.0.10:4000 -> 203.0.113.10:80"
  hummingbird explain policies/branch_gateway.yaml --flow "udp [2001:db8::1]:53 -> [2001:db8::2]:53"
  hummingbird explain policies/branch_gateway.yaml --packet policies/demo/branch.pcap:17"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help="show which way a packet goes, and why",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("topology", type=Path, metavar="TOPOLOGY", help="the topology's YAML file")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--flow",
        metavar="'PROTOCOL SRC[:PORT] -> DST[:PORT]'",
        help="a packet of this flow; PROTOCOL is tcp, udp, sctp, icmp, icmpv6 or a number",
    )
    which.add_argument(
        "--packet", metavar="CAPTURE:N", help="packet N, counted from 1, of a pcap or pcapng file"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from hummingbird.explain import command

    command(args.topology, args.flow, args.packet)
    return 0
