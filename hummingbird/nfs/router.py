# SPDX-License-Identifier: BSD-3-Clause
"""router: forwards IPv4 and IPv6 packets by longest prefix match. ``cl_kernels/nf/router.cl``
describes the table, docs/router.md the parameters and files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, IPvAnyAddress

from hummingbird.dataplane._native import lib
from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, HostContext, Nf, NfHost, NfParams, NfTable, Writes
from hummingbird.nfs.fields import Mac
from hummingbird.nfs.router_fib import MAX_GROUPS4, MAX_GROUPS6, Fib, Room
from hummingbird.nfs.router_hops import Hops
from hummingbird.nfs.router_host import RouterHost
from hummingbird.nfs.router_plan import Loaded, Plan, glean, plan
from hummingbird.nfs.routes_file import Format

Mtu = Annotated[int, Field(ge=68, le=65535)]
FEWEST_SPARE = 1024
BY_RULES = "*"
MOST_ADDRESSES: int = lib.HB_MOST_ADDRESSES


class NextHop(NfParams):
    """The Ethernet addresses of packets that leave for this next hop."""

    mac: Mac
    """Ethernet address that packets get as destination."""
    src_mac: Mac | None = None
    """And as source; left out: the interface's or the router's."""
    mtu: Mtu | None = None
    """Largest IP packet; left out: the interface's or the router's."""


class Interface(NfParams):
    """A link of the router: its own Ethernet address there, and the link's MTU."""

    mac: Mac | None = None
    """The router's Ethernet address there."""
    mtu: Mtu | None = None
    """Largest IP packet there."""


def _neighbour(value: Any) -> Any:
    return {"mac": value} if isinstance(value, str) else value


Neighbour = Annotated[NextHop, BeforeValidator(_neighbour)]


class Icmp(NfParams):
    """The errors that the router sends."""

    rate: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """A second and CPU; 0: none."""
    type: str | None = None
    """Packet type that they get; without one that of the packet they are about; ``*``: that which
    the topology's rules give them."""


class RouterParams(NfParams):
    """Parameters of ``type: router``."""

    routes: Path
    """File with routes: CSV ``prefix,next_hop``, or what ``ip route`` or ``show ip cef`` prints."""
    routes6: Path | None = None
    """A second one, such as what ``ip -6 route`` prints."""
    format: Format | None = None
    """Of both files; left out: each file's first line tells."""
    next_hops: dict[str, NextHop] = Field(default_factory=dict)
    """Next hops that routes name."""
    neighbours: dict[IPvAnyAddress, Neighbour] = Field(default_factory=dict)
    """Ethernet addresses of next hops that routes name by address: a MAC address, or the fields
    of a next hop."""
    interfaces: dict[str, Interface] = Field(default_factory=dict)
    """Links that routes name behind ``@``."""
    mac: Mac | None = None
    """The router's own Ethernet address where nothing else is said."""
    mtu: Mtu = 1500
    """The largest IP packet where nothing else is said."""
    addresses: list[IPvAnyAddress] = Field(default_factory=list)
    """The router's own; the first of each family is the source of ICMP errors."""
    icmp: Icmp = Icmp()
    """The errors that the router sends."""
    local: str | None = None
    """Packet type of packets to the router itself; without one they are dropped."""
    learn: bool = True
    """Believe what ARP and ND packets say of neighbours that are not listed."""
    ask: bool = False
    """Ask for neighbours that are not known, as the nearest of ``addresses``; for live ports."""
    room: Annotated[int, Field(ge=0, le=1 << 20)] | None = None
    """Groups of entries kept free for prefixes, longer than /24 or IPv6, that come later."""


def content_types(params: RouterParams) -> list[str]:
    """Packet types that the router gives to packets."""
    return [
        name
        for name in dict.fromkeys((params.local, params.icmp.type))
        if name is not None and name != BY_RULES
    ]


# ---- from parameters to a table ------------------------------------------------------------------


def build(params: RouterParams, context: BuildContext) -> NfTable:
    """Read the routes and lay out the table."""
    _check_ask(params, context)
    hops = Hops(params, context.name)
    wanted = plan(params, context.base, hops)
    needed = [family.groups for family in wanted.families]
    if needed[0] > MAX_GROUPS4:
        raise UserError(
            f"prefixes longer than 24 bits lie in {needed[0]} different /24; "
            f"the router has room for {MAX_GROUPS4}",
            path=context.base / params.routes,
            fix="aggregate some of them",
        )
    spare = [need // 4 + FEWEST_SPARE if params.room is None else params.room for need in needed]
    room = Room(
        min(needed[0] + spare[0], MAX_GROUPS4),
        min(needed[1] + spare[1], max(MAX_GROUPS6, needed[1])),
    )
    local = None if params.local is None else context.types[params.local]
    fib = Fib(room, zlib.crc32(context.name.encode()), local)
    hops.write(fib, wanted.numbers, wanted.new)
    hops.numbers = wanted.numbers
    for family in wanted.families:
        fib.change(family.family, family.hi, family.lo, family.length, family.hop)
    loaded = Loaded(fib, hops, wanted)
    glean(loaded, params.neighbours)
    return NfTable(fib.table, notes=[*wanted.notes, _note(wanted)], extra=loaded)


def _check_ask(params: RouterParams, context: BuildContext) -> None:
    if params.ask and not params.addresses:
        raise UserError(
            "a router without an address can ask for nobody's",
            field=f"nfs.{context.name}.ask",
            fix="write addresses: the router's own, one for each link, or ask: false",
        )
    if params.ask and not params.learn:
        raise UserError(
            "ask: true without learn: true, which hears the answers",
            field=f"nfs.{context.name}.ask",
            fix="write learn: true, or ask: false",
        )
    if len(params.addresses) > MOST_ADDRESSES and params.ask:
        raise UserError(
            f"a router that asks has at most {MOST_ADDRESSES} addresses",
            field=f"nfs.{context.name}.addresses",
            fix="keep one for each link",
        )


def _note(wanted: Plan) -> str:
    v4, v6 = (family.hi.size for family in wanted.families)
    return f"{v4} IPv4 and {v6} IPv6 routes, {len(wanted.numbers)} next hops"


def _host(params: RouterParams, table: NfTable, context: HostContext) -> NfHost:
    return RouterHost(params, table.extra, context)


NF = Nf(
    name="router",
    kind=2,
    params=RouterParams,
    build=build,
    content_types=content_types,
    writes=Writes.HEADER,
    host=_host,
)
