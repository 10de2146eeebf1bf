# SPDX-License-Identifier: BSD-3-Clause
"""Memory that host and device share: a region of bytes and the way a kernel gets at it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.dataplane._native import ffi, lib
from hummingbird.opencl.device import ATOMICS, FINE, SYSTEM, Device

PAGE = 4096


@dataclass
class Region:
    """Some memory. ``address`` is what the data plane uses, ``argument`` what a kernel is given."""

    array: npt.NDArray[np.uint8]
    """All of it, as bytes."""
    address: int
    binding: str
    """``host`` (no device), ``system SVM``, ``fine-grain SVM``, ``userptr`` or ``staged``."""
    argument: Any
    """pyopencl object for Kernel.set_arg; None for ``host`` and ``staged``."""
    owner: Any
    """Keeps the memory alive."""


class _HostMemory:
    """A region of the data plane's own, freed with this object."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer = lib.hb_region_new(size)
        if not self.pointer:
            raise MemoryError(f"no memory for {size >> 20} MiB")

    def __del__(self) -> None:
        lib.hb_region_free(self.pointer, self.size)


def host_region(size: int) -> Region:
    """Memory without a device: anonymous, huge pages asked for, pre-faulted, locked."""
    size = -(-size // PAGE) * PAGE
    memory = _HostMemory(size)
    array = np.frombuffer(ffi.buffer(memory.pointer, size), dtype=np.uint8)
    return Region(array, int(ffi.cast("uintptr_t", memory.pointer)), "host", None, memory)


def bindings(device: Device) -> list[str]:
    """The ways to share memory that this device claims, best first (design section 3).

    HUMMINGBIRD_BINDING forces one: how tests and bug reports reach the others.
    """
    forced = os.environ.get("HUMMINGBIRD_BINDING")
    if forced:
        return [forced]
    ways = []
    if SYSTEM in device.svm:
        ways.append("system SVM")
    if FINE in device.svm:
        ways.append("fine-grain SVM")
    return [*ways, "userptr", "staged"]


def shared_region(context: Any, device: Device, size: int, binding: str) -> Region:
    """Memory that the host and a running kernel both address.

    Raises:
        MemoryError: the device refuses this binding for this size; try the next.
    """
    import pyopencl as cl

    if binding == "fine-grain SVM":
        return _fine_grain(cl, context, device, size)
    region = host_region(size)
    region.binding = binding
    if binding == "system SVM":
        region.argument = cl.SVM(region.array)
    elif binding == "userptr":
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
        try:
            region.argument = cl.Buffer(context, flags, hostbuf=region.array)
        except cl.Error as error:
            raise MemoryError(f"{device.label} refuses userptr: {error}") from error
    return region


def _fine_grain(cl: Any, context: Any, device: Device, size: int) -> Region:
    """clSVMAlloc refuses alignments above 128 on CPU runtimes: take a page more and round up."""
    flags = cl.svm_mem_flags.READ_WRITE | cl.svm_mem_flags.SVM_FINE_GRAIN_BUFFER
    if ATOMICS in device.svm:
        flags |= cl.svm_mem_flags.SVM_ATOMICS
    size = -(-size // PAGE) * PAGE
    try:
        owner = cl.SVMAllocation(context, size + PAGE, 0, flags)
    except (cl.Error, MemoryError) as error:
        raise MemoryError(f"{device.label} gives no {size >> 20} MiB of SVM: {error}") from error
    address = -(-owner.svm_ptr // PAGE) * PAGE
    buffer = ffi.buffer(ffi.cast("void *", address), size)
    array = np.frombuffer(buffer, dtype=np.uint8)
    array[:] = 0  # pre-fault
    return Region(array, address, "fine-grain SVM", cl.SVM(array), owner)


def staged_tables(context: Any, queue: Any, host: Region) -> Any:
    """A device copy of the tables, for a device that shares no memory."""
    import pyopencl as cl

    buffer = cl.Buffer(context, cl.mem_flags.READ_ONLY, host.array.nbytes)
    cl.enqueue_copy(queue, buffer, host.array, is_blocking=True)
    return buffer
