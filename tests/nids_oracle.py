# SPDX-License-Identifier: BSD-3-Clause
"""What nids has to find, by pyahocorasick; patterns and payloads for its tests."""

from __future__ import annotations

import lzma
import re
import struct
from collections.abc import Sequence

import ahocorasick
import nf_helpers as nf
import numpy as np

from hummingbird.nfs import NfTable
from hummingbird.nfs.automaton import Pattern, make_table

KIND = 3


class Oracle:
    """One automaton for patterns with case and one for those without."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.finders = []
        for fold in (False, True):
            finder = ahocorasick.Automaton()
            for number, (content, nocase) in enumerate(patterns):
                if nocase == fold:
                    word = (content.lower() if fold else content).decode("latin-1")
                    finder.add_word(word, [*finder.get(word, []), number])
            if len(finder):
                finder.make_automaton()
                self.finders.append((fold, finder))

    def ids(self, payload: bytes) -> list[int]:
        """The patterns that occur in it, ascending."""
        found: set[int] = set()
        for fold, finder in self.finders:
            text = (payload.lower() if fold else payload).decode("latin-1")
            for _, numbers in finder.iter(text):
                found.update(numbers)
        return sorted(found)


def result_of(ids: Sequence[int]) -> int:
    """The result word of cl_kernels/nf/nids.cl."""
    return min(ids) + 1 if ids else 0


def region(patterns: Sequence[Pattern]) -> nf.Array:
    """A tables region with a NIDS that looks for them."""
    table = make_table(patterns)
    return nf.region(
        KIND, NfTable(table.data, local_off=table.local_off, local_bytes=table.local_bytes)
    )


def packet_of(payload: bytes) -> bytes:
    """A UDP packet whose headers do not vary."""
    rng = np.random.default_rng(0)
    return nf.ETHERNET + b"\x08\x00" + nf.ipv4(nf.udp(payload, rng), 17, rng)


def random_patterns(rng: np.random.Generator, count: int) -> list[Pattern]:
    """Over a small alphabet, so that many are parts of others."""
    letters = np.frombuffer(b"abcABC\x00\xff", dtype=np.uint8)
    return [
        Pattern(rng.choice(letters, rng.integers(1, 12)).tobytes(), bool(rng.integers(2)))
        for _ in range(count)
    ]


def sprinkled(rng: np.random.Generator, patterns: Sequence[Pattern], size: int) -> bytes:
    """Random bytes with some patterns, whole, cut and in other case, strewn in."""
    payload = rng.bytes(size)
    for _ in range(rng.integers(0, 5)):
        content = patterns[rng.integers(len(patterns))].content
        content = [content, content.upper(), content.lower()][rng.integers(3)]
        content = content[: len(content) - int(rng.integers(2)) * int(rng.integers(2))]
        at = int(rng.integers(size + 1))
        payload = payload[:at] + content + payload[at:]
    return payload[:1472]


def _bytes_of(content: str) -> bytes:
    parts = content.split("|")
    return b"".join(
        bytes.fromhex(part) if i % 2 else re.sub(r"\\(.)", r"\1", part).encode("ascii")
        for i, part in enumerate(parts)
    )


def snort_patterns(name: str) -> list[Pattern]:
    """The longest content of each rule of a real rules file."""
    raw = nf.real_data(f"rules/snort-community-2017/{name}").read_bytes()
    text = (lzma.decompress(raw) if name.endswith(".xz") else raw).decode()
    found = []
    for line in text.splitlines():
        contents = re.findall(r'content:(!?)"((?:[^"\\]|\\.)*)"([^:]*)', line)
        plain = [(_bytes_of(c), "nocase" in rest) for no, c, rest in contents if not no]
        if plain and not line.startswith("#"):
            found.append(Pattern(*max(plain, key=lambda pair: len(pair[0]))))
    return found


def real_packets(name: str, most: int = 1600) -> list[bytes]:
    """The packets of a capture of microseconds; scapy would take minutes for the large one."""
    data = nf.real_data(f"traces/{name}").read_bytes()
    assert data[:4] == b"\xd4\xc3\xb2\xa1"
    at, packets = 24, []
    while at + 16 <= len(data):
        (size,) = struct.unpack_from("<I", data, at + 8)
        packets.append(data[at + 16 : at + 16 + min(size, most)])
        at += 16 + size
    return packets
