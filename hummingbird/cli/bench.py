# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird bench"""

from __future__ import annotations

import argparse

DESCRIPTION = """\
Measure something: what is claimed is a ratio of two cases that are measured in turn, printed with
its spread. Without a NAME it lists the benchmarks. 'hummingbird bench NAME --help' tells about one;
all take --quick, --json FILE and most --plot FILE.png (needs matplotlib)."""

EPILOG = """\
example:
  hummingbird bench
  hummingbird bench forwarding --quick
  hummingbird bench forwarding --json forwarding.json --plot forwarding.png"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "bench",
        help="measure something, against what it shall be compared with",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="hummingbird bench [-h] [--list] [NAME [OPTION ...]]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the benchmark to run")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="OPTION", help="options of that benchmark"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from hummingbird import benches

    if args.list or args.name is None:
        from rich.console import Console

        benches.show(Console())
        return 0
    return benches.run(args.name, args.options)
