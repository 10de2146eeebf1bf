# SPDX-License-Identifier: BSD-3-Clause
"""What an operator asks of a run over its control socket: reload, restart, drain, resume, stop.

                  hummingbird ctl, control.Reply, raw sockets
                                   ║
in0 (a capture for ever) ── nf0 ─┬─ old ── out0
topology.yaml, routes.csv: edited└─ new ── out0
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import HEADER, capture, read_capture, udp
from mutate import as_rows, mutate
from process import ROOT, Service, service, write_rows, write_topology

from hummingbird import control, control_client
from hummingbird.control import Json
from hummingbird.control_client import Reply
from hummingbird.errors import UserError
from hummingbird.telemetry.attach import Attached
from hummingbird.telemetry.rundir import base_dir
from hummingbird.telemetry.status import Meter

IN, OUT, FIRST, OLD, NEW = range(5)  # the nodes' numbers
ROWS = "*,in0,nf0\n*,nf0,{}\n*,old,out0\n*,new,out0\n"
PACKETS = [udp("10.0.0.1", f"10.0.1.{n}", 1000, 9) for n in range(100)]


def topology(rate: int | None = 20_000, engine: str = "cpu", **nfs: Any) -> dict[str, Any]:
    """The topology above; further NFs."""
    pace = {"rate": rate} if rate else {}
    return {
        "ports": {
            "in0": {"driver": "pcap", "read": "in.pcap", "loop": 0, **pace},
            "out0": {"driver": "sink"},
        },
        "nfs": {
            "nf0": {"type": "forward", "engine": engine},
            "old": {"type": "forward", "engine": "cpu"},
            "new": {"type": "forward", "engine": "cpu"},
            **nfs,
        },
    }


@contextlib.contextmanager
def running(
    folder: Path,
    wanted: dict[str, Any] | None = None,
    *args: object,
    fast: bool = True,
    packets: list[bytes] = PACKETS,
) -> Iterator[Service]:
    """A run of the topology above; ``fast``: once packets have come out."""
    path = write_topology(folder, wanted or topology(), ROWS.format("old"))
    (folder / "in.pcap").write_bytes(capture(packets))
    with service(folder, path, "--no-live", *args) as run:
        if fast:
            run.until(lambda: run.packets(OUT) > 100, "packets at the end")
        run.until(lambda: run.name in control_client.running(), "its control socket")
        yield run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Service]:
    """The same, for tests that do not mind how."""
    with running(tmp_path) as started:
        yield started


def ask(run: Service, command: str, **fields: Any) -> tuple[list[Json], Json]:
    """Items and end of an answer."""
    reply = Reply(run.name, command, **fields)
    return list(reply), reply.end


def cli(run: Service, *words: str, status: int = 0) -> str:
    """Output and errors of `hummingbird ctl`."""
    command = [sys.executable, "-m", "hummingbird.cli", "ctl", "--name", run.name, *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def balanced(summary: dict[str, Any]) -> None:
    """Nothing was lost, neither now nor before a restart."""
    for part in (summary, *summary["runs"]):
        made = part["received"] + part["created"]
        assert made == part["sent"] + sum(part["dropped"].values())
        assert part["balance"] == part["in_flight"] == 0


# ---- reload --------------------------------------------------------------------------------------


def test_a_changed_route(run: Service, tmp_path: Path) -> None:
    """It says the route, from where to where, and the line; packets go the new way."""
    write_rows(tmp_path, ROWS.format("new"))
    (change,), end = ask(run, "reload", what="policy")
    assert change == {
        "part": "policy",
        "what": "changed",
        "types": ["other"],
        "at": "nf0",
        "before": "old",
        "now": "new",
        "file": str(tmp_path / "routes.csv"),
        "line": 3,
        "live": True,
        "text": "all types: nf0 -> new instead of old (routes.csv:3)",
    }
    assert end == {"changes": 1, "version": 2, "restarted": False}
    before = run.packets(NEW)
    run.until(lambda: run.packets(NEW) > before + 100, "packets on the new way")
    run.until(lambda: "nf0 -> new instead of old" in run.text, "a line in the log")
    assert ask(run, "reload") == ([], {"changes": 0, "version": 2, "restarted": False})
    assert "nothing changed; policy version 2" in cli(run, "reload")
    assert run.stop().balanced["dropped"] == {}


def test_mistakes_change_nothing(run: Service, tmp_path: Path) -> None:
    """File, line, field and fix; packets go as before."""
    write_rows(tmp_path, ROWS.format("newer"))
    for what in ("policy", "topology"):
        said = cli(run, "reload", what, status=2)
        assert "routes.csv:3:next_nf: unknown NF or port 'newer'" in said
        assert "fix: did you mean 'new'?" in said
    wanted = topology() | {"memory": {"mbuf": 8192}}
    write_topology(tmp_path, wanted, ROWS.format("new"))
    with pytest.raises(UserError) as caught:
        ask(run, "reload")
    error = caught.value
    assert (Path(str(error.path)).name, error.field) == ("topology.yaml", "memory.mbuf")
    assert error.line and error.fix == "did you mean 'mbufs'?"
    with pytest.raises(UserError, match=r"'what' is 'all'\n  fix: write policy or topology"):
        ask(run, "reload", what="all")
    before = run.packets(OLD)
    run.until(lambda: run.packets(OLD) > before + 100, "packets as before")
    summary = run.stop().balanced
    assert summary["policy_version"] == 1 and not summary["nfs"]["new"]["packets"]


def test_what_needs_a_restart(run: Service, tmp_path: Path) -> None:
    """Without --restart all changes are listed, and none is made."""
    wanted = topology(rate=10_000, more={"type": "forward", "engine": "cpu"})
    wanted["memory"] = {"mbufs": 8192}
    write_topology(tmp_path, wanted, ROWS.format("more") + "*,more,out0\n")
    said = cli(run, "reload", status=2)
    for line in (
        "port in0: rate 10000 instead of 20000 (topology.yaml:7)",
        "nf added: more (topology.yaml:20)",
        "memory: mbufs 8192 instead of 16384 (topology.yaml:24)",
        "all types: nf0 -> more instead of old (routes.csv:3)",
        "all types: more -> out0, where no route was (routes.csv:6)",
        "changes of ports, nfs, memory need a restart; nothing was changed",
        "fix: hummingbird ctl reload --restart",
    ):
        assert line in said, said
    assert ask(run, "status", interval=0)[1]["policy_version"] == 1
    run.stop().balanced  # noqa: B018 (looks at the summary)


def test_a_restart(tmp_path: Path) -> None:
    """Other NFs, also of the GPU, and another port in the same process, under the same name, at the
    same socket; what ran before is accounted for."""
    wanted = topology(rate=None, engine="gpu", more={"type": "forward", "engine": "gpu"})
    wanted["ports"]["out1"] = {"driver": "sink"}
    with (
        running(tmp_path, topology(engine="gpu")) as run,
        control_client.open_instance(run.name) as before,
    ):
        write_topology(tmp_path, wanted, ROWS.format("more") + "*,more,out1\n")
        found, end = ask(run, "reload", restart=True)
        texts = [change["text"] for change in found]
        assert any(text.startswith("port added: out1") for text in texts), texts
        assert any(text.startswith("nf added: more") for text in texts), texts
        assert end["restarted"] and end["version"] == 1
        drained = end["drained"]
        assert drained["received"] == drained["sent"] > 100
        assert drained["in_flight"] == drained["balance"] == 0
        before.sendall(b'{"v": 1, "id": 1, "command": "status", "interval": 0}\n')
        status = json.loads(before.makefile().readline())["end"]
        assert "out1" in status["ports"] and status["pid"] == run.process.pid
        run.until(lambda: run.packets(2) > 1000, "packets at out1")
        summary = run.stop().balanced
        balanced(summary)
        assert summary["nfs"]["more"]["packets"] == summary["ports"]["out1"]["sent"] > 1000
        (first,) = summary["runs"]
        assert {name: first[name] for name in drained} == drained
        assert "Before a restart, topology.yaml for" in run.text


def test_a_restart_that_fails(run: Service, tmp_path: Path) -> None:
    """The new one cannot start: the old one runs again, and the answer says why."""
    wanted = topology()
    wanted["ports"]["gone"] = {"driver": "af_packet", "interface": "no-such-if0"}
    write_topology(tmp_path, wanted, ROWS.format("new") + "*,gone,nf0\n")
    said = cli(run, "reload", "--restart", status=2)
    assert "no-such-if0" in said and "the topology before runs again" in said
    run.until(lambda: run.packets(OLD) > 1000, "packets as before")
    assert not run.packets(NEW)
    summary = run.stop().balanced
    balanced(summary)
    assert len(summary["runs"]) == 1 and list(summary["ports"]) == ["in0", "out0"]


def test_neither_can_start(run: Service, tmp_path: Path) -> None:
    """Nor can the old one, whose capture has gone: the run ends, and everybody is told why."""
    wanted = topology()
    wanted["ports"]["in0"]["read"] = "other.pcap"
    wanted["ports"]["gone"] = {"driver": "af_packet", "interface": "no-such-if0"}
    (tmp_path / "in.pcap").rename(tmp_path / "other.pcap")
    write_topology(tmp_path, wanted, ROWS.format("new") + "*,gone,nf0\n")
    said = cli(run, "reload", "--restart", status=2)
    assert "neither the new topology nor the one before can start" in said
    ended = run.wait()
    assert ended.status == 2 and "in.pcap: No such file" in ended.text
    assert "has ended: Packets: received" in ended.text and not (base_dir() / run.name).exists()


def test_a_restart_with_a_mistake_in_a_table(run: Service, tmp_path: Path) -> None:
    """What an NF says of its files is found before anything is stopped."""
    (tmp_path / "rules.csv").write_text("nonsense\n")
    wanted = topology(wall={"type": "firewall", "engine": "cpu", "rules": "rules.csv"})
    write_topology(tmp_path, wanted, ROWS.format("new"))
    assert "rules.csv" in cli(run, "reload", "--restart", status=2)
    summary = run.stop().balanced
    assert summary["runs"] == []


def test_an_edited_file_of_an_nf(tmp_path: Path) -> None:
    """The topology is the same, a file that it names is not: that is a change."""
    header = "src,dst,protocol,sport,dport,action\n"
    (tmp_path / "rules.csv").write_text(header + "any,any,any,any,any,accept\n")
    wanted = topology()
    wanted["nfs"]["old"] = {"type": "firewall", "engine": "cpu", "rules": "rules.csv"}
    with running(tmp_path, wanted) as run:
        assert ask(run, "reload")[0] == []
        (tmp_path / "rules.csv").write_text(header + "any,any,any,any,any,drop\n")
        assert "nf old: rules.csv changed" in cli(run, "reload", status=2)
        said = cli(run, "reload", "--restart")
        assert "nf old: rules.csv changed" in said and "restarted" in said, said
        run.until(lambda: run.packets(OLD, "dropped") > 100, "drops by the new rule")
        balanced(run.stop().balanced)


def test_files_that_are_read_again_live(tmp_path: Path) -> None:
    """A router's routes need no restart; a mistake in them changes nothing."""
    first, second = "prefix,next_hop\n10.0.0.0/8,192.0.2.1@out0\n", "10.0.1.0/24,192.0.2.2@out0\n"
    routes = tmp_path / "fib.csv"
    routes.write_text(first)
    wanted = topology()
    wanted["nfs"]["old"] = {
        "type": "router",
        "engine": "cpu",
        "routes": "fib.csv",
        "interfaces": {"out0": {"mac": "02:00:00:00:00:01"}},
        "neighbours": {"192.0.2.1": "02:00:00:00:00:02", "192.0.2.2": "02:00:00:00:00:03"},
    }
    with running(tmp_path, wanted) as run:
        routes.write_text(first + "10.0.1.0/33,192.0.2.2@out0\n")
        said = cli(run, "reload", status=2)
        assert "fib.csv:3: 10.0.1.0/33 is no IPv4 prefix" in said
        routes.write_text(first + second)
        said = cli(run, "reload")
        assert "nf old: fib.csv changed" in said and "policy version" in said
        run.until(lambda: "routes of old: 1 added, 0 changed, 0 withdrawn" in run.text, "a line")
        assert ask(run, "reload")[0] == []
        summary = run.stop().balanced
    assert summary["runs"] == []


