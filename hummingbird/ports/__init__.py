# SPDX-License-Identifier: BSD-3-Clause
"""Port drivers: one module per driver says what a topology may write about such a port.

A driver knows nothing of NFs. Its parameters have the units of the data plane's structs (api.h).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationInfo
from pydantic_core import PydanticCustomError

from hummingbird.dataplane.plane import Dataplane

NAMES = ("af_packet", "af_xdp", "dpdk", "generator", "pcap", "sink", "tap")


class PortParams(BaseModel):
    """Base of every driver's parameters; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def ingress(self) -> bool:
        """Packets come in here: the port is a ``current_nf`` of the route policy."""
        return False

    @property
    def egress(self) -> bool:
        """Packets leave here: the port is a ``next_nf``."""
        return False

    @property
    def queue_count(self) -> int:
        """Queues of the interface; each is served by one lcore."""
        return 1

    @property
    def watched(self) -> str | None:
        """Name of the network interface whose state the port depends on."""
        return None

    @property
    def owned(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Addresses that the port answers ARP and neighbour solicitations for."""
        return ()

    def reads(self) -> list[Path]:
        """Files that packets come from."""
        return []

    def writes(self) -> list[Path]:
        """Files that are replaced."""
        return []

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True)
class Port:
    """One kind of port."""

    name: str
    params: type[PortParams]
    attach: Callable[[Dataplane, Sequence[int], Any], int]
    """Adds a port with these parameters to a data plane, each queue on its lcore; returns its node
    number."""
    makes_interface: bool = False
    """The interface is the port's own: if it is deleted, the port makes it again."""


def load(name: str) -> Port:
    """The driver called ``name`` in a topology's ``driver:``; KeyError if there is none."""
    if name not in NAMES:
        raise KeyError(name)
    port = import_module(f"hummingbird.ports.{name}").PORT
    assert isinstance(port, Port)
    return port


# --- Kinds of fields ------------------------------------------------------------------------------


def mistake(what: str, fix: str) -> PydanticCustomError:
    """What a validator raises so that the user reads what is wrong and how to mend it."""
    return PydanticCustomError("mistake", "{what}", {"what": what, "fix": fix})


SUFFIXES = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def _scaled(value: Any) -> Any:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([kMG]?)", str(value))
    if match is None or isinstance(value, bool):
        raise mistake(f"{str(value)[:40]!r} is no number", "write a number such as 10, 10k or 1.5M")
    number, suffix = match.groups()
    scaled = float(number) * SUFFIXES[suffix]
    return int(scaled) if scaled.is_integer() else scaled


Whole = Annotated[int, Strict()]
"""An integer; neither ``true`` nor ``"1"``."""
Count = Annotated[int, BeforeValidator(_scaled), Field(ge=0, lt=1 << 63)]
"""A whole number, also with a suffix: 10k, 1M."""
Rate = Annotated[float, BeforeValidator(_scaled), Field(ge=0.001, le=1e9)]
"""Packets per second, also with a suffix."""


def _resolve(value: Any, info: ValidationInfo) -> Path:
    """The path that a topology names: relative to it; ``$in`` and ``$out`` from the command line.

    The context has "base", a directory, and "bindings", the files by name or None, which leaves
    ``$in`` and ``$out`` as they are.
    """
    if not isinstance(value, str) or not value:
        raise mistake(f"{str(value)[:40]!r} is no file name", "write the name of a file")
    context: Mapping[str, Any] = info.context or {}
    if not value.startswith("$"):
        return Path(context.get("base", "."), value)
    bindings = context.get("bindings")
    name = value[1:]
    if name not in ("in", "out"):
        raise mistake(f"there is no {value[:40]!r}", "write $in, $out or the name of a file")
    if bindings is None:
        return Path(value)
    if name not in bindings:
        raise mistake(f"{value} is not given", f"name a file on the command line: --{name} FILE")
    return Path(bindings[name])


def is_unbound(path: Path) -> bool:
    """True for ``$in`` and ``$out`` while no file is bound to them."""
    return str(path) in ("$in", "$out")


def readable(path: Path, fix: str = "correct the name, which is relative to this file") -> Path:
    """`path` if a file can be read there; `fix` is what to do if there is none."""
    if not os.path.exists(path):  # unlike Path.exists() it bears any name
        raise mistake(f"no such file: {path}", fix)
    if os.path.isdir(path) or not os.access(path, os.R_OK):
        raise mistake(f"{path} cannot be read", "name a file that can be read")
    return path


def _input(value: Any, info: ValidationInfo) -> Path:
    path = _resolve(value, info)
    if is_unbound(path):
        return path
    return readable(path, f"correct --{value[1:]}") if value[0] == "$" else readable(path)


def _output(value: Any, info: ValidationInfo) -> Path:
    path = _resolve(value, info)
    if is_unbound(path):
        return path
    if not os.path.isdir(path.parent):
        raise mistake(f"no such directory: {path.parent}", "make it, or name another file")
    written = path if os.path.exists(path) else path.parent
    if os.path.isdir(path) or not os.access(written, os.W_OK):
        raise mistake(f"{path} cannot be written", "name a file that can be written")
    return path


InputFile = Annotated[Path, BeforeValidator(_input)]
"""A file that exists and can be read."""
OutputFile = Annotated[Path, BeforeValidator(_output)]
"""A file that can be made or replaced."""
