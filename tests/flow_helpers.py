# SPDX-License-Identifier: BSD-3-Clause
"""What a flow monitor's records are compared with: a plain model of the packets that passed it, an
IPFIX collector, tshark's view of what that got, and the records of a CSV file.

    packets ─┬─ [ flow_monitor ] ─┬─ IPFIX ── Collector ── tshark ── records ┐
             │                    └─ CSV ─────────────────────────── records ┼─ the same
             └─ model() ─────────────────────────────────────────── records ┘
"""

from __future__ import annotations

import csv
import ipaddress
import json
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from chain import IPV4, IPV6, network_header, udp

from hummingbird.testing import capture

PORT = 4739
NS = 1_000_000_000

Direction = tuple[str, int, str, int, int, int | None]
"""Source and its port, destination and its port, protocol, id of a fragmented datagram."""


@dataclass
class Counts:
    """Packets of one flow in one direction."""

    packets: int = 0
    octets: int = 0
    flags: int = 0
    first: int | None = None
    """Nanoseconds."""
    last: int | None = None

    def add(self, packets: int, octets: int, flags: int, first: int, last: int) -> None:
        """Some more packets."""
        self.packets += packets
        self.octets += octets
        self.flags |= flags
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)


Flows = dict[Direction, Counts]


@dataclass
class Record:
    """One record, whoever said it."""

    key: Direction
    """Of who began."""
    counts: tuple[Counts, Counts]
    reason: str = ""
    zone: int = 0


def turned(key: Direction) -> Direction:
    """The other direction."""
    src, sport, dst, dport, protocol, fragment = key
    return dst, dport, src, sport, protocol, fragment


def by_direction(records: Iterable[Record]) -> Flows:
    """What records say in all, by direction."""
    flows: Flows = {}
    for record in records:
        for key, counts in zip((record.key, turned(record.key)), record.counts, strict=True):
            if counts.packets:
                assert counts.first is not None and counts.last is not None
                flows.setdefault(key, Counts()).add(
                    counts.packets, counts.octets, counts.flags, counts.first, counts.last
                )
    return flows


# ---- the model -----------------------------------------------------------------------------------


def model(packets: Sequence[bytes], times: Sequence[int]) -> Flows:
    """What the packets amount to, by direction; packets that are not IP do not count."""
    flows: Flows = {}
    for packet, now in zip(packets, times, strict=True):
        at = network_header(packet)
        kind, ip = packet[at - 2 : at], packet[at:]
        if kind == IPV4:
            key, octets, flags = _ipv4(ip)
        elif kind == IPV6:
            key, octets, flags = _ipv6(ip)
        else:
            continue
        flows.setdefault(key, Counts()).add(1, octets, flags, now, now)
    return flows


def _ipv4(ip: bytes) -> tuple[Direction, int, int]:
    total, ident, place = struct.unpack_from(">2xHHH", ip)
    fragment = ident if place & 0x3FFF else None
    l4 = b"" if place & 0x1FFF else ip[(ip[0] & 15) * 4 : total]
    src, dst = (str(ipaddress.IPv4Address(ip[i : i + 4])) for i in (12, 16))
    return _key(src, dst, ip[9], l4, fragment), total, _flags(ip[9], l4)


def _ipv6(ip: bytes) -> tuple[Direction, int, int]:
    total, protocol, at = 40 + struct.unpack_from(">H", ip, 4)[0], ip[6], 40
    fragment, later = None, False
    while protocol in (0, 43, 44, 51, 60, 135) and at + 8 <= len(ip):
        length = 8 if protocol == 44 else 8 + 8 * ip[at + 1]
        if protocol == 51:
            length = 8 + 4 * ip[at + 1]
        if protocol == 44:
            place, fragment = struct.unpack_from(">2xHI", ip, at)
            later = bool(place & 0xFFF8)
            fragment = fragment if place & 0xFFF9 else None
        protocol, at = ip[at], at + length
        if later:
            break
    l4 = b"" if later else ip[at:total]
    src, dst = (str(ipaddress.IPv6Address(ip[i : i + 16])) for i in (8, 24))
    return _key(src, dst, protocol, l4, fragment), total, _flags(protocol, l4)


def _key(src: str, dst: str, protocol: int, l4: bytes, fragment: int | None) -> Direction:
    ports = (0, 0)
    if protocol in (6, 17, 132) and fragment is None:
        ports = struct.unpack_from(">HH", l4)
    return src, ports[0], dst, ports[1], protocol, fragment


def _flags(protocol: int, l4: bytes) -> int:
    return int.from_bytes(l4[12:14], "big") & 0xFFF if protocol == 6 else 0


# ---- CSV -----------------------------------------------------------------------------------------


def csv_records(path: Path) -> list[Record]:
    """What stands in a CSV file. It has one start and end for both directions."""
    with open(path, newline="") as file:
        return [_csv_record(row) for row in csv.DictReader(file)]


def _csv_record(row: dict[str, str]) -> Record:
    start, end = (_ns(row[name]) for name in ("start", "end"))
    ways = []
    for way in ("", "reverse_"):
        packets, octets, flags = (
            int(row[way + name]) for name in ("packets", "octets", "tcp_flags")
        )
        ways.append(Counts(packets, octets, flags, start, end))
    protocol, fragment = int(row["protocol"]), int(row["fragment_id"] or -1)
    key = (row["src"], int(row["sport"]), row["dst"], int(row["dport"]))
    return Record(
        (*key, protocol, None if fragment < 0 else fragment),
        (ways[0], ways[1]),
        row["reason"],
        int(row["zone"]),
    )


