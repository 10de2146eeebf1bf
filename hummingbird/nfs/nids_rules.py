# SPDX-License-Identifier: BSD-3-Clause
"""From rules as they were read to what the data plane evaluates: patterns for the fast path, and
plain arrays (``hummingbird/dataplane/nf/nids_api.h``)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi, lib
from hummingbird.nfs.snort import RuleSet
from hummingbird.nfs.snort_header import ADDRESS_TOP, ANY_PORT, PORT_TOP, Ranges
from hummingbird.nfs.snort_model import (
    Action,
    ByteJump,
    ByteTest,
    Content,
    IsDataAt,
    Pcre,
    Rule,
    Skipped,
    Step,
)

SHORTEST = 2
"""A pattern of one byte is in most payloads: its rules are looked at without it."""

Pattern = tuple[bytes, bool]
"""Bytes, and whether letter case does not matter to it (then they are in lower case)."""


# ---- patterns ------------------------------------------------------------------------------------


def pattern_of(rule: Rule) -> Pattern | None:
    """What every payload has that the rule matches: the part that it says, else its longest
    content; None if there is nothing of the kind."""
    contents = [s for s in rule.steps if isinstance(s, Content) and not s.negated]
    if not contents:
        return None
    chosen = next((c for c in contents if c.fast), None)
    chosen = chosen or max(contents, key=lambda content: len(content.data))
    at, size = chosen.fast or (0, len(chosen.data))
    data = chosen.data[at : at + size]
    if size < SHORTEST:
        return None
    return (data.lower(), True) if chosen.nocase else (data, False)


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """By their actions: what goes before another is found first."""
    order = list(Action)
    return sorted(rules, key=lambda rule: order.index(rule.action))


# ---- arrays --------------------------------------------------------------------------------------


@dataclass
class _Arrays:
    """What hb_nids_config points to, as it grows."""

    rules: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, int]] = field(default_factory=list)
    chains: list[tuple[int, int]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    regexes: list[tuple[int, int, int]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    places: dict[bytes, int] = field(default_factory=dict)
    address_sets: dict[Ranges, int] = field(default_factory=dict)
    port_sets: dict[Ranges, int] = field(default_factory=dict)
    lists: list[int] = field(default_factory=list)

    def place(self, data: bytes) -> int:
        """Where these bytes stand."""
        if data not in self.places:
            self.places[data] = len(self.data)
            self.data += data
        return self.places[data]

    def part(self, rules: Iterable[int]) -> tuple[int, int]:
        """A list of rules."""
        first = len(self.lists)
        self.lists += rules
        return first, len(self.lists) - first


def _add_rule(arrays: _Arrays, rule: Rule) -> None:
    protocols = (*rule.protocols, *rule.protocols, 0, 0)
    checks = (len(arrays.checks), len(rule.checks))
    arrays.checks += [
        {
            "field": check.field,
            "negated": check.negated,
            "mask": check.mask,
            "low": check.low,
            "high": check.high,
        }
        for check in rule.checks
    ]
    first = len(arrays.chains)
    for chain in chains_of(rule.steps):
        arrays.chains.append((len(arrays.steps), len(chain)))
        arrays.steps += [_step(arrays, step) for step in chain]
    arrays.rules.append(
        {
            "action": list(Action).index(rule.action),
            "flow": rule.flow,
            "version": rule.version,
            "both": rule.both,
            "any_protocol": not rule.protocols,
            "protocol": list(protocols[:2]),
            "any_port": rule.src_ports == rule.dst_ports == ANY_PORT,
            "src": _number(arrays.address_sets, rule.src),
            "dst": _number(arrays.address_sets, rule.dst),
            "src_ports": _number(arrays.port_sets, rule.src_ports),
            "dst_ports": _number(arrays.port_sets, rule.dst_ports),
            "checks": checks,
            "chains": (first, len(arrays.chains) - first),
        }
    )


def _number(sets: dict[Ranges, int], ranges: Ranges) -> int:
    return sets.setdefault(ranges, len(sets))


def chains_of(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps that depend on each other, in order. What counts from the payload's first byte begins a
    chain; but if nothing counts from it in turn, what comes next still counts from what was before.
    Chains without a content cost least, so they come first."""
    current: list[Step] = []
    chains = [current]
    for step in steps:
        if step.relative:
            current.append(step)
        elif step.moves:
            current = [step]
            chains.append(current)
        else:
            chains.append([step])
    return sorted((chain for chain in chains if chain), key=_costs)


