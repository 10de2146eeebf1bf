# SPDX-License-Identifier: BSD-3-Clause
"""ARP and neighbour discovery at live ports: their own `address` is answered for, all else is
traffic like any other.

    a: who has 10.81.0.1? ═ lan: address 10.81.0.1, fd81::1 [ there, back ] wan ═ b: tcpdump
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from process import Service
from testbed import (
    GATEWAYS,
    GATEWAYS6,
    LIVE,
    PING,
    Bed,
    hummingbird,
    line,
    needs,
    so_far,
    summary_of,
    tcpdump,
    until,
    wire,
)

from hummingbird.testing import read_capture

OTHER, OTHER6 = "10.81.0.77", "fd81::77"


@pytest.fixture
def bed() -> Iterator[Bed]:
    needs(PING, "tcpdump")
    with line("a", "m", "b", ipv6=True) as made:
        yield made


@pytest.fixture(params=[driver for driver in LIVE if driver != "dpdk"])
def process(bed: Bed, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A wire, one side of which has addresses."""
    topology, rows = wire(request.param)
    topology["ports"]["lan"]["address"] = [GATEWAYS[0], GATEWAYS6[0]]
    with hummingbird(bed, "m", tmp_path / "run", topology, rows) as run:
        yield run


def neighbour(bed: Bed, address: str) -> str:
    """What a knows of an address."""
    return bed.do("a", "ip", "neighbour", "show", "to", address, "dev", "east")


def ask(bed: Bed, address: str) -> None:
    """Make a's kernel look for it."""
    bed.run("a", "ping", "-n", "-c", "1", "-W", "0.3", address)


@pytest.mark.parametrize("address", [GATEWAYS[0], GATEWAYS6[0]], ids=["arp", "nd"])
def test_its_own_address_is_answered_for(
    bed: Bed, process: Service, address: str, tmp_path: Path
) -> None:
    """With the interface's Ethernet address; and nobody behind it hears the question."""
    with tcpdump(bed, "b", "west", tmp_path) as seen:
        ask(bed, address)
        until(lambda: "lladdr" in neighbour(bed, address), "an answer")
        assert bed.mac("m", "west") in neighbour(bed, address)
        summary_of(process)
    assert questions(read_capture(seen).packets, address) == 0


@pytest.mark.parametrize("address", [OTHER, OTHER6], ids=["arp", "nd"])
def test_other_questions_pass(bed: Bed, process: Service, address: str, tmp_path: Path) -> None:
    """By the policy, to the other side."""
    with tcpdump(bed, "b", "west", tmp_path) as seen:
        ask(bed, address)
        until(lambda: questions(so_far(seen), address) >= 1, "the question on the other side")
        summary_of(process)
        assert "lladdr" not in neighbour(bed, address)


def questions(packets: Sequence[bytes], address: str) -> int:
    """ARP requests, or neighbour solicitations, for an address."""
    import ipaddress

    wanted = ipaddress.ip_address(address).packed
    found = 0
    for packet in packets:
        arp = packet[12:14] == b"\x08\x06" and packet[38:42] == wanted
        nd = packet[12:14] == b"\x86\xdd" and packet[54] == 135 and packet[62:78] == wanted
        found += arp or nd
    return found
