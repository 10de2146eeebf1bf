# SPDX-License-Identifier: BSD-3-Clause
"""The run directory of an instance: where its shared memory lies, and whose it is.

A lock on the counters' file says that the instance runs. The kernel drops it with the process,
however that ends, so a killed run never stands in the way of the next.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hummingbird.errors import UserError


def base_dir() -> Path:
    """Where run directories are made: /run for root, else the user's runtime directory."""
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return Path("/run/hummingbird")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or tempfile.gettempdir()) / f"hummingbird-{os.geteuid()}"


def state_dir(name: str) -> Path:
    """Where an instance keeps what has to survive a restart; not made yet. systemd names a
    directory in STATE_DIRECTORY."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given) / name
    if os.geteuid() == 0:
        return Path("/var/lib/hummingbird") / name
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "hummingbird" / name


class StatsFile:
    """The counters' region as a file, so that other processes can read it without asking."""

    def __init__(self, name: str, size: int) -> None:
        """Take the instance name and make its counters, all zero.

        Raises:
            UserError: another process runs under this name, or the directory cannot be made.
        """
        self.path = base_dir() / name / "stats"
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._file = open(self.path, "a+b")  # noqa: SIM115 (lives as long as the run)
        except OSError as error:
            raise UserError(
                f"cannot make the run directory {self.path.parent}: {error.strerror}",
                fix="run as root, or set XDG_RUNTIME_DIR to a directory of yours",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(
                f"an instance named {name!r} is running already",
                fix="stop it, or give this one another name: --name OTHER",
            ) from None
        self._file.truncate(0)
        self._file.truncate(size)
        self._map = mmap.mmap(self._file.fileno(), size)
        self.region: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)

    def close(self) -> None:
        """Give the name free; readers that still have the file keep the last values."""
        self.path.unlink(missing_ok=True)
        self._file.close()
