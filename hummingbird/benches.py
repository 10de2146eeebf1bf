# SPDX-License-Identifier: BSD-3-Clause
"""The benchmarks: each is a script of its own in bench/ and can be run without this."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hummingbird.errors import UserError
from hummingbird.textfile import suggest

_PACKAGE = Path(__file__).resolve().parent
_DEFINES_BENCH = re.compile(r"^BENCH\b.*=", re.MULTILINE)


def folder() -> Path:
    """Where the scripts lie: beside the package in a checkout, inside it when installed."""
    inside = _PACKAGE / "bench"
    return inside if inside.is_dir() else _PACKAGE.parent / "bench"


def names() -> list[str]:
    """The benchmarks that there are; the other files beside them are what they share."""
    return sorted(
        path.stem
        for path in folder().glob("*.py")
        if _DEFINES_BENCH.search(path.read_text(encoding="utf-8"))
    )


def show(console: Console) -> None:
    """List all benchmarks and what they measure."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in names():
        table.add_row(name, load(name).title)
    console.print(table)


def load(name: str) -> Any:
    """The `harness.Bench` of a benchmark."""
    return _execute(name, f"bench_{name}")["BENCH"]


def run(name: str, options: Sequence[str]) -> int:
    """Run a benchmark as if its script had been called with these options.

    Returns:
        The exit status.

    Raises:
        UserError: there is no such benchmark.
    """
    if name not in names():
        raise UserError(f"there is no benchmark {name!r}", fix=suggest(name, names()))
    before, sys.argv = sys.argv, [str(_path(name)), *options]
    try:
        _execute(name, "__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return 0


def _path(name: str) -> Path:
    return folder() / f"{name}.py"


def _execute(name: str, run_name: str) -> dict[str, Any]:
    # last on the path, so that no script hides a module of Python's that has its name
    if str(folder()) not in sys.path:
        sys.path.append(str(folder()))
    return runpy.run_path(str(_path(name)), run_name=run_name)
