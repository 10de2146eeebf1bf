# SPDX-License-Identifier: BSD-3-Clause
"""Reads the counters' region (hb_stats_head and what follows it, api.h): plain loads, no locks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi, lib
from hummingbird.dataplane.plane import reasons

Counts = npt.NDArray[np.uint64]


def _fields(struct: str) -> list[tuple[str, int]]:
    """Name and number of words of each field of a struct of uint64_t."""
    return [(name, ffi.sizeof(field.type) // 8) for name, field in ffi.typeof(struct).fields]


def _dtype(struct: str) -> np.dtype[np.void]:
    return np.dtype(
        [(name, "u8") if words == 1 else (name, "u8", words) for name, words in _fields(struct)]
    )


HEAD = _dtype("hb_stats_head")
LCORE = _dtype("hb_lcore_stats")
NODE = _dtype("hb_node_stats")
DEVICE = _dtype("hb_device_stats")


PERCENTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
"""Of latencies that are told, by the names they are told under."""


@dataclass(frozen=True)
class Snapshot:
    """All counters at one moment, summed over lcores."""

    ticks: int
    nodes: npt.NDArray[np.void]
    """[nodes] of hb_node_stats."""
    drops: Counts
    """[nodes][reasons]"""
    hops: Counts
    """[nodes][types]: packets that left a node as a type."""
    ended: Counts
    """[types][2]: sent, dropped."""
    edges: Counts
    """[nodes][nodes]: packets that went from a node to a node."""
    latency: Counts
    """[nodes][buckets], ticks."""
    chain_latency: Counts
    """[types][buckets], ticks."""
    profile: Counts
    """[nodes + HB_ACCOUNTS] ticks; all 0 unless profiling."""
    lcores: npt.NDArray[np.void]
    """[lcores] of hb_lcore_stats."""
    device: npt.NDArray[np.void]
    """One hb_device_stats."""

    @property
    def in_flight(self) -> int:
        """Packets in being: born and not gone, from counters of their own."""
        lcores = self.lcores
        gone = int(lcores["gone"].sum()) + int(lcores["quarantined"].sum())
        return int(lcores["born"].sum()) - gone

    def at_start(self, ticks: int) -> Snapshot:
        """What a snapshot at the start would have been: nothing yet, at this tick."""
        kept = {field.name: getattr(self, field.name) for field in fields(self)}
        zeros = {name: np.zeros_like(array) for name, array in kept.items() if name != "ticks"}
        return Snapshot(ticks=ticks, **zeros)


class Reader:
    """A view on a counters' region."""

    def __init__(self, region: npt.NDArray[np.uint8]) -> None:
        """Look at its head.

        Args:
            region: all of it.

        Raises:
            ValueError: it is none, of another version, or its head does not fit it.
        """
        self._region = region
        if len(region) < HEAD.itemsize:
            raise ValueError("too short for a counters' region")
        self.head = region[: HEAD.itemsize].view(HEAD)[0]
        if int(self.head["magic"]) != lib.HB_STATS_MAGIC:
            raise ValueError("not a counters' region")
        if int(self.head["version"]) != lib.HB_STATS_VERSION:
            raise ValueError("a counters' region of another version")
        self.lcores, self.nodes, self.types = (
            int(self.head[name]) for name in ("lcores", "nodes", "types")
        )
        self.ticks_per_second = int(self.head["ticks_per_second"])
        self._shapes = self._shapes_of(len(reasons()))
        self._check()

    def _shapes_of(self, reasons_: int) -> dict[str, tuple[int, ...]]:
        """Words of the arrays of an lcore's block."""
        nodes, types = self.nodes, self.types
        return {
            "nodes": (nodes, NODE.itemsize // 8),
            "drops": (nodes, reasons_),
            "hops": (nodes, types),
            "ended": (types, 2),
            "edges": (nodes, nodes),
            "latency": (nodes, lib.HB_HIST_BUCKETS),
            "chain_latency": (types, lib.HB_HIST_BUCKETS),
            "profile": (nodes + lib.HB_ACCOUNTS,),
        }

    def _check(self) -> None:
        """Whoever reads a file does not know who has written it."""
        head = {name: int(self.head[name]) for name in HEAD.names or ()}
        blocks_end = head["head_bytes"] + self.lcores * head["lcore_bytes"]
        ends = [(blocks_end, len(self._region))]
        ends += [(head["device_off"] + DEVICE.itemsize, len(self._region))]
        ends += [(LCORE.itemsize, head["lcore_bytes"])]
        ends += [
            (head[f"{name}_off"] + 8 * math.prod(shape), head["lcore_bytes"])
            for name, shape in self._shapes.items()
        ]
        if (
            min(self.lcores, self.nodes, self.types, self.ticks_per_second) < 1
            or head["reasons"] != self._shapes["drops"][1]
            or any(end > size for end, size in ends)
        ):
            raise ValueError("a counters' region whose head does not fit it")

    def seconds(self, ticks: int) -> float:
        """Seconds from the start until this tick."""
        return (ticks - int(self.head["start_ticks"])) / self.ticks_per_second

    @property
    def started(self) -> float:
        """When lcores began, in Unix seconds."""
        return int(self.head["start_ns"]) / 1e9

    def _blocks(self) -> npt.NDArray[np.uint8]:
        h = self.head
        first, size = int(h["head_bytes"]), int(h["lcore_bytes"])
        return self._region[first : first + size * self.lcores].reshape(-1, size)

    def _array(self, blocks: npt.NDArray[np.uint8], name: str) -> Counts:
        start, shape = int(self.head[f"{name}_off"]), self._shapes[name]
        end = start + 8 * math.prod(shape)
        part = np.ascontiguousarray(blocks[:, start:end]).view(np.uint64)
        total: Counts = part.sum(axis=0, dtype=np.uint64).reshape(shape)
        return total

    def snapshot(self) -> Snapshot:
        """Read everything once. In-flight packets may be counted at one place and not yet at
        the next; at a quiet point all figures agree exactly."""
        blocks = self._blocks()
        device_off = int(self.head["device_off"])
        arrays = {name: self._array(blocks, name) for name in self._shapes}
        return Snapshot(
            ticks=int(lib.hb_ticks()),
            nodes=arrays.pop("nodes").view(NODE).reshape(self.nodes),
            **arrays,
            lcores=np.array(blocks[:, : LCORE.itemsize]).view(LCORE).reshape(-1),  # a copy, always
            device=self._region[device_off : device_off + DEVICE.itemsize].view(DEVICE)[0].copy(),
        )

    def percentile_us(self, histogram: Counts, fraction: float) -> float | None:
        """A latency percentile in microseconds: the middle of its bucket (within 3 %); None
        without samples."""
        total = int(histogram.sum())
        if not total:
            return None
        bucket = int(np.searchsorted(np.cumsum(histogram), fraction * total))
        return bucket_ticks(bucket) / self.ticks_per_second * 1e6

    def percentiles_us(self, histogram: Counts) -> dict[str, float | None]:
        """PERCENTILES of a histogram in microseconds."""
        return {name: self.percentile_us(histogram, f) for name, f in PERCENTILES.items()}


def bucket_ticks(bucket: int) -> float:
    """The middle of a latency bucket in ticks: 16 buckets to a power of two."""
    if bucket < 16:
        return float(bucket)
    exponent, mantissa = divmod(bucket, 16)
    return (16.5 + mantissa) * 2.0 ** (exponent - 1)
