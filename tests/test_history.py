# SPDX-License-Identifier: BSD-3-Clause
"""What a run's report knows of its past: as many points for a week as for a minute, and no packet
more or less than were counted.

statuses, one a second, for a week ── History ── series
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from chain import ipv4, line, started

from hummingbird.telemetry.history import POINTS, History


def status(seconds: float, received: int, drops: dict[str, int], rows: int) -> dict[str, Any]:
    """What a Meter says of an interval."""
    rates = {"received_pps": received / seconds, "sent_pps": 0.0}
    return {
        "interval_s": seconds,
        "rates": {**rates, "received_gbps": 0.0, "sent_gbps": 0.0},
        "totals": {"in_flight": received},
        "lcores": [{"busy": 0.5}],
        "ports": {"in0": {"drops_pps": {}}},
        "nfs": {"nf0": {"drops_pps": {name: n / seconds for name, n in drops.items()}}},
        "device": {
            "rows_per_s": rows / seconds,
            "slots_real_per_s": 16 * rows / seconds,
            "slots_dummy_per_s": 48 * rows / seconds,
        },
    }


def spans(series: dict[str, Any]) -> list[float]:
    """How long each point lasted."""
    return [b - a for a, b in zip([0.0, *series["t"]], series["t"], strict=False)]


def counted(series: dict[str, Any], values: list[float]) -> float:
    """Rates times the time they held for."""
    return sum(rate * span for rate, span in zip(values, spans(series), strict=True))


@pytest.fixture
def history() -> History:
    """Of a run of no packets."""
    topology, rows = line("cpu")
    with started(topology, [], rows) as run:
        made = History(run.engine.view())
        run.wait()
        run.stop()
    return made


def test_a_week_has_as_many_points_as_a_minute(history: History) -> None:
    """10,080 minutes of ragged intervals: bounded, evenly spread, and nothing is lost; a reason
    that comes up on the last day has a past of zeros; no rows: no fill."""
    rng = random.Random(7)
    received = policy = late = 0
    time = 0.0
    for minute in range(7 * 24 * 60):
        seconds = rng.uniform(30, 90)
        packets, bad = rng.randrange(1000), rng.randrange(10)
        drops = {"policy": bad} | ({"ttl_expired": 5} if minute >= 9000 else {})
        history.add(status(seconds, packets, drops, rows=0 if minute < 5000 else packets))
        time += seconds
        received += packets
        policy += bad
        late += drops.get("ttl_expired", 0)
    series = history.series()
    assert POINTS / 4 <= len(series["t"]) <= POINTS
    assert series["t"][-1] == pytest.approx(time)
    assert max(spans(series)[:-1]) < 2.5 * min(spans(series)[:-1])
    assert counted(series, series["received_pps"]) == pytest.approx(received)
    assert counted(series, series["dropped_pps"]["policy"]) == pytest.approx(policy)
    assert counted(series, series["dropped_pps"]["ttl_expired"]) == pytest.approx(late)
    assert series["dropped_pps"]["ttl_expired"][0] == 0.0
    lists = [series["in_flight"], *series["lcore_busy"], *series["device"].values()]
    assert {len(values) for values in lists} == {len(series["t"])}
    assert series["device"]["fill"][0] is None
    assert series["device"]["fill"][-1] == pytest.approx(0.25)
    assert all(busy == pytest.approx(0.5) for busy in series["lcore_busy"][0])


def test_a_short_run_has_points_too() -> None:
    """in0 -> nf0 -> out0, with looks that come faster than points do."""
    topology, rows = line("cpu")
    packets = [ipv4("10.0.0.1", "10.9.9.9", 17, bytes(22))] * 500
    with started(topology, packets, rows) as run:
        history = History(run.engine.view())
        run.until(lambda: history.look(run.engine.view) or run.engine.plane.finished())
        run.stop()
        history.take(run.engine.view())
    series = history.series()
    assert series["t"]
    assert counted(series, series["received_pps"]) == pytest.approx(len(packets))
    assert counted(series, series["sent_pps"]) == pytest.approx(len(packets))


def test_an_instance_that_started_anew() -> None:
    """Two runs into one history, as when a topology is reloaded: the second one's is its own, like
    its counters."""
    topology, rows = line("cpu")
    packets = [ipv4("10.0.0.1", "10.9.9.9", 17, bytes(22))] * 100
    with started(topology, packets, rows) as first:
        history = History(first.engine.view())
        first.wait()
        history.take(first.engine.view())
        first.stop()
    topology, rows = line("cpu", "cpu")
    with started(topology, packets, rows) as second:
        second.wait()
        history.take(second.engine.view())
        result = second.stop()
    series = history.series()
    assert counted(series, series["received_pps"]) == pytest.approx(len(packets))
    assert series["t"][-1] <= result.summary["seconds"] + 1
