# SPDX-License-Identifier: BSD-3-Clause
"""What docs/nat.md says about ``type: nat``, in plain Python: one packet at a time, nothing ever
expires. It shares no code with the NF."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

M64 = (1 << 64) - 1
ICMP, TCP, UDP = 1, 6, 17
REQUESTS, REPLIES, ERRORS = (8, 13, 15, 17), (0, 14, 16, 18), (3, 4, 11, 12)

End = tuple[int, int, int]
"""Protocol, address, port."""


def address(text: str) -> int:
    return int(ipaddress.IPv4Address(text))


def word(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def long(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


# ---- SipHash-2-4 ---------------------------------------------------------------------------------


def rotate(x: int, n: int) -> int:
    return (x << n | x >> (64 - n)) & M64


def siphash(seed: int, *words: int) -> int:
    k0, k1 = seed & M64, seed >> 64
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D]
    v += [k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(n: int) -> None:
        for _ in range(n):
            for a, b, turn in ((0, 1, 13), (2, 3, 16)):
                v[a] = (v[a] + v[b]) & M64
                v[b] = rotate(v[b], turn) ^ v[a]
            v[0] = rotate(v[0], 32)
            for a, b, turn in ((0, 3, 21), (2, 1, 17)):
                v[a] = (v[a] + v[b]) & M64
                v[b] = rotate(v[b], turn) ^ v[a]
            v[2] = rotate(v[2], 32)

    for w in (*words, len(words) * 8 << 56):
        v[3] ^= w
        rounds(2)
        v[0] ^= w
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


# ---- packets -------------------------------------------------------------------------------------


def swap(data: bytearray, at: int, new: bytes, checksums: list[int]) -> None:
    """Replace bytes; the checksums at these places, which cover them, stay as right as they are."""
    old = bytes(data[at : at + len(new)])
    data[at : at + len(new)] = new
    total = sum(word(new, i) - word(old, i) for i in range(0, len(new), 2))
    for place in checksums:
        complement = (0xFFFF - word(data, place) + total) % 0xFFFF or 0xFFFF
        data[place : place + 2] = (0xFFFF - complement).to_bytes(2, "big")


@dataclass
class Header:
    """An IPv4 header and what follows it, at a place of a packet."""

    data: bytearray
    at: int
    end: int

    @property
    def l4(self) -> int:
        return self.at + (self.data[self.at] & 15) * 4

    @property
    def protocol(self) -> int:
        return self.data[self.at + 9]

    @property
    def src(self) -> int:
        return long(self.data, self.at + 12)

    @property
    def dst(self) -> int:
        return long(self.data, self.at + 16)

    @property
    def offset(self) -> int:
        return word(self.data, self.at + 6) & 0x1FFF

    @property
    def fragment(self) -> bool:
        return word(self.data, self.at + 6) & 0x3FFF != 0

    @property
    def icmp(self) -> int:
        return self.data[self.l4]

    @property
    def ports(self) -> tuple[int, int]:
        """Of TCP and UDP; twice the id of an ICMP query; else 0."""
        if self.protocol in (TCP, UDP):
            return word(self.data, self.l4), word(self.data, self.l4 + 2)
        if self.protocol == ICMP and self.icmp in REQUESTS + REPLIES:
            return (word(self.data, self.l4 + 4),) * 2
        return 0, 0

    def checksum(self) -> list[int]:
        """Where that of the transport header is, if it is there."""
        place = self.l4 + {ICMP: 2, TCP: 16, UDP: 6, 33: 6, 136: 6}.get(self.protocol, 1 << 20)
        if place + 2 > self.end or (self.protocol == UDP and word(self.data, place) == 0):
            return []
        return [place]

    def put(self, source: bool, end: tuple[int, int], outer: list[int], later: bool) -> None:
        """Another source or destination; `outer`: checksums of a message that this is quoted in."""
        before = bytes(self.data)
        at, new = self.at + (12 if source else 16), end[0].to_bytes(4, "big")
        has_port = self.protocol in (ICMP, TCP, UDP) and not later
        l4 = [] if later else self.checksum()
        swap(self.data, at, new, [self.at + 10, *([] if self.protocol == ICMP else l4)])
        if has_port:
            place = self.l4 + (4 if self.protocol == ICMP else 0 if source else 2)
            swap(self.data, place, end[1].to_bytes(2, "big"), l4)
        if self.protocol == UDP and l4 and word(self.data, l4[0]) == 0:
            self.data[l4[0] : l4[0] + 2] = b"\xff\xff"
        for at in range(self.at, self.end - 1, 2):
            if outer and self.data[at : at + 2] != before[at : at + 2]:
                changed = bytes(self.data[at : at + 2])
                self.data[at : at + 2] = before[at : at + 2]
                swap(self.data, at, changed, outer)


# ---- the NAT -------------------------------------------------------------------------------------


class Drop(Exception):
    """For this reason."""


@dataclass
class Translation:
    """Of a flow's packets from one end."""

    sender: tuple[int, int]
    source: tuple[int, int] | None = None
    destination: tuple[int, int] | None = None


