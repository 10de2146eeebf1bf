# SPDX-License-Identifier: BSD-3-Clause
"""OpenCL devices: which there are, what they say of themselves, which one to take."""

from __future__ import annotations

import os
import platform as machine
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hummingbird import logs
from hummingbird.errors import UserError

FINE = "fine-grain buffer"
ATOMICS = "atomics"
SYSTEM = "fine-grain system"
COARSE = "coarse-grain buffer"


def reserve_cores(count: int) -> None:
    """Tell CPU runtimes how many cores they may spin on; works only before the first OpenCL call.

    A CPU runtime would otherwise start a thread per core, and persistent workgroups on all of them
    would leave nothing for the data plane. What the user has set stays.
    """
    os.environ.setdefault("POCL_MAX_PTHREAD_COUNT", str(count))  # PoCL up to 3
    os.environ.setdefault("POCL_CPU_MAX_CU_COUNT", str(count))  # PoCL 4 and later
    os.environ.setdefault("DPCPP_CPU_NUM_CUS", str(count))  # Intel's CPU runtime


@dataclass(frozen=True)
class Device:
    """One OpenCL device and what it claims."""

    handle: Any
    """The pyopencl.Device."""
    name: str
    platform: str
    runtime: str
    """Platform version and driver version."""
    is_cpu: bool
    compute_units: int
    max_workgroup: int
    svm: frozenset[str]
    """Kinds of shared virtual memory it claims: COARSE, FINE, SYSTEM, ATOMICS."""
    c_version: str

    @property
    def identity(self) -> str:
        """What a probe's result holds for: device, driver and kernel version."""
        return " | ".join((self.platform, self.name, self.runtime, machine.release()))

    @property
    def label(self) -> str:
        """Name for people."""
        return f"{self.name.strip()} ({self.platform})"


@contextmanager
def on_cpus(cpus: Collection[int]) -> Iterator[None]:
    """Threads that start meanwhile stay on these CPUs; any if there are none.

    A CPU runtime starts its threads at the first calls, and they inherit the caller's CPUs: so they
    keep off those of the data plane, whose threads pin themselves.
    """
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def devices() -> Iterator[Device]:
    """All OpenCL devices of all platforms; none if there is no OpenCL at all."""
    try:
        import pyopencl as cl
    except ImportError:
        return
    try:
        platforms = cl.get_platforms()
    except cl.Error:
        return
    for platform in platforms:
        try:
            found = platform.get_devices()
        except cl.Error:
            continue
        for handle in found:
            yield _describe(cl, platform, handle)


def _describe(cl: Any, platform: Any, handle: Any) -> Device:
    return Device(
        handle=handle,
        name=handle.name.strip(),
        platform=platform.name.strip(),
        runtime=f"{platform.version.strip()}, driver {handle.driver_version.strip()}",
        is_cpu=bool(handle.type & cl.device_type.CPU),
        compute_units=handle.max_compute_units,
        max_workgroup=handle.max_work_group_size,
        svm=_svm(cl, handle),
        c_version=handle.opencl_c_version.strip(),
    )


def _svm(cl: Any, handle: Any) -> frozenset[str]:
    flags = cl.device_svm_capabilities
    names = {
        COARSE: flags.COARSE_GRAIN_BUFFER,
        FINE: flags.FINE_GRAIN_BUFFER,
        SYSTEM: flags.FINE_GRAIN_SYSTEM,
        ATOMICS: flags.ATOMICS,
    }
    try:
        claimed = handle.svm_capabilities
    except cl.Error:  # an OpenCL 1.x device does not know the question
        return frozenset()
    hidden = os.environ.get("HUMMINGBIRD_HIDE_SVM", "").split(",")
    return frozenset(name for name, bit in names.items() if claimed & bit and name not in hidden)


def compiles(device: Device) -> str | None:
    """Why the device compiles no program at all; None if it does.

    PoCL's compiler refuses CPUs that are newer than itself.
    """
    import pyopencl as cl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cl.Program(cl.Context([device.handle]), "__kernel void nothing(void) {}").build()
    except cl.Error as error:
        lines = [line for line in str(error).splitlines() if "error:" in line]
        return (lines or [str(error)])[0].strip()
    return None


def _nothing_known(device: Device) -> bool:
    return False


def choose(use: str, known: Callable[[Device], bool] = _nothing_known) -> Device | None:
    """The device that ``device.use`` of a topology asks for.

    Args:
        use: ``auto`` (a GPU before a CPU), ``none``, ``required``, or part of a device's or
            platform's name.
        known: devices that have compiled programs before and are not tried again.

    Returns:
        The first such device that compiles programs; None for ``none``, and for ``auto`` where
        there is no OpenCL.

    Raises:
        UserError: ``required`` or a name, and no such device.
    """
    if use == "none":
        return None
    found = sorted(devices(), key=lambda device: device.is_cpu)
    if use not in ("auto", "required"):
        found = [d for d in found if use.lower() in f"{d.platform} {d.name}".lower()]
    faults = []
    for device in found:
        fault = None if known(device) else compiles(device)
        if fault is None:
            return device
        faults.append(f"{device.label} compiles no program here: {fault}")
        logs.warning(
            "device_unusable",
            faults[-1],
            fix="install another driver for it, or name another device with device.use",
            subject=device.label,
        )
    if use == "auto":
        return None
    what = (
        "there is no OpenCL device" if use == "required" else f"no OpenCL device is named {use!r}"
    )
    if faults:
        what = "; ".join(faults)
    raise UserError(
        what,
        field="device.use",
        fix="install a driver (for the CPU: apt-get install pocl-opencl-icd), see what "
        "`hummingbird devices` lists, or write use: auto",
    )
