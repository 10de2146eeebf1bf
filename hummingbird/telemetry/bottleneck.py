# SPDX-License-Identifier: BSD-3-Clause
"""Names what limits a run, and the number that says so; docs/top.md says what to do then.

Looked for in this order, because the first is the surest sign:

0. an lcore that stands still, and inputs that were told to take nothing in;
1. a device that was given up;
2. packets that were dropped, in this interval, because something was full;
3. packets that an interface dropped before they could be received;
4. an lcore that is busy all the time: an input that waits drops nothing;
5. a thread of its own, or a device, that is behind, or for which an input waits;
6. else the input offers no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hummingbird.telemetry.figures import amount, latency, percent
from hummingbird.telemetry.view import PYTHON

BUSY = 0.9
"""Who is busy for this share of the time has none left: the rest is polls that find nothing."""
HELD = 0.05
"""An input that has to wait for this share of the time could offer more."""
STUCK_S = 0.4
"""An lcore makes a pass every 0.8 ms at least; if it makes none for this long, something is wrong,
or the machine is very busy."""
TAKEN = 0.1
"""Others that have an lcore's CPU for this share of the time are worth a word."""
FULL_ROWS = 0.7
"""Rows fuller than this are what has waited for the device."""
BURST = 256
"""Packets that a Python NF takes at once, HB_BURST: if more wait, it is behind."""
MOST = 0.5
"""A node that takes this share of its lcore's time is what the lcore does."""
FULL = ("port_full", "node_full", "ring_full", "flow_share", "no_mbuf")
"""Drop reasons that say that something was full."""

Json = Mapping[str, Any]
Found = dict[str, Any]


def find(status: Json) -> Found:
    """What limits a run.

    Args:
        status: of telemetry/status.py, without its ``bottleneck``.

    Returns:
        ``node``, or None; ``kind``: ``cpu``, ``device``, ``port``, ``input`` if nothing does, or
        ``none`` if there is no saying;
        and ``why``, one sentence.
    """
    for look in (_stuck, _drained, _device_lost, _drops, _missed, _busy_lcore, _behind):
        if found := look(status):
            return found
    return _nothing(status)


def _found(node: str | None, kind: str, why: str) -> Found:
    return {"node": node, "kind": kind, "why": why}


def _nodes(status: Json) -> Iterator[tuple[str, Json]]:
    yield from status["ports"].items()
    yield from status["nfs"].items()


def _is_peer(node: Json) -> bool:
    """It has a thread of its own beside the lcores."""
    return bool(node.get("engine") == PYTHON)


# ---- the signs -------------------------------------------------------------------------------


def _stuck(status: Json) -> Found | None:
    if status["interval_s"] < STUCK_S:
        return None
    for lcore in status["lcores"]:
        if not lcore["passes"]:
            why = "an NF on it does not return, or the process is stopped"
            return _found(None, "cpu", f"{_name(lcore)} makes no passes: {why}")
    return None


def _drained(status: Json) -> Found | None:
    if status["state"] == "running":
        return None
    return _found(None, "none", f"{status['state']}: inputs take nothing in ('ctl resume' ends it)")


def _device_lost(status: Json) -> Found | None:
    if not status["device"] or status["device"]["state"] != "hangs":
        return None
    gnf = next((name for name, nf in status["nfs"].items() if nf["runs_on"] == "gpu"), None)
    why = "the device hangs and was given up: what needs it is dropped (device_lost)"
    return _found(gnf, "device", why)


def _drops(status: Json) -> Found | None:
    """Where most packets are dropped because something is full."""
    full = {
        name: {reason: node["drops_pps"].get(reason, 0.0) for reason in FULL}
        for name, node in _nodes(status)
    }
    name = max(full, key=lambda node: sum(full[node].values()), default=None)
    if name is None or not sum(full[name].values()):
        return None
    reason = max(full[name], key=lambda one: full[name][one])
    lost = f"{name} drops {amount(sum(full[name].values()))}/s ({reason})"
    if reason == "port_full":
        return _found(name, "port", f"{lost}: its interface takes no more")
    if reason != "no_mbuf":
        return _slow(status, name, lost)
    holder = max(status["nfs"], key=lambda nf: int(status["nfs"][nf]["depth"]), default=name)
    return _slow(status, holder, lost)


def _missed(status: Json) -> Found | None:
    """Packets that no lcore came to fetch in time."""
    missed = {name: port["missed_pps"] for name, port in status["ports"].items()}
    name = max(missed, key=lambda port: missed[port] or 0.0, default=None)
    if name is None or not missed[name]:
        return None
    lost = f"{name}'s interface misses {amount(missed[name])}/s"
    lcore = _busiest(status, status["ports"][name])
    if lcore is None or _is_saturated(lcore):
        return _of_lcore(status, lcore, name, lost)
    return _found(name, "port", f"{lost}, {_lcore(lcore)}: bursts longer than its ring")


def _busy_lcore(status: Json) -> Found | None:
    lcore = _busiest(status)
    return _of_lcore(status, lcore) if lcore and lcore["busy"] >= BUSY else None


def _behind(status: Json) -> Found | None:
    """Who has no time left beside the lcores, where nothing is dropped; of several, who has most
    packets in its hands."""
    held = max(((p["held"] or 0.0, name) for name, p in status["ports"].items()), default=(0.0, ""))
    waits = held[0] >= HELD
    behind = {
        name: nf
        for name, nf in status["nfs"].items()
        if (nf["busy"] or 0.0) >= BUSY and (waits or _queues(status["device"], nf))
        if _is_peer(nf) or nf["runs_on"] == "gpu"
    }
    if behind:
        name = max(behind, key=lambda nf: _in_hands(behind[nf]))
        if _is_peer(behind[name]):
            return _of_peer(name, behind[name])
        return _of_device(status, name)
    return _held(status, *held) if waits else None


