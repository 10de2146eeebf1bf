# SPDX-License-Identifier: BSD-3-Clause
"""The control socket: whoever asks gets an answer or one clear line, and whatever a client does,
the control thread never waits for it.

    [ Engine, or what stands for it ] ── control.Server ══ Unix socket ══ clients, good and bad
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from namespaces import until

from hummingbird import control, control_client
from hummingbird.control import Answer, Command, Server
from hummingbird.control_client import Reply, open_instance
from hummingbird.errors import UserError

TICK_S = 0.05
SLACK_S = 0.25
"""CPU time that a tick may take beside. That none waits for a client is seen by those who are
served meanwhile."""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for run directories of this test alone."""
    for module in (control, control_client):
        monkeypatch.setattr(module, "base_dir", lambda: tmp_path / "run")
    return tmp_path / "run"


COMMANDS: dict[str, Command] = {}
"""Of this test."""


def command(name: str) -> Callable[[Command], Command]:
    """Make a function the command of this name."""
    return lambda function: COMMANDS.setdefault(name, function)


@pytest.fixture(autouse=True)
def commands() -> None:
    """Commands that many tests use."""
    COMMANDS.clear()

    @command("count")
    def count(engine: Any, request: Mapping[str, Any]) -> Answer:
        for number in range(request["to"]):
            yield {"number": number} if number % 2 == 0 else None
        return {"engine": engine.name}

    @command("idle")
    def idle(engine: Any, request: Mapping[str, Any]) -> Answer:
        for _ in itertools.count():
            yield None
        return {}

    @command("mistaken")
    def mistaken(engine: Any, request: Mapping[str, Any]) -> Answer:
        yield None
        raise UserError("that cannot be", fix="ask for something else")

    @command("broken")
    def broken(engine: Any, request: Mapping[str, Any]) -> Answer:
        yield None
        raise ZeroDivisionError


class Instance:
    """A server whose control thread is one of this test."""

    def __init__(self, runtime: Path, name: str) -> None:
        self.name = name
        (runtime / name).mkdir(parents=True, exist_ok=True)
        self.server = Server(SimpleNamespace(name=name), COMMANDS)  # type: ignore[arg-type]
        self.longest = 0.0
        """CPU time of its longest tick: by the clock others may have had the CPU."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.thread_time()
            self.server.serve(TICK_S)
            self.longest = max(self.longest, time.thread_time() - began)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self.server.close()

    def await_no_client(self) -> None:
        """Until all have gone, or were hung up on."""
        until(lambda: not self.server._clients, "clients to be gone")


@contextlib.contextmanager
def instance(runtime: Path, name: str = "default") -> Iterator[Instance]:
    run = Instance(runtime, name)
    try:
        yield run
    finally:
        run.end()


def raw(name: str, data: bytes) -> list[dict[str, Any]]:
    """Send bytes; what comes until the instance hangs up, or has ended an answer."""
    found = []
    with open_instance(name) as connection, connection.makefile("rb") as lines:
        with contextlib.suppress(OSError):  # hung up on: what it said is there all the same
            connection.sendall(data)
        for line in lines:
            found.append(json.loads(line))
            if "item" not in found[-1]:
                break
    return found


# ---- answers -------------------------------------------------------------------------------------


def test_items_and_end(runtime: Path) -> None:
    """All items in order, then the end, as often as somebody asks."""
    with instance(runtime):
        for _ in range(3):
            reply = Reply("default", "count", to=10_000)
            assert [item["number"] for item in reply] == list(range(0, 10_000, 2))
            assert reply.end == {"engine": "default"}


def test_requests_of_one_connection(runtime: Path) -> None:
    """Several requests on one connection are answered one after the other, by their ids."""
    asked = b"".join(
        json.dumps({"v": 1, "id": number, "command": "count", "to": 1}).encode() + b"\n"
        for number in range(3)
    )
    with instance(runtime), open_instance("default") as connection:
        connection.sendall(asked)
        with connection.makefile("rb") as lines:
            ids = [json.loads(lines.readline())["id"] for _ in range(6)]
    assert ids == [0, 0, 1, 1, 2, 2]


def test_the_socket_is_its_users_alone(runtime: Path) -> None:
    """Mode 0600, and gone with the instance."""
    with instance(runtime) as run:
        status = os.stat(run.server.path)
        assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600
    assert not run.server.path.exists()


def test_long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of a Unix socket has 108 bytes; a run directory's path may have more."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    for module in (control, control_client):
        monkeypatch.setattr(module, "base_dir", lambda: deep)
    with instance(deep):
        assert list(Reply(None, "count", to=1)) == [{"number": 0}]


# ---- what a user may do wrong --------------------------------------------------------------------


def test_no_instance(runtime: Path) -> None:
    with pytest.raises(
        UserError, match=r"no instance is running\n  fix: start one with 'hummingbird run'"
    ):
        Reply(None, "count")
    with pytest.raises(UserError, match="no instance named 'other' is running"):
        Reply("other", "count")


def test_wrong_name(runtime: Path) -> None:
    """The error names those that run."""
    with (
        instance(runtime, "one"),
        pytest.raises(UserError, match=r"'two' is running\n  fix: write --name with one of: one"),
    ):
        Reply("two", "count")


def test_the_only_instance_needs_no_name(runtime: Path) -> None:
    with instance(runtime, "one"):
        reply = Reply(None, "count", to=0)
        assert list(reply) == [] and reply.end == {"engine": "one"}


def test_two_instances(runtime: Path) -> None:
    """It has to be clear which one is meant."""
    with instance(runtime, "one"), instance(runtime, "two"):
        with pytest.raises(UserError, match="2 instances are running: one, two"):
            Reply(None, "count")
        reply = Reply("two", "count", to=0)
        assert list(reply) == [] and reply.end == {"engine": "two"}


def test_stale_socket(runtime: Path) -> None:
    """What a killed instance leaves is no instance, and the next of the name replaces it."""
    with instance(runtime) as run:
        os.link(run.server.path, runtime / "kept")
    (runtime / "kept").rename(runtime / "default" / "control")
    with pytest.raises(UserError, match="'default' is running; the one that was has been killed"):
        Reply("default", "count")
    with pytest.raises(UserError, match="no instance is running"):
        Reply(None, "count")
    with instance(runtime):
        assert list(Reply("default", "count", to=1)) == [{"number": 0}]


def test_not_ours(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's socket."""

    def refuse(path: Path) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    with instance(runtime):
        monkeypatch.setattr(control_client, "_connect", refuse)
        with pytest.raises(UserError, match=r"'default' cannot be asked: Permission denied\n  fix"):
            Reply("default", "count")


