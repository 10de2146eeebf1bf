# SPDX-License-Identifier: BSD-3-Clause
"""What is served: measured when somebody asks, but not more often than MEASURE_S, and kept as
bytes, so that a thousand requests cost what one does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from hummingbird.errors import UserError
from hummingbird.telemetry.attach import Attached
from hummingbird.telemetry.status import Meter
from hummingbird.telemetry.view import View
from hummingbird.web import metrics
from hummingbird.web.metrics import Now, Own

MEASURE_S = 0.5


def _nothing(_: Any) -> None:
    pass


class Source:
    """An instance that runs, or will, or has; its restart under the same name is found."""

    def __init__(
        self,
        name: str | None,
        *,
        say: Callable[[str], None] = _nothing,
        found: Callable[[View], None] = _nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is looked for before somebody asks.

        Args:
            name: of the instance; None: the first that is the only one that runs.
            say: is told when the instance comes and goes.
            found: is called when it has come.
            clock: seconds.
        """
        self.name = name
        self.own = Own()
        """What this server counts of itself."""
        self._say = say
        self._found = found
        self._clock = clock
        self._attached: Attached | None = None
        self._meter: Meter | None = None
        self._looked: float | None = None
        self._now: Now | None = None
        """None: it does not run."""
        self._why = ""
        """Why not."""
        self._status: dict[str, Any] | None = None
        self._bytes: dict[str, bytes] = {}
        """What has been asked for since the last look, ready to be sent."""

    def status(self) -> tuple[bool, bytes]:
        """Whether the instance runs, and its status as JSON, or why there is none."""
        self.look()
        if "status" not in self._bytes:
            nothing = {"v": 1, "name": self.name, "error": self._why}
            self._bytes["status"] = json.dumps(self._status or nothing).encode() + b"\n"
        return self._status is not None, self._bytes["status"]

    def metrics(self, open_metrics: bool) -> tuple[str, bytes]:
        """Content type and text of the metrics."""
        self.look()
        kind, render = metrics.OPEN_METRICS if open_metrics else metrics.TEXT
        if kind not in self._bytes:
            self._bytes[kind] = render(metrics.Collector(self._now, self.own))
        return kind, self._bytes[kind]

    def close(self) -> None:
        """Let go of the instance."""
        if self._attached:
            self._attached.close()
        self._attached = self._meter = self._now = self._status = None

    def look(self) -> None:
        """See how things are, unless that was seen a moment ago."""
        moment = self._clock()
        if self._looked is not None and moment - self._looked < MEASURE_S:
            return
        self._looked = moment
        self._bytes.clear()
        try:
            self._measure()
        except UserError as error:
            self.close()
            if error.what != self._why:
                self._say(f"waiting: {error.what}")
            self._why = error.what

    def _measure(self) -> None:
        if self._attached and not self._attached.running:
            self.close()
        if not self._attached:
            self._attached = Attached(self.name)
            self.name = self._attached.name
            self._meter = Meter(self._attached.view)
            self._found(self._attached.view)
            self._say(f"serving the instance {self.name}, process {self._attached.view.pid}")
        view = self._attached.view
        assert self._meter is not None
        self.own.measurements += 1
        self._status = self._meter.measure(view)
        self._now = Now(view, view.reader.snapshot())
        self._why = ""
