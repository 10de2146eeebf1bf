# SPDX-License-Identifier: BSD-3-Clause
"""Reads files with routes: CSV, what ``ip route`` prints, what ``show ip cef`` prints. Which of
them a file is, its first line tells. A million lines take a few seconds: what lines have in common
is looked at once."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
import numpy.typing as npt

from hummingbird.errors import UserError
from hummingbird.textfile import decode, quoted, read_bytes

MAX_BYTES = 1 << 28
HEADER = "prefix,next_hop"
Format = Literal["csv", "ip-route", "cef"]
Address = IPv4Address | IPv6Address
Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

ACTIONS = ("local", "blackhole", "unreachable", "prohibit")


# ---- what a route leads to -----------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """A next hop of the topology's ``next_hops``."""

    name: str


@dataclass(frozen=True)
class Via:
    """The router with this address, on this interface if the file names one."""

    address: Address
    dev: str = ""


@dataclass(frozen=True)
class Attached:
    """Whoever has the destination's address, on this interface."""

    dev: str = ""


@dataclass(frozen=True)
class Action:
    """No next hop: one of ACTIONS."""

    what: str


@dataclass(frozen=True)
class Group:
    """One of several, by the packet's flow; one that stands here twice gets twice as many flows."""

    members: tuple[Named | Via | Attached, ...]


Target = Named | Via | Attached | Action | Group


@dataclass(frozen=True)
class Routes:
    """Routes of one address family, in the order of the file."""

    family: int
    hi: Words
    """The upper 64 bits of each prefix; an IPv4 prefix has the upper 32 of them."""
    lo: Words
    length: Ints
    target: Ints
    """Index in RouteFile.targets."""


@dataclass(frozen=True)
class RouteFile:
    """What a file says."""

    path: Path
    format: Format
    v4: Routes
    v6: Routes
    targets: list[Target]
    lines: Callable[[int], int]
    """The line on which a target stands first, by its index."""
    notes: list[str]


# ---- formats: from text to (prefix, length, what it leads to) ------------------------------------


