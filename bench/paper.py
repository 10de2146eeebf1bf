# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmarks of the Hummingbird paper's figures share: its NFs, packet sizes and axes.

The NFs are those of section V: IPsec (AES-128-CBC and HMAC-SHA1), NIDS (Aho-Corasick, 147
patterns), router (DIR-24-8). Throughput counts packets as they come in: what ESP adds is no gain.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import chains
from harness import Reading, Result, make_logarithmic

DEMO = chains.POLICIES / "demo"
RULES = Path(__file__).resolve().parent / "nids147.rules"

SIZES = {64: 60, 256: 256, 1024: 1024, 1472: 1472}
"""Packet sizes of the paper, bytes, and what a generator is asked for, which is without FCS: a
packet of 64 bytes has 60 there; for the others the 4 bytes make no difference."""
SIZE_NOTE = (
    "64 B are 60 and the FCS; the other sizes are without it. Gbit/s count packets as sent in."
)


def tunnel(key_file: str) -> dict[str, Any]:
    """Parameters of an ipsec NF that sends everything through one tunnel."""
    Path(key_file).chmod(0o600)  # which git does not keep
    sa = {"direction": "out", "spi": 0x1001, "src": "198.51.100.1", "dst": "192.0.2.1"}
    sa |= {"cipher": "aes-128-cbc", "auth": "hmac-sha1-96", "key_file": key_file}
    return {"sas": {"gateway": sa}, "policies": [{"action": "gateway"}], "mtu": 1600}


def nf(kind: str, engine: str) -> dict[str, Any]:
    """An NF of the paper as a topology has it.

    Args:
        kind: ``forward``, ``router``, ``nids`` or ``ipsec``.
        engine: ``cpu`` or ``gpu``.
    """
    parameters: dict[str, dict[str, Any]] = {
        "forward": {},
        "router": {
            "mtu": 1600,  # with what ipsec adds to a full packet
            "routes": str(DEMO / "routes.csv"),
            "next_hops": {
                name: {"mac": f"02:00:00:00:01:0{i}", "src_mac": "02:00:00:00:00:01"}
                for i, name in enumerate(("gateway", "servers", "isp", "branch", "core"))
            },
        },
        "nids": {"rules": str(RULES)},
        "ipsec": tunnel(str(DEMO / "ipsec.key")),
    }
    return {"type": kind, "engine": engine, **parameters[kind]}


def one_lcore() -> dict[str, list[int]]:
    """``cores:`` with which one lcore has everything but the device's own threads.

    Where there are only two or three CPUs it is the first: Intel's runtime binds its thread to the
    second, and an lcore beside it on that CPU would have it by turns of 4 ms.
    """
    cpus = sorted(os.sched_getaffinity(0))
    return {"io": [cpus[0]], "syncer": [cpus[0]]}


def chain(
    *steps: tuple[str, str],
    size: int,
    seconds: float,
    cores: dict[str, Any] | None = None,
    **generator: Any,
) -> chains.Run:
    """Run a generator, NFs (kind, engine) one behind the other, and a sink.

    Args:
        steps: the NFs; each kind at most once.
        size: of `SIZES`, or any other frame size without FCS.
        seconds: how long.
        cores: which CPUs; None: `one_lcore`.
        generator: more settings of the generator, such as ``rate``.
    """
    made = chains.generator(SIZES.get(size, size), **generator)
    topology = {
        "ports": {"gen0": made, "sink0": {"driver": "sink"}},
        "nfs": {f"{kind}0": nf(kind, engine) for kind, engine in steps},
        "cores": cores or one_lcore(),
    }
    names = ["gen0", *(f"{kind}0" for kind, _ in steps), "sink0"]
    return chains.run(topology, chains.straight(*names), seconds)


def gbps(run: chains.Run, size: int) -> float:
    """Gbit/s of packets sent, counted with the size with which they came in."""
    return run.mpps * SIZES.get(size, size) * 8 / 1e3


