# SPDX-License-Identifier: BSD-3-Clause
"""Flow records as IPFIX messages (RFC 7011) with the information elements of RFC 7012, and, for
what came back, the reverse ones of RFC 5103."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hummingbird.nfs.flow_monitor_records import Records

VERSION = 10
TEMPLATE_SET = 2
FIRST_TEMPLATE = 256
REVERSE_PEN = 29305
"""Enterprise number of the reverse information elements."""
HEADER = struct.Struct(">HHIII")
"""Version, length, export time, sequence number, observation domain."""
SET_HEADER = struct.Struct(">HH")
NTP_EPOCH = 2_208_988_800
"""Seconds from 1900, where NTP's time begins, to 1970."""
NS = 1_000_000_000
INITIATOR = 1
"""biflowDirection: the source of the record began the flow."""

Times = Literal["milliseconds", "nanoseconds"]
Column = npt.NDArray[Any]


def _milliseconds(ns: Column) -> Column:
    return ns // 1_000_000


def _ntp(ns: Column) -> Column:
    """Seconds since 1900 and a binary fraction. A nanosecond is 4.3 of its units: the second one
    from its beginning is that nanosecond for all readers, also those that reckon in floating
    point and cut."""
    seconds, rest = np.divmod(ns, np.uint64(NS))
    fraction = ((rest << np.uint64(32)) + np.uint64(2 * NS - 1)) // np.uint64(NS)
    return ((seconds + np.uint64(NTP_EPOCH)) << np.uint64(32)) | fraction


@dataclass(frozen=True)
class Element:
    """An information element: its number, its form, and where its value comes from."""

    number: int
    dtype: str
    value: Callable[[Records, int], Any]
    """For records and a direction: 0 as the flow began, 1 what came back."""
    reverse: bool = False


def _pair(field: str) -> Callable[[Records, int], Column]:
    return lambda records, way: records[field][:, way]


def _end(field: str, which: int) -> Callable[[Records, int], Column]:
    """Of the source (0) or the destination (1) of a direction."""
    return lambda records, way: records[field][:, which ^ way]


def _one(field: str) -> Callable[[Records, int], Column]:
    return lambda records, way: records[field]


def _address4(which: int) -> Callable[[Records, int], Column]:
    return lambda records, way: records["address"][:, which ^ way, 12:]


_V4 = (Element(8, "(4,)u1", _address4(0)), Element(12, "(4,)u1", _address4(1)))
_V6 = (Element(27, "(16,)u1", _end("address", 0)), Element(28, "(16,)u1", _end("address", 1)))
_PORTS = (Element(7, ">u2", _end("port", 0)), Element(11, ">u2", _end("port", 1)))
_FRAGMENT = (Element(54, ">u4", _one("fragment_id")),)
_FLOW = (
    Element(4, "u1", _one("protocol")),
    Element(136, "u1", _one("reason")),
    Element(234, ">u4", _one("zone")),
)
_COUNTS = (
    Element(1, ">u8", _pair("octets")),
    Element(2, ">u8", _pair("packets")),
    Element(6, ">u2", _pair("flags")),
)
_DIRECTION = (Element(239, "u1", lambda records, way: INITIATOR),)


def _times(times: Times) -> tuple[Element, ...]:
    start, end, convert = (152, 153, _milliseconds) if times == "milliseconds" else (156, 157, _ntp)
    return (
        Element(start, ">u8", lambda records, way: convert(records["first"][:, way])),
        Element(end, ">u8", lambda records, way: convert(records["last"][:, way])),
    )


def _reversed(elements: tuple[Element, ...]) -> tuple[Element, ...]:
    return tuple(Element(e.number, e.dtype, e.value, reverse=True) for e in elements)


