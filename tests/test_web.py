# SPDX-License-Identifier: BSD-3-Clause
"""The HTTP server of `hummingbird web`: it answers GET and HEAD, refuses all else in a line, and
whatever clients do, it costs little and goes on.

    clients, good and bad ══ TCP ══ [ Server ── what stands for a Source ]
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from namespaces import until

from hummingbird.errors import UserError
from hummingbird.web import server
from hummingbird.web.http import Refused, names_this_machine, parse
from hummingbird.web.listen import Address, address_of, is_loopback, listen
from hummingbird.web.metrics import Own
from hummingbird.web.server import Server

TIMEOUT_S = 60.0


class Said:
    """What stands for a Source."""

    def __init__(self, size: int = 100) -> None:
        self.own = Own()
        self.there = True
        self.body = b"x" * size

    def status(self) -> tuple[bool, bytes]:
        return self.there, b"{}\n"

    def metrics(self, open_metrics: bool) -> tuple[str, bytes]:
        return ("open" if open_metrics else "text"), self.body


class Clock:
    """Time that goes on when a test says so."""

    def __init__(self) -> None:
        self.late = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.late


class Running:
    """A server in a thread of this test."""

    def __init__(self, source: Said, host: str) -> None:
        self.source = source
        self.clock = Clock()
        self.listeners = listen(Address(host, 0))
        self.address = address_of(self.listeners[0])
        self.server = Server(source, b"<html>", self.listeners, self.clock)  # type: ignore[arg-type]
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._began.wait(TIMEOUT_S)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._began.set()
        await self.server.run(self._stop)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.address.host, self.address.port), TIMEOUT_S)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(self.address.host, self.address.port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response, response.read()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        for one in self.listeners:
            one.close()


@contextlib.contextmanager
def running(source: Said | None = None, host: str = "127.0.0.1") -> Iterator[Running]:
    run = Running(source or Said(), host)
    try:
        yield run
    finally:
        run.end()


def read_all(connection: socket.socket) -> bytes:
    """Until the server hangs up."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while some := connection.recv(1 << 16):
            data += some
    return data


# ---- requests ------------------------------------------------------------------------------------


def test_a_request() -> None:
    head = b"GET /metrics?x=1 HTTP/1.1\r\nHost: [::1]:9464\r\nACCEPT:\t text/plain \r\nAccept: */*"
    request = parse(head)
    assert (request.method, request.path, request.host) == ("GET", "/metrics", "[::1]:9464")
    assert request.accept == "text/plain,*/*" and request.keep


