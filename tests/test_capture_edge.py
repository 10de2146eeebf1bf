# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird capture`: the packets of an edge, byte for byte, and the instance never waits.

known packets ── [ gateway of taps_helpers.py ] ── capture ── scapy, tshark
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pytest
from chain import line, open_esp, started, udp
from namespaces import namespace, needs, raw
from process import Service
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from taps_helpers import (
    DENIED,
    EVIL,
    GOOD,
    LOST,
    NEXT,
    OWN,
    PLAYED,
    SA,
    VPN,
    captured,
    gateway,
    is_round,
    said,
    start,
)

from hummingbird import edges, taps
from hummingbird.capture_edge import Region, _whole_records
from hummingbird.control_client import Reply
from hummingbird.dataplane.plane import TAP_ANY, TAP_OUTSIDE, Dataplane
from hummingbird.errors import UserError
from hummingbird.telemetry import rundir
from hummingbird.testing import capture

BEHIND_NIDS = [GOOD, DENIED, LOST]
"""EVIL goes nowhere: the policy drops it."""


def routed() -> bytes:
    """What scapy makes of GOOD behind the router."""
    packet = Ether(GOOD)
    packet.src, packet.dst = OWN, NEXT
    packet[IP].ttl -= 1
    del packet[IP].chksum
    return bytes(packet)


