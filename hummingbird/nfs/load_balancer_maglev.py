# SPDX-License-Identifier: BSD-3-Clause
"""Maglev consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
Balancer", NSDI 2016, section 3.4): which of several backends has which entry of a table.

Every backend has a permutation of the entries, made of its name: offset, offset + skip, ...
(modulo the table's size, a prime). In turns each takes the next entry of its permutation that is
free. One with a part of the highest weight takes its turn in that part of the rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi, lib

Table = npt.NDArray[np.uint16]
NOBODY = 0xFFFF


def permutation(name: bytes, size: int) -> tuple[int, int]:
    """Offset and skip of a backend."""
    digest = blake2b(name, digest_size=16).digest()
    first, second = (int.from_bytes(part, "little") for part in (digest[:8], digest[8:]))
    return first % size, second % (size - 1) + 1


def fill(permutations: Sequence[tuple[int, int]], weights: Sequence[int], size: int) -> Table:
    """The backend of every entry; `NOBODY` everywhere if none has a weight."""
    table = np.full(size, NOBODY, dtype=np.uint16)
    if any(weights):
        pairs = np.array(permutations, dtype=np.uint32)
        weight = np.array(weights, dtype=np.uint32)
        done = lib.hb_maglev_fill(
            ffi.cast("uint32_t *", pairs.ctypes.data),
            ffi.cast("uint32_t *", weight.ctypes.data),
            len(weights),
            ffi.cast("uint16_t *", table.ctypes.data),
            size,
        )
        if not done:
            raise MemoryError("no memory for a Maglev table")
    return table
