# SPDX-License-Identifier: BSD-3-Clause
"""af_xdp: a network interface by AF_XDP sockets, whose memory is the packets' own.

    lan: {driver: af_xdp, interface: eth0, queues: 2, mode: auto}

``mode`` is ``auto`` (the best of these that works), ``zero-copy`` (the NIC reads and writes packets
where they are), ``native`` (its driver runs the XDP program, the kernel copies once) or ``generic``
(any interface; the kernel runs the program behind the driver, and copies). docs/ports.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hummingbird import logs
from hummingbird.dataplane.plane import Dataplane
from hummingbird.errors import UserError
from hummingbird.ports import Port
from hummingbird.ports.interface import InterfaceParams
from hummingbird.ports.netdev import queues


class AfXdpParams(InterfaceParams):
    """An interface and how XDP uses it."""

    mode: Literal["auto", "zero-copy", "native", "generic"] = "auto"
    """Who runs the XDP program: ``auto`` is the best of the others that works."""


def attach(plane: Dataplane, lcores: Sequence[int], params: AfXdpParams) -> int:
    """Add it to a data plane."""
    has = queues(params.interface)
    if has is not None and has < params.queues:
        raise UserError(
            f"interface {params.interface} has {has} queue{'s' * (has > 1)}, not {params.queues}",
            fix=f"write queues: {has}, or `ethtool -L {params.interface} combined {params.queues}`",
        )
    node = plane.add_af_xdp(lcores, params.interface, params.mode)
    if has is not None and has > params.queues:
        logs.warning(
            "port_queues",
            f"interface {params.interface} has {has} queues and {params.queues} are served: "
            "packets of the others go to the kernel",
            fix=f"queues: {has}, or `ethtool -L {params.interface} combined {params.queues}`",
            subject=params.interface,
        )
    return node


PORT = Port(name="af_xdp", params=AfXdpParams, attach=attach)
