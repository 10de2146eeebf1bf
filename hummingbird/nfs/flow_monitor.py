# SPDX-License-Identifier: BSD-3-Clause
"""flow_monitor: counts the packets of each flow and exports what it counted when the flow ends, as
IPFIX and as CSV. ``cl_kernels/nf/flow_monitor.cl`` describes the state, docs/flow_monitor.md the
parameters and what is exported."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, HostContext, Nf, NfHost, NfParams, NfTable
from hummingbird.nfs.flow_monitor_collector import parse_place
from hummingbird.nfs.flow_monitor_ipfix import Times

STATE = np.dtype(
    [
        ("packets", "<u8", 2),
        ("octets", "<u8", 2),
        ("first", "<u8", 2),
        ("last", "<u8", 2),
        ("due", "<u8"),
        ("flags", "<u4", 2),
        ("about", "<u4"),
        ("unused", "<u4"),
    ]
)
"""Of one flow, as the packet function has it."""
NS = 1_000_000_000


class FlowMonitorParams(NfParams):
    """Parameters of ``type: flow_monitor``."""

    collector: str | None = None
    """``HOST:PORT`` of an IPFIX collector, UDP. This or ``csv`` is needed."""
    csv: str | None = None
    """File that a line is added to for each flow."""
    active_timeout: Annotated[float, Field(ge=1, le=1_000_000)] | None = None
    """Seconds between the records of a flow that goes on; left out: only one, at its end."""
    biflows: bool = True
    """One IPFIX record for both directions (RFC 5103); ``false``: one for each."""
    timestamps: Times = "milliseconds"
    """Unit of IPFIX's flow start and end."""
    domain: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 1
    """IPFIX's observation domain."""
    mtu: Annotated[int, Field(ge=576, le=65535)] = 1500
    """Bytes of the largest IP packet to the collector."""


def build(params: FlowMonitorParams, context: BuildContext) -> NfTable:
    """Check the parameters; the table is the active timeout."""
    field = f"nfs.{context.name}"
    if params.collector is None and params.csv is None:
        raise UserError(
            "its records would go nowhere",
            field=field,
            fix="write collector: HOST:PORT, csv: FILE, or both",
        )
    if params.collector is not None:
        _check_place(params.collector, f"{field}.collector")
    if params.csv is not None and not (context.base / params.csv).parent.is_dir():
        raise UserError(
            f"no folder {(context.base / params.csv).parent}",
            field=f"{field}.csv",
            fix="make it, or name a file elsewhere",
        )
    every = int((params.active_timeout or 0) * NS)
    return NfTable(np.array([every], dtype="<u8").view(np.uint8))


def _check_place(text: str, field: str) -> None:
    try:
        parse_place(text)
    except ValueError as error:
        raise UserError(
            str(error),
            field=field,
            fix='write HOST:PORT, such as 192.0.2.7:4739 or "[2001:db8::7]:4739"',
        ) from None


def _host(params: FlowMonitorParams, table: NfTable, context: HostContext) -> NfHost:
    from hummingbird.nfs.flow_monitor_host import FlowMonitorHost

    return FlowMonitorHost(params, context)


NF = Nf(
    name="flow_monitor",
    kind=10,
    params=FlowMonitorParams,
    build=build,
    host=_host,
    flow_state=STATE,
)
