# SPDX-License-Identifier: BSD-3-Clause
"""Rows of flows that have state, under skew: how full they are, what comes through, and whether a
hot flow keeps the others waiting.

    gen0 ── NF with state, or without (GPU) ── sink0               Zipf 0 to 1.3

    cold0 (1,000 flows, few packets)  ─┐                   ┌─ sink_cold
                                       ├─ NF with state ───┤
    hot0 (one flow, most packets)     ─┘    (GPU)          └─ sink_hot

With state a row has at most one packet of a flow; without, any packets fill it. The two NFs do the
same work (peers/with_state.cl, peers/without_state.cl): one line of memory for each flow.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import chains
import paper
from batches import one_run, seen, spins
from harness import Bench, Case, Limit, Ratio, Reading, Result, Settings, main
from peer import FOLDER
from watched import folder, watched

from hummingbird.opencl.session import LAUNCH, PERSISTENT

ZIPF = (0.0, 1.0, 1.1, 1.2, 1.3)
QUICK_ZIPF = (0.0, 1.1)
FLOWS = 65536
LANES = 64
EXECUTORS = (PERSISTENT, LAUNCH)
KINDS = {"with state": "with_state", "without": "without_state"}
COLD_FLOWS = 1000
COLD_SHARE, HOT_SHARE = 0.02, 1.0
"""Of what the chain carries without skew: what the cold flows offer together, and the hot one."""
WARM_PACKETS = 2000
SETTLE_S = 0.1


def _topology(
    executor: str, ports: Mapping[str, Any], kind: str, **more: Mapping[str, Any]
) -> dict[str, Any]:
    nf = {"type": str(FOLDER / f"{kind}.py"), "engine": "gpu"}
    return {
        "ports": ports,
        "nfs": {"nf0": nf},
        "cores": paper.one_lcore(),
        "device": {"use": "required", "executor": executor, "lanes": LANES},
        "memory": {"flows": 2 * FLOWS},
        **more,
    }


def _run(
    topology: Mapping[str, Any], rows: Sequence[tuple[str, str, str]], warm: int, seconds: float
) -> dict[str, Any]:
    with folder() as at, watched(topology, rows, at, "--profile") as run:
        run.await_packets(warm)
        time.sleep(SETTLE_S)
        before = run.moment()
        time.sleep(seconds)
        after = run.moment()
        stretch = run.stretch(before, after)
        run.stop()
    ended = after.counters.ended - before.counters.ended
    spinning = topology["device"]["executor"] == PERSISTENT and spins()
    found = seen(before, after, stretch, len(topology["ports"]), spinning=spinning)
    return {**found, "ended": ended.tolist(), "seconds": stretch.seconds}


# ---- skew ----------------------------------------------------------------------------------------


def skewed(executor: str, kind: str, zipf: float, seconds: float) -> Reading:
    """As much as comes through, from a source that waits."""
    ports = {"gen0": chains.generator(60, FLOWS, zipf=zipf), "sink0": {"driver": "sink"}}
    rows = chains.straight("gen0", "nf0", "sink0")
    found = _run(_topology(executor, ports, KINDS[kind]), rows, WARM_PACKETS, seconds)
    return Reading(found["mpps_undisturbed"], found)


def _case(executor: str, kind: str, zipf: float) -> str:
    return f"{executor}, Zipf {zipf:g}, {kind}"


def _skew_cases(executor: str, settings: Settings) -> Iterator[Case]:
    for zipf in _zipfs(settings):
        for kind in KINDS:
            name = _case(executor, kind, zipf)
            figures = {name: ("mpps_undisturbed", "Mpps"), f"{name}: row": ("batch", "packets")}
            yield from one_run(partial(skewed, executor, kind, zipf, settings.seconds), figures)


def _zipfs(settings: Settings) -> Sequence[float]:
    return QUICK_ZIPF if settings.quick else ZIPF


# ---- a hot flow ----------------------------------------------------------------------------------

HOT = 1
"""Number of its packet type; all others are 0."""


@functools.cache
def carries(executor: str) -> float:
    """Packets a second without skew, the better of two short runs."""
    return max(skewed(executor, "with state", 0.0, 0.2).value for _ in range(2)) * 1e6


def beside(executor: str, hot: bool, seconds: float) -> Reading:
    """What the cold flows get, with the hot one beside them or with nothing."""
    rate = {"cold0": COLD_SHARE * carries(executor), "hot0": HOT_SHARE * carries(executor)}
    ports: dict[str, Any] = {
        "cold0": chains.generator(60, COLD_FLOWS, rate=round(rate["cold0"])),
        "hot0": chains.generator(60, 1, rate=round(rate["hot0"]) if hot else 1, dst_port=10),
        "sink_hot": {"driver": "sink"},
        "sink_cold": {"driver": "sink"},
    }
    rows = [("*", name, "nf0") for name in rate]
    rows += [("hot", "nf0", "sink_hot"), ("other", "nf0", "sink_cold")]
    types = {"hot": [{"dst_port": 10}]}
    topology = _topology(executor, ports, "with_state", types=types)
    found = _run(topology, rows, WARM_PACKETS, seconds)
    (cold_sent, cold_lost), (hot_sent, hot_lost) = found["ended"][0], found["ended"][HOT]
    found |= {
        "cold_lost": 100 * cold_lost / max(cold_sent + cold_lost, 1),
        "hot_lost": 100 * hot_lost / max(hot_sent + hot_lost, 1),
        "hot_mpps": hot_sent / found["seconds"] / 1e6,
        "offered_mpps": {name: value / 1e6 for name, value in rate.items()},
    }
    return Reading(found["port_p50"] or 0.0, found)


def _cold(executor: str, hot: bool) -> str:
    return f"{executor}, cold flows {'beside a hot one' if hot else 'alone'}"


def _lost(executor: str, hot: bool) -> str:
    return f"{_cold(executor, hot)}: lost"


def _hot_cases(executor: str, settings: Settings) -> Iterator[Case]:
    for hot in (False, True):
        name = _cold(executor, hot)
        figures = {f"{name}: {p}": (f"port_{p}", "us") for p in ("p50", "p99")}
        figures[_lost(executor, hot)] = ("cold_lost", "%")
        if hot:
            figures |= {
                f"{executor}, the hot flow": ("hot_mpps", "Mpps"),
                f"{executor}, the hot flow: lost": ("hot_lost", "%"),
            }
        yield from one_run(partial(beside, executor, hot, settings.seconds), figures)


# ---- the benchmark -------------------------------------------------------------------------------


def cases(settings: Settings) -> Sequence[Case]:
    """By executor: the two NFs over skew, then the hot flow."""
    return [
        case
        for executor in EXECUTORS
        for case in (*_skew_cases(executor, settings), *_hot_cases(executor, settings))
    ]


def _end(executor: str) -> str:
    return "" if executor == PERSISTENT else f"_{executor}"


def ratios(settings: Settings) -> Sequence[Ratio]:
    """With state against without, and cold flows beside a hot one against alone."""
    found = []
    for executor in EXECUTORS:
        end = _end(executor)
        for zipf in _zipfs(settings):
            ours, base = (_case(executor, kind, zipf) for kind in KINDS)
            found.append(Ratio(f"stateful_vs_stateless_zipf_{zipf}{end}", ours, base))
            found.append(Ratio(f"row_fill_zipf_{zipf}{end}", f"{ours}: row", f"{base}: row"))
        for p in ("p50", "p99"):
            with_hot, alone = (f"{_cold(executor, hot)}: {p}" for hot in (True, False))
            found.append(Ratio(f"cold_{p}_beside_hot_vs_alone{end}", with_hot, alone))
    return found


def notes(_: Result) -> Sequence[str]:
    """What the figures mean."""
    return [
        f"{FLOWS:,} flows, 64 B, rows of {LANES}, a source that waits (1,024 packets in flight). "
        "With state a row has at most one packet of a flow, so it takes as many rows as the "
        "hottest flow has packets: rows have 1 / (its share) packets on average, however they are "
        "filled, if that is less than their lanes.",
        "Mpps are by the time that lcore and device (launch: the lcore) had their CPUs: what else "
        "runs on the machine does not count.",
        f"Hot flow: one flow offers {HOT_SHARE:.0%} of what the chain carries without skew, "
        f"{COLD_FLOWS:,} others {COLD_SHARE:.0%} together; neither source waits. Latencies are "
        "from port to port, of the cold flows alone.",
    ]


def plot(result: Result, picture: Any) -> None:
    """Throughput and row fill over skew, and the latency of cold flows."""
    picture.set_size_inches(12, 4)
    rate, fill, cold = picture.subplots(1, 3)
    for number, executor in enumerate(EXECUTORS):
        for style, kind in zip(("o-", "s--"), KINDS, strict=True):
            for axes, end in ((rate, ""), (fill, ": row")):
                points = [(z, result.median(_case(executor, kind, z) + end)) for z in ZIPF]
                known = [point for point in points if point[1] is not None]
                if known:
                    label = f"{executor}, {kind}"
                    axes.plot(*zip(*known, strict=True), style, color=f"C{number}", label=label)
    rate.set(xlabel="Zipf exponent", ylabel="Mpps", ylim=(0, None))
    fill.set(xlabel="Zipf exponent", ylabel="packets a row", ylim=(0, None))
    names = [(e, p, h) for e in EXECUTORS for p in ("p50", "p99") for h in (False, True)]
    cold.bar(
        [f"{e[:6]}\n{p}\n{'hot' if h else 'alone'}" for e, p, h in names],
        [result.median(f"{_cold(e, h)}: {p}") or 0 for e, p, h in names],
        color=["C3" if h else "C2" for _, _, h in names],
    )
    cold.set(yscale="log", ylabel="us, cold flows port to port")
    cold.tick_params(axis="x", labelsize=6)
    for axes in (rate, fill):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)


BENCH = Bench(
    name="flow_skew",
    title="Rows of flows with state under skew, and cold flows beside a hot one",
    cases=cases,
    ratios=ratios,
    plot=plot,
    notes=notes,
    rounds=5,
    seconds=0.5,
    quick_seconds=0.2,
    limits=tuple(Limit(_lost(executor, True), at_most=0.1) for executor in EXECUTORS),
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
