# SPDX-License-Identifier: BSD-3-Clause
"""What is different between two of what may run: for the control socket, and for the log.

A change is a plain dictionary, ready for JSON:

    {"part": "policy", "what": "changed", "types": ["web"], "at": "nids0", "before": "ipsec0",
     "now": "router0", "file": "/etc/hb/routes.csv", "line": 7, "live": true,
     "text": "web: nids0 -> router0 instead of ipsec0 (routes.csv:7)"}
    {"part": "ports", "what": "changed", "name": "in0", "field": "rate", "before": 1000.0,
     "now": 20000.0, "file": "/etc/hb/branch.yaml", "line": 4, "live": false,
     "text": "port in0: rate 20000 instead of 1000 (branch.yaml:4)"}

``part`` is ``policy``, ``ports``, ``nfs``, ``types`` or another section of a topology; ``what`` is
``changed``, ``added`` or ``removed``; ``live``: it can be had without a restart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from hummingbird.policy import Hop, Policy
from hummingbird.rules import Rule
from hummingbird.topology import NfSpec, PortSpec, Topology

if TYPE_CHECKING:
    from hummingbird.engine import Wanted

Change = dict[str, Any]
MOST_TYPES = 6
"""Packet types that a sentence names."""
MOST_TEXT = 40
"""Characters of a value in a sentence."""
READ_BYTES = 1 << 20


def between(old: Wanted, new: Wanted, rereads: Container[str] = ()) -> list[Change]:
    """Everything that is different, the route policy last; ``rereads`` are NFs that can read their
    files again while they run."""
    found = [
        *_ports(old.topology, new.topology),
        *_nfs(old, new, rereads),
        *_types(old.topology, new.topology),
        *_sections(old.topology, new.topology),
    ]
    if not found:
        found += _order(old.topology, new.topology)
    found += _policy_file(old, new)
    return found + routes(old.policy, new.policy)


def need_restart(changes: Iterable[Change]) -> list[Change]:
    """Those of them that cannot be had while it runs."""
    return [change for change in changes if not change["live"]]


def sentence(changes: Sequence[Change], most: int = 10) -> str:
    """All of it in one line; the first so many, and how many more there are."""
    if not changes:
        return "nothing changed"
    rest = len(changes) - most
    texts = [change["text"] for change in changes[:most]]
    return "; ".join([*texts, *([f"and {rest} more"] if rest > 0 else [])])


# ---- the route policy ----------------------------------------------------------------------------


def routes(old: Policy, new: Policy) -> list[Change]:
    """Routes that are not the same. One row of the file makes one change, for all types that it
    decides for."""
    grouped: dict[tuple[str, str | None, str | None, int], list[str]] = {}
    for node, name in _different(old, new):
        before, now = _hop(old, node, name), _hop(new, node, name)
        if before.node != now.node:
            grouped.setdefault((node, before.node, now.node, now.line), []).append(name)
    return [_route(new, *key, types) for key, types in grouped.items()]


def _different(old: Policy, new: Policy) -> Iterator[tuple[str, str]]:
    """Nodes and types to look at, in the order of the new file's."""
    a, b = old.names, new.names
    if (a.nodes, a.types) == (b.nodes, b.types):
        for node, number in np.argwhere(old.next != new.next):
            yield b.nodes[node], b.types[number]
        return
    for name in dict.fromkeys((*b.nodes, *a.nodes)):
        for packet_type in dict.fromkeys((*b.types, *a.types)):
            yield name, packet_type


def _hop(policy: Policy, node: str, packet_type: str) -> Hop:
    try:
        return policy.hop(node, packet_type)
    except KeyError:  # there was none, or is none any more
        return Hop(None, 0)


def _route(
    policy: Policy, at: str, before: str | None, now: str | None, line: int, types: list[str]
) -> Change:
    who = "all types" if len(types) == len(policy.names.types) else _some(types)
    if now is None:
        what, text = "removed", f"{who}: no route from {at} any more, it was -> {before}"
    elif before is None:
        what, text = "added", f"{who}: {at} -> {now}, where no route was"
    else:
        what, text = "changed", f"{who}: {at} -> {now} instead of {before}"
    change = {"part": "policy", "what": what, "types": types, "at": at}
    return _placed(change | {"before": before, "now": now}, text, policy.path, line, live=True)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - MOST_TYPES
    return ", ".join(names[:MOST_TYPES]) + (f" and {rest} more" if rest > 0 else "")


