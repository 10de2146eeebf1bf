# SPDX-License-Identifier: BSD-3-Clause
"""What can be wrong with a run ends in one clear error, or in a counted drop; never in a traceback.

a broken file, name, device, or disk ── hummingbird run ── exit status 2: what, where, the fix
"""

from __future__ import annotations

import json
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain import HEADER, capture, read_capture, tunnel, udp
from process import Ended, Service, run, service, write_topology

from hummingbird import cli, outputs
from hummingbird.control_client import Reply, running
from hummingbird.errors import UserError
from hummingbird.opencl import program

PACKETS = [udp("10.0.0.1", "10.0.0.2", number, 9, bytes(100)) for number in range(50)]
CAPTURE = capture(PACKETS)
RECORD = 16 + len(PACKETS[0])
TOPOLOGY: dict[str, Any] = {
    "ports": {
        "in0": {"driver": "pcap", "read": "$in"},
        "out0": {"driver": "pcap", "write": "$out"},
    },
    "nfs": {"nf0": {"type": "forward", "engine": "gpu"}},
}
ROWS = "*,in0,nf0\n*,nf0,out0\n"
NO_SVM = "coarse-grain buffer,fine-grain buffer,fine-grain system,atomics"
OWN_PY = """\
from hummingbird.nfs import Nf, NfTable
def build(params, context):
    return NfTable()
NF = Nf("ttl", build=build)
"""
OWN_CL = """\
static hb_u32 hb_nf_ttl(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    return HB_PASS;
}
"""
IPSEC = {"type": "ipsec", **tunnel(300, "10.0.0.1", "10.0.0.2")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a topology, its route policy and a capture, all of them right."""
    write_topology(tmp_path, TOPOLOGY, ROWS)
    (tmp_path / "in.pcap").write_bytes(CAPTURE)
    return tmp_path


def go(folder: Path, *args: object, **environment: str) -> Ended:
    files = ("--in", "in.pcap", "--out", "out.pcap")
    return run(folder, "topology.yaml", *files, *args, **environment)


def check_refused(ended: Ended, *words: str) -> None:
    """One error with a fix, and nothing ran."""
    assert ended.status == 2, ended.text
    assert ended.text.count("hummingbird: error:") == 1 and "fix:" in ended.text, ended.text
    for word in words:
        assert word in ended.text, ended.text
    assert "Traceback" not in ended.text and "running after" not in ended.text
    assert ended.summary is None


def test_the_files_are_right_to_begin_with(folder: Path) -> None:
    assert go(folder).balanced["sent"] == len(PACKETS)
    assert read_capture(folder / "out.pcap").packets == PACKETS


# ---- captures ------------------------------------------------------------------------------------


def test_a_capture_without_packets_is_no_mistake(folder: Path) -> None:
    (folder / "in.pcap").write_bytes(CAPTURE[:24])
    assert go(folder).balanced["received"] == 0
    assert read_capture(folder / "out.pcap").packets == []


@pytest.mark.parametrize("cut", [24 + 10 * RECORD + 7, 24 + 11 * RECORD - 1])
def test_a_capture_that_is_cut_is_good_up_to_there(cut: int, folder: Path) -> None:
    """In a record's header and in its bytes: ten packets, and a word about the rest."""
    (folder / "in.pcap").write_bytes(CAPTURE[:cut])
    ended = go(folder)
    assert ended.balanced["sent"] == 10
    assert "only the first 10 packets can be read" in ended.text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"this is no capture at all, is it?", "in.pcap"),
        (CAPTURE[:20], "in.pcap"),
        (struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 105), "IEEE802_11"),
    ],
    ids=["no byte", "text", "half a header", "wireless"],
)
def test_what_is_no_ethernet_capture_is_refused(content: bytes, why: str, folder: Path) -> None:
    (folder / "in.pcap").write_bytes(content)
    check_refused(go(folder), why, "topology.yaml", "ports.in0")


def test_a_capture_that_is_not_there_is_refused(folder: Path) -> None:
    (folder / "in.pcap").unlink()
    check_refused(go(folder), "no such file: in.pcap", "topology.yaml:5", "fix: correct --in")


def test_what_the_topology_asks_for_has_to_be_given(folder: Path) -> None:
    check_refused(run(folder, "topology.yaml", "--in", "in.pcap"), "$out is not given", "--out")
    check_refused(run(folder, "elsewhere.yaml"), "elsewhere.yaml", "no such file")


