# SPDX-License-Identifier: BSD-3-Clause
"""Many flows: one after the other (bench/flow_soak.py has more of them), and all at once.

short flows, for ever ── in0 ── count0 ── count1 ── out0 ── memory, begins, ends
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from chain import Run, check_balance, line, started
from hummingbird.dataplane._native import ffi

from hummingbird import benches
from hummingbird.telemetry.summary import summarise

sys.path.append(str(benches.folder()))

import flow_soak

SHORT = 150_000
FILES = {"count.py": flow_soak.COUNT_PY, "count.cl": flow_soak.COUNT_CL}
MIB = 1024


def counts(run: Run) -> flow_soak.Counts:
    lcores = run.engine.reader().snapshot().lcores
    names = ("flow_misses", "flow_refusals", "flow_ends", "flows_live")
    misses, refused, over, live = (int(lcores[name].sum()) for name in names)
    return flow_soak.Counts(misses - refused, over, live, refused)


def resident_kib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_short_flows(engine: str) -> None:
    """All that begin end, their places come back, and memory stays as it is."""
    flows = SHORT if engine == "cpu" else SHORT // 5
    source, rows = line(*[{"type": "./count.py", "engine": engine}] * 2)
    source["ports"] |= {
        "in0": {"driver": "pcap", "read": "short.pcap", "loop": 0},
        "out0": {"driver": "sink"},
    }
    files = FILES | {"short.pcap": flow_soak.short_flows(5000)}
    with started(source, None, rows, files=files, memory={"flows": 8192}) as run:
        run.until(lambda: counts(run).begun > flows // 5, what="flows")
        before = resident_kib()
        run.until(lambda: counts(run).begun > flows, what="flows")
        grown = resident_kib() - before
        assert run.engine.plane.drain(10_000) == 0
        run.until(lambda: all_known(counts(run)), what="places to come back")
        result = run.stop()
    assert grown < 4 * MIB, f"{grown} KiB"
    assert not result.dropped and counts_of(result.summary)


def all_known(now: flow_soak.Counts) -> bool:
    """Every flow that began is over, or alive."""
    assert now.refused == 0
    return now.begun == now.over + now.live


def counts_of(summary: dict[str, Any]) -> bool:
    return bool(summary["received"] == summary["sent"])


# ---- a million at once ---------------------------------------------------------------------------


def many(flows: int) -> bytes:
    """A capture with one UDP packet of each of that many flows."""
    header = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    one = np.frombuffer(struct.pack("<IIII", 0, 0, 42, 42) + flow_soak.packets_of(1)[0], np.uint8)
    packets = np.tile(one, (flows, 1))
    number = np.arange(flows, dtype=">u4").view(np.uint8).reshape(flows, 4)
    packets[:, 16 + 27 : 16 + 30] = number[:, 1:]  # the last three bytes of the source address
    return header + packets.tobytes()


def listed(run: Run) -> npt.NDArray[np.void]:
    """All live flows, as hb_flow_view."""
    cursor, found = ffi.new("uint64_t *"), []
    while (views := run.engine.plane.list_flows(cursor, 65536)).size:
        found.append(views)
    return np.concatenate(found)


def test_a_million_flows_at_once() -> None:
    """None is refused; of the second packet of each none begins a flow; all are listed, once."""
    flows = 1_000_000
    source, rows = line({"type": "./count.py", "engine": "cpu"})
    source["ports"] |= {
        "in0": {"driver": "pcap", "read": "many.pcap", "loop": 2},
        "out0": {"driver": "sink"},
    }
    files = FILES | {"many.pcap": many(flows)}
    with started(source, None, rows, files=files, memory={"flows": 1 << 20}) as run:
        run.wait()
        assert counts(run) == flow_soak.Counts(begun=flows, over=0, live=flows, refused=0)
        views = listed(run)
        states = run.engine.regions.flow_states["nf0"]
        packets = states[views["index"]].view(np.uint64)[:, 0]
        engine = run.engine
        assert engine.stop() == 0  # not Run.stop(), which makes a Flow of each
        summary = summarise(engine.view(), engine.counters(), 1)
        assert engine.running is not None
        check_balance(engine.running.topology, engine.reader().snapshot(), summary)
    assert len(views) == len(np.unique(views["index"])) == flows
    sources = views["addr"].reshape(flows, 32)[:, 12:16]
    assert len(np.unique(sources.copy().view(np.uint32))) == flows
    assert (packets == 2).all()
    assert summary["sent"] == 2 * flows
