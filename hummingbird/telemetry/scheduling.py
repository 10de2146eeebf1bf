# SPDX-License-Identifier: BSD-3-Clause
"""How long lcores have waited for their CPUs because somebody else had them, by /proc."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_LCORE = re.compile(r"hb-lcore(\d+)")  # as lcore.c calls its threads
_RUNQUEUE = 1
"""Field of /proc/PID/task/TID/schedstat: ns in which the thread was ready and did not run."""


def find_lcores(pid: int) -> dict[int, Path]:
    """Number of each lcore, and the file that says how it was scheduled; empty if that cannot be
    looked at."""
    found = {}
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            if match := _LCORE.fullmatch((task / "comm").read_text(encoding="utf-8").strip()):
                found[int(match[1])] = task / "schedstat"
    except OSError:  # another user's process, or one of another PID namespace, or it has ended
        return {}
    return found


def waited_ns(lcores: Mapping[int, Path]) -> dict[int, int]:
    """Nanoseconds since its start that each lcore was ready to run while others had its CPU."""
    found = {}
    for number, path in lcores.items():
        try:
            found[number] = int(path.read_text(encoding="ascii").split()[_RUNQUEUE])
        except (OSError, IndexError, ValueError):  # it has ended, or the kernel does not count this
            continue
    return found
