# SPDX-License-Identifier: BSD-3-Clause
"""NFs of the user's own (``type: ./name.py``), through the real data plane, on CPUs and the device.

name.py, name.cl ─┬─ the system's C compiler ── shared object ── CNF ─┐
                  └─ the device's compiler ──── device program ─ GNF ─┴─ the same
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import Result, by_flow, line, run_chain, started, tcp, udp
from nf_helpers import ETHERNET
from scapy.layers.inet import IP
from scapy.utils import rdpcap

from hummingbird import scaffold, topology
from hummingbird.cli import main
from hummingbird.engine import Engine, Wanted
from hummingbird.errors import UserError
from hummingbird.nfs import native, user
from hummingbird.policy import load as load_policy
from hummingbird.testing import run_packets
from hummingbird.testing import udp as plain_udp

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "policies" / "demo" / "branch.pcap"
WAYS: dict[str, dict[str, Any]] = {
    "cpu": {"engine": "cpu"},
    "no device": {"engine": "gpu", "use": "none"},
    "launch": {"engine": "gpu", "executor": "launch"},
    "auto": {"engine": "gpu", "executor": "auto"},
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

TTL_PY = """\
from hummingbird.nfs import Nf, NfTable
def build(params, context):
    return NfTable(rules=[f"ttl {n}" for n in range(256)])
NF = Nf("ttl", build=build)
"""
TTL_CL = """\
static hb_u32 hb_nf_ttl(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    if (hb_ip_version(p) == 4)
        *result = 1 + hb_get8(p, p->l3 + 8);
    return HB_PASS;
}
"""
TTL = {"ttl.py": TTL_PY, "ttl.cl": TTL_CL}


def body(name: str, code: str, before: str = "") -> str:
    """A packet function."""
    head = "hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result"
    return f"{before}static hb_u32 hb_nf_{name}({head})\n{{\n{code}\n}}\n"


def run(
    names: Sequence[str], packets: Any, files: dict[str, str], way: dict[str, Any], **options: Any
) -> Result:
    device = dict(way)
    engine = device.pop("engine")
    source, rows = line(*({"type": f"./{name}.py", "engine": engine} for name in names))
    return run_chain(source, packets, rows, files=files, **options, **device)


# ---- what works ----------------------------------------------------------------------------------


@each_way
def test_a_counter_counts_what_scapy_counts(way: dict[str, Any]) -> None:
    parsed = rdpcap(str(DEMO))
    for number, packet in enumerate(parsed):
        if IP in packet:
            packet[IP].ttl, packet[IP].chksum = number % 256, None
    packets = [bytes(packet) for packet in parsed]
    ttls = Counter(packet[IP].ttl for packet in parsed if IP in packet)
    result = run(["ttl"], packets, TTL, way)
    assert result.packets == packets
    assert result.counters == {"nf0": {f"ttl {ttl}": count for ttl, count in ttls.items()}}
    assert len(ttls) == 256 and sum(ttls.values()) < len(packets)


@each_way
def test_two_own_ones_and_a_built_in_one(way: dict[str, Any]) -> None:
    """in0 -> ttl -> grow -> ttl -> out0: packets grow at both ends."""
    grow = body(
        "grow",
        """    (void)t, (void)arg, (void)result;
    if (!hb_grow_head(p, 4) || !hb_grow_tail(p, 2))
        return HB_DROP(HB_REASON_no_room);
    for (hb_u32 i = 0; i < 12; i++)
        hb_put8(p, i, hb_get8(p, i + 4));
    hb_put32(p, 12, 0x81000007);
    hb_put16(p, p->length - 2, 0xabcd);
    return HB_PASS;""",
    )
    declared = """\
from hummingbird.nfs import Nf, Reads, Writes
NF = Nf("grow", reads=Reads.PACKET, writes=Writes.PACKET, head=4, tail=2)
"""
    packets = [udp("10.0.0.1", "10.0.0.2", 1, n, bytes(n)) for n in range(1, 300)]
    files = TTL | {"grow.py": declared, "grow.cl": grow}
    result = run(["ttl", "grow", "ttl"], packets, files, way)
    tagged = [p[:12] + bytes.fromhex("81000007") + p[12:] + b"\xab\xcd" for p in packets]
    assert result.packets == tagged
    assert result.counters == {name: {"ttl 64": 299} for name in ("nf0", "nf2")}


PORT_PY = """\
import numpy as np
from hummingbird.nfs import Nf, NfParams, NfTable
class Params(NfParams):
    port: int
    gives: str
