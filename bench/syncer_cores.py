# SPDX-License-Identifier: BSD-3-Clause
"""Figure 4 of the Hummingbird paper: cXdY, X cores for the CPUSyncer and Y for packet I/O, over
packet size, with one and with two NFs on the GPU.

    1 NF     gen0, gen1 -> nids0 (GPU) -> sink0
    2 NFs    gen0, gen1 -> ipsec0 (GPU) -> nids0 (GPU) -> sink0

All configurations have two unpaced generators, so that they are driven alike; with d2 each has a
core of its own. With c2 both syncers serve nids0; ipsec0 has one of them, since it numbers its
packets. (The paper's one NF is IPsec, and it says that NIDS behaves the same.)

cXdY needs 1 + X + Y CPUs: one is left to the device's runtime. With fewer it is not run, since
threads that take turns on a CPU show nothing of what the figure is about. What always fits is
"shared": syncer and I/O on one core, which is none of the paper's configurations.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import chains
import paper
from harness import Bench, Case, Ratio, Reading, Result, Settings, main

from hummingbird.errors import UserError

CONFIGURATIONS = {"c1d1": (1, 1), "c2d1": (2, 1), "c1d2": (1, 2), "c2d2": (2, 2)}
"""Cores for the syncer and for packet I/O."""
SHARED = "shared"
GNFS = {1: ("nids",), 2: ("ipsec", "nids")}


def too_few(configuration: str) -> str | None:
    """Why this machine cannot run a configuration, None if it can."""
    if configuration == SHARED:
        return None
    syncers, io = CONFIGURATIONS[configuration]
    cpus = len(os.sched_getaffinity(0))
    if cpus >= 1 + syncers + io:
        return None
    needs = f"{1 + syncers + io} CPUs, one of them for the device"
    return f"{configuration} needs {needs}; here are {cpus}"


def cores(configuration: str, gnfs: int) -> dict[str, Any]:
    """``cores:`` of a configuration; the first CPU is left to the device's runtime."""
    if configuration == SHARED:
        return paper.one_lcore()
    syncers, io = CONFIGURATIONS[configuration]
    cpus = sorted(os.sched_getaffinity(0))
    placed: dict[str, Any] = {"io": cpus[1 : 1 + io], "syncer": cpus[1 + io : 1 + io + syncers]}
    if gnfs == 2:
        placed["nf"] = {"ipsec0": placed["syncer"][:1]}
    return placed


def measure(configuration: str, gnfs: int, size: int, seconds: float) -> Reading:
    missing = too_few(configuration)
    if missing:
        raise UserError(missing)
    generators = ("gen0", "gen1")
    made = {name: chains.generator(paper.SIZES[size]) for name in generators}
    names = [f"{kind}0" for kind in GNFS[gnfs]]
    topology = {
        "ports": {**made, "sink0": {"driver": "sink"}},
        "nfs": {f"{kind}0": paper.nf(kind, "gpu") for kind in GNFS[gnfs]},
        "cores": cores(configuration, gnfs),
    }
    rows = [("*", name, names[0]) for name in generators]
    return paper.throughput(
        chains.run(topology, [*rows, *chains.straight(*names, "sink0")], seconds), size
    )


def case_name(configuration: str, gnfs: int | str, size: int | str) -> str:
    return f"{configuration}, {gnfs} NF{'s' if gnfs == 2 else ''}, {size} B"


def cases(settings: Settings) -> Sequence[Case]:
    sizes = (64,) if settings.quick else tuple(paper.SIZES)
    return [
        Case(
            case_name(configuration, gnfs, size),
            "Gbit/s",
            partial(measure, configuration, gnfs, size, settings.seconds),
            two_cores=True,
        )
        for gnfs, size, configuration in paper.pairs(GNFS, sizes, (*CONFIGURATIONS, SHARED))
    ]


def ratios(_: Settings) -> Sequence[Ratio]:
    two, one = case_name("c2d1", 1, 64), case_name("c1d1", 1, 64)
    return [Ratio("c2_vs_c1_64B", two, one, missing=too_few("c2d1"))]


def notes(_: Result) -> Sequence[str]:
    shared = '"shared" is syncer and I/O on one core: no cXdY, but what fits any machine.'
    return [paper.SIZE_NOTE, shared]


def plot(result: Result, picture: Any) -> None:
    """The paper's two panels: one NF, two NFs."""
    picture.set_size_inches(10, 4.4)
    panels = picture.subplots(1, 2)
    for gnfs, axes in zip(GNFS, panels, strict=True):
        everything = [(name, case_name(name, gnfs, "{}")) for name in (*CONFIGURATIONS, SHARED)]
        seen = [
            (name if name in CONFIGURATIONS else "syncer and I/O on one core", case)
            for name, case in everything
            if any(result.values(case.format(size)) for size in paper.SIZES)
        ]
        paper.bars(axes, result, paper.SIZES, seen)
        axes.set_title(
            f"({'ab'[gnfs - 1]}) {gnfs} NF{'s' if gnfs > 1 else ''} on the GPU", fontsize=10
        )
        axes.set_ylabel("throughput (Gbit/s)")
    paper.legend(picture, panels[0], 5)


BENCH = Bench(
    name="syncer_cores",
    title="Figure 4: cores for the CPUSyncer and for packet I/O",
    cases=cases,
    ratios=ratios,
    plot=plot,
    notes=notes,
    rounds=3,
    seconds=0.5,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
