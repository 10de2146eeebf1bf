# SPDX-License-Identifier: BSD-3-Clause
"""A model of the flow table in plain Python, made from its specification (the comments of
flow.h, the topology's section ``flows:``) and not from its code.

    packet, time ── look() ── Seen ─┐
    what became of it ── Answer ────┴─ FlowModel.check() ── is that what had to become of it?

It follows what it is told where the specification leaves it open: whether a flow is over within
0.14 s of its timeout, and whether one that is over still took up room when the table was full.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hummingbird.flows import Flow

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
SLACK = SECOND * 14 // 100
"""Times are known to 67 ms, at both ends of a span."""
TIMEOUTS = {
    "other": 60,
    "tcp_syn": 30,
    "tcp_established": 7200,
    "tcp_midstream": 120,
    "tcp_closing": 30,
    "udp": 30,
    "udp_both": 180,
    "icmp": 30,
    "fragment": 30,
}
"""Seconds, as topologies have them unless they say otherwise."""
FIN, SYN, RST, ACK = 1, 2, 4, 16
KEPT = ("tcp_established", "udp_both")
"""States of flows that never have to go for others."""
REUSED = 16
"""A tuple that was reused this often may have all places that it could have held by flows that are
over, of which packets are left."""

Key = tuple[Any, ...]


class Unsure(Exception):
    """The specification leaves open what has to become of this packet, and it cannot be seen."""


# ---- packets -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What the flow table looks at in a packet."""

    key: Key
    direction: int
    """0: from the smaller (address, port) to the larger one."""
    kind: str
    """``tcp``, ``udp``, ``icmp``, ``other`` or ``fragment``."""
    flags: int = 0
    """Of TCP."""
    first_fragment: bool = False


def look(packet: bytes, zone: int = 0) -> Seen | None:
    """None: it is damaged, and dropped before it gets to the table."""
    at, tags = 14, 0
    if len(packet) < at:
        return None
    while packet[at - 2 : at] in (b"\x81\x00", b"\x88\xa8", b"\x91\x00") and tags < 2:
        at, tags = at + 4, tags + 1
        if len(packet) < at:
            return None
    if packet[at - 2 : at] == b"\x08\x00":
        return _look_ipv4(packet[at:], zone)
    if packet[at - 2 : at] == b"\x86\xdd":
        return _look_ipv6(packet[at:], zone)
    ends = frozenset((packet[:6], packet[6:12]))
    return Seen(("link", ends, packet[at - 2 : at]), 0, "other")


def _look_ipv4(ip: bytes, zone: int) -> Seen | None:
    if len(ip) < 20 or ip[0] >> 4 != 4:
        return None
    header, total = (ip[0] & 15) * 4, int.from_bytes(ip[2:4], "big")
    if not 20 <= header <= total <= len(ip):
        return None
    mapped = bytes(10) + b"\xff\xff"
    ends = mapped + ip[12:16], mapped + ip[16:20]
    field_ = int.from_bytes(ip[6:8], "big") & 0x3FFF
    if field_:
        ports = int.from_bytes(ip[4:6], "big"), 0
        return _seen(ends, ports, ip[9], zone, "fragment", first=not field_ & 0x1FFF)
    return _transport(ends, ip[9], ip[header:total], zone, (1, 8, 0, 8))


def _look_ipv6(ip: bytes, zone: int) -> Seen | None:
    if len(ip) < 40 or ip[0] >> 4 != 6:
        return None
    length = int.from_bytes(ip[4:6], "big")
    if length > len(ip) - 40:
        return None
    ends, rest = (ip[8:24], ip[24:40]), ip[40 : 40 + length] if length else ip[40:]
    protocol, headers = ip[6], 0
    while protocol in (0, 43, 44, 60):
        size = 8 if protocol == 44 else 8 + 8 * rest[1] if len(rest) >= 8 else 8
        headers += 1
        if len(rest) < size or headers > 8:
            return None
        at, fragment = int.from_bytes(rest[2:4], "big"), protocol == 44
        if fragment and at & 0xFFF9:
            ports = struct.unpack(">HH", rest[4:8])
            return _seen(ends, ports, rest[0], zone, "fragment", first=not at >> 3)
        protocol, rest = rest[0], rest[size:]
    return _transport(ends, protocol, rest, zone, (58, 128, 129, 4))


