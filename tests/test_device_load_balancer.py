# SPDX-License-Identifier: BSD-3-Clause
"""The load balancer on a device: what comes out, what is dropped and what is known of flows is what
the plain Python model says; persistent kernel and launches, memory shared and copied.

    packets ── in0 ── nf0 (load_balancer on a device) ── out0
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import Result, line, started
from load_balancer_helpers import (
    BALANCER,
    FILE,
    expected,
    flows_of,
    flows_of_model,
    model_of,
    packet,
    rebuilt,
    through,
    traffic,
)
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import rdpcap

from hummingbird.opencl.device import choose

DEMO = Path(__file__).parent.parent / "policies" / "demo" / "branch.pcap"
WAYS = [("persistent", None), ("launch", None), ("launch", "staged")]

pytestmark = pytest.mark.skipif(
    choose("auto") is None, reason="NOT COMPARED with a device: there is no OpenCL device"
)


@pytest.fixture(params=WAYS, ids=["persistent", "launch", "staged"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A way to run it on a device."""
    executor, binding = request.param
    if binding:
        monkeypatch.setenv("HUMMINGBIRD_BINDING", binding)
    return {"engine": "gpu", "use": "required", "executor": executor}


def check_ran(result: Result, way: dict[str, Any]) -> None:
    """It was the device, that way."""
    assert result.summary["nfs"]["nf0"]["runs_on"] == "gpu"
    assert result.summary["device"]["executor"] == way["executor"]
    binding = os.environ.get("HUMMINGBIRD_BINDING")
    assert binding is None or result.summary["device"]["binding"] == binding


def test_generated_traffic_is_as_in_the_model(way: dict[str, Any]) -> None:
    packets = traffic(np.random.default_rng(11), 3000)
    model, result = model_of(), through(packets, **way)
    check_ran(result, way)
    out, dropped = expected(model, packets)
    assert Counter(result.packets) == Counter(out)
    assert result.dropped == dropped
    assert flows_of(result) == flows_of_model(model)
    assert [rebuilt(one) for one in result.packets] == result.packets
    on_cpu = through(packets)
    details = [one.summary["nfs"]["nf0"]["detail"] for one in (result, on_cpu)]
    assert details[0] == details[1]


def test_the_demo_s_capture_is_as_in_the_model(way: dict[str, Any]) -> None:
    services = {
        "web": {"address": "203.0.113.10", "protocol": "tcp", "port": "any"},
        "voice": {"address": "203.0.113.20", "protocol": "udp", "port": "16384-16499"},
    }
    file = "service,address,port,weight,state,mac\nweb,10.9.0.1,,,,\nweb,10.9.0.2,,,,\n"
    model = model_of(file, BALANCER | {"services": services})
    packets = [bytes(one) for one in rdpcap(str(DEMO))]
    result = through(packets, file, services=services, **way)
    out, dropped = expected(model, packets)
    assert Counter(result.packets) == Counter(out) and result.dropped == dropped
    assert flows_of(result) == flows_of_model(model)


def test_what_is_left_for_the_cpu_is_done(way: dict[str, Any]) -> None:
    """Errors about packets too big for a tunnel, cutting, ICMP errors about connections."""
    file = FILE.replace("tube,2001:db8:4::1,,,,\n", "")
    big = [packet("203.0.113.12", 7, udp=True, size=1460, sport=n, flags="DF") for n in range(9)]
    cut = [packet("203.0.113.12", 7, udp=True, size=1460, sport=n) for n in range(100, 109)]
    answer = packet("198.51.100.1", 5000, src="203.0.113.10", sport=443)
    error = (
        Ether() / IP(src="192.0.2.9", dst="203.0.113.10") / ICMP(type=3) / Raw(bytes(answer)[14:])
    )
    packets = [bytes(one) for one in (*big, *cut, error)]
    on_cpu, on_device = through(packets, file), through(packets, file, **way)
    assert on_device.dropped == on_cpu.dropped == {"too_big": 9}
    assert Counter(on_device.packets) == Counter(on_cpu.packets)
    assert len(on_device.packets) == 9 + 18 + 1


def test_flows_stay_while_backends_come_and_go(way: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "backends.csv"
    file.write_text(FILE)
    packets = [bytes(packet("203.0.113.10", 443, sport=1024 + n)) for n in range(300)]
    device = {key: value for key, value in way.items() if key != "engine"}
    source, rows = line(BALANCER | {"backends": str(file), "engine": "gpu"})
    source["ports"]["in0"] |= {"loop": 0, "rate": 20_000}
    with started(source, packets, rows, **device) as run:
        host: Any = run.engine.hosts["nf0"]
        for turn in range(6):
            before = int(run.counters("out0")["out_packets"])
            run.until(lambda n=before: run.counters("out0")["out_packets"] > n + 600)
            rest = FILE.replace(f"web,10.0.1.{1 + turn % 3},", f"web,10.0.1.{4 + turn},")
            file.write_text(rest)
            host.reload()
        result = run.stop()
    assert result.dropped == {}
    chosen: dict[int, set[str]] = {}
    for data in result.packets:
        one = Ether(data)[IP]
        chosen.setdefault(one.sport, set()).add(one.dst)
    assert len(chosen) == 300 and all(len(backends) == 1 for backends in chosen.values())