def build(params, context):
    table = np.array([params.port, context.types[params.gives]], dtype=np.uint32)
    return NfTable(table.view(np.uint8), notes=[f"port {params.port}"])
NF = Nf("port", params=Params, build=build, content_types=lambda params: [params.gives])
"""
PORT_CL = body(
    "port",
    """    (void)arg, (void)result;
    if (p->l4 != HB_NO_LAYER && hb_get16(p, p->l4 + 2) == hb_table32(t, 0))
        return HB_RETYPE(hb_table32(t, 1));
    return HB_PASS;""",
)


@each_way
def test_parameters_tables_and_types(way: dict[str, Any]) -> None:
    """Packets to port 7 become of type `echo`, which goes to a port of its own."""
    device = dict(way)
    nf = {"type": "./port.py", "engine": device.pop("engine"), "port": 7, "gives": "echo"}
    source, rows = line(nf)
    source["ports"]["echo0"] = {"driver": "pcap", "write": "echo.pcap"}
    packets = [tcp("10.0.0.1", "10.0.0.2", 5, n % 10, b"x") for n in range(1000)]
    files = {"port.py": PORT_PY, "port.cl": PORT_CL}
    result = run_chain(source, packets, rows + "echo,nf0,echo0\n", files=files, **device)
    assert result.packets_of("echo0") == packets[7::10]
    assert len(result.packets_of("out0")) == 900


@each_way
def test_a_host_part(way: dict[str, Any]) -> None:
    """prepare() numbers the packets, the packet function writes the number into them, finish()
    drops every third."""
    code = body(
        "stamp",
        """    (void)t;
    hb_put32(p, 42, (hb_u32)arg);
    *result = arg;
    return HB_PASS;""",
    )
    code += """
#ifdef HB_HOST
#define HB_NF_STATE uint64_t
static void number(hb_nf_seat *seat, const uint32_t *handles, uint64_t *arg, uint32_t n)
{
    uint64_t *last = seat->state;
    for (uint32_t i = 0; i < n; i++)
        arg[i] = ++*last;
}
static void choose(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        seat->hits[result[i] % 3]++;
        if (result[i] % 3 == 0)
            verdict[i] = HB_DROP(HB_REASON_nf_action);
    }
}
#define HB_NF_PREPARE number
#define HB_NF_FINISH choose
#endif
"""
    declared = """\
from hummingbird.nfs import Affinity, Nf, NfTable, Writes
NF = Nf("stamp", build=lambda params, context: NfTable(rules=["a", "b", "c"]),
        writes=Writes.HEADER, affinity=Affinity.KEY)
"""
    packets = [udp("10.0.0.1", "10.0.0.2", 1, 2, bytes(16)) for _ in range(999)]
    result = run(["stamp"], packets, {"stamp.py": declared, "stamp.cl": code}, way)
    numbers = [int.from_bytes(packet[42:46], "big") for packet in result.packets]
    assert numbers == [n for n in range(1, 1000) if n % 3]
    assert result.dropped == {"nf_action": 333}
    assert result.counters == {"nf0": {"a": 333, "b": 333, "c": 333}}


@each_way
def test_a_host_part_may_make_packets(way: dict[str, Any]) -> None:
    """finish() sends a copy of what was in front of the packets' payload behind each packet."""
    code = body("twice", "    (void)t, (void)arg, (void)result;\n    return HB_PASS;")
    code += """
#ifdef HB_HOST
#include <string.h>
static void twice(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                  uint32_t *verdict, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *from = hb_header(seat->arena, handles[i]);
        uint32_t made = hb_nf_create(seat, handles[i]);
        if (made == HB_NO_MBUF)
            continue;
        hb_mbuf *to = hb_header(seat->arena, made);
        to->data_len = from->data_len;
        memcpy(hb_data(seat->arena, to), hb_data(seat->arena, from), from->data_len);
        hb_nf_emit(seat, made, from->type);
    }
}
#define HB_NF_FINISH twice
#endif
"""
    files = {"twice.py": 'from hummingbird.nfs import Nf\nNF = Nf("twice")\n', "twice.cl": code}
    packets = [udp("10.0.0.1", "10.0.0.2", 1, n, bytes(16)) for n in range(500)]
    result = run(["twice"], packets, files, way)
    assert Counter(result.packets) == Counter(packets * 2)
    assert result.summary["created"] == 500


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="NOT TESTED on two lcores: one CPU")
def test_on_two_lcores_and_over_a_reload() -> None:
    a, b = sorted(os.sched_getaffinity(0))[:2]
    source, rows = line({"type": "./ttl.py"}, cores={"io": [a], "nf": {"nf0": [a, b]}})
    packets = [udp(f"10.0.{n % 32}.1", "10.9.9.9", 1, 2, b"%d" % n) for n in range(20_000)]
    with started(source, packets, rows, files=TTL) as chain:
        chain.reload(rows)
        chain.wait()
        result = chain.stop()
    assert by_flow(result.packets) == by_flow(packets)
    assert result.counters == {"nf0": {"ttl 64": 20_000}}


