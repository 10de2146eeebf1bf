# SPDX-License-Identifier: BSD-3-Clause
"""Topologies: what is read, what is refused and how, and where everything is placed.

YAML ── yamlfile ── ports, nfs, types, device, cores, memory ── Topology ── Placement
            └── every mistake: file, line, field, fix
"""

import dataclasses
import ipaddress
import itertools
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from hummingbird import policy, topology, yamlfile
from hummingbird.errors import UserError
from hummingbird.explain import classify
from hummingbird.nfs import NfParams
from hummingbird.ports import is_unbound
from hummingbird.ports.generator import GeneratorParams
from hummingbird.ports.pcap import PcapParams
from hummingbird.rules import ANY_PORT, MAX_RULES, PortRange

POLICIES = Path(__file__).parent.parent / "policies"
SHIPPED = sorted(POLICIES.glob("*.yaml"))

BASE = """\
policy: routes.csv
ports:
  in0: {driver: generator}
  out0: {driver: sink}
"""
CHAIN = """\
nfs:
  a: {type: forward}
  nids0: {type: nids, engine: gpu, rules: one.rules, on_alert: bad}
  ipsec0:
    type: ipsec
    engine: gpu
    sas: {sa: {direction: out, spi: 4097, src: 198.51.100.1, dst: 192.0.2.1,
      cipher: aes-128-cbc, auth: hmac-sha1-96, key_file: keys}}
    policies: [{action: sa}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the topologies here name."""
    (tmp_path / "routes.csv").write_text("packet_type,current_nf,next_nf\n*,in0,out0\n")
    (tmp_path / "one.rules").write_text('alert ip any any -> any any (content:"xy"; sid:1;)\n')
    (tmp_path / "keys").write_text(f"encryption: {'0' * 32}\nauthentication: {'0' * 40}\n")
    (tmp_path / "keys").chmod(0o600)
    (tmp_path / "in.pcap").write_bytes(b"")
    (tmp_path / "link").symlink_to("in.pcap")
    return tmp_path


def load(folder: Path, text: str, **bindings: str) -> topology.Topology:
    """A topology with this text in `folder`; ``in_`` and ``out`` bind ``$in`` and ``$out``."""
    path = folder / "topology.yaml"
    path.write_text(text)
    return topology.load(path, {name.rstrip("_"): file for name, file in bindings.items()} or None)


def types_of(folder: Path, types: Mapping[str, Any], text: str = BASE) -> topology.Topology:
    return load(folder, text + yaml.safe_dump({"types": dict(types)}, sort_keys=False))


# --- What is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_topology_is_right(path: Path, tmp_path: Path) -> None:
    wanted = topology.load(path)
    routes = policy.load(wanted.policy, wanted.vocabulary())
    wanted.build_tables()
    assert any(is_unbound(file) for port in wanted.ports for file in port.params.reads()) == (
        "$in" in path.read_text()
    )
    found = [*chain.from_iterable(routes.paths().values())]
    for route in found:
        found += route.branches
    assert {route.nodes[-1] for route in found} - {"drop"} == set(wanted.vocabulary().egress)
    if "$in" in path.read_text():
        files = {"in": POLICIES / "demo" / "branch.pcap", "out": tmp_path / "out.pcap"}
        bound = topology.load(path, files)
        reads = chain.from_iterable(port.params.reads() for port in bound.ports)
        writes = chain.from_iterable(port.params.writes() for port in bound.ports)
        assert ([*reads], [*writes]) == ([files["in"]], [files["out"]])


def test_so_many_topologies_are_shipped() -> None:
    """Whoever adds one, or loses one, sees it here."""
    names = ["branch_gateway", "classifier", "firewall", "forward", "live_router", "load_balancer"]
    assert [path.stem for path in SHIPPED] == [*names, "nat", "paper_dynamic", "paper_static"]


def test_nodes_and_types_are_numbered_in_the_order_of_the_file(folder: Path) -> None:
    text = BASE + CHAIN + "types: {web: {protocol: tcp, port: 80}, dns: {port: 53}}\n"
    wanted = load(folder, text)
    assert wanted.nodes == ("in0", "out0", "a", "nids0", "ipsec0")
    assert wanted.types == ("other", "web", "dns", "bad")
    assert wanted.type_numbers == {"other": 0, "web": 1, "dns": 2, "bad": 3}
    assert [(rule.type, rule.line) for rule in wanted.rules] == [(1, 14), (2, 14)]
    assert [nf.engine for nf in wanted.nfs] == ["auto", "gpu", "gpu"]
    assert wanted.uses_device and not load(folder, text + "device: {use: none}\n").uses_device


def test_a_type_that_rules_and_an_nf_give_has_one_number(folder: Path) -> None:
    wanted = load(folder, BASE + CHAIN + "types: {bad: {port: 80}, web: {port: 81}}\n")
    assert wanted.types == ("other", "bad", "web")


@pytest.mark.parametrize("sticky", ["packet", "flow"])
def test_only_a_sticky_type_arrives_at_ports(folder: Path, sticky: str) -> None:
    """With `sticky: flow` the next packets of a flow come in with the type that an NF gave."""
    text = (BASE + CHAIN).replace("on_alert: bad", f"on_alert: bad, sticky: {sticky}")
    names = load(folder, text).vocabulary()
    assert names.arriving == (("other",) if sticky == "packet" else ("other", "bad"))
    assert names.retypes == {"nids0": ("bad",)}
    assert (names.ingress, names.egress) == (("in0",), ("out0",))


