# SPDX-License-Identifier: BSD-3-Clause
"""type: python, through the real data plane: a function of the user's on bursts of packets.

in0 ── [ ... ] ── nf0: process(burst), in a thread of its own ── out0
"""

from __future__ import annotations

import math
import os
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from chain import Result, by_flow, check_balance, line, run_chain, started, tcp, udp
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from hummingbird import engine as engines
from hummingbird import topology
from hummingbird.cli import main
from hummingbird.dataplane.plane import reasons
from hummingbird.errors import UserError
from hummingbird.nfs import python, userfile
from hummingbird.nfs.burst import HEADER
from hummingbird.telemetry.summary import summarise

ROOT = Path(__file__).parent.parent
HEAD = """\
import os, sys, time
import numpy as np
from hummingbird.nfs.burst import DROP, PASS, Burst, drop
def process(burst):
"""
FIRST = HEAD.count("\n") + 1
"""The line on which a body begins."""


def function(body: str) -> dict[str, str]:
    return {"nf.py": HEAD + "".join(f"    {text}\n" for text in body.splitlines())}


def nf(*types: str, **fields: Any) -> dict[str, Any]:
    return {"type": "python", "file": "nf.py", "types": list(types), **fields}


def run(body: str, packets: list[bytes], *types: str, **options: Any) -> Result:
    source, rows = line(nf(*types))
    return run_chain(source, packets, rows, files=function(body), **options)


def numbered(count: int, flows: int = 16) -> list[bytes]:
    """Packets of several flows, each with its number in its payload."""
    return [
        udp(f"10.0.{n % flows}.1", "10.9.9.9", 4000, 53, struct.pack(">I", n).ljust(16 + n % 64))
        for n in range(count)
    ]


# ---- what it sees and says -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 255, 256, 257, 20_000])
def test_packets_come_out_as_they_came(count: int) -> None:
    packets = numbered(count)
    assert run("return burst.verdicts()", packets).packets == packets


def test_headers_and_frames_are_those_of_the_packets() -> None:
    """The function writes what it reads of a packet into its payload, which comes out."""
    body = """
assert not burst.headers.flags.writeable and not burst.slots.flags.writeable
fields = {n: burst.column(n) for n in ("l3", "l4", "protocol", "serial", "time_ns", "length")}
assert (fields["length"] == burst.lengths).all()
assert (burst.headers["offset"][burst.slots] == burst.offsets).all()
for i in range(len(burst)):
    packet = burst.packet(i)
    assert packet.base is not None and packet.size == burst.lengths[i]
    words = [int(fields[n][i]) for n in ("l3", "l4", "protocol", "serial", "time_ns")]
    packet[-32:] = np.array(words[:4], dtype=">u4").view("u1").tolist() + [0] * 16
    packet[-8:] = np.array(words[4:], dtype=">u8").view("u1")
return burst.verdicts()"""
    sent = [
        udp("10.0.0.1", "10.0.0.2", 1, 2, bytes(40)),
        tcp("10.0.0.1", "10.0.0.2", 1, 2, bytes(40)),
    ]
    result = run(body, sent * 10, times=[5_000_000_007 * (n + 1) for n in range(20)])
    assert not result.dropped
    for number, packet in enumerate(result.packets):
        l3, l4, protocol, serial = struct.unpack(">4I", packet[-32:-16])
        assert (l3, l4, protocol) == (14, 34, 17 if number % 2 == 0 else 6)
        assert serial == number + 1
        assert struct.unpack(">Q", packet[-8:]) == (5_000_000_007 * (number + 1),)
        assert packet[:-32] == sent[number % 2][:-32]


def test_bytes_at_is_what_slices_of_the_packets_are() -> None:
    """Each packet's bytes by bytes_at(), against plain Python; those behind the end are 0."""
    body = """
for at in (0, 12, 60):
    found = burst.bytes_at(at, 90)
    for i in range(len(burst)):
        expected = burst.packet(i).tobytes()[at : at + 90].ljust(90, bytes(1))
        assert found[i].tobytes() == expected
own = burst.bytes_at(burst.lengths.astype(int) - 2, 4)
ends = (burst.packet(i).tobytes()[-2:] + bytes(2) for i in range(len(burst)))
assert own.tobytes() == b"".join(ends)
return burst.verdicts()"""
    packets = numbered(1000)
    assert run(body, packets).packets == packets


def test_verdicts_by_packet() -> None:
    """Pass, drop, drop for a reason, re-type: by the packet's number modulo 4."""
    source, rows = line(nf("odd"))
    source["ports"]["odd0"] = {"driver": "pcap", "write": "odd.pcap"}
    body = """
number = burst.bytes_at(42, 4) @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
choices = np.array([PASS, DROP, drop("ttl_expired"), burst.retype("odd")])
return choices[number % 4]"""
    packets = numbered(4000)
    rows += "odd,nf0,odd0\n"
    result = run_chain(source, packets, rows, files=function(body))
    assert result.packets_of("out0") == packets[::4]
    assert result.packets_of("odd0") == packets[3::4]
    assert result.dropped == {"nf_action": 1000, "ttl_expired": 1000}
    assert result.summary["nfs"]["nf0"]["retyped"] == 1000


