# SPDX-License-Identifier: BSD-3-Clause
"""The bed of bench/bed.py, with Hummingbird in its middle and known programs at its ends.

    a ═══ veth ═══ [ hummingbird run ] ═══ veth ═══ b
    ping, iperf3, curl, tcpreplay            servers, tcpdump

What waits, waits for what a program says or for a counter, never for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pings import PATIENCE, answered
from process import ROOT, Service, service, write_topology

from hummingbird import benches
from hummingbird.testing import read_capture

sys.path.append(str(benches.folder()))

from bed import ENDS, ENDS6, GATEWAYS, GATEWAYS6, NETWORKS, Bed, line, missing, sweep

__all__ = ["ENDS", "ENDS6", "GATEWAYS", "GATEWAYS6", "NETWORKS", "Bed", "line", "missing", "sweep"]

TIMEOUT_S = 60.0
POLL_S = 0.005
A_MOMENT_S = 0.5
"""How long something that is not to come is waited for."""
PING, IPERF, REPLAY = "ping:iputils-ping", "iperf3", "tcpreplay"


def needs(*tools: str) -> None:
    """Skip, and say so, where there can be no bed, or one of these tools is missing."""
    why = missing(*tools)
    if why:
        pytest.skip(f"NOT TESTED on live interfaces: {why}")


def until(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT_S) -> Any:
    """Until a condition holds; its value."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {timeout:g} s for {what}"
        time.sleep(POLL_S)
    return value


# ---- programs that stay --------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """A program that was started and is needed for a while."""

    process: subprocess.Popen[bytes]
    file: Path

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.file.read_text(errors="replace")

    def stop(self) -> str:
        """End it with SIGTERM; what it has said."""
        self.process.terminate()
        self.process.wait(TIMEOUT_S)
        return self.text


_started = 0


