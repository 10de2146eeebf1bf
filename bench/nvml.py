# SPDX-License-Identifier: BSD-3-Clause
"""The few functions of NVIDIA's management library that a power meter needs.

libnvidia-ml.so.1 comes with the driver; its functions return 0 or an error that
nvmlErrorString() names (NVML API reference, device queries).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from notreadable import NotReadable

LIBRARY = "libnvidia-ml.so.1"
Library = Any
"""A ctypes.CDLL, or what stands for one in tests."""


@dataclass(frozen=True)
class Gpu:
    """One GPU of the driver."""

    handle: ctypes.c_void_p
    name: str
    counts_energy: bool
    """It has an energy counter: Volta and later."""


def load() -> Library:
    """The library of this machine's driver.

    Raises:
        NotReadable: there is none.
    """
    try:
        lib = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NotReadable(f"nvml: no NVIDIA driver: {error}") from None
    lib.nvmlErrorString.restype = ctypes.c_char_p
    return lib


def _call(lib: Library, function: str, *args: Any) -> None:
    status = getattr(lib, function)(*args)
    if status:
        text = lib.nvmlErrorString(status).decode(errors="replace")
        raise NotReadable(f"nvml: {function}: {text}")


def gpus(lib: Library) -> list[Gpu]:
    """All GPUs.

    Raises:
        NotReadable: the driver does not answer, or there is none.
    """
    _call(lib, "nvmlInit_v2")
    count = ctypes.c_uint()
    _call(lib, "nvmlDeviceGetCount_v2", ctypes.byref(count))
    if not count.value:
        raise NotReadable("nvml: the driver shows no GPU")
    return [_gpu(lib, index) for index in range(count.value)]


def _gpu(lib: Library, index: int) -> Gpu:
    handle = ctypes.c_void_p()
    _call(lib, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
    name = ctypes.create_string_buffer(96)
    _call(lib, "nvmlDeviceGetName", handle, name, ctypes.c_uint(96))
    try:
        counted_joules(lib, Gpu(handle, "", True))
    except (NotReadable, AttributeError):  # the GPU or the driver is too old
        return Gpu(handle, name.value.decode(), False)
    return Gpu(handle, name.value.decode(), True)


def counted_joules(lib: Library, gpu: Gpu) -> float:
    """Energy since the driver was loaded (nvmlDeviceGetTotalEnergyConsumption, mJ)."""
    value = ctypes.c_ulonglong()
    _call(lib, "nvmlDeviceGetTotalEnergyConsumption", gpu.handle, ctypes.byref(value))
    return value.value / 1e3


def watts_now(lib: Library, gpu: Gpu) -> float:
    """Power of the GPU and its memory (nvmlDeviceGetPowerUsage, mW)."""
    value = ctypes.c_uint()
    _call(lib, "nvmlDeviceGetPowerUsage", gpu.handle, ctypes.byref(value))
    return value.value / 1e3
