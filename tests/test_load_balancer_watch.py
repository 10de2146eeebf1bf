# SPDX-License-Identifier: BSD-3-Clause
"""hummingbird run --watch: the load balancer's file is edited while packets flow.

in0 (a capture for ever, at a rate) ── lb0 ── out0        backends.csv: edited meanwhile
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import capture, udp
from process import Service, edit, service, write_topology

TOPOLOGY: dict[str, Any] = {
    "ports": {
        "in0": {"driver": "pcap", "read": "$in", "loop": 0, "rate": 20_000},
        "out0": {"driver": "sink"},
    },
    "nfs": {
        "lb0": {
            "type": "load_balancer",
            "backends": "backends.csv",
            "services": {"dns": {"address": "10.0.1.1", "protocol": "udp", "port": "any"}},
        }
    },
}
FILE = "service,address,weight\ndns,10.0.2.1,1\ndns,10.0.2.2,1\n"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Service]:
    """A run with --watch, until packets come to the sink."""
    path = write_topology(tmp_path, TOPOLOGY, "*,in0,lb0\n*,lb0,out0\n")
    edit(tmp_path / "backends.csv", FILE)
    packets = [udp("10.0.0.1", "10.0.1.1", port, 9) for port in range(1, 200)]
    (tmp_path / "in.pcap").write_bytes(capture(packets))
    with service(tmp_path, path, "--in", "in.pcap", "--watch") as run:
        run.until(lambda: run.packets(1) > 400, "packets at the sink")
        yield run


def test_an_edit_is_applied_and_told(watched: Service, tmp_path: Path) -> None:
    edit(tmp_path / "backends.csv", FILE.replace("10.0.2.1,1", "10.0.2.1,0") + "dns,10.0.2.3,\n")
    watched.until(lambda: "1 added, 1 changed, 0 removed" in watched.text, "a word about it")
    edit(tmp_path / "backends.csv", "service,address\ndns,10.0.2.3\n")
    watched.until(lambda: "0 added, 0 changed, 2 removed" in watched.text, "a word about it")
    before = watched.packets(1)
    watched.until(lambda: watched.packets(1) > before + 1000, "more packets")
    summary = watched.stop().balanced
    found = summary["nfs"]["lb0"]["detail"]["services"]["dns"]
    assert summary["dropped"] == {}
    assert set(found["backends"]) == {"10.0.2.3"} and found["flows"] == 199


def test_a_broken_edit_changes_nothing(watched: Service, tmp_path: Path) -> None:
    edit(tmp_path / "backends.csv", FILE + "dns,10.0.2.2,5\n")
    watched.until(lambda: "stay as they were" in watched.text, "a word about it")
    assert "backends.csv:4: 10.0.2.2 of dns stands on line 3 already" in watched.text
    assert "fix: remove one of the two" in watched.text
    before = watched.packets(1)
    watched.until(lambda: watched.packets(1) > before + 1000, "more packets")
    summary = watched.stop().balanced
    found = summary["nfs"]["lb0"]["detail"]["services"]["dns"]["backends"]
    assert {name: one["weight"] for name, one in found.items()} == {"10.0.2.1": 1, "10.0.2.2": 1}