def _costs(chain: Sequence[Step]) -> bool:
    return isinstance(chain[0], (Content, Pcre))


_REGEX = {
    "i": lib.HB_NIDS_REGEX_CASELESS,
    "m": lib.HB_NIDS_REGEX_MULTILINE,
    "s": lib.HB_NIDS_REGEX_DOTALL,
    "x": lib.HB_NIDS_REGEX_EXTENDED,
    "A": lib.HB_NIDS_REGEX_ANCHORED,
    "E": lib.HB_NIDS_REGEX_DOLLAR_END,
    "G": lib.HB_NIDS_REGEX_UNGREEDY,
}
_OPERATORS = {
    "<": lib.HB_NIDS_LESS,
    "<=": lib.HB_NIDS_LESS | lib.HB_NIDS_EQUAL,
    "=": lib.HB_NIDS_EQUAL,
    ">=": lib.HB_NIDS_GREATER | lib.HB_NIDS_EQUAL,
    ">": lib.HB_NIDS_GREATER,
    "&": lib.HB_NIDS_AND,
    "^": lib.HB_NIDS_XOR,
}
_ORIGINS = {"here": lib.HB_NIDS_HERE, "begin": lib.HB_NIDS_BEGIN, "end": lib.HB_NIDS_END}


def _regex_flags(step: Pcre) -> int:
    return sum(_REGEX[letter] for letter in step.flags)


def _step(arrays: _Arrays, step: Step) -> dict[str, Any]:
    if isinstance(step, Content):
        return _content(arrays, step)
    if isinstance(step, Pcre):
        arrays.regexes.append((arrays.place(step.regex), len(step.regex), _regex_flags(step)))
        flags = _flags(step.relative, step.negated)
        return {"kind": lib.HB_NIDS_PCRE, "flags": flags, "data": len(arrays.regexes) - 1}
    if isinstance(step, IsDataAt):
        flags = _flags(step.relative, step.negated)
        return {"kind": lib.HB_NIDS_IS_DATA_AT, "flags": flags, "start": step.at}
    return _number_step(step)


def _flags(relative: bool, negated: bool) -> int:
    return int(lib.HB_NIDS_RELATIVE * relative | lib.HB_NIDS_NEGATED * negated)


def _content(arrays: _Arrays, step: Content) -> dict[str, Any]:
    flags = _flags(step.relative, step.negated)
    flags |= lib.HB_NIDS_NOCASE * step.nocase | lib.HB_NIDS_AT_END * step.at_end
    flags |= lib.HB_NIDS_NO_CURSOR * (not step.moves)
    return {
        "kind": lib.HB_NIDS_CONTENT,
        "flags": flags,
        "data": arrays.place(step.data.lower() if step.nocase else step.data),
        "length": len(step.data),
        "start": step.start,
        "reach": lib.HB_NIDS_ANYWHERE if step.reach is None else step.reach,
    }


def _number_step(step: ByteTest | ByteJump) -> dict[str, Any]:
    number = step.number
    test = isinstance(step, ByteTest)
    flags = _flags(number.relative, isinstance(step, ByteTest) and step.negated)
    flags |= lib.HB_NIDS_LITTLE * number.little | lib.HB_NIDS_DIGITS * (number.base is not None)
    common = {"base": number.base or 0, "length": number.size, "start": number.at}
    if isinstance(step, ByteTest):
        how = {"how": _OPERATORS[step.operator], "value": step.value}
    else:
        flags |= lib.HB_NIDS_ALIGN * step.align
        how = {"how": _ORIGINS[step.origin], "multiplier": step.multiplier, "post": step.post}
    kind = lib.HB_NIDS_BYTE_TEST if test else lib.HB_NIDS_BYTE_JUMP
    return {"kind": kind, "flags": flags, **common, **how}


