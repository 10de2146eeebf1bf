# SPDX-License-Identifier: BSD-3-Clause
"""What a run says to systemd: ready when packets flow, alive while all lcores make passes.

hummingbird run ── datagrams ── a socket of the test, as systemd's
"""

from __future__ import annotations

import io
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chain import started, udp
from namespaces import namespace, needs, raw
from process import Service, service, write_rows, write_topology
from rich.console import Console

from hummingbird import logs
from hummingbird.attendant import Attendant
from hummingbird.control_client import Reply
from hummingbird.errors import UserError
from hummingbird.linux.notify import Notifier
from hummingbird.telemetry.attach import Attached
from hummingbird.telemetry.rundir import base_dir
from hummingbird.telemetry.status import Meter

TOPOLOGY: dict[str, Any] = {
    "ports": {
        "gen0": {"driver": "generator", "flows": 10, "rate": 20_000},
        "out0": {"driver": "sink"},
    },
    "nfs": {"nf0": {"type": "forward"}},
}
ROWS = "*,gen0,nf0\n*,nf0,out0\n"
BEHIND = "*,router0,lb0\n*,lb0,drop\n"
NEVER_PY = "from hummingbird.nfs import Nf\nNF = Nf('never')\n"
NEVER_CL = """\
static hb_u32 hb_nf_never(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)arg, (void)result;
    for (volatile hb_u32 turn = 0; p->length == 666; turn++)
        ;
    return HB_PASS;
}
"""
"""A packet of this length never comes out of it."""
READERS = {
    "router0": {"type": "router", "routes": "fib.csv"},
    "lb0": {
        "type": "load_balancer",
        "backends": "backends.csv",
        "mac": "02:00:00:00:00:fe",
        "services": {"web": {"address": "203.0.113.10", "protocol": "tcp", "port": 443}},
    },
}
"""NFs with tables that change while lcores may look at them."""


def write_tables(folder: Path, number: int) -> None:
    """Other ones for each number."""
    (folder / "fib.csv").write_text(f"prefix,next_hop\n10.{number}.0.0/16,unreachable\n")
    backends = f"service,address,mac\nweb,10.0.0.{number},02:00:00:00:00:{number:02x}\n"
    (folder / "backends.csv").write_text(backends)


