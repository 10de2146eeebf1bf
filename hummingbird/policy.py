# SPDX-License-Identifier: BSD-3-Clause
"""The route policy: a CSV file becomes a table of next hops; loops and dead ends are found here.

    packet_type,current_nf,next_nf
    web,in0,nids0           # an ingress port is a current_nf
    web,nids0,router0
    suspicious,nids0,drop   # nids0 gives this type to packets by their content
    *,in0,router0           # any type without a row of its own here
    *,router0,out0          # an egress port is a next_nf

A packet is in a *state*: the node it is at and its type there. A row leads from one state to the
next; an NF that re-types first changes the type. No state that packets come into may lead nowhere
or back to itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hummingbird.errors import UserError
from hummingbird.textfile import decode, quoted, read_bytes, suggest

DROP = "drop"
OTHER = "other"
ANY = "*"
NEXT_DROP = 0xFFFF  # HB_NEXT_DROP of api.h
NEXT_NONE = 0xFFFE  # HB_NEXT_NONE
COLUMNS = ("packet_type", "current_nf", "next_nf")
HEADER = ",".join(COLUMNS)


@dataclass(frozen=True)
class Vocabulary:
    """What a policy may speak of. The number of a node or type is its index."""

    nodes: tuple[str, ...]
    types: tuple[str, ...]
    ingress: tuple[str, ...]
    """Ports that packets come in at."""
    egress: tuple[str, ...]
    """Ports that packets leave at."""
    arriving: tuple[str, ...]
    """Types that packets may have when they come in."""
    retypes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Types that an NF may give to packets, by the NF's name."""

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Nodes that a row may lead from: NFs and ingress ports."""
        return tuple(n for n in self.nodes if n in self.ingress or n not in self.egress)

    @cached_property
    def enters(self) -> tuple[str, ...]:
        """Nodes that a row may lead to: NFs and egress ports."""
        return tuple(n for n in self.nodes if n in self.egress or n not in self.ingress)


class Row(NamedTuple):
    """A row of the file."""

    line: int
    type: str
    node: str
    next: str

    def __str__(self) -> str:
        return f"{self.type},{self.node},{self.next}"


class Hop(NamedTuple):
    """Where the policy sends packets from a state."""

    node: str | None
    """A node, ``drop``, or None if there is no row."""
    line: int
    """The row's line in the file; 0 if there is none."""


@dataclass(frozen=True)
class Route:
    """A path that packets of one type take."""

    type: str
    nodes: tuple[str, ...]
    """From an ingress port, or the NF that gave them this type, to an egress port or ``drop``."""
    lines: tuple[int, ...]
    """The line that decided each hop: one less than nodes."""
    branches: tuple[Route, ...] = ()
    """Paths of packets that an NF on the way gives another type; each starts at that NF."""

    def __str__(self) -> str:
        return " -> ".join(self.nodes)


@dataclass(frozen=True, eq=False)
class Policy:
    """A checked policy."""

    path: Path
    names: Vocabulary
    next: npt.NDArray[np.uint16]
    """[nodes][types]: the next node, HB_NEXT_DROP or HB_NEXT_NONE; C-contiguous."""
    lines: npt.NDArray[np.int32]
    """[nodes][types]: the line of the row that decided; 0: none."""
    rows: Mapping[int, Row]
    """Rows of the file by their lines."""

    def hop(self, node: str, packet_type: str) -> Hop:
        """Where packets of a type go from a node; KeyError for unknown names."""
        if node not in self.names.nodes or packet_type not in self.names.types:
            raise KeyError((node, packet_type))
        at = self.names.nodes.index(node), self.names.types.index(packet_type)
        number, line = int(self.next[at]), int(self.lines[at])
        if number == NEXT_NONE:
            return Hop(None, 0)
        return Hop(DROP if number == NEXT_DROP else self.names.nodes[number], line)

    def paths(self, types: Iterable[str] | None = None) -> dict[str, tuple[Route, ...]]:
        """For each type, or each of `types`, the path from every ingress port.

        Types that only NFs give are in the branches of the others.
        """
        return {
            name: tuple(self.route(port, name) for port in self.names.ingress)
            for name in (self.names.arriving if types is None else types)
        }

    def path_of_each_type(self) -> dict[str, tuple[str, ...]]:
        """Nodes that packets of a type pass: from the first ingress port, or, for types that only
        NFs give, from the first NF that does."""
        found = {name: routes[0].nodes for name, routes in self.paths().items() if routes}
        waiting = [route for routes in self.paths().values() for route in routes]
        while waiting:
            route = waiting.pop(0)
            found.setdefault(route.type, route.nodes)
            waiting += route.branches
        return found

    def route(self, node: str, packet_type: str) -> Route:
        """The path of packets of a type from a node on, with its branches."""
        return self._route(node, packet_type, {(node, packet_type)})

    def _route(self, node: str, packet_type: str, seen: set[tuple[str, str]]) -> Route:
        nodes, lines = [node], []
        while nodes[-1] in self.names.leaves and not self._left(nodes):
            hop = self.hop(nodes[-1], packet_type)
            if hop.node is None or (hop.node in nodes and hop.node not in self.names.egress):
                break
            nodes.append(hop.node)
            lines.append(hop.line)
        branches = []
        for at in nodes:
            for other in self.names.retypes.get(at, ()):
                if other != packet_type and (at, other) not in seen:
                    seen.add((at, other))
                    branches.append(self._route(at, other, seen))
        return Route(packet_type, tuple(nodes), tuple(lines), tuple(branches))

    def _left(self, nodes: Sequence[str]) -> bool:
        """A path has come to a port, where packets leave even if others come in there."""
        return len(nodes) > 1 and nodes[-1] in self.names.egress