@dataclass
class Nat:
    """A NAT; parameters as in a topology."""

    params: Mapping[str, Any]
    mapping: dict[End, End] = field(default_factory=dict)
    """Inside end to external end."""
    inside_of: dict[End, End] = field(default_factory=dict)
    peers: set[tuple[End, int, int]] = field(default_factory=set)
    forwarded: set[End] = field(default_factory=set)
    flows: dict[Any, Translation | None] = field(default_factory=dict)
    firsts: set[Any] = field(default_factory=set)
    """Datagrams whose first fragment has come."""

    def __post_init__(self) -> None:
        get = self.params.get
        self.inside = [ipaddress.IPv4Network(net) for net in self.params["inside"]]
        nets = [ipaddress.IPv4Network(net) for net in self.params["external"]]
        self.external = sorted(int(host) for net in nets for host in net)
        self.ports = [
            port
            for first, last in sorted(
                tuple(map(int, text.split("-"))) for text in get("ports", ["1024-65535"])
            )
            for port in range(first, last + 1)
        ]
        for forward in get("forwards", []):
            protocol = {"tcp": TCP, "udp": UDP}[forward["protocol"]]
            ends = [forward[name].split(":") for name in ("inside", "external")]
            inside, external = ((protocol, address(a), int(p)) for a, p in ends)
            self._add(inside, external)
            self.forwarded.add(inside)

    def _add(self, inside: End, external: End) -> None:
        self.mapping[inside] = external
        self.inside_of[external] = inside

    def is_inside(self, where: int) -> bool:
        return any(ipaddress.IPv4Address(where) in net for net in self.inside)

    def crosses(self, src: int, dst: int) -> bool:
        """Is translation what a packet from there to there needs?"""
        if dst in self.external:
            return True
        link = dst >> 24 in (0, 127) or dst >> 28 >= 14 or dst >> 16 == 0xA9FE
        return self.is_inside(src) and not self.is_inside(dst) and not link

    # -- mappings --

    def _choose(self, inside: End) -> End:
        protocol, host, port = inside
        seed, count = self.params["seed"], len(self.external)
        first = (siphash(seed, host, 1 << 32) >> 32) * count >> 32
        tries = 1 if self.params.get("pooling", "paired") == "paired" else count
        for i in range(tries):
            external = self.external[(first + i) % count]
            if protocol not in (ICMP, TCP, UDP):
                if (protocol, external, 0) not in self.inside_of:
                    return protocol, external, 0
                continue
            at = siphash(seed, host, protocol << 16 | port) >> 32
            at = at * len(self.ports) >> 32
            if self.params.get("keep_port") and port in self.ports:
                at = self.ports.index(port)
            parities = (
                [port % 2] if protocol == UDP and self.params.get("keep_parity", True) else []
            )
            for parity in [*parities, None]:
                for p in (*self.ports[at:], *self.ports[:at]):
                    if (parity is None or p % 2 == parity) and (
                        protocol,
                        external,
                        p,
                    ) not in self.inside_of:
                        return protocol, external, p
        raise Drop("no_port")

    def external_of(self, inside: End) -> End:
        if inside not in self.mapping:
            if len(self.mapping) >= self.params.get("mappings", 65536):
                raise Drop("no_port")
            self._add(inside, self._choose(inside))
        return self.mapping[inside]

    def _peer(self, inside: End, host: int, port: int) -> tuple[End, int, int]:
        by_port = self.params.get("filtering") == "address-and-port-dependent"
        return inside, host, port if by_port and inside[0] in (TCP, UDP) else 0

    def may_enter(self, inside: End, host: int, port: int) -> bool:
        if self.params.get("filtering", "endpoint-independent") == "endpoint-independent":
            return True
        return inside in self.forwarded or self._peer(inside, host, port) in self.peers

    # -- flows --

    def _send(self, head: Header) -> tuple[int, int]:
        if head.protocol == ICMP and head.icmp not in REQUESTS:
            raise Drop("no_mapping")
        sport, dport = head.ports
        inside = (head.protocol, head.src, sport)
        external = self.external_of(inside)
        self.peers.add(self._peer(inside, head.dst, dport))
        return external[1:]

    def _receive(self, head: Header, src: int, sport: int) -> tuple[int, int]:
        if head.protocol == ICMP and head.icmp not in REPLIES:
            raise Drop("no_mapping")
        inside = self.inside_of.get((head.protocol, head.dst, head.ports[1]))
        if inside is None or not self.may_enter(inside, src, sport):
            raise Drop("no_mapping")
        return inside[1:]

    def set_up(self, head: Header) -> Translation:
        if head.protocol in (ICMP, TCP, UDP) and head.offset:
            raise Drop("no_first_fragment")
        least = {ICMP: 8, TCP: 20, UDP: 8, 132: 12}.get(head.protocol, 0)
        if not head.offset and head.end - head.l4 < least:
            raise Drop("malformed")
        made = Translation((head.src, head.ports[0]))
        if head.dst not in self.external:
            made.source = self._send(head)
        elif not self.is_inside(head.src):
            made.destination = self._receive(head, head.src, head.ports[0])
        elif self.params.get("hairpin", True) and head.protocol != ICMP:
            made.source = self._send(head)
            made.destination = self._receive(head, *made.source)
        else:
            raise Drop("no_mapping")
        return made

    def _key(self, head: Header) -> Any:
        ends: tuple[Any, ...] = (head.src,), (head.dst,)
        if head.fragment:
            return "fragment", word(head.data, head.at + 4), head.protocol, *sorted(ends)
        ports = head.ports
        if head.protocol == 132:
            ports = word(head.data, head.l4), word(head.data, head.l4 + 2)
        return head.protocol, *sorted(zip((head.src, head.dst), ports, strict=True))

    def _of_flow(self, head: Header) -> Translation | None:
        key = self._key(head)
        first = head.fragment and not head.offset
        if first and key in self.firsts:
            self.flows.pop(key, None)  # another datagram
        if first:
            self.firsts.add(key)
        if key not in self.flows:
            if self.crosses(head.src, head.dst):
                self.flows[key] = self.set_up(head)
            elif self.crosses(head.dst, head.src):
                raise Drop("no_mapping")
            else:
                self.flows[key] = None
        found = self.flows[key]
        if found and found.sender[0] != head.src:
            raise Drop("no_mapping")
        return found

    # -- packets --

    def run(self, packet: bytes) -> bytes:
        """What becomes of a packet.

        Raises:
            Drop: nothing.
        """
        data, at = bytearray(packet), 14
        while word(data, at - 2) in (0x8100, 0x88A8):
            at += 4
        if word(data, at - 2) != 0x0800:
            return packet
        head = Header(data, at, at + word(data, at + 2))
        if head.protocol == ICMP and not head.fragment:
            if head.icmp in ERRORS:
                self._error(head)
                return bytes(data)
            if head.icmp not in (0, 8) or not head.ports[0]:
                translation = self.set_up(head) if self.crosses(head.src, head.dst) else None
                return self._apply(head, translation)
        return self._apply(head, self._of_flow(head))

    def _apply(self, head: Header, translation: Translation | None) -> bytes:
        if translation and translation.source:
            head.put(True, translation.source, [], head.offset > 0)
        if translation and translation.destination:
            head.put(False, translation.destination, [], head.offset > 0)
        return bytes(head.data)

    def _error(self, head: Header) -> None:
        quote = Header(head.data, head.l4 + 8, head.end)
        short = head.end < head.l4 + 36 or quote.end < quote.l4 + 8
        quotes_inside = not short and self.is_inside(quote.dst)
        comes_in = head.dst in self.external
        leaves = not self.is_inside(head.dst) and (self.is_inside(head.src) or quotes_inside)
        if not comes_in and not leaves:
            return
        if short:
            raise Drop("malformed")
        total = sum(word(head.data, i) for i in range(head.l4, head.end - 1, 2))
        total += head.data[head.end - 1] << 8 if (head.end - head.l4) % 2 else 0
        if total % 0xFFFF:
            raise Drop("bad_checksum")
        if quote.offset or quote.src != head.dst:
            raise Drop("no_mapping")
        if quote.protocol == ICMP and quote.icmp not in REQUESTS + REPLIES:
            raise Drop("no_mapping")  # nobody complains of a complaint
        sport, dport = quote.ports
        sender = self.inside_of.get((quote.protocol, quote.src, sport))
        receiver = self.mapping.get((quote.protocol, quote.dst, dport))
        hairpin = comes_in and self.is_inside(head.src)
        if (comes_in and not sender) or ((hairpin or not comes_in) and not receiver):
            raise Drop("no_mapping")
        if comes_in:
            assert sender is not None
            peer = receiver[1:] if hairpin and receiver else (quote.dst, dport)
            if not self.may_enter(sender, *peer):
                raise Drop("no_mapping")
        outer = [head.l4 + 2]
        if receiver and not (comes_in and not hairpin):
            quote.put(False, receiver[1:], outer, False)
            if self.is_inside(head.src):
                swap(head.data, head.at + 12, receiver[1].to_bytes(4, "big"), [head.at + 10])
        if comes_in and sender:
            quote.put(True, sender[1:], outer, False)
            swap(head.data, head.at + 16, sender[1].to_bytes(4, "big"), [head.at + 10])
