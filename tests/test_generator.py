# SPDX-License-Identifier: BSD-3-Clause
"""The generator as a topology asks for it: SYN floods, flows by Zipf's law. The packets themselves
are the business of tests/c/test_ports.c.

in0: generator ── out0: capture
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from chain import run_chain

TCP_FLAGS, TCP_SYN = 47, 2
ENDS = slice(26, 38)
"""Addresses and ports of a packet."""


def made(packets: int, **parameters: Any) -> list[bytes]:
    """What such a generator makes."""
    ports = {
        "in0": {"driver": "generator", "packets": packets, **parameters},
        "out0": {"driver": "pcap", "write": "$out"},
    }
    return list(run_chain({"ports": ports}, rows="*,in0,out0\n").packets)


def test_a_syn_flood_of_more_flows_than_addresses() -> None:
    packets = made(70_000, flows="10M", protocols="tcp", tcp_flags="syn")
    assert {packet[TCP_FLAGS] for packet in packets} == {TCP_SYN}
    assert len({packet[ENDS] for packet in packets}) == 70_000


def test_flows_by_zipfs_law() -> None:
    """With exponent 1 the first of 1,000 flows has 1 / 7.485 of the packets, the second half of it;
    the same seed gives the same packets, another one others."""
    packets = made(20_000, flows=1000, zipf=1.0)
    counts = [n for _, n in Counter(packet[ENDS] for packet in packets).most_common(2)]
    assert abs(counts[0] - 20_000 / 7.485) < 200 and abs(counts[1] - 10_000 / 7.485) < 150
    assert made(20_000, flows=1000, zipf=1.0) == packets
    assert made(20_000, flows=1000, zipf=1.0, seed=2) != packets
