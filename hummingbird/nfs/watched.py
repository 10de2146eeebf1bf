# SPDX-License-Identifier: BSD-3-Clause
"""Files that an NF has read and that somebody may edit while it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

Mark = tuple[int, int, int] | None


def _mark(path: Path) -> Mark:
    try:
        status = os.stat(path)
    except OSError:
        return None  # an editor is replacing it
    return status.st_mtime_ns, status.st_size, status.st_ino


class WatchedFiles:
    """Some files, and how they were when they were read last."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._read = {path: _mark(path) for path in paths}
        self._pending = self._read

    def changed(self) -> bool:
        """Has one changed, and then stayed the same for one look? Then it is to be read again."""
        now = {path: _mark(path) for path in self._read}
        if None in now.values() or now == self._read:
            return False
        if now != self._pending:
            self._pending = now
            return False
        self._read = now
        return True
