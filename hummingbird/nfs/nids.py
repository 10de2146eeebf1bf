# SPDX-License-Identifier: BSD-3-Clause
"""nids: finds what Snort and Suricata rules describe. Its packet function searches payloads for the
rules' patterns (``cl_kernels/nf/nids.cl``); the CPU then looks at the rules whose pattern is there
(``hummingbird/dataplane/nf/nids.c``)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, HostContext, Nf, NfHost, NfParams, NfTable, Reads
from hummingbird.nfs.automaton import make_table
from hummingbird.nfs.nids_rules import Compiled, compile_rules, describe, without_bad_regexes
from hummingbird.nfs.snort import read
from hummingbird.nfs.snort_header import Variables
from hummingbird.nfs.snort_model import Rule, Skipped
from hummingbird.ports import mistake
from hummingbird.textfile import quoted


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _variable(value: Any) -> Any:
    """As a rule file would say it: a list in YAML is one in brackets."""
    if isinstance(value, list):
        return "[" + ",".join(str(member) for member in value) + "]"
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"\w+", name):
        raise mistake(f"{quoted(name)} is no name of a variable", "write letters, digits and '_'")
    return name


VariableName = Annotated[str, AfterValidator(_variable_name)]


class NidsParams(NfParams):
    """Parameters of ``type: nids``."""

    rules: Annotated[list[Path], BeforeValidator(_listed), Field(min_length=1)]
    """Files with Snort or Suricata rules."""
    variables: dict[VariableName, Annotated[str, BeforeValidator(_variable)]] = {}
    """What rules mean by ``$HOME_NET`` and the like, without the ``$``."""
    on_alert: str = "pass"
    """``pass``, ``drop``, or the packet type that packets with an alert get."""
    sticky: Literal["packet", "flow"] = "packet"
    """Whom that type holds for: this packet, or its flow from here on."""
    handshake: Literal["seen", "assumed"] = "seen"
    """``assumed``: TCP is taken for established although its handshake did not come by."""
    eve: str | None = None
    """File that alerts are appended to, as EVE JSON."""
    alert_rate: Annotated[int, Field(ge=0)] = 100
    """Alerts written of one rule per second of packet time; 0: all."""
    packet_alerts: Annotated[int, Field(ge=0)] = 15
    """Alerts written of one packet, those that block first; 0: all."""
    list_skipped: bool = False
    """Name each rule that is skipped, not only how many."""


@dataclass(frozen=True)
class Loaded:
    """What build() leaves for the host part (NfTable.extra)."""

    compiled: Compiled
    skipped: int


def content_types(params: NidsParams) -> list[str]:
    """The type that packets with an alert get."""
    return [] if params.on_alert in ("pass", "drop") else [params.on_alert]


def _no_rule(skipped: Sequence[Skipped], path: Path) -> UserError:
    """There is nothing to look for: the first reason stands for all."""
    fix = "see docs/nids.md for what is implemented"
    if not skipped:
        return UserError("there is no rule in it", path=path, fix=fix)
    first = skipped[0]
    what = f"none of {len(skipped)} rules can be used; the first: {first.reason}"
    return UserError(what, path=first.path, line=first.line, fix=fix)


def build(params: NidsParams, context: BuildContext) -> NfTable:
    """Read the rules and lay out the automaton of their patterns."""
    _check(params, context)
    variables = Variables.of(params.variables)
    paths = [context.base / path for path in params.rules]
    found = without_bad_regexes(read(paths, variables))
    if not found.rules:
        raise _no_rule(found.skipped, paths[0])
    compiled = compile_rules(found.rules)
    try:
        table = make_table(compiled.patterns)
    except ValueError as error:
        raise UserError(str(error), path=paths[0]) from None
    return NfTable(
        table.data,
        names_of(compiled.rules),
        local_off=table.local_off,
        local_bytes=table.local_bytes,
        notes=describe(found, len(compiled.patterns), every=params.list_skipped),
        extra=Loaded(compiled, len(found.skipped)),
    )


def _check(params: NidsParams, context: BuildContext) -> None:
    field = f"nfs.{context.name}"
    if params.on_alert not in ("pass", "drop", *context.types):
        raise UserError(
            f"unknown packet type {params.on_alert}",
            field=f"{field}.on_alert",
            fix="write pass, drop or the name of a packet type",
        )
    variables = Variables.of(params.variables)
    for name, text in params.variables.items():
        read_as = variables.ports if name.endswith("PORTS") else variables.addresses
        try:
            read_as(text)
        except ValueError as error:
            raise UserError(
                str(error),
                field=f"{field}.variables.{name}",
                fix="write ports as 80 or [80, 1024:2048], addresses as [10.0.0.0/8, !10.1.0.0/16]",
            ) from None
    eve = None if params.eve is None else context.base / params.eve
    if eve and not eve.parent.is_dir():
        raise UserError(
            f"no folder {eve.parent}",
            field=f"{field}.eve",
            fix="make it, or name a file elsewhere",
        )
    if eve and eve.is_dir():
        raise UserError(f"{eve} is a folder", field=f"{field}.eve", fix="name a file in it")


def names_of(rules: Iterable[Rule]) -> list[str]:
    """What the counter of each rule is called: its message, with the sid if others say the same."""
    rules = list(rules)
    messages = Counter(rule.msg for rule in rules)
    names = [
        rule.msg if rule.msg and messages[rule.msg] == 1 else f"{rule.msg} (sid {rule.sid})".strip()
        for rule in rules
    ]
    doubles = Counter(names)
    return [
        name if doubles[name] == 1 else f"{name} (gid {rule.gid})"
        for name, rule in zip(names, rules, strict=True)
    ]


def host(params: NidsParams, table: NfTable, context: HostContext) -> NfHost:
    """Rules in the data plane, alerts in a file."""
    from hummingbird.nfs.nids_host import NidsHost

    return NidsHost(params, table.extra, context)


NF = Nf(
    name="nids",
    kind=3,
    params=NidsParams,
    build=build,
    content_types=content_types,
    reads=Reads.PACKET,
    host=host,
    engines={"hyperscan": "install libhyperscan-dev, then run make"},
)