def _policy_file(old: Wanted, new: Wanted) -> Iterator[Change]:
    before, now = str(old.topology.policy), str(new.topology.policy)
    if before != now:
        change = {"part": "policy", "what": "changed", "field": "policy"}
        change |= {"before": before, "now": now}
        line = new.topology.yaml.line(("policy",))
        text = f"policy: {new.topology.policy.name} instead of {old.topology.policy.name}"
        yield _placed(change, text, new.topology.path, line, live=True)


# ---- ports and NFs -------------------------------------------------------------------------------


def _ports(old: Topology, new: Topology) -> Iterator[Change]:
    before, now = ({port.name: port for port in one.ports} for one in (old, new))
    yield from _members("ports", "port", before, now, new)
    for name in (name for name in now if name in before):
        yield from _port(before[name], now[name], new)


def _port(old: PortSpec, new: PortSpec, topology: Topology) -> Iterator[Change]:
    place = ("ports", new.name)
    fields: dict[str, tuple[Any, Any]] = {"driver": (old.driver, new.driver)}
    if old.driver == new.driver:
        fields |= {"zone": (old.zone, new.zone)} | _fields(old.params, new.params)
    yield from _entries("ports", f"port {new.name}", place, fields, topology)


def _nfs(old: Wanted, new: Wanted, rereads: Container[str]) -> Iterator[Change]:
    before, now = ({nf.name: nf for nf in one.topology.nfs} for one in (old, new))
    yield from _members("nfs", "nf", before, now, new.topology)
    for name in (name for name in now if name in before):
        found = list(_nf(before[name], now[name], new.topology))
        yield from found
        if not found:
            yield from _files(name, old, new, live=name in rereads)


def _nf(old: NfSpec, new: NfSpec, topology: Topology) -> Iterator[Change]:
    place = ("nfs", new.name)
    fields: dict[str, tuple[Any, Any]] = {"type": (old.type, new.type)}
    if old.type == new.type:
        fields |= {"engine": (old.engine, new.engine)} | _fields(old.params, new.params)
        if old.nf != _with_kind(new, old):
            fields["code"] = (None, None)
    yield from _entries("nfs", f"nf {new.name}", place, fields, topology)


def _with_kind(spec: NfSpec, like: NfSpec) -> Any:
    """The NF of a spec with the number that another one's has: that follows from their order."""
    return dataclasses.replace(spec.nf, kind=like.nf.kind)


def _files(name: str, old: Wanted, new: Wanted, live: bool) -> Iterator[Change]:
    """The NF's files have the same names and another content."""
    before, now = old.files.get(name, {}), new.files.get(name, {})
    for path in now:
        if path in before and before[path] != now[path]:
            change: Change = {"part": "nfs", "what": "changed", "name": name, "field": "file"}
            change |= {"before": None, "now": None}
            yield _placed(change, f"nf {name}: {path.name} changed", path, 0, live)


def _members(
    part: str, kind: str, before: Iterable[str], now: Iterable[str], new: Topology
) -> Iterator[Change]:
    """Those that are gone, and those that have come."""
    for name in before:
        if name not in now:
            change = {"part": part, "what": "removed", "name": name}
            yield _placed(change, f"{kind} removed: {name}", new.path, 0)
    for name in now:
        if name not in before:
            change = {"part": part, "what": "added", "name": name}
            line = new.yaml.line((part, name))
            yield _placed(change, f"{kind} added: {name}", new.path, line)


def digests(topology: Topology) -> dict[str, dict[Path, str]]:
    """What the files of each NF contain, so that an edit is seen though the names stay."""
    found = {}
    for spec in topology.nfs:
        paths = [topology.base / path for path in _paths(spec.params)]
        found[spec.name] = {path: _digest(path) for path in paths}
    return found


