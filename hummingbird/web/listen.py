# SPDX-License-Identifier: BSD-3-Clause
"""Where a server listens."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hummingbird.errors import UserError

BACKLOG = 64
"""Connections that may wait to be accepted."""


@dataclass(frozen=True)
class Address:
    """A host, by name or address, and a TCP port; 0: any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_of(one: socket.socket) -> Address:
    """Where a socket listens."""
    host, port, *_ = one.getsockname()
    return Address(host, port)


def is_loopback(address: Address) -> bool:
    """Whether only this machine reaches it."""
    return address.host.startswith("127.") or address.host == "::1"


def listen(address: Address) -> list[socket.socket]:
    """Sockets that listen at every address that the host name has here.

    Raises:
        UserError: nobody can listen there.
    """
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise UserError(f"{address.host} is no address of this machine", fix=_OTHER) from None
    listeners: list[socket.socket] = []
    try:
        for family, _, _, _, where in found:
            listeners.append(_listener(family, where, listeners))
    except OSError as error:
        for one in listeners:
            one.close()
        in_use = error.errno == errno.EADDRINUSE
        see = f"see who does: ss -ltnp 'sport = :{address.port}'; or " if in_use else ""
        what = "somebody listens there already" if in_use else error.strerror
        raise UserError(f"cannot listen at {address}: {what}", fix=see + _OTHER) from None
    return listeners


_OTHER = "name another address or port: --listen HOST:PORT"


def _listener(family: int, where: Any, before: Sequence[socket.socket]) -> socket.socket:
    if before and where[1] == 0:  # any port, but the same at all addresses
        where = (where[0], address_of(before[0]).port, *where[2:])
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(where)
        one.listen(BACKLOG)
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one
