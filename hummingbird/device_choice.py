# SPDX-License-Identifier: BSD-3-Clause
"""Which OpenCL device runs the GPU NFs of a topology, and how (design section 4, Tiers)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hummingbird import logs
from hummingbird.errors import UserError
from hummingbird.opencl import probe
from hummingbird.opencl.device import Device, choose, on_cpus, reserve_cores
from hummingbird.opencl.session import LAUNCH, PERSISTENT
from hummingbird.topology import Topology


@dataclass(frozen=True)
class DeviceChoice:
    """The device that runs the GPU NFs, and how; all None if CPUs run them."""

    device: Device | None = None
    executor: str | None = None
    tier: str | None = None
    reason: str = ""
    binding: str | None = None
    """The memory that the probe has seen a running kernel share; None: the first that there is."""


def choose_device(topology: Topology, spare: Sequence[int]) -> DeviceChoice:
    """Device and executor for a topology.

    Args:
        topology: what shall run.
        spare: CPUs that a CPU runtime may use.

    Raises:
        UserError: no such device, or ``executor: persistent`` where the probe says no.
    """
    if not topology.uses_device:
        if topology.device.use not in ("auto", "none"):
            logs.warning(
                "device_unused",
                f"device.use is {topology.device.use}, but no NF has engine: gpu",
                fix="give an NF engine: gpu, or take device.use away",
            )
        return DeviceChoice()
    reserve_cores(max(1, len(spare)))
    with on_cpus(spare):
        device = choose(topology.device.use, probe.has_run)
    if device is None:
        logs.warning(
            "device_missing",
            "no OpenCL device: NFs with engine: gpu run on the CPU",
            fix="apt-get install pocl-opencl-icd, or a GPU driver",
        )
        return DeviceChoice()
    wanted = topology.device.executor
    if wanted == LAUNCH:
        known = probe.known_tier(device)
        return DeviceChoice(device, LAUNCH, known.tier if known else None, "asked for")
    if probe.known_tier(device) is None:
        what = f"probing {device.label} once (some seconds; the result is kept)"
        logs.info("probing", what, subject=device.label)
    tier = probe.tier_of(device)
    if tier.tier != "C":
        return DeviceChoice(device, PERSISTENT, tier.tier, tier.reason, tier.binding)
    if wanted == PERSISTENT:
        raise UserError(
            f"{device.label} is tier C, it cannot run a persistent kernel: {tier.reason}",
            field="device.executor",
            fix="write executor: auto or executor: launch",
        )
    return DeviceChoice(device, LAUNCH, tier.tier, tier.reason)