def load(path: Path, names: Vocabulary) -> Policy:
    """Read, check and compile a policy file.

    Raises:
        UserError: the first mistake, with its line.
    """
    return parse(read_bytes(path), names, path)


def parse(data: bytes, names: Vocabulary, path: Path) -> Policy:
    """`load` for bytes; `path` is for messages."""
    table = _Table(path, names)
    for row in _read(path, decode(data, path)):
        table.add(row)
    next_hops, lines = table.compile()
    rows = {row.line: row for row in table.rows.values()}
    policy = Policy(path, names, next_hops, lines, rows)
    _Checker(policy, table).check()
    return policy


# --- Rows -----------------------------------------------------------------------------------------


def _read(path: Path, text: str) -> Iterator[Row]:
    """The rows behind the header."""
    header = False
    for number, line in enumerate(text.split("\n"), 1):
        cells = [cell.strip() for cell in line.split("#", 1)[0].split(",")]
        if cells == [""]:
            continue
        if not header:
            if tuple(cells) != COLUMNS:
                what = f"{quoted(','.join(cells))} is not the header row"
                raise UserError(what, path=path, line=number, fix=f"begin with: {HEADER}")
            header = True
        elif len(cells) != len(COLUMNS):
            what = f"{len(cells)} columns instead of {len(COLUMNS)}"
            raise UserError(what, path=path, line=number, fix=f"write: {HEADER}")
        else:
            yield Row(number, *cells)
    if not header:
        raise UserError("no header row", path=path, line=1, fix=f"begin with: {HEADER}")


class _Table:
    """The rows, checked one by one, and what they compile to."""

    def __init__(self, path: Path, names: Vocabulary) -> None:
        self.path = path
        self.names = names
        self.rows: dict[tuple[str, str], Row] = {}
        """By node and type; the type may be ``*``."""

    def error(self, what: str, line: int, fix: str, column: str | None = None) -> UserError:
        return UserError(what, path=self.path, line=line, field=column, fix=fix)

    def add(self, row: Row) -> None:
        """Take a row in; UserError if it cannot stand."""
        self._check_type(row)
        self._check_node(row)
        self._check_next(row)
        first = self.rows.setdefault((row.node, row.type), row)
        if first is not row:
            what = f"{row.type},{row.node} has a row already, on line {first.line}"
            raise self.error(what, row.line, "remove one of the two")

    def _check_type(self, row: Row) -> None:
        if row.type != ANY and row.type not in self.names.types:
            self._unknown(row, 0, "packet type", self.names.types)

    def _check_node(self, row: Row) -> None:
        if row.node == DROP:
            fix = "remove the row; 'drop' stands in next_nf only"
            raise self.error("nothing leaves 'drop'", row.line, fix, COLUMNS[1])
        if row.node in self.names.egress and row.node not in self.names.ingress:
            what = f"{row.node} only sends packets out; none comes from there"
            fix = "name an NF or a port that takes packets in"
            raise self.error(what, row.line, fix, COLUMNS[1])
        if row.node not in self.names.leaves:
            self._unknown(row, 1, "NF or port", self.names.leaves)

    def _check_next(self, row: Row) -> None:
        if "|" in row.next or "+" in row.next:
            use = "weighted choice (a|b)" if "|" in row.next else "copies (a+b)"
            what = f"{quoted(row.next)}: {use} is reserved for a later version"
            raise self.error(what, row.line, "name one NF or port", COLUMNS[2])
        if row.next in self.names.ingress and row.next not in self.names.egress:
            what = f"{row.next} only takes packets in; none can be sent there"
            fix = "name an NF, a port that sends packets out, or drop"
            raise self.error(what, row.line, fix, COLUMNS[2])
        if row.next != DROP and row.next not in self.names.enters:
            self._unknown(row, 2, "NF or port", (*self.names.enters, DROP))

    def _unknown(self, row: Row, column: int, kind: str, options: Sequence[str]) -> None:
        name = row[column + 1]
        what = f"unknown {kind} {quoted(name)}" if name else f"{COLUMNS[column]} is empty"
        raise self.error(what, row.line, suggest(name, options), COLUMNS[column])

    def row(self, node: str, packet_type: str) -> Row | None:
        """The row that decides for a state: the type's own, else that of ``*``."""
        return self.rows.get((node, packet_type)) or self.rows.get((node, ANY))

    def line_near(self, node: str) -> int:
        """A line to show for a row that is missing: the last one about `node`, or the first."""
        return max([row.line for row in self.rows.values() if row.node == node], default=1)

    def compile(self) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
        """Next hops and deciding lines."""
        shape = len(self.names.nodes), len(self.names.types)
        next_hops = np.full(shape, NEXT_NONE, dtype=np.uint16)
        lines = np.zeros(shape, dtype=np.int32)
        numbers = {name: number for number, name in enumerate(self.names.nodes)}
        types = {name: number for number, name in enumerate(self.names.types)}
        for row in sorted(self.rows.values(), key=lambda row: row.type != ANY):
            at = numbers[row.node], slice(None) if row.type == ANY else types[row.type]
            next_hops[at] = numbers.get(row.next, NEXT_DROP)
            lines[at] = row.line
        return next_hops, lines


