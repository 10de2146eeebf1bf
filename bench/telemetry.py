# SPDX-License-Identifier: BSD-3-Clause
"""What telemetry costs the data plane: latency samples and busy times, and that somebody reads.

    gen0 (as fast as it goes) ── forward0 ── forward1 ── forward2 ── sink0      64 B, one lcore

Samples are taken a burst and a node, so they weigh most where nodes do least: the NFs here do
nothing. Three cases, in turn:

    off       `telemetry: {latency: false}`: only what is counted anyway
    on        as it is without that section
    watched   on, and what `hummingbird top --once --json` and a scrape would read, twice a second

The figure is packets by CPU time of the lcore, so that other work on the machine, the reader's own
included, does not count where it takes the CPU away; what a reader does to the caches does.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import chains
from harness import Bench, Case, Ratio, Reading, Result, Settings, main
from watched import Watched, folder, watched

from hummingbird.telemetry.attach import Attached
from hummingbird.telemetry.status import Meter

NFS = 3
READ_S = 0.5
LONGEST = 10
"""A stretch lasts at most so many times the CPU time that is wanted."""
POLL_S = 0.02
FIRST = 100_000
"""Packets that have to be through before anything is measured."""
AT_LEAST = 0.95


def _topology(latency: bool) -> dict[str, Any]:
    return {
        "ports": {"gen0": chains.generator(60), "sink0": {"driver": "sink"}},
        "nfs": chains.forwarders(NFS),
        "telemetry": {"latency": latency},
    }


def _rows() -> list[tuple[str, str, str]]:
    return chains.straight("gen0", *chains.forwarders(NFS), "sink0")


class Reader:
    """Reads an instance again and again, in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.reads = 0
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(READ_S):
            for _ in range(2):  # whoever watches, and whoever scrapes: each attaches anew
                with Attached(self._name) as instance:
                    json.dumps(Meter(instance.view).measure(instance.view))
            self.reads += 1

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def _unread(_: Watched) -> Iterator[None]:
    yield None


@contextmanager
def _read(run: Watched) -> Iterator[Reader]:
    with Reader(run.name) as reader:
        yield reader


def _await_cpu(run: Watched, seconds: float) -> None:
    """Until the lcore has had so much of its CPU; on a busy machine that takes its time."""
    end = time.monotonic() + LONGEST * seconds
    until = run.lcore_cpu() + seconds
    while run.lcore_cpu() < until and time.monotonic() < end:
        time.sleep(POLL_S)


def _measure(latency: bool, reading: Callable[[Watched], Any], seconds: float) -> Reading:
    with folder() as at, watched(_topology(latency), _rows(), at) as run:
        run.await_packets(FIRST)
        with reading(run) as reader:
            before = run.moment()
            _await_cpu(run, seconds)
            after = run.moment()
        found = run.stretch(before, after)
        run.stop()
    more = {
        "mpps_by_the_clock": found.packets / found.seconds / 1e6,
        "lcore_cpu_share": found.lcore_cpu / found.seconds,
        "samples": int(found.latency.sum()),
        "reads": reader.reads if reader else 0,
    }
    return Reading(found.mpps_by_cpu, more)


def cases(settings: Settings) -> Sequence[Case]:
    """What is measured each round."""
    wanted: dict[str, tuple[bool, Callable[[Watched], Any]]] = {
        "off": (False, _unread),
        "on": (True, _unread),
        "watched": (True, _read),
    }
    return [
        Case(name, "Mpps", lambda how=how: _measure(*how, settings.seconds))  # type: ignore[misc]
        for name, how in wanted.items()
    ]


def ratios(_: Settings) -> Sequence[Ratio]:
    """Against a run without."""
    return [
        Ratio("telemetry_on_vs_off", "on", "off", at_least=AT_LEAST),
        Ratio("telemetry_watched_vs_off", "watched", "off", at_least=AT_LEAST),
    ]


def notes(result: Result) -> Sequence[str]:
    """How to read the table."""
    shares = [sample["lcore_cpu_share"] for sample in result.samples]
    had = f"{min(shares):.0%} to {max(shares):.0%}" if shares else "none"
    return [
        f"Mpps by CPU time of the lcore, which had {had} of its CPU. {NFS} NFs that do nothing, "
        "64 B (60 and the FCS), 65,536 flows, everything on one lcore. 'watched': the status of "
        f"the instance is read twice every {READ_S:g} s by another process.",
    ]


BENCH = Bench(
    name="telemetry",
    title="What latency samples, busy times and readers cost the data plane",
    cases=cases,
    ratios=ratios,
    notes=notes,
    rounds=30,
    seconds=0.5,
    quick_seconds=0.3,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
