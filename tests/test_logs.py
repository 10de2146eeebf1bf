# SPDX-License-Identifier: BSD-3-Clause
"""What a run says: one line a change of state, as text or JSON, each warning with what to do, never
more than can be read; and a stream that is full or gone ends no run.

    hummingbird run --log json ── standard output: events, nothing else ── a reader, or none
"""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from process import ROOT, Service, run, service, write_rows, write_topology
from rich.console import Console

from hummingbird import logs
from hummingbird.attendant import DeviceWatch, Pulse
from hummingbird.dataplane.plane import reasons
from hummingbird.telemetry.drops import FIXES, DropWatch

TOPOLOGY: dict[str, Any] = {
    "ports": {
        "gen0": {"driver": "generator", "flows": 10, "rate": 20_000},
        "out0": {"driver": "sink"},
    },
    "nfs": {"nf0": {"type": "forward"}},
}
ROWS = "*,gen0,nf0\n*,nf0,out0\n"
NOWHERE = "*,gen0,nf0\n*,nf0,drop\n"
KEYS = {"time", "level", "logger", "event", "subject", "message", "fix", "fields"}


def events(process: Service) -> list[dict[str, Any]]:
    """What it has said so far, each line checked."""
    lines = process.lines()
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    for event in found:
        assert set(event) == KEYS
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
        assert datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
        assert event["level"] in ("info", "warning", "error") and event["message"]
        assert event["level"] == "info" or event["fix"], event
    return found


def named(process: Service, name: str) -> list[dict[str, Any]]:
    return [event for event in events(process) if event["event"] == name]


# ---- JSON ----------------------------------------------------------------------------------------


def test_a_run_tells_its_life_as_json(tmp_path: Path) -> None:
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    with service(tmp_path, path, "--log", "json", "--watch") as process:
        process.until(lambda: process.packets(1) > 100, "packets")
        write_rows(tmp_path, NOWHERE)
        process.until(lambda: bool(named(process, "policy_reloaded")), "the reload")
        write_rows(tmp_path, "*,gen0,nf9\n")
        process.until(lambda: bool(named(process, "policy_refused")), "the mistake")
        process.until(lambda: bool(named(process, "drops")), "the drops")
        summary = process.stop().balanced
        said = events(process)
    names = [event["event"] for event in said]
    assert names[0] == "started" and names[-2:] == ["draining", "stopped"]
    assert names.count("drops") == 1, "said once"
    first, last = said[0]["fields"], said[-1]["fields"]
    assert first["pid"] == process.process.pid and first["engines"] == {"nf0": "cpu"}
    assert all(last[k] == summary[k] for k in ("received", "sent", "dropped", "in_flight"))
    (refused,) = (event for event in said if event["event"] == "policy_refused")
    assert refused["fields"]["line"] == 2 and "nf9" in refused["message"] and refused["fix"]
    (dropped,) = (event for event in said if event["event"] == "drops")
    assert dropped["fields"]["reason"] == "policy" and dropped["fields"]["node"] == "nf0"


def test_a_mistake_is_an_event_too(tmp_path: Path) -> None:
    path = write_topology(tmp_path, TOPOLOGY, "*,gen0,nowhere\n")
    with service(tmp_path, path, "--log", "json") as process:
        assert process.wait().status == 2
        (event,) = events(process)
    assert event["event"] == "failed" and event["level"] == "error"
    assert event["fields"]["path"].endswith("routes.csv") and event["fields"]["line"] == 2


def test_the_second_of_a_name_harms_not_the_first(tmp_path: Path) -> None:
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    with service(tmp_path, path, "--log", "json") as first:
        first.until(lambda: first.packets(1) > 100, "packets")
        words = (str(path), "--log", "json")
        second = Service(tmp_path, *words, name=first.name, environment={})
        assert second.wait().status == 2
        (event,) = events(second)
        assert event["event"] == "failed" and "is running already" in event["message"]
        assert "--name OTHER" in event["fix"]
        before = first.packets(1)
        first.until(lambda: first.packets(1) > before, "more packets")
        assert first.stop().balanced["dropped"] == {}