def _paths(value: Any) -> Iterator[Path]:
    """Every file that stands somewhere in parameters."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _paths(inner)


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while data := file.read(READ_BYTES):
                total.update(data)
    except OSError as error:  # whoever needs it says so
        return f"cannot be read: {error.errno}"
    return total.hexdigest()


# ---- types and the other sections ----------------------------------------------------------------


def _types(old: Topology, new: Topology) -> Iterator[Change]:
    before, now = _rules(old), _rules(new)
    yield from _members("types", "type", before, now, new)
    for name in now:
        if name in before and before[name] != now[name]:
            fields = {"rules": (before[name], now[name])}
            yield from _entries("types", f"type {name}", ("types", name), fields, new)


def _rules(topology: Topology) -> dict[str, list[Rule]]:
    """The rules of every type that has some, and of those that have none."""
    found: dict[str, list[Rule]] = {name: [] for name in topology.types}
    for rule in topology.rules:
        found[topology.types[rule.type]].append(dataclasses.replace(rule, type=0))
    return found


def _order(old: Topology, new: Topology) -> Iterator[Change]:
    """The same in another order: of rules the first that matches counts, and nodes and types have
    their numbers by it."""
    pairs = {
        "ports": (old.ports, new.ports),
        "nfs": (old.nfs, new.nfs),
        "types": ((old.types, old.rules), (new.types, new.rules)),
    }
    for part, (before, now) in pairs.items():
        if before != now:
            change = {"part": part, "what": "changed", "field": "order"}
            line = new.yaml.line((part,))
            yield _placed(change, f"{part}: another order", new.path, line)


def _sections(old: Topology, new: Topology) -> Iterator[Change]:
    """Sections that are models, such as ``device:`` and ``memory:``."""
    for section in dataclasses.fields(Topology):
        before, now = getattr(old, section.name), getattr(new, section.name)
        if isinstance(now, BaseModel) and before != now:
            fields = _fields(before, now)
            yield from _entries(section.name, section.name, (section.name,), fields, new)


# ---- what all have in common ---------------------------------------------------------------------


def _fields(old: BaseModel, new: BaseModel, inside: str = "") -> dict[str, tuple[Any, Any]]:
    """Fields of two models of one kind that differ, by their names; those of models within them
    have a dotted name."""
    if type(old) is not type(new):
        return {inside.rstrip("."): (None, None)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in type(new).model_fields:
        before, now = getattr(old, name), getattr(new, name)
        if isinstance(before, BaseModel) and isinstance(now, BaseModel):
            found |= _fields(before, now, f"{inside}{name}.")
        elif before != now:
            found[inside + name] = (before, now)
    return found


def _entries(
    part: str,
    who: str,
    place: tuple[str, ...],
    fields: Mapping[str, tuple[Any, Any]],
    topology: Topology,
) -> Iterator[Change]:
    """A change for every field whose two values differ, or that has no values to show."""
    for name, (before, now) in fields.items():
        if before == now and name != "code":
            continue
        change = {"part": part, "what": "changed", "name": place[-1], "field": name}
        change |= {"before": _plain(before), "now": _plain(now)}
        line = topology.yaml.line((*place, *name.split(".")))
        yield _placed(change, f"{who}: {_values(name, before, now)}", topology.path, line)


def _values(name: str, before: Any, now: Any) -> str:
    old, new = _short(before), _short(now)
    if old is None or new is None or old == new:
        return f"{name} changed"
    return f"{name} {new} instead of {old}"


def _short(value: Any) -> str | None:
    """A value for a sentence; None if it is too much for one."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int | str | Path):
        text = str(value)
        return text if len(text) <= MOST_TEXT else None
    return None


def _plain(value: Any) -> Any:
    """A value for JSON; None where it has no short form."""
    if isinstance(value, Path):
        return str(value)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return None


def _placed(change: Change, text: str, path: Path, line: int, live: bool = False) -> Change:
    """The change with its place, the file's own name in the sentence."""
    place = f" ({path.name}:{line})" if line else ""
    change |= {"file": str(path), "line": line or None, "live": live}
    return change | {"text": text + place}
