# SPDX-License-Identifier: BSD-3-Clause
"""CPU used when there is nearly nothing to do, and what a lone packet waits for: one NF that does
nothing, a generator, a sink.

    gen0 (a packet now and then) ── nf0 (CPU, persistent kernel, launches) ── out0

Awake: the packets come so often that the kernel stays. Asleep: between two packets it has left and
the lcore sleeps. A packet waits twice then: from when it is due until the lcore wakes up and
receives it, and from there until the kernel is back and it comes out.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from chains import NOTHING_CAME
from harness import (
    Bench,
    Case,
    Limit,
    Ratio,
    Reading,
    Result,
    Settings,
    main,
    make_logarithmic,
)
from paper import one_lcore
from watched import Shared, Stretch, folder, watched

from hummingbird.errors import UserError

IDLE_RATE = 0.5
"""Packets a second; --quick is shorter and takes one in its time."""
AWAKE_RATE = 5000
"""So far apart that a packet is alone, so near that the kernel never has idle_ms (100) without."""
ASLEEP_RATE = 5
"""Twice idle_ms apart: the kernel has left."""
P50_US, P99_US = 5, 50
"""What is wanted of a lone packet on PoCL, awake, cores near."""
ROWS = [("*", "gen0", "nf0"), ("*", "nf0", "out0")]


@dataclass(frozen=True)
class Way:
    """How the NF runs."""

    name: str
    engine: str
    options: tuple[str, ...]


WAYS = (
    Way("CPU only", "cpu", ()),
    Way("persistent", "gpu", ("--executor", "persistent")),
    Way("launch", "gpu", ("--executor", "launch")),
)


def _run(
    way: Way, rate: float, seconds: float, first: int, capture: bool
) -> tuple[Stretch, list[float]]:
    """A stretch that begins when `first` packets are through; with a capture also by how many us
    each later packet was received too late."""
    with folder() as at:
        out = {"driver": "pcap", "write": "out.pcap"} if capture else {"driver": "sink"}
        topology = {
            "ports": {"gen0": {"driver": "generator", "rate": rate, "size": 60}, "out0": out},
            "nfs": {"nf0": {"type": "forward", "engine": way.engine}},
            "cores": one_lcore(),
        }
        with watched(topology, ROWS, at, *way.options) as run:
            run.await_packets(first)
            before = run.moment()
            time.sleep(seconds)
            after = run.moment()
            stretch = run.stretch(before, after)
            run.stop()
        return stretch, late_us(at / "out.pcap", rate)[first:] if capture else []


def late_us(capture: Path, rate: float) -> list[float]:
    """By how much packets of a paced generator were received after they were due. It stamps them
    when it is polled, and the first of them is the start of its schedule."""
    times = list(_times(capture.read_bytes()))
    return [(t - times[0]) * 1e6 - k / rate * 1e6 for k, t in enumerate(times)]


def _times(data: bytes) -> Iterator[float]:
    """Seconds since the first packet's second, of a nanosecond capture in this byte order."""
    at, epoch = 24, None
    while at + 16 <= len(data):
        seconds, nanoseconds, length = struct.unpack_from("=III", data, at)
        epoch = seconds if epoch is None else epoch
        yield seconds - epoch + nanoseconds / 1e9
        at += 16 + length


# ---- figures -------------------------------------------------------------------------------------


def idle(way: Way, rate: float, seconds: float) -> Reading:
    """Percent of one core, over whole periods of the generator."""
    stretch, _ = _run(way, rate, seconds, 1, False)
    more = {
        "lcore_cpu_seconds": stretch.lcore_cpu,
        "other_cpu_seconds": stretch.other_cpu,
        "seconds": stretch.seconds,
        "launches": stretch.launches,
    }
    return Reading(100 * stretch.cpu / stretch.seconds, more)


