# SPDX-License-Identifier: BSD-3-Clause
"""What the function of a Python NF (``type: python``) works on, and what it returns.

import numpy as np
from hummingbird.nfs.burst import DROP, PASS, Burst

def process(burst: Burst):
    return np.where(burst.column("l3") == 255, DROP, PASS)  # what is not IP ends here
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi, lib

Array = npt.NDArray[Any]

PASS = 1
"""The packet follows the route of its type."""


def drop(reason: str = "nf_action") -> int:
    """The verdict that drops a packet, counted under ``reason``: one of those of a summary."""
    number = 0
    while (name := lib.hb_reason_name(number)) != ffi.NULL:
        if ffi.string(name).decode() == reason and number:
            return 2 | number << 8
        number += 1
    raise ValueError(f"there is no drop reason {reason!r}")


DROP = drop()
"""Drops a packet, counted as ``nf_action``."""


def _header() -> np.dtype[Any]:
    """hb_peer_header as NumPy has it."""
    kinds = {"uint8_t": "u1", "uint16_t": "u2", "uint32_t": "u4", "uint64_t": "u8"}
    names, formats, offsets = [], [], []
    struct = ffi.typeof("hb_peer_header")
    for name, entry in struct.fields:
        item = entry.type.item.cname if entry.type.kind == "array" else entry.type.cname
        length = entry.type.length if entry.type.kind == "array" else None
        names.append(name)
        formats.append((kinds[item], (length,)) if length else kinds[item])
        offsets.append(entry.offset)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": ffi.sizeof(struct)}
    )


HEADER = _header()
"""A packet's header: type, length, l3, l4, protocol, hash, time_ns and others, see
docs/write-an-nf.md."""


class Burst:
    """Up to 256 packets, in the order in which they came. ``len(burst)`` is their number.

    The arrays are views of the data plane's memory. They hold until the function returns; keep a
    copy of what you need longer. Only the rows and bytes of this burst's packets are yours: you may
    change the bytes of its packets in place, and nothing else.
    """

    __slots__ = ("_types", "frames", "headers", "lengths", "offsets", "rows", "slots")

    headers: Array
    """[slots of the arena] HEADER, read-only: that of packet i is ``headers[slots[i]]``."""
    frames: npt.NDArray[np.uint8]
    """[frames of the arena, frame size]: packet i begins at ``frames[rows[i], offsets[i]]``."""
    slots: npt.NDArray[np.uint32]
    """[packets], like the following three."""
    rows: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.uint32]
    """Where a packet begins in its row: at its Ethernet header."""
    lengths: npt.NDArray[np.uint32]
    """Bytes."""

    def __init__(self, fields: Mapping[str, Array], n: int, types: Mapping[str, int]) -> None:
        self.headers, self.frames = fields["headers"], fields["frames"]
        self.slots, self.rows = fields["slot"][:n], fields["frame"][:n]
        self.offsets, self.lengths = fields["offset"][:n], fields["length"][:n]
        self._types = types

    def __len__(self) -> int:
        return self.slots.size

    def verdicts(self, verdict: int = PASS) -> npt.NDArray[np.uint32]:
        """An array with one verdict for all, to change and return."""
        return np.full(self.slots.size, verdict, dtype=np.uint32)

    def retype(self, name: str) -> int:
        """The verdict that gives a packet the type ``name``, one of the parameter ``types:``."""
        if name not in self._types:
            raise ValueError(f"{name!r} is none of this NF's types: [{', '.join(self._types)}]")
        return 3 | self._types[name] << 8

    def column(self, name: str) -> Array:
        """One field of each packet's header: a copy."""
        column: Array = self.headers[name][self.slots]
        return column

    def bytes_at(self, at: int | Array, count: int) -> npt.NDArray[np.uint8]:
        """``count`` bytes of each packet, from byte ``at`` of it (one number, or one a packet):
        [packets, count], a copy. Bytes behind a packet's end are 0."""
        places = np.asarray(at, dtype=np.int64).reshape(-1, 1) + np.arange(count)
        inside = (places >= 0) & (places < self.lengths[:, None])
        columns = np.where(inside, places + self.offsets[:, None], 0)
        return np.where(inside, self.frames[self.rows[:, None], columns], np.uint8(0))

    def packet(self, i: int) -> npt.NDArray[np.uint8]:
        """The bytes of packet i: a view that may be written to."""
        at = int(self.offsets[i])
        return self.frames[self.rows[i], at : at + int(self.lengths[i])]
