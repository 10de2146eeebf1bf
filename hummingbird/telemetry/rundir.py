# SPDX-License-Identifier: BSD-3-Clause
"""The run directory of an instance: where its shared memory lies, and whose it is.

A lock on the counters' file says that the instance runs. The kernel drops it with the process,
however that ends, so a killed run never stands in the way of the next.

    base_dir()/.lock          held for the moment in which a name is taken or given free
    base_dir()/NAME/stats     the counters; locked as long as the instance runs
    base_dir()/NAME/view      what has to be known to read them (telemetry/view.py), as JSON
    base_dir()/NAME/control   the control socket
    base_dir()/NAME/tap-N     packets of a capture, on their way to the command that wants them
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from hummingbird.errors import UserError

STATS = "stats"
VIEW = "view"
NEW_VIEW = "view.new"
"""For the moment of a change."""
NEW_STATS = "stats.new"
"""For the moment of a restart."""
SOCKET = "control"
TAP = "tap-"
OF_ROOT = Path("/run/hummingbird")


def base_dir() -> Path:
    """Where run directories are made: what systemd names in RUNTIME_DIRECTORY, else /run for root,
    else the user's runtime directory."""
    if given := _given("RUNTIME_DIRECTORY"):
        return given
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return OF_ROOT
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or tempfile.gettempdir()) / f"hummingbird-{os.geteuid()}"


def state_dir(name: str) -> Path:
    """Where an instance keeps what has to survive a restart; not made yet. systemd names a
    directory in STATE_DIRECTORY."""
    if given := _given("STATE_DIRECTORY"):
        return given / name
    if os.geteuid() == 0:
        return Path("/var/lib/hummingbird") / name
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "hummingbird" / name


def _given(variable: str) -> Path | None:
    """A directory that systemd has made; the first, if it has made several."""
    given = os.environ.get(variable, "").partition(":")[0]
    return Path(given) if given else None


@contextmanager
def _names() -> Iterator[Path]:
    """Nobody else takes a name or gives one free meanwhile: or one would make the directory that
    another is removing. Yields base_dir()."""
    base = base_dir()
    base.mkdir(mode=0o755, parents=True, exist_ok=True)
    file = os.open(base / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield base
    finally:
        os.close(file)


def _take(file: BinaryIO) -> bool:
    """Lock the counters' file of an instance; False if it runs."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def instances() -> list[str]:
    """Names that have a run directory, whether they run or not."""
    with suppress(OSError), os.scandir(base_dir()) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return []


@contextmanager
def held(name: str) -> Iterator[bool]:
    """Hold the name of an instance that does not run, so that none takes it meanwhile.

    Yields:
        False if one has it.
    """
    with _names() as base, ExitStack() as stack:
        try:
            file = stack.enter_context(open(base / name / STATS, "rb"))
        except FileNotFoundError:
            yield True
        else:
            yield _take(file)


def is_running(name: str) -> bool:
    """Whether an instance has this name."""
    with held(name) as free:
        return not free


def remove(name: str) -> None:
    """Remove a run directory and what an instance makes there; only while the name is held."""
    folder = base_dir() / name
    for file in (SOCKET, STATS):
        (folder / file).unlink(missing_ok=True)
    _remove_others(folder)
    with suppress(OSError):  # somebody has put something there
        folder.rmdir()


def _remove_others(folder: Path) -> None:
    """What belongs to counters, and goes with them."""
    for path in (folder / VIEW, folder / NEW_VIEW, folder / NEW_STATS, *folder.glob(f"{TAP}*")):
        path.unlink(missing_ok=True)


def _reserve(file: BinaryIO, size: int, path: Path) -> None:
    """Make it this long, all zero, with pages behind it: the first write to one that has none on a
    full disk would end the process."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        file.close()
        with suppress(OSError):
            remove(path.parent.name)
        raise _no_room(error, size, path) from error


def _no_room(error: OSError, size: int, path: Path) -> UserError:
    return UserError(
        f"no room for the counters: {error.strerror}",
        path=path,
        fix=f"make room there: {size >> 10} KiB are needed",
    )


class StatsFile:
    """The counters' region as a file, so that other processes can read it without asking."""

    def __init__(self, name: str, size: int) -> None:
        """Take the instance name and make its counters, all zero.

        Raises:
            UserError: another process runs under this name, or the directory cannot be made.
        """
        self.path = base_dir() / name / STATS
        try:
            with _names():
                self.path.parent.mkdir(mode=0o755, exist_ok=True)
                taken = self._take_over()
        except OSError as error:
            raise UserError(
                f"cannot make the run directory {self.path.parent}: {error.strerror}",
                fix="run as root, or set XDG_RUNTIME_DIR to a directory of yours",
            ) from error
        if not taken:
            raise UserError(
                f"an instance named {name!r} is running already",
                fix="stop it, or give this one another name: --name OTHER",
            )
        _reserve(self._file, size, self.path)
        self._map_all(size)

    def _map_all(self, size: int) -> None:
        self._map = mmap.mmap(self._file.fileno(), size)
        self.region: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)

    def _take_over(self) -> bool:
        """Make a new file, so that whoever still looks at that of a dead instance sees it as it was
        last. False if one runs."""
        with open(self.path, "ab") as before:
            if not _take(before):
                return False
            self.path.unlink()
            _remove_others(self.path.parent)  # such as the names of those counters
            self._file = open(self.path, "x+b")  # noqa: SIM115 (lives as long as the run)
            return _take(self._file)

    def renew(self, size: int) -> None:
        """Other counters for the same name, all zero, in a new file that takes the old one's place:
        who reads the old one keeps its last values.

        Raises:
            UserError: the file cannot be made.
        """
        old, new = self._file, self.path.with_name(NEW_STATS)
        try:
            with _names():
                new.unlink(missing_ok=True)
                self._file = open(new, "x+b")  # noqa: SIM115 (lives as long as the run)
                _take(self._file)
                os.posix_fallocate(self._file.fileno(), 0, size)
                self._map_all(size)
                self.path.with_name(VIEW).unlink(missing_ok=True)  # it is of the old ones
                os.replace(new, self.path)
                old.close()  # and with it its lock; nobody looks at one while we have all names
        except OSError as error:
            self._file = old  # and its lock
            new.unlink(missing_ok=True)
            raise _no_room(error, size, self.path) from error

    def close(self) -> None:
        """Give the name free; readers that still have the file keep the last values."""
        with suppress(OSError), _names():
            remove(self.path.parent.name)
        self._file.close()
