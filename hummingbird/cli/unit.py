# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird unit"""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Print the units of systemd that run a topology as a service, or put them into
place: hummingbird@NAME runs /etc/hummingbird/NAME.yaml, hummingbird-web@NAME
serves its page and metrics, and a file for systemd-sysusers makes the user that
they run as."""

EPILOG = """\
example:
  hummingbird unit                    # print them
  sudo hummingbird unit --install     # write them, and say what comes next"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "unit",
        help="print or install the units of systemd",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--install", action="store_true", help="write them to /etc")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="with --install: below DIR instead, such as an image that is being made",
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from rich.console import Console

    from hummingbird import units

    console = Console()
    return units.install(console, args.root) if args.install else units.show(console)
