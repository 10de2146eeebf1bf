# SPDX-License-Identifier: BSD-3-Clause
"""Ports of DPDK's drivers (driver: dpdk), on virtual devices: captures, rings, veth pairs.

    wire or file ── driver of DPDK ── [ frames of the arena ── NFs on CPU and device ] ── and out

Every scenario of dpdk_scenarios.py runs in a process and a network namespace of its own, and checks
by itself that packets balance and that all frames are free in the end. No NIC is tested here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import HEADER

from hummingbird import dataplane, topology
from hummingbird.dataplane import build_dpdk
from hummingbird.errors import UserError
from hummingbird.ports import dpdk

ROOT = Path(__file__).parent.parent
PLUGINS = ROOT / "hummingbird" / "dataplane"
CANNOT = 3  # exit status of mdpdk_patches/build.sh
DEVICE = '{"d0": {"driver": "dpdk", "device": '

pytestmark = pytest.mark.timeout(900)  # mDPDK may have to be built

Scenario = Callable[..., dict[str, Any]]


def needs_namespaces() -> None:
    if os.geteuid() or subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("NOT TESTED: ports of DPDK: network namespaces need root")
    if not shutil.which("ip"):
        pytest.skip("NOT TESTED: ports of DPDK: apt-get install iproute2")


def needs_plugin() -> None:
    if not (PLUGINS / "libhb_dpdk.so").exists():
        pytest.skip("NOT TESTED: ports of DPDK: apt-get install libdpdk-dev dpdk, then make")


@pytest.fixture(scope="session")
def mdpdk() -> None:
    """The plug-in for mDPDK, which is built if it can be."""
    built = subprocess.run([ROOT / "mdpdk_patches" / "build.sh"], capture_output=True, text=True)
    if built.returncode == CANNOT:
        pytest.skip(f"NOT TESTED: ports of mDPDK: {built.stderr}")
    assert built.returncode == 0, built.stderr
    build_dpdk.main(str(PLUGINS), built.stdout.strip())


def run(folder: Path, *argv: str, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a scenario says in the end, and in ``text`` what was printed."""
    needs_namespaces()
    command = ["unshare", "-n", *prefix, sys.executable, str(ROOT / "tests" / "dpdk_scenarios.py")]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [*command, *argv], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(told, dict)
    return told | {"text": done.stderr}


