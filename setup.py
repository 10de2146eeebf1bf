# SPDX-License-Identifier: BSD-3-Clause
"""What pyproject.toml cannot say: the compiled data plane, and what lies beside the package and is
shipped inside it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_ext import build_ext


class BuildExt(build_ext):
    """Compiles the C files of the data plane on all cores, then its plug-in for DPDK."""

    def build_extensions(self) -> None:
        compile_files = self.compiler.compile

        def compile_each(sources: list[str], *args: Any, **kwargs: Any) -> list[str]:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                objects = pool.map(lambda source: compile_files([source], *args, **kwargs), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_each
        super().build_extensions()

    def run(self) -> None:
        super().run()
        for extension in self.extensions:
            folder = os.path.dirname(self.get_ext_fullpath(extension.name))
            program = "hummingbird/dataplane/build_dpdk.py"
            subprocess.run([sys.executable, program, folder], check=True)


# `make` compiles by itself, in place, and a checkout finds these where they are: with
# HUMMINGBIRD_IN_PLACE=1 all that is left to install is a line that says where the package lies.
beside = {
    "cl_kernels": ["*.h", "*.cl", "nf/*.h", "nf/*.cl"],
    "bench": ["*.txt", "peers/*.[ch]", "peers/*.cl"],  # Python files are shipped anyway
    "policies": ["*.yaml", "*.csv", "demo/*"],
}
in_place = os.environ.get("HUMMINGBIRD_IN_PLACE") == "1"
shipped = {} if in_place else {f"hummingbird.{name}": data for name, data in beside.items()}
inside = {
    "hummingbird": ["deploy/*"],
    "hummingbird.dataplane": ["*.h"],  # NFs of users are compiled with
    "hummingbird.web": ["page/*"],
}

setup(
    packages=find_packages(include=["hummingbird", "hummingbird.*"]) + list(shipped),
    package_dir={"": "."} if in_place else {name: name.partition(".")[2] for name in shipped},
    package_data=shipped | ({} if in_place else inside),
    include_package_data=False,
    cffi_modules=[] if in_place else ["hummingbird/dataplane/build.py:ffi"],
    cmdclass={"build_ext": BuildExt},
)