def test_port_parameters(folder: Path) -> None:
    text = """\
policy: routes.csv
ports:
  g: {driver: generator, packets: 1.5M, size: {64: 7, 1514: 1}, rate: 10k, protocols: tcp}
  h: {driver: generator, size: 594, flows: 65536, src: 10.0.0.1, dst_port: 0, seed: 7}
  i: {driver: generator, flows: 10M, protocols: tcp, tcp_flags: syn}
  j: {driver: generator, flows: 2k, zipf: 1.1, tcp_flags: [syn, ack]}
  p: {driver: pcap, read: in.pcap, loop: 0, pace: original}
  q: {driver: pcap, read: in.pcap, rate: 250}
  w: {driver: pcap, write: out.pcap}
"""
    g, h, i, j, p, q, w = [port.params for port in load(folder, text).ports]
    assert isinstance(g, GeneratorParams) and isinstance(h, GeneratorParams)
    assert isinstance(i, GeneratorParams) and isinstance(j, GeneratorParams)
    assert (g.packets, g.size, g.rate) == (1_500_000, {64: 7, 1514: 1}, 10_000)
    assert g.protocol_numbers == (6,) and h.protocol_numbers == (17,)
    assert (h.packets, h.size, h.rate, h.flows) == (0, {594: 1}, None, 65536)
    assert (h.zipf, h.flag_bits) == (0, 0x10)
    assert (i.flows, i.zipf, i.flag_bits) == (10_000_000, 0, 0x02)
    assert (j.flows, j.zipf, j.flag_bits) == (2000, 1.1, 0x12)
    assert isinstance(p, PcapParams) and isinstance(q, PcapParams) and isinstance(w, PcapParams)
    assert (p.loop, p.pace, p.rate) == (0, "original", None)
    assert (q.loop, q.pace, q.rate) == (1, "fast", 250)
    assert p.reads() == [folder / "in.pcap"] and w.writes() == [folder / "out.pcap"]
    assert [(x.ingress, x.egress) for x in (g, p, w)] == [(1, 0), (1, 0), (0, 1)]


def test_scalars_are_those_of_yaml_1_2() -> None:
    """A MAC address that PyYAML takes for a number, and words that it takes for booleans."""
    text = b"{a: 10:20:30:40:50:51, b: no, c: 0x10, d: true, e: ~, f: 2001-01-01, g: 0.5, h: 010}"
    assert yamlfile.parse(text, Path("f")).data == {
        "a": "10:20:30:40:50:51",
        "b": "no",
        "c": 16,
        "d": True,
        "e": None,
        "f": "2001-01-01",
        "g": 0.5,
        "h": "010",
    }


def test_a_byte_order_mark_and_crlf_are_borne(folder: Path) -> None:
    path = folder / "topology.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (BASE + CHAIN).replace("\n", "\r\n").encode())
    assert topology.load(path).nodes == ("in0", "out0", "a", "nids0", "ipsec0")


# --- What is refused ------------------------------------------------------------------------------

HERE = "# HERE"  # marks the line that the error has to name

