# SPDX-License-Identifier: BSD-3-Clause
"""Runs of ports of DPDK's drivers, each in a process and a network namespace of its own, because
DPDK can be started once in a process and takes over its logs, and because interfaces are looked at.

    test ── unshare -n python dpdk_scenarios.py SCENARIO BUILD ──> one line of JSON

    this process:  x0 ═ veth ═ y0 ── [ Engine: DPDK's drivers on y0, y1 ] ── y1 ═ veth ═ x1

Each scenario is a function here; run_chain's checks (balance, all mbufs free in the end) hold for
all of them. What it returns is judged by test_port_dpdk.py.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chain import Result, Run, run_chain, started
from namespaces import until
from rich.console import Console
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw
from wires import Wire, wires

from hummingbird import logs
from hummingbird.errors import UserError
from hummingbird.testing import capture, read_capture
from hummingbird.topology import Topology

BOTH_WAYS = "*,d0,d1\n*,d1,d0\n"
LONGEST = 1514
ROOM = 2048 - 384
"""Of a frame."""
XOR_PY = """\
from hummingbird.nfs import Nf, NfTable, Reads, Writes
def build(params, context):
    return NfTable()
NF = Nf("xor", build=build, reads=Reads.PACKET, writes=Writes.PACKET)
"""
XOR_CL = """\
static hb_u32 hb_nf_xor(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    for (hb_u32 at = 42; at < p->length; at++)
        hb_put8(p, at, hb_get8(p, at) ^ 0x5a);
    return HB_PASS;
}
"""


# ---- packets and wires ---------------------------------------------------------------------------


def packets(count: int, *, vlan: bool = False, longest: int = LONGEST) -> list[bytes]:
    """UDP packets of all sizes, no two alike."""
    rng = random.Random(count)
    made = []
    for number in range(count):
        head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        if vlan:
            head = head / Dot1Q(vlan=number % 4000 + 1, prio=number % 8)
        head = head / IP(src=f"10.0.{number // 250}.{number % 250 + 1}", dst="10.1.0.1")
        head = head / UDP(sport=number + 1, dport=9)
        size = 64 + number * 37 % (longest - 63)
        made.append(bytes(head / Raw(rng.randbytes(size - len(head)))))
    return made


def sh(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wire(number: int) -> None:
    """x<number> ═ y<number>, without any packet of Linux's own."""
    ends = f"x{number}", f"y{number}"
    queues = ("numrxqueues", "1", "numtxqueues", "1")
    sh("ip", "link", "add", ends[0], *queues, "type", "veth", "peer", "name", ends[1], *queues)
    for end in ends:
        sh("ip", "link", "set", end, "addrgenmode", "none")
        sh("ip", "link", "set", end, "up")
    until(lambda: all("state UP" in sh("ip", "link", "show", end) for end in ends), "a link")


@contextlib.contextmanager
def wired() -> Iterator[tuple[Wire, Wire]]:
    for number in (0, 1):
        wire(number)
    with wires("x0", "x1") as (one, other):
        yield one, other


def ports(*devices: str, **more: Any) -> dict[str, Any]:
    """d0, d1, ..."""
    return {
        f"d{number}": {"driver": "dpdk", "device": device, **more}
        for number, device in enumerate(devices)
    }


def at_wires(driver: str) -> dict[str, Any]:
    return ports(*(f"net_{driver}{number},iface=y{number}" for number in (0, 1)))


def top(build: str, ports_: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"ports": ports_, "dpdk": {"build": build}, **more}


def told(result: Result) -> dict[str, Any]:
    return {"ports": result.summary["ports"], "dropped": result.dropped}


def there_and_back(run: Run, far: tuple[Wire, Wire], made: list[bytes]) -> dict[str, bool]:
    """Send the packets both ways and see that all come out as they went in."""
    return {"there": _sent(run, far[0], far[1], made), "back": _sent(run, far[1], far[0], made)}


def _sent(run: Run, one: Wire, other: Wire, made: list[bytes]) -> bool:
    before = len(other.got())
    one.send(made)
    run.until(lambda: len(other.got()) >= before + len(made), what="all packets")
    return other.got()[before:] == made


# ---- scenarios -----------------------------------------------------------------------------------


