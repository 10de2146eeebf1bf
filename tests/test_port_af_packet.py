# SPDX-License-Identifier: BSD-3-Clause
"""af_packet ports on veth pairs.

    pa ══ ia [ lan ── there ── wan ] ib ══ pb       frames by raw sockets, seen by tcpdump
                  └── back ───┘

Oracles: the bytes that were sent, tcpdump, tshark's checksums, Linux's TCP, UDP and ethtool.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import HEADER, Run, by_flow, ipv4, run_chain, started
from namespaces import Namespace, capture, namespace, needs, raw, until
from process import Service

from hummingbird.errors import UserError
from hummingbird.telemetry import rundir

ADDRESSES = bytes.fromhex("020000000002020000000001")
UNKNOWN = b"\x88\xb5"  # an EtherType for experiments
ROWS = "*,lan,there\n*,there,wan\n*,wan,back\n*,back,lan\n"
CPUS = sorted(os.sched_getaffinity(0))
CHUNK = 256
"""Frames at a time; the kernel queues 1,000 to an interface (net.core.netdev_max_backlog)."""
PR_CAPBSET_DROP, CAP_NET_RAW = 24, 13
SOL_UDP, UDP_SEGMENT = 17, 103


@pytest.fixture(autouse=True)
def _interfaces() -> None:
    needs("ethtool", "tcpdump")


@pytest.fixture
def bed() -> Iterator[Namespace]:
    """A namespace with the two pairs."""
    with namespace() as ns:
        ns.wire("ia", "pa")
        ns.wire("ib", "pb")
        yield ns


def line(queues: int = 1, **sections: Any) -> dict[str, Any]:
    """The topology of the drawing."""
    ports = {
        name: {"driver": "af_packet", "interface": interface, "queues": queues}
        for name, interface in (("lan", "ia"), ("wan", "ib"))
    }
    return {"ports": ports, "nfs": {n: {"type": "forward"} for n in ("there", "back")}, **sections}


@contextlib.contextmanager
def running(bed: Namespace, queues: int = 1, **sections: Any) -> Iterator[Run]:
    """The chain runs in the namespace."""
    with bed.entered(), started(line(queues, **sections), None, ROWS) as run:
        yield run


def frame(length: int, seed: int = 0, tags: bytes = b"") -> bytes:
    """No IP packet, of so many bytes that nobody would guess."""
    payload = random.Random(length * 1000 + seed).randbytes(length - 14 - len(tags))
    return ADDRESSES + tags + UNKNOWN + payload


def flow_packet(flow: int, number: int) -> bytes:
    """UDP without a checksum; the payload tells which one it is."""
    ports = struct.pack(">HHHH", 1000 + flow, 53, 16, 0)
    return ipv4(
        f"10.0.0.{flow % 250 + 1}", "10.1.0.1", 17, ports + struct.pack(">II", flow, number)
    )


def received(run: Run, port: str) -> int:
    """Packets that a port has had."""
    return int(run.counters(port)["in_packets"])


def feed(run: Run, port: str, peer: socket.socket, frames: Sequence[bytes]) -> None:
    """Send all to a port that has had none, no faster than the kernel hands them over."""
    for at in range(0, len(frames), CHUNK):
        some = frames[at : at + CHUNK]
        for data in some:
            peer.send(data)
        wait_received(run, port, at + len(some))


def wait_received(run: Run, port: str, count: int) -> None:
    """Until a port has had so many."""
    run.until(lambda: received(run, port) >= count, what=f"{count} packets at {port}")
    assert received(run, port) == count


def ports_of(run: Run) -> Any:
    """What the summary of the run, which ends, says of its ports."""
    return run.stop().summary["ports"]


# ---- bytes ---------------------------------------------------------------------------------------


def test_every_length_passes_both_ways(bed: Namespace, tmp_path: Path) -> None:
    frames = [frame(length) for length in range(60, 1515)]
    with (
        running(bed) as run,
        capture(bed, "pb", tmp_path) as b,
        capture(bed, "pa", tmp_path) as a,
        raw(bed, "pa") as from_a,
        raw(bed, "pb") as from_b,
    ):
        feed(run, "lan", from_a, frames)
        feed(run, "wan", from_b, frames)
        assert b.wait(len(frames)) == frames
        assert a.wait(len(frames)) == frames
        ports = ports_of(run)
    for port in ports.values():
        assert port["received"] == port["sent"] == len(frames)
        assert port["received_bytes"] == port["sent_bytes"] == sum(map(len, frames))


TAGS = {
    "VLAN": "81000005",
    "VLAN with a priority": "8100e005",
    "VLAN 0": "81002000",
    "service tag": "88a80007",
    "QinQ": "88a8000781006005",
    "two VLANs": "8100000781000005",
    "three tags": "88a800078100000581000006",
}


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS.keys())
def test_vlan_tags_stay(bed: Namespace, tmp_path: Path, tags: str) -> None:
    frames = [frame(length, tags=bytes.fromhex(tags)) for length in (64, 777, 1510)]
    with running(bed) as run, capture(bed, "pb", tmp_path) as b, raw(bed, "pa") as a:
        for data in frames:
            a.send(data)
        assert b.wait(len(frames)) == frames
        assert ports_of(run)["lan"]["received_bytes"] == sum(map(len, frames))


# ---- what senders on this machine leave to their interface -----------------------------------


@contextlib.contextmanager
def hosts(tmp_path: Path) -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """The middle and two hosts, 10.9.0.1 by pa and 10.9.0.2 by pb."""
    with namespace() as bed, namespace() as a, namespace() as b:
        for ours, peer, host, end in (("ia", "pa", a, 1), ("ib", "pb", b, 2)):
            bed.wire(ours, peer, host)
            host.run("sysctl", "-qw", f"net.ipv6.conf.{peer}.disable_ipv6=0")
            host.run("sysctl", "-qw", f"net.ipv6.conf.{peer}.accept_dad=0")
            host.ip(f"addr add 10.9.0.{end}/24 dev {peer}", f"addr add fd09::{end}/64 dev {peer}")
        yield bed, a, b


def wrong_checksums(file: Path) -> list[str]:
    """What tshark has to say of the checksums of a capture."""
    argv = ["tshark", "-nr", str(file), "-T", "fields", "-e", "ip.checksum.status"]
    argv += ["-e", "tcp.checksum.status", "-e", "udp.checksum.status"]
    for protocol in ("ip", "tcp", "udp"):
        argv += ["-o", f"{protocol}.check_checksum:TRUE"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "0" in line.split()]


@contextlib.contextmanager
def listening(at: Namespace, family: int, kind: int) -> Iterator[socket.socket]:
    """A server on any address, port 4242."""
    with at.socket(family, kind) as s:
        s.settimeout(30)
        s.bind(("", 4242))
        if kind == socket.SOCK_STREAM:
            s.listen()
        yield s


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_partial_checksums_are_completed(tmp_path: Path, family: int) -> None:
    """Linux's own stacks talk through the port with all checksum offloads on, which on veth means
    that nobody ever computes a checksum."""
    needs("tshark")
    to = "10.9.0.2" if family == socket.AF_INET else "fd09::2"
    with (
        hosts(tmp_path) as (bed, a, b),
        running(bed) as run,
        capture(bed, "ia", tmp_path, "udp or tcp") as before,
        capture(b, "pb", tmp_path, "udp or tcp") as behind,
        listening(b, family, socket.SOCK_DGRAM) as udp,
        listening(b, family, socket.SOCK_STREAM) as tcp,
    ):
        a.offload("pa", False, "tso", "gso")  # but not the checksums
        with a.socket(family, socket.SOCK_DGRAM) as s:
            for length in range(1, 1400, 111):  # even and odd
                s.sendto(bytes(length), (to, 4242))
                assert len(udp.recv(2000)) == length
        with a.socket(family, socket.SOCK_STREAM) as client:
            client.connect((to, 4242))
            server, _ = tcp.accept()
            with server:
                client.sendall(b"odd" * 3333)
                client.shutdown(socket.SHUT_WR)
                data = b""
                while some := server.recv(65536):
                    data += some
        assert data == b"odd" * 3333
        behind.wait(13 + 7)
        run.stop()
    assert wrong_checksums(before.file), "nothing was left to be completed"
    assert wrong_checksums(behind.file) == []


def test_segments_that_come_as_one_are_counted_and_explained(tmp_path: Path) -> None:
    with (
        hosts(tmp_path) as (bed, a, b),
        running(bed) as run,
        listening(b, socket.AF_INET, socket.SOCK_DGRAM) as udp,
        a.socket(socket.AF_INET, socket.SOCK_DGRAM) as s,
    ):
        s.sendto(b"hello", ("10.9.0.2", 4242))  # addresses get known
        assert udp.recv(100) == b"hello"
        s.setsockopt(SOL_UDP, UDP_SEGMENT, 1400)
        s.sendto(bytes(14000), ("10.9.0.2", 4242))  # ten segments
        messages: list[tuple[str, str]] = []

        def told() -> bool:
            messages.extend(run.engine.port_messages())
            return bool(messages)

        run.until(told)  # packets may be others: Linux looks for routers of IPv6
        ((_, says),) = messages
        assert "ethtool -K ia gro off" in says and "tso off gso off" in says
        assert list(run.engine.port_messages()) == [], "said twice"
        a.offload("pa", False, "tx-udp-segmentation", "gso")
        s.sendto(bytes(14000), ("10.9.0.2", 4242))
        assert [len(udp.recv(2000)) for _ in range(10)] == [1400] * 10
        result = run.stop()
    assert result.dropped == {"too_long": 1}


def test_what_fits_no_frame(bed: Namespace, tmp_path: Path) -> None:
    for interface in ("ia", "pa", "ib", "pb"):
        bed.ip(f"link set {interface} mtu 9000")
    lengths = [1664, 1665, 9014, 60]
    with running(bed) as run, capture(bed, "pb", tmp_path) as b, raw(bed, "pa") as a:
        for length in lengths:
            a.send(frame(length))
        assert b.wait(2) == [frame(1664), frame(60)]
        ((_, says),) = run.engine.port_messages()
        assert "1665 bytes" in says and "memory.frame_size" in says
        result = run.stop()
    assert result.dropped == {"too_long": 2}
    assert result.summary["ports"]["lan"]["received_bytes"] == sum(lengths)


# ---- several queues ------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [CPUS[-1:], CPUS[:2]], ids=["one lcore", "two lcores"])
def test_queues_share_the_flows(bed: Namespace, tmp_path: Path, cpus: list[int]) -> None:
    if cpus == CPUS[:2] and len(cpus) < 2:
        pytest.skip("NOT TESTED: needs two CPUs")
    packets = [flow_packet(flow, number) for number in range(40) for flow in range(64)]
    with (
        running(bed, 2, cores={"io": cpus}) as run,
        capture(bed, "pb", tmp_path) as b,
        raw(bed, "pa") as a,
    ):
        feed(run, "lan", a, packets)
        got = b.wait(len(packets))
        assert Counter(got) == Counter(packets), "each once"
        assert by_flow(got) == by_flow(packets), "flows in order"
        admitted = run.stop().snapshot.lcores["born"]
    assert len(admitted) == len(cpus) and all(admitted), "each queue had some"


@pytest.mark.parametrize("queues", [1, 2])
def test_what_the_machine_itself_sends_does_not_come_in(
    bed: Namespace, tmp_path: Path, queues: int
) -> None:
    with (
        running(bed, queues) as run,
        capture(bed, "pa", tmp_path) as seen,
        raw(bed, "ia") as own,
        raw(bed, "pa") as peer,
    ):
        for number in range(20):
            own.send(flow_packet(number, 0))
        seen.wait(20)
        for number in range(20):
            peer.send(flow_packet(number, 0))
        wait_received(run, "lan", 20)
        run.stop()


# ---- sending -------------------------------------------------------------------------------------


def test_too_long_for_the_interface_stops_nobody_else(bed: Namespace, tmp_path: Path) -> None:
    bed.ip("link set ib mtu 1000")
    short = [frame(length) for length in range(1000, 1015)]
    long = [frame(length) for length in range(1015, 1515, 10)]
    packets = [*long, *short] * 20
    random.Random(1).shuffle(packets)
    # all at once, so that bursts have many of both
    at_once = {"in0": {"driver": "pcap", "read": "$in"}, "wan": line()["ports"]["wan"]}
    rows = "*,in0,wan\n*,wan,drop\n"
    with (
        bed.entered(),
        capture(bed, "pb", tmp_path) as b,
        started({"ports": at_once}, packets, rows) as run,
    ):
        assert b.wait(len(short) * 20) == [p for p in packets if p in short]
        result = run.stop()
    assert result.dropped == {"too_long": len(long) * 20}
    assert result.summary["ports"]["wan"]["sent_bytes"] == sum(map(len, short)) * 20


def test_link_down_and_up(bed: Namespace, tmp_path: Path) -> None:
    with running(bed) as run, capture(bed, "pb", tmp_path) as b, raw(bed, "pa") as a:

        def dropped() -> int:
            return int(run.counters("wan")["dropped"])

        a.send(frame(100))
        b.wait(1)
        bed.ip("link set ib down")
        a.send(frame(200))
        run.until(lambda: dropped() == 1)
        bed.ip("link set ia down", "link set ia up", "link set ib up")
        bed.wait_linked("ia", "ib", "pa", "pb")
        a.send(frame(300))
        assert b.wait(2) == [frame(100), frame(300)]
        result = run.stop()
    assert result.dropped == {"port_down": 1}


@pytest.mark.parametrize("queues", [1, 2])
def test_an_interface_that_is_made_again(
    bed: Namespace, tmp_path: Path, queues: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hummingbird")
    some = [flow_packet(flow, 0) for flow in range(20)]
    with running(bed, queues) as run, capture(bed, "pb", tmp_path) as b:
        with raw(bed, "pa") as a:
            a.send(frame(100))
            b.wait(1)
        bed.ip("link del ia")
        run.until(lambda: "is gone" in caplog.text)
        with raw(bed, "pb") as back:
            back.send(frame(60))
            run.until(lambda: int(run.counters("lan")["dropped"]) == 1)
        bed.wire("ia", "pa")
        run.until(lambda: "interface ia is back" in caplog.text)
        with raw(bed, "pa") as a:
            for data in some:
                a.send(data)
        assert Counter(b.wait(1 + len(some))) == Counter([frame(100), *some])
        result = run.stop()
    assert result.dropped == {"port_down": 1}


def handed_over(bed: Namespace) -> int:
    """Packets that have gone from pa to ia, as Linux counts them."""
    return int(
        json.loads(bed.run("ip", "-j", "-s", "link", "show", "pa"))[0]["stats64"]["tx"]["packets"]
    )


def test_what_the_kernel_had_no_room_for(bed: Namespace, tmp_path: Path) -> None:
    """While the run is stopped, the kernel keeps as many as fit: each is received or missed."""
    with service(bed, tmp_path, line()) as run, raw(bed, "pa") as a:
        run.process.send_signal(signal.SIGSTOP)
        before = handed_over(bed)
        for _ in range(40_000):
            a.send(frame(60))
        sent = handed_over(bed) - before
        run.process.send_signal(signal.SIGCONT)
        run.until(lambda: run.packets(0, "in_packets") + run.packets(0, "missed") == sent, "all")
        lan = run.stop().balanced["ports"]["lan"]
    assert lan["missed"] > 0 and lan["received"] > 0
    assert lan["missed"] + lan["received"] == sent


# ---- refusals ------------------------------------------------------------------------------------


@contextlib.contextmanager
def service(
    bed: Namespace,
    folder: Path,
    topology: dict[str, Any],
    before: Callable[[], None] = lambda: None,
) -> Iterator[Service]:
    """`hummingbird run` in the namespace, from when it runs or has ended."""
    (folder / "routes.csv").write_text(HEADER + ROWS)
    file = folder / "topology.yaml"
    file.write_text(yaml.safe_dump({**topology, "policy": "routes.csv"}))

    def start() -> None:
        bed.enter()
        before()

    name = f"{bed.name}-run"
    run = Service(folder, str(file), "--no-live", name=name, environment={}, before=start)
    try:
        until(lambda: "running after" in run.text or run.process.poll() is not None, "its start")
        yield run
    finally:
        run.process.kill()
        run.process.wait()
        with rundir.held(name) as dead:
            if dead:
                rundir.remove(name)


def refusal(bed: Namespace, **ports: Any) -> str:
    """Why these ports are refused."""
    rows = "".join(f"*,{name},drop\n" for name in ports)
    with bed.entered(), pytest.raises(UserError) as refused:
        run_chain({"ports": ports}, None, rows)
    assert refused.value.line and refused.value.field and refused.value.fix
    assert str(refused.value).count("\n") == 1, "what, and what to do"
    return str(refused.value)


def test_no_such_interface(bed: Namespace) -> None:
    says = refusal(bed, lan={"driver": "af_packet", "interface": "ia"},
                   wan={"driver": "af_packet", "interface": "eth9"})  # fmt: skip
    assert "ports.wan: there is no interface eth9" in says and "ip link" in says


def test_no_ethernet(bed: Namespace) -> None:
    bed.ip("tuntap add tun0 mode tun")
    for name in ("tun0", "lo"):
        says = refusal(bed, lan={"driver": "af_packet", "interface": name})
        assert f"{name} is no Ethernet interface" in says


def drop_capability(number: int) -> None:
    """A program that this process becomes will not have it."""
    assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0


def test_without_the_right(bed: Namespace, tmp_path: Path) -> None:
    with service(bed, tmp_path, line(), lambda: drop_capability(CAP_NET_RAW)) as run:
        ended = run.wait()
    assert ended.status == 2 and "Traceback" not in ended.text
    assert "ports.lan: interface ia: a packet socket: Operation not permitted" in ended.text
    assert "fix: run it as root, or with the capability CAP_NET_RAW" in ended.text


def test_an_interface_that_is_down_is_said(
    bed: Namespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bed.ip("link set ia down")
    with running(bed) as run, capture(bed, "pb", tmp_path) as b, raw(bed, "pa") as a:
        assert "lan: interface ia is down (fix: ip link set ia up)" in caplog.text
        bed.ip("link set ia up")
        bed.wait_linked("ia", "pa")
        a.send(frame(99))
        assert b.wait(1) == [frame(99)]
        run.stop()