MISTAKES = {
    "empty": ("", None, "not a topology", "begin with"),
    "a list": ("- a", None, "not a topology", "begin with"),
    "no policy": ("ports: {}", "policy", "policy is missing", "add 'policy"),
    "no ports": ("policy: routes.csv", "ports", "ports is missing", "add 'ports"),
    "section": (BASE + "type: {} # HERE", "type", "unknown field 'type'", "did you mean 'types'?"),
    "empty section": (BASE + "nfs: # HERE", "nfs", "has no value", "mapping"),
    "policy file": (
        BASE.replace("routes.csv", "route.csv # HERE"),
        "policy",
        "no such file",
        "relative to this file",
    ),
    "policy folder": (BASE.replace("routes.csv", ". # HERE"), "policy", "cannot be read", "name"),
    "only $in and $out": (
        BASE.replace("{driver: generator}", "{driver: pcap, read: $input} # HERE"),
        "ports.in0.read",
        "there is no '$input'",
        "$in",
    ),
    "driver": (
        BASE.replace("generator}", "genrator} # HERE"),
        "ports.in0.driver",
        "there is no driver 'genrator'",
        "did you mean 'generator'?",
    ),
    "no driver": (BASE + "  x: {} # HERE", "ports.x.driver", "driver is missing", "generator"),
    "port field": (
        BASE + "  x: {driver: pcap, raed: in.pcap} # HERE",
        "ports.x.raed",
        "unknown field 'raed'",
        "did you mean 'read'?",
    ),
    "sink field": (
        BASE + "  x: {driver: sink, write: f} # HERE",
        "ports.x.write",
        "unknown field",
        "none to name",
    ),
    "neither read nor write": (
        BASE + "  x: {driver: pcap} # HERE",
        "ports.x",
        "either read or write",
        "read: FILE",
    ),
    "read and write": (
        BASE + "  x: {driver: pcap, read: in.pcap, write: b} # HERE",
        "ports.x",
        "either",
        "read: FILE",
    ),
    "a written capture has no pace": (
        BASE + "  x: {driver: pcap, write: b, pace: fast} # HERE",
        "ports.x",
        "has no pace",
        "remove 'pace'",
    ),
    "pace and rate": (
        BASE + "  x: {driver: pcap, read: in.pcap, pace: original, rate: 5} # HERE",
        "ports.x",
        "contradict",
        "remove",
    ),
    "no capture": (
        BASE + "  x:\n    driver: pcap\n    read: none.pcap # HERE",
        "ports.x.read",
        "no such file",
        "relative",
    ),
    "no folder to write to": (
        BASE + "  x: {driver: pcap, write: no/out.pcap} # HERE",
        "ports.x.write",
        "no such directory",
        "make it",
    ),
    "a folder to write to": (
        BASE + "  x: {driver: pcap, write: .} # HERE",
        "ports.x.write",
        "cannot be written",
        "can be written",
    ),
    "one interface, two ports": (
        BASE + "  a: {driver: af_xdp, interface: eth0}\n"
        "  b: {driver: dpdk, device: 'net_af_packet0,iface=eth0'} # HERE",
        "ports.b",
        "a has the interface eth0",
        "another one",
    ),
    "a written capture is read under another name": (
        BASE + "  x: {driver: pcap, read: in.pcap}\n  y: {driver: pcap, write: link} # HERE",
        "ports.y.write",
        "would be replaced while x uses it",
        "another file",
    ),
    "a written capture is read": (
        BASE + "  x: {driver: pcap, read: in.pcap}\n  y: {driver: pcap, write: ./in.pcap} # HERE",
        "ports.y.write",
        "would be replaced while x uses it",
        "another file",
    ),
    "one file written twice": (
        BASE + "  x: {driver: pcap, write: $out}\n  y: {driver: pcap, write: $out} # HERE",
        "ports.y.write",
        "while x uses it",
        "another file",
    ),
    "a file name that is a number": (
        BASE + "  x: {driver: pcap, read: 5} # HERE",
        "ports.x.read",
        "'5' is no file name",
        "name of a file",
    ),
    "no file name": (
        BASE + "  x: {driver: pcap, write: ''} # HERE",
        "ports.x.write",
        "'' is no file name",
        "name of a file",
    ),
    "rate": (
        BASE + "  x: {driver: generator, rate: 10K} # HERE",
        "ports.x.rate",
        "'10K' is no number",
        "10k",
    ),
    "half a packet": (
        BASE + "  x: {driver: generator, packets: 1.5} # HERE",
        "ports.x.packets",
        "1.5",
        "integer",
    ),
    "frame size": (
        BASE + "  x: {driver: generator, size: 1515} # HERE",
        "ports.x.size",
        "1515",
        "less than or equal to 1514",
    ),
    "weight": (
        BASE + "  x:\n    driver: generator\n    size:\n      64: 1\n      65: 0 # HERE",
        "ports.x.size[65]",
        "0 cannot stand here",
        "greater than or equal to 1",
    ),
    "protocol of a generator": (
        BASE + "  x: {driver: generator, protocols: [udp, tpc]} # HERE",
        "ports.x.protocols[1]",
        "'tpc' is not offered",
        "did you mean 'tcp'?",
    ),
    "flag of a generator": (
        BASE + "  x: {driver: generator, tcp_flags: [syn, akc]} # HERE",
        "ports.x.tcp_flags[1]",
        "'akc' is not offered",
        "did you mean 'ack'?",
    ),
    "skew of a generator": (
        BASE + "  x: {driver: generator, zipf: 3.1} # HERE",
        "ports.x.zipf",
        "3.1",
        "less than or equal to 3",
    ),
    "skew that is no number": (
        BASE + "  x: {driver: generator, zipf: true} # HERE",
        "ports.x.zipf",
        "True",
        "number",
    ),
    "too many flows": (
        BASE + "  x: {driver: generator, flows: 269M} # HERE",
        "ports.x.flows",
        "269M",
        "less than or equal to 268435456",
    ),
    "too many flows to draw from": (
        BASE + "  x: {driver: generator, flows: 5M, zipf: 1.1} # HERE",
        "ports.x",
        "5000000 flows are too many to draw from",
        "4194304",
    ),
    "true is no number": (
        BASE + "  x: {driver: generator, seed: true} # HERE",
        "ports.x.seed",
        "True",
        "integer",
    ),
    "port name": (
        BASE + "  In1: {driver: sink} # HERE",
        "ports.In1",
        "'In1' is no name",
        "lower-case",
    ),
    "a port called drop": (
        BASE + "  drop: {driver: sink} # HERE",
        "ports.drop",
        "'drop' is the end",
        "another name",
    ),
    "no port takes packets in": (
        "policy: routes.csv\nports: # HERE\n  x: {driver: sink}",
        "ports",
        "no port takes packets in",
        "add a port",
    ),
    "a port and an NF share a name": (
        BASE + "nfs:\n  in0: {type: forward} # HERE",
        "nfs.in0",
        "a port is called in0, too",
        "rename",
    ),
    "too many nodes": (
        BASE + "nfs: # HERE\n" + "".join(f"  n{i}: {{type: forward}}\n" for i in range(63)),
        "nfs",
        "65 ports and NFs",
        "64 at most",
    ),
    "NF type": (
        BASE + "nfs:\n  x: {type: rooter} # HERE",
        "nfs.x.type",
        "there is no type 'rooter'",
        "did you mean 'router'?",
    ),
    "no NF type": (
        BASE + "nfs:\n  x: {engine: gpu} # HERE",
        "nfs.x.type",
        "type is missing",
        "forward",
    ),
    "engine of another NF": (
        BASE + "nfs:\n  x: {type: forward, engine: ipsec_mb} # HERE",
        "nfs.x.engine",
        "there is no engine 'ipsec_mb' of forward",
        "auto, cpu, gpu",
    ),
    "engine": (
        BASE + "nfs:\n  x: {type: forward, engine: fpga} # HERE",
        "nfs.x.engine",
        "there is no engine 'fpga'",
        "auto, cpu, gpu",
    ),
    "NF field": (
        BASE + "nfs:\n  x:\n    type: nids\n    ruels: p # HERE",
        "nfs.x.ruels",
        "unknown field 'ruels'",
        "did you mean 'rules'?",
    ),
    "NF file": (
        BASE + "nfs:\n  x:\n    type: nids\n    rules: none # HERE",
        "nfs.x.rules",
        "no such file",
        "relative to this file",
    ),
    "NF folder": (
        BASE + "nfs:\n  x:\n    type: nids\n    rules: . # HERE",
        "nfs.x.rules",
        "cannot be read",
        "name a file",
    ),
    "field of a part of an NF": (
        BASE + CHAIN.replace("dst: 192", "dest: 192").replace("2.1,", "2.1, # HERE"),
        "nfs.ipsec0.sas.sa.dest",
        "unknown field 'dest'",
        "did you mean 'dst'?",
    ),
    "field of an NF's mapping": (
        BASE + "nfs:\n  r: {type: router, routes: routes.csv, next_hops: {a: {\n mak: b}}} # HERE",
        "nfs.r.next_hops.a.mak",
        "unknown field 'mak'",
        "did you mean 'mac'?",
    ),
    "address of a tunnel": (
        BASE + CHAIN.replace("src: 198.51.100.1", "src: 198.51.100").replace("2.1,", "2.1, # HERE"),
        "nfs.ipsec0.sas.sa.src",
        "'198.51.100'",
        "IPv4 address",
    ),
    "content type": (
        BASE + "nfs:\n  x: {type: nids, rules: one.rules, on_alert: Bad} # HERE",
        "nfs.x.on_alert",
        "'Bad' is no name of a packet type",
        "lower-case",
    ),
    "MAC address": (
        BASE
        + "nfs:\n  r: {type: router, routes: routes.csv, next_hops: {a: {\n mac: 2:0}}} # HERE",
        "nfs.r.next_hops.a.mac",
        "'2:0' is no MAC address",
        "02:00:00:00:01:01",
    ),
    "MAC address of a group": (
        BASE + "nfs:\n  r:\n    type: router\n    routes: routes.csv\n"
        '    neighbours:\n      10.0.0.1: "01:00:5e:00:00:01" # HERE',
        "nfs.r.neighbours.10.0.0.1",
        "is the MAC address of a group",
        "one station",
    ),
    "no rules": (
        BASE + "nfs:\n  x: {type: nids, rules: []} # HERE",
        "nfs.x.rules",
        "no entries",
        "at least 1",
    ),
    "name of a variable": (
        BASE + "nfs:\n  x: {type: nids, rules: one.rules, variables: {HOME-NET: any}} # HERE",
        "nfs.x.variables.HOME-NET",
        "'HOME-NET' is no name of a variable",
        "letters",
    ),
    "a type called other": (
        BASE + "types:\n  other: {port: 1} # HERE",
        "types.other",
        "'other' is what no rule matches",
        "another name",
    ),
    "a type called pass": (
        BASE + "types:\n  pass: {port: 1} # HERE",
        "types.pass",
        "'pass'",
        "another",
    ),
    "too many types": (
        BASE + "types: # HERE\n" + "".join(f"  t{i}: {{port: {i}}}\n" for i in range(256)),
        "types",
        "257 packet types",
        "256 at most",
    ),
    "no rule": (BASE + "types:\n  web: [] # HERE", "types.web", "no entries", "at least 1"),
    "empty rule": (
        BASE + "types:\n  web: {} # HERE",
        "types.web",
        "matches every packet",
        "'other'",
    ),
    "rule that matches all": (
        BASE + "types:\n  web:\n  - port: 80\n  - {protocol: [any, tcp], port: 0-65535} # HERE",
        "types.web[1]",
        "matches every packet",
        "'other'",
    ),
    "field of a rule": (
        BASE + "types:\n  web:\n  - {protocl: tcp} # HERE",
        "types.web[0].protocl",
        "unknown field 'protocl'",
        "did you mean 'protocol'?",
    ),
    "protocol": (
        BASE + "types:\n  web: {protocol: tpc} # HERE",
        "types.web.protocol",
        "'tpc' is no protocol",
        "tcp",
    ),
    "protocol number": (
        BASE + "types:\n  web: {protocol: [6, 256]} # HERE",
        "types.web.protocol[1]",
        "'256' is no protocol",
        "0 to 255",
    ),
    "port number": (
        BASE + "types:\n  web:\n    port: [80,\n     65536] # HERE",
        "types.web.port[1]",
        "'65536' is no port",
        "range",
    ),
    "range the wrong way round": (
        BASE + "types:\n  web: {dst_port: 20-10} # HERE",
        "types.web.dst_port",
        "'20-10'",
        "range",
    ),
    "ports of ICMP": (
        BASE + "types:\n  web: {protocol: icmp, port: 80} # HERE",
        "types.web",
        "has no ports",
        "tcp or udp",
    ),
    "address": (
        BASE + "types:\n  web: {src: 10.1.0} # HERE",
        "types.web.src",
        "'10.1.0' is no address",
        "10.1.0.0/16",
    ),
    "host bits": (
        BASE + "types:\n  web: {dst: 10.1.0.5/16} # HERE",
        "types.web.dst",
        "bits set behind its length",
        "write 10.1.0.0/16",
    ),
    "IPv6 that covers IPv4": (
        BASE + "types:\n  web: {dst: '::/0'} # HERE",
        "types.web.dst",
        "place of IPv4",
        "2000::/3",
    ),
    "IPv4 to IPv6": (
        BASE + "types:\n  web: {src: 10.0.0.1, dst: '2001:db8::1'} # HERE",
        "types.web",
        "never meet",
        "one kind",
    ),
    "too many combinations": (
        BASE
        + f"types:\n  web: {{src_port: {list(range(80))}, dst_port: {list(range(80))}}} # HERE",
        "types.web",
        "6400 combinations",
        "at most 4096",
    ),
    "too many rules": (
        BASE
        + f"types:\n  a:\n  - src_port: {list(range(1, 801))}\n"
        + f"  - dst_port: {list(range(1, 801))}\n" * 4
        + f"  - port: {list(range(1, 801))} # HERE",
        "types.a[5]",
        "more than 4096",
        "fewer",
    ),
    "device field": (
        BASE + "device: {lans: 64} # HERE",
        "device.lans",
        "unknown field 'lans'",
        "did you mean 'lanes'?",
    ),
    "depth": (
        BASE + "device: {depth: 63} # HERE",
        "device.depth",
        "63 is no power of two",
        "write 64",
    ),
    "executor": (
        BASE + "device: {executor: persistant} # HERE",
        "device.executor",
        "'persistant' is not offered",
        "did you mean 'persistent'?",
    ),
    "lanes": (BASE + "device: {lanes: 0} # HERE", "device.lanes", "0", "greater than or equal"),
    "groups": (BASE + "device: {groups: some} # HERE", "device.groups", "'some'", "integer"),
    "what when flows are full": (
        BASE + "flows: {when_full: panic} # HERE",
        "flows.when_full",
        "panic",
        "refuse",
    ),
    "a timeout of no state": (
        BASE + "flows: {timeouts: {tcp: 5}} # HERE",
        "flows.timeouts.tcp",
        "unknown field 'tcp'",
        "tcp_syn",
    ),
    "a timeout of nothing": (
        BASE + "flows: {timeouts: {udp: 0}} # HERE",
        "flows.timeouts.udp",
        "0",
        "1",
    ),
    "a timeout of days": (
        BASE + "flows: {timeouts: {udp: 86400}} # HERE",
        "flows.timeouts.udp",
        "86400",
        "43200",
    ),
    "a zone that is no number": (
        BASE.replace("{driver: generator}", "{driver: generator, zone: dmz} # HERE"),
        "ports.in0.zone",
        "dmz",
        "integer",
    ),
    "a zone too many": (
        BASE.replace("{driver: generator}", "{driver: generator, zone: 65536} # HERE"),
        "ports.in0.zone",
        "65536",
        "65535",
    ),
    "a zone where nothing comes in": (
        BASE.replace("{driver: sink}", "{driver: sink, zone: 1} # HERE"),
        "ports.out0.zone",
        "no packet comes in here",
        "leave zone out",
    ),
    "frame size of the memory": (
        BASE + "memory: {frame_size: 1024} # HERE",
        "memory.frame_size",
        "1024",
        "write one of: 2048, 4096",
    ),
    "queue": (
        BASE + "memory: {queue: 5000} # HERE",
        "memory.queue",
        "5000 is no power of two",
        "write 8192",
    ),
    "cores of an unknown NF": (
        BASE + CHAIN + "cores: {nf: {nids: [0]}} # HERE",
        "cores.nf.nids",
        "there is no NF 'nids'",
        "did you mean 'nids0'?",
    ),
    "one CPU twice": (BASE + "cores: {io: [0, 0]} # HERE", "cores.io", "twice", "once"),
    "no CPU": (BASE + "cores: {io: []} # HERE", "cores.io", "no entries", "at least 1"),
    "an NF with a key on two CPUs": (
        BASE + CHAIN + "cores: # HERE\n  syncer: [0, 1]",
        "cores",
        "ipsec0 has state that all its packets share, and 2 CPUs",
        "give it one: 'nf: {ipsec0: [0]}'",
    ),
    "an NF with a key, told two CPUs": (
        BASE + CHAIN + "cores:\n  nf:\n    ipsec0: [0, 1] # HERE",
        "cores.nf.ipsec0",
        "2 CPUs",
        "give it one",
    ),
    "a GPU NF where no syncer is": (
        BASE + CHAIN + "cores: {syncer: 0, nf: {nids0: 1}} # HERE",
        "cores.nf.nids0",
        "CPU 1 is no syncer",
        "add 1 to 'syncer:'",
    ),
    "too many CPUs": (
        BASE + CHAIN + f"cores: # HERE\n  io: {list(range(32))}\n  syncer: 40",
        "cores",
        "33 CPUs",
        "32 at most",
    ),
    "a key twice": (
        BASE + "nfs:\n  a: {type: forward}\n  a: {type: forward} # HERE",
        "nfs",
        "'a' stands here twice; first on line 6",
        "remove one",
    ),
    "a section twice": (BASE + "ports: {} # HERE", None, "twice; first on line 2", "remove one"),
    "a key that is a list": (BASE + "? [1]\n: 2", None, "a key must be a name", "name: value"),
    "aliases that multiply": (
        BASE
        + "nfs:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
        "nfs.a4",
        "too many values",
        "write fewer",
    ),
    "an alias of what it is in": (
        BASE + "nfs: &a # HERE\n  x: *a",
        "nfs.x",
        "too many values",
        "fewer",
    ),
    "an unknown alias": (BASE + "nfs: *a # HERE", None, "undefined alias", "correct the YAML"),
    "a tag": (BASE + "nfs: !!python/object:os.system {} # HERE", "nfs", "the tag", "remove it"),
    "a tag of a value": (
        BASE.replace("generator}", "!foo generator} # HERE"),
        "ports.in0.driver",
        "the tag '!foo'",
        "remove it",
    ),
    "a tag of another boolean": (
        BASE + "  x: {driver: generator, flows: !!bool on} # HERE",
        "ports.x.flows",
        "the tag",
        "remove it",
    ),
    "a tag that does not fit": (BASE + "nfs: !!int x # HERE", "nfs", "the tag", "remove it"),
    "two documents": (BASE + "--- # HERE\n" + BASE, None, "document", "correct the YAML"),
    "a tab": (BASE + "nfs:\n\ta: {} # HERE", None, "not YAML", "correct the YAML"),
    "not closed": (BASE + "nfs: {a: {\ntypes: {}\n# HERE", None, "not YAML", "correct the YAML"),
    "a control character": (
        BASE + "nfs: \x01 # HERE",
        None,
        r"the character '\x01' cannot stand in YAML",
        "remove it",
    ),
    "a NUL": (BASE + "nfs: \0 # HERE", None, "NUL byte", "name the right file"),
    "an escaped NUL": (BASE + 'nfs: "\\0" # HERE', "nfs", "impossible characters", "UTF-8"),
    "half a surrogate": (BASE + 'nfs: "\\ud800" # HERE', "nfs", "impossible", "UTF-8"),
    "no such character": (BASE + 'nfs: "\\Uffffffff" # HERE', None, "out of range", "correct"),
    "a long number": (BASE + f"nfs: {'9' * 5000} # HERE", "nfs", "too long", "fewer digits"),
    "nested too deeply": (BASE + f"nfs: {'[' * 5000} # HERE", None, "nested too deeply", "correct"),
}