@dataclass(frozen=True)
class Template:
    """What one kind of record looks like on the wire."""

    id: int
    elements: tuple[Element, ...]

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """Of a data record."""
        return np.dtype([(f"f{i}", e.dtype) for i, e in enumerate(self.elements)])

    @cached_property
    def record(self) -> bytes:
        """The template record."""
        parts = [struct.pack(">HH", self.id, len(self.elements))]
        for element, name in zip(self.elements, self.dtype.names or (), strict=True):
            length = self.dtype[name].itemsize
            if element.reverse:
                parts.append(struct.pack(">HHI", 0x8000 | element.number, length, REVERSE_PEN))
            else:
                parts.append(struct.pack(">HH", element.number, length))
        return b"".join(parts)

    def encode(self, records: Records, way: int) -> npt.NDArray[np.void]:
        """Data records of packets in one direction, and of the other one in reverse elements."""
        data = np.zeros(len(records), dtype=self.dtype)
        for element, name in zip(self.elements, self.dtype.names or (), strict=True):
            data[name] = element.value(records, way ^ element.reverse)
        return data


def _templates(times: Times) -> list[Template]:
    """By address family, then whether packets came back, then whether it is a fragment."""
    counts = (*_times(times), *_COUNTS)
    back = (*_reversed(counts), *_DIRECTION)
    templates: list[Template] = []
    for addresses in (_V4, _V6):
        for reverse in ((), back):
            for ports in (_PORTS, _FRAGMENT):
                elements = (*addresses, *ports, *_FLOW, *counts, *reverse)
                templates.append(Template(FIRST_TEMPLATE + len(templates), elements))
    return templates


@dataclass(frozen=True)
class Message:
    """One that fits a datagram."""

    data: bytes
    records: int
    """Data records in it."""


class Encoder:
    """Makes the messages of one observation domain; numbers them."""

    def __init__(self, domain: int, room: int, times: Times, biflows: bool) -> None:
        """
        Args:
            domain: observation domain.
            room: bytes that a message may have.
            times: the unit of flow start and end.
            biflows: one record for both directions, with reverse elements.
        """
        self._domain, self._room, self._biflows = domain, room, biflows
        self._templates = _templates(times)
        self.sequence = 0
        """Data records so far, modulo 2^32."""

    def templates(self, now: float) -> list[Message]:
        """All templates that records may refer to."""
        used = [t for t in self._templates if self._biflows or not (t.id - FIRST_TEMPLATE) & 2]
        messages, held = [], b""
        for template in used:
            if held and HEADER.size + SET_HEADER.size + len(held + template.record) > self._room:
                messages.append(self._message(TEMPLATE_SET, held, 0, now))
                held = b""
            held += template.record
        return [*messages, self._message(TEMPLATE_SET, held, 0, now)]

    def encode(self, records: Records, now: float) -> Iterator[Message]:
        """The messages that say these records.

        Args:
            records: as the data plane left them.
            now: seconds since 1970.
        """
        there, back = (records["packets"][:, way] > 0 for way in (0, 1))
        if self._biflows:
            yield from self._of_kind(records[there & ~back], 0, 0, now)
            yield from self._of_kind(records[there & back], 0, 1, now)
            yield from self._of_kind(records[~there & back], 1, 0, now)
        else:
            yield from self._of_kind(records[there], 0, 0, now)
            yield from self._of_kind(records[back], 1, 0, now)

    def _of_kind(self, records: Records, way: int, both: int, now: float) -> Iterator[Message]:
        for number, (six, fragment) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            wanted = ((records["version"] == 6) == six) & (records["fragment"] == fragment)
            if wanted.any():
                template = self._templates[(number & 2) << 1 | both << 1 | (number & 1)]
                yield from self._data(template, template.encode(records[wanted], way), now)

    def _data(
        self, template: Template, data: npt.NDArray[np.void], now: float
    ) -> Iterator[Message]:
        most = (self._room - HEADER.size - SET_HEADER.size) // template.dtype.itemsize
        for at in range(0, len(data), most):
            part = data[at : at + most]
            yield self._message(template.id, part.tobytes(), len(part), now)

    def _message(self, set_id: int, body: bytes, records: int, now: float) -> Message:
        length = SET_HEADER.size + len(body)
        header = HEADER.pack(
            VERSION, HEADER.size + length, int(now) & 0xFFFFFFFF, self.sequence, self._domain
        )
        self.sequence = (self.sequence + records) & 0xFFFFFFFF
        return Message(header + SET_HEADER.pack(set_id, length) + body, records)
