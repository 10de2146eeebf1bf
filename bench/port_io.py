# SPDX-License-Identifier: BSD-3-Clause
"""Live ports on one core, against Linux's own forwarding and DPDK's testpmd on the same interfaces.

    a: flood ═══ veth ═══ west [ forwarder ] east ═══ veth ═══ b: counters of the interface
                          tap0 [ forwarder ] tap1                  of the other tap
    CPU 0: flood, and what     CPU 1: forwarder: Hummingbird with a router, testpmd, or Linux
    west receives by Linux            and what it sends, to the end

A cable would end in the card of another machine; a veth pair's far end is received by whoever sent
to it. So the frames end there at once: they are for an Ethernet address that nobody has.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testpmd
from bed import ENDS, NETWORKS, Bed, line, missing
from child import prepare
from harness import Bench, Case, Ratio, Reading, Result, Settings, main
from watched import Shared, folder, watched

from hummingbird.errors import UserError

SIZES = {"64 B": 60, "1472 B": 1468}
"""Frames without FCS."""
NOBODY, NOBODYS_MAC = "10.82.0.9", "02:00:00:00:ff:09"
WARM_UP_S = 0.2
LIMIT_S = 60.0
PEER_MIB = 96
"""Of huge pages for testpmd."""
NICE = ("nice", "-n", "-20")
"""What is measured goes before whatever else the machine does."""
_PING = re.compile(r"time=([\d.]+) ms")
_FLOOD = Path(__file__).resolve().parent / "flood.py"


def _cpus() -> tuple[int, int]:
    """Of the source, and of the forwarder."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[0], cpus[-1]


@dataclass(frozen=True)
class Place:
    """Where a forwarder stands: between two interfaces."""

    bed: Bed
    source: tuple[str, str]
    """Namespace and interface that the flood is put into."""
    end: tuple[str, str]
    """Where what has come through is received."""
    pings: bool = True

    @property
    def macs(self) -> tuple[str, str]:
        """Source and destination of the flood."""
        return self.bed.mac("a", "east"), self.bed.mac("m", "west")


# ---- forwarders ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _bed() -> Iterator[Place]:
    with line("a", "m", "b") as bed:
        bed.neighbours()
        # as a network card has it, Linux receives frames in a poll (NAPI), XDP or not
        bed.do("m", "ethtool", "-K", "west", "gro", "on")
        yield Place(bed, ("a", "east"), ("b", "west"))


@contextlib.contextmanager
def linux(rps: bool) -> Iterator[Place]:
    """Linux, on the CPU that the packets come in on, or with RPS on the other."""
    with _bed() as place:
        place.bed.route()
        place.bed.ip("m", f"neighbour replace {NOBODY} lladdr {NOBODYS_MAC} dev east")
        if rps:
            steer = "/sys/class/net/west/queues/rx-0/rps_cpus"
            place.bed.do("m", "sh", "-c", f"echo {1 << _cpus()[1]:x} > {steer}")
        yield place


VDEVS = ("net_af_xdp", "net_af_packet")
PEER_ARGUMENTS = {"net_af_packet": ",framesz=2048,blocksz=65536,framecnt=1024,qdisc_bypass=1"}
"""What testpmd gets beyond its defaults; Hummingbird chooses for itself."""


def _vdevs(driver: str) -> list[str]:
    return [f"{driver}{n},iface={side}" for n, side in enumerate(("west", "east"))]


@contextlib.contextmanager
def peer(driver: str) -> Iterator[Place]:
    """testpmd; its mode `io` passes frames on as they are, so they end in the far end, too."""
    with testpmd.reserved(PEER_MIB + 32), _bed() as place:
        place.bed.neighbours(far=True)  # for pings
        within = [*NICE, *place.bed.inside("m")]
        how: dict[str, Any] = {"huge_pages": True, "mode": "io", "mib": PEER_MIB, "within": within}
        ports = [port + PEER_ARGUMENTS.get(driver, "") for port in _vdevs(driver)]
        with testpmd.started(ports, _cpus()[1], LIMIT_S, **how):
            yield place


