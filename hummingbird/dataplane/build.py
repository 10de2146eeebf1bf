# SPDX-License-Identifier: BSD-3-Clause
"""How cffi builds the data plane: every C file of this directory and of nf/, behind what api.h and
nf/*_api.h declare. Libraries that only an engine of an NF needs are used where they are installed;
the plug-in for DPDK is a library of its own (build_dpdk.py).

setup.py runs this file; nothing imports it at run time.
"""

import os
import platform
import re
import shutil
import subprocess
import zlib

from cffi import FFI

HERE = os.path.dirname(__file__) or "."
KERNELS = os.path.join(HERE, "..", "..", "cl_kernels")  # some C files include the device code

INCLUDE_DIRS = [os.path.normpath(HERE), os.path.normpath(KERNELS)]
LIBRARIES = ["pcap", "pthread", "m", "dl"]
CFLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"]

OPTIONAL = {
    "HB_HAVE_IPSEC_MB": ("intel-ipsec-mb.h", "IPSec_MB"),
    "HB_HAVE_HYPERSCAN": ("hs/hs.h", "hs"),
    "HB_HAVE_PCRE2": ("pcre2.h", "pcre2-8"),
}
"""Macro, header, library."""


def has_header(header: str) -> bool:
    """Does the C compiler find it?"""
    command = [shutil.which("gcc") or "cc", "-E", "-DPCRE2_CODE_UNIT_WIDTH=8", "-xc", "-"]
    text = f"#include <{header}>\n"
    return subprocess.run(command, input=text, text=True, capture_output=True).returncode == 0


for macro, (header, library) in OPTIONAL.items():
    if has_header(header):
        CFLAGS.append(f"-D{macro}")
        LIBRARIES.append(library)
if platform.machine() == "x86_64":
    # In every x86-64 core since 2009; CRC32C comes with SSE 4.2. Older cores than of 2014 take
    # prefetchw for a no-op.
    CFLAGS += ["-msse4.2", "-mpopcnt", "-mprfchw"]


def find(*suffixes: str) -> list[str]:
    """The files of the data plane, without its plug-in for DPDK, and of cl_kernels/ with one of
    these suffixes, sorted."""
    return sorted(
        os.path.join(directory, name)
        for top in INCLUDE_DIRS
        for directory, _, names in os.walk(top)
        for name in names
        if name.endswith(suffixes) and os.path.basename(directory) != "dpdk"
    )


def declarations(header: str) -> str:
    """What cffi's parser understands of a header: plain declarations and `#define NAME number`.

    A constant that is more than a number (`1u << 3`) becomes `...`: the C compiler fills it in.
    """
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", header, flags=re.DOTALL)
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"^\s*#\s*ifdef\s+__cplusplus\b.*?#\s*endif", "", text, flags=re.M | re.DOTALL)
    lines = []
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            lines.append(line)
        elif constant := re.match(r"\s*#\s*define\s+(\w+)\s+(\S.*)", line):
            name, value = constant.groups()
            number = re.fullmatch(r"-?(0x)?[0-9a-f]+[ul]*\s*", value, re.IGNORECASE)
            lines.append(f"#define {name} {value if number else '...'}")
    return "\n".join(lines)


ffi = FFI()
APIS = [os.path.join(HERE, "api.h"), *find("_api.h")]
for path in APIS:
    with open(path, encoding="utf-8") as api:
        ffi.cdef(declarations(api.read()))
ffi.cdef("#define HB_LAYOUTS ...\n#define HB_INTERFACE ...")
with open(os.path.join(KERNELS, "hummingbird.h"), "rb") as layouts:
    LAYOUTS = zlib.crc32(layouts.read())  # program.source() compares
INTERFACE = LAYOUTS
for name in ("api.h", "mbuf.h", "nf.h"):
    with open(os.path.join(HERE, name), "rb") as header_file:
        INTERFACE = zlib.crc32(header_file.read(), INTERFACE)  # nfs/native.py compares
DPDK_INTERFACE = INTERFACE
for name in ("clock.h", "port/interface_api.h", "port.h", "dpdk.h"):
    with open(os.path.join(HERE, name), "rb") as header_file:
        DPDK_INTERFACE = zlib.crc32(header_file.read(), DPDK_INTERFACE)  # port/dpdk.c compares
CFLAGS.append(f"-DHB_DPDK_INTERFACE={DPDK_INTERFACE}u")
ffi.set_source(
    "hummingbird.dataplane._native",
    "\n".join(f'#include "{os.path.relpath(path, HERE)}"' for path in APIS)
    + f"\n#define HB_LAYOUTS {LAYOUTS}u\n#define HB_INTERFACE {INTERFACE}u",
    sources=find(".c"),
    depends=[*find(".h", ".cl"), os.path.join(HERE, "build.py")],
    include_dirs=INCLUDE_DIRS,
    libraries=LIBRARIES,
    extra_compile_args=[*CFLAGS, "-O3", "-fno-semantic-interposition", "-flto=auto", "-Werror"],
    extra_link_args=["-flto=auto", "-O3"],
)
