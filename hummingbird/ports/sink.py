# SPDX-License-Identifier: BSD-3-Clause
"""sink: counts every packet and drops it; the far end of a benchmark.

    out0: {driver: sink}
"""

from __future__ import annotations

from hummingbird.ports import Port, PortParams


class SinkParams(PortParams):
    """No parameters."""

    @property
    def egress(self) -> bool:
        return True

    def __str__(self) -> str:
        return "counts and drops"


PORT = Port(name="sink", params=SinkParams)
