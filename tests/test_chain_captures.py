# SPDX-License-Identifier: BSD-3-Clause
"""Real captures through every shipped chain: what comes out is the same on CPUs and on a device.

                 ┌─ no device ── packets of each flow, in order ─┐
    a capture ───┼─ launch ───── the same ───────────────────────┼─ a part of what went in, in order
                 └─ persistent ─ the same ───────────────────────┘

A packet is known again at the output by what no NF changes: its bytes behind the Ethernet
addresses without the TTL and the checksum, after decryption if it went through a tunnel.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from chain import (
    Flow,
    Result,
    Source,
    by_flow,
    is_subsequence,
    line,
    network_header,
    open_esp,
    run_chain,
)
from hummingbird.dataplane._native import ffi, lib
from nf_helpers import real_data
from scapy.utils import RawPcapNgReader, RawPcapReader

from hummingbird.nfs.ipsec import read_keys

ROOT = Path(__file__).parent.parent
POLICIES = ROOT / "policies"
DEMO = POLICIES / "demo" / "branch.pcap"
DATA = Path(os.environ.get("HUMMINGBIRD_TEST_DATA", ROOT.parent / "shared" / "data"))
KEYS = read_keys(POLICIES / "demo" / "ipsec.key")
TUNNEL = bytes([198, 51, 100, 1, 192, 0, 2, 1])
ESP = 50
ROOM = 1664
"""Bytes of a packet that a frame has room for."""
WAYS = {
    "cpu": {"use": "none"},
    "launch": {"executor": "launch"},
    "persistent": {"executor": "auto"},  # unless the device is tier C
}
SMALL = {"mbufs": 2048}
"""A start has to clear them all, and there are a thousand starts here."""
CHAINS = ("branch_gateway", "paper_static", "paper_dynamic")

Flows = Mapping[Flow, list[bytes]]


def captures() -> list[Path]:
    """The demo's, and all of the test data."""
    found = [path for path in DATA.rglob("*") if path.suffix in (".pcap", ".pcapng", ".cap")]
    return [DEMO, *sorted(found)]


def name(path: Path) -> str:
    return str(path.relative_to(DATA if path.is_relative_to(DATA) else ROOT))


@functools.lru_cache(maxsize=4)
def packets_in(path: Path) -> list[bytes]:
    """The packets of a capture as scapy reads them, as Ethernet."""
    with RawPcapReader(str(path)) as reader:
        if isinstance(reader, RawPcapNgReader):
            return [as_ethernet(meta.linktype, data) for data, meta in reader]
        return [as_ethernet(reader.linktype, data) for data, _ in reader]


def as_ethernet(link: int, data: bytes) -> bytes:
    if link == 1:
        return data
    if link == 113:  # Linux cooked: type, hardware, address and its length, EtherType
        return bytes(6) + data[6:12] + data[14:]
    assert link in (12, 101, 228), f"link type {link}"
    return bytes(12) + (b"\x86\xdd" if data[0] >> 4 == 6 else b"\x08\x00") + data


def is_sound(packet: bytes) -> bool:
    """The packet gets past the input port; what is wrong with others, the parser's tests say."""
    rule = ffi.new("int32_t *")
    return len(packet) <= ROOM and lib.hb_classify(packet, len(packet), ffi.NULL, 0, rule) == 0


def unchanged(packet: bytes) -> bytes:
    """What no NF changes."""
    at = network_header(packet)
    if packet[at - 2 : at] == b"\x08\x00":
        ip = packet[at:]
        packet = packet[:at] + ip[:8] + b"\0" + ip[9:10] + b"\0\0" + ip[12:]
    return packet[12:]


def trimmed(packet: bytes) -> bytes:
    """Without what Ethernet pads."""
    at = network_header(packet)
    if packet[at - 2 : at] == b"\x08\x00":
        return packet[: at + int.from_bytes(packet[at + 2 : at + 4], "big")]
    if packet[at - 2 : at] == b"\x86\xdd" and packet[at + 4 : at + 6] != b"\0\0":
        return packet[: at + 40 + int.from_bytes(packet[at + 4 : at + 6], "big")]
    return packet


