# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzed packets, many at a time: packets of a corpus with bytes changed, cut short or put together
from two.

    corpus [packets, WIDTH] ── rows drawn ── mutated in place ── capture file
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from nf_helpers import Array
from scapy.utils import RawPcapReader

WIDTH = 1600
"""Bytes of a packet that are looked at: frames of 2,048 hold no more."""
HOT = 96
"""Most changes go to the first bytes, where the headers are."""
EACH = 700
"""Packets of one capture: all of a malformed one, and no capture outweighs the others."""
NASTY = np.array([0, 1, 2, 3, 4, 5, 8, 15, 16, 20, 40, 63, 64, 127, 128, 254, 255], dtype=np.uint8)


def read_corpus(captures: Iterable[Path]) -> Array:
    """Packets of captures as rows; the first two columns hold the length."""
    found: list[bytes] = []
    for path in sorted(captures):
        with RawPcapReader(str(path)) as reader:
            found += [bytes(data) for data, _ in itertools.islice(reader, EACH)]
    return as_rows([packet for packet in found if packet])


def as_rows(packets: Sequence[bytes]) -> Array:
    """One row each: length, then bytes."""
    rows = np.zeros((len(packets), 2 + WIDTH), dtype=np.uint8)
    for row, packet in zip(rows, packets, strict=True):
        data = packet[:WIDTH]
        row[:2] = np.frombuffer(len(data).to_bytes(2, "little"), dtype=np.uint8)
        row[2 : 2 + len(data)] = np.frombuffer(data, dtype=np.uint8)
    return rows


def apart(rows: Array) -> tuple[Array, Array]:
    """Rows as bytes and lengths."""
    return rows[:, 2:], rows[:, :2].copy().view("<u2")[:, 0].astype(np.int64)


def packets(rows: Array) -> list[bytes]:
    """Rows as packets."""
    return [row[:n].tobytes() for row, n in zip(*apart(rows), strict=True)]


def mutate(
    corpus: Array, count: int, rng: np.random.Generator, in_order: bool = False
) -> tuple[Array, Array]:
    """``count`` packets as [count, WIDTH], and their lengths; `in_order`: as they stand in the
    corpus, in which what was mutated stands beside what was not."""
    rows = rng.integers(len(corpus), size=count)
    data, length = apart(corpus[np.sort(rows) if in_order else rows])
    every = np.arange(count)
    for _ in range(4):  # a byte somewhere, mostly in the headers
        chosen = every[rng.random(count) < 0.5]
        hot = rng.random(chosen.size) < 0.8
        at = np.where(
            hot, rng.integers(HOT, size=chosen.size), rng.integers(WIDTH, size=chosen.size)
        )
        random = rng.integers(256, size=chosen.size, dtype=np.uint8)
        nasty = NASTY[rng.integers(NASTY.size, size=chosen.size)]
        data[chosen, at] = np.where(rng.random(chosen.size) < 0.5, random, nasty)
    cut = every[rng.random(count) < 0.15]
    length[cut] = rng.integers(1, np.maximum(length[cut], 2))
    longer = every[rng.random(count) < 0.05]
    length[longer] = np.minimum(length[longer] + rng.integers(1, 64, size=longer.size), WIDTH)
    spliced = every[rng.random(count) < 0.05]  # the tail of another
    at = int(rng.integers(14, HOT))
    data[spliced, at:] = data[rng.permutation(spliced), at:]
    return data, np.maximum(length, 1)


def write_capture(path: Path, data: Array, length: Array) -> None:
    """An Ethernet capture of these packets, a microsecond apart."""
    count = len(data)
    head = np.zeros((count, 4), dtype="<u4")
    head[:, 0], head[:, 1] = np.divmod(np.arange(count) * 1000, 1_000_000_000)
    head[:, 2] = head[:, 3] = length
    whole = np.concatenate([head.view(np.uint8).reshape(count, 16), data], axis=1)
    kept = np.arange(16 + data.shape[1]) < 16 + length[:, None]
    start = np.array([0xA1B23C4D, 0x00040002, 0, 0, 262144, 1], dtype="<u4")
    path.write_bytes(start.tobytes() + whole[kept].tobytes())