def test_who_prints_does_not_get_into_the_events(tmp_path: Path) -> None:
    """Neither Python nor C: what they write to standard output goes to standard error."""
    code = "import os, sys; from hummingbird.logs import Stream; s = Stream(sys.stdout, alone=True)"
    code += "\nprint('noise'); sys.stdout.flush(); os.system('echo noise'); s.write('event\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("event\n", "noise\nnoise\n")


# ---- text ----------------------------------------------------------------------------------------


def test_in_the_journal_lines_have_priorities_and_no_tables(tmp_path: Path) -> None:
    """systemd says by JOURNAL_STREAM that it reads standard output."""
    path = write_topology(tmp_path, TOPOLOGY, NOWHERE)
    text = tmp_path / "journal"
    text.touch()
    place = text.stat()
    stream = f"{place.st_dev}:{place.st_ino}"
    command = [sys.executable, "-m", "hummingbird.cli", "run", path]
    with open(text, "w") as out:
        process = subprocess.Popen(
            [*command, "--duration", "60", "--name", f"journal-{os.getpid()}"],
            stdout=out,
            env=os.environ | {"JOURNAL_STREAM": stream, "PYTHONPATH": str(ROOT)},
        )
    try:
        while "drops packets" not in text.read_text() and process.poll() is None:
            time.sleep(0.02)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    lines = text.read_text().splitlines()
    assert all(re.match(r"<[346]>\S", line) for line in lines), lines
    words = ("running after", "nf0 drops packets as policy", "asked to stop", "stopped after")
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True)), lines
    assert lines[-1].endswith("in flight 0: balanced") and "\x1b" not in text.read_text()


