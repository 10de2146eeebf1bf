# SPDX-License-Identifier: BSD-3-Clause
"""What happened over the time of a run, in a bounded number of points.

A run begins with a point each FIRST_S. Whenever there are POINTS of them, neighbours become one
and from then on points last twice as long: a week has as many as a minute. A rate of a point is the
mean over its time, so rate times time is what was counted, however often points have been joined.
When the instance starts anew, so do its counters, and with them all that stands here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hummingbird.telemetry.status import Meter
from hummingbird.telemetry.view import View

POINTS = 600
FIRST_S = 0.1
LOOK_S = 1.0
"""Levels, such as packets in flight, are read at least this often."""

Key = tuple[str, str | int]
"""A series and, where there are several of it, which."""

RATES = ("received_pps", "sent_pps", "received_gbps", "sent_gbps")


@dataclass
class Point:
    """Means over a time."""

    seconds: float
    values: dict[Key, float | None]

    def joined(self, later: Point) -> Point:
        """Both as one."""
        seconds = self.seconds + later.seconds
        keys = self.values | later.values
        return Point(seconds, {key: self._mean(later, key, seconds) for key in keys})

    def _mean(self, later: Point, key: Key, seconds: float) -> float | None:
        missing = 0.0 if key[0] == "dropped_pps" else None  # a reason that had not come up yet
        mine, other = self.values.get(key, missing), later.values.get(key, missing)
        if mine is None or other is None:
            return mine if other is None else other
        return (mine * self.seconds + other * later.seconds) / seconds


class History:
    """Looks at a run now and then."""

    def __init__(self, view: View) -> None:
        """Time begins when the counters did."""
        self._due = 0.0
        self._begin(view)

    def _begin(self, view: View) -> None:
        self._meter = Meter(view)
        self._started = view.reader.started
        self._points: list[Point] = []
        self._open: Point | None = None
        """Not as long as it shall become."""
        self._width = FIRST_S

    def look(self, view: Callable[[], View]) -> None:
        """Take a measure if it is time for one; cheap if not."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + min(self._width, LOOK_S)
            self.take(view())

    def take(self, view: View) -> None:
        """Take a measure."""
        if view.reader.started != self._started:
            self._begin(view)
        self.add(self._meter.measure(view))

    def add(self, status: Mapping[str, Any]) -> None:
        """Take in what a Meter has measured."""
        point = Point(status["interval_s"], _values(status))
        self._open = self._open.joined(point) if self._open else point
        if self._open.seconds < 0.9 * self._width:  # no clock is exact
            return
        self._points.append(self._open)
        self._open = None
        if len(self._points) >= POINTS:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [a.joined(b) for a, b in pairs]
            # no shorter than those there are: the loop that feeds this may be slower than FIRST_S
            mean = sum(point.seconds for point in self._points) / len(self._points)
            self._width = max(2 * self._width, mean)

    def series(self) -> dict[str, Any]:
        """For JSON: ``t`` is when each point ends, in seconds from the start."""
        points = list(self._points)
        if self._open and points and self._open.seconds < self._width / 2:
            points[-1] = points[-1].joined(self._open)  # a rate over so little says nothing
        elif self._open:
            points.append(self._open)
        t, end = [], 0.0
        for point in points:
            end += point.seconds
            t.append(end)

        def values(name: str, which: str | int = "") -> list[float | None]:
            missing = 0.0 if name == "dropped_pps" else None
            return [point.values.get((name, which), missing) for point in points]

        seen = dict.fromkeys(key for point in points for key in point.values)
        reasons = [which for name, which in seen if name == "dropped_pps"]
        lcores = max((int(which) + 1 for name, which in seen if name == "lcore_busy"), default=0)
        real, dummy = values("slots_real_per_s"), values("slots_dummy_per_s")
        return {
            "t": t,
            **{name: values(name) for name in RATES},
            "dropped_pps": {reason: values("dropped_pps", reason) for reason in reasons},
            "in_flight": values("in_flight"),
            "lcore_busy": [values("lcore_busy", number) for number in range(lcores)],
            "device": {
                "rows_per_s": values("rows_per_s"),
                "fill": [_share(a, b) for a, b in zip(real, dummy, strict=True)],
            },
        }


def _values(status: Mapping[str, Any]) -> dict[Key, float | None]:
    values: dict[Key, float | None] = {(name, ""): status["rates"][name] for name in RATES}
    values["in_flight", ""] = status["totals"]["in_flight"]
    for node in (*status["ports"].values(), *status["nfs"].values()):
        for reason, rate in node["drops_pps"].items():
            values["dropped_pps", reason] = rate + (values.get(("dropped_pps", reason)) or 0.0)
    for number, lcore in enumerate(status["lcores"]):
        values["lcore_busy", number] = lcore["busy"]
    for name in ("rows_per_s", "slots_real_per_s", "slots_dummy_per_s"):
        values[name, ""] = status["device"][name] if status["device"] else None
    return values


def _share(real: float | None, dummy: float | None) -> float | None:
    """Of slots, how many had a packet; None where there were none."""
    return (
        real / (real + dummy) if real is not None and dummy is not None and real + dummy else None
    )
