# SPDX-License-Identifier: BSD-3-Clause
"""sink: counts every packet and drops it; the far end of a benchmark. It has no parameters."""

from __future__ import annotations

from collections.abc import Sequence

from hummingbird.dataplane.plane import Dataplane
from hummingbird.ports import Port, PortParams


class SinkParams(PortParams):
    """No parameters."""

    @property
    def egress(self) -> bool:
        return True

    def __str__(self) -> str:
        return "counts and drops"


def attach(plane: Dataplane, lcores: Sequence[int], params: SinkParams) -> int:
    """Add it to a data plane."""
    return plane.add_sink(lcores[0])


PORT = Port(name="sink", params=SinkParams, attach=attach)
