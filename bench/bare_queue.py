# SPDX-License-Identifier: BSD-3-Clause
"""The ring between lcores and the queue between CPU and GPU by themselves: no ports, no routes.

What they carry bounds every chain; what they cost the host is paid by every packet.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial

import queues
from harness import Bench, Case, Limit, Ratio, Reading, Result, Settings, main

from hummingbird.dataplane.plane import ring_hop
from hummingbird.errors import UserError
from hummingbird.opencl.bare import TOUCH, BareQueue, Program
from hummingbird.opencl.session import PERSISTENT

ROWS = 16
"""In flight: enough that neither side waits for the other's round trip."""
PACKETS_PER_SECOND = 20_000_000
"""Of the ring's cases: what it carries at least, to turn a time into a count."""
HOST_COST = "host cost at full rows of 64"


def _hop(settings: Settings, *, headers: bool) -> Reading:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise UserError("a ring between lcores needs two CPUs")
    packets = int(settings.seconds * PACKETS_PER_SECOND)
    return Reading(ring_hop(cpus[0], cpus[1], packets, headers=headers))


def _stream(settings: Settings, lanes: int) -> Reading:
    queue = queues.queue(PERSISTENT, lanes=lanes)
    return queues.reading(queue.run(rows=ROWS, seconds=settings.seconds))


def _host_cost(settings: Settings) -> Reading:
    found = queues.queue(PERSISTENT).run(rows=ROWS, seconds=settings.seconds)
    return queues.reading(found, found.host_ns_per_packet)


def _lone_row(settings: Settings) -> Reading:
    queue = queues.queue(PERSISTENT)
    found = queue.run(rows=1, together=True, seconds=settings.seconds)
    reading = queues.reading(found, found.trip_us)
    return Reading(reading.value, {**reading.more, "p99_us": found.trip_p99_us})


def _device_row(settings: Settings, nf: Callable[[], Program], count: int) -> Reading:
    """All rows are there before the device looks, so it never waits for the host."""
    queue: BareQueue = queues.queue(PERSISTENT, nf=nf())
    rows = queues.MOST_ROWS
    found = queue.run(rows=rows, count=count, together=True, seconds=settings.seconds)
    return queues.reading(found, (found.trip_us or 0) / rows)


PROGRAMS: dict[str, Callable[[], Program]] = {"touch": lambda: TOUCH, "nids": queues.nids}
FILLS = {"full": queues.LANES, "half": queues.LANES // 2, "dummies": 0}


def cases(settings: Settings) -> list[Case]:
    """Everything crosses between two CPUs."""
    found = [
        Case("ring hop, handles", "ns/packet", partial(_hop, settings, headers=False), True),
        Case("ring hop, header read", "ns/packet", partial(_hop, settings, headers=True), True),
    ]
    for lanes in (64, 256):
        found.append(
            Case(
                f"bare queue, rows of {lanes}",
                "Mpps",
                partial(_stream, settings, lanes),
                True,
            )
        )
    found.append(Case(HOST_COST, "ns/packet", partial(_host_cost, settings), True))
    found.append(Case("round trip of a lone row of 64", "us", partial(_lone_row, settings), True))
    for name, nf in PROGRAMS.items():
        for fill, count in FILLS.items():
            found.append(
                Case(
                    f"device, {name}, row of 64: {fill}",
                    "us/row",
                    partial(_device_row, settings, nf, count),
                    True,
                )
            )
    return found


def ratios(_: Settings) -> list[Ratio]:
    """By program: the cheapest one, and one that does some work."""
    found = []
    for name, end in {"touch": "", "nids": "_nids"}.items():
        case = f"device, {name}, row of 64: "
        dummies, half, full = (case + fill for fill in ("dummies", "half", "full"))
        found.append(Ratio(f"dummy_row_vs_full_row{end}", dummies, full, at_most=0.1))
        found.append(Ratio(f"half_row_vs_full_row{end}", half, full, at_most=0.6))
    return found


def notes(result: Result) -> Sequence[str]:
    """What the figures mean."""
    ticks = [
        s["host_tsc_ticks_per_packet"]
        for s in result.samples
        if s["case"] == HOST_COST and s["host_tsc_ticks_per_packet"]
    ]
    lines = [
        f"{ROWS} rows in flight; the device changes one word a packet (NF touch). Device rows: "
        f"{queues.MOST_ROWS} are published at once, and the time until all are finished is "
        "divided by their number. nids: the demonstration's patterns over 64-byte packets.",
    ]
    if ticks:
        lines.append(
            f"Host cost is fill, publish and reap without waiting: {statistics.median(ticks):.1f} "
            "ticks of the constant counter (TSC) per packet; core cycles cannot be read here."
        )
    return lines


LIMITS = (
    Limit("ring hop, handles", at_most=5.0),
    Limit("ring hop, header read", at_most=15.0),
    Limit(HOST_COST, at_most=7.5),
)

BENCH = Bench(
    name="bare_queue",
    title="The queue and the ring by themselves",
    cases=cases,
    ratios=ratios,
    notes=notes,
    limits=LIMITS,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
