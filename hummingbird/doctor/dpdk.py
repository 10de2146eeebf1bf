# SPDX-License-Identifier: BSD-3-Clause
"""Checks of DPDK: is it there, and is what joins it to us built?"""

from __future__ import annotations

import ctypes.util
import shutil
import subprocess
from collections.abc import Iterator

from hummingbird.doctor.finding import Finding, ok, problem
from hummingbird.doctor.needs import Needs

_INSTALL = "sudo apt-get install dpdk dpdk-dev"


def libraries(needs: Needs) -> Iterator[Finding]:
    """Are DPDK's libraries installed, and which version?"""
    if "dpdk" not in needs.drivers():
        return
    found = ctypes.util.find_library("rte_eal")
    if found is None:
        yield problem("DPDK", "its libraries are not installed", _INSTALL)
        return
    version = _version()
    if version is None:
        yield problem("DPDK", f"{found} is there, its headers are not", _INSTALL)
    else:
        yield ok("DPDK", f"version {version}, {found}")


def _version() -> str | None:
    """As its development package says."""
    if shutil.which("pkg-config") is None:
        return None
    command = ["pkg-config", "--modversion", "libdpdk"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
