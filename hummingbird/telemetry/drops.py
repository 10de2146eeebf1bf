# SPDX-License-Identifier: BSD-3-Clause
"""What to do about drops, by reason. What each means: HB_DROP_REASONS in dataplane/api.h."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hummingbird.dataplane.plane import reasons

FIXES: dict[str, str] = {
    "no_route_row": "a row of the route policy for this type, from this node: hummingbird explain",
    "no_mbuf": "raise memory.mbufs, or find what holds them: hummingbird top",
    "ring_full": "that lcore is behind: spread cores:, or take load off (hummingbird top)",
    "node_full": "this NF is behind (hummingbird top); on a CPU: a faster engine:, or more cores:; "
    "on the device: more groups:; in Python: less work there",
    "too_long": "memory.frame_size: 4096, or a smaller MTU at both ends",
    "bad_result": "hummingbird devices --fresh; if it stays, device: {use: none} and report it",
    "device_lost": "hummingbird devices --fresh, and the kernel's log: dmesg",
    "port_error": "hummingbird doctor; for a capture: room on its disk",
    "port_full": "a faster interface, more queues:, or less traffic to it",
    "port_down": "bring the interface up: ip link set NAME up",
    "no_room": "less headers, or memory.frame_size: 4096",
    "seq_exhausted": "give both ends of the security association new keys",
    "seq_unsaved": "make room on the disk of /var/lib/hummingbird",
    "python_error": "mend the function: the log has its mistake and line",
    "flows_full": "raise memory.flows, shorten flows.timeouts, or flows: {when_full: evict}",
    "no_neighbour": "the next hop has to answer ARP; or write its address in neighbours:",
    "no_port": "more addresses or ports in the pool of the NAT",
    "no_backend": "a backend for the service whose weight is not 0",
    "shutdown": "they were in flight for 10 s: find the NF that is slow (hummingbird top)",
}
"""What the operator can change. Reasons that are not here are the packets' own fault, or what an
NF was told to do."""


def fix_of(reason: str) -> str | None:
    """What to do about it; None: it is meant so, or lies with whoever sent the packets."""
    return FIXES.get(reason)


@dataclass(frozen=True)
class Drops:
    """Packets that were dropped at a node for a reason."""

    node: int
    reason: str
    meaning: str
    packets: int
    """Since it was last said if it goes on, else since the start of the run."""
    more: bool
    """It is not news, it goes on."""


FIRST_AGAIN_S, LAST_AGAIN_S = 60.0, 3600.0
"""Drops that go on are said again after the one, then twice as long, up to the other."""


class DropWatch:
    """Sees drops begin, and go on."""

    def __init__(self) -> None:
        self._names = reasons()
        self._said: dict[tuple[int, int], tuple[int, float, float]] = {}
        """By node and reason: the count then, when that was, and how long to say nothing."""

    def look(self, counts: Iterator[tuple[int, int, int]], now: float) -> Iterator[Drops]:
        """What there is to say.

        Args:
            counts: node, reason and packets so far, of those that are not 0.
            now: time.monotonic().
        """
        for node, reason, count in counts:
            before, at, quiet = self._said.get((node, reason), (0, 0.0, 0.0))
            if count < before:  # a new run in this process
                before, quiet = 0, 0.0
            if count == before or now < at + quiet:
                continue
            more = quiet > 0 and now < at + 2 * quiet
            again = min(2 * quiet, LAST_AGAIN_S) if more else FIRST_AGAIN_S
            self._said[node, reason] = (count, now, again)
            yield Drops(node, *self._names[reason], packets=count - before * more, more=more)