def test_the_rules_of_a_topology_can_be_many(folder: Path) -> None:
    ports = list(range(1, 1025))
    wanted = types_of(folder, {"a": [{"port": ports}] * 1, "b": [{"dst_port": ports}]})
    assert len(wanted.rules) == 2048 < MAX_RULES


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_line_field_and_fix(folder: Path, name: str) -> None:
    text, field, what, fix = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        load(folder, text)
    error = caught.value
    lines = [number for number, line in enumerate(text.split("\n"), 1) if HERE in line]
    assert what in error.what
    assert error.path == folder / "topology.yaml"
    assert (error.line, error.field) == (lines[0] if lines else error.line, field)
    assert error.line is not None and error.fix is not None and fix in error.fix


def test_text_that_is_not_utf_8_is_told_with_its_line(folder: Path) -> None:
    (folder / "t.yaml").write_bytes(BASE.encode() + b"nfs: {} # caf\xe9\n")
    with pytest.raises(UserError, match=r"t\.yaml:5: byte 0xe9 is not UTF-8"):
        topology.load(folder / "t.yaml")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"#" * 300_000), "larger than 262144 bytes"),
        (lambda path: path.symlink_to("/dev/zero"), "larger than 262144 bytes"),
    ],
    ids=["missing", "folder", "large", "endless"],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, make: Any, what: str) -> None:
    make(tmp_path / "t.yaml")
    with pytest.raises(UserError, match=what) as caught:
        topology.load(tmp_path / "t.yaml")
    assert caught.value.fix


