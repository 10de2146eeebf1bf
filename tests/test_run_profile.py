# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird run --profile` books every tick of the lcores on the part that spent it; and what a
run takes of the machine's memory.

    in0 (generator) ── light0 (forward) ── heavy0 (nids) ── out0, on a CPU or the device
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from process import Service, run, service, write_topology

ROWS = "*,in0,light0\n*,light0,heavy0\n*,heavy0,out0\n"
OUT = 1
GIB = 1 << 30


def topology(folder: Path, engine: str, **generator: Any) -> Path:
    """A light and a heavy NF."""
    rule = 'alert ip any any -> any any (msg:"never"; content:"nothing like this"; sid:1;)\n'
    (folder / "never.rules").write_text(rule, encoding="ascii")
    whole = {
        "ports": {
            "in0": {"driver": "generator", "size": 256, "flows": 1000, **generator},
            "out0": {"driver": "sink"},
        },
        "nfs": {
            "light0": {"type": "forward", "engine": engine},
            "heavy0": {"type": "nids", "rules": "never.rules", "engine": engine},
        },
    }
    return write_topology(folder, whole, ROWS)


def profile(folder: Path, engine: str, **generator: Any) -> tuple[dict[str, Any], str]:
    """The summary of a profiled second, and what was printed."""
    path = topology(folder, engine, **generator)
    ended = run(folder, path, "--duration", 1, "--profile")
    return ended.balanced, ended.text


@pytest.mark.parametrize(("engine", "word"), [("cpu", "nf"), ("gpu", "syncer")])
def test_the_parts_add_up(engine: str, word: str, tmp_path: Path) -> None:
    summary, text = profile(tmp_path, engine)
    whole, parts = summary["profile"], summary["profile"]["parts"]
    nodes = ["rx in0", "tx out0", f"{word} light0", f"{word} heavy0"]
    assert list(parts) == [*nodes, "classify", "forward", "poll loop", "rest"]
    assert sum(p["seconds"] for p in parts.values()) == pytest.approx(whole["seconds"])
    assert whole["of_seconds"] == pytest.approx(summary["seconds"] * whole["lcores"])
    # of a second; on a busy machine more may pass before the lcores begin and behind their end
    assert 0.5 * whole["lcores"] < whole["seconds"] < 1.01 * whole["of_seconds"]
    assert all(parts[name]["seconds"] > 0 for name in [*nodes, "classify", "forward"])
    assert parts["rx in0"]["packets"] == parts["classify"]["packets"] == summary["received"]
    assert parts["forward"]["packets"] == 3 * summary["received"]
    assert "Where the time went" in text and all(name in text for name in parts)


def test_the_heavy_nf_is_seen(tmp_path: Path) -> None:
    parts = profile(tmp_path, "cpu")[0]["profile"]["parts"]
    # some fifty times, but others may have the CPU for some 100 ms while light0 has its turn
    assert parts["nf heavy0"]["seconds"] > 2 * parts["nf light0"]["seconds"]


def test_a_slow_source_leaves_time_to_rest(tmp_path: Path) -> None:
    parts = profile(tmp_path, "cpu", rate=100)[0]["profile"]["parts"]
    assert parts["rest"]["share"] > 0.5


def test_nothing_is_said_unless_asked(tmp_path: Path) -> None:
    ended = run(tmp_path, topology(tmp_path, "cpu"), "--duration", 0.2)
    assert "profile" not in ended.balanced and "Where the time went" not in ended.text


def peak_bytes(process: Service) -> int:
    """The most memory that it has had: proc(5), VmHWM."""
    lines = Path(f"/proc/{process.process.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_the_default_memory_is_less_than_a_gibibyte(engine: str, tmp_path: Path) -> None:
    with service(tmp_path, topology(tmp_path, engine)) as process:
        process.until(lambda: process.packets(OUT) > 100_000, "packets")
        peak = peak_bytes(process)
        process.stop()
    print(f"{peak / 2**20:.0f} MiB at most")
    assert 32 << 20 < peak < GIB
