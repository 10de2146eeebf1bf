# SPDX-License-Identifier: BSD-3-Clause
"""The peers of bench/peers/*.c: compiled when first needed, loaded into this process.

peers/NAME.c ── gcc ── ~/.cache/hummingbird/peers/NAME-....so ── function pointers for hb_bare_nf()

Both sides of a ratio so run in one process, on one core, on the same packets.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cffi import FFI

from hummingbird.cache import cache_dir, half_built
from hummingbird.errors import UserError

FOLDER = Path(__file__).resolve().parent / "peers"
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-D_GNU_SOURCE", "-fPIC", "-shared")
"""The best code for this very CPU; ours is built for any."""


@dataclass(frozen=True)
class Library:
    """What a peer is built on."""

    flags: tuple[str, ...] = ()
    package: str = ""
    """The Debian package that has it; pkg-config knows the flags of DPDK."""
    pkg_config: str = ""


LIBRARIES = {
    "clock": Library(),
    "dfa8": Library(),
    "ipsec_mb": Library(("-lIPSec_MB",), "libipsec-mb-dev"),
    "hyperscan": Library(("-lhs",), "libhyperscan-dev"),
    "fib": Library(("-lrte_fib", "-lrte_rib", "-lrte_eal"), "dpdk-dev", "libdpdk"),
    "acl": Library(("-lrte_acl", "-lrte_eal"), "dpdk-dev", "libdpdk"),
}


# ---- compiling -----------------------------------------------------------------------------------


def cache() -> Path:
    """Where what was compiled for benchmarks is kept."""
    return cache_dir() / "peers"


def _declarations() -> str:
    text = (FOLDER / "peers.h").read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    return re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)


def _compile(name: str, library: Library) -> Path:
    """The library of a peer; UserError if it cannot be had."""
    source = FOLDER / f"{name}.c"
    command = ["gcc", *FLAGS, *_more_flags(library), str(source), *library.flags]
    headers = [path.read_text() for path in sorted(FOLDER.glob("*.h"))]
    key = "\n".join([*command, source.read_text(), *headers, _cpu_flags()])
    made = cache() / f"{name}-{zlib.crc32(key.encode()):08x}.so"
    if made.exists():
        return made
    if not shutil.which("gcc"):
        raise UserError("gcc is missing", fix="apt-get install gcc")
    made.parent.mkdir(parents=True, exist_ok=True)
    with half_built(made) as folder:
        half = folder / made.name
        done = subprocess.run([*command, "-o", str(half)], capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "rror" in line] or [done.stderr]
            fix = f"apt-get install {library.package}" if library.package else None
            raise UserError(f"{source.name} does not compile: {lines[0].strip()}", fix=fix)
        half.rename(made)
    return made


def _more_flags(library: Library) -> Sequence[str]:
    if not library.pkg_config:
        return ()
    command = ["pkg-config", "--cflags", library.pkg_config]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("pkg-config is missing", fix="apt-get install pkg-config") from None
    if found.returncode:
        raise UserError(
            f"{library.pkg_config} is not installed", fix=f"apt-get install {library.package}"
        )
    # DPDK names the least CPU it runs on, which would take away what this one can do
    return [flag for flag in found.stdout.split() if not flag.startswith("-march")]


def _cpu_flags() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return next((line for line in text.splitlines() if line.startswith("flags")), "")


ffi = FFI()
ffi.cdef(_declarations())


@functools.cache
def load(name: str) -> Any:
    """The functions of a peer; UserError if it is not to be had here."""
    try:
        return ffi.dlopen(str(_compile(name, LIBRARIES[name])))
    except OSError as error:
        raise UserError(f"{name} cannot be loaded: {error}") from None


def missing(name: str) -> str | None:
    """Why a peer cannot be measured; None if it can."""
    try:
        load(name)
    except UserError as error:
        return str(error).replace("\n  fix:", "; fix:")
    return None


# ---- contexts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """A peer's function and its context, as addresses; ``owner`` keeps both alive."""

    address: int
    context: int
    owner: Any

    @classmethod
    def of(cls, function: Any, context: Any) -> Function:
        """Of cffi's objects."""
        return cls(
            int(ffi.cast("uintptr_t", function)), int(ffi.cast("uintptr_t", context)), context
        )


def _made(context: Any, text: Any, name: str) -> Any:
    if context == ffi.NULL:
        raise UserError(f"{name}: {ffi.string(text).decode()}")
    return context


def core_ghz() -> float:
    """Core clock, which no counter shows on a virtual machine."""
    return float(load("clock").peer_core_ghz())