CAPTURES = """\
policy: routes.csv
ports:
  in0: {driver: pcap, read: $in}
  out0: {driver: pcap, write: $out}
"""


def test_bindings_are_relative_to_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "here.pcap").write_bytes(b"")
    monkeypatch.chdir(elsewhere)
    wanted = load(folder, CAPTURES, in_="here.pcap", out="there.pcap")
    assert wanted.ports[0].params.reads() == [Path("here.pcap")]
    assert wanted.ports[1].params.writes() == [Path("there.pcap")]


@pytest.mark.parametrize(
    ("text", "bindings", "place", "what"),
    [
        (CAPTURES, {"in_": "in.pcap"}, (4, "ports.out0.write"), "$out is not given"),
        (CAPTURES, {"in_": "x", "out": "out"}, (3, "ports.in0.read"), "no such file: "),
        (CAPTURES, {"in_": "in.pcap", "out": "in.pcap"}, (4, "ports.out0.write"), "replaced while"),
        (BASE, {"in_": "in.pcap"}, (2, "ports"), "--in is given, but no port uses $in"),
    ],
)
def test_wrong_bindings(
    folder: Path, text: str, bindings: dict[str, str], place: tuple[int, str], what: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(folder, text, **{name: str(folder / file) for name, file in bindings.items()})
    assert what in caught.value.what
    assert (caught.value.line, caught.value.field) == place


def test_what_an_nf_refuses_is_told_with_the_line_of_the_topology(folder: Path) -> None:
    """An NF knows the field that it does not like, but not where it stands."""
    wanted = load(folder, BASE + CHAIN)

    def refuse(params: NfParams, context: Any) -> Any:
        raise UserError("too sunny", field=f"nfs.{context.name}.rules", fix="wait")

    nids = dataclasses.replace(
        wanted.nfs[1], nf=dataclasses.replace(wanted.nfs[1].nf, build=refuse)
    )
    with pytest.raises(UserError) as caught:
        dataclasses.replace(wanted, nfs=(nids,)).build_tables()
    error = caught.value
    assert (error.path, error.line, error.field) == (wanted.path, 7, "nfs.nids0.rules")
    assert (error.what, error.fix) == ("too sunny", "wait")


# --- Rules ----------------------------------------------------------------------------------------


def test_lists_become_one_entry_for_each_combination(folder: Path) -> None:
    wanted = types_of(
        folder,
        {
            "x": {
                "protocol": ["tcp", 17],
                "src": ["10.0.0.0/8", "2001:db8::/32"],
                "port": [80, "8-9"],
            }
        },
    )
    assert len(wanted.rules) == 8
    entry = wanted.rules[0]
    assert (entry.type, entry.protocol, entry.port) == (1, 6, PortRange(80, 80))
    assert entry.src == (b"\0" * 10 + b"\xff\xff\x0a\0\0\0", 104)
    assert (entry.dst, entry.src_port) == ((bytes(16), 0), ANY_PORT)
    assert wanted.rules[2].src == (bytes.fromhex("20010db8") + bytes(12), 32)


ADDRESSES = ["10.1.0.1", "10.1.0.2", "10.2.0.1", "203.0.113.9", "2001:db8::1", "2001:db8:1::1"]
PREFIXES = ["10.1.0.0/16", "10.1.0.1", "0.0.0.0/0", "203.0.113.0/24", "2001:db8::/32", "2000::/3"]
PORTS = [0, 1, 79, 80, 81, 443, 65535]
RANGES = ["80", "79-81", "0-65535", "443-65535", "0"]
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "any": None}


