# SPDX-License-Identifier: BSD-3-Clause
"""The packet parser against the dissections of tshark and scapy, packet by packet.

    capture ─┬─ tshark -T fields ── 5-tuple or fault ── rules ─┐
             └─ bytes ───────────────────────────── hb_classify ─ the one exact rule

Besides the demo's, captures of traces/ in HUMMINGBIRD_TEST_DATA (or ../shared/data) are used:
fragments, tags, IPv6, tunnels, options, and malformed packets of many kinds.
"""

import functools
import ipaddress
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hummingbird.dataplane._native import ffi, lib
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapReader

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "policies" / "demo" / "branch.pcap"
DATA = Path(os.environ.get("HUMMINGBIRD_TEST_DATA") or ROOT.parent / "shared" / "data")
TRACES = DATA / "traces"
MOST = 10_000  # packets of a capture
ETHERNET = 1
ICMP = 1
TRANSPORTS = {6: ("tcp", 20), 17: ("udp", 8), 132: ("sctp", 12)}  # name, header
EXTENSIONS = {"ipv6.hopopts", "ipv6.routing", "ipv6.dstopts"}
IPV4 = ("version", "hdr_len", "len", "src", "dst", "proto", "flags.mf", "frag_offset")
IPV6 = ("src", "dst", "nxt", "plen", "hopopts.nxt", "routing.nxt", "dstopts.nxt")
FRAGMENT = ("nxt", "offset", "more")
FIELDS = [
    *("frame.cap_len", "frame.protocols"),
    *(f"ip.{name}" for name in IPV4),
    *(f"ipv6.{name}" for name in IPV6),
    *(f"ipv6.fraghdr.{name}" for name in FRAGMENT),
    *(f"{name}.{end}port" for name, _ in TRANSPORTS.values() for end in ("src", "dst")),
]

Dissection = dict[str, str]


class Tuple(NamedTuple):
    """What a packet should be taken for."""

    src: str
    dst: str
    protocol: int
    ports: tuple[int, int] | None


def captures() -> Iterator[pytest.param]:
    yield pytest.param(DEMO, id="demo")
    if not TRACES.is_dir():
        reason = f"NOT CHECKED: no captures in {TRACES}; HUMMINGBIRD_TEST_DATA says where they are"
        yield pytest.param(TRACES, id="traces", marks=pytest.mark.skip(reason=reason))
    for path in sorted(TRACES.rglob("*.*")):
        if path.suffix in {".pcap", ".cap"}:
            yield pytest.param(path, id=str(path.relative_to(TRACES)))


# --- What tshark says -----------------------------------------------------------------------------


def dissect(path: Path) -> Iterator[Dissection]:
    """The outermost occurrence of each field, for each packet."""
    command = ["tshark", "-n", "-r", str(path), "-c", str(MOST)]
    command += ["-T", "fields", "-E", "occurrence=f"]
    for name in ("ip.defragment", "ipv6.defragment", "tcp.desegment_tcp_streams", "ip.tso_support"):
        command += ["-o", f"{name}:FALSE"]
    for name in FIELDS:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    for line in done.stdout.splitlines():
        yield dict(zip(FIELDS, line.split("\t"), strict=True))


def layers(packet: Dissection) -> tuple[str, int, list[str]]:
    """The network layer ("" if it is not IP behind at most two tags), its offset, the rest."""
    link, *names = [name for name in packet["frame.protocols"].split(":") if name != "ethertype"]
    offset = 14
    while names and names[0] in ("vlan", "ieee8021ad") and offset < 22:
        names.pop(0)
        offset += 4
    if link != "eth" or not names or names[0] not in ("ip", "ipv6"):
        return "", 0, []
    return names[0], offset, names[1:]


def transport(packet: Dissection, protocol: int, payload: int) -> tuple[int, int] | str | None:
    """The ports; None for a protocol that has none."""
    if protocol not in TRANSPORTS:
        return "truncated" if protocol == ICMP and payload < 8 else None
    name, header = TRANSPORTS[protocol]
    if payload < header:
        return "truncated"
    return int(packet[f"{name}.srcport"]), int(packet[f"{name}.dstport"])


def number(text: str) -> int:
    return int(text or "0", 0)


def flag(text: str) -> bool:
    return text not in ("", "0", "False")


def expect_ipv4(packet: Dissection, room: int) -> Tuple | str:
    if room < 20:
        return "truncated"
    header, length = number(packet["ip.hdr_len"]), number(packet["ip.len"])
    if packet["ip.version"] != "4" or header < 20 or length < header:
        return "malformed"
    if length > room:
        return "truncated"
    protocol = int(packet["ip.proto"])
    ports: tuple[int, int] | str | None = None
    if not flag(packet["ip.flags.mf"]) and not number(packet["ip.frag_offset"]):
        ports = transport(packet, protocol, length - header)
    if isinstance(ports, str):
        return ports
    return Tuple(packet["ip.src"], packet["ip.dst"], protocol, ports)


