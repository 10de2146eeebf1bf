# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird run --report FILE`: watches a run, and at its end writes what there is to say of it.

What goes in is what the topology and the route policy say, and counters; no file that an NF reads
is opened for it, so no keys can get in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hummingbird import outputs
from hummingbird.engine import Engine, Wanted
from hummingbird.errors import UserError
from hummingbird.telemetry import machine
from hummingbird.telemetry.history import History
from hummingbird.telemetry.stats import Counts, bucket_ticks
from hummingbird.telemetry.status import Meter
from hummingbird.telemetry.view import View
from hummingbird.web.report import render

VERSION = 1
HIDDEN = "(not shown)"
_SECRET = re.compile(
    r"(^|[_-])(secrets?|password|passwd|passphrase|tokens?|credentials?|psk|private|keys?)($|[_-])"
)
_FILE = re.compile(r"[_-](file|path|dir)$")


class RunReport:
    """The report of one run."""

    def __init__(self, path: Path, engine: Engine, files: Mapping[str, Path]) -> None:
        """Begin when the engine has started.

        Args:
            path: the file to write.
            engine: what runs.
            files: what the topology calls ``$in`` and ``$out``.
        """
        self._path = path
        self._engine = engine
        self._files = files
        self._history = History(engine.view())
        self._data: dict[str, Any] = {}

    def look(self) -> None:
        """Many times a second; mostly does nothing."""
        self._history.look(self._engine.view)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Take in the end, when the engine has stopped and is not closed yet."""
        self._data = self._collect(summary)

    def write(self) -> None:
        """Write it.

        Raises:
            UserError: it cannot be written; nothing is left of it, and a file that was there
                before is as it was.
        """
        try:
            outputs.write(self._path, render(self._data))
        except OSError as error:
            what = f"cannot write the report: {error.strerror}"
            raise UserError(what, path=self._path, fix="make room, or name another file") from error

    def _collect(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        view, running = self._engine.view(), self._engine.running
        assert running is not None
        self._history.take(view)
        return {
            "v": VERSION,
            "status": Meter(view).measure(view),
            "series": self._history.series(),
            "latency": latency(view),
            "settings": settings(running, self._files),
            "machine": machine.describe(view.device["runtime"]),
            "summary": summary,
        }


def latency(view: View) -> dict[str, Any]:
    """The distributions: microseconds (the middle of a bucket) and samples, where there are any."""
    now = view.reader.snapshot()

    def buckets(histogram: Counts) -> list[list[float]]:
        per_us = view.reader.ticks_per_second / 1e6
        return [
            [bucket_ticks(int(b)) / per_us, int(histogram[b])] for b in np.flatnonzero(histogram)
        ]

    nfs = [(index, node.name) for index, node in enumerate(view.nodes) if node.on != "port"]
    return {
        "nfs": {name: buckets(now.latency[index]) for index, name in nfs},
        "chains": {name: buckets(now.chain_latency[n]) for n, name in enumerate(view.paths)},
    }


def settings(running: Wanted, files: Mapping[str, Path]) -> dict[str, Any]:
    """The topology as it was read, the rows of the route policy, and where they lie."""
    topology, policy = running.topology, running.policy
    named = {"topology": topology.path, "route policy": policy.path}
    named |= {f"${name}": path for name, path in files.items()}
    return {
        "files": {name: str(path) for name, path in named.items()},
        "topology": without_secrets(topology.yaml.data),
        "policy": [
            {"line": row.line, "packet_type": row.type, "current_nf": row.node, "next_nf": row.next}
            for row in policy.rows.values()
        ],
    }


def without_secrets(value: Any, name: str = "") -> Any:
    """A part of a topology without what its name says is secret. Hummingbird's own NFs have secrets
    in files alone; what users give to NFs of their own, nobody knows."""
    if _SECRET.search(name.lower()) and not _FILE.search(name.lower()):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): without_secrets(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]
    return value
