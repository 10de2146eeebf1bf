# SPDX-License-Identifier: BSD-3-Clause
"""What a port answers for its addresses, byte by byte: scapy asks, scapy reads the answer. Through
the data plane it goes in tests/c/test_neighbour.c, with kernels on the wire in test_live_arp.py.

    question ── hb_answer_question() ── answer, or the very same packet
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hummingbird.dataplane._native import ffi, lib
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

MAC, ASKER, OTHER = "02:00:00:00:5a:a5", "02:00:00:00:00:01", "02:00:00:00:00:77"
OWNED = ("192.0.2.1", "198.51.100.7", "2001:db8::1", "fe80::9")
PEER, PEER6 = "192.0.2.2", "2001:db8::2"
BROADCAST, ALL_NODES = "ff:ff:ff:ff:ff:ff", "ff02::1"
TAGS = {
    "untagged": [],
    "tag": [Dot1Q(vlan=7, prio=3)],
    "two tags": [Dot1AD(vlan=5), Dot1Q(vlan=7)],
}


def answer(packet: Any, room: int = 1664, owned: Sequence[str] = OWNED) -> bytes | None:
    """What the port says to a packet; None if it leaves it alone, which is checked."""
    raw = bytes(packet)
    listed = ffi.new("hb_ip_address[]", len(owned))
    for one, address in zip(listed, map(ipaddress.ip_address, owned), strict=True):
        one.family = address.version
        one.bytes[0 : len(address.packed)] = address.packed
    memory = ffi.new("uint8_t[]", max(room, len(raw)))
    ffi.memmove(memory, raw, len(raw))
    mac = ffi.from_buffer("uint8_t[6]", bytes.fromhex(MAC.replace(":", "")))
    length = lib.hb_answer_question(listed, len(owned), mac, memory, len(raw), max(room, len(raw)))
    if not length:
        assert bytes(memory)[: len(raw)] == raw, "it changed a packet that it did not answer"
        return None
    return bytes(memory)[:length]


def layers(*parts: Any) -> Any:
    """All of them on top of each other."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole / part
    return whole


def who_has(
    target: str = OWNED[0], to: str = BROADCAST, tags: Sequence[Any] = (), **arp: Any
) -> Any:
    """An ARP request."""
    fields = {"op": 1, "hwsrc": ASKER, "psrc": PEER, "hwdst": "00:00:00:00:00:00"} | arp
    return layers(Ether(dst=to, src=ASKER), *tags, ARP(pdst=target, **fields))


def group_of(target: str) -> str:
    """The solicited-node address."""
    low = int(ipaddress.IPv6Address(target)) & 0xFFFFFF
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("ff02::1:ff00:0")) | low))


def solicit(
    target: str = OWNED[2],
    src: str = PEER6,
    dst: str | None = None,
    to: str = "33:33:ff:00:00:01",
    tags: Sequence[Any] = (),
    options: Sequence[Any] | None = None,
    hops: int = 255,
    **nd: Any,
) -> Any:
    """A neighbour solicitation."""
    if options is None:
        options = [] if src == "::" else [ICMPv6NDOptSrcLLAddr(lladdr=ASKER)]
    ip = IPv6(src=src, dst=dst or group_of(target), hlim=hops)
    return layers(Ether(dst=to, src=ASKER), *tags, ip, ICMPv6ND_NS(tgt=target, **nd), *options)


def check_link(said: Any, to: str, tags: Sequence[Any]) -> None:
    """Addresses, and the tags of the question."""
    assert (said.src, said.dst) == (MAC, to)
    layer = said.payload
    for tag in tags:
        assert (type(layer), layer.vlan, layer.prio) == (type(tag), tag.vlan, tag.prio)
        layer = layer.payload
    assert isinstance(layer, ARP | IPv6)


def check_advertisement(raw: bytes, target: str, dst: str, solicited: bool) -> Any:
    """Sound, and the checksum is what scapy makes of it."""
    said = Ether(raw)
    ip, na = said[IPv6], said[ICMPv6ND_NA]
    assert (ip.src, ip.dst, ip.hlim, ip.plen, ip.nh) == (target, dst, 255, 32, 58)
    assert (na.tgt, na.R, na.S, na.O, na.res, na.code) == (target, 0, int(solicited), 1, 0, 0)
    assert said[ICMPv6NDOptDstLLAddr].lladdr == MAC
    right = said.copy()
    del right[ICMPv6ND_NA].cksum
    assert bytes(right) == raw
    return said


