# SPDX-License-Identifier: BSD-3-Clause
"""The counters of an instance as Prometheus wants them: FAMILIES says which there are.

All are totals and levels as they stand in shared memory, never rates: whoever scrapes, and however
many do, gets the right ones. Labels are names of the topology and reasons that are compiled in, so
there are at most as many series as `most_series` says, whatever packets come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import exposition as text_format
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as open_metrics
from prometheus_client.registry import Collector as CollectorOf
from prometheus_client.utils import floatToGoString

from hummingbird import __version__
from hummingbird.dataplane._native import lib
from hummingbird.dataplane.plane import reasons
from hummingbird.telemetry.stats import Counts, Snapshot, bucket_ticks
from hummingbird.telemetry.view import Node, View

# fmt: off
LATENCY_BOUNDS_S = (
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4,
    1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0,
)
# fmt: on
"""Upper bounds of the buckets of latencies."""

Labels = tuple[str, ...]
Values = Iterator[tuple[Labels, Any]]


@dataclass
class Own:
    """What the web server counts of itself."""

    requests: int = 0
    refused: int = 0
    measurements: int = 0


@dataclass(frozen=True)
class Histogram:
    """Samples by bucket, the last of which has no upper bound."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    """One more than bounds."""
    total: float
    """Sum of all samples."""

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus has them: samples up to each bound."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, map(float, np.cumsum(self.counts)), strict=True))


@dataclass(frozen=True)
class Now:
    """An instance at one moment."""

    view: View
    snapshot: Snapshot

    def nodes(self, wanted: Callable[[Node], bool]) -> Iterator[tuple[int, Node]]:
        """Number and node."""
        return ((i, node) for i, node in enumerate(self.view.nodes) if wanted(node))

    def count(self, field: str, wanted: Callable[[Node], bool]) -> Values:
        """A counter of nodes."""
        for index, node in self.nodes(wanted):
            yield (node.name,), int(self.snapshot.nodes[index][field])

    def lcore_sum(self, field: str) -> Values:
        """A counter of lcores, summed."""
        yield (), int(self.snapshot.lcores[field].sum())

    def seconds(self, ticks: int) -> float:
        """How long."""
        return ticks / self.view.reader.ticks_per_second

    @cached_property
    def _bucket(self) -> npt.NDArray[np.intp]:
        """The place in LATENCY_BOUNDS_S of each bucket in shared memory: the first bound that none
        of its samples exceeds."""
        most = [self.seconds(_most_ticks(b)) for b in range(lib.HB_HIST_BUCKETS)]
        return np.searchsorted(LATENCY_BOUNDS_S, most)

    @cached_property
    def _middle_s(self) -> npt.NDArray[np.float64]:
        ticks = np.array([bucket_ticks(b) for b in range(lib.HB_HIST_BUCKETS)])
        return ticks / self.view.reader.ticks_per_second

    def latency(self, samples: Counts) -> Histogram:
        """A histogram in seconds of one in ticks."""
        size = len(LATENCY_BOUNDS_S) + 1
        counts = np.bincount(self._bucket, weights=samples.astype(float), minlength=size)
        total = float(samples.astype(float) @ self._middle_s)
        return Histogram(LATENCY_BOUNDS_S, tuple(map(int, counts)), total)


def _most_ticks(bucket: int) -> int:
    """The most that a bucket holds (api.h, "counters")."""
    if bucket < 16:
        return bucket
    exponent, mantissa = divmod(bucket, 16)
    return ((17 + mantissa) << (exponent - 1)) - 1


# ---- who has it ----------------------------------------------------------------------------------


def _any(node: Node) -> bool:
    return True


def _receives(node: Node) -> bool:
    return node.on == "port" and node.ingress


def _sends(node: Node) -> bool:
    return node.on == "port" and node.egress


def _answers(node: Node) -> bool:
    return _receives(node) and _sends(node)


def _is_nf(node: Node) -> bool:
    return node.on != "port"


def _has_latency(node: Node) -> bool:
    return _is_nf(node) or node.egress


# ---- values that are more than a counter --------------------------------------------------------


def _instance(now: Now) -> Values:
    yield (now.view.name, now.view.title), 1


def _node_info(now: Now) -> Values:
    for node in now.view.nodes:
        yield (node.name, node.on, node.driver or node.engine), 1


def _drops(now: Now) -> Values:
    names = [name for name, _ in reasons()]
    for index, node in now.nodes(_any):
        for reason, name in enumerate(names):
            if reason:  # the first is "none"
                yield (node.name, name), int(now.snapshot.drops[index][reason])


def _busy(now: Now) -> Values:
    for labels, ticks in now.count("busy_ticks", _any):
        yield labels, now.seconds(ticks)


def _node_lcores(now: Now) -> Values:
    for _, node in now.nodes(_any):
        yield (node.name,), len(node.lcores)


def _room(now: Now) -> Values:
    for _, node in now.nodes(_has_latency):  # all but those that packets only come from
        yield (node.name,), now.view.queue * len(node.lcores)


def _node_latency(now: Now) -> Values:
    for index, node in now.nodes(_has_latency):
        yield (node.name,), now.latency(now.snapshot.latency[index])


def _chain_latency(now: Now) -> Values:
    for number, name in enumerate(now.view.paths):
        yield (name,), now.latency(now.snapshot.chain_latency[number])


def _ended(which: int) -> Callable[[Now], Values]:
    def values(now: Now) -> Values:
        for number, name in enumerate(now.view.paths):
            yield (name,), int(now.snapshot.ended[number][which])

    return values


def _lcores(field: str) -> Callable[[Now], Values]:
    def values(now: Now) -> Values:
        for number, lcore in enumerate(now.snapshot.lcores):
            yield (str(number),), int(lcore[field])

    return values


def _lcore_busy(now: Now) -> Values:
    for labels, ticks in _lcores("busy_ticks")(now):
        yield labels, now.seconds(ticks)


def _device_info(now: Now) -> Values:
    device = now.view.device
    yield tuple(str(device[label] or "-") for label in _DEVICE_LABELS), 1


_DEVICE_LABELS = ("name", "runtime", "tier", "executor", "binding")


def _dummies(now: Now) -> Values:
    lcores = now.snapshot.lcores
    yield (), int(lcores["rows"].sum()) * now.view.lanes - int(lcores["row_packets"].sum())


def _device(field: str) -> Callable[[Now], Values]:
    def values(now: Now) -> Values:
        yield (), int(now.snapshot.device[field])

    return values


def _hangs(now: Now) -> Values:
    yield (), int(now.view.device["state"] == "hangs")


def _batch(now: Now) -> Values:
    lcores = now.snapshot.lcores
    rows = lcores["batch"].sum(axis=0)
    bounds = tuple(float(2 ** (b + 1) - 1) for b in range(len(rows) - 1))
    yield (), Histogram(bounds, tuple(map(int, rows)), float(lcores["row_packets"].sum()))


# ---- all there are -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A metric, as it is named here and said in docs/metrics.md."""

    name: str
    """Without ``_total`` and ``_info``."""
    kind: str
    """``counter``, ``gauge``, ``histogram`` or ``info``."""
    text: str
    labels: Labels
    values: Callable[[Now], Values]

    @property
    def full_name(self) -> str:
        """As it is scraped."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


def _of(field: str, wanted: Callable[[Node], bool]) -> Callable[[Now], Values]:
    return lambda now: now.count(field, wanted)


def _one(value: Callable[[Now], float]) -> Callable[[Now], Values]:
    return lambda now: iter([((), value(now))])


# fmt: off
FAMILIES = (
    Family("hummingbird_instance", "info", "The instance and its topology.",
           ("name", "topology"), _instance),
    Family("hummingbird_start_time_seconds", "gauge", "When it started, in Unix time.",
           (), _one(lambda now: now.view.reader.started)),
    Family("hummingbird_route_policy_version", "gauge",
           "Version of the route policy: 1 at the start, then one more a reload that changes it.",
           (), _one(lambda now: now.view.policy_version)),
    Family("hummingbird_in_flight_packets", "gauge", "Packets in it now, counted for themselves.",
           (), _one(lambda now: now.snapshot.in_flight)),
    # ports
    Family("hummingbird_port_received_packets", "counter", "Packets that came in.",
           ("port",), _of("in_packets", _receives)),
    Family("hummingbird_port_received_bytes", "counter", "Their bytes, without FCS.",
           ("port",), _of("in_bytes", _receives)),
    Family("hummingbird_port_missed_packets", "counter",
           "Packets that interface or kernel dropped before they could be received.",
           ("port",), _of("missed", _receives)),
    Family("hummingbird_port_answered_packets", "counter",
           "Of those received, questions for its addresses that the port answered itself.",
           ("port",), _of("answered", _answers)),
    Family("hummingbird_port_sent_packets", "counter", "Packets that were sent.",
           ("port",), _of("out_packets", _sends)),
    Family("hummingbird_port_sent_bytes", "counter", "Their bytes, without FCS.",
           ("port",), _of("out_bytes", _sends)),
    # network functions
    Family("hummingbird_nf_received_packets", "counter", "Packets that came to it.",
           ("nf",), _of("in_packets", _is_nf)),
    Family("hummingbird_nf_received_bytes", "counter", "Their bytes, without FCS.",
           ("nf",), _of("in_bytes", _is_nf)),
    Family("hummingbird_nf_passed_packets", "counter", "Packets that it did not drop.",
           ("nf",), _of("out_packets", _is_nf)),
    Family("hummingbird_nf_passed_bytes", "counter", "Their bytes as it left them, without FCS.",
           ("nf",), _of("out_bytes", _is_nf)),
    Family("hummingbird_nf_retyped_packets", "counter", "Packets that it gave another type.",
           ("nf",), _of("retyped", _is_nf)),
    Family("hummingbird_created_packets", "counter", "Packets that it made, such as fragments.",
           ("node",), _of("created", _any)),
    # ports and network functions
    Family("hummingbird_node", "info", "Ports and NFs: port, cpu or gpu, and the driver or engine.",
           ("node", "on", "by"), _node_info),
    Family("hummingbird_dropped_packets", "counter", "Packets dropped here, by reason.",
           ("node", "reason"), _drops),
    Family("hummingbird_node_busy_seconds", "counter",
           "Time in which it had something to do, summed over its lcores.", ("node",), _busy),
    Family("hummingbird_node_lcores", "gauge", "Lcores that serve it.", ("node",), _node_lcores),
    Family("hummingbird_node_queue_packets", "gauge",
           "Packets that waited before it when its lcores last looked.",
           ("node",), _of("depth", _has_latency)),
    Family("hummingbird_node_queue_limit_packets", "gauge",
           "Packets that may wait before it; more are dropped as node_full.", ("node",), _room),
    Family("hummingbird_node_latency_seconds", "histogram",
           "NF: from when a packet came to it until it had answered. Output port: from receipt "
           "until sent. A sample a burst.", ("node",), _node_latency),
    # packet types
    Family("hummingbird_chain_sent_packets", "counter", "Packets of a type that were sent.",
           ("chain",), _ended(0)),
    Family("hummingbird_chain_dropped_packets", "counter", "Packets of a type that were dropped.",
           ("chain",), _ended(1)),
    Family("hummingbird_chain_latency_seconds", "histogram",
           "From receipt until sent, by packet type. A sample a burst.",
           ("chain",), _chain_latency),
    # lcores
    Family("hummingbird_lcore_busy_seconds", "counter",
           "Time in passes that found something to do.", ("lcore",), _lcore_busy),
    Family("hummingbird_lcore_passes", "counter",
           "Times that it looked at all its nodes; one that stands still hangs.",
           ("lcore",), _lcores("passes")),
    Family("hummingbird_lcore_sleeps", "counter", "Times that it slept because all was quiet.",
           ("lcore",), _lcores("sleeps")),
    # flows
    Family("hummingbird_flow_hits", "counter", "Packets of flows that were known.",
           (), lambda now: now.lcore_sum("flow_hits")),
    Family("hummingbird_flow_misses", "counter", "Packets of flows that were not.",
           (), lambda now: now.lcore_sum("flow_misses")),
    Family("hummingbird_tracked_flows", "gauge",
           "Flows that have a state now; 0 where no NF has state of flows.",
           (), lambda now: now.lcore_sum("flows_live")),
    Family("hummingbird_flow_evictions", "counter",
           "Flows that had to go because others needed their place. Without tracked flows that is "
           "harmless: they are matched with the types anew.",
           (), lambda now: now.lcore_sum("flow_evictions")),
    Family("hummingbird_flow_refused_packets", "counter",
           "Packets of new flows for which there was no place.",
           (), lambda now: now.lcore_sum("flow_refusals")),
)

DEVICE = (
    Family("hummingbird_device", "info", "The device that runs GPU NFs, and how.",
           _DEVICE_LABELS, _device_info),
    Family("hummingbird_device_rows", "counter", "Rows given to it.",
           (), lambda now: now.lcore_sum("rows")),
    Family("hummingbird_device_real_slots", "counter", "Slots of these rows that held a packet.",
           (), lambda now: now.lcore_sum("row_packets")),
    Family("hummingbird_device_dummy_slots", "counter", "Slots of these rows that held none.",
           (), _dummies),
    Family("hummingbird_device_row_packets", "histogram", "Packets of a row.", (), _batch),
    Family("hummingbird_device_launches", "counter",
           "Kernels launched: by the persistent executor when one has ended and there is work, by "
           "the launch executor for each batch of rows.", (), _device("launches")),
    Family("hummingbird_device_failures", "counter", "Launches that ended in an error.",
           (), _device("failures")),
    Family("hummingbird_device_resident_groups", "gauge",
           "Workgroups that ran at once at the last launch.", (), _device("resident")),
    Family("hummingbird_device_copied_bytes", "counter",
           "Bytes copied to it and from it, where it shares no memory.",
           (), _device("copied_bytes")),
    Family("hummingbird_device_starved_passes", "counter",
           "Times that packets had to wait because no row was free.",
           (), lambda now: now.lcore_sum("starved")),
    Family("hummingbird_device_quarantined_packets", "gauge",
           "Packets never given back because the device hangs.",
           (), lambda now: now.lcore_sum("quarantined")),
    Family("hummingbird_device_hangs", "gauge", "1: it hangs and was given up.", (), _hangs),
)
"""Only where there is a device."""
# fmt: on
SAMPLED = frozenset(
    f"hummingbird_{name}"
    for name in ("node_busy_seconds", "node_latency_seconds", "chain_latency_seconds")
)
"""Only where samples are taken (telemetry.latency)."""

OWN: Mapping[str, tuple[str, str]] = {
    "hummingbird_web_requests": ("requests", "Requests that were answered."),
    "hummingbird_web_refused_requests": ("refused", "Requests that were none, or not allowed."),
    "hummingbird_web_measurements": ("measurements", "Times that shared memory was read."),
}
"""Counters of the web server itself: field of Own, and text."""
UP = ("hummingbird_up", "1: the instance runs; 0: it does not, and nothing is known of it.")
BUILD = ("hummingbird_build", "The version of 'hummingbird web'.")


class Collector(CollectorOf):
    """All metrics of one moment, for prometheus_client."""

    def __init__(self, now: Now | None, own: Own) -> None:
        """Args: ``now``, None if the instance does not run; ``own``, counts of the server."""
        self._now = now
        self._own = own

    def collect(self) -> Iterator[Metric]:
        """Each metric with its samples."""
        yield GaugeMetricFamily(*UP, value=int(self._now is not None))
        yield InfoMetricFamily(*BUILD, value={"version": __version__})
        for name, (field, text) in OWN.items():
            yield CounterMetricFamily(name, text, value=getattr(self._own, field))
        if self._now is None:
            return
        for family in families(self._now):
            metric = _metric(family, self._now)
            if metric.samples:  # no port answers anything, say
                yield metric


def families(now: Now) -> Iterator[Family]:
    """Those that this instance has something to say to: one without a source is not there."""
    for family in FAMILIES + (DEVICE if now.view.device["name"] is not None else ()):
        if now.view.samples or family.name not in SAMPLED:
            yield family


def _metric(family: Family, now: Now) -> Metric:
    labels = family.labels
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.text, labels=labels)
        for values, value in family.values(now):
            histogram.add_metric(values, value.cumulative(), value.total)
        return histogram
    if family.kind == "info":
        info = InfoMetricFamily(family.name, family.text, labels=[])
        for values, _ in family.values(now):
            info.add_metric([], dict(zip(labels, values, strict=True)))
        return info
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name, family.text, labels=labels)
    for values, value in family.values(now):
        metric.add_metric(values, value)
    return metric


def most_series(nodes: int, types: int, lcores: int) -> int:
    """How many series there are at most with so many nodes, packet types and lcores."""
    of_label = {"chain": types, "lcore": lcores, "reason": len(reasons()) - 1}
    most = 2 + len(OWN)
    for family in FAMILIES + DEVICE:
        labels = family.labels[:1] if family.kind == "info" else family.labels
        series = math.prod(of_label.get(label, nodes) for label in labels)
        bounds = {"hummingbird_device_row_packets": lib.HB_BATCH_BUCKETS - 1}
        extra = bounds.get(family.name, len(LATENCY_BOUNDS_S)) + 3  # +Inf, sum, count
        most += series * extra if family.kind == "histogram" else series
    return most


# ---- as text -------------------------------------------------------------------------------------

Render = Callable[[Collector], bytes]
_open_metrics: Render = open_metrics.generate_latest


TEXT: tuple[str, Render] = (
    "text/plain; version=0.0.4; charset=utf-8",
    text_format.generate_latest,
)
OPEN_METRICS: tuple[str, Render] = (
    open_metrics.CONTENT_TYPE_LATEST,
    _open_metrics,
)
