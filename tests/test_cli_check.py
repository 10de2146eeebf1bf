# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird check` and `hummingbird explain`, and what all subcommands have in common.

arguments ── cli ── topology, policy, NF tables ── text on stdout, exit status 0
                         └── the user's mistakes ── one message on stderr, exit status 2
"""

import os
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import process
import pytest
from chain import run_chain
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, RawPcapReader, wrpcap

from hummingbird import __version__, cli, policy, topology
from hummingbird.capture import read_packet
from hummingbird.dataplane.plane import cpu_engines
from hummingbird.errors import UserError
from hummingbird.explain import classify, flow_packet
from hummingbird.nfs import load

POLICIES = Path(__file__).parent.parent / "policies"
GATEWAY = POLICIES / "branch_gateway.yaml"
CAPTURE = POLICIES / "demo" / "branch.pcap"
SUBCOMMANDS = ("run", "check", "doctor", "explain", "devices", "clean")


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of policies/, which is the working directory; for 4 CPUs, whatever there are."""
    shutil.copytree(POLICIES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "demo" / "ipsec.key").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    return tmp_path


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that succeeds prints."""
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that the user is wrong about."""
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("hummingbird: error: ") and "\n  fix: " in err
    return err


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


# --- check ----------------------------------------------------------------------------------------


