# SPDX-License-Identifier: BSD-3-Clause
"""What a topology says about ``type: nat``. docs/nat.md describes it to those who write one.

inside: [10.0.0.0/8]
external: [203.0.113.4, 203.0.113.8/30]
ports: [1024-65535]
forwards:
  - {protocol: tcp, external: "203.0.113.4:443", inside: "10.0.0.5:8443"}
filtering: endpoint-independent
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from hummingbird.dataplane._native import lib
from hummingbird.nfs import NfParams
from hummingbird.ports import Count, Whole, mistake
from hummingbird.textfile import quoted

MOST_INSIDE: int = lib.HB_NAT_MOST_INSIDE
MOST_EXTERNAL: int = lib.HB_NAT_MOST_EXTERNAL
MOST_RANGES: int = lib.HB_NAT_MOST_RANGES
MOST_MAPPINGS: int = lib.HB_NAT_MOST_MAPPINGS
PROTOCOLS = {"tcp": 6, "udp": 17}
NOT_HOSTS = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
"""No host has such an address where others reach it."""


def _mistakes_at(place: tuple[str | int, ...], what: str, fix: str) -> ValidationError:
    """A mistake at a place within what is validated: pydantic puts it behind the place of that."""
    details = InitErrorDetails(type=mistake(what, fix), loc=place, input=None)
    return ValidationError.from_exception_data("nat", [details])


# ---- kinds of fields -----------------------------------------------------------------------------


def _network(value: Any) -> IPv4Network:
    text = value if isinstance(value, str) else ""
    address, _, length = text.partition("/")
    try:
        found = IPv4Network(text, strict=False)
        start = IPv4Address(address)
    except ValueError:
        what = f"{quoted(value)} is no IPv4 address or prefix"
        if ":" in text:
            what = f"{quoted(value)} is not IPv4, and IPv6 packets are not translated"
        raise mistake(what, "write an address or a prefix such as 10.0.0.0/8") from None
    if "." in length:
        raise mistake(f"{text} has a mask, not a length", f"write {found}")
    if start != found.network_address:
        raise mistake(f"{text} has bits set behind its length", f"write {found}")
    return found


def _range(value: Any) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", str(value))
    if match and not isinstance(value, bool):
        first, last = int(match[1]), int(match[2] or match[1])
        if 0 < first <= last <= 65535:
            return first, last
        if 65535 >= first > last:
            what = f"{value} ends before it begins"
            raise mistake(what, f"write {last or 1}-{first}")
    what = f"{quoted(value)} is no range of ports"
    raise mistake(what, "write a port or a range of 1 to 65535, such as 1024-65535")


class Endpoint(NamedTuple):
    """An address and a port."""

    address: IPv4Address
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


def _endpoint(value: Any) -> Endpoint:
    address, _, port = str(value).rpartition(":")
    try:
        if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= 65535:
            raise ValueError
        return Endpoint(IPv4Address(address), int(port))
    except (ValueError, AddressValueError):
        what = f"{quoted(value)} is no IPv4 address and port"
        raise mistake(what, 'write both, such as "192.0.2.1:80", in quotes') from None


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Network = Annotated[IPv4Network, PlainValidator(_network)]
Range = Annotated[tuple[int, int], PlainValidator(_range)]
At = Annotated[Endpoint, PlainValidator(_endpoint)]
Seconds = Annotated[Whole, Field(ge=0, le=86400)]


# ---- the whole -----------------------------------------------------------------------------------


class Hold(NfParams):
    """Seconds of packet time that a mapping outlives its last flow."""

    tcp: Seconds = 240
    """After TCP."""
    udp: Seconds = 120
    """After UDP."""
    icmp: Seconds = 60
    """After ICMP queries."""
    other: Seconds = 120
    """After other protocols."""


class Forward(NfParams):
    """A port of an external address that leads to an inside host, whoever sends to it."""

    protocol: Literal["tcp", "udp"]
    """Of the port."""
    external: At
    """ADDRESS:PORT outside."""
    inside: At
    """ADDRESS:PORT of the inside host."""
    zone: Annotated[Whole, Field(ge=0, le=65535)] = 0
    """Of the port that the inside host's packets come in at."""

    @property
    def number(self) -> int:
        """The IP protocol."""
        return PROTOCOLS[self.protocol]


