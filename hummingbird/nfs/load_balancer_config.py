# SPDX-License-Identifier: BSD-3-Clause
"""What a topology says about ``type: load_balancer``: services, and how their backends are chosen.

    backends: backends.csv
    tunnel: {source: 192.0.2.1}
    services:
      web: {address: 203.0.113.10, protocol: tcp, port: 443}
      dns: {address: 203.0.113.10, protocol: udp, port: 53,
            backends: [{address: 10.0.0.53}, {address: 10.0.0.54, weight: 2}]}
      all: {address: "2001:db8::10", protocol: tcp, port: any, mode: ipip}

docs/load_balancer.md describes it to those who write one.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator

from hummingbird.nfs import NfParams
from hummingbird.nfs.fields import Mac
from hummingbird.ports import Whole, mistake
from hummingbird.rules import ANY_PORT, PortRange
from hummingbird.textfile import NAME, NAME_RULE, quoted

Address = IPv4Address | IPv6Address
MAX_WEIGHT = 10_000
MAX_SERVICES = 4096
LEAST_TABLE, MOST_TABLE = 251, 655_373
"""The paper tries 65,537 and 655,373."""
LEAST_MTU = 1320
"""So that an IPv6 packet of 1,280 bytes, which every link takes, fits with the outer header."""


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def _prime(value: int) -> int:
    """Only then does every step reach every place of the table."""
    if not _is_prime(value):
        near = next(n for n in range(value, 2 * value) if _is_prime(n))
        raise mistake(f"{value} is no prime number", f"write {near}")
    return value


def _service_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise mistake(f"{quoted(name)} is no name", f"write {NAME_RULE}")
    return name


def why_not_a_host(address: Address) -> str | None:
    """Why no host has this address; None if one may."""
    if address.is_unspecified:
        return "is no host's address"
    if address.is_multicast or address == IPv4Address("255.255.255.255"):
        return "is the address of many hosts"
    if address.version == 6 and address.ipv4_mapped:
        return "is an IPv4 address in disguise"
    if address.version == 6 and address.scope_id:
        return "has a scope"
    return None


def _host(value: Any) -> Address:
    fix = "write the address of one host, such as 10.0.1.1 or 2001:db8::1"
    try:
        address = ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise mistake(f"{quoted(value)} is no address", fix) from None
    if why := why_not_a_host(address):
        raise mistake(f"{value} {why}", fix)
    return address


def _ports(value: Any) -> PortRange:
    if value == "any":
        return ANY_PORT
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", str(value))
    if match and not isinstance(value, bool):
        first, last = int(match[1]), int(match[2] or match[1])
        if 1 <= first <= last <= 65535:
            return PortRange(first, last)
    raise mistake(f"{quoted(value)} is no port", "write a port, a range such as 8000-8099, or any")


Host = Annotated[Address, PlainValidator(_host)]
Prime = Annotated[Whole, Field(ge=LEAST_TABLE, le=MOST_TABLE), AfterValidator(_prime)]
ServiceName = Annotated[str, AfterValidator(_service_name)]


class BackendParams(NfParams):
    """A backend that stands in the topology; the same as a row of the file."""

    address: Host
    """Of the host."""
    port: Annotated[Whole, Field(ge=1, le=65535)] | None = None
    """Left out: the service's."""
    weight: Annotated[Whole, Field(ge=0, le=MAX_WEIGHT)] = 1
    """Its share of new flows, against the others'; 0: none."""
    state: Literal["up", "drain"] = "up"
    """``drain``: no new flows, those it has stay."""
    mac: Mac | None = None
    """Ethernet address that packets to it get; left out: as it was."""


class ServiceParams(NfParams):
    """A virtual address that clients know, and what is done with packets to it."""

    address: Host
    """The virtual address."""
    protocol: Literal["tcp", "udp"]
    """Of the service."""
    port: Annotated[PortRange, PlainValidator(_ports)]
    """A port, a range, or ``any``."""
    mode: Literal["dnat", "ipip"] = "dnat"
    """``dnat``: destination rewritten; ``ipip``: tunnelled to the backend."""
    affinity: Literal["flow", "client"] = "flow"
    """What the choice hangs on: each flow on its own, or the client's address alone."""
    backends: Annotated[tuple[BackendParams, ...], Field(min_length=1)] | None = None
    """Left out: those of the file."""


class TunnelParams(NfParams):
    """The outer headers of ``mode: ipip``."""

    source: IPv4Address | None = None
    """Outer source address to IPv4 backends."""
    source6: IPv6Address | None = None
    """To IPv6 backends."""
    mtu: Annotated[Whole, Field(ge=LEAST_MTU, le=9216)] = 1500
    """Largest IP packet on the way to the backends."""


class IcmpParams(NfParams):
    """The errors about packets that are too big for a tunnel."""

    rate: Annotated[Whole, Field(ge=0, le=1_000_000)] = 100
    """A second and CPU; 0: none."""
    type: str | None = None
    """Packet type that they get; left out: that of the packet they are about."""


class LoadBalancerParams(NfParams):
    """Parameters of ``type: load_balancer``."""

    services: Annotated[
        dict[ServiceName, ServiceParams], Field(min_length=1, max_length=MAX_SERVICES)
    ]
    """Virtual addresses by name."""
    backends: Path | None = None
    """CSV file with the backends of services that have none of their own here."""
    table_size: Prime = 65537
    """Places of a service's table: more make shares more equal."""
    seed: Annotated[Whole, Field(ge=0, lt=1 << 64)] | None = None
    """Of the choice; left out: made of the NF's name."""
    mac: Mac | None = None
    """Source of packets whose destination MAC address becomes a backend's."""
    tunnel: TunnelParams = TunnelParams()
    """Outer headers of ``mode: ipip``."""
    icmp: IcmpParams = IcmpParams()
    """Errors about packets that are too big for a tunnel."""
    room: Annotated[Whole, Field(ge=0, le=1 << 15)] | None = None
    """Backends that may come while it runs; left out: as many as there are, at least 1,024."""

    def content_types(self) -> list[str]:
        """Packet types that it gives to packets."""
        return [self.icmp.type] if self.icmp.type else []
