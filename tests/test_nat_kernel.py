# SPDX-License-Identifier: BSD-3-Clause
"""The NAT makes of packets what Linux makes of them, to the byte, where both keep ports.

packets ─┬─ in0 ── nf0 (nat) ── out0 ───────────────┬─ the same, but for the TTL
         └─ tun ── Linux (tests/kernel_nat.py) ─────┘
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain import IPV4
from nat_traffic import NAT
from nf_helpers import ETHERNET
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet
from test_nat_model import through

A, OUT, ROUTER, EXTERNAL = "10.0.0.1", "198.51.100.7", "198.51.100.77", "203.0.113.4"
PARAMS = NAT | {
    "inside": ["10.0.0.0/8"],
    "external": [EXTERNAL],
    "ports": ["1-65535"],
    "keep_port": True,
    "filtering": "address-and-port-dependent",
}
SCRIPT = Path(__file__).parent / "kernel_nat.py"

Side = tuple[str, Packet]


class Linux:
    """The kernel's NAT."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["unshare", "-n", "python3", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.ready = self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def send(self, side: str, packet: bytes) -> bytes:
        """What leaves on the other side."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{side} {packet.hex()}\n")
        self._process.stdin.flush()
        return bytes.fromhex(self._line())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def linux() -> Iterator[Linux]:
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        pytest.skip("NOT COMPARED with Linux: that needs root and /dev/net/tun")
    if missing := [tool for tool in ("unshare", "nft", "ip", "sysctl") if not shutil.which(tool)]:
        pytest.skip(f"NOT COMPARED with Linux: apt-get install nftables iproute2 ({missing})")
    kernel = Linux()
    if not kernel.ready:
        kernel.close()
        pytest.skip("NOT COMPARED with Linux: this kernel has no nftables NAT")
    yield kernel
    kernel.close()


def without_ttl(packet: bytes) -> bytes:
    ip = IP(packet)
    header = IP(packet[: ip.ihl * 4])
    header.ttl = 0
    del header.chksum
    return bytes(header) + packet[ip.ihl * 4 :]


def connection() -> Iterator[Side]:
    """TCP, from its handshake to its end."""
    there = {"sport": 5000, "dport": 80}
    back = {"sport": 80, "dport": 5000}
    out, into = IP(src=A, dst=OUT), IP(src=OUT, dst=EXTERNAL)
    yield "in", out / TCP(**there, flags="S", seq=100)
    yield "out", into / TCP(**back, flags="SA", seq=900, ack=101)
    yield "in", out / TCP(**there, flags="A", seq=101, ack=901)
    yield "in", out / TCP(**there, flags="PA", seq=101, ack=901) / b"question"
    yield "out", into / TCP(**back, flags="PA", seq=901, ack=109) / b"an answer"
    yield "in", out / TCP(**there, flags="FA", seq=109, ack=910)
    yield "out", into / TCP(**back, flags="FA", seq=910, ack=110)


def datagrams() -> Iterator[Side]:
    """UDP, with and without checksums and options."""
    for number in range(20):
        options = [b"\x94\x04\x00\x00"] * (number % 3)
        fields = {"chksum": 0} if number % 4 == 3 else {}
        data = bytes(range(number * 7 % 50))
        ends = {"sport": 6000 + number, "dport": 53}
        yield "in", IP(src=A, dst=OUT, options=options) / UDP(**ends, **fields) / data
        ends = {"sport": 53, "dport": 6000 + number}
        yield "out", IP(src=OUT, dst=EXTERNAL, options=options) / UDP(**ends, **fields) / data


def echoes() -> Iterator[Side]:
    for number in (1, 77, 65535):
        yield "in", IP(src=A, dst=OUT) / ICMP(type=8, id=number, seq=1) / b"ping"
        yield "out", IP(src=OUT, dst=EXTERNAL) / ICMP(type=0, id=number, seq=1) / b"ping"


def errors() -> Iterator[Side]:
    """About each of these packets on its way, in both directions, cut where routers cut them."""
    l4s: list[Packet] = [
        UDP(sport=7000, dport=53),
        UDP(sport=7001, dport=53, chksum=0),
        TCP(sport=7002, dport=80, flags="S"),
        ICMP(type=8, id=7003),
    ]
    for l4 in l4s:
        data = bytes(range(50))
        yield "in", IP(src=A, dst=OUT) / l4 / data
        left = bytes(IP(src=EXTERNAL, dst=OUT, ttl=63) / l4 / data)
        for size, by in ((28, ROUTER), (48, OUT), (len(left), ROUTER)):
            quoted = ICMP(type=3, code=4, nexthopmtu=1400) / left[:size]
            yield "out", IP(src=by, dst=EXTERNAL) / quoted
    back = UDP(sport=53, dport=7000) / b"too late"
    yield "out", IP(src=OUT, dst=EXTERNAL) / back
    came = bytes(IP(src=OUT, dst=A, ttl=63) / back)
    yield "in", IP(src=A, dst=OUT) / ICMP(type=3, code=3) / came


def strangers() -> Iterator[Side]:
    """Whom nobody has sent to, and errors about what nobody has sent."""
    yield "in", IP(src=A, dst=OUT) / UDP(sport=8000, dport=53)
    yield "out", IP(src=OUT, dst=EXTERNAL) / UDP(sport=54, dport=8000)
    yield "out", IP(src=ROUTER, dst=EXTERNAL) / UDP(sport=53, dport=8000)
    yield "out", IP(src=OUT, dst=EXTERNAL) / TCP(sport=53, dport=8000, flags="S")
    foreign = bytes(IP(src=EXTERNAL, dst=OUT) / UDP(sport=9, dport=9))
    yield "out", IP(src=ROUTER, dst=EXTERNAL) / ICMP(type=3, code=1) / foreign


@pytest.mark.parametrize("what", [connection, datagrams, echoes, errors, strangers])
def test_linux_does_the_same(what: object, linux: Linux) -> None:
    assert callable(what)
    packets = [(side, bytes(packet)) for side, packet in what()]
    answers = [linux.send(side, packet) for side, packet in packets]
    result, _, _ = through([ETHERNET + IPV4 + packet for _, packet in packets], PARAMS, use="none")
    ours = [without_ttl(packet[14:]) for packet in result.packets]
    assert ours == [without_ttl(packet) for packet in answers if packet]
    assert len(ours) == (1 if what is strangers else len(packets))
