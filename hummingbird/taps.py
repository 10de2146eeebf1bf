# SPDX-License-Identifier: BSD-3-Clause
"""Captures and traces of a running instance: what it answers to `hummingbird capture` and
`hummingbird trace`. Each lives as long as the connection that asked for it, and no longer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from hummingbird import control, edges, outputs
from hummingbird.control import Answer, Json
from hummingbird.dataplane._native import ffi, lib
from hummingbird.dataplane.plane import reasons
from hummingbird.errors import UserError
from hummingbird.flow_match import WITH_PORTS, Match
from hummingbird.flows import PROTOCOLS
from hummingbird.telemetry.taps import CAPTURE, Tap

if TYPE_CHECKING:
    from hummingbird.engine import Engine

MOST = 1_000_000_000
RING_BYTES = 16 << 20
"""That an lcore has for packets of a capture that its reader has not taken yet ..."""
ALL_RINGS_BYTES = 64 << 20
"""... if all of them together have no more than this."""
LEAST_RING = 64 << 10


# ---- captures ------------------------------------------------------------------------------------


def capture(engine: Engine, request: Mapping[str, Any]) -> Answer:
    """A copy of the packets of an edge of the graph, for as long as the client stays.

    Fields of the request: ``edge``, ``snap`` (bytes; 0: all), ``ring`` (bytes; 0: the most that
    there are). The only item says where the packets are, and in ``files`` which files are in use
    and must not be replaced; the end comes when somebody else removes the capture.
    """
    assert engine.running is not None
    text = _text(request, "edge") or ""
    edge = edges.parse(text, engine.running.topology, engine.running.policy)
    snap = _number(request, "snap", 0, 0, 65535)
    ring = _number(request, "ring", 0, 0, RING_BYTES)
    tap = engine.taps.add_capture(
        engine.plane, engine.name, edge.ends, edge.text, snap, _ring_bytes(engine, ring)
    )
    assert tap.file is not None
    item = {"tap": tap.number, "path": str(tap.file.path), "edge": edge.text, "note": edge.note}
    item["files"] = outputs.in_use(engine.running)
    try:
        yield item
        while not tap.removed:
            yield control.PAUSE
    finally:
        engine.taps.remove(tap)
    return {"removed": True}


def _ring_bytes(engine: Engine, wanted: int) -> int:
    assert engine.placement is not None
    most = min(wanted or RING_BYTES, ALL_RINGS_BYTES // len(engine.placement.cpus))
    size = LEAST_RING
    while size * 2 <= most:
        size *= 2
    return size


# ---- traces --------------------------------------------------------------------------------------


def trace(engine: Engine, request: Mapping[str, Any]) -> Answer:
    """What happens to some packets at every hop, an item an event.

    Fields of the request: ``flow``, ``type``, ``count`` (packets), ``seconds``. The first item says
    what is traced, the others are events; the end line tells how many packets there were.
    """
    flow, type_name = _text(request, "flow"), _text(request, "type")
    rules = [] if flow is None else Match.parse(flow).rules()
    count = _number(request, "count", 10, 1, MOST)
    seconds = _seconds(request)
    packet_type = _type(engine, type_name)
    what = _what(flow, type_name, count)
    tap = engine.taps.add_trace(engine.plane, rules, packet_type, what, count)
    events = Events(engine, tap)
    try:
        yield {"tap": tap.number, "what": what, "device": events.device}
        until = None if seconds is None else time.monotonic() + seconds
        while not tap.removed:
            over = events.all_ended(count) or (until is not None and time.monotonic() >= until)
            yield from events.take(everything=over)
            if over:
                break
            yield control.PAUSE
        yield from events.rest()
    finally:
        end = events.sum_up()
        engine.taps.remove(tap)
    return end


def _what(flow: str | None, type_name: str | None, count: int) -> str:
    which = f"the next {count} packets" if count > 1 else "the next packet"
    if flow is not None:
        which += f" of {flow}"
    return which if type_name is None else f"{which} of type {type_name}"


def _type(engine: Engine, name: str | None) -> int | None:
    assert engine.running is not None
    known = engine.running.topology.type_numbers
    if name is not None and name not in known:
        fix = f"write one of: {', '.join(known)}"
        raise UserError(f"there is no packet type {name!r} in this topology", fix=fix)
    return None if name is None else known[name]


class Events:
    """The events of a trace, with names for numbers, in the order in which they happened."""

    def __init__(self, engine: Engine, tap: Tap) -> None:
        assert engine.running is not None
        topology = engine.running.topology
        self._engine, self._tap = engine, tap
        self._nodes, self._types = topology.nodes, topology.types
        self._reasons = reasons()
        self._per_us = lib.hb_ticks_per_second() / 1e6
        self._epoch = time.time() - lib.hb_ticks() / self._per_us / 1e6
        self._by = dict(engine.engines) | {n.name: "python" for n in topology.nfs if n.nf.peer}
        self._waiting: list[tuple[int, Json]] = []
        self._looked = 0
        """Tick of the look before."""
        device = engine.choice.device
        self.device = device.label if device else None

    def all_ended(self, count: int) -> bool:
        """There have been as many packets as are wanted, and all have ended."""
        return int(self._state().ended) >= count

    def _state(self) -> Any:
        return self._engine.plane.trace_state(self._tap.native)

    def take(self, *, everything: bool) -> Iterator[Json]:
        """Those that have come since. Lcores are asked one after the other, so what is newer than
        the look before waits for the next one: it may stand before something that is still to
        come."""
        until, self._looked = self._looked, int(lib.hb_ticks())
        while taken := [
            (int(e.tick), self._as_json(e))
            for e in self._engine.plane.take_events(self._tap.native)
        ]:
            self._waiting += taken
        self._waiting.sort(key=lambda pair: pair[0])
        while self._waiting and self._waiting[0][0] < until:
            yield self._waiting.pop(0)[1]
        if everything:
            yield from self.rest()

    def rest(self) -> Iterator[Json]:
        """Those that have been taken and still wait."""
        while self._waiting:
            yield self._waiting.pop(0)[1]

    def sum_up(self) -> Json:
        """How many packets and events there were."""
        if self._tap.removed:
            return {"removed": True}
        state = self._state()
        return {
            "packets": int(state.sampled),
            "ended": int(state.ended),
            "skipped": int(state.skipped),
            "missed": int(state.missed),
        }

    def _as_json(self, event: Any) -> Json:
        kinds = {
            lib.HB_TRACE_RECEIVED: ("received", self._received),
            lib.HB_TRACE_GOES: ("goes", self._goes),
            lib.HB_TRACE_PUBLISHED: ("published", self._published),
            lib.HB_TRACE_VERDICT: ("verdict", self._verdict),
            lib.HB_TRACE_SENT: ("sent", lambda event: {}),
            lib.HB_TRACE_DROPPED: ("dropped", self._dropped),
        }
        name, more = kinds[event.kind]
        return {
            "packet": int(event.packet),
            "us": round((event.tick - event.rx_tick) / self._per_us, 1),
            "lcore": int(event.lcore),
            "node": self._nodes[event.node],
            "event": name,
            "type": self._types[event.type],
            "length": int(event.length),
            **more(event),
        }

    def _received(self, event: Any) -> Json:
        at = round(self._epoch + event.tick / self._per_us / 1e6, 6)
        return {"time": at, **_flow(event.flow)}

    def _goes(self, event: Any) -> Json:
        return {"to": self._nodes[event.to]}

    def _published(self, event: Any) -> Json:
        row = event.row
        return {"workgroup": int(row.workgroup), "row": int(row.row), "lane": int(row.lane)}

    def _verdict(self, event: Any) -> Json:
        nf, node = event.nf, self._nodes[event.node]
        found: Json = {"by": self._by[node], "verdict": _VERDICTS[nf.verdict]}
        if found["verdict"] == "drop":
            return found | self._dropped(event)
        ranges = [[int(n) for n in nf.range[i]] for i in range(nf.ranges)]
        return found | {"longer": int(nf.longer), "changed": int(nf.changed), "ranges": ranges}

    def _dropped(self, event: Any) -> Json:
        name, text = self._reasons[event.to]
        return {"reason": name, "text": text}


_VERDICTS = {lib.HB_TRACE_PASS: "pass", lib.HB_TRACE_DROP: "drop"}
_VERDICTS |= {lib.HB_TRACE_RETYPE: "retype"}


def _flow(flow: Any) -> Json:
    src, dst = (_address(bytes(ffi.buffer(end))) for end in (flow.src, flow.dst))
    protocol = int(flow.protocol)
    ip = not (src == dst and src.version == 6 and int(src) == 0)
    ported = ip and protocol in WITH_PORTS and not flow.fragment
    return {
        "protocol": PROTOCOLS.get(protocol, str(protocol)) if ip else "-",
        "src": str(src) if ip else None,
        "sport": int(flow.src_port) if ported else None,
        "dst": str(dst) if ip else None,
        "dport": int(flow.dst_port) if ported else None,
        "fragment": bool(flow.fragment),
    }


def _address(data: bytes) -> IPv4Address | IPv6Address:
    found = IPv6Address(data)
    return found.ipv4_mapped or found


# ---- both ----------------------------------------------------------------------------------------


def list_taps(engine: Engine, request: Mapping[str, Any]) -> Answer:
    """The captures and traces that there are, an item each.

    An item has its number, kind, what it looks at, and how many packets it has seen so far.
    """
    for tap in engine.taps:
        yield {"tap": tap.number, "kind": tap.kind, "what": tap.what, **_so_far(engine, tap)}
    return {}


def _so_far(engine: Engine, tap: Tap) -> Json:
    if tap.kind == CAPTURE:
        assert tap.file is not None
        region = ffi.cast("void *", tap.file.address)
        records, missed = lib.hb_capture_records(region), lib.hb_capture_missed(region)
        return {"packets": int(records), "missed": int(missed)}
    state = engine.plane.trace_state(tap.native)
    return {"packets": int(state.sampled), "missed": int(state.skipped)}


def remove(engine: Engine, request: Mapping[str, Any]) -> Answer:
    """End the capture or trace with the number ``tap``."""
    number = _number(request, "tap", 0, 0, MOST)
    tap = engine.taps.get(number)
    if tap is None:
        known = ", ".join(str(tap.number) for tap in engine.taps)
        fix = f"write one of: {known}" if known else "there are none"
        raise UserError(f"there is no capture or trace {number}", fix=fix)
    engine.taps.remove(tap)
    yield None
    return {"removed": number, "kind": tap.kind, "what": tap.what}


COMMANDS = {"capture": capture, "trace": trace, "taps": list_taps, "remove": remove}


def _text(request: Mapping[str, Any], field: str) -> str | None:
    value = request.get(field)
    if value is None or isinstance(value, str):
        return value
    raise UserError(f"the request's {field!r} is no text")


def _number(request: Mapping[str, Any], field: str, default: int, least: int, most: int) -> int:
    value = request.get(field)
    if value is None:
        return default
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise UserError(f"the request's {field!r} is no number from {least} to {most}")


def _seconds(request: Mapping[str, Any]) -> float | None:
    value = request.get("seconds")
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST:
        return float(value)
    raise UserError("the request's 'seconds' is no time")