@pytest.mark.parametrize(
    ("first", "path"),
    [
        ("GET / HTTP/1.1", "/"),
        ("HEAD http://localhost:9464/status.json?a#b HTTP/1.1", "/status.json"),
        ("GET http://localhost HTTP/1.1", "/"),
        ("GET //metrics HTTP/1.1", "//metrics"),
        ("GET /../etc/passwd HTTP/1.1", "/../etc/passwd"),
        ("GET * HTTP/1.1", "*"),
    ],
)
def test_paths(first: str, path: str) -> None:
    assert parse(first.encode()).path == path


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("", 400),
        ("GET /", 400),
        ("GET / HTTP/2.0", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /\tx HTTP/1.1", 400),
        ("GET / HTTP/1.1\r\nno colon", 400),
        ("GET / HTTP/1.1\r\nspace : x", 400),
        ("GET / HTTP/1.1\r\n folded: x", 400),
        ("GET / HTTP/1.1\r\nx: a\nb", 400),
        ("GET / HTTP/1.1\r\nx: \x00", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: b", 400),
        ("GET / HTTP/1.1\r\nContent-Length: 5", 400),
        ("GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5", 400),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 5", 405),
        ("DELETE /metrics HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 405),
        ("get / HTTP/1.1", 405),
        ("GET /" + "a" * 2000 + " HTTP/1.1", 414),
        ("GET / HTTP/1.1" + "\r\nx: y" * 65, 431),
    ],
)
def test_refused(head: str, status: int) -> None:
    with pytest.raises(Refused) as error:
        parse(head.encode("latin-1"))
    assert error.value.status == status


@pytest.mark.parametrize(
    ("version", "connection", "keep"),
    [
        ("1.1", "", True),
        ("1.1", "close", False),
        ("1.1", "Keep-Alive", True),
        ("1.0", "", False),
        ("1.0", "Keep-Alive", True),
        ("1.0", "close", False),
    ],
)
def test_whether_the_connection_stays(version: str, connection: str, keep: bool) -> None:
    header = f"\r\nConnection: {connection}" if connection else ""
    assert parse(f"GET / HTTP/{version}{header}".encode()).keep is keep


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "open_metrics"),
    [
        (PROMETHEUS_2, True),
        ("text/plain;version=0.0.4", False),
        ("text/html,*/*;q=0.8", False),
        ("application/openmetrics-text; q=0", False),
        ("application/openmetrics-text; q=0.000", False),
        ("application/openmetrics-text; q=0.5", True),
        ("application/openmetrics-textual", False),
        ("", False),
    ],
)
def test_which_format(accept: str, open_metrics: bool) -> None:
    assert parse(f"GET /metrics HTTP/1.1\r\nAccept: {accept}".encode()).open_metrics is open_metrics


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("", True),
        ("localhost", True),
        ("LOCALHOST:9464", True),
        ("127.0.0.1:9464", True),
        ("127.0.0.1", True),
        ("[::1]:9464", True),
        ("[::1]", True),
        ("evil.example", False),
        ("evil.example:9464", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:9464", False),
        ("127.0.0.1@evil", False),
    ],
)
def test_names_of_this_machine(host: str, ours: bool) -> None:
    """A web page whose name is made to point here (DNS rebinding) names itself in the header."""
    assert names_this_machine(host) is ours


PIECES = st.sampled_from(
    [b"GET ", b"HEAD", b" ", b"/", b"/metrics", b" HTTP/1.1", b"\r\n", b"\n", b":", b"Host",
     b"Content-Length", b"http://", b"[::1]", b"\xff", b"\x00", b"a" * 3000, b"x: y\r\n" * 70]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=20), max_size=12).map(b"".join))
@example(b"GET http:// HTTP/1.1")
@example(b"GET / HTTP/1.1\r\nHost: [:")
def test_any_bytes_are_a_request_or_refused(head: bytes) -> None:
    try:
        request = parse(head)
    except Refused as error:
        assert 400 <= error.status < 500 and error.why.isprintable()
    else:
        assert request.method in ("GET", "HEAD")
        assert isinstance(names_this_machine(request.host), bool)
        assert isinstance(request.open_metrics, bool)


# ---- answers -------------------------------------------------------------------------------------


def test_what_there_is() -> None:
    with running() as run:
        for path, kind, body in (
            ("/", "text/html; charset=utf-8", b"<html>"),
            ("/?theme=dark", "text/html; charset=utf-8", b"<html>"),
            ("/status.json", "application/json", b"{}\n"),
            ("/metrics", "text", run.source.body),
        ):
            response, got = run.ask(path)
            assert (response.status, response.headers["Content-Type"], got) == (200, kind, body)
            assert response.headers["Cache-Control"] == "no-store"
            headers = dict(response.headers)
            response, got = run.ask(path, "HEAD")
            assert (response.status, dict(response.headers), got) == (200, headers, b"")
        assert run.ask("/metrics", Accept=PROMETHEUS_2)[0].headers["Content-Type"] == "open"
        run.source.there = False
        response, got = run.ask("/status.json")
        assert (response.status, got) == (503, b"{}\n")


def test_what_there_is_not() -> None:
    """404 says what there is; 405 says what may be done; nothing else of a request is looked at."""
    with running() as run:
        response, body = run.ask("/etc/passwd")
        assert response.status == 404
        assert all(path in body.decode() for path in ("/ ", "/status.json", "/metrics"))
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
            response, _ = run.ask("/metrics", method)
            assert response.status == 405 and response.headers["Allow"] == "GET, HEAD"
        assert run.source.own.refused == 6


