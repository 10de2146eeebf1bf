# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird top`: its numbers are those of the instance, it fits a terminal, it leaves that as
it was, and it names the bottleneck.

    in0 (a known rate) ── nfs ── out0      [ hummingbird run ] ── counters ── [ hummingbird top ]
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chain import Run, started
from process import ROOT, Service, service, write_topology
from terminal import ALTERNATE, COLUMNS, CURSOR, LINES, ORDINARY, terminal

from hummingbird.cli import main
from hummingbird.telemetry import bottleneck, top
from hummingbird.telemetry.figures import amount, gbps, latency, percent, span
from hummingbird.telemetry.rundir import VIEW, base_dir
from hummingbird.telemetry.status import Meter

RATE = 20_000
SINK = {"driver": "sink"}
FORWARD = {"type": "forward", "engine": "cpu"}
TOP = (sys.executable, "-m", "hummingbird.cli", "top")
PATTERNS = str(ROOT / "bench" / "nids147.rules")


def paced(rate: float = RATE) -> dict[str, Any]:
    return {"driver": "generator", "rate": rate, "size": 60}


def rows(*nodes: str) -> str:
    return "".join(f"*,{a},{b}\n" for a, b in itertools.pairwise(nodes))


def chain(folder: Path) -> Path:
    """in0 (20,000 packets a second) -> nf0 -> out0."""
    topology = {"ports": {"in0": paced(), "out0": SINK}, "nfs": {"nf0": FORWARD}}
    return write_topology(folder, topology, rows("in0", "nf0", "out0"))