def throughput(run: chains.Run, size: int) -> Reading:
    """Gbit/s, with Mpps and what makes the figure believable."""
    more = {"mpps": run.mpps, "size": size, "dropped": run.summary["dropped"]}
    return Reading(gbps(run, size), {**more, "balance": run.summary.get("balance")})


# ---- pictures ------------------------------------------------------------------------------------


def bars(
    axes: Any, result: Result, groups: Iterable[int], series: Sequence[tuple[str, str]]
) -> None:
    """Grouped bars, medians with a line from low to high.

    Args:
        axes: of matplotlib.
        result: what was measured.
        groups: packet sizes; those that no series has are left out.
        series: label, and name of the case with ``{}`` where the size goes.
    """
    shown = [g for g in groups if any(result.values(case.format(g)) for _, case in series)]
    width = min(0.25, 0.8 / max(len(series), 1))
    for number, (label, case) in enumerate(series):
        for place, group in enumerate(shown):
            values = result.values(case.format(group))
            median = result.median(case.format(group))
            if median is None:
                continue
            spread = [[median - min(values)], [max(values) - median]]
            at = place + (number + 0.5 - len(series) / 2) * width
            axes.bar(
                at, median, width, yerr=spread, color=f"C{number}", ecolor="0.3", capsize=2,
                error_kw={"linewidth": 0.8}, label=label if place == 0 else None,
            )  # fmt: skip
    _size_axis(axes, shown)


def lines(
    axes: Any, result: Result, groups: Iterable[int], series: Sequence[tuple[str, str]]
) -> None:
    """Lines of medians over packet size, spread as error bars: see `bars`. Series come in pairs of
    one colour, the first of them dashed; the axis is logarithmic."""
    shown = [g for g in groups if any(result.values(case.format(g)) for _, case in series)]
    for number, (label, case) in enumerate(series):
        points = [
            (g, result.values(case.format(g))) for g in shown if result.values(case.format(g))
        ]
        middle = [statistics.median(values) for _, values in points]
        low = [m - min(values) for m, (_, values) in zip(middle, points, strict=True)]
        high = [max(values) - m for m, (_, values) in zip(middle, points, strict=True)]
        axes.errorbar(
            [shown.index(g) for g, _ in points], middle, yerr=[low, high], label=label,
            color=f"C{number // 2}", linestyle="-" if number % 2 else "--",
            marker="o" if number % 2 else "s", mfc=None if number % 2 else "white", capsize=2,
        )  # fmt: skip
    _size_axis(axes, shown)
    _log_axis(axes)


def _size_axis(axes: Any, sizes: Sequence[int]) -> None:
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlim(-0.6, max(len(sizes), 1) - 0.4)
    axes.set_xlabel("packet size (bytes)")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _log_axis(axes: Any) -> None:
    """From one power of ten to another, written as plain numbers."""
    if not make_logarithmic(axes):
        return
    low, high = axes.get_ylim()
    axes.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    axes.yaxis.set_major_formatter("{x:g}")


def legend(picture: Any, axes: Any, columns: int) -> None:
    """One legend above the panels, so that it hides no data; room below for the machine's name."""
    handles, labels = axes.get_legend_handles_labels()
    where = {"loc": "outside upper center", "ncols": columns}
    picture.legend(handles, labels, **where, fontsize=8, frameon=False)
    picture.get_layout_engine().set(rect=(0, 0.035, 1, 0.965))


# ---- odds and ends -------------------------------------------------------------------------------


def medians(result: Result, case: str, *keys: str) -> dict[str, float]:
    """Medians over the rounds of what a case has in its samples; empty if there is nothing."""
    found = [sample for sample in result.samples if sample["case"] == case]
    lists = {key: [s[key] for s in found if s.get(key) is not None] for key in keys}
    return {k: statistics.median(v) for k, v in lists.items()} if all(lists.values()) else {}


def pairs(*lists: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    """All combinations."""
    return itertools.product(*lists)
