# SPDX-License-Identifier: BSD-3-Clause
"""Lays out the tables region that the data plane and the device read (cl_kernels/hummingbird.h)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hummingbird.nfs import NfTable

# As in hummingbird.h; tests/test_nf_tables.py compares them.
MAGIC = 0x48625442
VERSION = 3
LINE = 128
PROGRAM_NFS = 8
HEAD = np.dtype(
    [(n, "u4") for n in ("magic", "version", "programs", "nfs", "programs_off", "nfs_off")]
)
PROGRAM = np.dtype([("count", "u4"), ("nf", "u4", PROGRAM_NFS)])
INSTANCE = np.dtype(
    [
        ("kind", "u4"),
        ("generation", "u4"),
        ("base", "u8"),
        ("length", "u8"),
        ("local_off", "u4"),
        ("local_bytes", "u4"),
        ("state_base", "u8"),
        ("state_flows", "u4"),
        ("state_stride", "u4"),
        ("state_bytes", "u4"),
        ("pad", "u4"),
    ]
)

GENERATION = 1
"""Generation of every table of a fresh region."""

STATES = 1 << 16
"""Where states begin, and tables have ended: multiples of this, which is what a device with a copy
of the region is given at a time (CHUNK of dataplane/device_tables.c)."""
STATE_LINE = 64
"""No two flows share one."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """What stands where in the region."""

    size: int
    """Bytes that the region needs."""
    parts: list[tuple[int, Bytes]]
    """Offset and content of each part; the NFs' tables are the last ones, in their order."""
    local_bytes: int
    """Local memory that the largest program needs."""
    states: list[tuple[int, int, int]]
    """Of each NF: offset of its states, how many, and bytes from one to the next."""

    def fill(self, region: memoryview | Bytes) -> None:
        """Write everything to ``region``: at least ``size`` bytes, starting on a page."""
        target = np.frombuffer(region, dtype=np.uint8)
        for offset, part in self.parts:
            target[offset : offset + part.size] = part


def layout(
    instances: Sequence[tuple[int, NfTable]],
    programs: Sequence[Sequence[int]],
    flow_bytes: Sequence[int] = (),
    flows: int = 0,
) -> Layout:
    """Lay out NF instances, each a kind and its table, and programs, each a list of instances.

    Instance i and program i are what the data plane and the rows call i.

    Args:
        instances: the NFs.
        programs: what a row may name.
        flow_bytes: bytes of state that each instance has of a flow; none if empty.
        flows: flow indexes that there are.
    """
    program = np.zeros(len(programs), PROGRAM)
    for row, nfs in zip(program, programs, strict=True):
        row["count"] = len(nfs)
        row["nf"][: len(nfs)] = nfs
    instance = np.zeros(len(instances), INSTANCE)
    programs_off = _line(HEAD.itemsize)
    nfs_off = _line(programs_off + program.nbytes)
    end = _line(nfs_off + instance.nbytes)

    parts = []
    for entry, (kind, table) in zip(instance, instances, strict=True):
        entry["kind"], entry["generation"] = kind, GENERATION
        entry["base"], entry["length"] = end, table.data.size
        entry["local_off"], entry["local_bytes"] = table.local_off, table.local_bytes
        parts.append((end, table.data))
        end = _line(end + table.data.size)
    end = _place_states(instance, flow_bytes, flows, end)

    head = np.zeros(1, HEAD)
    head[0] = (MAGIC, VERSION, len(programs), len(instances), programs_off, nfs_off)
    index = [(0, head), (programs_off, program), (nfs_off, instance)]
    local = [sum(int(instance[nf]["local_bytes"]) for nf in nfs) for nfs in programs]
    whole = [(offset, part.view(np.uint8)) for offset, part in index] + parts
    states = [
        (int(entry["state_base"]), int(entry["state_flows"]), int(entry["state_stride"]))
        for entry in instance
    ]
    return Layout(end, whole, max(local, default=0), states)


def _place_states(
    instance: npt.NDArray[np.void], flow_bytes: Sequence[int], flows: int, end: int
) -> int:
    """The states lie behind the tables; the end of the last."""
    for entry, size in zip(instance, flow_bytes, strict=False):
        if size:
            stride = -(-size // STATE_LINE) * STATE_LINE
            base = -(-end // STATES) * STATES
            entry["state_base"], entry["state_flows"] = base, flows
            entry["state_stride"], entry["state_bytes"] = stride, size
            end = base + flows * stride
    return end


def _line(offset: int) -> int:
    """The first line at or behind ``offset``."""
    return -(-offset // LINE) * LINE
