# SPDX-License-Identifier: BSD-3-Clause
"""Forwarding on one core, against DPDK's testpmd; a no-op on the device against one on the CPU.

generator ── forward0 ── ... ── forward(n-1) ── sink        all on one lcore
null port 0 ══ testpmd macswap ══ null port 1               its forwarding lcore, same CPU
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import chains
import testpmd
from harness import Bench, Case, Limit, Ratio, Reading, Result, Settings, main

from hummingbird.errors import UserError
from hummingbird.opencl.device import choose

SIZE = 60  # and 4 of FCS: a 64-byte packet
FLOWS = 65536
HOPS = range(1, 6)
CLASSIFY = "n1_huge, parsing and flow cache"
RULES = 188  # as many as the firewall of peers' benchmarks
PAGES = {"": False, "_huge": True}
"""Ending of a case's name: whether it has huge pages."""
INTEL = Path(sys.prefix) / "lib" / "libintelocl.so"


def _cpus() -> tuple[int, ...]:
    """Two CPUs: `cores: auto` gives the second to the lcore and leaves the first to a device."""
    cpus = sorted(os.sched_getaffinity(0))
    return tuple(sorted({cpus[0], cpus[-1]}))


def _run(
    nfs: Mapping[str, Any],
    settings: Settings,
    *options: str,
    use: str = "none",
    types: Mapping[str, Any] | None = None,
    **how: Any,
) -> chains.Run:
    """Run a generator, NFs and a sink; `how` is passed on to chains.run()."""
    topology = {
        "types": types or {},
        "ports": {"in0": chains.generator(SIZE, FLOWS), "out0": {"driver": "sink"}},
        "nfs": nfs,
        "memory": {"mbufs": testpmd.MBUFS, "flows": FLOWS},
        "device": {"use": use},
    }
    rows = chains.straight("in0", *nfs, "out0")
    return chains.run(topology, rows, settings.seconds, *options, cpus=_cpus(), **how)


def _chain(nfs: Mapping[str, Any], settings: Settings, **how: Any) -> Reading:
    run = _run(nfs, settings, **how)
    reading = chains.throughput(run)
    return Reading(reading.value, {**reading.more, "device": run.summary["device"]})


def _rules(settings: Settings) -> Reading:
    """188 packet types, of which the flows here match the last: it costs once per flow."""
    types = {f"t{i}": {"dst": f"203.0.{i}.0/24", "protocol": "tcp"} for i in range(RULES - 1)}
    return _chain(
        chains.forwarders(1),
        settings,
        types={**types, "udp": {"protocol": "udp", "dst_port": "1-65535"}},
    )


def _classify(settings: Settings) -> Reading:
    """What parsing and the flow cache take, by the run's own profile."""
    profile = _run(chains.forwarders(1), settings, "--profile").summary["profile"]
    ticks = profile["parts"]["classify"]["ticks_per_packet"]
    return Reading(ticks / profile["ticks_per_second"] * 1e9)


def _forward(hops: int, settings: Settings, huge_pages: bool) -> Callable[[], Reading]:
    return lambda: _chain(chains.forwarders(hops), settings, huge_pages=huge_pages)


def _testpmd(settings: Settings, huge_pages: bool) -> Callable[[], Reading]:
    return lambda: testpmd.measure(settings.seconds, _cpus()[-1], huge_pages=huge_pages)


def _gnf(settings: Settings, use: str, env: Mapping[str, str]) -> Callable[[], Reading]:
    def measure() -> Reading:
        if len(_cpus()) < 2:
            raise UserError("a device that is CPU cores needs a CPU beside the lcore's")
        return _chain(chains.forwarders(1, "gpu"), settings, use=use, env=env)

    return measure


def _runtimes() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Ending of a case's name, `device.use`, and the environment that selects the runtime."""
    yield "", "required", {}
    device = choose("auto")
    if INTEL.exists() and device is not None and "Intel" not in device.platform:
        env = {"OCL_ICD_VENDORS": str(INTEL), "LD_LIBRARY_PATH": str(INTEL.parent)}
        yield "_intel", "Intel", env


