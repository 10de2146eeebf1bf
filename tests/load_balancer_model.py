# SPDX-License-Identifier: BSD-3-Clause
"""The load balancer in plain Python: whole packets in, whole packets out. It shares no code with
the one that is tested, and does what docs/load_balancer.md says.

It knows Ethernet, VLAN tags, IPv4, IPv6 with or without a fragment header, TCP and UDP. Flows never
end here.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import blake2b
from typing import Any

M64 = (1 << 64) - 1
TCP, UDP = 6, 17
PROTOCOLS = {"tcp": TCP, "udp": UDP}
IPV4, IPV6, TAGS = 0x0800, 0x86DD, (0x8100, 0x88A8, 0x9100)


# ---- Maglev --------------------------------------------------------------------------------------


def turns(permutations: list[list[int]], weights: list[int], size: int) -> list[int | None]:
    """The paper's Pseudocode 1, with turns that some take only now and then."""
    entry: list[int | None] = [None] * size
    if not any(weights):
        return entry
    saved = [Fraction(0)] * len(weights)
    waiting = [iter(one) for one in permutations]
    filled = 0
    while True:
        for i, weight in enumerate(weights):
            saved[i] += Fraction(weight, max(weights))
            if saved[i] < 1:
                continue
            saved[i] -= 1
            entry[next(at for at in waiting[i] if entry[at] is None)] = i
            filled += 1
            if filled == size:
                return entry


def permutation(name: str, size: int) -> list[int]:
    """The order in which a backend wants the entries."""
    digest = blake2b(name.encode(), digest_size=16).digest()
    offset = int.from_bytes(digest[:8], "little") % size
    skip = int.from_bytes(digest[8:], "little") % (size - 1) + 1
    return [(offset + j * skip) % size for j in range(size)]


def flow_hash(
    seed: int, client: bytes, client_port: int, address: bytes, port: int, protocol: int
) -> int:
    """Addresses of 16 bytes."""

    def fold(a: int, b: int) -> int:
        product = (a & M64) * (b & M64)
        return (product & M64) ^ (product >> 64)

    c, v = struct.unpack(">2Q", client), struct.unpack(">2Q", address)
    h = fold(seed ^ 0xA0761D6478BD642F, c[0] ^ 0xE7037ED1A0B428DB)
    for word, constant in (
        (c[1], 0x8EBC6AF09C88C6E3),
        (v[0], 0x589965CC75374CC3),
        (v[1], 0x1D8E4E27C47D124F),
        (client_port << 32 | port << 16 | protocol, 0xEB44ACCAB455D165),
    ):
        h = fold(h ^ word, constant)
    return h


# ---- services ------------------------------------------------------------------------------------


def wide(text: str) -> bytes:
    """16 bytes of an address."""
    address = ipaddress.ip_address(text)
    return address.packed.rjust(16, b"\0") if address.version == 6 else mapped(address.packed)


def mapped(four: bytes) -> bytes:
    """::ffff:a.b.c.d"""
    return b"\0" * 10 + b"\xff\xff" + four


@dataclass
class Backend:
    """A backend; its port is 0 where packets keep theirs."""

    address: str
    port: int
    weight: int = 1
    mac: str | None = None

    @property
    def name(self) -> str:
        """As the load balancer prints it."""
        if not self.port:
            return self.address
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


@dataclass
class Service:
    """A service."""

    name: str
    address: str
    protocol: int
    first: int
    last: int
    mode: str
    by_client: bool
    backends: list[Backend]
    entry: list[int | None] = field(default_factory=list)


@dataclass
class Frame:
    """What is in a packet, as offsets into it."""

    data: bytearray
    l3: int
    l4: int | None
    end: int
    six: bool
    protocol: int
    fragment: int | None
    """The datagram's id, if this is a piece of one."""

    def address(self, end: int) -> bytes:
        """16 bytes; end 0 is the source."""
        if self.six:
            return bytes(self.data[self.l3 + 8 + 16 * end :][:16])
        return mapped(bytes(self.data[self.l3 + 12 + 4 * end :][:4]))

    def port(self, end: int) -> int:
        """Only where there is a transport header."""
        assert self.l4 is not None
        return int.from_bytes(self.data[self.l4 + 2 * end :][:2], "big")


def parse(packet: bytes) -> Frame | None:
    """None if it is no IP packet with TCP or UDP."""
    data, at = bytearray(packet), 12
    kind = int.from_bytes(data[at : at + 2], "big")
    while kind in TAGS:
        at += 4
        kind = int.from_bytes(data[at : at + 2], "big")
    l3 = at + 2
    if kind == IPV4:
        place = int.from_bytes(data[l3 + 6 : l3 + 8], "big") & 0x3FFF
        number = int.from_bytes(data[l3 + 4 : l3 + 6], "big") if place else None
        l4 = None if place & 0x1FFF else l3 + 4 * (data[l3] & 15)
        end = l3 + int.from_bytes(data[l3 + 2 : l3 + 4], "big")
        frame = Frame(data, l3, l4, end, False, data[l3 + 9], number)
    elif kind == IPV6:
        l4, protocol, number = l3 + 40, data[l3 + 6], None
        end = l4 + int.from_bytes(data[l3 + 4 : l3 + 6], "big")
        if protocol == 44:
            place = int.from_bytes(data[l4 + 2 : l4 + 4], "big")
            protocol, number = data[l4], int.from_bytes(data[l4 + 4 : l4 + 8], "big")
            l4 = None if place >> 3 else l4 + 8
        frame = Frame(data, l3, l4, end, True, protocol, number)
    else:
        return None
    return frame if frame.protocol in (TCP, UDP) else None


