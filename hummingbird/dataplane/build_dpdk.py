# SPDX-License-Identifier: BSD-3-Clause
"""Compiles the plug-in for DPDK (dpdk/*.c).

    build_dpdk.py FOLDER               libhb_dpdk.so, if DPDK's headers are installed
    build_dpdk.py FOLDER PREFIX        libhb_mdpdk.so, with what mdpdk_patches/build.sh has made

setup.py runs it after the data plane, `make mdpdk` with a prefix; nothing imports it at run time.
"""

import glob
import os
import runpy
import shlex
import shutil
import subprocess
import sys

OLDEST = "22.11"
HERE = os.path.dirname(os.path.abspath(__file__))


def flags_of_debian() -> tuple[list[str], list[str]] | None:
    """What to compile and to link with; None: there is no DPDK that is new enough."""
    try:
        found = [
            subprocess.run(
                ["pkg-config", *options], capture_output=True, text=True, check=True
            ).stdout
            for options in (
                ("--cflags", f"libdpdk >= {OLDEST}"),
                ("--libs", "libdpdk"),
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    headers = found[0].replace("-I", "-isystem ")  # our warnings are not for them
    experimental = "-DALLOW_EXPERIMENTAL_API"  # rte_dev_dma_map() still is, after eight years
    return [*shlex.split(headers), experimental], shlex.split(found[1])


def compile_plugin(target: str, flags: list[str], libraries: list[str]) -> None:
    """Compile and link all of dpdk/, and move it in place."""
    build = runpy.run_path(os.path.join(HERE, "build.py"))
    command = [
        shutil.which("gcc") or "cc",
        *(flag for flag in build["CFLAGS"] if flag != "-std=c11"),
        "-std=gnu11",  # DPDK's headers want it
        *("-O3", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden"),
        *(f"-I{folder}" for folder in build["INCLUDE_DIRS"]),
        *flags,
        *sorted(glob.glob(os.path.join(HERE, "dpdk", "*.c"))),
        *("-o", f"{target}.new"),
        *libraries,
    ]
    subprocess.run(command, check=True)
    os.replace(f"{target}.new", target)  # a process that has loaded the old one keeps it


def main(folder: str, prefix: str | None = None) -> None:
    """See above."""
    if prefix:
        flags = [f"@{prefix}/compile.flags"], [f"@{prefix}/link.flags"]
        compile_plugin(os.path.join(folder, "libhb_mdpdk.so"), *flags)
    elif stock := flags_of_debian():
        try:
            compile_plugin(os.path.join(folder, "libhb_dpdk.so"), *stock)
        except subprocess.CalledProcessError:  # nobody else shall miss anything for it
            print("warning: the plug-in for DPDK does not compile with the DPDK that is installed")


if __name__ == "__main__":
    main(*sys.argv[1:])
