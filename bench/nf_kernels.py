# SPDX-License-Identifier: BSD-3-Clause
"""The device code of ipsec and nids by itself: all packets in one enqueue of the `launch`
executor's kernel, on one core of a CPU runtime or on a whole GPU.

bench/nf.py ── "nids 1472 0.5" ── child, one for each OpenCL runtime ── {"ns": ...}

A child, because what selects a runtime, and the cores that it takes, is read once a process.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nf_sides
import numpy as np
import numpy.typing as npt
import peer
import workload
from child import prepare
from harness import Reading
from hummingbird.dataplane._native import ffi, lib

from hummingbird.dataplane import bare
from hummingbird.errors import UserError
from hummingbird.nfs import automaton
from hummingbird.opencl import program
from hummingbird.opencl.device import Device, choose, reserve_cores

INTEL = Path(sys.prefix) / "lib" / "libintelocl.so"
LANES = 64
ON_GPU = 65536
"""Packets of an enqueue there: it has far more lanes than a CPU."""
WARM_UP = 2
RUN = np.dtype([("base", "u4"), ("first", "u4"), ("count", "u4"), ("mask", "u4")])
ROW = np.dtype(
    [
        ("program", "u4"), ("count", "u2"), ("head", "u2"), ("tail", "u2"), ("pad", "u2"),
        ("generation", "u4"), ("route", "u4"), ("pad2", "u4"), ("tick", "u8"),
    ]
)  # fmt: skip
WORK = np.dtype(
    [
        ("frame", "u4"), ("offset", "u2"), ("length", "u2"), ("l3", "u1"), ("l4", "u1"),
        ("type", "u2"), ("flow", "u4"),
    ]
)  # fmt: skip
DONE = np.dtype(
    [
        ("offset", "u2"), ("length", "u2"), ("value", "u2"), ("verdict", "u1"), ("stopped", "u1"),
        ("result", "u8"),
    ]
)  # fmt: skip
"""As in cl_kernels/hummingbird.h."""


@dataclass(frozen=True)
class Selected:
    """What selects a runtime: the name of its device or platform, and environment variables."""

    use: str
    env: Mapping[str, str] = field(default_factory=dict)


RUNTIMES = {
    "PoCL": Selected("Portable Computing Language"),
    "Intel": Selected(
        "Intel", {"OCL_ICD_VENDORS": str(INTEL), "LD_LIBRARY_PATH": str(INTEL.parent)}
    ),
    "GPU": Selected("auto"),
}

# ---- the child -----------------------------------------------------------------------------------


class Queue:
    """What rows for all packets look like: the arrays of one enqueue, one behind the other."""

    def __init__(self, kind: str, size: int, n: int) -> None:
        self.n = n
        made = min(n, nf_sides.PACKETS)
        if kind == "ipsec":
            self.table = nf_sides.ipsec_table_of_one()
            packets = nf_sides.ipsec_packets(made, size)
        else:
            self.table = nf_sides.nids_table()
            packets = workload.udp(workload.http(made, size, workload.patterns()))
        self.length = packets.shape[1]
        self.frames = np.zeros((n, bare.FRAME), dtype=np.uint8)
        self.frames[:, bare.FIRST : bare.FIRST + self.length] = np.resize(packets, (n, self.length))
        self.arg = nf_sides.ipsec_arg(n) if kind == "ipsec" else np.zeros(n, dtype=np.uint64)
        self.arrays = [self._runs(), self._rows(), self._work(), self.arg, np.zeros(n, DONE)]
        ends = np.cumsum([array.nbytes for array in self.arrays])
        self.offsets = [0, *(int(end) for end in ends[:-1])]

    def _runs(self) -> npt.NDArray[Any]:
        runs = np.zeros(self.n // LANES, RUN)
        runs["base"], runs["count"] = np.arange(runs.size), 1
        return runs

    def _rows(self) -> npt.NDArray[Any]:
        rows = np.zeros(self.n // LANES, ROW)
        rows["count"], rows["generation"] = LANES, 1
        rows["head"], rows["tail"] = self.table.nf.head, self.table.nf.tail
        return rows

    def _work(self) -> npt.NDArray[Any]:
        work = np.zeros(self.n, WORK)
        work["frame"], work["offset"] = np.arange(self.n), bare.FIRST
        work["length"], work["l3"], work["l4"] = self.length, 14, 34
        return work

    def bytes(self) -> npt.NDArray[np.uint8]:
        """All arrays."""
        return np.concatenate([array.view(np.uint8) for array in self.arrays])

    def on_host(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
        """Frames and answers as the same code on the CPU makes them."""
        frames, done = self.frames.copy(), np.zeros(self.n, DONE)
        pointers = [ffi.cast("void *", a.ctypes.data) for a in (frames, self.arrays[2], done)]
        lib.hb_run_program(
            pointers[0], bare.FRAME, ffi.cast("void *", self.table.region.address), 0,
            self.table.nf.head, self.table.nf.tail, pointers[1],
            ffi.cast("uint64_t *", self.arg.ctypes.data), pointers[2], self.n,
        )  # fmt: skip
        return frames, done


class Kernel:
    """hb_batch over one Queue, with everything in the device's own buffers."""

    def __init__(self, device: Device, kind: str, size: int) -> None:
        import pyopencl as cl

        # a CPU runtime's own time does not count what else runs on its core
        self.clock = time.process_time if device.is_cpu else time.perf_counter
        self.q = Queue(kind, size, nf_sides.PACKETS if device.is_cpu else ON_GPU)
        table = self.q.table
        self.context = context = cl.Context([device.handle])
        self.commands = cl.CommandQueue(context)
        codes = [program.builtin(kind)]
        built, _ = program.build(context, device, codes, local_bytes=table.table.local_bytes)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        self.queue = cl.Buffer(context, flags, hostbuf=self.q.bytes())
        self.frames = cl.Buffer(context, flags, hostbuf=self.q.frames)
        self.pristine = cl.Buffer(context, flags, hostbuf=self.q.frames)
        self.tables = cl.Buffer(context, flags, hostbuf=table.region.array)
        self.kernel = cl.Kernel(built, "hb_batch")
        words = [np.uint64(offset) for offset in self.q.offsets]
        arguments = (
            self.queue, self.frames, np.uint64(bare.FRAME), self.tables, np.uint32(LANES), *words,
        )  # fmt: skip
        for index, argument in enumerate(arguments):
            self.kernel.set_arg(index, argument)

    def once(self) -> float:
        """Seconds of one enqueue, all packets as they were at first."""
        import pyopencl as cl

        cl.enqueue_copy(self.commands, self.frames, self.pristine)
        self.commands.finish()
        begin = self.clock()
        cl.enqueue_nd_range_kernel(self.commands, self.kernel, (self.q.n,), (LANES,))
        self.commands.finish()
        return self.clock() - begin

    def check(self) -> None:
        """UserError unless device and CPU made the same of the packets."""
        import pyopencl as cl

        self.once()
        frames = np.empty_like(self.q.frames)
        queue = np.empty_like(self.q.bytes())
        cl.enqueue_copy(self.commands, frames, self.frames)
        cl.enqueue_copy(self.commands, queue, self.queue)
        on_host, done = self.q.on_host()
        nf_sides.agree("packets of device and CPU", frames, on_host)
        on_device = queue[self.q.offsets[4] :].view(DONE)
        nf_sides.agree("answers of device and CPU", on_device, done)

    def measure(self, seconds: float) -> float:
        """ns a packet: the lower quartile, as of the engines."""
        end, took = time.perf_counter() + seconds, []
        for _ in range(WARM_UP):
            self.once()
        while time.perf_counter() < end or not took:
            took.append(self.once())
        return float(np.percentile(took, 25)) / self.q.n * 1e9