# ---- drain, resume, stop -------------------------------------------------------------------------


def test_drain_and_resume(run: Service) -> None:
    """Drained it is idle and stays; a capture stops where it is and goes on from there."""
    end = ask(run, "drain")[1]
    assert end["drained"] and end["in_flight"] == end["balance"] == 0
    assert end["received"] == end["sent"] == run.packets(OUT)
    status = ask(run, "status", interval=1)[1]
    assert status["state"] == "drained" and status["rates"]["received_pps"] == 0
    assert run.packets(IN, "in_packets") == end["received"]
    assert "drained" in cli(run, "drain")  # it still is
    assert "take packets in again" in cli(run, "resume")
    assert "it was not drained" in cli(run, "resume")
    run.until(lambda: run.packets(OUT) > end["sent"] + 1000, "packets again")
    assert ask(run, "status", interval=0)[1]["state"] == "running"
    summary = run.stop().balanced
    assert summary["dropped"] == {}


def test_a_reload_while_drained(run: Service, tmp_path: Path) -> None:
    """Neither a new policy nor a restart lets packets in."""
    ask(run, "drain")
    write_rows(tmp_path, ROWS.format("new"))
    ask(run, "reload")
    before = run.packets(IN, "in_packets")
    write_topology(tmp_path, topology(rate=None), ROWS.format("new"))
    ask(run, "reload", restart=True)
    status = ask(run, "status", interval=0.2)[1]
    assert (status["state"], status["totals"]["received"]) == ("drained", 0), before
    ask(run, "resume")
    run.until(lambda: run.packets(NEW) > 1000, "packets on the new way")
    balanced(run.stop().balanced)


