# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird doctor` and what a run needs beside its packets: directories, disks, dead runs, the
unit, governors. Each fault is planted, and what the doctor says mends it, where it can.

files that are planted ── doctor ── ok / warning / problem, and the fix
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from process import ROOT, Service, write_topology
from test_logs import ROWS, TOPOLOGY

from hummingbird import topology, units
from hummingbird.doctor import needs, service
from hummingbird.doctor.finding import Finding
from hummingbird.telemetry import rundir

NEEDS = needs.ANYTHING


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory and a cache of its own, as systemd names them."""
    for name in ("RUNTIME_DIRECTORY", "CACHE_DIRECTORY"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path / "RUNTIME_DIRECTORY"


def one(found: Iterator[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_a_dead_run_is_found_and_taken_away(runtime: Path, tmp_path: Path) -> None:
    """And one that lives is not."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    process = Service(tmp_path, str(path), name="dead", environment={})
    try:
        process.until(lambda: "running after" in process.text, "its start")
        assert list(service.dead_runs(NEEDS)) == []
    finally:
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
    found = one(service.dead_runs(NEEDS))
    assert found.state == "warning" and "the run directory dead" in found.what
    assert found.fix is not None and found.fix.startswith("hummingbird ")
    command = [sys.executable, "-m", "hummingbird.cli", *found.fix.split()[1:]]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert list(service.dead_runs(NEEDS)) == [] and rundir.instances() == []


def as_nobody(function: str, **environment: str) -> str:
    """What a check finds for a user without rights."""
    code = f"import os; from hummingbird.doctor import service, needs\nos.setuid(65534)\n{function}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", ["/proc/nowhere", "/proc/self/status", "/sys/hummingbird"])
def test_a_run_directory_that_cannot_be_made(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor says so before, and the run then."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", path)
    if "self/status" in path:  # a file
        found = one(service.run_directory(NEEDS))
        assert (
            found.state == "problem" and path in found.what and "XDG_RUNTIME_DIR" in str(found.fix)
        )
    with pytest.raises(Exception, match="cannot make the run directory") as error:
        rundir.StatsFile("x", 4096)
    assert "fix:" in str(error.value) and path in str(error.value)


def test_a_run_directory_of_somebody_else(runtime: Path) -> None:
    runtime.chmod(0o700)
    out = as_nobody("print(*service.run_directory(needs.ANYTHING))")
    assert "problem" in out and "XDG_RUNTIME_DIR" in out
    assert one(service.run_directory(NEEDS)).state == "ok"


def test_a_cache_that_cannot_be_written(runtime: Path, tmp_path: Path) -> None:
    assert list(service.cache_directory(NEEDS)) == []
    out = as_nobody("print(*service.cache_directory(needs.ANYTHING))")
    assert "warning" in out and "compiles and probes anew" in out


def test_captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of somebody else, on a disk that is nearly full, and where all is well."""

    def found(path: Path) -> Finding:
        return one(service.captures(replace(NEEDS, captures=(("out0", path),))))

    place = f"replace(needs.ANYTHING, captures=(('out0', Path({str(tmp_path / 'o')!r})),))"
    words = "from dataclasses import replace; from pathlib import Path\n"
    out = as_nobody(f"{words}print(*service.captures({place}))")
    assert "problem" in out and "sudo chown" in out
    assert found(tmp_path / "out.pcap").state in ("ok", "warning")  # as this disk is
    monkeypatch.setattr(service, "_free", lambda path: 17 << 20)
    full = found(tmp_path / "out.pcap")
    assert full.state == "warning" and "room for 17 MiB" in full.what and full.fix


def test_captures_are_those_of_the_topology(tmp_path: Path) -> None:
    ports = TOPOLOGY["ports"] | {"out0": {"driver": "pcap", "write": "out.pcap"}}
    path = write_topology(tmp_path, TOPOLOGY | {"ports": ports}, ROWS)
    needed = needs.of_topology(topology.load(path))
    assert needed.captures == (("out0", tmp_path / "out.pcap"),)


# ---- the unit ------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with the service installed."""
    for name, folder in units.PLACES.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(units.text(name, Path("/opt/bin/hummingbird")))
    (tmp_path / "opt/bin").mkdir(parents=True)
    (tmp_path / "opt/bin/hummingbird").touch(mode=0o755)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:\nhummingbird:x:999:999::/:\n")
    return tmp_path


def test_the_unit_is_well(root: Path) -> None:
    assert one(service.unit(NEEDS, root)).state == "ok"


def test_no_unit(root: Path) -> None:
    (root / "etc/systemd/system/hummingbird@.service").unlink()
    found = one(service.unit(NEEDS, root))
    assert found.state == "ok" and "hummingbird unit" in found.what
    assert list(service.unit(replace(NEEDS, any=False), root)) == []


def test_an_old_unit(root: Path) -> None:
    file = root / "etc/systemd/system/hummingbird@.service"
    file.write_text(file.read_text().replace("WatchdogSec=30s", "WatchdogSec=3s"))
    found = one(service.unit(NEEDS, root))
    assert found.state == "warning" and "unit --install" in str(found.fix)


def test_its_program_is_gone(root: Path) -> None:
    (root / "opt/bin/hummingbird").unlink()
    found = one(service.unit(NEEDS, root))
    assert found.state == "problem" and "/opt/bin/hummingbird" in found.what and found.fix


def test_its_user_is_gone(root: Path) -> None:
    (root / "etc/passwd").write_text("root:x:0:0::/:\n")
    found = one(service.unit(NEEDS, root))
    assert found.state == "problem" and found.fix == "sudo systemd-sysusers"


# ---- CPUs ----------------------------------------------------------------------------------------


def test_governors(tmp_path: Path) -> None:
    assert list(service.cpu_frequency(NEEDS, tmp_path)) == []
    for number in (0, 1):
        policy = tmp_path / f"devices/system/cpu/cpufreq/policy{number}"
        policy.mkdir(parents=True)
        (policy / "scaling_governor").write_text("powersave\n")
    found = one(service.cpu_frequency(NEEDS, tmp_path))
    assert found.state == "warning" and found.fix is not None
    subprocess.run(["sh", "-c", found.fix.replace("sudo ", "")], check=True, capture_output=True)
    assert one(service.cpu_frequency(NEEDS, tmp_path)).state == "ok"
