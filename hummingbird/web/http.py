# SPDX-License-Identifier: BSD-3-Clause
"""As much of HTTP/1.1 (RFC 9112) as GET and HEAD without bodies take; whatever else comes is
refused in one line."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from http import HTTPStatus

MOST_HEAD = 8192
"""Bytes of a request: its line and its headers."""
MOST_TARGET = 1024
MOST_HEADERS = 64
END = b"\r\n\r\n"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.([01])")
_AUTHORITY = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


class Refused(Exception):
    """A request that is answered with an error, and its connection closed."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True)
class Request:
    """What somebody wants."""

    method: str
    path: str
    host: str
    """As the client named us; "" if it did not."""
    accept: str
    keep: bool
    """The connection stays open for the next request."""

    @property
    def open_metrics(self) -> bool:
        """The client takes OpenMetrics: Prometheus does, and prefers it."""
        return any(_is_open_metrics(kind) for kind in self.accept.split(","))


def _is_open_metrics(kind: str) -> bool:
    name, *rest = (part.strip() for part in kind.lower().split(";"))
    weights = [part[2:].strip("0.") for part in rest if part.startswith("q=")]
    return name == "application/openmetrics-text" and "" not in weights


def parse(head: bytes) -> Request:
    """A request, without the empty line behind its headers.

    Raises:
        Refused: it is none, or one that nobody here answers.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    if len(first) > MOST_TARGET + 64:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, f"more than {MOST_TARGET} bytes of URL")
    match = _LINE.fullmatch(first)
    if not match:
        raise Refused(HTTPStatus.BAD_REQUEST, "that is no request of HTTP/1.1")
    method, target, minor = match.groups()
    if method not in ("GET", "HEAD"):
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "everything here is read-only: GET and HEAD")
    headers = _headers(lines)
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise Refused(HTTPStatus.BAD_REQUEST, f"{method} has no body")
    connection = headers.get("connection", "").lower()
    return Request(
        method=method,
        path=_path(target),
        host=headers.get("host", ""),
        accept=headers.get("accept", ""),
        keep="close" not in connection if minor == "1" else "keep-alive" in connection,
    )


def too_long() -> Refused:
    """More has come than a request may have."""
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return Refused(status, f"a request has at most {MOST_HEAD} bytes and {MOST_HEADERS} headers")


def _headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > MOST_HEADERS:
        raise too_long()
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not value.replace("\t", " ").isprintable():
            raise Refused(HTTPStatus.BAD_REQUEST, "a header is malformed")
        name = name.lower()
        if name in headers and name in ("host", "content-length"):
            raise Refused(HTTPStatus.BAD_REQUEST, f"more than one header {name!r}")
        headers[name] = f"{headers[name]},{value.strip()}" if name in headers else value.strip()
    return headers


def _path(target: str) -> str:
    """The path of a URL, or of the target of a request to a proxy."""
    if match := _AUTHORITY.match(target):
        target = target[match.end() :] or "/"
    return target.partition("?")[0].partition("#")[0]


def names_this_machine(host: str) -> bool:
    """Whether a header ``Host`` is an address or localhost. Any other name may be one that a web
    page has made point here, so that its scripts can read what we say (DNS rebinding)."""
    name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
    if name.lower() in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def answer(
    status: HTTPStatus, kind: str, size: int, *, keep: bool, headers: tuple[str, ...] = ()
) -> bytes:
    """The head of an answer whose body has so many bytes."""
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {size}",
        f"Connection: {'keep-alive' if keep else 'close'}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode("latin-1")