def forward(build: str, driver: str, frame_size: str, vlan: str = "") -> dict[str, Any]:
    before = os.sched_getaffinity(0)
    made = packets(300, vlan=bool(vlan))
    memory = {"frame_size": int(frame_size)}
    with (
        wired() as far,
        started(top(build, at_wires(driver)), rows=BOTH_WAYS, memory=memory) as run,
    ):
        same = there_and_back(run, far, made)
        result = run.stop()
    links = json.loads(sh("ip", "-j", "-d", "link", "show"))
    return told(result) | {
        **same,
        "pinned": os.sched_getaffinity(0) != before,
        "promiscuous": [link["ifname"] for link in links if "PROMISC" in link["flags"]],
        "xdp": [link["ifname"] for link in links if "xdp" in link],
        "files": [
            name
            for name in (os.listdir("/var/run/dpdk") if os.path.exists("/var/run/dpdk") else [])
            if name.endswith(f"-{os.getpid()}")
        ],
    }


def spread(build: str) -> dict[str, Any]:
    """Two queues of an interface, on two cores if there are: flows stay in order, no more."""
    made = packets(300)
    cores = {"io": sorted(os.sched_getaffinity(0))[:2]}
    devices = (f"net_af_packet{number},iface=y{number},qpairs=2" for number in (0, 1))
    nodes = ports(*devices, queues=2)
    with wired() as far, started(top(build, nodes, cores=cores), rows=BOTH_WAYS) as run:
        far[0].send(made)
        run.until(lambda: len(far[1].got()) >= len(made), what="all packets")
        result = run.stop()
    return told(result) | {"same": sorted(far[1].got()) == sorted(made)}


def capture_files(build: str, longest: str = str(LONGEST)) -> dict[str, Any]:
    """net_pcap reads a capture, net_pcap writes one."""
    made = packets(200, longest=int(longest))
    Path("in.pcap").write_bytes(capture(made))
    devices = ports("net_pcap0,rx_pcap=in.pcap", "net_pcap1,tx_pcap=out.pcap")
    with started(top(build, devices), rows=BOTH_WAYS) as run:
        run.until(lambda: run.counters("d0")["in_packets"] >= len(made), what="the capture")
        result = run.stop()
    got = read_capture(Path("out.pcap")).packets
    fit = [packet for packet in made if len(packet) <= ROOM]
    return told(result) | {"same": got == fit, "fit": len(fit)}


def answers(build: str) -> dict[str, Any]:
    """One asks for the port's address, and then for another's."""
    asks = [
        bytes(
            Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff")
            / ARP(hwsrc="02:00:00:00:00:01", psrc="192.0.2.9", pdst=address)
        )
        for address in ("192.0.2.1", "192.0.2.2")
    ]
    Path("in.pcap").write_bytes(capture(asks))
    nodes = ports("net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap", address=["192.0.2.1"])
    with started(top(build, nodes), rows="*,d0,drop\n") as run:
        run.until(lambda: run.counters("d0")["in_packets"] >= len(asks), what="the questions")
        run.until(lambda: run.counters("d0")["out_packets"] >= 1, what="the answer")
        run.stop()
    (answer,) = read_capture(Path("out.pcap")).packets
    arp = Ether(answer)[ARP]
    return {"op": arp.op, "who": arp.psrc, "has": arp.hwsrc}


def ring(build: str) -> dict[str, Any]:
    """What goes out at net_ring comes in there again."""
    made = packets(200)
    nodes = ports("net_ring0") | {
        "in0": {"driver": "pcap", "read": "$in"},
        "out0": {"driver": "pcap", "write": "$out"},
    }
    with started(top(build, nodes), made, "*,in0,d0\n*,d0,out0\n") as run:
        run.until(lambda: run.counters("d0")["in_packets"] >= len(made), what="the ring")
        result = run.stop()
    return told(result) | {"same": result.packets == made}


def overrun(build: str) -> dict[str, Any]:
    """More goes into net_ring than comes out: it refuses packets, and is full in the end."""
    made = {"driver": "generator"}
    nodes = ports("net_ring0") | {"in0": made, "in1": made}
    with started(top(build, nodes), rows="*,in0,d0\n*,in1,d0\n*,d0,drop\n") as run:
        run.until(lambda: run.counters("d0")["dropped"] > 10_000, what="a full ring")
        return told(run.stop())


def queues(build: str, many: str) -> dict[str, Any]:
    """Drivers that make and swallow packets, with several queues, on two cores if there are."""
    nodes = ports("net_null0", "net_null1", queues=int(many))
    cores = {"io": sorted(os.sched_getaffinity(0))[:2]}
    with started(top(build, nodes, cores=cores), rows=BOTH_WAYS) as run:
        run.until(
            lambda: all(run.counters(name)["out_packets"] > 10_000 for name in nodes),
            what="packets both ways",
        )
        return told(run.stop())


