# SPDX-License-Identifier: BSD-3-Clause
"""The control socket of an instance: how a command asks a run that goes on.

A Unix stream socket, ``control`` in the run directory, for the user who started the run. One JSON
object a line, both ways:

    -> {"v": 1, "id": 7, "command": "flows", "limit": 2}
    <- {"v": 1, "id": 7, "item": {...}}          as many as there are
    <- {"v": 1, "id": 7, "wait": true}           now and then, if nothing is found for long
    <- {"v": 1, "id": 7, "end": {...}}           or  {"v": 1, "id": 7, "error": "...", "fix": "..."}

A command is a generator: it yields items, None where it has only looked at
something, or PAUSE where it has to wait, and returns what stands in the end line. When its client
hangs up it is closed, so a `finally:` in it is always run. The server takes as much time as it is
given, which is the time in which the control thread would sleep, and keeps at most one piece of an
answer in memory: neither a million flows nor a client that does not read hold anything up.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import socket
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hummingbird import logs
from hummingbird.errors import UserError
from hummingbird.telemetry.rundir import SOCKET, base_dir
from hummingbird.textfile import quoted

if TYPE_CHECKING:
    from hummingbird.engine import Engine

VERSION = 1
MOST_CLIENTS = 16
MOST_REQUEST = 64 << 10
"""Bytes of a request's line."""
PIECE = 64 << 10
"""Bytes of an answer that are made at a time."""
STEPS = 32
"""Items that a command may look at between two looks at the clock."""
WAIT_S = 5.0
"""A client that has heard nothing for this long is told that we are at it."""
TURN_S = 0.002
"""A client's turn; then the others have theirs."""
SILENT_S = 30.0
"""A client that neither asks nor reads for this long is hung up on."""
FINISH_S = 0.01
AGAIN = "ask again in a moment"
RESTARTING = "the instance is restarting"
"""Why an answer ends, and none is given."""

Json = dict[str, Any]
PAUSE: Json = {}
"""A command that has nothing to say for now is asked again in the server's next round."""
Answer = Generator[Json | None, None, Json]
Command = Callable[["Engine", Mapping[str, Any]], Answer]


class _Refused(Exception):
    """A request that is answered with an error; the client is hung up on."""

    def __init__(self, what: str, fix: str | None = None) -> None:
        super().__init__(what)
        self.fix = fix


class _Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.request = b""
        """What has come of the next request."""
        self.piece = memoryview(b"")
        """What has to go out."""
        self.answer: Answer | None = None
        self.id: Any = None
        self.hang_up = False
        """When the piece has gone out."""
        self.pauses = False
        """Until the next round."""
        self.active = self.heard = time.monotonic()
        """When it last moved, and when it last heard from us."""

    @property
    def busy(self) -> bool:
        """It is being answered."""
        return bool(self.piece) or self.answer is not None


