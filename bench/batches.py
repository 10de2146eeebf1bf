# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmarks of batches share: what the counters of a run say of rows, waiting and time,
and runs that give several figures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from chains import NOTHING_CAME
from harness import Case, Reading
from watched import Moment, Shared, Stretch

from hummingbird.errors import UserError
from hummingbird.opencl import probe
from hummingbird.opencl.device import choose

REST = -1
"""The account of passes that find nothing to do, last of a profile."""


@functools.cache
def spins() -> bool:
    """The device is CPU cores that run a persistent kernel, and so are busy all the time."""
    device = choose("auto")
    return device is not None and device.is_cpu and probe.tier_of(device).tier != "C"


def seen(
    before: Moment, after: Moment, stretch: Stretch, gnf: int, *, spinning: bool
) -> dict[str, Any]:
    """Everything that a stretch of a run has to say; times in microseconds, shares in percent.

    ``mpps`` is by the clock; ``mpps_undisturbed`` by the time that lcore and device had their CPUs,
    the one that had less of it: both are always busy when packets wait, and other work on the
    machine takes time from them. On an idle machine the two are the same.

    Args:
        before: its begin.
        after: its end.
        stretch: between the two.
        gnf: number of the node.
        spinning: the device has a CPU that it keeps busy.
    """
    had = min(stretch.lcore_cpu / stretch.lcores, stretch.other_cpu if spinning else math.inf)
    mpps = stretch.packets / stretch.seconds / 1e6
    a, b = before.counters, after.counters
    count = {
        name: int(b.lcores[name].sum()) - int(a.lcores[name].sum())
        for name in ("passes", "idle_passes", "starved", "rows", "row_packets")
    }
    busy = max(count["passes"] - count["idle_passes"], count["starved"])
    profile = b.profile - a.profile
    latency = {"gnf": b.latency[gnf] - a.latency[gnf], "port": stretch.latency}
    return {
        **count,
        "batch": count["row_packets"] / count["rows"] if count["rows"] else 0.0,
        "waiting": 100 * count["starved"] / max(count["passes"], 1),
        "waiting_of_passes_with_work": 100 * count["starved"] / max(busy, 1),
        "resting": 100 * float(profile[REST]) / float(profile.sum()) if profile.sum() else None,
        "mpps": mpps,
        "mpps_undisturbed": mpps / min(1.0, had / stretch.seconds) if had else mpps,
        "dropped_mpps": (int(b.drops.sum()) - int(a.drops.sum())) / stretch.seconds / 1e6,
        "launches_per_second": stretch.launches / stretch.seconds,
        "lcore_cpu": stretch.lcore_cpu / stretch.seconds,
        "other_cpu": stretch.other_cpu / stretch.seconds,
        **{
            f"{where}_{name}": stretch.reader.percentile_us(histogram, fraction)
            for where, histogram in latency.items()
            for name, fraction in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
        },
    }


def one_run(run: Callable[[], Reading], figures: Mapping[str, tuple[str, str]]) -> Iterator[Case]:
    """Cases that one run gives together.

    Args:
        run: what has all figures in its reading's ``more``.
        figures: by name of the case the figure's name and its unit.
    """
    shared = Shared(lambda: dict.fromkeys(figures, run()))
    for name, (key, unit) in figures.items():
        yield two(name, unit, partial(_take, shared, name, key))


def two(name: str, unit: str, measure: Callable[[], Reading]) -> Case:
    """A case of two CPUs: the lcore's and the one that plays the GPU."""
    return Case(name, unit, measure, two_cores=True)


def _take(shared: Shared, name: str, key: str) -> Reading:
    reading = shared.take(name)
    value = reading.more[key]
    if value is None:
        raise UserError(NOTHING_CAME)
    return Reading(value, reading.more)