def test_the_same_files_are_the_same_nf_and_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, text in TTL.items():
        (tmp_path / name).write_text(text)
    first = user.load(tmp_path / "ttl.py")
    assert user.load(tmp_path / "ttl.py") == first
    (tmp_path / "elsewhere").mkdir()
    for name, text in TTL.items():
        (tmp_path / "elsewhere" / name).write_text(text)
    with monkeypatch.context() as patched:
        patched.setattr(native, "_compile", None)
        assert user.load(tmp_path / "elsewhere" / "ttl.py").native == first.native
    (tmp_path / "ttl.cl").write_text(TTL_CL.replace("1 +", "2 +"))
    assert user.load(tmp_path / "ttl.py").native != first.native


def test_a_topology_loaded_again_is_no_difference(tmp_path: Path) -> None:
    path = written(tmp_path, TTL, "ttl")

    def wanted() -> Wanted:
        top = topology.load(path)
        return Wanted(top, load_policy(top.policy, top.vocabulary()))

    engine = Engine(f"test-own-{os.getpid()}")
    try:
        engine.apply(wanted())
        assert engine.apply(wanted()) == ()
    finally:
        engine.close()


# ---- mistakes ------------------------------------------------------------------------------------


def written(folder: Path, files: dict[str, str], name: str, **fields: Any) -> Path:
    """A topology that runs the NF, from nothing to nowhere."""
    for file, text in files.items():
        (folder / file).write_text(text)
    source, rows = line({"type": f"./{name}.py", **fields})
    source["ports"] = {"in0": {"driver": "generator", "packets": 10}, "out0": {"driver": "sink"}}
    (folder / "routes.csv").write_text("packet_type,current_nf,next_nf\n" + rows)
    text = yaml.safe_dump({"policy": "routes.csv"} | source, sort_keys=False)
    (folder / "t.yaml").write_text(text)
    return folder / "t.yaml"


