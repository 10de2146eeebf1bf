# SPDX-License-Identifier: BSD-3-Clause
"""Figure 5 of the Hummingbird paper: each NF alone, on the CPU and on the GPU, over packet size.

    gen0 -> NF -> sink0        one lcore for ports, CPU NF and CPUSyncer

Throughput: the generator is unpaced. Latency: it sends half of what the slower of the two engines
took in this run, so that nothing queues; from the generator's poll to the sink's, and within the
NF (for one on the GPU: from the syncer's queue until its row is reaped). `forward` does nothing:
it is the floor of what ports and syncer cost. The paper's claims: the GPU takes more of IPsec and
NIDS than a core does, and latency falls up to 5.9 times.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import chains
import paper
from harness import Bench, Case, Ratio, Reading, Result, Settings, figure, main

from hummingbird.errors import UserError

KINDS = ("forward", "router", "nids", "ipsec")
HEAVY = ("nids", "ipsec")
ENGINES = ("cpu", "gpu")
LABEL = {"forward": "forward (floor)", "router": "router", "nids": "NIDS", "ipsec": "IPsec"}


@dataclass
class Baseline:
    """Measures, and remembers what the latencies need: how much each NF took."""

    seconds: float
    took: dict[tuple[str, str, int], float] = field(default_factory=dict)
    """Mpps by NF, engine and packet size."""

    def throughput(self, kind: str, engine: str, size: int) -> Reading:
        run = paper.chain((kind, engine), size=size, seconds=self.seconds)
        self.took[kind, engine, size] = run.mpps
        return paper.throughput(run, size)

    def latency(self, kind: str, engine: str, size: int) -> Reading:
        rates = [self.took[kind, e, size] for e in ENGINES if (kind, e, size) in self.took]
        if not rates:
            raise UserError(f"{kind} passed no packet of {size} B, so there is no rate to send at")
        rate = round(min(rates) * 1e6 / 2)
        run = paper.chain((kind, engine), size=size, seconds=self.seconds, rate=rate)
        port = run.summary["ports"]["sink0"]["latency_us"]
        if port["p50"] is None:
            raise UserError(chains.NOTHING_CAME)
        nf = run.summary["nfs"][f"{kind}0"]["latency_us"]
        more = {"p99": port["p99"], "nf_p50": nf["p50"], "nf_p99": nf["p99"], "rate": rate}
        return Reading(port["p50"], {**more, "dropped": run.summary["dropped"]})


def sizes(settings: Settings) -> tuple[int, ...]:
    return (1472,) if settings.quick else tuple(paper.SIZES)


def cases(settings: Settings) -> Sequence[Case]:
    base = Baseline(settings.seconds)
    made = []
    for kind, engine, size in paper.pairs(KINDS, ENGINES, sizes(settings)):
        name = f"{kind} {engine}, {size} B"
        made.append(
            Case(name, "Gbit/s", partial(base.throughput, kind, engine, size), engine == "gpu")
        )
    slow = HEAVY[:1] if settings.quick else KINDS
    for kind, engine, size in paper.pairs(slow, ENGINES, sizes(settings)):
        name = f"{kind} {engine} latency, {size} B"
        made.append(Case(name, "us", partial(base.latency, kind, engine, size), engine == "gpu"))
    return made


def ratios(settings: Settings) -> Sequence[Ratio]:
    made = []
    for kind, size in paper.pairs(KINDS, sizes(settings)):
        made.append(
            Ratio(f"{kind}_gpu_vs_cpu_{size}B", f"{kind} gpu, {size} B", f"{kind} cpu, {size} B")
        )
    for kind in HEAVY[:1] if settings.quick else HEAVY:
        at = f"latency, {max(sizes(settings))} B"
        name = f"{kind}_latency_cpu_vs_gpu_{max(sizes(settings))}B"
        made.append(Ratio(name, f"{kind} cpu {at}", f"{kind} gpu {at}"))
    return made


def _details(result: Result, kind: str, engine: str, size: int) -> str | None:
    """A line for one NF: medians of what the table of cases has no column for."""
    rates = paper.medians(result, f"{kind} {engine}, {size} B", "mpps")
    if not rates:
        return None
    line = f"  {kind} {engine}, {size} B: {figure(rates['mpps'])} Mpps"
    late = paper.medians(
        result, f"{kind} {engine} latency, {size} B", "rate", "value", "p99", "nf_p50", "nf_p99"
    )
    if not late:
        return line
    port, nf = (
        f"{late['value']:.1f} / {late['p99']:.1f}",
        f"{late['nf_p50']:.1f} / {late['nf_p99']:.1f}",
    )
    return f"{line}; at {figure(late['rate'] / 1e6)} Mpps port to port {port} us, in the NF {nf} us"


def notes(result: Result) -> Sequence[str]:
    found = (_details(result, *at) for at in paper.pairs(KINDS, ENGINES, paper.SIZES))
    lines = ["Packets a second, and latencies p50 / p99:", *(line for line in found if line)]
    return [paper.SIZE_NOTE, "\n".join(lines)]


def plot(result: Result, picture: Any) -> None:
    """The paper's two panels: throughput, and beside it latency."""
    picture.set_size_inches(10, 4.4)
    left, right = picture.subplots(1, 2)
    series = [
        (f"{LABEL[kind]}, {engine.upper()}", f"{kind} {engine}{{}}")
        for kind, engine in paper.pairs(KINDS, ENGINES)
    ]
    paper.lines(left, result, paper.SIZES, [(n, c.format(", {} B")) for n, c in series])
    left.set_ylabel("throughput (Gbit/s)")
    paper.lines(right, result, paper.SIZES, [(n, c.format(" latency, {} B")) for n, c in series])
    right.set_ylabel("latency port to port, p50 (µs)")
    paper.legend(picture, left, len(KINDS))


BENCH = Bench(
    name="nf_baseline",
    title="Figure 5: each NF alone, CPU against GPU",
    cases=cases,
    ratios=ratios,
    plot=plot,
    notes=notes,
    rounds=3,
    seconds=0.4,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