# --- Loops and dead ends --------------------------------------------------------------------------


class _State(NamedTuple):
    node: str
    type: str


class _Step(NamedTuple):
    """From a state; `type` differs from the state's if the NF re-types."""

    type: str
    row: Row | None


class _Checker:
    """Walks all states that packets come into, depth first."""

    def __init__(self, policy: Policy, table: _Table) -> None:
        self.names = policy.names
        self.table = table
        self.done: set[_State] = set()

    def check(self) -> None:
        """UserError for an ingress port without a row, a dead end or a loop."""
        for port in self.names.ingress:
            for packet_type in self.names.arriving:
                self._check_default(port, packet_type)
                self._walk(_State(port, packet_type), must_lead_on=True)
        for row in self.table.rows.values():
            if row.type != ANY:  # nothing comes there, but if it did, it would go round
                self._walk(_State(row.node, row.type), must_lead_on=False)

    def _check_default(self, port: str, packet_type: str) -> None:
        if self.table.row(port, packet_type) is None:
            what = f"no row says where packets of type {packet_type} go from {port}"
            fix = f"add a row: *,{port},<next> or {packet_type},{port},<next>"
            raise self.table.error(what, self.table.line_near(port), fix)

    def _steps(self, state: _State) -> list[_Step]:
        """The ways out of a state; none from a port that packets leave at."""
        if state.node not in self.names.leaves:
            return []
        types = dict.fromkeys([state.type, *self.names.retypes.get(state.node, ())])
        return [_Step(name, self.table.row(state.node, name)) for name in types]

    def _walk(self, start: _State, must_lead_on: bool) -> None:
        path: dict[_State, _Step | None] = {}  # in order, each with the step that is being walked
        stack: list[tuple[_State, Iterator[_Step]]] = []

        def enter(state: _State) -> None:
            if state not in self.done:
                path[state] = None
                stack.append((state, iter(self._steps(state))))

        enter(start)
        while stack:
            state, steps = stack[-1]
            step = path[state] = next(steps, None)
            if step is None:
                stack.pop()
                path.pop(state)
                self.done.add(state)
            elif step.row is None:
                if must_lead_on:
                    raise self._dead_end(state, step, path)
            elif step.row.next != DROP and step.row.next not in self.names.egress:
                following = self._following(step)
                if following in path:
                    raise self._loop(following, path)
                enter(following)

    @staticmethod
    def _following(step: _Step) -> _State:
        assert step.row is not None
        return _State(step.row.next, step.type)

    def _dead_end(
        self, state: _State, step: _Step, path: Mapping[_State, _Step | None]
    ) -> UserError:
        if step.type == state.type:
            what = f"packets of type {state.type} can reach {state.node}, but no row leads on"
        else:
            what = f"{state.node} can make {state.type} packets {step.type}, but no row leads on"
        before = list(path.values())[-2] if len(path) > 1 else None
        line = before.row.line if before and before.row else self.table.line_near(state.node)
        return self.table.error(what, line, f"add a row: {step.type},{state.node},<next>")

    def _loop(self, state: _State, path: Mapping[_State, _Step | None]) -> UserError:
        states = list(path)
        states = states[states.index(state) :]
        text, line = "", 0
        for at in states:
            step = path[at]
            assert step is not None and step.row is not None
            text += at.node + (" -> " if step.type == at.type else f" -> ({step.type}) ")
            line = step.row.line
        what = f"packets of type {state.type} would go round for ever: {text}{state.node}"
        return self.table.error(what, line, "let one of these rows lead out of the circle")
