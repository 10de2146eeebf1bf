# SPDX-License-Identifier: BSD-3-Clause
"""Read the telemetry of an instance from outside: its run directory is all that is needed, nothing
is asked of the instance, and however often somebody looks, it does not notice."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from hummingbird.errors import UserError
from hummingbird.telemetry import rundir
from hummingbird.telemetry.stats import Reader
from hummingbird.telemetry.view import View

START = "start one with 'hummingbird run', as the user who asks"
SUDO = "ask as root, with sudo"

DAMAGED = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
"""What a run directory ends with that is of another version, not whole yet, or not ours."""


def running_instances() -> list[str]:
    """Names of the instances that run.

    Raises:
        UserError: this user may not look.
    """
    return [name for name in rundir.instances() if _is_running(name)]


def _is_running(name: str) -> bool:
    try:
        return (rundir.base_dir() / name).is_dir() and rundir.is_running(name)
    except OSError as error:
        raise UserError(
            f"{rundir.base_dir()} cannot be looked at: {error.strerror}",
            fix="be the user who started the instance",
        ) from None


def the_only_one() -> str:
    """The instance that is meant where none is named.

    Raises:
        UserError: none runs, or several do.
    """
    return only(running_instances())


def only(names: Sequence[str]) -> str:
    """The one of these instances, which are all there are.

    Raises:
        UserError: there is none, or there are several.
    """
    if not names and _of_root():
        raise UserError("no instance of this user is running, but root has one", fix=SUDO)
    if not names:
        raise UserError("no instance is running", fix=START)
    if len(names) > 1:
        what = f"{len(names)} instances are running: {', '.join(names)}"
        raise UserError(what, fix=f"write --name {names[0]}, or another of them")
    return names[0]


def not_there(name: str, killed: bool, others: Sequence[str]) -> UserError:
    """What to tell whoever asks for an instance that does not run.

    Args:
        name: that was asked for.
        killed: it is known that one of this name was.
        others: that run.
    """
    what = f"no instance named {name!r} is running"
    what += "; the one that was has been killed" if killed else ""
    if name in _of_root():
        return UserError(f"{what} as this user, but root has one", fix=SUDO)
    return UserError(
        what, fix=f"write --name with one of: {', '.join(others)}" if others else START
    )


def _of_root() -> list[str]:
    """Instances of root's that somebody else can neither ask nor look at."""
    if os.geteuid() == 0:
        return []
    return [path.parent.name for path in rundir.OF_ROOT.glob(f"*/{rundir.SOCKET}")]


class Attached:
    """An instance that is looked at."""

    def __init__(self, name: str | None = None) -> None:
        """Find it.

        Args:
            name: of the instance; None: the only one that runs.

        Raises:
            UserError: there is none, it is not clear which one is meant, it is dead, of another
                version, or damaged.
        """
        self.name = the_only_one() if name is None else name
        self._folder = rundir.base_dir() / self.name
        if not _is_running(self.name):
            killed = (self._folder / rundir.STATS).exists()
            raise not_there(self.name, killed, running_instances())
        try:
            self._view = self._open()
        except OSError as error:
            raise UserError(
                f"the instance {self.name!r} cannot be looked at: {error.strerror or error}",
                fix="be the user who started it; if it is starting, wait a moment",
            ) from None
        except DAMAGED:
            raise UserError(
                f"the instance {self.name!r} is starting, of another version, or what it shows in "
                f"{self._folder} is damaged",
                fix="wait a moment; use the 'hummingbird' that it was started with; or start it "
                "again",
            ) from None

    def _open(self) -> View:
        """The counters as they lie there now, and the view on them."""
        with open(self._folder / rundir.STATS, "rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            region = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        reader = Reader(np.frombuffer(region, dtype=np.uint8))
        view = View.from_json(self._text(), reader)
        self._file, self._reader = inode, reader
        return view

    def _text(self) -> str:
        return (self._folder / rundir.VIEW).read_text(encoding="utf-8")

    def _is_same_process(self) -> bool:
        """The view there is of the process that is looked at, whatever counters it has now."""
        return bool(json.loads(self._text())["pid"] == self._view.pid)

    @property
    def view(self) -> View:
        """The run as it is now; once it has ended, as it was last."""
        try:
            if not self._is_ours() and self._is_same_process():
                fresh = self._open()  # it has restarted, and counts anew
            else:
                fresh = View.from_json(self._text(), self._reader)
        except (OSError, *DAMAGED):
            return self._view
        if self._is_ours():
            self._view = fresh
        return self._view

    def _is_ours(self) -> bool:
        """The run directory has not become that of another run of this name."""
        try:
            return os.stat(self._folder / rundir.STATS).st_ino == self._file
        except OSError:
            return False

    @property
    def running(self) -> bool:
        """Whether it still runs; also with other counters after a restart in the same process."""
        if not _is_running(self.name):
            return False
        try:
            return self._is_ours() or self._is_same_process()
        except (OSError, *DAMAGED):
            return True  # that takes it a moment

    def close(self) -> None:
        """Let go of it. What was read stays valid."""
        del self._reader, self._view

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
