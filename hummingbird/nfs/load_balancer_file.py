# SPDX-License-Identifier: BSD-3-Clause
"""The file with backends: CSV, whose header row names the columns.

    service,address,port,weight,state,mac
    web,10.0.1.1,8443,2,up,02:00:00:00:01:01
    web,10.0.1.2,8443,1,drain,           # no new flows; those it has stay
    dns,10.0.2.1,,,,                     # port of the service, weight 1, up, MAC as it was

Every mistake is a UserError with file, line and column.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hummingbird.errors import UserError
from hummingbird.nfs.fields import MAC
from hummingbird.nfs.load_balancer_config import MAX_WEIGHT, Address, why_not_a_host
from hummingbird.textfile import decode, quoted, read_bytes, suggest

COLUMNS = ("service", "address", "port", "weight", "state", "mac")
NEEDED = COLUMNS[:2]
STATES = ("up", "drain")
HEADER = ",".join(COLUMNS)
MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Place:
    """Where something stands, for messages: a line of a file, or a field of the topology."""

    path: Path | None = None
    line: int | None = None
    field: str | None = None

    def error(self, what: str, fix: str, column: str | None = None) -> UserError:
        """A mistake here."""
        return UserError(what, path=self.path, line=self.line, field=column or self.field, fix=fix)

    def __str__(self) -> str:
        return f"line {self.line}" if self.line else str(self.field)


@dataclass(frozen=True)
class Row:
    """A backend as it is written down."""

    place: Place
    service: str
    address: Address
    port: int | None
    weight: int
    """0: no new flows."""
    mac: str | None


def load(path: Path) -> list[Row]:
    """The rows of a file.

    Raises:
        UserError: the first mistake.
    """
    return parse(read_bytes(path, MAX_BYTES), path)


def parse(data: bytes, path: Path) -> list[Row]:
    """`load` for bytes; `path` is for messages."""
    rows = []
    columns: list[str] = []
    for place, cells in _lines(decode(data, path), path):
        if not columns:
            columns = _header(place, cells)
        elif len(cells) != len(columns):
            what = f"{len(cells)} columns instead of {len(columns)}"
            raise place.error(what, f"write: {','.join(columns)}")
        else:
            rows.append(_row(place, dict(zip(columns, cells, strict=True))))
    if not columns:
        raise Place(path, 1).error("no header row", f"begin with: {HEADER}")
    return rows


def _lines(text: str, path: Path) -> Iterator[tuple[Place, list[str]]]:
    """The lines that say something."""
    for number, line in enumerate(text.split("\n"), 1):
        cells = [cell.strip() for cell in line.split("#", 1)[0].split(",")]
        if cells != [""]:
            yield Place(path, number), cells


def _header(place: Place, cells: Sequence[str]) -> list[str]:
    for name in cells:
        if name not in COLUMNS:
            if cells[0] not in COLUMNS:
                what = f"{quoted(','.join(cells))} is not the header row"
                raise place.error(what, f"begin with: {HEADER}")
            raise place.error(f"there is no column {quoted(name)}", suggest(name, COLUMNS))
        if cells.count(name) > 1:
            raise place.error(f"two columns are called {name}", "remove one of them")
    for name in NEEDED:
        if name not in cells:
            raise place.error(f"the column {name} is missing", f"begin with: {HEADER}")
    return list(cells)


def _row(place: Place, cells: dict[str, str]) -> Row:
    if not cells["service"]:
        raise place.error("no service", "name the service of this backend", "service")
    state = cells.get("state") or STATES[0]
    if state not in STATES:
        raise place.error(f"there is no state {quoted(state)}", suggest(state, STATES), "state")
    port = _number(place, "port", cells.get("port", ""), 1, 65535)
    weight = _number(place, "weight", cells.get("weight", ""), 0, MAX_WEIGHT)
    return Row(
        place=place,
        service=cells["service"],
        address=_address(place, cells["address"]),
        port=port,
        weight=0 if state == "drain" else 1 if weight is None else weight,
        mac=_mac(place, cells.get("mac", "")),
    )


def _address(place: Place, text: str) -> Address:
    fix = "write the address of one host, such as 10.0.1.1 or 2001:db8::1"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise place.error(f"{quoted(text)} is no address", fix, "address") from None
    if why := why_not_a_host(address):
        raise place.error(f"{text} {why}", fix, "address")
    return address


def _number(place: Place, column: str, text: str, least: int, most: int) -> int | None:
    """None if nothing stands there."""
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) and least <= int(text) <= most:
        return int(text)
    fix = f"write a number from {least} to {most}, or nothing"
    raise place.error(f"{quoted(text)} is no {column}", fix, column)


def _mac(place: Place, text: str) -> str | None:
    if not text:
        return None
    if not MAC.fullmatch(text):
        fix = "write six bytes, such as 02:00:00:00:01:01, or nothing"
        raise place.error(f"{quoted(text)} is no MAC address", fix, "mac")
    if int(text[:2], 16) & 1:
        fix = "write the MAC address of one station"
        raise place.error(f"{text} is the MAC address of a group", fix, "mac")
    return text.lower()
