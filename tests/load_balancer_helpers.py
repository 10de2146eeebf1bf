# SPDX-License-Identifier: BSD-3-Clause
"""A load balancer in a chain and the same one in plain Python; packets, and scapy as the judge of
their checksums.

    packets ─┬─ in0 ── nf0 (load_balancer) ── out0 ─┐
             └─ Model ──────────────────────────────┴─ the same packets, drops and flows
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from chain import Result, line, run_chain
from load_balancer_model import Backend, Choice, Model
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

CLIENT_MAC, OWN_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
SERVICES: dict[str, dict[str, Any]] = {
    "web": {"address": "203.0.113.10", "protocol": "tcp", "port": 443},
    "dns": {"address": "203.0.113.10", "protocol": "udp", "port": 53, "affinity": "client"},
    "many": {"address": "203.0.113.11", "protocol": "tcp", "port": "8000-8099"},
    "six": {"address": "2001:db8::10", "protocol": "tcp", "port": 80},
    "six-dns": {"address": "2001:db8::10", "protocol": "udp", "port": "any"},
    "tube": {"address": "203.0.113.12", "protocol": "udp", "port": "any", "mode": "ipip"},
    "tube6": {"address": "2001:db8::12", "protocol": "tcp", "port": 80, "mode": "ipip"},
    "empty": {"address": "203.0.113.13", "protocol": "tcp", "port": 80},
}
FILE = """\
service,address,port,weight,state,mac
web,10.0.1.1,8443,1,,02:00:00:00:01:01
web,10.0.1.2,8443,2,,02:00:00:00:01:02
web,10.0.1.3,,1,,
dns,10.0.2.1,,,,
dns,10.0.2.2,5353,,,
many,10.0.3.1,,,,
many,10.0.3.2,,,,
six,2001:db8:1::1,8080,,,02:00:00:00:01:09
six,2001:db8:1::2,8080,,,
six-dns,2001:db8:2::1,,,,
six-dns,2001:db8:2::2,,,,
tube,10.0.4.1,,,,02:00:00:00:01:0a
tube,10.0.4.2,,,,
tube,2001:db8:4::1,,,,
tube6,2001:db8:5::1,,,,
tube6,10.0.5.1,,,,
empty,10.0.6.1,80,0,,
"""
TUNNEL = {"source": "192.0.2.1", "source6": "2001:db8:ffff::1", "mtu": 1500}
BALANCER: dict[str, Any] = {
    "type": "load_balancer",
    "engine": "cpu",
    "backends": "backends.csv",
    "mac": OWN_MAC,
    "table_size": 1021,
    "services": SERVICES,
    "tunnel": TUNNEL,
    "icmp": {"rate": 1_000_000},
}


def backends_of(file: str) -> dict[str, list[Backend]]:
    """A backends file, read in the simplest way."""
    found: dict[str, list[Backend]] = {}
    for row in file.splitlines()[1:]:
        service, address, port, weight, state, mac = row.split(",")
        number = 0 if state == "drain" else int(weight or 1)
        found.setdefault(service, []).append(Backend(address, int(port or 0), number, mac or None))
    return found


def model_of(file: str = FILE, balancer: Mapping[str, Any] = BALANCER) -> Model:
    """The same load balancer in plain Python."""
    return Model(
        dict(balancer["services"]),
        backends_of(file),
        seed=zlib.crc32(b"nf0"),
        size=balancer.get("table_size", 65537),
        mac=balancer.get("mac"),
        **balancer["tunnel"],
    )


def through(packets: Sequence[bytes], file: str = FILE, **more: Any) -> Result:
    """Packets through a load balancer in the data plane; `more` goes to run_chain() or, what it has
    a name for, into the topology."""
    fields = ("engine", "services", "icmp", "mac", "table_size")
    own = {key: more.pop(key) for key in list(more) if key in fields}
    sections = {key: more.pop(key) for key in list(more) if key in ("cores", "flows", "device")}
    source, rows = line(BALANCER | own, **sections)
    more.setdefault("use", "none")
    return run_chain(source, packets, rows, files={"backends.csv": file}, **more)


def expected(model: Model, packets: Iterable[bytes]) -> tuple[list[bytes], dict[str, int]]:
    """What the model makes of packets: those that come out, and drops by reason."""
    answers = [model.packet(packet) for packet in packets]
    out = [one for one in answers if isinstance(one, bytes)]
    return out, dict(Counter(one for one in answers if isinstance(one, str)))


def flows_of(result: Result) -> dict[Any, dict[str, Any]]:
    """What the load balancer says of each TCP and UDP flow at the end, by its two ends."""
    found = {}
    for flow in result.flows:
        if flow.protocol not in ("tcp", "udp") or flow.state == "fragment":
            continue
        ends = frozenset({(str(flow.src), flow.sport), (str(flow.dst), flow.dport)})
        if "nf0" in flow.nfs:  # it is not, while there is no backend for it
            found[flow.protocol, ends] = flow.nfs["nf0"]
    return found


def flows_of_model(model: Model) -> dict[Any, dict[str, Any]]:
    """The same of the model."""
    return {
        ("tcp" if key[0] == 6 else "udp", frozenset((_text(a), p) for a, p in key[1])): _shown(one)
        for key, one in model.flows.items()
        if key[0] != "fragment"
    }


def _text(address: bytes) -> str:
    if address.startswith(b"\0" * 10 + b"\xff\xff"):
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))


def _shown(choice: Choice) -> dict[str, Any]:
    return choice.shown()


def detail(result: Result) -> dict[str, Any]:
    """What the NF reports."""
    found: dict[str, Any] = result.summary["nfs"]["nf0"]["detail"]
    return found


# ---- packets -------------------------------------------------------------------------------------


def packet(
    dst: str,
    dport: int,
    *,
    src: str | None = None,
    sport: int = 1000,
    udp: bool = False,
    size: int = 20,
    tags: int = 0,
    **fields: Any,
) -> Packet:
    """TCP or UDP, of the family of the destination."""
    link: Packet = Ether(src=CLIENT_MAC, dst=OWN_MAC)
    for tag in range(tags):
        link = link / Dot1Q(vlan=5 + tag)
    ip: Packet = (
        IPv6(src=src or "2001:db8:c::1", dst=dst, **fields)
        if ":" in dst
        else IP(src=src or "198.51.100.1", dst=dst, **fields)
    )
    l4 = UDP(sport=sport, dport=dport) if udp else TCP(sport=sport, dport=dport, flags="PA")
    return link / ip / l4 / Raw(bytes(i % 251 for i in range(size)))


def requests(count: int, first: int = 0) -> list[bytes]:
    """One packet of so many flows to the service web."""
    return [
        bytes(
            packet("203.0.113.10", 443, src=f"198.51.{100 + (n >> 14)}.9", sport=1024 + n % 16384)
        )
        for n in range(first, first + count)
    ]


def ends(data: bytes) -> tuple[str, int, str, int]:
    """Source and destination of TCP or UDP in IPv4 without options; fast."""
    src, dst, sport, dport = struct.unpack_from(">4s4sHH", data, 26)
    return socket.inet_ntoa(src), sport, socket.inet_ntoa(dst), dport


QUOTING = (ICMP, ICMPv6DestUnreach, ICMPv6PacketTooBig)


def rebuilt(data: bytes) -> bytes:
    """The same packet with every checksum made anew by scapy, inside tunnels, too. A UDP checksum
    of 0, which IPv4 has for none, stays."""
    packet = Ether(data)
    layer: Packet = packet
    while layer and not isinstance(layer.underlayer, QUOTING):  # what is quoted was another's
        zero = isinstance(layer, UDP) and layer.chksum == 0
        later = isinstance(layer, (TCP, UDP, ICMP)) and _in_pieces(layer)
        if isinstance(layer, (IP, TCP, UDP, ICMP)) and not zero and not later:
            del layer.chksum
        if isinstance(layer, QUOTING[1:]):
            del layer.cksum
        layer = layer.payload
    return bytes(packet)


def _in_pieces(layer: Packet) -> bool:
    """A transport header whose datagram is not all here: scapy cannot know its checksum."""
    under = layer.underlayer
    if isinstance(under, IP):
        return bool(under.flags.MF or under.frag)
    return isinstance(under, IPv6ExtHdrFragment)


def traffic(rng: np.random.Generator, count: int) -> list[bytes]:
    """A mixed bag to and from services: both families, tags, options, no UDP checksums, replies,
    packets to nobody, fragments in and out of order."""
    packets: list[bytes] = []
    while len(packets) < count:
        packets += _some(rng)
    return packets[:count]


TO = [("203.0.113.10", 443, False), ("203.0.113.10", 53, True), ("203.0.113.11", 8000, False),
      ("203.0.113.11", 8099, False), ("203.0.113.11", 8100, False), ("203.0.113.12", 7, True),
      ("203.0.113.12", 7, False), ("203.0.113.13", 80, False), ("203.0.113.99", 443, False),
      ("2001:db8::10", 80, False), ("2001:db8::10", 5000, True), ("2001:db8::12", 80, False),
      ("2001:db8::99", 80, False)]  # fmt: skip
FROM = [("10.0.1.1", 8443, False), ("10.0.1.2", 8443, False), ("10.0.1.3", 443, False),
        ("10.0.1.3", 444, False), ("10.0.2.2", 5353, True), ("10.0.3.1", 8001, False),
        ("2001:db8:1::1", 8080, False), ("2001:db8:2::1", 99, True), ("10.0.4.1", 7, True),
        ("203.0.113.12", 9, True), ("203.0.113.13", 80, False)]  # fmt: skip


def _some(rng: np.random.Generator) -> list[bytes]:
    reply = rng.random() < 0.3
    address, port, udp = (FROM if reply else TO)[int(rng.integers(len(FROM if reply else TO)))]
    six = ":" in address
    client = f"2001:db8:c::{rng.integers(1, 99)}" if six else f"198.51.100.{rng.integers(1, 99)}"
    other = int(rng.integers(1024, 1100))
    size = int(rng.integers(0, 900))
    fields: dict[str, Any] = {"tc" if six else "tos": int(rng.integers(256))}
    if not six:
        fields |= {"id": int(rng.integers(1, 1 << 16)), "flags": ["", "DF"][rng.integers(2)]}
    ends = (client, address, port, other) if reply else (address, client, other, port)
    made = packet(
        ends[0], ends[3], src=ends[1], sport=ends[2], udp=udp, size=size,
        tags=int(rng.integers(3)) if rng.random() < 0.3 else 0, **fields,
    )  # fmt: skip
    if udp and not six and rng.random() < 0.3:
        made[UDP].chksum = 0
    if size > 100 and rng.random() < 0.3:
        return _pieces(made, rng, six)
    return [bytes(made)]


def _pieces(made: Packet, rng: np.random.Generator, six: bool) -> list[bytes]:
    """Fragments of a packet; some without their first, some with the first one last."""
    if six:
        pieces = pieces_of_six(made, int(rng.integers(1, 1 << 32)))
    else:
        made[IP].flags = ""
        pieces = [bytes(one) for one in fragment(Ether(bytes(made)), 8 * int(rng.integers(5, 30)))]
    kind = rng.random()
    if kind < 0.2:
        return pieces[1:]
    return [*pieces[1:2], *pieces] if kind < 0.4 else pieces


def pieces_of_six(made: Packet, number: int, step: int = 96) -> list[bytes]:
    """An IPv6 packet as fragments (RFC 8200 section 4.5)."""
    whole = Ether(bytes(made))
    ip = whole[IPv6]
    data, protocol = bytes(ip.payload), ip.nh
    head = bytes(whole)[: len(bytes(whole)) - 40 - len(data)]
    pieces = []
    for at in range(0, len(data), step):
        one = ip.copy()
        one.remove_payload()
        one.nh, one.plen = 44, 8 + len(data[at : at + step])
        more = at + step < len(data)
        extension = bytes(IPv6ExtHdrFragment(nh=protocol, offset=at // 8, m=more, id=number))
        pieces.append(head + bytes(one) + extension + data[at : at + step])
    return pieces
