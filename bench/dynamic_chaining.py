# SPDX-License-Identifier: BSD-3-Clause
"""Figure 7 of the Hummingbird paper: what it costs that flows choose their ways.

    f1    in -> nids0 -> ipsec0 -> router0 -> sink0
    f2    in         -> ipsec0 -> router0 -> sink0

The paper's two flows, told apart by the IP header, in mixes of 50/50 and 93/7. Its NIDS stands
behind IPsec; here it stands before, where its ways part at the port and so can be wired at all.

Dynamic and static must differ in nothing but the routing. So both have the same input ports, which
are generators with the same settings, hence the same packets in the same order, burst by burst:
2 ports for 50/50 and 14 for 93/7 (13 in 14 are 92.9 %). One lcore polls them in turn in both.

    dynamic   types f1 and f2 by ranges of the source port; flows of either type alternate as if
              at random at every port, so a burst is never of one type; every row names its type
    static    no types; each port's packets all go one way, and each node has one `*` next hop

Polling many ports takes its time, but in both alike. Each generator's 21,504 flows have as many
source ports, evenly spread, so the ranges hold exactly 1/2 and 1/14 of them. All that is different
is what is measured: rules, types, next hops by packet, bursts and rows that are not of one kind.
That the NFs did the same work is checked from the counters: shares must agree within 1 %.

Unpaced static ports left to themselves would get unequal shares: each may have so many packets in
flight, and f2's come back sooner. So every port makes a given number of packets, the same in both,
and the time until all have come out counts. That clock has steps of 50 ms, 2.5 % of a full run.
"gpu" has IPsec and NIDS on the GPU and the router on the CPU, as the paper does.

The ratios are of 64-byte packets, where routing weighs most. IPsec dwarfs everything on a CPU, so
the same is also measured with NFs that do nothing ("bare"): the cost that cannot hide.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import chains
import paper
from harness import Bench, Case, Ratio, Reading, Result, Settings, main

from hummingbird.errors import UserError

FLOWS = 21504  # the generator's source ports are multiples of 3 above 1024: as many as fit
FIRST_PORT, PORTS = 1024, 64512
MIXES = {"50/50": 2, "93/7": 14}
"""Input ports; one of them in the static wiring, and as many of the flows in the dynamic, is f2."""
WORK = {
    "cpu": {"nids0": paper.nf("nids", "cpu"), "ipsec0": paper.nf("ipsec", "cpu")},
    "gpu": {"nids0": paper.nf("nids", "gpu"), "ipsec0": paper.nf("ipsec", "gpu")},
    "bare": {"nids0": paper.nf("forward", "cpu"), "ipsec0": paper.nf("forward", "cpu")},
}
"""What stands in the places of the chain."""
LIMIT_S = 60.0
SIZES = (64, 256, 1472)


def topology(work: str, ways: str, mix: str, size: int, packets: int) -> dict[str, Any]:
    """A topology without its policy: the same one for both kinds of routing, but for the types."""
    ports = MIXES[mix]
    made = chains.generator(paper.SIZES[size], FLOWS, packets=packets)
    router = paper.nf("forward" if work == "bare" else "router", "cpu")
    whole: dict[str, Any] = {
        "ports": {**{f"in{i}": made for i in range(ports)}, "sink0": {"driver": "sink"}},
        "nfs": {**WORK[work], "router0": router},
        "cores": paper.one_lcore(),
    }
    if ways == "dynamic":
        split = FIRST_PORT + PORTS // ports
        f2, f1 = f"{FIRST_PORT}-{split - 1}", f"{split}-65535"
        whole["types"] = {"f1": {"src_port": f1}, "f2": {"src_port": f2}}
    return whole


def policy(ways: str, mix: str) -> list[tuple[str, str, str]]:
    """The rows of the policy."""
    inputs = [f"in{i}" for i in range(MIXES[mix])]
    if ways == "static":
        wired = [("*", port, "nids0") for port in inputs[:-1]] + [("*", inputs[-1], "ipsec0")]
        return wired + chains.straight("nids0", "ipsec0", "router0", "sink0")
    rows = [("f1", port, "nids0") for port in inputs] + [("f2", port, "ipsec0") for port in inputs]
    rows += [("*", port, "drop") for port in inputs]  # there is nothing else
    rows.append(("f1", "nids0", "ipsec0"))
    rows += [(name, "ipsec0", "router0") for name in ("f1", "f2")]
    return rows + [(name, "router0", "sink0") for name in ("f1", "f2")]


def check_shares(summary: dict[str, Any], mix: str) -> dict[str, float]:
    """Shares of packets by NF.

    Raises:
        UserError: they are not those of the mix, so there is nothing to compare.
    """
    shares = {name: nf["packets"] / summary["received"] for name, nf in summary["nfs"].items()}
    wanted = {"nids0": 1 - 1 / MIXES[mix], "ipsec0": 1.0, "router0": 1.0}
    for name, share in wanted.items():
        if abs(shares[name] - share) > 0.01 * share or summary["dropped"]:
            what = f"{name} got {shares[name]:.3f} of the packets and not {share:.3f}"
            raise UserError(f"{what}; dropped: {summary['dropped']}")
    return shares


@dataclass
class Pairs:
    """Measures; remembers how many packets a run makes."""

    seconds: float
    packets: dict[tuple[str, str, int], int] = field(default_factory=dict)
    """Of each port, by work, mix and packet size."""

    def _run(
        self, work: str, ways: str, mix: str, size: int, packets: int, seconds: float
    ) -> chains.Run:
        whole = topology(work, ways, mix, size, packets)
        return chains.run(whole, policy(ways, mix), seconds)

    def _count(self, work: str, mix: str, size: int) -> int:
        """Packets of a port that take about the time of a measurement: tried out once."""
        if (work, mix, size) not in self.packets:
            tried = self._run(work, "dynamic", mix, size, 0, 0.3)
            rounds = round(tried.mpps * 1e6 * self.seconds / MIXES[mix] / FLOWS)
            self.packets[work, mix, size] = max(1, rounds) * FLOWS
        return self.packets[work, mix, size]

    def measure(self, work: str, ways: str, mix: str, size: int) -> Reading:
        run = self._run(work, ways, mix, size, self._count(work, mix, size), LIMIT_S)
        shares = check_shares(run.summary, mix)
        reading = paper.throughput(run, size)
        rows = run.summary["device"].get("rows", 0)
        fill = run.summary["device"]["row_packets"] / rows if rows else None
        return Reading(reading.value, {**reading.more, "shares": shares, "packets_per_row": fill})


def case_name(work: str, ways: str, mix: str, size: int | str) -> str:
    return f"{work} {mix} {ways}, {size} B"


def kinds(settings: Settings) -> list[tuple[str, str, int]]:
    """Work, mix and size of every comparison."""
    sizes = (64,) if settings.quick else SIZES
    full = [(work, mix, size) for work in ("cpu", "gpu") for mix in MIXES for size in sizes]
    return full if settings.quick else full + [("bare", mix, 64) for mix in MIXES]


def cases(settings: Settings) -> Sequence[Case]:
    pairs = Pairs(settings.seconds)
    return [
        Case(
            case_name(work, ways, mix, size),
            "Gbit/s",
            partial(pairs.measure, work, ways, mix, size),
            two_cores=work == "gpu",
        )
        for work, mix, size in kinds(settings)
        for ways in ("dynamic", "static")
    ]


def ratios(settings: Settings) -> Sequence[Ratio]:
    suffix = {"cpu": "", "gpu": "_gpu", "bare": "_bare"}
    made = []
    for work, mix, size in kinds(settings):
        name = f"dynamic_{mix.replace('/', '_')}_vs_static{suffix[work]}"
        name += "" if size == 64 else f"_{size}B"
        dynamic, static = (case_name(work, ways, mix, size) for ways in ("dynamic", "static"))
        made.append(Ratio(name, dynamic, static, at_least=None if "bare" in name else 0.95))
    return made


def notes(result: Result) -> Sequence[str]:
    lines = ["Packets in a row of the GPU (the rest are dummies):"]
    for mix in MIXES:
        for ways in ("dynamic", "static"):
            found = paper.medians(result, case_name("gpu", ways, mix, 64), "packets_per_row")
            if found:
                lines.append(f"  {mix} {ways}, 64 B: {found['packets_per_row']:.1f}")
    step = 0.05 / result.settings["seconds"]
    clock = (
        f"A run's clock has steps of 50 ms, here {step:.0%} of a run: no ratio is surer than that."
    )
    return [paper.SIZE_NOTE, clock, "\n".join(lines)]


def plot(result: Result, picture: Any) -> None:
    """Both mixes over packet size: on the CPU, and with NFs on the GPU as in the paper."""
    picture.set_size_inches(10, 4.4)
    panels = picture.subplots(1, 2, sharey=True)
    titles = {"cpu": "all NFs on the CPU", "gpu": "IPsec and NIDS on the GPU"}
    for (work, title), axes in zip(titles.items(), panels, strict=True):
        series = [
            (f"{mix}, {ways}", case_name(work, ways, mix, "{}"))
            for mix in MIXES
            for ways in ("dynamic", "static")
        ]
        paper.bars(axes, result, paper.SIZES, series)
        axes.set_title(title, fontsize=10)
    panels[0].set_ylabel("throughput (Gbit/s)")
    paper.legend(picture, panels[0], 4)


BENCH = Bench(
    name="dynamic_chaining",
    title="Figure 7: dynamic chaining against hard-wired chains",
    cases=cases,
    ratios=ratios,
    plot=plot,
    notes=notes,
    rounds=3,
    seconds=2.0,
    quick_seconds=0.6,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