def cases(settings: Settings) -> list[Case]:
    """What is measured in each round."""
    found = []
    for ending, huge_pages in PAGES.items():
        for hops in (1, 5) if settings.quick else HOPS:
            found.append(Case(f"n{hops}{ending}", "Mpps", _forward(hops, settings, huge_pages)))
        found.append(Case(f"testpmd{ending}", "Mpps", _testpmd(settings, huge_pages)))
    found.append(Case(f"n1_huge, {RULES} rules", "Mpps", lambda: _rules(settings)))
    found.append(Case(CLASSIFY, "ns/packet", lambda: _classify(settings)))
    for ending, use, env in _runtimes():
        found.append(Case(f"gnf_noop{ending}", "Mpps", _gnf(settings, use, env), two_cores=True))
    return found


def ratios(_: Settings) -> list[Ratio]:
    """What is claimed."""
    small, huge = testpmd.missing(), testpmd.missing() or _no_huge_pages()
    return [
        Ratio("n1_vs_testpmd", "n1", "testpmd", missing=small, at_least=1.5),
        Ratio("n5_vs_testpmd", "n5", "testpmd", missing=small, at_least=1.2),
        Ratio("n1_vs_testpmd_huge", "n1_huge", "testpmd_huge", missing=huge, at_least=0.5),
        Ratio("n5_vs_testpmd_huge", "n5_huge", "testpmd_huge", missing=huge, at_least=0.45),
        Ratio(f"rules{RULES}_vs_none", f"n1_huge, {RULES} rules", "n1_huge", at_least=0.95),
        *(
            # the lcore, the CPU and the memory of n1_huge are those of a no-op GNF, too
            Ratio(
                f"gnf_noop_vs_cnf_noop{ending}",
                f"gnf_noop{ending}",
                "n1_huge",
                near=True,
                at_least=0.7,
            )
            for ending, _, _ in _runtimes()
        ),
    ]


def _no_huge_pages() -> str | None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if enabled.exists() and "[never]" not in enabled.read_text(encoding="ascii"):
        return None
    return "this machine gives no transparent huge pages"


def notes(result: Result) -> list[str]:
    """What a reader has to know."""
    found = [
        "n1 to n5: generator -> n x forward -> sink on one lcore; packets of 64 B "
        f"({SIZE} and 4 of FCS), {FLOWS:,} flows. testpmd: macswap between two net_null ports, "
        f"each packet counted once. All have {testpmd.MBUFS:,} mbufs. Without _huge: 4 KiB pages "
        "only; with _huge: transparent huge pages, and reserved 2 MiB pages for testpmd.",
        "gnf_noop: one forward on the device, its lcore where n1_huge has it, which is the no-op "
        "CNF that it is compared with.",
    ]
    for ending, _, _ in _runtimes():
        devices = {
            f"{s['device']['name']}, tier {s['device']['tier']}, {s['device']['executor']} executor"
            for s in result.samples
            if s["case"] == f"gnf_noop{ending}"
        }
        found += [f"gnf_noop{ending} ran on {device}." for device in sorted(devices)]
    return found


def plot(result: Result, picture: Any) -> None:
    """Mpps over the number of forwarders, with testpmd as a line across."""
    axes = picture.add_subplot()
    styles = {"": ("C0", "4 KiB pages"), "_huge": ("C1", "huge pages")}
    for ending, (color, label) in styles.items():
        points = [(n, result.values(f"n{n}{ending}")) for n in HOPS]
        points = [(n, values) for n, values in points if values]
        hops = [n for n, _ in points]
        middle = [float(result.median(f"n{n}{ending}") or 0) for n in hops]
        below = [m - min(v) for m, (_, v) in zip(middle, points, strict=True)]
        above = [max(v) - m for m, (_, v) in zip(middle, points, strict=True)]
        spread, name = (below, above), f"Hummingbird, {label}"
        axes.errorbar(hops, middle, spread, color=color, marker="o", capsize=3, label=name)
        peer = result.median(f"testpmd{ending}")
        if peer is not None:
            axes.axhline(peer, color=color, linestyle="--", label=f"testpmd macswap, {label}")
    axes.set(xlabel="no-op NFs in the chain", ylabel="Mpps (64 B, one core)", xticks=list(HOPS))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)


BENCH = Bench(
    name="forwarding",
    title="Forwarding on one core against DPDK's testpmd, 64 B packets",
    cases=cases,
    ratios=ratios,
    plot=plot,
    notes=notes,
    rounds=5,
    seconds=1.5,
    limits=(Limit(CLASSIFY, at_most=10.0),),
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