@pytest.fixture(params=["stock", "mdpdk"])
def scenario(request: pytest.FixtureRequest, tmp_path: Path) -> Scenario:
    """Runs a scenario with one build of DPDK."""
    needs_plugin() if request.param == "stock" else request.getfixturevalue("mdpdk")

    def of_build(name: str, *argv: str, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
        return run(tmp_path, name, request.param, *argv, prefix=prefix)

    of_build.build = request.param  # type: ignore[attr-defined]
    return of_build


@pytest.fixture
def stock(tmp_path: Path) -> Scenario:
    """Runs a scenario with the distribution's DPDK."""
    needs_plugin()
    return lambda name, *argv, **how: run(tmp_path, name, "stock", *argv, **how)


# ---- packets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("vlan", ["", "vlan"])
@pytest.mark.parametrize(
    ("driver", "frame_size"), [("af_packet", "2048"), ("af_packet", "4096"), ("af_xdp", "4096")]
)
def test_packets_of_a_wire_go_both_ways_unchanged(
    scenario: Scenario, driver: str, frame_size: str, vlan: str
) -> None:
    told = scenario("forward", driver, frame_size, vlan)
    assert told["there"] and told["back"]
    assert told["dropped"] == {} and told["ports"]["d0"]["missed"] == 0
    assert told["ports"]["d0"]["received"] == told["ports"]["d1"]["sent"] == 300


def test_two_queues_of_an_interface(scenario: Scenario) -> None:
    told = scenario("spread")
    assert told["same"] and told["dropped"] == {}


def test_nothing_is_left_behind_nor_printed(stock: Scenario) -> None:
    told = stock("forward", "af_xdp", "4096")
    assert not told["pinned"]
    assert told["promiscuous"] == told["xdp"] == told["files"] == []
    assert told["text"] == ""


def test_captures_are_read_and_written_by_a_driver(scenario: Scenario) -> None:
    told = scenario("capture_files")
    assert told["same"] and told["fit"] == 200 and told["dropped"] == {}


def test_a_port_answers_with_the_address_that_its_driver_has(stock: Scenario) -> None:
    told = stock("answers")
    assert (told["op"], told["who"]) == (2, "192.0.2.1")
    assert told["has"].startswith("02:70:63:61:70:")  # those of net_pcap


def test_packets_longer_than_a_frame_are_counted(stock: Scenario) -> None:
    told = stock("capture_files", "4000")
    assert told["same"] and 0 < told["fit"] < 200
    assert told["dropped"] == {"too_long": 200 - told["fit"]}
    assert told["ports"]["d0"]["received"] == 200


def test_frames_pass_through_a_ring_of_dpdk(scenario: Scenario) -> None:
    told = scenario("ring")
    assert told["same"] and told["dropped"] == {}


def test_what_a_driver_refuses_stays_ours_and_what_it_keeps_comes_back(scenario: Scenario) -> None:
    told = scenario("overrun")
    d0 = told["ports"]["d0"]
    assert d0["dropped"]["port_full"] > 0 and d0["sent"] > d0["received"]


@pytest.mark.parametrize("many", ["1", "3"])
def test_every_queue_gives_its_frames_back(scenario: Scenario, many: str) -> None:
    told = scenario("queues", many)
    assert set(told["dropped"]) <= {"ring_full", "node_full"}
    assert all(port["sent"] > 0 for port in told["ports"].values())


def test_a_driver_of_dpdk_and_one_of_ours_in_one_chain(stock: Scenario) -> None:
    assert stock("mixed")["same"]


@pytest.mark.parametrize("driver", ["af_packet", "af_xdp"])
def test_an_interface_that_comes_back_is_opened_again(stock: Scenario, driver: str) -> None:
    told = stock("comes_back", driver)
    assert all(told[when][way] for when in ("first", "second") for way in ("there", "back"))


def test_packets_too_long_for_the_umem_are_missed_and_warned_of(stock: Scenario) -> None:
    told = stock("too_long_for_umem")
    assert told["got"] == told["short"] < 300
    assert told["ports"]["d0"]["missed"] == 300 - told["short"]
    assert "more than 1408 bytes" in told["text"] and "frame_size: 4096" in told["text"]


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_the_kernel_and_the_nf_meet_in_one_frame(scenario: Scenario, engine: str) -> None:
    """640 bytes into a frame is where the kernel puts a packet of an UMEM that is the arena; a
    driver that copied would leave it 384 bytes in."""
    told = scenario("zero_copy", engine)
    assert told["same"]
    assert told["copies"] == 1 and told["offsets"] == [640]
    if engine == "gpu":
        assert told["device"]["name"] and told["device"]["copied_bytes"] == 0
        assert told["device"]["row_packets"] == 64
    assert told["mempool_behind_frames"] == (scenario.build == "mdpdk")  # type: ignore[attr-defined]


def test_the_umem_is_the_arena(stock: Scenario, tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("NOT TESTED: which memory the kernel is given: apt-get install strace")
    log = tmp_path / "calls"
    told = stock(
        "zero_copy",
        "cpu",
        prefix=("strace", "-f", "-xx", "--seccomp-bpf", "-e", "trace=setsockopt", "-o", str(log)),
    )
    found = re.findall(r'XDP_UMEM_REG, "((?:\\x[0-9a-f]{2})+)"', log.read_text())
    assert len(found) == 2  # a port each
    for text in found:
        registration = bytes.fromhex(text.replace("\\x", ""))
        address, size = (int.from_bytes(registration[at : at + 8], "little") for at in (0, 8))
        assert (address, size) == (told["base"], told["bytes"])


# ---- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "what", "fix"),
    [
        ('"net_af_packet0,iface=nope"', "No such device", "correct the device"),
        ('"net_af_xdp0,iface=nope"', "interface: nope", "correct the device"),
        ('"net_bogus0"', "net_bogus0 cannot be opened", "correct the device"),
        ('"net_null0,rubbish=1"', "net_null0 cannot be opened", "correct the device"),
        ('"net_pcap0,rx_pcap=/no.pcap"', "/no.pcap: No such file", "correct the device"),
        ('"net_af_packet0,iface=y0", "queues": 2', "has 1 queues", "queues: 1"),
        ('"0000:ff:1f.7"', "there is no PCI device 0000:ff:1f.7", "lspci"),
    ],
)
def test_a_wrong_device(stock: Scenario, device: str, what: str, fix: str) -> None:
    told = stock("refused", DEVICE + device + "}}")
    assert what in told["what"] and "\n" not in told["what"]
    assert fix in told["fix"] and told["field"] == "ports.d0"


def test_too_few_mbufs(stock: Scenario) -> None:
    told = stock("refused", DEVICE + '"net_af_xdp0,iface=y0"}}', '{"mbufs": 1024}')
    assert "1024 mbufs" in told["what"] and "memory.mbufs" in told["fix"]


def test_a_wrong_argument_of_the_eal(stock: Scenario) -> None:
    told = stock("refused", DEVICE + '"net_null0"}}', "{}", "--no-such-thing")
    assert "DPDK does not start" in told["what"] and "dpdk.arguments" in told["fix"]


def test_a_second_run_in_one_process(scenario: Scenario) -> None:
    told = scenario("again")
    if scenario.build == "stock":  # type: ignore[attr-defined]
        assert told["ports"]["d0"]["received"] > 0
    else:  # its memory was the first run's
        assert "once only" in told["what"]


@pytest.mark.parametrize(
    "device", ["eth0", "", "0000:01:00", "net_null0,", "net_null0,a", 7, "net_null0\n--no-huge"]
)
def test_what_is_no_device(device: Any, tmp_path: Path) -> None:
    ports = {"d0": {"driver": "dpdk", "device": device}}
    (tmp_path / "p.csv").write_text(HEADER + "*,d0,drop\n")
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"policy": "p.csv", "ports": ports}))
    with pytest.raises(UserError, match="is no device of DPDK") as caught:
        topology.load(tmp_path / "t.yaml")
    assert caught.value.field == "ports.d0.device" and caught.value.line == 4


