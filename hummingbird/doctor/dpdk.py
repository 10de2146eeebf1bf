# SPDX-License-Identifier: BSD-3-Clause
"""Checks of DPDK: is it there, and is the plug-in that joins it to us?"""

from __future__ import annotations

import ctypes.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hummingbird.doctor.finding import Finding, ok, problem, warning
from hummingbird.doctor.needs import Needs
from hummingbird.errors import UserError
from hummingbird.ports import dpdk


def libraries(needs: Needs) -> Iterator[Finding]:
    """Are DPDK's libraries installed, and which version?"""
    if "dpdk" not in needs.drivers() or needs.dpdk.build == "mdpdk":  # which has its own inside
        return
    found = ctypes.util.find_library("rte_eal")
    if found is None:
        report = warning if needs.any else problem
        what = "its libraries are not installed"
        yield report("DPDK", what, "sudo apt-get install dpdk libdpdk-dev && make")
    else:
        version = _version()
        yield ok("DPDK", f"{f'version {version}, ' if version else ''}{found}")


def _version() -> str | None:
    """As its development package says."""
    if shutil.which("pkg-config") is None:
        return None
    command = ["pkg-config", "--modversion", "libdpdk"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def plugin(needs: Needs) -> Iterator[Finding]:
    """Is the plug-in built, and are the libraries there that it was built with?"""
    if "dpdk" not in needs.drivers():
        return
    report = warning if needs.any else problem
    path = dpdk.plugin_of(needs.dpdk)
    try:
        dpdk.check_plugin(path)
    except UserError as error:
        yield report("DPDK", error.what, error.fix)
        return
    if missing := _missing(path):
        what = f"{path.name} was built with other libraries than there are: no {missing[0]}"
        yield report("DPDK", what, "touch setup.py && make")
    else:
        yield ok("DPDK", f"the plug-in {path.name} is built")


def _missing(path: Path) -> list[str]:
    """Libraries that the loader does not find."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True)
    return re.findall(r"(\S+) => not found", done.stdout)
