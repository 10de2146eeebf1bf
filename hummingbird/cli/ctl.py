# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird ctl"""

from __future__ import annotations

import argparse
from typing import Any

from hummingbird.cli.arguments import add_name

DESCRIPTION = """\
Ask a running instance over its control socket: how it is, or to change. The exit status is 0 if it
was done, 1 if packets were still in flight when a drain ran out of time, 2 after an error, which
changes nothing."""

EPILOG = """\
example:
  hummingbird ctl status
  hummingbird ctl reload --name branch            # policy and topology; says what has changed
  hummingbird ctl reload policy
  hummingbird ctl reload --restart                # also what cannot change while it runs
  hummingbird ctl drain && hummingbird ctl resume
  hummingbird ctl status --json | jq .rates.sent_pps
  hummingbird ctl stop"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "ctl",
        help="ask a running instance for its status, or to reload, drain or stop",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_name(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _status(_add(commands, "status", "how it is, with rates over a short time"))
    reload = _add(commands, "reload", "read route policy and topology again; say what changed")
    _reload(reload)
    _timeout(reload)
    _timeout(_add(commands, "drain", "take nothing in, and wait until nothing is in flight"))
    _add(commands, "resume", "take packets in again after a drain")
    _timeout(_add(commands, "stop", "drain, end, and wait for the end"))
    _add(commands, "commands", "list what the instance may be asked for over its socket")


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    add_name(parser, default=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the answer as one JSON object")
    parser.set_defaults(main=main, command=name)
    return parser


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interval",
        type=_seconds,
        metavar="SECONDS",
        help="measure rates over this long (default: 0.5; 0: since the start)",
    )


def _reload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        choices=("policy", "topology"),
        help="policy: only that; topology: it and its policy (default)",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="if more than routes changed: drain, stop, and start the new topology in the same "
        "process; if that cannot start, the one before starts again",
    )


def _timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="wait for packets in flight for at most this long (default: 10)",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write seconds, 0 to 3600")
    return seconds


FIELDS = ("what", "restart", "interval", "timeout")


def main(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from hummingbird.ctl import Options, ask

    given = {name: getattr(args, name, None) for name in FIELDS}
    fields = {name: value for name, value in given.items() if value is not None}
    return ask(Options(args.command, args.name, fields, args.json))
