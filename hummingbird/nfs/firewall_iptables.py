# SPDX-License-Identifier: BSD-3-Clause
"""Reads what ``iptables-save`` and ``ip6tables-save`` print: one chain of the table ``filter``, and
the chains that it jumps to, as one list of rules."""

from __future__ import annotations

import itertools
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hummingbird.errors import UserError
from hummingbird.nfs.firewall_rules import (
    ANY_FLAGS,
    EVERYTHING,
    ICMP,
    ICMPV6,
    MOST_OF_ONE,
    PROTOCOL,
    TCP,
    Entry,
    Match,
    Mistake,
    Network,
    Range,
    Rule,
    Rules,
    complement,
    entries,
    intersection,
    network,
    outside,
    ports,
    protocol_number,
)
from hummingbird.textfile import quoted, suggest

SILENT = ("LOG", "NFLOG", "ULOG", "AUDIT", "TRACE")
"""Targets that leave the packet to the next rule."""
FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
STATES = frozenset({"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"})
MATCHES = ("tcp", "udp", "sctp", "icmp", "icmp6", "multiport", "state", "conntrack", "comment")
MOST_CHAINS = 32
"""Jumps into one another."""
NAMED_TYPES = {"echo-reply": "0", "destination-unreachable": "3", "echo-request": "8"}
NAMED_TYPES |= {"time-exceeded": "11", "parameter-problem": "12", "fragmentation-needed": "3/4"}


class Unsupported(Exception):
    """A rule asks for something that is not implemented."""


class Handled(Exception):
    """The connection tracking does what a rule asks for, or nothing is left of it."""


@dataclass
class Line:
    """One rule as it stands there."""

    chain: str
    place: int
    """In its chain, from 1."""
    number: int
    words: list[str]
    target: str = ""
    comment: str = ""

    @property
    def name(self) -> str:
        """Of its counter."""
        return self.comment or f"{self.chain}:{self.place}"


@dataclass
class Table:
    """The table ``filter``."""

    path: Path
    policies: dict[str, str] = field(default_factory=dict)
    chains: dict[str, list[Line]] = field(default_factory=dict)
    family: int = 4
    others: list[str] = field(default_factory=list)
    """Other tables."""


@dataclass
class Asked:
    """What the words of a rule ask for; a part that is None asks for nothing."""

    match: Match = field(default_factory=Match)
    both_ports: Sequence[Range] | None = None
    """Either port."""
    states: frozenset[str] | None = None


def read_save(path: Path, lines: Sequence[str], chain: str, *, tracking: bool, skip: bool) -> Rules:
    """The rules of a chain.

    Args:
        path: the file, for messages.
        lines: what stands in it.
        chain: where packets begin.
        tracking: connections are tracked.
        skip: leave out rules with something not implemented, instead of refusing them.

    Raises:
        UserError: naming the line and field of a mistake.
    """
    table = _split(path, lines)
    if chain not in table.chains:
        raise UserError(
            f"the table filter has no chain {chain}",
            path=path,
            fix=suggest(chain, table.chains) + " under chain:",
        )
    reader = _Reader(table, tracking=tracking, skip=skip)
    rules = list(reader.rules(chain, [EVERYTHING[table.family]], (chain,)))
    policy = table.policies.get(chain)
    return Rules(
        path,
        _named(rules),
        policy=None if policy is None else policy == "ACCEPT",
        families=(table.family,),
        notes=reader.notes(),
    )


def _named(rules: list[Rule]) -> list[Rule]:
    """Names that several rules have get a line, and a number where that is the same, too."""
    counts = Counter(rule.name for rule in rules)
    named = [
        replace(rule, name=f"{rule.name} (line {rule.line})") if counts[rule.name] > 1 else rule
        for rule in rules
    ]
    seen: Counter[str] = Counter()
    for i, rule in enumerate(named):
        seen[rule.name] += 1
        if seen[rule.name] > 1:
            named[i] = replace(rule, name=f"{rule.name} {seen[rule.name]}")
    return named


# ---- lines -------------------------------------------------------------------------------------


def _split(path: Path, lines: Sequence[str]) -> Table:
    table, current = Table(path), None
    for number, text in enumerate(lines, 1):
        line = text.strip()
        if not line or line.startswith("#") or line == "COMMIT":
            continue
        if line.startswith("*"):
            current = line[1:]
            if current != "filter":
                table.others.append(current)
        elif current is None:
            fix = "begin with the line *filter, as iptables-save does"
            raise UserError("a rule outside of a table", path=path, line=number, fix=fix)
        elif current == "filter":
            _filter_line(table, line, number)
    if not table.chains:
        fix = "name a file that iptables-save has written"
        raise UserError("there is no table filter", path=path, line=1, fix=fix)
    words = [word for chain in table.chains.values() for line in chain for word in line.words]
    if any(word in ("ipv6-icmp", "icmp6", "icmpv6") or word.count(":") > 1 for word in words):
        table.family = 6
    return table


