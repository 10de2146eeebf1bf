# SPDX-License-Identifier: BSD-3-Clause
"""How long a GPU's kernel driver lets one kernel run before it resets the device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def tightest_ms(sys: Path = Path("/sys")) -> int | None:
    """The shortest limit of any GPU driver of this machine in milliseconds; None: no limit found.

    i915 states its limits per engine (preempt_timeout_ms; 0 is off), amdgpu per kind of queue in a
    module parameter (lockup_timeout: GFX, compute, SDMA, video; negative is off).
    """
    return min(_limits(sys), default=None)


def _limits(sys: Path) -> Iterator[int]:
    for file in sys.glob("class/drm/card*/engine/*/preempt_timeout_ms"):
        yield from _positive(file, 0)
    yield from _positive(sys / "module/amdgpu/parameters/lockup_timeout", 1)


def _positive(file: Path, index: int) -> Iterator[int]:
    """The number at this place of a list in a file, or its only one, if it is a limit."""
    try:
        values = [int(part) for part in file.read_text(encoding="ascii").strip().split(",")]
    except (OSError, ValueError):
        return
    value = values[index] if index < len(values) else values[0]
    if value > 0:
        yield value
