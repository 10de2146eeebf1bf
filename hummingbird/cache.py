# SPDX-License-Identifier: BSD-3-Clause
"""The user's cache: what was compiled or probed is kept there, whole or not at all.

What is being made lies in a folder ``NAME.tmp-*`` beside its place until it is moved there. A lock
on the folder says that somebody is at it; the kernel drops it with the process, so what a killed
one leaves behind can be told from what is being made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = ".tmp-"


def cache_dir() -> Path:
    """Where it is; may not be there. systemd names a service's in CACHE_DIRECTORY."""
    if given := os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "hummingbird"


@contextmanager
def half_built(target: Path) -> Iterator[Path]:
    """A folder to make ``target`` in, which is then to be renamed; gone in the end.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{target.name}{MARK}", dir=target.parent))
        lock = _locked(folder, fcntl.LOCK_EX)
        if lock is not None:
            break  # else somebody took it for abandoned before it was locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def half_built_folders() -> list[Path]:
    """All there are, abandoned or not."""
    found = _folders(cache_dir())
    below = [folder for top in found if MARK not in top.name for folder in _folders(top)]
    return sorted(folder for folder in (*found, *below) if MARK in folder.name)


def _folders(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []


def remove_abandoned(folder: Path, *, really: bool = True) -> bool:
    """Remove such a folder if nobody is at it; with ``really=False`` only say whether so.

    Raises:
        OSError: that cannot be found out, or it cannot be removed.
    """
    try:
        lock = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if lock is None:
        return False
    try:
        if really:
            shutil.rmtree(folder)
    finally:
        os.close(lock)
    return True


def _locked(folder: Path, how: int) -> int | None:
    """Lock a folder; None if it has gone meanwhile."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, how)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(folder)):
                return lock
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None
