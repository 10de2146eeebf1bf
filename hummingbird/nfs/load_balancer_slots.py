# SPDX-License-Identifier: BSD-3-Clause
"""Which backend of the load balancer has which counters, and what the data plane is given of all of
them (dataplane/nf/load_balancer_api.h).

A backend that is removed keeps its slot, and its replies their virtual address, for as long as
flows are with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs.load_balancer_config import Address, LoadBalancerParams
from hummingbird.nfs.load_balancer_plan import PROTOCOLS, Backend, Plan, Service, ordered
from hummingbird.nfs.router_hops import mac_bytes
from hummingbird.rules import PortRange

LEAST_ROOM = 1024

Key = tuple[str, tuple[Address, int]]
"""A service's name and what makes a backend the same one."""


def room_of(params: LoadBalancerParams, wanted: Plan) -> int:
    """Slots for backends, those that may come later among them."""
    more = max(wanted.count, LEAST_ROOM) if params.room is None else params.room
    return wanted.count + more


def backends_of(plan: Plan) -> dict[Key, tuple[Service, Backend]]:
    """All of them."""
    return {(s.name, one.key): (s, one) for s in plan.services for one in s.backends}


@dataclass
class Removed:
    """A backend that is no longer there, but has flows."""

    service: Service
    backend: Backend
    replies: bool = True
    """New flows of its replies are still translated."""


@dataclass
class Slots:
    """Slots by backend."""

    room: int
    of: dict[Key, int] = field(default_factory=dict)
    removed: dict[int, Removed] = field(default_factory=dict)

    def assign(self, wanted: Plan) -> dict[Key, int]:
        """Slots of the backends of a plan; nothing is given before take() is told.

        Raises:
            UserError: there are not enough.
        """
        back = {(gone.service.name, gone.backend.key): slot for slot, gone in self.removed.items()}
        old, keys = back | self.of, list(backends_of(wanted))
        slots = {key: old[key] for key in keys if key in old}
        taken = {*old.values()}
        free = (slot for slot in range(self.room) if slot not in taken)
        slots |= zip((key for key in keys if key not in slots), free, strict=False)
        if len(slots) < len(keys):
            raise UserError(
                f"there is room for {self.room} backends, removed ones that have flows counted",
                fix="wait until their flows have ended, or raise the load balancer's room",
            )
        return slots

    def take(self, slots: dict[Key, int], before: Plan) -> set[int]:
        """From now on these are the backends that are there; `before` were. Returns the slots that
        another backend, or none, had."""
        known = {*self.of.values(), *self.removed}
        for key, (service, backend) in backends_of(before).items():
            self.removed[self.of[key]] = Removed(service, backend)
        for slot in slots.values():
            self.removed.pop(slot, None)
        self.of = slots
        return {*slots.values()} - known


# ---- as C has them -------------------------------------------------------------------------------


def native(plan: Plan, slots: Slots) -> Any:
    """A new hb_lb_config. The Maglev tables of the plan have to stay for as long as it lives."""
    keep: list[Any] = []
    services = [_service(number, one, slots, keep) for number, one in enumerate(plan.services)]
    replies = list(_replies(plan, slots))
    for entries in (services, replies):
        entries.sort(key=lambda one: (one["address"], one["protocol"], one["first"]))
    config = lib.hb_lb_config_new(
        ffi.new("hb_lb_service[]", services or 1), len(services),
        ffi.new("hb_lb_reply[]", replies or 1), len(replies),
    )  # fmt: skip
    if not config:
        raise MemoryError("no memory for the load balancer")
    return config


def _service(number: int, service: Service, slots: Slots, keep: list[Any]) -> dict[str, Any]:
    backends = [
        {
            "address": ordered(one.address),
            "port": one.port,
            "slot": slots.of[service.name, one.key],
            "mac": mac_bytes(one.mac) if one.mac else bytes(6),
            "has_mac": one.mac is not None,
        }
        for one in service.backends
    ]
    keep.append(ffi.new("hb_lb_backend[]", backends or 1))
    return {
        "address": ordered(service.params.address),
        "first": service.ports.first,
        "last": service.ports.last,
        "number": number,
        "protocol": PROTOCOLS[service.params.protocol],
        "mode": lib.HB_LB_DNAT if service.dnat else lib.HB_LB_IPIP,
        "by_client": service.params.affinity == "client",
        "usable": service.usable > 0,
        "backends": len(backends),
        "size": service.table.size,
        "backend": keep[-1],
        "table": ffi.cast("uint16_t *", service.table.ctypes.data),
    }


def _replies(plan: Plan, slots: Slots) -> Iterator[dict[str, Any]]:
    """Those of backends that are there, then those of removed ones, unless another has taken their
    place."""
    taken: dict[tuple[bytes, int], list[PortRange]] = {}
    numbers = {service.name: number for number, service in enumerate(plan.services)}
    for slot, service, backend in _answering(plan, slots):
        address, protocol = ordered(backend.address), PROTOCOLS[service.params.protocol]
        ports = service.real_ports(backend)
        others = taken.setdefault((address, protocol), [])
        if any(one.first <= ports.last and ports.first <= one.last for one in others):
            continue
        others.append(ports)
        yield {
            "address": address,
            "virtual_address": ordered(service.params.address),
            "first": ports.first,
            "last": ports.last,
            "virtual_port": service.ports.first if backend.port else 0,
            "slot": slot,
            "service": numbers[service.name],
            "protocol": protocol,
        }


def _answering(plan: Plan, slots: Slots) -> Iterator[tuple[int, Service, Backend]]:
    for key, (service, backend) in backends_of(plan).items():
        if service.dnat:
            yield slots.of[key], service, backend
    for slot, gone in slots.removed.items():
        if gone.replies and gone.service.dnat:
            yield slot, gone.service, gone.backend