# ---- which rules to look at ----------------------------------------------------------------------

Lists = npt.NDArray[np.uint16]
CLASSES: tuple[int | None, ...] = (6, 17, None)
"""TCP, UDP, all others: as in hb_nids_config.always."""


@dataclass
class _Always:
    """Rules without a pattern: which to look at for which packets."""

    any_port: list[tuple[int, int]]
    """Parts, for each of CLASSES."""
    by_port: dict[tuple[int, int], Lists]
    """[port]: index in port_lists; by class, and 0 for the source port, 1 for the destination."""
    port_lists: list[tuple[int, int]]


def _concerns(rule: Rule, kind: int | None) -> bool:
    if not rule.protocols:
        return True
    if kind is None:
        return bool(set(rule.protocols) - {6, 17})
    return kind in rule.protocols


def _side(rule: Rule) -> int | None:
    """The side whose port tells when to look at it: 1 destination, 0 source; None: neither."""
    if rule.both:
        return None
    return 1 if rule.dst_ports != ANY_PORT else 0 if rule.src_ports != ANY_PORT else None


def _always(arrays: _Arrays, rules: Mapping[int, Rule]) -> _Always:
    found = _Always([], {}, [])
    known: dict[tuple[int, ...], int] = {}
    for number, kind in enumerate(CLASSES):
        mine = {i: rule for i, rule in rules.items() if _concerns(rule, kind)}
        sides = {i: _side(rule) if kind else None for i, rule in mine.items()}
        found.any_port.append(arrays.part(i for i, side in sides.items() if side is None))
        for side in (0, 1):
            ranges = {
                i: (mine[i].src_ports, mine[i].dst_ports)[side] for i in mine if sides[i] == side
            }
            if ranges:
                found.by_port[number, side] = _by_port(arrays, ranges, known, found.port_lists)
    return found


def _by_port(
    arrays: _Arrays,
    ranges: Mapping[int, Ranges],
    known: dict[tuple[int, ...], int],
    lists: list[tuple[int, int]],
) -> Lists:
    """The list of rules of each port; equal ones are kept once."""
    table = np.zeros(PORT_TOP + 1, dtype=np.uint16)
    cuts = {0, PORT_TOP + 1}
    for part in ranges.values():
        cuts |= {low for low, _ in part} | {high + 1 for _, high in part}
    edges = sorted(cuts)
    for low, end in itertools.pairwise(edges):
        rules = tuple(i for i, part in ranges.items() if any(a <= low <= b for a, b in part))
        if rules not in known:
            known[rules] = len(lists)
            lists.append(arrays.part(rules))
        table[low:end] = known[rules]
    return table


# ---- the whole -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """Rules, ready for hb_nids_new()."""

    rules: list[Rule]
    """In the order of their numbers."""
    patterns: list[Pattern]
    """In the order of their numbers."""
    without_pattern: int
    config: Any
    """``hb_nids_config *``"""
    _keep: list[Any]

    def open(self, **settings: int) -> Any:
        """``hb_nids *``; ``settings`` are fields of hb_nids_config. The caller frees it."""
        for name, value in settings.items():
            setattr(self.config, name, value)
        error = ffi.new("char[256]")
        nids = lib.hb_nids_new(self.config, error, 256)
        if nids == ffi.NULL:
            raise MemoryError(ffi.string(error).decode())
        return nids


def without_bad_regexes(found: RuleSet) -> RuleSet:
    """PCRE2 does not take every expression that its predecessor took: such rules are skipped."""
    rules, skipped = [], list(found.skipped)
    for rule in found.rules:
        why = next((w for s in rule.steps if isinstance(s, Pcre) and (w := _wrong(s))), None)
        if why is None:
            rules.append(rule)
        else:
            skipped.append(Skipped(rule.path, rule.line, rule.sid, why))
    return RuleSet(tuple(rules), tuple(skipped))


def _wrong(step: Pcre) -> str | None:
    """Why PCRE2 does not take the expression."""
    error, at = ffi.new("char[256]"), ffi.new("uint32_t *")
    flags = _regex_flags(step)
    if lib.hb_nids_check_regex(step.regex, len(step.regex), flags, error, 256, at) == 0:
        return None
    return f"pcre: {ffi.string(error).decode()}"