class Server:
    """Answers whoever asks this instance."""

    def __init__(self, engine: Engine, commands: Mapping[str, Command]) -> None:
        """Listen in the run directory, which the engine has made; commands are by name."""
        self._engine = engine
        self._commands = commands
        self.away: str | None = None
        """Why no request is answered for now, if that is so."""
        self._clients: dict[int, _Client] = {}
        self._paused: list[_Client] = []
        """They are not registered with the selector."""
        self._making: _Client | None = None
        """Whose answer is being made."""
        self._selector = selectors.DefaultSelector()
        self.path = base_dir() / engine.name / SOCKET
        self._listener: socket.socket | None = None
        try:
            self._listener = _listen(self.path)
        except OSError as error:  # not worth ending a run for
            logs.warning(
                "no_control_socket",
                f"nobody can ask this run: {self.path}: {error.strerror or error}",
                fix="make room and give the right to write there, then start again",
            )
        else:
            self._selector.register(self._listener, selectors.EVENT_READ)

    def serve(self, seconds: float) -> None:
        """Answer for this long, or wait for somebody to ask."""
        end = time.monotonic() + seconds
        self._end_pauses()
        while (left := end - time.monotonic()) > 0:
            if not self._selector.get_map():
                time.sleep(left)
                return
            for key, events in self._selector.select(left):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    turn = min(end, time.monotonic() + TURN_S)
                    self._attend(self._clients[key.fd], events, turn)
        self._drop_silent()

    def interrupt(self, why: str) -> None:
        """End all answers that are being made but the one whose command calls this: what they look
        at is about to go. Nobody else is answered until `away` is None again."""
        self.away = why
        for client in self._clients.values():
            if client.answer is not None and client is not self._making:
                client.answer.close()
                client.answer = None  # behind what is still to go out of a line
                client.piece = memoryview(
                    bytes(client.piece) + _line(client.id, error=why, fix=AGAIN)
                )

    def finish(self, seconds: float) -> None:
        """Bring out the answers that are being made, for at most this long."""
        end = time.monotonic() + seconds
        while any(client.busy for client in self._clients.values()) and time.monotonic() < end:
            self.serve(FINISH_S)

    def close(self) -> None:
        """Hang up on everybody, and be gone."""
        for client in list(self._clients.values()):
            self._drop(client)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self.path.unlink(missing_ok=True)
        self._selector.close()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again, or there are no more files
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ)
        if len(self._clients) > MOST_CLIENTS:
            self._refuse(client, _Refused(f"{MOST_CLIENTS} others are asking already"))

    def _attend(self, client: _Client, events: int, end: float) -> None:
        try:
            if events & selectors.EVENT_READ and not client.busy:
                self._read(client)
            if client.busy:
                self._write(client, end)
        except _Refused as error:
            self._refuse(client, error)
        except OSError:  # it has hung up
            self._drop(client)

    def _read(self, client: _Client) -> None:
        data = client.socket.recv(MOST_REQUEST)
        if not data:
            self._drop(client)
            return
        client.active = time.monotonic()
        client.request += data
        self._next_request(client)

    def _next_request(self, client: _Client) -> None:
        """Begin to answer, if a whole request has come."""
        line, newline, rest = client.request.partition(b"\n")
        if len(line) > MOST_REQUEST:
            raise _Refused(f"a request has at most {MOST_REQUEST} bytes")
        if newline:
            client.request = rest
            self._begin(client, line)

    def _begin(self, client: _Client, line: bytes) -> None:
        client.id = None
        request = _parse(line)
        client.id = request.get("id")
        if request.get("v") != VERSION:
            raise _Refused(
                f"this instance speaks version {VERSION} of the protocol",
                "use the 'hummingbird' that it was started with",
            )
        name, known = request.get("command"), self._commands
        if not isinstance(name, str) or name not in known:
            what = f"this instance knows no command {quoted(name)}, only {', '.join(sorted(known))}"
            raise _Refused(what)
        if self.away is None:
            client.answer = known[name](self._engine, request)
        else:
            client.piece = memoryview(_line(client.id, error=self.away, fix=AGAIN))
        client.heard = time.monotonic()
        self._watch(client, selectors.EVENT_WRITE)

    def _write(self, client: _Client, end: float) -> None:
        """Make a piece of the answer, or send what is left of one."""
        if not client.piece:
            self._make(client, end)
            client.active = time.monotonic()
        if not client.piece:
            _check_there(client.socket)
            if time.monotonic() - client.heard > WAIT_S:
                client.piece = memoryview(_line(client.id, wait=True))
        else:
            try:
                sent = client.socket.send(client.piece)
            except BlockingIOError:
                return
            client.piece = client.piece[sent:]
            client.active = client.heard = time.monotonic()
        if client.busy:
            if client.pauses and not client.piece:
                self._selector.unregister(client.socket)
                self._paused.append(client)
            return
        if client.hang_up:
            self._drop(client)
            return
        self._watch(client, selectors.EVENT_READ)
        self._next_request(client)

    def _make(self, client: _Client, end: float) -> None:
        """The next piece of an answer."""
        assert client.answer is not None
        self._making = client
        lines: list[bytes] = []
        size = 0
        try:
            while size < PIECE and time.monotonic() < end and not client.pauses:
                for _ in range(STEPS):
                    item = next(client.answer)
                    if item is PAUSE:
                        client.pauses = True
                        break
                    if item is not None:
                        lines.append(_line(client.id, item=item))
                        size += len(lines[-1])
        except StopIteration as stop:
            client.answer = None
            lines.append(_line(client.id, end=stop.value or {}))
        except UserError as error:
            client.answer = None
            lines.append(_line(client.id, **_mistake(error)))
        except Exception as error:  # a mistake of ours, which must not end the run
            logs.error(
                "command_failed",
                f"a command on the control socket failed: {error!r}",
                fix="report it with the traceback, which --log json has; the run goes on",
                traceback=traceback.format_exc(),
            )
            client.answer = None
            lines.append(_line(client.id, error=f"it failed: {error!r}", fix=None))
        client.piece = memoryview(b"".join(lines))

    def _refuse(self, client: _Client, why: _Refused) -> None:
        client.answer, client.hang_up = None, True
        client.piece = memoryview(_line(client.id, error=str(why), fix=why.fix))
        self._watch(client, selectors.EVENT_WRITE)

    def _watch(self, client: _Client, events: int) -> None:
        self._selector.modify(client.socket, events)

    def _end_pauses(self) -> None:
        for client in self._paused:
            client.pauses = False
            self._selector.register(client.socket, selectors.EVENT_WRITE)
        self._paused.clear()

    def _drop(self, client: _Client) -> None:
        if client.answer is not None:
            client.answer.close()
        if client in self._paused:
            self._paused.remove(client)
        else:
            self._selector.unregister(client.socket)
        del self._clients[client.socket.fileno()]
        client.socket.close()

    def _drop_silent(self) -> None:
        now = time.monotonic()
        for client in list(self._clients.values()):
            if now - client.active > SILENT_S:
                self._drop(client)


def _check_there(connection: socket.socket) -> None:
    """OSError if it has hung up, which somebody who sends it nothing does not see. One that has
    said all and only listens is there."""
    poll = select.poll()
    poll.register(connection, 0)
    if poll.poll(0):
        raise ConnectionResetError


def _listen(path: Path) -> socket.socket:
    """A socket that listens there. Whoever was there before is dead: the run directory is ours."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before there is anything to connect to
        path.unlink(missing_ok=True)
        with short(path) as name:
            listener.bind(name)
        listener.listen(MOST_CLIENTS)
    except OSError:
        listener.close()
        raise
    return listener


@contextmanager
def short(path: Path) -> Iterator[str]:
    """A name of at most 107 bytes, which is all that a socket's address has room for."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _parse(line: bytes) -> Json:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise _Refused("a request is one JSON object on a line") from None
    if not isinstance(request, dict):
        raise _Refused("a request is one JSON object on a line")
    return request


def _mistake(error: UserError) -> Json:
    """A user's mistake as the last line of an answer has it."""
    place = {"path": error.path and str(error.path), "line": error.line, "field": error.field}
    given = {name: value for name, value in place.items() if value is not None}
    return {"error": error.what, "fix": error.fix, **given}


def _line(number: Any, **fields: Any) -> bytes:
    return json.dumps({"v": VERSION, "id": number, **fields}).encode() + b"\n"
