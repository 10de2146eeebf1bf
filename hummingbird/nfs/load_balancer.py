# SPDX-License-Identifier: BSD-3-Clause
"""load_balancer: gives the flows to a virtual address to backends, by Maglev consistent hashing.
``cl_kernels/nf/load_balancer.cl`` describes what the packet function gets, docs/load_balancer.md
the parameters and the file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, HostContext, Nf, NfHost, NfTable, Writes
from hummingbird.nfs.load_balancer_config import LoadBalancerParams
from hummingbird.nfs.load_balancer_host import FLOW_STATE, LoadBalancerHost
from hummingbird.nfs.load_balancer_plan import Plan, check_services, plan
from hummingbird.nfs.load_balancer_slots import room_of
from hummingbird.nfs.router_hops import mac_bytes

MAGIC = 0x48624C62
WORDS = 16
MOST_SLOTS = 65535
FEW = 100
"""Entries for each backend, below which shares differ by more than 1 %."""


def build(params: LoadBalancerParams, context: BuildContext) -> NfTable:
    """Read the backends and lay out the table; `extra` is the plan."""
    check_services(params, context.name)
    wanted = plan(params, context.base, context.name)
    if room_of(params, wanted) > MOST_SLOTS:
        raise UserError(
            f"{wanted.count} backends, and room for as many as may come; {MOST_SLOTS} are the most",
            field=f"nfs.{context.name}.room",
            fix="write a smaller room, or fewer backends",
        )
    return NfTable(_table(params), notes=list(_notes(wanted, params)), extra=wanted)


def _table(params: LoadBalancerParams) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    words = np.zeros(WORDS, dtype=np.uint32)
    words[0], words[1] = MAGIC, params.tunnel.mtu
    if params.mac:
        mac = mac_bytes(params.mac)
        words[2] = int.from_bytes(mac[:2], "big") | 1 << 16
        words[3] = int.from_bytes(mac[2:], "big")
    if params.tunnel.source6:
        words[4:8] = np.frombuffer(params.tunnel.source6.packed, dtype=">u4")
    if params.tunnel.source:
        words[8] = int(params.tunnel.source)
    return words.view(np.uint8)


def _notes(wanted: Plan, params: LoadBalancerParams) -> Iterator[str]:
    yield f"{len(wanted.services)} services, {wanted.count} backends"
    for service in wanted.services:
        if not service.usable:
            yield f"{service.name} has no backend that takes flows: its packets are dropped"
        if service.usable * FEW > params.table_size:
            yield (
                f"{service.name} has {service.usable} backends in a table of {params.table_size} "
                f"entries: their shares differ by more than 1 %"
            )


def _host(params: LoadBalancerParams, table: NfTable, context: HostContext) -> NfHost:
    return LoadBalancerHost(params, table.extra, context)


NF = Nf(
    name="load_balancer",
    kind=8,
    params=LoadBalancerParams,
    build=build,
    content_types=LoadBalancerParams.content_types,
    writes=Writes.HEADER,
    head=40,  # an outer IPv6 header
    flow_state=FLOW_STATE,
    host=_host,
)
