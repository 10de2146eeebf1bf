# SPDX-License-Identifier: BSD-3-Clause
"""What network functions are measured with, made up and the same each time: packets, requests as
browsers send them, routes as a full table has them."""

from __future__ import annotations

import functools
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

HEADERS = 14 + 20 + 8
"""Bytes of Ethernet, IPv4 and UDP."""
INJECTED = 0.02
"""Share of payloads that carry a pattern."""

# ---- packets -------------------------------------------------------------------------------------


def udp(payload: Bytes, seed: int = 1) -> Bytes:
    """Packets of one payload each, [n][HEADERS + size]: any addresses, right checksums."""
    n, size = payload.shape
    draw = np.random.default_rng(seed)
    packets = np.zeros((n, HEADERS + size), dtype=np.uint8)
    packets[:, 0:12] = np.frombuffer(bytes.fromhex("020000000001020000000002"), np.uint8)
    packets[:, 12] = 8
    packets[:, 14] = 0x45
    packets[:, 16:18] = _big_endian(28 + size)
    packets[:, 22:24] = (64, 17)
    packets[:, 26:34] = draw.integers(1, 224, (n, 8))
    packets[:, 34:36] = draw.integers(4, 255, (n, 2))
    packets[:, 36:38] = _big_endian(80)
    packets[:, 38:40] = _big_endian(8 + size)
    words = packets[:, 14:34].reshape(n, 10, 2).astype(np.uint32)
    total = (words[:, :, 0] << 8 | words[:, :, 1]).sum(axis=1)
    total = (total & 0xFFFF) + (total >> 16)
    packets[:, 24:26] = (~total.astype(np.uint16))[:, None].view(np.uint8)[:, ::-1]
    packets[:, HEADERS:] = payload
    return packets


def _big_endian(value: int) -> tuple[int, int]:
    return value >> 8, value & 255


# ---- patterns ------------------------------------------------------------------------------------

PATTERNS = Path(__file__).resolve().parent / "nids147.rules"
_CONTENT = re.compile(r'^[^#]*?(?:\bcontent|^[\w.-]+)\s*:\s*"((?:[^"\\]|\\.)*)"')


@functools.cache
def patterns() -> tuple[bytes, ...]:
    """The first content of each line: text, hex between bars."""
    lines = PATTERNS.read_text(encoding="utf-8").splitlines()
    contents = [found[1] for line in lines if (found := _CONTENT.match(line))]
    return tuple(_bytes(content) for content in contents)


def _bytes(content: str) -> bytes:
    parts = content.split("|")
    plain = [re.sub(r"\\(.)", r"\1", part).encode("latin-1") for part in parts[::2]]
    raw = [*(bytes.fromhex(part) for part in parts[1::2]), b""]
    return b"".join(a + b for a, b in zip(plain, raw, strict=True))


# ---- payloads ------------------------------------------------------------------------------------

_WORDS = """
about account api archive article assets backup basket blog cart catalog checkout client common
contact content css data default detail docs download edit en error events export feed file
forum gallery getting help history home icon image images include index info item jquery js lang
latest list login logo mail main map media member menu message mobile model news next offer
order page password photo player portal preview price product profile public query rating
release report result review rss search secure select session setting shop site sort start
static status store style support table tag team template theme thumb token top topic track
update upload user video view vote week widget
""".split()  # noqa: SIM905  a page of quotes
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/118.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/118.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 16_6 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "curl/7.88.1",
    "python-requests/2.31.0",
)


