# SPDX-License-Identifier: BSD-3-Clause
"""Figures 2 to 6 of the GPUNFV paper: how large batches are, whether the CPU waits for the GPU, and
what both cost, with batches that size themselves and with fixed ones.

    gen0 ── router0 or ipsec0 (GPU) ── sink0        one lcore, and a CPU that plays the GPU

A batch is the packets of a row. Ours is what there is when the NF would run dry or the row is full
(publish.h); a fixed one goes when it has so many packets and never before: the same data plane with
that one condition replaced (variant.py, peers/fixed_batch.h) and rows of that many lanes. GPUNFV's
own rule, which adds 320 packets at a time to a fixed batch, ends at some fixed batch.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import chains
import paper
import variant
from batches import one_run, seen, spins, two
from harness import Bench, Case, Limit, Ratio, Reading, Result, Settings, main
from watched import Watched, folder, watched

from hummingbird.errors import UserError
from hummingbird.telemetry.stats import Snapshot

NFS = ("router", "ipsec")
"""Little work for each packet, and much: the paper has 60 and 180 firewall rules."""
FLOWS = 1024
LANES = 64
"""Of device.lanes, where a topology does not say."""
WIDE = 256
"""Rows in which batches have room to grow."""
LOW = 10_000
"""Packets a second, "low load": they come 100 us apart."""
LOADS = {"1 %": 0.01, "10 %": 0.1, "30 %": 0.3, "50 %": 0.5, "70 %": 0.7, "90 %": 0.9}
"""Shares of what the chain carries."""
OVERLOAD = "150 %"
ALL = "all it carries"
"""A source that waits, with credits: saturation without drops."""
BATCHES = (8, 16, 32, 64, 128, 256, 512)
TWO_ROWS = (8, 16, 32, 64, 128, 256)
"""Fixed batches as GPUNFV has them: one is on the GPU, one is filled meanwhile."""
WARM_PACKETS = 2000
STEP_S = 0.001
"""Between two looks at a start."""
START_S = 0.2
START_WITHIN_S = 20.0
NO_WORSE = 0.95
"""Of the best fixed batch: less than what rounds differ by is no difference."""


# ---- one run -------------------------------------------------------------------------------------


def topology(nf: str, rate: float | None, lanes: int, depth: int = 64) -> dict[str, Any]:
    """A generator, the NF on the device, a sink, all on one lcore."""
    made = chains.generator(60, FLOWS, **({"rate": rate} if rate else {}))
    return {
        "ports": {"gen0": made, "sink0": {"driver": "sink"}},
        "nfs": {f"{nf}0": paper.nf(nf, "gpu")},
        "cores": paper.one_lcore(),
        "device": {"use": "required", "lanes": lanes, "depth": depth},
    }


def rows_of(nf: str) -> list[tuple[str, str, str]]:
    """The route policy."""
    return chains.straight("gen0", f"{nf}0", "sink0")


GNF = 2
"""Number of the node: ports first, then NFs."""


def _run(nf: str, source: Mapping[str, Any], seconds: float, *options: str, **how: Any) -> Reading:
    warm = WARM_PACKETS if "rate" not in source["ports"]["gen0"] else 1
    with folder() as at, watched(source, rows_of(nf), at, *options, **how) as run:
        run.await_packets(warm)
        time.sleep(0.05)
        before = run.moment()
        time.sleep(seconds)
        _await_row(run, before.counters)
        after = run.moment()
        stretch = run.stretch(before, after)
        if not how:  # with a fixed batch the last packets are too few, and never go
            run.stop()
    found = seen(before, after, stretch, GNF, spinning=spins())
    return Reading(found["mpps_undisturbed"], found)


def _await_row(run: Watched, before: Snapshot) -> None:
    """Until there is a row of which something can be said: a busy machine may have let the run wait
    all the time."""
    end = time.monotonic() + START_WITHIN_S
    while _rows(run.look()[1])[0] == _rows(before)[0] and time.monotonic() < end:
        time.sleep(STEP_S)


def _rows(now: Snapshot) -> tuple[int, int]:
    """So far, and packets in them."""
    return int(now.lcores["rows"].sum()), int(now.lcores["row_packets"].sum())


# ---- what is measured ----------------------------------------------------------------------------


@functools.cache
def carries(nf: str) -> int:
    """Packets a second, the better of two short runs: what loads are shares of."""
    runs = [_run(nf, topology(nf, None, LANES), 0.2) for _ in range(2)]
    return round(max(run.value for run in runs) * 1e6)


def paced(nf: str, rate: float, lanes: int, seconds: float) -> Reading:
    """A source that does not wait, so that an overload is one."""
    reading = _run(nf, topology(nf, rate, lanes), seconds)
    return Reading(reading.value, {**reading.more, "offered_mpps": rate / 1e6})


def saturated(nf: str, lanes: int, seconds: float) -> Reading:
    """As many packets as come through, our rule."""
    return _run(nf, topology(nf, None, lanes), seconds, "--profile")


_fixed: dict[tuple[str, int], list[float]] = {}
"""Mpps, by NF and batch, of every round so far."""


def fixed(nf: str, batch: int, seconds: float, depth: int = 64) -> Reading:
    """The same with batches of a fixed size."""
    how = variant.environment("fixed_batch")
    reading = _run(nf, topology(nf, None, batch, depth), seconds, "--profile", env=how)
    if reading.more["batch"] != batch:
        raise UserError(f"batches were {reading.more['batch']} and not {batch}: not the rule meant")
    return reading


def compared(nf: str, batch: int, seconds: float) -> Reading:
    """One of the fixed batches of which the best counts."""
    reading = fixed(nf, batch, seconds)
    _fixed.setdefault((nf, batch), []).append(reading.value)
    return reading


def best_batch(nf: str) -> int:
    """The one with the best median; any before there are any."""
    known = {batch: statistics.median(v) for (name, batch), v in _fixed.items() if name == nf}
    return max(known, key=lambda batch: known[batch], default=LANES)


def start(nf: str, seconds: float) -> Reading:
    """From the first row on: milliseconds until the batch is within a tenth of what it stays at."""
    with folder() as at, watched(topology(nf, None, WIDE), rows_of(nf), at) as run:
        run.await_packets(0)
        looks = _looks(run, min(seconds, START_S))
        run.stop()
    return _growth(looks)


Look = tuple[float, int, int]
"""Milliseconds, rows so far, packets in them."""


def _looks(run: Watched, seconds: float) -> list[Look]:
    """One after the other, from the last without a row on."""
    found: list[Look] = []
    end = time.monotonic() + START_WITHIN_S
    while time.monotonic() < end:
        reader, now = run.look()
        rows, packets = _rows(now)
        if rows and not (found and found[-1][1]):  # the first of them
            end = time.monotonic() + seconds
        if not rows:
            found.clear()
        found.append((now.ticks / reader.ticks_per_second * 1e3, rows, packets))
        time.sleep(STEP_S)
    return found


def _growth(looks: Sequence[Look]) -> Reading:
    series = [
        {
            "ms": b[0] - looks[0][0],
            "batch": (b[2] - a[2]) / (b[1] - a[1]),
            "mpps": (b[2] - a[2]) / (b[0] - a[0]) / 1e3,
        }
        for a, b in itertools.pairwise(looks)
        if b[1] > a[1]
    ]
    if len(series) < 4:
        raise UserError("the start was not seen: the machine is too busy, or the time too short")
    stays = statistics.median(look["batch"] for look in series[len(series) // 2 :])
    there = next(look["ms"] for look in series if look["batch"] >= 0.9 * stays)
    return Reading(there, {"stays": stays, "series": series})


# ---- the benchmark -------------------------------------------------------------------------------


def _lanes_name(lanes: int) -> str:
    return f"own batch, rows of {lanes}"


def _nfs(settings: Settings) -> Sequence[str]:
    return NFS[:1] if settings.quick else NFS


def _loads(settings: Settings) -> dict[str, float]:
    return {"50 %": 0.5} if settings.quick else LOADS


def _batches(settings: Settings) -> Sequence[int]:
    return (LANES, WIDE) if settings.quick else BATCHES


def _two_rows(settings: Settings) -> Sequence[int]:
    return (32,) if settings.quick else TWO_ROWS


def _low_load(nf: str, seconds: float) -> Iterator[Case]:
    yield from one_run(
        lambda: paced(nf, LOW, LANES, seconds),
        {
            f"{nf}, load {LOW:,}/s: batch": ("batch", "packets"),
            f"gnf_latency_p50_us_{nf}": ("gnf_p50", "us"),
            f"gnf_latency_p99_us_{nf}": ("gnf_p99", "us"),
            f"gnf_latency_p999_us_{nf}": ("gnf_p999", "us"),
        },
    )


def _load(nf: str, load: str, share: float, seconds: float) -> Iterator[Case]:
    yield from one_run(
        lambda: paced(nf, round(share * carries(nf)), LANES, seconds),
        {
            f"{nf}, load {load}: batch": ("batch", "packets"),
            f"{nf}, load {load}: CPU waits": ("waiting", "% of passes"),
        },
    )


def _saturation(nf: str, seconds: float) -> Iterator[Case]:
    yield from one_run(
        lambda: saturated(nf, LANES, seconds),
        {
            f"{nf}, load {ALL}: batch": ("batch", "packets"),
            f"cpu_waiting_{nf}": ("waiting", "% of passes"),
            f"{nf}, {_lanes_name(LANES)}": ("mpps_undisturbed", "Mpps"),
            f"{nf}, {_lanes_name(LANES)}: nothing to do": ("resting", "% of time"),
        },
    )
    yield two(f"{nf}, {_lanes_name(WIDE)}", "Mpps", lambda: saturated(nf, WIDE, seconds))


def _fixed_cases(nf: str, settings: Settings) -> Iterator[Case]:
    seconds = settings.seconds
    for batch in _batches(settings):
        yield two(f"{nf}, fixed batch {batch}", "Mpps", partial(compared, nf, batch, seconds))
    for batch in _two_rows(settings):
        yield from one_run(
            partial(fixed, nf, batch, seconds, 2),
            {
                f"{nf}, fixed batch {batch}, two rows": ("mpps_undisturbed", "Mpps"),
                f"{nf}, fixed batch {batch}, two rows: CPU waits": ("waiting", "% of passes"),
                f"{nf}, fixed batch {batch}, two rows: nothing to do": ("resting", "% of time"),
            },
        )


def cases(settings: Settings) -> Sequence[Case]:
    """By NF: load from idle to overload, fixed batches, the start."""
    found: list[Case] = []
    for nf in _nfs(settings):
        found += _low_load(nf, settings.seconds)
        for load, share in _loads(settings).items():
            found += _load(nf, load, share, settings.seconds)
        found += _saturation(nf, settings.seconds)
        found += _load(nf, OVERLOAD, 1.5, settings.seconds)
        found += _fixed_cases(nf, settings)
        found.append(
            two(f"{nf}, start: batch is there", "ms", partial(start, nf, settings.seconds))
        )
    return found


def ratios(settings: Settings) -> Sequence[Ratio]:
    """Against the fixed batch that was best in this run, whichever that is."""
    found = []
    for nf in _nfs(settings):
        best = f"{nf}, fixed batch {best_batch(nf)}"
        wide, usual = f"{nf}, {_lanes_name(WIDE)}", f"{nf}, {_lanes_name(LANES)}"
        found.append(Ratio(f"adaptive_vs_best_fixed_{nf}", wide, best, at_least=NO_WORSE))
        found.append(Ratio(f"adaptive_rows_of_{LANES}_vs_best_fixed_{nf}", usual, best))
    return found


def notes(result: Result) -> Sequence[str]:
    """What the figures mean."""
    best = ", ".join(f"{nf}: {best_batch(nf)}" for nf in NFS if result.values(f"cpu_waiting_{nf}"))
    launches = paper.medians(result, f"gnf_latency_p50_us_{NFS[0]}", "launches_per_second")
    relaunches = f"{launches['launches_per_second']:.0f}" if launches else "some"
    return [
        f"The best fixed batch of this run, by medians: {best or 'not measured'}. `{ALL}` is a "
        "source that waits: it never has more packets in flight than 1,024, and rows have room "
        f"for {64 * LANES:,}, so no pass finds them all taken; when the device is behind, the "
        "lcore has nothing to do instead. `150 %` is a source that does not wait: where the device "
        "is what is slower, every row is taken whatever the rule is.",
        "Mpps are by the time that lcore and device had their CPUs, the one that had less of it: "
        "what else runs on the machine does not count. On an idle machine it is the clock's.",
        "CPU waits: share of a syncer's passes that left packets waiting because no row was free. "
        "Nothing to do: share of the lcore's time in passes that found nothing. Fixed batches with "
        "two rows are as in GPUNFV, one on the GPU and one being filled.",
        "gnf_latency: from the NF's queue until the row has come back, one sample for each row, at "
        f"{LOW:,} packets a second. It has the {relaunches} relaunches a second in it, of some 0.1 "
        "ms each. On a CPU runtime the GPU is one of the cores, and whatever else the machine does "
        "there adds to the high percentiles.",
        "Start: until a look, one a millisecond, shows batches within a tenth of what they stay "
        "at.",
    ]


# ---- the picture ---------------------------------------------------------------------------------


def plot(result: Result, picture: Any) -> None:
    """GPUNFV's figures, and what a GNF adds to the latency."""
    picture.set_size_inches(12, 7)
    panels = picture.subplots(2, 3).flatten()
    draw = (_draw_batch, _draw_latency, _draw_fixed, _draw_waiting, _draw_start, _draw_rise)
    for axes, panel in zip(panels, draw, strict=True):
        panel(result, axes)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)


