# SPDX-License-Identifier: BSD-3-Clause
"""nat: IPv4 source NAT. ``cl_kernels/nf/nat.cl`` rewrites packets, ``dataplane/nf/nat.c`` decides
what to; docs/nat.md describes the parameters."""

from __future__ import annotations

import os
import time
from ipaddress import IPv4Address
from typing import Any

import numpy as np

from hummingbird import logs
from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs import (
    Affinity,
    BuildContext,
    HostContext,
    Nf,
    NfHost,
    NfTable,
    Writes,
)
from hummingbird.nfs.nat_config import Forward, NatParams

_ENDS = np.dtype([("src", "u4"), ("dst", "u4"), ("dport", "u2"), ("sport", "u2")])
STATE = np.dtype(
    [("what", "u4"), ("now", _ENDS), ("was", _ENDS), ("peer", "u4"), ("mapping", "u4", 2)]
)
"""What it knows of a flow; see nat.cl."""
FILTERS = {
    "endpoint-independent": lib.HB_NAT_FILTER_NONE,
    "address-dependent": lib.HB_NAT_FILTER_ADDRESS,
    "address-and-port-dependent": lib.HB_NAT_FILTER_PORT,
}
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1}
WARN_EVERY_S = 60.0


def build(params: NatParams, context: BuildContext) -> NfTable:
    """The packet function needs no table: all it has to know is in the flows' states."""
    return NfTable(notes=[_note(params)])


def _note(params: NatParams) -> str:
    ports = sum(last - first + 1 for first, last in params.ports)
    addresses = len(params.addresses)
    return (
        f"{addresses} external addresses with {ports} ports each, room for {params.mappings} "
        f"mappings, {len(params.forwards)} forwards; filtering {params.filtering}"
    )


class NatHost(NfHost):
    """One NAT."""

    def __init__(self, params: NatParams, context: HostContext) -> None:
        self._params, self._name = params, context.name
        self._warned, self._refused = -WARN_EVERY_S, 0
        self.pointer = _new(params)
        for index, forward in enumerate(params.forwards):
            self._forward(f"nfs.{context.name}.forwards[{index}]", forward)

    def _forward(self, place: str, forward: Forward) -> None:
        external = self._params.addresses.index(forward.external.address)
        inside, port = forward.inside
        zone, external_port = forward.zone, forward.external.port
        if lib.hb_nat_forward(
            self.pointer, forward.number, zone, int(inside), port, external, external_port
        ):
            self.close()
            what = "there is no room for this forward"
            raise UserError(what, field=place, fix="raise mappings")

    def close(self) -> None:
        """Free what the data plane used."""
        lib.hb_nat_free(self.pointer)
        self.pointer = ffi.NULL

    def poll(self) -> None:
        """Say so, now and then, if there are no ports or mappings left."""
        now, counts = time.monotonic(), lib.hb_nat_count(self.pointer)
        refused = int(counts.no_port + counts.full)
        if refused == self._refused or now - self._warned < WARN_EVERY_S:
            return
        self._refused, self._warned = refused, now
        logs.warning(
            "nat_full",
            f"{self._name}: packets that found no free port: {counts.no_port}, "
            f"no room for a mapping or peer: {counts.full}",
            fix="more addresses or ports in the pool; more mappings",
            subject=self._name,
            no_port=int(counts.no_port),
            full=int(counts.full),
        )

    def report(self) -> dict[str, Any]:
        """Mappings, free ports, and what found neither."""
        if not self.pointer:
            return {}
        counts = lib.hb_nat_count(self.pointer)
        names = ("mappings", "held", "peers", "no_port", "full", "filtered", "icmp_errors")
        free = {
            str(address): {
                name: int(lib.hb_nat_ports_free(self.pointer, index, protocol))
                for name, protocol in PROTOCOLS.items()
            }
            for index, address in enumerate(self._params.addresses)
        }
        return {**{name: int(getattr(counts, name)) for name in names}, "ports_free": free}

    def mappings(self) -> list[dict[str, Any]]:
        """All mappings; exact when nothing runs."""
        found = (self._mapping(number) for number in range(self._params.mappings))
        return [mapping for mapping in found if mapping]

    def _mapping(self, number: int) -> dict[str, Any]:
        view = ffi.new("hb_nat_view *")
        if not self.pointer or not lib.hb_nat_look(self.pointer, number, view):
            return {}
        return {
            "protocol": int(view.protocol),
            "inside": f"{IPv4Address(view.inside)}:{view.port}",
            "external": f"{IPv4Address(view.external)}:{view.external_port}",
            "zone": int(view.zone),
            "forward": bool(view.forward),
            "flows": int(view.flows),
        }

    def flow(self, state: np.void) -> dict[str, Any]:
        """Inside and external ends of its mappings: of the source, of the destination."""
        shown: dict[str, Any] = {}
        for what, number in zip(("source", "destination"), state["mapping"], strict=True):
            if number and (mapping := self._mapping(int(number) - 1)):
                shown[what] = f"{mapping['inside']} <-> {mapping['external']}"
        return shown


def _new(params: NatParams) -> Any:
    """The hb_nat; it keeps nothing of what it is made of."""
    inside = [int(x) for net in params.inside for x in (net.network_address, net.netmask)]
    addresses = [int(address) for address in params.addresses]
    ranges = [port for first_last in sorted(params.ports) for port in first_last]
    arrays = [
        ffi.new("uint32_t[]", inside),
        ffi.new("uint32_t[]", addresses),
        ffi.new("uint16_t[]", ranges),
    ]
    secret = list(os.urandom(16)) if params.seed is None else params.seed.to_bytes(16, "little")
    config = ffi.new("hb_nat_config *")
    config.inside, config.external, config.range = arrays
    config.nb_inside, config.nb_external = len(params.inside), len(addresses)
    config.nb_ranges = len(params.ports)
    config.mappings, config.peers = params.mappings, params.room_for_peers
    config.filter = FILTERS[params.filtering]
    config.hold = [params.hold.tcp, params.hold.udp, params.hold.icmp, params.hold.other]
    config.hairpin, config.paired = params.hairpin, params.pooling == "paired"
    config.parity, config.preserve = params.keep_parity, params.keep_port
    config.secret = [int.from_bytes(bytes(secret[at : at + 8]), "little") for at in (0, 8)]
    pointer = lib.hb_nat_new(config)
    if not pointer:
        raise MemoryError("no memory for the mappings of the NAT")
    return pointer


def _host(params: NatParams, table: NfTable, context: HostContext) -> NfHost:
    return NatHost(params, context)


NF = Nf(
    name="nat",
    kind=9,
    params=NatParams,
    build=build,
    writes=Writes.HEADER,
    affinity=Affinity.KEY,  # one lcore has all mappings
    flow_state=STATE,
    host=_host,
)
