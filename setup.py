# SPDX-License-Identifier: BSD-3-Clause
"""What pyproject.toml cannot say: the compiled data plane, and cl_kernels/ as package data."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_ext import build_ext


class BuildExt(build_ext):
    """Compiles the C files of the data plane on all cores."""

    def build_extensions(self) -> None:
        compile_files = self.compiler.compile

        def compile_each(sources: list[str], *args: Any, **kwargs: Any) -> list[str]:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                objects = pool.map(lambda source: compile_files([source], *args, **kwargs), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_each
        super().build_extensions()


# `make` compiles by itself, in place, and a checkout finds cl_kernels/ where it is: with
# HUMMINGBIRD_IN_PLACE=1 all that is left to install is a line that says where the package lies.
kernels = "hummingbird.cl_kernels"
in_place = os.environ.get("HUMMINGBIRD_IN_PLACE") == "1"

setup(
    packages=find_packages(include=["hummingbird", "hummingbird.*"])
    + ([] if in_place else [kernels]),
    package_dir={"": "."} if in_place else {kernels: "cl_kernels"},
    package_data={} if in_place else {kernels: ["*.h", "*.cl", "nf/*.h", "nf/*.cl"]},
    include_package_data=False,
    cffi_modules=[] if in_place else ["hummingbird/dataplane/build.py:ffi"],
    cmdclass={"build_ext": BuildExt},
)
