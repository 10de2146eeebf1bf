# SPDX-License-Identifier: BSD-3-Clause
"""What firewall rules say, whichever file they stand in: a rule is a list of entries, products of
one range per field, which is what the table has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

from hummingbird.rules import PROTOCOLS
from hummingbird.textfile import quoted

Network = IPv4Network | IPv6Network
Range = tuple[int, int]
"""Both ends included."""
ANY: Range = (0, 65535)
PROTOCOL: Range = (0, 255)
PORTED = (6, 17, 132)
"""Protocols whose ports rules can name."""
ICMP, TCP, ICMPV6 = 1, 6, 58
ANY_FLAGS = (0, 0)

MAX_RULES = 65536
MAX_ENTRIES = 65536
MOST_OF_ONE = 4096
"""Entries of one rule."""


class Mistake(ValueError):
    """What is wrong with a rule, where in it, and the fix."""

    def __init__(self, what: str, fix: str, field: str | None = None) -> None:
        super().__init__(what)
        self.fix = fix
        self.field = field


class Entry(NamedTuple):
    """What packets match; all fields must hold."""

    family: int
    """4 or 6."""
    src: tuple[int, int]
    """Address and prefix length."""
    dst: tuple[int, int]
    protocol: Range
    sport: Range
    dport: Range
    """Of ICMP: type and code, as a number of 16 bits."""
    flags: tuple[int, int]
    """Of TCP: mask and value; a mask of 0 holds for everything."""


EVERYTHING = {
    family: Entry(family, (0, 0), (0, 0), PROTOCOL, ANY, ANY, ANY_FLAGS) for family in (4, 6)
}


@dataclass(frozen=True)
class Rule:
    """One rule."""

    name: str
    """Of its counter."""
    accept: bool
    type: str | None
    """Packet type of the packets that it accepts; None: the one they have."""
    entries: tuple[Entry, ...]
    line: int


@dataclass(frozen=True)
class Rules:
    """What a file says."""

    path: Path
    rules: list[Rule]
    policy: bool | None = None
    """What it does with packets that no rule matches: accept? None: it says nothing of them."""
    families: tuple[int, ...] = (4, 6)
    """What it speaks of."""
    notes: list[str] = field(default_factory=list)


Action = Literal["accept", "deny"]


# ---- fields ------------------------------------------------------------------------------------


def network(text: str, name: str) -> Network:
    """An address or a prefix."""
    example = "write an address or a prefix such as 10.1.0.0/16 or 2001:db8::/32"
    try:
        found = ip_network(text, strict=False)
        address = ip_address(text.split("/")[0])
    except ValueError:
        raise Mistake(f"{quoted(text)} is no address", example, name) from None
    if address != found.network_address:
        raise Mistake(f"{text} has bits set behind its length", f"write {found}", name)
    return found


def protocol_number(text: str, name: str) -> int:
    """A protocol's number."""
    text = text.lower()
    number = {**PROTOCOLS, **MORE_PROTOCOLS}.get(text)
    if number is None and text.isascii() and text.isdecimal() and len(text) < 4:
        number = int(text)
    if number is None or number > 255:
        fix = f"write {', '.join(PROTOCOLS)}, any, or a number from 0 to 255"
        raise Mistake(f"{quoted(text)} is no protocol", fix, name)
    return number


MORE_PROTOCOLS = {"ipv6-icmp": 58, "icmp6": 58, "esp": 50, "ah": 51, "gre": 47, "udplite": 136}
MORE_PROTOCOLS |= {"ospf": 89, "vrrp": 112, "igmp": 2, "ipip": 4, "ipv6": 41, "dccp": 33}


def ports(text: str, name: str, between: str = "-") -> Range:
    """A port, or two with something between them."""
    first, _, last = text.partition(between)
    numbers = []
    for part in (first, last if _ else first):
        part = part.strip()
        if not (part.isascii() and part.isdecimal() and len(part) <= 5 and int(part) <= 65535):
            fix = f"write a number from 0 to 65535 or a range such as 8000{between}8099"
            raise Mistake(f"{quoted(text)} is no port", fix, name)
        numbers.append(int(part))
    if numbers[0] > numbers[1]:
        fix = f"write {numbers[1]}{between}{numbers[0]}"
        raise Mistake(f"the range {text} ends before it begins", fix, name)
    return numbers[0], numbers[1]


