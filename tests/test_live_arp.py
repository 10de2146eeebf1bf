# SPDX-License-Identifier: BSD-3-Clause
"""A port's address as Linux on the other end of the cable sees it: its kernel finds it, and finds
that it is taken.

    a ═══ lan: address 10.81.0.1, fd81::1 [ there, back ] wan ═══ b
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from process import Service
from scapy.layers.l2 import ARP, Dot1Q, Ether
from testbed import (
    GATEWAYS,
    GATEWAYS6,
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

from hummingbird.ports.addresses import far_end

DRIVERS = ("af_packet", "af_xdp", "dpdk")
OWNED = (GATEWAYS[0], GATEWAYS6[0])
BOTH = pytest.mark.parametrize("address", OWNED, ids=["arp", "nd"])


@pytest.fixture
def bed() -> Iterator[Bed]:
    needs(PING)
    with line("a", "m", "b", ipv6=True) as made:
        yield made


@pytest.fixture(params=DRIVERS)
def process(bed: Bed, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A wire, one side of which has addresses."""
    topology, rows = wire(request.param)
    topology["ports"]["lan"]["address"] = list(OWNED)
    with hummingbird(bed, "m", tmp_path / "run", topology, rows) as run:
        yield run


def ask(bed: Bed, address: str) -> None:
    """Make a's kernel look for an address; nobody answers the ping itself."""
    bed.run("a", "ping", "-n", "-c", "1", "-W", "0.3", address)


def known(bed: Bed, address: str) -> str:
    """What a's kernel knows of a neighbour."""
    return bed.do("a", "ip", "neighbour", "show", "to", address)


def finds(bed: Bed, address: str, mac: str) -> None:
    """Until a's kernel has this Ethernet address for it, by an answer of its own."""

    def found() -> bool:
        ask(bed, address)
        return mac in known(bed, address) and "REACHABLE" in known(bed, address)

    until(found, f"{mac} for {address}")


@BOTH
def test_the_kernel_confirms_it(bed: Bed, process: Service, address: str) -> None:
    """First by asking all, then, as soon as it is not sure any more, by asking the port alone."""
    # a kernel gives up when so many questions, one a second, have had no answer
    bed.sysctl("a", *(f"net.{ip}.neigh.east.ucast_solicit=60" for ip in ("ipv4", "ipv6")))
    finds(bed, address, bed.mac("m", "west"))
    before = process.packets(0, "answered")
    assert before >= 1
    mac = bed.mac("m", "west")
    bed.ip("a", f"neighbour replace {address} lladdr {mac} dev east nud probe")
    until(lambda: "REACHABLE" in known(bed, address), "the answer to a unicast question")
    summary = summary_of(process)
    assert summary["ports"]["lan"]["answered"] > before
    assert summary["ports"]["wan"]["answered"] == 0


def test_an_ipv4_address_is_taken(bed: Bed, process: Service) -> None:
    """arping's own detection of duplicates (RFC 5227), whose sender is 0.0.0.0."""
    needs("arping:iputils-arping")
    argv = ["arping", "-D", "-I", "east", "-w"]  # with -c it would wait no longer than a second
    assert bed.run("a", *argv, "60", GATEWAYS[0]).returncode == 1
    assert bed.run("a", *argv, "1", "10.81.0.78").returncode == 0
    summary_of(process)


def test_an_ipv6_address_is_taken(bed: Bed, process: Service) -> None:
    """The kernel's detection of duplicates (RFC 4862)."""
    # it asks once a second, and the address is its own when that many have had no answer
    bed.sysctl("a", "net.ipv6.conf.east.dad_transmits=60")
    bed.ip("a", f"address add {GATEWAYS6[0]}/64 dev east")
    show = ("a", "ip", "-6", "address", "show", "dev", "east")
    until(lambda: "dadfailed" in bed.do(*show), "the kernel to see that it is taken")
    bed.sysctl("a", "net.ipv6.conf.east.dad_transmits=1")
    bed.ip("a", "address add fd81::78/64 dev east")
    until(
        lambda: any("fd81::78" in one and "tentative" not in one
                    for one in bed.do(*show).splitlines()),
        "an address that nobody has",
    )  # fmt: skip
    summary_of(process)


def test_on_a_vlan(bed: Bed, process: Service, tmp_path: Path) -> None:
    """The answer has the tag of the question. Sent by hand: not every kernel has VLANs."""
    needs("tcpdump")
    mac = bed.mac("a", "east")
    arp = ARP(op=1, hwsrc=mac, psrc="10.81.0.2", pdst=GATEWAYS[0])
    asked = bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=7, prio=5) / arp)
    send = "s = socket(AF_PACKET, SOCK_RAW); s.bind(('east', 0))"
    send = f"from socket import *; {send}; s.send(bytes.fromhex('{asked.hex()}'))"
    with tcpdump(bed, "a", "east", tmp_path) as seen:
        bed.do("a", sys.executable, "-c", send)
        found = until(lambda: tagged_replies(seen), "the answer on the wire")
        summary_of(process)
    [reply] = found
    assert (reply[Dot1Q].vlan, reply[Dot1Q].prio) == (7, 5)
    assert (reply.dst, reply[ARP].hwsrc) == (mac, bed.mac("m", "west"))


def tagged_replies(capture: Path) -> list[Ether]:
    """Of a capture that may still be written."""
    packets = [Ether(packet) for packet in so_far(capture)]
    return [one for one in packets if Dot1Q in one and ARP in one and one[ARP].op == 2]


@BOTH
def test_another_ethernet_address(bed: Bed, process: Service, address: str) -> None:
    """The interface gets another one while packets flow; so do the answers."""
    finds(bed, address, bed.mac("m", "west"))
    other = "02:00:00:00:5a:a5"
    bed.ip("m", f"link set west address {other}")
    process.until(lambda: f"has Ethernet address {other}" in process.text, "a word about it")
    bed.ip("a", "neighbour flush dev east")
    finds(bed, address, other)
    summary_of(process)


@BOTH
def test_a_tap_is_a_station_of_its_own(bed: Bed, address: str, tmp_path: Path) -> None:
    """The kernel has the interface; the port, which is at the other end, an address beside its."""
    ports = {"t0": {"driver": "tap", "interface": "hb0", "address": list(OWNED)}}
    ports["wan"] = {"driver": "af_packet", "interface": "west"}
    rows = "*,t0,wan\n*,wan,t0\n"
    with hummingbird(bed, "b", tmp_path / "run", {"ports": ports}, rows) as process:
        nodad = " nodad" if ":" in address else ""
        mine = "fd81::3/64" if ":" in address else "10.81.0.3/24"
        bed.ip("b", "link set hb0 up", f"address add {mine} dev hb0{nodad}")
        mac = bytes.fromhex(
            bed.do("b", "cat", "/sys/class/net/hb0/address").strip().replace(":", "")
        )
        wanted = far_end(mac).hex(":")
        assert wanted != mac.hex(":")

        def found() -> bool:
            bed.run("b", "ping", "-n", "-c", "1", "-W", "0.3", address)
            said = bed.do("b", "ip", "neighbour", "show", "to", address)
            return wanted in said and "REACHABLE" in said

        until(found, f"{wanted} for {address}")
        assert summary_of(process)["ports"]["t0"]["answered"] >= 1
