# SPDX-License-Identifier: BSD-3-Clause
"""Live flows of a data plane: who talks to whom, in which state, and what NFs know of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi
from hummingbird.dataplane.plane import Dataplane, flow_states
from hummingbird.nfs import NfHost

AT_ONCE = 256

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


def views(plane: Dataplane) -> Iterator[npt.NDArray[np.void]]:
    """All live flows, in no order that means anything, some at a time, as FLOW_VIEW."""
    cursor = ffi.new("uint64_t *")
    while (some := plane.list_flows(cursor, AT_ONCE)).size:
        yield some


def describe(
    some: npt.NDArray[np.void],
    plane: Dataplane,
    types: Sequence[str],
    nfs: Sequence[StatefulNf],
) -> Iterator[Flow]:
    """Flows, and what NFs know of them now."""
    names = flow_states()
    addresses = some["addr"].tobytes()
    columns = (some[name].tolist() for name in _COLUMNS)
    for at, row in enumerate(zip(*columns, strict=True)):
        port, zone, protocol, kind, index, generation, state, first, age, idle = row
        both = addresses[32 * at :][:32]
        is_ip = bool(protocol or any(both))
        src, dst = (
            _address(both[16 * end :][:16]) if is_ip else None for end in (first, 1 - first)
        )
        yield Flow(
            protocol=PROTOCOLS.get(protocol, str(protocol)) if is_ip else "-",
            src=src,
            sport=port[first],
            dst=dst,
            dport=port[1 - first],
            zone=zone,
            state=names[state],
            age_s=round(age / 1e9, 2),
            idle_s=round(idle / 1e9, 2),
            types=(types[kind[first]], types[kind[1 - first]]),
            nfs=dict(_known(plane, nfs, index, generation)),
            index=index,
        )


def _known(
    plane: Dataplane, nfs: Sequence[StatefulNf], index: int, generation: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    for nf in nfs:
        state = nf.states[index].copy()
        if plane.is_set_up(nf.node, index, generation):  # it was still this flow's
            yield nf.name, nf.host.flow(state)


_COLUMNS = (
    *("port", "zone", "protocol", "type", "index", "generation"),
    *("state", "first", "age_ns", "idle_ns"),
)


def _address(raw: bytes) -> Address:
    return IPv4Address(raw[12:]) if raw.startswith(_MAPPED) else IPv6Address(raw)
