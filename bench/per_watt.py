# SPDX-License-Identifier: BSD-3-Clause
"""Figure 8 of the Hummingbird paper: throughput per core and per unit of energy, of its chain of
IPsec, NIDS and router with none, one and two of its NFs on the GPU.

    gen0 ── ipsec0 ── nids0 ── router0 ── out0        meters: from packets flowing to the end

The paper compares itself with G-NET on another machine; here the chain on the CPU is what the
others are compared with.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import harness
import meters
import yaml
from chains import POLICIES, generator, straight
from harness import Bench, Case, Ratio, Reading, Result, Settings
from meters import Meter
from notreadable import NotReadable
from paper import RULES, one_lcore
from watched import Shared, Stretch, folder, watched

from hummingbird.errors import UserError
from hummingbird.opencl.device import choose

SIZES = {64: 60, 1472: 1472}
"""Packet sizes of the paper, and what the generator calls them: its sizes are without FCS; 4 bytes
make no difference to the large ones."""
WARM_PACKETS = 5000
NFS = ("ipsec0", "nids0", "router0")


@dataclass(frozen=True)
class Placement:
    """Which NFs are on the GPU."""

    name: str
    gpu: tuple[str, ...]


CPU = Placement("CPU only", ())
PLACEMENTS = (
    CPU,
    Placement("c-chain (IPsec on GPU)", ("ipsec0",)),
    Placement("g-chain (IPsec, NIDS on GPU)", ("ipsec0", "nids0")),
)


# ---- one run -------------------------------------------------------------------------------------


def topology(placement: Placement, size: int, at: Path) -> dict[str, Any]:
    """policies/paper_static.yaml with a generator and a sink, the paper's number of patterns, and
    other engines."""
    made: dict[str, Any] = yaml.safe_load((POLICIES / "paper_static.yaml").read_text())
    made.pop("policy")
    made["ports"] = {"gen0": generator(SIZES[size]), "out0": {"driver": "sink"}}
    for name, nf in made["nfs"].items():
        nf["engine"] = "gpu" if name in placement.gpu else "cpu"
    _key_file(made["nfs"]["ipsec0"]["sas"]["gateway"], at)
    made["nfs"]["nids0"]["rules"] = str(RULES)
    made["nfs"]["router0"]["routes"] = str(POLICIES / made["nfs"]["router0"]["routes"])
    made["cores"] = one_lcore()
    return made


def _key_file(sa: dict[str, Any], at: Path) -> None:
    """A copy that only its owner may read: another is refused."""
    own = at / "ipsec.key"
    own.touch(0o600)
    own.write_bytes((POLICIES / sa["key_file"]).read_bytes())
    sa["key_file"] = str(own)


def measure(
    placement: Placement, size: int, seconds: float, readable: Sequence[Meter]
) -> Mapping[str, Reading | UserError]:
    """Throughput, per core, and per meter what _per_energy() says."""
    # never quietly on the CPU what is called GPU
    options = ("--device", "required") if placement.gpu else ()
    with folder() as at:
        chain = topology(placement, size, at)
        with watched(chain, straight("gen0", *NFS, "out0"), at, *options) as run:
            run.await_packets(WARM_PACKETS)
            failed = meters.start(readable)
            try:
                before = run.moment()
                time.sleep(seconds)
                after = run.moment()
            finally:
                started = [m for m, why in zip(readable, failed, strict=True) if why is None]
                counted = dict(zip((m.name for m in started), meters.stop(started), strict=True))
            stretch = run.stretch(before, after)
            run.stop()
    found: dict[str, Reading | UserError] = _throughput(stretch, size)
    for meter, why in zip(readable, failed, strict=True):
        found |= _per_energy(stretch, size, meter, why or counted[meter.name])
    return found


def _gbps(stretch: Stretch, size: int) -> float:
    """Of packets as they came in: what ESP adds is no gain."""
    return stretch.packets * SIZES[size] * 8 / stretch.seconds / 1e9


def _throughput(stretch: Stretch, size: int) -> dict[str, Reading | UserError]:
    cores = stretch.lcores + stretch.other_cpu / stretch.seconds
    more = {
        "seconds": stretch.seconds,
        "lcores": stretch.lcores,
        "cores": cores,
        "packets": stretch.packets,
    }
    gbps = _gbps(stretch, size)
    return {"Gbit/s": Reading(gbps, more), "Gbit/s per core": Reading(gbps / cores, more)}


def _per_energy(
    stretch: Stretch, size: int, meter: Meter, energy: meters.Energy | NotReadable
) -> dict[str, Reading | UserError]:
    names = [f"{what}, {meter.name}" for what in ("Gbit/s per W", "uJ per packet")]
    if isinstance(energy, NotReadable):
        return dict.fromkeys(names, energy)
    if not energy.joules:
        return dict.fromkeys(names, NotReadable(f"{meter.name}: its counter does not move"))
    packets_per_second = stretch.packets / stretch.seconds
    more = {"watts": energy.watts, "meter": meter.name, "covers": meter.covers, "how": energy.how}
    per_watt = Reading(_gbps(stretch, size) / energy.watts, more)
    if not packets_per_second:
        return {names[0]: per_watt, names[1]: NotReadable("no packet came through")}
    return {names[0]: per_watt, names[1]: Reading(energy.watts * 1e6 / packets_per_second, more)}


# ---- the benchmark -------------------------------------------------------------------------------


def _case(placement: Placement, size: int, what: str) -> str:
    return f"{placement.name}, {size} B: {what}"


@dataclass
class PerWatt:
    """The benchmark with some meters."""

    wanted: Sequence[str] = ()
    """As `--meter` has them; none: all that can be read."""

    @cached_property
    def found(self) -> tuple[list[Meter], dict[str, str]]:
        """Those that can be read, and why others cannot."""
        return meters.find(self.wanted)

    def sizes(self, settings: Settings) -> list[int]:
        """Of packets."""
        return [1472] if settings.quick else list(SIZES)

    def cases(self, settings: Settings) -> list[Case]:
        """What is measured each round: one run gives all figures of a placement and a size."""
        return [
            case
            for size in self.sizes(settings)
            for placement in PLACEMENTS
            for case in self._cases_of(placement, size, settings.seconds)
        ]

    def _cases_of(self, placement: Placement, size: int, seconds: float) -> Iterator[Case]:
        readable, _ = self.found
        # a little more than the meters ask for: they start and stop around it
        least = max((meter.period_s * meters.MIN_PERIODS for meter in readable), default=0.0)
        long = max(seconds, 1.1 * least)
        shared = Shared(lambda: measure(placement, size, long, readable))
        for what, unit in self._figures():
            yield Case(_case(placement, size, what), unit, _taking(shared, what))

    def _figures(self) -> Iterator[tuple[str, str]]:
        yield "Gbit/s", "Gbit/s"
        yield "Gbit/s per core", "Gbit/s"
        for meter in self.found[0]:
            yield f"Gbit/s per W, {meter.name}", "Gbit/s/W"
            yield f"uJ per packet, {meter.name}", "uJ"

    def ratios(self, settings: Settings) -> list[Ratio]:
        """Chains with a GPU against the CPU alone, per core and per watt by each meter."""
        readable, reasons = self.found
        why = _no_gpu()
        made = []
        for size in self.sizes(settings):
            for placement in PLACEMENTS[1:]:
                name = placement.name.partition(" ")[0].replace("-", "_")
                for per, meter, what, missing in [
                    ("core", "", "Gbit/s per core", why),
                    *(("watt", f", {m.name}", f"Gbit/s per W, {m.name}", why) for m in readable),
                    *(("watt", f", {meter}", "", reason) for meter, reason in reasons.items()),
                ]:
                    of = [_case(at, size, what) for at in (placement, CPU)]
                    title = f"{name}_vs_cpu_per_{per}_{size}B{meter}"
                    made.append(Ratio(title, of[0], of[1], missing=missing))
        return made

    def notes(self, result: Result) -> list[str]:
        """What the figures are of."""
        readable, reasons = self.found
        told = [f"{meter.name}: {_story(result, meter)}" for meter in readable]
        took = max((s["seconds"] for s in result.samples if "seconds" in s), default=0.0)
        told += [f"{name}: {reason}" for name, reason in reasons.items()]
        return [
            "Meters:\n" + "\n".join(f"  {line}" for line in told),
            "Gbit/s count packets as they came in; 64 B are 60 and the FCS. Per core: divided by "
            "the lcores, which poll and so have a core each, and by the CPU time per second of all "
            "other threads of the process, those that play the GPU included. Watts are of all "
            "that a meter covers, idle parts too. A measurement took up to "
            f"{took:.1f} s: as long as the slowest meter needs.",
        ]


def _taking(shared: Shared, what: str) -> Callable[[], Reading]:
    def take() -> Reading:
        reading = shared.take(what)
        assert isinstance(reading, Reading)
        return reading

    return take


def _no_gpu() -> str | None:
    """Why this machine cannot show what a GPU gains."""
    device = choose("auto")
    if device is None:
        return "there is no OpenCL device"
    if device.is_cpu:
        return 'the "GPU" is CPU cores of this machine: the same cores and the same watts'
    return None


def _story(result: Result, meter: Meter) -> str:
    samples = [s for s in result.samples if s.get("meter") == meter.name]
    if not samples:
        return f"{meter.covers}; no figures"
    powers = [s["watts"] for s in samples]
    seen = f"{min(powers):.1f} to {max(powers):.1f} W"
    how = samples[0]["how"]
    return f"{seen}, {meter.covers}" + ("" if how == meter.covers else f", {how}")


def plot(result: Result, picture: Any) -> None:
    """As the paper has it: per core on the left, per watt on the right."""
    names = list(dict.fromkeys(s["meter"] for s in result.samples if "meter" in s))
    panels = ["Gbit/s per core", *(f"Gbit/s per W, {name}" for name in names)]
    all_axes = picture.subplots(1, max(2, len(panels)), squeeze=False)[0]
    sizes = [n for n in SIZES if result.median(_case(CPU, n, panels[0])) is not None]
    for axes, panel in zip(all_axes, panels, strict=False):
        for i, placement in enumerate(PLACEMENTS):
            values = [result.median(_case(placement, size, panel)) for size in sizes]
            known = [(x + 0.27 * (i - 1), v) for x, v in enumerate(values) if v is not None]
            axes.bar([x for x, _ in known], [v for _, v in known], 0.25, label=placement.name)
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set(xlabel="packet size (bytes)")
        axes.set_ylabel(panel.replace(", ", "\n", 1), fontsize=8)
    if not names:
        reasons = [v for k, v in result.reasons.items() if "_per_watt_" in k]
        text = "no meter can be read:\n" + "\n".join(dict.fromkeys(reasons))
        all_axes[1].text(0.5, 0.5, text, ha="center", va="center", fontsize=6, wrap=True)
        all_axes[1].set_axis_off()
    handles, labels = all_axes[0].get_legend_handles_labels()
    where = {"loc": "outside upper center", "ncols": len(PLACEMENTS)}
    picture.legend(handles, labels, **where, fontsize=8, frameon=False)


def bench(wanted: Sequence[str] = ()) -> Bench:
    """The benchmark with these meters; none: all that can be read."""
    it = PerWatt(wanted)
    return Bench(
        name="per_watt",
        title="Throughput per core and per watt (Figure 8 of the paper)",
        cases=it.cases,
        ratios=it.ratios,
        plot=plot,
        notes=it.notes,
        rounds=7,
        seconds=2.0,
        quick_seconds=0.6,
    )


BENCH = bench()


def main(argv: Sequence[str] | None = None) -> int:
    """Take `--meter` and leave the other options to the harness; returns the exit status."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    parser.add_argument(
        "--meter",
        action="append",
        default=[],
        metavar="METER",
        help=f"repeatable: {meters.SYNTAX} (default: those of {', '.join(meters.AUTOMATIC)} that "
        "can be read)",
    )
    args, rest = parser.parse_known_args(argv)
    if {"-h", "--help"} & set(rest):
        print(parser.format_help().strip(), end="\n\n")
    return harness.main(bench(args.meter), rest)


if __name__ == "__main__":
    sys.exit(main())
