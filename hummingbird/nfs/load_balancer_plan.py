# SPDX-License-Identifier: BSD-3-Clause
"""What services and backends come to: every backend checked, every Maglev table filled. All of it
is done before anything that runs is touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from hummingbird.errors import UserError
from hummingbird.nfs.load_balancer_config import Address, LoadBalancerParams, ServiceParams
from hummingbird.nfs.load_balancer_file import Place, Row, load
from hummingbird.nfs.load_balancer_maglev import Table, fill, permutation
from hummingbird.rules import PortRange
from hummingbird.textfile import suggest

PROTOCOLS = {"tcp": 6, "udp": 17}


@dataclass(frozen=True)
class Backend:
    """A backend of a service. Its Maglev permutation hangs on its address and port alone."""

    address: Address
    port: int
    """Of packets to it; 0: that of the packet."""
    weight: int
    mac: str | None
    place: Place = field(compare=False)

    @property
    def key(self) -> tuple[Address, int]:
        """What makes it the same backend after a change of its weight or MAC."""
        return self.address, self.port

    def __str__(self) -> str:
        return named(self.address, self.port)


@dataclass(frozen=True)
class Service:
    """A service with its backends, in the order of their turns."""

    name: str
    params: ServiceParams
    backends: tuple[Backend, ...]
    table: Table = field(compare=False, repr=False)

    @property
    def ports(self) -> PortRange:
        """Virtual ports."""
        return self.params.port

    @property
    def dnat(self) -> bool:
        """Backends get packets with their own address on."""
        return self.params.mode == "dnat"

    @property
    def usable(self) -> int:
        """Backends that get new flows."""
        return sum(backend.weight > 0 for backend in self.backends)

    def real_ports(self, backend: Backend) -> PortRange:
        """Ports that a backend answers from."""
        return PortRange(backend.port, backend.port) if backend.port else self.ports


@dataclass(frozen=True)
class Plan:
    """All services, in the order of the topology."""

    services: tuple[Service, ...]

    @property
    def count(self) -> int:
        """Backends of all services."""
        return sum(len(service.backends) for service in self.services)


def named(address: Address, port: int) -> str:
    """A backend as people know it, and as its permutation is made of."""
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def ordered(address: Address) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d: as the data plane has it, and sorts by."""
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


# ---- the topology alone --------------------------------------------------------------------------


def check_services(params: LoadBalancerParams, name: str) -> None:
    """UserError if the services cannot stand, whatever their backends are."""
    seen: dict[tuple[Address, str], list[tuple[PortRange, str]]] = {}
    for own, service in params.services.items():
        place = Place(field=f"nfs.{name}.services.{own}")
        for ports, other in seen.setdefault((service.address, service.protocol), []):
            if ports.first <= service.port.last and service.port.first <= ports.last:
                what = f"{other} has {_ports_text(ports)} of {service.address} already"
                raise place.error(what, "give each service ports of its own", f"{place}.port")
        seen[service.address, service.protocol].append((service.port, own))
        if service.backends is None and params.backends is None:
            raise place.error(
                "it has no backends",
                "list them as backends: [{address: ...}], or name a file as backends: of the NF",
            )
    if params.backends and all(one.backends for one in params.services.values()):
        place = Place(field=f"nfs.{name}.backends")
        raise place.error("every service has backends of its own", "remove the file, or theirs")


def _ports_text(ports: PortRange) -> str:
    return (
        f"port {ports.first}" if ports.first == ports.last else f"ports {'-'.join(map(str, ports))}"
    )


# ---- backends ------------------------------------------------------------------------------------


def plan(params: LoadBalancerParams, base: Path, name: str, before: Plan | None = None) -> Plan:
    """Read the file, check everything, fill the tables.

    Args:
        params: what the topology says.
        base: where the file's name starts from.
        name: of the NF, for messages.
        before: a plan whose tables are taken over where nothing has changed.

    Raises:
        UserError: the first mistake.
    """
    rows = [*_inline(params, name), *(load(base / params.backends) if params.backends else [])]
    by_service: dict[str, dict[tuple[Address, int], Backend]] = {n: {} for n in params.services}
    virtual = {service.address: own for own, service in reversed(params.services.items())}
    for row in rows:
        service = _service_of(row, params)
        backend = _backend(row, service, params, virtual)
        first = by_service[row.service].setdefault(backend.key, backend)
        if first is not backend:
            what = f"{backend} of {row.service} stands on {first.place} already"
            raise row.place.error(what, "remove one of the two; a weight counts as several")
    _check_replies(params, by_service)
    old = {service.name: service for service in before.services} if before else {}
    return Plan(
        tuple(
            _filled(own, service, by_service[own], params, name, old.get(own))
            for own, service in params.services.items()
        )
    )


