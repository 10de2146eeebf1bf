# SPDX-License-Identifier: BSD-3-Clause
"""What telemetry has to know of a run to put names on its counters."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from hummingbird import logs
from hummingbird.telemetry.stats import Reader

SHOW_S = 1.0
"""Readers in other processes learn of a change that is not told of after this long at most."""
BRIEF_S = 0.05
"""Changes may follow each other this fast before those between are left out."""

MOST = 1 << 62
"""Numbers of a view are less."""

PORT = "port"
"""What a node that is no NF runs on."""
PYTHON = "python"
"""Engine of an NF that has a thread of its own beside the lcores."""


@dataclass(frozen=True)
class Node:
    """A port or an NF; its number is its place in View.nodes."""

    name: str
    on: str
    """PORT, ``cpu`` or ``gpu``."""
    driver: str = ""
    """Of a port."""
    engine: str = ""
    """Of an NF: ``gpu``, ``cpu``, the library that runs it, or PYTHON."""
    ingress: bool = False
    egress: bool = False
    lcores: tuple[int, ...] = ()
    """That serve it."""


@dataclass(frozen=True)
class View:
    """A run, as its telemetry sees it. All but the reader stands in the run directory, too."""

    name: str
    """Of the instance."""
    title: str
    """The topology's file name."""
    pid: int
    reader: Reader
    nodes: tuple[Node, ...]
    cpus: tuple[int, ...]
    """Of the lcores; -1: not pinned."""
    samples: bool
    """Latency samples and busy times are taken."""
    queue: int
    """Packets that may wait before a node on each lcore that serves it."""
    paths: Mapping[str, tuple[str, ...]]
    """Names of the nodes that packets of a type pass; by type, in the order of type numbers."""
    device: Mapping[str, Any]
    """What is known of the device beside its counters: name, runtime, tier, executor, and so on."""
    lanes: int
    """Of the device's rows; 0 without a device."""
    policy_version: int
    state: str
    """``running``; ``draining``: nothing is taken in; ``drained``: nothing is in flight either."""
    details: Mapping[str, Mapping[str, Any]]
    """What ports and NFs have to say of themselves, by name; in other processes of ports only."""

    def to_json(self) -> str:
        """Everything but the reader."""
        kept = [field.name for field in fields(self) if field.name not in ("reader", "nodes")]
        data = {name: getattr(self, name) for name in kept}
        return json.dumps(data | {"nodes": [asdict(node) for node in self.nodes]})

    @classmethod
    def from_json(cls, text: str, reader: Reader) -> View:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError, KeyError, AttributeError, RecursionError: it is none, or one of
                other counters than the reader's.
        """
        data = json.loads(text)
        _check(data, reader)
        nodes = [Node(**{**node, "lcores": tuple(node["lcores"])}) for node in data.pop("nodes")]
        data["paths"] = {name: tuple(path) for name, path in data["paths"].items()}
        return cls(reader=reader, nodes=tuple(nodes), **{**data, "cpus": tuple(data["cpus"])})


def _check(data: Mapping[str, Any], reader: Reader) -> None:
    """Whoever reads a file does not know who has written it."""
    nodes, cpus, device = data["nodes"], data["cpus"], data["device"]
    sizes = (len(nodes), len(cpus), len(data["paths"]))
    names = [data["name"], data["title"], data["state"], *chain(*data["paths"].values())]
    names += [node[name] for node in nodes for name in ("name", "on", "driver", "engine")]
    numbers = [data[name] for name in ("pid", "queue", "lanes", "policy_version")]
    numbers += [cpu + 1 for cpu in cpus]
    described = {"name", "runtime", "tier", "executor"}
    if device["name"] is not None:
        described |= {"is_cpu", "binding", "dialect", "state"}
    if not (
        sizes == (reader.nodes, reader.lcores, reader.types)
        and all(isinstance(name, str) for name in names)
        and all(isinstance(number, int) and 0 <= number < MOST for number in numbers)
        and all(node["on"] != PORT or node["ingress"] or node["egress"] for node in nodes)
        and all(0 <= lcore < reader.lcores for node in nodes for lcore in node["lcores"])
        and all(isinstance(about, dict) for about in data["details"].values())
        and described <= device.keys()
    ):
        raise ValueError("no view, or one of other counters")


class ViewFile:
    """A view in the run directory, for readers in other processes: replaced as a whole whenever it
    has changed."""

    def __init__(self, path: Path, look: Callable[[], View]) -> None:
        """Nothing is written yet.

        Args:
            path: the file.
            look: makes the view as it is now.
        """
        self._path = path
        self._look = look
        self._written = ""
        self._failed = False
        self._at = -math.inf
        """When it was last looked whether the view has changed, time.monotonic()."""
        self._stale = False
        """It has changed since."""

    def changed(self) -> None:
        """Show it now; of many changes in short time the last at the next poll()."""
        if time.monotonic() - self._at > BRIEF_S:
            self.show()
        else:
            self._stale = True

    def poll(self) -> None:
        """Show what has changed since."""
        if self._stale or time.monotonic() - self._at > SHOW_S:
            self.show()

    def show(self) -> None:
        """Make the view what stands there. Where it cannot be written that is said once, and tried
        again and again."""
        self._at, self._stale = time.monotonic(), False
        try:
            self._write(self._look().to_json())
        except OSError as error:
            if not self._failed:
                what = f"other programs do not see what has changed: {error.strerror}"
                logs.warning("not_shown", what, fix="make room in the run directory")
            self._failed = True
        else:
            self._failed = False

    def _write(self, text: str) -> None:
        if text == self._written:
            return
        new = self._path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self._path)
        self._written = text
