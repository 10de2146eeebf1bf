# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird nf"""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """\
Begin a network function of your own: 'nf new NAME' writes one that works, with a topology that runs
it and a test. docs/write-an-nf.md explains what stands there."""

EPILOG = """\
example:
  hummingbird nf new ttl_counter
  hummingbird run ttl_counter.yaml
  hummingbird nf new classifier --python --folder ~/nfs"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "nf",
        help="begin a network function of your own",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="write the files of a new one")
    new.add_argument("name", metavar="NAME", help="lower-case letters, digits and '_'")
    new.add_argument(
        "--folder", type=Path, default=Path(), metavar="DIR", help="where they go (default: here)"
    )
    new.add_argument(
        "--python",
        action="store_true",
        help="a Python function on NumPy arrays, instead of C that CPUs and GPUs run",
    )
    new.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from hummingbird import scaffold

    made = scaffold.new(args.name, args.folder, python=args.python)
    for path in made:
        print(f"wrote {path}")
    print(f"try it: hummingbird run {args.folder / args.name}.yaml")
    print(f"test it (needs pytest): python -m pytest {args.folder}/test_{args.name}.py")
    return 0
