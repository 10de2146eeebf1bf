# SPDX-License-Identifier: BSD-3-Clause
"""Docs name files and functions of the source; all of them exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "policies/README.md"]
FILE = re.compile(r"`((?:hummingbird|cl_kernels|policies|tests|docs|tools)/[\w./-]+)`")
FUNCTION = re.compile(r"`([\w./-]+\.(?:c|h|cl|py))`: `(\w+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    """Every path in backticks and every relative link leads somewhere."""
    text = page.read_text(encoding="utf-8")
    missing = [name for name in FILE.findall(text) if not (ROOT / name).exists()]
    missing += [name for name in LINK.findall(text) if not (page.parent / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_functions_exist(page: Path) -> None:
    """`file`: `function` stands in that file."""
    for name, function in FUNCTION.findall(page.read_text(encoding="utf-8")):
        assert re.search(rf"\b{function}\b", (ROOT / name).read_text(encoding="utf-8")), function
