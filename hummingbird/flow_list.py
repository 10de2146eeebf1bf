# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird flows`: the live flows of an instance, as it answers and as they are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.text import Text

from hummingbird.control import Answer, Json
from hummingbird.control_client import Reply
from hummingbird.errors import UserError
from hummingbird.flow_match import Match

if TYPE_CHECKING:
    from hummingbird.engine import Engine
    from hummingbird.flows import Flow

WITH_PORTS = ("tcp", "udp", "sctp")
UNTRACKED = "no NF here keeps state of flows, so they have no state, no times, and no end"
SHOWN = 1000
"""Flows in a table unless --limit says otherwise."""


# ---- in the instance -----------------------------------------------------------------------------


def answer(engine: Engine, request: Mapping[str, Any]) -> Answer:
    """The live flows, an item each; only those that match.

    Fields of the request: ``match``, ``nf``, ``limit`` (0: all), ``count``. The end line says how
    many flows there were, and whether the limit has cut them.
    """
    text, nf = _text(request, "match"), _text(request, "nf")
    match = None if text is None else Match.parse(text)
    limit = _limit(request)
    _check_nf(engine, nf)
    found = 0
    for some in engine.flow_views():
        yield None
        wanted = some if match is None else some[match.holds(some)]
        if request.get("count") and nf is None:
            found += len(wanted)
            continue
        for flow in engine.describe_flows(wanted):
            if nf is not None and nf not in flow.nfs:
                yield None
                continue
            if limit and found == limit:
                return {"flows": found, "more": True, "tracked": engine.tracks_flows}
            found += 1
            yield None if request.get("count") else _as_json(flow, nf)
    return {"flows": found, "more": False, "tracked": engine.tracks_flows}


COMMANDS = {"flows": answer}


def _text(request: Mapping[str, Any], field: str) -> str | None:
    value = request.get(field)
    if value is None or isinstance(value, str):
        return value
    raise UserError(f"the request's {field!r} is no text")


def _limit(request: Mapping[str, Any]) -> int:
    value = request.get("limit") or 0
    if isinstance(value, int) and value >= 0:
        return value
    raise UserError("the request's 'limit' is no number from 0 up")


def _check_nf(engine: Engine, nf: str | None) -> None:
    known = list(engine.hosts)
    if nf is not None and nf not in known:
        fix = f"write one of: {', '.join(known)}" if known else "leave --nf out"
        raise UserError(f"there is no NF {nf!r} in this topology", fix=fix)


def _as_json(flow: Flow, nf: str | None) -> Json:
    return {
        "protocol": flow.protocol,
        "src": None if flow.src is None else str(flow.src),
        "sport": flow.sport,
        "dst": None if flow.dst is None else str(flow.dst),
        "dport": flow.dport,
        "zone": flow.zone,
        "state": flow.state,
        "age_s": round(flow.age_s, 3),
        "idle_s": round(flow.idle_s, 3),
        "types": list(flow.types),
        "nfs": {name: state for name, state in flow.nfs.items() if nf in (None, name)},
    }


# ---- the command ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    name: str | None = None
    match: str | None = None
    nf: str | None = None
    limit: int | None = None
    """0: all; None: all as JSON, else as many as one can look at."""
    json: bool = False
    count: bool = False


def show(options: Options, console: Console, out: TextIO = sys.stdout) -> None:
    """Ask an instance and print what it answers.

    Raises:
        UserError: a mistake in the options, or nobody answers.
    """
    if options.match is not None:
        Match.parse(options.match)  # before anybody is asked
    limit = options.limit
    if limit is None:
        limit = 0 if options.json or options.count else SHOWN
    reply = Reply(
        options.name,
        "flows",
        match=options.match,
        nf=options.nf,
        limit=limit,
        count=options.count,
    )
    if options.json and not options.count:
        for flow in reply:
            print(json.dumps(flow), file=out)
        return
    flows = list(reply)
    if options.count:
        count = int(reply.end["flows"])
        print(json.dumps({"flows": count}) if options.json else count, file=out)
        return
    for text in lines(flows) if flows else ():
        console.print(text, soft_wrap=True)
    console.print(_sum(len(flows), bool(reply.end["more"])), highlight=False)
    if flows and not reply.end["tracked"]:
        console.print(UNTRACKED, highlight=False, soft_wrap=True)


def _sum(shown: int, more: bool) -> str:
    if more:
        return f"the first {shown} flows; --limit 0 shows all, --count counts them"
    return f"{shown} flow{'' if shown == 1 else 's'}" if shown else "no flows"


def lines(flows: list[Json]) -> Iterator[Text]:
    """Flows for people: a line each, and one for each NF that has something of it."""
    with_zone = any(flow["zone"] for flow in flows)
    head = ("Protocol", "State", "From", "To", "Zone>", "Age>", "Idle>", "Type")
    rows = [head, *(_row(flow) for flow in flows)]
    shown = [n for n, name in enumerate(head) if name != "Zone>" or with_zone]
    widths = [max(len(row[n].removesuffix(">")) for row in rows) for n in range(len(head))]
    for row, flow in zip(rows, [None, *flows], strict=True):
        cells = (
            row[n].removesuffix(">").rjust(widths[n])
            if head[n].endswith(">")
            else row[n].ljust(widths[n])
            for n in shown
        )
        yield Text("  ".join(cells).rstrip(), style="" if flow else "bold")
        for name, state in flow["nfs"].items() if flow else ():
            yield Text(f"    {name}: {', '.join(_words(state))}", style="dim")


def _row(flow: Json) -> tuple[str, ...]:
    return (
        flow["protocol"],
        flow["state"],
        _end(flow, "src", "sport"),
        _end(flow, "dst", "dport"),
        str(flow["zone"]),
        _seconds(flow["age_s"]),
        _seconds(flow["idle_s"]),
        _types(flow["types"]),
    )


def _end(flow: Json, end: str, port: str) -> str:
    """Address and port; the id of an ICMP echo or a fragmented datagram stands at its sender."""
    address, number = flow[end] or "-", flow[port]
    if flow["protocol"] in WITH_PORTS and flow["state"] != "fragment":
        return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
    return f"{address} id {number}" if number and end == "src" else address


def _types(types: list[str]) -> str:
    """One if both directions have it."""
    return "/".join(dict.fromkeys(types))


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 10_000 else f"{seconds / 3600:.1f} h"


def _words(state: Mapping[str, Any]) -> Iterator[str]:
    for name, value in state.items():
        yield f"{name} {'/'.join(map(str, value)) if isinstance(value, list) else value}"
