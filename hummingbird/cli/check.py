# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird check"""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Check a topology without running it: the YAML file, its route policy, and every file that its NFs
name (routes, patterns, keys). Prints the path of each packet type and where each NF runs on this
machine. With a mistake it prints file, line and what to do, and exits with status 2."""

EPILOG = """\
example:
  hummingbird check policies/branch_gateway.yaml"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "check",
        help="check a topology and show its paths",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("topology", type=Path, metavar="TOPOLOGY", help="the topology's YAML file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from hummingbird.check import command

    command(args.topology)
    return 0
