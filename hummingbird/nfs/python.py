# SPDX-License-Identifier: BSD-3-Clause
"""python: a function of the user's decides on bursts of packets, in a thread of its own that the
lcores hand packets to and get them back from (dataplane/peer.h)."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator

from hummingbird import logs
from hummingbird.dataplane._native import ffi, lib
from hummingbird.dataplane.plane import Dataplane
from hummingbird.errors import UserError
from hummingbird.nfs import (
    BuildContext,
    HostContext,
    Nf,
    NfHost,
    NfParams,
    NfTable,
    Reads,
    Writes,
    userfile,
)
from hummingbird.nfs.burst import HEADER, Array, Burst, drop
from hummingbird.ports import mistake
from hummingbird.textfile import quoted

IDLE_MS = 200
"""A thread without packets looks this often whether it shall end."""
END_S = 2.0
"""A function that takes longer for its last burst is left behind."""
SAY_S = 1.0
"""Failures are reported at most this often."""

Function = Callable[[Burst], Any]


def _name(value: str) -> str:
    if not value.isidentifier():
        raise mistake(f"{quoted(value)} cannot be a function's name", "write that of the function")
    return value


class PythonParams(NfParams):
    """Parameters of ``type: python``."""

    file: Path
    """The Python file."""
    function: Annotated[str, AfterValidator(_name)] = "process"
    """What is called: it takes a Burst and returns an array of verdicts."""
    types: list[str] = []
    """Packet types that the function may give to packets."""
    sticky: Literal["packet", "flow"] = "packet"
    """Whom such a type holds for: this packet, or its flow from here on."""


def build(params: PythonParams, context: BuildContext) -> NfTable:
    """Load the file; there is no table."""
    path = (context.base / params.file).absolute()
    function = getattr(userfile.load(path), params.function, None)
    if not callable(function):
        what = f"there is no function {params.function} here"
        fix = f"write def {params.function}(burst), or name another one with function:"
        raise UserError(what, path=path, fix=fix)
    return NfTable(extra=(path, function))


class PythonHost(NfHost):
    """The thread of one NF."""

    def __init__(self, params: PythonParams, table: NfTable, context: HostContext) -> None:
        self._name = context.name
        self._path, self._function = table.extra
        self._types = {name: context.types[name] for name in params.types}
        numbers = list(self._types.values())
        self.pointer = lib.hb_peer_new(ffi.new("uint16_t[]", numbers or 1), len(numbers))
        if self.pointer == ffi.NULL:
            raise UserError("out of memory", fix="free some memory")
        self._failed = np.full(lib.HB_PEER_BURST, drop("python_error"), dtype=np.uint32)
        self._thread = threading.Thread(target=self._work, name=f"hb-{context.name}", daemon=True)
        self._memory: tuple[Array, ...] = ()  # of which all views are
        self._views: dict[str, Array] = {}
        self._bursts = self._failures = self._impossible = 0  # written by the thread
        self._trouble: UserError | None = None  # the latest; written by the thread
        self._said, self._said_at = 0, -SAY_S

    # ---- control thread ----

    def attach(self, plane: Dataplane, node: int) -> None:
        """Start the thread: it waits for packets."""
        self._thread.start()

    def poll(self) -> None:
        """Say what went wrong, if that is news."""
        count, trouble = self._failures + self._impossible, self._trouble
        if trouble is None or count == self._said or time.monotonic() < self._said_at + SAY_S:
            return
        more = count - self._said - 1
        self._said, self._said_at = count, time.monotonic()
        what = trouble.what + (f" (and {more} more since the last report)" if more else "")
        raise UserError(what, path=trouble.path, line=trouble.line, fix=trouble.fix)

    def report(self) -> dict[str, Any]:
        """Bursts, how many of them failed, and the latest failure."""
        return {
            "bursts": self._bursts,
            "failed": self._failures,
            "impossible_verdicts": self._impossible,
            "last_error": str(self._trouble) if self._trouble else None,
        }

    def stop(self) -> bool:
        """End the thread. False if it does not leave the function, or that has kept views."""
        lib.hb_peer_close(self.pointer)
        if self._thread.ident is not None:
            self._thread.join(END_S)
        if self._thread.is_alive():
            logs.error(
                "function_hangs",
                f"{self._name}: the function does not return; it is left behind",
                fix="let it wait for nothing: it has to return soon, also without packets",
                subject=self._name,
            )
            return False
        self._views = {}
        return all(sys.getrefcount(memory) <= KEPT for memory in self._memory)

    def close(self) -> None:
        """Free what the thread has used; if it still does, never."""
        if not self._thread.is_alive():
            lib.hb_peer_free(self.pointer)

    # ---- the NF's thread ----

    def _work(self) -> None:
        raw = ffi.new("hb_peer_burst *")
        arrays = _arrays(raw)
        while (n := lib.hb_peer_take(self.pointer, raw, IDLE_MS)) >= 0:
            if n == 0:
                continue
            if not self._views:
                self._memory = _arena(self.pointer)
                self._views = _views(*self._memory)
                arrays |= self._views
            self._bursts += 1
            verdicts = self._verdicts(Burst(arrays, n, self._types), n)
            answer = ffi.from_buffer("uint32_t[]", verdicts)
            impossible = lib.hb_peer_answer(self.pointer, answer, n)
            if impossible:
                self._note_impossible(impossible)

    def _verdicts(self, burst: Burst, n: int) -> npt.NDArray[np.uint32]:
        try:
            return _checked(self._function(burst), n)
        except BaseException as error:  # also sys.exit(): the other packets go on
            self._failures += 1
            self._trouble = userfile.error_in(self._path, error)
            return self._failed[:n]

    def _note_impossible(self, count: int) -> None:
        self._impossible += count
        what = f"{count} impossible verdicts: those packets are dropped as bad_result"
        fix = "return PASS, DROP, drop(REASON), or retype(NAME) with a NAME of the parameter types:"
        self._trouble = UserError(what, path=self._path, fix=fix)


KEPT = 3
"""References that are ours: the tuple's, the loop's, getrefcount()'s. Each view has one more."""


