# SPDX-License-Identifier: BSD-3-Clause
"""The network functions by themselves, each against the best library of its kind, on one core.

4096 packets ── engine of ipsec: ipsec_mb | cpu ──────── libipsec-mb, called directly
             ── engine of nids: hyperscan | cpu ──────── hs_scan(); a DFA over 8 packets at a time
rules        ── engine of the firewall: avx2 | cpu ──── rte_acl of DPDK
addresses    ── the router's look-up ─────────────────── rte_fib of DPDK
4096 packets ── device code of ipsec and nids on each OpenCL runtime

Both sides get the same packets in bursts of 128, on the same CPU, in this process, in turn; before
anything is measured they have to give the same answers (nf_sides.py).
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import nf_acls
import nf_kernels
import nf_lookups
import nf_sides
import paper
import peer
import workload
from harness import Bench, Case, Limit, Ratio, Reading, Result, Settings, figure, main

from hummingbird.dataplane.bare import BURST
from hummingbird.opencl.device import choose

SIZES = (64, 256, 1024, 1472)
"""Bytes to encrypt or to search: multiples of 16."""
LARGE = 1472
"""The size that has bounds."""
FLOORS = {"PoCL": {"ipsec": 0.5, "nids": 3.2}, "Intel": {"ipsec": 1.7, "nids": 6.8}}
"""Gbit/s a core at 1472 B of straightforward kernels."""
KERNELS = {
    "ipsec": "ESP kernel",
    "nids": "Aho-Corasick kernel",
    "plain": "plain Aho-Corasick kernel",
}


def sizes(settings: Settings) -> tuple[int, ...]:
    return (LARGE,) if settings.quick else SIZES


ipsec = functools.cache(nf_sides.Ipsec)
nids = functools.cache(nf_sides.Nids)


def _libraries(size: int, seconds: float) -> dict[str, Callable[[], Reading]]:
    """The cases of a packet size; each engine stands beside its peer."""
    return {
        f"ipsec, ipsec_mb, {size} B": lambda: ipsec(size).engine("ipsec_mb", seconds),
        f"ipsec, ipsec_mb, all of it, {size} B": lambda: ipsec(size).whole("ipsec_mb", seconds),
        f"libipsec-mb, {size} B": lambda: ipsec(size).peer(seconds),
        f"ipsec, cpu, {size} B": lambda: ipsec(size).engine("cpu", seconds),
        f"nids, hyperscan, {size} B": lambda: nids(size).engine("hyperscan", seconds),
        f"hs_scan, {size} B": lambda: nids(size).peer("hyperscan", seconds),
        f"nids, cpu, {size} B": lambda: nids(size).engine("cpu", seconds),
        f"8-way DFA, {size} B": lambda: nids(size).peer("dfa8", seconds),
    }


def _kernel(runtime: str, nf: str, size: int, seconds: float) -> Reading:
    return nf_kernels.runtime(runtime).measure(nf, size, seconds)


def _runtimes() -> list[str]:
    """Those with floors, and the GPU if there is one."""
    device = choose("auto")
    return [*FLOORS, "GPU"] if device is not None and not device.is_cpu else list(FLOORS)


def _acls(settings: Settings) -> list[tuple[str, str]]:
    """Sets of rules, and how many: where there are any."""
    if nf_acls.missing():
        return [("acl1", "188")]
    counts = ("188",) if settings.quick else nf_acls.SIZES
    return list(itertools.product(nf_acls.SETS, counts))


def cases(settings: Settings) -> list[Case]:
    """What is measured in each round."""
    found = []
    for size in sizes(settings):
        for name, measure in _libraries(size, settings.seconds).items():
            found.append(Case(name, "Gbit/s", measure))
    for name in nf_lookups.ADDRESSES:
        for side, look in nf_lookups.SIDES.items():
            measure = partial(look, name, settings.seconds)
            found.append(Case(f"{side}, {name}", "M lookups/s", measure))
    for rules, count in _acls(settings):
        for side, search in nf_acls.SIDES.items():
            measure = partial(search, rules, count, settings.seconds)
            found.append(Case(f"{side}, {rules} {count}", "M packets/s", measure))
    for runtime, nf, size in paper.pairs(_runtimes(), KERNELS, sizes(settings)):
        kernel = partial(_kernel, runtime, nf, size, settings.seconds)
        found.append(Case(f"{KERNELS[nf]}, {runtime}, {size} B", "Gbit/s", kernel))
    return found


def ratios(settings: Settings) -> list[Ratio]:
    """What is claimed: at 1472 B, and of the look-up."""
    found = []
    for size in sizes(settings):
        bound = 0.9 if size == LARGE else None
        for name, ours, theirs, missing in (
            ("ipsec_vs_ipsec_mb", "ipsec, ipsec_mb", "libipsec-mb", "ipsec_mb"),
            ("nids_vs_hyperscan", "nids, hyperscan", "hs_scan", "hyperscan"),
            ("nids_portable_vs_dfa8", "nids, cpu", "8-way DFA", "dfa8"),
        ):
            case, base = f"{ours}, {size} B", f"{theirs}, {size} B"
            why = peer.missing(missing)
            found.append(Ratio(f"{name}_{size}B", case, base, missing=why, at_least=bound))
    for name, addresses, bound in (
        ("router_vs_rte_fib_64k_flows", "64k flows", 0.8),
        ("router_vs_rte_fib_uniform", "uniform", 0.6),
    ):
        case, base = (f"{side}, {addresses}" for side in nf_lookups.SIDES)
        found.append(Ratio(name, case, base, missing=peer.missing("fib"), at_least=bound))
    for rules, count in _acls(settings):
        case, base = (f"{side}, {rules} {count}" for side in nf_acls.SIDES)
        name = f"firewall_vs_rte_acl_{count}" + ("" if rules == "acl1" else f"_{rules}")
        bound = 0.8 if count == "188" else None
        found.append(Ratio(name, case, base, missing=nf_acls.missing(), at_least=bound))
    for runtime, size in paper.pairs(_runtimes(), sizes(settings)):
        case, base = (f"{KERNELS[kind]}, {runtime}, {size} B" for kind in ("nids", "plain"))
        found.append(Ratio(f"nids_kernel_vs_plain_{runtime}_{size}B", case, base))
    return found


LIMITS = tuple(
    Limit(f"{KERNELS[nf]}, {runtime}, {LARGE} B", at_least=floor)
    for runtime, floors in FLOORS.items()
    for nf, floor in floors.items()
)


def _cycles(result: Result, case: str) -> str | None:
    found = paper.medians(result, case, "ns", "cycles_per_byte")
    if not found:
        return None
    cycles = figure(found["cycles_per_byte"])
    return f"  {case}: {figure(found['ns'])} ns a packet, {cycles} cycles a byte"


def _ways(result: Result) -> str | None:
    """Which of a peer's functions were the fastest."""
    ways: dict[str, set[str]] = {}
    for sample in result.samples:
        if "way" in sample:
            ways.setdefault(sample["case"].split(",")[0], set()).add(sample["way"])
    said = [f"{name}: {' or '.join(sorted(way))}" for name, way in ways.items()]
    return f"Fastest ways of the peers: {'; '.join(said)}." if said else None


