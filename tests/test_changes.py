# SPDX-License-Identifier: BSD-3-Clause
"""Two topologies, and every difference between them in a sentence with its place.

old.yaml, routes.csv ─┐
                      ├─ changes.between() ── dictionaries, sentences
new.yaml, routes.csv ─┘
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import HEADER, capture

from hummingbird import changes, policy, topology
from hummingbird.engine import Wanted, difference

ROWS = "*,in0,nf0\nweb,nf0,nf1\n*,nf0,out0\n*,nf1,out0\n"
BASE: dict[str, Any] = {
    "policy": "routes.csv",
    "ports": {
        "in0": {"driver": "pcap", "read": "in.pcap", "rate": 1000},
        "out0": {"driver": "sink"},
    },
    "nfs": {
        "nf0": {"type": "forward", "engine": "cpu"},
        "nf1": {"type": "firewall", "rules": "rules.csv", "engine": "cpu"},
    },
    "types": {"web": [{"protocol": "tcp", "port": [80, 443]}], "dns": {"port": 53}},
}
RULES = "src,dst,protocol,sport,dport,action\nany,any,any,any,any,{}\n"

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(capture([bytes(60)]))
    (tmp_path / "rules.csv").write_text(RULES.format("accept"))


def load(folder: Path, edit: Edit | None = None, rows: str = ROWS) -> Wanted:
    data = json.loads(json.dumps(BASE))
    if edit:
        edit(data)
    (folder / "t.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    (folder / "routes.csv").write_text(HEADER + rows)
    wanted = topology.load(folder / "t.yaml")
    names = wanted.vocabulary()
    return Wanted(wanted, policy.load(wanted.policy, names), changes.digests(wanted))


def texts(old: Wanted, new: Wanted) -> list[str]:
    found = changes.between(old, new)
    assert json.loads(json.dumps(found)) == found
    # what the engine would refuse to change while it runs is what is said to need a restart
    parts = set(difference(old, new)) - {"policy"}
    files = [c for c in found if c.get("field") == "file"]
    assert bool(parts) == bool([c for c in changes.need_restart(found) if c not in files])
    return [change["text"] for change in found]


def test_nothing(tmp_path: Path) -> None:
    """Neither comments nor the order of keys are a change, nor that everything stands elsewhere."""
    old = load(tmp_path)
    text = (tmp_path / "t.yaml").read_text()
    (tmp_path / "t.yaml").write_text("# a comment\n\n" + text)
    (tmp_path / "routes.csv").write_text("# another\n" + HEADER + ROWS)
    new = topology.load(tmp_path / "t.yaml")
    wanted = Wanted(new, policy.load(new.policy, new.vocabulary()), changes.digests(new))
    assert texts(old, wanted) == [] and changes.sentence([]) == "nothing changed"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            "*,in0,nf0\nweb,nf0,out0\n*,nf0,out0\n*,nf1,out0\n",
            ["web: nf0 -> out0 instead of nf1 (routes.csv:3)"],
        ),
        (
            "*,in0,nf1\nweb,nf0,nf1\n*,nf0,out0\n*,nf1,drop\n",
            [
                "all types: in0 -> nf1 instead of nf0 (routes.csv:2)",
                "all types: nf1 -> drop instead of out0 (routes.csv:5)",
            ],
        ),
        (
            "*,in0,nf0\nweb,nf0,nf1\ndns,nf0,nf1\n*,nf0,out0\nweb,nf1,out0\ndns,nf1,out0\n",
            [
                "dns: nf0 -> nf1 instead of out0 (routes.csv:4)",
                "other: no route from nf1 any more, it was -> out0",
            ],
        ),
    ],
)
def test_routes(rows: str, expected: list[str], tmp_path: Path) -> None:
    """A row of the file is one change, for all types that it decides for."""
    old = load(tmp_path)
    new = load(tmp_path, rows=rows)
    assert texts(old, new) == expected
    back = changes.between(new, old)
    assert all(change["live"] and change["part"] == "policy" for change in back)
    assert {c["what"] for c in back} <= {"changed", "added"}
    assert [c["before"] for c in back] == [c["now"] for c in changes.between(old, new)]


def _rename(data: dict[str, Any]) -> None:
    data["ports"]["out1"] = data["ports"].pop("out0")


def _swap(data: dict[str, Any]) -> None:
    data["nfs"] = {"nf1": data["nfs"]["nf1"], "nf0": data["nfs"]["nf0"]}


def _set(*path: str, value: Any) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data.setdefault(key, {})
        data[path[-1]] = value

    return edit


EDITS: list[tuple[Edit, str]] = [
    (_set("ports", "in0", "rate", value=2000), "port in0: rate 2000 instead of 1000 (t.yaml:6)"),
    (_set("ports", "in0", "zone", value=3), "port in0: zone 3 instead of 0 (t.yaml:7)"),
    (_set("nfs", "nf0", "engine", value="auto"), "nf nf0: engine auto instead of cpu (t.yaml:12)"),
    (_set("types", "dns", value={"port": 54}), "type dns: rules changed (t.yaml:23)"),
    (_set("memory", "mbufs", value=2048), "memory: mbufs 2048 instead of 16384 (t.yaml:26)"),
    (_set("flows", "timeouts", "udp", value=5), "flows: timeouts.udp 5 instead of 30 (t.yaml:27)"),
    (_set("device", "use", value="none"), "device: use none instead of auto (t.yaml:26)"),
    (_set("cores", "io", value=0), "cores: io changed (t.yaml:26)"),
    (_swap, "nfs: another order (t.yaml:9)"),
]


@pytest.mark.parametrize(("edit", "expected"), EDITS)
def test_topology(edit: Edit, expected: str, tmp_path: Path) -> None:
    """Every field has its line."""
    old = load(tmp_path)
    assert texts(old, load(tmp_path, edit)) == [expected]


def test_come_and_gone(tmp_path: Path) -> None:
    """A port that is called otherwise is another one, and its routes are others."""
    old = load(tmp_path)
    new = load(tmp_path, _rename, ROWS.replace("out0", "out1"))
    assert texts(old, new) == [
        "port removed: out0",
        "port added: out1 (t.yaml:7)",
        "other, dns: nf0 -> out1 instead of out0 (routes.csv:4)",
        "all types: nf1 -> out1 instead of out0 (routes.csv:5)",
    ]


def test_files_of_nfs(tmp_path: Path) -> None:
    """The same name, another content; live where the NF can read it again while it runs."""
    old = load(tmp_path)
    (tmp_path / "rules.csv").write_text(RULES.format("drop"))
    new = load(tmp_path)
    assert texts(old, new) == ["nf nf1: rules.csv changed"]
    assert not changes.between(old, new)[0]["live"]
    assert changes.between(old, new, ["nf1"])[0]["live"]
    (tmp_path / "rules.csv").unlink()
    assert changes.digests(new.topology)["nf1"] != new.files["nf1"]


def test_long_sentences(tmp_path: Path) -> None:
    """A log line has an end."""
    found = [{"text": f"change {n}"} for n in range(30)]
    assert changes.sentence(found, 2) == "change 0; change 1; and 28 more"
