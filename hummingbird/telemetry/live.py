# SPDX-License-Identifier: BSD-3-Clause
"""The live table of a run: rates between two snapshots, per port and NF."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.table import Table

from hummingbird.telemetry.stats import Snapshot
from hummingbird.telemetry.summary import by_reason, drops_text, us
from hummingbird.telemetry.tables import new_table
from hummingbird.telemetry.view import Node, View


class LiveTable:
    """Makes a table of what happened since the table before."""

    def __init__(self, view: View) -> None:
        self._before = view.reader.snapshot()

    def render(self, view: View) -> Table:
        """The table for now."""
        now, before = view.reader.snapshot(), self._before
        self._before = now
        seconds = max((now.ticks - before.ticks) / view.reader.ticks_per_second, 1e-9)
        table = new_table(
            f"{view.title}, policy version {view.policy_version}, {now.in_flight:,} in flight",
            "node", "on", "packets>", "packets/s>", "Gbit/s>", "p50>", "p99>", "dropped",
        )  # fmt: skip
        for index, node, way in _rows(view):
            total = int(now.nodes[index][f"{way}_packets"])
            packets = total - int(before.nodes[index][f"{way}_packets"])
            octets = int(now.nodes[index][f"{way}_bytes"])
            octets -= int(before.nodes[index][f"{way}_bytes"])
            both = node.ingress and node.egress
            table.add_row(
                f"{node.name} {way}" if both else node.name,
                node.on,
                f"{total:,}",
                f"{packets / seconds:,.0f}",
                f"{octets * 8 / seconds / 1e9:.4f}",
                *_latencies(view, index, now, before),
                drops_text(by_reason(now.drops[index])),
            )
        return table


def _rows(view: View) -> Iterator[tuple[int, Node, str]]:
    """Number, node and way of its packets: ports in both directions have a row for each."""
    for index, node in enumerate(view.nodes):
        if node.ingress:
            yield index, node, "in"
        if node.egress or not node.ingress:
            yield index, node, "out"


def _latencies(view: View, index: int, now: Snapshot, before: Snapshot) -> list[str]:
    recent: Any = np.subtract(now.latency[index], before.latency[index])
    histogram = recent if recent.any() else now.latency[index]
    return [us(view.reader.percentile_us(histogram, f)) for f in (0.5, 0.99)]


def progress(view: View) -> str:
    """One line about a run, for where there is no terminal."""
    now = view.reader.snapshot()
    received = sum(int(now.nodes[i]["in_packets"]) for i, n in enumerate(view.nodes) if n.ingress)
    sent = sum(int(now.nodes[i]["out_packets"]) for i, n in enumerate(view.nodes) if n.egress)
    dropped = int(now.drops.sum())
    return f"{received:,} received, {sent:,} sent, {dropped:,} dropped, {now.in_flight:,} in flight"
