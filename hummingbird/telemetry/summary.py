# SPDX-License-Identifier: BSD-3-Clause
"""The summary of a run: as a dictionary for JSON, and for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from hummingbird.dataplane.plane import reasons
from hummingbird.telemetry import profile
from hummingbird.telemetry.stats import Snapshot
from hummingbird.telemetry.tables import new_table
from hummingbird.telemetry.view import Node, View

Counter = tuple[str, str, int]
"""NF, name, packets."""


def summarise(view: View, counters: Iterable[Counter], seconds: float) -> dict[str, Any]:
    """Everything a run can say of itself, from one snapshot.

    Returns:
        A dictionary for JSON: counts in packets and bytes, latencies in microseconds.
        ``balance`` is received + created - sent - dropped - in flight, each counted for itself.
    """
    snapshot = view.reader.snapshot()
    ports = {n.name: _port(view, i, snapshot) for i, n in enumerate(view.nodes) if n.on == "port"}
    received = sum(p.get("received", 0) for p in ports.values())
    sent = sum(p.get("sent", 0) for p in ports.values())
    created = int(snapshot.nodes["created"].sum())
    dropped = by_reason(snapshot.drops.sum(axis=0))
    nfs = {n.name: (i, n) for i, n in enumerate(view.nodes) if n.on != "port"}
    return {
        "seconds": seconds,
        "device": _device(view, snapshot),
        "received": received,
        "created": created,
        "sent": sent,
        "dropped": dropped,
        "in_flight": snapshot.in_flight,
        "balance": received + created - sent - sum(dropped.values()) - snapshot.in_flight,
        "ports": ports,
        "nfs": {name: _nf(view, i, n, snapshot, received) for name, (i, n) in nfs.items()},
        "types": _types(view, snapshot),
        "counters": _counters(counters),
        "policy_version": view.policy_version,
    } | profile.summarise(view, snapshot, seconds)


def by_reason(counts: Iterable[int]) -> dict[str, int]:
    """Counts by the name of their reason, without zeros."""
    return {name: int(n) for (name, _), n in zip(reasons(), counts, strict=True) if n}


def _port(view: View, index: int, snapshot: Snapshot) -> dict[str, Any]:
    node, counts = view.nodes[index], snapshot.nodes[index]
    port: dict[str, Any] = {"driver": node.driver}
    if node.ingress:
        port |= {"received": int(counts["in_packets"]), "received_bytes": int(counts["in_bytes"])}
    if node.egress:
        port |= {"sent": int(counts["out_packets"]), "sent_bytes": int(counts["out_bytes"])}
        port["latency_us"] = view.reader.percentiles_us(snapshot.latency[index])
    port["dropped"] = by_reason(snapshot.drops[index])
    port["missed"] = int(counts["missed"])
    port["detail"] = dict(view.details.get(node.name, {}))
    if node.ingress and node.egress:
        port["answered"] = int(counts["answered"])
    return port


def _nf(view: View, index: int, node: Node, snapshot: Snapshot, received: int) -> dict[str, Any]:
    counts = snapshot.nodes[index]
    packets = int(counts["in_packets"])
    return {
        "runs_on": node.on,
        "engine": node.engine,
        "packets": packets,
        "bytes": int(counts["in_bytes"]),
        "share": packets / received if received else 0.0,
        "passed": int(counts["out_packets"]),
        "retyped": int(counts["retyped"]),
        "dropped": int(counts["dropped"]),
        "drops": by_reason(snapshot.drops[index]),
        "created": int(counts["created"]),
        "latency_us": view.reader.percentiles_us(snapshot.latency[index]),
        "detail": dict(view.details.get(node.name, {})),
    }


def _device(view: View, snapshot: Snapshot) -> dict[str, Any]:
    device = dict(view.device)
    if device["name"] is None:
        return device
    rows = int(snapshot.lcores["rows"].sum())
    packets = int(snapshot.lcores["row_packets"].sum())
    return device | {
        "launches": int(snapshot.device["launches"]),
        "failures": int(snapshot.device["failures"]),
        "resident_groups": int(snapshot.device["resident"]),
        "rows": rows,
        "row_packets": packets,
        "dummy_packets": rows * view.lanes - packets,
        "copied_bytes": int(snapshot.device["copied_bytes"]),
    }


def _types(view: View, snapshot: Snapshot) -> dict[str, Any]:
    return {
        name: {
            "packets": int(snapshot.ended[number].sum()),
            "sent": int(snapshot.ended[number][0]),
            "dropped": int(snapshot.ended[number][1]),
            "path": list(path),
            "latency_us": view.reader.percentiles_us(snapshot.chain_latency[number]),
        }
        for number, (name, path) in enumerate(view.paths.items())
    }


def _counters(found: Iterable[Counter]) -> dict[str, dict[str, int]]:
    counters: dict[str, dict[str, int]] = {}
    for nf, name, packets in found:
        counters.setdefault(nf, {})[name] = packets
    return counters


# ---- for people


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Print a summary."""
    tables = [_paths_table(summary), _nfs_table(summary)]
    if summary["counters"]:
        tables.append(_counters_table(summary))
    if "profile" in summary:
        tables.append(profile.table(summary["profile"]))
    for table in tables:
        console.print()
        console.print(table)
    console.print()
    console.print(_device_line(summary["device"]), highlight=False)
    console.print(balance_line(summary), highlight=False)
    for run in summary.get("runs", ()):
        before = f"Before a restart, {run['title']} for {run['seconds']:.1f} s: "
        console.print(before + balance_line(run), highlight=False)
    for name, port in summary["ports"].items():
        if port["missed"]:
            what = f"{name}: {port['missed']:,} more packets were dropped by interface or kernel"
            console.print(f"{what} before they could be received", highlight=False)