def test_a_refused_upload_still_sees_why() -> None:
    """A client that goes on sending is not reset before it has read the answer."""
    with running() as run, run.connect() as client:
        body = bytes(8_000_000)
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert read_all(client).startswith(b"HTTP/1.1 405 ")


def test_pages_of_others_cannot_read_it() -> None:
    """On loopback, a request that names another host than this one is refused (DNS rebinding);
    where others may ask, names are their business. No answer allows scripts of other sites."""
    with running() as run:
        response, body = run.ask("/status.json", Host="evil.example:9464")
        assert response.status == HTTPStatus.MISDIRECTED_REQUEST and b"evil.example" in body
        response, _ = run.ask("/", Origin="http://evil.example")
        assert not any(name.lower().startswith("access-control") for name in response.headers)
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    with running(host="0.0.0.0") as run:
        assert run.ask("/status.json", Host="router7.example:9464")[0].status == 200


def test_requests_of_one_connection() -> None:
    """Also those that come at once, and bytewise; HTTP/1.0 closes."""
    asked = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running() as run, run.connect() as client:
        client.sendall(3 * asked)
        for byte in asked:
            client.sendall(bytes([byte]))
        client.sendall(b"HEAD / HTTP/1.0\r\n\r\n" + asked)
        answers = read_all(client)
    assert answers.count(b"HTTP/1.1 200 OK") == 5  # nobody answers behind the HTTP/1.0 one
    assert answers.count(run.source.body) == 4


