# SPDX-License-Identifier: BSD-3-Clause
"""The flow monitor counts on a device what it counts on a CPU, which is what the model counts.

packets ─┬─ on the CPU ──────────────────────┐
         ├─ on a device, by executor, memory ┼─ the same records
         └─ model ───────────────────────────┘
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nf_helpers as nf
import numpy as np
import pytest
from chain import Result, line, run_chain, udp
from flow_helpers import NS, Record, by_direction, csv_records, model, timeless
from test_device_equal import FINE, WAYS, device, force, needs_persistent  # noqa: F401
from test_flow_monitor import DEMO, FOREVER, connection, monitor, traffic

from hummingbird.opencl.device import Device

pytest.importorskip("pyopencl")


def run(
    folder: Path, packets: Any, engine: str, *, fields: Any = None, sections: Any = None, **how: Any
) -> tuple[Result, list[Record]]:
    """Packets through a monitor; what it says of them."""
    file = folder / f"{engine}.csv"
    file.unlink(missing_ok=True)
    source, rows = line(
        monitor(engine=engine, csv=str(file), **(fields or {})),
        **({"flows": {"timeouts": FOREVER}} | (sections or {})),
    )
    result = run_chain(source, packets, rows, **how)
    assert result.summary["nfs"]["nf0"]["detail"]["lost_records"] == 0
    return result, csv_records(file)


def said(records: Sequence[Record]) -> list[Any]:
    """All that records say, in an order of its own."""
    found = []
    for record in records:
        ways = [(c.packets, c.octets, c.flags) for c in record.counts]
        times = record.counts[0].first, record.counts[0].last
        found.append((record.key, record.reason, record.zone, *ways, *times))
    return sorted(found, key=repr)


def check(folder: Path, packets: Any, executor: str, **options: Any) -> Result:
    """CPU = device = model."""
    _, expected = run(folder, packets, "cpu", use="none", **options)
    result, found = run(folder, packets, "gpu", executor=executor, **options)
    seen = result.summary["device"]
    assert seen["executor"] == executor and seen["failures"] == 0
    assert said(found) == said(expected)
    sent = result.outputs["out0"]
    assert timeless(by_direction(found)) == timeless(model(sent.packets, sent.times))
    return result


@pytest.mark.parametrize("way", WAYS)
def test_a_device_counts_what_the_cpu_counts(
    tmp_path: Path,
    way: str,
    device: Device,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few flows, so that many packets of each are on their way at once."""
    executor, settings = WAYS[way]
    if "fine-grain" in way and FINE not in device.svm:
        pytest.skip(f"{device.label} has no fine-grain SVM")
    if settings:
        force(monkeypatch, device, **settings)
    if executor == "persistent":
        needs_persistent(device)
    check(tmp_path, list(traffic(11, 4000)), executor)


@pytest.mark.parametrize("executor", ["launch", "persistent"])
def test_demonstration(tmp_path: Path, executor: str, device: Device) -> None:  # noqa: F811
    """The project's capture."""
    if executor == "persistent":
        needs_persistent(device)
    check(tmp_path, DEMO, executor)


@pytest.mark.parametrize("executor", ["launch", "persistent"])
@pytest.mark.parametrize("name", ["mixed_ndpi.pcap", "attack/ndpi__synscan.pcap"])
def test_real_captures(
    tmp_path: Path,
    name: str,
    executor: str,
    device: Device,  # noqa: F811
) -> None:
    """Real traffic."""
    if executor == "persistent":
        needs_persistent(device)
    check(tmp_path, nf.real_data("traces") / name, executor)


@pytest.mark.parametrize("executor", ["launch", "persistent"])
def test_flows_that_end_and_begin_anew(
    tmp_path: Path,
    executor: str,
    device: Device,  # noqa: F811
) -> None:
    """An entry of the table is used again and again; no flow sees what another one left there."""
    if executor == "persistent":
        needs_persistent(device)
    packets, times = [], []
    for number in range(4000):
        packets += connection(4000 + number % 999)
        times += [number * NS + step * 1000 for step in range(8)]
    options = {"times": times, "memory": {"flows": 1024}}
    sections = {"flows": {"timeouts": FOREVER | {"tcp_closing": 3}}}
    _, expected = run(tmp_path, packets, "cpu", use="none", sections=sections, **options)
    result, found = run(tmp_path, packets, "gpu", executor=executor, sections=sections, **options)
    assert result.dropped == {}
    assert said(found) == said(expected) and len(found) == 4000
    assert all(r.counts[0].packets + r.counts[1].packets == 8 for r in found)


@pytest.mark.parametrize("executor", ["launch", "persistent"])
def test_several_lcores(tmp_path: Path, executor: str, device: Device) -> None:  # noqa: F811
    """Syncers on several lcores: each has its flows and its ring."""
    if executor == "persistent":
        needs_persistent(device)
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("NOT TESTED with several lcores: there is one CPU")
    sections = {"cores": {"io": cpus, "syncer": cpus}, "flows": {"timeouts": FOREVER}}
    packets = list(traffic(13, 4000))
    result, found = run(tmp_path, packets, "gpu", executor=executor, sections=sections)
    sent = result.outputs["out0"]
    assert timeless(by_direction(found)) == timeless(model(sent.packets, sent.times))


@pytest.mark.parametrize("executor", ["launch", "persistent"])
def test_records_of_flows_that_go_on(
    tmp_path: Path,
    executor: str,
    device: Device,  # noqa: F811
) -> None:
    """Intermediate records add up, wherever packets are counted meanwhile."""
    if executor == "persistent":
        needs_persistent(device)
    packets = [udp("10.0.0.1", "10.0.0.2", 1 + n % 3, 2, bytes(n % 100)) for n in range(6000)]
    times = [int(t) for t in np.arange(6000) * (NS // 50)]
    result, found = run(
        tmp_path, packets, "gpu", executor=executor, times=times, fields={"active_timeout": 2}
    )
    sent = result.outputs["out0"]
    assert timeless(by_direction(found)) == timeless(model(sent.packets, sent.times))
    assert sum(record.reason == "active" for record in found) > 100