def _inline(params: LoadBalancerParams, name: str) -> Iterator[Row]:
    """Those of the topology, as if they were rows."""
    for own, service in params.services.items():
        for number, one in enumerate(service.backends or ()):
            yield Row(
                place=Place(field=f"nfs.{name}.services.{own}.backends[{number}]"),
                service=own,
                address=one.address,
                port=one.port,
                weight=0 if one.state == "drain" else one.weight,
                mac=one.mac,
            )


def _service_of(row: Row, params: LoadBalancerParams) -> ServiceParams:
    service = params.services.get(row.service)
    if service is None:
        what = f"there is no service {row.service!r}"
        raise row.place.error(what, suggest(row.service, params.services), "service")
    if row.place.line and service.backends is not None:
        what = f"{row.service} has its backends in the topology"
        raise row.place.error(what, "remove them there, or this line", "service")
    return service


def _backend(
    row: Row, service: ServiceParams, params: LoadBalancerParams, virtual: Mapping[Address, str]
) -> Backend:
    place, address = row.place, row.address
    if address in virtual:
        what = f"{address} is the virtual address of {virtual[address]}: packets would go round"
        raise place.error(what, "write the backend's own address")
    if service.mode == "ipip":
        _check_tunnel(row, params)
        if row.port is not None:
            what = "a tunnel does not change ports"
            raise place.error(what, f"leave port {row.port} out, or write mode: dnat")
        return Backend(address, 0, row.weight, row.mac, place)
    if address.version != service.address.version:
        what = f"{address} is IPv{address.version}, {service.address} is not"
        raise place.error(what, "write a backend of the same family, or mode: ipip")
    several = service.port.first != service.port.last
    if several and row.port is not None:
        what = f"{row.service} has several ports, which stay as they are"
        raise place.error(what, f"leave port {row.port} out, or make a service of one port")
    port = 0 if several else row.port or service.port.first
    return Backend(address, port, row.weight, row.mac, place)


def _check_tunnel(row: Row, params: LoadBalancerParams) -> None:
    six = row.address.version == 6
    if (params.tunnel.source6 if six else params.tunnel.source) is None:
        field = "source6" if six else "source"
        what = f"a tunnel to {row.address} needs a source address"
        raise row.place.error(what, f"write tunnel: {{{field}: ...}} in the topology")


def _check_replies(
    params: LoadBalancerParams, services: Mapping[str, Mapping[tuple[Address, int], Backend]]
) -> None:
    """What a backend answers from leads back to one service, or its replies could not be told
    apart."""
    taken: dict[tuple[Address, str], list[tuple[PortRange, str, Backend]]] = {}
    for own, backends in services.items():
        service = params.services[own]
        for backend in backends.values() if service.mode == "dnat" else ():
            ports = PortRange(backend.port, backend.port) if backend.port else service.port
            taken.setdefault((backend.address, service.protocol), []).append((ports, own, backend))
    for together in taken.values():
        together.sort(key=lambda one: one[0])
        for (ports, own, one), (further, other, two) in pairwise(together):
            if further.first <= ports.last:
                first, second = sorted((one.place, two.place), key=_place_order)
                name, again = (own, other) if first is one.place else (other, own)
                what = f"{two} answers for {name} ({first}) already: {again} could not have its own"
                fix = "give it another port or address there, or write mode: ipip"
                raise second.error(what, fix)


def _place_order(place: Place) -> tuple[int, str]:
    return place.line or 0, place.field or ""


def _filled(
    own: str,
    service: ServiceParams,
    backends: Mapping[tuple[Address, int], Backend],
    params: LoadBalancerParams,
    name: str,
    before: Service | None,
) -> Service:
    """The service with its table. The order of the file does not count."""
    turns = tuple(sorted(backends.values(), key=lambda one: (ordered(one.address), one.port)))
    if len(turns) > params.table_size:
        what = f"{own} has {len(turns)} backends, its table {params.table_size} entries"
        fix = "write a larger prime: 100 entries for each backend are good"
        raise UserError(what, field=f"nfs.{name}.table_size", fix=fix)
    if before and _weights(before.backends) == _weights(turns):
        return Service(own, service, turns, before.table)
    permutations = [permutation(str(one).encode(), params.table_size) for one in turns]
    table = fill(permutations, [one.weight for one in turns], params.table_size)
    return Service(own, service, turns, table)


def _weights(backends: Iterable[Backend]) -> list[tuple[tuple[Address, int], int]]:
    return [(one.key, one.weight) for one in backends]
