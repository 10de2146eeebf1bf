# SPDX-License-Identifier: BSD-3-Clause
"""The status of a run, from inside and from another process, says what the run's summary says.

packets ── in0 -> nf0 (CPU) -> nf1 (device) -> out0
             └── counters and view in the run directory ── Attached ── Meter ── status
"""

from __future__ import annotations

import copy
import fcntl
import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from chain import Run, ipv4, line, started
from hypothesis import given
from hypothesis import strategies as st
from process import Service, service, write_topology

from hummingbird.errors import UserError
from hummingbird.telemetry import top
from hummingbird.telemetry.attach import Attached
from hummingbird.telemetry.rundir import STATS, VIEW, base_dir
from hummingbird.telemetry.stats import HEAD
from hummingbird.telemetry.status import Meter
from hummingbird.telemetry.summary import summarise

PACKETS = [ipv4(f"10.0.{n // 250}.{1 + n % 250}", "10.9.9.9", 17, bytes(22)) for n in range(2000)]


def forever(rate: int) -> tuple[dict[str, Any], str]:
    """in0 -> nf0 -> out0 at so many packets a second."""
    ports = {"in0": {"driver": "generator", "rate": rate}, "out0": {"driver": "sink"}}
    nfs = {"nf0": {"type": "forward", "engine": "cpu"}}
    return {"ports": ports, "nfs": nfs}, "*,in0,nf0\n*,nf0,out0\n"


def settle(run: Run) -> dict[str, Any]:
    """Run to the end; the status then."""
    meter = Meter(run.engine.view())
    run.wait()
    return meter.measure(run.engine.view())


def test_status_equals_summary() -> None:
    """in0 -> nf0 -> nf1 (device) -> out0: every count, and what must hold between them."""
    topology, rows = line("cpu", "gpu")
    with started(topology, PACKETS, rows) as run:
        status = settle(run)
        summary = summarise(run.engine.view(), run.engine.counters(), 1.0)
        run.stop()
    totals = status["totals"]
    assert totals["received"] == totals["sent"] == len(PACKETS) == summary["received"]
    assert (totals["dropped"], totals["in_flight"], totals["created"]) == ({}, 0, 0)
    flow = [(edge["from"], edge["to"], edge["packets"]) for edge in status["edges"]]
    assert sorted(flow) == [
        (a, b, 2000) for a, b in (("in0", "nf0"), ("nf0", "nf1"), ("nf1", "out0"))
    ]
    for name in ("nf0", "nf1"):
        nf = status["nfs"][name]
        assert nf["in"]["packets"] == nf["out"]["packets"] == summary["nfs"][name]["packets"]
        assert nf["in"]["bytes"] == summary["nfs"][name]["bytes"] == sum(map(len, PACKETS))
        assert 0 < nf["busy"] <= 1 and nf["depth"] == 0 and nf["latency_us"]["samples"] > 0
    device = status["device"]
    assert device["rows"] == summary["device"]["rows"] == sum(device["batch"])
    slots = device["slots_real_per_s"] + device["slots_dummy_per_s"]
    assert slots == pytest.approx(device["rows_per_s"] * device["lanes"])
    assert device["slots_real_per_s"] * status["interval_s"] == pytest.approx(len(PACKETS))
    chain = status["chains"]["other"]
    assert chain["path"] == ["in0", "nf0", "nf1", "out0"] and chain["packets"] == len(PACKETS)
    stay, first = chain["latency_us"], status["nfs"]["nf1"]["latency_us"]
    assert stay["p50"] <= stay["p99"] <= stay["p999"]
    assert first["p50"] <= stay["p999"]  # not its p50: bursts of one may leave the other as one
    json.dumps(status)


def test_without_samples_nothing_is_said_of_time() -> None:
    """telemetry.latency: false: counts as ever, latencies and busy times are not there."""
    topology, rows = line("cpu", telemetry={"latency": False})
    with started(topology, PACKETS, rows) as run:
        status = settle(run)
        run.stop()
    assert status["totals"]["sent"] == len(PACKETS)
    assert status["nfs"]["nf0"]["latency_us"] is status["nfs"]["nf0"]["busy"] is None
    assert status["ports"]["out0"]["latency_us"] is None
    assert status["chains"]["other"]["latency_us"] is None


def attached(run: Service) -> Attached:
    """Once packets flow; what a dead run of this name has left does not count."""
    view = base_dir() / run.name / VIEW

    def flows() -> bool:
        ours = view.exists() and json.loads(view.read_text())["pid"] == run.process.pid
        return ours and run.packets(1) > 0

    run.until(flows, "packets")
    return Attached(run.name)


def test_another_process_reads_rates(tmp_path: Path) -> None:
    """A generator at 20,000 packets a second at most, looked at while 10,000 leave it."""
    path = write_topology(tmp_path, *forever(20_000))
    with service(tmp_path, path) as run:
        with attached(run) as other:
            meter = Meter(other.view)
            before = meter.measure(other.view)
            seen = run.packets(0, "in_packets")
            run.until(lambda: run.packets(0, "in_packets") >= seen + 10_000, "packets")
            status = meter.measure(other.view)
            assert other.running and status["pid"] == run.process.pid
        grown = status["totals"]["received"] - before["totals"]["received"]
        assert grown >= 10_000
        assert status["rates"]["received_pps"] * status["interval_s"] == pytest.approx(grown)
        assert status["ports"]["in0"]["in"]["pps"] == status["rates"]["received_pps"]
        assert status["totals"]["received"] <= 20_000 * (status["uptime_s"] + 0.1)
        assert all(0 < lcore["busy"] <= 1 for lcore in status["lcores"])
        run.stop()