class Listener:
    """The other end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.said: list[str] = []

    def hear(self, seconds: float) -> list[str]:
        """All that comes within some time, and all that has come then, however late it is."""
        end, before = time.monotonic() + seconds, len(self.said)
        while select.select([self.socket], [], [], max(0.0, end - time.monotonic()))[0]:
            self.said.append(self.socket.recv(4096).decode())
        return self.said[before:]

    def until(self, word: str, times: int = 1) -> None:
        """Until something has come that begins with this regular expression, so often."""
        end = time.monotonic() + 60
        while sum(bool(re.match(word, text)) for text in self.said) < times:
            assert time.monotonic() < end, f"waited for {word}: {self.said}"
            self.hear(0.02)

    def forget(self) -> None:
        """What has come so far."""
        self.hear(0)
        self.said.clear()


@contextmanager
def listening(address: str) -> Iterator[Listener]:
    listener = Listener(address)
    with listener.socket:
        yield listener


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_the_life_of_a_run(kind: str, tmp_path: Path) -> None:
    """READY=1 when packets flow and not before; STATUS= and WATCHDOG=1 go on; then STOPPING=1."""
    name = str(tmp_path / "notify") if kind == "file" else f"\0hb-notify-{os.getpid()}"
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    environment = {"NOTIFY_SOCKET": name.replace("\0", "@"), "WATCHDOG_USEC": "400000"}
    with listening(name) as ear, service(tmp_path, path, **environment) as process:
        ear.until("READY=1")
        assert ear.said[0] == "READY=1", "nothing before"
        snapshot = process.snapshot()
        assert snapshot is not None and snapshot.lcores["passes"].all()
        ear.until("STATUS=running, policy version 1")
        began = time.monotonic()
        ear.forget()
        ear.until("WATCHDOG=1", 8)
        # one in 0.2 s, half of what is asked for; the first one may come late
        assert time.monotonic() - began > 7 * 0.2 / 2
        ear.until("STATUS=.* packets/s in")
        rates = next(text for text in ear.said if " packets/s in" in text)
        assert re.fullmatch(r"STATUS=[\d,]+ packets/s in, [\d,]+ out, 0 dropped; .* 1", rates)
        process.process.terminate()
        ear.until("STOPPING=1")
        ear.until("STATUS=asked to stop: draining")
        assert process.wait().balanced["sent"] > 0
        assert ear.hear(0.1) == [] and "READY=1" not in ear.said, "it is said once"


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    path = write_topology(tmp_path, TOPOLOGY, "*,gen0,nowhere\n")
    with listening(name) as ear, service(tmp_path, path, NOTIFY_SOCKET=name) as process:
        assert process.wait().status == 2
        ear.until("STATUS=failed: ")
        assert "nowhere" in ear.said[-1] and "READY=1" not in ear.said


def test_an_lcore_that_never_returns_stops_the_watchdog(tmp_path: Path) -> None:
    """An NF of the user's own that loops for ever at one packet: from then on no WATCHDOG=1, and
    the log says which lcore it is."""
    needs()
    name = str(tmp_path / "notify")
    for file, text in {"never.py": NEVER_PY, "never.cl": NEVER_CL}.items():
        (tmp_path / file).write_text(text)
    port = {"driver": "af_packet", "interface": "ia"}
    topology = {"ports": {"lan": port}, "nfs": {"nf0": {"type": "./never.py"}} | READERS}
    write_tables(tmp_path, 1)
    path = write_topology(tmp_path, topology, f"*,lan,nf0\n*,nf0,router0\n{BEHIND}")
    with namespace() as bed, listening(name) as ear:
        bed.wire("ia", "pa")
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"}
        through = ["ip", "netns", "exec", bed.name]
        with service(tmp_path, path, "--log", "json", through=through, **environment) as process:
            ear.until("READY=1")
            with raw(bed, "pa") as out:
                out.send(udp("10.0.0.1", "10.0.0.2", 1, 2, bytes(100)))
                process.until(lambda: process.packets(0, "in_packets") == 1, "a packet")
                ear.forget()
                ear.until("WATCHDOG=1")
                out.send(udp("10.0.0.1", "10.0.0.2", 1, 2, bytes(666 - 42)))
            process.until(lambda: "lcore_stuck" in process.text, "a word of it")
            ear.hear(0.1)
            assert "WATCHDOG=1" not in ear.hear(2.0)
            assert process.process.poll() is None
            assert "has made no pass for 5 s" in process.text
            _check_stuck(process, tmp_path)


def _check_stuck(process: Service, folder: Path) -> None:
    """Who asks is told; what lcores are needed for is refused or given up; it ends when told to."""
    with Attached(process.name) as other:
        meter = Meter(other.view)
        meter.measure(other.view)
        time.sleep(0.5)  # what is measured over
        found = meter.measure(other.view)["bottleneck"]
    assert "makes no passes: an NF on it does not return" in found["why"]
    with pytest.raises(UserError, match="an NF on it does not return"):
        write_rows(folder, f"*,lan,nf0\n*,nf0,lb0\n{BEHIND}")
        list(Reply(process.name, "reload"))
    write_rows(folder, f"*,lan,nf0\n*,nf0,router0\n{BEHIND}")
    write_tables(folder, 2)
    changed = {change["name"] for change in Reply(process.name, "reload")}
    assert changed == set(READERS), "what the lcore may look at stays, what is new stands beside it"
    reply = Reply(process.name, "trace", seconds=0.2)
    list(reply)
    assert reply.end["packets"] == 0
    process.process.terminate()
    ended = process.wait()
    assert ended.status == 1 and "lcore_hangs" in ended.text
    assert ended.summary is not None and ended.summary["in_flight"] > 0
    assert not (base_dir() / process.name).exists()


def test_a_control_loop_that_stands_still_stops_the_watchdog(tmp_path: Path) -> None:
    """As the whole process does that is stopped."""
    name = str(tmp_path / "notify")
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"}
    with listening(name) as ear, service(tmp_path, path, **environment) as process:
        ear.until("WATCHDOG=1")
        process.process.send_signal(signal.SIGSTOP)
        ear.hear(0.3)
        assert ear.hear(1.5) == []
        ear.forget()
        process.process.send_signal(signal.SIGCONT)
        ear.until("WATCHDOG=1")


def test_nothing_is_said_before_all_lcores_make_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that it is alive nor what it does: READY=1 comes first."""
    name = str(tmp_path / "notify")
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"})
    handler = logs.Handler(Console(file=io.StringIO()), logs.Stream(io.StringIO()))
    with listening(name) as ear, started(TOPOLOGY, rows=ROWS) as run:
        attendant = Attendant(run.engine, handler, notifier)
        before = run.engine.reader().snapshot()
        before.lcores["passes"] = 0
        with monkeypatch.context() as patch:
            still = SimpleNamespace(snapshot=lambda: before)
            patch.setattr(run.engine, "reader", lambda: still)
            attendant.poll()
            assert ear.hear(0) == []
        polled_until(attendant.poll, ear, "READY=1")
        assert ear.said[0] == "READY=1"
        run.stop()


def test_what_runs_is_replaced(tmp_path: Path) -> None:
    """Meanwhile there are no lcores, and it is enough that the control loop turns."""
    name = str(tmp_path / "notify")
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"})
    stream = logs.Stream(io.StringIO())
    handler = logs.Handler(Console(file=io.StringIO()), stream)
    with listening(name) as ear, started(TOPOLOGY, rows=ROWS) as run:
        attendant = Attendant(run.engine, handler, notifier)
        polled_until(attendant.poll, ear, "READY=1")
        polled_until(attendant.away, ear, "RELOADING=1\nMONOTONIC_USEC=")
        polled_until(attendant.away, ear, "WATCHDOG=1")
        assert not any(text.startswith(("READY", "RELOADING")) for text in ear.said)
        polled_until(attendant.poll, ear, "READY=1")
        polled_until(attendant.poll, ear, "WATCHDOG=1")
        run.stop()


def polled_until(poll: Callable[[], None], ear: Listener, word: str) -> None:
    """Forgets what it has heard before."""
    ear.said.clear()
    end = time.monotonic() + 20
    while not any(text.startswith(word) for text in ear.said):
        assert time.monotonic() < end, ear.said
        poll()
        ear.hear(0.01)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "30000000"}, 30.0),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "x"}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "1000"}, None),
    ],
)
def test_nobody_listens(environment: dict[str, str], seconds: float | None) -> None:
    """Nothing happens then."""
    notifier = Notifier(environment)
    assert notifier.watchdog_s == seconds
    for say in (notifier.ready, notifier.reloading, notifier.stopping, notifier.alive):
        say()
    notifier.status("two\nlines")


def test_a_full_socket_is_not_waited_for(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as ear:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        began = time.monotonic()
        for number in range(5000):
            notifier.status(f"line {number}\nof many")
        assert time.monotonic() - began < 20
        assert ear.hear(0.1)[0] == "STATUS=line 0 of many"
        notifier.reloading()
        assert any(text.startswith("RELOADING=1\nMONOTONIC_USEC=") for text in ear.hear(0.1))