STUCK = """\
import time
def process(burst):
    time.sleep(3)
    return burst.verdicts()
"""
HELD = """\
import os, time
def process(burst):
    while os.path.exists("hold"):
        open("held", "w").close()
        time.sleep(0.01)
    return burst.verdicts()
"""
"""As long as `hold` is there, no packet gets past it."""


def hold(run: Service, folder: Path) -> None:
    """Until packets are held: the burst before may have got past."""
    (folder / "hold").touch()
    run.until((folder / "held").exists, "packets in its hands")


def test_a_drain_that_takes_too_long(tmp_path: Path) -> None:
    """An NF is slow: it says how many packets are left, and takes none in until it is told to."""
    wanted = topology(rate=None)
    wanted["nfs"]["old"] = {"type": "python", "file": "nf.py"}
    (tmp_path / "nf.py").write_text(HELD)
    with running(tmp_path, wanted) as run:
        hold(run, tmp_path)
        end = ask(run, "drain", timeout=0.01)[1]
        assert not end["drained"] and end["in_flight"] > 0
        assert state(run) == "draining"
        came = run.packets(IN, "in_packets")
        (tmp_path / "hold").unlink()
        end = ask(run, "drain", timeout=60)[1]
        assert end["drained"] and end["received"] == came == end["sent"]
        (tmp_path / "hold").touch()
        ask(run, "resume")
        run.until(lambda: run.packets(IN, "in_packets") > came, "packets again")
        said = cli(run, "drain", "--timeout", "0.01", status=1)
        assert "draining: " in said and "still in flight" in said
        (tmp_path / "hold").unlink()
        balanced(run.stop().balanced)