def test_a_sticky_type_holds_for_the_flow() -> None:
    """What follows the packet with an X goes in0 -> late0, once all before it are through."""
    source, rows = line(nf("late", sticky="flow"))
    source["ports"]["in0"] = {"driver": "generator", "packets": 5000, "flows": 4}
    source["ports"] |= {"late0": {"driver": "sink"}, "out0": {"driver": "sink"}}
    body = "return burst.verdicts(burst.retype('late'))"
    result = run_chain(source, None, rows + "late,in0,late0\n", files=function(body))
    nf0, late = (result.summary[part][n] for part, n in (("nfs", "nf0"), ("ports", "late0")))
    assert 0 < nf0["packets"] < 5000 and nf0["packets"] + late["sent"] == 5000


def test_the_header_is_documented_field_by_field() -> None:
    text = (Path(__file__).parent.parent / "docs" / "write-an-nf.md").read_text()
    assert HEADER.itemsize == 64
    for name in HEADER.names or ():
        assert f"`{name}`" in text, name


def test_each_function_imports_what_lies_beside_it(tmp_path: Path) -> None:
    """Two folders, each with a helper.py; and a random.py that nobody gets instead of Python's."""
    text = "import random\nimport helper\nassert random.random\nWHO = helper.WHO\n"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "random.py").write_text("")
        (tmp_path / name / "nf.py").write_text(text)
        (tmp_path / name / "helper.py").write_text(f"WHO = {name!r}\n")
    loaded = [userfile.load(tmp_path / name / "nf.py") for name in ("a", "b", "a")]
    assert [module.WHO for module in loaded] == ["a", "b", "a"]
    assert "helper" not in sys.modules and str(tmp_path / "a") not in sys.path


# ---- where it runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [{"use": "none"}, {"executor": "launch"}, {"executor": "auto"}])
def test_between_gpu_and_cpu(device: dict[str, str]) -> None:
    """in0 -> gpu -> python -> gpu -> cpu -> out0; without a device the same."""
    packets = numbered(5000)
    source, rows = line("gpu", nf(), "gpu", "cpu")
    body = "return np.where(burst.lengths % 2 == 0, PASS, DROP)"
    result = run_chain(source, packets, rows, files=function(body), **device)
    assert result.packets == [packet for packet in packets if len(packet) % 2 == 0]


needs_two = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="NOT TESTED on two lcores: there is one CPU"
)


@needs_two
def test_two_lcores_serve_one_function() -> None:
    """in0 on one lcore, nf0 on two: each flow in order, every packet once."""
    a, b = sorted(os.sched_getaffinity(0))[:2]
    source, rows = line(nf(), cores={"io": [a], "nf": {"nf0": [a, b]}})
    packets = numbered(20_000)
    result = run_chain(source, packets, rows, files=function("return burst.verdicts()"))
    assert by_flow(result.packets) == by_flow(packets)


def test_two_functions_in_a_row_and_a_reload() -> None:
    """in0 -> nf0 -> nf1 -> out0, and after a reload in0 -> nf1 -> out0."""
    source, rows = line(nf(), nf())
    source["ports"] = {"in0": {"driver": "generator"}, "out0": {"driver": "sink"}}
    with started(source, None, rows, files=function("return burst.verdicts()")) as chain:
        chain.until(lambda: chain.counters("out0")["out_packets"] > 2000, what="packets")
        chain.reload("*,in0,nf1\n*,nf1,out0\n*,nf0,drop\n")
        before = int(chain.counters("nf0")["in_packets"])
        sent = int(chain.counters("out0")["out_packets"])
        chain.until(lambda: chain.counters("out0")["out_packets"] > sent + 2000, what="more")
        result = chain.stop()
    assert result.summary["policy_version"] == 2 and not result.dropped
    assert int(result.snapshot.nodes[2]["in_packets"]) <= before + 1024


def test_no_work_no_cpu_time() -> None:
    """A thread that waits for packets sleeps."""
    source, rows = line(nf())
    source["ports"]["in0"] = {"driver": "generator", "rate": 20, "packets": 100_000}
    with started(source, None, rows, files=function("return burst.verdicts()")) as chain:
        chain.until(lambda: chain.counters("out0")["out_packets"] > 2, what="packets")
        host: Any = chain.engine.hosts["nf0"]
        clock = time.pthread_getcpuclockid(host._thread.ident)
        began, used = time.monotonic(), time.clock_gettime(clock)
        chain.until(lambda: chain.counters("out0")["out_packets"] > 12, what="packets")
        share = (time.clock_gettime(clock) - used) / (time.monotonic() - began)
        chain.stop()
    assert share < 0.1


