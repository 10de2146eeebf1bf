# SPDX-License-Identifier: BSD-3-Clause
"""The data plane compiled with a header of bench/peers in the place of one of its own, for another
process to run: so a rule is compared with another, and all else is the same code.

peers/NAME.h + hummingbird/dataplane ── setup.py ── ~/.cache/hummingbird/peers/NAME-.../native.so
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

from peer import FOLDER, cache

from hummingbird.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
CODE = ("hummingbird/dataplane", "cl_kernels")
SOURCES = (".c", ".h", ".cl", ".py")
NATIVE = "HUMMINGBIRD_BENCH_NATIVE"
"""Environment variable that says which file to load."""
LOADER = f"""\
# Python imports this first: hummingbird.dataplane._native is then the one that a benchmark names.
import importlib.util, os, sys
if os.environ.get({NATIVE!r}):
    _spec = importlib.util.spec_from_file_location(
        "hummingbird.dataplane._native", os.environ[{NATIVE!r}])
    _module = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)
    sys.modules[_spec.name] = _module
"""


@functools.cache
def environment(header: str) -> Mapping[str, str]:
    """What makes a Python process use the variant; compiled when first needed.

    Args:
        header: a file of bench/peers without its ending. It defines the guard of the header that it
            stands for.

    Raises:
        UserError: it cannot be compiled here.
    """
    folder = _compiled(header)
    path = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, path)), NATIVE: str(folder / "native.so")}


def _key(header: Path) -> int:
    files = [ROOT / "setup.py", header]
    for top in CODE:
        files += [p for p in sorted((ROOT / top).rglob("*")) if p.suffix in SOURCES]
    return functools.reduce(lambda crc, path: zlib.crc32(path.read_bytes(), crc), files, 0)


def _compiled(name: str) -> Path:
    if not (ROOT / "setup.py").exists() or not shutil.which("gcc"):
        raise UserError("another data plane cannot be compiled here: it takes a checkout and gcc")
    header = FOLDER / f"{name}.h"
    made = cache() / f"{name}-{_key(header):08x}"
    if made.exists():
        return made
    half = made.with_suffix(f".{os.getpid()}")
    half.mkdir(parents=True)
    flags = f"{os.environ.get('CFLAGS', '')} -include {header}"
    command = [sys.executable, "setup.py", "-q", "build_ext", "--force", "--build-lib", str(half)]
    command += ["--build-temp", str(half / "temp")]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"CFLAGS": flags}, capture_output=True, text=True
    )
    if done.returncode:
        shutil.rmtree(half)
        lines = [line for line in done.stderr.splitlines() if "rror" in line] or [done.stderr]
        raise UserError(f"{header.name} does not compile with the data plane: {lines[0].strip()}")
    next(half.glob("hummingbird/dataplane/_native*.so")).rename(half / "native.so")
    shutil.rmtree(half / "hummingbird")
    shutil.rmtree(half / "temp", ignore_errors=True)
    (half / "sitecustomize.py").write_text(LOADER, encoding="utf-8")
    try:
        half.rename(made)  # whole or not at all
    except OSError:  # another process was faster
        shutil.rmtree(half)
    return made
