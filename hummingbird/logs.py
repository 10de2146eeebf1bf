# SPDX-License-Identifier: BSD-3-Clause
"""What a run says: one line a change of state, as text or as JSON, never more than can be read.

The rest of the package says something with `info`, `warning`, `error` or `failed`; who warns has
to say what to do. Records of other loggers, such as those of users' NFs, stay what they are.
"""

from __future__ import annotations

import io
import json
import logging
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

from hummingbird.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger("hummingbird")

MOST = 10
"""Lines of one event and subject ..."""
PERIOD_S = 10.0
"""... in this time; then one that says how many were left out."""
MOST_KEYS = 1000
"""Events and subjects that are told apart at a time; all others share one limit."""
PATIENCE_MS = 100
"""A reader that is behind is waited for this long, once."""
PIECE = 4096
"""Bytes that a pipe which has room takes without making the writer wait (PIPE_BUF)."""
LOOK_AGAIN_S = 1.0
"""Between two tries to write what could not be written."""

_STYLES = MappingProxyType({logging.WARNING: "yellow", logging.ERROR: "red"})
_PRIORITIES = MappingProxyType({logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3})
"""sd-daemon(3)"""


# ---- saying something ----------------------------------------------------------------------------


def info(event: str, what: str, *, subject: str = "", **fields: Any) -> None:
    """A change of state.

    Args:
        event: its name, for programs.
        what: one line, for people.
        subject: what it is about, such as a port; limits are by event and subject.
        fields: more of it, for programs; what JSON can hold.
    """
    _say(logging.INFO, event, what, None, subject, fields)


def warning(event: str, what: str, *, fix: str, subject: str = "", **fields: Any) -> None:
    """Something that works less well than it could; ``fix`` says what to do."""
    _say(logging.WARNING, event, what, fix, subject, fields)


def error(event: str, what: str, *, fix: str, subject: str = "", **fields: Any) -> None:
    """Something that does not work any more; ``fix`` says what to do."""
    _say(logging.ERROR, event, what, fix, subject, fields)


def failed(
    event: str, what: str, why: UserError, *, fix: str = "", subject: str = "", **fields: Any
) -> None:
    """An error that goes on with what ``why`` says, its place and its fix included."""
    where = {"path": why.path and str(why.path), "line": why.line, "field": why.field}
    given = {name: value for name, value in where.items() if value is not None}
    text = f"{what}: {why.text}" if what else why.text
    _say(logging.ERROR, event, text, why.fix or fix, subject, fields | given)


def _say(
    level: int, event: str, what: str, fix: str | None, subject: str, fields: Mapping[str, Any]
) -> None:
    text = f"{what} (fix: {fix})" if fix else what
    said = {"event": event, "what": what, "fix": fix, "subject": subject, "fields": dict(fields)}
    log.log(level, "%s", text, extra={"said": said})


def _said(record: logging.LogRecord) -> dict[str, Any]:
    """Of a record; those of others have no more than a text."""
    plain: dict[str, Any] = {"event": "message", "fix": None, "subject": "", "fields": {}}
    found: dict[str, Any] = getattr(record, "said", None) or plain | {"what": record.getMessage()}
    return found


# ---- how many ------------------------------------------------------------------------------------

Key = tuple[str, str]


class Limiter:
    """At most so many of an event and subject in a period."""

    def __init__(self, most: int = MOST, period: float = PERIOD_S) -> None:
        self._most, self._period = most, period
        self._keys: dict[Key, tuple[float, int]] = {}
        """When the period began, and how many there were."""

    def admits(self, key: Key, now: float) -> bool:
        """Whether one more may be said."""
        if key not in self._keys and len(self._keys) >= MOST_KEYS:
            key = ("others", "")
        began, count = self._keys.get(key, (now, 0))
        self._keys[key] = (began, count + 1)
        return count < self._most

    def over(self, now: float) -> list[tuple[Key, int]]:
        """What was left out in periods that are over, and how often."""
        ended = [key for key, (began, _) in self._keys.items() if now - began >= self._period]
        counts = [(key, self._keys.pop(key)[1] - self._most) for key in ended]
        return [(key, count) for key, count in counts if count > 0]


# ---- where to ------------------------------------------------------------------------------------


