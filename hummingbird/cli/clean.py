# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird clean"""

from __future__ import annotations

import argparse

DESCRIPTION = """\
Remove what a killed run has left behind: its run directory and DPDK's, XDP programs of ours on
interfaces of this network namespace, half-built files in the cache. Instances that run stay
untouched, and no run needs this first: it only tidies up."""

EPILOG = """\
example:
  hummingbird clean --dry-run"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "clean",
        help="remove what a killed run has left behind",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be removed, and remove nothing"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from rich.console import Console

    from hummingbird.clean import command

    return command(Console(), dry_run=args.dry_run)
