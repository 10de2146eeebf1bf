# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird devices"""

from __future__ import annotations

import argparse

DESCRIPTION = """\
List the OpenCL devices of this machine: name, runtime, and tier, with the reason for it.
Tier A and B keep a kernel resident that shares memory with the CPU; tier C gets batches of
packets by launch. The tier is what a probe saw work, not what the driver promises.
Then the network interfaces: driver, queues, and what the driver says that XDP can do there."""

EPILOG = """\
example:
  hummingbird devices"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "devices",
        help="list the OpenCL devices and network interfaces, and what they can do",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--fresh", action="store_true", help="probe again, whatever earlier probes have found"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from rich.console import Console

    from hummingbird.opencl.report import report
    from hummingbird.ports.netdev import interfaces

    console = Console()
    report(console, fresh=args.fresh)
    console.print("\n[bold]network interfaces[/bold]")
    for line in interfaces():
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    return 0