PLAIN = 'from hummingbird.nfs import Nf\nNF = Nf("mine")\n'
GOOD = body("mine", "    return HB_PASS;")
Files = dict[str, str]
MISTAKES: dict[str, tuple[Files, dict[str, Any], str]] = {
    "no such file": ({}, {}, "t.yaml:10:nfs.nf0.type: no such file: "),
    "no packet function": ({"mine.py": PLAIN}, {}, "mine.cl: the packet function of mine.py is"),
    "no NF": ({"mine.py": "x = 1\n"}, {}, "mine.py: there is no NF here"),
    "NF of another kind": ({"mine.py": "NF = 3\n"}, {}, "mine.py: NF is int, and no Nf(...)"),
    "another name": (
        {"mine.py": PLAIN.replace("mine", "yours"), "mine.cl": GOOD},
        {},
        "mine.py: the NF is called 'yours'",
    ),
    "Python that fails": ({"mine.py": "\n\n1 / 0\n"}, {}, "mine.py:3: ZeroDivisionError: "),
    "Python that is none": ({"mine.py": "NF = Nf(\n"}, {}, "mine.py:1: this is not Python: '(' "),
    "a wrong argument": (
        {"mine.py": 'from hummingbird.nfs import Nf\nNF = Nf("mine", tables=3)\n'},
        {},
        "mine.py:2: TypeError: ",
    ),
    "build() fails": (
        {"mine.py": PLAIN[:-2] + ", build=lambda p, c: [][1])\n", "mine.cl": GOOD},
        {},
        "mine.py:2: IndexError: list index out of range",
    ),
    "build() returns nothing": (
        {"mine.py": PLAIN[:-2] + ", build=lambda p, c: None)\n", "mine.cl": GOOD},
        {},
        "mine.py: build() returned NoneType",
    ),
    "a table of words": (
        {
            "mine.py": "import numpy as np\nfrom hummingbird.nfs import Nf, NfTable\n"
            "NF = Nf('mine', build=lambda p, c: NfTable(np.zeros(4, dtype=np.uint32)))\n",
            "mine.cl": GOOD,
        },
        {},
        "mine.py: the table is 1-dimensional uint32, and not bytes",
    ),
    "a type for types": (
        {"mine.py": PLAIN[:-2] + ", content_types=lambda p: 'odd')\n", "mine.cl": GOOD},
        {},
        "mine.py: content_types() returned 'odd'",
    ),
    "a kind": (
        {"mine.py": PLAIN[:-2] + ", kind=3)\n", "mine.cl": GOOD},
        {},
        "mine.py: kind= is for built-in NFs",
    ),
    "C that is none": (
        {"mine.py": PLAIN, "mine.cl": body("mine", "    hb_u32 x = ;\n    return HB_PASS;")},
        {},
        "mine.cl:3: expected expression before ';' token\n",
    ),
    "an unknown accessor": (
        {"mine.py": PLAIN, "mine.cl": body("mine", "\n    return hb_get64(p, 0);")},
        {},
        "mine.cl:4: implicit declaration of function 'hb_get64'",
    ),
    "no return": (
        {"mine.py": PLAIN, "mine.cl": body("mine", "    hb_get8(p, 0);")},
        {},
        "mine.cl:4: no return statement in function returning non-void\n",
    ),
    "a name misspelt": (
        {"mine.py": PLAIN, "mine.cl": "\n" + body("mime", "    return HB_PASS;")},
        {},
        "mine.cl:2: there is no function hb_nf_mine\n  fix: rename hb_nf_mime",
    ),
    "other arguments": (
        {"mine.py": PLAIN, "mine.cl": "\nstatic hb_u32 hb_nf_mine(hb_packet *p)\n{ return 1; }\n"},
        {},
        "mine.cl:2: conflicting types for 'hb_nf_mine'",
    ),
    "a raw pointer": (
        {"mine.py": PLAIN, "mine.cl": body("mine", "    __global uchar *x;\n    return 1;")},
        {},
        "mine.cl:3: an NF may not use `__global`",
    ),
    "a barrier": (
        {"mine.py": PLAIN, "mine.cl": body("mine", "/*\n*/\n    barrier(0);\n    return 1;")},
        {},
        "mine.cl:5: an NF may not use `barrier`",
    ),
    "writes that are not declared": (
        {"mine.py": PLAIN, "mine.cl": body("mine", "    hb_put8(p, 0, 1);\n    return HB_PASS;")},
        {},
        "mine.py: mine.cl calls hb_put8(), but the NF declares to write nothing",
    ),
    "growth that is not declared": (
        {
            "mine.py": "from hummingbird.nfs import Nf, Reads, Writes\n"
            'NF = Nf("mine", reads=Reads.PACKET, writes=Writes.PACKET)\n',
            "mine.cl": body("mine", "    hb_grow_head(p, 4);\n    return HB_PASS;"),
        },
        {},
        "mine.py: mine.cl calls hb_grow_head(), but the NF declares no head=",
    ),
    "no text": ({"mine.py": PLAIN, "mine.cl": "\n\0"}, {}, "mine.cl:2: a NUL byte"),
    "an unknown parameter": (
        {"mine.py": PLAIN, "mine.cl": GOOD},
        {"limit": 3},
        "t.yaml:11:nfs.nf0.limit: unknown field 'limit'",
    ),
    "an unknown engine": (
        {"mine.py": PLAIN, "mine.cl": GOOD},
        {"engine": "fast"},
        "there is no engine 'fast'",
    ),
}