def _request(draw: random.Random) -> str:
    """One request, or the beginning of an answer."""
    path = "/".join(draw.choices(_WORDS, k=draw.randint(1, 5)))
    query = "&".join(
        f"{draw.choice(_WORDS)}={draw.randrange(10**6)}" for _ in range(draw.randint(0, 4))
    )
    host = f"www.{draw.choice(_WORDS)}-{draw.choice(_WORDS)}.example"
    cookie = f"{draw.choice(_WORDS)}={draw.getrandbits(128):032x}; sid={draw.getrandbits(64):016x}"
    if draw.random() < 0.4:
        body = " ".join(
            f'<a class="{draw.choice(_WORDS)}" href="/{path}">{draw.choice(_WORDS)}</a>'
            for _ in range(8)
        )
        return (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nServer: nginx\r\n"
            f"Set-Cookie: {cookie}\r\n\r\n<html><head><title>{path}</title></head><body>{body}"
        )
    return (
        f"{draw.choice(('GET', 'GET', 'GET', 'POST'))} /{path}?{query} HTTP/1.1\r\nHost: {host}\r\n"
        f"User-Agent: {draw.choice(_AGENTS)}\r\nAccept: text/html,application/xhtml+xml;q=0.9,*/*"
        f"\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n"
        f"Referer: http://{host}/{draw.choice(_WORDS)}\r\nCookie: {cookie}\r\n"
        f"Connection: keep-alive\r\n\r\n"
    )


@functools.cache
def http(n: int, size: int, patterns: tuple[bytes, ...]) -> Bytes:
    """Payloads of `size` bytes of HTTP; INJECTED of them carry one of the patterns."""
    draw = random.Random(7)
    payloads = bytearray()
    for _ in range(n):
        text = ""
        while len(text) < size:
            text += _request(draw)
        payload = bytearray(text[:size].encode("ascii"))
        if draw.random() < INJECTED:
            pattern = draw.choice([p for p in patterns if len(p) <= size])
            at = draw.randint(0, size - len(pattern))
            payload[at : at + len(pattern)] = pattern
        payloads += payload
    return np.frombuffer(bytes(payloads), dtype=np.uint8).reshape(n, size)


# ---- routes --------------------------------------------------------------------------------------

# Share of each prefix length, per mille: like a full table of the internet, which is mostly /24.
_LENGTHS = {
    32: 10, 30: 2, 29: 2, 28: 2, 27: 1, 26: 1, 25: 2, 24: 590, 23: 110, 22: 110, 21: 50, 20: 42,
    19: 30, 18: 15, 17: 8, 16: 20, 15: 2, 14: 1, 13: 1, 12: 1,
}  # fmt: skip


@dataclass(frozen=True)
class Routes:
    """IPv4 prefixes in host order, each once, their lengths, and a next hop for each."""

    prefix: npt.NDArray[np.uint32]
    bits: npt.NDArray[np.uint8]
    hop: npt.NDArray[np.uint16]

    def inside(self, n: int, seed: int) -> npt.NDArray[np.uint32]:
        """Addresses, each within some prefix."""
        draw = np.random.default_rng(seed)
        chosen = draw.integers(0, self.prefix.size, n)
        host = (1 << (32 - self.bits[chosen].astype(np.uint64))) - 1
        free = draw.integers(0, 1 << 32, n, dtype=np.uint64) & host
        return (self.prefix[chosen] | free).astype(np.uint32)


@functools.cache
def routes(n: int, hops: int) -> Routes:
    """A table of n routes to so many next hops."""
    draw = np.random.default_rng(11)
    share = np.array(list(_LENGTHS.values()), dtype=float)
    bits = draw.choice(list(_LENGTHS), n + n // 4, p=share / share.sum()).astype(np.uint64)
    # unicast addresses only, as in real tables
    address = draw.integers(1 << 24, 224 << 24, bits.size, dtype=np.uint64)
    prefix = address >> (32 - bits) << (32 - bits)
    _, first = np.unique(prefix << 6 | bits, return_index=True)
    kept = np.sort(first)[:n]
    hop = draw.integers(0, hops, kept.size).astype(np.uint16)
    return Routes(prefix[kept].astype(np.uint32), bits[kept].astype(np.uint8), hop)


def flows(table: Routes, distinct: int, n: int) -> npt.NDArray[np.uint32]:
    """n addresses of so many flows, in any order."""
    known = table.inside(distinct, seed=3)
    return known[np.random.default_rng(5).integers(0, distinct, n)]


def uniform(n: int) -> npt.NDArray[np.uint32]:
    """Any addresses at all."""
    return np.random.default_rng(9).integers(0, 1 << 32, n, dtype=np.uint64).astype(np.uint32)
