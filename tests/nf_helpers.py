# SPDX-License-Identifier: BSD-3-Clause
"""Runs NFs on packets without threads, queues or devices: straight through hb_run_program()."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hummingbird.dataplane import _native
from hummingbird.nfs import NfTable
from hummingbird.nfs.tables import layout

ffi, lib = _native.ffi, _native.lib

FRAME = 2048
START = 384  # of the packet in its frame
NO_LAYER = 0xFF
PASS, DROP, RETYPE = 1, 2, 3

WORK = np.dtype(
    [
        ("frame", "u4"),
        ("offset", "u2"),
        ("length", "u2"),
        ("l3", "u1"),
        ("l4", "u1"),
        ("type", "u2"),
        ("flow", "u4"),
    ]
)
DONE = np.dtype(
    [
        ("offset", "u2"),
        ("length", "u2"),
        ("value", "u2"),
        ("verdict", "u1"),
        ("stopped", "u1"),
        ("result", "u8"),
    ]
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """What became of a packet."""

    verdict: int
    value: int
    result: int
    data: bytes

    @property
    def reason(self) -> str | None:
        """Why it was dropped; None if it was not."""
        return REASONS[self.value] if self.verdict == DROP else None


def _names(of: Any, first: int) -> list[str]:
    names = []
    while (name := of(first + len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


REASONS = _names(lib.hb_reason_name, 0)
KINDS = _names(lib.hb_nf_kind_name, 1)


def region(kind: int, table: npt.NDArray[np.uint8] | NfTable) -> Array:
    """A tables region with one NF and one program that runs it."""
    plan = layout([(kind, table if isinstance(table, NfTable) else NfTable(table))], [[0]])
    memory = np.zeros(plan.size + 4096, dtype=np.uint8)
    memory = memory[-memory.ctypes.data % 4096 :][: plan.size]
    plan.fill(memoryview(memory))
    return memory


def offsets(packet: bytes) -> tuple[int, int]:
    """l3 and l4 as the data plane finds them; it drops damaged packets, the NFs get them here."""
    at = 12
    while packet[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    ethertype, at = packet[at : at + 2], at + 2
    header = packet[at : at + 40].ljust(40, b"\0")
    if ethertype == b"\x08\x00":
        later = int.from_bytes(header[6:8], "big") & 0x1FFF
        return at, NO_LAYER if later else at + 4 * (header[0] & 15)
    if ethertype == b"\x86\xdd":
        protocol, l4 = header[6], at + 40
        while protocol in (0, 43, 60) and l4 + 8 <= len(packet):
            protocol, l4 = packet[l4], l4 + 8 + 8 * packet[l4 + 1]
        return at, min(l4, NO_LAYER)
    return NO_LAYER, NO_LAYER


def frames_of(
    packets: Sequence[bytes], flow: Sequence[int] | None = None, size: int = FRAME
) -> tuple[Array, Array]:
    """Frames, and the work entries that name them."""
    frames = np.zeros((len(packets), size), dtype=np.uint8)
    work = np.zeros(len(packets), dtype=WORK)
    for i, packet in enumerate(packets):
        frames[i, START : START + len(packet)] = np.frombuffer(packet, dtype=np.uint8)
        l3, l4 = offsets(packet)
        work[i] = (i, START, len(packet), l3, l4, 0, flow[i] if flow is not None else i)
    return frames, work


def run(
    tables: Array,
    packets: Sequence[bytes],
    args: Sequence[int] | None = None,
    head: int = 128,
    tail: int = 64,
) -> list[Answer]:
    """Run program 0 on each packet, with ``head`` and ``tail`` bytes of room around it."""
    frames, work = frames_of(packets)
    arg = np.array(args if args is not None else [0] * len(packets), dtype=np.uint64)
    done = run_raw(tables, frames, work, arg, head, tail)
    return answers(frames, done)


def run_raw(
    tables: Array, frames: Array, work: Array, arg: Array, head: int = 128, tail: int = 64
) -> Array:
    """Run program 0 on frames and work as arrays; the frames change."""
    done = np.zeros(len(work), dtype=DONE)
    pointers = [ffi.cast("void *", array.ctypes.data) for array in (frames, tables, work, done)]
    frames_at, tables_at, work_at, done_at = pointers
    arg_at = ffi.cast("uint64_t *", arg.ctypes.data)
    stride = frames.shape[1]
    lib.hb_run_program(
        frames_at, stride, tables_at, 0, head, tail, work_at, arg_at, done_at, len(work)
    )
    return done


def answers(frames: Array, done: Array) -> list[Answer]:
    """The device's or the CPU's answers, readable."""
    return [
        Answer(
            int(d["verdict"]),
            int(d["value"]),
            int(d["result"]),
            frame[d["offset"] : int(d["offset"]) + int(d["length"])].tobytes(),
        )
        for frame, d in zip(frames, done, strict=True)
    ]


def real_data(name: str) -> Path:
    """A file or folder of the real data that is not part of this repository; skips without it."""
    default = Path(__file__).parent.parent.parent / "shared" / "data"
    path = Path(os.environ.get("HUMMINGBIRD_TEST_DATA", default)) / name
    if not path.exists():
        pytest.skip(f"NOT TESTED on real data: there is no {path}; see HUMMINGBIRD_TEST_DATA")
    return path


# ---- packets -------------------------------------------------------------------------------------

ETHERNET = bytes.fromhex("020000000001 020000000002")


def ip_sum(header: bytes) -> int:
    """The IPv4 header checksum (RFC 1071)."""
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(payload: bytes, protocol: int, rng: np.random.Generator, options: int = 0) -> bytes:
    """An IPv4 packet with random addresses and a right checksum; ``options`` in words."""
    header = bytearray(rng.bytes(20 + 4 * options))
    header[0] = 0x45 + options
    header[2:4] = (len(header) + len(payload)).to_bytes(2, "big")
    header[6:8] = bytes([header[6] & 0x40, 0])
    header[9:12] = bytes([protocol, 0, 0])
    header[10:12] = ip_sum(header).to_bytes(2, "big")
    return bytes(header) + payload


def ipv6(payload: bytes, protocol: int, rng: np.random.Generator) -> bytes:
    """An IPv6 packet with random addresses."""
    start = (0x60000000 | int(rng.integers(1 << 28))).to_bytes(4, "big")
    return start + len(payload).to_bytes(2, "big") + bytes([protocol, 64]) + rng.bytes(32) + payload


def tcp(payload: bytes, rng: np.random.Generator, options: int = 0) -> bytes:
    """A TCP segment; ``options`` in words."""
    header = bytearray(rng.bytes(20 + 4 * options))
    header[12] = (5 + options) << 4
    return bytes(header) + payload


def udp(payload: bytes, rng: np.random.Generator) -> bytes:
    """A UDP datagram."""
    return rng.bytes(4) + (8 + len(payload)).to_bytes(2, "big") + rng.bytes(2) + payload


def some_packet(rng: np.random.Generator) -> bytes:
    """A packet of a mixed bag: mostly right ones, some damaged, some nonsense."""
    payload = rng.bytes(int(rng.integers(0, 200 if rng.random() < 0.8 else 1380)))
    transport, protocol = [
        (tcp(payload, rng, int(rng.integers(0, 11))), 6),
        (udp(payload, rng), 17),
        (payload, int(rng.integers(256))),
    ][rng.integers(3)]
    tags = b"".join(b"\x81\x00" + rng.bytes(2) for _ in range(rng.integers(3)))
    if rng.random() < 0.7:
        ip = b"\x08\x00" + ipv4(transport, protocol, rng, int(rng.integers(0, 11)))
    else:
        ip = b"\x86\xdd" + ipv6(transport, protocol, rng)
    packet = bytearray(ETHERNET + tags + ip + bytes(int(rng.integers(0, 20))))
    kind = rng.random()
    if kind < 0.2:  # bits flipped
        for _ in range(rng.integers(1, 6)):
            packet[rng.integers(12, min(len(packet), 80))] ^= 1 << rng.integers(8)
    elif kind < 0.3:  # cut short
        del packet[int(rng.integers(14, len(packet))) :]
    elif kind < 0.35:  # nonsense behind an Ethernet header
        packet[14:] = rng.bytes(len(packet) - 14)
    return bytes(packet)