def _filter_line(table: Table, text: str, number: int) -> None:
    def wrong(what: str, fix: str) -> UserError:
        return UserError(what, path=table.path, line=number, fix=fix)

    if text.startswith(":"):
        words = text[1:].split()
        if len(words) < 2 or words[1] not in ("ACCEPT", "DROP", "-"):
            raise wrong("this is no chain", "write :NAME ACCEPT, DROP or - [0:0]")
        table.chains.setdefault(words[0], [])
        if words[1] != "-":
            table.policies[words[0]] = words[1]
        return
    if text.startswith("["):
        text = text.partition("]")[2].strip()
    try:
        words = shlex.split(text, comments=False)
    except ValueError as error:
        raise wrong(f"not a rule: {error}", "correct the quotes") from None
    if len(words) < 2 or words[0] not in ("-A", "--append"):
        raise wrong(f"{quoted(text)} is no rule", "write -A CHAIN, then what packets match, -j")
    if words[1] not in table.chains:
        fix = suggest(words[1], table.chains)
        raise wrong(f"there is no chain {quoted(words[1])} above", fix)
    chain = table.chains[words[1]]
    chain.append(_line(words, len(chain) + 1, number))


def _line(words: list[str], place: int, number: int) -> Line:
    found = Line(words[1], place, number, words[2:])
    for word, value in itertools.pairwise(words[2:]):
        if word in ("-j", "--jump", "-g", "--goto"):
            found.target = value if word in ("-j", "--jump") else f"goto {value}"
        elif word == "--comment":
            found.comment = value.replace(",", ";")
    return found


# ---- what a rule asks for ----------------------------------------------------------------------


