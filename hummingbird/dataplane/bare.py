# SPDX-License-Identifier: BSD-3-Clause
"""An NF by itself, for benchmarks: one of its engines, or a peer in its place, gets the same
packets in bursts, pass by pass, on one core. There are neither ports nor routes."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs import Nf
from hummingbird.opencl.memory import host_region

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

FRAME = 2048
FIRST = int(lib.HB_FRAME_RESERVED) + int(lib.HB_FRAME_HEADROOM)
"""First packet byte of a frame, as ports fill it."""
BURST = 128
"""As many packets as a port takes in at a time."""
LOOKUPS = 64
"""Addresses of a call."""


@dataclass(frozen=True, eq=False)
class Engine:
    """One way to run an NF on a CPU."""

    kind: int
    number: int
    head: int
    tail: int
    tables: Any
    """Region of memory with the NF's table; the NF is its instance 0."""


@dataclass(frozen=True)
class Peer:
    """What runs in the place of an engine: addresses of a function and of its context."""

    address: int
    context: int


@dataclass(frozen=True)
class Ran:
    """What came of it. All but ``ns`` and ``passes`` is of the last pass."""

    ns: float
    """CPU time of a packet, lower quartile of the passes: disturbances only add."""
    passes: int
    result: Words
    verdict: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.uint16]
    end: npt.NDArray[np.uint16]
    frames: Bytes
    """[packets][FRAME]; the next run writes to them."""

    def packet(self, i: int) -> bytes:
        """Packet i as it came out."""
        return self.frames[i, self.offset[i] : self.end[i]].tobytes()

    def packets(self) -> Bytes:
        """All packets, [packets][length]; they must have come out alike.

        Raises:
            ValueError: they have several lengths or places.
        """
        offset, end = int(self.offset[0]), int(self.end[0])
        if (self.offset != offset).any() or (self.end != end).any():
            raise ValueError("the packets have several lengths or places")
        return self.frames[:, offset:end].copy()


def engines(kind: int) -> list[str]:
    """Names of the engines of an NF that are usable on this machine, the best one last."""
    return [
        name for number, name in enumerate(_names(kind)) if lib.hb_nf_engine_usable(kind, number)
    ]


def _names(kind: int) -> list[str]:
    found: list[str] = []
    while (name := lib.hb_nf_engine_name(kind, len(found))) != ffi.NULL:
        found.append(ffi.string(name).decode())
    return found


def engine(nf: Nf, name: str, tables: Any) -> Engine:
    """An engine of an NF over its table.

    Args:
        nf: the NF.
        name: of the engine, such as ``cpu``.
        tables: a memory.Region with a tables region, whose instance 0 is this NF.

    Raises:
        UserError: there is no such engine on this machine.
    """
    if name not in engines(nf.kind):
        raise UserError(f"the engine {name} of {nf.name} is not usable on this machine")
    return Engine(nf.kind, _names(nf.kind).index(name), nf.head, nf.tail, tables)


def run(
    side: Engine | Peer,
    packets: Bytes,
    *,
    seconds: float,
    arg: Words | None = None,
    host: Any = None,
    first: int = FIRST,
    burst: int = BURST,
) -> Ran:
    """Measure once, on the last CPU of this process.

    Args:
        side: what runs.
        packets: [packets][length], Ethernet; what they are before each pass.
        seconds: how long; 0: one pass.
        arg: what an engine is told about each packet, as prepare() would.
        host: what the NF has on the host, as ``void *``: not its engine alone is measured, but
            what it does before and after, too. It may make no packets of its own.
        first: where in its frame a packet begins.
        burst: packets at a time.

    Raises:
        UserError: it cannot be run.
    """
    n, length = packets.shape
    packets = np.ascontiguousarray(packets)
    frames = _frames(n)
    ran = Ran(
        0.0, 0, np.zeros(n, np.uint64), np.zeros(n, np.uint32), np.zeros(n, np.uint16),
        np.zeros(n, np.uint16), frames.array.reshape(-1, FRAME)[:n],
    )  # fmt: skip
    config = ffi.new("hb_bare_nf_config *")
    if isinstance(side, Peer):
        config.peer = ffi.cast("hb_bare_peer *", side.address)
        config.context = ffi.cast("void *", side.context)
    else:
        config.tables = ffi.cast("void *", side.tables.address)
        config.kind, config.engine = side.kind, side.number
        config.head, config.tail = side.head, side.tail
    config.frames = ffi.cast("void *", frames.address)
    config.frame_size, config.mbufs = FRAME, n
    config.packets = ffi.cast("void *", packets.ctypes.data)
    config.length, config.first, config.burst = length, first, burst
    if arg is not None:
        config.arg = ffi.cast("uint64_t *", arg.ctypes.data)
    if host is not None:
        config.whole, config.host = 1, host
    config.cpu, config.seconds = max(os.sched_getaffinity(0)), seconds
    config.result = ffi.cast("uint64_t *", ran.result.ctypes.data)
    config.verdict = ffi.cast("uint32_t *", ran.verdict.ctypes.data)
    config.offset = ffi.cast("uint16_t *", ran.offset.ctypes.data)
    config.end = ffi.cast("uint16_t *", ran.end.ctypes.data)
    result = ffi.new("hb_bare_nf_result *")
    if lib.hb_bare_nf(config, result):
        raise UserError("these packets cannot be run: out of memory, or the engine does not open")
    return Ran(result.ns, result.passes, ran.result, ran.verdict, ran.offset, ran.end, ran.frames)


@functools.cache
def _frames(n: int) -> Any:
    return host_region(n * FRAME)


def look_up(
    address: npt.NDArray[np.uint32], function: int, context: int, *, peer: bool, seconds: float
) -> tuple[float, Words]:
    """Measure look-ups of addresses, 64 a call, on the last CPU of this process.

    Args:
        address: IPv4 addresses in host order.
        function: address of hb_router_lookup_bulk or, with `peer`, of an hb_bare_lookup64.
        context: address of the table, or of what the peer wants.
        peer: it is a peer.
        seconds: how long; 0: one pass.

    Returns:
        ns of one look-up, and what was found.

    Raises:
        UserError: out of memory.
    """
    config = ffi.new("hb_bare_lookup_config *")
    if peer:
        config.peer = ffi.cast("hb_bare_lookup64 *", function)
    else:
        config.ours = ffi.cast("hb_bare_lookup16 *", function)
    hop = np.zeros(address.size, np.uint64)
    config.context = ffi.cast("void *", context)
    config.address = ffi.cast("uint32_t *", address.ctypes.data)
    config.n, config.burst = address.size, LOOKUPS
    config.cpu, config.seconds = max(os.sched_getaffinity(0)), seconds
    config.hop = ffi.cast("uint64_t *", hop.ctypes.data)
    result = ffi.new("hb_bare_nf_result *")
    if lib.hb_bare_lookup(config, result):
        raise UserError("out of memory")
    return float(result.ns), hop
