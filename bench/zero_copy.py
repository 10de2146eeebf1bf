# SPDX-License-Identifier: BSD-3-Clause
"""Figure 3 of the Hummingbird paper: a persistent kernel on shared memory against a kernel launched
for each batch, with copies; over packet size, and over batch.

The bare queue carries the claim: same host code, same rows, same NF, only the executor differs. The
whole path (generator, GNF, sink) is printed beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import chains
import queues
from harness import (
    Bench,
    Case,
    Ratio,
    Reading,
    Result,
    Settings,
    main,
    make_logarithmic,
)
from queues import BATCHES, LANES

from hummingbird.opencl.session import LAUNCH, PERSISTENT

SIZES = (64, 128, 256, 512, 1024, 1472)
"""Bytes of a packet."""
ENQUEUED = 1024
"""Batch of the claim about the launch executor."""
OURS = {PERSISTENT: "persistent, shared memory", LAUNCH: "launch + copy"}


def _bare(settings: Settings, executor: str, copies: bool, size: int, batch: int) -> Reading:
    queue = queues.queue(executor, copies=copies)
    rows = 2 * batch // LANES  # a batch on the device, and one that is filled meanwhile
    found = queue.run(rows=rows, length=size, seconds=settings.seconds)
    reading = queues.reading(found)
    gbps = reading.value * size * 8 / 1e3
    return Reading(reading.value, {**reading.more, "gbps": gbps})


def _enqueue(settings: Settings, copies: bool, batch: int) -> Reading:
    loop = queues.loop(batch, copies=copies)
    return queues.reading(loop.run(seconds=settings.seconds))


def _path(settings: Settings, executor: str, size: int, lanes: int) -> Reading:
    frame = 60 if size == 64 else size  # the paper's 64 bytes count the FCS
    topology = {
        "ports": {"in0": chains.generator(frame), "out0": {"driver": "sink"}},
        "nfs": chains.forwarders(1, "gpu"),
        "device": {"executor": executor, "lanes": lanes},
    }
    staged = {"HUMMINGBIRD_BINDING": "staged"} if executor == LAUNCH else {}
    rows = chains.straight("in0", "forward0", "out0")
    run = chains.run(topology, rows, settings.seconds, env=staged)
    return chains.throughput(run)


def _bare_name(executor: str, size: int, batch: int = LANES) -> str:
    return f"{OURS[executor]}, {size} B, batch {batch}"


def _shapes(settings: Settings) -> list[tuple[int, int]]:
    """Sizes and batches of the bare queue; each over the least of the other."""
    sizes = (64, 512, 1472) if settings.quick else SIZES
    return [(size, LANES) for size in sizes] + [(64, batch) for batch in _batches(settings)[1:]]


def _batches(settings: Settings) -> tuple[int, ...]:
    return (LANES, ENQUEUED) if settings.quick else BATCHES


def _bare_cases(settings: Settings) -> list[Case]:
    return [
        Case(
            _bare_name(executor, size, batch),
            "Mpps",
            partial(_bare, settings, executor, executor == LAUNCH, size, batch),
            True,
        )
        for size, batch in _shapes(settings)
        for executor in OURS
    ]


def _enqueue_cases(settings: Settings) -> list[Case]:
    found = []
    for batch in _batches(settings):
        found += [
            Case(
                f"enqueue loop, {name}, 64 B, batch {batch}",
                "Mpps",
                partial(_enqueue, settings, copies, batch),
                True,
            )
            for name, copies in (("copy", True), ("shared memory", False))
        ]
        found.append(
            Case(
                f"launch, shared memory, 64 B, batch {batch}",
                "Mpps",
                partial(_bare, settings, LAUNCH, False, 64, batch),
                True,
            )
        )
    return found


def _path_cases(settings: Settings) -> list[Case]:
    shapes = [(size, LANES) for size in ((64, 1472) if settings.quick else SIZES)]
    if not settings.quick:
        shapes += [(64, 256), (1472, 256)]
    return [
        Case(
            f"whole path, {OURS[executor]}, {size} B, rows of {lanes}",
            "Mpps",
            partial(_path, settings, executor, size, lanes),
            True,
        )
        for size, lanes in shapes
        for executor in OURS
    ]


def cases(settings: Settings) -> list[Case]:
    """The bare queue over size and batch, the enqueue loop over batch, the whole path."""
    return _bare_cases(settings) + _enqueue_cases(settings) + _path_cases(settings)


def ratios(settings: Settings) -> list[Ratio]:
    """The two claims first; the others show how they depend on size and batch."""
    found = []
    for size, batch in _shapes(settings):
        name = f"persistent_vs_launch_{size}B" + (f"_batch{batch}" if batch != LANES else "")
        ours, theirs = (_bare_name(executor, size, batch) for executor in OURS)
        bound = 10.0 if name == "persistent_vs_launch_64B" else None
        found.append(Ratio(name, ours, theirs, near=True, at_least=bound))
    for batch in _batches(settings):
        end = "" if batch == ENQUEUED else f"_batch{batch}"
        ours, theirs = _bare_name(LAUNCH, 64, batch), f"enqueue loop, copy, 64 B, batch {batch}"
        found.append(Ratio(f"launch_vs_bare_enqueue{end}", ours, theirs, at_least=0.8))
        ours = f"launch, shared memory, 64 B, batch {batch}"
        theirs = f"enqueue loop, shared memory, 64 B, batch {batch}"
        found.append(Ratio(f"launch_vs_bare_enqueue_shared{end}", ours, theirs))
    return found


def notes(_: Result) -> Sequence[str]:
    """What the figures mean."""
    return [
        "Bare queue: the device changes one word a packet; `launch + copy` and the enqueue loop "
        "copy whole packets, since what an NF will read is not known before. Batch: packets that "
        "go to the device together; two batches are in flight (the enqueue loop: one), in rows "
        f"of {LANES}. Its sizes are bytes in memory.",
        "Whole path: `forward` on the device, which reads headers only, so at most 128 bytes of a "
        "packet are copied; its 64 B is a frame of 60 without FCS.",
    ]


def _draw_sizes(result: Result, axes: Any) -> None:
    sizes = [size for size in SIZES if result.median(_bare_name(PERSISTENT, size))]
    for number, (executor, label) in enumerate(OURS.items()):
        mpps = [result.median(_bare_name(executor, size)) or 0 for size in sizes]
        gbps = [rate * size * 8 / 1e3 for rate, size in zip(mpps, sizes, strict=True)]
        places = [i + (number - 0.5) * 0.4 for i in range(len(sizes))]
        axes.bar(places, gbps, 0.4, label=label)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set(xlabel="packet size (bytes)", ylabel="throughput (Gbps)")
    make_logarithmic(axes)
    axes.set_title(f"batches of {LANES}", fontsize=9)


def _draw_batches(result: Result, axes: Any) -> None:
    loop = "enqueue loop, copy, 64 B, batch {}"
    lines = {label: _bare_name(executor, 64, 0)[:-1] + "{}" for executor, label in OURS.items()}
    for label, name in {**lines, "enqueue loop, copy": loop}.items():
        points = {batch: result.median(name.format(batch)) for batch in BATCHES}
        shown = {batch: mpps for batch, mpps in points.items() if mpps}
        axes.plot(list(shown), list(shown.values()), "o-", label=label)
    axes.set(xlabel="batch (packets of 64 B)", ylabel="throughput (Mpps)")
    axes.set(xscale="log")
    make_logarithmic(axes)
    axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
    axes.minorticks_off()
    axes.set_title("over batch", fontsize=9)


def plot(result: Result, picture: Any) -> None:
    """Throughput over packet size as in Figure 3; beside it, over batch at 64 bytes."""
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    _draw_sizes(result, left)
    _draw_batches(result, right)
    for axes in (left, right):
        axes.legend(fontsize=6)


BENCH = Bench(
    "zero_copy",
    "Zero copy and a persistent kernel against launch + copy (paper, Figure 3)",
    cases,
    ratios,
    plot,
    notes,
    rounds=5,
    seconds=0.5,
    quick_seconds=0.1,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
