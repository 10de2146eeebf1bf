# SPDX-License-Identifier: BSD-3-Clause
"""The limits of GPU drivers, read from a copy of what their sysfs files look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from hummingbird.opencl.watchdog import tightest_ms


def _write(sys: Path, name: str, text: str) -> None:
    file = sys / name
    file.parent.mkdir(parents=True)
    file.write_text(text)


def test_no_gpu_driver_no_limit(tmp_path: Path) -> None:
    """A machine without a GPU."""
    assert tightest_ms(tmp_path) is None


def test_i915_has_a_limit_per_engine(tmp_path: Path) -> None:
    """The tightest engine counts; 0 is off."""
    for engine, limit in (("rcs0", "640"), ("ccs0", "7500"), ("bcs0", "0")):
        _write(tmp_path, f"class/drm/card0/engine/{engine}/preempt_timeout_ms", limit + "\n")
    assert tightest_ms(tmp_path) == 640


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("10000,3000,10000,10000", 3000),
        ("5000", 5000),
        ("-1", None),
        ("10000,-1", None),
        ("x", None),
    ],
)
def test_amdgpu_has_a_limit_per_kind_of_queue(tmp_path: Path, text: str, limit: int | None) -> None:
    """The compute queue is ours; one number holds for all; negative is off."""
    _write(tmp_path, "module/amdgpu/parameters/lockup_timeout", text + "\n")
    assert tightest_ms(tmp_path) == limit
