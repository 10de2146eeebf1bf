# SPDX-License-Identifier: BSD-3-Clause
"""What ports answer ARP and neighbour solicitations for, and with which Ethernet address."""

from __future__ import annotations

from typing import Protocol

from hummingbird import ports
from hummingbird.dataplane.plane import Dataplane
from hummingbird.ports import PortParams
from hummingbird.ports.interface import look


class Owner(Protocol):
    """What there is to know of a port."""

    @property
    def driver(self) -> str: ...
    @property
    def params(self) -> PortParams: ...


def set_addresses(plane: Dataplane, node: int, port: Owner) -> None:
    """Let a port answer for its addresses, with the Ethernet address that it has now.

    Raises:
        UserError: it cannot.
    """
    if port.params.owned:
        plane.set_addresses(node, port.params.owned, _mac(port))


def _mac(port: Owner) -> bytes | None:
    """That of its interface. Where the interface is the other end of the cable, because the port
    has made it, the port is a station of its own. None: its driver knows."""
    name = port.params.watched
    interface = look(name) if name is not None else None
    if interface is None or not any(interface.mac):
        return None
    return far_end(interface.mac) if ports.load(port.driver).makes_interface else interface.mac


def far_end(mac: bytes) -> bytes:
    """An Ethernet address, locally administered, for who is on the other end of a cable."""
    return bytes([(mac[0] | 0x02) & 0xFE, *mac[1:5], mac[5] ^ 0x01])
