# SPDX-License-Identifier: BSD-3-Clause
"""What a service says to systemd: sd_notify(3), without its library.

systemd names a datagram socket in NOTIFY_SOCKET, and in WATCHDOG_USEC how often it wants to hear
from the service. Without them nothing is said. A service that says nothing is no reason to end it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """The line to systemd."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Take the socket from the environment, that of the process by default."""
        said = os.environ if environment is None else environment
        self._address = said.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # abstract: no file
            self._address = f"\0{self._address[1:]}"
        self.watchdog_s = _watchdog_s(said) if self._address else None
        """WATCHDOG=1 has to come this often; None: nobody waits for it."""

    @property
    def listening(self) -> bool:
        """Somebody wants to hear it."""
        return bool(self._address)

    def ready(self) -> None:
        """Started, or reloaded."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Until `ready`."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def status(self, line: str) -> None:
        """What `systemctl status` shows."""
        self._send("STATUS=" + " ".join(line.splitlines()))

    def alive(self) -> None:
        """What the watchdog waits for."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as out:
                out.sendto(text.encode(errors="replace"), self._address)
        except OSError:  # systemd is starting anew, or is behind: it hears the next one
            return


def _watchdog_s(said: Mapping[str, str]) -> float | None:
    if said.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    usec = said.get("WATCHDOG_USEC", "")
    return int(usec) / 1e6 if usec.isdecimal() and int(usec) else None
