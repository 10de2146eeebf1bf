# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird capture`: writes the packets of one edge of a running instance to a capture file.

The instance puts packets into shared memory and forgets about them; this process takes them out and
writes them. So a slow or full disk, or the end of this process, is nothing that the instance sees.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import signal
import stat
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hummingbird import outputs
from hummingbird.control import RESTARTING, Json
from hummingbird.control_client import Reply
from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError

HEAD = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
"""Nanoseconds, Ethernet."""
MAGICS = {
    *(n.to_bytes(4, order) for n in (0xA1B2C3D4, 0xA1B23C4D) for order in ("little", "big")),
    b"\x0a\x0d\x0d\x0a",
}
"""What a capture begins with: pcap of micro- or nanoseconds, and pcapng."""
RECORD = struct.Struct("=IIII")
BUFFER = 1 << 20
IDLE_S = 0.005
PATIENCE_MS = 1000
"""With whoever reads a pipe, once the end is asked for."""
SIZE = 1_000_000_000
STDOUT = "-"
ENDED = "the instance has ended"


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    edge: str
    out: str
    """A file, which is replaced if it is a capture, or `STDOUT`."""
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

    def __init__(self, name: str, used: Mapping[str, str], asked: Sequence[int] = ()) -> None:
        """Replace it.

        Args:
            name: of the file, or `STDOUT`.
            used: files that must not be replaced (outputs.in_use()).
            asked: is not empty any more once somebody asks for the end.

        Raises:
            UserError: it cannot be written.
        """
        self._name = name
        self._asked = asked
        self.bytes = self.packets = 0
        try:
            number = os.dup(1) if name == STDOUT else _opened(name, used)
        except OSError as error:
            raise _unwritable(name, str(error.strerror)) from None
        self._file: BinaryIO = os.fdopen(number, "wb", buffering=0)
        self._pipe = stat.S_ISFIFO(os.fstat(number).st_mode)
        self.write(memoryview(HEAD), 0)

    def write(self, data: memoryview, packets: int) -> None:
        """All of it; if that fails, as many whole packets as fit stay in the file."""
        done = 0
        try:
            while done < len(data):
                done += self._some(data[done:])
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

    def _some(self, data: memoryview) -> int:
        """Write some of it. A pipe that is full is waited for where a signal is seen, and then it
        has room for PIPE_BUF bytes."""
        if self._pipe:
            self._wait()
            data = data[: select.PIPE_BUF]
        return self._file.write(data) or 0

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._file, select.POLLOUT)
        while not poll.poll(PATIENCE_MS):
            if self._asked:
                what = "stopped, but nobody reads the rest of the capture; its last packet is cut"
                raise UserError(what, path=self._name, fix="end what reads it last")

    def _cut(self, size: int) -> None:
        with suppress(OSError):  # a pipe or a device, where nothing can be cut
            os.ftruncate(self._file.fileno(), size)

    def close(self) -> None:
        """No more comes."""
        self._file.close()


def _opened(name: str, used: Mapping[str, str]) -> int:
    """Open the file for this process alone, and empty it; OSError or UserError if that cannot be.
    A pipe is not waited for: nobody but its reader could end that."""
    outputs.check_free(name, "capture", used)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        number = os.open(name, flags, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise _unwritable(name, "nobody reads this pipe", "start what reads it first") from None
    try:
        os.set_blocking(number, True)
        if stat.S_ISREG(os.fstat(number).st_mode):
            _take_over(number, name)
    except BaseException:
        os.close(number)
        raise
    return number


def _take_over(number: int, name: str) -> None:
    """Empty an open file, if it is a capture and no other process writes it."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _unwritable(name, "another capture is writing it") from None
    except OSError:
        pass  # a file system without locks
    if os.fstat(number).st_size and _first_bytes(name) not in MAGICS:
        fix = "name another file, or remove this one"
        raise _unwritable(name, "this file is no capture and would be lost", fix)
    os.ftruncate(number, 0)


def _first_bytes(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read(4)


def _unwritable(name: str, why: str, fix: str = "name another file") -> UserError:
    return UserError(f"cannot write the capture: {why}", path=Path(name), fix=fix)


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
        except UserError as error:
            restarts = error.what == RESTARTING
            self.over = "the instance has been restarted" if restarts else ENDED
        except (OSError, ValueError):
            self.over = ENDED

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
            output = Output(options.out, answer.get("files", {}), asked)
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
        before, waiting = region.taken, region.records > region.taken
        data = region.take(room, min(left, sys.maxsize))
        if data:
            output.write(data, region.taken - before)
        if output.packets == options.count:
            return "enough"
        if not data and room < BUFFER and waiting:  # it was there, and too large
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
