# SPDX-License-Identifier: BSD-3-Clause
"""What telemetry has to know of a run to put names on its counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hummingbird.telemetry.stats import Reader


@dataclass(frozen=True)
class Node:
    """A port or an NF; its number is its place in View.nodes."""

    name: str
    on: str
    """``port``, ``cpu`` or ``gpu``."""
    driver: str = ""
    """Of a port."""
    engine: str = ""
    """Of an NF: ``gpu``, ``cpu``, or the library that runs it."""
    ingress: bool = False
    egress: bool = False


@dataclass(frozen=True)
class View:
    """A run, as its telemetry sees it."""

    title: str
    reader: Reader
    nodes: tuple[Node, ...]
    paths: Mapping[str, tuple[str, ...]]
    """Names of the nodes that packets of a type pass; by type, in the order of type numbers."""
    device: Mapping[str, Any]
    """What is fixed about the device: name, runtime, tier, executor, and so on."""
    lanes: int
    """Of the device's rows; 0 without a device."""
    policy_version: int
    details: Mapping[str, Mapping[str, Any]]
    """What NFs have to say of themselves, by name."""