class Plain(Kernel):
    """The search as anyone would write it first, over the same packets and patterns."""

    def __init__(self, device: Device, size: int) -> None:
        import pyopencl as cl

        super().__init__(device, "nids", size)
        dfa = automaton.make_automaton([(pattern, False) for pattern in workload.patterns()])
        ends = np.isin(np.arange(len(dfa.next)), list(dfa.ends))
        order = np.argsort(ends, kind="stable")  # states that end a pattern come last
        number = np.empty_like(order)
        number[order] = np.arange(order.size)
        context = self.context
        source = (peer.FOLDER / "plain.cl").read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cl.CompilerWarning)  # Intel's says that all went well
            built = cl.Program(context, source).build()
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        following = number.astype(np.uint16)[dfa.next[order]]
        self.next = cl.Buffer(context, flags, hostbuf=following)
        self.places = cl.Buffer(context, flags, hostbuf=np.zeros(self.q.n, dtype=np.uint32))
        self.kernel = cl.Kernel(built, "plain_search")
        words = (bare.FRAME, bare.FIRST + workload.HEADERS, size)
        first_match = np.uint32(order.size - ends.sum())
        arguments = (self.frames, *map(np.uint32, words), self.next, first_match, self.places)
        for index, argument in enumerate(arguments):
            self.kernel.set_arg(index, argument)

    def check(self) -> None:
        """UserError unless it finds something in the same packets as nids."""
        import pyopencl as cl

        self.once()
        places = np.zeros(self.q.n, dtype=np.uint32)
        cl.enqueue_copy(self.commands, places, self.places)
        found = self.q.on_host()[1]["result"] != 0
        nf_sides.agree(
            "packets with a pattern, by nids and by the plain kernel", places != 0, found
        )


@functools.cache
def _device(name: str) -> Device:
    """The device of a runtime; UserError if it is not there."""
    device = choose(RUNTIMES[name].use)
    if device is None or (name == "GPU" and device.is_cpu):
        raise UserError("this machine has no GPU with OpenCL")
    return device


@functools.cache
def _kernel(name: str, kind: str, size: int) -> Kernel:
    device = _device(name)
    made = Plain(device, size) if kind == "plain" else Kernel(device, kind, size)
    made.check()
    return made


def _serve(name: str) -> None:
    """Answer each line `KIND SIZE SECONDS` with one of JSON."""
    reserve_cores(1)
    for line in sys.stdin:
        kind, size, seconds = line.split()
        try:
            ns = _kernel(name, kind, int(size)).measure(float(seconds))
            answer: dict[str, Any] = {"ns": ns, "device": _device(name).label}
        except UserError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


# ---- the parent ----------------------------------------------------------------------------------


class Runtime:
    """A child with one OpenCL runtime."""

    def __init__(self, name: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **RUNTIMES[name].env},
            preexec_fn=prepare([max(os.sched_getaffinity(0))]),
        )

    def measure(self, kind: str, size: int, seconds: float) -> Reading:
        """Gbit/s of the packet function of an NF; UserError where it cannot be measured."""
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(f"{kind} {size} {seconds}\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            runtime.cache_clear()  # others may be measured yet
            raise UserError("the OpenCL runtime ended its process")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        return nf_sides.gbps(answer["ns"], size, device=answer["device"])


@functools.cache
def runtime(name: str) -> Runtime:
    """The child of one of RUNTIMES; UserError where this machine does not have it."""
    if name == "Intel" and not INTEL.exists():
        raise UserError("Intel's OpenCL runtime is missing", fix="pip install intel-opencl-rt")
    return Runtime(name)


if __name__ == "__main__":
    _serve(sys.argv[1])
