# SPDX-License-Identifier: BSD-3-Clause
"""Picks flows by any part of their 5-tuple: what ``hummingbird flows --match`` takes.

tcp                          a protocol
udp 10.0.0.1                 an address, at either end
:443                         a port, at either end
tcp 10.1.0.0/16 -> :443      one end and the other, whichever of them began
"[2001:db8::1]:53"           IPv6 with a port
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.errors import UserError
from hummingbird.flows import PROTOCOLS
from hummingbird.rules import ANY_ADDRESS, ANY_PORT, IPV4_BITS, PortRange, Prefix, Selector

FIX = "write such as 'tcp 10.0.0.1 -> 10.0.0.0/24:80', or a part of it: 'udp', '10.0.0.1', ':53'"
V4, V6 = r"[0-9.]+(?:/[0-9]+)?", r"[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f:./]*"
END = re.compile(rf"(?:\[([^\[\]]+)\]|\*|({V4})|({V6}))?(?::([0-9]{{1,5}}))?")
PROTOCOL = re.compile(r"[a-z][a-z0-9-]*|[0-9]{1,3}")

WITH_PORTS = (6, 17, 132)

_MAPPED = bytes(10) + b"\xff\xff"

Views = npt.NDArray[np.void]
"""FLOW_VIEW of dataplane/plane.py."""
Mask = npt.NDArray[np.bool_]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class End:
    """What is asked of one end of a flow."""

    network: Network | None = None
    port: int | None = None

    @property
    def prefix(self) -> Prefix:
        """The network as rules have it."""
        if self.network is None:
            return ANY_ADDRESS
        four = self.network.version == 4
        address = (_MAPPED if four else b"") + self.network.network_address.packed
        return Prefix(address, self.network.prefixlen + (IPV4_BITS if four else 0))

    @property
    def port_range(self) -> PortRange:
        """The port as rules have it."""
        return ANY_PORT if self.port is None else PortRange(self.port, self.port)

    def holds(self, views: Views, end: int) -> Mask:
        """Which flows have this one as their first (0) or second end in the data plane."""
        found = np.ones(len(views), dtype=bool)
        if self.network is not None:
            found &= _lies_in(views["addr"][:, end], self.network)
        if self.port is not None:
            found &= has_ports(views) & (views["port"][:, end] == self.port)
        return found


def has_ports(views: Views) -> Mask:
    """The others have the id of an ICMP echo or of a datagram there."""
    found: Mask = np.isin(views["protocol"], WITH_PORTS) & (views["fragment"] == 0)
    return found


def _lies_in(addresses: npt.NDArray[np.uint8], network: Network) -> Mask:
    four = network.version == 4
    first = (_MAPPED if four else b"") + network.network_address.packed
    mask = (bytes([255] * 12) if four else b"") + network.netmask.packed
    mapped = (addresses[:, :12] == np.frombuffer(_MAPPED, dtype="u1")).all(axis=1)
    inside = (addresses & np.frombuffer(mask, dtype="u1")) == np.frombuffer(first, dtype="u1")
    found: Mask = inside.all(axis=1) & (mapped == four)
    return found


@dataclass(frozen=True)
class Match:
    """What is asked of a flow."""

    protocol: int | None = None
    ends: tuple[End, End] = (End(), End())
    """In either order."""

    @classmethod
    def parse(cls, text: str) -> Match:
        """What ``text`` asks for.

        Raises:
            UserError: it is nothing of the kind.
        """
        rest, arrow, far = text.strip().lower().partition("->")
        words = rest.split()
        protocol = None
        if words and PROTOCOL.fullmatch(words[0]):
            protocol = _protocol(words.pop(0))
        if len(words) > 1 or len(far.split()) > 1:
            raise UserError(f"{text!r} says more than a flow", fix=FIX)
        if protocol is None and not words and not far.strip():
            raise UserError(f"{text!r} asks for nothing", fix=FIX)
        if arrow and not far.strip():
            without = rest.strip()
            fix = f"write {without!r}, or an end behind the arrow: '{without} -> 10.0.0.0/24:80'"
            raise UserError(f"{text!r} has no end behind its arrow", fix=fix)
        return cls(protocol, (_end("".join(words)), _end(far.strip())))

    def rules(self) -> list[dict[str, Any]]:
        """The same as rules of the data plane (``hb_rule``): what one of them matches."""
        one, other = self.ends
        found = [self._rule(one, other)]
        return found if one == other else [*found, self._rule(other, one)]

    def _rule(self, src: End, dst: End) -> dict[str, Any]:
        return Selector(
            self.protocol, src.prefix, dst.prefix, src.port_range, dst.port_range, ANY_PORT
        ).native()

    @property
    def about_ends(self) -> bool:
        """It asks for more than a protocol."""
        return self.ends != (End(), End())

    def holds(self, views: Views) -> Mask:
        """Which flows are those."""
        # not what is not IP
        found: Mask = (views["protocol"] > 0) | (views["addr"].max(axis=(1, 2)) > 0)
        if self.protocol is not None:
            found &= views["protocol"] == self.protocol
        if self.about_ends:
            one, other = self.ends
            either: Mask = (one.holds(views, 0) & other.holds(views, 1)) | (
                one.holds(views, 1) & other.holds(views, 0)
            )
            found &= either
        return found


def _protocol(text: str) -> int:
    numbers = {name: number for number, name in PROTOCOLS.items()}
    number = numbers.get(text, int(text) if text.isdecimal() else 256)
    if number > 255:
        raise UserError(
            f"{text!r} is no protocol", fix=f"write {', '.join(numbers)} or a number up to 255"
        )
    return number


def _end(text: str) -> End:
    match = END.fullmatch(text)
    if match is None:
        raise UserError(f"{text!r} is no end of a flow", fix=FIX)
    return End(_network(match[1] or match[2] or match[3]), _port(match[4]))


def _network(text: Any) -> Network | None:
    if text is None:
        return None
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            right = ipaddress.ip_network(text, strict=False)
            raise UserError(f"{text} has bits behind its length", fix=f"write {right}") from None
        raise UserError(f"{text!r} is no address or prefix", fix=FIX) from None


def _port(text: str | None) -> int | None:
    if text is not None and int(text) > 65535:
        raise UserError(f"{text} is no port", fix="write a number up to 65535")
    return None if text is None else int(text)