@pytest.mark.parametrize(("files", "fields", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_error_with_its_place(
    files: Files,
    fields: dict[str, Any],
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = written(tmp_path, files, "mine", **fields)
    assert main(["check", str(path)]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"hummingbird: error: {tmp_path}/"), error
    assert message in error and "\n  fix: " in error and "Traceback" not in error, error
    assert error.count("\n") <= 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("\n    uint32_t x = hb_get32(p, 0);\n    return x ? HB_PASS : HB_PASS;", "uint32_t"),
        ("\n    return __builtin_popcountll(arg) + undefined_on_gpu ? 1 : 1;", "undefined_on_gpu"),
    ],
)
def test_what_only_the_device_refuses_has_its_line_too(
    code: str, message: str, tmp_path: Path
) -> None:
    """C that is no OpenCL C: found when the device program is compiled."""
    before = "#ifndef __OPENCL_VERSION__\nenum { undefined_on_gpu };\n#endif\n"
    files = {"mine.py": PLAIN, "mine.cl": body("mine", code, before)}
    top = topology.load(written(tmp_path, files, "mine", engine="gpu"))
    top.build_tables()
    engine = Engine(f"test-own-{os.getpid()}")
    try:
        with pytest.raises(UserError) as caught:
            engine.apply(Wanted(top, load_policy(top.policy, top.vocabulary())))
    finally:
        engine.close()
    assert (caught.value.path, caught.value.line) == (tmp_path / "mine.cl", 7)
    assert message in caught.value.what


def test_without_a_compiler_there_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert main(["check", str(written(tmp_path, TTL, "ttl"))]) == 2
    error = capfd.readouterr().err
    assert f"{tmp_path}/ttl.cl: there is no C compiler" in error
    assert "apt-get install gcc" in error


def test_names(tmp_path: Path) -> None:
    for name in ("router", "python", "Mine", "my-nf", "1st"):
        (tmp_path / f"{name}.py").write_text(PLAIN)
        with pytest.raises(UserError, match="cannot be the name of an NF"):
            user.load(tmp_path / f"{name}.py")
    other = tmp_path / "other"
    other.mkdir()
    for folder in (tmp_path, other):
        (folder / "mine.py").write_text(PLAIN)
        (folder / "mine.cl").write_text(GOOD)
    source, rows = line({"type": "./mine.py"}, {"type": "other/mine.py"})
    (tmp_path / "routes.csv").write_text("packet_type,current_nf,next_nf\n" + rows)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(source | {"policy": "routes.csv"}))
    with pytest.raises(UserError, match=r"two files of NFs are called mine\.py"):
        topology.load(tmp_path / "t.yaml")


# ---- hummingbird nf new, hummingbird.testing -----------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--python"]], ids=["native", "python"])
def test_what_nf_new_writes_works_at_once(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my nfs"
    assert main(["nf", "new", "first_one", "--folder", str(folder), *options]) == 0
    made = [Path(text.removeprefix("wrote ")) for text in capsys.readouterr().out.splitlines()[:-2]]
    assert sorted(made) == sorted(folder.iterdir()) and len(made) == 5 - len(options)
    top = str(folder / "first_one.yaml")
    assert main(["check", top]) == 0
    name = f"test-new-{os.getpid()}"
    assert main(["run", top, "--no-live", "--name", name]) == 0
    assert "100,000" in capsys.readouterr().out
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout
    assert main(["nf", "new", "first_one", "--folder", str(folder), *options]) == 2
    assert "there is such a file already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["router", "Upper", "a-b", "", "../up", "a" * 41])
def test_nf_new_refuses_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        scaffold.new(name, tmp_path)
    assert caught.value.fix and not [*tmp_path.iterdir()]


def test_nf_new_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        scaffold.new("mine", tmp_path / "file")


def test_run_packets_runs_any_nf(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text('evil: "evil"\n')
    packets = [plain_udp(b"evil"), plain_udp(b"good"), ETHERNET + b"\x08\x06" + bytes(50)]
    outcome = run_packets(tmp_path, {"type": "forward"}, packets)
    assert outcome.packets == packets and not outcome.dropped
    assert IP(packets[0][14:]).ttl == 64
    assert IP(bytes(IP(packets[0][14:]))).chksum == IP(packets[0][14:]).chksum