@pytest.mark.parametrize("says", [b"", b"hello\n", b'{"v": 2, "id": 1, "end": {}}\n', b"[]\n"])
def test_something_else_listens(runtime: Path, says: bytes) -> None:
    """An instance that dies, or one of another version: one line."""
    (runtime / "default").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime / "default" / "control"))
        listener.listen()

        def talk() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(says)
            connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        what = "does not speak version 1" if says else "ended before its answer did"
        with pytest.raises(UserError, match=what):
            list(Reply("default", "count"))
        thread.join()


def test_end_of_an_instance(runtime: Path) -> None:
    """It ends while it answers."""
    with instance(runtime) as run:
        items = iter(Reply("default", "count", to=10_000_000))
        assert next(items) == {"number": 0}
        run.end()
        with pytest.raises(UserError, match="ended before its answer did"):
            list(items)


def test_a_client_that_only_listens(runtime: Path) -> None:
    """It has said that it says no more, as `socat` and `nc -N` do, and still gets its answer, also
    one that takes long."""

    @command("later")
    def later(engine: Any, request: Mapping[str, Any]) -> Answer:
        for _ in range(3):
            yield control.PAUSE
        return {"late": True}

    with instance(runtime), open_instance("default") as connection:
        connection.sendall(b'{"v": 1, "id": 1, "command": "later"}\n')
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as lines:
            assert json.loads(lines.read())["end"] == {"late": True}


def test_an_interruption(runtime: Path) -> None:
    """A command ends those of all others, within a line of theirs too; they are told, and so is
    whoever asks before it is over."""
    closed = threading.Event()

    @command("endless")
    def endless(engine: Any, request: Mapping[str, Any]) -> Answer:
        try:
            for _ in itertools.count():
                yield {"much": "x" * 1000}
        finally:
            closed.set()
        return {}

    with instance(runtime) as run, contextlib.ExitStack() as stack:

        @command("interrupt")
        def interrupt(engine: Any, request: Mapping[str, Any]) -> Answer:
            run.server.interrupt("all is new")
            yield control.PAUSE
            assert closed.is_set()
            return {"done": True}

        streaming, pausing = (stack.enter_context(open_instance("default")) for _ in range(2))
        streaming.sendall(b'{"v": 1, "id": 1, "command": "endless"}\n')
        pausing.sendall(b'{"v": 1, "id": 2, "command": "idle"}\n')
        lines = streaming.makefile("rb")
        assert json.loads(lines.readline())["item"]
        reply = Reply("default", "interrupt")
        assert list(reply) == [] and reply.end == {"done": True}
        for connection in (lines, pausing.makefile("rb")):
            said = json.loads(connection.readline())
            while "item" in said:
                said = json.loads(connection.readline())
            assert said["error"] == "all is new"
        with pytest.raises(UserError, match=r"all is new\n  fix: ask again in a moment"):
            list(Reply("default", "count", to=1))
        run.server.away = None
        assert list(Reply("default", "count", to=1)) == [{"number": 0}]


def test_the_place_of_a_mistake(runtime: Path) -> None:
    """File, line and field come over, too."""

    @command("placed")
    def placed(engine: Any, request: Mapping[str, Any]) -> Answer:
        yield None
        raise UserError("no", path="a.yaml", line=3, field="nfs.x", fix="yes")

    with instance(runtime), pytest.raises(UserError, match=r"^a.yaml:3:nfs.x: no\n  fix: yes$"):
        list(Reply("default", "placed"))


