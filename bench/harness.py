# SPDX-License-Identifier: BSD-3-Clause
"""What every benchmark shares: options, rounds in which the cases alternate, ratios with their
spread, the table, the JSON and the picture.

A benchmark is a script that makes a `Bench` and calls `main()`. Figures of a shared machine mean
little by themselves; a claim is a ratio of two cases measured in turn in one run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hummingbird.errors import UserError

FAR_NS = 200.0
"""Two CPUs whose round trip of one cache line takes longer than this are "far": 55 and 440 ns are
typical (a round trip through two rings moves several lines and takes 240 and 855 ns)."""

TERMINATED = 143
"""Exit status: 128 + SIGTERM, as shells have it."""
SHORT = "HUMMINGBIRD_BENCH_SECONDS"
"""Environment variable for tests of what a benchmark writes: one round, each measurement this long;
the figures are worth nothing then."""


@dataclass(frozen=True)
class Reading:
    """What one measurement found."""

    value: float
    """In the unit of its case."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is worth keeping with the sample, such as latencies."""


@dataclass(frozen=True)
class Case:
    """Something that is measured once a round."""

    name: str
    unit: str
    measure: Callable[[], Reading]
    two_cores: bool = False
    """It moves data between two CPUs: whether these are near or far is recorded with each sample,
    and a sample during which that changed takes no part in a ratio."""


@dataclass(frozen=True)
class Ratio:
    """One case against another, round by round."""

    name: str
    case: str
    base: str
    inverse: bool = False
    """Base over case: for values of which less is better."""
    missing: str | None = None
    """Why this machine cannot show it; None if it can."""
    near: bool = False
    """Only rounds in which the two CPUs were near count."""
    at_least: float | None = None
    """What its median shall reach, if there is such a claim ..."""
    at_most: float | None = None
    """... or not exceed."""


@dataclass(frozen=True)
class Limit:
    """A claim about the values of a case themselves, in its unit: about their median. Of a case of
    two CPUs only samples taken while these were near count."""

    case: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def claim(self) -> dict[str, float]:
        """As it is written down."""
        bounds = {"at_least": self.at_least, "at_most": self.at_most}
        return {kind: bound for kind, bound in bounds.items() if bound is not None}


@dataclass
class Settings:
    """How thorough a run is."""

    quick: bool
    rounds: int
    seconds: float
    """Of each measurement."""


@dataclass
class Result:
    """What a benchmark has found: written as JSON as it is."""

    bench: str
    machine: dict[str, Any]
    runtime: str | None
    tier: str | None
    settings: dict[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, dict[str, float] | None] = field(default_factory=dict)
    claims: dict[str, dict[str, float]] = field(default_factory=dict)
    """By ratio, or by case for a limit: what was claimed, ``at_least`` or ``at_most``."""
    limits: dict[str, dict[str, float] | None] = field(default_factory=dict)
    """By case: median, low and high of the samples that a limit is about."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a ratio is null, or a case has no samples."""
    notes: list[str] = field(default_factory=list)

    def values(self, case: str) -> list[float]:
        """The values of a case, one a round; empty if it could not be measured."""
        return [s["value"] for s in self.samples if s["case"] == case]

    def median(self, case: str) -> float | None:
        """The median of a case; None without samples."""
        values = self.values(case)
        return statistics.median(values) if values else None


@dataclass(frozen=True)
class Bench:
    """A benchmark."""

    name: str
    title: str
    cases: Callable[[Settings], Sequence[Case]]
    ratios: Callable[[Settings], Sequence[Ratio]] = lambda _: ()
    plot: Callable[[Result, Any], None] | None = None
    """Draws a Result on a matplotlib figure, in the form of the paper's figure."""
    notes: Callable[[Result], Sequence[str]] = lambda _: ()
    """What a reader has to know to understand the table."""
    rounds: int = 7
    seconds: float = 2.0
    quick_seconds: float = 0.3
    limits: Sequence[Limit] = ()


# ---- the machine ---------------------------------------------------------------------------------


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.lower().startswith(("model name", "cpu model", "hardware")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def machine() -> dict[str, Any]:
    """What a figure depends on and a reader cannot know."""
    thp = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "transparent_huge_pages": thp.read_text().split("[")[1].split("]")[0]
        if thp.exists()
        else "no",
        "load_before": round(os.getloadavg()[0], 2),
    }


def round_trip_ns() -> float | None:
    """Of one cache line between the first two CPUs of this process; None with a single CPU."""
    from hummingbird.dataplane.plane import ping_pong

    cpus = sorted(os.sched_getaffinity(0))
    return ping_pong(cpus[0], cpus[1]) if len(cpus) > 1 else None


# ---- measuring -----------------------------------------------------------------------------------


