# SPDX-License-Identifier: BSD-3-Clause
"""The queue between CPU and GPU by itself, and what anyone would write without it, for benchmarks.

Neither has ports, routes or NFs of a chain: a host thread, a device, and packets that go round. The
device changes one 32-bit word of each packet, or one in every 64 bytes (NF ``touch``), and every
such word is checked at the end.

The host thread has the first CPU of this process. All else keeps off it: the executor, and the
threads of a CPU runtime if the first OpenCL call was made under on_cpus(spare_cpus()). So with two
CPUs the executor shares the second with the one worker of a CPU runtime; the thread of the enqueue
loop, which is host and executor in one, has the first to itself, and its worker the second.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs import NfTable
from hummingbird.nfs.tables import layout
from hummingbird.opencl import memory, program
from hummingbird.opencl.device import Device, on_cpus
from hummingbird.opencl.program import builtin
from hummingbird.opencl.session import QueueShape, open_session

FRAME = 2048
WORD = 4
"""Bytes to touch for one word a packet."""
MAX_SECONDS = 60.0
_NO_TABLE = NfTable(np.zeros(0, dtype=np.uint8))
_ROOM = FRAME - int(lib.HB_FRAME_RESERVED) - int(lib.HB_FRAME_HEADROOM)


@dataclass(frozen=True, eq=False)
class Program:
    """The NF that rows run. Compared by identity."""

    name: str
    kind: int
    """Number in HB_NF_KINDS of hummingbird.h."""
    table: NfTable


TOUCH = Program("touch", 6, _NO_TABLE)
"""Changes words of the packet; see ``touch`` of run()."""


@dataclass(frozen=True)
class Measured:
    """What a run has shown. Rows of the enqueue loop are batches."""

    packets: int
    rows: int
    seconds: float
    host_ns_per_packet: float | None
    """Time of the host thread in fill, publish and reap; None without packets, and for the
    enqueue loop, whose host waits in the driver."""
    host_ticks_per_packet: float | None
    """The same in ticks of the CPU's constant counter (TSC): not core cycles."""
    trip_us: float | None
    """Median time from publishing to seeing all rows finished; None unless ``together``."""
    trip_p99_us: float | None
    touched: int
    """Packets that the device has had in all, the warm-up's included."""
    wrong: int
    """Impossible answers, and packets with a word that was not changed once per turn."""
    launches: int

    @property
    def mpps(self) -> float:
        """Million packets a second."""
        return self.packets / self.seconds / 1e6

    @property
    def row_us(self) -> float:
        """Time per row, all in flight taken together."""
        return self.seconds / self.rows * 1e6


def _require(holds: bool, what: str, fix: str) -> None:
    if not holds:
        raise UserError(what, fix=fix)


def _check_packet(length: int, seconds: float) -> None:
    _require(
        WORD <= length <= _ROOM,
        f"a packet of {length} bytes does not fit a frame",
        f"take {WORD} to {_ROOM} bytes",
    )
    _require(
        0 < seconds <= MAX_SECONDS,
        f"measuring for {seconds:g} s is not possible",
        f"take up to {MAX_SECONDS:g} s",
    )


def _check_group(device: Device, lanes: int) -> None:
    _require(
        0 < lanes <= device.max_workgroup,
        f"{device.label} runs no workgroups of {lanes}",
        f"take 1 to {device.max_workgroup}",
    )


def _cpu() -> int:
    """The host thread's."""
    return min(os.sched_getaffinity(0))


def spare_cpus() -> set[int]:
    """The CPUs of this process but the host thread's; none if that is the only one."""
    return os.sched_getaffinity(0) - {_cpu()}


