# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird doctor`: what the machine lacks for a topology, and the command that mends it.

topology, /proc, /sys, interfaces ── doctor ── ok / warning / problem ── `fix:` run as it stands
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from elsewhere import ENVIRONMENT, ROOT, Place, need_tool, place
from namespaces import until
from process import write_topology
from test_cli_clean import program

from hummingbird import cli, topology
from hummingbird.doctor import devices, dpdk, kernel, system
from hummingbird.doctor.finding import Finding
from hummingbird.doctor.needs import Needs, Port
from hummingbird.ports.dpdk import DpdkSection, plugin_of
from hummingbird.ports.interface import look
from hummingbird.topology import Device, Memory

POLICIES = ROOT / "policies"
CPUS = os.sched_getaffinity(0)
NF = {"type": "forward", "engine": "gpu"}


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Place]:
    """With a veth, a0 and a1."""
    with place(tmp_path) as made:
        made.veth("a0", "a1")
        yield made


def live(*ports: Port, memory: Memory | None = None) -> Needs:
    return Needs(tuple(ports), memory or Memory(), None, DpdkSection())


def ports_of(asked: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Of a topology: a live port each, called lan, lan1, ..."""
    defaults = {"queues": 1, "interface": "a0"}
    return {
        f"lan{number or ''}": {**(defaults if port["driver"] != "dpdk" else {}), **port}
        for number, port in enumerate(asked)
    }


def examine(
    there: Place, *asked: dict[str, Any], before: tuple[str, ...] = (), **memory: int
) -> list[Finding]:
    """What the doctor finds there for these ports; `before` is a command that starts it."""
    top = {"ports": ports_of(asked), "memory": memory, "cores": {"io": [min(CPUS)]}}
    path = write_topology(there.folder, top, "".join(f"*,{name},{name}\n" for name in top["ports"]))
    command = [*before, sys.executable, "-m", "hummingbird.cli", "doctor", path, "--json"]
    process = there.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert err == "" and process.returncode in (0, 1), err
    found = [Finding(**check) for check in json.loads(out)["checks"]]
    assert process.returncode == any(finding.state == "problem" for finding in found)
    return found


def named(found: list[Finding], name: str, state: str) -> list[Finding]:
    return [finding for finding in found if (finding.name, finding.state) == (name, state)]


def only(found: list[Finding], text: str) -> Finding:
    """The one finding that says so."""
    (one,) = [finding for finding in found if text in finding.what]
    return one


def mend(there: Place, finding: Finding) -> None:
    """Do what the fix says, as root."""
    assert finding.fix is not None
    command = re.sub(r"   \(.*", "", finding.fix.removeprefix("sudo "))
    if command.startswith("hummingbird"):
        assert there.hummingbird(*command.split()[1:])[0] == 0
    else:
        there.call("sh", "-c", command)


# ---- as a command --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_topology_that_is_shipped_can_run_here(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or the interfaces that it names are not there."""
    ports = topology.load(path).ports
    absent = [port.params.watched for port in ports if not look(port.params.watched or "lo")]
    status = cli.main(["doctor", str(path)])
    out, err = capsys.readouterr()
    assert (status, err) == (1 if absent else 0, ""), out
    assert all(f"there is no interface {name}" in out for name in absent)
    assert out.rstrip().endswith(f": {path} {'cannot' if absent else 'can'} run here.")


def test_without_a_topology_all_drivers_are_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("rights", "memlock", "huge pages", "AF_XDP", "BPF", "tap", "DPDK", "IOMMU"):
        assert re.search(rf"^(ok|warning|problem) +{name} ", out, re.MULTILINE), name
    assert "watchdog" in out and "OpenCL" in out
    assert out.rstrip().endswith("Name a topology to see what matters to it.")


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_topology(tmp_path, {"ports": TWO_FILES}, "*,in0,out0\n")
    assert cli.main(["doctor", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["topology"] == str(path)
    for check in said["checks"]:
        assert set(check) == {"name", "state", "what", "fix"}
        assert check["state"] in ("ok", "warning", "problem")
    assert {check["name"] for check in said["checks"]} >= {"memlock", "huge pages", "run directory"}


TWO_FILES = {"in0": {"driver": "generator"}, "out0": {"driver": "sink"}}


def test_a_device_that_is_not_there_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = {"ports": TWO_FILES, "nfs": {"nf0": NF}, "device": {"use": "voodoo"}}
    path = write_topology(tmp_path, top, "*,in0,nf0\n*,nf0,out0\n")
    assert cli.main(["doctor", str(path)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^problem +OpenCL +no OpenCL device is named 'voodoo'", out, re.MULTILINE)
    assert re.search(r"^ +fix: install a driver", out, re.MULTILINE)
    warnings = "(no warnings|1 warning|[0-9]+ warnings)"  # such as of runs that were killed
    assert re.search(
        f"1 problem, {warnings}: {re.escape(str(path))} cannot run here.$", out.rstrip()
    )


def test_a_cpu_that_is_not_there_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = {"ports": TWO_FILES, "cores": {"io": [4000]}}
    assert cli.main(["doctor", str(write_topology(tmp_path, top, "*,in0,out0\n"))]) == 1
    assert re.search(r"^problem +cores .*4000", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("driver: sink", "driver: snik", r"topology.yaml:\d+:ports.out0.driver: there is no"),
        ("policy: routes.csv", "policy: none.csv", r"topology.yaml:\d+:policy: no such file"),
        ("*,in0,out0", "*,in0,out1", r"routes.csv:2:next_nf: "),
        ("policy", "\0", "a NUL byte"),
    ],
)
def test_a_mistake_in_the_topology_is_said_as_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, place: str
) -> None:
    path = write_topology(tmp_path, {"ports": TWO_FILES}, "*,in0,out0\n")
    for file in (path, tmp_path / "routes.csv"):
        file.write_text(file.read_text().replace(old, new))
    assert cli.main(["doctor", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.search(place, err) and "\n  fix: " in err


@pytest.mark.parametrize("name", ["none.yaml", ".", "/proc/self/mem"])
def test_what_is_no_topology(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", name]) == 2
    assert capsys.readouterr().err.startswith(f"hummingbird: error: {name}")


def test_it_fits_a_terminal_of_80_columns() -> None:
    """All but the commands, which are to be copied whole."""
    need_tool("script", "bsdutils")
    call = f"stty cols 80; {sys.executable} -m hummingbird.cli doctor"
    environment = {**ENVIRONMENT, "TERM": "xterm"}
    done = subprocess.run(
        ["script", "-qec", call, "/dev/null"], capture_output=True, text=True, env=environment
    )
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    assert done.returncode == 0 and "\x1b[32m" in done.stdout
    assert max(len(line) for line in lines if "fix: " not in line) <= 80
    assert len(lines) > 10


# ---- rights --------------------------------------------------------------------------------------

RIGHTS = {
    "af_packet": {"CAP_NET_RAW"},
    "af_xdp": {"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"},
    "tap": {"CAP_NET_ADMIN"},
}


@pytest.mark.parametrize("driver", RIGHTS)
def test_rights_that_were_dropped(there: Place, driver: str) -> None:
    """Those that the driver needs, and no others; the kernel refuses what the doctor says."""
    setpriv = need_tool("setpriv", "util-linux")
    drop = "-net_raw,-net_admin,-bpf,-sys_admin"
    before = (setpriv, "--bounding-set", drop, "--inh-caps", "-all")
    (finding,) = named(examine(there, {"driver": driver}, before=before), "rights", "problem")
    assert set(re.findall(r"CAP_\w+", finding.what)) == RIGHTS[driver]
    assert f"lan ({driver})" in finding.what
    assert finding.fix is not None and finding.fix.startswith("docker run --cap-add ")
    assert named(examine(there, {"driver": driver}), "rights", "problem") == []


def test_a_user_without_rights(there: Place, request: pytest.FixtureRequest) -> None:
    """The fix is a command that grants them to a user's process; it is run here, as root."""
    setpriv = need_tool("setpriv", "util-linux")
    user = ("--reuid", "65534", "--regid", "65534", "--clear-groups")
    if subprocess.run([setpriv, *user, sys.executable, "-c", ""]).returncode:
        pytest.skip("NOT TESTED: this Python can only be started by root")
    there.folder = Path(tempfile.mkdtemp())  # pytest's are for root alone
    os.chmod(there.folder, 0o755)
    request.addfinalizer(lambda: shutil.rmtree(there.folder))
    found = examine(there, {"driver": "af_xdp"}, before=(setpriv, *user))
    (finding,) = named(found, "rights", "problem")
    assert finding.fix is not None
    options = re.search(r"(--inh-caps \S+ --ambient-caps \S+)", finding.fix)
    assert options is not None
    granted = examine(there, {"driver": "af_xdp"}, before=(setpriv, *user, *options[1].split(" ")))
    assert named(granted, "rights", "problem") == []
    assert "CAP_NET_RAW, CAP_BPF: granted" in named(granted, "rights", "ok")[0].what


def test_root_of_a_user_namespace_is_not_root_of_the_machine(there: Place) -> None:
    """It has all capabilities by name, but BPF and locked memory are the machine's."""
    unshare = need_tool("unshare", "util-linux")
    before = (unshare, "--user", "--map-root-user")
    found = examine(there, {"driver": "af_xdp"}, before=before)
    (finding,) = named(found, "rights", "problem")
    assert re.findall(r"CAP_\w+", finding.what) == ["CAP_BPF"]


# ---- memory --------------------------------------------------------------------------------------


def limited(there: Place, limit: int, *ports: dict[str, Any], **memory: int) -> Finding:
    """What is said of locked memory under a limit, without the right to exceed it."""
    setpriv, prlimit = need_tool("setpriv", "util-linux"), need_tool("prlimit", "util-linux")
    before = (prlimit, f"--memlock={limit}:{limit}", setpriv)
    before += ("--bounding-set", "-ipc_lock", "--inh-caps", "-all")
    found = examine(there, *ports, before=before, **memory)
    (finding,) = [finding for finding in found if finding.name == "memlock"]
    return finding


def test_locked_memory_for_af_xdp(there: Place) -> None:
    """Each queue pins all frames: 2 queues of 2 MiB take 4 MiB, and not a byte less."""
    port = {"driver": "af_xdp", "queues": 2}
    short = limited(there, (4 << 20) - 1, port, mbufs=1024)
    assert short.state == "problem" and "2 MiB is pinned 2 times" in short.what
    assert short.fix == "sudo prlimit --pid $$ --memlock=4194304:4194304"
    assert limited(there, 4 << 20, port, mbufs=1024).state == "ok"
    assert limited(there, 4 << 20, port, mbufs=1024, frame_size=4096).state == "problem"


def test_locked_memory_without_af_xdp_is_not_needed(there: Place) -> None:
    finding = limited(there, 64 << 10, {"driver": "af_packet"})
    assert finding.state == "warning" and "may be swapped out" in finding.what


def test_whoever_may_lock_has_no_limit(there: Place) -> None:
    prlimit = need_tool("prlimit", "util-linux")
    found = examine(there, {"driver": "af_xdp"}, before=(prlimit, "--memlock=65536:65536"))
    assert only(found, "no limit").state == "ok"


def _sysfs(root: Path, text: str, total: int = 0, free: int = 0) -> None:
    pages = root / "sys/kernel/mm/hugepages/hugepages-2048kB"
    pages.mkdir(parents=True)
    (pages / "nr_hugepages").write_text(f"{total}\n")
    (pages / "free_hugepages").write_text(f"{free}\n")
    thp = root / "sys/kernel/mm/transparent_hugepage"
    thp.mkdir()
    (thp / "enabled").write_text(text)


def test_huge_pages(tmp_path: Path) -> None:
    """As sysfs and procfs have them: off, reserved, in use, and nothing at all of it."""
    _sysfs(tmp_path, "always madvise [never]\n", total=512, free=0)
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/status").write_text("Name:\tdpdk-app\nHugetlbPages:\t 1048576 kB\n")
    (tmp_path / "proc/78").mkdir()
    (tmp_path / "proc/78/status").write_text("Name:\tsh\nHugetlbPages:\t       0 kB\n")
    (tmp_path / "dev/hugepages").mkdir(parents=True)
    (tmp_path / "dev/hugepages/rtemap_0").touch()
    needs = live(Port("lan", "dpdk", device="net_null0"))
    off, used = system.huge_pages(needs, tmp_path)
    assert off.state == "warning" and off.fix is not None and off.fix.startswith("echo madvise |")
    assert used.state == "warning" and "0 of 512" in used.what and "dpdk-app (77)" in used.what
    (nothing, none_reserved) = system.huge_pages(needs, tmp_path / "none")
    assert nothing.state == "warning" and none_reserved.state == "ok"


# ---- kernel --------------------------------------------------------------------------------------


def test_bpf_compiler(tmp_path: Path) -> None:
    needs = live(Port("lan", "af_xdp", "a0"))
    file = tmp_path / "proc/sys/net/core/bpf_jit_enable"
    assert list(kernel.bpf_jit(needs, tmp_path)) == [], "not told in this namespace"
    file.parent.mkdir(parents=True)
    states = []
    for text in ("0\n", "1\n"):
        file.write_text(text)
        states += [finding.state for finding in kernel.bpf_jit(needs, tmp_path)]
    assert states == ["warning", "ok"]
    assert list(kernel.bpf_jit(live(Port("lan", "af_packet", "a0")), tmp_path)) == []


def test_files_that_cannot_be_read_end_no_check(there: Place) -> None:
    """No /proc and no /sys at all, as some containers have it: every check says what it can."""
    command = 'mount -t tmpfs none /sys && mount -t tmpfs none /proc && exec "$@"'
    before = ("unshare", "-m", "sh", "-c", command, "sh")
    found = examine(
        there, {"driver": "af_xdp"}, {"driver": "tap", "interface": "b0"}, before=before
    )
    rights = only(found, "could not be looked at (Has the process the rights")
    assert rights.state == "warning" and "/proc/self/status" in rights.what
    assert named(found, "a0", "ok") and named(found, "b0", "ok")


def test_taps(tmp_path: Path) -> None:
    needs = live(Port("t0", "tap", "hb0"))
    (missing,) = kernel.tap(needs, tmp_path)
    assert missing.state == "problem" and "modprobe tun" in str(missing.fix)
    assert list(kernel.tap(live(), tmp_path)) == []


def test_pci_devices(tmp_path: Path) -> None:
    """One that is not there, one that the kernel drives, one that is ready, one that is shared."""
    bus = tmp_path / "sys/bus/pci"
    for address, driver in (("0000:01:00.0", "ixgbe"), ("0000:01:00.1", "vfio-pci")):
        (bus / "drivers" / driver).mkdir(parents=True)
        (bus / "devices" / address).mkdir(parents=True)
        (bus / "devices" / address / "driver").symlink_to(bus / "drivers" / driver)
    addresses = ["0000:09:00.0", "0000:01:00.0", "0000:01:00.1", None]
    needs = live(*(Port(f"d{n}", "dpdk", pci=pci) for n, pci in enumerate(addresses)))
    gone, kernels, ready = kernel.pci_devices(needs, tmp_path)
    assert (gone.state, kernels.state, ready.state) == ("problem", "problem", "ok")
    assert kernels.fix == "sudo dpdk-devbind.py -b vfio-pci 0000:01:00.0"
    no_groups, loaded = kernel.iommu(needs, tmp_path)
    assert (no_groups.state, loaded.state) == ("problem", "ok")
    (tmp_path / "sys/kernel/iommu_groups/0").mkdir(parents=True)
    assert [found.state for found in kernel.iommu(needs, tmp_path)] == ["ok", "ok"]
    assert list(kernel.iommu(live(Port("d", "dpdk", device="net_null0")), tmp_path)) == []


def test_watchdogs(tmp_path: Path) -> None:
    """A limit that is long enough, and one that is not, with what lifts it."""
    file = tmp_path / "class/drm/card0/engine/ccs0/preempt_timeout_ms"
    file.parent.mkdir(parents=True)
    needs = Needs((), Memory(), Device(), DpdkSection())
    states = []
    for limit in ("640", "300"):
        file.write_text(limit)
        (finding,) = devices.watchdogs(needs, tmp_path)
        states.append((finding.state, finding.what.partition(";")[2]))
    assert states == [
        ("ok", " ours stay for 200 ms"),
        ("warning", " ours stay for 150 ms instead of 200 ms"),
    ]
    assert finding.fix is not None and finding.fix.startswith("echo 400 | sudo tee ")


# ---- interfaces ----------------------------------------------------------------------------------


def test_an_interface_that_is_not_there(there: Place) -> None:
    found = examine(there, {"driver": "af_packet", "interface": "a2"})
    (finding,) = named(found, "a2", "problem")
    assert "lan: there is no interface a2" in finding.what and "a0" in str(finding.fix)


def test_an_interface_that_is_down(there: Place) -> None:
    there.call("ip", "link", "set", "a0", "down")
    (finding,) = named(examine(there, {"driver": "af_packet"}), "a0", "problem")
    mend(there, finding)
    assert named(examine(there, {"driver": "af_packet"}), "a0", "problem") == []
    there.call("ip", "link", "set", "a1", "down")
    until(lambda: not has_carrier(there, "a0"), "Linux to notice")
    finding = only(examine(there, {"driver": "af_packet"}), "no carrier")
    assert finding.state == "warning"
    mend(there, finding)
    until(lambda: has_carrier(there, "a0"), "Linux to notice")
    assert not [f for f in examine(there, {"driver": "af_packet"}) if "carrier" in f.what]


def has_carrier(there: Place, interface: str) -> bool:
    """Linux gets to know of it in its own time."""
    return "NO-CARRIER" not in there.call("ip", "link", "show", "dev", interface)


@pytest.mark.parametrize("mtu", [1646, 1647, 3695])
def test_the_mtu_has_to_fit_a_frame(there: Place, mtu: int) -> None:
    """2048 bytes less 384, and less 18 for Ethernet and a VLAN tag; larger frames, smaller MTU."""
    there.call("ip", "link", "set", "a0", "mtu", mtu)
    found = [f for f in examine(there, {"driver": "af_packet"}) if "too_long" in f.what]
    if mtu <= 1646:
        assert found == []
        return
    (finding,) = found
    assert finding.state == "warning" and f"MTU {mtu}" in finding.what
    if mtu <= 3694:
        assert finding.fix == "memory: {frame_size: 4096}   (in the topology)"
        larger = examine(there, {"driver": "af_packet"}, frame_size=4096)
        assert not [f for f in larger if "too_long" in f.what]
    else:
        mend(there, finding)
        again = examine(there, {"driver": "af_packet"})
        assert not [f for f in again if "too_long" in f.what]


def test_offloads_of_the_other_end_of_a_veth(there: Place) -> None:
    """They are on as it is made; the fix turns them off. af_packet fills in checksums itself."""
    need_tool("ethtool", "ethtool")
    for driver, on in (("af_packet", "gso, tso"), ("af_xdp", "tx")):
        finding = only(examine(there, {"driver": driver}), "its peer a1 has")
        assert finding.state == "warning" and f"has {on} on" in finding.what
        mend(there, finding)
        assert not [f for f in examine(there, {"driver": driver}) if "its peer" in f.what]


def test_the_other_end_may_be_in_another_namespace(there: Place) -> None:
    sleeper = there.popen("unshare", "-n", "cat", stdin=subprocess.PIPE)
    try:
        own = os.stat(f"/proc/{os.getpid()}/ns/net").st_ino
        while os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino in (own, _net_of(there)):
            assert sleeper.poll() is None
        there.call("ip", "link", "set", "a1", "netns", sleeper.pid)
        finding = only(examine(there, {"driver": "af_packet"}), "unless its peer was told")
        assert finding.state == "warning" and "in the namespace of its peer" in str(finding.fix)
    finally:
        sleeper.communicate()


def _net_of(there: Place) -> int:
    return os.stat(there.run_dir.parent.parent / "ns/net").st_ino


def test_joining_packets(there: Place) -> None:
    """GRO of our own interface makes one long packet of many."""
    ethtool = need_tool("ethtool", "ethtool")
    assert not [f for f in examine(there, {"driver": "af_packet"}) if "GRO" in f.what]
    there.call(ethtool, "-K", "a0", "gro", "on")
    finding = only(examine(there, {"driver": "af_packet"}), "GRO on")
    assert (finding.state, finding.fix) == ("warning", "sudo ethtool -K a0 gro off")
    mend(there, finding)
    assert not [f for f in examine(there, {"driver": "af_packet"}) if "GRO" in f.what]


def test_queues(there: Place) -> None:
    """A veth with room for 4 queues begins with 1."""
    there.call(
        "ip",
        "link",
        "add",
        "b0",
        "numrxqueues",
        "4",
        "numtxqueues",
        "4",
        "type",
        "veth",
        "peer",
        "name",
        "b1",
        "numrxqueues",
        "4",
        "numtxqueues",
        "4",
    )
    there.call("ip", "link", "set", "b0", "up")
    there.call("ip", "link", "set", "b1", "up")
    port = {"driver": "af_xdp", "interface": "b0"}
    many = only(examine(there, {**port, "queues": 5}), "queues: 5, but it has")
    assert many.state == "problem" and "queues: " in str(many.fix)
    (number,) = re.findall(r"but it has (\d+)", many.what)
    more = int(number) + 1
    if more <= 4:
        finding = only(examine(there, {**port, "queues": more}), f"queues: {more}, but")
        need_tool("ethtool", "ethtool")
        mend(there, finding)
        assert not [f for f in examine(there, {**port, "queues": more}) if "but it has" in f.what]
        few = only(examine(there, port), f"1 of its {more} queues served")
        assert few.state == "warning"
        mend(there, few)
        assert not [f for f in examine(there, port) if "queues served" in f.what]


def test_modes_of_xdp(there: Place) -> None:
    """A veth has native XDP but no zero-copy; a bridge neither."""
    for mode, state in (("auto", "ok"), ("native", "ok"), ("generic", "ok")):
        found = examine(there, {"driver": "af_xdp", "mode": mode})
        assert only(found, "native XDP, no zero-copy").state == state
    found = examine(there, {"driver": "af_xdp", "mode": "zero-copy"})
    assert only(found, "mode zero-copy is not in its driver").state == "problem"
    there.call("ip", "link", "add", "br0", "type", "bridge")
    found = examine(there, {"driver": "af_xdp", "interface": "br0"})
    assert only(found, "XDP in generic mode only").state == "warning"
    found = examine(there, {"driver": "af_xdp", "interface": "br0", "mode": "native"})
    assert only(found, "mode native is not in its driver").state == "problem"


@pytest.mark.parametrize("name", ["hb_xdp", "others"])
def test_an_interface_with_a_program_on_it(there: Place, tmp_path: Path, name: str) -> None:
    program(there, tmp_path, "a0", name)
    found = examine(there, {"driver": "af_xdp"})
    finding = only(found, f"it bears an XDP program already: {name} (native)")
    assert finding.state == "problem"
    assert (finding.fix == "hummingbird clean") == (name == "hb_xdp")
    mend(there, finding)
    assert not [f for f in examine(there, {"driver": "af_xdp"}) if "bears" in f.what]
    assert not [f for f in examine(there, {"driver": "af_packet"}) if "XDP" in f.what]


def test_the_interface_that_the_machine_needs_itself(there: Place) -> None:
    there.call("ip", "address", "add", "192.0.2.1/24", "dev", "a0")
    assert not [f for f in examine(there, {"driver": "af_xdp"}) if "own packets" in f.what]
    there.call("ip", "route", "add", "default", "via", "192.0.2.2")
    assert only(examine(there, {"driver": "af_xdp"}), "own packets").state == "warning"
    assert not [f for f in examine(there, {"driver": "af_packet"}) if "own packets" in f.what]


def test_an_interface_where_linux_answers_too(there: Place) -> None:
    assert not [f for f in examine(there, {"driver": "af_packet"}) if "answers" in f.what]
    there.call("ip", "address", "add", "192.0.2.1/24", "dev", "a0")
    assert not [f for f in examine(there, {"driver": "af_xdp"}) if "answers packets" in f.what]
    finding = only(examine(there, {"driver": "af_packet"}), "Linux has the address 192.0.2.1")
    assert finding.state == "warning"
    mend(there, finding)
    assert not [f for f in examine(there, {"driver": "af_packet"}) if "answers" in f.what]


@contextmanager
def taken(there: Place, name: str) -> Iterator[None]:
    """Another program has this tap."""
    script = (
        "import fcntl, struct, sys\n"
        "tap = open('/dev/net/tun', 'r+b', buffering=0)\n"
        "fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH14x', sys.argv[1].encode(), 0x1002))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = (sys.executable, "-c", script, name)
    owner = there.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
        there.call("ip", "link", "set", name, "up")
        yield
    finally:
        owner.communicate()


def test_an_interface_that_the_run_makes(there: Place) -> None:
    port = {"driver": "tap", "interface": "t0"}
    assert only(examine(there, port), "the run makes it").state == "ok"
    there.call("ip", "tuntap", "add", "t0", "mode", "tap")
    finding = only(examine(there, port), "the run takes it, and leaves it there")
    assert finding.state == "warning"
    with taken(there, "t0"):
        assert only(examine(there, port), "another program has this tap").state == "problem"
    mend(there, finding)
    assert only(examine(there, port), "the run makes it").state == "ok"
    assert only(examine(there, {**port, "interface": "a0"}), "it is no tap").state == "problem"


def test_interfaces_of_dpdk_devices(there: Place) -> None:
    """net_af_xdp has one of the kernel's, and less room in a frame; net_null has none."""
    port = {"driver": "dpdk", "device": "net_af_xdp0,iface=a0"}
    found = examine(there, port)
    assert "packets of 1408 bytes" in only(found, "(missed)").what
    assert only(found, "native XDP, no zero-copy").state == "ok"
    assert not [f for f in examine(there, port, frame_size=4096) if "missed" in f.what]
    found = examine(there, {"driver": "dpdk", "device": "net_af_xdp0,iface=a7"})
    assert only(found, "there is no interface a7").state == "problem"
    found = examine(there, {"driver": "dpdk", "device": "net_null0"})
    assert not [f for f in found if f.name == "a0"]


def test_the_plugin_for_dpdk(there: Place, tmp_path: Path) -> None:
    """Each build has one; a run says the same of one that is not there."""
    for build in ("stock", "mdpdk"):
        section = DpdkSection(build=build)
        needs = Needs((Port("d0", "dpdk", device="net_null0"),), Memory(), None, section)
        (finding,) = dpdk.plugin(needs)
        built = plugin_of(section).exists()
        assert (finding.state, "is built" in finding.what) == (("problem", "ok")[built], built)
