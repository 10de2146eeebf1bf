# SPDX-License-Identifier: BSD-3-Clause
"""The units of systemd: what systemd itself thinks of them, and what it does with them: start,
ready, killed, watchdog, back-off, as the user and with the rights that they give.

    [ systemd ── hummingbird@edge: lan AF_XDP, wan af_packet, tap ] ═══ frames of the test
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from chain import HEADER, udp
from systemd import Systemd, needs_systemd, systemd
from test_notify import NEVER_CL, NEVER_PY

from hummingbird import cli, units
from hummingbird.telemetry.stats import Reader, Snapshot

UNIT = "hummingbird@edge"
TOPOLOGY = {
    "policy": "edge.csv",
    "ports": {
        "lan": {"driver": "af_xdp", "interface": "lan0"},
        "wan": {"driver": "af_packet", "interface": "wan0"},
        "tap": {"driver": "tap", "interface": "hb-t0"},
    },
    "nfs": {"nf0": {"type": "./never.py"}},
}
ROWS = "*,lan,nf0\n*,tap,nf0\n*,nf0,wan\n*,wan,drop\n"
SEND = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
    s.bind(("lan1", 0))
    s.send(bytes.fromhex(sys.argv[1]))
"""


# ---- what systemd thinks of them -----------------------------------------------------------------


def analyze(tmp_path: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NOT TESTED with systemd: apt-get install systemd")
    file = tmp_path / name.replace("@", "@edge")
    file.write_text(units.text(name, Path("/bin/true")))
    argv = ["systemd-analyze", *words, str(file)]
    return subprocess.run(argv, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["hummingbird@.service", "hummingbird-web@.service"])
def test_systemd_has_nothing_to_say_against_them(name: str, tmp_path: Path) -> None:
    done = analyze(tmp_path, name, "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "exposure"), [("hummingbird@.service", 25), ("hummingbird-web@.service", 14)]
)
def test_exposure_is_no_more_than_the_docs_say(name: str, exposure: int, tmp_path: Path) -> None:
    """In tenths, of 100 for a service without limits."""
    words = ("security", "--offline=true", "--no-pager", f"--threshold={exposure}")
    done = analyze(tmp_path, name, *words)
    assert done.returncode == 0, done.stdout


# ---- how they get into place ---------------------------------------------------------------------


def test_they_are_printed_and_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["unit"]) == 0
    printed = capsys.readouterr().out
    for name, folder in units.PLACES.items():
        text = units.text(name, units.program())
        assert "@HUMMINGBIRD@" not in text and text in printed
        assert f"/{folder}/{name}" in printed
    assert f"ExecStart={Path(sys.executable).parent}/hummingbird run" in printed


def test_installed_below_another_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "check_place", lambda path: None)
    assert cli.main(["unit", "--install", "--root", str(tmp_path)]) == 0
    for name, folder in units.PLACES.items():
        assert (tmp_path / folder / name).read_text() == units.text(name, units.program())


