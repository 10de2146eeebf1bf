# SPDX-License-Identifier: BSD-3-Clause
"""The load balancer while it runs: applies an edited file, counts, tells.

Backends have counters by slot. One that is removed keeps its slot, and its replies their virtual
address, for as long as flows are with it.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs import HostContext, NfHost
from hummingbird.nfs.load_balancer_config import Address, LoadBalancerParams
from hummingbird.nfs.load_balancer_file import Place
from hummingbird.nfs.load_balancer_plan import (
    PROTOCOLS,
    Backend,
    Plan,
    Service,
    ordered,
    plan,
)
from hummingbird.nfs.router_hops import mac_bytes
from hummingbird.rules import ANY_PORT, PortRange

if TYPE_CHECKING:
    from hummingbird.dataplane.plane import Dataplane

log = logging.getLogger("hummingbird")

LEAST_ROOM = 1024
FLOW_STATE = np.dtype(
    [("head", "<u4"), ("slot", "<u4"), ("port", "<u4"), ("mac", "<u4"), ("address", "<u4", (4,))]
)
"""As cl_kernels/nf/load_balancer.cl describes it."""
PASS, DROP, TO_BACKEND, FROM_BACKEND, TUNNEL, ICMP = range(1, 7)
MODES = {PASS: "pass", DROP: "drop", ICMP: "icmp"}
MODES |= {TO_BACKEND: "dnat", FROM_BACKEND: "reply", TUNNEL: "ipip"}
SIX = 1 << 10
USE = ("packets", "bytes", "reply_packets", "reply_bytes")
COUNTS = (
    *("no_backend", "no_first", "icmp_translated", "icmp_errors", "icmp_suppressed"),
    *("fragmented", "without_flow"),
)

Key = tuple[str, tuple[Address, int]]
"""A service's name and what makes a backend the same one."""
Mark = tuple[int, int, int] | None


def room_of(params: LoadBalancerParams, wanted: Plan) -> int:
    """Slots for backends, those that may come later among them."""
    more = max(wanted.count, LEAST_ROOM) if params.room is None else params.room
    return wanted.count + more


def seed_of(params: LoadBalancerParams, name: str) -> int:
    """Of the hash; the same after a restart."""
    return zlib.crc32(name.encode()) if params.seed is None else params.seed


def _mark(path: Path) -> Mark:
    try:
        status = os.stat(path)
    except OSError:
        return None  # an editor is replacing it
    return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass
class _Removed:
    """A backend that is no longer there, but has flows."""

    service: Service
    backend: Backend
    replies: bool = True
    """New flows of its replies are still translated."""


@dataclass
class _Slots:
    """Which backend has which counters."""

    room: int
    of: dict[Key, int] = field(default_factory=dict)
    removed: dict[int, _Removed] = field(default_factory=dict)

    def assign(self, wanted: Plan) -> dict[Key, int]:
        """Slots of the backends of a plan; nothing is given before the caller keeps them.

        Raises:
            UserError: there are not enough.
        """
        keys = [(s.name, one.key) for s in wanted.services for one in s.backends]
        back = {(gone.service.name, gone.backend.key): slot for slot, gone in self.removed.items()}
        slots = {key: slot for key in keys if (slot := self.of.get(key, back.get(key))) is not None}
        taken = {*self.of.values(), *self.removed}
        free = (slot for slot in range(self.room) if slot not in taken)
        for key in keys:
            if key not in slots and (slot := next(free, None)) is not None:
                slots[key] = slot
        if len(slots) < len(keys):
            raise UserError(
                f"there is room for {self.room} backends, removed ones that have flows counted",
                fix="wait until their flows have ended, or raise the load balancer's room",
            )
        return slots


