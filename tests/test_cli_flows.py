# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird flows`: which flows it picks, and how it shows them.

engine with flows ── control socket ── hummingbird flows ── a table, JSON lines or a number
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chain import HEADER
from process import ROOT, service
from rich.console import Console

from hummingbird import control, control_client
from hummingbird.control import Server
from hummingbird.dataplane.plane import FLOW_VIEW
from hummingbird.errors import UserError
from hummingbird.flow_list import COMMANDS, Options, show
from hummingbird.flow_match import Match
from hummingbird.flows import PROTOCOLS, Flow


def flow(
    protocol: str = "tcp",
    src: str = "10.0.0.1",
    sport: int = 4000,
    dst: str = "192.0.2.1",
    dport: int = 443,
    **fields: Any,
) -> Flow:
    values: dict[str, Any] = {
        "zone": 0,
        "state": "tcp_established",
        "age_s": 12.345,
        "idle_s": 0.07,
        "types": ("web", "web"),
        "nfs": {"monitor0": {"packets": [10, 8], "bytes": [1000, 8000], "flags": ["SPA", "SA"]}},
    }
    ends = {"src": ip_address(src), "sport": sport, "dst": ip_address(dst), "dport": dport}
    return Flow(protocol=protocol, index=0, **(ends | values | fields))


FLOWS = [
    flow(),
    flow(sport=4001, dst="192.0.2.2", dport=80, types=("web", "other"), idle_s=61.0),
    flow(
        "udp", "10.0.0.2", 5353, "10.0.0.1", 53, state="udp_both", nfs={}, types=("other", "other")
    ),
    flow("tcp", "2001:db8::1", 50000, "2001:db8:1::2", 443, zone=7, age_s=100_000.0),
    flow("icmp", "10.0.0.9", 443, "192.0.2.1", 443, state="icmp", nfs={"nat0": {"port": 1024}}),
]

Ask = Callable[..., str]


def views(flows: list[Flow]) -> Any:
    """As the data plane lists them, in an order of ends of its own."""
    found = np.zeros(len(flows), dtype=FLOW_VIEW)
    numbers = {name: number for number, name in PROTOCOLS.items()}
    for index, one in enumerate(flows):
        view = found[index]
        view["index"], view["first"] = index, index % 2
        view["protocol"] = numbers.get(one.protocol, 0)
        for end, address, port in ((0, one.src, one.sport), (1, one.dst, one.dport)):
            if address is not None:
                packed = address.packed
                whole = packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed
                view["addr"][end ^ index % 2] = np.frombuffer(whole, dtype="u1")
            view["port"][end ^ index % 2] = port
    return found


@pytest.fixture
def tracked() -> bool:
    return True


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracked: bool) -> Iterator[Ask]:
    """Runs the command against an engine with FLOWS; returns what it prints."""
    for module in (control, control_client):
        monkeypatch.setattr(module, "base_dir", lambda: tmp_path)
    (tmp_path / "default").mkdir()
    engine = SimpleNamespace(
        name="default",
        tracks_flows=tracked,
        hosts={"monitor0": None, "nat0": None},
        flow_views=lambda: iter([views(FLOWS)[:2], views(FLOWS)[2:]]),
        describe_flows=lambda some: (FLOWS[index] for index in some["index"]),
    )
    server = Server(engine, COMMANDS)  # type: ignore[arg-type]
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            server.serve(0.01)

    thread = threading.Thread(target=serve)
    thread.start()

    def run(width: int = 100, **options: Any) -> str:
        out = io.StringIO()
        show(Options(**options), Console(file=out, width=width), out)
        return out.getvalue()

    yield run
    ended.set()
    thread.join()
    server.close()


def picked(ask: Ask, **options: Any) -> list[int]:
    """Which of FLOWS are listed."""
    keys = [(str(f.src), f.sport, str(f.dst), f.dport) for f in FLOWS]
    found = [json.loads(row) for row in ask(json=True, **options).splitlines()]
    return [keys.index((f["src"], f["sport"], f["dst"], f["dport"])) for f in found]


def test_json(ask: Ask) -> None:
    """An object a line, with all that is known."""
    assert picked(ask) == [0, 1, 2, 3, 4]
    assert json.loads(ask(json=True).splitlines()[0]) == {
        "protocol": "tcp",
        "src": "10.0.0.1",
        "sport": 4000,
        "dst": "192.0.2.1",
        "dport": 443,
        "zone": 0,
        "state": "tcp_established",
        "age_s": 12.345,
        "idle_s": 0.07,
        "types": ["web", "web"],
        "nfs": {"monitor0": {"packets": [10, 8], "bytes": [1000, 8000], "flags": ["SPA", "SA"]}},
    }