def expect_ipv6(packet: Dissection, room: int, inner: list[str]) -> Tuple | str:
    payload = number(packet["ipv6.plen"])
    if room < 40 or payload > room - 40:
        return "truncated"
    protocol = int(packet["ipv6.nxt"])
    for name in inner:
        if name in EXTENSIONS:
            protocol = int(packet[f"{name}.nxt"])
    ports: tuple[int, int] | str | None = None
    whole = True
    if "ipv6.fraghdr" in inner:
        protocol = int(packet["ipv6.fraghdr.nxt"])
        whole = not number(packet["ipv6.fraghdr.offset"]) and not flag(packet["ipv6.fraghdr.more"])
    if whole:
        ports = transport(packet, protocol, payload)
    if isinstance(ports, str):
        return ports
    return Tuple(packet["ipv6.src"], packet["ipv6.dst"], protocol, ports)


def expect(packet: Dissection) -> Tuple | str | None:
    """The packet's tuple, or the name of the reason to drop it; None if it is not IP."""
    length = int(packet["frame.cap_len"])
    if length < 14:
        return "runt"
    network, offset, inner = layers(packet)
    if network == "ip":
        return expect_ipv4(packet, length - offset)
    if network == "ipv6":
        return expect_ipv6(packet, length - offset, inner)
    return None


# --- What the parser says -------------------------------------------------------------------------


def address(text: str) -> bytes:
    ip = ipaddress.ip_address(text)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def other_address(text: str) -> str:
    ip = ipaddress.ip_address(text)
    return str(ip - 1 if int(ip) & 1 else ip + 1)


@functools.cache
def rules_for(want: Tuple) -> object:
    """Rules of which only the last is right; each of the others is wrong in one thing."""
    ports = want.ports
    wrong = [
        want._replace(src=other_address(want.src)),
        want._replace(dst=other_address(want.dst)),
        want._replace(protocol=want.protocol ^ 1),
        want._replace(ports=(ports[0] ^ 1, ports[1]) if ports else (0, 0)),
        want._replace(ports=(ports[0], ports[1] ^ 1) if ports else (0, 65534)),
    ]
    rules = ffi.new("hb_rule[]", len(wrong) + 1)
    for rule, what in zip(rules, [*wrong, want], strict=True):
        rule.proto = what.protocol
        rule.src, rule.src_bits = address(what.src), 128
        rule.dst, rule.dst_bits = address(what.dst), 128
        rule.src_port = rule.dst_port = rule.port = (0, 65535)
        if what.ports:
            rule.src_port, rule.dst_port = [(port, port) for port in what.ports]
    return rules


NOTHING = ffi.new("hb_rule[2]", [{"any_proto": 1, "src_bits": 1}, {"any_proto": 1}])
for one in NOTHING:
    one.src_port = one.dst_port = one.port = (0, 65535)


def classify(packet: bytes, rules: object) -> int | str:
    """The index of the rule that matches, or the reason to drop the packet."""
    index = ffi.new("int32_t *")
    reason = lib.hb_classify(packet, len(packet), rules, len(rules), index)
    return ffi.string(lib.hb_reason_name(reason)).decode() if reason else index[0]


def read_frames(path: Path) -> list[bytes]:
    frames = []
    with RawPcapReader(str(path)) as reader:
        for frame, about in itertools.islice(reader, MOST):
            link = getattr(reader, "linktype", None) or about.linktype  # pcapng: of each packet
            if link != ETHERNET:
                pytest.skip(f"link type {link}: the port makes Ethernet of it first")
            frames.append(bytes(frame))
    return frames


def compare(frames: list[bytes], wanted: Iterable[Tuple | str | None]) -> None:
    different = []
    for index, (frame, want) in enumerate(zip(frames, wanted, strict=True), 1):
        if isinstance(want, Tuple):
            rules, right = rules_for(want), 5
        else:
            rules, right = NOTHING, want or 1
        if (got := classify(frame, rules)) != right:
            different.append(f"packet {index}: {want} expected, not {got}: {frame[:80].hex(' ')}")
    assert not different, f"{len(different)} of {len(frames)}\n" + "\n".join(different[:20])


@pytest.mark.parametrize("path", [*captures()])
def test_same_as_tshark(path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("NOT CHECKED: no tshark; apt-get install tshark")
    compare(read_frames(path), map(expect, dissect(path)))


def scapy_says(frame: bytes) -> Tuple | None:
    """Of a sound packet, as all of the demo are."""
    ip = packet = Ether(frame).payload
    if not isinstance(ip, IP | IPv6):
        return None
    protocol = ip.proto if isinstance(ip, IP) else ip.nh
    while isinstance(packet.payload, IPv6ExtHdrHopByHop):
        packet = packet.payload
        protocol = packet.nh
    transport = packet.payload
    ports = (transport.sport, transport.dport) if isinstance(transport, TCP | UDP) else None
    return Tuple(ip.src, ip.dst, protocol, ports)


def test_same_as_scapy() -> None:
    """Where there is no tshark, too."""
    frames = read_frames(DEMO)
    compare(frames, map(scapy_says, frames))
