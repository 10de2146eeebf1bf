# SPDX-License-Identifier: BSD-3-Clause
"""The flow table against a model of it, packet by packet: which flow, as how manieth of it.

any packets at any times ─┬─ in0 ── mark ── out0 ── counts, drops, flows in the end ─┐
                          └─ FlowModel ──────────────────────────────────── the same ─┘
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flow_model import HOUR, SECOND
from flow_traffic import (
    ACK,
    EPOCH,
    ETHERNET,
    FIN_ACK,
    RST,
    SYN,
    SYN_ACK,
    check_against_model,
    ip,
    tcp_header,
    udp_header,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from nf_helpers import real_data
from scapy.utils import RawPcapNgReader, RawPcapReader
from test_chain_captures import ROOM, as_ethernet
from test_flow_state import WAYS

DEMO = Path(__file__).parent.parent / "policies" / "demo" / "branch.pcap"
CPU: dict[str, Any] = {"use": "none"}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    device, variables = WAYS[request.param]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return device


# ---- any traffic ---------------------------------------------------------------------------------

V4 = [bytes([10, 0, 0, n]) for n in (1, 2, 3)]
V6 = [bytes([0x20, 1, 13, 0xB8]) + bytes(11) + bytes([n]) for n in (1, 2)] + [
    bytes(10) + b"\xff\xff" + V4[0]  # ::ffff:10.0.0.1: an end that IPv4 has, too
]
FLAGS = [SYN, SYN_ACK, ACK, ACK, FIN_ACK, RST, 0, SYN | RST, SYN | 1, 24]
STEPS = [
    *[0] * 8,
    *(10**6, SECOND // 2, SECOND, 5 * SECOND, 20 * SECOND),
    *(29 * SECOND, 31 * SECOND, 61 * SECOND, 119 * SECOND, 181 * SECOND),
    *(HOUR - SECOND, HOUR, HOUR + SECOND, 7201 * SECOND, 20 * 24 * HOUR),
    *(-(10**6), -SECOND // 2, -SECOND, -2 * SECOND, -31 * SECOND, -24 * HOUR),
]
BYTES = 6
"""Of randomness for each packet."""


def any_packet(raw: bytes, hosts: int = 3, ports: int = 3) -> bytes:
    """A packet of one of a few flows, in any of their states."""
    kind, ends, port, flags, more, _ = raw
    addresses = V6 if kind & 64 else V4
    src, dst = addresses[ends % hosts % 3], addresses[ends // 8 % hosts % 3]
    a, b = 1000 + port % 16 % ports, 1000 + port // 16 % ports
    l4, protocol = [
        (tcp_header(a, b, FLAGS[flags % len(FLAGS)]), 6),
        (udp_header(a, b), 17),
        (_icmp(len(src) == 16, flags, a), 58 if len(src) == 16 else 1),
        (b"\0\0\x08\0" + bytes(4), 47),
    ][(0, 0, 0, 0, 1, 1, 2, 3)[kind % 8]]
    tags = [5, 6][: more % 4 % 3]
    if kind // 8 % 8 == 7:  # only the first fragment says more than the datagram's id
        fragment = (more // 4 % 3, more // 16 % 4, bool(more & 128) or not more // 16 % 4)
        return ip(src, dst, protocol, l4, tags=tags, fragment=fragment)
    if kind == 255:
        return ETHERNET[6 * (more & 1) :][:6] + ETHERNET[::1][:6] + b"\x08\x06" + bytes(28)
    return ip(src, dst, protocol, l4, tags=tags)


def _icmp(six: bool, flags: int, ident: int) -> bytes:
    """An echo, its answer, or an error."""
    kind = ((128, 129, 1) if six else (8, 0, 3))[flags % 3]
    return struct.pack(">BBHHH", kind, 0, 0, ident, 1)


def any_traffic(raw: bytes, steps: Sequence[int] = STEPS) -> tuple[list[bytes], list[int]]:
    """Packets and times."""
    packets, times, now = [], [], EPOCH
    for at in range(0, len(raw) - BYTES + 1, BYTES):
        part = raw[at : at + BYTES]
        packets.append(any_packet(part))
        now += steps[part[5] % len(steps)]
        times.append(now)
    return packets, times


bytes_of = st.builds(
    lambda n, packets: random.Random(n).randbytes(BYTES * packets),
    st.integers(0, 1 << 32),
    st.integers(1, 400),
)
RAW = st.binary(min_size=BYTES, max_size=BYTES * 50) | bytes_of


@settings(max_examples=40)
@given(RAW)
def test_any_traffic(raw: bytes) -> None:
    """Few flows and all states, at times that go on, leap and go back."""
    check_against_model(*any_traffic(raw), CPU)


def test_much_traffic(way: dict[str, Any]) -> None:
    """The same way on every executor."""
    raw = random.Random(11).randbytes(BYTES * 4000)
    model, _ = check_against_model(*any_traffic(raw), way)
    assert model.ended > 100 and model.begun - model.ended == len(model.live)


# ---- full tables ---------------------------------------------------------------------------------


@settings(max_examples=25)
@given(RAW, st.sampled_from(["refuse", "evict"]))
def test_a_small_table(raw: bytes, when_full: str) -> None:
    """64 flows, and more that want to be; too little time goes by for one to be over."""
    flows = {"when_full": when_full}
    packets, times = any_traffic(raw, [0, 10**6, -(10**6)])
    packets = [_spread(packet, number) for number, packet in enumerate(packets)]
    check_against_model(packets, times, CPU, flows, 64)


@settings(max_examples=25)
@given(RAW)
def test_a_small_table_and_time(raw: bytes) -> None:
    """64 flows, of which some are over when others want to begin."""
    packets, times = any_traffic(raw, [0, 0, 0, 10**6, SECOND, 5 * SECOND, 29 * SECOND])
    packets = [_spread(packet, number) for number, packet in enumerate(packets)]
    check_against_model(packets, times, CPU, None, 64)


def _spread(packet: bytes, number: int) -> bytes:
    """Of one of many flows: half of the packets of IPv4 get other last bytes of an address."""
    draw = random.Random(number)
    if packet[12:14] != b"\x08\x00" or draw.random() < 0.5:
        return packet
    return packet[:28] + bytes([draw.randrange(40)]) + packet[29:]


# ---- captures ------------------------------------------------------------------------------------


def packets_of(path: Path) -> tuple[list[bytes], list[int]]:
    """Packets as Ethernet and times of a capture; without those that fit no frame."""
    packets, times = [], []
    with RawPcapReader(str(path)) as reader:
        newer = isinstance(reader, RawPcapNgReader)
        for data, meta in reader:
            link = meta.linktype if newer else reader.linktype
            packet = as_ethernet(link, data)
            if len(packet) + 12 > ROOM:
                continue
            packets.append(packet)
            times.append(_time(reader, meta, newer))
    return packets, times


def _time(reader: Any, meta: Any, newer: bool) -> int:
    if newer:
        return ((meta.tshigh << 32) + meta.tslow) * SECOND // int(meta.tsresol)
    return int(meta.sec) * SECOND + int(meta.usec) * (1 if reader.nano else 1000)


def test_the_demo(way: dict[str, Any]) -> None:
    packets, times = packets_of(DEMO)
    model, _ = check_against_model(packets, times, way)
    assert model.begun > 50


def test_captures() -> None:
    """All small ones one after the other: each is of another day."""
    packets: list[bytes] = []
    times: list[int] = []
    for path in sorted(real_data("traces").rglob("*.*cap*")):
        if path.name != "mixed_ndpi.pcap":
            more = packets_of(path)
            packets += more[0]
            times += more[1]
    model, _ = check_against_model(packets, times, CPU)
    assert len(packets) > 10_000 and model.begun > 1000


@pytest.mark.parametrize("size", [65536, 64])
def test_a_long_capture(size: int) -> None:
    """60,000 packets of hundreds of applications; in a small table most flows are refused."""
    packets, times = packets_of(real_data("traces/mixed_ndpi.pcap"))
    model, _ = check_against_model(packets, times, CPU, None, size)
    assert model.begun > (1000 if size > 64 else 64) and (model.refused > 1000) == (size == 64)