def topology(ports: Mapping[str, Any], bed: Bed) -> dict[str, Any]:
    """Two live ports and a router between them, on one lcore."""
    hops = {"b": bed.mac("b", "west"), "a": bed.mac("a", "east"), "nobody": NOBODYS_MAC}
    return {
        "ports": dict(ports),
        "nfs": {
            "router0": {
                "type": "router",
                "engine": "cpu",
                "routes": "routes.csv",
                "mac": bed.mac("m", "west"),
                "next_hops": {name: {"mac": mac} for name, mac in hops.items()},
            }
        },
        "types": {"back": {"dst": NETWORKS[0]}},
        "cores": {"io": [_cpus()[1]]},
        "device": {"use": "none"},
        # docs/dpdk.md: net_af_xdp has 640 bytes of each frame to itself
        "memory": {"frame_size": 4096 if "net_af_xdp" in str(ports) else 2048},
    }


ROWS = [("*", "lan", "router0"), ("*", "wan", "router0")]
ROWS += [("back", "router0", "lan"), ("*", "router0", "wan")]
ROUTES = f"prefix,next_hop\n{NETWORKS[0]},a\n{NETWORKS[1]},b\n{NOBODY}/32,nobody\n"


def _live(driver: str, side: str) -> dict[str, Any]:
    if driver in VDEVS:
        return {"driver": "dpdk", "device": _vdevs(driver)[side == "east"]}
    if driver == "tap":
        return {"driver": "tap", "interface": f"tap{int(side == 'east')}"}
    return {"driver": driver, "interface": side}


@contextlib.contextmanager
def hummingbird(driver: str) -> Iterator[Place]:
    """Hummingbird with a router, as Linux has one."""
    with _bed() as place, folder() as at:
        ports = {"lan": _live(driver, "west"), "wan": _live(driver, "east")}
        (at / "routes.csv").write_text(ROUTES, encoding="ascii")
        within = [*NICE, *place.bed.inside("m")]
        with watched(topology(ports, place.bed), ROWS, at, within=within) as run:
            run.await_start()
            yield _taps(place) if driver == "tap" else place
            run.stop()


def _taps(place: Place) -> Place:
    for name in ("tap0", "tap1"):
        place.bed.ip("m", f"link set {name} up")
    return Place(place.bed, ("m", "tap0"), ("m", "tap1"), pings=False)


# ---- measuring -----------------------------------------------------------------------------------