class NatParams(NfParams):
    """Parameters of ``type: nat``."""

    inside: Annotated[
        tuple[Network, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=MOST_INSIDE)
    ]
    """Prefixes of the hosts whose addresses are translated."""
    external: Annotated[
        tuple[Network, ...],
        BeforeValidator(_as_list),
        Field(min_length=1, max_length=MOST_EXTERNAL),
    ]
    """Addresses that they get: single ones, or prefixes of which every address counts."""
    ports: Annotated[
        tuple[Range, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=MOST_RANGES)
    ] = ((1024, 65535),)
    """To choose from, of each external address and protocol; ids of ICMP queries likewise."""
    forwards: Annotated[tuple[Forward, ...], Field(max_length=65536)] = ()
    """Ports that lead to an inside host, whoever sends."""
    filtering: Literal[
        "endpoint-independent", "address-dependent", "address-and-port-dependent"
    ] = "endpoint-independent"
    """Who outside may use a mapping: anybody; whom it has sent to; or whom it has sent to, of
    that port."""
    hairpin: bool = True
    """Inside hosts reach each other by external addresses."""
    pooling: Literal["paired", "arbitrary"] = "paired"
    """``paired``: all mappings of a host have one external address; ``arbitrary``: the next one
    with a free port."""
    keep_parity: bool = True
    """Even UDP ports become even ones, odd ones odd, while there are such."""
    keep_port: bool = False
    """A port stays what it is where that is free; else all are random."""
    hold: Hold = Hold()
    """How long a mapping outlives its last flow."""
    mappings: Annotated[Count, Field(ge=1, le=MOST_MAPPINGS)] = 65536
    """Room for so many; 56 bytes each."""
    peers: Annotated[Count, Field(ge=1, le=MOST_MAPPINGS)] | None = None
    """Room for those whom mappings have sent to, if there is a filter; left out: 4 for each
    mapping."""
    seed: Annotated[Whole, Field(ge=0, lt=1 << 64)] | None = None
    """Of the ports; without one nobody can tell which one comes next."""

    @property
    def addresses(self) -> list[IPv4Address]:
        """The external addresses, in ascending order."""
        return sorted(address for network in self.external for address in network)

    @property
    def room_for_peers(self) -> int:
        """See `peers`; none are kept without a filter."""
        if self.filtering == "endpoint-independent":
            return 0
        return min(4 * self.mappings, MOST_MAPPINGS) if self.peers is None else self.peers

    @model_validator(mode="after")
    def _fits_together(self) -> NatParams:
        self._check_addresses()
        self._check_ports()
        self._check_forwards()
        if self.peers is not None and self.filtering == "endpoint-independent":
            what = "filtering is endpoint-independent: nobody asks who was sent to"
            raise _mistakes_at(("peers",), what, "remove peers, or choose another filtering")
        return self

    def _check_addresses(self) -> None:
        for index, network in enumerate(self.external):
            place = ("external", index)
            for other in self.external[:index]:
                if network.overlaps(other):
                    what = f"{network} overlaps {other}, which stands before it"
                    raise _mistakes_at(place, what, "write each address once")
            for other in self.inside:
                if network.overlaps(other):
                    what = f"{network} overlaps the inside prefix {other}"
                    fix = "inside and external addresses have to be apart"
                    raise _mistakes_at(place, what, fix)
            for other in NOT_HOSTS:
                if network.overlaps(other):
                    what = f"{network} lies in {other}: no host can answer to it"
                    raise _mistakes_at(place, what, "write addresses that lead to this machine")
        count = sum(network.num_addresses for network in self.external)
        if count > MOST_EXTERNAL:
            what = f"these are {count} external addresses"
            raise _mistakes_at(("external",), what, f"write at most {MOST_EXTERNAL}")
        for index, network in enumerate(self.inside):
            if network.prefixlen == 0:
                what = "everything is inside: nothing would be outside"
                raise _mistakes_at(("inside", index), what, "write the prefixes of your hosts")

    def _check_ports(self) -> None:
        for index, (first, last) in enumerate(self.ports):
            for other in self.ports[:index]:
                if first <= other[1] and other[0] <= last:
                    what = f"{first}-{last} overlaps {other[0]}-{other[1]}"
                    raise _mistakes_at(("ports", index), what, "write each port once")

    def _check_forwards(self) -> None:
        if len(self.forwards) > self.mappings:
            what = f"each of the {len(self.forwards)} forwards is a mapping"
            fix = f"write at least {len(self.forwards)}, and some for what goes out"
            raise _mistakes_at(("mappings",), what, fix)
        seen: dict[tuple[str, int, Endpoint], int] = {}
        for index, forward in enumerate(self.forwards):
            place = ("forwards", index)
            if not any(forward.external.address in network for network in self.external):
                what = f"{forward.external.address} is no external address"
                fix = f"write one of external, such as {self.external[0].network_address}"
                raise _mistakes_at((*place, "external"), what, fix)
            if not any(forward.inside.address in network for network in self.inside):
                what = f"{forward.inside.address} is not inside"
                raise _mistakes_at((*place, "inside"), what, "write an address of inside")
            for field, zone, end in (
                ("external", 0, forward.external),
                ("inside", forward.zone, forward.inside),
            ):
                before = seen.setdefault((f"{field} {forward.protocol}", zone, end), index)
                if before != index:
                    what = f"forward {before} has {forward.protocol} {end} already"
                    raise _mistakes_at((*place, field), what, "write each end once")
