# SPDX-License-Identifier: BSD-3-Clause
"""The route policy changes while packets flow: --watch, broken edits, and many reloads.

in0 (a capture for ever, at a rate) ── nf0 ─┬─ old ── out0
routes.csv: edited meanwhile                └─ new ── out0
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import capture, started, udp
from process import Service, service, write_rows, write_topology
from rich.console import Console

from hummingbird import service as running
from hummingbird.engine import Engine
from hummingbird.errors import UserError

IN, OUT, FIRST, OLD, NEW = range(5)  # the nodes' numbers
TOPOLOGY: dict[str, Any] = {
    "ports": {
        "in0": {"driver": "pcap", "read": "$in", "loop": 0, "rate": 20_000},
        "out0": {"driver": "sink"},
    },
    "nfs": {
        "nf0": {"type": "forward", "engine": "gpu"},
        "old": {"type": "forward"},
        "new": {"type": "forward", "engine": "gpu"},
    },
}
ROWS = "*,in0,nf0\n*,nf0,{}\n*,old,out0\n*,new,out0\n"
PACKETS = [udp("10.0.0.1", f"10.0.1.{n}", 1000, 9) for n in range(100)]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Service]:
    """A run with --watch whose packets go by `old`."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS.format("old"))
    (tmp_path / "in.pcap").write_bytes(capture(PACKETS))
    with service(tmp_path, path, "--in", "in.pcap", "--watch") as run:
        run.until(lambda: run.packets(OLD) > 100, "packets at old")
        yield run


def moved(run: Service, to: int) -> None:
    """Wait until packets go to one of the two, and no longer to the other."""
    before = run.packets(to)
    run.until(lambda: run.packets(to) > before + 100, "packets on the new way")
    rest = run.packets(OLD + NEW - to, "in_packets")
    before = run.packets(to)
    run.until(lambda: run.packets(to) > before + 1000, "more of them")
    assert run.packets(OLD + NEW - to, "in_packets") == rest


def test_an_edit_moves_the_flows(watched: Service, tmp_path: Path) -> None:
    """old, then new, then old again: every packet is counted once, at the NF that had it."""
    write_rows(tmp_path, ROWS.format("new"))
    moved(watched, NEW)
    watched.until(lambda: "version 2" in watched.text, "a word about it")
    write_rows(tmp_path, ROWS.format("old"))
    moved(watched, OLD)
    summary = watched.stop().balanced
    nfs = {name: nf["packets"] for name, nf in summary["nfs"].items()}
    assert nfs["nf0"] == nfs["old"] + nfs["new"] == summary["sent"]
    assert summary["received"] == summary["sent"] + sum(summary["dropped"].values())
    assert summary["policy_version"] == 3


@pytest.mark.parametrize(
    ("rows", "line", "why"),
    [
        (ROWS.format("newer"), 3, "unknown NF or port 'newer'"),
        (ROWS.format("nf0"), 3, "round for ever"),
        ("*,in0,nf0\n", 2, "no row leads on"),
        ("*,in0\n", 2, "2 columns instead of 3"),
        ("web,in0,nf0\n", 2, "unknown packet type 'web'"),
        ("\0", 2, "NUL byte"),
    ],
)
def test_a_broken_edit_changes_nothing(
    rows: str, line: int, why: str, watched: Service, tmp_path: Path
) -> None:
    """It says file, line and reason; packets go on as before; the next edit counts again."""
    write_rows(tmp_path, rows)
    watched.until(lambda: why in watched.text, "a word about the mistake")
    assert f"routes.csv:{line}" in watched.text, watched.text
    before = watched.packets(OLD)
    watched.until(lambda: watched.packets(OLD) > before + 100, "packets as before")
    assert watched.packets(NEW, "in_packets") == 0
    write_rows(tmp_path, ROWS.format("new"))
    moved(watched, NEW)
    summary = watched.stop().balanced
    assert summary["policy_version"] == 2


def test_a_file_that_is_gone_for_a_moment_changes_nothing(watched: Service, tmp_path: Path) -> None:
    """Some editors remove the file before they write it again."""
    (tmp_path / "routes.csv").unlink()
    before = watched.packets(OLD)
    watched.until(lambda: watched.packets(OLD) > before + 2000, "packets as before")
    write_rows(tmp_path, ROWS.format("new"))
    moved(watched, NEW)
    assert "error" not in watched.text.lower()
    watched.stop().balanced  # noqa: B018 (looks at the summary)


def test_an_edit_during_the_start_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file changes after it was read, while the engine starts."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS.format("old"))
    (tmp_path / "in.pcap").write_bytes(capture(PACKETS))
    apply = Engine.apply
    versions = []

    def edited(engine: Engine, wanted: Any) -> Any:
        parts = apply(engine, wanted)
        versions.append(engine.version)
        if len(versions) == 1:
            write_rows(tmp_path, ROWS.format("new"))
        else:
            signal.raise_signal(signal.SIGTERM)
        return parts

    monkeypatch.setattr(Engine, "apply", edited)
    options = running.Options(
        path, {"in": tmp_path / "in.pcap"}, watch=True, name="watched", duration=20, live=False
    )
    assert running.run(options, Console(quiet=True)) == 0
    assert versions == [1, 2]


def test_200_reloads_under_load() -> None:
    """Each takes its turn while old ones still have packets in flight; nothing is lost."""
    ports = TOPOLOGY["ports"] | {"in0": {"driver": "generator", "flows": 64}}
    with started(TOPOLOGY | {"ports": ports}, None, ROWS.format("old")) as run:
        run.until(lambda: run.counters("out0")["out_packets"] > 1000, what="packets")
        for number in range(200):
            rows = ROWS.format("new" if number % 2 == 0 else "old")
            run.until(lambda rows=rows: reloaded(run, rows), what=f"reload {number}")
            assert run.engine.plane.live_policies() <= 4
            if number < 2:  # lcores may be held up for all others of one way
                way = "new" if number == 0 else "old"
                before = int(run.counters(way)["in_packets"])
                run.until(lambda w=way, b=before: run.counters(w)["in_packets"] > b, what="packets")
        result = run.stop()
    nfs = {name: nf["packets"] for name, nf in result.summary["nfs"].items()}
    assert result.summary["policy_version"] == 201
    assert nfs["old"] > 0 and nfs["new"] > 0
    assert nfs["nf0"] == nfs["old"] + nfs["new"] == result.summary["sent"]
    assert result.dropped == {}


def reloaded(run: Any, rows: str) -> bool:
    """False if too many versions still have packets in flight."""
    try:
        run.reload(rows)
    except UserError as error:
        assert "in flight" in error.what
        return False
    return True
