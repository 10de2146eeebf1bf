# SPDX-License-Identifier: BSD-3-Clause
"""What several subcommands take."""

from __future__ import annotations

import argparse
import math

from hummingbird.textfile import NAME, NAME_RULE


def add_name(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """``--name``, of an instance that runs.

    Args:
        parser: of a subcommand.
        default: argparse.SUPPRESS where the parser above it takes a name, too.
    """
    parser.add_argument(
        "--name",
        type=instance_name,
        default=default,
        help="of the instance (default: the only one that runs)",
    )


def seconds(text: str) -> float:
    """What --duration takes."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write seconds, such as 10 or 0.5")
    return found


def instance_name(text: str) -> str:
    """What --name takes."""
    if not NAME.fullmatch(text) or len(text) > 32:
        raise argparse.ArgumentTypeError(f"{text!r} is no name; write {NAME_RULE}, 32 at most")
    return text


def count(text: str) -> int:
    """What --count takes."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of packets; write 1 or more")
    return int(text)
