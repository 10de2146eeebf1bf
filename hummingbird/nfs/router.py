# SPDX-License-Identifier: BSD-3-Clause
"""router: forwards IPv4 packets by longest prefix match. Builds the DIR-24-8 tables (Gupta, Lin and
McKeown, INFOCOM 1998) that ``cl_kernels/nf/router.cl`` describes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, Nf, NfParams, NfTable, Writes

MAX_HOPS = 0x7FFF  # an entry has 15 bits for next hop + 1 ...
MAX_GROUPS = 0x8000  # ... or for the group
GROUP = 0x8000
TBL24 = 128  # bytes in front of tbl24
HEADER = "prefix,next_hop"

Ints = npt.NDArray[np.int64]
Mac = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$")]


class NextHop(NfParams):
    """The Ethernet addresses of packets that leave for this next hop."""

    mac: Mac
    src_mac: Mac


class RouterParams(NfParams):
    """Parameters of ``type: router``."""

    routes: Path
    """CSV file: the header row ``prefix,next_hop``, then one route a line; ``#`` comments."""
    next_hops: dict[str, NextHop] = Field(min_length=1)


@dataclass(frozen=True)
class Routes:
    """Prefixes, their lengths, and the index of each one's next hop."""

    prefix: Ints
    bits: Ints
    hop: Ints


def build(params: RouterParams, context: BuildContext) -> NfTable:
    """Read the routes and lay out the table."""
    if len(params.next_hops) > MAX_HOPS:
        raise UserError(
            f"{len(params.next_hops)} next hops; a router has at most {MAX_HOPS}",
            field=f"nfs.{context.name}.next_hops",
        )
    hops = {name: index for index, name in enumerate(params.next_hops)}
    routes = read_routes(context.base / params.routes, hops)
    macs = [_mac(hop.mac) + _mac(hop.src_mac) for hop in params.next_hops.values()]
    try:
        return NfTable(make_table(routes, macs))
    except ValueError as error:
        raise UserError(str(error), path=context.base / params.routes) from None


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


# ---- the routes file -----------------------------------------------------------------------------

# Numbers too large for an octet or a length are found later, in all lines at once.
_ROUTE = re.compile(
    r"\s*(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})/(\d{1,2})\s*,\s*([^\s,#]+)\s*(?:#.*)?"
).fullmatch
_BLANK = re.compile(r"\s*(?:#.*)?").fullmatch