def test_a_restart_that_cannot_drain(tmp_path: Path) -> None:
    """What is in flight by then is dropped, counted, and said."""
    wanted = topology(rate=None)
    wanted["nfs"]["old"] = {"type": "python", "file": "nf.py"}
    (tmp_path / "nf.py").write_text(STUCK)
    with running(tmp_path, wanted, fast=False) as run:
        run.until(lambda: run.packets(OLD, "in_packets") > 0, "packets in its hands")
        write_topology(tmp_path, topology(rate=None), ROWS.format("new"))
        said = cli(run, "reload", "--restart", "--timeout", "0.01", status=1)
        assert "(shutdown" in said and "restarted" in said
        run.until(lambda: run.packets(NEW) > 1000, "packets on the new way")
        ended = run.stop().balanced
        balanced(ended)
        assert ended["runs"][0]["dropped"]["shutdown"] > 0 and ended["dropped"] == {}


def test_a_client_that_goes_during_a_drain(tmp_path: Path) -> None:
    """Who has asked for a restart has gone before it: nothing is restarted, packets come in."""
    wanted = topology(rate=None)
    wanted["nfs"]["old"] = {"type": "python", "file": "nf.py"}
    (tmp_path / "nf.py").write_text(HELD)
    with running(tmp_path, wanted) as run:
        hold(run, tmp_path)
        write_topology(tmp_path, topology(rate=None), ROWS.format("new"))
        with control_client.open_instance(run.name) as asking:
            asking.sendall(
                b'{"v": 1, "id": 1, "command": "reload", "restart": true, "timeout": 60}\n'
            )
            run.until(lambda: state(run) == "draining", "the drain")
        run.until(lambda: state(run) == "running", "the end of the drain")
        (tmp_path / "hold").unlink()
        came = run.packets(IN, "in_packets")
        run.until(lambda: run.packets(IN, "in_packets") > came, "packets again")
        assert "restart" not in run.text.replace("asked to restart", "")
        summary = run.stop(signal.SIGKILL)
        assert summary.status == -signal.SIGKILL