def _transport(
    ends: tuple[bytes, bytes], protocol: int, l4: bytes, zone: int, icmp: tuple[int, int, int, int]
) -> Seen | None:
    """``icmp``: its protocol number, the types of echo and its answer, its shortest header."""
    number, request, reply, least = icmp
    if protocol == number:
        echo = l4[:1] and l4[0] in (request, reply)
        if len(l4) < (8 if echo else least):
            return None
        one = int.from_bytes(l4[4:6], "big") if echo else 0
        return _seen(ends, (one, one), protocol, zone, "icmp")
    headers = {6: 20, 17: 8, 132: 12}
    if protocol not in headers:
        return _seen(ends, (0, 0), protocol, zone, "icmp" if protocol in (1, 58) else "other")
    if len(l4) < headers[protocol]:
        return None
    ports = struct.unpack(">HH", l4[:4])
    kind = {6: "tcp", 17: "udp", 132: "other"}[protocol]
    return _seen(ends, ports, protocol, zone, kind, flags=l4[13] if protocol == 6 else 0)


def _seen(
    ends: tuple[bytes, bytes],
    ports: tuple[int, ...],
    protocol: int,
    zone: int,
    kind: str,
    flags: int = 0,
    first: bool = False,
) -> Seen:
    src, dst = zip(ends, ports, strict=True)
    key = (min(src, dst), max(src, dst), protocol, zone, kind == "fragment")
    return Seen(key, int(src > dst), kind, flags, first)


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What became of a packet: how many its flow has had with it, and how many in its direction."""

    packets: int
    own: int


@dataclass
class ModelFlow:
    """One live flow."""

    first: int
    """Direction of its first packet."""
    began: int
    seen: int
    state: str
    both: bool = False
    fragment: bool = False
    """Its datagram's first fragment was there."""
    packets: list[int] = field(default_factory=lambda: [0, 0])
    """By direction."""


@dataclass
class Clock:
    """Packet time of several ports, made one. A port whose time goes back by more than a second or
    leaps by more than an hour goes on from where the clock stands."""

    now: int = 0
    _offset: dict[int, int] = field(default_factory=dict)

    def move(self, port: int, time: int) -> None:
        at = time + self._offset.setdefault(port, self.now - time)
        if at < self.now - SECOND or at > self.now + HOUR:
            self._offset[port] = self.now - time
        else:
            self.now = max(self.now, at)


