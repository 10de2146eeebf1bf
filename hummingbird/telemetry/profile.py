# SPDX-License-Identifier: BSD-3-Clause
"""Where the time of the lcores goes: `hummingbird run --profile`.

Every tick of an lcore is booked on exactly one part, so that the parts add up to the time that has
passed. Ticks are those of the CPU's constant counter (TSC on x86), not of its core clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich.table import Table

from hummingbird.telemetry.stats import Snapshot
from hummingbird.telemetry.tables import new_table
from hummingbird.telemetry.view import View

SHARED = ("classify", "forward", "poll loop", "rest")
"""HB_ACCOUNT_* of api.h, in their order."""


class Part(NamedTuple):
    """A part of the work."""

    name: str
    packets: int | None
    """Packets it worked on; None where there is no such number."""


def summarise(view: View, snapshot: Snapshot, seconds: float) -> dict[str, Any]:
    """The section ``profile`` of a summary; empty unless the run was profiled."""
    ticks = [int(n) for n in snapshot.profile]
    if not sum(ticks):
        return {}
    rate, lcores = view.reader.ticks_per_second, len(snapshot.lcores)
    parts = {
        part.name: {
            "seconds": spent / rate,
            "share": spent / rate / (seconds * lcores),
            "packets": part.packets,
            "ticks_per_packet": spent / part.packets if part.packets else None,
        }
        for part, spent in zip(_parts(view, snapshot), ticks, strict=True)
    }
    whole = {"ticks_per_second": rate, "lcores": lcores, "seconds": sum(ticks) / rate}
    return {"profile": {**whole, "of_seconds": seconds * lcores, "parts": parts}}


def _parts(view: View, snapshot: Snapshot) -> Iterator[Part]:
    received = 0
    for node, counts in zip(view.nodes, snapshot.nodes, strict=True):
        taken, sent = int(counts["in_packets"]), int(counts["out_packets"])
        if node.on == "port":
            received += taken
            way = "/".join(["rx"] * node.ingress + ["tx"] * node.egress)
            yield Part(f"{way} {node.name}", taken + sent)
        else:
            yield Part(f"{'nf' if node.on == 'cpu' else 'syncer'} {node.name}", taken)
    yield Part(SHARED[0], received)
    yield Part(SHARED[1], int(snapshot.hops.sum()))
    yield from (Part(name, None) for name in SHARED[2:])


def table(profile: Mapping[str, Any]) -> Table:
    """The section for people."""
    rate = profile["ticks_per_second"]
    lcores = f"{profile['lcores']} lcore" + ("s" if profile["lcores"] > 1 else "")
    clock = f"{rate / 1e6:,.0f} MHz counter"
    found = new_table(
        f"Where the time went: {lcores}, cycles of the {clock}",
        "part", "packets>", "cycles a packet>", "ns a packet>", "share of time>",
    )  # fmt: skip
    for name, part in profile["parts"].items():
        ticks, packets = part["ticks_per_packet"], part["packets"]
        found.add_row(
            name,
            "-" if packets is None else f"{packets:,}",
            "-" if ticks is None else f"{ticks:,.1f}",
            "-" if ticks is None else f"{ticks / rate * 1e9:,.1f}",
            f"{part['share']:.1%}",
        )
    share = profile["seconds"] / profile["of_seconds"]
    found.add_row("sum", "", "", "", f"{share:.1%}", style="bold")
    return found
