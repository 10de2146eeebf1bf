# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird doctor`: can this machine do what a topology asks for, and if not, what mends it?

Looks only: it changes nothing, needs no rights, and probes no device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hummingbird import policy, topology
from hummingbird.doctor import devices, dpdk, interfaces, kernel, needs, service, system
from hummingbird.doctor.finding import Finding, problem, warning
from hummingbird.doctor.needs import Needs
from hummingbird.errors import UserError
from hummingbird.topology import Topology

Check = Callable[[Needs], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    system.capabilities,
    system.memlock,
    system.huge_pages,
    kernel.af_xdp,
    kernel.bpf_jit,
    kernel.tap,
    dpdk.libraries,
    dpdk.plugin,
    kernel.iommu,
    kernel.pci_devices,
    devices.opencl,
    devices.watchdogs,
    interfaces.interfaces,
    service.captures,
    service.run_directory,
    service.dead_runs,
    service.cache_directory,
    service.cpu_frequency,
    service.unit,
)
"""In the order in which they are shown."""

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
STATE_WIDTH = max(map(len, STYLES)) + 2


def command(path: Path | None, console: Console, *, as_json: bool) -> int:
    """Check for a topology, or for all drivers, and print what was found.

    Returns:
        The exit status: 1 if a run of this topology would fail, else 0.

    Raises:
        UserError: a mistake in the topology or its route policy.
    """
    found = list(examine(_load(path)))
    problems = sum(finding.state == "problem" for finding in found)
    if as_json:
        topology_name = None if path is None else str(path)
        said = {"topology": topology_name, "checks": [asdict(finding) for finding in found]}
        console.out(json.dumps(said, indent=2), highlight=False)
    else:
        show(console, found)
        console.print(_verdict(path, found), highlight=False)
    return 1 if path is not None and problems else 0


def _load(path: Path | None) -> Topology | None:
    if path is None:
        return None
    wanted = topology.load(path)
    policy.load(wanted.policy, wanted.vocabulary())
    return wanted


def examine(wanted: Topology | None) -> Iterator[Finding]:
    """All findings about what a topology needs, or about what any driver may need."""
    if wanted is not None:
        yield from _cores(wanted)
    needed = needs.ANYTHING if wanted is None else needs.of_topology(wanted)
    for check in CHECKS:
        yield from _careful(check, needed)


def _careful(check: Check, needed: Needs) -> Iterator[Finding]:
    """A check that cannot look says so: it ends neither the others nor the program."""
    try:
        yield from check(needed)
    except Exception as error:  # files and answers of machines that nobody here has seen
        asked = (check.__doc__ or "").splitlines()[0].partition("?")[0]
        why = str(error) if isinstance(error, OSError) else repr(error)
        name = check.__name__.replace("_", " ")
        yield warning(name, f"could not be looked at ({asked}?): {why}")


def _cores(wanted: Topology) -> Iterator[Finding]:
    """Do the CPUs exist, and may this process use them?"""
    try:
        wanted.place()
    except UserError as error:
        yield problem("cores", error.what, error.fix)


# ---- how it looks --------------------------------------------------------------------------------


def show(console: Console, found: Iterable[Finding]) -> None:
    """Print findings, each with its fix on a line of its own that can be copied whole."""
    found = list(found)
    width = max((len(finding.name) for finding in found), default=0) + 2
    name = ""
    for finding in found:
        line = Table.grid()
        line.add_column(width=STATE_WIDTH, style=STYLES[finding.state])
        line.add_column(width=width)
        line.add_column(overflow="fold")
        repeated = finding.name == name
        line.add_row(finding.state, "" if repeated else finding.name, Text(finding.what))
        with console.capture() as capture:
            console.print(line)
        for text in capture.get().splitlines():
            console.out(text.rstrip(), highlight=False)
        name = finding.name
        if finding.fix:
            console.print(Text(f"{' ' * STATE_WIDTH}fix: {finding.fix}"), soft_wrap=True)


def _verdict(path: Path | None, found: Iterable[Finding]) -> str:
    states = [finding.state for finding in found]
    problems, warnings = states.count("problem"), states.count("warning")
    counts = f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}"
    if path is None:
        return f"\n{counts}. Name a topology to see what matters to it."
    return f"\n{counts}: {path} {'can' if not problems else 'cannot'} run here."


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' * (number != 1)}"
