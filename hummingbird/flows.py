# SPDX-License-Identifier: BSD-3-Clause
"""Live flows of a data plane: who talks to whom, in which state, and what NFs know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi
from hummingbird.dataplane.plane import Dataplane, flow_states
from hummingbird.nfs import NfHost

AT_ONCE = 1024

Address = IPv4Address | IPv6Address
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp"}
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True)
class Flow:
    """One flow. What is not IP has no addresses, and protocol ``-``."""

    protocol: str
    src: Address | None
    """Who began."""
    sport: int
    """Of TCP, UDP and SCTP; for ICMP echo its id on both sides; of a fragment its datagram's id."""
    dst: Address | None
    dport: int
    zone: int
    state: str
    """Name of an hb_flow state; ``fragment`` is a flow of one datagram's fragments."""
    age_s: float
    """Packet time since the first packet ..."""
    idle_s: float
    """... and since the last; both to 0.07 s."""
    types: tuple[str, str]
    """Packet types of what ``src`` sends, and of what it gets."""
    nfs: dict[str, dict[str, Any]]
    """What each NF that knows the flow says of it."""
    index: int


@dataclass(frozen=True)
class StatefulNf:
    """An NF that has state of flows."""

    name: str
    node: int
    states: npt.NDArray[np.void]
    """By flow index."""
    host: NfHost


def live(plane: Dataplane, types: Sequence[str], nfs: Sequence[StatefulNf]) -> Iterator[Flow]:
    """All live flows, in no order that means anything."""
    cursor, names = ffi.new("uint64_t *"), flow_states()
    while (views := plane.list_flows(cursor, AT_ONCE)).size:
        for view in views:
            known = {}
            for nf in nfs:
                state = nf.states[view["index"]].copy()
                if plane.is_set_up(nf.node, int(view["index"]), int(view["generation"])):
                    known[nf.name] = nf.host.flow(state)  # it was still this flow's
            yield _flow(view, names, types, known)


def _flow(
    view: np.void, names: Sequence[str], types: Sequence[str], known: Mapping[str, Any]
) -> Flow:
    first, is_ip = int(view["first"]), bool(view["protocol"] or view["addr"].any())
    ends = (bytes(view["addr"][end]) for end in (first, 1 - first))
    src, dst = (_address(raw) if is_ip else None for raw in ends)
    sport, dport = (int(view["port"][end]) for end in (first, 1 - first))
    number = int(view["protocol"])
    return Flow(
        protocol=PROTOCOLS.get(number, str(number)) if is_ip else "-",
        src=src,
        sport=sport,
        dst=dst,
        dport=dport,
        zone=int(view["zone"]),
        state=names[view["state"]],
        age_s=round(int(view["age_ns"]) / 1e9, 2),
        idle_s=round(int(view["idle_ns"]) / 1e9, 2),
        types=(types[view["type"][first]], types[view["type"][1 - first]]),
        nfs=dict(known),
        index=int(view["index"]),
    )


def _address(raw: bytes) -> Address:
    return IPv4Address(raw[12:]) if raw.startswith(_MAPPED) else IPv6Address(raw)
