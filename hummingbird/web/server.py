# SPDX-License-Identifier: BSD-3-Clause
"""Answers over HTTP with page, status and metrics, read-only.

One thread, MOST_CLIENTS connections, and a measurement in MEASURE_S at most (web/source.py): that
is all that this can cost, whatever clients do."""

from __future__ import annotations

import asyncio
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from hummingbird import logs
from hummingbird.web import http
from hummingbird.web.listen import address_of, is_loopback
from hummingbird.web.source import Source

MOST_CLIENTS = 64
"""For the next one, the connection that has been quiet longest is closed."""
QUIET_S = 75.0
"""A connection stays open so long for its next request: longer than Prometheus' usual interval."""
REQUEST_S = 5.0
"""From the first byte of a request to its last."""
ANSWER_S = 10.0
"""A client takes its answer in this time."""
GOODBYE_S = 2.0
"""What a client still sends is thrown away for so long, so that it sees why it is refused."""
SWEEP_S = 0.5

TEXT = "text/plain; charset=utf-8"
NOTHING = """\
there is no such thing here; there is:
/             the live page
/status.json  the same as JSON
/metrics      for Prometheus
"""
POLICY = (
    "Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)
"""The page has all it needs in itself, and asks nobody but us."""


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    kind: str
    body: bytes
    headers: tuple[str, ...] = ()


class _Client:
    """One connection."""

    def __init__(self, connection: socket.socket, now: float) -> None:
        self.socket = connection
        self.data = bytearray()
        """What has come of the next request."""
        self.since = now
        """When it came, or was last answered."""
        self.until = now + QUIET_S
        """When it is closed, unless it gets on."""
        self.task: asyncio.Task[None] | None = None


class Server:
    """Answers whoever asks."""

    def __init__(
        self,
        source: Source,
        page: bytes,
        listeners: Sequence[socket.socket],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._page = page
        self._listeners = listeners
        self._clock = clock
        self._clients: set[_Client] = set()
        self._local = all(is_loopback(address_of(one)) for one in listeners)

    async def run(self, stop: asyncio.Event) -> None:
        """Until somebody says stop."""
        tasks = [asyncio.create_task(self._accept(one)) for one in self._listeners]
        tasks.append(asyncio.create_task(self._sweep()))
        await stop.wait()
        tasks += [client.task for client in self._clients if client.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- connections ----

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:  # it has gone again, or there are no more files
                await asyncio.sleep(0.05)
                continue
            if len(self._clients) >= MOST_CLIENTS:
                self._drop(min(self._clients, key=lambda client: client.since))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(_Client(connection, self._clock()))
            await asyncio.sleep(0)  # those that were dropped are closed, however many wait here

    def _start(self, client: _Client) -> None:
        client.task = asyncio.create_task(self._serve(client))
        client.task.add_done_callback(lambda _: self._gone(client))
        self._clients.add(client)

    def _drop(self, client: _Client) -> None:
        self._clients.discard(client)
        if client.task:
            client.task.cancel()

    def _gone(self, client: _Client) -> None:
        self._clients.discard(client)
        client.socket.close()

    async def _sweep(self) -> None:
        """Close what does not get on."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._clock()
            for client in [client for client in self._clients if client.until < now]:
                self._drop(client)

    async def _serve(self, client: _Client) -> None:
        try:
            while await self._exchange(client):
                await asyncio.sleep(0)  # others have their turn, however many requests wait here
                client.since = self._clock()
                client.until = client.since + QUIET_S
            client.until = self._clock() + GOODBYE_S
            client.socket.shutdown(socket.SHUT_WR)
            while await asyncio.get_running_loop().sock_recv(client.socket, http.MOST_HEAD):
                pass
        except OSError:  # it has hung up
            pass

    # ---- requests ----

    async def _exchange(self, client: _Client) -> bool:
        """Answer one request; returns whether another may follow."""
        body, keep = True, False
        try:
            head = await self._head(client)
            if head is None:
                return False
            request = http.parse(head)
            self._check_host(request)
            body, keep = request.method != "HEAD", request.keep
            answer = self._answer_or_say_why_not(request)
        except http.Refused as error:
            answer = self._refuse(error)
        client.until = self._clock() + ANSWER_S
        loop = asyncio.get_running_loop()
        size = len(answer.body)
        first = http.answer(answer.status, answer.kind, size, keep=keep, headers=answer.headers)
        await loop.sock_sendall(client.socket, first)
        if body:  # apart: a copy of it for each client would be a lot
            await loop.sock_sendall(client.socket, answer.body)
        return keep

    async def _head(self, client: _Client) -> bytes | None:
        """The next request, without the empty line at its end; None: the client has gone."""
        loop = asyncio.get_running_loop()
        begun = False
        while (end := client.data.find(http.END)) < 0:
            if len(client.data) > http.MOST_HEAD:
                raise http.too_long()
            if client.data and not begun:
                begun = True
                client.until = self._clock() + REQUEST_S
            some = await loop.sock_recv(client.socket, http.MOST_HEAD)
            if not some:
                return None
            client.data += some
        if end > http.MOST_HEAD:
            raise http.too_long()
        head = bytes(client.data[:end])
        del client.data[: end + len(http.END)]
        return head

    def _check_host(self, request: http.Request) -> None:
        if self._local and not http.names_this_machine(request.host):
            why = f"this is not {request.host}: ask for localhost, or an address"
            raise http.Refused(HTTPStatus.MISDIRECTED_REQUEST, why)

    def _answer_or_say_why_not(self, request: http.Request) -> _Answer:
        try:
            return self._answer(request)
        except Exception as error:  # a mistake of ours, which must not end the server
            fix = "report it, with the lines below; the page goes on"
            logs.error("request_failed", f"a request failed: {error!r}", fix=fix)
            traceback.print_exc()
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            return _Answer(status, TEXT, f"it failed: {error!r}\n".encode())

    def _answer(self, request: http.Request) -> _Answer:
        self._source.own.requests += 1
        if request.path == "/":
            return _Answer(HTTPStatus.OK, "text/html; charset=utf-8", self._page, (POLICY,))
        if request.path == "/status.json":
            there, body = self._source.status()
            status = HTTPStatus.OK if there else HTTPStatus.SERVICE_UNAVAILABLE
            return _Answer(status, "application/json", body)
        if request.path == "/metrics":
            kind, body = self._source.metrics(request.open_metrics)
            return _Answer(HTTPStatus.OK, kind, body)
        return _Answer(HTTPStatus.NOT_FOUND, TEXT, NOTHING.encode())

    def _refuse(self, error: http.Refused) -> _Answer:
        self._source.own.refused += 1
        method = error.status == HTTPStatus.METHOD_NOT_ALLOWED
        allow = ("Allow: GET, HEAD",) if method else ()
        return _Answer(error.status, TEXT, f"{error.why}\n".encode(), allow)
