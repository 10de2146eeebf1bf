# SPDX-License-Identifier: BSD-3-Clause
"""A `hummingbird run` that is watched from outside while it runs: what happens in a stretch of time
without its start (compiling kernels) and its end, by its counters and by /proc.

    measure ── topology, policy ── [ hummingbird run ] ── packets, latency, CPU time of a stretch
                                           └─ counters in shared memory ─┘
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from chains import NOTHING_CAME
from child import prepare

from hummingbird.errors import UserError
from hummingbird.telemetry import rundir
from hummingbird.telemetry.rundir import base_dir
from hummingbird.telemetry.stats import Counts, Reader, Snapshot

START_S = 30.0
"""A first start compiles and probes."""
POLL_S = 0.01
_numbers = itertools.count()


@dataclass(frozen=True)
class Moment:
    """Everything that counts up, at one moment."""

    at: float
    counters: Snapshot
    cpu: Mapping[str, float]
    """CPU seconds so far, by thread name."""


@dataclass(frozen=True)
class Stretch:
    """What happened between two moments."""

    seconds: float
    packets: int
    """That left the topology's last port."""
    bytes: int
    lcore_cpu: float
    """CPU seconds of the lcores."""
    other_cpu: float
    """CPU seconds of all other threads: those that play the GPU, the executor, the control."""
    lcores: int
    launches: int
    latency: Counts
    """Histogram of packets from port to port."""
    reader: Reader

    @property
    def cpu(self) -> float:
        """CPU seconds of the process."""
        return self.lcore_cpu + self.other_cpu

    @property
    def mpps_by_cpu(self) -> float:
        """Million packets by second of CPU time of the lcores: what else runs does not count.

        Raises:
            UserError: they had none.
        """
        if not self.lcore_cpu:
            raise UserError("the lcore got no CPU at all: the machine is too busy")
        return self.packets / self.lcore_cpu / 1e6

    def latency_us(self, fraction: float) -> float:
        """A percentile, port to port, within 3 %.

        Raises:
            UserError: no packet left.
        """
        value = self.reader.percentile_us(self.latency, fraction)
        if value is None:
            raise UserError(NOTHING_CAME)
        return value


class Watched:
    """A run that was started."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, said: Path, last: int) -> None:
        self._process, self._name, self._said, self._last = process, name, said, last

    @property
    def name(self) -> str:
        """Of the instance."""
        return self._name

    def _counters(self) -> tuple[Reader, Snapshot] | None:
        try:
            region = np.fromfile(base_dir() / self._name / "stats", dtype=np.uint8)
            reader = Reader(region)
            return (reader, reader.snapshot()) if reader.ticks_per_second else None
        except (OSError, ValueError, IndexError):
            return None  # not there yet, or not filled yet

    def _cpu(self) -> dict[str, float]:
        """By thread: the first field of schedstat is ns on a CPU, where stat counts in 10 ms."""
        used: dict[str, float] = {}
        for task in Path(f"/proc/{self._process.pid}/task").glob("*"):
            with contextlib.suppress(OSError):  # it has ended
                name = (task / "comm").read_text().strip()
                used[f"{name} {task.name}"] = int((task / "schedstat").read_text().split()[0]) / 1e9
        return used

    def lcore_cpu(self) -> float:
        """CPU seconds of the lcores so far."""
        return sum(cpu for name, cpu in self._cpu().items() if name.startswith("hb-lcore"))

    def look(self) -> tuple[Reader, Snapshot]:
        """The counters now, cheap enough for every millisecond.

        Raises:
            UserError: it has ended.
        """
        found = self._counters()
        if found is None:
            raise self._failed()
        return found

    def resident_mib(self) -> float:
        """Memory that the process has now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def moment(self) -> Moment:
        """Now.

        Raises:
            UserError: it has ended.
        """
        found = self.look()
        if self._process.poll() is not None:
            raise self._failed()
        return Moment(time.monotonic(), found[1], self._cpu())

    def await_start(self) -> None:
        """Until it runs, whether packets come or not.

        Raises:
            UserError: it ended before, or does not start.
        """
        end = time.monotonic() + START_S
        while "running after" not in self._said.read_text(encoding="utf-8"):
            if self._process.poll() is not None or time.monotonic() > end:
                raise self._failed()
            time.sleep(POLL_S)

    def await_packets(self, packets: int) -> None:
        """Until so many have left.

        Raises:
            UserError: it ended before, or none came.
        """
        end = time.monotonic() + START_S
        while True:
            found = self._counters()
            if found and int(found[1].nodes[self._last]["out_packets"]) >= packets:
                return
            if self._process.poll() is not None or time.monotonic() > end:
                raise self._failed()
            time.sleep(POLL_S)

    def _failed(self) -> UserError:
        status = self._process.poll()
        what = f"ended with status {status}" if status is not None else "sends no packets"
        return UserError(f"`hummingbird run` {what}: {self._said.read_text().strip()}")

    def stretch(self, before: Moment, after: Moment) -> Stretch:
        """Between two moments."""
        found = self._counters()
        assert found is not None
        a, b = before.counters, after.counters
        used = {name: cpu - before.cpu.get(name, 0.0) for name, cpu in after.cpu.items()}
        lcores = sum(cpu for name, cpu in used.items() if name.startswith("hb-lcore"))
        out = self._last
        return Stretch(
            seconds=after.at - before.at,
            packets=int(b.nodes[out]["out_packets"]) - int(a.nodes[out]["out_packets"]),
            bytes=int(b.nodes[out]["out_bytes"]) - int(a.nodes[out]["out_bytes"]),
            lcore_cpu=lcores,
            other_cpu=sum(used.values()) - lcores,
            lcores=len(b.lcores),
            launches=int(b.device["launches"]) - int(a.device["launches"]),
            latency=b.latency[out] - a.latency[out],
            reader=found[0],
        )

    def stop(self) -> None:
        """End it.

        Raises:
            UserError: it failed.
        """
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait():
            raise self._failed()


