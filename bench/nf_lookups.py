# SPDX-License-Identifier: BSD-3-Clause
"""The look-ups of bench/nf.py: the router's table and rte_fib's with the same routes, asked for the
same addresses; that they find the same next hops is checked first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import peer
import workload
from harness import Reading
from hummingbird.dataplane._native import ffi, lib

from hummingbird.dataplane import bare
from hummingbird.errors import UserError
from hummingbird.opencl.memory import host_region

ROUTES = 500_000
HOPS = 1000
FLOWS = 65536
ADDRESSES = ("64k flows", "uniform")
NO_HOP = 0x7FFF
"""What rte_fib was told to answer where there is no route."""
GROUPS4, GROUPS6 = 16384, 256
"""Room for longer prefixes."""
_MANY = 1 << 20

NOTE = (
    f"Look-ups: {ROUTES:,} routes with the prefix lengths of the internet, {HOPS} next hops, "
    f"entries of 16 bits, 64 addresses a call. 64k flows: {FLOWS:,} addresses within routes, in "
    "any order; uniform: any of 2^32. Both tables are in transparent huge pages."
)


@functools.cache
def _addresses(name: str) -> npt.NDArray[np.uint32]:
    if name == "uniform":
        return workload.uniform(_MANY)
    return workload.flows(workload.routes(ROUTES, HOPS), FLOWS, _MANY)


@functools.cache
def _table() -> tuple[Any, Any]:
    """The router's table as a region, and what the host has beside it."""
    routes = workload.routes(ROUTES, HOPS)
    region = host_region(int(lib.hb_router_bytes(GROUPS4, GROUPS6)))
    router = lib.hb_router_new(ffi.cast("void *", region.address), GROUPS4, GROUPS6, 0, -1)
    if router == ffi.NULL:
        raise UserError("there is no memory for the router's table")
    hi = routes.prefix.astype(np.uint64) << np.uint64(32)
    lo, hop = np.zeros_like(hi), routes.hop.astype(np.int32)
    done = ffi.new("uint32_t *")
    end = lib.hb_router_change(
        router, 4, _pointer("uint64_t", hi), _pointer("uint64_t", lo),
        _pointer("uint8_t", routes.bits), _pointer("int32_t", hop), hop.size, done,
    )  # fmt: skip
    if end != lib.HB_ROUTER_DONE:
        raise UserError(f"the router takes no more than {done[0]:,} of {ROUTES:,} routes")
    return region, ffi.gc(router, lib.hb_router_free)


def _pointer(kind: str, array: npt.NDArray[Any]) -> Any:
    return ffi.cast(f"{kind} *", array.ctypes.data)


@functools.cache
def _fib() -> dict[str, peer.Function]:
    routes = workload.routes(ROUTES, HOPS)
    return peer.fib(routes.prefix, routes.bits, routes.hop)


def _ours() -> tuple[int, int]:
    function = ffi.addressof(lib, "hb_router_lookup_bulk")
    return int(ffi.cast("uintptr_t", function)), _table()[0].address


@functools.cache
def _hops(name: str) -> npt.NDArray[np.uint64]:
    """Next hops by the router, NO_HOP where there is none."""
    entry = bare.look_up(_addresses(name), *_ours(), peer=False, seconds=0)[1]
    return np.where(entry == 0, np.uint64(NO_HOP), entry - np.uint64(1))


@functools.cache
def _check(name: str, way: str) -> None:
    function = _fib()[way]
    found = bare.look_up(
        _addresses(name), function.address, function.context, peer=True, seconds=0
    )[1]
    wrong = int((found != _hops(name)).sum())
    if wrong:
        raise UserError(f"{wrong:,} of {found.size:,} next hops of router and rte_fib differ")


def router(name: str, seconds: float) -> Reading:
    """Million look-ups a second."""
    return _reading(bare.look_up(_addresses(name), *_ours(), peer=False, seconds=seconds)[0])


def rte_fib(name: str, seconds: float) -> Reading:
    """The same of rte_fib, by the faster of its look-ups."""
    took = {}
    for way, function in _fib().items():
        _check(name, way)
        took[way] = bare.look_up(
            _addresses(name), function.address, function.context, peer=True,
            seconds=seconds / len(_fib()),
        )[0]  # fmt: skip
    way = min(took, key=lambda name: took[name])
    return _reading(took[way], way=way, ways=took)


def _reading(ns: float, **more: Any) -> Reading:
    return Reading(1e3 / ns, {"ns": ns, **more})


SIDES: dict[str, Callable[[str, float], Reading]] = {"router": router, "rte_fib": rte_fib}
