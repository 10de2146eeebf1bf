# SPDX-License-Identifier: BSD-3-Clause
"""What may be asked of a run over its control socket: how it is, and to change.

    status      how it is (telemetry/status.py)
    reload      read policy and topology again and apply what has changed; with a restart if wanted
    drain       take nothing in and wait until nothing is in flight;  resume: take in again
    stop        drain, and end
    commands    what may be asked

Each is a command of the control socket (control.py), so it does a little at a time: between two
steps others are answered, the engine is polled and the watchdog is told that all is well. A restart
is prepared and made by a thread of its own; while it has the engine, nobody else touches that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hummingbird import changes, control, flow_list, logs, policy, taps
from hummingbird.background import Background
from hummingbird.changes import Change
from hummingbird.control import PAUSE, Answer, Command, Json, Server
from hummingbird.engine import DRAIN_MS, Engine, Wanted
from hummingbird.errors import UserError
from hummingbird.telemetry import summary
from hummingbird.telemetry.status import Meter

Steps = Generator[Json | None, None, Any]

SLOT_S = 10.0
"""A policy waits for this long for the packets of versions before it."""
SLOT_TRIES = 100
"""That many times at once, then in every round of the server."""
INTERVAL_S = 0.5
"""Over which rates are measured."""
LAST_DRAIN_MS = 1000
"""For what is in flight after a drain that has waited already."""
LAST_ANSWER_S = 1.0
TOTALS = ("seconds", "received", "created", "sent", "dropped", "in_flight", "balance")


@dataclass
class Operator:
    """Has the commands of one run, and does what they ask for."""

    engine: Engine
    load: Callable[[], Wanted]
    """Reads topology and policy as the run was told to."""
    ask_to_stop: Callable[[], None]
    runs: list[Json] = field(default_factory=list)
    """Summaries of what ran before a restart, in order."""
    server: Server | None = None
    drained: bool = False
    """Somebody has waited for the end of all packets already, and it is to be the last wait."""
    restarted: Callable[[], None] = lambda: None
    """Is called when a restart is over."""
    _restart: Background[Json] | None = None
    _reloading: bool = False

    def commands(self) -> Mapping[str, Command]:
        """All that the control socket knows."""
        return {
            **flow_list.COMMANDS,
            **taps.COMMANDS,
            "status": self.status,
            "reload": self.reload,
            "drain": self.drain,
            "resume": self.resume,
            "stop": self.stop,
            "commands": self.list_commands,
        }

    # ---- for the loop of the control thread ----

    def away(self) -> bool:
        """A restart has the engine: leave it alone. Call it in every round.

        Raises:
            UserError: a restart has failed, and so has the way back; nothing runs any more.
        """
        if self._restart is None:
            return False
        if not self._restart.done:
            return True
        restart, self._restart = self._restart, None
        self.restarted()
        if self.engine.running is None:
            if self.server:
                self.server.finish(LAST_ANSWER_S)  # whoever asked for it hears why
            raise restart.error or AssertionError("nothing runs")
        if self.server:
            self.server.away = None
        return False

    def wait(self) -> None:
        """Until no restart is under way."""
        if self._restart is not None:
            self._restart.join()
            self.away()

    # ---- looking ----

    def status(self, engine: Engine, request: Mapping[str, Any]) -> Answer:
        """How it is; rates are over ``interval`` seconds (default 0.5; 0: since the start)."""
        interval = _number(request, "interval", INTERVAL_S, 60.0)
        meter = Meter(engine.view())
        if interval:
            meter.measure(engine.view())
            yield from _for(interval)
        found: Json = meter.measure(engine.view())
        return found

    def list_commands(self, engine: Engine, request: Mapping[str, Any]) -> Answer:
        """What may be asked, one item a command."""
        for name, command in sorted(self.commands().items()):
            yield {"command": name, "about": _first_line(command)}
        return {}

    # ---- draining ----

    def drain(self, engine: Engine, request: Mapping[str, Any]) -> Answer:
        """Take nothing in, and answer when nothing is in flight or after ``timeout`` seconds."""
        timeout = _timeout(request)
        engine.hold()
        logs.info("held", "asked to drain: inputs take nothing in")
        left = yield from self._until_empty(timeout)
        if not engine.held:
            raise UserError("somebody else has asked it to resume", fix="drain again")
        if left:
            what = f"{left} packets are still in flight after {timeout:g} s"
            logs.warning("drain_slow", what, fix=_SLOW, packets=left)
        else:
            logs.info("drained", "drained: nothing is in flight")
        return {"drained": left == 0, **self._totals(left)}

    def resume(self, engine: Engine, request: Mapping[str, Any]) -> Answer:
        """Take in again what was drained."""
        was = engine.held
        engine.resume()
        if was:
            logs.info("resumed", "asked to resume: inputs take packets in again")
        return {"was_drained": was, **self._totals()}
        yield

    def stop(self, engine: Engine, request: Mapping[str, Any]) -> Answer:
        """Drain, answer, and end."""
        timeout = _timeout(request)
        engine.hold()
        left = yield from self._until_empty(timeout)
        self.drained = True
        self.ask_to_stop()
        return {"drained": left == 0, **self._totals(left)}

    def _until_empty(self, seconds: float) -> Steps:
        """Until nothing is in flight, or inputs take in again; returns what still is."""
        end = time.monotonic() + seconds
        yield None
        while True:
            left = self.engine.plane.held_in_flight()
            if left == 0 or not self.engine.held or time.monotonic() > end:
                return self.engine.plane.in_flight() if left is None else left
            yield PAUSE

    def _totals(self, left: int | None = None) -> Json:
        """What it has had so far."""
        seconds = time.monotonic() - self.engine.started
        found = summary.summarise(self.engine.view(), (), seconds)
        totals = {name: found[name] for name in TOTALS}
        if left != 0:  # counters of packets that move are not read at one instant
            del totals["balance"]
        return totals if left is None else totals | {"in_flight": left}

    # ---- reloading ----

    def reload(self, engine: Engine, request: Mapping[str, Any]) -> Answer:
        """Read ``what`` again (policy or topology: the default) and apply what has changed."""
        what = request.get("what") or "topology"
        if what not in ("policy", "topology"):
            raise UserError(f"the request's 'what' is {what!r}", fix="write policy or topology")
        if self._reloading:
            raise UserError("somebody else's reload is under way", fix=control.AGAIN)
        timeout = _timeout(request)
        self._reloading = True
        try:
            if what == "policy":
                wanted = self._read_policy()
            else:
                wanted = yield from _wait(Background(self.load))
            restart = timeout if request.get("restart") else None
            end: Json = yield from self._change(wanted, restart)
            return end
        finally:
            self._reloading = False

    def reload_policy(self) -> list[Change]:
        """Read the policy again and apply it at once.

        Raises:
            UserError: a mistake in it, or packets of too many versions are in flight.
        """
        running = self.engine.running
        assert running is not None
        wanted = self._read_policy()
        found = changes.routes(running.policy, wanted.policy)
        self.engine.apply(wanted)
        return found

    def _read_policy(self) -> Wanted:
        running = self.engine.running
        assert running is not None
        read = policy.load(running.topology.policy, running.topology.vocabulary())
        return Wanted(running.topology, read, running.files)

    def _change(self, wanted: Wanted, may_drain: float | None) -> Steps:
        """Apply what has been read; if it may restart, after draining for so many seconds."""
        running = self.engine.running
        assert running is not None
        rereads = [name for name, host in self.engine.hosts.items() if host.rereads]
        found = changes.between(running, wanted, rereads)
        yield from found
        restart = changes.need_restart(found)
        if not restart:
            yield from self._read_files(found, wanted)
            yield from self._publish(wanted)
            version = self.engine.version
            what = f"asked to reload: {changes.sentence(found)} (version {version})"
            texts = [change["text"] for change in found]
            logs.info("reloaded", what, version=version, changes=texts)
            return {"changes": len(found), "version": version, "restarted": False}
        if may_drain is None:
            raise UserError(
                f"changes of {_parts(restart)} need a restart; nothing was changed",
                path=wanted.topology.path,
                fix='hummingbird ctl reload --restart, which drains first ("restart": true)',
            )
        logs.info("restart", f"asked to restart: {changes.sentence(found)}")
        drained = yield from self._start_anew(wanted, may_drain)
        return {
            "changes": len(found),
            "version": self.engine.version,
            "restarted": True,
            "drained": drained,
        }

    def _read_files(self, found: list[Change], wanted: Wanted) -> Steps:
        """Let NFs read their files again; a mistake in one of them changes nothing."""
        names = dict.fromkeys(change["name"] for change in found if change["part"] == "nfs")
        if names:
            yield from _wait(Background(wanted.topology.build_tables))
        for name in names:
            self.engine.hosts[name].read_again()

    def _publish(self, wanted: Wanted) -> Steps:
        """Swap the policy; wait for a place for it if packets of many versions are in flight."""
        end, tries = time.monotonic() + SLOT_S, 0
        while True:
            try:
                self.engine.apply(wanted)
                return
            except UserError as error:
                tries += 1
                if "in flight" not in error.what or time.monotonic() > end:
                    raise
            yield None if tries < SLOT_TRIES else PAUSE

    # ---- a restart ----

    def _start_anew(self, wanted: Wanted, timeout: float) -> Steps:
        """Drain, stop, and start this; returns the totals of what was stopped."""
        engine, server, before = self.engine, self.server, self.engine.running
        assert before is not None
        self._check_restart(before)
        yield from _wait(Background(wanted.topology.build_tables))  # mistakes in NFs' files
        was_held = engine.held
        engine.hold()
        restart: Background[Json] | None = None
        try:
            yield from self._until_empty(timeout)
            if not engine.held:
                raise UserError("somebody else has asked it to resume", fix="reload again")
            engine.held = was_held
            if server:
                server.interrupt(control.RESTARTING)
            restart = self._restart = Background(lambda: self._swap(before, wanted))
        finally:
            if restart is None and not was_held and not self.drained:
                engine.resume()  # the client has gone, or a mistake
        return (yield from _wait(restart))

    def _check_restart(self, running: Wanted) -> None:
        if self.engine.plane.device_state() == "hangs":
            raise UserError("the device hangs, which only a new process may mend", fix=_NEW_PROCESS)
        if any(port.driver == "dpdk" for port in running.topology.ports):
            raise UserError("DPDK starts once in a process", fix=_NEW_PROCESS)

    def _swap(self, before: Wanted, wanted: Wanted) -> Json:
        """In a thread that has the engine: end what runs, start ``wanted``, or again what ran."""
        engine = self.engine
        left = engine.stop(LAST_DRAIN_MS)
        seconds = time.monotonic() - engine.started
        ended = summary.summarise(engine.view(), engine.counters(), seconds)
        self.runs.append({"title": before.topology.path.name, **ended})
        say_undrained(left)
        totals = {name: ended[name] for name in TOTALS}
        title = before.topology.path.name
        logs.info("ended", f"{title} has ended: {summary.balance_line(ended)}", **totals)
        engine.running = None
        try:
            engine.restart(wanted)
        except Exception as error:
            self._go_back(before, error)
            raise _back(error) from error
        what = f"{wanted.topology.path.name} runs after a restart"
        logs.info("restarted", what, version=engine.version)
        return totals

    def _go_back(self, before: Wanted, error: Exception) -> None:
        why = error if isinstance(error, UserError) else UserError(repr(error))
        what = "the new topology cannot start, the one before starts again"
        logs.failed("restart_failed", what, why, fix="see why, and mend it")
        try:
            self.engine.restart(before)
        except Exception as again:
            raise UserError(
                f"neither the new topology nor the one before can start: {error}; {again}",
                fix="start a new process",
            ) from error


_SLOW = "find the NF that is slow: hummingbird top"
_NEW_PROCESS = "stop it, and start it again"


def say_undrained(packets: int) -> None:
    """After the end of a data plane: so many did not make it out."""
    if packets:
        what = f"{packets} packets did not make it out before the drain ended and are lost"
        logs.warning("undrained", what, fix=_SLOW, packets=packets)


def _back(error: Exception) -> UserError:
    """What the asker is told when the one before runs again."""
    if not isinstance(error, UserError):
        return UserError(f"the new topology cannot start ({error!r}); the one before runs again")
    return UserError(
        f"{error.what}; the topology before runs again",
        path=error.path,
        line=error.line,
        field=error.field,
        fix=error.fix,
    )


def _wait(work: Background[Any]) -> Steps:
    """Until it is done; returns or raises what it has."""
    while not work.done:
        yield PAUSE
    return work.result()


def _for(seconds: float) -> Steps:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield PAUSE


def _timeout(request: Mapping[str, Any]) -> float:
    return _number(request, "timeout", DRAIN_MS / 1000, 3600.0)


def _number(request: Mapping[str, Any], name: str, default: float, most: float) -> float:
    value = request.get(name)
    if value is None:
        return default
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most:
        return float(value)
    raise UserError(f"the request's {name!r} is no number of seconds", fix=f"write 0 to {most:g}")


def _parts(found: list[Change]) -> str:
    return ", ".join(dict.fromkeys(change["part"] for change in found))


def _first_line(command: Command) -> str:
    return (command.__doc__ or "").partition("\n")[0].replace("``", "")
