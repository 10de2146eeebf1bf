# SPDX-License-Identifier: BSD-3-Clause
"""A router on live ports between two Linux hosts, none of which knows another's Ethernet address
beforehand: each asks, and the answers are believed.

    a ═══ lan: address 10.81.0.1, fd81::1 [ router0 ] wan: address 10.82.0.1, fd82::1 ═══ b
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pings import PATIENCE, answered
from process import Service
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS
from scapy.layers.l2 import ARP, Ether
from testbed import (
    ENDS,
    ENDS6,
    GATEWAYS,
    GATEWAYS6,
    PING,
    Bed,
    hummingbird,
    line,
    live_port,
    needs,
    summary_of,
    tcpdump,
    until,
)

from hummingbird.testing import read_capture

DRIVERS = ("af_packet", "af_xdp")
ROUTES = """prefix,next_hop
10.81.0.0/24,attached@lan
10.82.0.0/24,attached@wan
fd81::/64,attached@lan
fd82::/64,attached@wan
203.0.113.0/24,10.82.0.2@wan
198.51.100.0/24,10.82.0.99@wan
"""
NOBODY = "10.82.0.99"
ROWS = "*,lan,router0\n*,wan,router0\nto_lan,router0,lan\n*,router0,wan\n"


def topology(bed: Bed, driver: str) -> dict[str, Any]:
    """Both ports answer for the router, which has their Ethernet addresses."""
    ports = {
        name: live_port(driver, side, address=[GATEWAYS[n], GATEWAYS6[n]])
        for n, (name, side) in enumerate((("lan", "west"), ("wan", "east")))
    }
    router = {
        "type": "router",
        "routes": "table.csv",
        "interfaces": {
            name: {"mac": bed.mac("m", side)} for name, side in (("lan", "west"), ("wan", "east"))
        },
        "addresses": [*GATEWAYS, *GATEWAYS6],
        "ask": True,
        "icmp": {"type": "*"},
    }
    types = {"to_lan": [{"dst": "10.81.0.0/24"}, {"dst": "fd81::/64"}]}
    return {"ports": ports, "nfs": {"router0": router}, "types": types}


@contextmanager
def routed(driver: str, folder: Path) -> Iterator[tuple[Bed, Service]]:
    """Nobody has been told anybody's Ethernet address."""
    needs(PING, "tcpdump")
    with line("a", "m", "b", ipv6=True) as bed:
        files = {"table.csv": ROUTES}
        run = hummingbird(bed, "m", folder / "run", topology(bed, driver), ROWS, files=files)
        with run as process:
            yield bed, process


def reached(bed: Bed, to: str, count: int = 1, wait: float | None = None) -> int:
    """How many of so many pings from a are answered; with ``wait`` it is sure after so many seconds
    that no answer comes, else it waits for all."""
    patience = PATIENCE if wait is None else ("-W", str(wait))
    argv = ["ping", "-n", "-i", "0.01", *patience, "-c", str(count), to]
    return answered(bed.run("a", *argv).stdout, count)


def state(bed: Bed, name: str, address: str) -> str:
    """What a host's kernel says of a neighbour."""
    return bed.do(name, "ip", "neighbour", "show", "to", address)


def questions(capture: Path, mac: str) -> list[float]:
    """When a station has asked for the address of nobody."""
    sent = read_capture(capture)
    return [
        time / 1e9
        for packet, time in zip(sent.packets, sent.times, strict=True)
        if ARP in Ether(packet) and Ether(packet)[ARP].pdst == NOBODY and Ether(packet).src == mac
    ]


@pytest.mark.parametrize("driver", DRIVERS)
def test_hosts_and_router_find_each_other(driver: str, tmp_path: Path) -> None:
    with routed(driver, tmp_path) as (bed, process):
        for to in (ENDS[1], ENDS6[1]):
            until(lambda to=to: reached(bed, to, wait=0.5), "a first ping to go through")
            assert reached(bed, to, 10) == 10
        for address in (GATEWAYS[0], GATEWAYS6[0]):
            assert bed.mac("m", "west") in state(bed, "a", address)
        for address in (GATEWAYS[1], GATEWAYS6[1]):
            assert bed.mac("m", "east") in state(bed, "b", address)
        summary = summary_of(process)
    detail = summary["nfs"]["router0"]["detail"]
    learned = detail["learned"]
    assert learned[ENDS[1]] == learned[ENDS6[1]] == bed.mac("b", "west")
    assert learned[ENDS[0]] == learned[ENDS6[0]] == bed.mac("a", "east")
    assert summary["created"] >= detail["asked"] >= 2
    assert summary["ports"]["lan"]["answered"] >= 2 and detail["icmp_errors"] == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_nobody_is_asked_more_often_than_once_a_second(driver: str, tmp_path: Path) -> None:
    """Then its senders hear that it is not there, from the port that they are at."""
    with routed(driver, tmp_path) as (bed, process):
        until(lambda: reached(bed, ENDS[1], wait=0.5), "a first ping to go through")
        with tcpdump(bed, "b", "west", tmp_path) as seen:
            argv = ["ping", "-nD", "-i", "0.05", "-c", "120", "-W", "1", "198.51.100.7"]
            began = time.monotonic()
            said = bed.run("a", *argv).stdout
            summary = summary_of(process)
            seconds = time.monotonic() - began
    times = questions(seen, bed.mac("m", "east"))
    # on a busy machine one question takes longer to the wire than the next one
    assert 4 <= len(times) <= 1 + seconds
    assert f"From {GATEWAYS[0]}" in said and "Destination Host Unreachable" in said
    told = re.search(r"\[(\S+)\] From .* Destination Host Unreachable", said)
    assert told and float(told[1]) > times[2], "nobody is told before it was asked three times"
    assert summary["dropped"]["no_neighbour"] >= 120


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_goes_to_the_wire_is_sound(driver: str, tmp_path: Path) -> None:
    """tshark, which validates checksums, finds nothing wrong with questions and answers."""
    needs("tshark")
    with (
        routed(driver, tmp_path) as (bed, process),
        tcpdump(bed, "a", "east", tmp_path) as west,
        tcpdump(bed, "b", "west", tmp_path) as east,
    ):
        for to in (ENDS[1], ENDS6[1]):
            until(lambda to=to: reached(bed, to, wait=0.5), "a ping to go through")
        summary_of(process)
    for side, mac in ((west, bed.mac("m", "west")), (east, bed.mac("m", "east"))):
        ours = [Ether(packet) for packet in read_capture(side).packets]
        ours = [packet for packet in ours if packet.src == mac]
        assert any(ARP in packet for packet in ours)
        assert any(ICMPv6ND_NS in packet or ICMPv6ND_NA in packet for packet in ours)
        argv = ["tshark", "-r", str(side), "-o", "ip.check_checksum:TRUE", "-Y"]
        bad = f"eth.src == {mac} and (_ws.malformed or _ws.expert.severity >= warning)"
        done = subprocess.run([*argv, bad], capture_output=True, text=True, check=True)
        assert done.stdout == "", done.stdout
        bad = f"eth.src == {mac} and icmpv6.checksum.status == Bad"
        done = subprocess.run([*argv, bad], capture_output=True, text=True, check=True)
        assert done.stdout == "", done.stdout