def one_or_more(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    one = st.sampled_from(values)
    return one | st.lists(one, min_size=1, max_size=3)


RULE = st.fixed_dictionaries(
    {},
    optional={
        "protocol": one_or_more(list(PROTOCOLS)),
        "src": one_or_more(PREFIXES),
        "dst": one_or_more(PREFIXES),
        "src_port": one_or_more(RANGES),
        "dst_port": one_or_more(RANGES),
        "port": one_or_more(RANGES),
    },
)
TUPLE = st.tuples(
    st.sampled_from([6, 17, 1]),
    st.sampled_from(ADDRESSES),
    st.sampled_from(ADDRESSES),
    st.sampled_from(PORTS),
    st.sampled_from(PORTS),
).filter(lambda flow: (":" in flow[1]) == (":" in flow[2]))


def packet_of(flow: tuple[int, str, str, int, int]) -> bytes:
    protocol, src, dst, src_port, dst_port = flow
    ip = IPv6(src=src, dst=dst) if ":" in src else IP(src=src, dst=dst)
    if protocol == 1:
        if ":" in src:
            ip.nh = 1
            return bytes(Ether(dst="02:00:00:00:00:01") / ip / bytes(8))
        return bytes(Ether(dst="02:00:00:00:00:01") / ip / ICMP())
    layer = {6: TCP, 17: UDP}[protocol]
    return bytes(Ether(dst="02:00:00:00:00:01") / ip / layer(sport=src_port, dport=dst_port))


def holds(rule: Mapping[str, Any], flow: tuple[int, str, str, int, int]) -> bool:
    """What README.md of policies/ says about rules, in the plainest words."""

    def some(field: str) -> list[str]:
        value = rule[field]
        return value if isinstance(value, list) else [value]

    protocol, src, dst, src_port, dst_port = flow
    if "protocol" in rule and not any(PROTOCOLS[p] in (None, protocol) for p in some("protocol")):
        return False
    for field, address in (("src", src), ("dst", dst)):
        networks = [ipaddress.ip_network(p) for p in some(field)] if field in rule else []
        if networks and not any(ipaddress.ip_address(address) in network for network in networks):
            return False
    sides = {"src_port": [src_port], "dst_port": [dst_port], "port": [src_port, dst_port]}
    for field, ports in sides.items():
        ranges = [range_.split("-") for range_ in some(field)] if field in rule else []
        fits = any(int(r[0]) <= p <= int(r[-1]) for r in ranges for p in ports if protocol != 1)
        if ranges and ["0", "65535"] not in ranges and not fits:
            return False
    return True


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rules=st.lists(RULE, min_size=1, max_size=3), flows=st.lists(TUPLE, min_size=1, max_size=8))
def test_the_data_plane_matches_what_the_rules_say(
    folder: Path, rules: list[dict[str, Any]], flows: list[tuple[int, str, str, int, int]]
) -> None:
    """Random rules and packets; the other opinion is `holds`."""
    try:
        wanted = types_of(folder, {f"t{number}": rule for number, rule in enumerate(rules)})
    except UserError as error:
        assert any(what in error.what for what in ("every packet", "no ports", "never meet"))
        return
    for flow in flows:
        expected = next((f"t{n}" for n, rule in enumerate(rules) if holds(rule, flow)), "other")
        verdict = classify(wanted, packet_of(flow))
        assert verdict.type == expected, (flow, rules)


