# SPDX-License-Identifier: BSD-3-Clause
"""What a flow monitor has on the host: the way of its records to a collector and into a file."""

from __future__ import annotations

import functools
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hummingbird import logs
from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs import HostContext, NfHost
from hummingbird.nfs.flow_monitor_collector import Collector, resolve
from hummingbird.nfs.flow_monitor_records import CSV_HEADER, Records, Taker, csv_lines

if TYPE_CHECKING:
    from hummingbird.dataplane.plane import Dataplane
    from hummingbird.nfs.flow_monitor import FlowMonitorParams

RING = 32768
"""Records that may wait on an lcore until poll() takes them; a power of two."""
AT_ONCE = 2048
POLL_S = 0.02
"""poll() takes no more when it has exported for this long: reloads wait for it."""
FINAL_S = 60.0
"""Likewise, when the run is over."""
NS = 1_000_000_000


class CsvFile:
    """A file that lines are added to."""

    def __init__(self, path: Path, field: str) -> None:
        """Open it, and write the header if there is nothing yet.

        Raises:
            UserError: it cannot be written, or is something else.
        """
        self.path, self.lines, self.lost = path, 0, 0
        self._field = field
        self._fd = self._open()

    def _open(self) -> int:
        header = CSV_HEADER.encode()
        try:
            # no waiting for the reader of a pipe
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o644)
        except OSError as error:
            raise self._mistake(f"cannot be written: {error.strerror}") from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise self._mistake("is no ordinary file")
        if status.st_size and os.pread(fd, len(header), 0) != header:
            os.close(fd)
            raise self._mistake("holds something else than flow records")
        if not status.st_size:
            os.write(fd, header)
        return fd

    def _mistake(self, what: str) -> UserError:
        return UserError(
            f"{self.path} {what}", field=self._field, fix="name a new file, in a folder of yours"
        )

    def add(self, records: Records) -> None:
        """A line for each record; once that fails, no more.

        Raises:
            OSError: it has just failed.
        """
        if self._fd < 0:
            self.lost += len(records)
            return
        data = memoryview(csv_lines(records))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self.close()
            self.lost += len(records)
            raise
        self.lines += len(records)

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class FlowMonitorHost(NfHost):
    """The host part of one instance."""

    def __init__(self, params: FlowMonitorParams, context: HostContext) -> None:
        """Open the file and the socket."""
        self._name = context.name
        field = f"nfs.{context.name}"
        self._csv = CsvFile(context.base / params.csv, f"{field}.csv") if params.csv else None
        self._place, self._warned = params.collector, False
        self._collector = self._open_collector(params, f"{field}.collector")
        every = int((params.active_timeout or 0) * NS)
        self.pointer = lib.hb_flow_monitor_new(every, RING)
        if not self.pointer:
            raise MemoryError("no memory for the flow monitor")
        self._taker = Taker(self.pointer, AT_ONCE)
        self._plane: Dataplane | None = None

    def attach(self, plane: Dataplane, node: int) -> None:
        """From here on records may come."""
        self._plane = plane

    def _open_collector(self, params: FlowMonitorParams, field: str) -> Collector | None:
        if params.collector is None:
            return None
        family, address = resolve(params.collector, field)
        return Collector(
            family,
            address,
            mtu=params.mtu,
            domain=params.domain,
            times=params.timestamps,
            biflows=params.biflows,
        )

    def poll(self) -> None:
        """Export records that have come: for a bounded time, but all when no more can come."""
        ended = self._plane is not None and self._plane.stopped
        end = time.monotonic() + (FINAL_S if ended else POLL_S)
        while time.monotonic() < end:
            if self._collector and not self._collector.ready():
                if not ended:
                    break
                time.sleep(0.001)
            elif not self._export():
                break
        self._warn()

    def _export(self) -> int:
        """Export some records; how many there were."""
        records = self._taker.take()
        if len(records) and self._collector:
            self._collector.send(records)
        if len(records) and self._csv:
            self._write(self._csv, records)
        return len(records)

    def _write(self, csv: CsvFile, records: Records) -> None:
        try:
            csv.add(records)
        except OSError as error:
            logs.error(
                "records_lost",
                f"{self._name}: {csv.path}: {error.strerror}; no more flow records are written "
                "there",
                fix="make room on that disk, then start again",
                subject=self._name,
            )

    def _warn(self) -> None:
        if self._collector and self._collector.trouble and not self._warned:
            self._warned = True
            logs.warning(
                "collector_lost",
                f"{self._name}: the collector {self._place} does not get flow records: "
                f"{self._collector.trouble}",
                fix="start the collector, or name the place where one listens",
                subject=self._name,
            )

    def report(self) -> dict[str, Any]:
        """Records, and what became of them."""
        if self.pointer == ffi.NULL:
            return {}
        count = lib.hb_flow_monitor_count(self.pointer)
        found: dict[str, Any] = {
            "records": int(count.records),
            "lost_records": int(count.lost),
            "unmonitored": int(count.unmonitored),
        }
        if self._collector:
            sent = self._collector.counts
            found["exported"] = sent.records
            found["messages"] = sent.messages
            found["refused"] = sent.lost
            found["unreachable"] = sent.unreachable
        if self._csv:
            found |= {"csv_lines": self._csv.lines, "csv_lost": self._csv.lost}
        return found

    def flow(self, state: np.void) -> dict[str, Any]:
        """Counters of one flow, first of the end that began it."""
        return {
            "packets": state["packets"].tolist(),
            "bytes": state["octets"].tolist(),
            "flags": [flag_names(flags) for flags in state["flags"].tolist()],
        }

    def close(self) -> None:
        """Export what is left."""
        if self.pointer == ffi.NULL:
            return
        self.poll()
        if self._collector:
            self._collector.close()
        if self._csv:
            self._csv.close()
        if lost := self.report()["lost_records"]:
            logs.warning(
                "records_lost",
                f"{self._name}: {lost} flow records came too fast to be exported",
                fix="longer timeouts in flows:, or fewer flows to monitor",
                subject=self._name,
                count=lost,
            )
        lib.hb_flow_monitor_free(self.pointer)
        self.pointer = ffi.NULL


FLAGS = "FSRPAUEWN"
"""FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE (NS)."""


@functools.lru_cache(maxsize=1024)
def flag_names(flags: int) -> str:
    """TCP flags by their first letters."""
    return "".join(letter for bit, letter in enumerate(FLAGS) if flags >> bit & 1)