def _by_load(result: Result, nf: str, key: str) -> list[tuple[float, float]]:
    """Points (Mpps offered or carried, median of `key`), in the order of the load."""
    names = [f"{LOW:,}/s", *LOADS, ALL, OVERLOAD]
    found = []
    for name in names:
        point = paper.medians(result, f"{nf}, load {name}: batch", key, "mpps")
        offered = paper.medians(result, f"{nf}, load {name}: batch", "offered_mpps")
        if point:
            found.append((offered.get("offered_mpps", point["mpps"]), point[key]))
    return sorted(found)


def _lines(result: Result, axes: Any, keys: Mapping[str, str], **labels: str) -> None:
    for number, nf in enumerate(NFS):
        for style, (label, key) in zip(("o-", "s--"), keys.items(), strict=False):
            points = _by_load(result, nf, key)
            if points:
                axes.plot(
                    *zip(*points, strict=True), style, color=f"C{number}", label=f"{nf}{label}"
                )
    axes.set(xscale="log", yscale="log", **labels)


def _draw_batch(result: Result, axes: Any) -> None:
    _lines(result, axes, {"": "batch"}, xlabel="offered (Mpps)", ylabel="packets a row")
    axes.set_title("batch over load", fontsize=9)


def _draw_latency(result: Result, axes: Any) -> None:
    keys = {", p50": "gnf_p50", ", p99": "gnf_p99"}
    _lines(result, axes, keys, xlabel="offered (Mpps)", ylabel="us in the GNF")
    axes.set_title("latency over load", fontsize=9)


