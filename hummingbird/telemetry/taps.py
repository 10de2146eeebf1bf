# SPDX-License-Identifier: BSD-3-Clause
"""The captures and traces of an instance: made and removed while packets flow (taps_api.h)."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hummingbird.dataplane.plane import Dataplane
from hummingbird.errors import UserError
from hummingbird.telemetry.rundir import TAP, base_dir

CAPTURE, TRACE = "capture", "trace"


class TapFile:
    """Memory that a capture's rings lie in, as a file that its reader maps: of this user alone, and
    all there before an lcore writes to it."""

    def __init__(self, path: Path, size: int) -> None:
        """Make it, all zero.

        Raises:
            UserError: there is no room.
        """
        self.path = path
        path.unlink(missing_ok=True)  # of a run of this name that was killed
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, size)
                flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
                self._map = mmap.mmap(file, size, flags)
            finally:
                os.close(file)
        except OSError as error:
            path.unlink(missing_ok=True)
            what = f"no memory of {size >> 20} MiB for the capture: {path}: {error.strerror}"
            raise UserError(what, fix="make room in that file system") from error
        self._region = np.frombuffer(self._map, dtype=np.uint8)

    @property
    def address(self) -> int:
        """Where it is."""
        return int(self._region.ctypes.data)

    def remove(self) -> None:
        """A reader that has it open keeps what is in it."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Nobody writes to it any more."""
        del self._region
        self._map.close()


_in_use_for_good: list[TapFile] = []
"""A stuck lcore may still write to them."""


@dataclass
class Tap:
    """A capture or a trace."""

    number: int
    """From 1; never used again."""
    kind: str
    what: str
    """For people: what it looks at."""
    native: int
    """Its number in the data plane."""
    file: TapFile | None = None
    """Of a capture."""
    removed: bool = False


@dataclass
class Taps:
    """All of them."""

    _taps: dict[int, Tap] = field(default_factory=dict)
    _plane: Dataplane | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __iter__(self) -> Iterator[Tap]:
        """Those that there are, by number."""
        return iter([*self._taps.values()])

    def get(self, number: int) -> Tap | None:
        """The one with this number."""
        return self._taps.get(number)

    def add_capture(
        self,
        plane: Dataplane,
        instance: str,
        edge: tuple[int, int],
        what: str,
        snap: int,
        ring_bytes: int,
    ) -> Tap:
        """Copy packets of an edge into a file of the run directory, for who reads it.

        Args:
            plane: where it runs.
            instance: its name.
            edge: from and to, as Dataplane.add_capture() has them.
            what: the same for people.
            snap: bytes of each packet at most; 0: all.
            ring_bytes: that each lcore has for packets that nobody has read yet; a power of two.

        Raises:
            UserError: there is no room, or too many run already.
        """
        number = next(self._numbers)
        path = base_dir() / instance / f"{TAP}{number}"
        file = TapFile(path, plane.capture_bytes(ring_bytes))
        try:
            native = plane.add_capture(edge, snap, ring_bytes, file.address)
        except UserError:
            file.remove()
            file.close()
            raise
        return self._add(plane, Tap(number, CAPTURE, what, native, file))

    def add_trace(
        self,
        plane: Dataplane,
        rules: Sequence[Mapping[str, Any]],
        packet_type: int | None,
        what: str,
        count: int,
    ) -> Tap:
        """Follow packets; as Dataplane.add_trace()."""
        native = plane.add_trace(rules, packet_type, count)
        return self._add(plane, Tap(next(self._numbers), TRACE, what, native))

    def _add(self, plane: Dataplane, tap: Tap) -> Tap:
        self._plane = plane
        self._taps[tap.number] = tap
        return tap

    def remove(self, tap: Tap) -> None:
        """It sees nothing any more; once more is as good as once."""
        if tap.removed:
            return
        tap.removed = True
        assert self._plane is not None
        gone = self._plane.remove_tap(tap.native)
        if tap.file:
            tap.file.remove()
            if not gone:
                _in_use_for_good.append(tap.file)
            else:
                tap.file.close()
        del self._taps[tap.number]

    def close(self) -> None:
        """Remove all, while the data plane is still there."""
        for tap in self:
            self.remove(tap)