def _measure(case: Case, number: int) -> dict[str, Any]:
    before = round_trip_ns() if case.two_cores else None
    reading = case.measure()
    after = round_trip_ns() if case.two_cores else None
    sample = {"case": case.name, "round": number, "value": reading.value, "unit": case.unit}
    if before is not None and after is not None:
        sample["round_trip_ns"] = [round(before), round(after)]
    return {**sample, **reading.more}


def _run_rounds(
    result: Result, cases: Sequence[Case], settings: Settings, console: Console
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(result.bench, total=settings.rounds * len(cases))
        for number in range(settings.rounds):
            # forwards and backwards in turn, so that a drift does not always favour the same case
            for case in cases if number % 2 == 0 else reversed(cases):
                progress.update(task, description=f"{result.bench}: {case.name}")
                if case.name not in result.reasons:
                    try:
                        result.samples.append(_measure(case, number))
                    except UserError as error:
                        result.reasons[case.name] = str(error)
                progress.advance(task)


def distance(sample: Mapping[str, Any]) -> str | None:
    """``near``, ``far`` or ``changed`` for a sample of two CPUs, None for one of one."""
    trips = sample.get("round_trip_ns")
    if not trips:
        return None
    far = [trip > FAR_NS for trip in trips]
    return "changed" if far[0] != far[1] else "far" if far[0] else "near"


def _pairs(result: Result, ratio: Ratio) -> list[float]:
    by_round: dict[int, dict[str, dict[str, Any]]] = {}
    for sample in result.samples:
        by_round.setdefault(sample["round"], {})[sample["case"]] = sample
    pairs = []
    for samples in by_round.values():
        if ratio.case not in samples or ratio.base not in samples:
            continue
        case, base = samples[ratio.case], samples[ratio.base]
        states = {distance(case), distance(base)} - {None}
        if "changed" in states or len(states) > 1 or (ratio.near and "far" in states):
            continue
        if case["value"] > 0 and base["value"] > 0:
            value = case["value"] / base["value"]
            pairs.append(1 / value if ratio.inverse else value)
    return pairs


def _work_out(result: Result, ratio: Ratio) -> None:
    result.ratios[ratio.name] = None
    if ratio.at_least is not None:
        result.claims[ratio.name] = {"at_least": ratio.at_least}
    elif ratio.at_most is not None:
        result.claims[ratio.name] = {"at_most": ratio.at_most}
    if ratio.missing:
        result.reasons[ratio.name] = ratio.missing
        return
    for case in (ratio.case, ratio.base):
        if case in result.reasons:
            result.reasons[ratio.name] = f"{case} could not be measured: {result.reasons[case]}"
            return
    pairs = _pairs(result, ratio)
    if not pairs:
        wanted = "near" if ratio.near else "equally far from each other in both cases"
        result.reasons[ratio.name] = f"in no round were the two CPUs {wanted}"
        return
    result.ratios[ratio.name] = {**_spread(pairs), "pairs": len(pairs)}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _check_limit(result: Result, limit: Limit) -> None:
    of_case = [s for s in result.samples if s["case"] == limit.case]
    values = [s["value"] for s in of_case if distance(s) in (None, "near")]
    result.claims[limit.case] = limit.claim
    result.limits[limit.case] = _spread(values) if values else None
    if of_case and not values:
        result.reasons[limit.case] = "in no round were the two CPUs near"


def claim_text(claim: Mapping[str, float] | None) -> str:
    """A claim for people; nothing if there is none."""
    if claim is None:
        return ""
    return "".join(f"{'>=' if kind == 'at_least' else '<='} {claim[kind]:g}" for kind in claim)


def verdict(claim: Mapping[str, float] | None, found: Mapping[str, float] | None) -> str:
    """What has come of a claim."""
    if found is None:
        return "not measurable here"
    if claim is None:
        return "no bound"
    met = found["median"] >= claim.get("at_least", -math.inf)
    met = met and found["median"] <= claim.get("at_most", math.inf)
    return "met" if met else "not met"


# ---- showing -------------------------------------------------------------------------------------


def figure(value: float) -> str:
    """Three significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def _case_table(result: Result, cases: Sequence[Case]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("case")
    for name in ("median", "low", "high"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    if any(case.two_cores for case in cases):
        table.add_column("the two CPUs were")
    for case in cases:
        values = result.values(case.name)
        if not values:
            table.add_row(case.name, "-", "-", "-", case.unit)
            continue
        states = [distance(s) for s in result.samples if s["case"] == case.name]
        seen = ", ".join(sorted({s for s in states if s}))
        row = [figure(statistics.median(values)), figure(min(values)), figure(max(values))]
        table.add_row(case.name, *row, case.unit, *([seen] if case.two_cores else []))
    return table


def _claims_table(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ratio, or figure with a limit")
    for name in ("median", "low", "high", "claim"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, found in {**result.ratios, **result.limits}.items():
        claim = result.claims.get(name)
        spread = [figure(found[key]) if found else "-" for key in ("median", "low", "high")]
        table.add_row(name, *spread, claim_text(claim), verdict(claim, found))
    return table


def _own_reasons(result: Result) -> dict[str, str]:
    """Without those of ratios that only repeat why a case was not measured."""
    of_cases = [reason for name, reason in result.reasons.items() if name not in result.ratios]
    return {
        name: reason
        for name, reason in result.reasons.items()
        if name not in result.ratios or not any(other in reason for other in of_cases)
    }


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """The names that share a reason."""
    found: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        found.setdefault(reason, []).append(name)
    return found


def _show(console: Console, bench: Bench, result: Result, cases: Sequence[Case]) -> None:
    m = result.machine
    console.print(f"[bold]{bench.title}[/bold]")
    console.print(f"{m['cpu']}, {m['cpus']} CPUs, kernel {m['kernel']}, load {m['load_before']}")
    if result.runtime:
        console.print(f"{result.runtime}, tier {result.tier or 'not probed'}")
    s = result.settings
    rounds = "1 round" if s["rounds"] == 1 else f"{s['rounds']} rounds"
    console.print(f"{rounds} of {s['seconds']:g} s a case, taken in turn\n")
    console.print(_case_table(result, cases))
    if result.ratios or result.limits:
        console.print()
        console.print(_claims_table(result))
    for reason, names in _by_reason(_own_reasons(result)).items():
        console.print(f"\n{'; '.join(names)}: not measured: {reason}", markup=False)
    for note in result.notes:
        console.print(f"\n{note}")


def make_logarithmic(axes: Any) -> bool:
    """Give a panel a logarithmic y-axis, if it shows anything above 0: matplotlib draws none of
    zeros. Returns whether it does."""
    if not axes.dataLim.y1 > 0:
        return False
    axes.set_yscale("log")
    return True


def _plot(bench: Bench, result: Result, path: Path) -> None:
    if bench.plot is None:
        raise UserError(f"{bench.name} draws no picture", fix="leave --plot out")
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise UserError("matplotlib is missing", fix="pip install matplotlib") from None
    layout = ConstrainedLayoutEngine(rect=(0, 0.03, 1, 0.97))  # below it: what was measured on
    picture = Figure(figsize=(7, 4.2), layout=layout)
    if result.samples:
        bench.plot(result, picture)
    else:  # axes without data may refuse to be drawn
        picture.text(0.5, 0.5, "nothing could be measured on this machine", ha="center")
    m = result.machine
    where = f"{m['cpu']}, {m['cpus']} CPUs" + (f"; {result.runtime}" if result.runtime else "")
    picture.text(0.995, 0.005, where, ha="right", va="bottom", fontsize=6, color="0.4")
    picture.savefig(path, dpi=150)


# ---- main ----------------------------------------------------------------------------------------


def _parse(bench: Bench, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"hummingbird bench {bench.name}", description=bench.title
    )
    parser.add_argument("--quick", action="store_true", help="quicker, and less certain")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples and ratios")
    if bench.plot is not None:
        parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw a picture")
    return parser.parse_args(argv)


def _device() -> tuple[str | None, str | None]:
    """Runtime and tier of the device that GPU NFs run on."""
    from hummingbird.opencl import probe
    from hummingbird.opencl.device import choose

    device = choose("auto")
    if device is None:
        return None, None
    known = probe.known_tier(device)
    on = ' (the "GPU" is CPU cores of this machine)' if device.is_cpu else ""
    return f"{device.name} on {device.platform}{on}", known.tier if known else None


def _settings(bench: Bench, quick: bool) -> Settings:
    rounds, seconds = (3, bench.quick_seconds) if quick else (bench.rounds, bench.seconds)
    if SHORT in os.environ:
        rounds, seconds = 1, float(os.environ[SHORT])
    return Settings(quick, rounds, seconds)


def run(bench: Bench, quick: bool, console: Console) -> tuple[Result, Sequence[Case]]:
    """Measure everything."""
    settings = _settings(bench, quick)
    runtime, tier = _device()
    result = Result(bench.name, machine(), runtime, tier, vars(settings))
    cases = bench.cases(settings)
    _run_rounds(result, cases, settings, console)
    for ratio in bench.ratios(settings):
        _work_out(result, ratio)
    for limit in bench.limits:
        _check_limit(result, limit)
    result.notes += bench.notes(result)
    return result, cases


def main(bench: Bench, argv: Sequence[str] | None = None) -> int:
    """Run a benchmark from the command line; returns the exit status."""
    args = _parse(bench, argv)
    # what a benchmark starts or reserves is given back in a `finally`, which SIGTERM would skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    console = Console()
    try:
        result, cases = run(bench, args.quick, console)
        _show(console, bench, result, cases)
        if args.json:
            args.json.write_text(json.dumps(vars(result), indent=1) + "\n", encoding="utf-8")
        if getattr(args, "plot", None):
            _plot(bench, result, args.plot)
    except UserError as error:
        print(f"hummingbird: error: {error}", file=sys.stderr)
        return 2
    return 0
