# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzed packets through every NF, hooks and engines included, under AddressSanitizer and UBSan.

    sources ── gcc -fsanitize=address,undefined ── _native.so ─┐
    captures ── mutate.py ── run_chain() ──────────────────────┴─ a finding ends the process

HUMMINGBIRD_FUZZ_PACKETS (100,000) packets go through each scenario of fuzz_chain.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKETS = int(os.environ.get("HUMMINGBIRD_FUZZ_PACKETS", "100000"))
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree whose data plane is built with sanitizers."""
    copy = tmp_path_factory.mktemp("asan") / "tree"
    skip = shutil.ignore_patterns("*.so", "__pycache__", "build")
    for name in ("hummingbird", "cl_kernels", "policies", "tests", "bench"):
        shutil.copytree(ROOT / name, copy / name, ignore=skip)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    env = os.environ | {"CFLAGS": SANITIZE, "LDFLAGS": SANITIZE}
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=copy, env=env, check=True, timeout=1800)
    return copy


@pytest.mark.timeout(3600)
def test_no_packet_makes_it_touch_what_is_not_its_own(checked: Path) -> None:
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    env = os.environ | {
        "LD_PRELOAD": library,
        "PYTHONPATH": f"{checked}:{checked}/tests",
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "HUMMINGBIRD_TEST_DATA": os.environ.get(
            "HUMMINGBIRD_TEST_DATA", str(ROOT.parent / "shared" / "data")
        ),
    }
    command = [sys.executable, checked / "tests" / "fuzz_chain.py", str(PACKETS), "20260101"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