# ---- outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--out", "nowhere/out.pcap"], "no such directory"),
        (["--out", "."], "cannot be written"),
        (["--out", "in.pcap"], "in.pcap would be replaced"),
        (["--out", "/dev/full"], "No space left on device"),
        (["--out", "o.pcap", "--json", "nowhere/summary.json"], "cannot write the summary"),
        (["--out", "o.pcap", "--json", "."], "cannot write the summary"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(
    args: list[str], why: str, folder: Path
) -> None:
    check_refused(run(folder, "topology.yaml", "--in", "in.pcap", *args), why)


@pytest.mark.parametrize(
    ("file", "role"),
    [
        ("topology.yaml", "the topology"),
        ("routes.csv", "the route policy"),
        ("sa.key", "a file of the NF nf0"),
        ("in.pcap", "what the port in0 reads"),
        ("out.pcap", "what the port out0 writes"),
        ("link", "what the port in0 reads"),
        ("ttl.py", "the code of the NF nf1"),
        ("ttl.cl", "the code of the NF nf1"),
    ],
)
def test_no_output_replaces_what_a_run_uses(file: str, role: str, folder: Path) -> None:
    """By whatever name; it is refused before the run, and the file stays as it was."""
    (folder / "sa.key").write_text("secret")
    os.link(folder / "in.pcap", folder / "link")
    (folder / "ttl.py").write_text(OWN_PY)
    (folder / "ttl.cl").write_text(OWN_CL)
    nfs = {"nf0": IPSEC, "nf1": {"type": "ttl.py"}}
    write_topology(folder, TOPOLOGY | {"nfs": nfs}, ROWS)
    path = folder / file
    before = path.read_bytes() if path.exists() else None
    for option, what in (("--json", "summary"), ("--report", "report")):
        why = f"{file}: cannot write the {what}: this file is {role}"
        check_refused(go(folder, option, file), why, "fix: name another file")
    assert (path.read_bytes() if path.exists() else None) == before


def test_no_reload_either(folder: Path) -> None:
    """The new topology would write what the summary is to replace."""
    wanted = {"ports": TOPOLOGY["ports"] | {"in0": {"driver": "generator", "rate": 1000}}}
    wanted |= {"nfs": {"nf0": {"type": "forward", "engine": "cpu"}}}
    write_topology(folder, wanted, ROWS)
    args = ("topology.yaml", "--out", "out.pcap", "--json", "o.json", "--no-live")
    with service(folder, *args) as instance:
        instance.until(lambda: instance.name in running(), "its control socket")
        out1 = {"driver": "pcap", "write": "o.json"}
        write_topology(folder, wanted | {"ports": wanted["ports"] | {"out1": out1}}, ROWS)
        with pytest.raises(UserError, match="summary: this file is what the port out1 writes"):
            list(Reply(instance.name, "reload", restart=True))
        assert instance.stop().status == 0
    assert json.loads((folder / "o.json").read_text())["balance"] == 0


def test_outputs_that_are_no_files(folder: Path) -> None:
    check_refused(go(folder, "--report", "."), ".: cannot write the report: this is a directory")
    check_refused(go(folder, "--report", "-"), "cannot write the report")
    (folder / "a").touch()
    (folder / "b").symlink_to("a")
    check_refused(go(folder, "--report", "a", "--json", "b"), "the summary goes there")
    assert go(folder, "--report", "/dev/null").balanced["sent"] == len(PACKETS)


def test_what_cannot_be_written_leaves_what_was_there(folder: Path) -> None:
    """A full disk at the end: the file of yesterday is whole, and nothing lies beside it."""
    path, link = folder / "report.html", folder / "link"
    path.write_text("yesterday")
    path.chmod(0o640)
    link.symlink_to(path)
    files = sorted(folder.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            outputs.write(link, "today" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "yesterday" and sorted(folder.iterdir()) == files
    outputs.write(link, "today")
    assert path.read_text() == "today" and path.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()


def test_a_disk_that_is_full_is_a_counted_drop(folder: Path) -> None:
    """1 MiB may be written to a file, as if the disk were full behind it: the rest is dropped."""
    big = [udp("10.0.0.1", "10.0.0.2", number % 1000, 9, bytes(1400)) for number in range(4000)]
    (folder / "in.pcap").write_bytes(capture(big))
    limit = 3 << 20

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ended = restricted(folder, restrict, "--device", "none")
    summary = ended.summary
    assert summary is not None and "Traceback" not in ended.text, ended.text
    assert "out.pcap: File too large" in ended.text
    assert summary["balance"] == 0 and summary["in_flight"] == 0
    written = read_capture(folder / "out.pcap").packets
    assert written == big[: len(written)] and 0 < len(written) < len(big)
    assert summary["dropped"].keys() == {"port_error"}
    assert summary["sent"] + summary["dropped"]["port_error"] == len(big)
    assert summary["sent"] == len(written)


def restricted(folder: Path, restrict: Callable[[], None], *args: str) -> Ended:
    files = ("--in", "in.pcap", "--out", "out.pcap")
    process = Service(
        folder, "topology.yaml", *files, *args, name="restricted", environment={}, before=restrict
    )
    return process.wait()


# ---- topologies and policies ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "place", "why"),
    [
        ("*,in0,nf1\n", "routes.csv:2", "unknown NF or port 'nf1'"),
        ("*,in1,nf0\n", "routes.csv:2", "unknown NF or port 'in1'"),
        ("*,in0,nf0\n*,nf0,out\n", "routes.csv:3", "unknown NF or port 'out'"),
        ("web,in0,nf0\n", "routes.csv:2", "unknown packet type 'web'"),
        ("*,in0,nf0\n*,nf0,nf0\n", "routes.csv:3", "would go round for ever: nf0 -> nf0"),
        ("*,in0,nf0\n", "routes.csv:2", "but no row leads on"),
        (ROWS + ROWS, "routes.csv:4", "has a row already, on line 2"),
        ("*,in0,a|b\n", "routes.csv:2", "reserved"),
    ],
)
def test_a_mistake_in_the_route_policy_is_refused(
    rows: str, place: str, why: str, folder: Path
) -> None:
    (folder / "routes.csv").write_text(HEADER + rows)
    check_refused(go(folder), place, why)


@pytest.mark.parametrize(
    ("nf", "words"),
    [
        (IPSEC, ["topology.yaml", "sa.key", "no such file"]),
        ({"type": "nids", "rules": "nowhere.rules"}, ["topology.yaml", "nowhere.rules"]),
        ({"type": "proxy"}, ["topology.yaml", "there is no type 'proxy'"]),
        ({"type": "forward", "engine": "fpga"}, ["there is no engine 'fpga'"]),
        ({"type": "forward", "speed": 1}, ["nfs.nf0.speed"]),
    ],
)
def test_a_mistake_in_the_topology_is_refused(
    nf: dict[str, Any], words: list[str], folder: Path
) -> None:
    write_topology(folder, TOPOLOGY | {"nfs": {"nf0": nf}}, ROWS)
    check_refused(go(folder), *words)


@pytest.mark.parametrize("content", ["", "encryption: 00\n", "encryption: " + "0" * 32])
def test_a_broken_key_is_refused_and_not_shown(content: str, folder: Path) -> None:
    write_topology(folder, TOPOLOGY | {"nfs": {"nf0": IPSEC}}, ROWS)
    (folder / "sa.key").write_text(content)
    (folder / "sa.key").chmod(0o600)
    ended = go(folder)
    check_refused(ended, "sa.key")
    assert "0" * 32 not in ended.text


def test_a_cpu_that_may_not_be_used_is_refused(folder: Path) -> None:
    write_topology(folder, TOPOLOGY | {"cores": {"io": [60_000]}}, ROWS)
    check_refused(go(folder), "CPU 60000 may not be used here", "cores.io")


# ---- devices -------------------------------------------------------------------------------------


@pytest.fixture
def no_opencl(folder: Path) -> dict[str, str]:
    """The environment of a process that finds no OpenCL platform. (Where the folder is there but
    empty, pyopencl still finds the runtime that pip has installed.)"""
    return {"OCL_ICD_VENDORS": str(folder / "no-such-folder")}


def test_without_opencl_gpu_nfs_run_on_the_cpu(folder: Path, no_opencl: dict[str, str]) -> None:
    """device: auto, and one warning that says how to get a device."""
    ended = go(folder, **no_opencl)
    summary = ended.balanced
    assert summary["sent"] == len(PACKETS)
    assert summary["device"]["name"] is None and summary["nfs"]["nf0"]["runs_on"] == "cpu"
    assert ended.text.count("warning:") == 1 and "no OpenCL device" in ended.text


@pytest.mark.parametrize("use", ["required", "a-device-of-this-name"])
def test_without_opencl_a_required_device_is_refused(
    use: str, folder: Path, no_opencl: dict[str, str]
) -> None:
    why = "there is no OpenCL device" if use == "required" else "a-device-of-this-name"
    check_refused(go(folder, "--device", use, **no_opencl), why, "device.use")


def test_a_device_without_shared_memory_gets_copies(folder: Path) -> None:
    """No SVM, and nothing but staging left: tier C, launch."""
    settings = {"HUMMINGBIRD_HIDE_SVM": NO_SVM, "HUMMINGBIRD_BINDING": "staged"}
    summary = go(folder, **settings).balanced
    assert summary["sent"] == len(PACKETS)
    assert (summary["device"]["tier"], summary["device"]["executor"]) == ("C", "launch")
    assert summary["device"]["copied_bytes"] > 0
    ended = go(folder, "--executor", "persistent", **settings)
    check_refused(ended, "tier C", "executor: auto")


def test_a_device_without_svm_has_userptr(folder: Path) -> None:
    summary = go(folder, "--executor", "launch", HUMMINGBIRD_HIDE_SVM=NO_SVM).balanced
    assert summary["sent"] == len(PACKETS) and summary["device"]["binding"] == "userptr"


@pytest.mark.parametrize(
    "source", ["this is no program", "__kernel void hb_persistent(__global int *p) { *p = x; }"]
)
def test_a_device_program_that_does_not_compile_is_refused(
    source: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(program, "source", lambda *_: source)
    monkeypatch.chdir(folder)
    args = ["--in", "in.pcap", "--out", "out.pcap", "--executor", "launch", "--name", "broken"]
    assert cli.main(["run", "topology.yaml", *args]) == 2
    errors = capsys.readouterr().err
    assert "the device program does not compile for" in errors and "device: {use: none}" in errors
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert cli.main(["run", "topology.yaml", *args]) == 0, "the name is free again"