def test_what_is_not_ip_has_the_type_other(folder: Path) -> None:
    wanted = types_of(folder, {"all4": {"src": "0.0.0.0/0"}, "zero": {"protocol": 0}})
    assert classify(wanted, bytes(Ether() / ARP())).type == "other"
    assert classify(wanted, bytes(Ether() / IP() / UDP())).type == "all4"


# --- Placement ------------------------------------------------------------------------------------

GPU_CHAIN = BASE + CHAIN


@pytest.mark.parametrize(
    ("cpus", "device", "expected", "syncers", "spare"),
    [
        ([5], True, {"in0": 5, "a": 5, "nids0": 5}, [5], []),
        ([3, 7], True, {"in0": 7, "a": 7, "nids0": 7}, [7], [3]),
        ([0, 1, 2], True, {"in0": 1, "a": 1, "nids0": 1}, [1], [0, 2]),
        ([0, 2, 4, 6], True, {"in0": 2, "out0": 2, "a": 2, "nids0": 4, "ipsec0": 4}, [4], [0, 6]),
        ([0, 1, 2, 3], False, {"in0": 3, "a": 3, "nids0": 3, "ipsec0": 3}, [], [0, 1, 2]),
        ([5], False, {"in0": 5, "nids0": 5}, [], []),
    ],
)
def test_automatic_placement(
    folder: Path,
    cpus: list[int],
    device: bool,
    expected: dict[str, int],
    syncers: list[int],
    spare: list[int],
) -> None:
    found = load(folder, GPU_CHAIN).place(cpus, device)
    served = {**found.ports, **found.nfs}
    places = {name: found.cpus[lcores[0]] for name, lcores in served.items()}
    assert {name: places[name] for name in expected} == expected
    assert [found.cpus[lcore] for lcore in found.syncers] == syncers
    assert list(found.spare) == spare
    assert found.engines == {
        "a": "cpu",
        "nids0": "gpu" if device else "cpu",
        "ipsec0": "gpu" if device else "cpu",
    }


