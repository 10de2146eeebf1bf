# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird run --watch: the router's file is edited while packets flow.

in0 (a capture for ever, at a rate) ── router0 ── out0        table.csv: edited meanwhile
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import capture, udp
from process import Service, service, write_topology

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
    path = write_topology(tmp_path, TOPOLOGY, "*,in0,router0\n*,router0,out0\n")
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "in.pcap").write_bytes(
        capture([udp("10.0.0.1", f"10.0.1.{n}", 1000, 9) for n in range(100)])
    )
    with service(tmp_path, path, "--in", "in.pcap", "--watch") as run:
        run.until(lambda: run.packets(1) > 100, "packets at the sink")
        yield run


def test_an_edit_is_applied_and_told(watched: Service, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(TABLE + "10.0.1.7/32,drop\n2001:db8::/32,drop\n")
    watched.until(lambda: "2 added, 0 changed, 0 withdrawn" in watched.text, "a word about it")
    before = watched.packets(1)
    watched.until(lambda: watched.packets(1) > before + 1000, "more packets")
    summary = watched.stop().balanced
    assert set(summary["dropped"]) == {"blackhole"}
    assert summary["nfs"]["router0"]["detail"]["ipv4"]["routes"] == 2


def test_a_broken_edit_changes_nothing(watched: Service, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("prefix,next_hop\n10.0.1.0/24,drop\n10.0.2.0/24,nobody\n")
    watched.until(lambda: "stay as they were" in watched.text, "a word about it")
    assert "table.csv:3: unknown next hop nobody" in watched.text
    before = watched.packets(1)
    watched.until(lambda: watched.packets(1) > before + 1000, "more packets")
    (tmp_path / "table.csv").write_text(TABLE.replace("10.0.0.1", "drop"))
    watched.until(lambda: "0 added, 1 changed, 0 withdrawn" in watched.text, "a word about it")
    assert set(watched.stop().balanced["dropped"]) <= {"blackhole"}
