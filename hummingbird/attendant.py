# SPDX-License-Identifier: BSD-3-Clause
"""Looks after a run from its control loop: says what changes its state, and tells systemd that it
is well. All of it is read from the counters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hummingbird import logs
from hummingbird.engine import Engine
from hummingbird.linux.notify import Notifier
from hummingbird.telemetry.drops import Drops, DropWatch, fix_of
from hummingbird.telemetry.stats import Snapshot

LOOK_S = 1.0
"""Between two looks at drops and device."""
STATUS_S = 2.0
"""Between two lines for `systemctl status`."""
STUCK_S = 5.0
"""An lcore that makes no pass for this long is said to be stuck; an idle one makes one every
0.8 ms at least."""
MOST_AWAY_S = 300.0
"""A change of what runs that takes longer is taken for stuck."""


class Attendant:
    """Of one run."""

    def __init__(self, engine: Engine, handler: logs.Handler, notifier: Notifier) -> None:
        """Once packets can flow; tells systemd with the first poll() at which they do."""
        self.engine = engine
        self._handler, self._notifier = handler, notifier
        self._pulse = Pulse()
        self._drops, self._device = DropWatch(), DeviceWatch()
        self._ready = False
        self._away_since: float | None = None
        self._look_at = 0.0
        self._status = _Status()

    def poll(self) -> None:
        """Call it with every turn of the control loop."""
        self._handler.tick()
        now = time.monotonic()
        if now >= self._look_at or self._is_due(now):
            self._look_at = now + LOOK_S
            self._look(self.engine.reader().snapshot(), now)

    def _is_due(self, now: float) -> bool:
        """systemd waits for a word."""
        every = self._notifier.watchdog_s
        return not self._ready or (every is not None and now >= self._pulse.said + every / 2)

    def _look(self, snapshot: Snapshot, now: float) -> None:
        for stuck in self._pulse.look(snapshot.lcores["passes"], now):
            _say_pulse(self.engine, stuck, self._notifier.watchdog_s is not None)
        if not self._ready and snapshot.lcores["passes"].all():
            self._ready, self._away_since = True, None
            self._notifier.ready()
        if self._ready and self._is_due(now) and self._pulse.beats():
            self._pulse.said = now
            self._notifier.alive()
        failures, launches = (int(snapshot.device[name]) for name in ("failures", "launches"))
        self._device.look(failures, launches, self.engine.plane.device_state())
        for drops in self._drops.look(_rising(snapshot), now):
            _say_drops(self.engine, drops)
        if not self._ready or not self._notifier.listening:
            return
        if line := self._status.line(self.engine, snapshot, now):
            self._notifier.status(line)

    def away(self) -> None:
        """Call it instead of poll() while what runs is being replaced: there are no lcores then,
        and it is enough that the control loop turns."""
        self._handler.tick()
        now = time.monotonic()
        if self._away_since is None:
            self._away_since, self._ready = now, False
            self._pulse = Pulse()
            self._notifier.reloading()
        every = self._notifier.watchdog_s
        if now < self._away_since + MOST_AWAY_S and every and now >= self._pulse.said + every / 2:
            self._pulse.said = now
            self._notifier.alive()

    def stopping(self, why: str) -> None:
        """The drain begins."""
        logs.info("draining", f"{why}: draining")
        self._notifier.stopping()
        self._notifier.status(f"{why}: draining")


# ---- lcores --------------------------------------------------------------------------------------


class Pulse:
    """Whether lcores make passes."""

    def __init__(self) -> None:
        self.said = 0.0
        """When systemd was last told that all do."""
        self._passes: list[int] = []
        self._moved: list[float] = []
        """When each lcore was last seen to have moved."""
        self._looked = -STUCK_S
        self._stuck: set[int] = set()

    def look(self, passes: Iterable[int], now: float) -> Iterator[int]:
        """Lcores that are stuck from now on; ``~lcore`` for one that moves again."""
        counts = [int(count) for count in passes]
        if len(counts) != len(self._passes):
            self._passes, self._looked = [-1] * len(counts), -STUCK_S
            self._stuck.clear()
        if now - self._looked >= STUCK_S:  # the process stood still: lcores, too
            self._moved = [now] * len(counts)
        self._looked = now
        for lcore, count in enumerate(counts):
            if count != self._passes[lcore]:
                self._passes[lcore], self._moved[lcore] = count, now
                if lcore in self._stuck:
                    self._stuck.remove(lcore)
                    yield ~lcore
            elif lcore not in self._stuck and now - self._moved[lcore] >= STUCK_S:
                self._stuck.add(lcore)
                yield lcore

    def beats(self) -> bool:
        """All have moved since systemd was last told so."""
        return all(moved > self.said for moved in self._moved)


def _say_pulse(engine: Engine, lcore: int, watched: bool) -> None:
    assert engine.placement is not None
    number = lcore if lcore >= 0 else ~lcore
    cpu = engine.placement.cpus[number]
    fields: dict[str, Any] = {"subject": f"lcore {number}", "cpu": cpu}
    if lcore < 0:
        logs.info("lcore_moves", f"lcore {number} moves on", **fields)
        return
    fix = "an NF of yours that does not return? else report it"
    if watched:
        fix += "; if it stays so, systemd starts the service anew"
    what = f"lcore {number} on CPU {cpu} has made no pass for {STUCK_S:.0f} s: it is stuck"
    logs.error("lcore_stuck", what, fix=fix, **fields)


# ---- drops ---------------------------------------------------------------------------------------


def _rising(snapshot: Snapshot) -> Iterator[tuple[int, int, int]]:
    """Node, reason and count of all that were ever dropped."""
    for node, reason in np.argwhere(snapshot.drops):
        yield int(node), int(reason), int(snapshot.drops[node, reason])


def _say_drops(engine: Engine, drops: Drops) -> None:
    assert engine.running is not None
    name = engine.running.topology.nodes[drops.node]
    begins = "still drops packets" if drops.more else "drops packets"
    what = f"{name} {begins} as {drops.reason}, {drops.meaning}: {drops.packets:,}"
    what += " more" if drops.more else " so far"
    fields: dict[str, Any] = {
        "subject": f"{name} {drops.reason}",
        "node": name,
        "reason": drops.reason,
        "packets": drops.packets,
    }
    fix = fix_of(drops.reason)
    if fix is None:
        logs.info("drops", what, **fields)
    else:
        logs.warning("drops", what, fix=fix, **fields)


# ---- device --------------------------------------------------------------------------------------


class DeviceWatch:
    """Says what happens to the device."""

    def __init__(self) -> None:
        self._failures = self._launches = 0
        """The launches are those at the latest failure."""
        self._lost = self._given_up = False

    def look(self, failures: int, launches: int, state: str) -> None:
        """Look at its counters, and `Dataplane.device_state`."""
        if state == "hangs":
            if not self._given_up:
                self._given_up = True
                logs.error(
                    "device_given_up",
                    "the device hangs and was given up: packets for it are dropped as device_lost",
                    fix="`hummingbird devices --fresh`, then start again",
                )
            return
        if failures < self._failures:  # another run in this process
            self._failures, self._launches, self._lost = 0, 0, False
        if failures > self._failures:
            logs.warning(
                "device_lost",
                f"the device failed {_times(failures - self._failures)}: what it had was dropped "
                "as device_lost; it is launched anew",
                fix="if it comes back: `hummingbird devices --fresh`, and see dmesg",
                failures=failures,
            )
            self._lost, self._launches = True, launches
        elif self._lost and launches > self._launches:
            self._lost = False
            what = f"the device works again, launched anew after {_times(failures)} of failure"
            logs.info("device_recovered", what, failures=failures, launches=launches)
        self._failures = failures


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


# ---- status --------------------------------------------------------------------------------------


class _Status:
    """The line for `systemctl status`."""

    def __init__(self) -> None:
        self._at = 0.0
        self._before: tuple[float, int, int, int] | None = None

    def line(self, engine: Engine, snapshot: Snapshot, now: float) -> str | None:
        """The next one, if it is time."""
        if now < self._at + STATUS_S:
            return None
        self._at = now
        assert engine.running is not None
        ports = engine.running.topology.ports
        received = sum(
            int(snapshot.nodes[i]["in_packets"]) for i, p in enumerate(ports) if p.params.ingress
        )
        sent = sum(
            int(snapshot.nodes[i]["out_packets"]) for i, p in enumerate(ports) if p.params.egress
        )
        counts = (received, sent, int(snapshot.drops.sum()))
        before, self._before = self._before, (now, *counts)
        if before is None or received < before[1]:  # another run in this process
            return f"running, policy version {engine.version}"
        rates = [(c - b) / (now - before[0]) for c, b in zip(counts, before[1:], strict=True)]
        return (
            f"{rates[0]:,.0f} packets/s in, {rates[1]:,.0f} out, {rates[2]:,.0f} dropped; "
            f"policy version {engine.version}"
        )