def is_ours(packet: bytes) -> bool:
    """The packet came out of the chain's tunnel."""
    at = network_header(packet)
    return packet[at + 9 : at + 10] == bytes([ESP]) and packet[at + 12 : at + 20] == TUNNEL


def known_again(packets: Iterable[bytes]) -> Flows:
    """By flow what the packets were, as far as can be said."""
    was: dict[Flow, list[bytes]] = {}
    for packet in packets:
        if is_ours(packet):
            packet = open_esp(packet, KEYS).packet
        was.setdefault(flow_key(packet), []).append(unchanged(trimmed(packet)))
    return was


def check_tunnel(packets: Iterable[bytes], one_way: bool) -> None:
    """Sequence numbers rise: in each flow, and in all if all go one way behind the tunnel."""
    last: dict[Flow, int] = {}
    for packet in filter(is_ours, packets):
        esp = open_esp(packet, KEYS)
        flow = () if one_way else flow_key(esp.packet)
        assert esp.spi == 0x1001 and esp.sequence > last.get(flow, 0)
        last[flow] = esp.sequence


def flow_key(packet: bytes) -> Flow:
    """The flow, whatever the router made of its Ethernet addresses."""
    (key,) = by_flow([bytes(12) + packet[12:]])
    return key


def same_everywhere(source: Source, path: Path, rows: str | None = None) -> dict[str, Result]:
    """Run a capture in all ways; what is counted is the same, what comes out, is in order."""
    results = {
        way: run_chain(source, path, rows, timeout=100, memory=SMALL, **settings)
        for way, settings in WAYS.items()
    }
    cpu = results["cpu"]
    assert cpu.summary["received"] == len(packets_in(path))
    for way, result in results.items():
        assert result.dropped == cpu.dropped, way
        assert result.counters == cpu.counters, way
        assert result.type_packets() == cpu.type_packets(), way
        used = result.summary["device"]
        assert way == (used["executor"] or "cpu") or used["tier"] == "C"
    return results


@pytest.mark.parametrize("path", captures(), ids=name)
def test_an_unchanged_packet_comes_out_as_it_went_in(path: Path) -> None:
    """in0 -> forward on GPU -> on CPU -> on GPU -> out0: all sound packets, in order."""
    source, rows = line("gpu", "cpu", "gpu")
    expected = list(filter(is_sound, packets_in(path)))
    for way, result in same_everywhere(source, path, rows).items():
        assert result.packets == expected, way


@pytest.mark.parametrize("path", captures(), ids=name)
@pytest.mark.parametrize("shipped", CHAINS)
def test_a_shipped_chain(shipped: str, path: Path) -> None:
    """The topologies of policies/: each flow in order, the same packets from CPUs and device."""
    results = same_everywhere(POLICIES / f"{shipped}.yaml", path)
    came = known_again(filter(is_sound, packets_in(path)))
    expected = known_again(results["cpu"].packets)
    for key, packets in expected.items():
        assert is_subsequence(packets, came[key]), f"out of order: {key!r}"
    for way, result in results.items():
        assert known_again(result.packets) == expected, way
        check_tunnel(result.packets, one_way=shipped != "paper_dynamic")


def test_the_demo_goes_where_its_description_says() -> None:
    """policies/demo/README.md: 10 suspicious requests, in 11 packets with 11 patterns."""
    result = run_chain(POLICIES / "branch_gateway.yaml", DEMO)
    assert result.counters["nids0"] == {
        "passwd-file": 3,
        "cmd-exe": 2,
        "script-alert": 2,
        "union-select": 2,
        "shellshock": 1,
        "jndi-ldap": 1,
    }
    assert result.summary["types"]["suspicious"]["packets"] == 10
    assert result.dropped["policy"] == 10


def test_the_test_data_is_there() -> None:
    """Without it this is skipped, and the tests above have only run on the demo's capture."""
    assert real_data("traces").is_dir()
    assert len(captures()) > 10
