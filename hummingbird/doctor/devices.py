# SPDX-License-Identifier: BSD-3-Clause
"""Checks of OpenCL: platforms, devices, the tiers that earlier probes have found, watchdogs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hummingbird.doctor.finding import Finding, ok, problem, warning
from hummingbird.doctor.needs import Needs
from hummingbird.errors import UserError
from hummingbird.opencl import probe, watchdog
from hummingbird.opencl.device import Device, choose, devices, reserve_cores

_INSTALL = "sudo apt-get install pocl-opencl-icd   (for the CPU; or your GPU's OpenCL driver)"
_PROBE = "hummingbird devices"


def opencl(needs: Needs) -> Iterator[Finding]:
    """Is there a device, and what has the probe seen of it? Does not probe."""
    if needs.device is None:
        return
    reserve_cores(max(1, len(os.sched_getaffinity(0)) - 1))
    if needs.any:
        found = list(devices())
        yield from (_tier(device, "auto") for device in found)
        if not found:
            yield warning("OpenCL", "no device: NFs with engine: gpu run on the CPU", _INSTALL)
        return
    try:
        chosen = choose(needs.device.use)
    except UserError as error:
        yield problem("OpenCL", error.what, error.fix)
        return
    if chosen is None:
        yield warning("OpenCL", "no device: NFs with engine: gpu run on the CPU", _INSTALL)
    else:
        yield _tier(chosen, needs.device.executor)


def _tier(device: Device, executor: str) -> Finding:
    known = probe.known_tier(device)
    if known is None:
        what = f"{device.label}: not probed yet; the first run does (some seconds)"
        return ok("OpenCL", what) if executor == "launch" else warning("OpenCL", what, _PROBE)
    what = f"{device.label}: tier {known.tier}, {known.reason}"
    if known.tier == "C" and executor == "persistent":
        return problem("OpenCL", what, "executor: auto   (device: in the topology)")
    return ok("OpenCL", what)


def watchdogs(needs: Needs, sys: Path = Path("/sys")) -> Iterator[Finding]:
    """How long do GPU drivers let a kernel run? Ours stays below half of that by itself."""
    if needs.device is None:
        return
    limit = watchdog.tightest_ms(sys)
    if limit is None:
        yield ok("watchdog", "no GPU driver with a limit to how long a kernel runs")
        return
    wanted = needs.device.lifetime_ms
    if limit // 2 >= wanted:
        yield ok("watchdog", f"a kernel may run for {limit} ms; ours stay for {wanted} ms")
        return
    what = f"a kernel may run for {limit} ms; ours stay for {limit // 2} ms instead of {wanted} ms"
    yield warning("watchdog", what, _lift(sys, 2 * wanted))


def _lift(sys: Path, limit: int) -> str:
    """i915's can be set while it runs, amdgpu's when it is loaded."""
    files = sorted(sys.glob("class/drm/card*/engine/*/preempt_timeout_ms"))
    if files:
        return f"echo {limit} | sudo tee {sys}/class/drm/card*/engine/*/preempt_timeout_ms"
    return f"amdgpu.lockup_timeout={limit}   (on the kernel's command line)"