def test_without_gpu_nfs_everything_is_on_the_last_cpu(folder: Path) -> None:
    found = load(folder, BASE + "nfs: {a: {type: forward}}\n").place([0, 1, 2, 3])
    assert (found.cpus, found.ports, found.nfs) == ((3,), {"in0": (0,), "out0": (0,)}, {"a": (0,)})


def test_cores_c2d2(folder: Path) -> None:
    """Two syncers and two io cores; ports in turn, CPU NFs on both, IPsec on one syncer."""
    cores = "cores: {io: [1, 2], syncer: [3, 4], nf: {ipsec0: [4]}}\n"
    found = load(folder, GPU_CHAIN + cores).place(range(8))
    assert found.cpus == (1, 2, 3, 4)
    assert found.ports == {"in0": (0,), "out0": (1,)}
    assert found.nfs == {"a": (0, 1), "nids0": (2, 3), "ipsec0": (3,)}
    assert (found.syncers, found.spare) == ((2, 3), (0, 5, 6, 7))


@pytest.mark.parametrize(
    ("cores", "nids_cpus"),
    [("{syncer: 5}", (5,)), ("{io: 6}", (6,)), ("{io: [1, 2], nf: {ipsec0: 3, nids0: 4}}", (4,))],
)
def test_without_a_device_gpu_nfs_run_where_their_syncers_would(
    folder: Path, cores: str, nids_cpus: tuple[int, ...]
) -> None:
    wanted = load(folder, GPU_CHAIN + f"cores: {cores}\n")
    found = wanted.place(range(8), device=False)
    assert tuple(found.cpus[lcore] for lcore in found.nfs["nids0"]) == nids_cpus
    assert found.syncers == () and found.engines["nids0"] == "cpu"


def test_a_cpu_that_may_not_be_used_is_refused_where_it_runs_not_where_it_is_read(
    folder: Path,
) -> None:
    wanted = load(folder, BASE + "cores:\n  io: [0, 1000]\n")
    with pytest.raises(UserError, match="CPU 1000 may not be used here") as caught:
        wanted.place()
    assert (caught.value.line, caught.value.field) == (6, "cores.io")
    assert str(min(os.sched_getaffinity(0))) in str(caught.value.fix)


# --- Anything -------------------------------------------------------------------------------------


def load_or_refuse(data: bytes, folder: Path) -> topology.Topology | None:
    """A topology, or None after an error that names file, line and fix."""
    path = folder / "topology.yaml"
    path.write_bytes(data)
    try:
        return topology.load(path)
    except UserError as error:
        assert error.path == path and error.line is not None and error.line >= 1 and error.fix
        assert error.line <= data.count(b"\n") + 1
        str(error).encode()
        return None


FUZZ = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FULL = (
    BASE
    + CHAIN
    + """\
types:
  web: [{protocol: tcp, port: [80, 443, 8080]}, {dst: 10.0.0.0/8}]
  voice: {protocol: udp, dst_port: 16384-16399}
device: {use: auto, executor: auto, lanes: 64, depth: 64, groups: auto, lifetime_ms: 200}
cores: {io: [0], syncer: 0, nf: {a: auto}}
memory: {mbufs: 16384, frame_size: 2048, queue: 4096, flows: 65536}
"""
)


def test_the_text_that_fuzzing_starts_from_is_right(folder: Path) -> None:
    assert load_or_refuse(FULL.encode(), folder)


@FUZZ
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8")))
def test_any_bytes_are_read_or_refused(folder: Path, data: bytes) -> None:
    load_or_refuse(data, folder)
    load_or_refuse(BASE.encode() + data, folder)


PIECES = st.sampled_from(
    ["{", "}", "[", "]", ":", "\n", "- ", "  ", "*", "&a ", "!!", '"', "'", "0"]
)


@FUZZ
@given(st.data())
def test_a_topology_with_edits_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    text = FULL
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 12))
        text = text[:at] + data.draw(PIECES | st.text(max_size=4)) + text[at + cut :]
    load_or_refuse(text.encode("utf-8"), folder)


KEYS = sorted(set(FULL.replace("{", " ").replace(":", " ").replace(",", " ").split()))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(KEYS)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested data."""
    items: Any = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    inner = itertools.chain.from_iterable(places(v, (*place, k)) for k, v in items)
    return [place, *inner]


@settings(FUZZ, max_examples=150)
@given(st.data())
def test_a_topology_with_another_value_is_read_or_refused(
    folder: Path, data: st.DataObject
) -> None:
    """Right YAML, but some value is of any type."""
    content = yaml.safe_load(FULL)
    *outer, last = data.draw(st.sampled_from(places(content)[1:]))
    target = content
    for key in outer:
        target = target[key]
    target[last] = data.draw(VALUES)
    load_or_refuse(yaml.safe_dump(content, allow_unicode=True).encode("utf-8"), folder)
