# SPDX-License-Identifier: BSD-3-Clause
"""What the router's table shall show, from files and parameters, and how it differs from what it
shows. Nothing changes before everything has been read and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hummingbird.errors import UserError
from hummingbird.nfs.router_fib import Fib, groups_needed
from hummingbird.nfs.router_hops import Hops
from hummingbird.nfs.routes_file import (
    Action,
    Address,
    Attached,
    Ints,
    RouteFile,
    Routes,
    Target,
    Via,
    Words,
    read,
)

if TYPE_CHECKING:
    from hummingbird.nfs.router import RouterParams

MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class Family:
    """The routes of one family: each prefix once, sorted."""

    family: int
    hi: Words
    lo: Words
    length: Ints
    hop: Ints
    """Numbers of next hops in the table."""

    @property
    def groups(self) -> int:
        """Groups of entries that they take."""
        return groups_needed(self.family, self.hi, self.lo, self.length)


@dataclass(frozen=True)
class Plan:
    """What a table shall show."""

    families: tuple[Family, Family]
    numbers: dict[Target, int]
    new: list[Target]
    """Next hops that the table does not have yet, members before groups."""
    attached: dict[int, str]
    """Interfaces of attached networks by the number of their next hop."""
    notes: list[str]


@dataclass
class Loaded:
    """A table, and what it shows."""

    fib: Fib
    hops: Hops
    plan: Plan
    gleaned: set[Address] = field(default_factory=set)
    """Hosts of attached networks that have a route of their own, because their MAC is known."""


def packed(address: Address) -> tuple[int, int]:
    """An address as upper and lower 64 bits; IPv4 in the upper 32 of them."""
    if isinstance(address, IPv4Address):
        return int(address) << 32, 0
    return int(address) >> 64, int(address) & MASK64


def unpacked(family: int, hi: int, lo: int) -> Address:
    """The other way round."""
    return IPv4Address(hi >> 32) if family == 4 else IPv6Address(hi << 64 | lo)


def files_of(params: RouterParams, base: Path) -> list[Path]:
    """The files with routes."""
    return [base / path for path in (params.routes, params.routes6) if path is not None]


# ---- reading -------------------------------------------------------------------------------------


def plan(params: RouterParams, base: Path, hops: Hops) -> Plan:
    """Read the files.

    Raises:
        UserError: their first mistake.
    """
    files = [read(path, params.format) for path in files_of(params, base)]
    parts: list[tuple[Routes, list[Target]]] = []
    for file in files:
        _check(file, hops)
        parts += [_hosts(routes, file.targets) for routes in (file.v4, file.v6)]
    own = Action("local")
    wanted = [own] if params.addresses else []
    for routes, targets in parts:
        wanted += [targets[i] for i in np.unique(routes.target).tolist()]
    numbers, new = hops.assign(list(dict.fromkeys([*_named(hops), *wanted])))
    families = []
    for family in (4, 6):
        mine = [
            (routes, np.array([numbers.get(target, -1) for target in targets], dtype=np.int64))
            for routes, targets in parts
            if routes.family == family
        ]
        locals_ = [address for address in params.addresses if address.version == family]
        families.append(_family(family, mine, locals_, numbers.get(own, -1), files))
    attached = {
        number: target.dev for target, number in numbers.items() if isinstance(target, Attached)
    }
    notes = [note for file in files for note in file.notes]
    return Plan((families[0], families[1]), numbers, new, attached, notes)


def _named(hops: Hops) -> list[Target]:
    """The next hops of the topology: their numbers stay, whether a route leads there or not."""
    return list(hops.named)


def _check(file: RouteFile, hops: Hops) -> None:
    """Every target of a file can be a next hop."""
    for number, target in enumerate(file.targets):
        try:
            for one in (*getattr(target, "members", ()), target):
                hops.check(one)
        except UserError as error:
            raise UserError(
                error.what, path=file.path, line=file.lines(number), fix=error.fix
            ) from None


def _hosts(routes: Routes, targets: list[Target]) -> tuple[Routes, list[Target]]:
    """An attached network of one host is that host: its address is the next hop's."""
    bits = 32 if routes.family == 4 else 128
    attached = np.array([isinstance(target, Attached) for target in targets], dtype=np.bool_)
    rows = np.flatnonzero(routes.length == bits)
    rows = rows[attached[routes.target[rows]]] if rows.size else rows
    if not rows.size:
        return routes, targets
    targets, chosen = list(targets), routes.target.copy()
    for row in rows.tolist():
        before = targets[chosen[row]]
        assert isinstance(before, Attached)
        address = unpacked(routes.family, int(routes.hi[row]), int(routes.lo[row]))
        chosen[row] = len(targets)
        targets.append(Via(address, before.dev))
    return Routes(routes.family, routes.hi, routes.lo, routes.length, chosen), targets


