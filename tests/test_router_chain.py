# SPDX-License-Identifier: BSD-3-Clause
"""The router in the real data plane: what it forwards, cuts, answers, and learns.

    packets ── in0 ── nf0 (router) ── out0

Scapy says what ICMP errors, fragments and checksums have to be.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from chain import Result, line, run_chain, started
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from hummingbird.opencl.device import choose

ROUTER4, ROUTER6 = "10.0.0.254", "2001:db8::fe"
SENDER, SELF = "02:00:00:00:00:01", "02:00:00:00:00:02"
NEAR, SMALL, OTHER = (f"02:00:00:00:02:0{n}" for n in (1, 2, 3))
ROUTES = """prefix,next_hop
203.0.113.0/24,10.0.0.1
198.51.100.0/24,small
192.0.2.0/24,10.0.0.1|small|10.0.0.3
192.0.2.1/32,10.0.0.9      # whose MAC nobody knows
192.0.2.2/32,unreachable
192.0.2.3/32,prohibit
192.0.2.4/32,drop
2001:db8:1::/48,10.0.0.1
2001:db8:2::/48,small
2001:db8:3::/48,10.0.0.1|small|10.0.0.3
2001:db8:4::/48,unreachable
2001:db8:5::/48,prohibit
2001:db8:6::/48,fe80::9@eth0
"""
ROUTER: dict[str, Any] = {
    "type": "router",
    "engine": "cpu",
    "routes": "table.csv",
    "mac": SELF,
    "addresses": [ROUTER4, ROUTER6],
    "icmp": {"rate": 1_000_000},
    "next_hops": {"small": {"mac": SMALL, "mtu": 600}},
    "neighbours": {"10.0.0.1": NEAR, "10.0.0.3": {"mac": OTHER, "mtu": 1400}},
}


def run(packets: list[Packet], routes: str = ROUTES, **fields: Any) -> Result:
    source, rows = line(ROUTER | fields)
    data = [bytes(packet) for packet in packets]
    return run_chain(source, data, rows, files={"table.csv": routes}, use="none")


def packet(dst: str, size: int = 20, ttl: int = 64, **fields: Any) -> Packet:
    """UDP to an address of either family."""
    ether = Ether(src=SENDER, dst=SELF)
    if ":" in dst:
        ip: Packet = IPv6(src="2001:db8::1", dst=dst, hlim=ttl)
    else:
        ip = IP(src="10.0.0.7", dst=dst, ttl=ttl, **fields)
    return ether / ip / UDP(sport=1000, dport=2000) / Raw(bytes(i % 251 for i in range(size)))


def rebuilt(packet: Packet) -> bytes:
    """The same packet with every checksum made anew."""
    packet = packet.copy()
    for layer in (IP, ICMP, UDP):
        if layer in packet:
            del packet[layer].chksum
    for six in (ICMPv6TimeExceeded, ICMPv6DestUnreach, ICMPv6PacketTooBig):
        if six in packet:
            del packet[six].cksum
    return bytes(packet)


# ---- forwarding ----------------------------------------------------------------------------------


def test_both_families_age_and_get_their_addresses() -> None:
    before = [packet("203.0.113.5"), packet("2001:db8:1::5"), packet("198.51.100.5")]
    result = run(before)
    assert result.dropped == {}
    for was, now, mac in zip(before, map(Ether, result.packets), [NEAR, NEAR, SMALL], strict=True):
        was.dst, was.src = mac, SELF
        if IP in was:
            was[IP].ttl = 63
        else:
            was[IPv6].hlim = 63
        assert bytes(now) == rebuilt(was)


def test_packets_to_the_router_itself() -> None:
    """They need no TTL. Without a type of their own they are dropped; with one they get it."""
    to_router = [packet(ROUTER4, ttl=1), packet(ROUTER6, ttl=1)]
    assert run(to_router).dropped == {"to_router": 2}
    source, rows = line(ROUTER | {"local": "mine"})
    files = {"table.csv": ROUTES}
    result = run_chain(source, [bytes(p) for p in to_router], rows, files=files, use="none")
    assert result.packets == [bytes(p) for p in to_router]
    assert result.type_packets()["mine"] == 2


def test_a_blackhole_says_nothing() -> None:
    result = run([packet("192.0.2.4")])
    assert (result.dropped, result.packets) == ({"blackhole": 1}, [])


@pytest.mark.parametrize("dst", ["192.0.2.100", "2001:db8:3::1"])
def test_flows_share_the_next_hops_of_a_route_and_keep_theirs(dst: str) -> None:
    flows = []
    for port in range(3000):
        one = packet(dst)
        one[UDP].sport = port
        flows.append(one)
    result = run(flows * 2)
    hops: dict[int, set[str]] = {}
    share: Counter[str] = Counter()
    for sent in map(Ether, result.packets):
        hops.setdefault(sent[UDP].sport, set()).add(sent.dst)
        share[sent.dst] += 1
    assert len(hops) == 3000 and all(len(macs) == 1 for macs in hops.values())
    assert set(share) == {NEAR, SMALL, OTHER}
    assert all(0.9 < count / 2000 < 1.1 for count in share.values()), share


def test_all_pieces_of_a_packet_go_one_way() -> None:
    pieces: list[Packet] = []
    for number in range(200):
        whole = packet("192.0.2.100", 900, id=number)
        whole[UDP].sport = number
        pieces += fragment(whole, 400)
    result = run(pieces)
    assert len({sent[:6] for sent in result.packets}) == 1  # by addresses and protocol alone


def test_a_device_takes_the_same_ways() -> None:
    """ECMP, IPv6, ICMP, cutting: GPU and CPU alike."""
    if choose("auto") is None:
        pytest.skip("NOT COMPARED with a device: there is no OpenCL device")
    packets = []
    for port in range(400):
        for dst in ("192.0.2.100", "2001:db8:3::1", "192.0.2.2", "203.0.113.9", "8.8.8.8"):
            one = packet(dst, ttl=1 + port % 3, size=20 + port * 3)
            one[UDP].sport = port
            packets.append(one)
    on_cpu = run(packets)
    source, rows = line(ROUTER | {"engine": "gpu"})
    data = [bytes(one) for one in packets]
    on_gpu = run_chain(source, data, rows, files={"table.csv": ROUTES})
    errors = [one for one in on_gpu.packets if Ether(one).dst == SENDER]
    assert errors, "the bucket holds tokens for all of them, so both make every one"
    assert on_gpu.dropped == on_cpu.dropped
    assert Counter(on_gpu.packets) == Counter(on_cpu.packets)


# ---- ICMP ----------------------------------------------------------------------------------------

ERRORS = [
    ("203.0.113.5", {"ttl": 1}, "ttl_expired", (11, 0)),
    ("8.8.8.8", {}, "no_route", (3, 0)),
    ("192.0.2.1", {}, "no_neighbour", (3, 1)),
    ("192.0.2.2", {}, "unreachable", (3, 1)),
    ("192.0.2.3", {}, "unreachable", (3, 13)),
    ("198.51.100.5", {"size": 600, "flags": "DF"}, "too_big", (3, 4)),
    ("2001:db8:1::5", {"ttl": 1}, "ttl_expired", (3, 0)),
    ("2001:db8:9::5", {}, "no_route", (1, 0)),
    ("2001:db8:4::5", {}, "unreachable", (1, 3)),
    ("2001:db8:5::5", {}, "unreachable", (1, 1)),
    ("2001:db8:6::5", {}, "no_neighbour", (1, 3)),
    ("2001:db8:2::5", {"size": 600}, "too_big", (2, 0)),
]


@pytest.mark.parametrize(("dst", "fields", "reason", "error"), ERRORS)
@pytest.mark.parametrize("tagged", [False, True])
def test_an_error_goes_back(
    dst: str, fields: dict[str, Any], reason: str, error: tuple[int, int], tagged: bool
) -> None:
    about = packet(dst, **fields)
    if tagged:
        kind = about.type
        about = Ether(src=SENDER, dst=SELF) / Dot1Q(vlan=7, type=kind) / about.payload
    result = run([about])
    assert result.dropped == {reason: 1}
    assert result.summary["created"] == 1
    [sent] = map(Ether, result.packets)
    assert bytes(sent) == rebuilt(sent)
    assert (sent.src, sent.dst) == (SELF, SENDER)
    assert (Dot1Q in sent) == tagged
    if ":" not in dst:
        assert (sent[IP].src, sent[IP].dst) == (ROUTER4, "10.0.0.7")
        assert (sent[ICMP].type, sent[ICMP].code) == error
        quote = bytes(sent[ICMP].payload)
        assert quote == bytes(about[IP])[: len(quote)] and len(quote) >= 28
        assert (sent[ICMP].nexthopmtu or 0) == (600 if reason == "too_big" else 0)
    else:
        assert (sent[IPv6].src, sent[IPv6].dst) == (ROUTER6, "2001:db8::1")
        raw = bytes(sent[IPv6].payload)
        assert (raw[0], raw[1]) == error
        assert raw[8:] == bytes(about[IPv6])[:1232]
        assert int.from_bytes(raw[4:8], "big") == (600 if reason == "too_big" else 0)


def test_who_gets_no_error() -> None:
    """About ICMP errors, later fragments, multicast; and without an address of its own, about
    nothing."""
    ether = Ether(src=SENDER, dst=SELF)
    mute = [
        ether / IP(src="10.0.0.7", dst="8.8.8.8") / ICMP(type=3, code=1),
        ether / IP(src="10.0.0.7", dst="8.8.8.8", frag=10) / Raw(b"x" * 20),
        ether / IP(src="10.0.0.7", dst="239.1.1.1") / UDP(),
        ether / IP(src="0.0.0.0", dst="8.8.8.8") / UDP(),
        ether / IPv6(src="2001:db8::1", dst="2001:db8:9::1") / ICMPv6DestUnreach(),
    ]
    result = run(mute)
    assert (result.dropped, result.packets) == ({"no_route": 5}, [])
    assert run([packet("8.8.8.8")], addresses=[]).packets == []
    assert run([packet("8.8.8.8")], icmp={"rate": 0}).packets == []


def test_errors_are_limited_and_have_a_type_of_their_own() -> None:
    source, _ = line(ROUTER | {"icmp": {"rate": 10, "type": "errors"}})
    source["ports"]["back"] = {"driver": "pcap", "write": "back.pcap"}
    rows = "*,in0,nf0\n*,nf0,out0\nerrors,nf0,back\n"
    packets = [bytes(packet("8.8.8.8"))] * 2000
    result = run_chain(source, packets, rows, files={"table.csv": ROUTES}, use="none")
    detail = result.summary["nfs"]["nf0"]["detail"]
    made = len(result.packets_of("back"))
    assert result.packets_of("out0") == [] and result.dropped == {"no_route": 2000}
    assert 1 <= made < 30
    assert (detail["icmp_errors"], detail["icmp_suppressed"]) == (made, 2000 - made)


# ---- cutting -------------------------------------------------------------------------------------


def test_a_packet_that_may_be_cut_is_cut() -> None:
    whole = packet("198.51.100.5", 1400, id=77)
    result = run([whole])
    assert result.dropped == {} and result.summary["created"] == 2
    assert result.summary["nfs"]["nf0"]["detail"]["fragmented"] == 1
    data = {}
    for sent in map(Ether, result.packets):
        piece = IP(bytes(sent[IP])[:20])
        del piece.chksum
        assert bytes(piece) == bytes(sent[IP])[:20]
        assert sent[IP].len <= 600 and sent[IP].ttl == 63 and sent.dst == SMALL
        data[sent[IP].frag * 8] = bytes(sent[IP].payload)
    assert b"".join(data[at] for at in sorted(data)) == bytes(whole[IP].payload)


# ---- neighbours ----------------------------------------------------------------------------------


def learning(teach: Packet, dst: str, routes: str, mac: str) -> dict[str, Any]:
    """Play two packets for ever until the second leaves for the MAC that the first names."""
    source, rows = line(ROUTER | {"routes": "table.csv", "addresses": []})
    source["ports"]["in0"] = {"driver": "pcap", "read": "$in", "loop": 0, "rate": 2000}
    packets = [bytes(teach), bytes(packet(dst))]
    with started(source, packets, rows, files={"table.csv": routes}, use="none") as run:
        run.until(lambda: run.counters("out0")["out_packets"] > 10, what="a neighbour")
        result = run.stop()
    assert {Ether(sent).dst for sent in result.packets} == {mac}
    assert set(result.dropped) <= {"no_neighbour", "not_ip" if ARP in teach else "link_local"}
    detail: dict[str, Any] = result.summary["nfs"]["nf0"]["detail"]
    return detail


TAUGHT = "02:00:00:00:09:09"


@pytest.mark.parametrize("op", ["who-has", "is-at"])
@pytest.mark.parametrize("routes", ["192.0.2.1/32,10.0.0.9", "192.0.2.0/24,10.0.0.9|10.0.0.9"])
def test_a_next_hop_is_learned_from_arp(op: str, routes: str) -> None:
    arp = Ether(src=TAUGHT, dst=SELF) / ARP(op=op, hwsrc=TAUGHT, psrc="10.0.0.9", pdst=ROUTER4)
    detail = learning(arp, "192.0.2.1", f"prefix,next_hop\n{routes}\n", TAUGHT)
    assert detail["learned"] == {"10.0.0.9": TAUGHT}
    assert detail["unresolved"] == 0


def test_a_host_of_an_attached_network_is_learned_from_arp() -> None:
    """It gets a route of its own; its neighbours stay unknown."""
    arp = Ether(src=TAUGHT, dst=SELF) / Dot1Q(vlan=5) / ARP(hwsrc=TAUGHT, psrc="192.0.2.1")
    detail = learning(arp, "192.0.2.1", "prefix,next_hop\n192.0.2.0/24,attached\n", TAUGHT)
    assert detail["ipv4"]["routes"] == 2


def test_a_next_hop_is_learned_from_neighbour_discovery() -> None:
    """An advertisement (RFC 4861); one with a wrong checksum or from afar teaches nothing."""
    na = (
        Ether(src=TAUGHT, dst="33:33:00:00:00:01")
        / IPv6(src="fe80::9", dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt="fe80::9", R=1, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=TAUGHT)
    )
    detail = learning(na, "2001:db8:6::1", ROUTES, TAUGHT)
    assert detail["learned"] == {"fe80::9": TAUGHT}
    for spoilt in ({"hlim": 254}, {"plen": 31}):
        wrong = na.copy()
        for name, value in spoilt.items():
            setattr(wrong[IPv6], name, value)
        source, rows = line(ROUTER)
        data = [bytes(wrong)]
        result = run_chain(source, data, rows, files={"table.csv": ROUTES}, use="none")
        assert result.summary["nfs"]["nf0"]["detail"]["learned"] == {}


def test_what_nobody_waits_for_is_not_learned() -> None:
    """Not a static neighbour, not a stranger; and nothing with learn: false."""
    talk = [
        Ether(src=TAUGHT, dst=SELF) / ARP(hwsrc=TAUGHT, psrc=address)
        for address in ("10.0.0.1", "10.9.9.9", "0.0.0.0")
    ]
    after = packet("203.0.113.5")
    result = run([*talk, after])
    assert result.summary["nfs"]["nf0"]["detail"]["learned"] == {}
    waited_for = Ether(src=TAUGHT, dst=SELF) / ARP(hwsrc=TAUGHT, psrc="10.0.0.9")
    assert run([waited_for]).summary["nfs"]["nf0"]["detail"]["learned"] == {"10.0.0.9": TAUGHT}
    deaf = run([waited_for], learn=False).summary["nfs"]["nf0"]["detail"]
    assert deaf["learned"] == {}


# ---- changes while it runs -----------------------------------------------------------------------


def test_an_edited_file_moves_packets_and_loses_none(tmp_path: Any) -> None:
    """203.0.113.0/24 and .5/32 by turns, each to its next hop; a broken file in between."""
    table = tmp_path / "table.csv"
    one = "prefix,next_hop\n203.0.113.0/24,10.0.0.1\n"
    other = "prefix,next_hop\n0.0.0.0/0,small\n203.0.113.5/32,10.0.0.3\n2001:db8::/32,small\n"
    table.write_text(one)
    source, rows = line(ROUTER | {"routes": str(table)})
    source["ports"]["in0"] = {"driver": "pcap", "read": "$in", "loop": 0, "rate": 20_000}
    with started(source, [bytes(packet("203.0.113.5"))], rows, use="none") as run:
        host: Any = run.engine.hosts["nf0"]
        for turn in range(40):
            before = run.counters("out0")["out_packets"]
            run.until(lambda n=before: run.counters("out0")["out_packets"] > n, what="packets")
            table.write_text((other, "prefix,next_hop\nnonsense\n", one)[turn % 3])
            host.reload()
        result = run.stop()
    assert result.dropped == {}
    assert {Ether(sent).dst for sent in result.packets} == {NEAR, OTHER}
    assert result.summary["nfs"]["nf0"]["detail"]["ipv4"]["routes"] == 3  # one of its own
