# SPDX-License-Identifier: BSD-3-Clause
"""A chain over two CPUs against the same chain on one: what `cores:` gains.

    one     CPU a: in -> nids0 -> nids1 -> sink
    split   CPU a: in -> nids0 -> ring -> CPU b: nids1 -> ring -> CPU a: sink
    spread  CPU a: in -> nids0 -> nids1 -> sink, and of half the flows both NFs on CPU b

The two NIDS do equal work, so that two CPUs could at best do twice as much; ports and rings are
what that leaves. No OpenCL device takes part.
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

SIZES = (64, 256, 1024)
CLAIMED = 256


def _cores(ways: str) -> dict[str, Any]:
    first, *rest = sorted(os.sched_getaffinity(0))
    other = rest[0] if rest else first
    nf = {
        "one": {},
        "split": {"nids1": [other]},
        "spread": {"nids0": [first, other], "nids1": [first, other]},
    }
    return {"io": [first], "nf": nf[ways]}


def _run(settings: Settings, ways: str, size: int) -> Reading:
    topology = {
        "ports": {"in0": chains.generator(paper.SIZES[size]), "out0": {"driver": "sink"}},
        "nfs": {"nids0": paper.nf("nids", "cpu"), "nids1": paper.nf("nids", "cpu")},
        "cores": _cores(ways),
    }
    rows = chains.straight("in0", "nids0", "nids1", "out0")
    return chains.throughput(chains.run(topology, rows, settings.seconds))


def _sizes(settings: Settings) -> Sequence[int]:
    return (CLAIMED,) if settings.quick else SIZES


def cases(settings: Settings) -> list[Case]:
    """Each wiring with each packet size."""
    return [
        Case(f"{ways}, {size} B", "Mpps", partial(_run, settings, ways, size), ways != "one")
        for size in _sizes(settings)
        for ways in ("one", "split", "spread")
    ]


def ratios(settings: Settings) -> list[Ratio]:
    """Two CPUs against one."""
    few = None if len(os.sched_getaffinity(0)) > 1 else "this machine offers a single CPU"
    return [
        Ratio(
            f"{ways}_vs_one_{size}B",
            f"{ways}, {size} B",
            f"one, {size} B",
            missing=few,
            near=True,
            at_least=1.6 if size >= CLAIMED else None,  # less is no heavy work
        )
        for size in _sizes(settings)
        for ways in ("split", "spread")
    ]


def notes(_: Result) -> list[str]:
    """What a reader has to know."""
    return [
        "one: the chain on one CPU; split: its second NIDS on another; spread: both NIDS on both "
        f"CPUs, by flow. 147 made-up patterns. {paper.SIZE_NOTE}"
    ]


BENCH = Bench(
    name="pipeline",
    title="A chain of two NIDS over two CPUs against one",
    cases=cases,
    ratios=ratios,
    notes=notes,
    rounds=5,
    seconds=1.5,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