def state(run: Service) -> str:
    """Running, draining or drained, as others see it."""
    return str(ask(run, "status", interval=0)[1]["state"])


def test_stop(run: Service) -> None:
    """It answers what was drained, then ends as after SIGTERM; the name is free at once."""
    said = cli(run, "stop")
    assert "drained, and stopping" in said and "in flight 0" in said
    with pytest.raises(UserError, match="no instance named"):
        ask(run, "status")
    summary = run.wait().balanced
    assert f"received {summary['received']:,} " in said


def test_others_see_a_restart(run: Service, tmp_path: Path) -> None:
    """Who reads the counters from outside goes on with the new ones."""
    with Attached(run.name) as seen:
        meter = Meter(seen.view)
        meter.measure(seen.view)
        wanted = topology(rate=None, more={"type": "forward", "engine": "cpu"})
        write_topology(tmp_path, wanted, ROWS.format("new"))
        ask(run, "reload", restart=True)
        run.until(lambda: "more" in [node.name for node in seen.view.nodes], "the new view")
        run.until(lambda: run.packets(NEW) > 1000, "packets on the new way")
        status = meter.measure(seen.view)
        assert seen.running and status["nfs"]["new"]["out"]["packets"] > 1000
        assert status["rates"]["sent_pps"] > 0
        ask(run, "stop")
        run.wait()
        assert not seen.running


def test_what_looks_on_ends_with_a_restart(run: Service, tmp_path: Path) -> None:
    """Traces and captures are of the run that ends: whoever has one is told, and may ask again."""
    ask_for = {"trace": {"count": 1_000_000_000}, "capture": {"edge": "in0:"}}
    lookers = [Asker(run.name) for _ in ask_for]
    for looker, (command, fields) in zip(lookers, ask_for.items(), strict=True):
        looker.send(command, **fields)
        assert "item" in looker.next()
    write_topology(tmp_path, topology(rate=10_000), ROWS.format("new"))
    ask(run, "reload", restart=True)
    for looker, (command, fields) in zip(lookers, ask_for.items(), strict=True):
        said = looker.next()
        while "item" in said:
            said = looker.next()
        assert said["error"] == "the instance is restarting", command
        looker.send(command, **fields)
        assert "item" in looker.next()
    assert len(ask(run, "taps")[0]) == 2
    balanced(run.stop().balanced)


