# SPDX-License-Identifier: BSD-3-Clause
"""ipsec: which packets are protected, let by and discarded, both ways (RFC 4301 section 5).

packets ── in0 ── ipsec ── out0       the oracle: a model in Python's ipaddress; scapy for ESP
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from chain import IPV6, Result, run_chain, tcp, udp
from hypothesis import given, settings
from hypothesis import strategies as st
from ipsec_chains import LEFT, RIGHT, TestSa, ipsec, key_files, through
from nf_helpers import ETHERNET, some_packet
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, defragment
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether

OUT = {"a": TestSa(0x1001), "b": TestSa(0x1002, dst="192.0.2.3", cipher="aes-128-gcm", auth="none")}
LINK = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
"""nf_helpers.ETHERNET, for scapy."""
BACK = TestSa(0x2001, src=RIGHT, dst=LEFT)


def run(nf: dict[str, Any], packets: Sequence[Any], *sas: TestSa, **more: Any) -> Result:
    source, rows = through(nf)
    source |= more.pop("sections", {})
    return run_chain(source, packets, rows, files=key_files(*sas), use="none", **more)


def spi_of(packet: bytes) -> int | None:
    """Of ESP; None: it is something else."""
    ip = IP(packet[14:])
    return (
        struct.unpack(">I", bytes(ip.payload)[:4])[0]
        if ip.version == 4 and ip.proto == 50
        else None
    )


# ---- the policy database -------------------------------------------------------------------------

ADDRESSES = ["10.1.0.1", "10.1.0.2", "10.1.9.9", "10.2.0.1", "172.16.0.1"]
PREFIXES = ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/30", "10.1.0.1", "10.2.0.0/15", "0.0.0.0/0"]
ADDRESSES6 = ["2001:db8::1", "2001:db8:0:1::1", "2001:db9::1"]
PREFIXES6 = ["2001:db8::/32", "2001:db8::/64", "2001:db8:0:1::1", "2001:db8::/31"]
PORTS = [53, 80, 443, 4500, 8080]


def lists(of: Sequence[Any]) -> Any:
    return st.one_of(st.sampled_from(of), st.lists(st.sampled_from(of), min_size=1, max_size=3))


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    policy: dict[str, Any] = {"action": draw(st.sampled_from(["a", "b", "bypass", "discard"]))}
    of = PREFIXES if draw(st.booleans()) else PREFIXES6
    for field in ("src", "dst"):
        if draw(st.booleans()):
            policy[field] = draw(lists(of))
    if draw(st.booleans()):
        policy["protocol"] = draw(lists(["tcp", "udp"]))
        field = draw(st.sampled_from(["src_port", "dst_port", "port"]))
        if draw(st.booleans()):
            policy[field] = draw(lists([53, "80-443", 4500, "8000-9000"]))
    elif draw(st.booleans()):
        policy["protocol"] = draw(lists(["icmp", "tcp", 50]))
    return policy


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class Seen(NamedTuple):
    """What scapy sees in a packet: once for all policies, for it takes its time."""

    protocol: int
    src: Any
    dst: Any
    ports: tuple[int, int] | None

    @classmethod
    def of(cls, packet: bytes) -> Seen:
        ip = Ether(packet).payload
        protocol = ip.proto if ip.version == 4 else ip.nh
        ports = struct.unpack(">HH", bytes(ip.payload)[:4]) if protocol in (6, 17) else None
        return cls(protocol, *map(ipaddress.ip_address, (ip.src, ip.dst)), ports)


def model(policy: dict[str, Any], packet: Seen) -> bool:
    """Does the policy match? By ipaddress."""
    for field in ("src", "dst"):
        address = getattr(packet, field)
        nets = [ipaddress.ip_network(p) for p in as_list(policy.get(field, []))]
        if field in policy and not any(address.version == n.version and address in n for n in nets):
            return False
    numbers = {"tcp": 6, "udp": 17, "icmp": 1, 50: 50}
    wanted = [numbers[p] for p in as_list(policy.get("protocol", []))]
    if wanted and packet.protocol not in wanted:
        return False
    for field in ("src_port", "dst_port", "port"):
        if field not in policy:
            continue
        if packet.ports is None:
            return False
        sport, dport = packet.ports
        ports = {"src_port": [sport], "dst_port": [dport], "port": [sport, dport]}[field]
        ranges = [str(r).split("-") for r in as_list(policy[field])]
        if not any(int(r[0]) <= port <= int(r[-1]) for port in ports for r in ranges):
            return False
    return True


def some_packets(seed: int) -> list[bytes]:
    rng = np.random.default_rng(seed)

    def one_of(values: Sequence[Any]) -> Any:
        return values[int(rng.integers(len(values)))]

    packets = []
    for _ in range(120):
        sport, dport = one_of(PORTS), one_of(PORTS)
        layer = one_of([UDP(sport=sport, dport=dport), TCP(sport=sport, dport=dport), ICMP()])
        payload = rng.bytes(int(rng.integers(0, 60)))
        if rng.random() < 0.7 or isinstance(layer, ICMP):
            ip = IP(src=one_of(ADDRESSES), dst=one_of(ADDRESSES))
        else:
            ip = IPv6(src=one_of(ADDRESSES6), dst=one_of(ADDRESSES6))
        packets.append(bytes(LINK / ip / layer / payload))
    return packets


@settings(max_examples=40)
@given(st.lists(policies(), min_size=1, max_size=6), st.integers(0, 2**32))
def test_the_first_policy_that_matches_decides(rules: list[dict[str, Any]], seed: int) -> None:
    """Random policies, random packets: what becomes of each is what the model says."""
    used = {rule["action"] for rule in rules}
    rules += [{"action": name, "src": "198.51.100.1"} for name in OUT if name not in used]
    packets = some_packets(seed)
    wanted: list[bytes | int] = []
    dropped = {"no_policy": 0, "nf_action": 0}
    seen = map(Seen.of, packets)
    firsts = [next((i for i, rule in enumerate(rules) if model(rule, p)), None) for p in seen]
    for packet, first in zip(packets, firsts, strict=True):
        action = None if first is None else rules[first]["action"]
        if action is None or action == "discard":
            dropped["no_policy" if action is None else "nf_action"] += 1
        else:
            wanted.append(packet if action == "bypass" else OUT[action].spi)
    result = run(ipsec(OUT, policies=rules), packets, *OUT.values())
    got = [spi_of(p) or p for p in result.packets]
    assert got == wanted
    assert result.dropped == {reason: n for reason, n in dropped.items() if n}
    hits = result.summary["nfs"]["nf0"]["detail"]["policies"]
    assert [hit["packets"] for hit in hits] == [firsts.count(i) for i in range(len(rules))]


def test_what_is_not_ip_has_no_policy() -> None:
    arp = ETHERNET + b"\x08\x06" + bytes(28)
    result = run(ipsec(OUT), [arp], *OUT.values())
    assert result.dropped == {"not_ip": 1}


def test_a_fragment_never_slips_by_a_policy_with_ports() -> None:
    """Port 443 is encrypted, the rest goes in the clear: of a fragment nobody knows which it is, so
    it must not leave (RFC 4301 section 7). One whose protocol or address cannot match may."""
    rules = [
        {"dst": "10.2.0.0/16", "protocol": "tcp", "dst_port": 443, "action": "a"},
        {"action": "bypass"},
        {"src": "198.51.100.1", "action": "b"},
    ]

    def fragment(packet: bytes, offset: int, more: int) -> bytes:
        ip = IP(packet[14:])
        ip.frag, ip.flags, ip.chksum = offset, "MF" if more else 0, None
        return packet[:14] + bytes(ip)

    secret = tcp("10.1.0.1", "10.2.0.1", 1000, 443, bytes(64))
    other = tcp("10.1.0.1", "10.3.0.1", 1000, 443, bytes(64))
    udp_one = udp("10.1.0.1", "10.2.0.1", 1000, 443, bytes(64))
    packets = [fragment(secret, 0, 1), fragment(secret, 9, 0), secret]
    packets += [fragment(other, 9, 0), fragment(udp_one, 9, 0)]
    v6 = IPv6(src="2001:db8::1", dst="2001:db8::2", nh=44)
    packets.append(bytes(LINK / v6 / (bytes([6, 0, 0, 8, 0, 0, 0, 1]) + bytes(24))))
    result = run(ipsec(OUT, policies=rules), packets, *OUT.values())
    assert result.dropped == {"esp_fragment": 2}
    assert [spi_of(p) for p in result.packets[:1]] == [OUT["a"].spi]
    assert result.packets[1:] == packets[3:]


# ---- inbound -------------------------------------------------------------------------------------


def esp_of(sa: TestSa, inner: bytes, number: int = 1, mac: bytes = ETHERNET) -> bytes:
    """By scapy: a packet (from its IP header on) in ESP."""
    association = sa.scapy()
    association.seq_num = number
    return mac + b"\x08\x00" + bytes(association.encrypt(IP(inner)))


def inner(src: str = "10.2.0.1", dst: str = "10.1.0.1", port: int = 80) -> bytes:
    return udp(src, dst, 1234, port, b"what is inside")[14:]


IN_RULES = [
    {"src": "10.2.0.66", "action": "discard"},
    {"src": "10.2.0.0/16", "dst": "10.1.0.0/16", "action": "back"},
    {"src": "10.2.0.0/16", "protocol": "udp", "port": 53, "action": "bypass"},
    {"src": "10.1.0.0/16", "action": "a"},
]


def inbound(packets: Sequence[bytes], **more: Any) -> Result:
    nf = ipsec({"a": OUT["a"]}, {"back": BACK}, IN_RULES, **more)
    return run(nf, packets, OUT["a"], BACK)


def test_what_comes_out_of_an_association_must_be_what_its_policies_allow() -> None:
    """RFC 4301 section 5.2: allowed; from a wrong net; to a wrong net; one that a policy in front
    discards; one that may come in the clear only."""
    wanted = inner()
    others = [
        inner("10.3.0.1"),
        inner(dst="10.9.0.1"),
        inner("10.2.0.66"),
        inner("10.2.7.7", "10.5.0.1", 53),
    ]
    packets = [esp_of(BACK, ip, n) for n, ip in enumerate([wanted, *others], 1)]
    result = inbound(packets)
    assert result.packets == [ETHERNET + b"\x08\x00" + wanted]
    assert result.dropped == {"not_for_sa": 4}
    detail = result.summary["nfs"]["nf0"]["detail"]
    back = detail["sas"]["back"]
    assert (back["packets"], back["bytes"], back["mismatched"]) == (1, len(wanted), 4)
    assert back["last"] == 5
    assert [p["packets"] for p in detail["policies"]] == [0, 1, 0, 0]


def test_what_should_have_come_encrypted_does_not_come_in_the_clear() -> None:
    clear = [ETHERNET + b"\x08\x00" + inner(), udp("10.2.7.7", "10.5.0.1", 1, 53, b"")]
    result = inbound(clear)
    assert result.packets == clear[1:] and result.dropped == {"clear_text": 1}


def test_esp_that_is_not_for_us_is_a_packet_like_others() -> None:
    """With an unknown SPI to an address of ours: dropped. To another address: policies decide."""
    unknown = TestSa(0x9999, src=RIGHT, dst=LEFT)
    transit = TestSa(0x9999, src="10.1.0.5", dst="203.0.113.9")
    packets = [esp_of(unknown, inner()), esp_of(transit, inner())]
    result = inbound(packets)
    assert [spi_of(p) for p in result.packets] == [OUT["a"].spi]
    assert result.dropped == {"no_sa": 1}


def test_fragments_of_esp_are_not_put_together() -> None:
    esp = IP(esp_of(BACK, inner())[14:])
    esp.flags, esp.chksum = "MF", None
    result = inbound([ETHERNET + b"\x08\x00" + bytes(esp)])
    assert result.dropped == {"esp_fragment": 1}


def test_esp_behind_a_vlan_tag() -> None:
    tag = ETHERNET + b"\x81\x00\x00\x05"
    result = inbound([esp_of(BACK, inner(), mac=tag)])
    assert result.packets == [tag + b"\x08\x00" + inner()]


def test_a_wrong_icv_and_a_wrong_key_are_counted_for_their_association(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = esp_of(BACK, inner())
    damaged = bytearray(good)
    damaged[-20] ^= 1
    other = TestSa(BACK.spi, BACK.src, BACK.dst, cipher="aes-256-cbc")
    result = inbound([bytes(damaged), good, esp_of(other, inner(), 2)])
    assert result.packets == [ETHERNET + b"\x08\x00" + inner()]
    assert result.dropped == {"bad_icv": 2}
    assert result.summary["nfs"]["nf0"]["detail"]["sas"]["back"]["not_authentic"] == 2
    assert caplog.text.count("wrong ICV") == 1


def test_udp_encapsulation_keepalives_and_ike() -> None:
    """RFC 3948: ESP in UDP to our port; a keepalive ends here; IKE, behind four zero bytes, goes
    the way of its policy; plain ESP with the same SPI is another association: there is none."""
    sa = TestSa(0x3001, src=RIGHT, dst=LEFT, udp=4500)
    rules = [
        {"src": "10.2.0.0/16", "action": "nat"},
        {"protocol": "udp", "port": [500, 4500], "action": "bypass"},
    ]
    ike = udp(RIGHT, LEFT, 4500, 4500, bytes(4) + b"IKE")
    keepalive = udp(RIGHT, LEFT, 4500, 4500, b"\xff")
    elsewhere = udp(RIGHT, "192.0.2.77", 4500, 4500, b"12345678")
    plain = TestSa(0x3001, src=RIGHT, dst=LEFT)
    packets = [esp_of(sa, inner()), keepalive, ike, elsewhere, esp_of(plain, inner())]
    result = run(ipsec(None, {"nat": sa}, rules), packets, sa)
    assert result.packets == [ETHERNET + b"\x08\x00" + inner(), ike, elsewhere]
    assert result.dropped == {"keepalive": 1, "no_policy": 1}


def test_a_packet_type_for_what_came_out() -> None:
    """in0 -> ipsec: decrypted -> out1, the rest -> out0."""
    nf = ipsec({"a": OUT["a"]}, {"back": BACK}, IN_RULES)
    nf["sas"]["back"]["type"] = "inside"
    source, rows = through(nf)
    source["ports"]["out1"] = {"driver": "pcap", "write": "inside.pcap"}
    rows += "inside,nf0,out1\n"
    packets = [esp_of(BACK, inner()), udp("10.1.0.1", "10.2.0.1", 1, 2)]
    files = key_files(OUT["a"], BACK)
    result = run_chain(source, packets, rows, files=files, use="none")
    assert result.packets_of("out1") == [ETHERNET + b"\x08\x00" + inner()]
    assert [spi_of(p) for p in result.packets_of("out0")] == [OUT["a"].spi]


# ---- packets that are too big --------------------------------------------------------------------


def padded(size: int, flags: str = "", src: str = "10.1.0.9") -> bytes:
    """An IPv4 packet of this length, its header included."""
    ip = IP(src=src, dst="10.2.0.1", flags=flags, id=77) / UDP(sport=5, dport=6) / bytes(size - 28)
    return bytes(LINK / ip)


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("mtu", [576, 1400, 1500])
def test_a_packet_that_may_not_be_cut_is_refused_with_the_length_that_fits(
    name: str, mtu: int
) -> None:
    """Sizes around the bound, with DF: each either leaves within the MTU or its sender gets ICMP
    'fragmentation needed' with a length; a packet of that very length goes through."""
    sa = OUT[name]
    sizes = range(mtu - 80, mtu + 4)
    nf = ipsec({name: sa}, mtu=mtu, icmp={"rate": 100_000})
    result = run(nf, [padded(s, "DF") for s in sizes], sa)
    errors = [IP(p[14:]) for p in result.packets if spi_of(p) is None]
    sent = [IP(p[14:]) for p in result.packets if spi_of(p) is not None]
    assert sent and errors and len(sent) + len(errors) == len(sizes)
    assert all(len(ip) <= mtu and ip.flags.DF for ip in sent)
    (most,) = {ip[ICMP].nexthopmtu for ip in errors}
    assert len(sent) == len([s for s in sizes if s <= most]), "the length fits, one more does not"
    assert result.dropped == {"too_big": len(errors)}
    for size, error in zip([s for s in sizes if s > most], errors, strict=True):
        assert (error.src, error.dst) == (sa.src, "10.1.0.9")
        assert (error[ICMP].type, error[ICMP].code) == (3, 4)
        assert error[IPerror].len == size
    assert result.summary["nfs"]["nf0"]["created"] == len(errors)


@pytest.mark.parametrize("name", OUT)
def test_a_packet_that_may_be_cut_leaves_in_fragments(name: str) -> None:
    """The ESP packet is cut, as RFC 4303 section 3.3.4 has it; put together again by scapy it
    decrypts to what came."""
    sa = OUT[name]
    packets = [padded(size) for size in (500, 560, 600, 1200, 1500)]
    result = run(ipsec({name: sa}, mtu=576), packets, sa)
    pieces = [IP(p[14:]) for p in result.packets]
    assert all(len(ip) <= 576 for ip in pieces) and len(pieces) > len(packets)
    whole = defragment(pieces)
    opened = sorted((bytes(sa.scapy().decrypt(ip)) for ip in whole), key=len)
    assert opened == [packet[14:] for packet in packets]
    assert result.dropped == {}
    assert result.summary["nfs"]["nf0"]["detail"]["sas"][name]["fragmented"] >= 3


def test_ipv6_gets_packet_too_big_but_never_less_than_1280() -> None:
    """An IPv6 packet of 1,280 bytes always gets through: in fragments of the outer header."""
    sa = OUT["a"]
    packets = [
        bytes(LINK / IPv6(src="2001:db8::1", dst="2001:db8::2", nh=59) / bytes(n - 40))
        for n in (1200, 1280, 1281, 1400)
    ]
    icmp = {"source6": "2001:db8::ff", "rate": 1000}
    result = run(ipsec({"a": sa}, mtu=1300, icmp=icmp), packets, sa)
    errors = [IPv6(p[14:]) for p in result.packets if p[12:14] == IPV6]
    assert [e[ICMPv6PacketTooBig].mtu for e in errors] == [1280, 1280]
    assert {(e.src, e.dst) for e in errors} == {("2001:db8::ff", "2001:db8::1")}
    whole = defragment([IP(p[14:]) for p in result.packets if p[12:14] != IPV6])
    assert sorted((bytes(sa.scapy().decrypt(ip)) for ip in whole), key=len) == [
        p[14:] for p in packets[:2]
    ]
    quiet = run(ipsec({"a": sa}, mtu=1300), packets, sa)  # without an IPv6 address to speak from
    assert quiet.dropped == {"too_big": 2} and all(p[12:14] != IPV6 for p in quiet.packets)


def test_icmp_errors_have_a_type_a_source_and_a_bounded_rate() -> None:
    nf = ipsec({"a": OUT["a"]}, icmp={"source": "192.0.2.200", "type": "errors", "rate": 10})
    source, rows = through(nf)
    source["ports"]["out1"] = {"driver": "pcap", "write": "errors.pcap"}
    rows += "errors,nf0,out1\n"
    packets = [padded(1500, "DF") for _ in range(50)]
    result = run_chain(source, packets, rows, files=key_files(OUT["a"]), use="none")
    errors = [IP(p[14:]) for p in result.packets_of("out1")]
    assert 1 <= len(errors) <= 5 and {e.src for e in errors} == {"192.0.2.200"}
    assert result.dropped == {"too_big": 50}
    suppressed = result.summary["nfs"]["nf0"]["detail"]["icmp_suppressed"]
    assert suppressed == 50 - len(errors)


# ---- transport mode ------------------------------------------------------------------------------


def test_transport_mode_is_between_two_hosts() -> None:
    """Only packets of the two hosts match its policies, whatever these leave open; no fragments."""
    sa = TestSa(0x4001, mode="transport")
    mine = udp(LEFT, RIGHT, 5, 6, b"x" * 50)
    cut = IP(mine[14:])
    cut.flags, cut.chksum = "MF", None
    packets = [mine, udp(LEFT, "192.0.2.99", 5, 6), ETHERNET + b"\x08\x00" + bytes(cut)]
    result = run(ipsec({"host": sa}), packets, sa)
    assert result.dropped == {"no_policy": 1, "esp_fragment": 1}
    (esp,) = result.packets
    assert bytes(sa.scapy().decrypt(IP(esp[14:]))[UDP]) == mine[34:]
    back = run(ipsec(None, {"host": sa}), [esp], sa)
    assert back.packets == [mine]


# ---- nonsense ------------------------------------------------------------------------------------


def test_nonsense_is_counted_and_nothing_of_it_comes_out_of_an_association() -> None:
    """Damaged and random packets, many of them ESP, also in UDP, for addresses of ours: cut at any
    place, with the right SPI. Only a broken ICV check could let one through."""
    back = TestSa(0x2001, RIGHT, LEFT, "aes-128-gcm", "none")
    nat = TestSa(0x3001, RIGHT, LEFT, "aes-256-gcm", "none", udp=4500)
    rng = np.random.default_rng(4303)
    packets = [some_packet(rng) for _ in range(3000)]
    for number in range(3000):
        head = struct.pack(">II", (back, nat)[number % 2].spi, number)
        body = head + rng.bytes(4 * int(rng.integers(0, 24)))
        if number % 2:
            body = struct.pack(">HHHH", 4500, 4500, 8 + len(body), 0) + body
        protocol = (50, 17)[number % 2]
        ip = IP(src=RIGHT, dst=LEFT, proto=protocol, flags=int(number % 37 == 0)) / body
        raw = bytearray(ETHERNET + b"\x08\x00" + bytes(ip))
        if number % 5 == 0:
            raw[int(rng.integers(14, len(raw)))] ^= 1 << int(rng.integers(8))
        packets.append(bytes(raw[: int(rng.integers(34, len(raw) + 1))] if number % 3 else raw))
    nf = ipsec({"a": OUT["a"]}, {"back": back, "nat": nat})
    nf["policies"] = [{"action": "back"}, {"action": "nat"}, {"action": "a"}]
    result = run(nf, packets, OUT["a"], back, nat)
    sas = result.summary["nfs"]["nf0"]["detail"]["sas"]
    assert result.packets == [] and result.dropped["clear_text"] > 1000
    assert sas["back"]["not_authentic"] > 300 < sas["nat"]["not_authentic"]
    assert sas["back"]["packets"] == sas["nat"]["packets"] == 0