def _ns(text: str) -> int:
    seconds, _, rest = text.partition(".")
    assert len(rest) == 9, text
    return int(seconds) * NS + int(rest)


def timeless(flows: Flows) -> dict[Direction, tuple[int, int, int]]:
    """Without the times, which CSV does not have by direction."""
    return {key: (c.packets, c.octets, c.flags) for key, c in flows.items()}


# ---- IPFIX ---------------------------------------------------------------------------------------


@dataclass
class Collector:
    """Keeps the datagrams that come to a UDP port of this host, while it is open."""

    family: socket.AddressFamily = socket.AF_INET
    datagrams: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Collector:
        self._socket = socket.socket(self.family, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(("127.0.0.1" if self.family == socket.AF_INET else "::1", 0))
        self._socket.settimeout(0.05)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    @property
    def place(self) -> str:
        """As a topology names it."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _collect(self) -> None:
        while True:
            try:
                self.datagrams.append(self._socket.recv(65535))
            except TimeoutError:
                if self._ended.is_set():
                    return


def sequence(datagrams: Sequence[bytes], records: Sequence[int]) -> None:
    """The numbers of the messages are the data records before them."""
    expected = 0
    for datagram, count in zip(datagrams, records, strict=True):
        assert struct.unpack_from(">I", datagram, 8)[0] == expected
        expected += count


REASONS = {1: "idle", 2: "active", 3: "closed", 4: "shutdown", 5: "evicted"}


def tshark_records(datagrams: Sequence[bytes], folder: Path) -> list[Record]:
    """What tshark makes of the messages that a collector got."""
    if shutil.which("tshark") is None:
        pytest.skip("NOT TESTED against tshark: apt-get install tshark")
    path = folder / "ipfix.pcap"
    frames = [udp("192.0.2.1", "192.0.2.2", 4000, PORT, datagram) for datagram in datagrams]
    path.write_bytes(capture(frames))
    command = ["tshark", "-r", str(path), "-d", f"udp.port=={PORT},cflow", "-T", "json"]
    done = subprocess.run(
        [*command, "--no-duplicate-keys"], capture_output=True, text=True, check=True
    )
    assert "malformed" not in done.stdout
    messages = [packet["_source"]["layers"]["cflow"] for packet in json.loads(done.stdout)]
    found = [_records(message) for message in messages]
    sequence(datagrams, [len(records) for records in found])
    return [record for records in found for record in records]


def _records(message: dict[str, Any]) -> list[Record]:
    flows = [
        flow
        for name, part in message.items()
        if name.startswith("Set ") and isinstance(part, dict)
        for number, flow in part.items()
        if number.startswith("Flow ")
    ]
    assert not any(name.startswith("Set ") and isinstance(p, list) for name, p in message.items())
    return [_record(flow) for flow in flows]


def _both(flow: dict[str, Any], name: str) -> list[Any]:
    value = flow[name]
    return value if isinstance(value, list) else [value]


def _record(flow: dict[str, Any]) -> Record:
    six = "v6" if "cflow.srcaddrv6" in flow else ""
    src, dst = flow[f"cflow.srcaddr{six}"], flow[f"cflow.dstaddr{six}"]
    fragment = int(flow["cflow.frag_ident"]) if "cflow.frag_ident" in flow else None
    sport, dport = (int(flow.get(f"cflow.{way}port", 0)) for way in ("src", "dst"))
    ways = [
        Counts(
            int(packets),
            int(octets),
            int(flags, 16),
            _moment(times["cflow.abstimestart"]),
            _moment(times["cflow.abstimeend"]),
        )
        for packets, octets, flags, times in zip(
            _both(flow, "cflow.packets"),
            _both(flow, "cflow.octets"),
            _both(flow, "cflow.tcpflags"),
            _both(flow, "cflow.timedelta_tree"),
            strict=True,
        )
    ]
    if len(ways) == 2:
        assert flow["cflow.biflow_direction"] == "1"
    return Record(
        (src, sport, dst, dport, int(flow["cflow.protocol"]), fragment),
        (ways[0], ways[1] if len(ways) == 2 else Counts()),
        REASONS[int(flow["cflow.flow_end_reason"])],
        int(flow["cflow.ingress_vrfid"]),
    )


def _moment(text: str) -> int:
    """As tshark writes it: Nov 14, 2023 22:13:20.123456789 UTC."""
    whole, _, rest = text.removesuffix(" UTC").partition(".")
    moment = datetime.strptime(whole, "%b %d, %Y %H:%M:%S").replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * NS + int(rest)


def in_milliseconds(flows: Flows) -> Flows:
    """With the times cut as IPFIX's milliseconds have them."""
    return {
        key: Counts(c.packets, c.octets, c.flags, *(_cut(t) for t in (c.first, c.last)))
        for key, c in flows.items()
    }


def _cut(ns: int | None) -> int | None:
    return None if ns is None else ns // 1_000_000 * 1_000_000