class _Mistake(ValueError):
    """What is wrong with a part of a line, and the fix."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


@dataclass(frozen=True)
class _Syntax:
    """How one format writes a route.

    ``line`` matches a whole line with a route: groups ``before`` (words in front of the prefix),
    ``prefix``, ``length`` (or nothing) and ``rest``.
    """

    line: re.Pattern[str]
    target: Callable[[str, str], tuple[Target, int] | None]
    """From ``before`` and ``rest``; with the metric, the lowest of which wins. None: no route that
    concerns a router of packets to one receiver."""
    example: str
    begins: re.Pattern[str]
    """The header row, if there is one: the first line that says something."""


_ADDRESS = r"(?P<prefix>[0-9A-Fa-f.:]+|default)(?:/(?P<length>[0-9]{1,3}))?"
_SPACE = r"[ \t]"
JOINED = "\v"
"""Stands for the line break in front of a line that continues the one before."""


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise _Mistake(f"{quoted(text)} is no address", "correct it") from None


def _group(members: Sequence[Target]) -> Target:
    if len(members) == 1:
        return members[0]
    alike = []
    for member in members:
        if isinstance(member, (Action, Group)):
            raise _Mistake("several next hops, one of which is none", "keep the next hops only")
        alike.append(member)
    return Group(tuple(alike))


def _csv_target(before: str, rest: str) -> tuple[Target, int]:
    return _group([_csv_hop(part.strip()) for part in rest.split("|")]), 0


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ALIASES = {"drop": "blackhole", "receive": "local"}


def _csv_hop(text: str) -> Target:
    word, _, dev = text.partition("@")
    word = _ALIASES.get(word, word)
    if word in ACTIONS and not dev:
        return Action(word)
    if word == "attached":
        return Attached(dev)
    if _NAME.fullmatch(word) and not dev:
        return Named(word)
    try:
        return Via(ip_address(word), dev)
    except ValueError:
        fix = "write the name of a next hop, an address, local, drop, unreachable or prohibit"
        raise _Mistake(f"{quoted(text)} is no next hop", fix) from None


_CSV = _Syntax(
    re.compile(
        rf"^{_SPACE}*(?P<before>){_ADDRESS}{_SPACE}*,{_SPACE}*(?P<rest>[^\s,#]+){_SPACE}*(?:#.*)?$",
        re.M,
    ),
    _csv_target,
    "write a prefix and a next hop, such as 10.1.0.0/16,core",
    re.compile(r"prefix\s*,\s*next_hop\s*(?:#.*)?"),
)

_TYPES = {
    "unicast": "", "local": "local", "broadcast": "local", "anycast": "local",
    "blackhole": "blackhole", "unreachable": "unreachable", "prohibit": "prohibit",
}  # fmt: skip
_SKIPPED = ("multicast", "throw", "nat", "xresolve")
_FLAGS = ("onlink", "pervasive", "offload", "trap", "rt_offload", "rt_trap", "notify", "linkdown")
_OUT = ("dead", "unresolved")
_PAIRS = (
    "via", "dev", "proto", "scope", "src", "metric", "table", "weight", "nhid", "tos", "dsfield",
    "mtu", "advmss", "pref", "error", "expires", "hoplimit", "initcwnd", "initrwnd", "realm",
    "realms", "rtt", "rto_min", "window", "preference", "users", "age", "cache", "ssthresh",
    "cwnd", "quickack", "fastopen_no_cookie", "congctl", "features", "protocol", "lock",
)  # fmt: skip


def _ip_route_target(before: str, rest: str) -> tuple[Target, int] | None:
    kind = before.strip()
    if kind in _SKIPPED:
        return None
    head, *legs = re.split(r"\bnexthop\b", rest.replace(JOINED, " "))
    words = _pairs(head)
    metric = int(words.get("metric", "0"))
    if _TYPES[kind or "unicast"]:
        return Action(_TYPES[kind]), metric
    hops = [hop for leg in legs or [head] for hop in _ip_route_hops(_pairs(leg))]
    if not hops:
        return None
    return _group(hops), metric


def _ip_route_hops(words: dict[str, str]) -> list[Target]:
    """The next hop of one leg, as often as its weight says; none if it is dead."""
    if "dead" in words:
        return []
    dev = words.get("dev", "")
    if not dev and "via" not in words:
        raise _Mistake("neither via nor dev", "write via and the address of a router")
    hop = Via(_address(words["via"]), dev) if "via" in words else Attached(dev)
    weight = words.get("weight", "1")
    if not weight.isdigit() or not 1 <= int(weight) <= 32:
        raise _Mistake(f"weight {quoted(weight)}", "write a weight from 1 to 32")
    return [hop] * int(weight)


def _pairs(text: str) -> dict[str, str]:
    """``via A dev B onlink`` -> what each word says."""
    words: dict[str, str] = {}
    parts = iter(text.replace("\\", " ").split())
    for word in parts:
        if word in _FLAGS or word in _OUT:
            words["dead" if word in _OUT else word] = ""
        elif word in _PAIRS:
            value = next(parts, None)
            value = next(parts, None) if value in ("inet", "inet6", "lock") else value
            if value is None:
                raise _Mistake(f"nothing behind {word}", "complete the line")
            words[word] = value
        else:
            fix = "take the word out if it does not matter; encapsulation is not done here"
            raise _Mistake(f"unknown word {quoted(word)}", fix)
    return words


_IP_ROUTE = _Syntax(
    re.compile(
        rf"^{_SPACE}*(?P<before>(?:(?:{'|'.join([*_TYPES, *_SKIPPED])}){_SPACE}+)?){_ADDRESS}"
        rf"(?=\s|$)(?P<rest>[^\n#]*)(?:#.*)?$",
        re.M,
    ),
    _ip_route_target,
    "write it as `ip route` does: 10.1.0.0/16 via 192.0.2.1 dev eth0",
    re.compile(r"(?!)"),
)


def _cef_target(before: str, rest: str) -> tuple[Target, int]:
    hops = [_cef_hop(leg.split()) for leg in rest.split(JOINED)]
    return _group(hops), 0


def _cef_hop(words: Sequence[str]) -> Target:
    """``172.20.4.2 Vlan2``, ``attached Vlan7``, ``receive``, ``drop``."""
    what, dev = words[0] if words else "", " ".join(words[1:2])
    if what == "receive":
        return Action("local")
    if what in ("drop", "discard", "null", "multicast") or dev == "Null0":
        return Action("blackhole")
    if what in ("attached", "glean"):
        return Attached(dev)
    if what == "no" or what == "unresolved":
        return Action("unreachable")
    return Via(_address(what), dev)


_CEF = _Syntax(
    re.compile(rf"^(?P<before>){_ADDRESS}{_SPACE}+(?P<rest>\S[^\n]*)$", re.M),
    _cef_target,
    "write it as `show ip cef` does: 10.1.0.0/16  192.0.2.1  Vlan7",
    re.compile(r"Prefix\s+Next[ -]?Hop\s+Interface", re.I),
)

SYNTAXES: dict[Format, _Syntax] = {"csv": _CSV, "ip-route": _IP_ROUTE, "cef": _CEF}
_BLANK = re.compile(r"\s*(?:#.*)?")


def _detect(text: str, path: Path) -> Format:
    """The format of a file by the first line that says something."""
    number, first = _first_line(text)
    if _CSV.begins.fullmatch(first):
        return "csv"
    if _CEF.begins.match(first):
        return "cef"
    if "," not in first and _IP_ROUTE.line.fullmatch(first) and not _plain(first):
        return "ip-route"
    raise UserError("no header row", path=path, line=number, fix=f"begin with {HEADER}")


def _plain(line: str) -> bool:
    return len(line.split()) < 2


def _first_line(text: str) -> tuple[int, str]:
    number = 1
    for number, line in enumerate(text.split("\n"), 1):
        if not _BLANK.fullmatch(line):
            return number, line.strip()
    return number, ""


# ---- from all lines at once ----------------------------------------------------------------------


def read(path: Path, form: Format | None = None) -> RouteFile:
    """Read a file; ``form`` says what it is, if its first line shall not.

    Raises:
        UserError: the first mistake in it, with its line.
    """
    return parse(decode(read_bytes(path, MAX_BYTES), path), path, form)


def parse(text: str, path: Path, form: Format | None = None) -> RouteFile:
    """The routes of a file's text; otherwise as read()."""
    text = text.replace("\r\n", "\n").replace(JOINED, " ")
    form = form or _detect(text, path)
    return _Reader(text, path, form).read()


