# SPDX-License-Identifier: BSD-3-Clause
"""Stand-in for automaton.py until that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_STATES = 1 << 20
NEXT = 128
NO_RULE = 0xFFFFFFFF


@dataclass(frozen=True)
class Rule:
    name: str
    content: bytes
    nocase: bool = False


# ---- the automaton -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Automaton:
    """A DFA that starts in state 0."""

    next: npt.NDArray[np.int32]
    """[state, byte]"""
    rule: npt.NDArray[np.int64]
    """[state]: the lowest rule that ends there, or NO_RULE"""


def make_table(rules: Sequence[Rule], action: int) -> npt.NDArray[np.uint8]:
    """Lay out the automaton, matching states last. Raises ValueError if it gets too large."""
    dfa = make_automaton(rules)
    matching = dfa.rule != NO_RULE
    order = np.argsort(matching, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    first_match = int(order.size - matching.sum())

    entry = np.uint16 if order.size <= 1 << 16 else np.uint32
    following = rank.astype(entry)[dfa.next[order]]
    ends = dfa.rule[order[first_match:]].astype(np.uint32)
    head = np.zeros(NEXT // 4, dtype=np.uint32)
    head[:4] = (entry == np.uint32, first_match, action, (NEXT + following.nbytes) // 4)
    parts = (head, following.reshape(-1), ends)
    return np.concatenate([part.view(np.uint8) for part in parts])


def make_automaton(rules: Sequence[Rule]) -> Automaton:
    """One automaton for all rules, whether case matters to them or not."""
    exact = [(number, rule.content) for number, rule in enumerate(rules) if not rule.nocase]
    folded = [(number, rule.content.lower()) for number, rule in enumerate(rules) if rule.nocase]
    if not folded:
        return _aho_corasick(exact)
    either = _aho_corasick(folded)
    either.next[:, ord("A") : ord("Z") + 1] = either.next[:, ord("a") : ord("z") + 1]
    return _both(_aho_corasick(exact), either) if exact else either


def _check(states: int) -> None:
    if states > MAX_STATES:
        raise ValueError(
            f"the patterns need more than {MAX_STATES} states; use fewer or shorter ones"
        )


def _aho_corasick(patterns: Sequence[tuple[int, bytes]]) -> Automaton:
    """The automaton of patterns, each with its rule's number; level by level of their trie."""
    children: list[dict[int, int]] = [{}]
    rules = [NO_RULE]
    levels: list[list[tuple[int, int, int]]] = []  # by depth: parent, byte, child
    for number, content in patterns:
        state = 0
        for depth, byte in enumerate(content):
            child = children[state].get(byte)
            if child is None:
                child = children[state][byte] = len(children)
                children.append({})
                rules.append(NO_RULE)
                if depth == len(levels):
                    levels.append([])
                levels[depth].append((state, byte, child))
            state = child
        rules[state] = min(rules[state], number)
        _check(len(rules))

    dfa = Automaton(np.zeros((len(rules), 256), dtype=np.int32), np.array(rules, dtype=np.int64))
    fail = np.zeros(len(rules), dtype=np.int64)  # the longest suffix that is in the trie, too
    for depth, level in enumerate(levels):
        parent, byte, child = np.array(level).T
        if depth:
            fail[child] = dfa.next[fail[parent], byte]
        dfa.next[parent, byte] = child
        dfa.next[child] = dfa.next[fail[child]]
        dfa.rule[child] = np.minimum(dfa.rule[child], dfa.rule[fail[child]])
    return dfa


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
        x, y = np.divmod(fresh, b.rule.size)
        targets = (a_next[x] * b.rule.size + b_next[y]).reshape(-1)
        place = np.minimum(np.searchsorted(known, targets), known.size - 1)
        fresh = np.unique(targets[known[place] != targets])
        known = np.union1d(known, fresh)
        _check(known.size)
    x, y = np.divmod(known, b.rule.size)
    following = np.searchsorted(known, a_next[x] * b.rule.size + b_next[y]).astype(np.int32)
    return Automaton(following[:, column], np.minimum(a.rule[x], b.rule[y]))


def _columns(table: npt.NDArray[np.int32]) -> tuple[list[int], list[int]]:
    """Bytes with the same next states share a column, which most do, as they occur in no pattern:
    the column of each byte, and a byte of each column."""
    seen: dict[bytes, int] = {}
    column = [seen.setdefault(table[:, byte].tobytes(), len(seen)) for byte in range(256)]
    return column, [column.index(i) for i in range(len(seen))]


