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

from hummingbird.errors import UserError
from hummingbird.flows import PROTOCOLS, Address, Flow

FIX = "write such as 'tcp 10.0.0.1 -> 10.0.0.0/24:80', or a part of it: 'udp', '10.0.0.1', ':53'"
V4, V6 = r"[0-9.]+(?:/[0-9]+)?", r"[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f:./]*"
END = re.compile(rf"(?:\[([^\[\]]+)\]|\*|({V4})|({V6}))?(?::([0-9]{{1,5}}))?")
PROTOCOL = re.compile(r"[a-z][a-z0-9-]*|[0-9]{1,3}")

WITH_PORTS = ("tcp", "udp", "sctp")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class End:
    """What is asked of one end of a flow."""

    network: Network | None = None
    port: int | None = None

    def holds(self, address: Address, port: int | None) -> bool:
        """This end is one of those."""
        if self.port is not None and port != self.port:
            return False
        network = self.network
        return network is None or (address.version == network.version and address in network)


@dataclass(frozen=True)
class Match:
    """What is asked of a flow."""

    protocol: str | None = None
    """Its name, or its number where it has none."""
    ends: tuple[End, End] = (End(), End())
    """In either order."""

    @classmethod
    def parse(cls, text: str) -> Match:
        """What ``text`` asks for.

        Raises:
            UserError: it is nothing of the kind.
        """
        rest, _, far = text.strip().lower().partition("->")
        words = rest.split()
        protocol = None
        if words and PROTOCOL.fullmatch(words[0]):
            protocol = _protocol(words.pop(0))
        if len(words) > 1 or len(far.split()) > 1:
            raise UserError(f"{text!r} says more than a flow", fix=FIX)
        if protocol is None and not words and not far.strip():
            raise UserError(f"{text!r} asks for nothing", fix=FIX)
        return cls(protocol, (_end("".join(words)), _end(far.strip())))

    @property
    def about_ends(self) -> bool:
        """It asks for more than a protocol."""
        return self.ends != (End(), End())

    def holds(self, flow: Flow) -> bool:
        """A flow is one of those."""
        if self.protocol is not None and flow.protocol != self.protocol:
            return False
        if not self.about_ends:
            return True
        if flow.src is None or flow.dst is None:
            return False
        one, other = self.ends
        a, b = (flow.src, port_of(flow, flow.sport)), (flow.dst, port_of(flow, flow.dport))
        return (one.holds(*a) and other.holds(*b)) or (one.holds(*b) and other.holds(*a))


def port_of(flow: Flow, number: int) -> int | None:
    """A port; None if the number is an ICMP echo's or a datagram's id."""
    return number if flow.protocol in WITH_PORTS and flow.state != "fragment" else None


def _protocol(text: str) -> str:
    if text in PROTOCOLS.values():
        return text
    if not text.isdecimal() or int(text) > 255:
        names = ", ".join(PROTOCOLS.values())
        raise UserError(f"{text!r} is no protocol", fix=f"write {names} or a number up to 255")
    return PROTOCOLS.get(int(text), str(int(text)))


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
