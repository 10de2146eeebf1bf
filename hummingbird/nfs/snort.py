# SPDX-License-Identifier: BSD-3-Clause
"""Reads files of Snort and Suricata rules. A rule with a part that is not implemented is left out
whole, with the reason; a rule that is wrong in every dialect is an error with file and line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird.errors import UserError
from hummingbird.nfs.snort_draft import Draft
from hummingbird.nfs.snort_header import ANY_PORT, Variables
from hummingbird.nfs.snort_model import Action, Mistake, Rule, Skip, Skipped
from hummingbird.nfs.snort_options import add
from hummingbird.textfile import decode, quoted, read_bytes

MAX_BYTES = 256 << 20
LONGEST = 65536
"""Characters of a rule."""

ACTIONS = {
    **{action.value: action for action in Action},
    **dict.fromkeys(("rejectsrc", "rejectdst", "rejectboth", "sdrop", "block"), None),
    **dict.fromkeys(("log", "activate", "dynamic", "config", "react", "rewrite"), None),
}
PROTOCOLS: dict[str, tuple[tuple[int, ...], int]] = {
    "ip": ((), 0),
    "ipv4": ((), 4),
    "ip4": ((), 4),
    "ipv6": ((), 6),
    "ip6": ((), 6),
    "tcp": ((6,), 0),
    "tcp-pkt": ((6,), 0),
    "udp": ((17,), 0),
    "sctp": ((132,), 0),
    "icmp": ((1, 58), 0),
    "icmpv4": ((1,), 4),
    "icmp4": ((1,), 4),
    "icmpv6": ((58,), 6),
    "icmp6": ((58,), 6),
}
"""IP protocols and IP version by name."""
WITH_PORTS = {6, 17, 132}

_FIX = 'write it like  alert tcp any any -> any 80 (content:"x"; sid:1;)'


@dataclass(frozen=True)
class RuleSet:
    """What rule files hold."""

    rules: tuple[Rule, ...]
    skipped: tuple[Skipped, ...]

    def reasons(self) -> list[tuple[str, int]]:
        """Why rules were left out, most frequent first."""
        return Counter(rule.reason for rule in self.skipped).most_common()


def read(paths: Iterable[Path], variables: Variables) -> RuleSet:
    """Read rule files.

    Raises:
        UserError: the first mistake found.
    """
    rules: list[Rule] = []
    skipped: list[Skipped] = []
    seen: dict[tuple[int, int], Rule] = {}
    for path in paths:
        text = decode(read_bytes(path, MAX_BYTES), path)
        for line, statement in _statements(text):
            found = _rule(statement, path, line, variables)
            if isinstance(found, Skipped):
                skipped.append(found)
                continue
            first = seen.setdefault((found.gid, found.sid), found)
            if first is not found:
                what = f"a second rule with sid {found.sid}; the first is {first.path}:{first.line}"
                raise UserError(what, path=path, line=line, fix="give it a sid of its own")
            rules.append(found)
    return RuleSet(tuple(rules), tuple(skipped))


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Rules with their lines; a backslash at a line's end joins it with the next."""
    joined, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r \t")
        if not joined:
            first = number
            if not line.strip() or line.lstrip().startswith("#"):
                continue
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        yield first, (joined + line).strip()
        joined = ""
    if joined.strip():
        yield first, joined.strip()


def _rule(text: str, path: Path, line: int, variables: Variables) -> Rule | Skipped:
    try:
        return _parse(text, path, line, variables)
    except Skip as skip:
        sid = re.search(r"[;(]\s*sid\s*:\s*(\d{1,10})\s*;", text, re.ASCII)
        return Skipped(path, line, int(sid[1]) if sid else None, str(skip))
    except Mistake as mistake:
        raise UserError(mistake.what, path=path, line=line, fix=mistake.fix or _FIX) from None
    except ValueError as error:
        raise UserError(str(error), path=path, line=line, fix=_FIX) from None


def _parse(text: str, path: Path, line: int, variables: Variables) -> Rule:
    if len(text) > LONGEST:
        raise Mistake(f"a rule of more than {LONGEST} characters")
    head, bracket, rest = text.partition("(")
    words = _words(head)
    action = _action(words)
    if not bracket or not rest.endswith(")"):
        raise Mistake("the options are not in parentheses")
    if len(words) != 7:
        raise Mistake(f"{len(words)} words in front of the options, not 7")
    protocols, version = _protocol(words[1])
    both = _direction(words[4])
    src, dst = variables.addresses(words[2]), variables.addresses(words[5])
    src_ports, dst_ports = variables.ports(words[3]), variables.ports(words[6])
    has_ports = src_ports != ANY_PORT or dst_ports != ANY_PORT
    if has_ports and protocols and not WITH_PORTS.intersection(protocols):
        raise Mistake(f"{words[1]} has no ports", "write any for both")
    draft = Draft()
    for keyword, value in _options(rest[:-1]):
        add(draft, keyword, value)
    texts: dict[str, Any] = draft.texts
    if "sid" not in texts:
        raise Mistake("the rule has no sid", "add sid:NUMBER;")
    return Rule(
        action=action,
        protocols=protocols,
        version=version,
        src=src,
        src_ports=src_ports,
        dst=dst,
        dst_ports=dst_ports,
        both=both,
        steps=draft.finished(),
        checks=tuple(draft.checks),
        flow=draft.flow,
        path=path,
        line=line,
        **texts,
    )


# ---- in front of the options ---------------------------------------------------------------------


def _words(head: str) -> list[str]:
    """Split at blanks, but not within brackets."""
    words, depth, word = [], 0, ""
    for char in head:
        depth += (char == "[") - (char == "]")
        if char.isspace() and depth <= 0:
            if word:
                words.append(word)
            word = ""
        else:
            word += char
    return [*words, word] if word else words


def _action(words: list[str]) -> Action:
    name = words[0] if words else ""
    if name not in ACTIONS:
        raise Mistake(f"no rule begins with {quoted(name)}")
    action = ACTIONS[name]
    if action is None:
        raise Skip(f"action {name}")
    return action


def _protocol(name: str) -> tuple[tuple[int, ...], int]:
    known = PROTOCOLS.get(name)
    if known is not None:
        return known
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise Mistake(f"{quoted(name)} is no protocol")
    if name == "tcp-stream":
        raise Skip("protocol tcp-stream (no reassembly)")
    raise Skip(f"protocol {name} (needs the application layer)")


def _direction(arrow: str) -> bool:
    if arrow == "=>":
        raise Skip("direction => (needs the application layer)")
    if arrow not in ("->", "<>"):
        raise Mistake(f"{quoted(arrow)} is no direction", "write -> or <>")
    return arrow == "<>"


# ---- options -------------------------------------------------------------------------------------

_OPTION = re.compile(r"((?:[^\\;]|\\.)*);", re.DOTALL)


def _options(text: str) -> Iterator[tuple[str, str | None]]:
    """Keyword and value of each option; ``\\;`` does not end one."""
    at = 0
    while text[at:].strip():
        found = _OPTION.match(text, at)
        if not found:
            raise Mistake(f"{quoted(text[at:].strip())} is not closed", r"end each option with ;")
        at = found.end()
        option = found[1].strip()
        if option:
            keyword, colon, value = option.partition(":")
            yield keyword.strip(), value if colon else None
