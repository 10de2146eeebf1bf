# SPDX-License-Identifier: BSD-3-Clause
"""The NAT does what the model says: verdicts, bytes, mappings.

packets ─┬─ in0 ── nf0 (nat) ── out0 ─┬─ the same
         └─ nat_model.Nat ────────────┘
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from chain import Result, by_flow, capture, line, run_chain, started
from nat_model import siphash
from nat_traffic import NAT, Traffic
from nf_helpers import real_data
from scapy.utils import RawPcapReader
from test_chain_captures import is_sound, packets_in

FILTERS = ("endpoint-independent", "address-dependent", "address-and-port-dependent")
FORWARDS = [
    {"protocol": "tcp", "external": "203.0.113.4:443", "inside": "10.0.0.1:8443"},
    {"protocol": "udp", "external": "203.0.113.9:53", "inside": "192.168.7.7:53"},
]


def through(
    packets: list[bytes], params: Mapping[str, Any], times: Any = None, **device: Any
) -> tuple[Result, set[tuple[int, str, str]], dict[str, Any]]:
    """What came of packets, the mappings at the end, and the report."""
    source, rows = line(params)
    with started(source, packets, rows, times=times, **device) as run:
        run.wait()
        host: Any = run.engine.hosts["nf0"]
        found = {(m["protocol"], m["inside"], m["external"]) for m in host.mappings()}
        report = host.report()
        return run.stop(), found, report


def check(params: Mapping[str, Any], traffic: Traffic, **device: Any) -> dict[str, Any]:
    result, mappings, report = through(traffic.packets, params, **device)
    assert result.dropped == traffic.dropped
    assert sorted(result.packets) == sorted(traffic.expected)
    assert mappings == traffic.mappings()
    return report


def test_the_hash_is_siphash() -> None:
    """The vector of its authors' reference implementation."""
    seed = int.from_bytes(bytes(range(16)), "little")
    words = [int.from_bytes(bytes(range(at, at + 8)), "little") for at in (0, 8)]
    assert siphash(seed, *words) == 0x3F2ACC7F57C29BDB


@pytest.mark.parametrize("filtering", FILTERS)
@pytest.mark.parametrize("seed", range(2))
def test_generated_traffic(filtering: str, seed: int) -> None:
    params = NAT | {"filtering": filtering, "forwards": FORWARDS}
    traffic = Traffic(params, seed).mixed(1000)
    assert {"no_mapping", "no_first_fragment", "malformed", "bad_checksum"} <= set(traffic.dropped)
    result, mappings, _ = through(traffic.packets, params, use="none")
    assert result.dropped == traffic.dropped
    assert result.packets == traffic.expected
    assert mappings == traffic.mappings()


@pytest.mark.parametrize(
    "fields",
    [
        {"hairpin": False},
        {"ports": ["2000-2009", "4000-4015"]},
        {"ports": ["2000-2009"], "pooling": "arbitrary", "keep_parity": False},
        {"ports": ["5000-5019"], "keep_port": True},
        {"mappings": 20},
        {"external": ["203.0.113.4"], "ports": ["6000-6000"]},
    ],
)
def test_every_parameter(fields: dict[str, Any]) -> None:
    params = NAT | fields
    check(params, Traffic(params, 11).mixed(700, queries=False), use="none")


def test_the_demo_capture() -> None:
    """Its hosts are inside; those that are not are outside."""
    demo = Path(__file__).parent.parent / "policies" / "demo" / "branch.pcap"
    params = NAT | {"inside": ["10.0.0.0/8"]}
    traffic = Traffic(params, 1)
    for packet, _ in RawPcapReader(str(demo)):
        traffic.add(packet)
    assert len(traffic.went) > 100
    check(params, traffic, use="none")


CAPTURES = [
    "traces/mixed_ndpi.pcap",
    "traces/attack/ndpi__synscan.pcap",
    *(f"traces/{name}" for name in ("fragments", "gre", "icmp_arp", "ip_options", "vlan")),
]


@pytest.mark.parametrize("name", CAPTURES)
def test_captures(name: str) -> None:
    """Of the real world: half of all addresses are inside, so packets go all ways."""
    path = real_data(name)
    files = sorted(path.glob("*.pcap")) if path.is_dir() else [path]
    params = NAT | {"inside": ["0.0.0.0/1"], "external": ["203.0.113.4", "203.0.113.8/30"]}
    traffic = Traffic(params, 1)
    for file in files:
        for packet in packets_in(file)[:3000]:
            if is_sound(packet):
                traffic.add(packet)
    result, mappings, _ = through(traffic.packets, params, use="none")
    assert result.dropped == traffic.dropped
    assert sorted(result.packets) == sorted(traffic.expected)
    assert mappings == traffic.mappings()


def test_several_lcores_do_what_one_does() -> None:
    """Two inputs on lcores of their own, which hand packets to the lcore of the NAT: what comes in
    at one port of each flow comes out as the model says."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("NOT TESTED with several lcores: there is one CPU")
    params = NAT | {"keep_parity": False}
    rng = Traffic(params, 5)
    for _ in range(600):
        rng.outbound()
    halves: tuple[list[bytes], list[bytes]] = [], []
    for number, flow in enumerate(by_flow(rng.packets).values()):
        halves[number % 2].extend(flow)
    source, rows = line(params, cores={"io": cpus[:2], "nf": {"nf0": [cpus[0]]}})
    source["ports"] = {"in1": {"driver": "pcap", "read": "in1.pcap"}} | source["ports"]
    files = {"in1.pcap": capture(halves[1])}
    result = run_chain(source, halves[0], rows + "*,in1,nf0\n", files=files, use="none")
    assert result.dropped == {}
    assert sorted(result.packets) == sorted(rng.expected)