def ipsec_mb(skip: int, key: bytes, auth_key: bytes) -> dict[str, Function]:
    """libipsec-mb by interface, ``burst`` and ``job``; ``skip`` bytes stand in front of ESP."""
    lib, text = load("ipsec_mb"), ffi.new("char[256]")
    ways = {"burst": lib.peer_ipsec_mb_burst, "job": lib.peer_ipsec_mb_job}
    # each has a manager: bursts begin where its queue does, wherever jobs have left off
    return {
        name: Function.of(
            way, _made(lib.peer_ipsec_mb_new(skip, key, auth_key, text), text, "libipsec-mb")
        )
        for name, way in ways.items()
    }


def _patterns(patterns: Sequence[bytes]) -> tuple[Any, Any]:
    """A ``peer_patterns *`` and what it points to."""
    texts = [ffi.new("uint8_t[]", pattern) for pattern in patterns]
    bytes_ = ffi.new("uint8_t *[]", texts)
    length = ffi.new("uint32_t[]", [len(pattern) for pattern in patterns])
    made = ffi.new("peer_patterns *", {"bytes": bytes_, "length": length, "n": len(patterns)})
    return made, (texts, bytes_, length)


def hyperscan(skip: int, patterns: Sequence[bytes]) -> dict[str, Function]:
    """hs_scan(); ``skip`` bytes of each packet are not scanned."""
    lib, text = load("hyperscan"), ffi.new("char[256]")
    given, _kept = _patterns(patterns)
    context = _made(lib.peer_hyperscan_new(skip, given, text), text, "Hyperscan")
    return {"hs_scan": Function.of(lib.peer_hyperscan_scan, context)}


def dfa8(skip: int, patterns: Sequence[bytes]) -> dict[str, Function]:
    """A full table, eight packets side by side, by width of its entries."""
    lib, text = load("dfa8"), ffi.new("char[256]")
    given, _kept = _patterns(patterns)
    context = _made(lib.peer_dfa8_new(skip, given, text), text, "the automaton")
    return {
        "u16": Function.of(lib.peer_dfa8_scan16, context),
        "u32": Function.of(lib.peer_dfa8_scan32, context),
    }


def fib(
    prefix: npt.NDArray[np.uint32], bits: npt.NDArray[np.uint8], hop: npt.NDArray[np.uint16]
) -> dict[str, Function]:
    """rte_fib by its lookups, ``scalar`` and, where the CPU has AVX-512, ``AVX-512``."""
    lib, text = load("fib"), ffi.new("char[256]")
    routes = ffi.new("peer_routes *")
    routes.prefix = ffi.cast("uint32_t *", prefix.ctypes.data)
    routes.bits = ffi.cast("uint8_t *", bits.ctypes.data)
    routes.hop = ffi.cast("uint16_t *", hop.ctypes.data)
    routes.n = prefix.size
    with _runtime_directory():
        context = _made(lib.peer_fib_new(routes, text), text, "rte_fib")
    found = {"scalar": Function.of(lib.peer_fib_scalar, context)}
    if lib.peer_fib_has_vector(context):
        found["AVX-512"] = Function.of(lib.peer_fib_vector, context)
    return found


ACL_WAYS = ("sse", "avx2", "avx512x16", "avx512x32")


def acl(rules: npt.NDArray[Any]) -> dict[str, Function]:
    """rte_acl by its ways to classify that this CPU has; rules are a ``peer_rule`` each."""
    lib, text = load("acl"), ffi.new("char[256]")
    given = ffi.new("peer_rules *")
    given.rule, given.n = ffi.cast("peer_rule *", rules.ctypes.data), len(rules)
    with _runtime_directory():
        context = _made(lib.peer_acl_new(given, text), text, "rte_acl")
    return {
        way: Function.of(getattr(lib, f"peer_acl_{way}"), context)
        for number, way in enumerate(ACL_WAYS)
        if lib.peer_acl_has(context, number)
    }


@contextlib.contextmanager
def _runtime_directory() -> Iterator[None]:
    """DPDK makes a directory for locks, instead of in /var/run in one that is gone afterwards."""
    before = os.environ.get("RUNTIME_DIRECTORY")
    with tempfile.TemporaryDirectory(prefix="hummingbird-fib-") as directory:
        os.environ["RUNTIME_DIRECTORY"] = directory
        try:
            yield
        finally:
            del os.environ["RUNTIME_DIRECTORY"]
            if before is not None:
                os.environ["RUNTIME_DIRECTORY"] = before


def versions() -> list[str]:
    """The libraries that there are, by name and version."""
    named = {"ipsec_mb": "libipsec-mb", "hyperscan": "Hyperscan", "fib": ""}
    return [
        f"{title} {ffi.string(getattr(load(name), f'peer_{name}_version')()).decode()}".strip()
        for name, title in named.items()
        if missing(name) is None
    ]
