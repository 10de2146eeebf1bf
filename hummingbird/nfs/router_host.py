# SPDX-License-Identifier: BSD-3-Clause
"""The router while it runs: applies edited files as a difference, learns neighbours, reports."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import numpy as np

from hummingbird import logs
from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs import HostContext, NfHost
from hummingbird.nfs.router_fib import FORWARD, groups_needed
from hummingbird.nfs.router_plan import (
    Changes,
    Loaded,
    Plan,
    difference,
    files_of,
    glean,
    plan,
)
from hummingbird.nfs.routes_file import Address, Target, Via
from hummingbird.nfs.watched import WatchedFiles

if TYPE_CHECKING:
    from hummingbird.dataplane.plane import Dataplane
    from hummingbird.nfs.router import RouterParams

BY_RULES = 0xFFFF  # HB_TYPE_BY_RULES of nf.h
MOST_LEARNED = 4096
HEARD_AT_ONCE = 256
SURE_S = 60.0
"""A neighbour that was not heard of for so long, and still gets packets, is asked whether it is
there."""
SILENT_S = 3.0
"""One that was heard of within this time does answer."""
LOOK_S = 1.0
"""Between two looks at who that is."""


class RouterHost(NfHost):
    """One router."""

    rereads = True

    def __init__(self, params: RouterParams, loaded: Loaded, context: HostContext) -> None:
        self._params, self._loaded, self._context = params, loaded, context
        loaded.fib.move(context.table)
        source = {address.version: address.packed for address in reversed(params.addresses)}
        kind = params.icmp.type
        pointer = lib.hb_router_host_new(
            source.get(4, bytes(4)),
            source.get(6, bytes(16)),
            params.icmp.rate,
            -1 if kind is None else BY_RULES if kind == "*" else context.types[kind],
            params.learn,
        )
        if not pointer:
            raise MemoryError("no memory for the router")
        self.pointer = pointer
        if params.ask:
            own = ffi.new("hb_ip_address[]", len(params.addresses))
            for one, address in zip(own, params.addresses, strict=True):
                one.family = address.version
                one.bytes[0 : len(address.packed)] = address.packed
            lib.hb_router_host_ask(pointer, own, len(own))
        self._heard_at: dict[Address, float] = {}
        self._look_at = 0.0
        self._heard = ffi.new("hb_router_heard[]", HEARD_AT_ONCE)
        self._files = WatchedFiles(files_of(params, context.base))
        self._full = False

    def attach(self, plane: Dataplane, node: int) -> None:
        """From here on changes wait for the lcores and devices that read the table."""
        self._loaded.fib.attach(plane)

    def poll(self) -> None:
        """Learn, and look at the files."""
        self._learn()
        if self._params.ask:
            self._age(time.monotonic())
        if self._context.watch and self._files.changed():
            self.reload()

    def close(self) -> None:
        """Free what the data plane used."""
        lib.hb_router_host_free(self.pointer)
        self.pointer = ffi.NULL

    # ---- files ----

    def reload(self) -> None:
        """Apply the files as they are now; a mistake in them changes nothing."""
        try:
            self.read_again()
        except UserError as error:
            name = self._context.name
            what = f"the routes of {name} stay as they were"
            logs.failed("routes_refused", what, error, fix="mend the file", subject=name)

    def read_again(self) -> str:
        """The same; raises the mistake, says and returns what has changed."""
        wanted = plan(self._params, self._context.base, self._loaded.hops)
        changes = [
            difference(old, new)
            for old, new in zip(self._loaded.plan.families, wanted.families, strict=True)
        ]
        self._check_room(changes)
        self._apply(wanted, changes)
        added, changed, withdrawn = (
            sum(getattr(one, what) for one in changes) for what in ("added", "changed", "withdrawn")
        )
        name = self._context.name
        text = f"routes of {name}: {added} added, {changed} changed, {withdrawn} withdrawn"
        logs.info(
            "routes_reloaded", text,
            subject=name, added=added, changed=changed, withdrawn=withdrawn,
        )  # fmt: skip
        return text

    def _check_room(self, changes: list[Changes]) -> None:
        """While old and new routes are there, there is room for both."""
        fib = self._loaded.fib
        for old, one, room in zip(
            self._loaded.plan.families, changes, (fib.room.v4, fib.room.v6), strict=True
        ):
            put = one.hop >= 0
            need = groups_needed(
                old.family,
                np.concatenate([old.hi, one.hi[put]]),
                np.concatenate([old.lo, one.lo[put]]),
                np.concatenate([old.length, one.length[put]]),
            )
            need += len(self._loaded.gleaned) * (1 if old.family == 4 else 14)
            if need > room:
                raise UserError(
                    f"long IPv{old.family} prefixes may need {need} groups of entries, there is "
                    f"room for {room}",
                    path=self._context.base / self._params.routes,
                    fix=f"write room: {need - room + (self._params.room or 1024)} and start again",
                )

    def _apply(self, wanted: Plan, changes: list[Changes]) -> None:
        """Next hops first, then routes; then what no route leads to any more is free."""
        loaded = self._loaded
        loaded.hops.write(loaded.fib, wanted.numbers, wanted.new)
        loaded.hops.numbers = wanted.numbers
        for old, one in zip(loaded.plan.families, changes, strict=True):
            loaded.fib.change(old.family, one.hi, one.lo, one.length, one.hop)
        loaded.plan = wanted
        glean(loaded, self._known())
        if loaded.fib.readers_passed():
            self._forget_hops()

    def _forget_hops(self) -> None:
        """Give back the numbers of next hops that no route leads to."""
        loaded = self._loaded
        kept = {int(n) for family in loaded.plan.families for n in np.unique(family.hop)}
        loaded.hops.keep(kept, loaded.gleaned)
        loaded.plan = replace(
            loaded.plan,
            numbers=loaded.hops.numbers,
            attached={n: dev for n, dev in loaded.plan.attached.items() if n in kept},
        )

    # ---- neighbours ----

    def _known(self) -> list[Address]:
        return [*self._params.neighbours, *self._loaded.hops.learned]

    def _learn(self) -> None:
        n = lib.hb_router_hear(self.pointer, self._heard, HEARD_AT_ONCE)
        for heard in self._heard[0:n]:
            raw = bytes(heard.address)
            address = IPv4Address(raw[:4]) if heard.family == 4 else IPv6Address(raw)
            mac = bytes(heard.mac)
            if any(mac):
                self._hear(address, mac)
            else:
                self._forget(address)

    def _hear(self, address: Address, mac: bytes) -> None:
        """Believe it if it is news, if somebody is waiting for it, and if nobody has said
        otherwise in the topology."""
        loaded = self._loaded
        learned = loaded.hops.learned
        if address in self._params.neighbours:
            return
        if address in learned:
            self._heard_at[address] = time.monotonic()
        if learned.get(address) == mac and address not in loaded.hops.old:
            return
        waiting = loaded.hops.by_address(address)
        if not waiting and not self._is_attached(address):
            return
        if len(learned) >= MOST_LEARNED and address not in learned and not self._make_room():
            if not self._full:
                logs.warning(
                    "neighbours_full",
                    f"{self._context.name}: no room for another neighbour",
                    fix="cut the attached network into smaller ones, or write neighbours:",
                    subject=self._context.name,
                )
            self._full = True
            return
        learned[address] = mac
        self._heard_at[address] = time.monotonic()
        loaded.hops.old.discard(address)
        loaded.hops.write(loaded.fib, loaded.hops.numbers, list(waiting))
        try:
            glean(loaded, [address])
        except UserError as error:
            learned.pop(address)
            self._heard_at.pop(address)
            logs.warning(
                "neighbour_failed",
                f"{self._context.name}: neighbour {address}: {error.text}",
                fix=error.fix or "leave out routes, or start again",
                subject=self._context.name,
                neighbour=str(address),
            )

    def _age(self, now: float) -> None:
        """Those of whom nothing was heard for a while are asked when a packet goes there."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        hops = self._loaded.hops
        for address, heard in self._heard_at.items():
            if heard + SURE_S < now and address not in hops.old:
                hops.old.add(address)
                hops.write(self._loaded.fib, hops.numbers, hops.by_address(address))

    def _forget(self, address: Address) -> None:
        """It did not answer: its MAC is not known any more."""
        hops = self._loaded.hops
        if address not in hops.old or self._heard_at[address] + SILENT_S > time.monotonic():
            return
        self._drop(address)
        logs.info(
            "neighbour_gone",
            f"{self._context.name}: neighbour {address} does not answer any more",
            subject=self._context.name,
            neighbour=str(address),
        )

    def _drop(self, address: Address) -> None:
        hops = self._loaded.hops
        hops.old.discard(address)
        del hops.learned[address], self._heard_at[address]
        hops.write(self._loaded.fib, hops.numbers, hops.by_address(address))
        glean(self._loaded, [address])

    def _make_room(self) -> bool:
        """Forget the neighbour that was heard of least recently, if that is a while ago; a packet
        to it asks again."""
        oldest = min(self._heard_at, key=self._heard_at.__getitem__)
        if not self._params.ask or oldest not in self._loaded.hops.old:
            return False
        self._drop(oldest)
        return True

    def _is_attached(self, address: Address) -> bool:
        from hummingbird.nfs.router_plan import packed

        bits = 32 if address.version == 4 else 128
        found = self._loaded.fib.route(address.version, *packed(address), bits)
        return found is not None and found[1] in self._loaded.plan.attached

    # ---- report ----

    def report(self) -> dict[str, Any]:
        """Routes, next hops, neighbours, and what finish() has done."""
        loaded = self._loaded
        vias: list[Target] = [one for one in loaded.hops.numbers if isinstance(one, Via)]
        counts = lib.hb_router_count(self.pointer) if self.pointer else None
        names = ("icmp_errors", "icmp_suppressed", "fragmented", "asked", "unheard")
        return {
            "ipv4": loaded.fib.used(4),
            "ipv6": loaded.fib.used(6),
            "next_hops": len(loaded.hops.numbers),
            "unresolved": sum(loaded.hops.hop(via).kind != FORWARD for via in vias),
            "learned": {
                str(a): m.hex(":") for a, m in sorted(loaded.hops.learned.items(), key=str)
            },
            **({name: int(getattr(counts, name)) for name in names} if counts else {}),
        }