@pytest.mark.parametrize(
    "match, flows",
    [
        ("tcp", [0, 1, 3]),
        ("TCP", [0, 1, 3]),
        ("6", [0, 1, 3]),
        ("icmp", [4]),
        ("sctp", []),
        ("10.0.0.1", [0, 1, 2]),
        ("udp 10.0.0.1", [2]),
        (":443", [0, 3]),
        ("*:443", [0, 3]),
        ("10.0.0.0/8", [0, 1, 2, 4]),
        ("192.0.2.1:443", [0]),
        ("10.0.0.1 -> 192.0.2.0/24", [0, 1]),
        ("192.0.2.0/24 -> 10.0.0.1", [0, 1]),
        ("tcp 10.0.0.1:4000 -> 192.0.2.1:443", [0]),
        ("tcp 192.0.2.1:443 -> 10.0.0.1:4000", [0]),
        ("tcp 192.0.2.1:4000 -> 10.0.0.1:443", []),
        ("10.0.0.1 -> 10.0.0.1", []),
        ("-> :53", [2]),
        ("* -> *", [0, 1, 2, 3, 4]),
        ("[2001:db8::1]:50000", [3]),
        ("2001:db8::/32", [3]),
        ("2001:db8::1 -> [2001:db8:1::/48]:443", [3]),
        ("::/0", [3]),
        ("0.0.0.0/0", [0, 1, 2, 4]),
    ],
)
def test_match(ask: Ask, match: str, flows: list[int]) -> None:
    """Any part of the 5-tuple, whichever end began."""
    assert picked(ask, match=match) == flows
    assert ask(match=match, count=True) == f"{len(flows)}\n"


@pytest.mark.parametrize(
    "match, what",
    [
        ("", "'' asks for nothing"),
        ("->", "asks for nothing"),
        ("tcp 10.0.0.1 -> ", "has no end behind its arrow\n  fix: write 'tcp 10.0.0.1', or an end"),
        ("tcp->", "has no end behind its arrow\n  fix: write 'tcp', or an end"),
        ("tpc", "'tpc' is no protocol"),
        ("256", "'256' is no protocol"),
        ("10.0.0.256", "is no address or prefix"),
        ("10.0.0", "is no address or prefix"),
        ("10.0.0.0/33", "is no address or prefix"),
        ("10.0.0.1/8", "10.0.0.1/8 has bits behind its length\n  fix: write 10.0.0.0/8"),
        ("10.0.0.1:99999", "99999 is no port"),
        ("10.0.0.1:http", "'10.0.0.1:http' is no end of a flow"),
        ("tcp 10.0.0.1 10.0.0.2", "says more than a flow"),
        ("10.0.0.1 -> 10.0.0.2 -> 10.0.0.3", "says more than a flow"),
        ("[10.0.0.1", "is no end of a flow"),
        ("[foo]:53", "'foo' is no address or prefix"),
    ],
)
def test_bad_match(match: str, what: str) -> None:
    """One error with a fix, before anybody is asked."""
    with pytest.raises(UserError) as error:
        show(Options(match=match), Console(file=io.StringIO()))
    assert what in str(error.value) and "\n  fix: " in str(error.value)


def test_nf(ask: Ask) -> None:
    """Only flows that an NF has something of, and only that."""
    assert picked(ask, nf="nat0") == [4]
    assert json.loads(ask(json=True, nf="nat0"))["nfs"] == {"nat0": {"port": 1024}}
    with pytest.raises(UserError, match=r"no NF 'nat1' .*\n  fix: write one of: monitor0, nat0"):
        ask(nf="nat1")


def test_limit_and_count(ask: Ask) -> None:
    assert picked(ask, limit=2) == [0, 1]
    assert ask(count=True) == "5\n" and ask(count=True, match="tcp") == "3\n"
    assert json.loads(ask(count=True, json=True)) == {"flows": 5}
    assert "the first 2 flows; --limit 0 shows all" in ask(limit=2)
    assert ask(limit=5).endswith("\n5 flows\n")
    assert ask(match="sctp") == "no flows\n"


