# SPDX-License-Identifier: BSD-3-Clause
"""Dynamic chaining: a packet's way follows its type, by its 5-tuple and by what is in it.

packets ─┬─ chain ── counts, outputs ───────────────┐
         └─ a model of it in plain Python ── the same
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snort_oracle
from chain import Result, flow_of, run_chain, started, tcp
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.utils import rdpcap

POLICIES = Path(__file__).parent.parent / "policies"
DEMO = POLICIES / "demo" / "branch.pcap"
CREDITS = 1024
"""HB_MOST_CREDITS: packets of an unpaced port that are in flight at most."""
WAYS = [{"use": "none"}, {"executor": "launch"}, {"executor": "auto"}]


# ---- by content ----------------------------------------------------------------------------------

EVIL = b"evil"
PORTS = {
    "in0": {"driver": "pcap", "read": "$in"},
    "clean": {"driver": "pcap", "write": "clean.pcap"},
    "marked": {"driver": "pcap", "write": "marked.pcap"},
}
MARKING = "other,in0,nids0\nother,nids0,clean\nbad,in0,marked\nbad,nids0,{}\n"


def marking(sticky: str) -> dict[str, Any]:
    nids = {"type": "nids", "engine": "gpu", "rules": "p.rules", "on_alert": "bad"}
    return {"ports": PORTS, "nfs": {"nids0": nids | {"sticky": sticky}}}


def conversation(count: int, evil_at: int, client: str = "10.0.0.1") -> list[bytes]:
    """Packets of both directions of one flow in turn, numbered; one is evil."""
    ends = (client, "10.9.9.9"), (4000, 80)
    packets = []
    for number in range(count):
        back = -1 if number % 2 else 1
        payload = EVIL if number == evil_at else b"%08d" % number
        (src, dst), (sport, dport) = (end[::back] for end in ends)
        packets.append(tcp(src, dst, sport, dport, payload))
    return packets


def marked(packets: list[bytes], sticky: str, to: str = "drop", **device: str) -> Result:
    content = f'content:"{EVIL.decode()}"'
    files = {"p.rules": f'alert ip any any -> any any (msg:"evil"; {content}; sid:1;)'}
    return run_chain(marking(sticky), packets, MARKING.format(to), files=files, **device)


@pytest.mark.parametrize("device", WAYS)
def test_a_packet_that_matches_takes_another_way(device: dict[str, str]) -> None:
    """in0 -> nids0 -> clean, and for what matches, nids0 -> marked: this packet and no other."""
    packets = conversation(3000, evil_at=100)
    result = marked(packets, "packet", "marked", **device)
    assert result.outputs["marked"].packets == [packets[100]]
    assert result.outputs["clean"].packets == packets[:100] + packets[101:]
    assert result.summary["nfs"]["nids0"]["retyped"] == 1
    assert result.counters == {"nids0": {"evil": 1}}
    assert result.type_packets() == {"other": 2999, "bad": 1}


@pytest.mark.parametrize("device", WAYS)
def test_a_packet_that_matches_is_dropped(device: dict[str, str]) -> None:
    """in0 -> nids0 -> clean, and for what matches, nids0 -> drop."""
    packets = conversation(300, evil_at=299)
    result = marked(packets, "packet", **device)
    assert result.packets_of("clean") == packets[:299]
    assert result.dropped == {"policy": 1}


@pytest.mark.parametrize("device", WAYS)
def test_a_sticky_type_holds_for_both_directions_from_then_on(device: dict[str, str]) -> None:
    """in0 -> nids0 -> clean; from the evil packet on the whole flow goes in0 -> marked.

    Those that are in flight with it still go the old way: no more than an input port has credits.
    """
    evil, innocent = conversation(6000, evil_at=501), conversation(6000, -1, "10.0.0.2")
    mixed = [packet for pair in zip(evil, innocent, strict=True) for packet in pair]
    result = marked(mixed, "flow", **device)
    clean, later = result.packets_of("clean"), result.packets_of("marked")
    known = set(evil)
    mine = [packet for packet in clean if packet in known]
    assert [packet for packet in clean if packet not in known] == innocent
    assert evil == [*mine[:501], evil[501], *mine[501:], *later]
    assert len(mine) - 501 <= CREDITS
    assert {flow_of(packet) for packet in later} == {flow_of(evil[0]), flow_of(evil[1])}
    assert result.dropped == {"policy": 1}


def test_a_type_that_is_not_sticky_is_forgotten() -> None:
    """The same traffic without `sticky: flow`: only the evil packet is marked."""
    packets = conversation(6000, evil_at=501)
    result = marked(packets, "packet", "marked")
    assert result.outputs["marked"].packets == [packets[501]]


# ---- by 5-tuple ----------------------------------------------------------------------------------

Fields = tuple[int, str, str, int, int]
"""Protocol, source and destination address, source and destination port."""
RULES: dict[str, Any] = {
    "dns": {"protocol": "udp", "port": 53},
    "inside": {"src": "10.1.0.0/16", "dst": "10.0.0.0/8"},
    "web": {"protocol": "tcp", "dst_port": [80, 443, "8000-8099"]},
    "from-six": {"src": "2001:db8::/32"},
    "pings": [{"protocol": "icmp"}, {"protocol": "icmpv6"}],
    "high": {"protocol": ["tcp", "udp"], "src_port": "60000-65535", "dst": "192.0.2.0/25"},
}
ADDRESSES = ["10.1.2.3", "10.2.0.1", "192.0.2.7", "192.0.2.200", "2001:db8::7", "2001:db9::1"]
NUMBERS = [53, 80, 443, 8000, 8050, 8100, 60000, 65535, 59999, 9]


def within(address: str, prefix: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(prefix)


MODEL: dict[str, Callable[[Fields], bool]] = {
    "dns": lambda f: f[0] == 17 and 53 in f[3:],
    "inside": lambda f: within(f[1], "10.1.0.0/16") and within(f[2], "10.0.0.0/8"),
    "web": lambda f: f[0] == 6 and (f[4] in (80, 443) or 8000 <= f[4] <= 8099),
    "from-six": lambda f: within(f[1], "2001:db8::/32"),
    "pings": lambda f: f[0] in (1, 58),
    "high": lambda f: f[0] in (6, 17) and f[3] >= 60000 and within(f[2], "192.0.2.0/25"),
}


def some_fields(rng: np.random.Generator) -> Fields:
    src, dst = (ADDRESSES[i] for i in rng.integers(len(ADDRESSES), size=2))
    while (":" in src) != (":" in dst):
        dst = ADDRESSES[int(rng.integers(len(ADDRESSES)))]
    protocol = int(rng.choice([1 if ":" not in src else 58, 6, 17, 47]))
    sport, dport = (NUMBERS[i] for i in rng.integers(len(NUMBERS), size=2))
    return (protocol, src, dst, sport, dport) if protocol in (6, 17) else (protocol, src, dst, 0, 0)


def packet_of(fields: Fields) -> bytes:
    protocol, src, dst, sport, dport = fields
    ip = IPv6(nh=protocol) if ":" in src else IP(proto=protocol)
    ip.src, ip.dst = src, dst
    transport = {
        1: b"\x08\0\0\0\x12\x34\0\x01",
        58: b"\x80\0\0\0\x12\x34\0\x01",
        47: b"\0\0\x08\0",
    }.get(protocol)
    if transport is None:
        transport = (TCP if protocol == 6 else UDP)(sport=sport, dport=dport)
    return bytes(Ether(src="02::1", dst="02::2") / ip / transport)


@functools.cache
def tuples() -> tuple[list[Fields], list[bytes]]:
    rng = np.random.default_rng(5)
    fields = [some_fields(rng) for _ in range(1500)]
    return fields, list(map(packet_of, fields))


def model_type(fields: Fields) -> str:
    return next((name for name, matches in MODEL.items() if matches(fields)), "other")


@pytest.mark.parametrize("device", WAYS)
def test_each_type_takes_its_own_way(device: dict[str, str]) -> None:
    """Six types and the rest, each to a port of its own.

    in0 ─┬─ one half of the types ──────────── gpu0 ─┬─ to-dns
         └─ the other half ─────────── cpu0 ── gpu0 ─┼─ to-inside ...
    """
    fields, packets = tuples()
    types = [*RULES, "other"]
    out = {name: f"to-{name}" for name in types}
    ports: dict[str, Any] = {"in0": {"driver": "pcap", "read": "$in"}} | {
        port: {"driver": "pcap", "write": f"{port}.pcap"} for port in out.values()
    }
    rows = "*,in0,gpu0\n*,cpu0,gpu0\n" + "".join(f"{n},in0,cpu0\n" for n in types[::2])
    rows += "".join(f"{name},gpu0,{port}\n" for name, port in out.items())
    nfs = {f"{on}0": {"type": "forward", "engine": on} for on in ("cpu", "gpu")}
    result = run_chain({"ports": ports, "nfs": nfs, "types": RULES}, packets, rows, **device)
    expected = Counter(map(model_type, fields))
    assert set(expected) == set(types), "the packets do not try every type"
    assert result.type_packets() == expected
    for name, port in out.items():
        mine = [p for p, f in zip(packets, fields, strict=True) if model_type(f) == name]
        assert Counter(result.outputs[port].packets) == Counter(mine), name
    through_cpu = sum(count for name, count in expected.items() if name in types[::2])
    assert result.summary["nfs"]["cpu0"]["packets"] == through_cpu
    assert result.summary["nfs"]["gpu0"]["packets"] == len(packets)


# ---- the demo ------------------------------------------------------------------------------------


def demo_type(packet: Any) -> str:
    """The types of branch_gateway.yaml."""
    if TCP in packet and {packet[TCP].sport, packet[TCP].dport} & {80, 443, 8080}:
        return "web"
    if UDP in packet and any(16384 <= p <= 16399 for p in (packet[UDP].sport, packet[UDP].dport)):
        return "voice"
    if UDP in packet and any(16400 <= p <= 16415 for p in (packet[UDP].sport, packet[UDP].dport)):
        return "video"
    return "other"


def demo_rules(packet: Any) -> list[str]:
    """What the rules that match the payload are called."""
    payload, found = bytes(packet[TCP].payload), []
    for line in (POLICIES / "demo" / "web.rules").read_text().splitlines():
        if line.startswith("alert"):
            options = dict(snort_oracle.parse(line).options)
            content = snort_oracle.unescape(options["content"])
            nocase = "nocase" in options
            if (content.lower() in payload.lower()) if nocase else content in payload:
                found.append(options["msg"].strip('"'))
    return found


@pytest.mark.parametrize("device", WAYS)
def test_the_demo_counts_what_a_model_counts(device: dict[str, str]) -> None:
    """branch.pcap through branch_gateway: every count of every type, NF and rule."""
    packets = list(rdpcap(str(DEMO)))
    types = Counter(map(demo_type, packets))
    web = [demo_rules(p) for p in packets if demo_type(p) == "web"]
    rules = Counter(rule for found in web for rule in found)
    clean_web = web.count([])
    suspicious = types["web"] - clean_web
    result = run_chain(POLICIES / "branch_gateway.yaml", DEMO, **device)
    not_ip = sum(1 for p in packets if IP not in p and IPv6 not in p)
    six = sum(1 for p in packets if IPv6 in p)  # neighbour discovery and the like
    assert {p.payload.__class__ for p in packets} >= {IP, IPv6, ARP}
    assert result.counters == {"nids0": dict(rules)}
    assert result.type_packets() == types | {"web": clean_web, "suspicious": suspicious}
    counts = {name: nf["packets"] for name, nf in result.summary["nfs"].items()}
    tunnelled = clean_web + types["voice"] + types["video"]
    assert counts == {
        "nids0": types["web"],
        "ipsec0": tunnelled,
        "router0": tunnelled + types["other"],
    }
    expired = sum(1 for p in packets if IP in p and demo_type(p) == "other" and p[IP].ttl <= 1)
    drops = {"policy": suspicious, "not_ip": not_ip, "link_local": six, "ttl_expired": expired}
    assert result.dropped == {name: count for name, count in drops.items() if count}
    assert len(result.packets) == len(packets) - sum(drops.values())
    echoes = sum(1 for p in packets if ICMP in p)
    assert echoes and types["other"] >= echoes + not_ip + six


def test_a_reload_moves_a_type_to_another_way() -> None:
    """in0 -> nf0 -> clean, and after a reload in0 -> nf0 -> marked: none is lost or doubled."""
    ports = PORTS | {"in0": {"driver": "generator", "rate": 50_000}}
    source = {"ports": ports, "nfs": {"nf0": {"type": "forward", "engine": "gpu"}}}
    with started(source, None, "*,in0,nf0\n*,nf0,clean\n") as run:
        run.until(lambda: run.counters("clean")["out_packets"] > 1000, what="packets at clean")
        run.reload("*,in0,nf0\n*,nf0,marked\n")
        before = int(run.counters("clean")["out_packets"])
        run.until(lambda: run.counters("marked")["out_packets"] > 1000, what="packets at marked")
        result = run.stop()
    clean, moved = (len(result.packets_of(port)) for port in ("clean", "marked"))
    assert clean <= before + CREDITS and moved > 1000
    assert clean + moved + sum(result.dropped.values()) == result.summary["received"]
    assert result.summary["policy_version"] == 2
