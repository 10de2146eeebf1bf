# SPDX-License-Identifier: BSD-3-Clause
"""The tier of a device, by what it does and not by what it claims (design section 4).

A child process runs the real queue protocol with every byte checked, so that a hang or a crash of
a driver is only a result. Results are cached by device, driver and kernel version.

Tiers:
    A: a running kernel and the host see each other's memory, and the driver promises it.
    B: they do, but the driver does not promise it.
    C: they do not (one stale byte is enough): only the ``launch`` executor is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hummingbird.cache import cache_dir, half_built
from hummingbird.dataplane._native import lib
from hummingbird.opencl import memory
from hummingbird.opencl.device import ATOMICS, Device, devices, reserve_cores
from hummingbird.opencl.program import C11

TIMEOUT_S = 300
"""For the whole child: a probe takes 3 s, and longer on a busy machine."""
STALL_MS = 10_000
"""No packet for this long is a failure."""
ROUNDS = 1000
"""Times each line is reused with new content."""
WORKING_SETS = (16 << 10, 256 << 10, 4 << 20, 64 << 20)
"""Bytes of frames; each uses one line of every frame."""
FRAME = 2048
LANES = 64
PROBE_KIND = 5
"""NF ``probe`` in HB_NF_KINDS."""
DEPTH = 64


@dataclass(frozen=True)
class Tier:
    """What the probe found."""

    tier: str
    """``A``, ``B`` or ``C``."""
    reason: str
    binding: str
    """Way of sharing memory that it holds for."""
    dialect: str
    launched: int
    """Groups that the probe launched ..."""
    resident: int
    """... and how many of them ran at once."""
    packets: int
    """Packets whose bytes were checked both ways."""


def tier_of(device: Device, *, fresh: bool = False) -> Tier:
    """The device's tier: from the cache, else by probing it now (seconds).

    Args:
        device: the device.
        fresh: probe even if the cache knows.
    """
    known = None if fresh else known_tier(device)
    if known:
        return known
    tier = _probe_in_child(device)
    cache = _read_cache()
    cache[_key(device)] = asdict(tier)
    _write_cache(cache)
    return tier


def known_tier(device: Device) -> Tier | None:
    """The cached tier, if there is one."""
    found = _read_cache().get(_key(device))
    try:
        return Tier(**found) if found else None
    except TypeError:  # written by another version
        return None


def has_run(device: Device) -> bool:
    """A probe has seen programs run on it; quicker to know than to try."""
    tier = known_tier(device)
    return tier is not None and tier.tier != "C"


def _key(device: Device) -> str:
    forced = [os.environ.get(f"HUMMINGBIRD_{n}", "") for n in ("BINDING", "DIALECT", "HIDE_SVM")]
    return " | ".join([device.identity, f"layouts {lib.HB_LAYOUTS:x}", *forced])


def _cache_file() -> Path:
    return cache_dir() / "probe.json"


def _read_cache() -> dict[str, dict[str, Any]]:
    try:
        cache = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cache if isinstance(cache, dict) else {}


def _write_cache(cache: dict[str, dict[str, Any]]) -> None:
    path = _cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with half_built(path) as folder:
            (folder / path.name).write_text(json.dumps(cache, indent=1), encoding="utf-8")
            (folder / path.name).replace(path)
    except OSError:
        pass  # no cache: the next run probes again


def _probe_in_child(device: Device) -> Tier:
    command = [sys.executable, "-m", "hummingbird.opencl.probe", device.identity]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return _tier_c(f"the probe did not end within {TIMEOUT_S} s")
    try:
        return Tier(**json.loads(child.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        return _tier_c(f"the probe died: {last[:160]}")


def _tier_c(reason: str, binding: str = "", dialect: str = "", packets: int = 0) -> Tier:
    return Tier("C", reason, binding, dialect, 0, 0, packets)


# ---- in the child


def probe(device: Device) -> Tier:
    """Probe in this process: every binding until one works."""
    ways = [way for way in memory.bindings(device) if way != "staged"]
    tier = _tier_c("the device shares no memory with the host")
    for way in ways:
        tier = _probe_binding(device, way)
        if tier.tier != "C":
            break
    return tier


def _probe_binding(device: Device, binding: str) -> Tier:
    from hummingbird.dataplane._native import ffi
    from hummingbird.errors import UserError
    from hummingbird.nfs import NfTable
    from hummingbird.nfs.tables import layout
    from hummingbird.opencl.program import builtin
    from hummingbird.opencl.session import PERSISTENT, QueueShape, open_session

    table = np.zeros(DEPTH * LANES * 128, dtype=np.uint8)
    tables = layout([(PROBE_KIND, NfTable(table))], [[0]])
    groups = min(4 * device.compute_units, 1024)
    shape = QueueShape(workgroups=1, lanes=LANES, depth=DEPTH, groups=groups)
    try:
        session = open_session(
            device, PERSISTENT, [builtin("probe")], WORKING_SETS[-1], FRAME, tables, shape, binding
        )
    except UserError as error:
        return _tier_c(error.what, binding)
    config = ffi.new("hb_probe_config *")
    config.device = session.config[0]
    config.frames = ffi.cast("void *", session.frames.address)
    config.frame_size = FRAME
    config.table = ffi.cast("void *", session.tables.address + tables.parts[-1][0])
    config.rounds = ROUNDS
    config.stall_ms = STALL_MS
    result = ffi.new("hb_probe_result *")
    packets = resident = 0
    for size in WORKING_SETS:
        config.frames_used = max(size // FRAME, 1)
        if config.frames_used < LANES:
            config.frames_used = LANES  # a row needs that many; it then covers more bytes
        code = lib.hb_probe(config, result)
        packets += result.packets
        resident = result.resident
        stale = result.stale_on_device + result.stale_on_host
        where = f"{binding}, working set {size >> 10} KiB"
        if stale:
            return _tier_c(f"{stale} stale words ({where})", binding, session.dialect, packets)
        if code:
            stuck = f"no packet for 10 s, or a failed launch ({where})"
            return _tier_c(stuck, binding, session.dialect)
    seen = Seen(binding, session.dialect, groups, resident, packets)
    return _verdict(device, seen)


class Seen(NamedTuple):
    """A probe without a stale word; fields as in Tier."""

    binding: str
    dialect: str
    launched: int
    resident: int
    packets: int


def _verdict(device: Device, seen: Seen) -> Tier:
    missing = []
    if ATOMICS not in device.svm:
        missing.append("SVM atomics are not promised")
    if seen.dialect != C11:
        missing.append("the compiler has no all-devices atomics")
    if seen.binding == "userptr":
        missing.append("userptr is not promised to be coherent")
    if missing:
        return Tier("B", "seen to work, but " + ", ".join(missing), *seen)
    return Tier("A", "promised and seen to work", *seen)


def _main() -> int:
    identity = sys.argv[1]
    reserve_cores(max(1, len(os.sched_getaffinity(0)) - 1))
    for device in devices():
        if device.identity == identity:
            print(json.dumps(asdict(probe(device))))
            return 0
    print(f"no device {identity!r}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(_main())
