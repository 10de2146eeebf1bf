# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird check`: everything that can be wrong with a topology, found without running it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hummingbird import policy, topology
from hummingbird.dataplane.plane import cpu_engines
from hummingbird.placement import Placement
from hummingbird.policy import Policy, Route
from hummingbird.topology import Topology


def command(path: Path, out: TextIO | None = None) -> None:
    """Check a topology and all it names, then print its paths and its placement.

    Raises:
        UserError: the first mistake found.
    """
    top = topology.load(path)
    routes = policy.load(top.policy, top.vocabulary())
    placement = top.place()
    tables = top.build_tables()
    notes = [f"{name}: {note}" for name, table in tables.items() for note in table.notes]
    show(top, routes, placement, notes, out or sys.stdout)


def show(
    top: Topology, routes: Policy, placement: Placement, notes: list[str], out: TextIO
) -> None:
    """Print two tables and the notes; without lines and colours unless `out` is a terminal."""
    console = Console(file=out, highlight=False, markup=False)
    parts: list[RenderableType] = [
        Text(f"{top.path}: ok", style="bold"),
        _paths_table(console, top, routes),
        _nodes_table(console, top, routes, placement),
        Text("\n".join([*notes, _device_line(top, placement)])),
    ]
    out.write("\n\n".join(_rendered(console, part) for part in parts) + "\n")


def _rendered(console: Console, part: RenderableType) -> str:
    """As text, without blanks at the ends of lines."""
    with console.capture() as capture:
        console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").split("\n"))


def _table(console: Console, *columns: str) -> Table:
    lines = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(box=lines, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


# --- Paths ----------------------------------------------------------------------------------------


def _paths_table(console: Console, top: Topology, routes: Policy) -> Table:
    table = _table(console, "TYPE", "RULES", "PATH")
    paths_by_type = routes.paths()
    for name in (*(name for name in paths_by_type if name != policy.OTHER), policy.OTHER):
        paths = paths_by_type[name]
        lines = [line for route in paths for line in _path_lines(route)]
        table.add_row(name, _rules(top, name), Text("\n".join(lines)))
    return table


def _rules(top: Topology, name: str) -> str:
    lines = {rule.line for rule in top.rules if top.types[rule.type] == name}
    return f"line {min(lines)}" if lines else "the rest" if name == policy.OTHER else "by an NF"


def _path_lines(route: Route) -> Iterator[str]:
    yield str(route)
    for branch in route.branches:
        first, *others = _path_lines(branch)
        yield f"  {branch.type}: {first}"
        yield from (f"  {other}" for other in others)


# --- Nodes ----------------------------------------------------------------------------------------


def _nodes_table(console: Console, top: Topology, routes: Policy, placement: Placement) -> Table:
    used = {name for paths in routes.paths().values() for route in paths for name in _names(route)}
    table = _table(console, "NODE", "KIND", "RUNS ON", "")
    for port in top.ports:
        lcores = dict.fromkeys(placement.ports[port.name])
        runs_on = f"CPU {', '.join(str(placement.cpus[lcore]) for lcore in lcores)}"
        table.add_row(port.name, port.driver, runs_on, str(port.params))
    engines = top.choose_engines(placement.engines)
    for nf in top.nfs:
        cpus = ", ".join(str(placement.cpus[lcore]) for lcore in placement.nfs[nf.name])
        if placement.engines[nf.name] == "gpu":
            runs = f"device, syncer on CPU {cpus}"
        else:
            engine = cpu_engines(nf.nf.kind)[engines[nf.name]].name
            runs = f"CPU {cpus}" + (f", {engine}" if engine != "cpu" else "")
        table.add_row(nf.name, nf.type, runs, "" if nf.name in used else "no packet comes here")
    return table


def _names(route: Route) -> Iterator[str]:
    yield from route.nodes
    for branch in route.branches:
        yield from _names(branch)


def _device_line(top: Topology, placement: Placement) -> str:
    if not top.uses_device:
        return "No NF uses the device."
    spare = ", ".join(map(str, placement.spare)) or "none"
    use = top.device.use if top.device.use in ("auto", "required") else f"'{top.device.use}'"
    return f"Device: {use}, executor {top.device.executor}. CPUs left to it: {spare}."