def test_ipv6() -> None:
    with running(host="::1") as run:
        assert str(run.address) == f"[::1]:{run.address.port}"
        connection = HTTPConnection("::1", run.address.port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            assert connection.getresponse().status == 200


def test_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and does not end the server."""

    def broken() -> tuple[bool, bytes]:
        raise KeyError("binding")

    with running() as run:
        monkeypatch.setattr(run.source, "status", broken)
        response, body = run.ask("/status.json")
        assert (response.status, body) == (500, b"it failed: KeyError('binding')\n")
        assert run.ask("/metrics")[0].status == 200


# ---- bad clients ---------------------------------------------------------------------------------


def clients_of(run: Running) -> int:
    return len(run.server._clients)


def test_a_request_that_never_ends() -> None:
    """8 KiB of a request are enough, whether the rest has come or not."""
    with running() as run:
        for data in (b"x" * 9000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000):
            with run.connect() as client:
                client.sendall(data)
                assert read_all(client).startswith(b"HTTP/1.1 431 ")
        assert run.ask("/")[0].status == 200


def test_slow_clients_are_hung_up_on() -> None:
    """One that sends a byte now and then, one that sends nothing; one that asks often stays."""
    with running() as run, run.connect() as slow, run.connect() as quiet, run.connect() as good:
        slow.sendall(b"GET")
        until(lambda: clients_of(run) == 3, "all clients")
        until(lambda: any(client.data for client in run.server._clients), "the first bytes")
        run.clock.late += server.REQUEST_S - 0.5
        slow.sendall(b" /")
        run.clock.late += 1
        assert read_all(slow) == b""
        for _ in range(3):
            run.clock.late += server.QUIET_S / 2
            good.sendall(b"HEAD / HTTP/1.1\r\n\r\n")
            assert good.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert read_all(quiet) == b""
        until(lambda: clients_of(run) == 1, "the two to be gone")


def test_a_client_that_never_reads() -> None:
    """It asks for ever and reads nothing: it is hung up on, and others are served meanwhile."""
    with running(Said(size=5_000_000)) as run, run.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(100 * b"GET /metrics HTTP/1.1\r\n\r\n")
        until(lambda: run.source.own.requests > 0, "its first request")
        assert run.ask("/")[0].status == 200
        assert run.source.own.requests == 2  # of those 100, one: its answer is not taken
        run.clock.late += server.ANSWER_S + 1
        until(lambda: clients_of(run) == 0, "it to be gone")


def test_a_flood_of_requests_on_one_connection_keeps_nobody_waiting() -> None:
    """Whoever has always more to ask has its turn, and others have theirs: else they would wait for
    ever, as it asks on."""
    stop = threading.Event()
    asked = 2000 * b"HEAD /nothing HTTP/1.1\r\n\r\n"

    def flood() -> None:
        with run.connect() as client:
            reader = threading.Thread(target=read_all, args=(client,))
            reader.start()
            while not stop.is_set():
                client.sendall(asked)
            client.shutdown(socket.SHUT_RDWR)
            reader.join()

    with running() as run:
        thread = threading.Thread(target=flood)
        thread.start()
        until(lambda: run.source.own.requests > 1000, "the flood")
        for _ in range(20):
            assert run.ask("/")[0].status == 200
        stop.set()
        thread.join()


def test_more_clients_than_there_may_be() -> None:
    """The next one is served, and the one that has been quiet longest goes."""
    with running() as run, contextlib.ExitStack() as stack:
        files = len(os.listdir("/proc/self/fd"))
        clients = []
        for number in range(3 * server.MOST_CLIENTS):
            clients.append(stack.enter_context(run.connect()))
            clients[-1].sendall(b"HEAD / HTTP/1.1\r\n\r\n")
            assert clients[-1].recv(1 << 16).startswith(b"HTTP/1.1 200"), number
            assert clients_of(run) <= server.MOST_CLIENTS
        assert clients[0].recv(1) == b""
        ours = len(os.listdir("/proc/self/fd")) - files - len(clients)
        assert ours < server.MOST_CLIENTS + 8
        clients[-1].sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert clients[-1].recv(1 << 16)


def test_garbage() -> None:
    """Whatever comes is answered with an error or hung up on, and the server goes on."""
    seeded = random.Random(7)
    good = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
    with running() as run:
        for _ in range(200):
            data = bytearray(good if seeded.random() < 0.7 else seeded.randbytes(200))
            for _ in range(seeded.randrange(6)):
                data[seeded.randrange(len(data))] = seeded.randrange(256)
            with run.connect() as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                answer = read_all(client)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer
        assert run.ask("/")[0].status == 200
        until(lambda: clients_of(run) == 0, "all to be gone")


def test_a_browser_that_is_left_open_for_a_day() -> None:
    """A page that asks and asks, on one connection and on new ones: 20,000 requests leave less than
    20 bytes each, and no file, so that a day's leave nothing that matters."""
    asked = b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    with running() as run, run.connect() as client:
        open_files = files()

        def ask(count: int) -> None:
            for _ in range(count // 100):
                client.sendall(100 * asked)
                got = b""
                while got.count(b"{}\n") < 100:
                    got += client.recv(1 << 16)
                run.ask("/status.json")

        ask(3_000)
        before = memory()
        ask(20_000)
        assert memory() - before < 400_000
        assert run.source.own.requests > 23_000
        # the client's own connection may have been accepted after the first look
        until(lambda: files() <= open_files + 1, "the server to hang up")


# ---- where it listens ----------------------------------------------------------------------------


def test_an_address_in_use() -> None:
    (one,) = listen(Address("127.0.0.1", 0))
    port = address_of(one).port
    with one, pytest.raises(UserError) as error:
        listen(Address("127.0.0.1", port))
    said = str(error.value)
    assert f"cannot listen at 127.0.0.1:{port}: somebody listens there already" in said
    assert f"sport = :{port}" in said and "--listen" in said


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid", "x" * 300])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(UserError, match=r"cannot listen|no address of this machine"):
        listen(Address(host, 0))


def test_a_name_with_several_addresses_has_one_port() -> None:
    listeners = listen(Address("localhost", 0))
    with contextlib.ExitStack() as stack:
        for one in listeners:
            stack.enter_context(one)
        assert len({address_of(one).port for one in listeners}) == 1
        assert all(is_loopback(address_of(one)) for one in listeners)


def test_what_is_loopback() -> None:
    assert [host for host in ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "192.0.2.1")
            if is_loopback(Address(host, 1))] == ["127.0.0.1", "127.9.9.9", "::1"]  # fmt: skip
