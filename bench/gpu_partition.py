# SPDX-License-Identifier: BSD-3-Clause
"""Figure 6 of the Hummingbird paper: IPsec - NIDS - Router with the NIDS on the GPU (g-chain)
against all three on the CPU (c-chain), over packet size.

    g-chain   gen0 -> ipsec0 (CPU) -> nids0 (GPU) -> router0 (CPU) -> sink0
    c-chain   gen0 -> ipsec0 (CPU) -> nids0 (CPU) -> router0 (CPU) -> sink0

One lcore has the ports, the CPU NFs and the CPUSyncer in both. The paper has IPsec on the GPU in
both of its chains; here only the NIDS moves, so that the chains differ in nothing else. Where the
"GPU" is CPU cores the ratio of the two says little, so the g-chain is held against what its parts
predict. Alone, in the same run, one after the other, are measured (t is 1 / packets per second)

    t_ports   gen0 -> sink0                 t_ipsec   gen0 -> ipsec0 (CPU) -> sink0
    t_gnf     gen0 -> forward (GPU) -> sink0    t_router  gen0 -> router0 (CPU) -> sink0
    t_nids    gen0 -> nids0 (GPU) -> sink0, with packets as long as ESP makes them (1514 B at most)

    host = t_ports + (t_ipsec - t_ports) + (t_router - t_ports) + (t_gnf - t_ports)
    predicted = min(1 / host, 1 / t_nids)

Each bracket is what the NF or the syncer adds to the ports; a forward on the GPU costs the syncer
what a NIDS there costs it. The prediction leaves out that lcore and device share caches.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import paper
from harness import Bench, Case, Ratio, Reading, Result, Settings, main

from hummingbird.errors import UserError

LONGEST = 1514
CHAINS = {
    "g-chain": (("ipsec", "cpu"), ("nids", "gpu"), ("router", "cpu")),
    "c-chain": (("ipsec", "cpu"), ("nids", "cpu"), ("router", "cpu")),
}


def esp_length(frame: int) -> int:
    """Bytes of a frame (without FCS) behind IPsec: RFC 4303 in tunnel mode, AES-128-CBC and
    HMAC-SHA1-96."""
    encrypted = (frame - 14 + 2 + 15) // 16 * 16
    return 14 + 20 + 8 + 16 + encrypted + 12


def predict(t: dict[str, float]) -> float:
    """Mpps of the g-chain from the microseconds per packet of its parts: see above.

    Raises:
        UserError: these cannot be: the ports alone were disturbed.
    """
    host = t["ports"] + sum(t[part] - t["ports"] for part in ("ipsec", "router", "gnf"))
    if host <= 0:
        raise UserError("ports took longer without NFs than with them: the machine is too busy")
    return min(1 / host, 1 / t["nids"])


def measure(name: str, size: int, seconds: float) -> Reading:
    return paper.throughput(paper.chain(*CHAINS[name], size=size, seconds=seconds), size)


def measure_parts(size: int, seconds: float) -> Reading:
    frame = paper.SIZES[size]
    parts: dict[str, tuple[tuple[tuple[str, str], ...], int]] = {
        "ports": ((), frame),
        "ipsec": ((("ipsec", "cpu"),), frame),
        "router": ((("router", "cpu"),), frame),
        "gnf": ((("forward", "gpu"),), frame),
        "nids": ((("nids", "gpu"),), min(esp_length(frame), LONGEST)),
    }
    us = {
        name: paper.chain(*steps, size=long, seconds=seconds).us_per_packet
        for name, (steps, long) in parts.items()
    }
    return Reading(predict(us) * frame * 8 / 1e3, {"mpps": predict(us), "us_per_packet": us})


def sizes(settings: Settings) -> tuple[int, ...]:
    return (64, 1472) if settings.quick else tuple(paper.SIZES)


def cases(settings: Settings) -> Sequence[Case]:
    made = []
    for size in sizes(settings):
        for name in CHAINS:
            run = partial(measure, name, size, settings.seconds)
            made.append(Case(f"{name}, {size} B", "Gbit/s", run, name == "g-chain"))
        if not settings.quick or size == 1472:
            run = partial(measure_parts, size, settings.seconds)
            made.append(Case(f"predicted, {size} B", "Gbit/s", run, True))
    return made


def ratios(settings: Settings) -> Sequence[Ratio]:
    made = [
        Ratio(f"g_chain_vs_c_chain_{size}B", f"g-chain, {size} B", f"c-chain, {size} B")
        for size in sizes(settings)
    ]
    for size in sizes(settings):
        if not settings.quick or size == 1472:
            base = f"predicted, {size} B"
            made.append(
                Ratio(f"g_chain_vs_predicted_{size}B", f"g-chain, {size} B", base, at_least=0.9)
            )
    return made


def notes(result: Result) -> Sequence[str]:
    lines = [
        "predicted = min(1 / (ports + ipsec + router + syncer), 1 / nids on the GPU), each measured"
        " alone; ipsec, router and syncer without the ports. Last round:"
    ]
    for size in paper.SIZES:
        found = [s for s in result.samples if s["case"] == f"predicted, {size} B"]
        if found:
            us = found[-1]["us_per_packet"]
            added = {"ports": us["ports"], "nids": us["nids"]}
            added |= {part: us[part] - us["ports"] for part in ("ipsec", "router", "gnf")}
            added["syncer"] = added.pop("gnf")
            parts = ", ".join(f"{part} {value * 1e3:.0f}" for part, value in added.items())
            lines.append(f"  {size} B: {parts} ns a packet")
    return [paper.SIZE_NOTE, "\n".join(lines)]


def plot(result: Result, picture: Any) -> None:
    """Bars of the two chains over packet size, and marks where the prediction lies."""
    axes = picture.subplots()
    series = [
        ("g-chain (NIDS on the GPU)", "g-chain, {} B"),
        ("c-chain (all CPU)", "c-chain, {} B"),
    ]
    paper.bars(axes, result, paper.SIZES, series)
    shown = [size for size in paper.SIZES if result.values(f"g-chain, {size} B")]
    label: str | None = "predicted for the g-chain"
    for place, size in enumerate(shown):
        value = result.median(f"predicted, {size} B")
        if value is not None:
            axes.hlines(value, place - 0.27, place + 0.02, color="k", linestyle=":", label=label)
            label = None
    axes.set_ylabel("throughput (Gbit/s)")
    paper.legend(picture, axes, 3)


BENCH = Bench(
    name="gpu_partition",
    title="Figure 6: IPsec - NIDS - Router, NIDS on the GPU against all on the CPU",
    cases=cases,
    ratios=ratios,
    plot=plot,
    notes=notes,
    rounds=5,
    seconds=0.5,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
