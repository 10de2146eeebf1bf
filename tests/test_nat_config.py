# SPDX-License-Identifier: BSD-3-Clause
"""nat: what a topology may say.

a mistake ── topology.load, build_tables ── one UserError: file, line, field, fix
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hummingbird import topology
from hummingbird.errors import UserError
from hummingbird.nfs.nat_config import NatParams

BASE = """\
policy: routes.csv
ports:
  in0: {driver: generator}
  out0: {driver: sink}
nfs:
  nat0:
    type: nat
    inside: [10.0.0.0/8, 192.168.0.0/16]
    external: [203.0.113.4, 203.0.113.8/30]
    ports: [1024-4999, 6000-65535]
    forwards:
      - {protocol: tcp, external: "203.0.113.4:443", inside: "10.0.0.5:8443"}
      - {protocol: udp, external: "203.0.113.9:443", inside: "10.0.0.5:8443"}
    hold: {tcp: 240}
    mappings: 64k
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "routes.csv").write_text("packet_type,current_nf,next_nf\n*,in0,nat0\n")
    return tmp_path


def loaded(folder: Path, text: str) -> topology.Topology:
    (folder / "topology.yaml").write_text(text)
    return topology.load(folder / "topology.yaml")


def test_what_is_right_is_taken(folder: Path) -> None:
    top = loaded(folder, BASE)
    assert top.build_tables()["nat0"].notes == [
        "5 external addresses with 63512 ports each, room for 64000 mappings, 2 forwards; "
        "filtering endpoint-independent"
    ]


def test_one_value_needs_no_list(folder: Path) -> None:
    params: dict[str, Any] = {"inside": "10.0.0.0/8", "external": "192.0.2.1", "ports": "5000"}
    taken = NatParams(**params)
    assert (len(taken.inside), taken.ports, taken.room_for_peers) == (1, ((5000, 5000),), 0)
    taken = NatParams(**params, filtering="address-dependent", mappings=10)
    assert taken.room_for_peers == 40


MISTAKES: dict[str, tuple[str, str, str, str, str]] = {
    "no inside": ("    inside: [10.0.0.0/8, 192.168.0.0/16]\n", "", "inside", "", ""),
    "no external": ("[203.0.113.4, 203.0.113.8/30]", "[]", "external", "", ""),
    "host bits": ("10.0.0.0/8", "10.0.0.1/8", "inside[0]", "bits set", "10.0.0.0/8"),
    "mask": ("10.0.0.0/8", "10.0.0.0/255.0.0.0", "inside[0]", "a mask", "10.0.0.0/8"),
    "IPv6": ("10.0.0.0/8", '"fd00::/8"', "inside[0]", "not IPv4", "10.0.0.0/8"),
    "no address": ("203.0.113.4,", "203.0.113.256,", "external[0]", "203.0.113.256", "10.0.0.0/8"),
    "everything inside": ("10.0.0.0/8", "0.0.0.0/0", "external[0]", "overlaps the inside", "apart"),
    "overlap": ("203.0.113.4,", "203.0.113.9,", "external[1]", "overlaps 203.0.113.9", "once"),
    "inside external": ("203.0.113.4,", "10.7.7.7,", "external[0]", "overlaps the inside", "apart"),
    "multicast": ("203.0.113.4,", "239.0.0.1,", "external[0]", "no host can answer", "lead"),
    "loopback": ("203.0.113.4,", "127.0.0.1,", "external[0]", "no host can answer", "lead"),
    "too many": ("203.0.113.8/30", "198.18.0.0/15", "external", "131073", "at most 256"),
    "port 0": ("1024-4999", "0-4999", "ports[0]", "'0-4999'", "1024-65535"),
    "large port": ("6000-65535", "6000-65536", "ports[1]", "'6000-65536'", "1 to 65535"),
    "backwards": ("1024-4999", "4999-1024", "ports[0]", "ends before", "1024-4999"),
    "ports twice": ("6000-65535", "4000-65535", "ports[1]", "overlaps 1024-4999", "once"),
    "no port": (
        "203.0.113.4:443",
        "203.0.113.4",
        "forwards[0].external",
        "no IPv4 address",
        "quot",
    ),
    "foreign": ("203.0.113.4:443", "203.0.113.5:443", "forwards[0].external", "no ext", "113.4"),
    "outside": ("10.0.0.5:8443", "172.16.0.5:8443", "forwards[0].inside", "not inside", "inside"),
    "taken": (
        'udp, external: "203.0.113.9:443"',
        'tcp, external: "203.0.113.4:443"',
        "forwards[1].external",
        "forward 0 has tcp 203.0.113.4:443 already",
        "once",
    ),
    "taken inside": ("protocol: udp", "protocol: tcp", "forwards[1].inside", "already", "once"),
    "protocol": ("protocol: udp", "protocol: icmp", "forwards[1].protocol", "'icmp'", "tcp"),
    "no room": ("mappings: 64k", "mappings: 1", "mappings", "2 forwards", "at least 2"),
    "mappings": ("mappings: 64k", "mappings: lots", "mappings", "'lots'", "10k"),
    "filtering": ("    hold:", "    filtering: full-cone\n    hold:", "filtering", "full", "endp"),
    "peers": ("    hold:", "    peers: 5\n    hold:", "peers", "nobody asks", "remove peers"),
    "hold": ("tcp: 240", "tcp: -1", "hold.tcp", "-1", ""),
    "hold what": ("tcp: 240", "sctp: 240", "hold.sctp", "'sctp'", ""),
    "hairpin": ("    hold:", "    hairpin: maybe\n    hold:", "hairpin", "maybe", ""),
    "field": ("external: [", "outside: [", "outside", "'outside'", ""),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_error(name: str, folder: Path) -> None:
    old, new, field, what, fix = MISTAKES[name]
    assert old in BASE
    with pytest.raises(UserError) as caught:
        loaded(folder, BASE.replace(old, new, 1)).build_tables()
    error = caught.value
    assert error.path == folder / "topology.yaml"
    assert error.line is not None and error.line >= 6
    assert error.field is not None and error.field.startswith(f"nfs.nat0.{field}"), error
    assert what in error.what and error.fix and fix in error.fix, error