INSPECTED = [GOOD, EVIL, DENIED, LOST]
EDGES = {
    "outside:in0": PLAYED,
    ":in0": PLAYED,
    "in0:ipsec0": [VPN],
    "in0:nids0": INSPECTED,
    ":nids0": INSPECTED,
    "nids0:": BEHIND_NIDS,
    "firewall0:router0": [GOOD, LOST],
    "router0:out0": [routed()],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One gateway for all tests that change nothing."""
    with gateway(tmp_path_factory.mktemp("capture")) as service:
        yield service
        folder = rundir.base_dir() / service.name
        assert not list(folder.glob("tap-*"))
        assert service.stop().balanced["sent"] > 0
        assert not folder.exists()


# ---- what is captured ----------------------------------------------------------------------------


def test_every_kind_of_edge(run: Service, tmp_path: Path) -> None:
    """Byte for byte and in order: from outside (the malformed one, too), before and behind GPU and
    CPU NFs. Four at a time."""
    names = [*EDGES]
    for some in (names[:4], names[4:]):
        files = {edge: tmp_path / f"{names.index(edge)}.pcap" for edge in some}
        commands = [
            start("capture", edge, path, "--name", run.name, "--count", 30)
            for edge, path in files.items()
        ]
        for command in commands:
            text = said(command)
            assert "enough: 30 packets" in text and "missed" not in text and "note" not in text
        for edge, path in files.items():
            packets = captured(path)
            assert len(packets) == 30 and is_round(packets, EDGES[edge]), edge


def test_packets_that_part(run: Service, tmp_path: Path) -> None:
    """What leaves a node is all there, wherever it goes; those that go one way are in order."""
    path = tmp_path / "out.pcap"
    said(start("capture", "in0:", path, "--name", run.name, "--count", 200))
    packets = captured(path)
    assert is_round([p for p in packets if p != VPN], INSPECTED)
    assert len(packets) // 5 - 20 < packets.count(VPN) < len(packets) // 5 + 20


def test_what_is_sent(run: Service, tmp_path: Path) -> None:
    """At the driver of a port; a GPU has encrypted some, and `cryptography` opens them."""
    path = tmp_path / "out.pcap"
    said(start("capture", "out0:", path, "--name", run.name, "--count", 400))
    packets = captured(path)
    plain = [p for p in packets if p == routed()]
    opened = [open_esp(p, SA.keys) for p in packets if p != routed()]
    assert len(plain) > 20 and len(opened) > 20 and len(plain) + len(opened) == 400
    assert all(esp.packet[14:] == VPN[14:] for esp in opened)
    assert [esp.sequence for esp in opened] == list(
        range(opened[0].sequence, opened[0].sequence + len(opened))
    )


def test_tshark_and_times(run: Service, tmp_path: Path) -> None:
    """tshark opens it; its stamps are nanoseconds of now, and never go back."""
    path = tmp_path / "out.pcap"
    began = time.time()
    said(start("capture", "in0:nids0", path, "--name", run.name, "--count", 200))
    times = tshark(path, "frame.time_epoch")
    seconds = [float(t) for t in times]
    assert len(times) == 200 and began <= seconds[0] <= seconds[-1] <= time.time()
    assert seconds == sorted(seconds)
    assert any(not t.endswith("000") for t in times)
    kind = subprocess.run(["capinfos", "-t", path], capture_output=True, text=True, check=True)
    assert "nanosecond" in kind.stdout


def tshark(path: Path, field: str) -> list[str]:
    command = ["tshark", "-r", str(path), "-T", "fields", "-e", field]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_standard_output(run: Service) -> None:
    """To tshark through a pipe; what is said to people goes elsewhere."""
    command = start("capture", "router0:out0", "-", "--name", run.name, "--count", 5)
    with command.stdout as pipe:  # type: ignore[union-attr]
        reader = ["tshark", "-r", "-", "-T", "fields", "-e", "ip.dst"]
        done = subprocess.run(reader, stdin=pipe, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["203.0.113.1"] * 5
    assert command.stderr is not None and "enough: 5 packets" in command.stderr.read()
    assert command.wait(60) == 0


def test_a_pipe_that_closes(run: Service) -> None:
    """Whoever reads has seen enough."""
    command = start("capture", "in0:nids0", "-", "--name", run.name)
    assert command.stdout is not None
    os.read(command.stdout.fileno(), 100)
    command.stdout.close()
    assert command.wait(60) == 141
    run.until(lambda: not list(Reply(run.name, "taps")), "the capture to be gone")


# ---- bounds --------------------------------------------------------------------------------------


def test_size_snap_and_time(run: Service, tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.pcap" for n in range(3)]
    size = start("capture", "in0:nids0", files[0], "--name", run.name, "--size", 10_000)
    snap = start("capture", "in0:nids0", files[1], "--name", run.name, "--snap", 40, "--count", 10)
    over = start("capture", "in0:nids0", files[2], "--name", run.name, "--seconds", 0.3)
    assert "the file has its size" in said(size)
    assert 10_000 - 16 - max(map(len, PLAYED)) < files[0].stat().st_size <= 10_000
    assert is_round(captured(files[0]), INSPECTED)
    said(snap)
    assert is_round(captured(files[1]), [p[:40] for p in INSPECTED])
    assert {int(n) for n in tshark(files[1], "frame.len")} == {len(p) for p in INSPECTED}
    assert "time is over" in said(over)
    late = captured(files[2])  # on a busy machine perhaps none
    assert not late or is_round(late, INSPECTED)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_client_that_goes(run: Service, tmp_path: Path, number: signal.Signals) -> None:
    """The file is a whole capture, and nothing is left in the instance."""
    no_others(run)
    path = tmp_path / "out.pcap"
    command = start("capture", "in0:nids0", path, "--name", run.name)
    run.until(lambda: path.exists() and path.stat().st_size > 10_000, "packets in the file")
    tap = rundir.base_dir() / run.name
    (file,) = tap.glob("tap-*")
    assert file.stat().st_mode & 0o777 == 0o600
    command.send_signal(number)
    text = said(command, -number if number == signal.SIGKILL else 0)
    if number == signal.SIGKILL:
        path.write_bytes(path.read_bytes()[: whole(path)])
    else:
        assert "stopped: " in text
    assert is_round(captured(path), INSPECTED)
    run.until(lambda: not list(tap.glob("tap-*")), "the rings to be gone")
    assert not list(Reply(run.name, "taps"))


def no_others(run: Service) -> None:
    """Until it has seen that the commands of tests before have ended."""
    run.until(lambda: not list(Reply(run.name, "taps")), "other captures to be gone")


def whole(path: Path) -> int:
    """Bytes of the whole records of a file that was cut anywhere."""
    data = path.read_bytes()
    return 24 + _whole_records(memoryview(data)[24:], len(data) - 24)[0]


def test_another_connection_ends_it(run: Service, tmp_path: Path) -> None:
    """What was captured until then is there."""
    no_others(run)
    path = tmp_path / "out.pcap"
    command = start("capture", "in0:nids0", path, "--name", run.name)
    run.until(lambda: path.exists() and path.stat().st_size > 10_000, "packets in the file")
    (tap,) = Reply(run.name, "taps")
    assert (tap["kind"], tap["what"]) == ("capture", "in0 to nids0") and tap["packets"] > 0
    list(Reply(run.name, "remove", tap=tap["tap"]))
    text = said(command)
    assert "somebody else has removed it: " in text
    assert is_round(captured(path), INSPECTED)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_instance_ends(tmp_path: Path, how: signal.Signals) -> None:
    """All that it had put in is in the file; what a killed one leaves, the next or `clean` takes
    away."""
    path = tmp_path / "out.pcap"
    nfs = {name: {"type": "forward", "engine": "cpu"} for name in NODES_OF_ROWS}
    with gateway(tmp_path, nfs=nfs, types=TYPES_OF_ROWS) as run:
        command = start("capture", "outside:in0", path, "--name", run.name)
        run.until(lambda: path.exists() and path.stat().st_size > 10_000, "packets in the file")
        if how == signal.SIGTERM:
            received = run.stop().balanced["received"]
        else:
            command.send_signal(signal.SIGSTOP)
            before = run.packets(0, "in_packets")
            run.until(lambda: run.packets(0, "in_packets") > before + 100, "more for the command")
            list(Reply(run.name, "drain"))  # or it might die with a packet that is not yet counted
            received = run.packets(0, "in_packets")
            run.process.kill()
            run.process.wait()
            command.send_signal(signal.SIGCONT)
            assert list((rundir.base_dir() / run.name).glob("tap-1"))
        text = said(command)
        assert "the instance has ended: " in text
        packets = captured(path)
        assert is_round(packets, PLAYED)
        if how == signal.SIGKILL:  # none is missing behind the first
            assert (PLAYED.index(packets[0]) + len(packets) - received) % len(PLAYED) == 0
            assert f"removed the run directory {rundir.base_dir() / run.name}" in said(
                start("clean")
            )
            assert not (rundir.base_dir() / run.name).exists()


NODES_OF_ROWS = ("nids0", "firewall0", "router0", "ipsec0")
TYPES_OF_ROWS = {"vpn": {"protocol": "udp"}, "suspicious": {"protocol": 200}}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """64 KiB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("NOT TESTED on a full disk: needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(run: Service, tmp_path: Path) -> None:
    """One line, and what fits stays a whole capture; the instance does not notice."""
    with small_disk(tmp_path / "disk") as disk:
        text = said(start("capture", "in0:nids0", disk / "out.pcap", "--name", run.name), 2)
        packets = captured(disk / "out.pcap")
        assert is_round(packets, INSPECTED) and len(packets) > 100
        (error,) = re.findall(r"error: .*", text)
        what = f"cannot write more of the capture: No space left on device; {len(packets)} packets"
        assert what in error.replace(",", "") and "out.pcap" in error
        assert "fix: make room, or capture less" in text
        (disk / "fill").write_bytes(bytes(max(0, _room(disk))))
        text = said(start("capture", "in0:nids0", disk / "other.pcap", "--name", run.name), 2)
        assert "cannot write more of the capture: No space left on device" in text
    run.until(lambda: not list(Reply(run.name, "taps")), "the captures to be gone")


def _room(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_bavail * status.f_bsize


# ---- a reader that does not read -----------------------------------------------------------------


class Tapped:
    """A chain that was watched before its first packet came; see `tapped`."""

    def __init__(self, run: Any, regions: dict[tuple[int, int], Region]) -> None:
        self.run = run
        self.regions = regions


@contextmanager
def tapped(
    monkeypatch: pytest.MonkeyPatch, watched: list[tuple[int, int]], *args: Any, **options: Any
) -> Iterator[Tapped]:
    """A chain in this process, with captures of these edges from its very start on."""
    regions: dict[tuple[int, int], Region] = {}
    begin = Dataplane.start
    files = Path(options.pop("folder"))

    def start_watched(self: Dataplane) -> None:
        for number, edge in enumerate(watched):
            size = self.capture_bytes(65536)
            path = files / f"{number}.region"
            path.write_bytes(bytes(size))
            mapped = np.memmap(path, np.uint8, "r+")
            keep.append(mapped)
            self.add_capture(edge, 0, 65536, mapped.ctypes.data)
            regions[edge] = Region(str(path))
        begin(self)

    keep: list[Any] = []
    monkeypatch.setattr(Dataplane, "start", start_watched)
    with started(*args, **options) as run:
        yield Tapped(run, regions)


def test_what_a_slow_reader_misses_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody reads while 5,000 packets pass: the first ones are there, the others are counted, and
    both together are what the counter of the edge says."""
    packets = [udp("10.0.0.1", "10.0.0.2", 1, 2, n.to_bytes(4, "big")) for n in range(5000)]
    source, rows = line("gpu", "cpu")
    nodes = ["in0", "out0", "nf0", "nf1"]
    ends = [(0, 2), (2, 3), (3, 1)]
    with tapped(monkeypatch, ends, source, packets, rows, folder=tmp_path) as watched:
        watched.run.wait()
        result = watched.run.stop()
        for edge, region in watched.regions.items():
            edge_count = int(result.snapshot.edges[edge])
            assert edge_count == 5000, [nodes[end] for end in edge]
            assert region.records + region.missed == 5000 and region.missed > 3000
            data = bytes(region.take(1 << 20, 1 << 30))
            (tmp_path / "some.pcap").write_bytes(capture([]) + data)
            assert captured(tmp_path / "some.pcap") == packets[: region.records]
            assert region.taken == region.records


def test_live_ports(tmp_path: Path) -> None:
    """af_packet on veth pairs: what the far end has sent, and what is sent to the other one."""
    needs("ethtool")
    port = {"driver": "af_packet", "queues": 1}
    source = {
        "ports": {"lan": port | {"interface": "ia"}, "wan": port | {"interface": "ib"}},
        "nfs": {"nf0": {"type": "forward"}, "nf1": {"type": "forward"}},
    }
    rows = "*,lan,nf0\n*,nf0,wan\n*,wan,nf1\n*,nf1,lan\n"
    packets = [udp("10.0.0.1", "10.0.0.2", 1, 2, bytes([n]) * n) for n in range(18, 68)]
    with namespace() as bed:
        bed.wire("ia", "pa")
        bed.wire("ib", "pb")
        with bed.entered(), started(source, None, rows) as run, raw(bed, "pa") as near:
            edges = ("outside:lan", "nf0:wan", "wan:outside")
            answers = [taps.capture(run.engine, {"edge": edge, "ring": 65536}) for edge in edges]
            items = [next(answer) for answer in answers]
            regions = [Region(item["path"]) for item in items if item]
            for packet in packets:
                near.send(packet)
            run.until(lambda: run.counters("wan")["out_packets"] >= 50, what="the packets")
            for region in regions:
                (tmp_path / "some.pcap").write_bytes(capture([]) + region.take(1 << 20, 1 << 20))
                assert captured(tmp_path / "some.pcap") == packets and region.missed == 0
            for answer in answers:
                answer.close()
            assert not list(run.engine.taps)
            run.stop()


# ---- names ---------------------------------------------------------------------------------------


def parsed(text: str) -> edges.Edge:
    def port(ingress: bool, egress: bool) -> Any:
        return SimpleNamespace(ingress=ingress, egress=egress)

    ways = {"in0": port(True, False), "out0": port(False, True), "lan": port(True, True)}
    nodes = (*ways, "nf0", "nf1")
    ports = [SimpleNamespace(name=name, params=way) for name, way in ways.items()]
    top = SimpleNamespace(ports=ports, nodes=nodes)
    table = np.full((5, 1), 0xFFFF, dtype=np.uint16)
    table[0], table[3], table[2] = 3, 1, 1
    return edges.parse(text, top, SimpleNamespace(next=table))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text, ends",
    [
        ("in0:nf0", (0, 3)),
        ("in0:", (0, TAP_ANY)),
        (":nf0", (TAP_ANY, 3)),
        (":in0", (TAP_OUTSIDE, 0)),
        ("outside:in0", (TAP_OUTSIDE, 0)),
        ("out0:", (1, TAP_OUTSIDE)),
        (":out0", (TAP_ANY, 1)),
        ("lan:", (2, TAP_ANY)),
        (":lan", (TAP_ANY, 2)),
        ("lan:outside", (2, TAP_OUTSIDE)),
        ("outside:", (TAP_OUTSIDE, TAP_ANY)),
        (":outside", (TAP_ANY, TAP_OUTSIDE)),
    ],
)
def test_names_of_edges(text: str, ends: tuple[int, int]) -> None:
    assert parsed(text).ends == ends


def test_an_edge_without_traffic() -> None:
    note = "the present route policy sends nothing from nf0 to nf1"
    assert parsed("nf0:nf1").note == note and parsed("nf0:out0").note == ""
    assert parsed("nf1:").note and parsed(":nf1").note and not parsed(":out0").note


@pytest.mark.parametrize(
    "text, error",
    [
        ("", "'' is no edge\n  fix: write FROM:TO such as in0:nf0"),
        (":", "':' is no edge"),
        ("nf0", "'nf0' is no edge"),
        ("a:b:c", "'a:b:c' is no edge"),
        ("nf0:x", "there is no port or NF 'x'\n  fix: write one of: in0, out0, lan, nf0, nf1, out"),
        ("outside:outside", "goes by no port"),
        ("outside:nf0", "nothing comes to nf0 from outside\n  fix: write outside: before one of"),
        ("outside:out0", "nothing comes to out0 from outside"),
        ("nf0:outside", "nothing goes from nf0 to the outside"),
        ("out0:nf0", "out0 only sends: nothing goes from there to nf0"),
        ("nf0:in0", "in0 only receives: nothing goes there from nf0"),
    ],
)
def test_what_is_no_edge(text: str, error: str) -> None:
    with pytest.raises(UserError, match=re.escape(error).replace("\\\n", "\n")):
        parsed(text)


def test_mistakes(run: Service, tmp_path: Path) -> None:
    """Status 2 and one clear line; an existing file is as it was."""
    path, missing = tmp_path / "kept.pcap", tmp_path / "no" / "o.pcap"
    path.write_text("precious")
    name = ("--name", run.name)
    mistakes = {
        "there is no port or NF 'nidz0'": ("nidz0:", path, *name),
        "cannot write the capture: No such file": ("in0:", missing, *name),
        "cannot write more of the capture: No space left on device\n": ("in0:", "/dev/full", *name),
        "no instance named 'nobody'": ("in0:", path, "--name", "nobody"),
        "is no length": ("in0:", path, "--snap", 0),
    }
    commands = {error: start("capture", *words) for error, words in mistakes.items()}
    for error, command in commands.items():
        assert error in said(command, 2)
    assert path.read_text() == "precious"
    for field in ({"snap": -1}, {"ring": 1 << 40}, {"edge": 5}):
        with pytest.raises(UserError, match="the request's"):
            list(Reply(run.name, "capture", **({"edge": "in0:"} | field)))
    assert not list(Reply(run.name, "taps"))


def test_what_is_not_replaced(run: Service, tmp_path: Path) -> None:
    """What the instance uses, by whatever name, and what is no capture; a capture is."""
    files = next(iter(Reply(run.name, "capture", edge="in0:")))["files"]
    (folder,) = (Path(path).parent for path, what in files.items() if what == "the topology")
    link, text, old = (tmp_path / name for name in ("link", "text", "old.pcap"))
    link.symlink_to(folder / "in.pcap")
    text.write_text("precious")
    old.write_bytes(capture([GOOD] * 1000))
    files = {
        folder / "topology.yaml": "this file is the topology",
        folder / "routes.csv": "this file is the route policy",
        folder / "fw.csv": "this file is a file of the NF firewall0",
        link: "this file is what the port in0 reads",
        text: "this file is no capture and would be lost",
    }
    before = {path: path.read_bytes() for path in files}
    name = ("--name", run.name, "--count", 8)
    commands = {path: start("capture", "in0:nids0", path, *name) for path in files}
    for path, command in commands.items():
        found = said(command, 2)
        assert f"{path}: cannot write the capture: {files[path]}\n  fix: name another" in found
    assert {path: path.read_bytes() for path in files} == before
    said(start("capture", "in0:nids0", old, *name))
    assert len(captured(old)) == 8


def test_two_captures_into_one_file(run: Service, tmp_path: Path) -> None:
    """The second one is refused, and the first one's file is whole."""
    path = tmp_path / "out.pcap"
    first = start("capture", "in0:nids0", path, "--name", run.name)
    run.until(lambda: path.exists() and path.stat().st_size > 10_000, "packets in the file")
    second = said(start("capture", "in0:ipsec0", path, "--name", run.name, "--count", 5), 2)
    assert "another capture is writing it" in second and "fix: name another file" in second
    first.send_signal(signal.SIGINT)
    count = int(re.findall(r"stopped: ([\d,]+) packets", said(first))[0].replace(",", ""))
    packets = captured(path)
    assert len(packets) == count and is_round(packets, INSPECTED)


def test_named_pipes(run: Service, tmp_path: Path) -> None:
    """Without a reader it is a mistake; one that reads gets a capture; one that does not can be
    left by Ctrl-C."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = ("capture", "in0:nids0", pipe, "--name", run.name)
    text = said(start(*words), 2)
    assert "cannot write the capture: nobody reads this pipe" in text
    assert "fix: start what reads it first" in text
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        os.set_blocking(reader.fileno(), True)
        command = start(*words, "--count", 300)
        (tmp_path / "read.pcap").write_bytes(until_end(reader))
        said(command)
        assert is_round(captured(tmp_path / "read.pcap"), INSPECTED)
        command = start(*words)
        with open(pipe, "wb", buffering=0) as other:
            run.until(lambda: not select.select([], [other], [], 0)[1], "a full pipe")
            before = seen(run)
            run.until(lambda: seen(run) > before, "a packet that does not fit")
        command.send_signal(signal.SIGINT)
        assert "stopped, but nobody reads the rest of the capture" in said(command, 2)
    run.until(lambda: not list(Reply(run.name, "taps")), "the captures to be gone")


def seen(run: Service) -> int:
    """Packets that captures have seen so far."""
    return sum(int(tap["packets"]) for tap in Reply(run.name, "taps"))


def until_end(reader: BinaryIO) -> bytes:
    """What comes until the writer has gone; before it has come, there is nothing to read either."""
    select.select([reader], [], [], 60)
    return reader.read()


def test_no_room_for_rings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file system of the run directory is full: the capture is refused, nothing is left."""
    with small_disk(tmp_path / "disk") as disk:
        monkeypatch.setattr("hummingbird.telemetry.taps.base_dir", lambda: disk)
        source, rows = line("cpu")
        with started(source, [udp("10.0.0.1", "10.0.0.2", 1, 2)], rows) as run:
            (disk / run.engine.name).mkdir()
            with pytest.raises(UserError, match=r"no memory of 16 MiB for the capture.*No space"):
                next(taps.capture(run.engine, {"edge": "nf0:"}))
            assert not list((disk / run.engine.name).iterdir())
            run.wait()
            run.stop()