# ---- what is answered ----------------------------------------------------------------------------


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("target", OWNED[:2])
@pytest.mark.parametrize("psrc", [PEER, "0.0.0.0", OWNED[0]], ids=["asks", "probes", "announces"])
@pytest.mark.parametrize("to", [BROADCAST, MAC], ids=["broadcast", "unicast"])
def test_arp_request(target: str, psrc: str, to: str, tags: Sequence[Any]) -> None:
    raw = answer(who_has(target, to=to, tags=tags, psrc=psrc))
    assert raw is not None
    said = Ether(raw)
    check_link(said, ASKER, tags)
    arp = said[ARP]
    assert (arp.op, arp.hwtype, arp.ptype, arp.hwlen, arp.plen) == (2, 1, 0x800, 6, 4)
    assert (arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (MAC, target, ASKER, psrc)
    assert len(raw) == 42 + 4 * len(tags)


def test_arp_goes_to_whom_the_request_names() -> None:
    raw = answer(who_has(hwsrc=OTHER))
    assert raw is not None and Ether(raw).dst == OTHER and Ether(raw)[ARP].hwdst == OTHER


@pytest.mark.parametrize("padding", [4, 18, 1000])
def test_arp_padding(padding: int) -> None:
    """A frame stays as long as the least one is; what another has left in it is not sent back."""
    raw = answer(bytes(who_has()) + (b"secret" * 200)[:padding])
    assert raw is not None
    assert len(raw) == min(42 + padding, 60) and not any(raw[42:])


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("target", OWNED[2:])
@pytest.mark.parametrize("src", [PEER6, "fe80::2"])
@pytest.mark.parametrize("unicast", [False, True], ids=["multicast", "unicast"])
@pytest.mark.parametrize("named", [True, False], ids=["option", "no option"])
def test_solicitation(
    target: str, src: str, unicast: bool, named: bool, tags: Sequence[Any]
) -> None:
    options = None if named else []
    where = {"dst": target, "to": MAC} if unicast else {}
    raw = answer(solicit(target, src, tags=tags, options=options, **where))
    assert raw is not None
    check_link(check_advertisement(raw, target, src, solicited=True), ASKER, tags)


def test_duplicate_address_detection() -> None:
    """RFC 4862: nobody has the address yet who asks; all hear that it is taken."""
    raw = answer(solicit(src="::"))
    assert raw is not None
    said = check_advertisement(raw, OWNED[2], ALL_NODES, solicited=False)
    check_link(said, "33:33:00:00:00:01", [])


def test_solicitation_with_other_options() -> None:
    """RFC 4861 section 7.1.1: options that are not known are skipped."""
    options = [ICMPv6NDOptMTU(), ICMPv6NDOptSrcLLAddr(lladdr=OTHER), ICMPv6NDOptMTU()]
    raw = answer(solicit(options=options))
    assert raw is not None
    assert check_advertisement(raw, OWNED[2], PEER6, solicited=True).dst == OTHER


def test_the_answer_is_of_no_flow_label_or_class() -> None:
    asked = solicit()
    asked[IPv6].tc, asked[IPv6].fl = 0xE0, 0x12345
    raw = answer(asked)
    assert raw is not None and raw[14:18] == b"\x60\0\0\0"


def test_room_for_the_answer() -> None:
    """An advertisement may be longer than what asked for it."""
    asked = solicit(options=[])
    assert len(asked) == 78
    assert answer(asked, room=85) is None
    assert answer(asked, room=86) is not None


# ---- what is not ---------------------------------------------------------------------------------


def wrong_sum() -> bytes:
    raw = bytearray(bytes(solicit()))
    raw[56] ^= 1
    return bytes(raw)


def cut_option() -> bytes:
    """An option that claims more than there is; the checksum is right."""
    option = ICMPv6NDOptSrcLLAddr(lladdr=ASKER, len=2)
    return bytes(solicit(options=[option]))


NOT_OURS: dict[str, Any] = {
    "another's address": who_has("192.0.2.77"),
    "another family's bytes": who_has("32.1.13.184"),
    "a reply": who_has(op=2),
    "reverse ARP": who_has(op=3),
    "another hardware": who_has(hwtype=6),
    "another protocol": who_has(ptype=0x86DD),
    "longer hardware addresses": who_has(hwlen=8),
    "longer protocol addresses": who_has(plen=16),
    "a group as sender": who_has(hwsrc="01:00:5e:00:00:01"),
    "nobody as sender": who_has(hwsrc="00:00:00:00:00:00"),
    "our own words": who_has(hwsrc=MAC),
    "ARP to another station": who_has(to=OTHER),
    "three tags": who_has(tags=[Dot1Q(vlan=1), Dot1Q(vlan=2), Dot1Q(vlan=3)]),
    "a cut request": bytes(who_has())[:41],
    "a cut tag": bytes(who_has(tags=TAGS["tag"]))[:17],
    "another's IPv6 address": solicit("2001:db8::77", dst=group_of("2001:db8::77")),
    "to another group": solicit(dst="ff02::1:ff00:2"),
    "to all nodes": solicit(dst="ff02::1"),
    "to another host": solicit(dst="2001:db8::77", to=MAC),
    "to another station": solicit(to=OTHER),
    "from beyond the link": solicit(hops=254),
    "a code": solicit(code=1),
    "a wrong checksum": wrong_sum(),
    "an option of no length": solicit(options=[ICMPv6NDOptSrcLLAddr(lladdr=ASKER, len=0)]),
    "an option that is cut": cut_option(),
    "half an option": bytes(solicit(options=[b"\x01\x01\x02\x00"])),
    "DAD with a link address": solicit(src="::", options=[ICMPv6NDOptSrcLLAddr(lladdr=ASKER)]),
    "DAD to one": solicit(src="::", dst=OWNED[2], to=MAC),
    "a group asks": solicit(src="ff02::2"),
    "a group as link address": solicit(options=[ICMPv6NDOptSrcLLAddr(lladdr=BROADCAST)]),
    "a cut solicitation": bytes(solicit())[:77],
    "behind an extension header": layers(
        Ether(dst="33:33:ff:00:00:01", src=ASKER),
        IPv6(src=PEER6, dst=group_of(OWNED[2]), hlim=255),
        IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]),
        ICMPv6ND_NS(tgt=OWNED[2]),
    ),
    "an advertisement": layers(
        Ether(dst=MAC, src=ASKER),
        IPv6(src=PEER6, dst=OWNED[2], hlim=255),
        ICMPv6ND_NA(tgt=OWNED[2]),
    ),
    "a router solicitation": layers(
        Ether(dst="33:33:00:00:00:02", src=ASKER), IPv6(dst="ff02::2", hlim=255), ICMPv6ND_RS()
    ),
    "a ping": layers(Ether(dst=MAC, src=ASKER), IP(src=PEER, dst=OWNED[0]), ICMP()),
    "UDP": layers(Ether(dst=MAC, src=ASKER), IPv6(src=PEER6, dst=OWNED[2]), UDP()),
    "nothing": b"",
    "a runt": b"\xff" * 13,
}


