# SPDX-License-Identifier: BSD-3-Clause
"""Runs a topology in the foreground: start, watch, show, drain, report."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from hummingbird import changes, control, logs, outputs, policy, topology
from hummingbird.attendant import Attendant
from hummingbird.engine import DRAIN_MS, Engine, Wanted
from hummingbird.errors import UserError
from hummingbird.linux.notify import Notifier
from hummingbird.operator import LAST_DRAIN_MS, Operator, say_undrained
from hummingbird.ports.pcap import PcapParams
from hummingbird.telemetry import summary, top
from hummingbird.telemetry.status import Meter
from hummingbird.topology import PortSpec
from hummingbird.web.run_report import RunReport

REFRESH_S = 0.5
PROGRESS_S = 2.0
POLL_S = 0.05
STDOUT = Path("-")
USER_ERROR = 2
"""The exit status of a mistake, as of the command line."""
ANSWERS_S = 1.0
"""For what is still to be said on the control socket when a run ends."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Options:
    """What the command line may say about a run."""

    topology: Path
    bindings: Mapping[str, Path] = field(default_factory=dict)
    """Files for ``$in`` and ``$out``."""
    json: Path | None = None
    """Where the summary goes as JSON; `STDOUT`: to standard output."""
    report: Path | None = None
    """Where the report goes, a page for a browser."""
    watch: bool = False
    """Reload the route policy when its file changes."""
    name: str = "default"
    duration: float | None = None
    """Seconds after which to drain and end; None: when all inputs have ended."""
    live: bool = True
    profile: bool = False
    """Count where the time goes."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """``executor`` and ``use`` of the section ``device:``."""
    pace: str | None = None
    """``fast`` or ``original`` for every capture that is read; None: as the topology says."""
    log: str = "text"
    """``json``: what is said is one object a line, and there is nothing else."""


def run(options: Options, console: Console) -> int:
    """Run to the end, or until SIGINT or SIGTERM.

    Returns:
        0, or 1 if the packets do not balance.

    Raises:
        UserError: a mistake in the files or the options.
    """
    as_json = options.log == "json"
    # signals are caught to the end: who asks again still gets the report
    with logs.shown(console, as_json=as_json) as handler, _signals() as stop:
        options = replace(options, live=options.live and not handler.lines_only)
        notifier = Notifier()
        try:
            return _run(options, console, stop, handler, notifier)
        except UserError as error:
            notifier.status(f"failed: {error.text}")
            if not handler.as_json:
                raise
            logs.failed("failed", "", error)
            return USER_ERROR


def _run(
    options: Options, console: Console, stop: _Stop, handler: logs.Handler, notifier: Notifier
) -> int:
    wanted = _load(options)
    engine = Engine(options.name, profile=options.profile, watch=options.watch)
    operator = Operator(engine, lambda: _load(options), stop.ask_now, restarted=stop.catch)
    watcher = PolicyWatcher(operator, wanted.policy.path) if options.watch else None
    with closing(engine):
        began = time.monotonic()
        engine.apply(wanted)
        with closing(control.Server(engine, operator.commands())) as server:
            operator.server = server
            stop.catch()
            _say_start(engine, time.monotonic() - began)
            report = RunReport(options.report, engine, options.bindings) if options.report else None
            attendant = Attendant(engine, handler, notifier)
            turn = [watcher.look] if watcher else []
            turn += [engine.poll, lambda: _say_messages(engine), attendant.poll]
            turn += [report.look] if report else []
            with _display(engine, options, console) as refresh:
                why = _watch_over(operator, server, attendant, stop, options, [*turn, refresh])
            attendant.stopping(why)
            server.finish(ANSWERS_S)
        result, stuck = _stop(operator), engine.plane.stuck
        if report:
            report.end(result)
    status = _tell(options, console, handler, result, report)
    if result["device"].get("state") == "hangs" or stuck:
        _say_hang(stuck)
        sys.stdout.flush()
        os._exit(1)  # at exit OpenCL would wait for the kernel, and free what an lcore works on
    return status


def _stop(operator: Operator) -> dict[str, Any]:
    """Drain and stop; the summary of all that ran."""
    engine = operator.engine
    left = engine.stop(LAST_DRAIN_MS if operator.drained else DRAIN_MS)
    seconds = time.monotonic() - engine.started
    _say_messages(engine)
    say_undrained(left)
    return {
        **summary.summarise(engine.view(), engine.counters(), seconds),
        "runs": operator.runs,
    }


def _tell(
    options: Options,
    console: Console,
    handler: logs.Handler,
    result: Mapping[str, Any],
    report: RunReport | None,
) -> int:
    """Say how it was, and write it where it is wanted; returns the exit status."""
    if handler.lines_only:
        _say_end(result)
    else:
        handler.be_patient()
        summary.show(console, result)
    if options.json:
        _write_json(options.json, result)
    status = 0 if all(run["balance"] == 0 for run in (result, *result["runs"])) else 1
    if report:
        status = _write_report(report, status)
    return status


def _load(options: Options) -> Wanted:
    """What the files say now, at the start and at every reload."""
    wanted = topology.load(options.topology, options.bindings)
    if options.overrides:
        device = wanted.device.model_copy(update=dict(options.overrides))
        wanted = replace(wanted, device=device)
    if options.pace:
        wanted = replace(wanted, ports=tuple(_paced(p, options.pace) for p in wanted.ports))
    files = changes.digests(wanted)
    found = Wanted(wanted, policy.load(wanted.policy, wanted.vocabulary()), files)
    _check_files(options, outputs.in_use(found))
    return found


def _paced(port: PortSpec, pace: str) -> PortSpec:
    if not (isinstance(port.params, PcapParams) and port.params.ingress):
        return port
    return replace(port, params=port.params.model_copy(update={"pace": pace, "rate": None}))


def _say_start(engine: Engine, seconds: float) -> None:
    choice = engine.choice
    if choice.device is None:
        where = "all network functions on the CPU"
    else:
        tier = choice.tier or "not probed"
        where = f"{choice.executor} executor on {choice.device.label}, tier {tier}"
    assert engine.running is not None
    logs.info(
        "started",
        f"running after {seconds:.1f} s: {where}",
        name=engine.name,
        topology=str(engine.running.topology.path),
        pid=os.getpid(),
        seconds=round(seconds, 3),
        device=choice.device.label if choice.device else None,
        executor=choice.executor,
        tier=choice.tier,
        engines=dict(engine.engines),
        policy_version=engine.version,
    )
    engines = [f"{name} by {by}" for name, by in engine.engines.items() if by not in ("cpu", "gpu")]
    if engines:
        logs.info("engines", f"on the CPU {', '.join(engines)}")
    for name, note in engine.port_notes():
        logs.info("port", f"{name}: {note}", subject=name)
    for name, table in engine.tables.items():
        for note in table.notes:
            logs.info("nf", f"{name}: {note}", subject=name)


def _say_messages(engine: Engine) -> None:
    for name, message in engine.port_messages():
        what, _, fix = message.partition(" (fix: ")
        fix = fix.removesuffix(")") or _PORT_FIX
        logs.warning("port_message", f"{name}: {what}", fix=fix, subject=name)


_PORT_FIX = "a whole file, room on its disk; for an interface what `hummingbird doctor` says"
"""Of messages that have none."""


def _say_hang(stuck: bool) -> None:
    if stuck:
        what = "an lcore does not stop: an NF on it does not return; the process ends without it"
        logs.error("lcore_hangs", what, fix="mend the NF that the log names")
    else:
        what = "the device hangs and was given up"
        logs.error("device_hangs", what, fix="`hummingbird devices --fresh`")


def _say_end(result: Mapping[str, Any]) -> None:
    """One line instead of the tables."""
    totals = ("received", "created", "sent", "dropped", "in_flight", "balance")
    logs.info(
        "stopped",
        f"stopped after {result['seconds']:.1f} s. {summary.balance_line(result)}",
        seconds=round(result["seconds"], 3),
        **{name: result[name] for name in totals},
    )


class _Stop:
    """Whether somebody asks for the end. No threading.Event, on which a signal handler hangs that
    comes while the main thread holds the event's lock."""

    def __init__(self) -> None:
        self.asked = False
        self.handled = threading.current_thread() is threading.main_thread()

    def ask(self, number: int, frame: Any) -> None:
        """A signal handler."""
        self.asked = True

    def ask_now(self) -> None:
        """Ask without a signal."""
        self.asked = True

    def catch(self) -> None:
        """From here on SIGINT and SIGTERM ask for the end. PoCL's compiler takes them for itself
        when it first runs, and a second signal then ends the process: catch them once more."""
        for number in STOP_SIGNALS if self.handled else ():
            signal.signal(number, self.ask)


