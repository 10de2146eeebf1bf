# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird run --watch: the router's file is edited while packets flow.

in0 (a capture for ever, at a rate) ── router0 ── out0        table.csv: edited meanwhile
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chain import capture, udp
from process import Service, edit, service, write_topology

from hummingbird.opencl.device import choose

TOPOLOGY: dict[str, Any] = {
    "ports": {
        "in0": {"driver": "pcap", "read": "$in", "loop": 0, "rate": 20_000},
        "out0": {"driver": "sink"},
    },
    "nfs": {
        "router0": {
            "type": "router",
            "routes": "table.csv",
            "mac": "02:00:00:00:00:01",
            "neighbours": {"10.0.0.1": "02:00:00:00:00:02"},
        }
    },
}
TABLE = "prefix,next_hop\n10.0.1.0/24,10.0.0.1\n"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Service]:
    """A run with --watch that forwards everything."""
    with watching(tmp_path, TOPOLOGY) as run:
        yield run


@contextmanager
def watching(tmp_path: Path, topology: dict[str, Any], **environment: str) -> Iterator[Service]:
    """Until packets come to the sink."""
    path = write_topology(tmp_path, topology, "*,in0,router0\n*,router0,out0\n")
    edit(tmp_path / "table.csv", TABLE)
    (tmp_path / "in.pcap").write_bytes(
        capture([udp("10.0.0.1", f"10.0.1.{n}", 1000, 9) for n in range(100)])
    )
    with service(tmp_path, path, "--in", "in.pcap", "--watch", **environment) as run:
        run.until(lambda: run.packets(1) > 100, "packets at the sink")
        yield run


def test_an_edit_is_applied_and_told(watched: Service, tmp_path: Path) -> None:
    edit(tmp_path / "table.csv", TABLE + "10.0.1.7/32,drop\n2001:db8::/32,drop\n")
    watched.until(lambda: "2 added, 0 changed, 0 withdrawn" in watched.text, "a word about it")
    before = watched.packets(1)
    watched.until(lambda: watched.packets(1) > before + 1000, "more packets")
    summary = watched.stop().balanced
    assert set(summary["dropped"]) == {"blackhole"}
    assert summary["nfs"]["router0"]["detail"]["ipv4"]["routes"] == 2


def test_a_broken_edit_changes_nothing(watched: Service, tmp_path: Path) -> None:
    edit(tmp_path / "table.csv", "prefix,next_hop\n10.0.1.0/24,drop\n10.0.2.0/24,nobody\n")
    watched.until(lambda: "stay as they were" in watched.text, "a word about it")
    assert "table.csv:3: unknown next hop nobody" in watched.text
    before = watched.packets(1)
    watched.until(lambda: watched.packets(1) > before + 1000, "more packets")
    edit(tmp_path / "table.csv", TABLE.replace("10.0.0.1", "drop"))
    watched.until(lambda: "0 added, 1 changed, 0 withdrawn" in watched.text, "a word about it")
    assert set(watched.stop().balanced["dropped"]) <= {"blackhole"}


def test_an_edit_that_needs_more_room_than_there_is_changes_nothing(tmp_path: Path) -> None:
    """Groups of entries are made on demand, in what was set aside at the start."""
    nfs = {"router0": TOPOLOGY["nfs"]["router0"] | {"room": 2}}
    with watching(tmp_path, TOPOLOGY | {"nfs": nfs}) as run:
        long = [f"10.9.{n}.0/25,drop\n" for n in range(3)]
        edit(tmp_path / "table.csv", TABLE + "".join(long))
        run.until(lambda: "stay as they were" in run.text, "a word about it")
        assert "long IPv4 prefixes may need 3 groups of entries, there is room for 2" in run.text
        assert "fix: write room: 3 and start again" in run.text
        edit(tmp_path / "table.csv", TABLE + "".join(long[:2]))
        run.until(lambda: "2 added, 0 changed, 0 withdrawn" in run.text, "a word about it")
        assert run.stop().balanced["nfs"]["router0"]["detail"]["ipv4"]["groups"] == 2


@pytest.mark.parametrize("executor, binding", [("persistent", None), ("launch", "staged")])
def test_a_device_sees_the_edit(executor: str, binding: str | None, tmp_path: Path) -> None:
    """One that shares memory sees the host's stores; one that has a copy gets what has changed."""
    if choose("auto") is None:
        pytest.skip("NOT TESTED on a device: there is none")
    environment = {"HUMMINGBIRD_BINDING": binding} if binding else {}
    router = TOPOLOGY["nfs"]["router0"] | {"engine": "gpu"}
    device = {"use": "required", "executor": executor}
    topology = TOPOLOGY | {"nfs": {"router0": router}, "device": device}
    with watching(tmp_path, topology, **environment) as run:
        edit(tmp_path / "table.csv", TABLE.replace("10.0.0.1", "drop"))
        run.until(lambda: "0 added, 1 changed, 0 withdrawn" in run.text, "a word about it")
        came = run.packets(0, "in_packets")
        run.until(lambda: run.packets(0, "in_packets") > came + 2000, "more packets")
        summary = run.stop().balanced
    assert summary["device"]["executor"] == executor
    assert summary["device"]["binding"] == (binding or summary["device"]["binding"])
    assert summary["dropped"]["blackhole"] > 1000