def _curve(result: Result, axes: Any, case: str, what: Sequence[int], **how: Any) -> None:
    points = [(batch, result.median(case.format(batch))) for batch in what]
    known = [point for point in points if point[1] is not None]
    if known:
        axes.plot(*zip(*known, strict=True), **how)


def _draw_fixed(result: Result, axes: Any) -> None:
    """Figures 2 and 3: throughput over batch, and our rule as a level."""
    for number, nf in enumerate(NFS):
        color = f"C{number}"
        name = f"{nf}, fixed batch {{}}"
        _curve(result, axes, name, BATCHES, color=color, marker="o", label=f"{nf}, fixed")
        two = f"{name}, two rows"
        _curve(result, axes, two, TWO_ROWS, color=color, ls=":", label=f"{nf}, fixed, two rows")
        own = result.median(f"{nf}, {_lanes_name(WIDE)}")
        if own:
            axes.axhline(own, color=color, ls="--", label=f"{nf}, own batch")
    axes.set(xscale="log", yscale="log", xlabel="packets a row", ylabel="Mpps")
    axes.set_title("throughput over a fixed batch", fontsize=9)


def _draw_waiting(result: Result, axes: Any) -> None:
    """Figure 4: the lcore's time."""
    for number, nf in enumerate(NFS):
        name = f"{nf}, fixed batch {{}}, two rows: "
        for style, (what, unit) in {
            "-": ("CPU waits", "passes"),
            ":": ("nothing to do", "time"),
        }.items():
            label = f"{nf}: {what}, % of {unit}"
            _curve(result, axes, name + what, TWO_ROWS, color=f"C{number}", ls=style, label=label)
    axes.set(xscale="log", xlabel="packets a row, two rows", ylabel="%")
    axes.set_title("CPU waiting over a fixed batch", fontsize=9)


