# SPDX-License-Identifier: BSD-3-Clause
"""What bench/per_watt.py and bench/idle.py make of what they read: no run, no machine."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "bench"))

import idle
import meters
import per_watt
from harness import Result, Settings
from notreadable import NotReadable
from watched import Shared, Stretch

from hummingbird.errors import UserError

STRETCH = Stretch(
    seconds=2.0,
    packets=2_000_000,
    bytes=0,
    lcore_cpu=2.0,
    other_cpu=3.0,
    lcores=1,
    launches=0,
    latency=np.zeros(1, dtype=np.uint64),
    reader=None,  # type: ignore[arg-type]
)


def test_per_core_counts_lcores_and_the_time_of_other_threads() -> None:
    """1 M packets/s of 1472 bytes; one lcore and 1.5 cores beside it."""
    found = per_watt._throughput(STRETCH, 1472)
    gbps, per_core = found["Gbit/s"], found["Gbit/s per core"]
    assert not isinstance(gbps, UserError) and not isinstance(per_core, UserError)
    assert gbps.value == pytest.approx(11.776)
    assert per_core.value == pytest.approx(11.776 / 2.5)


def test_an_lcore_that_had_no_cpu_has_no_figure() -> None:
    assert STRETCH.mpps_by_cpu == pytest.approx(1.0)
    with pytest.raises(UserError, match="too busy"):
        _ = replace(STRETCH, lcore_cpu=0.0).mpps_by_cpu


def test_per_watt_and_per_packet() -> None:
    meter = meters.tdp("20")
    found = per_watt._per_energy(STRETCH, 1472, meter, meters.Energy(40.0, 2.0, "how"))
    values = [r.value for r in found.values() if not isinstance(r, UserError)]
    assert values == pytest.approx([11.776 / 20, 20])  # 20 W over 1 M packets/s: 20 uJ
    assert all("declared TDP, not measured" in name for name in found)


def test_what_cannot_be_read_is_no_figure() -> None:
    meter, why = meters.tdp("20"), NotReadable("no")
    assert set(per_watt._per_energy(STRETCH, 64, meter, why).values()) == {why}
    still = per_watt._per_energy(STRETCH, 64, meter, meters.Energy(0.0, 2.0, "how"))
    assert all(isinstance(value, NotReadable) for value in still.values())


def test_without_a_meter_ratios_have_a_reason_and_throughput_its_cases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reasons = {"rapl": "not readable: why not", "nvml": "not readable: no driver"}
    monkeypatch.setattr(meters, "find", lambda wanted: ([], reasons))
    monkeypatch.setattr(per_watt, "choose", lambda use: None)
    it, settings = per_watt.PerWatt(), Settings(True, 1, 0.1)
    per_energy = [ratio for ratio in it.ratios(settings) if "_per_watt_" in ratio.name]
    assert [ratio.missing for ratio in per_energy] == 2 * list(reasons.values())
    assert {case.unit for case in it.cases(settings)} == {"Gbit/s"}
    (about_meters, _) = it.notes(Result("per_watt", {}, None, None, {}))
    assert "rapl: not readable: why not" in about_meters


def test_shared_runs_once_a_round_in_any_order() -> None:
    runs: Iterator[Mapping[str, Any]] = iter([{"a": 1, "b": 2}, {"a": 3, "b": UserError("no")}])
    shared = Shared(lambda: next(runs))
    assert [shared.take("a"), shared.take("b")] == [1, 2]
    with pytest.raises(UserError, match="no"):
        shared.take("b")
    assert shared.take("a") == 3


def test_shared_fails_for_all_figures_of_a_run_that_failed() -> None:
    tries = []

    def run() -> Mapping[str, Any]:
        tries.append(1)
        raise UserError("no device")

    shared = Shared(run)
    for key in ("a", "b"):
        with pytest.raises(UserError, match="no device"):
            shared.take(key)
    assert len(tries) == 1


def test_lateness_is_against_the_generators_schedule(tmp_path: Path) -> None:
    """Five packets a second, the third of them 300 us late, over the end of a second."""
    capture = tmp_path / "out.pcap"
    records = b""
    for seconds, nanoseconds in [(99, 900_000_000), (100, 100_000_000), (100, 300_300_000)]:
        records += struct.pack("=IIII", seconds, nanoseconds, 60, 60) + bytes(60)
    capture.write_bytes(bytes(24) + records + b"\0\0")
    assert idle.late_us(capture, 5) == pytest.approx([0, 0, 300], abs=0.01)
