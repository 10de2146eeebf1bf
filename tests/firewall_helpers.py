# SPDX-License-Identifier: BSD-3-Clause
"""The firewall's packet function without a data plane, and what rules mean, in plain Python."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nf_helpers import DROP, REASONS, RETYPE, Array, answers, frames_of, run_raw

from hummingbird.nfs import BuildContext, NfTable
from hummingbird.nfs.firewall import FLOW, STATES, FirewallParams, build
from hummingbird.nfs.tables import layout

KIND = 7
ETHERNET = bytes.fromhex("020000000001 020000000002")
HEADER = "src,dst,protocol,sport,dport,action\n"


def table_of(
    folder: Path, text: str, types: Mapping[str, int] | None = None, **params: Any
) -> NfTable:
    """The table of a file with this text."""
    (folder / "rules").write_text(text)
    context = BuildContext("fw", folder, types or {})
    return build(FirewallParams(rules=Path("rules"), **params), context)


# ---- the packet function, with flows -----------------------------------------------------------


def frame(packet: bytes) -> bytes:
    """An IP packet behind an Ethernet header."""
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return ETHERNET + kind + packet


def tuple_of(packet: bytes) -> tuple[Any, int]:
    """The flow of an IPv4 packet, as the data plane tells flows apart, and its direction."""
    src, dst, l4 = packet[12:16], packet[16:20], packet[(packet[0] & 15) * 4 :]
    protocol, part = packet[9], int.from_bytes(packet[6:8], "big") & 0x3FFF
    ports = (0, 0)
    if part:
        ports = (int.from_bytes(packet[4:6], "big"),) * 2
    elif protocol in (6, 17, 132):
        ports = (int.from_bytes(l4[:2], "big"), int.from_bytes(l4[2:4], "big"))
    elif protocol == 1 and l4[0] in (0, 8):
        ports = (int.from_bytes(l4[4:6], "big"),) * 2
    ends = ((src, ports[0]), (dst, ports[1]))
    return (protocol, bool(part), min(ends), max(ends)), int(ends[0] > ends[1])


@dataclass
class Tracked:
    """A firewall and its flows, which a real flow table would time out."""

    table: NfTable
    flows: dict[Any, int] = field(default_factory=dict)
    most: int = 4096

    def __post_init__(self) -> None:
        """Lay out the region."""
        plan = layout([(KIND, self.table)], [[0]], [FLOW.itemsize], self.most)
        memory = np.zeros(plan.size + 4096, np.uint8)
        self.region = memory[-memory.ctypes.data % 4096 :][: plan.size]
        plan.fill(memoryview(self.region))
        ((at, count, stride),) = plan.states
        self.states = self.region[at : at + count * stride].reshape(count, stride)

    def run(self, packets: Sequence[bytes], args: Sequence[int] | None = None) -> list[str]:
        """Of each IPv4 packet, in order: ``pass``, a drop reason, or ``type N``."""
        found = [tuple_of(packet) for packet in packets]
        flows = [
            self.flows.setdefault(key, len(self.flows)) | direction << 31
            for key, direction in found
        ]
        frames, work = frames_of([frame(packet) for packet in packets], flows)
        arg = np.array(args if args is not None else [0] * len(packets), np.uint64)
        self.done = run_raw(self.region, frames, work, arg)
        return [_named(answer.verdict, answer.value) for answer in answers(frames, self.done)]

    def state(self, packet: bytes) -> str:
        """Of the flow that an IPv4 packet belongs to."""
        state = self.states[self.flows[tuple_of(packet)[0]]][: FLOW.itemsize].view(FLOW)[0]
        return STATES[int(state["status"]) & 255]


def _named(verdict: int, value: int) -> str:
    if verdict == DROP:
        return REASONS[value]
    return f"type {value}" if verdict == RETYPE else "pass"


# ---- what rules mean ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """What rules can ask of a packet."""

    src: str
    dst: str
    protocol: int
    sport: int | None = None
    dport: int | None = None
    icmp: int | None = None
    """Type."""

    def bytes(self) -> bytes:
        """As an IP packet with nothing in it."""
        if self.sport is not None and self.dport is not None:
            l4 = self.sport.to_bytes(2, "big") + self.dport.to_bytes(2, "big") + bytes(16)
            l4 = l4[:12] + b"\x50" + l4[13:]
        else:
            l4 = bytes([self.icmp or 0]) + bytes(19)
        ends = ipaddress.ip_address(self.src).packed + ipaddress.ip_address(self.dst).packed
        if len(ends) == 8:
            head = b"\x45\0" + (20 + len(l4)).to_bytes(2, "big") + bytes(4)
            return head + bytes([64, self.protocol, 0, 0]) + ends + l4
        return b"\x60\0\0\0" + len(l4).to_bytes(2, "big") + bytes([self.protocol, 64]) + ends + l4


NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132}


def linear(rows: Iterable[Mapping[str, str]], packet: Plain) -> int | None:
    """The first of the CSV rows that a packet matches, one after the other."""
    for number, row in enumerate(rows):
        if _matches(row, packet):
            return number
    return None


def _any(text: str) -> bool:
    return text in ("", "any", "*")


def _matches(row: Mapping[str, str], packet: Plain) -> bool:
    for name in ("src", "dst"):
        address = ipaddress.ip_address(getattr(packet, name))
        if not _any(row[name]) and not any(
            address in ipaddress.ip_network(one) for one in row[name].split("|")
        ):
            return False
    if not _any(row["protocol"]):
        wanted = [NUMBERS.get(one) or int(one) for one in row["protocol"].split("|")]
        if packet.protocol not in wanted:
            return False
    for name in ("sport", "dport"):
        port = getattr(packet, name)
        if not _any(row[name]) and (
            port is None or not any(_in(port, one) for one in row[name].split("|"))
        ):
            return False
    return True


def _in(port: int, text: str) -> bool:
    first, _, last = text.partition("-")
    return int(first) <= port <= int(last or first)


def first_rule(table: NfTable, done: Array) -> list[int | None]:
    """Which rule each packet's result names; None: the default."""
    rules = len(table.rules) - 3
    numbers = [int(result) - 1 for result in done["result"]]
    assert all(0 <= number <= rules for number in numbers)
    return [None if number == rules else number for number in numbers]
