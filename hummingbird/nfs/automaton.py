# SPDX-License-Identifier: BSD-3-Clause
"""Many byte strings, one automaton: the table that ``cl_kernels/nf/nids.cl`` describes and walks.

The automaton of Aho and Corasick ("Efficient String Matching", CACM 1975) as a full table: one
access per payload byte, whatever the bytes are. Letter case is settled in the table as well: a
state knows both the exact and the case-folded text that matters, so a match is a match and nobody
has to look at the payload again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAX_STATES = 1 << 20
MAX_IDS = 1 << 24
"""Most entries in all lists of patterns; only patterns nested in each other make many."""
HEAD = 128
"""Bytes in front of the local part."""
LOCAL = 16 << 10
"""Most bytes that a device shall keep in local memory."""
SMALL = 1 << 12
"""States of an automaton whose next states are 32 bits wide although 16 would do: compilers that
vectorise for CPUs gather 32 bits at a time only. Of a larger one the caches hold more this way."""

Lists = dict[int, list[int]]
Table = npt.NDArray[Any]


class Pattern(NamedTuple):
    """Bytes to look for; a pattern's number is its place in the list."""

    content: bytes
    nocase: bool = False


@dataclass(frozen=True)
class PatternTable:
    """What make_table() returns; the first three are NfTable's of these names."""

    data: npt.NDArray[np.uint8]
    local_off: int
    local_bytes: int
    states: int
    """States of the automaton."""


@dataclass(frozen=True)
class Automaton:
    """A DFA that starts in state 0."""

    next: npt.NDArray[np.int32]
    """[state, byte]"""
    rare: npt.NDArray[np.float32]
    """[state]: how unlikely traffic is to come here; 0 for the start."""
    depth: npt.NDArray[np.int32]
    """[state]: bytes of text that it stands for."""
    ends: Lists
    """The patterns that end in a state, ascending; only of states where one does."""


def make_table(patterns: Sequence[tuple[bytes, bool]]) -> PatternTable:
    """Lay out the automaton of ``patterns`` (content, nocase), numbered in their order.

    Raises:
        ValueError: it gets too large, or a pattern is empty.
    """
    if not all(content for content, _ in patterns):
        raise ValueError("a pattern without bytes would be found everywhere")
    dfa = make_automaton(patterns)
    states = dfa.rare.size
    key = dfa.rare - dfa.rare.max()  # states that are met most first ...
    for state, ids in dfa.ends.items():
        key[state] = len(patterns) - ids[0]  # ... matching ones last, in the order of what they say
    order = np.argsort(key, kind="stable")
    rank = np.empty(states, dtype=np.int32)
    rank[order] = np.arange(states)
    wide = states <= SMALL or states > 1 << 16
    following: Table = rank.astype(np.uint32 if wide else np.uint16)[dfa.next[order]]
    local, classes, hot = _local_part(following)
    if wide:
        following = following * 256  # the row of a state, ready for the next step
    lists = [dfa.ends[state] for state in order[states - len(dfa.ends) :].tolist()]
    counts = np.cumsum([0, *(len(ids) for ids in lists)])
    if counts[-1] > MAX_IDS:
        raise ValueError("too many patterns are parts of each other")
    contents = [content for content, _ in patterns]
    starts = np.cumsum([0, *map(len, contents)])[:-1]
    lengths = [len(content) | nocase << 31 for content, nocase in patterns]
    parts = [
        local,
        following,
        np.array([ids[0] for ids in lists], dtype=np.uint32),
        counts.astype(np.uint32),
        np.array([i for ids in lists for i in ids], dtype=np.uint32),
        np.minimum(dfa.depth[order], 0xFFFF).astype(np.uint16),
        np.stack([starts, np.array(lengths, dtype=np.int64)], axis=1).astype(np.uint32),
        np.frombuffer(b"".join(contents), dtype=np.uint8),
    ]
    data, offsets = _join(parts)
    head = [
        wide,
        (states - len(lists)) * (256 if wide else 1),
        classes,
        hot,
        len(patterns),
        *offsets[1:],
    ]
    data.view(np.uint32)[: len(head)] = head
    return PatternTable(data, HEAD, local.nbytes, states)


