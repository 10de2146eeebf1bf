# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird run` as a process of its own, as an operator sees it: exit status, what it says, its
summary, and its counters while it runs.

    test ── topology, route policy ── [ hummingbird run ] ── exit status, text, summary
                                              └─ counters in shared memory ─┘
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from chain import HEADER

from hummingbird.dataplane.plane import reasons
from hummingbird.telemetry.rundir import base_dir
from hummingbird.telemetry.stats import Reader, Snapshot

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60.0
POLL_S = 0.002

_numbers = itertools.count()


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    status: int
    text: str
    """Its output and its errors."""
    summary: dict[str, Any] | None
    """What it wrote for --json."""

    @property
    def balanced(self) -> dict[str, Any]:
        """The summary of a run that ended well, with every packet accounted for."""
        assert self.status == 0, self.text
        assert self.summary is not None, self.text
        assert self.summary["balance"] == 0 and self.summary["in_flight"] == 0, self.text
        dropped = sum(self.summary["dropped"].values())
        made = self.summary["received"] + self.summary["created"]
        assert made == self.summary["sent"] + dropped
        return self.summary


class Service:
    """A `hummingbird run` that was started in a folder."""

    def __init__(
        self,
        folder: Path,
        *args: str,
        name: str,
        environment: Mapping[str, str],
        before: Callable[[], None] | None = None,
        through: Sequence[str] = (),
    ) -> None:
        """Start it; ``before`` is what the new process does first, ``through`` a command that runs
        the one behind it."""
        self.name = name
        file = folder / f"{name}-{next(_numbers)}"
        self._json, self._text = file.with_suffix(".json"), file.with_suffix(".txt")
        command = [*through, sys.executable, "-m", "hummingbird.cli", "run", *args]
        command += ["--name", name]
        if "--json" not in args:
            command += ["--json", str(self._json)]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HUMMINGBIRD_")}
        with open(self._text, "w") as text:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=inherited | {"PYTHONPATH": str(ROOT)} | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=text,
                stderr=subprocess.STDOUT,
                preexec_fn=before,
            )

    @property
    def text(self) -> str:
        """What it has said so far, without how it is laid out."""
        return " ".join(self._text.read_text(errors="replace").split())

    def lines(self) -> list[str]:
        """The same line by line."""
        return self._text.read_text(errors="replace").splitlines(keepends=True)

    def snapshot(self) -> Snapshot | None:
        """Its counters now; None before it has any."""
        try:
            region = np.fromfile(base_dir() / self.name / "stats", dtype=np.uint8)
            return Reader(region).snapshot()
        except (OSError, ValueError, IndexError):
            return None

    def packets(self, number: int, field: str = "out_packets") -> int:
        """A counter of a node: ports in the order of the topology, then NFs."""
        snapshot = self.snapshot()
        return int(snapshot.nodes[number][field]) if snapshot is not None else 0

    def drops(self, reason: str) -> int:
        """Packets dropped so far for a reason, at all nodes."""
        snapshot = self.snapshot()
        wanted = [n for n, (name, _) in enumerate(reasons()) if name == reason]
        return int(snapshot.drops[:, wanted].sum()) if snapshot is not None else 0

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Until a condition holds, while it runs."""
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, f"ended before {what}: {self.text}"
            assert time.monotonic() < end, f"waited for {what}: {self.text}"
            time.sleep(POLL_S)

    def wait(self, timeout: float = TIMEOUT_S) -> Ended:
        """Until it has ended by itself."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        summary = json.loads(self._json.read_text()) if self._json.exists() else None
        return Ended(status, self.text, summary)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.wait()


@contextmanager
def service(
    folder: Path,
    *args: object,
    name: str | None = None,
    through: Sequence[str] = (),
    **environment: str,
) -> Iterator[Service]:
    """A `hummingbird run` with these arguments; gone when the block ends."""
    name = name or f"run-{os.getpid()}-{next(_numbers)}"
    words = map(str, args)
    run = Service(folder, *words, name=name, environment=environment, through=through)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()
        for path in sorted((base_dir() / name).glob("*")):
            path.unlink()
        if (base_dir() / name).is_dir():
            (base_dir() / name).rmdir()


def run(folder: Path, *args: object, **environment: str) -> Ended:
    """Run to the end."""
    with service(folder, *args, **environment) as started:
        return started.wait()


def write_topology(folder: Path, topology: Mapping[str, Any], rows: str) -> Path:
    """Write a topology and the rows of its route policy, routes.csv."""
    write_rows(folder, rows)
    path = folder / "topology.yaml"
    path.write_text(yaml.safe_dump({"policy": "routes.csv", **topology}, sort_keys=False))
    return path


def write_rows(folder: Path, rows: str) -> None:
    """Replace the route policy."""
    edit(folder / "routes.csv", HEADER + rows)


def edit(path: Path, text: str) -> None:
    """Replace a file as an editor does: a new one takes its place, so that nobody sees half."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)
