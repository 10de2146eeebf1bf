# SPDX-License-Identifier: BSD-3-Clause
"""The router's table, changed while packets are looked up: what dataplane/nf/router_api.h
offers, for whole arrays of routes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs.routes_file import Address, Ints, Words

if TYPE_CHECKING:
    from hummingbird.dataplane.plane import Dataplane

MAX_HOPS: int = lib.HB_ROUTER_HOPS_MOST
MAX_GROUPS4: int = lib.HB_ROUTER_GROUPS_MOST
MAX_GROUPS6 = 1 << 20
MAX_MEMBERS = 32
FORWARD, LOCAL, BLACKHOLE, UNREACHABLE, PROHIBIT, UNRESOLVED = 1, 3, 4, 5, 6, 7
"""Kinds of next hops, as in cl_kernels/nf/router.cl."""


@dataclass(frozen=True)
class Room:
    """Groups of entries that a table has room for."""

    v4: int
    v6: int


def groups_needed(family: int, hi: Words, lo: Words, length: Ints) -> int:
    """Groups that these prefixes take: one for each place where some are longer."""
    if family == 4:
        return int(np.unique(hi[length > 24] >> np.uint64(40)).size)
    total = 0
    for bits in range(16, 128, 8):
        longer = length > bits
        if not longer.any():
            break
        upper = hi[longer] >> np.uint64(max(0, 64 - bits))
        lower = lo[longer] >> np.uint64(128 - bits) if bits > 64 else np.zeros_like(upper)
        order = np.lexsort((lower, upper))
        upper, lower = upper[order], lower[order]
        total += 1 + int(((upper[1:] != upper[:-1]) | (lower[1:] != lower[:-1])).sum())
    return total


class Fib:
    """A table and what the host keeps beside it."""

    def __init__(self, room: Room, seed: int = 0, local: int | None = None) -> None:
        """An empty table; packets to the router itself get the packet type ``local``."""
        self.room = room
        size = lib.hb_router_bytes(room.v4, room.v6)
        self.table: npt.NDArray[np.uint8] = np.zeros(-(-size // 128) * 128, dtype=np.uint8)
        pointer = lib.hb_router_new(
            _at(self.table), room.v4, room.v6, seed, -1 if local is None else local
        )
        if not pointer:
            raise MemoryError("no memory for the routing table")
        self._router = ffi.gc(pointer, lib.hb_router_free)
        self._wait: Callable[[], bool] = lambda: True
        self._changed: Callable[[int, int], None] = lambda address, size: None
        self._changing: Callable[[], AbstractContextManager[None]] = nullcontext

    def move(self, table: npt.NDArray[np.uint8]) -> None:
        """From now on the table is this copy of it, and has readers."""
        self.table = table
        lib.hb_router_move(self._router, _at(table))

    def attach(self, plane: Dataplane) -> None:
        """The data plane whose lcores and device read the table."""
        self._wait, self._changed = plane.wait_readers, plane.tables_changed
        self._changing = plane.changing_tables

    def readers_passed(self) -> bool:
        """Wait until nobody sees what was there before; False: an lcore is stuck, and may see it
        for good."""
        if passed := self._wait():
            lib.hb_router_readers_passed(self._router)
        return passed

    def _free_old(self) -> None:
        """What was taken out before can be used again.

        Raises:
            UserError: an lcore may still look at it.
        """
        if not self.readers_passed():
            raise UserError(
                "an lcore is stuck, and may be looking at what is to be changed",
                fix="stop, and start again: an NF on it does not return",
            )

    def change(self, family: int, hi: Words, lo: Words, length: Ints, hop: Ints) -> None:
        """Add routes, change their next hops, or withdraw them (next hop -1), in order.

        Raises:
            UserError: there is no room for more groups, or an lcore is stuck; the changes before
                this one are made.
        """
        his = np.ascontiguousarray(hi, dtype=np.uint64)
        los = np.ascontiguousarray(lo, dtype=np.uint64)
        lengths = np.ascontiguousarray(length, dtype=np.uint8)
        hops = np.ascontiguousarray(hop, dtype=np.int32)
        done, at = ffi.new("uint32_t *"), 0
        with self._change():
            while at < his.size:
                end = lib.hb_router_change(
                    self._router, family, _at(his, at), _at(los, at), _at(lengths, at),
                    _at(hops, at), his.size - at, done,
                )  # fmt: skip
                at += done[0]
                self._check(end, family)

    def _check(self, end: int, family: int) -> None:
        if end == lib.HB_ROUTER_WAIT:
            self._free_old()
        elif end == lib.HB_ROUTER_FULL:
            room = self.room.v4 if family == 4 else self.room.v6
            raise UserError(
                f"the IPv{family} table has room for {room} groups of long prefixes, and no more",
                fix="raise the router's room, and start again",
            )
        elif end == lib.HB_ROUTER_MEMORY:
            raise MemoryError("no memory for the routes")

    def set_hop(
        self,
        hop: int,
        kind: int,
        macs: bytes = bytes(12),
        mtu: int = 1500,
        address: Address | None = None,
        confirm: bool = False,
    ) -> None:
        """Say what a next hop is: a kind, destination and source MAC, and the MTU; its address, if
        it is not the packet's own, and whether its MAC is to be confirmed."""
        own = ffi.NULL
        if address is not None:
            own = ffi.new("hb_ip_address *", {"family": address.version})
            own.bytes[0 : len(address.packed)] = address.packed
        with self._change():
            while (
                lib.hb_router_set_hop(self._router, hop, kind, macs, mtu, own, confirm)
                == lib.HB_ROUTER_WAIT
            ):
                self._free_old()

    def set_group(self, hop: int, members: Sequence[int]) -> None:
        """Make a next hop several others."""
        array = ffi.new("uint16_t[]", list(members))
        with self._change():
            while (
                lib.hb_router_set_group(self._router, hop, array, len(members))
                == lib.HB_ROUTER_WAIT
            ):
                self._free_old()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Around a change of the table: whoever has a copy gets the whole of it, or nothing."""
        with self._changing():
            try:
                yield
            finally:
                self._flush()

    def _flush(self) -> None:
        """Tell of what has changed in the table."""
        offset, size = ffi.new("uint64_t[8]"), ffi.new("uint64_t[8]")
        for part in range(lib.hb_router_changed(self._router, offset, size)):
            self._changed(self.table.ctypes.data + offset[part], size[part])

    def route(self, family: int, hi: int, lo: int, below: int) -> tuple[int, int] | None:
        """Length and next hop of the longest route shorter than ``below`` bits to an address."""
        hop = ffi.new("uint32_t *")
        length = lib.hb_router_route(self._router, family, hi, lo, below, hop)
        return None if length < 0 else (length, int(hop[0]))

    def used(self, family: int) -> dict[str, int]:
        """Routes, and groups of entries in use and in all."""
        use = lib.hb_router_used(self._router, family)
        return {
            "routes": int(use.routes),
            "groups": int(use.groups),
            "groups_room": int(use.groups_room),
        }

    def lookup(self, addresses: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
        """Next hops + 1 of IPv4 addresses, 0 where there is no route."""
        entries = np.zeros(addresses.size, dtype=np.uint16)
        array = np.ascontiguousarray(addresses, dtype=np.uint32)
        lib.hb_router_lookup_bulk(_at(self.table), _at(array), _at(entries), array.size)
        return entries

    def lookup6(self, addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        """The same for IPv6 addresses, 16 bytes each."""
        array = np.ascontiguousarray(addresses, dtype=np.uint8).reshape(-1, 16)
        entries = np.zeros(len(array), dtype=np.uint16)
        lib.hb_router_lookup6_bulk(_at(self.table), _at(array), _at(entries), len(array))
        return entries


_KINDS = {1: "uint8_t *", 2: "uint16_t *", 4: "uint32_t *", 8: "uint64_t *"}


def _at(array: npt.NDArray[Any], index: int = 0) -> Any:
    """A C pointer to an element of an array."""
    kind = "int32_t *" if array.dtype == np.int32 else _KINDS[array.itemsize]
    return ffi.cast(kind, array.ctypes.data + index * array.itemsize)