# ---- what a client may do wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, error",
    [
        (b"what flows?\n", "one JSON object on a line"),
        (b"\xff\xfe\x00\n", "one JSON object on a line"),
        (b"[" * 50_000 + b"\n", "one JSON object on a line"),
        (b"7\n", "one JSON object on a line"),
        (b"{}\n", "speaks version 1"),
        (b'{"v": 2, "id": 1, "command": "count"}\n', "speaks version 1"),
        (b'{"v": 1, "id": 1, "command": "dance"}\n', "no command 'dance', only"),
        (b'{"v": 1, "id": 1, "command": []}\n', "no command"),
        (b"x" * 100_000, "at most 65536 bytes"),
    ],
)
def test_garbage(runtime: Path, data: bytes, error: str) -> None:
    """One line that says what is wrong, and the next client is served."""
    with instance(runtime):
        (said,) = raw("default", data)
        assert error in said["error"]
        assert list(Reply("default", "count", to=1)) == [{"number": 0}]


def test_a_command_that_refuses(runtime: Path) -> None:
    with (
        instance(runtime),
        pytest.raises(UserError, match=r"that cannot be\n  fix: ask for something else"),
    ):
        list(Reply("default", "mistaken"))


def test_a_command_that_fails(runtime: Path) -> None:
    """A mistake of ours ends the answer and not the run."""
    with instance(runtime):
        with pytest.raises(UserError, match="it failed: ZeroDivisionError"):
            list(Reply("default", "broken"))
        assert list(Reply("default", "count", to=1)) == [{"number": 0}]


def test_a_client_that_never_reads(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are served meanwhile, ticks stay short, memory stays small, and it is hung up on."""
    with instance(runtime) as run:
        lazy = open_instance("default")
        lazy.sendall(b'{"v": 1, "id": 1, "command": "count", "to": 1000000000}\n')
        for _ in range(5):
            assert len(list(Reply("default", "count", to=1000))) == 500
        client, *_ = list(run.server._clients.values())
        assert len(client.piece) <= 2 * control.PIECE
        monkeypatch.setattr(control, "SILENT_S", 0.5)
        run.await_no_client()
        assert run.longest < TICK_S + SLACK_S
        lazy.close()


def test_an_endless_search(runtime: Path) -> None:
    """A command that finds nothing for ever takes its turn with the others."""
    with instance(runtime) as run:
        with open_instance("default") as searching:
            searching.sendall(b'{"v": 1, "id": 1, "command": "idle"}\n')
            for _ in range(3):
                assert len(list(Reply("default", "count", to=10_000))) == 5_000
        run.await_no_client()  # it has hung up, and nobody searches for it any more
        assert run.longest < TICK_S + SLACK_S


def test_a_long_search(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that hears nothing for long is told that it has not been forgotten, and waits on."""
    monkeypatch.setattr(control, "WAIT_S", 0.02)
    told = threading.Event()

    @command("search")
    def search(engine: Any, request: Mapping[str, Any]) -> Answer:
        while not told.is_set():
            yield None
        return {"found": 0}

    with instance(runtime) as run:
        reply = Reply("default", "search")
        with open_instance("default") as connection, connection.makefile("rb") as lines:
            connection.sendall(b'{"v": 1, "id": 2, "command": "search"}\n')
            for _ in range(3):  # and the other one, meanwhile, at least one
                assert json.loads(lines.readline()) == {"v": 1, "id": 2, "wait": True}
            told.set()
        assert list(reply) == [] and reply.end == {"found": 0}
        run.await_no_client()


def test_many_clients(runtime: Path) -> None:
    """There is an end to how many are served at once, and those beyond are told."""
    with instance(runtime), contextlib.ExitStack() as stack:
        for _ in range(control.MOST_CLIENTS):
            connection = stack.enter_context(open_instance("default"))
            connection.sendall(b'{"v": 1, "id": 1, "command": "count", "to": 1}\n')
            assert connection.recv(1000)
        with pytest.raises(UserError, match="16 others are asking already"):
            list(Reply("default", "count", to=1))


def test_a_client_that_comes_and_goes(runtime: Path) -> None:
    """Half a request, then nothing."""
    with instance(runtime) as run:
        for _ in range(100):
            with open_instance("default") as connection:
                connection.sendall(b'{"v": 1, ')
        assert list(Reply("default", "count", to=1)) == [{"number": 0}]
        run.await_no_client()


def test_a_pause_costs_nothing_and_ends(runtime: Path) -> None:
    """A command that waits is asked once a round, and its end is heard of when its client goes."""
    asked = 0
    closed = threading.Event()

    @command("waits")
    def waits(engine: Any, request: Mapping[str, Any]) -> Answer:
        nonlocal asked
        try:
            for asked in itertools.count(1):
                yield {"number": asked} if asked % 3 == 0 else control.PAUSE
        finally:
            closed.set()
        return {}

    with instance(runtime):
        began = time.monotonic()
        with contextlib.closing(iter(Reply("default", "waits"))) as items:
            assert [next(items)["number"] for _ in range(3)] == [3, 6, 9]
        assert closed.wait(60)  # nobody is asked behind it
        rounds = (time.monotonic() - began) / TICK_S
        assert 9 <= asked <= rounds + 9 // 3 + 2  # rounds begun
