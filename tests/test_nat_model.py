# SPDX-License-Identifier: BSD-3-Clause
"""The NAT does what the model says: verdicts, bytes, mappings.

packets ─┬─ in0 ── nf0 (nat) ── out0 ─┬─ the same
         └─ nat_model.Nat ────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from chain import Result, line, started
from nat_model import siphash
from nat_traffic import NAT, Traffic
from scapy.utils import RawPcapReader

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
