# SPDX-License-Identifier: BSD-3-Clause
"""Read the telemetry of an instance from outside: its run directory is all that is needed, nothing
is asked of the instance, and however often somebody looks, it does not notice."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import TracebackType

import numpy as np

from hummingbird.errors import UserError
from hummingbird.telemetry import rundir
from hummingbird.telemetry.stats import Reader
from hummingbird.telemetry.view import View

START = "start one with 'hummingbird run', as the user who asks"


def running_instances() -> list[str]:
    """Names of the instances that run.

    Raises:
        UserError: this user may not look.
    """
    return [name for name in rundir.instances() if _is_running(name)]


def _is_running(name: str) -> bool:
    try:
        return rundir.is_running(name)
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
    names = running_instances()
    if not names:
        raise UserError("no instance is running", fix=START)
    if len(names) > 1:
        what = f"{len(names)} instances are running: {', '.join(names)}"
        raise UserError(what, fix=f"write --name {names[0]}, or another of them")
    return names[0]


class Attached:
    """An instance that is looked at."""

    def __init__(self, name: str | None = None) -> None:
        """Find it.

        Args:
            name: of the instance; None: the only one that runs.

        Raises:
            UserError: there is none, it is not clear which one is meant, it is dead, or it is of
                another version.
        """
        self.name = the_only_one() if name is None else name
        self._folder = rundir.base_dir() / self.name
        if not _is_running(self.name):
            raise _not_there(self.name, self._folder)
        try:
            self._view = self._open()
        except OSError as error:
            raise UserError(
                f"the instance {self.name!r} cannot be looked at: {error.strerror or error}",
                fix="be the user who started it; if it is starting, wait a moment",
            ) from None
        except (ValueError, TypeError, KeyError, IndexError):
            raise UserError(
                f"the instance {self.name!r} is starting, or is of another version",
                fix="wait a moment, or use the 'hummingbird' that it was started with",
            ) from None

    def _open(self) -> View:
        """The counters as they lie there now, and the view on them."""
        with open(self._folder / rundir.STATS, "rb") as file:
            self._file = os.fstat(file.fileno()).st_ino
            region = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._reader = Reader(np.frombuffer(region, dtype=np.uint8))
        return self._read()

    def _read(self) -> View:
        text = (self._folder / rundir.VIEW).read_text(encoding="utf-8")
        return View.from_json(text, self._reader)

    @property
    def view(self) -> View:
        """The run as it is now; once it has ended, as it was last."""
        try:
            fresh = self._read()
            if not self._is_ours() and fresh.pid == self._view.pid:
                fresh = self._open()  # it has restarted, and counts anew
        except (OSError, ValueError, TypeError, KeyError, IndexError):
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
            return self._is_ours() or self._read().pid == self._view.pid
        except (OSError, ValueError, TypeError, KeyError):
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


def _not_there(name: str, folder: Path) -> UserError:
    what = f"no instance named {name!r} is running"
    if (folder / rundir.STATS).exists():
        what += "; the one that was has been killed"
    others = ", ".join(running_instances())
    return UserError(what, fix=f"write --name with one of: {others}" if others else START)
