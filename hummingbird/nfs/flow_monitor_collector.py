# SPDX-License-Identifier: BSD-3-Clause
"""The way to an IPFIX collector: a UDP socket that never makes anybody wait."""

from __future__ import annotations

import re
import socket
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hummingbird.errors import UserError
from hummingbird.nfs.flow_monitor_ipfix import Encoder, Message, Times
from hummingbird.nfs.flow_monitor_records import Records

TEMPLATES_S = 60.0
"""UDP loses datagrams, and a collector may start later than we: templates are sent this often."""
CLOSING_S = 2.0
"""At the end a full socket buffer is waited for this long."""
UDP_BYTES = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}
"""Of a datagram's headers."""
PLACE = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})")


@dataclass
class Counts:
    """What came of the records."""

    records: int = 0
    """Data records sent."""
    messages: int = 0
    """Datagrams sent, those with templates included."""
    lost: int = 0
    """Data records that the network refused to take."""
    unreachable: int = 0
    """Times the network said that the collector does not listen."""


def parse_place(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPv6]:PORT``; ValueError if it is something else."""
    match = PLACE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no host and port")
    port = int(match[3])
    if not 0 < port < 65536:
        raise ValueError(f"{port} is no port")
    return match[1] or match[2], port


def resolve(text: str, field: str) -> tuple[socket.AddressFamily, Any]:
    """Family and address of a collector, as sockets have them.

    Raises:
        UserError: there is no such host.
    """
    host, port = parse_place(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"the collector {host} has no address: {why}",
            field=field,
            fix="correct its name, or write its IP address",
        ) from None
    family, _, _, _, address = found[0]
    return family, address


class Collector:
    """Sends records to one collector."""

    def __init__(
        self,
        family: socket.AddressFamily,
        address: Any,
        *,
        mtu: int,
        domain: int,
        times: Times,
        biflows: bool,
    ) -> None:
        """
        Args:
            family: of the address.
            address: where it listens.
            mtu: bytes that an IP packet on the way there may have.
            domain: the observation domain.
            times: the unit of flow start and end.
            biflows: one record for both directions.
        """
        self.counts = Counts()
        self.trouble = ""
        """Why the last message could not be sent; empty while all is well."""
        self._encoder = Encoder(domain, mtu - UDP_BYTES[family], times, biflows)
        self._waiting: deque[Message] = deque()
        self._templates_due = 0.0
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(address)
        except OSError as error:  # no route: perhaps there is one later
            self.trouble = error.strerror or str(error)
        self._address = address

    def ready(self) -> bool:
        """Everything it was given is on its way; else there is no room for more yet."""
        if not self._waiting and time.monotonic() >= self._templates_due:
            self._templates_due = time.monotonic() + TEMPLATES_S
            self._waiting += self._encoder.templates(time.time())
        return self._flush()

    def send(self, records: Records) -> bool:
        """Send some; those that find no room in the socket's buffer wait for ready()."""
        messages: Iterable[Message] = self._encoder.encode(records, time.time())
        self._waiting += messages
        return self._flush()

    def _flush(self) -> bool:
        while self._waiting:
            if not self._send(self._waiting[0]):
                return False
            self._waiting.popleft()
        return True

    def _send(self, message: Message) -> bool:
        """False if it has to wait."""
        for _ in range(2):  # an error that is about the message before this one, then this one
            try:
                self._socket.sendto(message.data, self._address)
            except BlockingIOError:
                return False
            except ConnectionRefusedError as error:
                self.counts.unreachable += 1
                self.trouble = error.strerror or str(error)
            except OSError as error:
                self.trouble = error.strerror or str(error)
                break
            else:
                self.counts.messages += 1
                self.counts.records += message.records
                return True
        self.counts.lost += message.records
        return True

    def close(self) -> None:
        """Send what still waits, if that takes no long time."""
        end = time.monotonic() + CLOSING_S
        while not self._flush() and time.monotonic() < end:
            time.sleep(0.001)
        self.counts.lost += sum(message.records for message in self._waiting)
        self._waiting.clear()
        self._socket.close()