class _Words:
    """The words of a rule, taken one option at a time."""

    def __init__(self, line: Line, family: int) -> None:
        self.left = list(line.words)
        self.family = family
        self.asked = Asked(Match(families=(family,)))
        self.option = ""

    def take(self) -> str:
        """The next word."""
        if not self.left:
            raise Mistake(f"{self.option} says nothing", "write what it is to match", self.option)
        return self.left.pop(0)

    def read(self) -> Asked:
        """What they ask for.

        Raises:
            Mistake: a value cannot stand there.
            Unsupported: nobody has implemented it.
        """
        while self.left:
            self.option = self.left.pop(0)
            negated = self.option == "!"
            if negated:
                self.option = self.take()
            self._one(negated)
        return self.asked

    def _one(self, negated: bool) -> None:
        option = self.option
        if option in ("-j", "--jump", "-g", "--goto", "--comment", "--reject-with"):
            self.take()
        elif option in ("-c", "--set-counters"):
            self.take(), self.take()
        elif option in ("-m", "--match"):
            name = self.take()
            if name not in MATCHES:
                raise Unsupported(f"-m {name}")
        elif (read := _OPTIONS.get(option)) is not None:
            read(self, negated)
        elif option in ("-i", "--in-interface", "-o", "--out-interface"):
            if self.take() == "lo" and not negated:
                raise Handled("is about the interface lo, which no packet here comes by")
            raise Unsupported(f"{option}: packets have no interface here")
        else:
            raise Unsupported(option)

    def set(self, **values: object) -> None:
        """Put it into the match."""
        self.asked.match = replace(self.asked.match, **values)  # type: ignore[arg-type]

    def source(self, negated: bool) -> None:
        """-s"""
        self.set(src=self._networks(negated))

    def destination(self, negated: bool) -> None:
        """-d"""
        self.set(dst=self._networks(negated))

    def _networks(self, negated: bool) -> list[Network]:
        found = network(self.take(), self.option)
        if found.version != self.family:
            fix = "write IPv4 rules and IPv6 rules into two files, rules: and rules6:"
            raise Mistake("the other rules are of the other IP version", fix, self.option)
        if negated and not found.prefixlen:
            raise Handled("matches no packet")
        return outside(found) if negated else [found]

    def proto(self, negated: bool) -> None:
        """-p"""
        name = self.take()
        if name == "all":
            return
        number = protocol_number(name, self.option)
        one = [(number, number)]
        self.set(protocols=complement(one, PROTOCOL) if negated else one)

    def sport(self, negated: bool) -> None:
        """--sport"""
        self.set(sports=self._ports(self.take().split(","), negated))

    def dport(self, negated: bool) -> None:
        """--dport"""
        self.set(dports=self._ports(self.take().split(","), negated))

    def either(self, negated: bool) -> None:
        """--ports"""
        if negated:
            raise Unsupported("! --ports")
        self.asked.both_ports = self._ports(self.take().split(","), negated)

    def _ports(self, texts: list[str], negated: bool) -> list[Range]:
        found = []
        for text in texts:
            first, colon, last = text.partition(":")
            whole = f"{first or 0}:{last or 65535}" if colon else first
            found.append(ports(whole, self.option, ":"))
        left = complement(found, (0, 65535)) if negated else found
        if not left:
            raise Handled("matches no packet")
        return left

    def syn(self, negated: bool) -> None:
        """--syn"""
        if negated:
            raise Unsupported("! --syn")
        self.set(flags=(FLAGS["FIN"] | FLAGS["SYN"] | FLAGS["RST"] | FLAGS["ACK"], FLAGS["SYN"]))

    def tcp_flags(self, negated: bool) -> None:
        """--tcp-flags"""
        mask, value = (self._flags(self.take()) for _ in range(2))
        if negated:
            raise Unsupported("! --tcp-flags")
        if value & ~mask:
            raise Handled("matches no packet")
        self.set(flags=(mask, value))

    def _flags(self, text: str) -> int:
        found = 0
        for name in text.split(","):
            if name not in FLAGS:
                raise Mistake(f"{quoted(name)} is no TCP flag", suggest(name, FLAGS), self.option)
            found |= FLAGS[name]
        return found

    def icmp(self, negated: bool) -> None:
        """--icmp-type"""
        from hummingbird.nfs.firewall_files import icmp_type

        text = self.take()
        if text in ("any", "255"):
            return
        found = [icmp_type(NAMED_TYPES.get(text, text), self.option)]
        self.set(icmp=complement(found, (0, 65535)) if negated else found)

    def ctstate(self, negated: bool) -> None:
        """--ctstate"""
        names = set(self.take().split(","))
        if names - STATES - {"SNAT", "DNAT"}:
            name = min(names - STATES)
            raise Mistake(f"{quoted(name)} is no state", suggest(name, STATES), self.option)
        if names & {"SNAT", "DNAT"}:
            raise Unsupported(f"{self.option} SNAT or DNAT")
        self.asked.states = frozenset(STATES - names if negated else names)


_OPTIONS = {
    **dict.fromkeys(("-s", "--source", "--src"), _Words.source),
    **dict.fromkeys(("-d", "--destination", "--dst"), _Words.destination),
    **dict.fromkeys(("-p", "--protocol"), _Words.proto),
    **dict.fromkeys(("--sport", "--source-port", "--sports", "--source-ports"), _Words.sport),
    **dict.fromkeys(
        ("--dport", "--destination-port", "--dports", "--destination-ports"), _Words.dport
    ),
    "--ports": _Words.either,
    "--syn": _Words.syn,
    "--tcp-flags": _Words.tcp_flags,
    **dict.fromkeys(("--icmp-type", "--icmpv6-type"), _Words.icmp),
    **dict.fromkeys(("--state", "--ctstate"), _Words.ctstate),
}


# ---- chains to one list ------------------------------------------------------------------------