@contextmanager
def instance(folder: Path) -> Iterator[Service]:
    """That, running."""
    path = chain(folder)
    with service(folder, path) as run:
        run.until((base_dir() / run.name / VIEW).exists, "its view")
        run.until(lambda: run.packets(1) > 0, "packets")
        yield run


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all tests that only look."""
    with instance(tmp_path_factory.mktemp("running")) as run:
        yield run


def call(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`hummingbird top` to its end, without a terminal."""
    return subprocess.run(
        [*TOP, *args],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


# ---- its numbers ---------------------------------------------------------------------------------


def test_rates_are_those_of_the_generator(running: Service) -> None:
    """Packets of 60 bytes, whole ones in the interval, and no more than were counted around it. How
    many a second a machine with other work lets through is not known; the next test is exact."""
    before = running.packets(0, "in_packets")
    done = call("--name", running.name, "--once", "--json")
    after = running.packets(0, "in_packets")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert (status["name"], status["pid"]) == (running.name, running.process.pid)
    ports, nf0 = status["ports"], status["nfs"]["nf0"]
    ways = [ports["in0"]["in"], nf0["in"], ports["out0"]["out"]]
    for found in (*ways, status["chains"]["other"]):
        grown = found["pps"] * status["interval_s"]
        assert grown == pytest.approx(round(grown)) and 0 < grown <= after - before
    for found in ways:
        assert found["gbps"] == pytest.approx(found["pps"] * 480 / 1e9)
    assert before < status["totals"]["received"] <= after
    assert status["totals"]["received"] <= RATE * (status["uptime_s"] + 0.1), "it is paced"


def test_rates_are_growth_by_time() -> None:
    """What two measures counted between them, exactly; of a generator that does all it can."""
    topology = {"ports": {"in0": {"driver": "generator"}, "out0": SINK}, "nfs": {"nf0": FORWARD}}
    with started(topology, rows=rows("in0", "nf0", "out0")) as run:
        meter = Meter(run.engine.view())
        first = meter.measure(run.engine.view())
        seen = int(run.counters("out0")["out_packets"])
        run.until(lambda: int(run.counters("out0")["out_packets"]) > seen + 10_000)
        second = meter.measure(run.engine.view())
        run.stop()
    grown = second["totals"]["sent"] - first["totals"]["sent"]
    assert grown >= 10_000
    assert second["rates"]["sent_pps"] * second["interval_s"] == pytest.approx(grown)
    assert second["interval_s"] == pytest.approx(second["uptime_s"] - first["uptime_s"])


def test_at_the_end_totals_are_those_of_the_summary(tmp_path: Path) -> None:
    """It watches for a minute, the instance ends before: what it saw last is all there was."""
    with instance(tmp_path) as run:
        watching = subprocess.Popen(
            [*TOP, "--name", run.name, "--json", "--interval", "60"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            run.until(lambda: waits(watching.pid, f"{run.name}/stats"), "top to look")
            summary = run.stop().balanced
            text, _ = watching.communicate(timeout=60)
        finally:
            watching.kill()
            watching.wait()
    status = json.loads(text)
    totals = status["totals"]
    assert {name: totals[name] for name in ("received", "sent", "dropped", "in_flight")} == {
        name: summary[name] for name in ("received", "sent", "dropped", "in_flight")
    }
    assert totals["received"] > 0
    assert status["nfs"]["nf0"]["in"]["packets"] == summary["nfs"]["nf0"]["packets"]


def waits(pid: int, file: str) -> bool:
    """A process has mapped a file, and then sleeps: what it does between the two does not."""
    mapped = file in Path(f"/proc/{pid}/maps").read_text()
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    return mapped and state == "S"


# ---- what it looks like --------------------------------------------------------------------------


def test_without_a_terminal_it_shows_one_interval_whole(running: Service) -> None:
    done = call("--name", running.name, "--interval", "0.2")
    narrow = call("--name", running.name, "--interval", "0.2", "--once", COLUMNS="80")
    assert done.returncode == narrow.returncode == 0, done.stderr + narrow.stderr
    assert "in0 > nf0 > out0" in done.stdout and "\x1b" not in done.stdout
    assert "bottleneck: " in done.stdout
    assert len(done.stdout.splitlines()[0]) == 80, "the title is not drawn apart for nobody"
    assert max(map(len, narrow.stdout.splitlines())) <= 80


@pytest.fixture(scope="module")
def crowd() -> Iterator[dict[str, Any]]:
    """The status of 64 nodes with long names, unpaced, on one lcore: the most that there can be;
    and one of 20 types."""
    inputs = [f"input-port-with-a-name-that-is-much-too-long-{n:02}" for n in range(4)]
    nfs = [f"network-function-with-a-name-that-is-too-long-{n:02}" for n in range(57)]
    outputs = [f"output-port-with-a-long-name-{n:02}" for n in range(3)]
    types = {
        f"type-of-packets-with-a-long-name-{n:02}": {
            "src_port": f"{1024 + 3200 * n}-{4223 + 3200 * n}"
        }
        for n in range(20)
    }
    source = {"driver": "generator", "size": 60, "flows": 21504}  # of as many source ports
    ports = dict.fromkeys(inputs, source)
    ports |= {name: SINK for name in outputs}
    way = "".join(f"*,{name},{nfs[0]}\n" for name in inputs) + rows(*nfs)
    way += f"{next(iter(types))},{nfs[-1]},drop\n*,{nfs[-1]},{outputs[0]}\n"
    way += "".join(f"{t},{nfs[-1]},{outputs[n % 3]}\n" for n, t in enumerate(types) if n)
    topology = {"ports": ports, "nfs": {name: FORWARD for name in nfs}, "types": types}
    with started(topology, rows=way) as run:
        meter = Meter(run.engine.view())
        run.until(lambda: int(run.counters(outputs[0])["out_packets"]) > 10_000)
        meter.measure(run.engine.view())
        time.sleep(0.5)
        status = meter.measure(run.engine.view())
        run.stop()
    # as if nobody else had had its CPU
    status |= {"lcores": [lcore | {"busy": 1.0, "taken": 0.0} for lcore in status["lcores"]]}
    yield status | {"bottleneck": bottleneck.find(status)}


@pytest.mark.parametrize("width", [40, 80, 132, 400])
@pytest.mark.parametrize("height", [None, 24, 10])
def test_no_line_is_too_long_and_none_too_many(
    crowd: dict[str, Any], width: int, height: int | None
) -> None:
    found = [line.plain for line in top.lines(crowd, width, height)]
    assert max(map(len, found)) <= width
    assert height is None or len(found) <= height


def test_with_many_nodes_the_important_ones_are_kept(crowd: dict[str, Any]) -> None:
    """On 24 lines: the bottleneck and who drops; what is cut says so, in lines and in names."""
    found = [line.plain for line in top.lines(crowd, 80, 24)]
    text = "\n".join(found)
    node = crowd["bottleneck"]["node"]
    assert node in "".join(found[1:4]) and any(node[-7:] in line for line in found[4:])
    assert "~" in text and " > .. > " in text
    assert text.count("more; hummingbird top --once shows all") == 3
    assert "dropped: policy" in text  # where the type's route ends
    whole = [line.plain for line in top.lines(crowd, 80)]
    shown = sum(line.startswith("network-func~") for line in whole)
    assert shown == 57 and "more;" not in "".join(whole)


def test_the_title_is_drawn_apart_as_far_as_it_has_room(crowd: dict[str, Any]) -> None:
    """Never without a gap, never longer than the terminal."""
    long = crowd | {"title": "t" * 100}
    for status, width, fill, wanted in (
        (crowd, 200, None, 200),
        (crowd, 1000, 80, 80),
        (long, 80, None, 80),
        (long, 1000, 80, 0),
    ):
        (first, *_) = top.lines(status, width, fill=fill)
        assert not wanted or first.cell_len == wanted
        assert "  up " in first.plain and ("   " in first.plain) == (status is crowd)


def test_names_are_whole_where_there_is_room(crowd: dict[str, Any]) -> None:
    text = "\n".join(line.plain for line in top.lines(crowd, 1000))
    assert all(name in text for name in (*crowd["ports"], *crowd["nfs"], *crowd["chains"]))
    assert "~" not in text


def test_a_name_that_would_break_the_screen_does_not(crowd: dict[str, Any]) -> None:
    """A file name may be anything: escapes, wide characters, bytes that are no text."""
    title = "\x1b[2J\n漢字漢字漢字漢字漢字漢字漢字漢字漢字\udcff.yaml"
    (first, *_) = top.lines(crowd | {"title": title}, 80)
    assert first.cell_len <= 80 and "\x1b" not in first.plain and "\n" not in first.plain


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (amount(None), "-"),
        (amount(0), "0"),
        (amount(0.004), "<0.01"),
        (amount(0.5), "0.50"),
        (amount(999), "999"),
        (amount(999.6), "1.00k"),
        (amount(12_345), "12.3k"),
        (amount(999_600), "1.00M"),
        (amount(2**63), "9223372T"),
        (latency(None), "-"),
        (latency(0.853), "0.85us"),
        (latency(1234), "1.23ms"),
        (latency(2.5e6), "2.50s"),
        (gbps(0.0001), "<0.001"),
        (gbps(12.345), "12.35"),
        (percent(0.001), "<1%"),
        (percent(1.0), "100%"),
        (span(5), "5 s"),
        (span(3725), "1:02:05"),
        (span(100_000), "1 d 3 h"),
    ],
)
def test_figures(shown: str, wanted: str) -> None:
    assert shown == wanted


# ---- on a terminal -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "ctrl-c"])
def test_it_watches_until_a_key_and_leaves_the_terminal_as_it_was(
    running: Service, key: str
) -> None:
    with terminal("top", "--name", running.name) as seen:
        seen.until(running.name, "bottleneck: nothing", "in0 > nf0 > out0", "q quits")
        assert len(seen.screen) <= LINES and max(map(len, seen.screen)) <= COLUMNS
        assert ALTERNATE in seen.said and seen.settings != seen.before
        seen.type(key)
        assert seen.wait() == 0, seen.said
        assert seen.settings == seen.before
        assert seen.said.rindex(ORDINARY) > seen.said.rindex(ALTERNATE)
        assert CURSOR in seen.said and "Traceback" not in seen.said


def test_a_terminal_without_a_screen_gets_one_interval(running: Service) -> None:
    """TERM=dumb: an editor's shell, a serial line."""
    with terminal("top", "--name", running.name, "--interval", "0.2", TERM="dumb") as seen:
        assert seen.wait() == 0
        assert "in0 > nf0 > out0" in seen.said and "\x1b" not in seen.said


def test_a_signal_leaves_the_terminal_as_it_was(running: Service) -> None:
    with terminal("top", "--name", running.name) as seen:
        seen.until("bottleneck")
        seen.process.send_signal(signal.SIGTERM)
        seen.wait()
        assert seen.settings == seen.before and seen.said.endswith(ORDINARY)


def test_it_says_that_the_instance_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9: who watches is told, and who comes later, too."""
    with instance(tmp_path) as run, terminal("top", "--name", run.name) as seen:
        seen.until("bottleneck")
        run.process.kill()
        run.process.wait()
        assert seen.wait() == 0
        assert seen.settings == seen.before
        after = seen.said[seen.said.rindex(ORDINARY) :]
        assert f"the instance '{run.name}' has ended" in after
        assert main(["top", "--name", run.name, "--once"]) == 2
    assert "the one that was has been killed" in capsys.readouterr().err


def test_run_shows_the_same_on_a_terminal(tmp_path: Path) -> None:
    path = chain(tmp_path)
    name = f"tt-run-{os.getpid()}"
    with terminal("run", str(path), "--name", name) as seen:
        seen.until_said("bottleneck: nothing", "in0 > nf0 > out0", "p99.9")
        seen.process.send_signal(signal.SIGINT)
        assert seen.wait() == 0, seen.said
    assert "Packets: received" in seen.said


# ---- who is watched ------------------------------------------------------------------------------


def test_nobody_can_be_watched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--name", "nobody-at-all"]) == 2
    assert "no instance named 'nobody-at-all' is running" in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["0", "nan", "soon", "1e9"])
def test_intervals_that_are_none(interval: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", "--interval", interval])
    assert ended.value.code == 2 and "is no interval" in capsys.readouterr().err


# ---- the bottleneck ------------------------------------------------------------------------------

SLOW = """\
import time
def process(burst):
    time.sleep(0.01)
    return burst.verdicts()
"""
NIDS = {"type": "nids", "rules": PATTERNS}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str | None, str, str]] = {
    # the input, the NF behind a forward, and node, kind, and a part of the reason
    "an NF on its lcore": ({"size": 1400}, NIDS | {"engine": "cpu"}, "nf1", "cpu", "nf1 takes"),
    "the device": (
        {"size": 1400},
        NIDS | {"engine": "gpu"},
        "nf1",
        "device",
        "nf1 is at the device",
    ),
    "a thread of its own": (
        {},
        {"type": "python", "file": "nf.py"},
        "nf1",
        "cpu",
        "nf1, a thread of its own, is ",
    ),
    "a thread that is behind": (
        {"rate": 200_000},
        {"type": "python", "file": "nf.py"},
        "nf1",
        "cpu",
        "/s (node_full): nf1, a thread of its own",
    ),
    "nothing": ({"rate": 1000}, FORWARD, None, "input", "the input offers no more"),
    "nothing, with a device": (
        {"rate": 1000},
        FORWARD | {"engine": "gpu"},
        None,
        "input",
        "the input offers no more",
    ),
    "nothing, with a thread": (
        {"rate": 1000},
        {"type": "python", "file": "nf.py"},
        None,
        "input",
        "the input offers no more",
    ),
}


def twice(run: Run, node: str | None, kind: str) -> dict[str, Any]:
    """What the second of two intervals in a row says that name this one. In others a busy machine
    may have held up anybody, and who was held up longest is then rightly named."""
    meter = Meter(run.engine.view())
    said: list[dict[str, Any]] = []
    end = time.monotonic() + 60
    while time.monotonic() < end:
        meter.measure(run.engine.view())
        time.sleep(0.4)  # what is measured over
        said.append(meter.measure(run.engine.view())["bottleneck"])
        if [(found["node"], found["kind"]) for found in said[-2:]] == [(node, kind)] * 2:
            return said[-1]
    raise AssertionError(said)


@pytest.mark.parametrize("name", CASES)
def test_the_bottleneck_is_who_is_slow(name: str) -> None:
    """in0 -> nf0 (nothing to do) -> nf1 (as the case has it) -> out0."""
    source, nf, node, kind, why = CASES[name]
    topology = {
        "ports": {"in0": {"driver": "generator", **source}, "out0": SINK},
        "nfs": {"nf0": FORWARD, "nf1": nf},
    }
    way = rows("in0", "nf0", "nf1", "out0")
    with started(topology, rows=way, files={"nf.py": SLOW}) as run:
        run.until(lambda: int(run.counters("out0")["out_packets"]) > 100)
        found = twice(run, node, kind)
        run.stop()
    assert why in found["why"]


def test_many_nodes_on_one_lcore(crowd: dict[str, Any]) -> None:
    found = crowd["bottleneck"]
    assert found["kind"] == "cpu" and "with 64 nodes" in found["why"], found


def drop(status: dict[str, Any], node: str, reason: str, pps: float) -> dict[str, Any]:
    """The same with drops at a node."""
    kind = "ports" if node in status["ports"] else "nfs"
    changed = status[kind][node] | {"drops": {reason: 9}, "drops_pps": {reason: pps}}
    return status | {kind: status[kind] | {node: changed}}


def test_what_no_machine_here_can_be_made_to_do(crowd: dict[str, Any]) -> None:
    """Signs that need an interface or a device of their own, in a real status."""
    inputs, nfs, out = list(crowd["ports"])[:4], list(crowd["nfs"]), list(crowd["ports"])[-1]
    idle = crowd | {
        "lcores": [lcore | {"busy": 0.4, "taken": 0.0} for lcore in crowd["lcores"]],
        "ports": {name: port | {"held": 0.0} for name, port in crowd["ports"].items()},
    }

    def find(status: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(bottleneck.find(status)[key] for key in ("node", "kind", "why"))

    node, kind, why = find(drop(idle, out, "port_full", 12_300))
    assert (node, kind) == (out, "port") and "12.3k/s (port_full)" in why
    node, kind, why = find(drop(crowd, nfs[3], "ring_full", 500))
    assert kind == "cpu" and "500/s (ring_full): lcore 0" in why
    port = idle["ports"][inputs[1]] | {"missed_pps": 800.0}
    missing = idle | {"ports": idle["ports"] | {inputs[1]: port}}
    node, kind, why = find(missing)
    assert (node, kind) == (inputs[1], "port") and "misses 800/s" in why and "40% busy" in why
    node, kind, why = find(missing | {"lcores": crowd["lcores"]})
    assert kind == "cpu" and "misses 800/s" in why
    assert find(drop(idle, nfs[0], "policy", 9e6))[1] == "input"  # what was wanted limits nothing
    hangs = idle | {"device": {"state": "hangs"}}
    assert find(hangs)[1:] == ("device", bottleneck.find(hangs)["why"])
    held = idle["ports"][inputs[0]] | {"held": 0.8}
    waits = idle | {"ports": idle["ports"] | {inputs[0]: held}}
    assert "waits for the chain 80% of the time" in find(waits)[2]
    taken = [lcore | {"busy": 0.35, "taken": 0.6} for lcore in crowd["lcores"]]
    assert "others have its CPU 60% of the time" in find(waits | {"lcores": taken})[2]
    none = [lcore | {"busy": None, "taken": 1.0, "passes": 0} for lcore in crowd["lcores"]]
    why = find(waits | {"lcores": none, "interval_s": 0.2})[2]
    assert "others have its CPU 100% of the time" in why


def test_without_busy_times_it_names_nobody(crowd: dict[str, Any]) -> None:
    """telemetry.latency: false: an lcore is seen to be busy, not with what."""
    unknown = {"busy": None, "held": None, "latency_us": None}
    status = crowd | {
        kind: {name: node | unknown for name, node in crowd[kind].items()}
        for kind in ("ports", "nfs")
    }
    found = bottleneck.find(status)
    assert found["node"] is None and "telemetry.latency: true says with what" in found["why"]
    assert all(line.cell_len <= 80 for line in top.lines(status, 80, 24))