def test_a_signal_during_a_restart(run: Service, tmp_path: Path) -> None:
    """It ends what has been started by then; everything is accounted for."""
    asker = Asker(run.name)
    write_topology(tmp_path, topology(rate=None), ROWS.format("new"))
    asker.send("reload", restart=True)
    run.until(lambda: "has ended" in run.text, "the end of what ran")
    ended = run.stop()
    balanced(ended.balanced)
    assert len(ended.balanced["runs"]) == 1


def test_watch_follows_the_topology(tmp_path: Path) -> None:
    """--watch looks at the policy's file that the topology names after a reload, and says what has
    changed."""
    with running(tmp_path, None, "--watch") as run:
        path = tmp_path / "topology.yaml"
        (tmp_path / "other.csv").write_text(HEADER + ROWS.format("old"))
        path.write_text(path.read_text().replace("routes.csv", "other.csv"))
        (change,), end = ask(run, "reload")
        assert change["field"] == "policy" and end["version"] == 1
        (tmp_path / "other.csv").write_text(HEADER + ROWS.format("new"))
        run.until(lambda: "reloaded: version 2: all types: nf0 -> new" in run.text, "a line")
        assert "other.csv:3" in run.text
        run.stop().balanced  # noqa: B018 (looks at the summary)


# ---- ten thousand reloads ------------------------------------------------------------------------


class Asker:
    """Asks again and again on one connection."""

    def __init__(self, name: str) -> None:
        self._socket = control_client.open_instance(name)
        self._lines = self._socket.makefile("rb")

    def send(self, command: str, **fields: Any) -> None:
        request = {"v": 1, "id": 1, "command": command, **fields}
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def next(self) -> Json:
        said: Json = json.loads(self._lines.readline())
        return said

    def ask(self, command: str, **fields: Any) -> tuple[list[Json], Json]:
        self.send(command, **fields)
        items = []
        while True:
            said = self.next()
            if "item" not in said:
                return items, said
            items.append(said["item"])


def reload_often(run: Service, folder: Path, count: int) -> None:
    """Send packets by `new` and by `old` in turn; each answer says which."""
    asker = Asker(run.name)
    for way in ("old", "new"):
        (folder / f"{way}.csv").write_text(HEADER + ROWS.format(way))
    for number in range(count):
        way, other = ("new", "old") if number % 2 == 0 else ("old", "new")
        (folder / "next").symlink_to(f"{way}.csv")
        (folder / "next").replace(folder / "routes.csv")
        (change,), said = asker.ask("reload", what="policy")
        assert (change["at"], change["before"], change["now"]) == ("nf0", other, way)
        assert said["end"]["version"] == number + 2, said
        if number < 2:  # lcores may sleep through all others
            node = NEW if way == "new" else OLD
            before = run.packets(node)
            run.until(lambda n=node, b=before: run.packets(n) > b + count, "packets on its way")


def lossless(summary: dict[str, Any], reloads: int) -> None:
    """Every packet came out, by one of the two ways."""
    balanced(summary)
    assert summary["dropped"] == {} and summary["policy_version"] == reloads + 1
    nfs = {name: nf["packets"] for name, nf in summary["nfs"].items()}
    assert nfs["nf0"] == nfs["old"] + nfs["new"] == summary["sent"] == summary["received"]
    assert min(nfs["old"], nfs["new"]) > reloads