# ---- overload and the end ------------------------------------------------------------------------


def test_a_slow_function_holds_up_a_source_that_can_wait() -> None:
    packets = numbered(3000)
    assert run("time.sleep(0.01)\nreturn burst.verdicts()", packets).packets == packets


def test_its_full_ring_is_a_counted_drop() -> None:
    source, rows = line(nf(), memory={"queue": 64})
    source["ports"]["in0"] = {"driver": "generator", "packets": 20_000, "rate": 1_000_000}
    source["ports"]["out0"] = {"driver": "sink"}
    body = "time.sleep(0.005)\nreturn burst.verdicts()"
    result = run_chain(source, None, rows, files=function(body))
    assert set(result.dropped) == {"node_full"} and result.dropped["node_full"] > 1000
    assert result.summary["nfs"]["nf0"]["dropped"] == result.dropped["node_full"]


def test_packets_in_its_hands_end_as_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that never returns: the drain runs out, its packets are dropped and counted, and
    the memory stays for as long as it works on it."""
    monkeypatch.setattr(python, "END_S", 0.1)
    source, rows = line("cpu", nf(), "cpu")
    body = """
while not os.path.exists(__file__ + ".go"):
    time.sleep(0.001)
burst.frames[burst.rows] = 1
open(__file__ + ".over", "w").close()
return burst.verdicts()"""
    with started(source, numbered(500), rows, files=function(body)) as chain:
        running = chain.engine.running
        assert running is not None
        top, kept = running.topology, len(engines._in_use_for_good)
        chain.until(lambda: chain.counters("nf1")["in_packets"] == 500, what="packets")
        assert chain.engine.stop(drain_ms=1000) == 500
        summary = summarise(chain.engine.view(), chain.engine.counters(), 1.0)
        check_balance(top, chain.engine.reader().snapshot(), summary)
        assert summary["dropped"] == {"shutdown": 500}
        assert summary["nfs"]["nf1"]["dropped"] == 500
        assert chain.engine.plane.count_free() == top.memory.mbufs
        thread = chain.engine.hosts["nf1"]._thread  # type: ignore[attr-defined]
        chain.engine.close()
        assert len(engines._in_use_for_good) == kept + 1
        (top.base / "nf.py.go").touch()
        thread.join(10)
        assert not thread.is_alive() and (top.base / "nf.py.over").exists()


def test_views_that_a_function_keeps_stay_readable() -> None:
    body = "sys.kept_by_test = burst\nreturn burst.verdicts()"
    kept = len(engines._in_use_for_good)
    run(body, numbered(300))
    assert len(engines._in_use_for_good) == kept + 1
    burst = sys.__dict__.pop("kept_by_test")
    assert burst.headers["length"].sum() > 0 and burst.frames[burst.rows].any()


# ---- mistakes ------------------------------------------------------------------------------------

FAILURES = {
    "raise ValueError('no such thing')": "ValueError: no such thing",
    "return": "TypeError: it returned nothing",
    "return np.zeros(3, dtype=int)": "TypeError: it returned int64 of shape (3,)",
    "return np.ones(len(burst))": "TypeError: it returned float64 of shape",
    "return burst.lengths > 60": "TypeError: it returned bool",
    "return burst.verdicts(burst.retype('none'))": "'none' is none of this NF's types: []",
    "return burst.verdicts(drop('whim'))": "there is no drop reason 'whim'",
    "burst.headers['type'] = 1": "read-only",
    "sys.exit(3)": "SystemExit: 3",
    "return burst.frames[70000000]": "IndexError",
}


@pytest.mark.parametrize(("body", "message"), FAILURES.items())
def test_a_failure_drops_its_burst_and_names_the_line(
    body: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The first packet's burst passes, all later ones fail."""
    check = "if burst.column('serial')[0] == 1:\n    return burst.verdicts()\n"
    began = time.monotonic()
    result = run(check + body, numbered(3000))
    took = time.monotonic() - began
    passed = len(result.packets)
    assert 0 < passed <= 256 and result.dropped == {"python_error": 3000 - passed}
    detail = result.summary["nfs"]["nf0"]["detail"]
    assert message in detail["last_error"] and "nf.py" in detail["last_error"]
    if not message.startswith("TypeError: it returned"):
        assert f"nf.py:{FIRST + 2}: " in detail["last_error"]
    assert detail["failed"] > 0
    logged = [r.getMessage() for r in caplog.records if message in r.getMessage()]
    assert 1 <= len(logged) <= 3 + took, "said once, then at most once a second"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "verdict", ["0", "4", "1 | 1 << 8", "2", "2 | 250 << 8", "3 | 1 << 8", "-1", "1 << 40 | 1"]
)
def test_impossible_verdicts_are_bad_results(verdict: str) -> None:
    """One packet in three gets it. Type 1 is there, but this NF does not declare it."""
    body = f"v = burst.verdicts().astype('i8')\nv[burst.column('serial') % 3 == 0] = {verdict}\n"
    source, rows = line(nf(), types={"web": {"port": 80}})
    result = run_chain(source, numbered(3000), rows, files=function(body + "return v"))
    assert result.dropped == {"bad_result": 1000} and len(result.packets) == 2000


