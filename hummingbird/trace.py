# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird trace`: asks an instance to follow packets, and shows what happened to each."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO

from hummingbird.control import Json
from hummingbird.control_client import Reply
from hummingbird.flow_match import Match

WIDTH = 80
ON_THE_WAY = "still on its way"


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    name: str | None = None
    flow: str | None = None
    type: str | None = None
    count: int = 10
    seconds: float | None = None
    json: bool = False


def show(options: Options, out: TextIO | None = None) -> None:
    """Trace, and print; until enough packets have ended, the time is over, or Ctrl-C.

    Raises:
        UserError: a mistake in the options, nobody answers, or the instance ends or restarts
            meanwhile; what has been seen until then is shown.
    """
    out = out or sys.stdout
    if options.flow is not None:
        Match.parse(options.flow)  # before anybody is asked
    reply = Reply(
        options.name,
        "trace",
        flow=options.flow,
        type=options.type,
        count=options.count,
        seconds=options.seconds,
    )
    if options.json:
        with suppress(KeyboardInterrupt):
            for item in reply:
                print(json.dumps(item), file=out, flush=True)
        return
    shown = _Shown(out)
    try:
        with suppress(KeyboardInterrupt):
            for item in reply:
                shown.take(item)
    finally:  # an instance that ends or restarts leaves what has been seen
        shown.close(reply.end)


class _Shown:
    """What a person sees of a trace."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._begun = False
        self._ended = 0
        self._open: dict[int, list[Json]] = {}
        """Packets without an end so far."""

    def take(self, item: Json) -> None:
        """Take an item of the answer in; print a packet when its end has come."""
        if "event" not in item:
            self._begun = True
            print(_title(item), file=self._out, flush=True)
            return
        events = self._open.setdefault(item["packet"], [])
        events.append(item)
        if item["event"] in ("sent", "dropped"):
            _print(self._open.pop(item["packet"]), self._out)
            self._ended += 1

    def close(self, end: Json) -> None:
        """Print the packets whose end has not come, and the sum; ``end`` is the answer's, if it has
        one."""
        if not self._begun:
            return
        for events in self._open.values():
            _print(events, self._out, _without_end(end))
        for line in _sum(self._ended, len(self._open), end):
            print(line, file=self._out)


def _without_end(end: Json) -> str:
    """What is to be said of a packet whose end has not come."""
    if not end.get("missed"):
        return ON_THE_WAY
    on_the_way = int(end["packets"]) > int(end["ended"])
    return "its end is missing" + (", or it is still on its way" if on_the_way else "")


def _title(item: Json) -> str:
    title = f"tracing {item['what']}; Ctrl-C ends it"
    return title + (f"\ngpu is {item['device']}" if item["device"] else "")


def _print(events: list[Json], out: TextIO, without_end: str = ON_THE_WAY) -> None:
    for line in block(events, without_end):
        print(line, file=out)
    print(file=out, flush=True)


def block(events: list[Json], without_end: str = ON_THE_WAY) -> Iterator[str]:
    """One packet: who it is, then a line a hop; and what to say if its end is not among them."""
    first = events[0]
    yield from _head(first)
    width = max(len(event["node"]) for event in events)
    lcore, before = first["lcore"], first
    for event in events:
        text = _text(event, before)
        if text is not None:
            if event["lcore"] != lcore:
                text += f", on lcore {event['lcore']}"
            lcore = event["lcore"]
            start = f"{event['us']:10.1f} us  {event['node']:{width}}  "
            yield from textwrap.wrap(
                text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start)
            )
        before = event
    if events[-1]["event"] not in ("sent", "dropped"):
        yield f"{'':15}{without_end}"


def _head(event: Json) -> Iterator[str]:
    title = f"packet {event['packet']}  "
    if event["event"] != "received":  # the ring was full
        yield title.strip()
        return
    flow = "not IP"
    if event["src"] is not None:
        ends = f"{_end(event['src'], event['sport'])} -> {_end(event['dst'], event['dport'])}"
        flow = f"{event['protocol']} {ends}" + (", a fragment" if event["fragment"] else "")
    rest = f"{event['length']} bytes, type {event['type']}, in at {event['node']}"
    line = f"{title}{flow}  {rest}"
    if len(line) <= WIDTH:
        yield line
        return
    yield title + flow
    yield " " * len(title) + rest


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _text(event: Json, before: Json) -> str | None:
    """What a line says; None: nothing that another line does not say."""
    match event["event"]:
        case "received":
            return f"received on lcore {event['lcore']}"
        case "published":
            place = f"workgroup {event['workgroup']}, row {event['row']}, lane {event['lane']}"
            return f"gpu: {place}"
        case "verdict":
            return _verdict(event)
        case "sent":
            return "sent"
        case "dropped":
            told = before["event"] == "verdict" and before["verdict"] == "drop"
            return None if told else f"dropped: {event['reason']}: {event['text']}"
    return None


def _verdict(event: Json) -> str:
    if event["verdict"] == "drop":
        return f"{event['by']}: drop: {event['reason']}: {event['text']}"
    parts = [f"{event['by']}: {event['verdict']}", _changes(event)]
    if event["longer"]:
        parts.append(f"{abs(event['longer'])} bytes {'longer' if event['longer'] > 0 else 'less'}")
    if event["verdict"] == "retype":
        parts.append(f"type {event['type']} from here on")
    return ", ".join(parts)


def _changes(event: Json) -> str:
    count = event["changed"]
    if not count:
        return "0 bytes changed"
    places = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in event["ranges"])
    return f"{count} byte{'s' if count > 1 else ''} changed ({places})"


def _sum(seen: int, left: int, end: Json) -> Iterator[str]:
    """``seen`` packets have been shown with their end, and ``left`` without; the instance knows
    better how many there were, if it has said so."""
    total = int(end.get("packets", seen + left))
    left = total - int(end.get("ended", seen))
    if end.get("removed"):
        yield "somebody else has ended this trace"
    if not total:
        yield "no such packet has come"
        return
    ended = f", {left} of them still on their way" if left else ""
    yield f"{total} packet{'s' if total > 1 else ''} followed{ended}"
    if end.get("skipped"):
        yield f"{end['skipped']} more were not followed: too many others were on their way"
    if end.get("missed"):
        yield f"{end['missed']} events are missing: they came faster than they could be read"
