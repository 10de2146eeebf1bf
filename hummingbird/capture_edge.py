# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird capture`: writes the packets of one edge of a running instance to a capture file.

The instance puts packets into shared memory and forgets about them; this process takes them out and
writes them. So a slow or full disk, or the end of this process, is nothing that the instance sees.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hummingbird.control import Json
from hummingbird.control_client import Reply
from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError

HEAD = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
"""Nanoseconds, Ethernet."""
RECORD = struct.Struct("=IIII")
BUFFER = 1 << 20
IDLE_S = 0.005
SIZE = 1_000_000_000
STDOUT = "-"


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    edge: str
    out: str
    """A file, which is replaced, or `STDOUT`."""
    name: str | None = None
    count: int | None = None
    seconds: float | None = None
    size: int = SIZE
    """Bytes of the file at most."""
    snap: int = 0
    """Bytes of a packet at most; 0: all."""


class Region:
    """The rings of a capture (hb_capture_head of taps_api.h)."""

    def __init__(self, path: str) -> None:
        """Map them.

        Raises:
            UserError: they are not there, or not what they should be.
        """
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._map = mmap.mmap(file, os.fstat(file).st_size)
            finally:
                os.close(file)
        except (OSError, ValueError) as error:
            what = f"cannot read the packets of the instance: {path}: {error}"
            raise UserError(what, fix="be the user who started it") from None
        self._at = ffi.from_buffer(self._map)
        self._records = ffi.new("uint64_t *")
        self._buffer = bytearray(BUFFER)
        self.taken = 0
        """Packets."""

    def take(self, room: int, most: int) -> memoryview:
        """The next records: so many bytes and packets at most."""
        room = min(room, BUFFER)
        buffer = ffi.from_buffer("uint8_t[]", self._buffer)
        used = lib.hb_capture_take(self._at, len(self._map), buffer, room, most, self._records)
        if used > room:
            raise UserError(
                "the instance has another version of captures",
                fix="use the 'hummingbird' that it was started with",
            )
        self.taken += self._records[0]
        return memoryview(self._buffer)[:used]

    @property
    def records(self) -> int:
        """Packets that have been put in so far."""
        return int(lib.hb_capture_records(self._at))

    @property
    def missed(self) -> int:
        """Packets for which there was no room."""
        return int(lib.hb_capture_missed(self._at))


class Output:
    """The file, which is a whole capture after each write."""

    def __init__(self, name: str) -> None:
        """Replace it.

        Raises:
            UserError: it cannot be written.
        """
        self._name = name
        self.bytes = self.packets = 0
        try:
            self._file: BinaryIO = (
                os.fdopen(os.dup(1), "wb", buffering=0)
                if name == STDOUT
                else open(name, "wb", buffering=0)  # noqa: SIM115 (closed by close())
            )
        except OSError as error:
            what = f"cannot write the capture: {error.strerror}"
            raise UserError(what, path=Path(name), fix="name another file") from None
        self.write(memoryview(HEAD), 0)

    def write(self, data: memoryview, packets: int) -> None:
        """All of it; if that fails, as many whole packets as fit stay in the file."""
        done = 0
        try:
            while done < len(data):
                done += self._file.write(data[done:]) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            whole, count = _whole_records(data, done) if self.bytes else (0, 0)
            self._cut(self.bytes + whole)
            self.packets += count
            what = f"cannot write more of the capture: {error.strerror}"
            if self.bytes + whole:
                what += f"; {_packets(self.packets)} of it are in the file and can be read"
            raise UserError(what, path=Path(self._name), fix="make room, or capture less") from None
        self.bytes += len(data)
        self.packets += packets

    def _cut(self, size: int) -> None:
        with suppress(OSError):  # a pipe or a device, where nothing can be cut
            os.ftruncate(self._file.fileno(), size)

    def close(self) -> None:
        """No more comes."""
        self._file.close()


def _whole_records(data: memoryview, end: int) -> tuple[int, int]:
    """Bytes and number of the records that are whole in the first bytes of some."""
    at = count = 0
    while at + RECORD.size <= end:
        size = RECORD.size + RECORD.unpack_from(data, at)[2]
        if at + size > end:
            break
        at, count = at + size, count + 1
    return at, count


class _Watch:
    """Listens to the instance meanwhile: it says when the capture is over for it."""

    def __init__(self, reply: Reply, items: Iterator[Json]) -> None:
        self._reply, self._items = reply, items
        self.over = ""
        """Why, once it is."""
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for _ in self._items:
                pass
            self.over = "somebody else has removed it"
        except (UserError, OSError, ValueError):
            self.over = "the instance has ended"

    def close(self) -> None:
        """Hang up."""
        self._reply.hang_up()
        self._thread.join()


def run(options: Options) -> None:
    """Capture until there is enough, the instance ends, or SIGINT or SIGTERM.

    Raises:
        UserError: a mistake in the options, nobody answers, or the file cannot be written.
    """
    say = sys.stderr if options.out == STDOUT else sys.stdout
    with _asked_to_stop() as asked:
        reply = Reply(options.name, "capture", edge=options.edge, snap=options.snap)
        items = iter(reply)
        answer = next(items)
        region = Region(answer["path"])
        watch = _Watch(reply, items)
        try:
            output = Output(options.out)
            file = "standard output" if options.out == STDOUT else options.out
            print(f"capturing {answer['edge']} to {file}; Ctrl-C ends it", file=say, flush=True)
            if answer["note"]:
                print(f"note: {answer['note']}", file=say, flush=True)
            try:
                why = _copy(options, region, output, watch, asked)
            finally:
                output.close()
        finally:
            watch.close()
    print(f"{why}: {_packets(output.packets)}, {output.bytes:,} bytes in {file}", file=say)
    if region.missed:
        print(
            f"{_packets(region.missed)} missed: they came faster than they were written", file=say
        )


def _packets(count: int) -> str:
    return f"{count:,} packet{'' if count == 1 else 's'}"


def _copy(options: Options, region: Region, output: Output, watch: _Watch, asked: list[int]) -> str:
    """Until the end; returns why."""
    end = None if options.seconds is None else time.monotonic() + options.seconds
    last: int | None = None
    why = ""
    while True:
        if not why and (why := _why_stop(end, watch, asked)):
            last = region.records  # what has come until now still counts
        left = sys.maxsize if options.count is None else options.count - output.packets
        room = max(0, options.size - output.bytes)
        before = region.taken
        data = region.take(room, min(left, sys.maxsize))
        if data:
            output.write(data, region.taken - before)
        if output.packets == options.count:
            return "enough"
        if not data and room < BUFFER and region.records > region.taken:
            return "the file has its size"
        if why and (not data or region.taken >= (last or 0)):
            return why
        if not data:
            time.sleep(IDLE_S)


def _why_stop(end: float | None, watch: _Watch, asked: list[int]) -> str:
    if asked:
        return "stopped"
    if watch.over:
        return watch.over
    return "time is over" if end is not None and time.monotonic() >= end else ""


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The signals that have come and ask for the end; none of them ends the process by itself."""
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, frame: asked.append(number)) for n in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
