# SPDX-License-Identifier: BSD-3-Clause
"""The summary of a run: the JSON of design and docs, and the same for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from hummingbird.dataplane.plane import reasons
from hummingbird.engine import Engine
from hummingbird.policy import Policy
from hummingbird.telemetry.stats import Reader, Snapshot
from hummingbird.topology import Topology


def summarise(engine: Engine, seconds: float) -> dict[str, Any]:
    """Everything a run can say of itself, from one snapshot.

    Returns:
        A dictionary for JSON: counts in packets and bytes, latencies in microseconds.
        ``balance`` is received + created - sent - dropped - in flight, each counted for itself.
    """
    assert engine.running is not None
    topology, policy = engine.running.topology, engine.running.policy
    reader = engine.reader()
    snapshot = reader.snapshot()
    ports = {p.name: _port(topology, p.name, reader, snapshot) for p in topology.ports}
    received = sum(p.get("received", 0) for p in ports.values())
    sent = sum(p.get("sent", 0) for p in ports.values())
    created = int(snapshot.nodes["created"].sum())
    dropped = _by_reason(snapshot.drops.sum(axis=0))
    return {
        "seconds": seconds,
        "device": _device(engine, snapshot),
        "received": received,
        "created": created,
        "sent": sent,
        "dropped": dropped,
        "in_flight": snapshot.in_flight,
        "balance": received + created - sent - sum(dropped.values()) - snapshot.in_flight,
        "ports": ports,
        "nfs": {nf.name: _nf(engine, nf.name, reader, snapshot, received) for nf in topology.nfs},
        "types": _types(topology, policy, snapshot),
        "alerts": _alerts(engine.alerts()),
        "policy_version": engine.version,
    }


def _by_reason(counts: Iterable[int]) -> dict[str, int]:
    return {name: int(n) for (name, _), n in zip(reasons(), counts, strict=True) if n}


def _port(topology: Topology, name: str, reader: Reader, snapshot: Snapshot) -> dict[str, Any]:
    index = topology.nodes.index(name)
    spec = next(port for port in topology.ports if port.name == name)
    node = snapshot.nodes[index]
    port: dict[str, Any] = {"driver": spec.driver}
    if spec.params.ingress:
        port |= {"received": int(node["in_packets"]), "received_bytes": int(node["in_bytes"])}
    if spec.params.egress:
        port |= {"sent": int(node["out_packets"]), "sent_bytes": int(node["out_bytes"])}
        port["latency_us"] = _latency(reader, snapshot, index)
    port["dropped"] = _by_reason(snapshot.drops[index])
    return port


def _nf(
    engine: Engine, name: str, reader: Reader, snapshot: Snapshot, received: int
) -> dict[str, Any]:
    assert engine.running is not None and engine.placement is not None
    index = engine.running.topology.nodes.index(name)
    node = snapshot.nodes[index]
    packets = int(node["in_packets"])
    return {
        "runs_on": engine.placement.engines[name],
        "packets": packets,
        "bytes": int(node["in_bytes"]),
        "share": packets / received if received else 0.0,
        "passed": int(node["out_packets"]),
        "retyped": int(node["retyped"]),
        "dropped": int(node["dropped"]),
        "drops": _by_reason(snapshot.drops[index]),
        "latency_us": _latency(reader, snapshot, index),
    }


def _latency(reader: Reader, snapshot: Snapshot, index: int) -> dict[str, float | None]:
    histogram = snapshot.latency[index]
    return {
        name: reader.percentile_us(histogram, fraction)
        for name, fraction in (("p50", 0.5), ("p99", 0.99))
    }


def _device(engine: Engine, snapshot: Snapshot) -> dict[str, Any]:
    choice, session = engine.choice, engine.session
    if choice.device is None or session is None:
        return {"name": None, "runtime": None, "tier": None, "executor": None}
    lanes = int(session.config.lanes)
    rows = int(snapshot.lcores["rows"].sum())
    packets = int(snapshot.lcores["row_packets"].sum())
    return {
        "name": choice.device.name,
        "runtime": f"{choice.device.platform}, {choice.device.runtime}",
        "tier": choice.tier,
        "executor": choice.executor,
        "is_cpu": choice.device.is_cpu,
        "binding": session.binding,
        "dialect": session.dialect,
        "state": engine.plane.device_state(),
        "launches": int(snapshot.device["launches"]),
        "failures": int(snapshot.device["failures"]),
        "resident_groups": int(snapshot.device["resident"]),
        "rows": rows,
        "row_packets": packets,
        "dummy_packets": rows * lanes - packets,
        "copied_bytes": int(snapshot.device["copied_bytes"]),
    }


def _types(topology: Topology, policy: Policy, snapshot: Snapshot) -> dict[str, Any]:
    paths = {name: routes[0].nodes for name, routes in policy.paths().items() if routes}
    for routes in policy.paths().values():
        for route in routes:
            for branch in route.branches:
                paths.setdefault(branch.type, branch.nodes)
    return {
        name: {
            "packets": int(snapshot.ended[number].sum()),
            "sent": int(snapshot.ended[number][0]),
            "dropped": int(snapshot.ended[number][1]),
            "path": list(paths.get(name, ())),
        }
        for number, name in enumerate(topology.types)
    }


def _alerts(found: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    alerts: dict[str, dict[str, int]] = {}
    for nf, rule, hits in found:
        alerts.setdefault(nf, {})[rule] = hits
    return alerts


# ---- for people -----------------------------------------------------------------------------------


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Print a summary."""
    console.print()
    console.print(_paths_table(summary))
    console.print(_nfs_table(summary))
    if summary["alerts"]:
        console.print(_alerts_table(summary))
    console.print(_device_line(summary["device"]), highlight=False)
    console.print(_balance_line(summary), highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        name = column.removesuffix(">")
        table.add_column(name, justify="right" if column.endswith(">") else "left")
    return table


def _paths_table(summary: Mapping[str, Any]) -> Table:
    table = _table("Paths", "type", "packets>", "sent>", "dropped>", "path")
    for name, entry in summary["types"].items():
        path = " -> ".join(entry["path"])
        table.add_row(name, *(f"{entry[k]:,}" for k in ("packets", "sent", "dropped")), path)
    return table


def us(value: float | None) -> str:
    """A latency for people."""
    if value is None:
        return "-"
    return f"{value / 1000:,.1f} ms" if value >= 10_000 else f"{value:,.1f} us"


def _nfs_table(summary: Mapping[str, Any]) -> Table:
    table = _table(
        "Network functions", "nf", "on", "packets>", "share>", "re-typed>", "p50>", "p99>", "dropped"
    )
    for name, nf in summary["nfs"].items():
        latency = nf["latency_us"]
        table.add_row(
            name,
            nf["runs_on"],
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


def _alerts_table(summary: Mapping[str, Any]) -> Table:
    table = _table("Alerts", "nf", "rule", "packets>")
    for nf, rules in summary["alerts"].items():
        for rule, hits in rules.items():
            table.add_row(nf, rule, f"{hits:,}")
    return table


def _device_line(device: Mapping[str, Any]) -> str:
    if device["name"] is None:
        return "Device: none, all network functions ran on the CPU"
    note = " (a CPU playing the GPU)" if device["is_cpu"] else ""
    return (
        f"Device: {device['name']}{note}, {device['executor']} executor, tier {device['tier']}, "
        f"{device['binding']}; {device['rows']:,} rows, {device['dummy_packets']:,} dummy packets, "
        f"{device['launches']:,} launches"
    )


def _balance_line(summary: Mapping[str, Any]) -> str:
    dropped = sum(summary["dropped"].values())
    ok = "balanced" if summary["balance"] == 0 else f"OFF BY {summary['balance']}"
    return (
        f"Packets: received {summary['received']:,} + created {summary['created']:,} = "
        f"sent {summary['sent']:,} + dropped {dropped:,} "
        f"({drops_text(summary['dropped'])}) + in flight {summary['in_flight']:,}: {ok}"
    )
