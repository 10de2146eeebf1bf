# SPDX-License-Identifier: BSD-3-Clause
"""What telemetry has to know of a run to put names on its counters."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hummingbird.telemetry.stats import Reader

PYTHON = "python"
"""Engine of an NF that has a thread of its own beside the lcores."""


@dataclass(frozen=True)
class Node:
    """A port or an NF; its number is its place in View.nodes."""

    name: str
    on: str
    """``port``, ``cpu`` or ``gpu``."""
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
        """The inverse of `to_json`; ValueError or TypeError: it is none."""
        data = json.loads(text)
        nodes = [Node(**{**node, "lcores": tuple(node["lcores"])}) for node in data.pop("nodes")]
        data["paths"] = {name: tuple(path) for name, path in data["paths"].items()}
        return cls(reader=reader, nodes=tuple(nodes), **{**data, "cpus": tuple(data["cpus"])})


class ViewFile:
    """A view in the run directory, for readers in other processes: replaced as a whole whenever it
    has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = ""

    def write(self, view: View) -> None:
        """Make ``view`` what stands there."""
        text = view.to_json()
        if text == self._written:
            return
        new = self._path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self._path)
        self._written = text