def _arrays(raw: Any) -> dict[str, Array]:
    """The fields of an hb_peer_burst as arrays; the memory lives as long as they do."""
    fields = {}
    for name in ("slot", "frame", "offset", "length"):
        array = np.frombuffer(ffi.buffer(getattr(raw, name)), dtype=np.uint32)
        array.flags.writeable = False
        fields[name] = array
    return fields


def _arena(peer: Any) -> tuple[Array, Array]:
    """The memory of all headers, and of all frames."""
    slots, size = lib.hb_peer_slots(peer), lib.hb_peer_frame_size(peer)
    headers = ffi.buffer(lib.hb_peer_headers(peer), slots * HEADER.itemsize)
    frames = ffi.buffer(lib.hb_peer_frames(peer), slots * size)
    return np.frombuffer(headers, dtype=HEADER), np.frombuffer(frames, dtype=np.uint8)


def _views(headers: Array, frames: Array) -> dict[str, Array]:
    """What a function may see of it."""
    readable = headers[:]
    readable.flags.writeable = False
    return {"headers": readable, "frames": frames.reshape(headers.size, -1)}


def _checked(verdicts: Any, n: int) -> npt.NDArray[np.uint32]:
    """What the function has returned, as the data plane takes it."""
    array = np.asarray(verdicts)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        got = "nothing" if verdicts is None else f"{array.dtype} of shape {array.shape}"
        raise TypeError(f"it returned {got}, and not one whole number for each of {n} packets")
    if array.dtype != np.uint32:
        if array.dtype.itemsize > 4 or array.dtype.kind == "i":
            array = np.where((array < 0) | (array > 0xFFFFFFFF), 0, array)
        array = array.astype(np.uint32)
    return np.ascontiguousarray(array)


def content_types(params: PythonParams) -> list[str]:
    """Those that the parameters name."""
    return params.types


NF = Nf(
    name="python",
    params=PythonParams,
    build=build,
    content_types=content_types,
    reads=Reads.PACKET,
    writes=Writes.PACKET,
    host=PythonHost,
    peer=True,
)