def read_routes(path: Path, hops: Mapping[str, int]) -> Routes:
    """Read the CSV file; ``hops`` has the index of each next hop."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the routes: {error}", path=path) from None
    first = next((i for i, line in enumerate(lines) if not _BLANK(line)), len(lines) - 1)
    if lines[first].replace(" ", "").rstrip() != HEADER:
        raise UserError("no header row", path=path, line=first + 1, fix=f"begin with {HEADER}")

    numbers: list[int] = []  # lines on which the routes stand
    fields: list[tuple[int, ...]] = []
    names: list[str] = []
    for number, line in enumerate(lines[first + 1 :], first + 2):
        if found := _ROUTE(line):
            *field, name = found.groups()
            numbers.append(number)
            fields.append(tuple(map(int, field)))
            names.append(name)
        elif not _BLANK(line):
            fix = "write an IPv4 prefix and a next hop, such as 10.1.0.0/16,core"
            raise UserError(f"no route: {line.strip()}", path=path, line=number, fix=fix)
    return _checked(path, numbers, np.array(fields, dtype=np.int64).reshape(-1, 5), names, hops)


def _checked(
    path: Path,
    numbers: Sequence[int],
    fields: Ints,
    names: Sequence[str],
    hops: Mapping[str, int],
) -> Routes:
    """The routes as arrays; UserError with the line of the first one that is wrong."""

    def refuse(wrong: npt.NDArray[np.bool_], what: str, fix: str | None = None) -> None:
        if wrong.any():
            i = int(wrong.argmax())
            route = "{}.{}.{}.{}/{}".format(*fields[i])
            text = what.format(route=route, name=names[i])
            raise UserError(text, path=path, line=numbers[i], fix=fix)

    octets: Ints = fields[:, :4]
    bits: Ints = fields[:, 4]
    refuse(octets.max(axis=1, initial=0) > 255, "{route} is no IPv4 prefix: a number is above 255")
    refuse(bits > 32, "{route} is no IPv4 prefix: it is longer than 32 bits")
    prefix = octets @ np.array([1 << 24, 1 << 16, 1 << 8, 1], dtype=np.int64)
    refuse(
        prefix & ((1 << 32 - bits) - 1) != 0,
        "{route} has bits set behind its length",
        "clear them, or write the length that is meant",
    )
    hop = np.array([hops.get(name, -1) for name in names], dtype=np.int64)
    refuse(hop < 0, "unknown next hop {name}", f"define it in next_hops; there are {_some(hops)}")
    refuse(_repeated(prefix << 6 | bits), "{route} stands here a second time")
    return Routes(prefix, bits, hop)


def _repeated(keys: Ints) -> npt.NDArray[np.bool_]:
    """True for each key that an earlier element has, too."""
    repeated = np.ones(keys.size, dtype=np.bool_)
    repeated[np.unique(keys, return_index=True)[1]] = False
    return repeated


def _some(names: Mapping[str, int]) -> str:
    """A few of the names, for an error message."""
    return ", ".join(list(names)[:8]) + (", ..." if len(names) > 8 else "")


# ---- the table -----------------------------------------------------------------------------------


def make_table(routes: Routes, macs: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Lay out tbl24, tbl8 and the next hops; ``macs`` has 12 bytes for each of these.

    Raises ValueError if the prefixes longer than 24 bits need too many groups.
    """
    long = routes.bits > 24
    keys = np.unique(routes.prefix[long] >> 8)  # upper 24 bits of each group
    if keys.size > MAX_GROUPS:
        raise ValueError(
            f"prefixes longer than 24 bits lie in {keys.size} different /24; "
            f"the router has room for {MAX_GROUPS}"
        )
    tbl8_at = TBL24 + 2 * (1 << 24)
    hops_at = tbl8_at + 2 * 256 * keys.size
    table: npt.NDArray[np.uint8] = np.zeros(hops_at + 16 * len(macs), dtype=np.uint8)
    table[:4].view(np.uint32)[0] = hops_at // 4

    tbl24 = table[TBL24:tbl8_at].view(np.uint16)
    _spread(tbl24, 24, routes.prefix[~long] >> 8, routes.bits[~long], routes.hop[~long])
    tbl8 = table[tbl8_at:hops_at].view(np.uint16)
    tbl8.reshape(-1, 256)[:] = tbl24[keys][:, None]
    group = np.searchsorted(keys, routes.prefix[long] >> 8)
    at = group << 8 | (routes.prefix[long] & 255)
    _spread(tbl8, 8, at, routes.bits[long] - 24, routes.hop[long])
    tbl24[keys] = GROUP | np.arange(keys.size, dtype=np.uint16)

    hops = table[hops_at:].view(np.uint32).reshape(-1, 4)
    hops[:, :3] = np.frombuffer(b"".join(macs), dtype=">u4").reshape(-1, 3)
    return table


def _spread(entries: npt.NDArray[np.uint16], width: int, at: Ints, bits: Ints, hop: Ints) -> None:
    """Write each route to all entries it covers: those from ``at`` that share its first ``bits``
    of ``width``. Shorter ones first, so that the longest one stays."""
    for length in np.unique(bits):
        chosen = bits == length
        rows = entries.reshape(-1, 1 << (width - length))
        rows[at[chosen] >> (width - length)] = hop[chosen, None] + 1


NF = Nf(name="router", kind=2, params=RouterParams, build=build, writes=Writes.HEADER)
