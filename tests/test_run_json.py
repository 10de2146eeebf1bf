# SPDX-License-Identifier: BSD-3-Clause
"""What `hummingbird run` writes for --json and says on its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chain import read_capture, run_chain
from process import run, write_topology

ROOT = Path(__file__).parent.parent
GATEWAY = ROOT / "policies" / "branch_gateway.yaml"
DEMO = ROOT / "policies" / "demo" / "branch.pcap"
NUMBER = (int, float)
SHAPE: dict[str, Any] = {
    "seconds": float,
    "device": {"name": str, "runtime": str, "tier": str, "executor": str},
    "received": int,
    "created": int,
    "sent": int,
    "dropped": {"policy": int, "not_ip": int},
    "in_flight": int,
    "ports": {
        "in0": {"received": int, "received_bytes": int},
        "out0": {"sent": int, "sent_bytes": int},
    },
    "nfs": {
        name: {"packets": int, "dropped": int, "latency_us": {"p50": NUMBER, "p99": NUMBER}}
        for name in ("nids0", "ipsec0", "router0")
    },
    "types": {
        name: {"packets": int, "path": list}
        for name in ("other", "web", "voice", "video", "suspicious")
    },
}
"""Others may stand beside these."""


def check_shape(value: Any, shape: Any, at: str = "summary") -> None:
    if isinstance(shape, dict):
        assert isinstance(value, dict), at
        for name, inner in shape.items():
            assert name in value, f"{at}.{name} is missing"
            check_shape(value[name], inner, f"{at}.{name}")
    else:
        assert isinstance(value, shape) and not isinstance(value, bool), f"{at}: {value!r}"


@pytest.mark.parametrize("wrong", [{"sent": "1"}, {}, {"sent": True}])
def test_the_shape_is_looked_at(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check_shape(wrong, {"sent": int})


def test_the_demo_in_json(tmp_path: Path) -> None:
    """branch.pcap ── hummingbird run --json ── the same numbers as without a command line."""
    ended = run(tmp_path, GATEWAY, "--in", DEMO, "--out", tmp_path / "out.pcap", "--pace", "fast")
    summary = ended.balanced
    check_shape(summary, SHAPE)
    expected = run_chain(GATEWAY, DEMO).summary
    for found in (summary, expected):
        for entry in found["types"].values():
            assert set(entry.pop("latency_us")) == {"p50", "p99", "p999"}
    for name in ("received", "created", "sent", "dropped", "counters", "types"):
        assert summary[name] == expected[name], name
    assert {n: nf["packets"] for n, nf in summary["nfs"].items()} == {
        n: nf["packets"] for n, nf in expected["nfs"].items()
    }
    assert len(read_capture(tmp_path / "out.pcap").packets) == summary["sent"]
    assert summary["types"]["web"]["path"] == ["in0", "nids0", "ipsec0", "router0", "out0"]
    assert summary["types"]["suspicious"]["path"] == ["nids0", "drop"]
    for word in ("running after", "suspicious", "passwd-file", "balanced"):
        assert word in ended.text


@pytest.mark.parametrize("log", ["text", "json"])
def test_the_summary_on_standard_output(tmp_path: Path, log: str) -> None:
    """--json -: it alone is there, and what else is said on standard error."""
    args = ["--in", str(DEMO), "--out", str(tmp_path / "out.pcap"), "--device", "none"]
    command = [sys.executable, "-m", "hummingbird.cli", "run", str(GATEWAY), *args]
    command += ["--json", "-", "--log", log, "--name", f"stdout-{os.getpid()}-{log}"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    check_shape(summary["ports"], SHAPE["ports"])
    assert summary["balance"] == 0 and "running after" in ended.stderr
    assert not (tmp_path / "-").exists()


def test_what_the_command_line_says_goes(tmp_path: Path) -> None:
    """--device none, --executor launch, against what stands in the topology."""
    for args, executor in ((["--device", "none"], None), (["--executor", "launch"], "launch")):
        out = tmp_path / "out.pcap"
        summary = run(tmp_path, GATEWAY, "--in", DEMO, "--out", out, *args).balanced
        assert summary["device"]["executor"] == executor
        assert summary["nfs"]["nids0"]["runs_on"] == ("gpu" if executor else "cpu")


def test_a_duration_ends_what_has_no_end(tmp_path: Path) -> None:
    """gen0 (for ever) -> nf0 -> sink0, for half a second."""
    topology = {
        "ports": {"gen0": {"driver": "generator", "rate": 1000}, "sink0": {"driver": "sink"}},
        "nfs": {"nf0": {"type": "forward"}},
    }
    path = write_topology(tmp_path, topology, "*,gen0,nf0\n*,nf0,sink0\n")
    summary = run(tmp_path, path, "--duration", "0.5").balanced
    assert 0.5 <= summary["seconds"] < 30
    assert summary["received"] <= 1000 * summary["seconds"] + 1  # none, if others had the CPU
    assert summary["nfs"]["nf0"]["packets"] == summary["received"]
