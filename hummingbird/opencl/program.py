# SPDX-License-Identifier: BSD-3-Clause
"""Builds the device program of a topology: layouts, the NFs in use, the GPUSyncer."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hummingbird.dataplane._native import lib
from hummingbird.errors import UserError
from hummingbird.nfs import KERNELS
from hummingbird.nfs.source import check_nf_source
from hummingbird.opencl.device import Device

C11 = "c11"
"""OpenCL C 3.0 with C11 atomics at all-devices scope."""
CL12 = "cl12"
"""OpenCL C 1.2: volatile accesses and fences, for compilers without the above."""

# The first spelling is for PoCL 3.0, which has the all-devices scope but not its feature macro (and
# prints to stderr when it refuses); whether the scope does what it says is the probe's to find out.
_OPTIONS = {
    C11: (
        "-cl-std=CL3.0 -DHB_C11_ATOMICS -D__opencl_c_atomic_scope_all_devices=1",
        "-cl-std=CL3.0 -DHB_C11_ATOMICS",
        "-cl-std=CL2.0 -DHB_C11_ATOMICS",
    ),
    CL12: ("-cl-std=CL1.2",),
}


_INCLUDE = re.compile(r'^#include "(nf/[\w.]+)"$')


class Code(NamedTuple):
    """The packet function hb_nf_<name> of an NF kind."""

    name: str
    kind: int
    path: Path


def builtin(name: str) -> Code:
    """A packet function of cl_kernels/nf."""
    layouts = (KERNELS / "hummingbird.h").read_text(encoding="utf-8")
    kinds = {name: int(number) for number, name in re.findall(r"X\((\d+), (\w+)\)", layouts)}
    return Code(name, kinds[name], KERNELS / "nf" / f"{name}.cl")


def source(codes: Iterable[Code], kernels: str = "gpusyncer.cl", local_bytes: int = 0) -> str:
    """The whole device program.

    Args:
        codes: the packet functions that rows may name.
        kernels: the file that calls them.
        local_bytes: local memory for the tables of the largest program; 0: accessors of local
            parts read the tables themselves.

    Raises:
        UserError: an NF breaks the rules, or the data plane was built with other layouts.
    """
    header = KERNELS / "hummingbird.h"
    if zlib.crc32(header.read_bytes()) != lib.HB_LAYOUTS:
        raise UserError(
            "the data plane was built before this file changed", path=header, fix="run make"
        )
    chosen = sorted(set(codes))
    cases = " ".join(
        f"case {code.kind}: return hb_nf_{code.name}(p, &t, arg, result);" for code in chosen
    )
    return "\n".join(
        [
            "" if local_bytes else "#define HB_LOCAL_IS_TABLE",
            _part(header, header.read_text(encoding="utf-8")),
            *(_nf_part(code.path) for code in chosen),
            f"#define HB_NF_CASES {cases}",
            f"#define HB_LOCAL_BYTES {local_bytes}",
            _part(KERNELS / kernels, (KERNELS / kernels).read_text(encoding="utf-8")),
        ]
    )


def _part(path: Path, text: str) -> str:
    """A file's text, so that compilers complain about its lines."""
    return f'#line 1 "{path}"\n{text}'


def _nf_part(path: Path) -> str:
    """Likewise of an NF, checked, with the files of cl_kernels/nf in place that it includes."""
    lines = check_nf_source(path).splitlines()
    for number, line in enumerate(lines, 1):
        if included := _INCLUDE.match(line):
            lines[number - 1] = f'{_nf_part(KERNELS / included[1])}\n#line {number + 1} "{path}"'
    return _part(path, "\n".join(lines))


def dialects() -> tuple[str, ...]:
    """Dialects to try, best first; HUMMINGBIRD_DIALECT forces one."""
    forced = os.environ.get("HUMMINGBIRD_DIALECT")
    return (forced,) if forced in _OPTIONS else (C11, CL12)


def build(
    context: Any,
    device: Device,
    codes: Iterable[Code],
    kernels: str = "gpusyncer.cl",
    local_bytes: int = 0,
) -> tuple[Any, str]:
    """Compile for a device; arguments as source().

    Returns:
        The pyopencl.Program, and the dialect that compiled.

    Raises:
        UserError: no dialect compiles; carries the compiler's first complaint, with the file and
            line of the NF that it is about.
    """
    import warnings

    import pyopencl as cl

    text = source(codes, kernels, 0 if device.is_cpu else local_bytes)
    if device.is_cpu:
        text = f"#define HB_ON_CPU\n{text}"
    complaint = ""
    for dialect in dialects():
        for options in _OPTIONS[dialect]:
            if "CL1.2" not in options and device.c_version.startswith("OpenCL C 1.0"):
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", cl.CompilerWarning)
                    return cl.Program(context, text).build(options), dialect
            except cl.Error as error:
                complaint = _first_complaint(str(error))
    path, line, complaint = _place_of(complaint)
    raise UserError(
        f"the device program does not compile for {device.label}: {complaint}",
        path=path,
        line=line,
        fix="choose another device with device.use, or device: {use: none} to run on the CPU",
    )


def _first_complaint(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if "error" in line.lower()]
    return lines[0][:300] if lines else log.strip()[:300]


_PLACE = re.compile(r"(?:error: )?(/[^:]+):(\d+):(?:\d+:)? *(.*)")


def _place_of(complaint: str) -> tuple[Path | None, int | None, str]:
    """File, line and rest of a compiler's line, if it names a file that there is."""
    found = _PLACE.search(complaint)
    if not found or not Path(found[1]).is_file():
        return None, None, complaint
    return Path(found[1]), int(found[2]), found[3]