# ---- every warning says what to do ---------------------------------------------------------------


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for path in sorted((ROOT / "hummingbird").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = node.func.value
                yield path, node, f"{of.id if isinstance(of, ast.Name) else ''}.{node.func.attr}"


def test_every_warning_has_a_fix() -> None:
    """All say it by logs.py, whose warnings cannot be written without. (The command line sets up
    logging for libraries.)"""
    users = {
        str(path.relative_to(ROOT / "hummingbird"))
        for path in (ROOT / "hummingbird").rglob("*.py")
        if re.search(r"^\s*(import|from) logging", path.read_text(), re.MULTILINE)
    }
    assert users == {"logs.py", "cli/__init__.py"}
    found = 0
    for path, call, name in calls():
        if name in ("logs.warning", "logs.error"):
            found += 1
            (fix,) = (word.value for word in call.keywords if word.arg == "fix")
            assert not (isinstance(fix, ast.Constant) and not fix.value), f"{path}:{call.lineno}"
        if name == "logs.failed" and path.name != "service.py":  # there: with the error's own
            assert any(word.arg == "fix" for word in call.keywords), f"{path}:{call.lineno}"
    assert found > 20


SAYS = {"logs.info": 0, "logs.warning": 0, "logs.error": 0, "logs.failed": 0, "self._own": 1}
"""What says an event, and which argument is its name."""


def test_the_docs_have_every_event() -> None:
    """And no other; but for `message`, of other loggers, and those whose names are made."""
    page = (ROOT / "docs/service.md").read_text()
    table = page.partition("| Event |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    said = (call.args[SAYS[name]] for _, call, name in calls() if name in SAYS)
    events = {name.value for name in said if isinstance(name, ast.Constant)}
    assert listed == events


def test_fixes_are_of_reasons_that_there_are() -> None:
    assert FIXES.keys() <= {name for name, _ in reasons()}


def test_who_is_behind_is_not_told_to_change_what_it_cannot() -> None:
    """Nobody knows of the engine there: what to do stands there for each (docs/drops.md)."""
    assert "engine: gpu" not in FIXES["node_full"]
    for engine in ("on a CPU: ", "on the device: ", "in Python: less work"):
        assert engine in FIXES["node_full"]


# ---- how many ------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[logs.Handler, io.StringIO, Clock]]:
    """A JSON handler, what it has written, and its clock."""
    out, clock = io.StringIO(), Clock()
    monkeypatch.setattr(logs, "time", clock)
    before = logs.log.handlers[:]
    with logs.shown(Console(file=out), as_json=True) as handler:
        yield handler, out, clock
    assert logs.log.handlers == before, "who runs next says it where it did before"


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_ten_of_a_kind_then_how_many_more(said: Any) -> None:
    handler, out, clock = said
    for number in range(1000):
        logs.info("noise", f"{number}", subject="lan")
        logs.info("noise", f"{number}", subject="wan" if number < 5 else "lan")
        handler.tick()
    assert len(lines(out)) == 10 + 5
    clock.now += logs.PERIOD_S
    handler.tick()
    last = lines(out)[-1]
    assert last["event"] == "left_out" and last["fields"]["count"] == 1995 - 10
    clock.now += logs.PERIOD_S
    logs.info("noise", "again", subject="lan")
    handler.tick()
    assert len(lines(out)) == 17 and lines(out)[-1]["message"] == "again"


def test_any_number_of_kinds_is_bounded_too(said: Any) -> None:
    handler, out, clock = said
    for number in range(5000):
        logs.warning("noise", "one of many", fix="none", subject=f"{number}")
    assert len(lines(out)) == logs.MOST_KEYS + logs.MOST
    clock.now += logs.PERIOD_S
    handler.tick()
    assert lines(out)[-1]["fields"]["count"] == 5000 - len(lines(out)) + 1


def test_records_of_others_are_events_too(said: Any) -> None:
    _, out, _ = said
    logging.getLogger("hummingbird.mine").warning("of %s", "a user's NF")
    (event,) = lines(out)
    assert event["event"] == "message" and event["logger"] == "hummingbird.mine"
    assert event["message"] == "of a user's NF"


def test_drops_are_said_when_they_begin_and_then_more_and_more_rarely() -> None:
    watch = DropWatch()
    at: list[float] = []
    for second in range(2 * 3600):
        for drops in watch.look(iter([(3, 5, 10 * (second + 1))]), float(second)):
            assert drops.more == bool(at) and drops.node == 3 and drops.reason == reasons()[5][0]
            at.append(second)
    assert at == [0, 60, 180, 420, 900, 1860, 3780]
    (again,) = watch.look(iter([(3, 5, 10**6)]), 50_000.0)
    assert not again.more, "after a long silence it is news"
    assert again.packets == 10**6, "what is news is how many they are so far"
    (on,) = watch.look(iter([(3, 5, 10**6 + 3)]), 50_060.0)
    assert on.more and on.packets == 3
    (fresh,) = watch.look(iter([(3, 5, 7)]), 50_061.0)
    assert fresh.packets == 7 and not fresh.more, "a new run counts from 0"


def test_a_device_that_fails_recovers_and_hangs(said: Any) -> None:
    _, out, _ = said
    watch = DeviceWatch()
    for failures, launches, state in [(0, 1, "healthy"), (1, 1, "recovered"), (1, 2, "recovered")]:
        watch.look(failures, launches, state)
    watch.look(3, 4, "recovered")
    for _ in range(3):
        watch.look(3, 4, "hangs")
    names = [event["event"] for event in lines(out)]
    assert names == ["device_lost", "device_recovered", "device_lost", "device_given_up"]
    assert "failed 2 times" in lines(out)[2]["message"]


def test_an_lcore_that_makes_no_passes_is_stuck() -> None:
    pulse = Pulse()
    assert [list(pulse.look([1, t], float(t))) for t in range(8)] == [[]] * 5 + [[0], [], []]
    assert not pulse.beats() or pulse.said < 0
    assert list(pulse.look([2, 9], 8.0)) == [~0]
    pulse.said = 7.5
    assert pulse.beats()
    pulse.said = 8.0
    assert not pulse.beats()


# ---- a stream that is full or gone ---------------------------------------------------------------


@pytest.mark.parametrize("log", ["json", "text"])
def test_a_full_disk_and_nobody_who_reads(log: str, tmp_path: Path) -> None:
    """ENOSPC, EPIPE, a pipe that is full, no standard output at all: packets flow, the end is in
    order."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    gone, without_reader = os.pipe()
    os.close(gone)
    outputs = {"full": os.open("/dev/full", os.O_WRONLY), "gone": without_reader, "slow": writer}
    command = [sys.executable, "-m", "hummingbird.cli", "run", str(path)]
    command += ["--log", log]
    running = {}
    for name, out in [*outputs.items(), ("closed", None)]:
        if name == "slow" and log == "text":
            continue  # who shows tables waits for who reads them, when all else is over
        file = tmp_path / f"{name}.json"
        words = [*command, "--name", f"{name}-{os.getpid()}", "--json", str(file)]
        words += ["--duration", "2"]
        script = ["sh", "-c", 'exec "$@" >&-', "sh", *words] if out is None else words
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        running[file] = subprocess.Popen(
            script, stdout=out, stderr=subprocess.PIPE, env=environment
        )
    try:
        for file, process in running.items():
            _, err = process.communicate(timeout=100)
            assert (process.returncode, err) == (0, b""), file
            summary = json.loads(file.read_text())
            # how many of 40,000 pass in the time depends on what else the machine does
            assert summary["balance"] == 0 and summary["sent"] > 0, summary
    finally:
        for process in running.values():
            process.kill()
            process.wait()
        for fd in (reader, *outputs.values()):
            os.close(fd)


def test_what_was_lost_is_said_when_there_is_room_again(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as pipe:
        stream = logs.Stream(pipe)
        handler = logs.Handler(Console(file=stream), stream, as_json=True)  # type: ignore[arg-type]
        count = 0
        while not stream.lost:  # it does not wait for ever
            stream.write(f"{'x' * 999}\n")
            count += 1
        stream.write("lost, too\n")
        got = os.read(reader, 1 << 20)
        assert got.count(b"\n") == count - 1
        handler.tick()
        handler.tick()
    lost = json.loads(os.read(reader, 1 << 20).strip())
    os.close(reader)
    assert lost["event"] == "lines_lost" and lost["fields"]["count"] == 2
    assert "nobody reads it" in lost["message"] and lost["fix"]


def test_a_summary_that_the_disk_does_not_take(tmp_path: Path) -> None:
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    ended = run(tmp_path, path, "--json", "/dev/full", "--duration", "0.5", "--log", "json")
    assert ended.status == 2 and "cannot write the summary: No space left" in ended.text
    assert '"event": "stopped"' in ended.text and "Traceback" not in ended.text


# ---- the clock -----------------------------------------------------------------------------------


def test_the_clock_is_set_back(tmp_path: Path) -> None:
    """By an hour, while it runs: the lines tell the new time, and nothing else changes."""
    shim = tmp_path / "clock_back.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", shim, ROOT / "tests/c/clock_back.c", "-ldl"], check=True
    )
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    back = tmp_path / "back"
    clock = {"LD_PRELOAD": str(shim), "CLOCK_BACK": str(back)}
    with service(tmp_path, path, "--log", "json", "--watch", **clock) as process:
        process.until(lambda: bool(named(process, "started")), "its start")
        back.touch()
        before = process.packets(1)
        process.until(lambda: process.packets(1) > before + 1000, "more packets")
        write_rows(tmp_path, ROWS + "*,gen0,nf0 # again\n")
        process.until(lambda: bool(named(process, "policy_refused")), "the reload")
        summary = process.stop().balanced
        said = events(process)
    names = ["started", "policy_refused", "draining", "stopped"]
    assert [event["event"] for event in said] == names
    times = [datetime.fromisoformat(event["time"].replace("Z", "+00:00")) for event in said]
    assert (times[0] - times[1]).total_seconds() > 3000, "the clock was set back"
    assert 0 < summary["seconds"] < 60 and summary["dropped"] == {}
