# SPDX-License-Identifier: BSD-3-Clause
"""What limits a run, and why: one node and one sentence, from a status (status.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FULL = 0.9
"""A share of time, or of a queue, from which on there is no more to be had."""


def find(status: Mapping[str, Any]) -> dict[str, Any]:
    """The node that limits the run.

    Args:
        status: without its ``bottleneck``.

    Returns:
        ``node`` (None: there is none), ``kind`` and ``why``.
    """
    nfs: Mapping[str, Any] = status["nfs"]
    waiting = {name: nf for name, nf in nfs.items() if nf["depth"] >= nf["depth_most"] // 2}
    for name, nf in sorted(waiting.items(), key=lambda item: -item[1]["depth"]):
        kind = "device" if nf["runs_on"] == "gpu" else "cpu"
        return _found(name, kind, f"{nf['depth']:,} packets wait before it")
    busy = max(status["lcores"], key=lambda lcore: lcore["busy"], default=None)
    if busy is None or busy["busy"] < FULL:
        return _found(None, "none", "nothing is: the inputs offer no more")
    nodes = {**status["ports"], **nfs}
    name = max(nodes, key=lambda node: nodes[node]["busy"] or 0)
    if nodes[name]["busy"] is None:
        return _found(
            None, "cpu", f"lcore {busy['id']} is busy; telemetry.latency: true says with what"
        )
    share = f"{nodes[name]['busy']:.0%} of the time of its lcores"
    return _found(name, "cpu", f"lcore {busy['id']} is busy, and {name} takes {share}")


def _found(node: str | None, kind: str, why: str) -> dict[str, Any]:
    return {"node": node, "kind": kind, "why": why}