def _queues(device: Json | None, nf: Json) -> bool:
    """Packets have waited for it: more than go into one call or row, or rows are full."""
    if _is_peer(nf) or not device:
        return bool(nf["depth"] > BURST)
    return (device["fill"] or 0.0) >= FULL_ROWS or nf["depth"] >= device["lanes"]


def _in_hands(nf: Json) -> float:
    """Packets that an NF has, or that wait for it: what comes, times how long it stays."""
    stay_us = nf["latency_us"]["p50"] if nf["latency_us"] else 0.0
    return float(nf["in"]["pps"]) * float(stay_us) / 1e6


def _held(status: Json, share: float, port: str) -> Found:
    """An input waits, and nobody is busy all the time: packets are where they stay long."""
    waits = f"{port} waits for the chain {percent(share)} of the time"
    lcore = max(status["lcores"], key=lambda one: one["taken"] or 0.0)
    if (lcore["taken"] or 0.0) >= TAKEN and _is_saturated(lcore):
        return _of_lcore(status, lcore, None, waits)
    nfs = status["nfs"]
    name = max(nfs, key=lambda nf: _in_hands(nfs[nf]), default=None)
    if name is None or not nfs[name]["latency_us"]:
        return _found(None, "none", waits)
    kind = "device" if nfs[name]["runs_on"] == "gpu" else "cpu"
    stay = latency(nfs[name]["latency_us"]["p50"])
    return _found(name, kind, f"{waits}, most packets are at {name}, p50 {stay}")


def _nothing(status: Json) -> Found:
    lcore = _busiest(status)
    busy = f"; {_lcore(lcore)}" if lcore and status["rates"]["received_pps"] else ""
    offers = "offers no more" if status["rates"]["received_pps"] else "offers nothing"
    return _found(None, "input", f"nothing: the input {offers}{busy}")


# ---- who it is then --------------------------------------------------------------------------


def _slow(status: Json, name: str, lost: str) -> Found:
    """Packets of which too many wait for a node: it is slow itself, or its lcore has no time."""
    node = status["nfs"].get(name) or status["ports"][name]
    lcore = _busiest(status, node)
    if node.get("runs_on") == "gpu" and not (lcore and lcore["busy"] >= BUSY):
        return _of_device(status, name, lost)
    if _is_peer(node):
        return _of_peer(name, node, lost)
    if lcore is None or _is_saturated(lcore):
        return _of_lcore(status, lcore, name, lost)
    kind = "cpu" if name in status["nfs"] else "port"
    return _found(name, kind, f"{lost}, {_lcore(lcore)}: bursts longer than its queue")


def _busiest(status: Json, node: Json | None = None) -> Json | None:
    """The busiest lcore, of those that serve a node; None if there is no saying."""
    lcores = [
        lcore
        for lcore in status["lcores"]
        if lcore["busy"] is not None and (node is None or lcore["id"] in node["lcores"])
    ]
    return max(lcores, key=lambda lcore: float(lcore["busy"]), default=None)


def _is_saturated(lcore: Json) -> bool:
    """It has no time left: it is busy, or others have its CPU."""
    return float(lcore["busy"] or 0.0) + float(lcore["taken"] or 0.0) >= BUSY


def _lcore(lcore: Json) -> str:
    """An lcore and how busy it is."""
    return f"{_name(lcore)} is {percent(lcore['busy'])} busy"


def _name(lcore: Json) -> str:
    cpu = "" if lcore["cpu"] is None else f" (CPU {lcore['cpu']})"
    return f"lcore {lcore['id']}{cpu}"


def _of_lcore(status: Json, lcore: Json | None, name: str | None = None, lost: str = "") -> Found:
    """An lcore has no time left: the node that takes most of it."""
    if lcore is None:
        return _found(name, "cpu", lost)
    nodes = {n: node for n, node in _nodes(status) if lcore["id"] in node["lcores"]}
    here = {
        n: float(node["busy"])
        for n, node in nodes.items()
        if node["busy"] is not None  # telemetry.latency: false
        and node.get("runs_on") != "gpu"  # whose time, and a peer's, is not the lcore's
        and not _is_peer(node)
    }
    most = max(here, key=lambda node: here[node], default=name)
    why = _lcore(lcore)
    if most not in here:
        why += "; telemetry.latency: true says with what"
    elif here[most] < MOST and len(nodes) > 2:
        why += f" with {len(nodes)} nodes, most by {most}: {percent(here[most])}"
    else:
        why += f", {most} takes {percent(here[most])}"
    if (lcore["taken"] or 0.0) >= TAKEN:
        why += f", others have its CPU {percent(lcore['taken'])} of the time"
    return _found(most, "cpu", f"{lost}: {why}" if lost else why)


def _of_device(status: Json, name: str, lost: str = "") -> Found:
    nf = status["nfs"][name]
    busy = f"at the device {percent(nf['busy'])} of the time"
    waiting = f", {amount(nf['depth'])} packets wait" if nf["depth"] else ""
    why = f"{busy}, rows {percent(status['device']['fill'])} full{waiting}"
    return _found(name, "device", f"{lost}: {why}" if lost else f"{name} is {why}")


def _of_peer(name: str, nf: Json, lost: str = "") -> Found:
    why = f"a thread of its own, is {percent(nf['busy'])} busy, {amount(nf['depth'])} packets wait"
    return _found(name, "cpu", f"{lost}: {name}, {why}" if lost else f"{name}, {why}")