class FlowModel:
    """The flow table of one lcore."""

    def __init__(
        self, limit: int = 65536, evict: bool = False, timeouts: Mapping[str, int] | None = None
    ) -> None:
        self.limit, self.evict = limit, evict
        self.timeout = {n: s * SECOND for n, s in (TIMEOUTS | dict(timeouts or {})).items()}
        self.clock = Clock()
        self.live: dict[Key, ModelFlow] = {}
        """In the order they began; some may be over."""
        self.begun = self.ended = self.refused = self.evicted = 0
        self._expendable: dict[Key, None] = {}
        """Flows that may have to go, in the order they came to that."""
        self._ends: Counter[Key] = Counter()

    # ---- a packet ----

    def check(self, seen: Seen, time: int, answer: Answer | None, port: int = 0) -> None:
        """A packet was there at this time, and this became of it; None: it was refused."""
        self.clock.move(port, time)
        flow = self.live.get(seen.key)
        if flow and self._goes_on(flow, seen, answer):
            self._follow(flow, seen)
        else:
            if flow:
                self._end(seen.key)
            if not self._make_room(answer, seen.key):
                return
            flow = self._begin(seen)
        flow.packets[seen.direction] += 1
        wanted = Answer(sum(flow.packets), flow.packets[seen.direction])
        assert answer == wanted, (answer, wanted, seen, flow, self.clock.now)

    def _idle(self, flow: ModelFlow) -> int:
        """Nanoseconds more than its timeout."""
        return self.clock.now - flow.seen - self.timeout[flow.state]

    def _goes_on(self, flow: ModelFlow, seen: Seen, answer: Answer | None) -> bool:
        over = self._idle(flow)
        if over > SLACK or self._is_replaced(flow, seen):
            return False
        return over < -SLACK or (answer is not None and answer.packets > 1)

    @staticmethod
    def _is_replaced(flow: ModelFlow, seen: Seen) -> bool:
        """It is the first packet of another flow with the same key."""
        again = flow.state == "tcp_closing" and seen.flags & (SYN | ACK | RST) == SYN
        return again or (flow.fragment and seen.first_fragment)

    def _begin(self, seen: Seen) -> ModelFlow:
        state = seen.kind
        if state == "tcp":
            state = "tcp_syn" if seen.flags & SYN else "tcp_midstream"
            state = "tcp_closing" if seen.flags & (FIN | RST) else state
        now = self.clock.now
        flow = ModelFlow(seen.direction, now, now, state, fragment=seen.first_fragment)
        self.live[seen.key] = flow
        self.begun += 1
        self._note_state(seen.key, state)
        return flow

    def _note_state(self, key: Key, state: str) -> None:
        if state in KEPT:
            self._expendable.pop(key, None)
        else:
            self._expendable.setdefault(key)

    def _follow(self, flow: ModelFlow, seen: Seen) -> None:
        flow.seen = self.clock.now
        flow.fragment |= seen.first_fragment
        flow.both |= seen.direction != flow.first
        if flow.state == "udp" and flow.both:
            flow.state = "udp_both"
        if flow.state.startswith("tcp"):
            self._follow_tcp(flow, seen)
        self._note_state(seen.key, flow.state)

    @staticmethod
    def _follow_tcp(flow: ModelFlow, seen: Seen) -> None:
        if seen.flags & (FIN | RST):
            flow.state = "tcp_closing"
        elif flow.state == "tcp_midstream" and flow.both:
            flow.state = "tcp_established"
        elif flow.state == "tcp_syn" and seen.direction == flow.first:
            shakes = seen.flags & (SYN | ACK) == ACK
            flow.state = "tcp_established" if shakes else flow.state

    def _end(self, key: Key) -> None:
        del self.live[key]
        self._expendable.pop(key, None)
        self.ended += 1
        self._ends[key] += 1

    # ---- a full table ----

    def _make_room(self, answer: Answer | None, key: Key) -> bool:
        """False: there is none, and there need not be any."""
        if answer is None and self._may_be_crowded(key):
            self.refused += 1
            return False
        if len(self.live) < self.limit:
            assert answer, f"refused without need, among {len(self.live)}"
            return True
        over = [key for key, flow in self.live.items() if self._idle(flow) > -SLACK]
        sure = len(self.live) - len(over)
        if self.evict and over:
            raise Unsure("has a flow that is over been taken out, or another one?")
        victim = next(iter(self._expendable), None) if self.evict else None
        if answer is None:
            assert not victim, "refused, though there is a flow that may go"
            self.refused += 1
            return False
        assert sure < self.limit or victim, "there was no room for it"
        for key in over:  # one of them, but they come back as new flows in any case
            self._end(key)
        if victim:
            self._end(victim)
            self.evicted += 1
        return True

    def _may_be_crowded(self, key: Key) -> bool:
        """May places be held by so many flows that are over that there is none for this one?"""
        return len(self.live) + self.ended >= self.limit or self._ends[key] >= REUSED

    # ---- all flows ----

    def check_flows(self, flows: Collection[Flow], nfs: Iterable[str]) -> None:
        """These were listed as the live ones, after the last packet."""
        listed = {key_of(flow): flow for flow in flows if flow.protocol != "-"}
        assert len({flow.index for flow in flows}) == len(flows), "an index is two flows'"
        assert len(listed) == sum(flow.protocol != "-" for flow in flows), "a flow was listed twice"
        for key, mine in self.live.items():
            if key[0] != "link" and self._idle(mine) < -SLACK:
                assert key in listed, f"not listed: {key}, {mine}"
        for key, flow in listed.items():
            assert key in self.live, f"there is no such flow: {flow}"
            self._check_flow(self.live[key], key, flow, nfs)
        links = sorted(sum(f.packets) for key, f in self.live.items() if key[0] == "link")
        known = sorted(
            sum(f.nfs[nf]["packets"]) for f in flows if f.protocol == "-" for nf in f.nfs
        )
        assert set(known) <= set(links), (known, links)

    def _check_flow(self, mine: ModelFlow, key: Key, flow: Flow, nfs: Iterable[str]) -> None:
        assert flow.state == mine.state, (flow, mine)
        for shown, since in ((flow.age_s, mine.began), (flow.idle_s, mine.seen)):
            true = (self.clock.now - since) / SECOND
            assert abs(shown - true) * SECOND < SLACK, (flow, mine, true)
        assert (_packed(flow.src), flow.sport) == key[mine.first], (flow, mine)
        over = self._idle(mine) > -SLACK  # and may have ended while it was listed
        for nf in () if over and not flow.nfs else nfs:
            assert list(flow.nfs[nf]["packets"]) == mine.packets, (flow, mine)


def _packed(address: Any) -> bytes:
    packed: bytes = ipaddress.ip_address(address).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def key_of(flow: Flow) -> Key:
    """The model's key of a flow as it is listed."""
    ends = sorted([(_packed(flow.src), flow.sport), (_packed(flow.dst), flow.dport)])
    names = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "icmpv6": 58, "sctp": 132}
    protocol = names[flow.protocol] if flow.protocol in names else int(flow.protocol)
    return (*ends, protocol, flow.zone, flow.state == "fragment")
