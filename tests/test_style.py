# SPDX-License-Identifier: BSD-3-Clause
"""Style and types: one failure names the tool, and what it said. `make fmt` mends most of it."""

import difflib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent  # of the virtual environment; resolving links would leave it
C_CODE = [
    path.relative_to(ROOT)
    for top in ["hummingbird/dataplane", "cl_kernels", "tests/c", "bench/peers"]
    for path in sorted((ROOT / top).rglob("*.*"))
    if path.suffix in {".c", ".h", ".cl"}
]
SOURCES = [
    *C_CODE,
    *(
        path.relative_to(ROOT)
        for top in ["hummingbird", "tests", "bench", "tools", "mdpdk_patches"]
        for path in sorted((ROOT / top).rglob("*.*"))
        if path.suffix in {".py", ".pml", ".sh"}
    ),
    *map(Path, ["setup.py", "pyproject.toml", "Makefile", ".ci/run", "tools/bootstrap"]),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--quiet", "."],
        ["ruff", "format", "--check", "--quiet", "--diff", "."],
        ["mypy"],
    ],
    ids=["ruff-check", "ruff-format", "mypy"],
)
def test_tool(command: list[str]) -> None:
    tool = BIN / command[0]
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail((done.stdout + done.stderr)[:12000], False)


def test_clang_format() -> None:
    changes: list[str] = []
    for path in C_CODE:
        code = (ROOT / path).read_text()
        wanted = subprocess.run(
            [BIN / "clang-format", path], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        lines = code.splitlines(), wanted.splitlines()
        changes += difflib.unified_diff(*lines, str(path), "after `make fmt`", lineterm="", n=1)
    if changes:
        pytest.fail("\n".join(changes[:150]), False)


def test_every_source_names_its_license() -> None:
    def head(path: Path) -> str:
        return "".join((ROOT / path).read_text().splitlines(keepends=True)[:3])

    without = [
        str(path) for path in SOURCES if "SPDX-License-Identifier: BSD-3-Clause" not in head(path)
    ]
    assert without == []
