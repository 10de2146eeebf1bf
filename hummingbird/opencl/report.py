# SPDX-License-Identifier: BSD-3-Clause
"""What `hummingbird devices` says of each device: its claims, and what the probe saw."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

from hummingbird.opencl import probe
from hummingbird.opencl.device import Device, devices, reserve_cores
from hummingbird.opencl.probe import Tier

VERDICTS = {
    "A": "runs the persistent kernel; the driver promises what it needs",
    "B": "runs the persistent kernel; it works here, but the driver does not promise it",
    "C": "runs the launch executor: short kernels, with copies where memory is not shared",
}


def report(console: Console, *, fresh: bool) -> list[dict[str, Any]]:
    """Probe and describe every device; prints to ``console`` and returns the same for JSON.

    Args:
        console: where to print.
        fresh: probe again what the cache knows.
    """
    reserve_cores(max(1, len(os.sched_getaffinity(0)) - 1))
    found = []
    for device in devices():
        if fresh or probe.known_tier(device) is None:
            console.print(f"probing {device.label} (some seconds) ...", highlight=False)
        tier = probe.tier_of(device, fresh=fresh)
        found.append(_entry(device, tier))
        _show(console, device, tier)
    if not found:
        console.print(
            "No OpenCL device: GPU NFs run on the CPU.\n"
            "  fix: apt-get install pocl-opencl-icd (CPU), or your GPU's OpenCL driver"
        )
    return found


def _entry(device: Device, tier: Tier) -> dict[str, Any]:
    return {
        "name": device.name,
        "platform": device.platform,
        "runtime": device.runtime,
        "is_cpu": device.is_cpu,
        "compute_units": device.compute_units,
        "svm": sorted(device.svm),
        "tier": tier.tier,
        "reason": tier.reason,
        "binding": tier.binding,
        "dialect": tier.dialect,
        "resident_groups": tier.resident,
        "verdict": VERDICTS[tier.tier],
    }


def _show(console: Console, device: Device, tier: Tier) -> None:
    kind = "CPU" if device.is_cpu else "GPU"
    lines = [
        ("platform", f"{device.platform}, {device.runtime}"),
        ("kind", f"{kind}, {device.compute_units} compute units offered"),
        ("claims", ", ".join(sorted(device.svm)) or "no shared virtual memory"),
        ("probe", f"{tier.packets:,} packets checked both ways, {tier.reason}"),
        ("memory", f"{tier.binding or '-'}, dialect {tier.dialect or '-'}"),
        ("resident", f"{tier.resident} of {tier.launched} workgroups launched ran at once"),
        ("tier", f"{tier.tier}: {VERDICTS[tier.tier]}"),
    ]
    console.print(f"\n[bold]{device.name}[/bold]", highlight=False)
    for name, text in lines:
        console.print(f"  {name:<10}{text}", highlight=False, soft_wrap=True)
    if device.is_cpu:
        console.print("  note      a CPU plays the GPU here: it takes cores from the data plane")