@contextlib.contextmanager
def watched(
    topology: Mapping[str, Any],
    rows: Sequence[tuple[str, str, str]],
    folder: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> Iterator[Watched]:
    """Run a topology, whose last port counts what came through, until the block ends.

    Args:
        topology: what its YAML file says, but for the policy.
        rows: packet type, current NF, next NF.
        folder: for its files.
        options: more options for `hummingbird run`.
        env: more environment variables.
        within: a command that runs the rest of its arguments in its own place.
    """
    lines = ["packet_type,current_nf,next_nf", *(",".join(row) for row in rows)]
    (folder / "policy.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "topology.yaml"
    path.write_text(
        yaml.safe_dump({"policy": "policy.csv", **topology}, sort_keys=False), encoding="utf-8"
    )
    name = f"watched-{os.getpid()}-{next(_numbers)}"
    command = [*within, sys.executable, "-m", "hummingbird.cli", "run", str(path), "--no-live"]
    said = folder / "said.txt"
    with open(said, "w", encoding="utf-8") as text:
        process = subprocess.Popen(
            [*command, "--name", name, *options],
            stdin=subprocess.DEVNULL,
            stdout=text,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            preexec_fn=prepare(),
        )
    try:
        yield Watched(process, name, said, len(topology["ports"]) - 1)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        with rundir.held(name) as dead:
            if dead:
                rundir.remove(name)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for one run."""
    with tempfile.TemporaryDirectory(prefix="hummingbird-bench-") as name:
        yield Path(name)


@dataclass
class Shared:
    """One run that gives several figures, each of which is a case of its own: asked for one a
    second time, it runs again. So each round has its own run, in whatever order its cases are."""

    run: Callable[[], Mapping[str, Any]]
    _found: Mapping[str, Any] | UserError = field(default_factory=dict)
    _taken: set[str] | None = None

    def take(self, key: str) -> Any:
        """A figure of this round.

        Raises:
            UserError: the run failed, or this figure could not be had.
        """
        if self._taken is None or key in self._taken:
            self._taken = set()
            try:
                self._found = self.run()
            except UserError as error:
                self._found = error
        self._taken.add(key)
        value = self._found if isinstance(self._found, UserError) else self._found[key]
        if isinstance(value, UserError):
            raise value
        return value
