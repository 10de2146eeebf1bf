# SPDX-License-Identifier: BSD-3-Clause
"""Builds the device program of a topology: layouts, the NFs in use, the GPUSyncer."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hummingbird.dataplane._native import lib
from hummingbird.errors import UserError
from hummingbird.opencl.device import Device

_PACKAGE = Path(__file__).resolve().parent.parent

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
_FORBIDDEN = re.compile(
    r"\b(__global|global|HB_GLOBAL|__local|local|barrier|work_group_barrier|asm|__asm__)\b"
)

_INCLUDE = re.compile(r'^#include "(nf/[\w.]+)"$', re.MULTILINE)


def kernels_folder() -> Path:
    """Where the device code lies: beside the package in a checkout, inside it when installed."""
    inside = _PACKAGE / "cl_kernels"
    return inside if inside.is_dir() else _PACKAGE.parent / "cl_kernels"


def check_nf_source(path: Path) -> str:
    """The source of an NF, if it keeps to the checked accessors (design section 7).

    Raises:
        UserError: it uses a raw pointer into device memory, local memory, a barrier or assembly.
    """
    text = path.read_text(encoding="utf-8")
    bare = re.sub(r"/\*.*?\*/|//[^\n]*", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    for number, line in enumerate(bare.splitlines(), 1):
        found = _FORBIDDEN.search(line)
        if found:
            raise UserError(
                f"an NF may not use `{found[0]}`",
                path=path,
                line=number,
                fix="reach packets and tables through the accessors of hummingbird.h",
            )
    return text


def nf_source(folder: Path, name: Path) -> str:
    """The source of an NF with what it includes of ``folder`` in place, each file checked."""
    text = check_nf_source(folder / name)
    return _INCLUDE.sub(lambda m: nf_source(folder, Path(m[1])), text)


def source(nf_names: Iterable[str], kernels: str = "gpusyncer.cl") -> str:
    """The whole device program for these NFs; ``kernels`` is the file that calls them.

    Raises:
        UserError: an NF breaks the rules, or the data plane was built with other layouts.
    """
    folder = kernels_folder()
    header = folder / "hummingbird.h"
    layouts = header.read_text(encoding="utf-8")
    if zlib.crc32(header.read_bytes()) != lib.HB_LAYOUTS:
        raise UserError(
            "the data plane was built before this file changed", path=header, fix="run make"
        )
    kinds = dict((name, number) for number, name in re.findall(r"X\((\d+), (\w+)\)", layouts))
    names = sorted(set(nf_names))
    parts = [layouts]
    parts += [nf_source(folder, Path("nf", f"{name}.cl")) for name in names]
    cases = " ".join(
        f"case {kinds[name]}: return hb_nf_{name}(p, &t, arg, result);" for name in names
    )
    parts.append(f"#define HB_NF_CASES {cases}\n")
    parts.append((folder / kernels).read_text(encoding="utf-8"))
    return "\n".join(parts)


def dialects() -> tuple[str, ...]:
    """Dialects to try, best first; HUMMINGBIRD_DIALECT forces one."""
    forced = os.environ.get("HUMMINGBIRD_DIALECT")
    return (forced,) if forced in _OPTIONS else (C11, CL12)


def build(
    context: Any, device: Device, nf_names: Iterable[str], kernels: str = "gpusyncer.cl"
) -> tuple[Any, str]:
    """Compile for a device; arguments as source().

    Returns:
        The pyopencl.Program, and the dialect that compiled.

    Raises:
        UserError: no dialect compiles; carries the compiler's first complaint.
    """
    import warnings

    import pyopencl as cl

    text = source(nf_names, kernels)
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
    raise UserError(
        f"the device program does not compile for {device.label}: {complaint}",
        fix="choose another device with device.use, or device: {use: none} to run on the CPU",
    )


def _first_complaint(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if "error" in line.lower()]
    return lines[0][:200] if lines else log.strip()[:200]