@pytest.mark.parametrize("packet", NOT_OURS.values(), ids=NOT_OURS)
def test_everything_else_stays_as_it_is(packet: Any) -> None:
    assert answer(packet) is None


def test_no_addresses_no_answers() -> None:
    assert answer(who_has(), owned=[]) is None and answer(solicit(), owned=OWNED[:2]) is None


def bent(packet: Any) -> Iterator[tuple[int, bytes]]:
    """A packet with each of its bits turned in turn, and that bit's byte."""
    raw = bytes(packet)
    for bit in range(8 * len(raw)):
        other = bytearray(raw)
        other[bit // 8] ^= 1 << bit % 8
        yield bit // 8, bytes(other)


def test_every_bit_of_a_request_counts() -> None:
    """Only who asks, and what is not looked at, may be another one."""
    free = {*range(6, 12), *range(22, 28), *range(28, 32), *range(32, 38)}
    for at, packet in bent(who_has(to=MAC)):
        to_group = at == 0 and packet[0] & 1
        answered = answer(packet) is not None
        assert answered == ((at in free and not packet[22] & 1) or bool(to_group)), at


def test_every_bit_of_a_solicitation_counts() -> None:
    """The checksum covers all that is of the message; the Ethernet header and the first word of
    the IPv6 header but for the version are not looked at."""
    for at, packet in bent(solicit(to=MAC)):
        to_group = at == 0 and packet[0] & 1
        free = at in range(6, 12) or at in (15, 16, 17) or (at == 14 and packet[14] >> 4 == 6)
        assert (answer(packet) is not None) == (free or bool(to_group)), at


def test_cut_anywhere() -> None:
    for packet in (who_has(), solicit(), who_has(tags=TAGS["two tags"])):
        raw = bytes(packet)
        for length in range(len(raw)):
            assert answer(raw[:length], room=length) is None


def test_nothing_behind_the_end_counts() -> None:
    """What was there before, or padding: were it looked at, the checksum would be right."""
    raw = bytes(solicit())
    mac = ffi.from_buffer("uint8_t[6]", bytes.fromhex(MAC.replace(":", "")))
    own = ffi.new("hb_ip_address[]", [{"family": 6}])
    own[0].bytes[0:16] = ipaddress.ip_address(OWNED[2]).packed
    for length in range(len(raw) + 1):
        memory = ffi.new("uint8_t[]", raw + bytes(100))
        answered = lib.hb_answer_question(own, 1, mac, memory, length, len(raw) + 100)
        assert bool(answered) == (length == len(raw))


def test_any_owned_address_among_many() -> None:
    """As many as there may be; each is found, none that is near it."""
    draw = random.Random(5)
    owned = [str(ipaddress.IPv4Address(draw.getrandbits(31) | 1 << 24)) for _ in range(16)]
    for address in owned:
        assert answer(who_has(address), owned=owned) is not None
        for bit in range(32):
            near = str(ipaddress.IPv4Address(int(ipaddress.IPv4Address(address)) ^ 1 << bit))
            assert (answer(who_has(near), owned=owned) is not None) == (near in owned)
