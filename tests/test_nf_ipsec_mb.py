# SPDX-License-Identifier: BSD-3-Clause
"""The engine ipsec_mb: to the byte what the packet function does, whatever comes.

packets ─┬─ engine "cpu" ───────┐
         └─ engine "ipsec_mb" ──┴─ the same frames, answers and results
"""

from __future__ import annotations

import dataclasses
from typing import Any

import nf_helpers as nf
import numpy as np
import pytest
from ipsec_helpers import (
    BYPASS,
    DECAPSULATE,
    ENCAPSULATE,
    HEAD,
    SUITES,
    TAIL,
    TUNNEL,
    arg,
    reverse,
    sa,
)

from hummingbird.dataplane import bare
from hummingbird.nfs import load
from hummingbird.nfs.ipsec_table import make_table
from hummingbird.nfs.tables import layout
from hummingbird.opencl.memory import host_region

IPSEC = dataclasses.replace(load("ipsec"), head=HEAD, tail=TAIL)
SAS = [
    sa(cipher, auth, tunnel=tunnel, udp=udp, spi=256 + i)
    for i, (cipher, auth, tunnel, udp) in enumerate(
        (cipher, auth, tunnel, udp)
        for cipher, auth in [*SUITES, ("aes-128-cbc", "none")]
        for tunnel in (TUNNEL, None)
        for udp in (None, (4500, 4501))
    )
]
COUNT = 8 * len(SAS)


@pytest.fixture(scope="module")
def tables() -> Any:
    """SAs in one direction, then in the other."""
    if "ipsec_mb" not in bare.engines(IPSEC.kind):
        pytest.skip("NOT TESTED: libipsec-mb is not installed, or this CPU has no AES instructions")
    made = layout([(IPSEC.kind, make_table([*SAS, *map(reverse, SAS)]))], [[0]])
    region = host_region(made.size)
    made.fill(region.array)
    return region


def both(tables: Any, packets: nf.Array, args: nf.Array, burst: int = 256) -> bare.Ran:
    """What the portable engine makes of them, and ipsec_mb too."""
    by_cpu = bare.run(bare.engine(IPSEC, "cpu", tables), packets, seconds=0, arg=args, burst=burst)
    frames = by_cpu.frames.copy()  # the next run writes to them
    by_mb = bare.run(
        bare.engine(IPSEC, "ipsec_mb", tables), packets, seconds=0, arg=args, burst=burst
    )
    for field in ("verdict", "result", "offset", "end"):
        assert (getattr(by_cpu, field) == getattr(by_mb, field)).all(), field
    assert (frames == by_mb.frames).all()
    return by_mb


@pytest.mark.parametrize("burst", [1, 7, 256])
@pytest.mark.parametrize("size", [20, 34, 64, 120, 1480])
def test_the_same_bytes_both_ways(tables: Any, size: int, burst: int) -> None:
    """Every suite, mode and form in one burst; back, a third of the packets are damaged."""
    rng = np.random.default_rng(size)
    plain = np.stack(
        [
            np.frombuffer(
                nf.ETHERNET + b"\x08\x00" + nf.ipv4(rng.bytes(size - 20), 253, rng), np.uint8
            )
            for _ in range(COUNT)
        ]
    )
    index = np.arange(COUNT) % len(SAS)
    args = np.array([arg(ENCAPSULATE, i + 1, int(index[i])) for i in range(COUNT)], np.uint64)
    args[5] = arg(BYPASS)
    args[6] = arg(0, 3)
    args[7] = arg(ENCAPSULATE, 1, 60_000)
    sealed = both(tables, plain, args, burst)
    assert (sealed.verdict == nf.PASS).sum() == COUNT - 2

    longest = int((sealed.end - sealed.offset).max())
    esp = np.zeros((COUNT, longest), np.uint8)
    for i in range(COUNT):
        packet = sealed.packet(i)
        esp[i, : len(packet)] = np.frombuffer(packet, np.uint8)
        if i % 3 == 0:
            esp[i, int(rng.integers(34, longest))] ^= 1 << int(rng.integers(8))
    args = np.array([arg(DECAPSULATE, 0, len(SAS) + int(i)) for i in index], np.uint64)
    opened = both(tables, esp, args, burst)
    passed = opened.verdict == nf.PASS
    assert COUNT // 2 < passed.sum() < COUNT
    whole = [opened.packet(i) == plain[i].tobytes() for i in np.flatnonzero(passed)]
    assert sum(whole) > 0.95 * len(whole)  # not those whose cipher goes without authentication


def test_gcm_keys_of_both_sizes(tables: Any) -> None:
    """The library has a form of its own for them."""
    rng = np.random.default_rng(4106)
    plain = np.stack(
        [
            np.frombuffer(nf.ETHERNET + b"\x08\x00" + nf.ipv4(bytes(60), 253, rng), np.uint8)
            for _ in range(64)
        ]
    )
    for key in (bytes(20), bytes(range(20)), bytes(range(100, 136))):
        cipher = "aes-128-gcm" if len(key) == 20 else "aes-256-gcm"
        made = layout([(IPSEC.kind, make_table([sa(cipher, "none", key=key)]))], [[0]])
        region = host_region(made.size)
        made.fill(region.array)
        args = np.array([arg(ENCAPSULATE, i + 1) for i in range(64)], np.uint64)
        assert (both(region, plain, args).verdict == nf.PASS).all()


@pytest.mark.parametrize("first", ["as the rest", "another key", "the longest"])
def test_every_job_comes_back_from_and_after_full_bursts(first: str, tables: Any) -> None:
    """The library's queue of jobs is a ring with as many places as a burst has packets. Jobs leave
    it in order: it fills up behind a first one of another kind, or much longer than the rest,
    which is done when it is flushed only. And it goes round, with few packets behind.
    """
    rng = np.random.default_rng(256)
    count, longest = 2 * 256 + 44, 1480
    kinds = [sa("aes-128-cbc", "hmac-sha1-96"), sa("aes-256-cbc", "hmac-sha2-256-128")]
    made = layout([(IPSEC.kind, make_table([*kinds, *map(reverse, kinds)]))], [[0]])
    region = host_region(made.size)
    made.fill(region.array)
    index, sizes = np.zeros(count, int), np.full(count, 40)
    if first == "another key":
        index[::256] = 1
    if first == "the longest":
        sizes[::256] = longest
    plain = np.zeros((count, 14 + longest), np.uint8)
    for i in range(count):
        packet = nf.ETHERNET + b"\x08\x00" + nf.ipv4(rng.bytes(sizes[i] - 20), 253, rng)
        plain[i, : len(packet)] = np.frombuffer(packet, np.uint8)

    args = np.array([arg(ENCAPSULATE, i + 1, int(index[i])) for i in range(count)], np.uint64)
    sealed = both(region, plain, args)
    assert (sealed.verdict == nf.PASS).all()
    esp = np.zeros((count, int((sealed.end - sealed.offset).max())), np.uint8)
    for i in range(count):
        packet = sealed.packet(i)
        esp[i, : len(packet)] = np.frombuffer(packet, np.uint8)
    args = np.array([arg(DECAPSULATE, 0, len(kinds) + int(i)) for i in index], np.uint64)
    assert (both(region, esp, args).verdict == nf.PASS).all()