def _series(result: Result, nf: str, key: str) -> tuple[list[float], list[float]]:
    """Of the first round."""
    samples = [s for s in result.samples if s["case"] == f"{nf}, start: batch is there"]
    series = samples[0]["series"] if samples else []
    return [look["ms"] for look in series], [look[key] for look in series]


def _draw_start(result: Result, axes: Any) -> None:
    for nf in NFS:
        axes.plot(*_series(result, nf, "batch"), label=nf)
    axes.set(xlabel="ms after the first row", ylabel="packets a row")
    axes.set_title("batch from the start", fontsize=9)


def _draw_rise(result: Result, axes: Any) -> None:
    for nf in NFS:
        axes.plot(*_series(result, nf, "mpps"), label=nf)
    axes.set(xlabel="ms after the first row", ylabel="Mpps", ylim=(0, None))
    axes.set_title("throughput from the start", fontsize=9)


BENCH = Bench(
    name="adaptive_batch",
    title="Batches that size themselves against fixed ones (GPUNFV, figures 2 to 6)",
    cases=cases,
    ratios=ratios,
    plot=plot,
    notes=notes,
    rounds=5,
    seconds=0.8,
    quick_seconds=0.3,
    limits=tuple(
        Limit(f"{case}_{nf}", at_most=most)
        for nf in NFS
        for case, most in (("cpu_waiting", 2.0), ("gnf_latency_p50_us", 5.0))
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
