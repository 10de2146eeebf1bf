# SPDX-License-Identifier: BSD-3-Clause
"""Many byte strings, one automaton: the table that ``cl_kernels/nf/nids.cl`` walks.

The automaton of Aho and Corasick ("Efficient String Matching", CACM 1975) as a full table: one
access per payload byte, whatever the bytes are. It does not tell letters from capitals, so that one
automaton serves all patterns, with fewer states than one that does; whoever cares looks again at
the few places where something was found (``hb_nids_ids``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_STATES = 1 << 20


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


def make_table(patterns: Sequence[tuple[bytes, bool]]) -> PatternTable:
    """Lay out the automaton of ``patterns`` (content, nocase), numbered in their order.

    Raises:
        ValueError: it gets too large, or a pattern is empty.
    """
    raise NotImplementedError
