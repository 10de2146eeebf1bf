# SPDX-License-Identifier: BSD-3-Clause
"""The four NFs with state of flows in one chain: on CPUs and on a device the same, packet by
packet.

             ┌─ nat0 ── firewall0 ── lb0 ── monitor0 ── out0 on CPUs ─┐
made-up ─────┼─ on a device, persistent ──────────────────────────────┼─ the same packets, drops,
traffic      └─ on a device, by launches ─────────────────────────────┘  flows and records
"""

from __future__ import annotations

import functools
import random
import socket
import struct
from typing import Any

import pytest
from chain import Result, Run, started
from flow_traffic import FIN_ACK, RST, SYN, SYN_ACK, TRAILER, ip, numbered, udp_header
from test_chain_dynamic import CREDITS

WAYS: dict[str, dict[str, Any]] = {
    "cpu": {"use": "none"},
    "launch": {"executor": "launch"},
    "persistent": {"executor": "auto"},
}
NAT, VIP, SERVER = "203.0.113.4", "203.0.113.10", "198.51.100.7"
RULES = """\
name,src,dst,protocol,dport,action
no-telnet,any,any,tcp,23,deny
web,any,any,tcp,80|8080,accept
dns,any,any,udp,53|8080,accept
"""
DATA_ACK = 24
End = tuple[str, int]


def tcp_segment(a: End, b: End, flags: int, sequence: int, ack: int, payload: bytes = b"") -> bytes:
    head = struct.pack(">HHIIBBHI", a[1], b[1], sequence, ack, 0x50, flags, 65535, 0)
    return ip(socket.inet_aton(a[0]), socket.inet_aton(b[0]), 6, head + payload)


def connection(client: End, seen_as: End, server: End, end: int = FIN_ACK) -> list[bytes]:
    """All of a connection: what the client sends, and what comes back to where it is seen."""

    def there(*fields: Any) -> bytes:
        return tcp_segment(client, server, *fields)

    def back(*fields: Any) -> bytes:
        return tcp_segment(server, seen_as, *fields)

    return [
        there(SYN, 1000, 0),
        back(SYN_ACK, 5000, 1001),
        there(DATA_ACK, 1001, 5001),
        there(DATA_ACK, 1001, 5001, b"question"),
        back(DATA_ACK, 5001, 1009, b"answer"),
        there(end, 1009, 5007),
        back(end, 5007, 1010),
    ]


def datagram(a: End, b: End) -> bytes:
    return ip(socket.inet_aton(a[0]), socket.inet_aton(b[0]), 17, udp_header(a[1], b[1]))


def question(client: End, seen_as: End) -> list[bytes]:
    """A datagram there and one back."""
    server = (SERVER, 53)
    return [datagram(client, server), datagram(server, seen_as)]


def traffic() -> list[bytes]:
    """Connections of many clients at once; some to the virtual address, some that are denied, and
    some packets that nobody asked for."""
    talks = []
    for n in range(150):
        client, seen_as = (f"10.0.{n % 7}.{n % 200 + 1}", 2000 + n), (NAT, 2000 + n)
        server = (SERVER, 23 if n % 10 == 3 else 80)
        talks.append(connection(client, seen_as, server, RST if n % 4 == 1 else FIN_ACK))
        talks.append(question((client[0], 4000 + n), (NAT, 4000 + n)))
        talks.append([datagram((f"192.0.2.{n + 1}", 6000 + n), (VIP, 8080))] * 5)
        talks.append(connection((SERVER, 7000), (SERVER, 7000), (NAT, 9000 + n))[:1])
    return numbered(in_turn(talks))


def in_turn(talks: list[list[bytes]]) -> list[bytes]:
    """One packet of each, then the next of each. An answer is not in flight together with what it
    answers: what comes back is of another flow until the NAT has seen it, and would overtake."""
    draw, made = random.Random(5), []
    for number in range(max(map(len, talks))):
        packets = [talk[number] for talk in talks if number < len(talk)]
        draw.shuffle(packets)
        others = (datagram(("10.0.9.9", 20000 + n), (SERVER, 53)) for n in range(CREDITS))
        made += [*packets, *others]
    return made


def topology(engine: str) -> dict[str, Any]:
    backends = [{"address": f"10.9.0.{n}", "port": 8080} for n in (1, 2, 3)]
    service = {"address": VIP, "protocol": "udp", "port": 8080, "backends": backends}
    nat = {"inside": ["10.0.0.0/16"], "external": [NAT], "keep_port": True, "seed": 1}
    nfs: dict[str, dict[str, Any]] = {
        "nat0": {"type": "nat", **nat},
        "firewall0": {"type": "firewall", "rules": "rules.csv", "default": "deny"},
        "lb0": {"type": "load_balancer", "seed": 1, "services": {"web": service}},
        "monitor0": {"type": "flow_monitor", "csv": "flows.csv"},
    }
    return {
        "ports": {
            "in0": {"driver": "pcap", "read": "$in"},
            "out0": {"driver": "pcap", "write": "$out"},
        },
        "nfs": {name: {**nf, "engine": engine} for name, nf in nfs.items()},
    }


ROWS = "*,in0,nat0\n*,nat0,firewall0\n*,firewall0,lb0\n*,lb0,monitor0\n*,monitor0,out0\n"


@functools.cache
def through(way: str) -> Result:
    source = topology("cpu" if way == "cpu" else "gpu")
    files = {"rules.csv": RULES}
    with started(source, traffic(), ROWS, files=files, **WAYS[way]) as run:
        run.wait()
        run.until(lambda: answers_are_known(run), what="flows to be looked through")
        return run.stop()


def answers_are_known(run: Run) -> bool:
    """What the NAT has made part of another flow counts for its state when that is looked at."""
    return not any(
        flow.state == "udp" and all(flow.nfs["monitor0"]["packets"])
        for flow in run.engine.flows()
        if "monitor0" in flow.nfs
    )


def by_number(result: Result) -> dict[bytes, bytes]:
    return {packet[-TRAILER : 4 - TRAILER]: packet for packet in result.packets}


def test_what_the_chain_does() -> None:
    """On CPUs: every kind of packet went its way."""
    result = through("cpu")
    told = result.dropped
    assert told["denied"] >= 15 and told["no_mapping"] >= 150
    assert len(result.packets) > 1500
    ends = {packet[26:30] for packet in result.packets} | {p[30:34] for p in result.packets}
    inside = {end for end in ends if end[:2] == bytes([10, 0])}
    assert socket.inet_aton(NAT) in ends and inside, "translated there, and back"
    assert {end[3] for end in ends if end[:2] == bytes([10, 9])} == {1, 2, 3}, "all backends"
    assert socket.inet_aton(VIP) not in ends


@pytest.mark.parametrize("way", ["launch", "persistent"])
def test_a_device_does_the_same(way: str) -> None:
    cpu, device = through("cpu"), through(way)
    assert device.dropped == cpu.dropped
    assert by_number(device) == by_number(cpu)
    assert device.counters == cpu.counters
    assert states(device) == states(cpu)


def states(result: Result) -> dict[tuple[Any, ...], Any]:
    """What is known of each flow in the end."""
    return {
        (flow.protocol, flow.src, flow.sport, flow.dst, flow.dport): (flow.state, repr(flow.nfs))
        for flow in result.flows
    }
