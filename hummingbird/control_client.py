# SPDX-License-Identifier: BSD-3-Clause
"""Asks an instance over its control socket; control.py says how the two speak."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hummingbird.control import VERSION, Json, short
from hummingbird.errors import UserError
from hummingbird.telemetry.attach import not_there, only
from hummingbird.telemetry.rundir import SOCKET, base_dir

ANSWER_S = 30.0
"""The next piece of an answer is waited for this long."""


def running() -> list[str]:
    """Names of the instances of this user that can be asked."""
    return sorted(path.parent.name for path in base_dir().glob(f"*/{SOCKET}") if _answers(path))


def _answers(path: Path) -> bool:
    with suppress(OSError), _connect(path):
        return True
    return False


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_S)
    end = time.monotonic() + ANSWER_S
    try:
        with short(path) as name:
            while True:
                try:
                    connection.connect(name)
                    return connection
                except BlockingIOError:  # many others wait for it to accept them
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.01)
    except OSError:
        connection.close()
        raise


def open_instance(name: str | None) -> socket.socket:
    """Connect to an instance.

    Args:
        name: its name; None: the only one that runs.

    Raises:
        UserError: there is none, or it is not clear which one is meant.
    """
    if name is None:
        name = only(running())
    try:
        return _connect(base_dir() / name / SOCKET)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        dead = isinstance(error, ConnectionRefusedError)
        raise not_there(name, dead, running()) from None
    except OSError as error:
        raise UserError(
            f"the instance {name!r} cannot be asked: {error.strerror or error}",
            fix="be the user who started it",
        ) from None


class Reply:
    """Iterate over it for the items of an answer; then ``end`` is there."""

    def __init__(self, name: str | None, command: str, **fields: Any) -> None:
        """Ask.

        Args:
            name: of the instance; None: the only one that runs.
            command: what for.
            fields: of the request.

        Raises:
            UserError: nobody can be asked.
        """
        self.end: Json = {}
        self.name = name or only(running())
        self._socket = open_instance(self.name)
        request = {"v": VERSION, "id": 1, "command": command, **fields}
        with suppress(OSError):  # hung up on: what it said stands in the answer
            self._socket.sendall(json.dumps(request).encode() + b"\n")

    def __iter__(self) -> Iterator[Json]:
        """The items; UserError if the instance refuses, or ends before the answer does."""
        with self._socket, self._socket.makefile("rb") as lines:
            while True:
                said = self._next(lines)
                if "error" in said:
                    raise UserError(
                        str(said["error"]),
                        path=said.get("path"),
                        line=said.get("line"),
                        field=said.get("field"),
                        fix=said.get("fix"),
                    )
                if "wait" in said:
                    continue
                if "item" not in said:
                    self.end = said.get("end") or {}
                    return
                yield said["item"]

    def hang_up(self) -> None:
        """No more is wanted; also from another thread, whose iteration then ends with an error."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _next(lines: Any) -> Json:
        try:
            line = lines.readline()
        except TimeoutError:
            raise UserError(
                f"the instance has not answered for {ANSWER_S:.0f} s",
                fix="try again; if it stays silent, stop it",
            ) from None
        except OSError:
            line = b""
        if not line:
            raise UserError("the instance ended before its answer did", fix="start it again")
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict) or said.get("v") != VERSION:
            raise UserError(
                f"the instance does not speak version {VERSION} of the protocol",
                fix="use the 'hummingbird' that it was started with",
            )
        return said