@contextlib.contextmanager
def running(
    bed: Bed, name: str, *argv: str, says: str, folder: Path, cwd: Path | None = None
) -> Iterator[Running]:
    """A program in a namespace, from when it has said something, to the end of the block."""
    global _started
    _started += 1
    file = folder / f"{Path(argv[0]).name}-{_started}.txt"
    with open(file, "wb") as text:
        process = subprocess.Popen(
            bed.inside(name, *argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=text,
            stderr=subprocess.STDOUT,
        )
    run = Running(process, file)
    try:
        until(lambda: says in run.text or process.poll() is not None, f"{argv[0]}: {says!r}")
        assert says in run.text, f"{argv[0]} ended: {run.text}"
        yield run
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def http(bed: Bed, name: str, folder: Path, root: Path, address: str) -> Iterator[str]:
    """Python's own HTTP server; its URL."""
    # By itself it asks a name server for its own name first, for ten seconds and in vain.
    nameless = "import runpy, socket; socket.getfqdn = str; runpy.run_module('http.server', None, "
    nameless += "'__main__')"
    argv = [sys.executable, "-u", "-c", nameless, "--bind", address, "8080"]
    with running(bed, name, *argv, says="Serving HTTP", folder=folder, cwd=root):
        yield f"http://{address}:8080"


@contextlib.contextmanager
def tcpdump(bed: Bed, name: str, side: str, folder: Path) -> Iterator[Path]:
    """A capture of all that an interface sees; whole when the block has ended."""
    file = folder / f"{name}-{side}.pcap"
    # -U and --immediate-mode: what is seen is written, so that nothing is lost at the end
    argv = ["tcpdump", "-Z", "root", "-Unni", side, "--immediate-mode", "-B", "65536"]
    argv += ["--time-stamp-precision", "nano", "-w", str(file)]
    with running(bed, name, *argv, says="listening on", folder=folder) as run:
        yield file
        _take_all(run)
        run.stop()


_TAKEN = re.compile(r"(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? d")


def _take_all(run: Running) -> None:
    """Until tcpdump has written all that came until now: what waits for it in the kernel is lost
    when it is told to end, and on a busy machine it may not have run for a while."""

    def counts() -> tuple[int, int]:
        before = len(_TAKEN.findall(run.text))
        run.process.send_signal(signal.SIGUSR1)
        taken, came, lost = until(lambda: _TAKEN.findall(run.text)[before:], "tcpdump's counts")[0]
        return int(taken), int(came) - int(lost)

    _, all_of_them = counts()
    until(lambda: counts()[0] >= all_of_them, f"{all_of_them} packets in tcpdump's file")


def so_far(capture: Path) -> list[bytes]:
    """The packets of a capture that tcpdump is writing."""
    try:
        return read_capture(capture).packets
    except (AssertionError, struct.error):  # the last one is not yet whole
        return []


def ping(
    bed: Bed, count: int = 20, name: str = "a", size: int = 56, wait: float | None = None
) -> int:
    """How many of so many pings to the other end were answered, all of their bytes intact.

    Args:
        wait: seconds until it is sure that no answer comes; else it waits for all.
    """
    to = ENDS[1 if name == bed.names[0] else 0]
    patience = PATIENCE if wait is None else ("-W", str(wait))
    argv = ["ping", "-n", "-i", "0.01", *patience, "-c", str(count), "-s", str(size), to]
    return answered(bed.run(name, *argv).stdout, count)


def reach(bed: Bed) -> None:
    """Until one ping goes through: both ends know their gateways' addresses then."""
    until(lambda: ping(bed, 1, wait=A_MOMENT_S), "a ping to go through")


# ---- Hummingbird ---------------------------------------------------------------------------------

LIVE = ("af_xdp", "af_packet", "dpdk")
"""Drivers of ports on interfaces that exist; `dpdk` is its own af_packet driver here."""


def needs_dpdk(driver: str) -> None:
    """Skip, and say so, where DPDK is needed and was not there when Hummingbird was compiled."""
    if driver == "dpdk" and not (ROOT / "hummingbird" / "dataplane" / "libhb_dpdk.so").exists():
        pytest.skip("NOT TESTED with DPDK: apt-get install libdpdk-dev, then make")


def live_port(driver: str, side: str, **more: Any) -> dict[str, Any]:
    """A port of the middle on one of its interfaces."""
    needs_dpdk(driver)
    if driver == "dpdk":  # has no address of its own
        more.pop("address", None)
        return {
            "driver": "dpdk",
            "device": f"net_af_packet{int(side == 'east')},iface={side}",
            **more,
        }
    return {"driver": driver, "interface": side, **more}


def wire(driver: str, engine: str = "cpu", **more: Any) -> tuple[dict[str, Any], str]:
    """lan <-> nf0 <-> wan, with an NF that does nothing: frames come out as they went in.

    Args:
        driver: of both ports.
        engine: of the NF.
        more: fields of both ports.
    """
    ports = {"lan": live_port(driver, "west", **more), "wan": live_port(driver, "east", **more)}
    nfs = {way: {"type": "forward", "engine": engine} for way in ("there", "back")}
    rows = "*,lan,there\n*,there,wan\n*,wan,back\n*,back,lan\n"
    return {"ports": ports, "nfs": nfs}, rows


@contextlib.contextmanager
def hummingbird(
    bed: Bed,
    name: str,
    folder: Path,
    topology: Mapping[str, Any],
    rows: str,
    *options: str,
    files: Mapping[str, str | bytes] | None = None,
) -> Iterator[Service]:
    """`hummingbird run` in a namespace, from when it runs; stop it before you leave.

    Args:
        folder: for its files; two at once need one each.
        options: more of its command line.
        files: files for the NFs, by name.
    """
    with starting(bed, name, folder, topology, rows, *options, files=files) as process:
        process.until(lambda: "running after" in process.text, "its start")
        yield process


@contextlib.contextmanager
def starting(
    bed: Bed,
    name: str,
    folder: Path,
    topology: Mapping[str, Any],
    rows: str,
    *options: str,
    files: Mapping[str, str | bytes] | None = None,
    within: Sequence[str] = (),
) -> Iterator[Service]:
    """The same from its very start; ``within`` is a command that runs it, such as setpriv."""
    folder.mkdir(exist_ok=True)
    for file, content in (files or {}).items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / file).write_bytes(data)
        (folder / file).chmod(0o600)  # as keys want it
    path = write_topology(folder, topology, rows)
    state = {"STATE_DIRECTORY": os.environ["STATE_DIRECTORY"]}
    inside = bed.inside(name, *within)
    with service(folder, path, "--no-live", *options, through=inside, **state) as process:
        yield process


def summary_of(process: Service) -> dict[str, Any]:
    """Stop it: every packet is accounted for, and nothing broke."""
    ended = process.stop()
    assert "Traceback" not in ended.text, ended.text
    return ended.balanced


def counted(summary: Mapping[str, Any], field: str, *ports: str) -> int:
    """A field of the ports' entries, all together."""
    return sum(int(summary["ports"][port].get(field, 0)) for port in ports)


def xdp_program(bed: Bed, name: str, side: str) -> bool:
    """Whether an interface has an XDP program."""
    return "xdp" in bed.do(name, "ip", "-d", "link", "show", "dev", side)


def stream(bed: Bed, folder: Path, reverse: bool = False) -> int:
    """4 MiB by TCP from a to b, or from b to a, with iperf3; how much of it the receiver read.

    The receiver stops reading as soon as it hears that all has been written, so what the sockets
    still hold is not in its count (esnet/iperf issue 382): with `-w` that is at most twice 256 KiB,
    as Linux doubles what it is asked for.
    """
    with running(
        bed, "b", "iperf3", "-s", "-1", "--forceflush", says="Server listening", folder=folder
    ):
        argv = ["iperf3", "-c", ENDS[1], "-n", "4M", "-w", "128K", "-J"]
        done = bed.run("a", *argv, *(["-R"] if reverse else []))
    assert done.returncode == 0, done.stdout
    end = json.loads(done.stdout)["end"]
    received = int(end["sum_received"]["bytes"])
    assert end["sum_sent"]["bytes"] >= 4 << 20 and received >= 3 << 20, end
    return received
