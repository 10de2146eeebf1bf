# SPDX-License-Identifier: BSD-3-Clause
"""The status of a run: one dictionary that `top`, the report, the live page and the control socket
show. docs/telemetry.md says what stands in it.

Rates, busy times and latencies are of the time since the measure before (the first one: since the
start), everything called ``packets``, ``bytes`` or ``drops`` counts from the start. None is what
nothing is known of: latencies without a sample, busy times where none are taken.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hummingbird.telemetry import bottleneck, scheduling
from hummingbird.telemetry.stats import Snapshot
from hummingbird.telemetry.summary import by_reason
from hummingbird.telemetry.view import Node, View

VERSION = 1

Json = dict[str, Any]


class Meter:
    """Measures a run again and again; every reader has one of its own."""

    def __init__(self, view: View) -> None:
        """Rates of the first measure are of the time since the start."""
        self._begin(view)

    def _begin(self, view: View) -> None:
        self._before: Snapshot | None = None
        self._start = int(view.reader.head["start_ticks"])
        self._threads = scheduling.find_lcores(view.pid)
        self._waited: dict[int, int] = {}

    def measure(self, view: View) -> Json:
        """The status now."""
        if int(view.reader.head["start_ticks"]) != self._start:
            self._begin(view)  # after a restart all counters begin anew
        now, waited = view.reader.snapshot(), scheduling.waited_ns(self._threads)
        more = {lcore: ns - self._waited.get(lcore, 0) for lcore, ns in waited.items()}
        before = self._before or now.at_start(self._start)
        status = _Interval(view, now, before, more).status()
        self._before, self._waited = now, waited
        return status | {"bottleneck": bottleneck.find(status)}


class _Interval:
    """What happened between two snapshots."""

    def __init__(
        self, view: View, now: Snapshot, before: Snapshot, waited: Mapping[int, int]
    ) -> None:
        self.view, self.now, self.before, self.waited = view, now, before, waited
        self.ticks = max(now.ticks - before.ticks, 1)
        self.seconds = self.ticks / view.reader.ticks_per_second

    def status(self) -> Json:
        view, now = self.view, self.now
        nodes = list(enumerate(view.nodes))
        ports = {node.name: self._port(i, node) for i, node in nodes if node.on == "port"}
        uptime = view.reader.seconds(now.ticks)
        return {
            "v": VERSION,
            "name": view.name,
            "title": view.title,
            "pid": view.pid,
            "state": view.state,
            "started": view.reader.started,
            "time": time.time(),
            "uptime_s": uptime,
            "interval_s": self.seconds,
            "policy_version": view.policy_version,
            "totals": self._totals(ports),
            "rates": self._rates(ports),
            "lcores": self._lcores(),
            "ports": ports,
            "nfs": {node.name: self._nf(i, node) for i, node in nodes if node.on != "port"},
            "chains": self._chains(),
            "edges": list(self._edges()),
            "device": self._device(),
        }

    # ---- differences

    def _field(self, index: int, name: str) -> tuple[int, int]:
        """A counter of a node: in all, and in the interval."""
        total = int(self.now.nodes[index][name])
        return total, total - int(self.before.nodes[index][name])

    def _rate(self, number: float) -> float:
        return number / self.seconds

    def _share(self, ticks: int, lcores: int) -> float:
        """Of the time of so many lcores; counters and clock are not read at one instant."""
        return min(1.0, ticks / (self.ticks * max(1, lcores)))

    # ---- parts

    def _totals(self, ports: Mapping[str, Json]) -> Json:
        return {
            "received": sum(port["in"]["packets"] for port in ports.values() if port["in"]),
            "created": int(self.now.nodes["created"].sum()),
            "sent": sum(port["out"]["packets"] for port in ports.values() if port["out"]),
            "dropped": by_reason(self.now.drops.sum(axis=0)),
            "in_flight": self.now.in_flight,
            "missed": sum(port["missed"] for port in ports.values()),
        }

    def _rates(self, ports: Mapping[str, Json]) -> Json:
        def total(way: str, field: str) -> float:
            return sum((port[way][field] for port in ports.values() if port[way]), 0.0)

        dropped = int(self.now.drops.sum()) - int(self.before.drops.sum())
        return {
            "received_pps": total("in", "pps"),
            "sent_pps": total("out", "pps"),
            "dropped_pps": self._rate(dropped),
            "received_gbps": total("in", "gbps"),
            "sent_gbps": total("out", "gbps"),
        }

    def _lcores(self) -> list[Json]:
        busy, passes = (
            self.now.lcores[name] - self.before.lcores[name] for name in ("busy_ticks", "passes")
        )
        return [
            {
                "id": number,
                "cpu": cpu if cpu >= 0 else None,
                # it is booked at the end of a pass
                "busy": self._share(int(ticks), 1) if turns else None,
                "taken": self._taken(number),
                "passes": int(turns),
            }
            for number, (cpu, ticks, turns) in enumerate(
                zip(self.view.cpus, busy, passes, strict=True)
            )
        ]

    def _taken(self, lcore: int) -> float | None:
        """The share of the time in which others had the lcore's CPU while it was ready to run."""
        waited = self.waited.get(lcore)
        return None if waited is None else min(1.0, waited / 1e9 / self.seconds)

    def _way(self, index: int, way: str) -> Json:
        packets, more = self._field(index, f"{way}_packets")
        octets, more_octets = self._field(index, f"{way}_bytes")
        return {
            "packets": packets,
            "bytes": octets,
            "pps": self._rate(more),
            "gbps": self._rate(more_octets) * 8 / 1e9,
        }

    def _node(self, index: int, node: Node) -> Json:
        """What ports and NFs have in common."""
        drops = self.now.drops[index]
        more = drops - self.before.drops[index]
        lcores = len(node.lcores)
        return {
            "lcores": list(node.lcores),
            "busy": self._busy(index, node, "busy_ticks"),
            "depth": int(self.now.nodes[index]["depth"]),
            "depth_most": self.view.queue * max(1, lcores),
            "drops": by_reason(drops),
            "drops_pps": {name: self._rate(n) for name, n in by_reason(more).items()},
            "created": int(self.now.nodes[index]["created"]),
        }

    def _busy(self, index: int, node: Node, field: str) -> float | None:
        if not self.view.samples:
            return None
        return self._share(self._field(index, field)[1], len(node.lcores))

    def _port(self, index: int, node: Node) -> Json:
        missed, more_missed = self._field(index, "missed")
        return {
            "driver": node.driver,
            "mode": self.view.details.get(node.name, {}).get("mode"),
            "in": self._way(index, "in") if node.ingress else None,
            "out": self._way(index, "out") if node.egress else None,
            "missed": missed,
            "missed_pps": self._rate(more_missed),
            "answered": int(self.now.nodes[index]["answered"]),
            "held": self._busy(index, node, "held_ticks") if node.ingress else None,
            "latency_us": self._latency("latency", index) if node.egress else None,
        } | self._node(index, node)

    def _nf(self, index: int, node: Node) -> Json:
        return {
            "runs_on": node.on,
            "engine": node.engine,
            "in": self._way(index, "in"),
            "out": self._way(index, "out"),
            "retyped": int(self.now.nodes[index]["retyped"]),
            "latency_us": self._latency("latency", index),
        } | self._node(index, node)

    def _chains(self) -> Json:
        found = {}
        for number, (name, path) in enumerate(self.view.paths.items()):
            sent, dropped = (int(n) for n in self.now.ended[number])
            before = int(self.before.ended[number].sum())
            found[name] = {
                "path": list(path),
                "packets": sent + dropped,
                "sent": sent,
                "dropped": dropped,
                "pps": self._rate(sent + dropped - before),
                "latency_us": self._latency("chain_latency", number),
            }
        return found

    def _edges(self) -> Iterable[Json]:
        """Edges that packets have passed."""
        names = [node.name for node in self.view.nodes]
        for source, target in np.argwhere(self.now.edges):
            packets = int(self.now.edges[source, target])
            before = int(self.before.edges[source, target])
            yield {
                "from": names[source],
                "to": names[target],
                "packets": packets,
                "pps": self._rate(packets - before),
            }

    def _latency(self, histograms: str, row: int) -> Json | None:
        """Of the samples of a node or a type, in the field of this name."""
        histogram = getattr(self.now, histograms)[row] - getattr(self.before, histograms)[row]
        if not (samples := int(histogram.sum())):
            return None
        return {**self.view.reader.percentiles_us(histogram), "samples": samples}

    def _sum(self, name: str) -> tuple[int, int]:
        """A counter of all lcores: in all, and in the interval."""
        total = int(self.now.lcores[name].sum())
        return total, total - int(self.before.lcores[name].sum())

    def _device(self) -> Json | None:
        view, now = self.view, self.now
        if view.device["name"] is None:
            return None
        rows, more_rows = self._sum("rows")
        _, more_real = self._sum("row_packets")
        batch = now.lcores["batch"].sum(axis=0) - self.before.lcores["batch"].sum(axis=0)
        slots = more_rows * view.lanes
        launches = int(now.device["launches"])
        return dict(view.device) | {
            "lanes": view.lanes,
            "resident_groups": int(now.device["resident"]),
            "rows": rows,
            "rows_per_s": self._rate(more_rows),
            "slots_real_per_s": self._rate(more_real),
            "slots_dummy_per_s": self._rate(slots - more_real),
            "fill": more_real / slots if slots else None,
            "packets_per_row": more_real / more_rows if more_rows else None,
            "launches": launches,
            "relaunches": max(0, launches - 1),
            "failures": int(now.device["failures"]),
            "copied_bytes": int(now.device["copied_bytes"]),
            "batch": [int(n) for n in batch],
        }
