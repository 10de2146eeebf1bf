# SPDX-License-Identifier: BSD-3-Clause
"""af_packet: any Ethernet interface, by packet sockets; the kernel copies each packet once on its
way in and once on its way out.

    wan: {driver: af_packet, interface: eth1, queues: 2}

With several ``queues`` the kernel gives each flow to one of as many sockets. The kernel's own
network stack sees the packets, too: give the interface no IP address. See docs/ports.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from hummingbird.dataplane.plane import Dataplane
from hummingbird.ports import Port
from hummingbird.ports.interface import InterfaceParams


class AfPacketParams(InterfaceParams):
    """Nothing but what every interface has."""

    def __str__(self) -> str:
        return f"{super().__str__()}, the kernel copies each packet once"


def attach(plane: Dataplane, lcores: Sequence[int], params: AfPacketParams) -> int:
    """Add it to a data plane.

    Raises:
        UserError: there is no such Ethernet interface, or no right to its packets.
    """
    return plane.add_af_packet(lcores, params.interface, params.queues)


PORT = Port(name="af_packet", params=AfPacketParams, attach=attach)
