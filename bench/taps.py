# SPDX-License-Identifier: BSD-3-Clause
"""What captures and traces cost: while there is none, and while there is one.

    gen0 ── nf0 ── nf1 (forward, CPU) ── sink0      one lcore, as much as it takes

Figures are packets by CPU time of the lcore, so that what else runs on the machine counts less.
`compiled out` is the same data plane without the question whether anybody looks (variant.py,
peers/untapped.h).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import chains
import paper
import variant
from harness import Bench, Case, Ratio, Reading, Result, Settings, main
from watched import folder, watched

OUT, OFF = "compiled out", "none"
WAITING = "trace that waits"
NEVER = "192.0.2.200"
COMMANDS: dict[str, list[str]] = {
    WAITING: ["trace", "--flow", NEVER],
    "trace of all it can": ["trace", "--count", "1000000000", "--json"],
    "capture of 64 bytes": ["capture", "nf0:nf1", "/dev/null", "--size", str(1 << 60)],
    "capture of 1,514 bytes": ["capture", "nf0:nf1", "/dev/null", "--size", str(1 << 60)],
}


def _measure(what: str, seconds: float, env: Mapping[str, str]) -> Reading:
    size = 1514 if "1,514" in what else 60
    topology = {
        "ports": {"gen0": chains.generator(size, 1024), "sink0": {"driver": "sink"}},
        "nfs": {name: {"type": "forward", "engine": "cpu"} for name in ("nf0", "nf1")},
        "cores": paper.one_lcore(),
    }
    rows = chains.straight("gen0", "nf0", "nf1", "sink0")
    with folder() as at, watched(topology, rows, at, env=env) as run:
        run.await_packets(100_000)
        command = _begin(COMMANDS.get(what), run.name, at)
        before = run.moment()
        time.sleep(seconds)
        after = run.moment()
        if command:
            command.terminate()
            command.wait()
        stretch = run.stretch(before, after)
        run.stop()
    more = {"mpps_by_the_clock": stretch.packets / stretch.seconds / 1e6}
    return Reading(stretch.mpps_by_cpu, more)


def _begin(words: Sequence[str] | None, name: str, at: Path) -> subprocess.Popen[str] | None:
    """A command that looks in, once it does."""
    if words is None:
        return None
    said = at / "command.txt"
    with open(said, "w", encoding="utf-8") as text:
        command = subprocess.Popen(
            [sys.executable, "-m", "hummingbird.cli", *words, "--name", name],
            stdin=subprocess.DEVNULL,
            stdout=text,
            stderr=subprocess.STDOUT,
            text=True,
        )
    while not said.stat().st_size and command.poll() is None:
        time.sleep(0.01)
    return command


def cases(settings: Settings) -> list[Case]:
    """With and without. --quick compiles no other data plane."""

    def case(name: str, env: Mapping[str, str] | None = None) -> Case:
        return Case(name, "Mpps", partial(_measure, name, settings.seconds, env or {}))

    out = [] if settings.quick else [Case(OUT, "Mpps", partial(_compiled_out, settings.seconds))]
    long = "none, 1,514 bytes"
    return [*out, case(OFF), *(case(name) for name in COMMANDS), case(long)]


def _compiled_out(seconds: float) -> Reading:
    return _measure(OUT, seconds, variant.environment("untapped"))


def ratios(settings: Settings) -> list[Ratio]:
    """Each against a run without."""
    missing = "--quick compiles no other data plane" if settings.quick else None
    found = [Ratio("no_tap_vs_compiled_out", OFF, OUT, missing=missing, at_least=0.98)]
    for name in COMMANDS:
        short = name.replace(" of ", "_").replace(" ", "_").replace(",", "")
        base = "none, 1,514 bytes" if "1,514" in name else OFF
        found.append(Ratio(f"{short}_vs_none", name, base))
    return found


def notes(_: Result) -> list[str]:
    """What a reader has to know."""
    return [
        "Packets by CPU time of the lcore. A capture of such a rate misses packets, which is "
        "cheaper than to copy them; its reader runs on the other CPUs.",
    ]


BENCH = Bench(
    name="taps",
    title="Captures and traces: what they cost the packets",
    cases=cases,
    ratios=ratios,
    notes=notes,
    rounds=15,
    seconds=1.0,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