def test_table(ask: Ask) -> None:
    """Readable in 100 columns; numbers are aligned to the right; NFs below."""
    text = ask()
    rows = text.splitlines()
    assert max(map(len, rows)) <= 100
    assert rows[0].split()[:4] == ["Protocol", "State", "From", "To"]
    assert "tcp       tcp_established  10.0.0.1:4000        192.0.2.1:443" in rows[1]
    assert rows[2] == "    monitor0: packets 10/8, bytes 1000/8000, flags SPA/SA"
    assert "web/other" in rows[3] and "web/web" not in text
    assert "[2001:db8::1]:50000" in text and "27.8 h" in text
    assert "10.0.0.9 id 443      192.0.2.1 " in text
    assert len({row.index(" s") for row in rows if "12.3 s" in row}) == 1
    assert "Zone" in rows[0] and "Zone" not in ask(match="udp")


@pytest.mark.parametrize("tracked", [False])
def test_untracked(ask: Ask) -> None:
    """A topology without such an NF remembers flows, and no more."""
    assert "\n5 flows\nno NF here keeps state of flows" in ask()


@pytest.mark.parametrize("bad", [{"limit": "x"}, {"limit": -1}, {"match": 7}, {"nf": ["x"]}])
def test_bad_request(ask: Ask, bad: dict[str, Any]) -> None:
    """Of another client than ours."""
    with pytest.raises(UserError):
        list(control_client.Reply("default", "flows", **bad))


# ---- a run that goes on --------------------------------------------------------------------------

TOPOLOGY = """\
policy: routes.csv
ports:
  in0: {driver: generator, rate: 2000, flows: 40, protocols: [tcp, udp], zone: 7}
  out0: {driver: sink}
nfs:
  monitor0: {type: flow_monitor, csv: flows.csv}
types:
  dns: {protocol: udp}
"""


def command(*args: str) -> tuple[int, str]:
    """Exit status, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "hummingbird.cli", "flows", *args],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def test_a_run(tmp_path: Path) -> None:
    """Flows of a real instance, which goes on and exports them at its end; then nobody answers."""
    (tmp_path / "topology.yaml").write_text(TOPOLOGY)
    (tmp_path / "routes.csv").write_text(HEADER + "*,in0,monitor0\n*,monitor0,out0\n")
    with service(tmp_path, "topology.yaml") as going:
        going.until(lambda: going.packets(2) > 200, "packets")
        flows = [json.loads(row) for row in command("--name", going.name, "--json")[1].splitlines()]
        assert len(flows) == 40
        assert all(f["zone"] == 7 and f["idle_s"] < 5 for f in flows)
        assert {f["state"] for f in flows} == {"tcp_midstream", "udp"}
        assert {tuple(f["types"]) for f in flows} == {("other", "other"), ("dns", "dns")}
        assert all(f["nfs"]["monitor0"]["packets"][0] > 0 for f in flows)
        status, said = command("--name", going.name, "--match", "udp")
        assert status == 0 and said.endswith("\n20 flows\n") and "monitor0: packets" in said
        assert command("--name", going.name, "--match", "tcp", "--count") == (0, "20\n")
        status, said = command("--name", going.name, "--nf", "nat0")
        assert status == 2 and "no NF 'nat0'" in said and "fix: write one of: monitor0" in said
        summary = going.stop().balanced
        assert summary["nfs"]["monitor0"]["detail"]["csv_lines"] == 40
        status, said = command("--name", going.name)
        assert status == 2 and f"no instance named '{going.name}' is running\n  fix: " in said


def test_a_killed_run(tmp_path: Path) -> None:
    """What it leaves behind is told from one that runs, and the next of the name replaces it."""
    (tmp_path / "topology.yaml").write_text(TOPOLOGY)
    (tmp_path / "routes.csv").write_text(HEADER + "*,in0,monitor0\n*,monitor0,out0\n")
    with service(tmp_path, "topology.yaml") as going:
        going.until(lambda: going.packets(2) > 200, "packets")
        going.process.kill()
        going.process.wait()
        status, said = command("--name", going.name)
        assert status == 2 and "the one that was has been killed" in said
        with service(tmp_path, "topology.yaml", name=going.name) as again:
            again.until(lambda: "running after" in again.text, "its start")  # the counters are its
            again.until(lambda: again.packets(2) > 200, "packets")
            assert command("--name", going.name, "--count") == (0, "40\n")
            assert again.stop().balanced


@pytest.mark.parametrize("args", [["--limit", "-1"], ["--limit", "x"], ["--name", "No Name"]])
def test_bad_options(args: list[str]) -> None:
    status, said = command(*args)
    assert status == 2 and "hummingbird flows: error: argument " + args[0] in said


def test_not_ip() -> None:
    """What is not IP has no ends."""
    nothing = replace(flow("-"), src=None, dst=None)
    for text in ("tcp", ":443", "0.0.0.0/0", "::/0", "* -> *"):
        assert not Match.parse(text).holds(views([nothing])).any()
