# SPDX-License-Identifier: BSD-3-Clause
"""Packet type rules: what a topology writes under ``types:``, and what the data plane matches.

    web:   [{protocol: tcp, port: [80, 443, 8080]}]
    voice: {protocol: udp, dst_port: 16384-16399}
    lab:   {src: 10.1.0.0/16, dst: [192.0.2.1, "2001:db8::/32"]}

All fields of a rule must hold. A field with several values holds if one of them does; such a rule
becomes one entry for each combination, because an entry of the data plane has one value per field.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from hummingbird.ports import mistake

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
WITH_PORTS = (None, 6, 17, 132)
IPV4_BITS = 96
"""Bits in front of an IPv4 address in its 128-bit form, ::ffff:a.b.c.d."""


class Prefix(NamedTuple):
    """An address prefix."""

    address: bytes
    """16 bytes, IPv4 as ::ffff:a.b.c.d."""
    bits: int
    """Length, 0 to 128; an IPv4 prefix has at least 96."""


class PortRange(NamedTuple):
    """Transport ports, both ends included."""

    first: int
    last: int


ANY_ADDRESS = Prefix(bytes(16), 0)
ANY_PORT = PortRange(0, 65535)


@dataclass(frozen=True)
class Selector:
    """One value for each field, which the data plane compares packets with; all have to hold."""

    protocol: int | None
    """IP protocol number; None: any."""
    src: Prefix
    dst: Prefix
    src_port: PortRange
    dst_port: PortRange
    port: PortRange
    """Either port lies in it."""

    @property
    def asks_for_ports(self) -> bool:
        """Some ports do not match."""
        return (self.src_port, self.dst_port, self.port) != (ANY_PORT, ANY_PORT, ANY_PORT)

    def native(self) -> dict[str, Any]:
        """These fields as C has them (``hb_rule`` of api.h, and others), for cffi."""
        return {
            "any_proto": self.protocol is None,
            "proto": self.protocol or 0,
            "src": list(self.src.address),
            "dst": list(self.dst.address),
            "src_bits": self.src.bits,
            "dst_bits": self.dst.bits,
            "src_port": list(self.src_port),
            "dst_port": list(self.dst_port),
            "port": list(self.port),
        }


@dataclass(frozen=True)
class Rule(Selector):
    """What gives packets their type."""

    type: int
    """Number of the packet type."""
    line: int = field(compare=False)
    """Where it stands in the topology."""

    def native(self) -> dict[str, Any]:
        """The fields of a ``hb_rule``."""
        return super().native() | {"type": self.type}


def _protocol(value: Any) -> int | None:
    if value == "any":
        return None
    if isinstance(value, str) and value in PROTOCOLS:
        return PROTOCOLS[value]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
        return value
    fix = f"write {', '.join(PROTOCOLS)}, any or a number from 0 to 255"
    raise mistake(f"{str(value)[:40]!r} is no protocol", fix)


def _prefix(value: Any) -> Prefix:
    text = value if isinstance(value, str) else ""
    try:
        network = ipaddress.ip_network(text, strict=False)
        address = ipaddress.ip_address(text.split("/")[0])
    except ValueError:
        fix = "write an address or a prefix such as 10.1.0.0/16 or 2001:db8::/32"
        raise mistake(f"{str(value)[:60]!r} is no address", fix) from None
    if address != network.network_address:
        raise mistake(f"{text} has bits set behind its length", f"write {network}")
    if isinstance(network, ipaddress.IPv4Network):
        mapped = b"\0" * 10 + b"\xff\xff" + network.network_address.packed
        return Prefix(mapped, IPV4_BITS + network.prefixlen)
    if network.overlaps(ipaddress.IPv6Network("::ffff:0:0/96")):
        fix = "write 2000::/3 for all public IPv6 addresses, 0.0.0.0/0 for all of IPv4"
        raise mistake(f"{text} covers the place of IPv4 addresses", fix)
    return Prefix(network.network_address.packed, network.prefixlen)


def _port_range(value: Any) -> PortRange:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", str(value))
    if match and not isinstance(value, bool):
        first, last = int(match[1]), int(match[2] or match[1])
        if first <= last <= 65535:
            return PortRange(first, last)
    raise mistake(f"{str(value)[:40]!r} is no port", "write a port or a range, 80 or 8000-8099")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Some = Field(min_length=1, max_length=1024)
Protocols = Annotated[
    tuple[Annotated[int | None, PlainValidator(_protocol)], ...], BeforeValidator(_as_list), Some
]
Prefixes = Annotated[
    tuple[Annotated[Prefix, PlainValidator(_prefix)], ...], BeforeValidator(_as_list), Some
]
Ports = Annotated[
    tuple[Annotated[PortRange, PlainValidator(_port_range)], ...], BeforeValidator(_as_list), Some
]


class SelectorParams(BaseModel):
    """What packets something is for, as a topology has it; a field that is left out is any."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    WHAT: ClassVar[tuple[str, str]]
    """What has these fields, and many of it; for messages."""
    MOST: ClassVar[int]
    """Selectors that all of it together may become."""

    protocol: Protocols = (None,)
    """``tcp``, ``udp``, ``sctp``, ``icmp``, ``icmpv6``, ``any``, or a number."""
    src: Prefixes = (ANY_ADDRESS,)
    """Of the sender, IPv4 or IPv6."""
    dst: Prefixes = (ANY_ADDRESS,)
    """Of whom it is for."""
    src_port: Ports = (ANY_PORT,)
    """Of the sender, such as ``80`` or ``16384-16399``."""
    dst_port: Ports = (ANY_PORT,)
    """Of whom it is for."""
    port: Ports = (ANY_PORT,)
    """Of either side: matches both directions of a connection."""

    @model_validator(mode="after")
    def _can_match(self) -> SelectorParams:
        one, many = self.WHAT
        if self.count > self.MOST:
            fix = f"write shorter lists; all {many} together have at most {self.MOST} combinations"
            raise mistake(f"the lists of this {one} have {self.count} combinations", fix)
        found = list(self.selectors())
        if any(one.protocol not in WITH_PORTS and one.asks_for_ports for one in found):
            raise mistake("this protocol has no ports", "remove the ports, or write tcp or udp")
        if not found:
            raise mistake("an IPv4 and an IPv6 address never meet", "write two of one kind")
        return self

    @property
    def count(self) -> int:
        """Most selectors that it can become."""
        count = len(self.protocol) * len(self.src) * len(self.dst)
        return count * len(self.src_port) * len(self.dst_port) * len(self.port)

    def selectors(self) -> Iterator[Selector]:
        """Every combination, without those of two address families, which nothing matches."""
        for protocol, src, dst in product(self.protocol, self.src, self.dst):
            if src.bits and dst.bits and is_ipv4(src) != is_ipv4(dst):
                continue
            for ports in product(self.src_port, self.dst_port, self.port):
                yield Selector(protocol, src, dst, *ports)


MAX_RULES = 4096
"""Entries of all rules of a topology: the first packet of a flow is compared with each."""


class RuleParams(SelectorParams):
    """A packet type rule as the topology has it."""

    WHAT = ("rule", "rules")
    MOST = MAX_RULES

    @model_validator(mode="after")
    def _is_not_the_rest(self) -> RuleParams:
        if any(_matches_everything(one) for one in self.selectors()):
            fix = "remove it; what no rule matches has the type 'other'"
            raise mistake("this rule matches every packet", fix)
        return self

    def entries(self, type_number: int, line: int) -> Iterator[Rule]:
        """What the data plane matches."""
        for one in self.selectors():
            yield Rule(**vars(one), type=type_number, line=line)


def is_ipv4(prefix: Prefix) -> bool:
    """Does only IPv4 match? A prefix of 0 bits matches both."""
    return prefix.bits >= IPV4_BITS and prefix.address.startswith(b"\0" * 10 + b"\xff\xff")


def _matches_everything(one: Selector) -> bool:
    return one.protocol is None and not (one.src.bits or one.dst.bits or one.asks_for_ports)
