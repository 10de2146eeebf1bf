# SPDX-License-Identifier: BSD-3-Clause
"""The chains that benchmarks measure: a topology and its policy are written to a directory of their
own and run by `hummingbird run`, as an operator would."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from child import prepare
from harness import Reading

from hummingbird.errors import UserError
from hummingbird.telemetry.rundir import base_dir

POLICIES = Path(__file__).resolve().parent.parent / "policies"

NOTHING_CAME = "no packet came through: the machine is too busy, or the time too short"


@dataclass(frozen=True)
class Run:
    """What came of a run: its summary (`hummingbird run --json`)."""

    summary: dict[str, Any]

    @property
    def mpps(self) -> float:
        """Million packets sent a second."""
        return float(self.summary["sent"]) / float(self.summary["seconds"]) / 1e6

    @property
    def us_per_packet(self) -> float:
        """Microseconds, all NFs together.

        Raises:
            UserError: no packet was sent.
        """
        if not self.mpps:
            raise UserError(NOTHING_CAME)
        return 1 / self.mpps

    @property
    def gbps(self) -> float:
        """Gbit/s sent, Ethernet frames without FCS, preamble and gap."""
        ports = self.summary["ports"].values()
        sent = float(sum(port.get("sent_bytes", 0) for port in ports))
        return sent * 8 / float(self.summary["seconds"]) / 1e9


def run(
    topology: Mapping[str, Any],
    rows: Sequence[tuple[str, str, str]],
    seconds: float,
    *options: str,
    cpus: Sequence[int] | None = None,
    huge_pages: bool = True,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Run a topology for a while.

    Args:
        topology: what its YAML file says, but for the policy.
        rows: packet type, current NF, next NF.
        seconds: how long.
        options: more options for `hummingbird run`.
        cpus: CPUs that the process may use; None: all of this one.
        huge_pages: False denies the process transparent huge pages.
        env: more environment variables.

    Raises:
        UserError: the run failed; its output is in the text.
    """
    name = f"bench-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="hummingbird-bench-") as folder, _run_directory(name):
        directory = Path(folder)
        lines = ["packet_type,current_nf,next_nf", *(",".join(row) for row in rows)]
        (directory / "policy.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        path = directory / "topology.yaml"
        path.write_text(yaml.safe_dump({"policy": "policy.csv", **topology}), encoding="utf-8")
        out = directory / "summary.json"
        command = [sys.executable, "-m", "hummingbird.cli", "run", str(path), "--no-live"]
        command += ["--name", name, "--json", str(out)]
        command += ["--duration", str(seconds), *options]
        return _run(command, out, prepare(cpus, huge_pages), {**os.environ, **(env or {})})


@contextlib.contextmanager
def _run_directory(name: str) -> Iterator[None]:
    """Gone at the end, also after a run that was killed."""
    try:
        yield
    finally:
        shutil.rmtree(base_dir() / name, ignore_errors=True)


def _run(
    command: Sequence[str], out: Path, first: Callable[[], None], env: Mapping[str, str]
) -> Run:
    child = subprocess.run(command, capture_output=True, text=True, env=env, preexec_fn=first)
    if child.returncode or not out.exists():
        text = (child.stderr or child.stdout).strip()
        raise UserError(f"`hummingbird run` failed with status {child.returncode}: {text}")
    summary = json.loads(out.read_text(encoding="utf-8"))
    return Run(summary)


def generator(
    size: int | Mapping[int, int] = 60, flows: int = 65536, **more: Any
) -> dict[str, Any]:
    """A generator; `size` is the frame without FCS: what is called a 64-byte packet has 60."""
    return {"driver": "generator", "size": size, "flows": flows, **more}


def straight(*nodes: str) -> list[tuple[str, str, str]]:
    """Policy rows of a chain that every packet passes."""
    return [("*", a, b) for a, b in itertools.pairwise(nodes)]


def forwarders(count: int, engine: str = "cpu") -> dict[str, Any]:
    """`count` NFs that do nothing."""
    return {f"forward{i}": {"type": "forward", "engine": engine} for i in range(count)}


def throughput(run_: Run) -> Reading:
    """Mpps, with what makes the figure believable."""
    s = run_.summary
    return Reading(
        run_.mpps, {"gbps": run_.gbps, "dropped": s["dropped"], "balance": s.get("balance")}
    )
