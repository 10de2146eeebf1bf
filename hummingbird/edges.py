# SPDX-License-Identifier: BSD-3-Clause
"""Names edges of the graph: what ``hummingbird capture`` takes.

in0:nids0      what goes from in0 to nids0
nids0:         what leaves nids0, wherever it goes
:nids0         what comes to nids0, wherever it comes from
outside:in0    what the port in0 has received, before anybody has looked at it
out0:outside   what is given to the driver of the port out0 to be sent
"""

from __future__ import annotations

from dataclasses import dataclass

from hummingbird.dataplane.plane import TAP_ANY, TAP_OUTSIDE
from hummingbird.errors import UserError
from hummingbird.policy import Policy
from hummingbird.topology import Topology

OUTSIDE = "outside"
"""What lies behind a port, unless a node has this name."""


@dataclass(frozen=True)
class Edge:
    """Where packets come from and where they go to."""

    ends: tuple[int, int]
    """Node numbers, TAP_ANY or TAP_OUTSIDE."""
    text: str
    """For people."""
    note: str = ""
    """Why perhaps nothing comes."""


def parse(text: str, topology: Topology, policy: Policy) -> Edge:
    """The edge that ``text`` names.

    Raises:
        UserError: it names none, or one along which nothing can go.
    """
    source, colon, target = text.strip().partition(":")
    fix = f"write FROM:TO such as {_example(topology)}; one of the two may be left out"
    if not colon or ":" in target or not (source or target):
        raise UserError(f"{text!r} is no edge", fix=fix)
    source, target = _complete(source, target, topology)
    ends = _number(source, topology), _number(target, topology)
    if ends == (TAP_OUTSIDE, TAP_OUTSIDE):
        raise UserError(f"{text!r} goes by no port", fix=fix)
    _check_port(source, target, topology)
    shown = " to ".join(name or "any node" for name in (source, target))
    return Edge(ends, shown, _note(ends, shown, policy))


def _example(topology: Topology) -> str:
    return f"{topology.nodes[0]}:{(*topology.nodes[len(topology.ports) :], *topology.nodes)[0]}"


def _is_outside(name: str, topology: Topology) -> bool:
    return name == OUTSIDE and name not in topology.nodes


def _ways(topology: Topology) -> dict[str, tuple[bool, bool]]:
    """Of each port: whether packets come in there, and whether they go out."""
    return {port.name: (port.params.ingress, port.params.egress) for port in topology.ports}


def _complete(source: str, target: str, topology: Topology) -> tuple[str, str]:
    """What comes to a port that only receives comes from outside, and so on."""
    ways = _ways(topology)
    if not source and ways.get(target) == (True, False):
        return OUTSIDE, target
    if not target and ways.get(source) == (False, True):
        return source, OUTSIDE
    return source, target


def _number(name: str, topology: Topology) -> int:
    if not name:
        return TAP_ANY
    if _is_outside(name, topology):
        return TAP_OUTSIDE
    if name not in topology.nodes:
        known = ", ".join((*topology.nodes, OUTSIDE))
        raise UserError(f"there is no port or NF {name!r}", fix=f"write one of: {known}")
    return topology.nodes.index(name)


def _check_port(source: str, target: str, topology: Topology) -> None:
    """Ports have an outside, and those that only receive or only send no more than that."""
    ways = _ways(topology)
    inputs = [name for name, (comes, _) in ways.items() if comes]
    outputs = [name for name, (_, goes) in ways.items() if goes]
    if _is_outside(source, topology):
        if target and target not in inputs:
            fix = f"write {OUTSIDE}: before one of: {', '.join(inputs)}"
            raise UserError(f"nothing comes to {target} from outside", fix=fix)
    elif source in ways and source not in inputs and not _is_outside(target, topology):
        raise UserError(
            f"{source} only sends: nothing goes from there to {target}",
            fix=f"write {source}:{OUTSIDE} for what it sends, :{source} for what comes to it",
        )
    if _is_outside(target, topology):
        if source and source not in outputs:
            fix = f"write :{OUTSIDE} behind one of: {', '.join(outputs)}"
            raise UserError(f"nothing goes from {source} to the outside", fix=fix)
    elif target in ways and target not in outputs and not _is_outside(source, topology):
        raise UserError(
            f"{target} only receives: nothing goes there from {source}",
            fix=f"write {OUTSIDE}:{target} for what it receives, {target}: for what goes on",
        )


def _note(ends: tuple[int, int], shown: str, policy: Policy) -> str:
    if TAP_OUTSIDE in ends:
        return ""
    source, target = ends
    rows = policy.next if source == TAP_ANY else policy.next[source : source + 1]
    some = (rows < len(policy.next)) if target == TAP_ANY else (rows == target)
    return "" if some.any() else f"the present route policy sends nothing from {shown}"
