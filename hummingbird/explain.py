# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird explain`: the path of one packet, and the line of each file that decided it.

The packet goes through the data plane's own parser and rules, so that the answer is the truth.
"""

from __future__ import annotations

import ipaddress
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hummingbird import policy, topology
from hummingbird.capture import read_packet
from hummingbird.dataplane._native import ffi, lib
from hummingbird.dataplane.plane import reasons
from hummingbird.errors import UserError
from hummingbird.policy import OTHER, Policy, Route
from hummingbird.rules import PROTOCOLS, WITH_PORTS, Rule
from hummingbird.topology import Topology

FLOW_FIX = "write 'tcp 10.1.0.10:4000 -> 203.0.113.10:80' or 'icmp 10.1.0.10 -> 203.0.113.10'"
END = re.compile(r"\[(.+)\](?::([0-9]{1,5}))?|([^:]+)(?::([0-9]{1,5}))?|(.+)")
"""Address and port: IPv6 in brackets, IPv4, IPv6 without a port."""
FLOW = re.compile(r"\s*([a-z0-9]{1,8})\s+(\S+)\s*->\s*(\S+)\s*")
HEADER_BYTES = {6: 20, 132: 12}
"""Transport headers that are not of 8 bytes."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Verdict:
    """What the data plane makes of a packet when it comes in."""

    type: str
    rule: Rule | None
    """The rule that decided; None: no rule matches."""
    dropped: str = ""
    """Name and meaning of the reason if it is dropped before it has a type."""


def command(path: Path, flow: str | None, packet: str | None, out: TextIO | None = None) -> None:
    """Print what happens to a flow or to a packet of a capture, given as FILE:N.

    Raises:
        UserError: one of the files or arguments is wrong.
    """
    top = topology.load(path)
    routes = policy.load(top.policy, top.vocabulary())
    data = flow_packet(flow) if flow is not None else capture_packet(packet or "")
    title = flow.strip() if flow is not None else f"packet {packet}, {len(data)} bytes"
    for line in describe(top, routes, title, classify(top, data), certain=packet is None):
        print(line, file=out or sys.stdout)


# --- Packets --------------------------------------------------------------------------------------


def capture_packet(place: str) -> bytes:
    """The packet at ``FILE:N``, N from 1."""
    match = re.fullmatch(r"(.+):([1-9][0-9]{0,11})", place, re.DOTALL)
    if match is None:
        raise UserError(f"{place!r} names no packet", fix="write CAPTURE:N, N counted from 1")
    return read_packet(Path(match[1]), int(match[2]))


def flow_packet(text: str) -> bytes:
    """The smallest packet of a flow written as ``PROTOCOL SRC:PORT -> DST:PORT``.

    Protocols without ports, such as ICMP, take addresses only. An IPv6 address stands in brackets
    if a port follows.
    """
    match = FLOW.fullmatch(text)
    if match is None:
        raise UserError(f"{text!r} is no flow", fix=FLOW_FIX)
    protocol = _protocol(match[1])
    src, src_port = _end(match[2], protocol)
    dst, dst_port = _end(match[3], protocol)
    if src.version != dst.version:
        raise UserError("a flow from IPv4 to IPv6 cannot be", fix="write two addresses of one kind")
    return _packet(protocol, src, dst, src_port, dst_port)


def _protocol(text: str) -> int:
    number = PROTOCOLS.get(text, int(text) if text.isdecimal() else 256)
    if number > 255:
        names = ", ".join(PROTOCOLS)
        raise UserError(f"{text!r} is no protocol", fix=f"write {names} or a number up to 255")
    return number


def _end(text: str, protocol: int) -> tuple[Address, int | None]:
    match = END.fullmatch(text)
    assert match is not None  # the last alternative takes anything
    port = match[2] or match[4]
    try:
        address = ipaddress.ip_address(match[1] or match[3] or match[5])
    except ValueError:
        raise UserError(f"{text!r} is no address", fix=FLOW_FIX) from None
    has_ports = protocol in WITH_PORTS
    if has_ports != (port is not None):
        what = f"a port is {'missing behind' if has_ports else 'not possible behind'} {address}"
        raise UserError(what, fix=FLOW_FIX)
    if port is not None and int(port) > 65535:
        raise UserError(f"{port} is no port", fix="write a number up to 65535")
    return address, None if port is None else int(port)


def _packet(
    protocol: int, src: Address, dst: Address, src_port: int | None, dst_port: int | None
) -> bytes:
    """Ethernet, IP and the transport header, with everything zero that a rule cannot see."""
    transport = bytearray(HEADER_BYTES.get(protocol, 8))
    if src_port is not None:
        struct.pack_into("!HH", transport, 0, src_port, dst_port)
    if protocol == PROTOCOLS["tcp"]:
        transport[12] = 5 << 4  # its length in words
    size = len(transport)
    if src.version == 4:
        head = struct.pack("!BBHIBBH", 0x45, 0, 20 + size, 0, 64, protocol, 0)
        return bytes(12) + b"\x08\x00" + head + src.packed + dst.packed + transport
    head = struct.pack("!IHBB", 6 << 28, size, protocol, 64)
    return bytes(12) + b"\x86\xdd" + head + src.packed + dst.packed + transport


# --- What happens to it ---------------------------------------------------------------------------


def classify(top: Topology, packet: bytes) -> Verdict:
    """What the data plane makes of a packet that comes in."""
    rules = ffi.new("hb_rule[]", [rule.native() for rule in top.rules])
    index = ffi.new("int32_t *")
    reason = lib.hb_classify(packet, len(packet), rules, len(top.rules), index)
    if reason:
        return Verdict("", None, ": ".join(reasons()[reason]))
    rule = top.rules[index[0]] if index[0] >= 0 else None
    return Verdict(top.types[rule.type] if rule else OTHER, rule)


def describe(
    top: Topology, routes: Policy, title: str, verdict: Verdict, certain: bool
) -> Iterator[str]:
    """The lines to print.

    Args:
        certain: False for a real packet: whether an NF finds something in it is open.
    """
    yield title
    if verdict.dropped:
        yield f"dropped when it comes in: {verdict.dropped}"
        return
    yield _why(top, verdict)
    for port in routes.names.ingress:
        yield ""
        yield from _hops(routes, routes.route(port, verdict.type), "", certain)


def _why(top: Topology, verdict: Verdict) -> str:
    if verdict.rule is None:
        return f"type {OTHER}: no rule of {top.path} matches"
    return f"type {verdict.type}: rule at {top.path}:{verdict.rule.line}"


def _hops(routes: Policy, route: Route, indent: str, certain: bool) -> Iterator[str]:
    width = max(map(len, routes.names.nodes))
    number = len(str(max(routes.rows)))
    for node, following, line in zip(route.nodes, route.nodes[1:], route.lines, strict=False):
        hop = f"{indent}{node:{width}} -> {following:{width}}"
        yield f"{hop}  {routes.path}:{line:<{number}}  {routes.rows[line]}"
        for branch in route.branches:
            if branch.nodes[0] == node:
                made = f"on a match {node} makes" if certain else f"{node} may make"
                yield f"{indent}  {made} it {branch.type}:"
                yield from _hops(routes, branch, indent + "    ", certain)