class LoadBalancerHost(NfHost):
    """One load balancer."""

    def __init__(self, params: LoadBalancerParams, wanted: Plan, context: HostContext) -> None:
        self._params, self._plan, self._context = params, wanted, context
        self._path = context.base / params.backends if params.backends else None
        self._mark = self._pending = _mark(self._path) if self._path else None
        self._plane: Dataplane | None = None
        self._slots = _Slots(room_of(params, wanted))
        self._slots.of = self._slots.assign(wanted)
        self._base: dict[int, dict[str, int]] = {}
        self._tables = wanted.services  # what the data plane looks at
        kind = params.icmp.type
        self.pointer = lib.hb_lb_host_new(
            self._config(),
            seed_of(params, context.name),
            self._slots.room,
            params.icmp.rate,
            -1 if kind is None else context.types[kind],
        )
        if not self.pointer:
            raise MemoryError("no memory for the load balancer")

    def attach(self, plane: Dataplane, node: int) -> None:
        """From here on lcores may be choosing."""
        self._plane = plane

    def poll(self) -> None:
        """Look at the file, and at backends whose last flow has ended."""
        if self._context.watch and self._file_changed():
            self.reload()
        self._forget()

    def close(self) -> None:
        """Free what the data plane used."""
        lib.hb_lb_host_free(self.pointer)
        self.pointer = ffi.NULL

    # ---- the file ----

    def _file_changed(self) -> bool:
        """Has it changed, and then stayed the same for one look?"""
        now = _mark(self._path) if self._path else None
        if now is None or now == self._mark:
            return False
        if now != self._pending:
            self._pending = now
            return False
        self._mark = now
        return True

    def reload(self) -> None:
        """Apply the file as it is now; a mistake in it changes nothing."""
        name = self._context.name
        try:
            wanted = plan(self._params, self._context.base, name, self._plan)
            slots = self._slots.assign(wanted)
        except UserError as error:
            log.error("the backends of %s stay as they were: %s", name, error)
            return
        old = {(s.name, one.key): (s, one) for s in self._plan.services for one in s.backends}
        new = {(s.name, one.key): one for s in wanted.services for one in s.backends}
        for key, (service, backend) in old.items():
            if key not in new:
                self._slots.removed[self._slots.of[key]] = _Removed(service, backend)
        known = {*self._slots.of.values(), *self._slots.removed}
        for slot in slots.values():
            self._slots.removed.pop(slot, None)
            if slot not in known:  # its counters go on from those of another
                use = lib.hb_lb_used(self.pointer, slot)
                self._base[slot] = {one: int(getattr(use, one)) for one in ("flows", *USE)}
        self._plan, self._slots.of = wanted, slots
        self._swap()
        changed = sum(key in old and old[key][1] != one for key, one in new.items())
        log.info(
            "backends of %s: %d added, %d changed, %d removed",
            name, len(new.keys() - old.keys()), changed, len(old.keys() - new.keys()),
        )  # fmt: skip

    def _forget(self) -> None:
        """Give back the slots of removed backends that no flow is with. First they must be out of
        every lcore's sight: only then do no more flows come."""
        idle = [slot for slot in self._slots.removed if self._is_idle(slot)]
        if not idle or not self._plane:
            return
        for slot in idle:
            self._slots.removed[slot].replies = False
        self._swap()
        for slot in idle:
            if self._is_idle(slot):
                del self._slots.removed[slot]

    def _is_idle(self, slot: int) -> bool:
        use = lib.hb_lb_used(self.pointer, slot)
        return bool(use.held == use.released)

    # ---- what the lcores look at ----

    def _swap(self) -> None:
        """Put the plan as it is now in the place of what lcores look at; that goes when nobody
        looks at it any more."""
        tables, self._tables = self._tables, self._plan.services
        old = lib.hb_lb_swap(self.pointer, self._config())
        if self._plane:
            self._plane.wait_readers()
        lib.hb_lb_config_free(old)
        del tables

    def _config(self) -> Any:
        """The plan as C has it; the Maglev tables stay where they are."""
        keep: list[Any] = []
        services = [
            self._service(number, one, keep) for number, one in enumerate(self._plan.services)
        ]
        replies = list(self._replies())
        for entries in (services, replies):
            entries.sort(key=lambda one: (one["address"], one["protocol"], one["first"]))
        config = lib.hb_lb_config_new(
            ffi.new("hb_lb_service[]", services or 1), len(services),
            ffi.new("hb_lb_reply[]", replies or 1), len(replies),
        )  # fmt: skip
        if not config:
            raise MemoryError("no memory for the load balancer")
        return config

    def _service(self, number: int, service: Service, keep: list[Any]) -> dict[str, Any]:
        slots = self._slots.of
        backends = [
            {
                "address": ordered(one.address),
                "port": one.port,
                "slot": slots[service.name, one.key],
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

    def _replies(self) -> Iterator[dict[str, Any]]:
        """Those of backends that are there, then those of removed ones, unless another has taken
        their place."""
        taken: dict[tuple[bytes, int], list[PortRange]] = {}
        numbers = {service.name: number for number, service in enumerate(self._plan.services)}
        for slot, service, backend in self._answering():
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

    def _answering(self) -> Iterator[tuple[int, Service, Backend]]:
        for service in self._plan.services:
            for backend in service.backends if service.dnat else ():
                yield self._slots.of[service.name, backend.key], service, backend
        for slot, gone in self._slots.removed.items():
            if gone.replies and gone.service.dnat:
                yield slot, gone.service, gone.backend

    # ---- what it tells ----

    def report(self) -> dict[str, Any]:
        """Services with their backends, and what finish() has done."""
        counts = lib.hb_lb_count(self.pointer) if self.pointer else None
        return {
            "services": {service.name: self._service_report(service) for service in self._services},
            **({name: int(getattr(counts, name)) for name in COUNTS} if counts else {}),
        }

    @property
    def _services(self) -> tuple[Service, ...]:
        return self._plan.services

    def _service_report(self, service: Service) -> dict[str, Any]:
        slots = self._slots
        backends = {
            str(one): self._use(slots.of[service.name, one.key], weight=one.weight)
            for one in service.backends
        }
        removed = {
            str(gone.backend): self._use(slot)
            for slot, gone in slots.removed.items()
            if gone.service.name == service.name
        }
        ports = "any" if service.ports == ANY_PORT else "-".join(map(str, sorted({*service.ports})))
        return {
            "address": str(service.params.address),
            "protocol": service.params.protocol,
            "port": ports,
            "mode": service.params.mode,
            "flows": sum(one["flows"] for one in (*backends.values(), *removed.values())),
            "backends": backends,
            **({"removed": removed} if removed else {}),
        }

    def _use(self, slot: int, **more: Any) -> dict[str, Any]:
        """What a backend has got; flows: were given to it, live: are with it now."""
        if not self.pointer:
            return dict.fromkeys(("flows", "live", *USE), 0) | more
        use, base = lib.hb_lb_used(self.pointer, slot), self._base.get(slot, {})
        counted = {name: int(getattr(use, name)) - base.get(name, 0) for name in ("flows", *USE)}
        return {**more, **counted, "live": int(use.flows - use.ended)}

    def flow(self, state: np.void) -> dict[str, Any]:
        """Service and backend of a flow."""
        head, slot = int(state["head"]), int(state["slot"])
        mode = head & 255
        if mode not in (TO_BACKEND, FROM_BACKEND, TUNNEL):
            return {"mode": MODES.get(mode, "new")}
        address = _address(state, bool(head & SIX))
        port = int(state["port"]) & 0xFFFF
        service = self._services[slot >> 16].name if slot >> 16 < len(self._services) else None
        backend = str(Backend(address, port, 0, None, Place()))
        if mode == FROM_BACKEND:
            backend = self._name(slot & 0xFFFF)
        return {"mode": MODES[mode], "service": service, "backend": backend}

    def _name(self, slot: int) -> str | None:
        """The backend with this slot."""
        for service in self._services:
            for one in service.backends:
                if self._slots.of[service.name, one.key] == slot:
                    return str(one)
        gone = self._slots.removed.get(slot)
        return str(gone.backend) if gone else None


def _address(state: np.void, six: bool) -> Address:
    words = [int(word) for word in state["address"]]
    return IPv6Address(struct.pack(">4I", *words)) if six else IPv4Address(words[3])
