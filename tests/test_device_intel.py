# SPDX-License-Identifier: BSD-3-Clause
"""The device suite once more, with another OpenCL runtime: Intel's for CPUs.

pytest ── child: OCL_ICD_VENDORS = a folder that names libintelocl.so ── test_device_*.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LIBRARY = Path(sys.prefix) / "lib" / "libintelocl.so"
WHICH = "from hummingbird.opencl.device import choose; print(choose('auto').platform)"


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that sees Intel's runtime and no other."""
    if not LIBRARY.exists():
        pytest.skip(f"NOT TESTED on Intel's runtime: no {LIBRARY}; pip install intel-opencl-rt")
    (tmp_path / "intel.icd").write_text(f"{LIBRARY}\n")
    settings = {"OCL_ICD_VENDORS": str(tmp_path), "LD_LIBRARY_PATH": str(LIBRARY.parent)}
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("POCL_", "HUMMINGBIRD_"))}
    return kept | settings


@pytest.mark.timeout(1800)  # a minute on a machine of its own, four beside six others
def test_the_device_suite_passes_on_intels_runtime(runtime: dict[str, str]) -> None:
    which = call([sys.executable, "-c", WHICH], runtime)
    assert which.returncode == 0 and "Intel(R) OpenCL" in which.stdout, which.stdout
    suite = sorted(path for path in TESTS.glob("test_device_*.py") if path != Path(__file__))
    done = call([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *suite], runtime)
    passed = re.search(r"(\d+) passed", done.stdout)
    if done.returncode != 0 or not passed or "skipped" in done.stdout:
        pytest.fail(done.stdout[-12000:], False)
    assert int(passed[1]) > 50


def call(
    command: list[str | Path], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        cwd=TESTS.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
