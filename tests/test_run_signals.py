# SPDX-License-Identifier: BSD-3-Clause
"""How a run ends before its inputs do, and whose the instance's name is.

gen0 (all that the chain takes) ── nf0 on the device ── nf1 ── out0 ─── signal: drain, report
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from chain import read_capture
from process import Service, run, service, write_topology

TOPOLOGY: dict[str, Any] = {
    "ports": {
        "gen0": {"driver": "generator", "flows": 100, "size": {64: 1, 1514: 1}},
        "out0": {"driver": "sink"},
    },
    "nfs": {"nf0": {"type": "forward", "engine": "gpu"}, "nf1": {"type": "forward"}},
}
ROWS = "*,gen0,nf0\n*,nf0,nf1\n*,nf1,out0\n"
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def in_full_flight(process: Service) -> None:
    process.until(lambda: "running after" in process.text, "its start")  # not a dead one's counters
    process.until(lambda: process.packets(1) > 10_000, "ten thousand packets")


@pytest.mark.parametrize("executor", ["launch", "auto"])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_drains_and_reports(number: signal.Signals, executor: str, tmp_path: Path) -> None:
    """It exits with 0, and every packet is accounted for; none is lost on the way out."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    with service(tmp_path, path, "--executor", executor) as process:
        in_full_flight(process)
        ended = process.stop(number)
    summary = ended.balanced
    assert summary["dropped"] == {} and summary["received"] == summary["sent"] > 10_000
    assert "asked to stop: draining" in ended.text
    assert "Traceback" not in ended.text


def test_a_signal_during_the_start_ends_it_in_order(tmp_path: Path) -> None:
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    with service(tmp_path, path) as process:
        process.until(lambda: process.snapshot() is not None, "its counters")
        ended = process.stop()
    assert ended.balanced["dropped"] == {}


def test_a_capture_that_a_signal_ends_is_whole(tmp_path: Path) -> None:
    """What was sent stands in the file, the last packet with all its bytes."""
    ports = TOPOLOGY["ports"] | {"out0": {"driver": "pcap", "write": "$out"}}
    ports["gen0"] = ports["gen0"] | {"rate": 100_000}
    path = write_topology(tmp_path, TOPOLOGY | {"ports": ports}, ROWS)
    with service(tmp_path, path, "--out", "out.pcap") as process:
        in_full_flight(process)
        summary = process.stop().balanced
    assert len(read_capture(tmp_path / "out.pcap").packets) == summary["sent"]


def test_many_signals_are_one(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C again and again gets the report all the same."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    with service(tmp_path, path) as process:
        in_full_flight(process)
        for number in SIGNALS * 3:
            process.process.send_signal(number)
        ended = process.wait()
    assert ended.balanced["received"] > 0


def test_a_killed_run_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """kill -9, then at once again under the same name: that one runs as if nothing had been."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    name = f"killed-{os.getpid()}"
    with service(tmp_path, path, name=name) as first:
        in_full_flight(first)
        first.process.kill()
        first.process.wait()
        assert first.snapshot() is not None, "its counters are still there"
        with service(tmp_path, path, name=name) as second:
            in_full_flight(second)
            summary = second.stop().balanced
    assert summary["dropped"] == {}


def test_two_runs_of_one_name_do_not_mix(tmp_path: Path) -> None:
    """The second says so and ends; the first goes on. Under another name both run."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    name = f"twice-{os.getpid()}"
    with service(tmp_path, path, name=name) as first:
        in_full_flight(first)
        second = Service(tmp_path, str(path), name=name, environment={})
        ended = second.wait()
        assert ended.status == 2
        assert f"an instance named '{name}' is running already" in ended.text
        assert "--name OTHER" in ended.text and "Traceback" not in ended.text
        ports = TOPOLOGY["ports"] | {"gen0": {"driver": "generator", "packets": 1000}}
        path = write_topology(tmp_path, TOPOLOGY | {"ports": ports}, ROWS)
        assert run(tmp_path, path).balanced["received"] == 1000
        before = first.packets(1)
        first.until(lambda: first.packets(1) > before, "more packets")
        assert first.stop().balanced["received"] > 0