def compile_rules(rules: Iterable[Rule]) -> Compiled:
    """Number rules and patterns and lay out the arrays."""
    ordered = in_order(rules)
    arrays = _Arrays()
    by_pattern: dict[Pattern, list[int]] = {}
    others: dict[int, Rule] = {}
    for number, rule in enumerate(ordered):
        _add_rule(arrays, rule)
        pattern = pattern_of(rule)
        if pattern is None:
            others[number] = rule
        else:
            by_pattern.setdefault(pattern, []).append(number)
    of_pattern = [arrays.part(numbers) for numbers in by_pattern.values()]
    config, keep = _config(arrays, of_pattern, _always(arrays, others))
    config.track = _tracked(ordered)
    config.ring = 4096
    return Compiled(ordered, list(by_pattern), len(others), config, keep)


def _tracked(rules: Iterable[Rule]) -> int:
    track = 0
    for rule in rules:
        if rule.flow:
            if not rule.protocols or 6 in rule.protocols:
                track |= lib.HB_NIDS_TRACK_TCP
            if rule.protocols != (6,):
                track |= lib.HB_NIDS_TRACK_OTHERS
    return track


def _config(
    arrays: _Arrays, of_pattern: list[tuple[int, int]], always: _Always
) -> tuple[Any, list[Any]]:
    """hb_nids_config, and what it points to."""
    addresses, address_sets = _ranges(arrays.address_sets, ADDRESS_TOP)
    ports, port_sets = _ranges(arrays.port_sets, PORT_TOP)
    words = [
        {"low": list(divmod(low, 1 << 64)), "high": list(divmod(high, 1 << 64))}
        for low, high in addresses
    ]
    config = ffi.new("hb_nids_config *")
    keep: list[Any] = []

    def point(name: str, kind: str, values: Sequence[Any], count: str) -> None:
        array = ffi.new(f"{kind}[]", values or 1)
        keep.append(array)
        setattr(config, name, array)
        setattr(config, count, len(values))

    point("rule", "hb_nids_rule", arrays.rules, "rules")
    point("check", "hb_nids_check", arrays.checks, "checks")
    point("chain", "hb_nids_part", arrays.chains, "chains")
    point("step", "hb_nids_step", arrays.steps, "steps")
    point("regex", "hb_nids_regex", arrays.regexes, "regexes")
    point("bytes", "uint8_t", bytes(arrays.data), "nb_bytes")
    point("address_set", "hb_nids_part", address_sets, "address_sets")
    point("addresses", "hb_nids_addresses", words, "nb_addresses")
    point("port_set", "hb_nids_part", port_sets, "port_sets")
    point("ports", "hb_nids_ports", ports, "nb_ports")
    point("list", "uint32_t", arrays.lists, "lists")
    point("of_pattern", "hb_nids_part", of_pattern, "patterns")
    point("port_list", "hb_nids_part", always.port_lists, "port_lists")
    for number, part in enumerate(always.any_port):
        config.always[number] = part
    for (number, side), table in always.by_port.items():
        keep.append(table)
        config.by_port[number][side] = ffi.cast("uint16_t *", table.ctypes.data)
    return config, keep


def _ranges(
    sets: Mapping[Ranges, int], top: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """All ranges, and each set's part of them; none for the set of everything."""
    ranges: list[tuple[int, int]] = []
    parts = []
    for members in sets:
        part = () if members == ((0, top),) else members
        parts.append((len(ranges), len(part)))
        ranges += part
    return ranges, parts


def describe(found: RuleSet, patterns: int, *, every: bool = False) -> list[str]:
    """What `hummingbird check` says of the rules: how many, and which are left out, and why."""
    lines = [
        f"{len(found.rules):,} rules loaded, {patterns:,} patterns; {len(found.skipped):,} skipped"
    ]
    lines += [f"  {count:,} skipped: {reason}" for reason, count in found.reasons()]
    if every:
        lines += [
            f"  {rule.path}:{rule.line}: sid {rule.sid or '?'} skipped: {rule.reason}"
            for rule in found.skipped
        ]
    return lines
