# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird doctor"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DESCRIPTION = """\
Check whether this machine can do what a topology asks for: rights, memory, kernel, interfaces,
DPDK, OpenCL, directories, the service. Each check says ok, warning or problem, and what mends it.
Exit status 1: a run would fail. Without a topology it looks at what any port driver may need. It
changes nothing and needs no rights; run it as the user who is to run the topology."""

EPILOG = """\
example:
  hummingbird doctor policies/branch_gateway.yaml"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "doctor",
        help="check whether this machine can run a topology",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "topology", type=Path, nargs="?", metavar="TOPOLOGY", help="the topology's YAML file"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from rich.console import Console

    from hummingbird.doctor import command

    # Files and pipes get whole lines.
    console = Console(width=None if sys.stdout.isatty() else 1000)
    return command(args.topology, console, as_json=args.json)