@contextmanager
def _signals() -> Iterator[_Stop]:
    """Catches the signals, and gives them back."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    stop = _Stop()
    stop.catch()
    try:
        yield stop
    finally:
        for number, handler in before.items() if stop.handled else ():
            signal.signal(number, handler)


def _watch_over(
    operator: Operator,
    server: control.Server,
    attendant: Attendant,
    stop: _Stop,
    options: Options,
    turn: Sequence[Callable[[], None]],
) -> str:
    """Until the inputs end, the time is over, or somebody asks to stop; which one it was. ``turn``
    is what is done again and again meanwhile."""
    until = None if options.duration is None else time.monotonic() + options.duration
    while not stop.asked:
        server.serve(POLL_S)
        if operator.away():
            attendant.away()
            continue
        if operator.engine.plane.finished():
            return "the inputs have ended"
        if until and time.monotonic() >= until:
            return "the time is over"
        for act in turn:
            act()
    operator.wait()
    return "asked to stop"


@contextmanager
def _display(engine: Engine, options: Options, console: Console) -> Iterator[Callable[[], None]]:
    """The live table on a terminal, a line now and then elsewhere; yields what refreshes it."""
    meter = Meter(engine.view())
    if not options.live:
        yield lambda: None
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:

            def show() -> None:
                width, height = console.size
                lines = top.lines(meter.measure(engine.view()), width, height - 1)
                live.update(Group(*lines), refresh=True)

            show()
            yield _every(REFRESH_S, show)
            show()
    else:

        def say() -> None:
            console.print(top.progress(meter.measure(engine.view())), highlight=False)

        yield _every(PROGRESS_S, say)


def _every(seconds: float, act: Callable[[], None]) -> Callable[[], None]:
    """A function that calls ``act`` when it is called, but not more often than this."""
    last = time.monotonic()

    def maybe() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            act()

    return maybe


class PolicyWatcher:
    """Reloads the route policy when its file changes; a broken edit changes nothing."""

    def __init__(self, operator: Operator, path: Path) -> None:
        """Make one before the engine starts, which may take long enough for an edit."""
        self._operator = operator
        self._path = path
        self._seen = self._mark()
        self._pending: tuple[int, int, int] | None = None

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None  # an editor is replacing it
        return status.st_mtime_ns, status.st_size, status.st_ino

    def look(self) -> None:
        """Reload if the file has changed and then stayed the same for one look."""
        self._follow()
        mark = self._mark()
        if mark is None or mark == self._seen:
            return
        if mark != self._pending:
            self._pending = mark
            return
        self._seen, self._pending = mark, None
        self._reload()

    def _follow(self) -> None:
        """Another topology may name another file, which may have been edited since it was read."""
        running = self._operator.engine.running
        if running and running.topology.policy != self._path:
            self._path = running.topology.policy
            self._seen = None

    def _reload(self) -> None:
        try:
            found = self._operator.reload_policy()
        except UserError as error:
            what = "the route policy stays as it was"
            logs.failed("policy_refused", what, error, fix="mend the file")
            if "in flight" in error.what:
                self._seen = None  # try again at the next look
            return
        version = f"version {self._operator.engine.version}: " if found else ""
        logs.info(
            "policy_reloaded",
            f"{self._path} reloaded: {version}{changes.sentence(found)}",
            version=self._operator.engine.version,
            changes=[change["text"] for change in found],
        )


def _check_files(options: Options, used: Mapping[str, str]) -> None:
    """What is to be written at the end can be, and replaces nothing that the run itself uses."""
    if options.json != STDOUT:
        _check_writable(options.json, "summary", used)
    if options.report == STDOUT:
        raise _unwritable(STDOUT, "report", "a page goes to no terminal")
    _check_writable(options.report, "report", used)
    if options.report and options.json and outputs.same(options.report, options.json):
        raise _unwritable(options.report, "report", "the summary goes there")


def _check_writable(path: Path | None, what: str, used: Mapping[str, str]) -> None:
    """Find out before the run and not behind it; makes no file yet."""
    if path is None:
        return
    if os.path.isdir(path):
        raise _unwritable(path, what, "this is a directory", fix="name a file in it")
    written = path if os.path.exists(path) else path.parent
    if not os.access(written, os.W_OK):
        raise _unwritable(path, what, "no such directory, or no right to write there")
    outputs.check_free(path, what, used)


def _write_json(path: Path, result: Mapping[str, Any]) -> None:
    text = json.dumps(result, indent=2)
    try:
        if path == STDOUT:
            print(text, flush=True)
        else:
            outputs.write(path, text + "\n")
    except OSError as error:
        raise _unwritable(path, "summary", str(error.strerror)) from error


def _write_report(report: RunReport, status: int) -> int:
    """A report that cannot be written hides neither the summary nor that packets are missing."""
    try:
        report.write()
    except UserError as error:
        logs.failed("report_unwritten", "", error)
        return status or USER_ERROR
    return status


def _unwritable(path: Path, what: str, why: str, fix: str = "name another file") -> UserError:
    return UserError(f"cannot write the {what}: {why}", path=path, fix=fix)