def _family(
    family: int,
    parts: list[tuple[Routes, Ints]],
    own: list[Address],
    local: int,
    files: list[RouteFile],
) -> Family:
    """All routes of a family, those to the router's own addresses last: a file's goes before."""
    bits = 32 if family == 4 else 128
    pairs = [packed(address) for address in own]
    last = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    hi = np.concatenate([*(routes.hi for routes, _ in parts), last[:, 0]])
    lo = np.concatenate([*(routes.lo for routes, _ in parts), last[:, 1]])
    length = np.concatenate(
        [*(routes.length for routes, _ in parts), np.full(len(own), bits, dtype=np.int64)]
    )
    hop = np.concatenate(
        [
            *(number[routes.target] for routes, number in parts),
            np.full(len(own), local, dtype=np.int64),
        ]
    )
    origin = np.repeat(
        np.arange(len(parts) + 1), [*(routes.hi.size for routes, _ in parts), len(own)]
    )
    order = np.lexsort((origin, length, lo, hi))
    hi, lo, length, hop, origin = hi[order], lo[order], length[order], hop[order], origin[order]
    again = np.zeros(hi.size, dtype=np.bool_)
    again[1:] = (hi[1:] == hi[:-1]) & (lo[1:] == lo[:-1]) & (length[1:] == length[:-1])
    twice = np.flatnonzero(again & (origin < len(parts)))
    if twice.size:
        at = int(twice[0])
        prefix = f"{unpacked(family, int(hi[at]), int(lo[at]))}/{length[at]}"
        what = f"{prefix} stands in {files[0].path}, too"
        raise UserError(what, path=files[int(origin[at])].path, fix="remove one of the two")
    kept = ~again
    return Family(family, hi[kept], lo[kept], length[kept], hop[kept])


# ---- changing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Changes:
    """How to get from one set of routes to another."""

    hi: Words
    lo: Words
    length: Ints
    hop: Ints
    """-1: withdraw."""
    added: int
    withdrawn: int
    changed: int


def difference(old: Family, new: Family) -> Changes:
    """New routes and new next hops first, withdrawals last: no address is without a route
    meanwhile that has one before and after."""
    hi = np.concatenate([old.hi, new.hi])
    lo = np.concatenate([old.lo, new.lo])
    length = np.concatenate([old.length, new.length])
    hop = np.concatenate([old.hop, new.hop])
    is_new = np.arange(hi.size) >= old.hi.size
    order = np.lexsort((is_new, length, lo, hi))
    a, b = order[:-1], order[1:]
    pair = (hi[a] == hi[b]) & (lo[a] == lo[b]) & (length[a] == length[b])
    paired = np.zeros(hi.size, dtype=np.bool_)
    paired[a[pair]] = paired[b[pair]] = True
    changed = b[pair][hop[a[pair]] != hop[b[pair]]]
    added = np.flatnonzero(~paired & is_new)
    gone = np.flatnonzero(~paired & ~is_new)
    hop = hop.copy()
    hop[gone] = -1
    rows = np.concatenate([changed, added[np.argsort(length[added], kind="stable")], gone])
    return Changes(hi[rows], lo[rows], length[rows], hop[rows], added.size, gone.size, changed.size)


def glean(loaded: Loaded, addresses: Iterable[Address]) -> None:
    """Give hosts of attached networks whose MAC is known routes of their own; take the routes of
    those away that are in no attached network any more."""
    for address in {*addresses, *loaded.gleaned}:
        _glean_one(loaded, address)


def _glean_one(loaded: Loaded, address: Address) -> None:
    family, bits = address.version, 32 if address.version == 4 else 128
    hi, lo = packed(address)
    if _has_host_route(loaded.plan.families[family == 6], hi, lo, bits):
        loaded.gleaned.discard(address)
        return
    cover = loaded.fib.route(family, hi, lo, bits)
    dev = loaded.plan.attached.get(cover[1]) if cover else None
    known = address in loaded.hops.learned or address in loaded.hops.params.neighbours
    if dev is None or not known:
        if address in loaded.gleaned:
            loaded.gleaned.discard(address)
            loaded.fib.change(family, *_one(hi, lo, bits, -1))
        return
    target = Via(address, dev)
    numbers, new = loaded.hops.assign([target])
    loaded.hops.write(loaded.fib, numbers, new)
    loaded.hops.numbers = numbers
    loaded.fib.change(family, *_one(hi, lo, bits, numbers[target]))
    loaded.gleaned.add(address)


def _has_host_route(routes: Family, hi: int, lo: int, bits: int) -> bool:
    first, last = (
        np.searchsorted(routes.hi, np.array([hi], dtype=np.uint64)),
        np.searchsorted(routes.hi, np.array([hi], dtype=np.uint64), side="right"),
    )
    span = slice(int(first[0]), int(last[0]))
    same = (routes.lo[span] == np.uint64(lo)) & (routes.length[span] == bits)
    return bool(same.any())


def _one(hi: int, lo: int, bits: int, hop: int) -> tuple[Words, Words, Ints, Ints]:
    def word(value: int) -> npt.NDArray[np.uint64]:
        return np.array([value], dtype=np.uint64)

    return word(hi), word(lo), np.array([bits], dtype=np.int64), np.array([hop], dtype=np.int64)