def complement(ranges: Iterable[Range], of: Range) -> list[Range]:
    """What of a range is in none of them."""
    left, at = [], of[0]
    for first, last in sorted(ranges):
        if first > at:
            left.append((at, first - 1))
        at = max(at, last + 1)
    return [*left, *([(at, of[1])] if at <= of[1] else [])]


def outside(inner: Network) -> list[Network]:
    """The prefixes that together are everything but this one."""
    everything = ip_network("0.0.0.0/0" if inner.version == 4 else "::/0")
    return sorted(everything.address_exclude(inner))  # type: ignore[arg-type]


# ---- entries -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """What a rule asks for: of each field one of several values. None: anything."""

    src: Sequence[Network] | None = None
    dst: Sequence[Network] | None = None
    protocols: Sequence[Range] | None = None
    sports: Sequence[Range] | None = None
    dports: Sequence[Range] | None = None
    icmp: Sequence[Range] | None = None
    """Type and code."""
    flags: tuple[int, int] = ANY_FLAGS
    families: tuple[int, ...] = (4, 6)


def entries(match: Match) -> tuple[Entry, ...]:
    """All combinations of a match.

    Raises:
        Mistake: it can match nothing, or there are too many.
    """
    sports, dports = (None if w is None or ANY in w else w for w in (match.sports, match.dports))
    protocols = _protocols(match, bool(sports or dports))
    ends: tuple[Sequence[Network | None], ...] = (match.src or [None], match.dst or [None])
    others = (protocols, sports or [ANY], match.icmp or dports or [ANY])
    count = math.prod(map(len, [*ends, *others]))
    if count > MOST_OF_ONE:
        fix = f"write several rules; one can have {MOST_OF_ONE} combinations"
        raise Mistake(f"the lists of this rule have {count} combinations", fix)
    found = [
        Entry(family, _prefix(src), _prefix(dst), proto, sport, dport, match.flags)
        for src, dst in product(*ends)
        for proto, sport, dport in product(*others)
        for family in _families(src, dst, match.families)
    ]
    if not found:
        raise Mistake("an IPv4 and an IPv6 address never meet", "write two of one family", "dst")
    return tuple(found)


def _protocols(match: Match, ported: bool) -> list[Range]:
    """Ranges of protocol numbers; only some have ports."""
    if not ported:
        return list(match.protocols or [PROTOCOL])
    asked = match.protocols or [(number, number) for number in PORTED]
    if any(first != last or first not in PORTED for first, last in asked):
        raise Mistake(
            "this protocol has no ports", "remove the ports, or write tcp, udp or sctp", "protocol"
        )
    return list(asked)


def _families(src: Network | None, dst: Network | None, allowed: tuple[int, ...]) -> Iterable[int]:
    versions = {n.version for n in (src, dst) if n is not None}
    return [f for f in allowed if versions <= {f}]


def _prefix(found: Network | None) -> tuple[int, int]:
    return (0, 0) if found is None else (int(found.network_address), found.prefixlen)


def intersection(one: Entry, other: Entry) -> Entry | None:
    """What matches both; None: nothing does."""
    if one.family != other.family:
        return None
    bits = 32 if one.family == 4 else 128
    src, dst = _narrower(one.src, other.src, bits), _narrower(one.dst, other.dst, bits)
    mask = one.flags[0] & other.flags[0]
    if src is None or dst is None or (one.flags[1] ^ other.flags[1]) & mask:
        return None
    ranges = [(max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(one[3:6], other[3:6], strict=True)]
    if any(first > last for first, last in ranges):
        return None
    flags = (one.flags[0] | other.flags[0], one.flags[1] | other.flags[1])
    protocol, sport, dport = ranges
    return Entry(one.family, src, dst, protocol, sport, dport, flags)


def _narrower(a: tuple[int, int], b: tuple[int, int], bits: int) -> tuple[int, int] | None:
    short, long = sorted((a, b), key=lambda prefix: prefix[1])
    shift = bits - short[1]
    return long if short[0] >> shift == long[0] >> shift else None
