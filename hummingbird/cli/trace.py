# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird trace"""

from __future__ import annotations

import argparse

from hummingbird.cli.arguments import add_name, count, seconds

DESCRIPTION = """\
Follow packets of a running instance on their whole way: when they came to each
port and NF, what ran the NF and where, what it decided and changed, and where
they left or why they were dropped. Times are since the packet was received."""

EPILOG = """\
example:
  hummingbird trace
  hummingbird trace --flow "tcp 10.1.0.10 -> :443" --count 3
  hummingbird trace --type web --json | jq 'select(.event == "dropped")'"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "trace",
        help="follow packets of a running instance",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_name(parser)
    parser.add_argument(
        "--flow",
        metavar="'[PROTOCOL] [END [-> END]]'",
        help="only packets of these flows, in both directions; an END is ADDRESS, PREFIX, :PORT, "
        "or both as ADDRESS:PORT",
    )
    parser.add_argument("--type", metavar="TYPE", help="only packets that come in as this type")
    parser.add_argument(
        "--count",
        type=count,
        default=10,
        metavar="N",
        help="end after N packets (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=seconds, metavar="S", help="end after S seconds")
    parser.add_argument("--json", action="store_true", help="a JSON object a line for each event")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from hummingbird.trace import Options, show

    show(Options(args.name, args.flow, args.type, args.count, args.seconds, args.json))
    return 0
