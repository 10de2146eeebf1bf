# SPDX-License-Identifier: BSD-3-Clause
"""nids on a device finds what it finds on a CPU, with its hot states in local memory and without.

packets ─┬─ hb_run_program on the CPU ───────────────┐
         └─ hb_batch on a device, both ways ─────────┴─ the same results
"""

from __future__ import annotations

import warnings
from typing import Any

import nf_helpers as nf
import numpy as np
import pytest
from nids_oracle import random_patterns, region, snort_patterns, sprinkled
from test_nf_device import COUNT, DIALECTS, GROUPS, LANES, ROWS, run_on_device

from hummingbird.nfs.automaton import LOCAL, Pattern
from hummingbird.opencl.program import builtin, source

cl = pytest.importorskip("pyopencl")


@pytest.fixture(scope="module", params=[0, LOCAL], ids=["table", "local"])
def device(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A context and the kernel, as the device program is built for CPUs and for GPUs."""
    found = next(device for platform in cl.get_platforms() for device in platform.get_devices())
    context = cl.Context([found])
    text = source([builtin("nids")], local_bytes=request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cl.CompilerWarning)
        program = cl.Program(context, text).build(DIALECTS["cl12"])
    return context, cl.Kernel(program, "hb_batch")


def patterns_of(what: str) -> list[Pattern]:
    rng = np.random.default_rng(147)
    if what == "random":
        return random_patterns(rng, 147)
    if what == "many":  # more states than 16 bits hold, none in local memory
        return [Pattern(rng.bytes(24), bool(i % 2)) for i in range(3_000)]
    return snort_patterns(what)


@pytest.mark.parametrize("what", ["random", "many", "content147.rules", "content3000.rules.xz"])
def test_results_are_those_of_the_cpu(device: tuple[Any, Any], what: str) -> None:
    patterns = patterns_of(what)
    rng = np.random.default_rng(64)
    packets = [nf.some_packet(rng) for _ in range(COUNT // 2)]
    for _ in range(COUNT - len(packets)):
        payload = sprinkled(rng, patterns, int(rng.integers(0, 400)))
        transport = nf.udp(payload, rng) if rng.integers(2) else nf.tcp(payload, rng)
        protocol = 17 if len(transport) == len(payload) + 8 else 6
        packets.append(nf.ETHERNET + b"\x08\x00" + nf.ipv4(transport, protocol, rng))
    tables, arg = region(patterns), np.zeros(COUNT, dtype=np.uint64)
    frames, work = nf.frames_of(packets)
    expected = nf.run_raw(tables, frames, work, arg)
    counts = np.full(GROUPS * ROWS, LANES)
    answers = run_on_device(*device, tables, frames.copy(), work, arg, counts)
    assert (answers == expected).all()
    assert (expected["result"] != 0).sum() > COUNT // 8