def awake(way: Way, seconds: float) -> Mapping[str, Reading]:
    """A packet that is alone, port to port."""
    stretch, _ = _run(way, AWAKE_RATE, seconds, AWAKE_RATE // 10, False)
    return _percentiles(stretch)


def _percentiles(stretch: Stretch) -> dict[str, Reading]:
    more = {"packets": int(stretch.latency.sum()), "launches": stretch.launches}
    return {name: Reading(stretch.latency_us(q), more) for name, q in (("p50", 0.5), ("p99", 0.99))}


def asleep(way: Way, seconds: float) -> Mapping[str, Reading]:
    """The same with a kernel that has left; and how late a sleeping lcore received it."""
    stretch, late = _run(way, ASLEEP_RATE, seconds, 2, True)
    if not late:
        raise UserError(NOTHING_CAME)
    more = {"packets": len(late), "largest": max(late)}
    return {**_percentiles(stretch), "late": Reading(float(np.median(late)), more)}


# ---- the benchmark -------------------------------------------------------------------------------


def _cases_of(way: Way, settings: Settings) -> Iterator[Case]:
    rate = IDLE_RATE if settings.seconds >= 1 / IDLE_RATE else 1 / settings.seconds
    periods = max(1, int(settings.seconds * rate))
    # two CPUs move data only where one of them plays the GPU
    two = way.engine == "gpu"
    lone = Shared(lambda: awake(way, min(settings.seconds, 2.0)))
    woken = Shared(lambda: asleep(way, settings.seconds))

    def taking(shared: Shared, key: str) -> Callable[[], Reading]:
        return lambda: _reading(shared, key)

    yield Case(
        f"{way.name}: idle, {rate:g} packets/s",
        "% of a core",
        lambda: idle(way, rate, periods / rate),
    )
    yield Case(f"{way.name}: awake, p50", "us", taking(lone, "p50"), two)
    yield Case(f"{way.name}: awake, p99", "us", taking(lone, "p99"), two)
    yield Case(f"{way.name}: asleep, until received", "us", taking(woken, "late"))
    yield Case(f"{way.name}: asleep, from there, p50", "us", taking(woken, "p50"), two)


def _reading(shared: Shared, key: str) -> Reading:
    reading = shared.take(key)
    assert isinstance(reading, Reading)
    return reading


def cases(settings: Settings) -> Sequence[Case]:
    """What is measured each round."""
    return [case for way in WAYS for case in _cases_of(way, settings)]


def ratios(_: Settings) -> Sequence[Ratio]:
    """What waking up costs, and what a launch costs a packet that comes alone."""
    awake_p50 = "persistent: awake, p50"
    return [
        Ratio("asleep_vs_awake_persistent", "persistent: asleep, from there, p50", awake_p50),
        Ratio("launch_vs_persistent_awake", "launch: awake, p50", awake_p50),
    ]


def notes(_: Result) -> Sequence[str]:
    """How to read the table."""
    return [
        "awake: a packet through one no-op NF, from when the generator made it to its output port, "
        f"{AWAKE_RATE:,} a second. asleep: {ASLEEP_RATE} a second, so the kernel has left and the "
        "lcore sleeps; 'until received' is from when a packet is due to when the lcore polls the "
        "generator (median, the generator's own time stamps), 'from there' is port to port. "
        "Packets of 64 bytes, FCS included; one lcore, on another CPU than what plays a GPU.",
    ]


def plot(result: Result, picture: Any) -> None:
    """Idle CPU beside the latencies, which have a logarithmic axis."""
    left, right = picture.subplots(1, 2)
    idle_cases = list(dict.fromkeys(s["case"] for s in result.samples if ": idle" in s["case"]))
    left.bar([c.partition(":")[0] for c in idle_cases], [result.median(c) or 0 for c in idle_cases])
    left.set_ylabel("CPU used when idle, % of a core")
    kinds = ("awake, p50", "awake, p99", "asleep, until received", "asleep, from there, p50")
    for i, way in enumerate(WAYS):
        points = [(k, result.median(f"{way.name}: {kind}")) for k, kind in enumerate(kinds)]
        known = [(k + 0.27 * (i - 1), value) for k, value in points if value]
        right.bar([x for x, _ in known], [y for _, y in known], 0.25, label=way.name)
    right.set_xticks(range(len(kinds)), [k.replace(", ", ",\n") for k in kinds], fontsize=7)
    make_logarithmic(right)
    right.set_ylabel("us")
    right.legend(fontsize=7)


BENCH = Bench(
    name="idle",
    title="CPU used when idle, and the latency of a lone packet, awake and asleep",
    cases=cases,
    ratios=ratios,
    plot=plot,
    notes=notes,
    rounds=5,
    seconds=4.0,
    quick_seconds=1.0,
    limits=(
        Limit("persistent: awake, p50", at_most=P50_US),
        Limit("persistent: awake, p99", at_most=P99_US),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
