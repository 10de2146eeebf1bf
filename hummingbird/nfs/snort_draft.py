# SPDX-License-Identifier: BSD-3-Clause
"""A rule of Snort or Suricata while its options come in; and numbers as options write them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from hummingbird.nfs.snort_model import Check, Content, Flow, Mistake, Skip, Step
from hummingbird.textfile import quoted

FARTHEST = 65535
"""Bytes that offset, depth, distance and within may say."""


@dataclass
class ContentDraft:
    """A content while its modifiers come in."""

    data: bytes
    negated: bool
    nocase: bool = False
    numbers: dict[str, int] = field(default_factory=dict)
    """offset, depth, distance, within."""
    starts: bool = False
    ends: bool = False
    fast: bool = False
    only: bool = False
    chop: tuple[int, int] | None = None

    def content(self) -> Content:
        """The content with all its modifiers."""
        size, said = len(self.data), self.numbers
        relative = "distance" in said or "within" in said
        if relative and ("offset" in said or "depth" in said):
            raise Skip("offset or depth together with distance or within")
        if self.starts and said:
            raise Mistake("startswith with offset, depth, distance or within")
        if self.ends and said.keys() - {"distance"}:
            raise Mistake("endswith with offset, depth or within")
        if self.only and (self.negated or said):
            raise Mistake("fast_pattern:only with a position or at a negated content")
        reach = size if self.starts else said.get("within" if relative else "depth")
        if reach is not None and reach < size:
            name = "within" if relative else "depth"
            raise Mistake(f"{name}:{reach} is less than the content's {size} bytes")
        return Content(
            data=self.data,
            negated=self.negated,
            nocase=self.nocase,
            relative=relative,
            start=said.get("distance" if relative else "offset", 0),
            reach=reach,
            at_end=self.ends,
            fast=(self.chop or (0, size)) if self.fast and not self.negated else None,
            moves=not (self.negated or self.only),
        )


@dataclass
class Draft:
    """What the options of a rule have said so far."""

    steps: list[Step | ContentDraft] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    flow: Flow = field(default_factory=lambda: Flow(0))
    seen: set[str] = field(default_factory=set)
    texts: dict[str, Any] = field(default_factory=dict)
    """msg, sid, ...: fields of Rule."""

    def finished(self) -> tuple[Step, ...]:
        """The steps, complete."""
        fast = [step for step in self.steps if isinstance(step, ContentDraft) and step.fast]
        if len(fast) > 1:
            raise Mistake("fast_pattern at two contents", "keep one")
        return tuple(
            step.content() if isinstance(step, ContentDraft) else step for step in self.steps
        )


# ---- numbers ------------------------------------------------------------------------------------


def bounded(keyword: str, number: int, low: int, high: int) -> int:
    """The number, which lies in low..high."""
    if not low <= number <= high:
        raise Mistake(f"{keyword}: {number} is not in {low} to {high}")
    return number


def unsigned(keyword: str, text: str, top: int) -> int:
    """A number without a sign, in decimal or 0x..."""
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
        return bounded(keyword, int(text, 16), 0, top)
    if re.fullmatch(r"\d{1,20}", text, re.ASCII):
        return bounded(keyword, int(text), 0, top)
    if re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII):
        raise Skip("a variable of byte_extract or byte_math")
    raise Mistake(f"{keyword}: {quoted(text)} is no number")


def signed(keyword: str, text: str) -> int:
    """A place: a number with or without a sign."""
    sign = -1 if text.startswith("-") else 1
    return sign * unsigned(keyword, text.lstrip("+-").strip(), FARTHEST)