def _paths_table(summary: Mapping[str, Any]) -> Table:
    table = new_table("Paths", "type", "packets>", "sent>", "dropped>", "path")
    for name, entry in summary["types"].items():
        path = " -> ".join(entry["path"])
        table.add_row(name, *(f"{entry[k]:,}" for k in ("packets", "sent", "dropped")), path)
    return table


def us(value: float | None) -> str:
    """A latency for people."""
    if value is None:
        return "-"
    return f"{value / 1000:,.1f} ms" if value >= 1000 else f"{value:,.1f} us"


def _nfs_table(summary: Mapping[str, Any]) -> Table:
    table = new_table(
        "Network functions",
        "nf",
        "on",
        "packets>",
        "share>",
        "re-typed>",
        "p50>",
        "p99>",
        "dropped",
    )
    for name, nf in summary["nfs"].items():
        latency = nf["latency_us"]
        table.add_row(
            name,
            nf["engine"],
            f"{nf['packets']:,}",
            f"{nf['share']:.0%}",
            f"{nf['retyped']:,}",
            us(latency["p50"]),
            us(latency["p99"]),
            drops_text(nf["drops"]),
        )
    return table


def drops_text(drops: Mapping[str, int]) -> str:
    """Drops by reason for people."""
    return ", ".join(f"{name} {count:,}" for name, count in drops.items()) or "-"


def _counters_table(summary: Mapping[str, Any]) -> Table:
    table = new_table("Counters", "nf", "rule or counter", "packets>")
    for nf, names in summary["counters"].items():
        for name, packets in names.items():
            table.add_row(nf, name, f"{packets:,}")
    return table


def _device_line(device: Mapping[str, Any]) -> str:
    if device["name"] is None:
        return "Device: none, all network functions ran on the CPU"
    note = " (a CPU playing the GPU)" if device["is_cpu"] else ""
    return (
        f"Device: {device['name']}{note}, {device['executor']} executor, "
        f"tier {device['tier'] or 'not probed'}, "
        f"{device['binding']}; {device['rows']:,} rows, {device['dummy_packets']:,} dummy packets, "
        f"{device['launches']:,} launches"
    )


def balance_line(summary: Mapping[str, Any]) -> str:
    """All packets on one line."""
    dropped = sum(summary["dropped"].values())
    ok = "balanced" if summary["balance"] == 0 else f"OFF BY {summary['balance']}"
    return (
        f"Packets: received {summary['received']:,} + created {summary['created']:,} = "
        f"sent {summary['sent']:,} + dropped {dropped:,} "
        f"({drops_text(summary['dropped'])}) + in flight {summary['in_flight']:,}: {ok}"
    )
