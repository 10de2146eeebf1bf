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
VERSION = 2
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
    ]
)

GENERATION = 1
"""Generation of every table of a fresh region."""

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

    def fill(self, region: memoryview | Bytes) -> None:
        """Write everything to ``region``: at least ``size`` bytes, starting on a page."""
        target = np.frombuffer(region, dtype=np.uint8)
        for offset, part in self.parts:
            target[offset : offset + part.size] = part


def layout(instances: Sequence[tuple[int, NfTable]], programs: Sequence[Sequence[int]]) -> Layout:
    """Lay out NF instances, each a kind and its table, and programs, each a list of instances.

    Instance i and program i are what the data plane and the rows call i.
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

    head = np.zeros(1, HEAD)
    head[0] = (MAGIC, VERSION, len(programs), len(instances), programs_off, nfs_off)
    index = [(0, head), (programs_off, program), (nfs_off, instance)]
    local = [sum(int(instance[nf]["local_bytes"]) for nf in nfs) for nfs in programs]
    whole = [(offset, part.view(np.uint8)) for offset, part in index] + parts
    return Layout(end, whole, max(local, default=0))


def _line(offset: int) -> int:
    """The first line at or behind ``offset``."""
    return -(-offset // LINE) * LINE
