# SPDX-License-Identifier: BSD-3-Clause
"""What benchmarks of the queue by itself count, and that every packet's word is really touched.

host thread ── rows ── persistent | launch | launch with copies ── NF touch: word += 1
host thread ── enqueue loop, with copies or in shared memory ───── NF touch: word += 1
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from hummingbird.dataplane.plane import ping_pong, ring_hop
from hummingbird.errors import UserError
from hummingbird.nfs import NfTable
from hummingbird.opencl import probe
from hummingbird.opencl.bare import FRAME, BareQueue, EnqueueLoop
from hummingbird.opencl.device import Device, choose
from hummingbird.opencl.session import LAUNCH, PERSISTENT

pytest.importorskip("pyopencl")

DATA = 256 + 128
"""First packet byte of a frame: HB_FRAME_RESERVED + HB_FRAME_HEADROOM."""
SECONDS = 0.05
WAYS = {"persistent": (PERSISTENT, None), "launch": (LAUNCH, None), "staged": (LAUNCH, "staged")}


@pytest.fixture(scope="module")
def device() -> Device:
    found = choose("auto")
    if found is None:
        pytest.skip("NOT TESTED: there is no OpenCL device")
    return found


def two_cpus() -> tuple[int, int]:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("NOT TESTED: there is one CPU only")
    return cpus[0], cpus[1]


def words(frames: Any, packets: int, at: int) -> Any:
    """The 32-bit word at `at` of each packet."""
    return frames[:packets, DATA + at : DATA + at + 4].copy().view(">u4").reshape(-1)


# ---- two CPUs ------------------------------------------------------------------------------------


def test_ping_pong_is_between_a_cache_and_a_context_switch() -> None:
    before = os.sched_getaffinity(0)
    assert 10 < ping_pong(*two_cpus()) < 100_000
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("headers", [False, True])
def test_a_ring_hop_takes_some_time(headers: bool) -> None:
    assert 0.1 < ring_hop(*two_cpus(), 100_000, headers=headers) < 10_000


@pytest.mark.parametrize("pair", [(0, 0), (-1, 0), (0, 1 << 20), (0, 1023)])
def test_threads_that_cannot_be_had(pair: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="no two threads"):
        ping_pong(*pair)
    with pytest.raises(UserError, match="no two threads"):
        ring_hop(*pair, 1000, headers=True)


# ---- the queue -----------------------------------------------------------------------------------


def open_queue(device: Device, way: str, **shape: Any) -> BareQueue:
    executor, binding = WAYS[way]
    if executor == PERSISTENT:
        tier = probe.tier_of(device)
        if tier.tier == "C":
            pytest.skip(f"{device.label} runs no persistent kernel: {tier.reason}")
        binding = tier.binding
    return BareQueue(device, executor, binding=binding, **shape)


@pytest.mark.parametrize("way", WAYS)
def test_every_packet_is_touched_once_for_each_time_it_was_sent(device: Device, way: str) -> None:
    queue = open_queue(device, way, lanes=16, depth=8, workgroups=2)
    affinity = os.sched_getaffinity(0)
    for count, together in ((16, False), (5, False), (16, True)):
        found = queue.run(
            rows=9, count=count, length=200, touch=128, together=together, seconds=SECONDS
        )
        assert found.wrong == 0 and found.launches > 0
        assert found.packets == found.rows * count > 0
        assert (found.trip_us is not None) == together
        assert found.host_ns_per_packet is not None and found.host_ns_per_packet > 0
        for at in (0, 64):
            seen = words(queue.frames, 9 * 16, at)
            assert seen.sum() == found.touched >= found.packets
            assert seen.max() - seen.min() <= 1
        assert not words(queue.frames, 9 * 16, 128).any()
    assert os.sched_getaffinity(0) == affinity


def test_a_word_that_was_not_touched_is_found(device: Device) -> None:
    """NF forward instead of touch: answers are right, packets are not."""
    from hummingbird.opencl import bare

    forward = bare.Program("forward", 1, NfTable(np.zeros(0, dtype=np.uint8)))
    queue = BareQueue(device, LAUNCH, lanes=16, depth=8, nf=forward)
    assert queue.run(rows=4, seconds=SECONDS).wrong == 0
    queue._nf = bare.TOUCH
    assert queue.run(rows=4, seconds=SECONDS).wrong == 4 * 16


def test_rows_of_dummies_carry_nothing(device: Device) -> None:
    queue = open_queue(device, "persistent", lanes=16, depth=8)
    found = queue.run(rows=8, count=0, together=True, seconds=SECONDS)
    assert (found.packets, found.wrong) == (0, 0)
    assert found.rows > 0 and found.host_ns_per_packet is None
    assert not words(queue.frames, 128, 0).any()


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"rows": 0}, "rows in flight"),
        ({"rows": 9}, "rows in flight"),
        ({"rows": 1, "count": 17}, "no row of 16"),
        ({"rows": 1, "length": 3}, "does not fit"),
        ({"rows": 1, "length": FRAME}, "does not fit"),
        ({"rows": 1, "seconds": 0.0}, "not possible"),
        ({"rows": 1, "seconds": 1e9}, "not possible"),
    ],
)
def test_impossible_runs(device: Device, bad: dict[str, Any], match: str) -> None:
    queue = BareQueue(device, LAUNCH, lanes=16, depth=8)
    with pytest.raises(UserError, match=match):
        queue.run(**bad)


def test_impossible_queues(device: Device) -> None:
    shapes: list[dict[str, Any]] = [
        {"lanes": 0},
        {"lanes": 1 << 20},
        {"depth": 3},
        {"workgroups": 0},
    ]
    for shape in shapes:
        with pytest.raises(UserError):
            BareQueue(device, LAUNCH, **shape)
    with pytest.raises(UserError, match="shares no memory"):
        BareQueue(device, PERSISTENT, binding="staged")


# ---- the loop without it -------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [True, False])
def test_the_enqueue_loop_touches_every_packet(device: Device, copies: bool) -> None:
    try:
        loop = EnqueueLoop(device, 96, group=32, copies=copies)
    except UserError as error:
        pytest.skip(str(error))
    found = loop.run(length=200, touch=128, seconds=SECONDS)
    assert found.wrong == 0
    assert found.packets == found.rows * 96 > 0
    assert found.touched == found.launches * 96 > found.packets
    for at in (0, 64):
        assert (words(loop.frames, 96, at) == found.launches).all()
    assert not words(loop.frames, 96, 128).any()


def test_impossible_loops(device: Device) -> None:
    for batch, group in ((100, 64), (0, 64), (64, 0), (64, 1 << 20)):
        with pytest.raises(UserError):
            EnqueueLoop(device, batch, group=group)
    with pytest.raises(UserError, match="does not fit"):
        EnqueueLoop(device, 64).run(length=FRAME)
