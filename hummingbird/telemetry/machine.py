# SPDX-License-Identifier: BSD-3-Clause
"""The machine a run was on: what its figures depend on and a reader cannot know."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from hummingbird import __version__


def describe(opencl: str | None) -> dict[str, Any]:
    """For JSON; ``memory`` in bytes.

    Args:
        opencl: the runtime that is used, if any.
    """
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "hummingbird": __version__,
        "opencl": opencl,
    }


def cpu_model() -> str:
    """As the kernel calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() in ("model name", "cpu model", "hardware"):
            return value.strip()
    return platform.machine()
