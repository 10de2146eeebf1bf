# SPDX-License-Identifier: BSD-3-Clause
"""tap ports: what the kernel sends at a tap comes in, what goes out is received by the kernel.

    kernel ══ t0 [ left ── there ── right ] t1 ══ kernel
                     └──── back ────┘

Oracles: Linux's own stack behind each tap, tcpdump, tshark's checksums.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import Run, started
from namespaces import Namespace, capture, namespace, needs, raw, until
from pings import PATIENCE, answered
from test_port_af_packet import (
    ROWS,
    drop_capability,
    flow_packet,
    frame,
    refusal,
    service,
    wrong_checksums,
)

CAP_NET_ADMIN = 12
CLONE_NEWNS = 0x20000

# Both ends are this machine's: what goes from one to the other leaves by a tap all the same.
TWO_ENDS = """
addr add 10.9.0.1/32 dev t0
addr add 10.9.0.2/32 dev t1
rule add pref 10 iif t0 lookup local
rule add pref 10 iif t1 lookup local
rule add pref 20 from 10.9.0.1 to 10.9.0.2 lookup 101
rule add pref 20 from 10.9.0.2 to 10.9.0.1 lookup 102
rule add pref 100 lookup local
rule del pref 0
route add 10.9.0.2 dev t0 table 101
route add 10.9.0.1 dev t1 table 102
"""


@pytest.fixture(autouse=True)
def _interfaces() -> None:
    needs("tcpdump")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("NOT TESTED: no /dev/net/tun")


@pytest.fixture
def bed() -> Iterator[Namespace]:
    """An empty namespace."""
    with namespace() as ns:
        yield ns


def line(queues: int = 1, **sections: Any) -> dict[str, Any]:
    """The topology of the drawing."""
    ports = {
        name: {"driver": "tap", "interface": interface, "queues": queues}
        for name, interface in (("lan", "t0"), ("wan", "t1"))
    }
    return {"ports": ports, "nfs": {n: {"type": "forward"} for n in ("there", "back")}, **sections}


@contextlib.contextmanager
def running(bed: Namespace, queues: int = 1, **sections: Any) -> Iterator[Run]:
    """The chain runs in the namespace."""
    with bed.entered(), started(line(queues, **sections), None, ROWS) as run:
        bed.wait_linked("t0", "t1")
        yield run


def interfaces(bed: Namespace) -> set[str]:
    """Names of all but lo."""
    lines = bed.run("ip", "-br", "link").splitlines()
    return {line.split()[0].split("@")[0] for line in lines} - {"lo"}


def two_ends(bed: Namespace) -> None:
    """The kernel has an address at each tap, and what it sends from one to the other goes by the
    chain."""
    for tap in ("all", "t0", "t1"):
        for setting in ("rp_filter=0", "accept_local=1", "arp_ignore=1"):
            bed.run("sysctl", "-qw", f"net.ipv4.conf.{tap}.{setting}")
    bed.ip(*TWO_ENDS.strip().splitlines())


# ---- packets -------------------------------------------------------------------------------------


def test_every_length_passes_both_ways(bed: Namespace, tmp_path: Path) -> None:
    frames = [frame(length) for length in range(60, 1515)]
    with (
        running(bed) as run,
        capture(bed, "t1", tmp_path) as right,
        capture(bed, "t0", tmp_path) as left,
        raw(bed, "t0") as from_left,
        raw(bed, "t1") as from_right,
    ):
        for number, data in enumerate(frames, 1):
            from_left.send(data)
            from_right.send(data)
            if number % 100 == 0:  # a tap holds 1000
                right.wait(number)
                left.wait(number)
        assert right.wait(len(frames)) == frames
        assert left.wait(len(frames)) == frames
        ports = run.stop().summary["ports"]
    for port in ports.values():
        assert port["received"] == port["sent"] == len(frames)
        assert port["received_bytes"] == port["sent_bytes"] == sum(map(len, frames))


@pytest.mark.parametrize("tags", ["81000005", "88a80007", "88a8000781006005"])
def test_vlan_tags_stay(bed: Namespace, tmp_path: Path, tags: str) -> None:
    frames = [frame(length, tags=bytes.fromhex(tags)) for length in (64, 777, 1510)]
    with running(bed) as run, capture(bed, "t1", tmp_path) as right, raw(bed, "t0") as left:
        for data in frames:
            left.send(data)
        assert right.wait(len(frames)) == frames
        run.stop()


def test_ping_and_tcp_between_two_taps(bed: Namespace, tmp_path: Path) -> None:
    needs("ping", "tshark")
    data = random.Random(1).randbytes(500_000)
    with running(bed) as run, capture(bed, "t1", tmp_path, "tcp or icmp") as seen:
        two_ends(bed)
        # the answer to the first one may wait for ARP
        more = ("-i", "0.02", *PATIENCE, "-s", "1400", "-I", "10.9.0.1", "10.9.0.2")
        assert answered(bed.run("ping", "-nc", "5", *more), 5) == 5
        with (
            bed.socket(socket.AF_INET, socket.SOCK_STREAM) as server,
            bed.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
        ):
            server.bind(("10.9.0.2", 4242))
            server.listen()
            client.bind(("10.9.0.1", 0))
            for end in (client, server):
                end.settimeout(30)
            client.connect(("10.9.0.2", 4242))
            accepted, _ = server.accept()
            with accepted:
                assert _transferred(client, accepted, data) == data
        result = run.stop()
    assert result.summary["ports"]["wan"]["sent_bytes"] > len(data)
    assert wrong_checksums(seen.file) == []


def _transferred(client: socket.socket, server: socket.socket, data: bytes) -> bytes:
    """Sends by one, receives by the other, a little at a time so that nobody has to wait."""
    got = b""
    for at in range(0, len(data), 20_000):
        client.sendall(data[at : at + 20_000])
        while len(got) < min(at + 20_000, len(data)):
            got += server.recv(65536)
    return got


def test_queues(bed: Namespace, tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    packets = [flow_packet(flow, number) for number in range(10) for flow in range(64)]
    with (
        running(bed, 2, cores={"io": cpus}) as run,
        capture(bed, "t1", tmp_path) as right,
        raw(bed, "t0") as left,
    ):
        for data in packets:
            left.send(data)
        assert Counter(right.wait(len(packets))) == Counter(packets)
        born = run.stop().snapshot.lcores["born"]
    assert len(born) == len(cpus) and all(born), "each queue had some"


def test_what_fits_no_frame(bed: Namespace, tmp_path: Path) -> None:
    lengths = [1664, 1665, 9014, 60]
    with running(bed) as run, capture(bed, "t1", tmp_path) as right, raw(bed, "t0") as left:
        bed.ip("link set t0 mtu 9000")
        for length in lengths:
            left.send(frame(length))
        assert right.wait(2) == [frame(1664), frame(60)]
        ((_, says),) = run.engine.port_messages()
        assert "interface t0" in says and "1665 bytes" in says and "memory.frame_size" in says
        result = run.stop()
    assert result.dropped == {"too_long": 2}
    assert result.summary["ports"]["lan"]["received_bytes"] == sum(lengths)


def test_what_the_kernel_had_no_room_for(bed: Namespace, tmp_path: Path) -> None:
    """While the run is stopped, the kernel keeps as many as fit: each is received or missed."""
    sent = 3000
    with service(bed, tmp_path, line()) as run, raw(bed, "t0") as left:
        run.process.send_signal(signal.SIGSTOP)
        for _ in range(sent):
            with contextlib.suppress(OSError):
                left.send(frame(60))
        run.process.send_signal(signal.SIGCONT)
        run.until(lambda: run.packets(0, "in_packets") + run.packets(0, "missed") == sent, "all")
        lan = run.stop().balanced["ports"]["lan"]
    assert lan["missed"] > 0 and lan["received"] > 0
    assert lan["missed"] + lan["received"] == sent


# ---- its life ------------------------------------------------------------------------------------


def test_down_and_up(bed: Namespace, tmp_path: Path) -> None:
    with running(bed) as run, capture(bed, "t1", tmp_path) as right, raw(bed, "t0") as left:
        left.send(frame(100))
        right.wait(1)
        bed.ip("link set t1 down")
        left.send(frame(200))
        run.until(lambda: int(run.counters("wan")["dropped"]) == 1)
        bed.ip("link set t1 up")
        bed.wait_linked("t1")
        left.send(frame(300))
        assert right.wait(2) == [frame(100), frame(300)]
        result = run.stop()
    assert result.dropped == {"port_down": 1}


@pytest.mark.parametrize("queues", [1, 2])
def test_it_is_made_again(
    bed: Namespace, tmp_path: Path, queues: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hummingbird")
    some = [flow_packet(flow, 0) for flow in range(20)]
    with running(bed, queues) as run, capture(bed, "t1", tmp_path) as right:
        for number in range(2):
            bed.ip("link del t0")
            run.until(lambda n=number: caplog.text.count("interface t0 is back") == n + 1)
            bed.wait_linked("t0")
            with raw(bed, "t0") as left:
                for data in some:
                    left.send(data)
            right.wait((number + 1) * len(some))
        assert Counter(right.packets) == Counter(some * 2)
        assert run.stop().dropped == {}


def test_it_is_gone_with_the_run(bed: Namespace, tmp_path: Path) -> None:
    assert interfaces(bed) == set()
    with running(bed) as run:
        assert interfaces(bed) == {"t0", "t1"}
        run.stop()
    assert interfaces(bed) == set()
    with service(bed, tmp_path, line()) as killed:
        assert interfaces(bed) == {"t0", "t1"}
        killed.process.kill()
        killed.process.wait()
        until(lambda: interfaces(bed) == set(), "the taps to go")


# ---- refusals ------------------------------------------------------------------------------------


def test_a_name_that_is_taken(bed: Namespace) -> None:
    bed.wire("v0", "v1")
    lan = {"driver": "tap", "interface": "t0"}
    says = refusal(bed, lan=lan, wan={"driver": "tap", "interface": "v0"})
    assert "ports.wan: interface v0: a tap of this name: Invalid argument" in says
    assert "an interface has this name" in says
    with running(bed) as run:
        says = refusal(bed, lan=lan)
        assert "ports.lan: interface t0: a tap of this name: Device or resource busy" in says
        assert "another program has it" in says
        run.stop()
    assert interfaces(bed) == {"v0", "v1"}, "nothing is left half open"


def test_without_the_right(bed: Namespace, tmp_path: Path) -> None:
    with service(bed, tmp_path, line(), lambda: drop_capability(CAP_NET_ADMIN)) as run:
        ended = run.wait()
    assert ended.status == 2 and "Traceback" not in ended.text
    assert "ports.lan: interface t0: a tap of this name: Operation not permitted" in ended.text
    assert "fix: run it as root, or with the capability CAP_NET_ADMIN" in ended.text


def test_without_the_device_file(bed: Namespace, tmp_path: Path) -> None:
    def hide() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        private = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC
        assert libc.unshare(CLONE_NEWNS) == 0
        assert libc.mount(b"none", b"/", None, private, None) == 0
        assert libc.mount(b"tmpfs", b"/dev/net", b"tmpfs", 0, None) == 0

    with service(bed, tmp_path, line(), hide) as run:
        ended = run.wait()
    assert ended.status == 2 and "Traceback" not in ended.text
    assert "interface t0: /dev/net/tun: No such file or directory" in ended.text
    assert "fix: load the kernel's module: modprobe tun" in ended.text