def _flooded(place: Place, size: int, seconds: float) -> Reading:
    """Mpps that arrive at the end while a flood comes in."""
    (namespace, interface), bed = place.source, place.bed
    argv = [sys.executable, str(_FLOOD), interface, str(size), *place.macs, ENDS[0], NOBODY]
    process = subprocess.Popen(
        [*NICE, *bed.inside(namespace, *argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare([_cpus()[0]]),
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        if process.stdout.readline() != "ready\n":
            raise UserError(f"no flood: {process.stderr.read().strip().splitlines()[-1]}")
        time.sleep(WARM_UP_S)
        came, before, began = bed.counts("m", "west"), bed.counts(*place.end).rx, time.monotonic()
        time.sleep(seconds)
        after, ended = bed.counts(*place.end).rx, time.monotonic()
        offered = bed.counts("m", "west").rx - came.rx
    finally:
        process.kill()
        process.wait()
    if after == before:
        raise UserError("nothing came through")
    mpps = 1 / (ended - began) / 1e6
    return Reading((after - before) * mpps, {"came_in_mpps": offered * mpps})


def _pinged(place: Place, seconds: float) -> dict[str, Reading]:
    """Round trips through the forwarder, 100 a second, both ways."""
    count = max(20, round(seconds * 100))
    argv = ["ping", "-n", "-i", "0.01", "-W", "1", "-c", str(count), ENDS[1]]
    answers = sorted(map(float, _PING.findall(place.bed.run("a", *argv).stdout)))
    if len(answers) < count // 2:
        raise UserError(f"{len(answers)} of {count} pings were answered")
    more = {"answered": len(answers), "asked": count}
    p99 = answers[min(len(answers) - 1, int(len(answers) * 0.99))]
    return {
        "p50": Reading(statistics.median(answers) * 1e3, more),
        "p99": Reading(p99 * 1e3, more),
    }


Forwarder = Callable[[], contextlib.AbstractContextManager[Place]]


def _figures(forwarder: Forwarder, settings: Settings) -> dict[str, Any]:
    """All figures of one start of a forwarder."""
    found: dict[str, Any] = {}
    with forwarder() as place:
        if place.pings:
            try:
                found |= _pinged(place, settings.seconds)
            except UserError as error:
                found |= {"p50": error, "p99": error}
        for name, size in _sizes(settings).items():
            try:
                found[name] = _flooded(place, size, settings.seconds)
            except UserError as error:
                found[name] = error
    return found


def _sizes(settings: Settings) -> Mapping[str, int]:
    return {"64 B": SIZES["64 B"]} if settings.quick else SIZES


# ---- the benchmark -------------------------------------------------------------------------------

OURS = ("af_xdp", "af_packet", "tap", *VDEVS)
FORWARDERS: Mapping[str, Forwarder] = {
    "Linux": lambda: linux(False),
    "Linux, RPS": lambda: linux(True),
    **{f"testpmd {d}": (lambda d=d: peer(d)) for d in VDEVS},
    **{f"dpdk {d}" if d in VDEVS else d: (lambda d=d: hummingbird(d)) for d in OURS},
}


def cases(settings: Settings) -> Sequence[Case]:
    """What is measured each round: of every forwarder, from one start of it."""
    found = []
    for name, forwarder in FORWARDERS.items():
        shared = Shared(_starter(forwarder, settings))
        for size in _sizes(settings):
            found.append(Case(f"{name}, {size}", "Mpps", _taking(shared, size), two_cores=True))
        if name != "tap":
            for part in ("p50", "p99"):
                found.append(Case(f"{name}, ping, {part}", "us", _taking(shared, part)))
    return found


def _starter(forwarder: Forwarder, settings: Settings) -> Callable[[], Mapping[str, Any]]:
    def start() -> Mapping[str, Any]:
        if why := _missing():
            raise UserError(why)
        return _figures(forwarder, settings)

    return start


def _taking(shared: Shared, key: str) -> Callable[[], Reading]:
    def take() -> Reading:
        reading = shared.take(key)
        assert isinstance(reading, Reading)
        return reading

    return take


def _missing() -> str | None:
    if len(os.sched_getaffinity(0)) < 2:
        return "source and forwarder need a CPU each"
    return missing("ping:iputils-ping")


def ratios(settings: Settings) -> Sequence[Ratio]:
    """Ours against Linux on the same CPU, and against testpmd with the same driver."""
    why = _missing()
    no_peer = why or testpmd.missing()
    found = []
    for size in _sizes(settings):
        for ours in ("af_xdp", "af_packet"):
            of, label = f"{ours}, {size}", size.replace(" ", "")
            found += [
                Ratio(f"{ours}_vs_linux_rps_{label}", of, f"Linux, RPS, {size}", missing=why),
                Ratio(f"{ours}_vs_linux_one_cpu_{label}", of, f"Linux, {size}", missing=why),
                Ratio(
                    f"{ours}_vs_testpmd_{label}",
                    of,
                    f"testpmd net_{ours}, {size}",
                    missing=no_peer,
                ),
            ]
    for ours in ("af_xdp", "af_packet"):
        of, base = f"{ours}, ping, p50", "Linux, ping, p50"
        found.append(Ratio(f"{ours}_vs_linux_ping_p50", of, base, missing=why))
    return found


def notes(_: Result) -> Sequence[str]:
    """How to read the table."""
    source, forwarder = _cpus()
    return [
        f"CPU {source} makes the packets (a BPF program in Linux, 128 UDP flows) and runs what "
        f"Linux does when `west` receives them: for af_xdp the XDP program and the copy into the "
        f"frame. CPU {forwarder} runs the forwarder's one thread and what Linux does to send, to "
        "the far end. `Linux` does it all on the first CPU, source included; with RPS it forwards "
        "on the second. What arrives counts, while more is offered than can; sizes include 4 bytes "
        "of FCS.",
        "Hummingbird: one port, a router, the other port; Linux routes, too; testpmd (io, huge "
        "pages) passes frames on as they are. ping: 100 a second, there and back through the "
        "forwarder, nothing else going on.",
    ]


BENCH = Bench(
    name="port_io",
    title="Live ports on one core, against Linux's forwarding and testpmd on the same interfaces",
    cases=cases,
    ratios=ratios,
    notes=notes,
    rounds=5,
    seconds=1.5,
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
