# SPDX-License-Identifier: BSD-3-Clause
"""The router's next hops: from what routes name to Ethernet addresses and numbers in the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from hummingbird.errors import UserError
from hummingbird.nfs.router_fib import (
    BLACKHOLE,
    FORWARD,
    LOCAL,
    MAX_HOPS,
    MAX_MEMBERS,
    PROHIBIT,
    UNREACHABLE,
    UNRESOLVED,
    Fib,
)
from hummingbird.nfs.routes_file import Action, Address, Attached, Group, Named, Target, Via
from hummingbird.textfile import suggest

if TYPE_CHECKING:
    from hummingbird.nfs.router import RouterParams

_ACTIONS = {
    "local": LOCAL,
    "blackhole": BLACKHOLE,
    "unreachable": UNREACHABLE,
    "prohibit": PROHIBIT,
}


@dataclass(frozen=True)
class Hop:
    """What stands in the table for one next hop."""

    kind: int
    macs: bytes = bytes(12)
    mtu: int = 1500
    address: Address | None = None
    """Whom to ask for its MAC; None: the packet's destination."""
    confirm: bool = False
    """Its MAC was heard of a while ago."""


def mac_bytes(text: str) -> bytes:
    """``02:00:00:00:00:01`` as 6 bytes."""
    return bytes.fromhex(text.replace(":", ""))


@dataclass
class Hops:
    """Numbers of next hops, given when they are first asked for and given back when no route
    leads there any more; the topology's ``next_hops`` keep theirs."""

    params: RouterParams
    name: str
    """Of the NF, for errors."""
    learned: dict[Address, bytes] = field(default_factory=dict)
    """MAC addresses that traffic has told."""
    old: set[Address] = field(default_factory=set)
    """Of those that are learned: nothing was heard of them for a while."""
    numbers: dict[Target, int] = field(default_factory=dict)

    @property
    def named(self) -> list[Target]:
        """Those of the topology."""
        return [Named(name) for name in self.params.next_hops]

    def by_address(self, address: Address) -> list[Target]:
        """Those that are the router or host with this address."""
        return [
            target
            for target in self.numbers
            if isinstance(target, Via) and target.address == address
        ]

    def keep(self, numbers: set[int], hosts: set[Address]) -> None:
        """Forget next hops but those with these numbers, their members, the named ones, and those
        of these hosts; nobody reads them any more."""
        wanted: set[Target] = {target for target, n in self.numbers.items() if n in numbers}
        for target in list(wanted):
            wanted.update(target.members if isinstance(target, Group) else ())
        wanted.update(self.named)
        self.numbers = {
            target: number
            for target, number in self.numbers.items()
            if target in wanted or (isinstance(target, Via) and target.address in hosts)
        }

    def assign(self, targets: list[Target]) -> tuple[dict[Target, int], list[Target]]:
        """The numbers of targets, and those of them that are new, members before their groups.

        Nothing is given before the caller makes them ``numbers``.

        Raises:
            UserError: a target is wrong, or there are too many.
        """
        numbers: dict[Target, int] = dict(self.numbers)
        new: list[Target] = []
        taken = set(numbers.values())
        free = (number for number in count() if number not in taken)
        for target in targets:
            members = target.members if isinstance(target, Group) else ()
            for one in (*members, target):
                if one in numbers:
                    continue
                self.check(one)
                numbers[one] = next(free)
                new.append(one)
        if len(numbers) > MAX_HOPS:
            raise UserError(
                f"{len(numbers)} next hops; a router has at most {MAX_HOPS}",
                field=f"nfs.{self.name}.next_hops",
                fix="let routes share next hops",
            )
        return numbers, new

    def check(self, target: Target) -> None:
        """UserError if a target cannot be a next hop."""
        if isinstance(target, Named) and target.name not in self.params.next_hops:
            known = list(self.params.next_hops)
            fix = f"define it in next_hops; {suggest(target.name, known)}"
            raise UserError(f"unknown next hop {target.name}", fix=fix)
        if isinstance(target, Group) and len(target.members) > MAX_MEMBERS:
            what = f"{len(target.members)} next hops of one route"
            raise UserError(what, fix=f"use {MAX_MEMBERS} at most, weights counted")
        if isinstance(target, (Via, Attached)):
            self.hop(target)

    def write(self, fib: Fib, numbers: Mapping[Target, int], targets: list[Target]) -> None:
        """Put next hops into the table."""
        for target in targets:
            if isinstance(target, Group):
                fib.set_group(numbers[target], [numbers[member] for member in target.members])
            else:
                hop = self.hop(target)
                number = numbers[target]
                fib.set_hop(number, hop.kind, hop.macs, hop.mtu, hop.address, hop.confirm)

    def hop(self, target: Target) -> Hop:
        """What a target is now."""
        if isinstance(target, Action):
            return Hop(_ACTIONS[target.what])
        if isinstance(target, Named):
            named = self.params.next_hops[target.name]
            source = self._source("", named.src_mac, f"next_hops.{target.name}")
            return Hop(FORWARD, mac_bytes(named.mac) + source, named.mtu or self._mtu(""))
        assert isinstance(target, (Via, Attached))
        if isinstance(target, Via):
            return self._via(target)
        return Hop(UNRESOLVED, bytes(6) + self._source(target.dev, None, ""))

    def _via(self, target: Via) -> Hop:
        static = self.params.neighbours.get(target.address)
        source = self._source(
            target.dev, static.src_mac if static else None, f"neighbours.{target.address}"
        )
        mtu = (static.mtu if static else None) or self._mtu(target.dev)
        if static:
            return Hop(FORWARD, mac_bytes(static.mac) + source, mtu)
        if target.address in self.learned:
            mac, old = self.learned[target.address], target.address in self.old
            return Hop(FORWARD, mac + source, mtu, target.address, old)
        return Hop(UNRESOLVED, bytes(6) + source, mtu, target.address)

    def _source(self, dev: str, own: str | None, what: str) -> bytes:
        """The source MAC of packets that leave there."""
        interface = self.params.interfaces.get(dev)
        mac = own or (interface.mac if interface else None) or self.params.mac
        if mac:
            return mac_bytes(mac)
        place = f"interface {dev}" if dev else what or "attached networks"
        fix = "write mac: for the whole router"
        if dev:
            fix += f", or interfaces: {{{dev}: {{mac: ...}}}}"
        elif what:
            fix += ", or src_mac: there"
        raise UserError(f"no source MAC address for {place}", fix=fix)

    def _mtu(self, dev: str) -> int:
        interface = self.params.interfaces.get(dev)
        return (interface.mtu if interface else None) or self.params.mtu
