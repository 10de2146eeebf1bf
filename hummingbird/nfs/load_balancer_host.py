# SPDX-License-Identifier: BSD-3-Clause
"""The load balancer while it runs: applies an edited file, counts, tells."""

from __future__ import annotations

import struct
import zlib
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import numpy as np

from hummingbird import logs
from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs import HostContext, NfHost
from hummingbird.nfs.load_balancer_config import Address, LoadBalancerParams
from hummingbird.nfs.load_balancer_plan import Plan, Service, named, plan
from hummingbird.nfs.load_balancer_slots import Slots, backends_of, native, room_of
from hummingbird.nfs.watched import WatchedFiles
from hummingbird.rules import ANY_PORT

if TYPE_CHECKING:
    from hummingbird.dataplane.plane import Dataplane

FLOW_STATE = np.dtype(
    [("head", "<u4"), ("slot", "<u4"), ("port", "<u4"), ("mac", "<u4"), ("address", "<u4", (4,))]
)
"""As cl_kernels/nf/load_balancer.cl describes it."""
PASS, DROP, TO_BACKEND, FROM_BACKEND, TUNNEL, ICMP = range(1, 7)
MODES = {PASS: "pass", DROP: "drop", ICMP: "icmp"}
MODES |= {TO_BACKEND: "dnat", FROM_BACKEND: "reply", TUNNEL: "ipip"}
SIX = 1 << 10
USE = ("flows", "packets", "bytes", "reply_packets", "reply_bytes")
COUNTS = (
    *("no_backend", "no_first", "icmp_translated", "icmp_errors", "icmp_suppressed"),
    *("fragmented", "without_flow"),
)


_in_use_for_good: list[Plan] = []
"""Plans that a stuck lcore may still look at."""


def seed_of(params: LoadBalancerParams, name: str) -> int:
    """Of the hash; the same after a restart."""
    return zlib.crc32(name.encode()) if params.seed is None else params.seed


