# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird web"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hummingbird.cli.arguments import add_name

if TYPE_CHECKING:
    from hummingbird.web.listen import Address

DESCRIPTION = """\
Serve a running instance over HTTP, read-only: the live page at /, the same as
JSON at /status.json, metrics for Prometheus at /metrics. It is a process of its
own that reads shared memory; it waits for an instance that does not run yet, or
no more."""

EPILOG = """\
example:
  hummingbird web
  hummingbird web --name branch --listen 127.0.0.1:9465
  hummingbird web --listen '[::1]:9464'
  curl -s http://127.0.0.1:9464/metrics | grep dropped

There is no password: whoever reaches the address can read. From another machine
  ssh -L 9464:127.0.0.1:9464 HOST
takes you to http://localhost:9464/ without opening it to others."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "web",
        help="serve page, status and metrics of a running instance",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_name(parser)
    parser.add_argument(
        "--listen",
        type=_address,
        default="127.0.0.1:9464",
        metavar="HOST:PORT",
        help="where; port 0 is any that is free (default: %(default)s)",
    )
    parser.set_defaults(main=main)


def _address(text: str) -> Address:
    from hummingbird.web.listen import Address

    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (":" in host and bare == host) or not bare or not port.isascii() or not port.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address; write HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464"
        )
    if int(port[:6]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: a port is a number up to 65535")
    return Address(bare, int(port))


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    import sys

    from rich.console import Console

    from hummingbird.web.serve import serve

    return serve(args.name, args.listen, Console(width=None if sys.stdout.isatty() else 1000))
