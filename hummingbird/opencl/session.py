# SPDX-License-Identifier: BSD-3-Clause
"""One device in use: context, queue, program, and the regions bound to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs.tables import Layout
from hummingbird.opencl import memory, program
from hummingbird.opencl.device import FINE, Device
from hummingbird.opencl.memory import Region

PERSISTENT = "persistent"
LAUNCH = "launch"


@dataclass(frozen=True)
class QueueShape:
    """The circular queue of a device."""

    workgroups: int
    """Logical workgroups: the sum over GNFs and their syncers."""
    lanes: int
    depth: int
    groups: int
    """Groups that a launch starts at first; check-in finds how many are resident."""
    lifetime_us: int = 200_000
    idle_us: int = 100_000


@dataclass
class Session:
    """Everything the data plane needs of a device, and what keeps it alive."""

    device: Device
    executor: str
    dialect: str
    binding: str
    frames: Region
    tables: Region
    config: Any
    """hb_device * for hb_set_device()."""
    keep: list[Any]


def open_session(
    device: Device,
    executor: str,
    codes: Sequence[program.Code],
    frames_size: int,
    frame_size: int,
    tables: Layout,
    shape: QueueShape,
    binding: str | None = None,
) -> Session:
    """Create context, queue, program and regions; fill the tables.

    Args:
        device: the device.
        executor: PERSISTENT or LAUNCH.
        codes: packet functions that rows name.
        frames_size: bytes of the frame region.
        frame_size: bytes of a frame.
        tables: what goes into the tables region.
        shape: of the queue.
        binding: one of memory.bindings(); None takes the first that works.

    Raises:
        UserError: the program does not compile, or no memory can be bound.
    """
    import pyopencl as cl

    context = cl.Context([device.handle])
    queue = cl.CommandQueue(context)
    built, dialect = program.build(context, device, codes, local_bytes=tables.local_bytes)
    last: MemoryError | None = None
    for way in [binding] if binding else memory.bindings(device):
        if way == "staged" and executor == PERSISTENT:
            break  # a running kernel sees no copies
        try:
            frames = memory.shared_region(context, device, frames_size, way)
            table_region = memory.shared_region(context, device, tables.size, way)
            control = _control_region(context, device, shape, way)
        except MemoryError as error:
            last = error
            continue
        tables.fill(table_region.array)
        regions = (frames, table_region, control)
        return _finish(
            device, executor, context, queue, built, dialect, way, regions, frame_size, shape
        )
    raise UserError(
        f"{device.label} shares no memory with the host that executor {executor} can use"
        + (f" ({last})" if last else ""),
        field="device.executor",
        fix="write executor: launch",
    )


def _control_region(context: Any, device: Device, shape: QueueShape, binding: str) -> Region:
    """Control words want the most coherent memory there is: SVM also beside userptr frames."""
    size = lib.hb_control_size(shape.workgroups, shape.lanes, shape.depth, shape.groups)
    if binding == "userptr" and FINE in device.svm:
        binding = "fine-grain SVM"
    return memory.shared_region(context, device, size, binding)


def _warm_up(queue: Any, kernel: Any, control: Region, frames: Region, shape: QueueShape) -> None:
    """One empty launch: CPU runtimes finish compiling at the first, and no packet should wait."""
    import numpy as np
    import pyopencl as cl

    pointer = ffi.cast("void *", control.address)
    lib.hb_control_init(pointer, shape.workgroups, shape.lanes, shape.depth, shape.groups)
    lib.hb_control_exit(pointer)
    if kernel.function_name == "hb_batch":
        for index in range(5, 10):
            kernel.set_arg(index, np.uint64(control.array.nbytes - 64))
        kernel.set_arg(4, np.uint32(shape.lanes))
        if control.argument is None:
            zeros = cl.Buffer(
                queue.context,
                cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR,
                hostbuf=control.array,
            )
            kernel.set_arg(0, zeros)
            kernel.set_arg(1, zeros)
            kernel.set_arg(2, np.uint64(0))
    cl.enqueue_nd_range_kernel(queue, kernel, (shape.lanes,), (shape.lanes,)).wait()


def _finish(
    device: Device,
    executor: str,
    context: Any,
    queue: Any,
    built: Any,
    dialect: str,
    binding: str,
    regions: tuple[Region, Region, Region],
    frame_size: int,
    shape: QueueShape,
) -> Session:
    import numpy as np
    import pyopencl as cl

    frames, tables, control = regions
    staged = binding == "staged"
    kernel = cl.Kernel(built, "hb_persistent" if executor == PERSISTENT else "hb_batch")
    keep: list[Any] = [context, queue, built, kernel, control]
    if staged:
        buffer = memory.staged_tables(context, queue, tables)
        keep += [buffer, tables]
        kernel.set_arg(3, buffer)
    else:
        kernel.set_arg(0, control.argument)
        kernel.set_arg(1, frames.argument)
        kernel.set_arg(2, np.uint64(frame_size))
        kernel.set_arg(3, tables.argument)
    _warm_up(queue, kernel, control, frames, shape)
    config = ffi.new("hb_device *")
    config.executor = (
        lib.HB_EXECUTOR_PERSISTENT if executor == PERSISTENT else lib.HB_EXECUTOR_LAUNCH
    )
    config.queue = ffi.cast("void *", queue.int_ptr)
    config.kernel = ffi.cast("void *", kernel.int_ptr)
    config.context = ffi.cast("void *", context.int_ptr)
    config.control = ffi.cast("void *", control.address)
    if staged:
        config.tables = ffi.cast("void *", tables.address)
        config.tables_buffer = ffi.cast("void *", buffer.int_ptr)
        config.tables_bytes = tables.array.nbytes
    config.staged, config.on_cpu = staged, device.is_cpu
    config.workgroups, config.lanes = shape.workgroups, shape.lanes
    config.depth, config.groups = shape.depth, shape.groups
    config.lifetime_us, config.idle_us = shape.lifetime_us, shape.idle_us
    return Session(device, executor, dialect, binding, frames, tables, config, keep)
