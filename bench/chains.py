# SPDX-License-Identifier: BSD-3-Clause
"""The chains that benchmarks measure: a topology and its policy are written to a directory of their
own and run by `hummingbird run`, as an operator would."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from harness import Reading

from hummingbird.errors import UserError

POLICIES = Path(__file__).resolve().parent.parent / "policies"


@dataclass(frozen=True)
class Run:
    """What came of a run: its summary (`hummingbird run --json`) and what it cost."""

    summary: dict[str, Any]
    cpu_seconds: float

    @property
    def mpps(self) -> float:
        """Million packets sent a second."""
        return float(self.summary["sent"]) / float(self.summary["seconds"]) / 1e6

    @property
    def gbps(self) -> float:
        """Gbit/s sent, Ethernet frames without FCS, preamble and gap."""
        ports = self.summary["ports"].values()
        return sum(port.get("sent_bytes", 0) for port in ports) * 8 / self.summary["seconds"] / 1e9


def run(
    topology: Mapping[str, Any],
    rows: Sequence[tuple[str, str, str]],
    seconds: float,
    *options: str,
    cpus: Sequence[int] | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Run a topology for a while.

    Args:
        topology: what its YAML file says, but for the policy.
        rows: packet type, current NF, next NF.
        seconds: how long.
        options: more options for `hummingbird run`.
        cpus: CPUs that the process may use; None: all of this one.
        env: more environment variables.

    Raises:
        UserError: the run failed; its output is in the text.
    """
    with tempfile.TemporaryDirectory(prefix="hummingbird-bench-") as name:
        directory = Path(name)
        lines = ["packet_type,current_nf,next_nf", *(",".join(row) for row in rows)]
        (directory / "policy.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        path = directory / "topology.yaml"
        path.write_text(yaml.safe_dump({"policy": "policy.csv", **topology}), encoding="utf-8")
        out = directory / "summary.json"
        command = [sys.executable, "-m", "hummingbird.cli", "run", str(path), "--no-live"]
        command += ["--name", f"bench-{os.getpid()}", "--json", str(out)]
        command += ["--duration", str(seconds), *options]
        return _run(command, out, cpus, {**os.environ, **(env or {})})


def _run(
    command: Sequence[str], out: Path, cpus: Sequence[int] | None, env: Mapping[str, str]
) -> Run:
    def pin() -> None:
        if cpus is not None:
            os.sched_setaffinity(0, cpus)

    before = os.times()
    child = subprocess.run(command, capture_output=True, text=True, env=env, preexec_fn=pin)
    after = os.times()
    if child.returncode or not out.exists():
        text = (child.stderr or child.stdout).strip()
        raise UserError(f"`hummingbird run` failed with status {child.returncode}: {text}")
    summary = json.loads(out.read_text(encoding="utf-8"))
    used = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return Run(summary, used)


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