def _join(parts: Sequence[Table]) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """The parts one behind the other, each on a line of its own, and where each starts."""
    ends = np.cumsum([HEAD, *(-(-part.nbytes // HEAD) * HEAD for part in parts)])
    data = np.zeros(ends[-1], dtype=np.uint8)
    for start, part in zip(ends, parts, strict=False):
        data[start : start + part.nbytes] = part.reshape(-1).view(np.uint8)
    return data, ends[:-1].tolist()


def _local_part(following: Table) -> tuple[Table, int, int]:
    """Rows of the first states with one column for each class of bytes, behind the class of each
    byte; how many classes and how many rows there are. Empty if 16 bits do not hold a state."""
    room, hot = LOCAL // 2 - 256, len(following)
    if hot > 1 << 16:
        return np.zeros(0, dtype=np.uint16), 0, 0
    while True:  # fewer rows have fewer classes
        column, first = _columns(following[:hot])
        if hot * len(first) <= room:
            break
        hot = max(room // len(first), hot * 3 // 4)
    local = np.zeros(-(-(256 + hot * len(first)) // 8) * 8, dtype=np.uint16)  # 16 bytes at a time
    local[:256] = column
    local[256 : 256 + hot * len(first)] = following[:hot, first].reshape(-1)
    return local, len(first), hot


# ---- the automaton -------------------------------------------------------------------------------


def make_automaton(patterns: Sequence[tuple[bytes, bool]]) -> Automaton:
    """One automaton for all patterns, whether case matters to them or not."""
    exact = [(number, content) for number, (content, nocase) in enumerate(patterns) if not nocase]
    folded = [(number, content.lower()) for number, (content, fold) in enumerate(patterns) if fold]
    if not folded:
        return _aho_corasick(exact)
    either = _aho_corasick(folded)
    either.next[:, ord("A") : ord("Z") + 1] = either.next[:, ord("a") : ord("z") + 1]
    return _both(_aho_corasick(exact), either) if exact else either


def _rareness() -> npt.NDArray[np.float32]:
    """-log of a guess how often each byte occurs in traffic, which is mostly text, zeros and noise
    (encrypted or packed)."""
    weight = np.ones(256)
    weight[32:127] = 4
    weight[[*b"etaoinsrhld/.-=01 \r\n"]] = 12
    weight[[*b'cumfpgwybv23456789"<>&:;,_']] = 8
    weight[0] = 24
    rareness: npt.NDArray[np.float32] = -np.log(weight / weight.sum()).astype(np.float32)
    return rareness


def _check(states: int) -> None:
    if states > MAX_STATES:
        raise ValueError(
            f"the patterns need more than {MAX_STATES} states; use fewer or shorter ones"
        )


def _aho_corasick(patterns: Sequence[tuple[int, bytes]]) -> Automaton:
    """The automaton of patterns, each with its number; level by level of their trie."""
    children: list[dict[int, int]] = [{}]
    ends: Lists = {}
    levels: list[list[tuple[int, int, int]]] = []  # by depth: parent, byte, child
    for number, content in patterns:
        state = 0
        for depth, byte in enumerate(content):
            child = children[state].get(byte)
            if child is None:
                child = children[state][byte] = len(children)
                children.append({})
                if depth == len(levels):
                    levels.append([])
                levels[depth].append((state, byte, child))
            state = child
        ends.setdefault(state, []).append(number)
        _check(len(children))

    following = np.zeros((len(children), 256), dtype=np.int32)
    rare = np.zeros(len(children), dtype=np.float32)
    depths = np.zeros(len(children), dtype=np.int32)
    fail = np.zeros(len(children), dtype=np.int64)  # the longest suffix that is in the trie, too
    of_byte = _rareness()
    for depth, level in enumerate(levels):
        parent, byte, child = np.array(level).T
        if depth:
            fail[child] = following[fail[parent], byte]
        following[parent, byte] = child
        following[child] = following[fail[child]]
        rare[child] = rare[parent] + of_byte[byte]
        depths[child] = depth + 1
        for state, shorter in zip(child.tolist(), fail[child].tolist(), strict=True):
            if shorter in ends:
                ends[state] = sorted(ends.get(state, []) + ends[shorter])
    return Automaton(following, rare, depths, ends)


def _both(a: Automaton, b: Automaton) -> Automaton:
    """The automaton that runs both at once: its states are the pairs of states that can occur.

    There are hardly more than in both together, because the text that one state stands for
    mostly settles the other state.
    """
    column, first = _columns(np.concatenate([a.next, b.next]))
    a_next, b_next = a.next[:, first].astype(np.int64), b.next[:, first].astype(np.int64)
    known = np.zeros(1, dtype=np.int64)  # all pairs so far, as one number each, sorted
    fresh = known  # those whose next states are still to be looked at
    while fresh.size:
        x, y = np.divmod(fresh, b.rare.size)
        targets = (a_next[x] * b.rare.size + b_next[y]).reshape(-1)
        place = np.minimum(np.searchsorted(known, targets), known.size - 1)
        fresh = np.unique(targets[known[place] != targets])
        known = np.union1d(known, fresh)
        _check(known.size)
    x, y = np.divmod(known, b.rare.size)
    following = np.searchsorted(known, a_next[x] * b.rare.size + b_next[y]).astype(np.int32)
    ends: Lists = {}
    for state, (i, j) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        if i in a.ends or j in b.ends:
            ends[state] = sorted(a.ends.get(i, []) + b.ends.get(j, []))
    rare, depth = np.maximum(a.rare[x], b.rare[y]), np.maximum(a.depth[x], b.depth[y])
    return Automaton(following[:, column], rare, depth, ends)


def _columns(table: Table) -> tuple[list[int], list[int]]:
    """Bytes with the same next states share a column, which most do, as they occur in no pattern:
    the column of each byte, and a byte of each column."""
    seen: dict[bytes, int] = {}
    column = [seen.setdefault(table[:, byte].tobytes(), len(seen)) for byte in range(256)]
    return column, [column.index(i) for i in range(len(seen))]
