# SPDX-License-Identifier: BSD-3-Clause
"""The bare queues and enqueue loops that benchmarks measure: opened when first needed and kept."""

from __future__ import annotations

import functools
import os

from chains import POLICIES
from harness import Reading

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, load
from hummingbird.opencl import probe
from hummingbird.opencl.bare import TOUCH, BareQueue, EnqueueLoop, Measured, Program, spare_cpus
from hummingbird.opencl.device import Device, choose, on_cpus, reserve_cores
from hummingbird.opencl.session import PERSISTENT

LANES = 64
MOST_ROWS = 128
"""In flight: two launches of as many rows as a stage holds."""
BATCHES = (64, 256, 1024, 4096)
"""Packets that go to the device together; the last is all that a stage holds."""

# The first OpenCL call of a process settles how many cores a CPU runtime takes.
reserve_cores(max(1, len(os.sched_getaffinity(0)) - 1))


@functools.cache
def device() -> Device:
    """The device that `hummingbird run` would take; UserError without one."""
    with on_cpus(spare_cpus()):  # where a CPU runtime's threads stay
        found = choose("auto")
    if found is None:
        raise UserError("there is no OpenCL device")
    return found


@functools.cache
def queue(
    executor: str, *, lanes: int = LANES, copies: bool = False, nf: Program = TOUCH
) -> BareQueue:
    """A queue of MOST_ROWS rows; UserError where the device cannot."""
    binding = "staged" if copies else None
    if executor == PERSISTENT:
        tier = probe.tier_of(device())
        if tier.tier == "C":
            raise UserError(f"{device().label} runs no persistent kernel: {tier.reason}")
        binding = tier.binding
    # beside one host thread a CPU runtime of two cores runs one workgroup at a time
    workgroups = 1 if device().is_cpu else min(device().compute_units, MOST_ROWS // 2)
    depth = 2
    while depth * workgroups < MOST_ROWS:
        depth *= 2
    return BareQueue(
        device(), executor, lanes=lanes, depth=depth, workgroups=workgroups, binding=binding, nf=nf
    )


@functools.cache
def loop(batch: int, *, copies: bool) -> EnqueueLoop:
    """An enqueue loop; UserError where the device cannot."""
    return EnqueueLoop(device(), batch, group=LANES, copies=copies)


@functools.cache
def nids() -> Program:
    """The intrusion detection of the demonstration: no packet here has a pattern."""
    nf = load("nids")
    params = nf.params.model_validate({"rules": "demo/web.rules", "on_alert": "suspicious"})
    context = BuildContext("nids0", POLICIES, {"other": 0, "suspicious": 1})
    return Program(nf.name, nf.kind, nf.build(params, context))


def reading(measured: Measured, value: float | None = None) -> Reading:
    """A reading in Mpps, or of ``value``; UserError if the device did something wrong."""
    if measured.wrong:
        raise UserError(f"{measured.wrong} packets came back wrong")
    more = {
        "packets": measured.packets,
        "rows": measured.rows,
        "launches": measured.launches,
        "host_ns_per_packet": measured.host_ns_per_packet,
        "host_tsc_ticks_per_packet": measured.host_ticks_per_packet,
    }
    return Reading(measured.mpps if value is None else value, more)