@pytest.mark.timeout(400)  # half a minute, unless the machine is crowded
@pytest.mark.parametrize(("count", "rate"), [(10_000, 20_000), (300, None)])
def test_ten_thousand_reloads(count: int, rate: int | None, tmp_path: Path) -> None:
    """While packets come, some dozens for each reload, or as fast as they go: nothing is lost."""
    cpu = min(os.sched_getaffinity(0))  # of two the other is left to those who ask and answer
    cores = {"io": cpu, "nf": dict.fromkeys(("nf0", "old", "new"), cpu)}
    with running(tmp_path, topology(rate=rate) | {"cores": cores}) as run:
        reload_often(run, tmp_path, count)
        lossless(run.stop().balanced, count)


def test_reloads_with_a_gpu_and_flows(tmp_path: Path) -> None:
    """in0 ── monitor (state of flows) ─┬─ old (CPU) ─┬─ out0: the packets of each flow stay in
    └─ new (GPU) ─┘ order, whichever way it goes when; unless the run says that its device, on a
    machine that has other things to do, had packets of the way before for longer than a second
    """
    count, flows = 1000, 50
    wanted = topology(rate=10_000)
    wanted["ports"]["out0"] = {"driver": "pcap", "write": "out.pcap"}
    wanted["nfs"]["nf0"] = {"type": "flow_monitor", "engine": "cpu", "csv": "flows.csv"}
    wanted["nfs"]["new"]["engine"] = "gpu"
    packets = [
        udp("10.0.0.1", f"10.0.1.{n % flows}", 1000, 9, n.to_bytes(4, "big")) for n in range(count)
    ]
    with running(tmp_path, wanted, packets=packets) as run:
        reload_often(run, tmp_path, 150)
        ended = run.stop()
    lossless(ended.balanced, 150)
    in_order = "may have overtaken each other" not in ended.text
    last: dict[bytes, int] = {}
    for packet in read_capture(tmp_path / "out.pcap").packets:
        flow, number = packet[30:34], int.from_bytes(packet[42:46], "big")
        assert flow not in last or (last[flow] + flows) % count == number or not in_order
        last[flow] = number
    assert len(last) == flows


# ---- whoever asks --------------------------------------------------------------------------------


def test_many_ask(run: Service, tmp_path: Path) -> None:
    """As many as may ask at once do, while the policy changes; those beyond are told."""
    asked = [0] * (control.MOST_CLIENTS - 2)
    ended = threading.Event()

    def look(number: int) -> None:
        asker = Asker(run.name)
        while not ended.is_set():
            status = asker.ask("status", interval=0)[1]["end"]
            assert status["totals"]["received"] and not status["totals"]["dropped"]
            asked[number] += 1

    with futures.ThreadPoolExecutor(len(asked)) as pool:
        looking = [pool.submit(look, number) for number in range(len(asked))]
        try:
            reload_often(run, tmp_path, 30)
            run.until(lambda: min(asked) > 3, "answers for everybody")
        finally:
            ended.set()
        for one in looking:
            one.result()
    lossless(run.stop().balanced, 30)


def test_a_dead_instance(run: Service) -> None:
    """kill -9: the socket is still there, and nobody listens."""
    run.process.kill()
    run.process.wait()
    said = cli(run, "status", status=2)
    assert f"no instance named '{run.name}' is running; the one that was has been killed" in said


AS = """\
import os, sys
from hummingbird import cli, ctl, watch  # before: the other user may not read Python's files
uid = int(sys.argv[1])
cli.parser()
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
sys.exit(cli.main(sys.argv[2:]))
"""


def ask_as(uid: int, runtime: Path, *words: str, command: str = "ctl") -> str:
    """What `hummingbird ctl` tells another user, who has run directories of their own there."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(runtime)}
    call = [sys.executable, "-c", AS, str(uid), command, *words]
    ended = subprocess.run(call, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    return ended.stderr


def test_another_user(run: Service) -> None:
    """The socket is its user's alone; another one reads whom to be."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED AS ANOTHER USER: this is not root")
    uid = pwd.getpwnam("nobody").pw_uid
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        said = ask_as(uid, Path(folder), "--name", run.name, "status")
        assert "is running as this user, but root has one\n  fix: ask as root, with sudo" in said
        said = ask_as(uid, Path(folder), "--name", run.name, command="top")
        assert "is running as this user, but root has one\n  fix: ask as root, with sudo" in said
        for command in ("ctl", "top"):
            said = ask_as(uid, Path(folder), *["status"][: command == "ctl"], command=command)
            assert "no instance of this user is running, but root has one\n  fix: ask" in said
        (Path(folder) / f"hummingbird-{uid}").symlink_to(base_dir())
        said = ask_as(uid, Path(folder), "--name", run.name, "stop")
        assert "cannot be asked: Permission denied\n  fix: be the user who started it" in said
    run.stop().balanced  # noqa: B018 (looks at the summary)


