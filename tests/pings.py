# SPDX-License-Identifier: BSD-3-Clause
"""The ping of iputils, of which every answer is to be had."""

from __future__ import annotations

import re

PATIENCE = ("-w", "30")
"""Options to wait for all answers, however long a busy machine takes for the last ones; by itself
ping waits for these no longer than two round trips. It goes on with more pings until it has had as
many answers as `-c` says, or a few more, if they come together: nobody knows how many it sends."""


def answered(said: str, count: int) -> int:
    """How many of the first ``count`` pings have had their answer, by what ping said."""
    assert "wrong data byte" not in said and "DUP!" not in said, said
    numbers = re.findall(r" bytes from .* icmp_seq=(\d+) ", said)
    return sum(int(number) <= count for number in numbers)
