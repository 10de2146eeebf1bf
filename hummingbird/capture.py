# SPDX-License-Identifier: BSD-3-Clause
"""One packet out of a capture file, classic pcap or pcapng."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hummingbird.errors import UserError

ETHERNET = 1
MAX_RECORD = 1 << 24
PCAP_MAGICS = (0xA1B2C3D4, 0xA1B23C4D)  # microseconds, nanoseconds
PCAPNG_SECTION = 0x0A0D0D0A
PCAPNG_BYTE_ORDER = 0x1A2B3C4D
INTERFACE, SIMPLE_PACKET, ENHANCED_PACKET = 1, 3, 6

Packet = tuple[int, bytes]
"""Link type and bytes."""


class _Broken(Exception):
    """The file is not what it claims to be."""


def read_packet(path: Path, number: int) -> bytes:
    """The bytes of packet `number`, counted from 1, of an Ethernet capture.

    Raises:
        UserError: the file cannot be read, is no capture, or has no such packet.
    """
    count = 0
    try:
        with open(path, "rb") as file:
            for link, data in _packets(file):
                count += 1
                if count == number:
                    return _ethernet(link, data)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise UserError(what, path=path, fix="name a capture that can be read") from None
    except (_Broken, struct.error) as error:
        what = f"{error} behind packet {count}" if count else str(error)
        fix = "name a pcap or pcapng capture of Ethernet packets"
        raise UserError(what, path=path, fix=fix) from None
    what = f"there is no packet {number}; the capture has {count}"
    raise UserError(what, path=path, fix=f"write {path}:N with N from 1 to {count}")


def _ethernet(link: int, data: bytes) -> bytes:
    if link != ETHERNET:
        raise _Broken(f"link type {link} instead of Ethernet")
    return data


def _packets(file: BinaryIO) -> Iterator[Packet]:
    magic = _exactly(file, 4)
    if magic == PCAPNG_SECTION.to_bytes(4, "big"):
        yield from _pcapng(file)
        return
    for order in "<", ">":
        if struct.unpack(order + "I", magic)[0] in PCAP_MAGICS:
            yield from _pcap(file, order)
            return
    raise _Broken("this is no capture")


def _exactly(file: BinaryIO, size: int) -> bytes:
    if size > MAX_RECORD:
        raise _Broken("a record of impossible length")
    data = file.read(size)
    if len(data) != size:
        raise _Broken("the capture is cut")
    return data


def _at_end(file: BinaryIO) -> bool:
    at_end = not file.read(1)
    if not at_end:
        file.seek(-1, 1)
    return at_end


def _pcap(file: BinaryIO, order: str) -> Iterator[Packet]:
    link = struct.unpack(order + "16xI", _exactly(file, 20))[0] & 0xFFFF
    while not _at_end(file):
        captured = struct.unpack(order + "8xI4x", _exactly(file, 16))[0]
        yield link, _exactly(file, captured)


def _pcapng(file: BinaryIO) -> Iterator[Packet]:
    """Blocks: type, length, body, length again; a section's first block tells the byte order."""
    order, kind, links = "<", PCAPNG_SECTION, list[tuple[int, int]]()
    head = _exactly(file, 8)
    while True:
        if kind == PCAPNG_SECTION:
            little = head[4:] == PCAPNG_BYTE_ORDER.to_bytes(4, "little")
            order, links = "<" if little else ">", []
        length = struct.unpack(order + "I", head[:4])[0]
        if length < 12 or length % 4:
            raise _Broken("a block of impossible length")
        body = (head[4:] + _exactly(file, length - 12))[: length - 12]
        if kind == INTERFACE:
            links.append(struct.unpack_from(order + "HxxI", body))
        elif kind in (SIMPLE_PACKET, ENHANCED_PACKET):
            yield _pcapng_packet(kind, order, links, body)
        if _at_end(file):
            return
        kind = struct.unpack(order + "I", _exactly(file, 4))[0]
        head = _exactly(file, 8)


def _pcapng_packet(kind: int, order: str, links: list[tuple[int, int]], body: bytes) -> Packet:
    if kind == SIMPLE_PACKET:
        interface, size, at = 0, struct.unpack_from(order + "I", body)[0], 4
    else:
        interface, size, at = *struct.unpack_from(order + "I8xI", body), 20
    if interface >= len(links):
        raise _Broken("a packet of an unknown interface")
    link, most = links[interface]
    if kind == SIMPLE_PACKET and most:
        size = min(size, most)
    if len(body) < at + size:
        raise _Broken("a packet of impossible length")
    return link, body[at : at + size]
