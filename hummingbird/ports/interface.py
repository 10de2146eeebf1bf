# SPDX-License-Identifier: BSD-3-Clause
"""What drivers of network interfaces have in common: their parameters, and a look at an interface.

    lan: {driver: af_packet, interface: eth0, queues: 2, address: [192.0.2.1, "2001:db8::1"]}

Packets come in and go out at such a port: it is a ``current_nf`` and a ``next_nf``. ``queues`` is
how many queues of the interface it serves, queue k on the k-th CPU of ``cores.io``, in turn.
``address``: ARP and neighbour solicitations for these are answered by the port.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from hummingbird.dataplane._native import lib
from hummingbird.ports import PortParams, Whole, mistake
from hummingbird.textfile import quoted

Address = IPv4Address | IPv6Address

IFNAMSIZ = 16
SIOCGIFINDEX, SIOCGIFFLAGS, SIOCGIFMTU, SIOCGIFHWADDR = 0x8933, 0x8913, 0x8921, 0x8927
IFF_UP, IFF_RUNNING = 0x1, 0x40


@dataclass(frozen=True)
class Interface:
    """A network interface of this network namespace, as it was when looked at."""

    name: str
    index: int
    """Another one if it was deleted and made again."""
    up: bool
    """An administrator has brought it up."""
    carrier: bool
    """It can carry packets now."""
    mtu: int
    """Bytes, without the Ethernet header."""
    mac: bytes


def look(name: str) -> Interface | None:
    """The interface of this name, or None if there is none. Needs no rights."""
    request = name.encode().ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:

        def ask(what: int) -> bytes:
            return fcntl.ioctl(s, what, request)[IFNAMSIZ:]

        try:
            (index,) = struct.unpack_from("i", ask(SIOCGIFINDEX))
            (flags,) = struct.unpack_from("H", ask(SIOCGIFFLAGS))
            (mtu,) = struct.unpack_from("i", ask(SIOCGIFMTU))
            mac = ask(SIOCGIFHWADDR)[2:8]
        except OSError:
            return None
    return Interface(name, index, bool(flags & IFF_UP), bool(flags & IFF_RUNNING), mtu, mac)


def _interface_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise mistake(f"{str(value)[:40]!r} is no interface", "write its name, such as eth0")
    octets = value.encode()
    if len(octets) >= IFNAMSIZ or set(octets) & set(b"/ \t\n:\0") or value in (".", ".."):
        fix = "write the name that `ip link` shows, 15 bytes at most"
        raise mistake(f"{quoted(value)} can be no interface's name", fix)
    return value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _ownable(value: Address) -> Address:
    broadcast = value.version == 4 and int(value) == 0xFFFFFFFF
    if value.is_multicast or value.is_unspecified or value.is_loopback or broadcast:
        raise mistake(f"{value} is the address of no port", "write one that others send packets to")
    return value


def _once(value: tuple[Address, ...]) -> tuple[Address, ...]:
    for address in value:
        if value.count(address) > 1:
            raise mistake(f"{address} stands here twice", "keep one of the two")
    return value


InterfaceName = Annotated[str, BeforeValidator(_interface_name)]
Addresses = Annotated[
    tuple[Annotated[Address, AfterValidator(_ownable)], ...],
    BeforeValidator(_as_list),
    AfterValidator(_once),
    Field(max_length=lib.HB_MOST_ADDRESSES),
]


class LiveParams(PortParams):
    """Parameters of every driver by which packets come in and go out."""

    queues: Annotated[Whole, Field(ge=1, le=32)] = 1
    """How many of its queues are served, the first ones."""
    address: Addresses = ()
    """What the port answers ARP and neighbour solicitations for."""

    @property
    def ingress(self) -> bool:
        return True

    @property
    def egress(self) -> bool:
        return True

    @property
    def queue_count(self) -> int:
        return self.queues

    @property
    def owned(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return self.address

    @property
    def many(self) -> str:
        """The queues, for people, if they are worth a word."""
        return f", {self.queues} queues" if self.queues > 1 else ""


class InterfaceParams(LiveParams):
    """Parameters of every driver of Linux's interfaces."""

    interface: InterfaceName
    """Name of the network interface."""

    @property
    def watched(self) -> str | None:
        return self.interface

    def __str__(self) -> str:
        return f"interface {self.interface}{self.many}"
