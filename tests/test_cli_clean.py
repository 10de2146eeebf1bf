# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird clean`: what a killed run leaves behind goes, and nothing of one that runs.

kill -9 ── [ hummingbird run ] ── /run/hummingbird/NAME      ┐
kill -9 ── [ dpdk-testpmd ] ───── /run/dpdk/hummingbird-NAME ├─ clean ── a line for each
ip link ── [ XDP program ] ────── a0                         │
kill -9 ── [ a compiler ] ─────── cache/NAME.tmp-*           ┘
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from elsewhere import ENVIRONMENT, Place, need_tool, place
from namespaces import until
from process import write_topology

from hummingbird import cache, clean, cli
from hummingbird.errors import UserError
from hummingbird.linux import xdp
from hummingbird.ports.dpdk import DpdkSection, plugin_of
from hummingbird.telemetry import rundir
from hummingbird.telemetry.rundir import StatsFile
from hummingbird.telemetry.stats import Reader

TIMEOUT_S = 60
PORTS = {
    "gen0": {"driver": "generator", "rate": 10_000},
    "out0": {"driver": "sink"},
}
PROGRAM = """
int NAME(void *ctx) __attribute__((section("xdp"), used));
int NAME(void *ctx) { return 2; }
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as made:
        yield made


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run directories of this process alone, and a cache likewise."""
    monkeypatch.setattr(rundir, "base_dir", lambda: tmp_path / "run")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(clean, "_dpdk_dir", lambda: tmp_path / "dpdk")
    return tmp_path / "run"


def received(there: Place, name: str) -> int:
    """Packets that a run has taken so far."""
    with suppress(OSError, ValueError, IndexError):
        region = np.fromfile(there.run_dir / "hummingbird" / name / "stats", dtype=np.uint8)
        return int(Reader(region).snapshot().nodes[1]["out_packets"])
    return 0


def start(there: Place, folder: Path, name: str) -> subprocess.Popen[str]:
    """A run of that name, which has begun to take packets."""
    path = write_topology(folder, {"ports": PORTS}, "*,gen0,out0\n")
    run = there.start("run", path, "--name", name, "--no-live")
    control = there.run_dir / "hummingbird" / name / "control"
    until(
        lambda: (control.is_socket() and received(there, name) > 100) or run.poll() is not None,
        "packets",
    )
    assert run.poll() is None, run.stdout and run.stdout.read()
    return run


