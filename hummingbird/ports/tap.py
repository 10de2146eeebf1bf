# SPDX-License-Identifier: BSD-3-Clause
"""tap: an Ethernet interface that the run makes, brings up and takes along when it ends; what this
machine sends there comes in at the port.

    t0: {driver: tap, interface: hb0}

A system call and a copy by the kernel for each packet. See docs/ports.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from hummingbird.dataplane.plane import Dataplane
from hummingbird.ports import Port
from hummingbird.ports.interface import InterfaceParams


class TapParams(InterfaceParams):
    """Nothing but what every interface has."""

    def __str__(self) -> str:
        return f"{super().__str__()}, made by the run, the kernel copies each packet once"


def attach(plane: Dataplane, lcores: Sequence[int], params: TapParams) -> int:
    """Add it to a data plane: makes the interface.

    Raises:
        UserError: no right to make one, or the name is taken.
    """
    return plane.add_tap(lcores, params.interface, params.queues)


PORT = Port(name="tap", params=TapParams, attach=attach, makes_interface=True)
