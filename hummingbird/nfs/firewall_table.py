# SPDX-License-Identifier: BSD-3-Clause
"""Lays out the firewall's table (``cl_kernels/nf/firewall_search.h``): for each field classes of
values that the same entries hold for, and a bit vector of those entries for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.nfs.firewall_rules import ANY, PROTOCOL, Entry

# As in firewall_search.h; tests/test_firewall_table.py compares them.
MAGIC = 0x48624677
TRACKING, MIDSTREAM = 1, 2
AT_SPORT, AT_DPORT, AT_PROTOCOL, AT_FLAGS = 16, 17, 18, 19
NO_PORT, NO_FLAGS = 65536, 64
PARTS = 257
COUNT_DEFAULT = 0
HEAD, SET, FIELD = 32, 4, 4
BLOCK = 128
"""Entries of a block of a vector."""
LINE = 64
"""Vectors begin on lines, so that a processor loads none of them in two halves."""
FEW_BLOCKS = 8
"""With no more, looking at summaries takes longer than at the blocks."""
MAX_BYTES = 1 << 28

PASS, DROP, RETYPE = 1, 2, 3

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Verdicts:
    """What becomes of the packets of each entry."""

    verdict: Ints
    """As a packet function returns it."""
    rule: Ints


@dataclass(frozen=True)
class Field:
    """A field of a set: classes of values, and their vectors."""

    at: int
    classes: npt.NDArray[np.uint16]
    """By value."""
    vectors: Bytes
    """[classes][bytes]"""


def make_table(
    entries: Sequence[Entry], verdicts: Verdicts, rules: int, defaults: tuple[int, int], flags: int
) -> Bytes:
    """The table of entries in their order.

    Args:
        entries: of both families.
        verdicts: of each of them.
        rules: how many rules there are.
        defaults: verdicts of packets that no entry matches, IPv4 and IPv6.
        flags: TRACKING, MIDSTREAM.

    Raises:
        ValueError: it would be too large.
    """
    head = np.zeros(HEAD, np.uint32)
    head[:4] = (MAGIC, flags, *defaults)
    head[6] = rules
    parts = [head.view(np.uint8)]
    at = head.nbytes
    family = np.array([entry.family for entry in entries], np.int64)
    for number, version in enumerate((4, 6)):
        chosen = np.flatnonzero(family == version)
        if chosen.size:
            some = Verdicts(verdicts.verdict[chosen], verdicts.rule[chosen])
            none = (defaults[number], rules + COUNT_DEFAULT)
            part = _make_set([entries[int(i)] for i in chosen], some, none, at, version)
            head[4 + number] = at // 4
            parts.append(part)
            at += part.size
            if at > MAX_BYTES:
                raise ValueError(f"the table of these rules would take more than {MAX_BYTES} bytes")
    return np.concatenate(parts)


def _make_set(
    entries: list[Entry], verdicts: Verdicts, none: tuple[int, int], base: int, version: int
) -> Bytes:
    """One family's, which begins at `base` of the table. `none`: what no entry matches."""
    fields = list(_fields(entries, version))
    blocks = fields[0].vectors.shape[1] // 16
    summaries = -(-blocks // BLOCK) if blocks > FEW_BLOCKS else 0
    head = np.zeros(SET + FIELD * len(fields), np.uint32)
    out = _Writer(base, [])
    out.add(head.view(np.uint8))
    told = np.zeros((blocks * BLOCK + 1, 2), np.uint32)
    told[: len(entries), 0], told[: len(entries), 1] = verdicts.verdict, verdicts.rule
    told[-1] = none
    head[:4] = (len(fields), blocks, summaries, out.add(told.view(np.uint8)) // 4)
    for number, field in enumerate(fields):
        place = SET + FIELD * number
        head[place] = field.at
        head[place + 1] = out.add(_map(field.classes).view(np.uint8)) // 2
        head[place + 2] = out.add(field.vectors) // 16
        head[place + 3] = out.add(_summary(field.vectors, summaries)) // 16
    return out.joined()


@dataclass
class _Writer:
    """Parts of the table, one behind the other."""

    at: int
    parts: list[Bytes]

    def add(self, part: Bytes) -> int:
        """Where it begins, on a line."""
        flat, begin = part.reshape(-1), self.at
        self.parts += [flat, np.zeros(-flat.size % LINE, np.uint8)]
        self.at += flat.size + self.parts[-1].size
        return begin

    def joined(self) -> Bytes:
        """All of them."""
        return np.concatenate(self.parts)


def _map(classes: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """A map of two levels: parts for upper 8 bits that are alike are there once."""
    padded = np.zeros(-(-classes.size // 256) * 256, np.uint16)
    padded[: classes.size] = classes
    parts: dict[bytes, int] = {}
    begins = np.zeros(PARTS, np.uint16)
    for upper, part in enumerate(padded.reshape(-1, 256)):
        begins[upper] = parts.setdefault(part.tobytes(), len(parts))
    return np.concatenate([begins, np.frombuffer(b"".join(parts), np.uint16)])


def _summary(vectors: Bytes, blocks: int) -> Bytes:
    """A bit for each block that is not 0."""
    if not blocks:
        return np.zeros((len(vectors), 0), np.uint8)
    some = vectors.view(np.uint64).reshape(len(vectors), -1, 2).any(axis=2)
    padded = np.zeros((len(vectors), blocks * BLOCK), bool)
    padded[:, : some.shape[1]] = some
    return np.packbits(padded, axis=1, bitorder="little")


# ---- fields ------------------------------------------------------------------------------------


def _fields(entries: list[Entry], version: int) -> list[Field]:
    """The fields in which entries differ; at least one."""
    found = [
        _ranged(at, first, last, 65536, entries)
        for at, first, last in _chunks(entries, 32 if version == 4 else 128)
    ]
    for at, of, everything, values in (
        (AT_SPORT, "sport", ANY, NO_PORT + 1),
        (AT_DPORT, "dport", ANY, NO_PORT + 1),
        (AT_PROTOCOL, "protocol", PROTOCOL, PROTOCOL[1] + 1),
    ):
        ranges = np.array([getattr(entry, of) for entry in entries], np.int64)
        last = ranges[:, 1].copy()
        last[(ranges == everything).all(axis=1)] = values - 1
        found.append(_ranged(at, ranges[:, 0], last, values, entries))
    found.append(_flagged(entries))
    return [field for field in found if len(field.vectors) > 1] or [found[0]]


def _chunks(entries: list[Entry], bits: int) -> list[tuple[int, Ints, Ints]]:
    """Ranges of each 16 bits of both addresses: a prefix is a product of them."""
    found = []
    for side, name in enumerate(("src", "dst")):
        prefixes = [getattr(entry, name) for entry in entries]
        length = np.array([prefix[1] for prefix in prefixes], np.int64)
        for chunk in range(bits // 16):
            shift = bits - 16 * (chunk + 1)
            first = np.array([prefix[0] >> shift & 0xFFFF for prefix in prefixes], np.int64)
            free = 16 - np.clip(length - 16 * chunk, 0, 16)
            found.append((side * (bits // 16) + chunk, first, first | ((1 << free) - 1)))
    return found


def _bytes(entries: Sequence[Any]) -> int:
    """Bytes of a vector: half a line, or whole ones."""
    blocks = -(-len(entries) // BLOCK)
    return 32 if blocks <= 2 else LINE * -(-blocks // 4)


def _ranged(at: int, first: Ints, last: Ints, values: int, entries: list[Entry]) -> Field:
    """A field whose entries have a range of values each: between two borders all values are alike,
    and each border changes some entries' bits."""
    borders = np.unique(np.concatenate([[0], first, last + 1]))
    borders = borders[borders < values]
    number = np.arange(len(entries))
    changes = np.zeros((borders.size + 1, _bytes(entries)), np.uint8)
    bit = (1 << (number & 7)).astype(np.uint8)
    for places in (np.searchsorted(borders, first), np.searchsorted(borders, last + 1)):
        np.bitwise_xor.at(changes, (places, number >> 3), bit)
    vectors = np.bitwise_xor.accumulate(changes[:-1], axis=0)
    return _field(at, vectors, np.diff(borders, append=values))


def _flagged(entries: list[Entry]) -> Field:
    """TCP flags; what is not TCP has none."""
    mask, value = np.array([entry.flags for entry in entries], np.int64).T
    flags = np.arange(NO_FLAGS + 1)[:, None]
    holds = (flags & mask) == value
    holds[NO_FLAGS] = mask == 0
    vectors = np.zeros((NO_FLAGS + 1, _bytes(entries)), np.uint8)
    packed = np.packbits(holds, axis=1, bitorder="little")
    vectors[:, : packed.shape[1]] = packed
    return _field(AT_FLAGS, vectors, np.ones(NO_FLAGS + 1, np.int64))


def _field(at: int, vectors: Bytes, widths: Ints) -> Field:
    """One class for all values with the same vector."""
    numbers: dict[bytes, int] = {}
    classes = [numbers.setdefault(vector.tobytes(), len(numbers)) for vector in vectors]
    if len(numbers) > 65535:
        raise ValueError(f"the rules tell {len(numbers)} classes of values apart in one field")
    kept = np.frombuffer(b"".join(numbers), np.uint8).reshape(len(numbers), -1)
    return Field(at, np.repeat(np.array(classes, np.uint16), widths), kept)
