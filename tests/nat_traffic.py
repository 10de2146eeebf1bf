# SPDX-License-Identifier: BSD-3-Clause
"""Traffic through a NAT, made up together with the model of it, which knows what comes next."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from nat_model import Drop, Header, Nat, word
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
OUTSIDE = [f"198.51.100.{n}" for n in range(1, 9)] + ["8.8.8.8", "1.2.3.4"]
NAT: dict[str, Any] = {
    "type": "nat",
    "engine": "cpu",
    "inside": ["10.0.0.0/8", "192.168.0.0/16"],
    "external": ["203.0.113.4", "203.0.113.8/30"],
    "seed": 4787,
}


def frame(ip: Packet, tags: int = 0) -> bytes:
    """An Ethernet frame, with VLAN tags."""
    ether: Packet = Ether(**MACS)
    for vlan in range(tags):
        ether = ether / Dot1Q(vlan=vlan + 1)
    return bytes(ether / ip)


class Traffic:
    """Packets, and what the model makes of them."""

    def __init__(self, params: Mapping[str, Any], seed: int) -> None:
        self.nat = Nat(params)
        self.random = random.Random(seed)
        self.packets: list[bytes] = []
        self.expected: list[bytes] = []
        self.dropped: Counter[str] = Counter()
        self.went: list[bytes] = []
        """IPv4 packets as they left for the outside ..."""
        self.came: list[bytes] = []
        """... and as they came to inside hosts."""
        self.hosts = [f"10.0.{n}.{n + 1}" for n in range(6)] + ["192.168.7.7"]

    def add(self, packet: bytes) -> bytes | None:
        """What comes out."""
        self.packets.append(packet)
        try:
            out = self.nat.run(packet)
        except Drop as drop:
            self.dropped[str(drop)] += 1
            return None
        self.expected.append(out)
        at = 14
        while word(out, at - 2) in (0x8100, 0x88A8):
            at += 4
        if word(out, at - 2) == 0x0800 and not Header(bytearray(out), at, len(out)).offset:
            before, after = (Header(bytearray(p), at, len(p)) for p in (packet, out))
            if before.src != after.src:
                self.went.append(out[at:])
            if before.dst != after.dst:
                self.came.append(out[at:])
        return out

    # -- one packet of a kind --

    def _inside(self) -> str:
        return self.random.choice(self.hosts)

    def _outside(self) -> str:
        return self.random.choice(OUTSIDE)

    def _data(self) -> Packet:
        return Raw(self.random.randbytes(self.random.randrange(60)))

    def _l4(self, sport: int, dport: int) -> Packet:
        which = self.random.randrange(4)
        if which == 0:
            flags = self.random.choice(["S", "A", "PA"])
            return TCP(sport=sport, dport=dport, flags=flags) / self._data()
        if which == 1:
            return UDP(sport=sport, dport=dport, chksum=0) / self._data()
        if which == 2:
            return UDP(sport=sport, dport=dport) / self._data()
        return ICMP(type=8, id=sport) / self._data()

    def _ip(self, src: str, dst: str, l4: Packet, **fields: Any) -> None:
        if self.random.random() < 0.1:
            fields["options"] = [b"\x01\x01\x01\x00", b"\x94\x04\x00\x00"]
        tags = self.random.choice([0, 0, 0, 1, 2])
        self.add(frame(IP(src=src, dst=dst, **fields) / l4, tags))

    def outbound(self) -> None:
        port, remote = self.random.randrange(5000, 5020), self.random.choice([53, 80, 443])
        self._ip(self._inside(), self._outside(), self._l4(port, remote))

    def answer(self, known: bool = True) -> None:
        """To a packet that left: by its receiver, or by somebody else."""
        if not self.went:
            return
        ip = IP(self.random.choice(self.went))
        if ip.proto not in (1, 6, 17) or ip.frag or ip.flags.MF:
            return
        l4: Packet
        if ip.proto == 1:
            l4 = ICMP(type=0, id=ip[ICMP].id) / self._data()
        else:
            kind = TCP if ip.proto == 6 else UDP
            l4 = kind(sport=ip[kind].dport, dport=ip[kind].sport) / self._data()
            if not known:
                l4.sport = self.random.randrange(1, 65536)
        src = ip.dst if known or self.random.random() < 0.5 else self._outside()
        self._ip(src, ip.src, l4)

    def stranger(self) -> None:
        self.answer(known=False)

    def scan(self) -> None:
        dst = str(self.random.choice(["203.0.113.4", "203.0.113.9"]))
        self._ip(self._outside(), dst, self._l4(9, self.random.randrange(1024, 65536)))

    def hairpin(self) -> None:
        """To an inside host by way of the external end of one of its mappings."""
        ends = [end for end in self.nat.inside_of if end[0] in (6, 17)]
        if not ends:
            return
        protocol, host, port = self.random.choice(ends)
        kind = TCP if protocol == 6 else UDP
        l4 = kind(sport=self.random.randrange(5000, 5020), dport=port) / self._data()
        dst = ".".join(str(byte) for byte in host.to_bytes(4, "big"))
        self._ip(self._inside(), dst, l4)

    def error(self) -> None:
        """By somebody on the way of a packet, or by its receiver."""
        inbound = self.random.random() < 0.5
        about = self.went if inbound else self.came
        if not about:
            return
        quoted = self.random.choice(about)
        ip = IP(quoted)
        most = self.random.choice([ip.ihl * 4 + 8, ip.ihl * 4 + 18, len(quoted), 12])
        kind, code = self.random.choice([(3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (4, 0)])
        by = self._inside() if self.random.random() < 0.2 else ip.dst
        if inbound and self.random.random() < 0.5:
            by = "192.0.2.77"  # a router
        packet = bytearray(
            frame(IP(src=by, dst=ip.src) / ICMP(type=kind, code=code) / quoted[:most])
        )
        if self.random.random() < 0.1:
            packet[14 + 20 + 2] ^= 1
        self.add(bytes(packet))

    def pieces(self) -> None:
        """A datagram in fragments, perhaps in the wrong order; or one that begins too short."""
        l4 = self._l4(self.random.randrange(5000, 5020), 80) / Raw(bytes(range(200)))
        whole = IP(src=self._inside(), dst=self._outside(), id=self.random.randrange(65536)) / l4
        cut = fragment(IP(bytes(whole)), 80 if self.random.random() < 0.9 else 16)
        if self.random.random() < 0.3:
            self.random.shuffle(cut)
        for piece in cut:
            self.add(frame(piece))

    def without_ports(self) -> None:
        protocol = self.random.choice([47, 50, 33, 132, 136])
        body = Raw(self.random.randbytes(40))
        if self.random.random() < 0.5:
            self._ip(self._inside(), self._outside(), body, proto=protocol)
        else:
            self._ip(self._outside(), "203.0.113.9", body, proto=protocol)

    def query(self) -> None:
        """Other than echo, and the echo with an id of 0."""
        kind = self.random.choice([8, 13, 17, 15, 14, 5, 9])
        ident = 0 if kind == 8 else self.random.randrange(1, 9)
        body = bytes([kind, 0, 0, 0]) + ident.to_bytes(2, "big") + bytes(14)
        packet = ICMP(body)
        del packet.chksum
        before = len(self.went)
        self._ip(self._inside(), self._outside(), packet)
        del self.went[before:]  # an answer within the burst may come too soon

    def other(self) -> None:
        """What is not translated, or may not pass."""
        udp = UDP(sport=5000, dport=53) / self._data()
        choice = self.random.randrange(9)
        if choice == 0:
            self.add(frame(IPv6(src="2001:db8::1", dst="2001:db8::2") / udp))
        elif choice == 1:
            self.add(frame(ARP(psrc="10.0.0.1", pdst="10.0.0.2")))
        else:
            src, dst = [
                (self._inside(), self._inside()),
                (self._outside(), self._outside()),
                (self._outside(), self._inside()),
                (self._inside(), "224.0.0.251"),
                (self._inside(), "255.255.255.255"),
                ("203.0.113.4", self._outside()),
                ("203.0.113.4", "203.0.113.9"),
            ][choice - 2]
            self._ip(src, dst, udp)

    def mixed(self, count: int, queries: bool = True) -> Traffic:
        """So many packets, of all kinds. Queries other than echo get their mappings a burst at a
        time: where ports are few, which one they get is not told by the order of packets alone."""
        kinds = [self.outbound] * 5 + [self.answer] * 5 + [self.hairpin] * 2 + [self.error] * 3
        kinds += [self.stranger, self.scan, self.pieces, self.without_ports, self.other]
        kinds += [self.query] * queries
        while len(self.packets) < count:
            self.random.choice(kinds)()
        return self

    def mappings(self) -> set[tuple[int, str, str]]:
        """As NatHost.mappings() shows them."""

        def text(end: tuple[int, int, int]) -> str:
            return ".".join(str(byte) for byte in end[1].to_bytes(4, "big")) + f":{end[2]}"

        return {(a[0], text(a), text(b)) for a, b in self.nat.mapping.items()}
