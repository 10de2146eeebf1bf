# SPDX-License-Identifier: BSD-3-Clause
"""firewall: ordered rules decide on the first packet of each flow, connection tracking on the
others. ``cl_kernels/nf/firewall.cl`` has the packet function, docs/firewall.md parameters, files
and what is tracked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, HostContext, Nf, NfHost, NfParams, NfTable
from hummingbird.nfs.firewall_files import Format, Options, read
from hummingbird.nfs.firewall_rules import Rule, Rules
from hummingbird.nfs.firewall_table import (
    DROP,
    MIDSTREAM,
    PASS,
    RETYPE,
    TRACKING,
    Verdicts,
    make_table,
)

# As in cl_kernels/nf/firewall_state.h; tests/test_firewall_table.py compares them.
STATES = (
    "new", "syn_sent", "syn_sent_2", "syn_received", "established", "midstream", "fin_wait",
    "close_wait", "last_ack", "time_wait", "closed", "one_way", "both_ways", "fragments", "denied",
)  # fmt: skip
END = np.dtype([(name, "u4") for name in ("last", "most", "window", "acked", "fin_at")])
FLOW = np.dtype(
    [
        ("status", "u4"),
        ("verdict", "u4"),
        ("rule", "u4"),
        ("ignored", "u4", 2),
        ("challenge", "u4"),
        ("end", END, 2),
    ]
)
COUNTERS = ("default", "established", "related")
"""Behind those of the rules."""
VERDICT_BITS = 8
DENIED = "denied"


class FirewallParams(NfParams):
    """Parameters of ``type: firewall``."""

    rules: Path
    """File with rules: CSV, a ClassBench filter set, or what ``iptables-save`` prints."""
    rules6: Path | None = None
    """What ``ip6tables-save`` prints, where ``rules`` is from ``iptables-save``."""
    format: Format | None = None
    """Of both files; left out: each file's first line tells."""
    chain: str = "FORWARD"
    """Of iptables-save: the chain where packets begin."""
    default: Literal["accept", "deny"] | None = None
    """For packets that no rule matches; without it the chain's policy, else deny."""
    tracking: bool = True
    """Rules decide on flows; ``false``: on each packet by itself."""
    midstream: bool = True
    """A TCP connection whose beginning was not seen may be accepted."""
    types: list[str] = []
    """Packet types that rules give to what they accept."""
    unsupported: Literal["refuse", "skip"] = "refuse"
    """What happens to rules of iptables-save with something not implemented."""


@dataclass(frozen=True)
class Loaded:
    """What build() leaves for the host part (NfTable.extra)."""

    rules: list[Rule]


def content_types(params: FirewallParams) -> list[str]:
    """Packet types that rules give."""
    return list(dict.fromkeys(params.types))


# ---- from parameters to a table ----------------------------------------------------------------


def build(params: FirewallParams, context: BuildContext) -> NfTable:
    """Read the rules and lay out the table."""
    files = _read(params, context)
    rules = [rule for file in files for rule in file.rules]
    for file in files:
        _check_types(file, params, context)
    drop = DROP | _reason() << VERDICT_BITS
    verdict = [_verdict(rule, context, drop) for rule in rules]
    number = np.repeat(np.arange(len(rules)), [len(rule.entries) for rule in rules])
    defaults = [PASS if _default(params, files, family) else drop for family in (4, 6)]
    flags = TRACKING * params.tracking | MIDSTREAM * params.midstream
    try:
        table = make_table(
            [entry for rule in rules for entry in rule.entries],
            Verdicts(np.array(verdict, np.int64)[number], number),
            len(rules),
            (defaults[0], defaults[1]),
            flags,
        )
    except ValueError as error:
        raise UserError(
            str(error), path=context.base / params.rules, fix="write fewer rules"
        ) from None
    notes = [_note(rules, params), *_default_notes(params, files)]
    notes += [note for file in files for note in file.notes]
    return NfTable(table, _names(rules), notes=notes, extra=Loaded(rules))


