# SPDX-License-Identifier: BSD-3-Clause
"""nids: finds byte strings in payloads. Reads the patterns and builds the Aho-Corasick automaton
(CACM 1975) that ``cl_kernels/nf/nids.cl`` runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, Nf, NfParams, NfTable, Reads
from hummingbird.nfs.automaton import Pattern, make_table


class NidsParams(NfParams):
    """Parameters of ``type: nids``."""

    patterns: Path
    """One rule a line: ``name: "content"``, and ``nocase`` behind it if case does not matter."""
    on_match: str = "pass"
    """``pass`` and count, ``drop``, or the packet type that matching packets get."""
    sticky: Literal["packet", "flow"] = "packet"
    """Does the new type hold for this packet, or for its flow from here on?"""


@dataclass(frozen=True)
class Rule:
    """One line of the patterns file."""

    name: str
    content: bytes
    nocase: bool = False


def content_types(params: NidsParams) -> list[str]:
    """The type that matching packets get."""
    return [] if params.on_match in ("pass", "drop") else [params.on_match]


def build(params: NidsParams, context: BuildContext) -> NfTable:
    """Read the patterns and lay out the automaton."""
    path = context.base / params.patterns
    rules = read_rules(path)
    actions = {"pass": 0, "drop": 1, **{name: 2 + n for name, n in context.types.items()}}
    if params.on_match not in actions:
        raise UserError(
            f"unknown packet type {params.on_match}",
            field=f"nfs.{context.name}.on_match",
            fix="write pass, drop or the name of a packet type",
        )
    try:
        table = make_table([Pattern(rule.content, rule.nocase) for rule in rules])
    except ValueError as error:
        raise UserError(str(error), path=path) from None
    table.data[:128].view(np.uint32)[31] = actions[params.on_match]
    names = [rule.name for rule in rules]
    return NfTable(table.data, names, local_off=table.local_off, local_bytes=table.local_bytes)


# ---- the patterns file ---------------------------------------------------------------------------

_RULE = re.compile(
    r"""\s* ([A-Za-z0-9_][\w.-]*) \s* : \s* "((?:[^"\\]|\\.)*)" \s* (nocase)? \s* (?:\#.*)?""",
    re.VERBOSE,
).fullmatch
_BLANK = re.compile(r"\s*(?:#.*)?").fullmatch
_FIX = 'write it like  web-passwd: "GET /etc/passwd|0d 0a|" nocase'


def read_rules(path: Path) -> list[Rule]:
    """Read the patterns file; rules are numbered in its order."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the patterns: {error}", path=path) from None
    rules: dict[str, Rule] = {}
    for number, line in enumerate(lines, 1):
        found = _RULE(line)
        if not found:
            if _BLANK(line):
                continue
            raise UserError(f"no rule: {line.strip()}", path=path, line=number, fix=_FIX)
        name, content, nocase = found.groups()
        if name in rules:
            raise UserError(f"a second rule called {name}", path=path, line=number)
        try:
            rules[name] = Rule(name, parse_content(content), nocase is not None)
        except ValueError as error:
            raise UserError(f"rule {name}: {error}", path=path, line=number, fix=_FIX) from None
    if not rules:
        raise UserError("there is no rule in this file", path=path, fix=_FIX)
    return list(rules.values())


def parse_content(text: str) -> bytes:
    r"""The bytes of a content as Snort writes it: text, hex between bars, ``\" \\ \; \:``."""
    parts = text.split("|")
    if len(parts) % 2 == 0:
        raise ValueError("a bar is not closed; a bar itself is |7c|")
    content = b""
    for i, part in enumerate(parts):
        if i % 2:
            if not re.fullmatch(r"\s*([0-9a-fA-F]{2}\s*)+", part):
                raise ValueError(f"|{part}| is not hex bytes")
            content += bytes.fromhex(part)
            continue
        plain = re.sub(r'\\(["\\;:])', lambda m: "" if m[1] == "\\" else m[1], part)
        if "\\" in plain:
            raise ValueError(r'a backslash goes only before " \ ; or :')
        if not part.isascii():
            raise ValueError("write bytes beyond ASCII as hex, such as |c3 a4|")
        content += re.sub(r"\\(.)", r"\1", part).encode("ascii")
    if not content:
        raise ValueError("the content is empty")
    return content


NF = Nf(
    name="nids",
    kind=3,
    params=NidsParams,
    build=build,
    content_types=content_types,
    reads=Reads.PACKET,
    engines={"hyperscan": "install libhyperscan-dev, then run make"},
)
