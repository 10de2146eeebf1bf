# SPDX-License-Identifier: BSD-3-Clause
"""Compiles a user's packet function for the CPU: the same file that a device gets, as C, into a
shared object that is kept in the user's cache until the file or the compiler changes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import zlib
from pathlib import Path

from hummingbird.cache import cache_dir, half_built
from hummingbird.dataplane import _native
from hummingbird.errors import UserError
from hummingbird.nfs import KERNELS

DATAPLANE = Path(__file__).resolve().parent.parent / "dataplane"
HEADERS = [KERNELS / "hummingbird.h", *(DATAPLANE / f"{n}.h" for n in ("api", "mbuf", "nf"))]
"""What the data plane and a shared object must agree on."""
COMPILERS = ("gcc", "cc", "clang")
FLAGS = [
    *("-std=c11", "-D_GNU_SOURCE", "-O3", "-fPIC", "-shared", "-fvisibility=hidden"),
    *("-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types"),
    *("-Werror=int-conversion", "-Werror=return-type", "-Wl,-z,defs"),
]
if platform.machine() == "x86_64":
    FLAGS += ["-msse4.2", "-mpopcnt"]

_loaded: dict[Path, ctypes.CDLL] = {}


def kind_of(name: str, path: Path, text: str) -> int:
    """The address of the hb_nf_kind of a user's NF.

    Args:
        name: of the NF.
        path: of its packet function ...
        text: ... and what stands there.

    Raises:
        UserError: it does not compile, or there is no compiler.
    """
    made = _shared_object(name, path, text)
    if made not in _loaded:
        try:
            _loaded[made] = ctypes.CDLL(str(made))
        except OSError as error:
            what = f"the compiled NF cannot be loaded: {error}"
            raise UserError(what, path=path, fix=f"remove {made} and try again") from None
    return ctypes.addressof(ctypes.c_char.in_dll(_loaded[made], "hb_own_kind"))


def _shared_object(name: str, path: Path, text: str) -> Path:
    """Where it lies; compiled unless it is there."""
    command = [*_compiler(path), *FLAGS, *(["-DHB_OWN_RESULTS"] if "*result" in text else [])]
    parts = [*command, _stamp(command[0]), _native.__file__, name, text]
    parts += [file.read_text(encoding="utf-8") for file in (*_headers(), DATAPLANE / "own_nf.h")]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    target = _cache() / f"{name}-{key}.so"
    if not target.exists():
        _compile(command, name, path, target)
    return target


def _compiler(path: Path) -> list[str]:
    wanted = os.environ.get("CC", "").split()
    for command in [wanted] if wanted else [[name] for name in COMPILERS]:
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    raise UserError(
        f"there is no C compiler ({' '.join(wanted) or ', '.join(COMPILERS)}) for this NF",
        path=path,
        fix="apt-get install gcc libc6-dev, or name one in the environment variable CC",
    )


def _stamp(compiler: str) -> str:
    """Another one after an update of the compiler."""
    status = os.stat(compiler)
    return f"{os.path.realpath(compiler)} {status.st_mtime_ns} {status.st_size}"


def _headers() -> list[Path]:
    now = zlib.crc32(b"".join(file.read_bytes() for file in HEADERS))
    if now != _native.lib.HB_INTERFACE:
        raise UserError(
            "the data plane was built before its interface changed",
            path=HEADERS[-1],
            fix="run make",
        )
    return HEADERS


def _cache() -> Path:
    folder = cache_dir() / "nf"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"compiled NFs cannot be kept: {error.strerror}",
            path=folder,
            fix="set XDG_CACHE_HOME to a folder of yours",
        ) from None
    return folder


def _compile(command: list[str], name: str, path: Path, target: Path) -> None:
    source = f'#define HB_OWN {name}\n#include "own_nf.h"\n#include "{path}"\n#include "own_nf.h"\n'
    with half_built(target) as folder:
        made = folder / target.name
        includes = [f"-I{KERNELS}", f"-I{DATAPLANE}"]
        done = subprocess.run(
            [*command, *includes, "-xc", "-", "-xnone", _native.__file__, "-o", str(made)],
            input=source,
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | {"LC_ALL": "C"},
        )
        if done.returncode != 0:
            raise _complaint(done.stderr, path)
        made.rename(target)  # whoever else compiles the same replaces it with the same


_ERROR = re.compile(r"^(.*?):(\d+):(?:\d+:)? (?:fatal )?error: (.*)$", re.MULTILINE)
_UNDEFINED = re.compile(r"undefined reference to `(\w+)'")


def _complaint(log: str, path: Path) -> UserError:
    """The first error in the user's file, else the first one."""
    errors = _ERROR.findall(re.sub(r" \[-W[\w=+-]+\]$", "", log, flags=re.MULTILINE))
    if undefined := _UNDEFINED.search(log):
        what = f"there is no function {undefined[1]}"
        return UserError(what, path=path, fix="call only what hummingbird.h and nf.h declare")
    for file, line, what in errors:
        if file == str(path):
            return UserError(what, path=path, line=int(line), fix="correct this line")
    what = errors[0][2] if errors else (log.strip().splitlines() or ["no reason given"])[-1]
    if "No such file" in what:  # one of the system's headers
        return UserError(f"the C compiler fails: {what}", fix="apt-get install gcc libc6-dev")
    return UserError(f"the C compiler fails: {what}", path=path, fix="correct this file")