def refuse(folder: Path, content: str | None, **fields: Any) -> UserError:
    source, _ = line({"type": "python", "file": "nf.py", **fields})
    (folder / "routes.csv").write_text("packet_type,current_nf,next_nf\n*,in0,nf0\n*,nf0,out0\n")
    text = yaml.safe_dump(source | {"policy": "routes.csv"}, sort_keys=False)
    (folder / "t.yaml").write_text(text)
    if content is not None:
        (folder / "nf.py").write_text(content)
    with pytest.raises(UserError) as caught:
        topology.load(folder / "t.yaml").build_tables()
    assert main(["check", str(folder / "t.yaml")]) == 2
    return caught.value


MISTAKES: dict[str, tuple[str | None, dict[str, Any], str]] = {
    "no file": (None, {}, "t.yaml:11:nfs.nf0.file: no such file"),
    "no function": ("x = 1\n", {}, "nf.py: there is no function process here"),
    "another name": ("def process(b): pass\n", {"function": "f"}, "nf.py: there is no function f"),
    "not a function": ("process = 3\n", {}, "nf.py: there is no function process here"),
    "syntax": ("x = 1\ndef process(burst)\n    pass\n", {}, "nf.py:2: this is not Python"),
    "indent": ("def process(b):\npass\n", {}, "nf.py:2: this is not Python: expected an indented"),
    "import": ("\nimport nonsense\n", {}, "nf.py:2: ModuleNotFoundError: No module named"),
    "raises": ("def f():\n    1 / 0\nf()\n", {}, "nf.py:2: ZeroDivisionError: division by zero"),
    "exits": ("import sys\nsys.exit('enough')\n", {}, "nf.py:2: SystemExit: enough"),
    "gpu": ("", {"engine": "gpu"}, "nfs.nf0.engine: there is no engine 'gpu' of python"),
    "field": ("", {"typos": []}, "nfs.nf0.typos: unknown field 'typos'"),
    "type name": ("def process(b): pass", {"types": ["A b"]}, "'A b' is no name of a packet type"),
}


@pytest.mark.parametrize(("content", "fields", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_error_with_its_place(
    content: str | None,
    fields: dict[str, Any],
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    error = refuse(tmp_path, content, **fields)
    assert message in str(error) and error.fix
    printed = capfd.readouterr().err
    assert message in printed and "Traceback" not in printed


def test_python_error_is_a_reason() -> None:
    assert "python_error" in dict(reasons())
    assert np.iinfo(np.uint32).max == 0xFFFFFFFF


# ---- the worked example --------------------------------------------------------------------------


def looks_random(payload: bytes) -> bool:
    """The logistic regression of policies/demo/classifier.py, in plain Python."""
    data = payload[:64]
    if len(data) < 16:
        return False
    shares = [count / len(data) for count in Counter(data).values()]
    entropy = -sum(share * math.log2(share) for share in shares) / math.log2(len(data))
    printable = sum(0x20 <= byte < 0x7F for byte in data) / len(data)
    high = sum(byte >= 0x80 for byte in data) / len(data)
    return 6.3 * entropy - 4.8 * printable + 15.4 * high - 5.9 > 0


def test_the_classifier_of_the_docs_tells_text_from_random_bytes() -> None:
    """policies/classifier.yaml on the demo: what is opaque by a model in plain Python, which are
    TLS, voice and video by their ports, and neither HTTP nor DNS."""
    demo = ROOT / "policies" / "demo" / "branch.pcap"
    top = ROOT / "policies" / "classifier.yaml"
    expected, ports = [], Counter[int]()
    for packet in map(Ether, map(bytes, rdpcap(str(demo)))):
        layer = packet.getlayer(TCP) or packet.getlayer(UDP)
        payload = bytes(layer)[layer.dataofs * 4 if TCP in packet else 8 :] if layer else b""
        if looks_random(payload):
            ports[min(layer.sport, layer.dport)] += 1
        else:
            expected.append(bytes(packet))
    assert set(ports) == {443, 16384, 16386, 16400}
    result = run_chain(top, demo)
    assert result.packets == expected
    assert result.summary["ports"]["opaque0"]["sent"] == sum(ports.values())