@dataclass
class _Reader:
    text: str
    path: Path
    format: Format

    def read(self) -> RouteFile:
        self.syntax = SYNTAXES[self.format]
        self._take_header()
        if self.format != "csv":
            self.text = re.sub(r"\n[ \t]+(?=[^\s#])", JOINED, self.text)
        found = self.syntax.line.findall(self.text)
        self._check_lines(len(found))
        before, prefix, length, rest = zip(*found, strict=True) if found else ((), (), (), ())
        # What lines have in common is looked at once.
        index: dict[tuple[str, str], int] = {}
        kinds = [index.setdefault(pair, len(index)) for pair in zip(before, rest, strict=True)]
        self.first: dict[int, int] = {}
        targets = self._targets(index, kinds)
        families = self._families(prefix)
        metric = np.array([one[1] if one else -1 for one in targets], dtype=np.int64)
        kind = np.array(kinds, dtype=np.int64)
        kept = metric[kind] >= 0 if kinds else np.zeros(0, dtype=np.bool_)
        merged: list[Target] = [one[0] if one else Action("blackhole") for one in targets]
        both = []
        for family in (4, 6):
            rows = np.flatnonzero(kept & (families == family))
            both.append(self._routes(family, rows, prefix, length, kind, metric, merged))
        left = len(found) - int(kept.sum())
        notes = [f"{self.path.name}: {left} routes skipped (dead, multicast)"] if left else []
        return RouteFile(
            self.path, self.format, both[0], both[1], merged, self._line_of_target, notes
        )

    def _take_header(self) -> None:
        """Blank the header row, so that every other line has to be a route."""
        if self.format == "ip-route":
            return
        number, first = _first_line(self.text)
        if not self.syntax.begins.match(first):
            what = HEADER if self.format == "csv" else "Prefix  Next Hop  Interface"
            raise UserError("no header row", path=self.path, line=number, fix=f"begin with {what}")
        at = self.text.index(first)
        self.text = self.text[:at] + self.text[at + len(first) :]

    def _line(self, at: int) -> int:
        """The line of a character."""
        return 1 + self.text.count("\n", 0, at) + self.text.count(JOINED, 0, at)

    def _refuse(self, row: int, what: str, fix: str | None = None) -> NoReturn:
        """An error in the line of the route with this number."""
        for number, found in enumerate(self.syntax.line.finditer(self.text)):
            if number == row:
                line = self._line(found.start())
                raise UserError(what, path=self.path, line=line, fix=fix)
        raise AssertionError(row)

    def _check_lines(self, found: int) -> None:
        """Every line is a route, a comment, or blank."""
        filled = len(re.findall(r"^[ \t]*[^\s#]", self.text, re.M))
        if filled == found:
            return
        for at in re.finditer(r"^[ \t]*[^\s#].*$", self.text, re.M):
            line = at[0].partition(JOINED)[0]
            if not self.syntax.line.fullmatch(at[0]):
                number = self._line(at.start())
                what = f"no route: {quoted(line.strip())[1:-1]}"
                raise UserError(what, path=self.path, line=number, fix=self.syntax.example)

    def _targets(
        self, index: dict[tuple[str, str], int], kinds: Iterable[int]
    ) -> list[tuple[Target, int] | None]:
        targets = []
        for (before, rest), number in index.items():
            try:
                targets.append(self.syntax.target(before, rest))
            except _Mistake as mistake:
                self._refuse(list(kinds).index(number), str(mistake), mistake.fix)
            except ValueError:
                self._refuse(list(kinds).index(number), "no route", self.syntax.example)
        self.kinds = kinds
        return targets

    def _line_of_target(self, target: int) -> int:
        row = list(self.kinds).index(target)
        try:
            self._refuse(row, "")
        except UserError as error:
            assert error.line is not None
            return error.line

    def _families(self, prefix: Sequence[str]) -> Ints:
        six = np.array([":" in text for text in prefix], dtype=np.bool_)
        default = np.array([text == "default" for text in prefix], dtype=np.bool_)
        # `ip -6 route` says default, too: the other lines tell the family.
        other = 6 if six.any() and not (~six & ~default).any() else 4
        return np.where(six, 6, np.where(default, other, 4)).astype(np.int64)

    def _routes(
        self,
        family: int,
        rows: Ints,
        prefix: Sequence[str],
        length: Sequence[str],
        kind: Ints,
        metric: Ints,
        targets: list[Target],
    ) -> Routes:
        bits = 32 if family == 4 else 128
        chosen = [prefix[row] for row in rows.tolist()]
        packed = self._packed(family, chosen, rows)
        hi, lo = packed
        size = self._lengths(bits, [length[row] for row in rows.tolist()], chosen, rows)
        host = ~_mask(hi, lo, size)
        wrong = (hi & host[0] | lo & host[1]) != 0 if len(rows) else np.zeros(0, dtype=np.bool_)
        if wrong.any():
            at = int(wrong.argmax())
            what = f"{chosen[at]}/{size[at]} has bits set behind its length"
            fix = "clear them, or write the length that is meant"
            self._refuse(int(rows[at]), what, fix)
        routes = Routes(family, hi, lo, size, kind[rows])
        return self._once(routes, rows, metric[kind[rows]], chosen, targets)

    def _packed(self, family: int, chosen: Sequence[str], rows: Ints) -> tuple[Words, Words]:
        kind, width = (socket.AF_INET, 4) if family == 4 else (socket.AF_INET6, 16)
        zero = "0.0.0.0" if family == 4 else "::"
        pack = partial(socket.inet_pton, kind)
        texts = [zero if text == "default" else text for text in chosen] if chosen else []
        try:
            data = b"".join(map(pack, texts))
        except OSError:
            for row, text in zip(rows.tolist(), texts, strict=True):
                try:
                    pack(text)
                except OSError:
                    self._refuse(row, *_no_address(family, text))
            raise
        if family == 4:
            four = np.frombuffer(data, dtype=">u4").astype(np.uint64) << np.uint64(32)
            return four, np.zeros_like(four)
        both = np.frombuffer(data, dtype=">u8").astype(np.uint64).reshape(-1, width // 8)
        return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])

    def _lengths(self, bits: int, texts: Sequence[str], chosen: Sequence[str], rows: Ints) -> Ints:
        """The lengths of prefixes; an address alone is a whole one, except in CSV, and except the
        default route."""
        if self.format == "csv" and "" in texts:
            at = texts.index("")
            what = f"no route: {chosen[at]}, without a length"
            self._refuse(int(rows[at]), what, self.syntax.example)
        whole = {"": bits}
        size = np.array(
            [
                0 if not text and prefix == "default" else whole.get(text) or int(text)
                for text, prefix in zip(texts, chosen, strict=True)
            ],
            dtype=np.int64,
        )
        long = size > bits
        if long.any():
            at = int(long.argmax())
            kind = "IPv4" if bits == 32 else "IPv6"
            what = f"{chosen[at]}/{size[at]} is no {kind} prefix: it is longer than {bits} bits"
            self._refuse(int(rows[at]), what, "correct the length")
        return size

    def _once(
        self, routes: Routes, rows: Ints, metric: Ints, chosen: list[str], targets: list[Target]
    ) -> Routes:
        """Each prefix once: of several, the one with the lowest metric. With the same, in ``ip -6
        route``, they are next hops of one route; else that is a mistake."""
        order = np.lexsort((np.arange(rows.size), metric, routes.length, routes.lo, routes.hi))
        same = np.zeros(rows.size, dtype=np.bool_)
        a, b = order[:-1], order[1:]
        for field in (routes.hi, routes.lo, routes.length):
            same[1:] = (
                field[a] == field[b] if field is routes.hi else same[1:] & (field[a] == field[b])
            )
        if not same.any():
            return routes
        target = routes.target.copy()
        lead = -1
        for place in np.flatnonzero(same).tolist():
            row, before = int(order[place]), int(order[place - 1])
            if not same[place - 1]:
                lead = before
            if metric[row] > metric[lead]:
                continue
            if self.format != "ip-route" or routes.family == 4:
                what = f"{chosen[row]}/{routes.length[row]} stands here a second time"
                self._refuse(int(rows[max(row, before)]), what, "remove one of the two")
            targets.append(self._joined(targets[target[lead]], targets[target[row]], rows[row]))
            target[lead] = len(targets) - 1
        kept = np.sort(order[~same])
        return Routes(
            routes.family, routes.hi[kept], routes.lo[kept], routes.length[kept], target[kept]
        )

    def _joined(self, one: Target, other: Target, row: int) -> Target:
        parts: list[Target] = []
        for target in (one, other):
            parts += target.members if isinstance(target, Group) else [target]
        try:
            return _group(parts)
        except _Mistake as mistake:
            self._refuse(int(row), str(mistake), mistake.fix)


def _mask(hi: Words, lo: Words, length: Ints) -> npt.NDArray[np.uint64]:
    """The bits of each prefix's length, as upper and lower halves."""
    table = np.array(
        [[((1 << 128) - (1 << (128 - n))) >> 64, ((1 << 128) - (1 << (128 - n))) & (1 << 64) - 1]
         for n in range(129)],
        dtype=np.uint64,
    )  # fmt: skip
    return table[length].T


def _no_address(family: int, text: str) -> tuple[str, str]:
    octets = text.split(".")
    if family == 4 and len(octets) == 4 and any(o.isdigit() and int(o) > 255 for o in octets):
        return f"{text} is no IPv4 prefix: a number is above 255", "correct it"
    return f"{quoted(text)} is no IPv{family} address", "correct it"
