# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird top"""

from __future__ import annotations

import argparse
import math

from hummingbird.cli.arguments import add_name

DESCRIPTION = """\
Watch a running instance: what passes each port, NF and chain, how busy they
are, how many packets wait, which are dropped and why, how long they take, what
the device does, and one line that names the bottleneck. It only reads counters
in shared memory, which costs the instance nothing. On a terminal it goes on
until q or Ctrl-C."""

EPILOG = """\
example:
  hummingbird top
  hummingbird top --name branch --interval 5
  hummingbird top --once
  hummingbird top --once --json | jq -r .bottleneck.why"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "top",
        help="watch what a running instance does, and what limits it",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_name(parser)
    parser.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="SECONDS",
        help="over which rates, busy times and latencies are taken (default: 1)",
    )
    parser.add_argument("--once", action="store_true", help="show one interval, all of it, and end")
    parser.add_argument(
        "--json", action="store_true", help="one interval as a JSON object (docs/top.md)"
    )
    parser.set_defaults(main=main)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval; write 0.1 to 3600 seconds")
    return seconds


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from hummingbird.watch import Options, watch

    watch(Options(args.name, args.interval, args.once, args.json))
    return 0
