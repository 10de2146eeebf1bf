# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird flows"""

from __future__ import annotations

import argparse

from hummingbird.cli.arguments import add_name

DESCRIPTION = """\
List the live flows of a running instance: protocol, state, who began it and with whom, age, time
since its last packet, packet type, and what NFs keep of it (of each pair of numbers the first is of
the end that began it)."""

EPILOG = """\
example:
  hummingbird flows
  hummingbird flows --match "tcp 10.0.0.0/8 -> :443" --limit 20
  hummingbird flows --match "udp [2001:db8::1]:53" --nf monitor0
  hummingbird flows --name branch --json | jq 'select(.idle_s > 60)'
  hummingbird flows --match tcp --count"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "flows",
        help="list the live flows of a running instance",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_name(parser)
    parser.add_argument(
        "--match",
        metavar="'[PROTOCOL] [END [-> END]]'",
        help="only these flows, whichever end began; an END is ADDRESS, PREFIX, :PORT, or both "
        "as ADDRESS:PORT",
    )
    parser.add_argument("--nf", metavar="NF", help="only flows that this NF keeps something of")
    parser.add_argument(
        "--limit",
        type=_limit,
        metavar="N",
        help="N flows at most; 0: all (default: 1000, with --json all)",
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line for each flow")
    parser.add_argument("--count", action="store_true", help="only how many there are")
    parser.set_defaults(main=main)


def _limit(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of flows; write 0 or more")
    return int(text)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    import sys

    from rich.console import Console

    from hummingbird.flow_list import Options, show

    options = Options(args.name, args.match, args.nf, args.limit, args.json, args.count)
    show(options, Console(width=None if sys.stdout.isatty() else 1000))
    return 0