def notes(result: Result) -> list[str]:
    """What a reader has to know."""
    known = dict.fromkeys(sample["case"] for sample in result.samples)
    lines = [line for case in known if (line := _cycles(result, case))]
    devices = sorted({s["device"] for s in result.samples if "device" in s})
    found = [
        "Bytes are those to encrypt (AES-128-CBC; HMAC-SHA1-96 covers 24 more) or to search "
        f"({len(workload.patterns())} patterns; HTTP, of which 2 % carry one). "
        f"{nf_sides.PACKETS} packets in bursts of {BURST}, each put back between passes, whose "
        "lower quartile of CPU time counts. Engines also find their payload, encrypt an IV and "
        "write the outer header; peers are told where it is, and get IV and headers ready made.",
        nf_lookups.NOTE,
        nf_acls.NOTE,
        "Kernels: all packets in one enqueue of one work-item a packet; on a CPU runtime one core. "
        "The plain one walks a full table in global memory and only counts.",
        f"Core clock {nf_sides.clock():.2f} GHz, by dependent additions. "
        f"Peers: {', '.join(peer.versions()) or 'none'}.",
    ]
    found += [f"Kernels ran on {', '.join(devices)}."] if devices else []
    found += [said] if (said := _ways(result)) else []
    return [*found, "\n".join(["Costs, medians:", *lines])] if lines else found


def plot(result: Result, picture: Any) -> None:
    """Engine and peer over packet size, one panel an NF."""
    picture.set_size_inches(10, 4.4)
    axes = picture.subplots(1, 2)
    panels = {
        "IPsec": ("ipsec, ipsec_mb", "libipsec-mb", "ipsec, cpu"),
        "NIDS": ("nids, hyperscan", "hs_scan", "nids, cpu", "8-way DFA"),
    }
    for panel, (title, series) in zip(axes, panels.items(), strict=True):
        named = [(name, f"{name}, {{}} B") for name in series]
        paper.bars(panel, result, SIZES, named)
        panel.set_ylabel("Gbit/s, one core")
        panel.set_title(title, fontsize=9)
        panel.legend(fontsize=7)


BENCH = Bench(
    name="nf",
    title="Network functions against the best library of their kind, one core",
    cases=cases,
    ratios=ratios,
    plot=plot,
    notes=notes,
    rounds=7,
    seconds=0.3,
    quick_seconds=0.2,
    limits=LIMITS,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