REQUESTS = [
    b'{"v": 1, "id": 1, "command": "status", "interval": 0}\n',
    b'{"v": 1, "id": "x", "command": "reload", "what": "policy", "restart": false}\n',
    b'{"v": 1, "id": null, "command": "commands"}\n',
    b'{"v": 1, "id": [1], "command": "flows", "match": "udp -> :9", "limit": 3, "count": true}\n',
    b'{"v": 1, "id": 1e9, "command": "drain", "timeout": 0.01}\n',
    b'{"v": 1, "id": 0, "command": "resume"}\n',
    b'{"v": 2, "id": 1, "command": "status"}\n',
]


def test_fuzzed_requests(run: Service) -> None:
    """Requests with bytes changed, cut short, or two in one: each is answered or hung up on, and
    the run goes on."""
    rng = np.random.default_rng(7)
    data, lengths = mutate(as_rows([line.ljust(96) for line in REQUESTS]), 400, rng)
    answers = hung_up = 0
    for row, length in zip(data, lengths, strict=True):
        with control_client.open_instance(run.name) as connection:
            connection.settimeout(60)
            with contextlib.suppress(OSError):
                connection.sendall(row[:length].tobytes().rstrip() + b"\n")
                connection.shutdown(socket.SHUT_WR)
            for line in connection.makefile("rb"):
                said = json.loads(line)
                assert said["v"] == 1 and "id" in said
                answers += "end" in said
                hung_up += "error" in said
    assert answers > 20 and hung_up > 100, (answers, hung_up)
    ask(run, "resume")
    before = run.packets(OUT)
    run.until(lambda: run.packets(OUT) > before + 1000, "packets as before")
    assert "Traceback" not in run.text
    run.stop().balanced  # noqa: B018 (looks at the summary)


@pytest.mark.parametrize(
    "words",
    [["top", "--once", "--interval", "0.1"], ["ctl", "status"], ["flows"], ["trace", "--count=2"]],
    ids=lambda words: words[0],
)
def test_a_full_disk_is_one_error(run: Service, words: list[str]) -> None:
    """And the instance does not notice."""
    command = [sys.executable, "-m", "hummingbird.cli", *words, "--name", run.name]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            command, env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert ended.returncode == 2, ended.stderr
    assert "standard output cannot be written: No space left" in ended.stderr
    assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
    run.stop().balanced  # noqa: B018 (looks at the summary)


def test_commands(run: Service) -> None:
    """The instance says what it knows."""
    items, _ = ask(run, "commands")
    assert {"status", "reload", "drain", "resume", "stop", "flows"} <= {i["command"] for i in items}
    assert all(item["about"] for item in items)
    said = cli(run, "commands")
    assert (
        "drain      Take nothing in, and answer when nothing is in flight or after timeout seconds."
        in said
    )
    assert json.loads(cli(run, "commands", "--json"))["items"] == items
    status = json.loads(cli(run, "status", "--json"))
    assert status["state"] == "running" and status["rates"]["sent_pps"] > 0
    said = cli(run, "status")
    assert f"{run.name}: topology.yaml, policy version 1, running, up for" in said
    said = cli(run, "status", "--name", "another", status=2)
    assert "no instance named 'another' is running" in said, "the last one holds"
    for interval in (-1, "1", True, 61):
        with pytest.raises(UserError, match="'interval' is no number of seconds"):
            ask(run, "status", interval=interval)