def test_not_from_a_home_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A service does not see those: better now than by status=203/EXEC."""
    with pytest.raises(Exception, match="lies in a home directory"):
        units.check_place(Path("/home/me/venv/bin/hummingbird"))


def test_a_root_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(units, "check_place", lambda path: None)
    assert cli.main(["unit", "--install", "--root", "/proc"]) == 2
    assert "cannot be written" in (err := capsys.readouterr().err) and "fix: sudo" in err


# ---- what systemd does with them -----------------------------------------------------------------


@pytest.fixture(scope="module")
def machine() -> Iterator[Systemd]:
    """With the interfaces and files of the service, which logs to a file."""
    needs_systemd()
    with systemd() as system:
        for name in ("lan", "wan"):
            system.run(*f"ip link add {name}0 type veth peer name {name}1".split())
            for end in (0, 1):
                system.run(*f"ip link set {name}{end} up".split())
        folder = "/etc/hummingbird"
        system.write(f"{folder}/edge.yaml", yaml.safe_dump(TOPOLOGY, sort_keys=False))
        system.write(f"{folder}/edge.csv", HEADER + ROWS)
        system.write(f"{folder}/never.py", NEVER_PY)
        system.write(f"{folder}/never.cl", NEVER_CL)
        log = "append:/run/service.log"
        drop_in = f"[Service]\nStandardOutput={log}\nStandardError={log}\nWatchdogSec=8s\n"
        # fed every 4 s: shorter, and a machine that stands still for a moment would set it off
        # This machine may not raise limits, and AF_XDP pins memory.
        drop_in += "AmbientCapabilities=CAP_IPC_LOCK\nCapabilityBoundingSet=CAP_IPC_LOCK\n"
        system.write("/etc/systemd/system/hummingbird@.service.d/test.conf", drop_in)
        system.ctl("daemon-reload")
        yield system


def started(system: Systemd) -> None:
    system.write("/run/service.log", "")
    system.ctl("start", UNIT)


def log(system: Systemd) -> str:
    return system.path("/run/service.log").read_text()


def snapshot(system: Systemd) -> Snapshot | None:
    try:
        file = system.path("/run/hummingbird/edge/stats")
        return Reader(np.fromfile(file, dtype=np.uint8)).snapshot()
    except (OSError, ValueError, IndexError):
        return None


def send(system: Systemd, length: int) -> None:
    frame = udp("10.0.0.1", "10.0.0.2", 1, 2, bytes(length - 42))
    system.run(sys.executable, "-c", SEND, frame.hex())


def forwards(system: Systemd) -> bool:
    """A frame that comes in at lan goes out at wan."""
    if system.show(UNIT, "ActiveState") != "active":  # and the counters are of one that is dead
        return False
    send(system, 100)
    now = snapshot(system)
    return now is not None and int(now.nodes[1]["out_packets"]) > 0


def main_pid(system: Systemd) -> int:
    return int(system.show(UNIT, "MainPID"))


def test_its_life(machine: Systemd) -> None:
    """`systemctl start` returns when packets can flow; user, rights and files are as the unit says;
    `systemctl stop` drains, and nothing is left."""
    started(machine)
    assert machine.show(UNIT, "ActiveState") == "active"
    now = snapshot(machine)
    assert now is not None and now.lcores["passes"].all(), "ready when packets can flow"
    machine.until(lambda: forwards(machine), "a frame")
    status = dict(
        line.split(":", 1)
        for line in machine.run("cat", f"/proc/{main_pid(machine)}/status").splitlines()
    )
    user = machine.run("id", "-u", "hummingbird").strip()
    assert status["Uid"].split() == [user] * 4
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    rights = sum(1 << bit for bit in (12, 13, 14, 39))  # NET_ADMIN, NET_RAW, IPC_LOCK, BPF
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == rights
    assert "running, policy" in machine.show(UNIT, "StatusText") or "packets/s in" in machine.show(
        UNIT, "StatusText"
    )
    assert machine.path("/run/hummingbird/edge/control").is_socket()
    machine.ctl("stop", UNIT)
    assert machine.show(UNIT, "Result") == "success"
    assert "asked to stop: draining" in log(machine) and "balanced" in log(machine)
    assert sorted(os.listdir(machine.path("/run/hummingbird"))) == [".lock"]
    assert "hb-t0" not in machine.run("ip", "link")
    assert "xdp" not in machine.run("ip", "-d", "link", "show", "lan0")


def test_an_opencl_runtime_compiles_within_its_limits(machine: Systemd) -> None:
    """PoCL, whose compiler writes files and whose programs are loaded from the cache; two of a
    name's kind side by side."""
    topology = {
        "policy": "gpu.csv",
        "device": {"executor": "launch"},
        "ports": {"gen0": {"driver": "generator", "rate": 1000}, "out0": {"driver": "sink"}},
        "nfs": {"nf0": {"type": "forward", "engine": "gpu"}},
    }
    machine.write("/etc/hummingbird/gpu.yaml", yaml.safe_dump(topology, sort_keys=False))
    machine.write("/etc/hummingbird/gpu.csv", HEADER + "*,gen0,nf0\n*,nf0,out0\n")
    started(machine)
    machine.ctl("start", "hummingbird@gpu")
    assert "launch executor on" in log(machine), log(machine)
    machine.ctl("stop", "hummingbird@gpu")
    assert machine.show("hummingbird@gpu", "Result") == "success"
    assert machine.path("/run/hummingbird/edge/stats").exists(), "the other's directory stays"
    assert list(machine.path("/var/cache/hummingbird/pocl").rglob("*.so"))
    machine.ctl("stop", UNIT)