def zero_copy(build: str, engine: str) -> dict[str, Any]:
    """The kernel fills frames of the arena, the NF changes them there, the kernel sends them."""
    made = packets(64, longest=1400)
    expected = [packet[:42] + bytes(b ^ 0x5A for b in packet[42:]) for packet in made]
    topology = top(build, at_wires("af_xdp"), nfs={"nf0": {"type": "./xor.py", "engine": engine}})
    files = {"xor.py": XOR_PY, "xor.cl": XOR_CL}
    rows = "*,d0,nf0\n*,nf0,d1\n*,d1,drop\n"
    with wired() as far, started(topology, rows=rows, files=files) as run:
        far[0].send(made)
        run.until(lambda: len(far[1].got()) >= len(made), what="all packets")
        region, memory = arena(run), running(run).memory
        size = memory.frame_size
        frames = region[: memory.mbufs * size]
        where = [places(frames, packet) for packet in expected]
        behind = bytes(region[len(frames) :])
        result = run.stop()
    return told(result) | {
        "same": far[1].got() == expected,
        "device": result.summary["device"],
        "copies": max(len(found) for found in where),
        "offsets": sorted({at % size for found in where for at in found}),
        "base": region.ctypes.data,
        "bytes": len(frames),
        "mempool_behind_frames": b"hummingbird0\0" in behind,
    }


def running(run: Run) -> Topology:
    assert run.engine.running is not None
    return run.engine.running.topology


def arena(run: Run) -> Any:
    """The region that the device and the drivers share."""
    assert run.engine.regions is not None
    return run.engine.regions.frames.array


def places(region: Any, packet: bytes) -> list[int]:
    """Where in a region the packet lies, by its bytes behind the headers."""
    data, found, at = region.tobytes(), [], -1
    while (at := data.find(packet[42:], at + 1)) >= 0:
        found.append(at - 42)
    return found


def mixed(build: str) -> dict[str, Any]:
    """A driver of DPDK in, one of ours out."""
    made = packets(100)
    wire(0)
    far = Wire("x0")
    nodes = ports("net_af_packet0,iface=y0") | {"out0": {"driver": "pcap", "write": "$out"}}
    with started(top(build, nodes), rows="*,d0,out0\n") as run:
        for packet in made:
            far.send([packet])
        run.until(lambda: run.counters("d0")["in_packets"] >= len(made), what="all packets")
        result = run.stop()
    return told(result) | {"same": result.packets == made}


def comes_back(build: str, driver: str) -> dict[str, Any]:
    """The interface is deleted and made again while it runs."""
    made, said = packets(50, longest=1400), io.StringIO()
    with (
        logs.shown(Console(file=said)),
        wired() as far,
        started(top(build, at_wires(driver)), rows=BOTH_WAYS) as run,
    ):
        first = there_and_back(run, far, made)
        sh("ip", "link", "del", "x0")
        run.until(lambda: "y0 is gone" in said.getvalue(), what="a word of it")
        wire(0)
        run.until(lambda: "y0 is back" in said.getvalue(), what="a word of it")
        second = there_and_back(run, (Wire("x0"), far[1]), made)
        result = run.stop()
    return told(result) | {"first": first, "second": second}


def again(build: str) -> dict[str, Any]:
    """Two runs in one process."""
    queues(build, "1")
    try:
        return queues(build, "1")
    except UserError as error:
        return {"what": error.what, "fix": error.fix}


def too_long_for_umem(build: str) -> dict[str, Any]:
    """Frames of 2048 bytes, and packets of all sizes."""
    made = packets(300)
    short = sum(len(packet) <= 1408 for packet in made)
    with wired() as far, started(top(build, at_wires("af_xdp")), rows=BOTH_WAYS) as run:
        far[0].send(made)
        run.until(lambda: run.counters("d0")["missed"] >= len(made) - short, what="the count")
        run.until(lambda: len(far[1].got()) >= short, what="the others")
        result = run.stop()
    return told(result) | {"short": short, "got": len(far[1].got())}


def refused(build: str, nodes: str, memory: str = "{}", *arguments: str) -> dict[str, Any]:
    """What the user reads."""
    wire(0)
    topology = top(build, json.loads(nodes))
    topology["dpdk"]["arguments"] = list(arguments)
    try:
        run_chain(topology, rows="*,d0,drop\n", memory=json.loads(memory))
    except UserError as error:
        return {"what": error.what, "fix": error.fix, "field": error.field}
    return {"what": "nothing was wrong"}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