def end(run: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> str:
    run.send_signal(number)
    out, _ = run.communicate(timeout=TIMEOUT_S)
    return out


# ---- runs ----------------------------------------------------------------------------------------


def test_a_killed_run_is_cleaned_up_and_a_new_one_starts(there: Place, tmp_path: Path) -> None:
    folder = there.run_dir / "hummingbird" / "dead"
    end(start(there, tmp_path, "dead"), signal.SIGKILL)
    assert {path.name for path in folder.iterdir()} == {"stats", "view", "control"}

    what = "the run directory /run/hummingbird/dead"
    assert there.hummingbird("clean", "--dry-run") == (0, f"would remove {what}\n")
    assert {path.name for path in folder.iterdir()} == {"stats", "view", "control"}
    assert there.hummingbird("clean") == (0, f"removed {what}\n")
    assert not folder.exists()
    assert there.hummingbird("clean") == (0, "nothing to remove\n")

    assert "balanced" in end(start(there, tmp_path, "dead"))
    assert not folder.exists(), "an end in order leaves nothing behind"


def test_a_live_run_stays_untouched(there: Place, tmp_path: Path) -> None:
    """Beside one that was killed; it goes on, and can still be asked."""
    run = start(there, tmp_path, "alive")
    end(start(there, tmp_path, "dead"), signal.SIGKILL)
    status, out = there.hummingbird("clean")
    assert (status, out) == (0, "removed the run directory /run/hummingbird/dead\n")
    assert there.hummingbird("clean") == (0, "nothing to remove\n")
    assert "no" in there.hummingbird("flows", "--name", "alive")[1]
    before = received(there, "alive")
    until(lambda: received(there, "alive") > before, "more packets")
    assert "balanced" in end(run)
    assert list((there.run_dir / "hummingbird").glob("[!.]*")) == []


def test_a_run_that_was_killed_and_started_again_is_alive(there: Place, tmp_path: Path) -> None:
    """The new one has the directory of the old one; it stays."""
    end(start(there, tmp_path, "twice"), signal.SIGKILL)
    (there.run_dir / "hummingbird" / "twice" / "control").unlink()  # so that start() waits
    run = start(there, tmp_path, "twice")
    assert there.hummingbird("clean") == (0, "nothing to remove\n")
    assert "balanced" in end(run)


def test_starts_and_cleaners_do_not_hurt_each_other(base: Path) -> None:
    """Four cleaners at work, while names are taken and given free: whoever has a name has its
    directory, and nobody is told that a name is taken which he alone uses."""
    done = threading.Event()
    faults: list[str] = []

    def tidy() -> None:
        while not done.is_set():
            faults.extend(str(found) for found in clean._run_directories(True) if not found.removed)

    def live(name: str) -> None:
        try:
            for _ in range(300):
                stats = StatsFile(name, 4096)
                mine = os.fstat(stats._file.fileno())
                if not os.path.samestat(mine, os.stat(stats.path)):
                    faults.append("another file has the name")
                stats.close()
        except (OSError, UserError) as error:
            faults.append(repr(error))

    cleaners = [threading.Thread(target=tidy) for _ in range(4)]
    runs = [threading.Thread(target=live, args=(name,)) for name in ("one", "two")]
    for thread in (*cleaners, *runs):
        thread.start()
    for thread in runs:
        thread.join()
    done.set()
    for thread in cleaners:
        thread.join()
    assert faults == []
    assert rundir.instances() == []


def test_a_second_run_of_a_name_is_still_refused(base: Path) -> None:
    first = StatsFile("one", 4096)
    with pytest.raises(UserError, match="running already"):
        StatsFile("one", 4096)
    assert rundir.is_running("one") and not rundir.is_running("other")
    first.close()
    StatsFile("one", 4096).close()
    assert not rundir.is_running("one")


def test_what_others_have_put_there_stays(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (base / "odd").mkdir(parents=True)
    (base / "odd" / "stats").touch()
    (base / "odd" / "notes.txt").write_text("mine")
    (base / "file").touch()
    (base / "link").symlink_to(base / "odd")
    assert cli.main(["clean"]) == 1
    out = capsys.readouterr().out
    assert out == f"left the run directory {base}/odd: there are files in it that are not ours\n"
    assert sorted(path.name for path in base.glob("[!.]*")) == ["file", "link", "odd"]
    assert [path.name for path in (base / "odd").iterdir()] == ["notes.txt"]


def test_nothing_at_all(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ((), ("--dry-run",)):
        assert cli.main(["clean", *option]) == 0
        assert capsys.readouterr().out == "nothing to remove\n"
    assert not base.exists()


def test_a_killed_run_with_live_ports(there: Place, tmp_path: Path) -> None:
    """Its XDP program and its tap go by themselves, and DPDK leaves nothing."""
    if not plugin_of(DpdkSection()).exists():
        pytest.skip("NOT TESTED: the plug-in for DPDK is not built; apt-get install libdpdk-dev")
    there.veth("a0", "a1")
    ports = {
        "lan": {"driver": "af_xdp", "interface": "a0"},
        "t0": {"driver": "tap", "interface": "hb0"},
        "d0": {"driver": "dpdk", "device": "net_ring0"},
    }
    path = write_topology(tmp_path, {"ports": ports}, "*,lan,t0\n*,t0,d0\n*,d0,lan\n")
    run = there.start("run", path, "--name", "live", "--no-live")
    control = there.run_dir / "hummingbird" / "live" / "control"
    until(lambda: control.is_socket() or run.poll() is not None, "its start")
    assert run.poll() is None, run.stdout and run.stdout.read()
    assert there.hummingbird("clean") == (0, "nothing to remove\n")
    assert number_of_program(there, "a0") and "hb0" in there.call("ip", "link")

    end(run, signal.SIGKILL)
    until(lambda: not number_of_program(there, "a0"), "the kernel to take the program off")
    what = "the run directory /run/hummingbird/live"
    assert there.hummingbird("clean") == (0, f"removed {what}\n")
    assert list((there.run_dir / "dpdk").iterdir()) == []
    assert "hb0" not in there.call("ip", "link")

    run = there.start("run", path, "--name", "live", "--no-live")
    until(lambda: control.is_socket() or run.poll() is not None, "its start")
    assert "balanced" in end(run)
    assert not control.parent.exists()


# ---- the cache -----------------------------------------------------------------------------------

MAKER = """
import sys
from hummingbird.cache import cache_dir, half_built
target = cache_dir() / sys.argv[1]
target.parent.mkdir(parents=True, exist_ok=True)
with half_built(target) as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("target", ["probe.json", "nf/count-0123.so"])
def test_half_built_files_go_when_their_maker_has(
    base: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    """As long as it works they stay, and what is finished stays for good."""
    environment = ENVIRONMENT | {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    (cache.cache_dir() / "nf").mkdir(parents=True)
    (cache.cache_dir() / target).write_text("whole")
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER, target],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert maker.stdout is not None
    folder = Path(maker.stdout.readline().strip())
    assert cli.main(["clean"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n" and (folder / "half").exists()
    maker.kill()
    maker.communicate()
    assert cli.main(["clean", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"would remove half-built {folder}\n"
    assert (folder / "half").exists()
    assert cli.main(["clean"]) == 0
    assert capsys.readouterr().out == f"removed half-built {folder}\n"
    assert not folder.exists() and (cache.cache_dir() / target).read_text() == "whole"


def test_makers_and_cleaners_do_not_hurt_each_other(base: Path) -> None:
    cache.cache_dir().mkdir(parents=True)
    done = threading.Event()
    faults: list[str] = []

    def tidy() -> None:
        while not done.is_set():
            for folder in cache.half_built_folders():
                with suppress(FileNotFoundError):
                    cache.remove_abandoned(folder)

    def make() -> None:
        try:
            for number in range(300):
                target = cache.cache_dir() / f"{threading.get_ident()}-{number}"
                with cache.half_built(target) as folder:
                    (folder / "made").write_text("whole")
                    (folder / "made").rename(target)
        except OSError as error:
            faults.append(repr(error))

    cleaners = [threading.Thread(target=tidy) for _ in range(2)]
    makers = [threading.Thread(target=make) for _ in range(2)]
    for thread in (*cleaners, *makers):
        thread.start()
    for thread in makers:
        thread.join()
    done.set()
    for thread in cleaners:
        thread.join()
    assert faults == []
    assert len(list(cache.cache_dir().iterdir())) == 600


# ---- DPDK ----------------------------------------------------------------------------------------


def test_dpdk_of_a_killed_process(there: Place) -> None:
    """testpmd under the file-prefix of an instance: while it lives nothing is removed."""
    testpmd = need_tool("dpdk-testpmd", "dpdk")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("NOT TESTED: testpmd wants two CPUs")
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    eal = ["--file-prefix", "hummingbird-dead", "--no-huge", "-m", "64", "--no-pci", "-l", cpus]
    command = [testpmd, *eal, "--no-telemetry", "--vdev=net_null0", "--", "--total-num-mbufs=2048"]
    process = there.popen(
        *command, "-i", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = ""
    assert process.stdout is not None
    while "testpmd>" not in said:
        said += process.stdout.read(1)
        assert process.poll() is None, said
    folder = there.run_dir / "dpdk" / "hummingbird-dead"
    (folder.parent / "rte").mkdir()
    assert there.hummingbird("clean") == (0, "nothing to remove\n")
    assert (folder / "config").exists()
    process.kill()
    process.communicate()
    status, out = there.hummingbird("clean")
    assert (status, out) == (
        0,
        "removed DPDK's runtime directory /var/run/dpdk/hummingbird-dead\n",
    )
    assert [path.name for path in folder.parent.iterdir()] == ["rte"], "others' stay"


# ---- XDP -----------------------------------------------------------------------------------------


def program(there: Place, folder: Path, interface: str, name: str) -> None:
    """Attach an XDP program that passes everything."""
    clang = need_tool("clang", "clang")
    source, made = folder / f"{name}.c", folder / f"{name}.o"
    source.write_text(PROGRAM.replace("NAME", name))
    subprocess.run([clang, "-O2", "-g", "-target", "bpf", "-c", source, "-o", made], check=True)
    there.call("ip", "link", "set", "dev", interface, "xdp", "obj", made, "sec", "xdp")


def number_of_program(there: Place, interface: str) -> int:
    """As ip(8) says; 0: none."""
    words = there.call("ip", "link", "show", "dev", interface).split()
    return int(words[words.index("prog/xdp") + 2]) if "prog/xdp" in words else 0


def test_only_our_programs_go(there: Place, tmp_path: Path) -> None:
    there.veth("a0", "a1")
    program(there, tmp_path, "a0", "hb_xdp_pass")
    program(there, tmp_path, "a1", "others")
    what = "XDP program hb_xdp_pass on a0 (native)"
    assert there.hummingbird("clean", "--dry-run") == (0, f"would remove {what}\n")
    assert number_of_program(there, "a0")
    assert there.hummingbird("clean") == (0, f"removed {what}\n")
    assert not number_of_program(there, "a0") and number_of_program(there, "a1")


def test_a_program_that_a_process_has_stays(there: Place, tmp_path: Path) -> None:
    there.veth("a0", "a1")
    program(there, tmp_path, "a0", "hb_xdp_pass")
    with xdp._opened(xdp._OPEN_PROGRAM, number_of_program(there, "a0")):
        assert there.hummingbird("clean") == (0, "nothing to remove\n")
        assert number_of_program(there, "a0")
    assert there.hummingbird("clean")[1].startswith("removed XDP program")


def test_a_program_that_is_bound_for_good(there: Place, tmp_path: Path) -> None:
    """A bpf_link that is pinned to a file keeps its program there when its process has ended."""
    there.veth("a0", "a1")
    there.call("mount", "-t", "bpf", "none", "/run")
    script = tmp_path / "bind.py"
    script.write_text(BIND)
    program(there, tmp_path, "a1", "hb_xdp_pass")
    number = number_of_program(there, "a1")
    there.call(sys.executable, script, number, "a0", "/run/pinned")
    assert number_of_program(there, "a0") == number
    status, out = there.hummingbird("clean")
    assert status == 0 and out.splitlines() == [
        "removed XDP program hb_xdp_pass on a1 (native)",
        "removed XDP program hb_xdp_pass on a0 (native)",
    ]
    assert not number_of_program(there, "a0")


BIND = """
import ctypes, struct, sys
from hummingbird.linux import netlink, xdp
number, interface, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
index = netlink.links()[interface].index
with xdp._opened(xdp._OPEN_PROGRAM, number) as program:
    link = xdp._bpf(28, struct.pack("=IIII", program, index, 37, 0))  # BPF_LINK_CREATE, BPF_XDP
name = ctypes.create_string_buffer(path.encode())
xdp._bpf(6, struct.pack("=QII", ctypes.addressof(name), link, 0))  # BPF_OBJ_PIN
"""


def test_who_may_not_look_says_so(there: Place, tmp_path: Path) -> None:
    """Without CAP_SYS_ADMIN the name of a program is not told: it stays."""
    there.veth("a0", "a1")
    program(there, tmp_path, "a0", "hb_xdp_pass")
    setpriv = need_tool("setpriv", "util-linux")
    drop = [setpriv, "--bounding-set", "-sys_admin", "--inh-caps", "-all"]
    process = there.popen(
        *drop, sys.executable, "-m", "hummingbird.cli", "clean", stdout=subprocess.PIPE
    )
    out, _ = process.communicate(timeout=TIMEOUT_S)
    number = number_of_program(there, "a0")
    assert process.returncode == 1
    assert out == (
        f"left XDP program {number} on a0 (native): only root can tell whether it is ours\n"
    )


def test_a_build_of_dpdk_that_was_killed(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mdpdk_patches/build.sh holds the lock as long as it builds."""
    flock = need_tool("flock", "util-linux")
    lock, folder = cache.cache_dir() / "mdpdk.lock", cache.cache_dir() / "mdpdk-building.x1"
    folder.mkdir(parents=True)
    (folder / "log").touch()
    builder = subprocess.Popen(
        [flock, lock, "sh", "-c", "echo locked; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert builder.stdout is not None and builder.stdout.readline() == "locked\n"
    assert cli.main(["clean"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n" and folder.exists()
    builder.communicate()
    assert cli.main(["clean"]) == 0
    assert capsys.readouterr().out == f"removed half-built {folder}\n" and not folder.exists()
    assert lock.exists(), "whoever waits for it has the same file"