@pytest.mark.parametrize(
    ("device", "is_pci", "watched"),
    [
        ("01:00.0", True, None),
        ("0000:01:00.1,arg=1", True, None),
        ("net_af_xdp3,start_queue=1,iface=eth7", False, "eth7"),
        ("net_af_packet0,iface=eth1,qpairs=2", False, "eth1"),
        ("net_pcap0,rx_iface=eth1", False, None),
    ],
)
def test_devices(device: str, is_pci: bool, watched: str | None) -> None:
    params = dpdk.DpdkParams(device=device)
    assert (params.is_pci, params.watched) == (is_pci, watched)
    assert params.device.startswith("0000:01:00.") == is_pci


def test_a_nic_that_linux_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpdk, "PCI_DEVICES", tmp_path)
    (tmp_path / "0000:01:00.0").mkdir()
    with pytest.raises(UserError, match="bound to no driver"):
        dpdk._check_pci("0000:01:00.0")
    (tmp_path / "ixgbe").mkdir()
    (tmp_path / "0000:01:00.0" / "driver").symlink_to(tmp_path / "ixgbe")
    with pytest.raises(UserError, match="bound to ixgbe") as caught:
        dpdk._check_pci("0000:01:00.0")
    assert "dpdk-devbind.py --bind=vfio-pci 0000:01:00.0" in str(caught.value.fix)
    (tmp_path / "0000:01:00.0" / "driver").unlink()
    (tmp_path / "vfio-pci").mkdir()
    (tmp_path / "0000:01:00.0" / "driver").symlink_to(tmp_path / "vfio-pci")
    dpdk._check_pci("0000:01:00.0")


def test_only_the_nics_that_are_named_are_touched() -> None:
    nic = dpdk.DpdkParams(device="0000:01:00.0,a=1")
    virtual = dpdk.DpdkParams(device="net_null0")

    def arguments(*params: dpdk.DpdkParams) -> tuple[str, ...]:
        return dpdk.prepare(dpdk.DpdkSection(), params, 2048, 0, 0).arguments

    assert "--no-pci" in arguments(virtual) and "-a" not in arguments(virtual)
    both = arguments(nic, virtual)
    assert both[both.index("-a") + 1] == "0000:01:00.0,a=1" and "--no-pci" not in both


# ---- the plug-in itself --------------------------------------------------------------------------


def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str = "stock") -> UserError:
    """Of a run that finds its plug-ins in `tmp_path`."""
    from chain import run_chain

    monkeypatch.setattr(dataplane, "__path__", [str(tmp_path)])
    source = {
        "ports": {"d0": {"driver": "dpdk", "device": "net_null0"}},
        "dpdk": {"build": section},
    }
    with pytest.raises(UserError) as caught:
        run_chain(source, rows="*,d0,drop\n")
    assert caught.value.field == "ports.d0"
    return caught.value


def test_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal(tmp_path, monkeypatch)
    assert "not built" in error.what and "apt-get install libdpdk-dev" in str(error.fix)
    error = refusal(tmp_path, monkeypatch, "mdpdk")
    assert "not built" in error.what and "make mdpdk" in str(error.fix)


def compiled(tmp_path: Path, code: str, *options: str) -> None:
    source = tmp_path / "plugin.c"
    source.write_text(code)
    target = tmp_path / "libhb_dpdk.so"
    subprocess.run(["gcc", "-shared", "-fPIC", *options, source, "-o", target], check=True)


def test_a_plugin_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(tmp_path, "const struct { unsigned i; void *open; } hb_dpdk_plugin = {7, 0};")
    error = refusal(tmp_path, monkeypatch)
    assert "another version of the data plane" in error.what and "run make" in str(error.fix)


def test_a_plugin_for_another_dpdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "librte_eal.so.99"
    (tmp_path / "eal.c").write_text("int rte(void) { return 0; }")
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{gone.name}"]
    subprocess.run([*command, tmp_path / "eal.c", "-o", gone], check=True)
    compiled(
        tmp_path, "int rte(void); int f(void) { return rte(); }", "-Wl,--no-as-needed", str(gone)
    )
    gone.unlink()
    error = refusal(tmp_path, monkeypatch)
    assert "librte_eal.so.99" in error.what and "run make" in str(error.fix)


def test_without_dpdk_everything_else_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no pkg-config
    build_dpdk.main(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
