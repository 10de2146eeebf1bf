# SPDX-License-Identifier: BSD-3-Clause
"""The live table of a run: rates between two snapshots, per port and NF."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.table import Table

from hummingbird.engine import Engine
from hummingbird.telemetry.stats import Snapshot
from hummingbird.telemetry.summary import _by_reason, _table, drops_text, us


class LiveTable:
    """Makes a table of what happened since the table before."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.reader()
        self._before = self._reader.snapshot()

    def render(self) -> Table:
        """The table for now."""
        assert self._engine.running is not None
        now, before = self._reader.snapshot(), self._before
        self._before = now
        seconds = max((now.ticks - before.ticks) / self._reader.ticks_per_second, 1e-9)
        topology = self._engine.running.topology
        table = _table(
            f"{topology.path.name}, policy version {self._engine.version}, "
            f"{now.in_flight:,} in flight",
            "node", "on", "packets>", "packets/s>", "Gbit/s>", "p50>", "p99>", "dropped",
        )  # fmt: skip
        ports = {port.name: port for port in topology.ports}
        for index, name in enumerate(topology.nodes):
            received = name in ports and ports[name].params.ingress
            packets, octets = ("in_packets", "in_bytes") if received else ("out_packets", "out_bytes")
            node = now.nodes[index]
            rate = (int(node[packets]) - int(before.nodes[index][packets])) / seconds
            bits = (int(node[octets]) - int(before.nodes[index][octets])) * 8 / seconds
            table.add_row(
                name,
                self._where(name),
                f"{int(node[packets]):,}",
                f"{rate:,.0f}",
                f"{bits / 1e9:.3f}",
                *self._latencies(index, now, before),
                drops_text(_by_reason(now.drops[index])),
            )
        return table

    def _where(self, name: str) -> str:
        assert self._engine.placement is not None
        return self._engine.placement.engines.get(name, "port")

    def _latencies(self, index: int, now: Snapshot, before: Snapshot) -> list[str]:
        recent: Any = np.subtract(now.latency[index], before.latency[index])
        histogram = recent if recent.any() else now.latency[index]
        return [us(self._reader.percentile_us(histogram, f)) for f in (0.5, 0.99)]