class Stream(io.TextIOBase):
    """Standard output that ends no run: what its disk has no room for, or nobody reads, is lost,
    counted, and said when there is a way again."""

    encoding = "utf-8"

    def __init__(self, file: TextIO, *, alone: bool = False) -> None:
        """Write to what a file writes to.

        Args:
            file: it.
            alone: what anybody else writes there goes to standard error from now on.
        """
        self.lost = 0
        """Lines."""
        self.trouble = ""
        self.patient = False
        """Wait for a reader as long as it takes."""
        self._torn = False
        self._behind = False
        self._terminal = file.isatty()
        self._file = file
        try:
            self._fd: int | None = file.fileno()
        except OSError:  # it is no file, in tests
            self._fd = None
            return
        file.flush()
        if alone:
            self._fd, place = os.dup(self._fd), self._fd
            os.dup2(sys.stderr.fileno(), place)

    def isatty(self) -> bool:
        """Whether somebody looks at it."""
        return self._terminal

    def fileno(self) -> int:
        """Where it goes."""
        return self._file.fileno() if self._fd is None else self._fd

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Write whole lines, or lose them."""
        if self._fd is None:
            return self._file.write(text)
        data = memoryview(("\n" * self._torn + text).encode(errors="backslashreplace"))
        try:
            while data:
                self._wait(self._fd)
                data = data[os.write(self._fd, data[:PIECE]) :]
                self._torn = bool(data)
        except OSError as trouble:
            self.lost += max(1, text.count("\n"))
            self.trouble = trouble.strerror or str(trouble)
        return len(text)

    def _wait(self, fd: int) -> None:
        """Until there is room; TimeoutError if that takes too long."""
        if self._terminal:
            return
        room = select.poll()
        room.register(fd, select.POLLOUT)
        patience = None if self.patient else 0 if self._behind else PATIENCE_MS
        self._behind = not room.poll(patience)
        if self._behind:
            raise TimeoutError(0, "nobody reads it")


def _is_journal(stream: Stream) -> bool:
    """systemd says which file its journal reads."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        place = os.fstat(stream.fileno())
    except OSError:
        return False
    return (device, inode) == (str(place.st_dev), str(place.st_ino))


# ---- how it looks --------------------------------------------------------------------------------


class Handler(logging.Handler):
    """Writes what is said, as text or as JSON."""

    def __init__(self, console: Console, stream: Stream, *, as_json: bool = False) -> None:
        super().__init__(logging.INFO)
        self.as_json = as_json
        self.journal = not as_json and _is_journal(stream)
        self.lines_only = as_json or self.journal
        """Nothing but lines: no tables, and none that are drawn anew."""
        self._console, self._stream = console, stream
        self._limiter = Limiter()
        self._look_at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, if it is not one too many."""
        said = _said(record)
        if self._limiter.admits((said["event"], said["subject"]), time.monotonic()):
            self._write(record, said)

    def be_patient(self) -> None:
        """From now on wait for who reads it: nothing runs any more."""
        self._stream.patient = True

    def tick(self) -> None:
        """Say what was left out and what was lost; call it often."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_AGAIN_S
        self.acquire()  # threads of NFs in Python may say something, too
        try:
            for (event, subject), count in self._limiter.over(now):
                self._say_left_out(event, subject, count)
            if self._stream.lost:
                self._say_lost()
        finally:
            self.release()

    def _say_left_out(self, event: str, subject: str, count: int) -> None:
        of = f"{event} of {subject}" if subject else event
        what = f"{count:,} more lines of {of} in the last {PERIOD_S:.0f} s were left out"
        fields = {"event": event, "subject": subject, "count": count}
        self._own(logging.INFO, "left_out", what, None, fields)

    def _say_lost(self) -> None:
        count, self._stream.lost = self._stream.lost, 0
        what = f"{count:,} lines could not be written here: {self._stream.trouble}"
        fix = "make room on that disk, or read what is written"
        self._own(logging.WARNING, "lines_lost", what, fix, {"count": count})
        if self._stream.lost:  # nor could this one
            self._stream.lost = count

    def _own(
        self, level: int, event: str, what: str, fix: str | None, fields: Mapping[str, Any]
    ) -> None:
        text = f"{what} (fix: {fix})" if fix else what
        record = log.makeRecord(log.name, level, __file__, 0, text, (), None)
        said = {"event": event, "what": what, "fix": fix, "fields": dict(fields)}
        self._write(record, said)

    def _write(self, record: logging.LogRecord, said: Mapping[str, Any]) -> None:
        if self.as_json:
            self._stream.write(json_line(record, said))
            return
        text = " ".join(record.getMessage().splitlines())
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        if self.journal:
            self._stream.write(f"<{_PRIORITIES.get(record.levelno, 5)}>{level}{text}\n")
            return
        # Through the console: above a live table and not into it.
        style = _STYLES.get(record.levelno)
        self._console.print(
            f"{level}{text}", style=style, markup=False, highlight=False, soft_wrap=True
        )


def json_line(record: logging.LogRecord, said: Mapping[str, Any]) -> str:
    """One object, with all its keys whatever it says."""
    at = datetime.fromtimestamp(record.created, timezone.utc)
    line = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": said["event"],
        "subject": said.get("subject") or None,
        "message": said["what"],
        "fix": said["fix"],
        "fields": said["fields"],
    }
    return json.dumps(line, default=str) + "\n"


@contextmanager
def shown(console: Console, *, as_json: bool = False) -> Iterator[Handler]:
    """What is said meanwhile goes to a console's file, a `Stream` if it has to be sturdy."""
    file = console.file
    stream = file if isinstance(file, Stream) else Stream(file)  # type: ignore[arg-type]
    handler = Handler(console, stream, as_json=as_json)
    before = log.handlers[:], log.level, log.propagate
    log.handlers[:], log.propagate = [handler], False
    log.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        log.handlers[:], level, log.propagate = before
        log.setLevel(level)