# ---- checksums -----------------------------------------------------------------------------------


def ones_sum(data: bytes) -> int:
    """The one's complement sum of 16-bit words."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def updated(checksum: int, before: bytes, after: bytes) -> int:
    """A checksum after some of what it covers has changed, right or wrong as before."""
    total = (checksum ^ 0xFFFF) + (ones_sum(before) ^ 0xFFFF) + ones_sum(after)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


# ---- the load balancer ---------------------------------------------------------------------------


@dataclass
class Choice:
    """What is done with the packets of a flow that one end of it sends."""

    sender: tuple[bytes, int]
    service: Service | None = None
    backend: Backend | None = None
    reply: bool = False

    def shown(self) -> dict[str, Any]:
        """As `hummingbird flows` shows it."""
        if self.service is None or self.backend is None:
            return {"mode": "drop" if self.service else "pass"}
        mode = "reply" if self.reply else self.service.mode
        return {"mode": mode, "service": self.service.name, "backend": self.backend.name}


class Model:
    """A load balancer."""

    def __init__(
        self,
        services: dict[str, dict[str, Any]],
        backends: dict[str, list[Backend]],
        *,
        seed: int,
        size: int = 65537,
        mac: str | None = None,
        source: str | None = None,
        source6: str | None = None,
        mtu: int = 1500,
    ) -> None:
        self.seed, self.size, self.mac, self.mtu = seed, size, mac, mtu
        self.source, self.source6 = source, source6
        self.flows: dict[Any, Choice] = {}
        self.services = [self._service(name, one) for name, one in services.items()]
        self.set_backends(backends)

    def _service(self, name: str, one: dict[str, Any]) -> Service:
        port = str(one["port"]).replace("any", "0-65535")
        first, last = (int(part) for part in (port.split("-") * 2)[:2])
        return Service(
            name=name,
            address=one["address"],
            protocol=PROTOCOLS[one["protocol"]],
            first=first,
            last=last,
            mode=one.get("mode", "dnat"),
            by_client=one.get("affinity") == "client",
            backends=[],
        )

    def set_backends(self, backends: dict[str, list[Backend]]) -> None:
        """From now on these take the flows; port 0 is the service's where it has one."""
        for service in self.services:
            service.backends = sorted(
                (
                    Backend(one.address, self._port(service, one), one.weight, one.mac)
                    for one in backends.get(service.name, [])
                ),
                key=lambda one: (wide(one.address), one.port),
            )
            orders = [permutation(one.name, self.size) for one in service.backends]
            service.entry = turns(orders, [one.weight for one in service.backends], self.size)

    def _port(self, service: Service, one: Backend) -> int:
        keeps = service.mode == "ipip" or service.first != service.last
        return 0 if keeps else one.port or service.first

    def _service_at(self, address: bytes, protocol: int, port: int) -> Service | None:
        for one in self.services:
            same = (wide(one.address), one.protocol) == (address, protocol)
            if same and one.first <= port <= one.last:
                return one
        return None

    def _backend_at(
        self, address: bytes, protocol: int, port: int
    ) -> tuple[Service, Backend] | None:
        for service in self.services:
            for one in service.backends if service.mode == "dnat" else []:
                ports = (one.port, one.port) if one.port else (service.first, service.last)
                same = (wide(one.address), service.protocol) == (address, protocol)
                if same and ports[0] <= port <= ports[1]:
                    return service, one
        return None

    def _chosen(
        self, service: Service, client: bytes, client_port: int, port: int
    ) -> Backend | None:
        if not any(one.weight for one in service.backends):
            return None
        address = wide(service.address)
        if service.by_client:
            h = flow_hash(self.seed, client, 0, address, 0, 0)
        else:
            h = flow_hash(self.seed, client, client_port, address, port, service.protocol)
        entry = service.entry[h % self.size]
        assert entry is not None
        return service.backends[entry]

    # ---- packets ----

    def packet(self, data: bytes) -> bytes | str:
        """What becomes of a packet: itself, another, or why it is dropped."""
        frame = parse(data)
        if frame is None:
            return data
        choice = self._choice(frame)
        if isinstance(choice, str):
            return choice
        sender = (frame.address(0), 0 if frame.fragment is not None else frame.port(0))
        if choice.service is None or choice.sender != sender:
            return data
        if choice.backend is None:
            return "no_backend"
        if choice.reply:
            port = choice.service.first if choice.backend.port else 0
            return self._rewritten(frame, 0, wide(choice.service.address), port)
        if choice.service.mode == "ipip":
            return self._tunnel(frame, choice.backend)
        wanted = self._rewritten(frame, 1, wide(choice.backend.address), choice.backend.port)
        return self._addressed(wanted, choice.backend)

    def _choice(self, frame: Frame) -> Choice | str:
        key = self._key(frame)
        if key not in self.flows:
            choice = self._begin(frame)
            if isinstance(choice, str):
                return choice
            self.flows[key] = choice
        return self.flows[key]

    def _key(self, frame: Frame) -> Any:
        ends = [frame.address(0), frame.address(1)]
        if frame.fragment is not None:
            return ("fragment", frozenset(ends), frame.protocol, frame.fragment)
        return (frame.protocol, frozenset({(ends[0], frame.port(0)), (ends[1], frame.port(1))}))

    def _begin(self, frame: Frame) -> Choice | str:
        src, dst, protocol = frame.address(0), frame.address(1), frame.protocol
        if frame.l4 is None:
            virtual = any((wide(o.address), o.protocol) == (dst, protocol) for o in self.services)
            answers = any(
                (wide(b.address), o.protocol, o.mode) == (src, protocol, "dnat")
                for o in self.services
                for b in o.backends
            )
            return "no_first_fragment" if virtual or answers else Choice((src, 0))
        sport, dport = frame.port(0), frame.port(1)
        sender = (src, 0 if frame.fragment is not None else sport)
        if service := self._service_at(dst, protocol, dport):
            parent = self.flows.get((protocol, frozenset({(src, sport), (dst, dport)})))
            if frame.fragment is not None and parent and parent.service is service:
                return Choice(sender, service, parent.backend)
            backend = self._chosen(service, src, sport, dport)
            return Choice(sender, service, backend) if backend else "no_backend"
        if found := self._backend_at(src, protocol, sport):
            return Choice(sender, *found, reply=True)
        service = self._service_at(src, protocol, sport)
        if service and frame.fragment is None:
            return Choice((dst, dport), service, self._chosen(service, dst, dport, sport))
        return Choice(sender)

    def _rewritten(self, frame: Frame, end: int, address: bytes, port: int) -> bytes:
        """With another address and port at one end, and every checksum that covers them."""
        data, l3, l4 = frame.data, frame.l3, frame.l4
        place, size = (l3 + 8 + 16 * end, 16) if frame.six else (l3 + 12 + 4 * end, 4)
        before, after = bytes(data[place : place + size]), address[16 - size :]
        data[place : place + size] = after
        if not frame.six:
            self._sum(data, l3 + 10, before, after)
        if l4 is None:
            return bytes(data)
        if port:
            before += bytes(data[l4 + 2 * end :][:2])
            after += port.to_bytes(2, "big")
            data[l4 + 2 * end : l4 + 2 * end + 2] = port.to_bytes(2, "big")
        udp = frame.protocol == UDP
        at = l4 + (6 if udp else 16)
        if not udp or any(data[at : at + 2]):
            self._sum(data, at, before, after)
            if udp and not any(data[at : at + 2]):
                data[at : at + 2] = b"\xff\xff"
        return bytes(data)

    def _sum(self, data: bytearray, at: int, before: bytes, after: bytes) -> None:
        old = int.from_bytes(data[at : at + 2], "big")
        data[at : at + 2] = updated(old, before, after).to_bytes(2, "big")

    def _addressed(self, packet: bytes, backend: Backend) -> bytes:
        if not backend.mac:
            return packet
        source = bytes.fromhex(self.mac.replace(":", "")) if self.mac else packet[6:12]
        return bytes.fromhex(backend.mac.replace(":", "")) + source + packet[12:]

    def _tunnel(self, frame: Frame, backend: Backend) -> bytes | str:
        data, l3 = bytes(frame.data), frame.l3
        inner = data[l3 : frame.end]
        six = ":" in backend.address
        tos = (inner[0] << 8 | inner[1]) >> 4 & 255 if frame.six else inner[1]
        protocol = 41 if frame.six else 4
        ends = [self.source6 if six else self.source, backend.address]
        packed = b"".join(ipaddress.ip_address(str(one)).packed for one in ends)
        if len(inner) + (40 if six else 20) > self.mtu:
            return "too_big"
        if six:
            outer = struct.pack(">IHBB", 6 << 28 | tos << 20, len(inner), protocol, 64) + packed
        else:
            total = 20 + len(inner)
            outer = struct.pack(">BBHIBBH", 0x45, tos, total, 0x4000, 64, protocol, 0) + packed
            outer = outer[:10] + struct.pack(">H", ones_sum(outer) ^ 0xFFFF) + outer[12:]
        kind = (IPV6 if six else IPV4).to_bytes(2, "big")
        return self._addressed(data[: l3 - 2] + kind + outer + inner, backend)