def test_check_shows_paths_and_placement(
    policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = command(capsys, "check", "branch_gateway.yaml")
    assert out.split("\n") == [
        "branch_gateway.yaml: ok",
        "",
        "TYPE   RULES     PATH",
        "web    line 47   in0 -> nids0 -> ipsec0 -> router0 -> out0",
        "                   suspicious: nids0 -> drop",
        "voice  line 48   in0 -> ipsec0 -> router0 -> out0",
        "video  line 49   in0 -> ipsec0 -> router0 -> out0",
        "other  the rest  in0 -> router0 -> out0",
        "",
        "NODE     KIND    RUNS ON",
        "in0      pcap    CPU 1                    reads $in",
        "out0     pcap    CPU 1                    writes $out",
        "nids0    nids    device, syncer on CPU 2",
        "ipsec0   ipsec   device, syncer on CPU 2",
        "router0  router  CPU 1",
        "",
        "nids0: 6 rules loaded, 6 patterns; 0 skipped",
        "ipsec0: security associations: 1 outbound, 0 inbound; policies: 1",
        "router0: 20 IPv4 and 0 IPv6 routes, 5 next hops",
        "Device: auto, executor auto. CPUs left to it: 0, 3.",
        "",
    ]


def test_check_shows_nfs_that_no_packet_comes_to(
    policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(Path("paper_static.csv"), "*,ipsec0,nids0", "*,ipsec0,router0")
    out = command(capsys, "check", "paper_static.yaml")
    assert re.search(r"^nids0 +nids +device.*no packet comes here$", out, re.MULTILINE)


@pytest.mark.parametrize(("nf", "best"), [("nids0", "hyperscan"), ("ipsec0", "ipsec_mb")])
def test_auto_takes_the_fastest_engine_and_says_which(
    nf: str, best: str, policies: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`check`, the start of a run, and its summary; the example has engine: gpu."""
    if best not in [e.name for e in cpu_engines(load(nf.rstrip("0")).kind) if e.usable]:
        pytest.skip(f"NOT TESTED: engine {best} is not built in or not usable here")
    path = Path("branch_gateway.yaml")
    head, place, rest = path.read_text().partition(f"  {nf}:")
    path.write_text(head + place + rest.replace("engine: gpu", "engine: auto", 1))
    assert cli.main(["check", str(path)]) == 0
    assert re.search(rf"^{nf} .* CPU \d, {best}$", capfd.readouterr().out, re.MULTILINE)
    ended = process.run(tmp_path, path, "--in", CAPTURE, "--out", "out.pcap", "--device", "none")
    assert ended.balanced["nfs"][nf]["engine"] == best
    assert f"{nf} by {best}" in ended.text


def test_check_shows_what_ports_do(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = command(capsys, "check", "forward.yaml")
    assert re.search(r"^gen0 .* makes packets for ever of 64/594/1514 bytes$", out, re.MULTILINE)
    assert out.endswith("\nNo NF uses the device.\n")
    change(Path("forward.yaml"), "generator,", "generator, packets: 10k,")
    assert "makes 10,000 packets of 64/594/1514 bytes" in command(capsys, "check", "forward.yaml")


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_check_accepts_what_is_shipped(
    policies: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = command(capsys, "check", path.name)
    assert "\x1b" not in out and max(map(len, out.split("\n"))) <= 80


@pytest.mark.parametrize(
    ("file", "old", "new", "place"),
    [
        ("branch_gateway.yaml", "engine: cpu", "engin: cpu", "branch_gateway.yaml:36:nfs.router0"),
        ("branch_gateway.yaml", "demo/routes", "demo/ruotes", "branch_gateway.yaml:37:nfs.router0"),
        ("branch_gateway.yaml", ": 0x1001", ": 5", "branch_gateway.yaml:26:nfs.ipsec0.sas.gateway"),
        ("branch_gateway.csv", "voice,in0,ipsec0", "voice,in0,ipsc0", "branch_gateway.csv:9:next"),
        ("branch_gateway.csv", "*,ipsec0,router0", "", "branch_gateway.csv:6: packets of type web"),
        ("demo/web.rules", 'content:"jndi', "content:jndi", "demo/web.rules:8:"),
        ("demo/routes.csv", "192.0.2.1/32,gateway", "192.0.2.1/32,gatweay", "demo/routes.csv:17:"),
        ("demo/ipsec.key", "\nencryption:", "\nencription:", "demo/ipsec.key:5:"),
    ],
)
def test_check_names_the_line_of_a_mistake_in_any_file(
    policies: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    old: str,
    new: str,
    place: str,
) -> None:
    change(Path(file), old, new)
    assert cli.main(["check", "branch_gateway.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"hummingbird: error: {place}")


def test_check_works_on_a_terminal(policies: Path) -> None:
    """The same text, with a line under the headers; `script` gives it a terminal of 80 columns."""
    if shutil.which("script") is None:
        pytest.skip("NOT TESTED on a terminal: no script(1); apt-get install bsdutils")
    call = f"stty cols 80; {sys.executable} -m hummingbird.cli check forward.yaml"
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(POLICIES.parent)}
    done = subprocess.run(
        ["script", "-qec", call, "/dev/null"], capture_output=True, text=True, env=environment
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert done.returncode == 0 and "\x1b[1m" in done.stdout
    assert "gen0 -> forward0 -> sink0" in plain and "────" in plain
    assert max(map(len, plain.splitlines())) <= 80


# --- explain --------------------------------------------------------------------------------------


def test_explain_names_the_lines_that_decide(
    policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = "tcp 10.1.0.10:4000 -> 203.0.113.10:80"
    out = command(capsys, "explain", "branch_gateway.yaml", "--flow", flow)
    assert out.split("\n") == [
        "tcp 10.1.0.10:4000 -> 203.0.113.10:80",
        "type web: rule at branch_gateway.yaml:47",
        "",
        "in0     -> nids0    branch_gateway.csv:5   web,in0,nids0",
        "nids0   -> ipsec0   branch_gateway.csv:6   web,nids0,ipsec0",
        "  on a match nids0 makes it suspicious:",
        "    nids0   -> drop     branch_gateway.csv:7   suspicious,nids0,drop",
        "ipsec0  -> router0  branch_gateway.csv:13  *,ipsec0,router0",
        "router0 -> out0     branch_gateway.csv:14  *,router0,out0",
        "",
    ]


@pytest.mark.parametrize(
    ("flow", "decided", "last"),
    [
        ("tcp 203.0.113.10:443->10.1.0.11:9", "type web: rule at branch_gateway.yaml:47", "out0"),
        ("udp 10.1.0.10:16399 -> 1.2.3.4:1", "type voice: rule at branch_gateway.yaml:48", "out0"),
        ("udp 1.2.3.4:1 -> 10.1.0.10:16400", "type video: rule at branch_gateway.yaml:49", "out0"),
        ("udp 10.1.0.10:80 -> 1.2.3.4:80", "type other: no rule of branch_gateway.yaml", "out0"),
        ("icmp 10.1.0.10 -> 1.2.3.4", "type other: no rule", "out0"),
        ("sctp 10.1.0.10:80 -> 1.2.3.4:80", "type other: no rule", "out0"),
        ("47 10.1.0.10 -> 1.2.3.4", "type other: no rule", "out0"),
        ("tcp [2001:db8::1]:80 -> [2001:db8::2]:1", "type web: rule", "out0"),
        ("icmpv6 2001:db8::1 -> [2001:db8::2]", "type other: no rule", "out0"),
    ],
)
def test_explain_a_flow(
    policies: Path, capsys: pytest.CaptureFixture[str], flow: str, decided: str, last: str
) -> None:
    out = command(capsys, "explain", "branch_gateway.yaml", "--flow", flow).strip().split("\n")
    assert out[1].startswith(decided) and re.search(rf"-> {last} ", out[-1])


@pytest.mark.parametrize(
    ("flow", "what"),
    [
        ("tcp 10.1.0.10:1 203.0.113.10:80", "is no flow"),
        ("tcp 10.1.0.10 -> 203.0.113.10:80", "a port is missing behind 10.1.0.10"),
        ("icmp 10.1.0.10 -> 203.0.113.10:80", "a port is not possible behind 203.0.113.10"),
        ("tcp 10.1.0.10:1 -> 203.0.113.10:65536", "65536 is no port"),
        ("tcp 10.1.0.1000:1 -> 203.0.113.10:65", "is no address"),
        ("tcp 2001:db8::1:80 -> [2001:db8::2]:80", "a port is missing behind 2001:db8::1:80"),
        ("tcp [2001:db8::1]:80 -> 10.1.0.1:80", "from IPv4 to IPv6"),
        ("tpc 10.1.0.10:1 -> 203.0.113.10:80", "'tpc' is no protocol"),
        ("256 10.1.0.10 -> 203.0.113.10", "'256' is no protocol"),
        ("", "is no flow"),
    ],
)
def test_explain_refuses_what_is_no_flow(
    capsys: pytest.CaptureFixture[str], flow: str, what: str
) -> None:
    assert what in refusal(capsys, "explain", str(GATEWAY), "--flow", flow)


def test_the_packet_of_a_flow_is_one() -> None:
    """scapy sees what was asked for."""
    packet = Ether(flow_packet("udp 10.1.0.10:4000 -> 203.0.113.10:53"))
    assert (packet[IP].src, packet[IP].dst, packet[IP].len) == ("10.1.0.10", "203.0.113.10", 28)
    assert (packet[UDP].sport, packet[UDP].dport) == (4000, 53)


def test_explain_a_packet_says_may(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = topology.load("branch_gateway.yaml")
    packets = [data for data, _ in RawPcapReader(str(CAPTURE))]
    number = next(n for n, data in enumerate(packets) if classify(wanted, data).type == "web")
    place = f"demo/branch.pcap:{number + 1}"
    out = command(capsys, "explain", "branch_gateway.yaml", "--packet", place)
    assert out.startswith(f"packet {place}, {len(packets[number])} bytes\ntype web: rule at ")
    assert "\n  nids0 may make it suspicious:\n" in out


def test_explain_tells_types_as_a_run_counts_them(tmp_path: Path) -> None:
    """All packets of the demo capture, judged by explain and by a run without any NF."""
    ports = "ports: {in0: {driver: pcap, read: $in}, out0: {driver: sink}}\n"
    types = GATEWAY.read_text().partition("\ntypes:")[2].partition("\n")[2]
    source = f"{ports}types:\n{types}"
    (tmp_path / "t.yaml").write_text(f"policy: r.csv\n{source}")
    (tmp_path / "r.csv").write_text("packet_type,current_nf,next_nf\n*,in0,out0\n")
    wanted = topology.load(tmp_path / "t.yaml")
    told = Counter(classify(wanted, data).type for data, _ in RawPcapReader(str(CAPTURE)))
    assert told == run_chain(source, CAPTURE, "*,in0,out0\n").type_packets()
    assert min(told["web"], told["voice"], told["video"], told["other"]) > 0


def test_explain_a_packet_that_is_dropped_at_once(
    policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packet = bytes(Ether(dst="02:00:00:00:00:01") / IP() / UDP(dport=80) / bytes(100))
    wrpcap("cut.pcap", [Ether(packet[:60])])
    out = command(capsys, "explain", "branch_gateway.yaml", "--packet", "cut.pcap:1")
    assert out.split("\n")[1].startswith("dropped when it comes in: truncated: ")


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("demo/branch.pcap", "names no packet"),
        ("demo/branch.pcap:0", "names no packet"),
        ("demo/branch.pcap:x", "names no packet"),
        ("demo/branch.pcap:100000", "there is no packet 100000; the capture has 1"),
        ("none.pcap:1", "none.pcap: cannot be read: No such file"),
        ("demo/routes.csv:1", "demo/routes.csv: this is no capture"),
        (".:1", "cannot be read: Is a directory"),
    ],
)
def test_explain_refuses_what_is_no_packet(
    policies: Path, capsys: pytest.CaptureFixture[str], place: str, what: str
) -> None:
    assert what in refusal(capsys, "explain", "branch_gateway.yaml", "--packet", place)


@pytest.mark.parametrize("form", ["pcap", "big-endian nanoseconds", "pcapng"])
def test_captures_of_every_form_are_read(tmp_path: Path, form: str) -> None:
    packets = [bytes([number]) * (60 + number) for number in range(5)]
    path = tmp_path / "in.pcap"
    if form == "pcapng":
        writer = PcapNgWriter(str(path))
        for packet in packets:
            writer.write(Ether(packet))
        writer.close()
    elif form == "pcap":
        wrpcap(str(path), [Ether(packet) for packet in packets])
    else:
        records = [struct.pack(">IIII", 0, 0, len(p), len(p)) + p for p in packets]
        head = struct.pack(">IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
        path.write_bytes(head + b"".join(records))
    assert [read_packet(path, number + 1) for number in range(5)] == packets
    with pytest.raises(UserError, match="there is no packet 6; the capture has 5"):
        read_packet(path, 6)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A block of pcapng."""
    padded = body + bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(padded) + 12)
    return struct.pack(order + "I", kind) + length + padded + length


@pytest.mark.parametrize("order", ["<", ">"])
def test_blocks_of_pcapng(tmp_path: Path, order: str) -> None:
    """Two sections, interfaces of two kinds, and packets without an interface or a time."""
    section = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    raw_ip = block(1, struct.pack(order + "HHI", 101, 0, 0), order)
    ethernet = block(1, struct.pack(order + "HHI", 1, 0, 62), order)
    simple = block(3, struct.pack(order + "I", 100) + b"s" * 62, order)
    unknown = block(0xBAD, b"skip me", order)
    second = block(6, struct.pack(order + "IIIII", 1, 0, 0, 61, 90) + b"e" * 61, order)
    path = tmp_path / "in.pcapng"
    path.write_bytes(section + ethernet + simple + unknown + section + raw_ip + ethernet + second)
    assert read_packet(path, 1) == b"s" * 62
    assert read_packet(path, 2) == b"e" * 61


@pytest.mark.parametrize(
    ("packet", "what"),
    [
        (block(6, struct.pack("<IIIII", 1, 0, 0, 60, 60) + bytes(60)), "of an unknown interface"),
        (block(6, struct.pack("<IIIII", 0, 0, 0, 61, 61) + bytes(60)), "of impossible length"),
        (block(6, struct.pack("<III", 0, 0, 0)), "fix"),
        (struct.pack("<III", 6, 8, 0), "a block of impossible length"),
        (struct.pack("<III", 6, 34, 0) + bytes(30), "a block of impossible length"),
        (struct.pack("<III", 6, 1 << 30, 0), "a record of impossible length"),
        (struct.pack("<III", 6, 64, 0), "the capture is cut"),
    ],
)
def test_damaged_blocks_of_pcapng(tmp_path: Path, packet: bytes, what: str) -> None:
    section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    path = tmp_path / "in.pcapng"
    path.write_bytes(section + block(1, struct.pack("<HHI", 1, 0, 0)) + packet)
    with pytest.raises(UserError, match=what):
        read_packet(path, 1)


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_capture_that_is_not_of_ethernet(tmp_path: Path, form: str) -> None:
    path = tmp_path / "in.pcap"
    if form == "pcap":
        path.write_bytes(
            struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
            + struct.pack("<IIII", 0, 0, 20, 20)
            + bytes(20)
        )
    else:
        section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        packet = block(6, struct.pack("<IIIII", 0, 0, 0, 20, 20) + bytes(20))
        path.write_bytes(section + block(1, struct.pack("<HHI", 101, 0, 0)) + packet)
    with pytest.raises(UserError, match="link type 101 instead of Ethernet"):
        read_packet(path, 1)


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_damaged_captures_are_refused(tmp_path: Path, form: str) -> None:
    """Cut anywhere, or with any byte changed: a packet or a UserError."""
    path = tmp_path / "in.pcap"
    writer = PcapNgWriter(str(path)) if form == "pcapng" else None
    packets = [Ether(bytes([number]) * 60) for number in range(2)]
    if writer:
        for packet in packets:
            writer.write(packet)
        writer.close()
    else:
        wrpcap(str(path), packets)
    whole = path.read_bytes()
    damaged = [whole[:at] for at in range(len(whole))]
    damaged += [
        whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(len(whole))
    ]
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            assert len(read_packet(path, 2)) <= 0xFFFF
        except UserError as error:
            refused += 1
            assert error.fix and error.path == path
    assert refused > len(whole) / 2


# --- what all subcommands have in common ----------------------------------------------------------


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"hummingbird {__version__}\n"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_ends_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    _, _, example = capsys.readouterr().out.partition("\nexample:\n")
    assert example.startswith(f"  hummingbird {name}")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert f"    {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "COMMAND"),
        (["chekc"], "invalid choice"),
        (["check"], "TOPOLOGY"),
        (["explain", "t.yaml"], "--flow"),
        (["explain", "t.yaml", "--flow", "x", "--packet", "y"], "not allowed with"),
        (["run", "t.yaml", "--duration", "0"], "is no time; write seconds"),
        (["run", "t.yaml", "--duration", "nan"], "is no time; write seconds"),
        (["run", "t.yaml", "--name", "../x"], "is no name"),
        (["run", "t.yaml", "--executor", "gpu"], "invalid choice"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2 and what in capsys.readouterr().err


def test_run_needs_the_files_that_the_topology_asks_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    err = refusal(capsys, "run", str(GATEWAY))
    assert "ports.in0.read: $in is not given" in err and "--in FILE" in err


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(policy, "load", interrupt)
    assert cli.main(["check", str(GATEWAY)]) == 130


@pytest.mark.parametrize("arguments", [["check", str(POLICIES / "forward.yaml")], ["--help"]])
def test_a_closed_pipe_is_borne_in_silence(arguments: list[str]) -> None:
    """As with `hummingbird check ... | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "hummingbird.cli", *arguments],
            stdout=out,
            stderr=subprocess.PIPE,
            cwd=POLICIES.parent,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    "arguments, unbuffered",
    [
        (["check", str(POLICIES / "forward.yaml")], ""),
        (["check", str(POLICIES / "forward.yaml")], "1"),
        (["doctor"], ""),
        (["--help"], ""),
    ],
)
def test_a_full_disk_is_one_error(arguments: list[str], unbuffered: str) -> None:
    """As with `hummingbird check ... > FILE` there: while it writes, or at its end."""
    with open("/dev/full", "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "hummingbird.cli", *arguments],
            stdout=out,
            stderr=subprocess.PIPE,
            cwd=POLICIES.parent,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
        )
    what = "hummingbird: error: standard output cannot be written: No space left on device\n  fix: "
    assert done.returncode == 2 and done.stderr.startswith(what), done.stderr
    assert done.stderr.count("\n") == 2


def test_nobody_hears_of_an_error() -> None:
    with open("/dev/full", "wb") as full:
        call = [sys.executable, "-m", "hummingbird.cli", "check", "nothing.yaml"]
        done = subprocess.run(call, stdout=full, stderr=full, cwd=POLICIES.parent)
    assert done.returncode == 2


def test_a_file_name_may_be_any_bytes(tmp_path: Path) -> None:
    for name in ("forward.yaml", "forward.csv"):
        shutil.copy(POLICIES / name, tmp_path)
    path = bytes(tmp_path) + b"/caf\xe9\x1b.yaml"
    os.rename(tmp_path / "forward.yaml", path)
    call = [sys.executable, "-m", "hummingbird.cli", "check", path]
    done = subprocess.run(call, capture_output=True, cwd=POLICIES.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"caf\\udce9" in done.stdout