def _read(params: FirewallParams, context: BuildContext) -> list[Rules]:
    options = Options(
        params.format, params.chain, params.tracking, skip=params.unsupported == "skip"
    )
    found = [read(context.base / params.rules, options)]
    if params.rules6 is None:
        return found
    path = context.base / params.rules6
    second = read(path, options)
    if (found[0].families, second.families) != ((4,), (6,)):
        raise UserError(
            "rules6 is for what ip6tables-save prints, beside rules from iptables-save",
            path=path,
            fix="write all rules of a CSV file into one, under rules:",
        )
    names = {rule.name for rule in found[0].rules}
    rules = [
        replace(rule, name=f"{rule.name} (IPv6)") if rule.name in names else rule
        for rule in second.rules
    ]
    return [*found, replace(second, rules=rules)]


def _check_types(file: Rules, params: FirewallParams, context: BuildContext) -> None:
    for rule in file.rules:
        if rule.type is not None and rule.type not in params.types:
            raise UserError(
                f"the type {rule.type} is not one that this firewall gives",
                path=file.path,
                line=rule.line,
                field="type",
                fix=f"write it under nfs.{context.name}.types, or remove it here",
            )


def _reason() -> int:
    """The number of the drop reason."""
    from hummingbird.dataplane.plane import reasons

    return [name for name, _ in reasons()].index(DENIED)


def _verdict(rule: Rule, context: BuildContext, drop: int) -> int:
    if not rule.accept:
        return drop
    return PASS if rule.type is None else RETYPE | context.types[rule.type] << VERDICT_BITS


def _default(params: FirewallParams, files: Sequence[Rules], family: int) -> bool:
    """Are packets accepted that no rule matches?"""
    if params.default is not None:
        return params.default == "accept"
    return any(file.policy for file in files if family in file.families)


def _names(rules: Sequence[Rule]) -> list[str]:
    """Of the counters."""
    taken = {rule.name for rule in rules}
    return [
        *(rule.name for rule in rules),
        *(name if name not in taken else f"{name} (no rule)" for name in COUNTERS),
    ]


def _note(rules: Sequence[Rule], params: FirewallParams) -> str:
    count = sum(len(rule.entries) for rule in rules)
    many = "" if count == len(rules) else f" ({count} combinations of their lists)"
    tracked = "connections are tracked" if params.tracking else "each packet for itself"
    return f"{len(rules)} rules{many}; {tracked}"


def _default_notes(params: FirewallParams, files: Sequence[Rules]) -> list[str]:
    said = {f: "accept" if _default(params, files, f) else "deny" for f in (4, 6)}
    if said[4] == said[6]:
        return [f"default: {said[4]}"]
    return [f"default: {said[4]} for IPv4, {said[6]} for IPv6"]


# ---- while it runs -----------------------------------------------------------------------------


class FirewallHost(NfHost):
    """The host part: it knows what flow states and rules are called."""

    def __init__(self, loaded: Loaded) -> None:
        self._rules = loaded.rules

    def flow(self, state: np.void) -> dict[str, Any]:
        """What is known of a flow."""
        status, rule = int(state["status"]), int(state["rule"])
        number = status & 0xFF
        found = {"state": STATES[number] if number < len(STATES) else str(number)}
        if 0 < rule <= len(self._rules):
            found["rule"] = self._rules[rule - 1].name
        elif rule:
            found["rule"] = "default"
        return found


def _host(params: FirewallParams, table: NfTable, context: HostContext) -> NfHost:
    return FirewallHost(table.extra)


NF = Nf(
    name="firewall",
    kind=7,
    params=FirewallParams,
    build=build,
    content_types=content_types,
    flow_state=FLOW,
    host=_host,
    engines={"avx2": "write engine: auto, this processor has no AVX2"},
)
