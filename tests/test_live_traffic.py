# SPDX-License-Identifier: BSD-3-Clause
"""Real programs through a whole chain on live ports, both ways.

    a: ping, iperf3, curl ═ lan [ nids0 (GPU) ── firewall0 ── router0 (CPU) ] wan ═ b: their servers
                  10.81.0.1                                           10.82.0.1

The ends ask for the gateways' Ethernet addresses; the ports answer.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process import Service
from testbed import (
    ENDS,
    GATEWAYS,
    IPERF,
    LIVE,
    NETWORKS,
    PING,
    Bed,
    counted,
    http,
    hummingbird,
    line,
    live_port,
    needs,
    ping,
    reach,
    stream,
    summary_of,
)

from hummingbird.opencl.device import choose

RULES = """\
alert tcp any any -> any any (msg:"union-select"; content:"UNION SELECT"; sid:1000004; rev:1;)
"""
FIREWALL = f"""\
name,src,dst,protocol,sport,dport,action
ping,{NETWORKS[0]},any,icmp,any,any,accept
ping-back,{NETWORKS[1]},any,icmp,any,any,accept
iperf,{NETWORKS[0]},any,tcp,any,5201,accept
web,{NETWORKS[0]},any,tcp,any,8080,accept
"""
ROUTES = f"prefix,next_hop\n{NETWORKS[0]},a\n{NETWORKS[1]},b\n"
FILES = {"web.rules": RULES, "firewall.csv": FIREWALL, "fib.csv": ROUTES}
OVERLOAD = {"queue_full", "port_full", "out_of_window"}
"""Drops: for want of room; and what TCP sends again after that, for which firewall0 has seen the
answer already."""
ROWS = """\
*,lan,nids0
*,wan,nids0
suspicious,nids0,drop
*,nids0,firewall0
*,firewall0,router0
home,router0,lan
*,router0,wan
"""


def gateway(bed: Bed, driver: str) -> dict[str, Any]:
    """The topology."""
    lan = live_port(driver, "west", address=[GATEWAYS[0]])
    wan = live_port(driver, "east", address=[GATEWAYS[1]])
    hops = {
        "a": {"mac": bed.mac("a", "east"), "src_mac": bed.mac("m", "west")},
        "b": {"mac": bed.mac("b", "west"), "src_mac": bed.mac("m", "east")},
    }
    nids = {"type": "nids", "engine": "gpu", "rules": "web.rules", "on_alert": "suspicious"}
    return {
        "ports": {"lan": lan, "wan": wan},
        "nfs": {
            "nids0": nids,
            "firewall0": {"type": "firewall", "rules": "firewall.csv"},
            "router0": {"type": "router", "routes": "fib.csv", "next_hops": hops},
        },
        "types": {"home": {"dst": NETWORKS[0]}},
    }


@pytest.fixture(params=LIVE)
def driver(request: pytest.FixtureRequest) -> str:
    """Of both ports."""
    return str(request.param)


@pytest.fixture
def bed() -> Iterator[Bed]:
    """Nobody forwards yet."""
    needs(PING, IPERF, "curl")
    with line("a", "m", "b") as made:
        yield made


@pytest.fixture
def process(bed: Bed, driver: str, tmp_path: Path) -> Iterator[Service]:
    """The chain, running."""
    if driver == "dpdk":  # answers nobody
        bed.neighbours()
    with hummingbird(bed, "m", tmp_path / "run", gateway(bed, driver), ROWS, files=FILES) as run:
        yield run


def check_device(summary: dict[str, Any]) -> None:
    """nids0 ran on the device, where there is one."""
    device = choose("auto")
    assert (summary["device"]["name"] is not None) == (device is not None)
    assert summary["nfs"]["nids0"]["packets"] > 0


def test_pings_both_ways(bed: Bed, process: Service) -> None:
    """Answered, every one, with the bytes that were sent; the TTL says that they were routed."""
    reach(bed)
    assert ping(bed, 50) == 50
    assert ping(bed, 50, name="b", size=1472) == 50
    assert "ttl=63" in bed.do("a", "ping", "-c", "1", ENDS[1])
    summary = summary_of(process)
    assert summary["dropped"] == {} and counted(summary, "missed", "lan", "wan") == 0
    assert counted(summary, "received", "lan", "wan") >= 202
    check_device(summary)


@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
def test_tcp(bed: Bed, process: Service, tmp_path: Path, reverse: bool) -> None:
    """iperf3 to its end. What is lost is lost before a port could take it, or for want of room."""
    received = stream(bed, tmp_path, reverse)
    summary = summary_of(process)
    went_in, came_out = ("wan", "lan") if reverse else ("lan", "wan")
    assert summary["ports"][went_in]["received_bytes"] > received
    assert summary["ports"][came_out]["sent_bytes"] > received
    assert set(summary["dropped"]) <= OVERLOAD, summary["dropped"]
    check_device(summary)


def test_a_download_and_one_that_is_stopped(bed: Bed, process: Service, tmp_path: Path) -> None:
    """The device sees what is in the packets: a file with what nids0 looks for does not arrive."""
    root = tmp_path / "root"
    root.mkdir()
    good = hashlib.sha256(b"seed").digest() * 16384
    (root / "good").write_bytes(good)
    (root / "bad").write_bytes(b"' UNION SELECT password FROM users --")
    with http(bed, "b", tmp_path, root, ENDS[1]) as url:
        bed.do("a", "curl", "-sS", "-o", str(tmp_path / "good"), f"{url}/good")
        assert process.drops("policy") == 0
        argv = bed.inside("a", "curl", "-sS", "-o", str(tmp_path / "bad"), f"{url}/bad")
        with subprocess.Popen(argv) as download:
            process.until(lambda: process.drops("policy") > 0, "the first drop")
            download.kill()
    assert (tmp_path / "good").read_bytes() == good
    assert not (tmp_path / "bad").exists() or not (tmp_path / "bad").read_bytes()
    summary = summary_of(process)
    # the firewall knows nothing of a server that goes on after its client has gone
    assert set(summary["dropped"]) <= {"policy", "denied"} | OVERLOAD
    check_device(summary)


def test_what_the_firewall_forbids(bed: Bed, process: Service, tmp_path: Path) -> None:
    """b may not connect to a: the firewall knows no such flow."""
    url = f"http://{ENDS[0]}:8080/"
    with subprocess.Popen(bed.inside("b", "curl", "-sS", url)) as download:
        process.until(lambda: process.drops("denied") > 0, "the first drop")
        download.kill()
    assert summary_of(process)["dropped"].keys() == {"denied"}