class LoadBalancerHost(NfHost):
    """One load balancer."""

    rereads = True

    def __init__(self, params: LoadBalancerParams, wanted: Plan, context: HostContext) -> None:
        self._params, self._plan, self._context = params, wanted, context
        self._files = WatchedFiles([context.base / params.backends] if params.backends else [])
        self._plane: Dataplane | None = None
        self._slots = Slots(room_of(params, wanted))
        self._slots.of = self._slots.assign(wanted)
        self._base: dict[int, dict[str, int]] = {}
        """What was counted in a slot when its backend got it."""
        self._past = dict.fromkeys(params.services, 0)
        """Flows of each service's backends that have lost their slots."""
        self._seen = wanted
        """What the data plane looks at."""
        kind = params.icmp.type
        self.pointer = lib.hb_lb_host_new(
            native(wanted, self._slots),
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
        """Look at the file, and at removed backends, whose last flow may have ended."""
        if self._context.watch and self._files.changed():
            self.reload()
        self._forget()

    def close(self) -> None:
        """Free what the data plane used."""
        lib.hb_lb_host_free(self.pointer)
        self.pointer = ffi.NULL

    # ---- the file ----

    def reload(self) -> None:
        """Apply the file as it is now; a mistake in it changes nothing."""
        try:
            self.read_again()
        except UserError as error:
            name = self._context.name
            what = f"the backends of {name} stay as they were"
            logs.failed("backends_refused", what, error, fix="mend the file", subject=name)

    def read_again(self) -> str:
        """The same; raises the mistake, says and returns what has changed."""
        name, before = self._context.name, self._plan
        wanted = plan(self._params, self._context.base, name, before)
        slots = self._slots.assign(wanted)
        for slot in self._slots.take(slots, before):
            self._base[slot] = self._counted(slot)
        self._plan = wanted
        self._swap()
        old, new = backends_of(before), backends_of(wanted)
        changed = sum(key in old and old[key][1] != one for key, (_, one) in new.items())
        added, removed = len(new.keys() - old.keys()), len(old.keys() - new.keys())
        text = f"backends of {name}: {added} added, {changed} changed, {removed} removed"
        logs.info(
            "backends_reloaded", text, subject=name, added=added, changed=changed, removed=removed
        )
        return text

    def _swap(self) -> bool:
        """Put the plan as it is now in the place of what the data plane looks at; that goes when
        nobody looks at it any more. False: an lcore is stuck, and may look at it for good."""
        seen, self._seen = self._seen, self._plan
        old = lib.hb_lb_swap(self.pointer, native(self._plan, self._slots))
        if self._plane and not self._plane.wait_readers():
            _in_use_for_good.append(seen)  # and old is not freed
            return False
        lib.hb_lb_config_free(old)
        del seen  # until here its tables were needed
        return True

    def _forget(self) -> None:
        """Give back the slots of removed backends that no flow is with. First they must be out of
        every lcore's sight: only then do no more flows come."""
        idle = [slot for slot in self._slots.removed if self._is_idle(slot)]
        # beside a stuck lcore each swap would keep a plan for good, at every look
        if not idle or not self._plane or not self._plane.wait_readers():
            return
        for slot in idle:
            self._slots.removed[slot].replies = False
        if not self._swap():
            return
        for slot in idle:
            if self._is_idle(slot):
                gone = self._slots.removed.pop(slot)
                self._past[gone.service.name] += self._use(slot)["flows"]

    def _is_idle(self, slot: int) -> bool:
        use = lib.hb_lb_used(self.pointer, slot)
        return bool(use.held == use.released)

    # ---- what it tells ----

    def report(self) -> dict[str, Any]:
        """Services with their backends, and what the host part has done."""
        if not self.pointer:
            return {}
        counts = lib.hb_lb_count(self.pointer)
        return {
            "services": {service.name: self._report(service) for service in self._plan.services},
            **{name: int(getattr(counts, name)) for name in COUNTS},
        }

    def _report(self, service: Service) -> dict[str, Any]:
        slots, ports = self._slots, service.ports
        backends = {
            str(one): {"weight": one.weight} | self._use(slots.of[service.name, one.key])
            for one in service.backends
        }
        removed = {
            str(gone.backend): self._use(slot)
            for slot, gone in slots.removed.items()
            if gone.service.name == service.name
        }
        flows = sum(one["flows"] for one in (*backends.values(), *removed.values()))
        return {
            "address": str(service.params.address),
            "protocol": service.params.protocol,
            "port": "any" if ports == ANY_PORT else "-".join(map(str, dict.fromkeys(ports))),
            "mode": service.params.mode,
            "flows": self._past[service.name] + flows,
            "backends": backends,
            **({"removed": removed} if removed else {}),
        }

    def _counted(self, slot: int) -> dict[str, int]:
        use = lib.hb_lb_used(self.pointer, slot)
        return {name: int(getattr(use, name)) for name in USE}

    def _use(self, slot: int) -> dict[str, int]:
        """What a backend has got. Flows were given to it, `live` ones are with it now."""
        use, base = lib.hb_lb_used(self.pointer, slot), self._base.get(slot, {})
        counted = {name: n - base.get(name, 0) for name, n in self._counted(slot).items()}
        return {"live": int(use.flows - use.ended), **counted}

    def flow(self, state: np.void) -> dict[str, Any]:
        """Service and backend of a flow."""
        head, slot, number = (int(state["head"]), int(state["slot"]) & 0xFFFF, state["slot"] >> 16)
        mode = head & 255
        if mode not in (TO_BACKEND, FROM_BACKEND, TUNNEL):
            return {"mode": MODES.get(mode, "new")}
        backend: str | None = named(_address(state, head & SIX), int(state["port"]) & 0xFFFF)
        if mode == FROM_BACKEND:  # its state has the virtual address
            backend = self._name(slot)
        service = self._plan.services[number].name
        return {"mode": MODES[mode], "service": service, "backend": backend}

    def _name(self, slot: int) -> str | None:
        """The backend with this slot."""
        for key, (_, backend) in backends_of(self._plan).items():
            if self._slots.of[key] == slot:
                return str(backend)
        gone = self._slots.removed.get(slot)
        return str(gone.backend) if gone else None


def _address(state: np.void, six: int) -> Address:
    words = [int(word) for word in state["address"]]
    return IPv6Address(struct.pack(">4I", *words)) if six else IPv4Address(words[3])