class BareQueue:
    """A queue and its executor; one host thread, on the first CPU of this process."""

    def __init__(
        self,
        device: Device,
        executor: str,
        *,
        lanes: int = 64,
        depth: int = 64,
        workgroups: int = 1,
        binding: str | None = None,
        nf: Program = TOUCH,
    ) -> None:
        """Open the device.

        Args:
            device: the device.
            executor: session.PERSISTENT or session.LAUNCH.
            lanes: packets of a full row.
            depth: rows of a workgroup, a power of two.
            workgroups: rows go to them in turn.
            binding: a way to share memory; ``staged`` copies (LAUNCH only). None: the best.
            nf: what rows run: TOUCH, or an NF that lets UDP packets pass as they are.

        Raises:
            UserError: the device cannot do this.
        """
        _check_group(device, lanes)
        _require(
            depth > 0 and depth & (depth - 1) == 0 and workgroups > 0,
            f"a queue of {workgroups} workgroups of {depth} rows is not possible",
            "take a power of two of rows, and at least one workgroup",
        )
        tables = layout([(nf.kind, nf.table)], [[0]])
        self._nf = nf
        self._shape = QueueShape(workgroups, lanes, depth, groups=workgroups)
        frames = workgroups * depth * lanes * FRAME
        with on_cpus(spare_cpus()):
            self._session = open_session(
                device, executor, [builtin(nf.name)], frames, FRAME, tables, self._shape, binding
            )

    @property
    def frames(self) -> Any:
        """The packets' frames as bytes, [packets][FRAME]."""
        return self._session.frames.array.reshape(-1, FRAME)

    def run(
        self,
        *,
        rows: int,
        count: int | None = None,
        length: int = 64,
        touch: int = WORD,
        together: bool = False,
        seconds: float = 0.3,
    ) -> Measured:
        """Measure once.

        Args:
            rows: in flight.
            count: packets of each row, the others are dummies; None: full rows.
            length: bytes of a packet.
            touch: the first word of every 64 bytes up to here is changed.
            together: publish all rows at once and wait for all of them, instead of each by itself.
            seconds: how long.

        Raises:
            UserError: impossible parameters, or the device failed.
        """
        shape = self._shape
        _check_packet(length, seconds)
        most = shape.workgroups * shape.depth
        _require(0 < rows <= most, f"{rows} rows in flight are not possible", f"take 1 to {most}")
        full = shape.lanes if count is None else count
        _require(
            0 <= full <= shape.lanes,
            f"{full} packets are no row of {shape.lanes} lanes",
            f"take 0 to {shape.lanes}",
        )
        config = ffi.new("hb_bare_config *")
        config.device = self._session.config[0]
        config.frames = ffi.cast("void *", self._session.frames.address)
        config.frame_size, config.mbufs = FRAME, rows * shape.lanes
        config.rows, config.count, config.length = rows, full, length
        config.touch = touch if self._nf is TOUCH else 0
        config.together, config.cpu, config.seconds = together, _cpu(), seconds
        result = ffi.new("hb_bare_result *")
        with on_cpus(spare_cpus()):  # the executor's; the host thread pins itself
            failed = lib.hb_bare_queue(config, result)
        if failed:
            raise UserError(f"{self._session.device.label} failed, or made no progress for 10 s")
        return _measured(result, host=True)


class EnqueueLoop:
    """Write, enqueue, read, wait: what anyone writes who has no queue; one batch at a time."""

    def __init__(self, device: Device, batch: int, *, group: int = 64, copies: bool = True) -> None:
        """Open the device.

        Args:
            device: the device.
            batch: packets of an enqueue, a multiple of ``group``.
            group: work-items of a workgroup.
            copies: copy packets and descriptors to the device and back; False: share memory.

        Raises:
            UserError: impossible parameters, or a device that shares no memory.
        """
        import pyopencl as cl

        _check_group(device, group)
        _require(
            batch > 0 and batch % group == 0,
            f"a batch of {batch} is not made of workgroups of {group}",
            f"take a multiple of {group}",
        )
        self._device, self._batch, self._group, self._copies = device, batch, group, copies
        with on_cpus(spare_cpus()):
            self._context = cl.Context([device.handle])
            self._queue = cl.CommandQueue(self._context)
            built, _ = program.build(self._context, device, [builtin("touch")], "bare.cl")
        self._kernel = cl.Kernel(built, "hb_bare")
        way = "staged" if copies else memory.bindings(device)[0]
        _require(copies or way != "staged", f"{device.label} shares no memory", "copy")
        try:
            self._frames = memory.shared_region(self._context, device, batch * FRAME, way)
            self._shared = memory.shared_region(self._context, device, batch * 20, way)
        except MemoryError as error:
            raise UserError(f"{device.label} shares no memory: {error}", fix="copy") from error
        if not copies:
            arguments = (self._shared.argument, self._frames.argument, np.uint64(FRAME))
            for index, argument in enumerate(arguments):
                self._kernel.set_arg(index, argument)

    @property
    def frames(self) -> Any:
        """The packets' frames as bytes, [packets][FRAME]."""
        return self._frames.array.reshape(-1, FRAME)

    def run(self, *, length: int = 64, touch: int = WORD, seconds: float = 0.3) -> Measured:
        """Measure once; arguments and errors as BareQueue.run()."""
        _check_packet(length, seconds)
        config = ffi.new("hb_enqueue_config *")
        config.queue = ffi.cast("void *", self._queue.int_ptr)
        config.kernel = ffi.cast("void *", self._kernel.int_ptr)
        if self._copies:
            config.context = ffi.cast("void *", self._context.int_ptr)
        else:
            config.shared = ffi.cast("void *", self._shared.address)
        config.frames = ffi.cast("void *", self._frames.address)
        config.frame_size, config.mbufs = FRAME, self._batch
        config.batch, config.group = self._batch, self._group
        config.length, config.touch = length, touch
        config.cpu, config.seconds = _cpu(), seconds
        result = ffi.new("hb_bare_result *")
        if lib.hb_bare_enqueue(config, result):
            raise UserError(f"{self._device.label} failed")
        return _measured(result, host=False)


def _measured(result: Any, *, host: bool) -> Measured:
    us = float(lib.hb_ticks_per_second()) / 1e6
    ticks = result.host_ticks / result.packets if host and result.packets else None
    return Measured(
        packets=result.packets,
        rows=result.rows,
        seconds=result.seconds,
        host_ns_per_packet=None if ticks is None else ticks / us * 1e3,
        host_ticks_per_packet=ticks,
        trip_us=result.trip_p50 / us or None,
        trip_p99_us=result.trip_p99 / us or None,
        touched=result.touched,
        wrong=result.wrong,
        launches=result.launches,
    )