class _Reader:
    """Follows a chain and those that it jumps to."""

    def __init__(self, table: Table, *, tracking: bool, skip: bool) -> None:
        self.table = table
        self._tracking, self._skip = tracking, skip
        self._rejects = 0
        self._established = False
        self._left_out: dict[str, list[int]] = {}

    def rules(self, chain: str, within: list[Entry], path: tuple[str, ...]) -> Iterator[Rule]:
        """Those of a chain, for packets that ``within`` matches."""
        for line in self.table.chains[chain]:
            if line.target.startswith("goto "):
                raise self._wrong(line, "goto is not implemented", "write -j instead of -g")
            if line.target in SILENT or not line.target:
                what = f"{line.target or 'no target'}: it decides nothing"
                self._note(what, line)
                continue
            if line.target == "RETURN" and len(path) > 1 and not _asks(line):
                return
            some = self._entries(line, within)
            if some:
                yield from self._follow(line, some, path)

    def _follow(self, line: Line, some: list[Entry], path: tuple[str, ...]) -> Iterator[Rule]:
        target = line.target
        if target in ("ACCEPT", "DROP", "REJECT"):
            self._rejects += target == "REJECT"
            yield Rule(line.name, target == "ACCEPT", None, tuple(some), line.number)
        elif target == "RETURN":
            if len(path) > 1:
                self._refuse(line, "RETURN for some of the packets")
            else:
                accept = self.table.policies.get(path[0]) == "ACCEPT"
                yield Rule(line.name, accept, None, tuple(some), line.number)
        elif target not in self.table.chains:
            self._refuse(line, f"the target {target}")
        elif target in path or len(path) > MOST_CHAINS:
            what = f"the chains {' -> '.join([*path[-4:], target])} never end"
            raise self._wrong(line, what, "remove one of the jumps")
        else:
            yield from self.rules(target, some, (*path, target))

    def _entries(self, line: Line, within: list[Entry]) -> list[Entry]:
        """What of ``within`` a rule matches; nothing if it was left out."""
        try:
            asked = _Words(line, self.table.family).read()
            self._check_states(line, asked)
            own = self._combinations(asked)
        except Handled as why:
            self._note(str(why), line)
            return []
        except Unsupported as missing:
            self._refuse(line, str(missing))
            return []
        except Mistake as mistake:
            raise self._wrong(line, str(mistake), mistake.fix, mistake.field) from None
        found = [both for a in within for b in own if (both := intersection(a, b)) is not None]
        if len(found) > MOST_OF_ONE:
            what = f"this rule has {len(found)} combinations, with those of what jumps here"
            raise self._wrong(line, what, "write shorter lists")
        return found

    def _combinations(self, asked: Asked) -> list[Entry]:
        match, icmp = asked.match, ICMP if self.table.family == 4 else ICMPV6
        if match.flags != ANY_FLAGS and match.protocols != [(TCP, TCP)]:
            raise Mistake("only TCP has flags", "write -p tcp", "--tcp-flags")
        if match.icmp and match.protocols != [(icmp, icmp)]:
            raise Mistake("only ICMP has types", "write -p icmp or -p ipv6-icmp", "--icmp-type")
        if asked.both_ports is None:
            return list(entries(match))
        return [
            *entries(replace(match, sports=asked.both_ports)),
            *entries(replace(match, dports=asked.both_ports)),
        ]

    def _check_states(self, line: Line, asked: Asked) -> None:
        """Rules are asked about packets that begin a flow. What others say must be what the
        tracking does anyway."""
        states = asked.states
        if states is None:
            return
        if not self._tracking:
            raise Unsupported("connection states with tracking: false")
        if states >= {"ESTABLISHED"} and line.target == "ACCEPT":
            self._established = True
        if "NEW" in states:
            return
        if "INVALID" in states and len(states) > 1 and line.target != "DROP":
            raise Unsupported(f"{line.target} for INVALID packets")
        wanted = ("DROP", "REJECT") if states == {"INVALID"} else ("ACCEPT",)
        if line.target not in wanted:
            raise Unsupported(f"{line.target} for {','.join(sorted(states))} packets")
        raise Handled("left to the connection tracking")

    # ---- what else there is to say ----

    def _refuse(self, line: Line, what: str) -> None:
        if not self._skip:
            fix = "remove the rule, or write unsupported: skip to leave such rules out"
            raise self._wrong(line, f"not implemented: {what}", fix)
        self._note(f"not implemented: {what}", line)

    def _note(self, reason: str, line: Line) -> None:
        self._left_out.setdefault(reason, []).append(line.number)

    def _wrong(self, line: Line, what: str, fix: str, at: str | None = None) -> UserError:
        return UserError(what, path=self.table.path, line=line.number, field=at, fix=fix)

    def notes(self) -> list[str]:
        """What was left out, and what is not as the kernel does it."""
        found = [
            f"{_lines(numbers)} left out: {reason}" for reason, numbers in self._left_out.items()
        ]
        if self._rejects:
            found.append(f"{self._rejects} REJECT rules drop without an answer")
        if self._tracking and not self._established:
            found.append("no rule accepts ESTABLISHED packets; those of accepted flows pass anyway")
        if self.table.others:
            found.append(f"other tables left out: {', '.join(self.table.others)}")
        return found


def _lines(numbers: list[int]) -> str:
    some = ", ".join(map(str, numbers[:5]))
    rest = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"{'lines' if len(numbers) > 1 else 'line'} {some}{rest}"


def _asks(line: Line) -> bool:
    """Does it match some packets only?"""
    words = list(line.words)
    if words[:3] == ["-m", "comment", "--comment"]:
        del words[:4]
    return words[:1] != ["-j"]