def test_the_page_needs_no_rights(machine: Systemd) -> None:
    """It reads the run directory, of a run that is there or will be."""
    ask = ("curl", "-sS", "--fail", "http://127.0.0.1:9464/status.json")
    started(machine)
    machine.ctl("start", "hummingbird-web@edge")
    machine.until(lambda: '"name": "edge"' in machine.run(*ask, may_fail=True), "a status")
    pid = machine.show("hummingbird-web@edge", "MainPID")
    assert "CapEff:\t0000000000000000" in machine.run("cat", f"/proc/{pid}/status")
    machine.ctl("stop", UNIT)
    machine.until(lambda: "503" in machine.run(*ask, may_fail=True), "its end to be seen")
    started(machine)
    machine.until(lambda: '"name": "edge"' in machine.run(*ask, may_fail=True), "the next run")
    machine.ctl("stop", UNIT, "hummingbird-web@edge")
    assert machine.show("hummingbird-web@edge", "Result") == "success"
    assert sorted(os.listdir(machine.path("/run/hummingbird"))) == [".lock"]


def test_killed_it_is_back_at_once(machine: Systemd) -> None:
    started(machine)
    machine.until(lambda: forwards(machine), "a frame")
    pid, before = main_pid(machine), int(machine.show(UNIT, "NRestarts"))
    machine.run("kill", "-9", str(pid))
    machine.until(lambda: main_pid(machine) not in (0, pid), "the next process")
    machine.until(lambda: forwards(machine), "a frame")
    assert int(machine.show(UNIT, "NRestarts")) == before + 1
    assert "failures in a row" not in log(machine), "the first time it does not wait"
    machine.ctl("stop", UNIT)
    assert sorted(os.listdir(machine.path("/run/hummingbird"))) == [".lock"]


def test_a_stuck_lcore_is_killed_by_the_watchdog(machine: Systemd) -> None:
    started(machine)
    machine.until(lambda: forwards(machine), "a frame")
    pid, fed = main_pid(machine), machine.show(UNIT, "WatchdogTimestampMonotonic")
    machine.until(
        lambda: machine.show(UNIT, "WatchdogTimestampMonotonic") != fed, "the watchdog to be fed"
    )
    assert main_pid(machine) == pid
    send(machine, 666)
    machine.until(lambda: main_pid(machine) != pid, "the watchdog")
    machine.until(lambda: forwards(machine), "a frame")
    failures = machine.path("/run/hummingbird/.edge.failures")
    assert failures.read_text() == "watchdog\n"
    machine.ctl("stop", UNIT)
    assert not failures.exists(), "a good end forgets them"


def test_it_backs_off_and_comes_back(machine: Systemd) -> None:
    """A topology with a mistake: at once, at once, after 1 s, 2 s ...; mended, it starts."""
    good = machine.path("/etc/hummingbird/edge.csv").read_text()
    machine.write("/run/service.log", "")
    machine.write("/etc/hummingbird/edge.csv", good + "*,lan,nowhere\n")
    began = time.monotonic()
    machine.ctl("start", UNIT, may_fail=True)
    machine.until(lambda: "3 failures in a row: starting in 2 s" in log(machine), "the back-off")
    assert "2 failures in a row: starting in 1 s" in log(machine)
    machine.write("/etc/hummingbird/edge.csv", good)
    machine.until(lambda: machine.show(UNIT, "ActiveState") == "active", "its start")
    assert time.monotonic() - began >= 3
    failures = max(map(int, re.findall(r"(\d+) failures in a row", log(machine))))
    assert failures >= 3  # more, if it was mended after the next start
    assert log(machine).count("unknown NF or port 'nowhere'") == failures, "as many starts"
    machine.ctl("stop", UNIT)
