# SPDX-License-Identifier: BSD-3-Clause
"""The firewall in the real data plane, on every executor.

packets ── in0 ── nf0 (firewall) ── out0
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from chain import Result, flow_of, line, network_header, run_chain
from firewall_helpers import frame
from nf_helpers import real_data
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from test_firewall_kernel import SCENARIOS, ends, unknown

NEAR, FAR = "10.0.0.1", "192.0.2.1"
NEAR6, FAR6 = "2001:db8:1::1", "2001:db8:2::1"
RULES = """name,src,dst,protocol,sport,dport,action
web,10.0.0.0/24|2001:db8:1::/48,any,tcp,any,80,accept
names,10.0.0.0/24|2001:db8:1::/48,any,udp,any,53,accept
ping,10.0.0.0/24|2001:db8:1::/48,any,icmp|icmpv6,,,accept
telnet,any,any,tcp,any,23,deny
"""
WAYS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "cpu": ({"engine": "cpu"}, {}),
    "auto": ({"engine": "auto", "use": "none"}, {}),
    "persistent": ({"engine": "gpu", "executor": "auto"}, {}),
    "launch": ({"engine": "gpu", "executor": "launch"}, {}),
    "staged": ({"engine": "gpu", "executor": "launch"}, {"HUMMINGBIRD_BINDING": "staged"}),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    device, settings = WAYS[request.param]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return device


def run(
    packets: Sequence[Packet | bytes] | Path,
    way: Mapping[str, Any],
    rules: str = RULES,
    gaps: bool = False,
    **params: Any,
) -> Result:
    """``gaps``: some time between packets."""
    device = dict(way)
    source, rows = line(
        {"type": "firewall", "rules": "r", "engine": device.pop("engine"), **params}
    )
    source["ports"]["in0"]["pace"] = "original" if gaps else "fast"
    times = None if isinstance(packets, Path) else [20_000_000 * i for i in range(len(packets))]
    data = packets if isinstance(packets, Path) else [bytes(packet) for packet in packets]
    return run_chain(source, data, rows, files={"r": rules}, times=times, **device)


CPU: dict[str, Any] = {"engine": "cpu", "use": "none"}


def ip(side: int, l4: Packet, **fields: Any) -> Packet:
    """From the near side (0) or the far one."""
    src, dst = (NEAR, FAR) if side == 0 else (FAR, NEAR)
    return (
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src=src, dst=dst, **fields)
        / l4
    )


def ip6(side: int, l4: Packet) -> Packet:
    src, dst = (NEAR6, FAR6) if side == 0 else (FAR6, NEAR6)
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IPv6(src=src, dst=dst) / l4


QUERY, ANSWER = UDP(sport=5000, dport=53), UDP(sport=53, dport=5000)


# ---- every executor ----------------------------------------------------------------------------


def conversation() -> list[bytes]:
    """The TCP scenarios, each of a client of its own, and other traffic between them. Not the one
    in which a connection begins anew after an RST: those are two flows, with no order between
    them."""
    rng = random.Random(1)
    streams: list[list[bytes]] = []
    for number, scenario in enumerate(one for one in SCENARIOS if one is not unknown):
        client, server = ends()
        client.port = 30000 + number
        streams.append([frame(packet) for _, packet in scenario(client, server)])
    streams.append(
        [bytes(ip(side, l4)) for side, l4 in ((0, QUERY), (1, ANSWER)) for _ in range(9)]
    )
    streams.append([bytes(ip6(side, l4)) for side, l4 in ((0, QUERY), (1, ANSWER)) for _ in "123"])
    streams.append([bytes(ip(1, UDP(sport=53, dport=port))) for port in range(100)])
    mixed = []
    while streams:
        stream = rng.choice(streams)
        mixed.append(stream.pop(0))
        streams = [one for one in streams if one]
    return mixed


def ordered(packets: Sequence[bytes]) -> dict[Any, list[bytes]]:
    """The packets of each flow, in order; fragments by their datagram."""
    found: dict[Any, list[bytes]] = {}
    for packet in packets:
        key = flow_of(packet)
        at = network_header(packet)
        found.setdefault((key, packet[at + 4 : at + 6] if key[-1] is True else b""), []).append(
            packet
        )
    return found


def told(result: Result) -> tuple[Any, ...]:
    """What executors must agree on."""
    flows = sorted((str(f.src), f.sport, str(f.dst), f.dport, str(f.nfs)) for f in result.flows)
    return ordered(result.packets), result.dropped, result.counters, flows


def test_all_executors_agree(way: dict[str, Any]) -> None:
    """Verdicts, counters and the states that are left are those of a CPU."""
    packets = conversation()
    result = run(packets, way)
    assert told(result) == told(run(packets, CPU))
    assert set(result.dropped) == {"denied", "bad_state", "out_of_window"}


# ---- flows -------------------------------------------------------------------------------------


def states(result: Result) -> dict[int, str]:
    """State of each flow by the port of who began it."""
    return {flow.sport: flow.nfs["nf0"]["state"] for flow in result.flows}


def test_states_and_rules_of_flows() -> None:
    a, b = ends()
    packets = [frame(a.send("S")[1]), frame(b.send("SA")[1]), frame(a.send("A")[1])]
    packets += [bytes(ip(0, QUERY)), bytes(ip(1, ANSWER)), bytes(ip(0, UDP(sport=5001, dport=53)))]
    packets += [bytes(ip(0, UDP(sport=5002, dport=54)))]
    result = run(packets, CPU)
    assert states(result) == {40000: "established", 5000: "both_ways", 5001: "one_way", 5002: "new"}
    (web,) = [flow for flow in result.flows if flow.sport == 40000]
    assert web.nfs["nf0"] == {"state": "established", "rule": "web"} and str(web.src) == NEAR


def test_counters_are_of_the_rule_that_decides() -> None:
    """A rule counts the packets that it decides on: the first of a flow; the others are
    established."""
    packets = [ip(0, QUERY), ip(1, ANSWER), ip(0, QUERY), ip(0, UDP(sport=5001, dport=53))]
    packets += [ip(1, TCP(sport=9, dport=23)), ip(1, TCP(sport=9, dport=24)), ip(0, QUERY)]
    result = run(packets, CPU)
    assert result.counters["nf0"] == {"names": 2, "telnet": 1, "default": 1, "established": 3}


def test_without_tracking_each_packet_is_on_its_own(way: dict[str, Any]) -> None:
    packets = [ip(0, QUERY), ip(1, ANSWER), ip(0, QUERY), ip(0, TCP(dport=80, flags="FPU"))]
    result = run(packets, way, tracking=False)
    assert result.counters["nf0"] == {"names": 2, "web": 1, "default": 1}
    assert result.dropped == {"denied": 1}


def test_no_midstream() -> None:
    """With midstream: false a connection begins with a SYN."""
    data = [ip(0, TCP(sport=1, dport=80, flags="A"))]
    assert run(data, CPU).dropped == {}
    assert run(data, CPU, midstream=False).dropped == {"bad_state": 1}


def test_what_is_not_ip_passes(way: dict[str, Any]) -> None:
    arp = Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=NEAR)
    assert run([arp, ip(1, ANSWER)], way).packets == [bytes(arp)]


def test_types() -> None:
    """All packets of a flow get the type of the rule that accepted it."""
    rules = "protocol,dport,action,type\ntcp,80,accept,web\nudp,53,accept,\n"
    a, b = ends()
    packets = [frame(a.send("S")[1]), frame(b.send("SA")[1]), bytes(ip(0, QUERY))]
    result = run(packets, CPU, rules, types=["web"])
    assert result.packets == packets and result.type_packets() == {"web": 2, "other": 1}


def test_port_reuse() -> None:
    """A closed connection makes room for a new one with the same ports."""
    a, b = ends()
    first = [a.send("S"), b.send("SA"), a.send("A"), a.send("FA"), b.send("FA"), a.send("A")]
    c, d = ends(isn=(5, 77))
    second = [c.send("S"), d.send("SA"), c.send("A"), c.send("PA", 100), d.send("A")]
    result = run([frame(packet) for _, packet in first + second], CPU)
    assert result.dropped == {} and result.counters["nf0"]["web"] == 2


# ---- ICMP --------------------------------------------------------------------------------------


def unreachable(about: Packet, side: int = 1) -> Packet:
    """An error from a router on the way, about an IPv4 packet."""
    error = ip(side, ICMP(type=3, code=1) / Raw(bytes(about[IP])[:28]))
    error[IP].src = "198.51.100.1"
    return error


@pytest.mark.parametrize("at_once", [True, False])
def test_errors_about_accepted_flows_pass(at_once: bool, way: dict[str, Any]) -> None:
    """Also if the packet that they quote is still on its way through the firewall."""
    asked, other = ip(0, QUERY), ip(0, UDP(sport=5000, dport=54))
    packets = [asked, unreachable(asked), other, unreachable(other)]
    result = run(packets, way, gaps=not at_once)
    assert result.packets == [bytes(asked), bytes(packets[1])]
    assert result.counters["nf0"] == {"names": 1, "related": 1, "default": 2}


def test_errors_that_quote_what_their_receiver_did_not_send() -> None:
    asked = ip(0, QUERY)
    forged = unreachable(asked)
    forged[IP].dst = "10.0.0.9"
    garbled = unreachable(ip(0, UDP(sport=9, dport=53)))
    result = run([asked, forged, garbled], CPU)
    assert result.packets == [bytes(asked)] and result.dropped == {"denied": 2}


def test_icmpv6(way: dict[str, Any]) -> None:
    asked = ip6(0, QUERY)
    error = ip6(1, ICMPv6DestUnreach() / Raw(bytes(asked[IPv6])[:60]))
    ping, pong = ip6(0, ICMPv6EchoRequest(id=4)), ip6(1, ICMPv6EchoReply(id=4))
    packets = [asked, error, ping, pong, ip6(1, ICMPv6EchoReply(id=5))]
    result = run(packets, way)
    assert result.packets == [bytes(packet) for packet in packets[:4]]
    assert result.dropped == {"bad_state": 1}


# ---- fragments ---------------------------------------------------------------------------------


def pieces(l4: Packet, side: int = 0, number: int = 77) -> list[Packet]:
    whole = ip(side, l4 / Raw(bytes(2000)), id=number)
    return [Ether(bytes(piece)) for piece in fragment(whole, 800)]


def test_fragments_follow_the_first_one(way: dict[str, Any]) -> None:
    accepted, denied = pieces(QUERY), pieces(UDP(sport=1, dport=54), number=78)
    result = run([*accepted, *denied], way)
    assert result.packets == [bytes(piece) for piece in accepted]
    assert result.dropped == {"denied": 3}


def test_fragments_without_the_first_one() -> None:
    first, *others = pieces(QUERY)
    assert run([*others, first], CPU).dropped == {"no_first_fragment": 2}


def test_fragments_of_an_answer() -> None:
    """The first fragment belongs to the flow of its ports."""
    answer = pieces(ANSWER, side=1)
    result = run([ip(0, QUERY), *answer], CPU, gaps=True)
    assert result.dropped == {}
    assert run(answer, CPU).dropped == {"denied": 3}


def test_fragments_of_ipv6(way: dict[str, Any]) -> None:
    whole = ip6(0, IPv6ExtHdrFragment(id=9) / QUERY / Raw(bytes(2000)))
    packets = [Ether(bytes(piece)) for piece in fragment6(whole, 900)]
    result = run([*packets, ip6(1, IPv6ExtHdrFragment(id=8, offset=100) / Raw(bytes(64)))], way)
    assert result.packets == [bytes(piece) for piece in packets]
    assert result.dropped == {"no_first_fragment": 1}


def test_fragments_that_would_rewrite_tcp() -> None:
    """RFC 1858: a first fragment without flags, and one that lies over them."""
    tiny = ip(0, Raw(bytes(TCP(sport=1, dport=80, flags="S"))[:8]), flags="MF", proto=6, id=1)
    over = ip(0, Raw(bytes(16)), frag=1, proto=6, id=2)
    assert run([tiny, over], CPU).dropped == {"bad_state": 2}


def test_the_demonstration() -> None:
    """Real traffic fits its connections; video alone has no rule."""
    policies = Path(__file__).parent.parent / "policies"
    result = run_chain(policies / "firewall.yaml", policies / "demo" / "branch.pcap")
    assert result.dropped == {"denied": 152} and result.counters["firewall0"]["web"] == 46


# ---- captures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixed_ndpi.pcap", "attack/ndpi__synscan.pcap"])
def test_captures(name: str) -> None:
    """CPU and device agree on real traffic, with real rules; nothing is lost (run_chain checks)."""
    path = real_data(f"traces/{name}")
    rules = "protocol,dport,action\ntcp,80|443|1-1000,accept\nudp,any,accept\nicmp,any,accept\n"
    results = [run(path, way, rules) for way in (CPU, {"engine": "gpu", "executor": "launch"})]
    assert ordered(results[0].packets) == ordered(results[1].packets)
    assert counted(results[0]) == counted(results[1])
    assert sum(results[0].counters["nf0"].values()) > 100


def counted(result: Result) -> dict[str, int]:
    """Packets by what let them pass. A datagram's first fragment is of its flow, but asks the rules
    while the flow's first packet is in the same burst (docs/firewall.md); all fragments here are
    UDP."""
    counts = dict(result.counters["nf0"])
    return counts | {"udp": counts.pop("r:3", 0) + counts.pop("established", 0)}