def test_a_reader_outlives_the_run(tmp_path: Path) -> None:
    """After kill -9 the last counters stay readable, also while another run takes the name."""
    path = write_topology(tmp_path, *forever(20_000))
    with service(tmp_path, path) as run, attached(run) as other:
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        assert not other.running
        last = Meter(other.view).measure(other.view)["totals"]
        with pytest.raises(UserError, match="has been killed"):
            Attached(run.name)
        with service(tmp_path, path, name=run.name) as again:
            with attached(again) as new:
                assert new.view.pid == again.process.pid
                assert not other.running and other.view.pid == run.process.pid
                assert Meter(other.view).measure(other.view)["totals"] == last
            again.stop()


def test_the_view_follows_a_reload() -> None:
    """Readers in other processes learn the new version and the new paths."""
    topology, rows = line("cpu", "cpu")
    with started(topology, PACKETS, rows) as run, Attached(run.engine.name) as other:
        assert other.view.policy_version == 1
        run.reload("*,in0,nf1\n*,nf1,out0\n")
        run.until(lambda: other.view.policy_version == 2, what="a look at the new one")
        assert other.view.paths["other"] == ("in0", "nf1", "out0")
        run.wait()
        run.stop()


# ---- what is not whole ---------------------------------------------------------------------------

HEAD_WORDS = HEAD.itemsize // 8
BIG = [2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
WORDS = st.one_of(
    st.sampled_from([*range(9), *BIG]), st.integers(0, 5000), st.integers(0, 2**64 - 1)
)
JSON = st.sampled_from(
    [None, True, -1, 0, 3, 10**400, 1.5, math.nan, "", "x", [], [0], [[]], {}, {"x": 1}]
)


class Sample:
    """A run directory whose files a test changes, with a lock as if it ran."""

    def __init__(self, name: str, stats: bytes, view: str, file: BinaryIO) -> None:
        self.name, self.stats, self.view, self.file = name, stats, view, file

    def show(self, stats: bytes, view: str) -> None:
        """Put these there."""
        self.file.seek(0)
        self.file.truncate()
        self.file.write(stats)
        self.file.flush()
        path = base_dir() / self.name / VIEW
        path.write_text(view, encoding="utf-8", errors="surrogatepass")

    def look(self) -> bool:
        """All that `hummingbird top` does; whether it refuses."""
        try:
            other = Attached(self.name)
        except UserError as error:
            assert "damaged" in error.what and error.fix
            return True
        with other:
            meter = Meter(other.view)
            meter.measure(other.view)
            status = meter.measure(other.view)
            assert top.lines(status, 80, 24) and json.dumps(status)
        return False


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    """Files of a run with a device, of 3 nodes."""
    topology, rows = line("cpu", "gpu")
    with started(topology, PACKETS[:200], rows) as run:
        run.wait()
        stats = (base_dir() / run.engine.name / STATS).read_bytes()
        view = run.engine.view(reports=False).to_json()
        run.stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(tmp_path_factory.mktemp("damaged")))
        (base_dir() / "x").mkdir()
        with open(base_dir() / "x" / STATS, "w+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found = Sample("x", stats, view, file)
            found.show(stats, view)
            assert not found.look()
            yield found


@given(st.data())
def test_damaged_counters_are_refused(sample: Sample, data: st.DataObject) -> None:
    """Cut short, or with another number in their head."""
    stats = sample.stats[: data.draw(st.integers(0, len(sample.stats)))]
    if data.draw(st.booleans()):
        at, word = data.draw(st.integers(0, HEAD_WORDS - 1)), data.draw(WORDS)
        stats = sample.stats[: 8 * at] + word.to_bytes(8, "little") + sample.stats[8 * at + 8 :]
    sample.show(stats, sample.view)
    assert sample.look() or len(stats) == len(sample.stats)


def replaced(data: st.DataObject, value: Any) -> Any:
    """The same, with another value or without one somewhere inside."""
    if not isinstance(value, dict | list) or not value or data.draw(st.integers(0, 3)) == 0:
        return data.draw(JSON)
    at = data.draw(st.sampled_from([*(value if isinstance(value, dict) else range(len(value)))]))
    found = copy.copy(value)
    if data.draw(st.integers(0, 3)) == 0:
        del found[at]
    else:
        found[at] = replaced(data, value[at])
    return found


@given(st.data())
def test_a_damaged_view_is_refused(sample: Sample, data: st.DataObject) -> None:
    """Cut short, garbage, or with something else in it: no traceback."""
    text = data.draw(
        st.one_of(
            st.integers(0, len(sample.view) - 1).map(lambda end: sample.view[:end]),
            st.sampled_from(["[" * 100_000, "null", '"x"', "[]", "{}", "7"]),
            st.text(),
        )
    )
    whole = data.draw(st.booleans())
    sample.show(
        sample.stats, json.dumps(replaced(data, json.loads(sample.view))) if whole else text
    )
    assert sample.look() or whole


def test_a_view_of_other_counters_is_refused(sample: Sample) -> None:
    """As many nodes, lcores and types have to be in one as in the other."""
    view = json.loads(sample.view)
    for name, less in (("nodes", view["nodes"][1:]), ("cpus", []), ("paths", {})):
        sample.show(sample.stats, json.dumps(view | {name: less}))
        assert sample.look()


def test_there_is_none() -> None:
    with pytest.raises(UserError, match="no instance named 'nobody' is running"):
        Attached("nobody")
