# SPDX-License-Identifier: BSD-3-Clause
"""A run with nearly nothing to do leaves the CPUs alone, the runtime that plays the GPU included.

gen0 (a packet now and then) ── nf0 on the device ── out0: CPU time, by /proc
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from process import Service, service, write_topology

OUT = 1
TOPOLOGY: dict[str, Any] = {
    "ports": {"gen0": {"driver": "generator", "rate": 0.5}, "out0": {"driver": "sink"}},
    "nfs": {"nf0": {"type": "forward", "engine": "gpu"}},
}


def cpu_seconds(process: Service) -> float:
    """CPU time of all threads so far: fields utime and stime of proc(5)."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(process: Service, packets: int) -> tuple[float, float]:
    """CPU time and time, from one packet's leaving until some more have left."""
    at = process.packets(OUT)
    process.until(lambda: process.packets(OUT) > at, "a packet")
    at, began, used = process.packets(OUT), time.monotonic(), cpu_seconds(process)
    process.until(lambda: process.packets(OUT) >= at + packets, "more packets")
    return cpu_seconds(process) - used, time.monotonic() - began


@pytest.mark.parametrize("executor", ["launch", "auto"])
def test_a_packet_now_and_then_takes_little_of_a_core(executor: str, tmp_path: Path) -> None:
    """A persistent kernel leaves when it has had no row for device.idle_ms: 100 ms a packet, which
    is 5 % here. The rest is lcores that look whether there is something to do."""
    path = write_topology(tmp_path, TOPOLOGY, "*,gen0,nf0\n*,nf0,out0\n")
    with service(tmp_path, path, "--executor", executor) as process:
        used, seconds = cost(process, 3)
        summary = process.stop().balanced
    print(f"{used / seconds:.1%} of a core, {summary['device']['launches']} launches")
    assert summary["dropped"] == {}
    assert used / seconds < 0.15


def test_a_busy_run_is_seen_to_be_busy(tmp_path: Path) -> None:
    """The measurement itself: with all the packets that it can take, it takes all CPU it gets."""
    ports = TOPOLOGY["ports"] | {"gen0": {"driver": "generator"}}
    path = write_topology(tmp_path, TOPOLOGY | {"ports": ports}, "*,gen0,nf0\n*,nf0,out0\n")
    with service(tmp_path, path) as process:
        process.until(lambda: process.packets(OUT) > 1000, "packets")
        used = cpu_seconds(process)
        process.until(lambda: cpu_seconds(process) > used + 0.75, "CPU time")
        process.stop()
