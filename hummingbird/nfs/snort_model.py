# SPDX-License-Identifier: BSD-3-Clause
"""What a rule of Snort or Suricata says, once it has been read. Plain data: what each part means
for a packet is in ``hummingbird/dataplane/nf/nids_match.c``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from pathlib import Path

from hummingbird.nfs.snort_header import Ranges


class Mistake(ValueError):
    """Something in a rule that is wrong in every dialect."""

    def __init__(self, what: str, fix: str | None = None) -> None:
        self.what = what
        self.fix = fix
        super().__init__(what)


class Skip(Exception):
    """Something in a rule that may be right, but is not implemented; says what."""


class Action(Enum):
    """What a rule does, in the order in which actions go before each other."""

    PASS = "pass"
    DROP = "drop"
    REJECT = "reject"
    ALERT = "alert"


class Field(IntEnum):
    """What a check looks at (HB_NIDS_FIELD_* of nids_api.h)."""

    DSIZE = 0
    TCP_FLAGS = 1
    TTL = 2
    TOS = 3
    IP_ID = 4
    IP_PROTOCOL = 5
    FRAGBITS = 6
    ICMP_TYPE = 7
    ICMP_CODE = 8
    ICMP_ID = 9
    ICMP_SEQ = 10
    TCP_SEQ = 11
    TCP_ACK = 12
    TCP_WINDOW = 13
    SAME_IP = 14


class Flow(IntFlag):
    """What ``flow:`` asks for (HB_NIDS_FLOW_* of nids_api.h)."""

    TO_SERVER = 1
    TO_CLIENT = 2
    ESTABLISHED = 4
    NOT_ESTABLISHED = 8


@dataclass(frozen=True)
class Check:
    """The field, masked, lies in low..high; or, negated, does not. A packet without the field
    fails either way."""

    field: Field
    low: int
    high: int
    mask: int = 0xFFFFFFFF
    negated: bool = False


@dataclass(frozen=True)
class Content:
    """Bytes that the payload has. They begin at ``start`` or later, counted from the payload's
    first byte or, if ``relative``, from the end of the match before; and end within ``reach`` bytes
    of there (None: anywhere behind), or at the payload's end if ``at_end``."""

    data: bytes
    negated: bool = False
    nocase: bool = False
    relative: bool = False
    start: int = 0
    reach: int | None = None
    at_end: bool = False
    fast: tuple[int, int] | None = None
    """The part to search for on the fast path, if the rule says so."""
    moves: bool = True
    """Are later relative options relative to this one?"""


@dataclass(frozen=True)
class Pcre:
    """A regular expression; ``flags`` are letters of "imsxAEG"."""

    regex: bytes
    flags: str = ""
    negated: bool = False
    relative: bool = False

    @property
    def moves(self) -> bool:
        """Are later relative options relative to this one?"""
        return not self.negated


@dataclass(frozen=True)
class IsDataAt:
    """There are more than ``at`` bytes of payload; relative: at least, behind the last match."""

    at: int
    negated: bool = False
    relative: bool = False
    moves: bool = False


@dataclass(frozen=True)
class Number:
    """A number in the payload."""

    size: int
    """Bytes."""
    at: int
    relative: bool = False
    little: bool = False
    base: int | None = None
    """If it is written in digits: 8, 10, 16, or 0 for C's way; None: binary."""


@dataclass(frozen=True)
class ByteTest:
    """Compares a number with ``value``: one of < > = <= >= & ^."""

    number: Number
    operator: str
    value: int
    negated: bool = False
    moves: bool = False

    @property
    def relative(self) -> bool:
        """Is it relative to the match before?"""
        return self.number.relative


@dataclass(frozen=True)
class ByteJump:
    """Moves on by a number: from behind it, from the payload's begin or from its end."""

    number: Number
    multiplier: int = 1
    align: bool = False
    origin: str = "here"
    """``here``, ``begin`` or ``end``."""
    post: int = 0
    moves: bool = True

    @property
    def relative(self) -> bool:
        """Is it relative to the match before?"""
        return self.number.relative


Step = Content | Pcre | IsDataAt | ByteTest | ByteJump


@dataclass(frozen=True)
class Rule:
    """One rule."""

    action: Action
    protocols: tuple[int, ...]
    """IP protocols, any of them; empty: all."""
    version: int
    """4 or 6; 0: either."""
    src: Ranges
    src_ports: Ranges
    dst: Ranges
    dst_ports: Ranges
    both: bool
    """``<>``: in either direction."""
    steps: tuple[Step, ...]
    """In the order of the rule."""
    checks: tuple[Check, ...]
    flow: Flow
    sid: int
    path: Path
    line: int
    msg: str = ""
    gid: int = 1
    rev: int = 0
    classtype: str = ""
    priority: int | None = None
    references: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """A rule that is left out, and why."""

    path: Path
    line: int
    sid: int | None
    reason: str
