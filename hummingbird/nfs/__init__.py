# SPDX-License-Identifier: BSD-3-Clause
"""Network functions: one module per NF turns parameters into a table; the packet function is in
``cl_kernels/nf/<name>.cl``. An NF knows neither its neighbours nor which device runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from hummingbird.dataplane._native import ffi

if TYPE_CHECKING:
    from hummingbird.dataplane.plane import Dataplane

KERNELS = Path(__file__).resolve().parent.parent
KERNELS = (KERNELS if (KERNELS / "cl_kernels").is_dir() else KERNELS.parent) / "cl_kernels"
"""Where the device code lies: beside the package in a checkout, inside it when installed."""


class Reads(IntEnum):
    """What the packet function looks at (HB_READS_* of api.h)."""

    HEADER = 0
    PACKET = 1


class Writes(IntEnum):
    """What it changes (HB_WRITES_* of api.h)."""

    NOTHING = 0
    HEADER = 1
    PACKET = 2


class Affinity(IntEnum):
    """Which packets must meet on one lcore: none; all of the NF's (one key: IPsec's SA); those of a
    flow, of which no two are in the NF at once (any NF with state of flows)."""

    NONE = 0
    KEY = 1
    FLOW = 2


class NfParams(BaseModel):
    """Base of every NF's parameters in the topology; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class BuildContext:
    """What a build may look at besides its parameters."""

    name: str
    """Name of the NF instance, for error messages."""
    base: Path
    """Directory that relative paths in the topology start from."""
    types: Mapping[str, int]
    """Packet type numbers by name."""


@dataclass(frozen=True)
class NfTable:
    """What a build returns."""

    data: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))
    """The table, as the packet function's accessors see it (host byte order)."""
    rules: list[str] = field(default_factory=list)
    """Names of the counters that the NF's finish() keeps, such as intrusion rules."""
    notes: list[str] = field(default_factory=list)
    """What `hummingbird check` and the start of a run say, such as "3 rules skipped"."""
    local_off: int = 0
    """The part of the table that a device keeps in local memory: bytes from its start ..."""
    local_bytes: int = 0
    """... and how many; multiples of 16."""
    extra: Any = None
    """What the NF's host part needs besides."""

    def __post_init__(self) -> None:
        """A device copies the local part in steps of 16 bytes."""
        assert self.local_off % 16 == 0 and self.local_bytes % 16 == 0
        assert self.local_off + self.local_bytes <= self.data.size


@dataclass(frozen=True)
class HostContext:
    """What an NF's host part is given at the start of a run."""

    name: str
    """Name of the NF instance."""
    base: Path
    """Directory that relative paths in the topology start from."""
    types: Mapping[str, int]
    """Packet type numbers by name."""
    table: npt.NDArray[np.uint8]
    """The table where data plane and device read it; see Dataplane.tables_changed()."""
    state: Path
    """Directory for what has to survive a restart; made by whoever writes there."""
    watch: bool
    """Files that the NF has read are to be read again when they change."""
    nodes: Sequence[str] = ()
    """Names of ports and NFs by node."""


class NfHost:
    """What an NF instance has on the host while it runs. This one has nothing.

    All methods are called by the control thread.
    """

    pointer: Any = ffi.NULL
    """hb_nf.host."""
    rereads: bool = False
    """It can read its files again while it runs: see read_again()."""

    def attach(self, plane: Dataplane, node: int) -> None:
        """The node exists, nothing runs yet."""

    def poll(self) -> None:
        """Called some 20 times a second while it runs, and once when all lcores have ended."""

    def read_again(self) -> str:
        """Apply its files as they are now; returns what has changed, in a line.

        Raises:
            UserError: a mistake in them, which changes nothing.
        """
        raise NotImplementedError

    def flow(self, state: np.void) -> dict[str, Any]:
        """What `hummingbird flows` shows of a flow whose state this is."""
        return {name: state[name].tolist() for name in state.dtype.names or ()}

    def report(self) -> dict[str, Any]:
        """What the summary shows under ``nfs.<name>.detail``."""
        return {}

    def stop(self) -> bool:
        """All lcores have ended: let go of the data plane's memory. False: something still uses it,
        so it must never be freed."""
        return True

    def close(self) -> None:
        """The data plane is gone; called once, also after a failed start."""


MOST_FLOW_BYTES = 256  # HB_STATE_MOST of hummingbird.h


def _no_table(params: Any, context: BuildContext) -> NfTable:
    return NfTable()


@dataclass(frozen=True)
class Nf:
    """One kind of NF and what it declares about itself (design section 7)."""

    name: str
    kind: int = 0
    """Number in HB_NF_KINDS of hummingbird.h; one from FIRST_OWN up for a user's NF."""
    params: type[NfParams] = NfParams
    build: Callable[[Any, BuildContext], NfTable] = _no_table
    content_types: Callable[[Any], list[str]] = lambda params: []
    """Packet types that the NF itself gives to packets."""
    reads: Reads = Reads.HEADER
    writes: Writes = Writes.NOTHING
    head: int = 0
    """Bytes it may add in front of a packet."""
    tail: int = 0
    """Bytes it may add behind."""
    flow_state: np.dtype[Any] | None = None
    """What it knows of each flow, as the packet function's hb_state32() and hb_state64() index it:
    a multiple of 8 bytes, at most 256."""
    affinity: Affinity = Affinity.NONE
    host: Callable[[Any, NfTable, HostContext], NfHost] = lambda params, table, context: NfHost()
    engines: Mapping[str, str] = field(default_factory=dict)
    """CPU engines besides ``cpu``, and what to do where one is not built in."""
    source: Path | None = None
    """Its packet function, if that is not cl_kernels/nf/<name>.cl."""
    native: int = 0
    """Address of its hb_nf_kind, if that is not compiled in (hb_nf.code)."""
    peer: bool = False
    """It has no packet function but a thread of its own (dataplane/peer.h)."""

    @property
    def flow_bytes(self) -> int:
        """Bytes of its state of each flow; 0 if it has none."""
        return self.flow_state.itemsize if self.flow_state is not None else 0

    @property
    def code(self) -> Path:
        """The file of its packet function."""
        return self.source or KERNELS / "nf" / f"{self.name}.cl"

    def __post_init__(self) -> None:
        """Staged copies bring only what is read: no whole packet is written from a part of it."""
        if self.writes is Writes.PACKET and self.reads is not Reads.PACKET:
            raise ValueError(f"NF {self.name} writes packets that it does not declare to read")
        if self.flow_bytes % 8 or self.flow_bytes > MOST_FLOW_BYTES:
            raise ValueError(f"NF {self.name}: a flow_state is 8, 16, ... {MOST_FLOW_BYTES} bytes")
        if self.flow_bytes and self.affinity is Affinity.NONE:
            object.__setattr__(self, "affinity", Affinity.FLOW)


NAMES = (
    "forward",
    "router",
    "nids",
    "ipsec",
    "firewall",
    "load_balancer",
    "nat",
    "flow_monitor",
)
"""NFs with a packet function in cl_kernels/nf."""
TYPES = (*NAMES, "python")
"""What ``type:`` offers besides the file of a user's NF."""
FIRST_OWN = 128
"""Kind of the first user's NF of a topology; those behind it follow."""


def load(name: str) -> Nf:
    """The NF called ``name`` in a topology's ``type:``; KeyError if there is none."""
    if name not in TYPES:
        raise KeyError(name)
    nf = import_module(f"hummingbird.nfs.{name}").NF
    assert isinstance(nf, Nf)
    return nf
