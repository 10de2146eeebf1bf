# SPDX-License-Identifier: BSD-3-Clause
"""Docs name files, functions, commands, fields and drop reasons of the source: all that they name
exist, and none is left out."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from doc_blocks import PAGES, ROOT
from pydantic import BaseModel

from hummingbird import cli, nfs, ports, topology
from hummingbird.dataplane.plane import reasons

FILE = re.compile(r"`((?:hummingbird|cl_kernels|policies|tests|docs|tools)/[\w./-]+)`")
FUNCTION = re.compile(r"`([\w./-]+\.(?:c|h|cl|py))`: `(\w+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
MADE = {"reference/topology.md", "reference/commands.md"}
"""Pages that tools/docs_hooks.py makes."""


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """tools/reference.py"""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    """Every path in backticks and every relative link leads somewhere."""
    text = page.read_text(encoding="utf-8")
    missing = [name for name in FILE.findall(text) if not (ROOT / name).exists()]
    missing += [name for name in LINK.findall(text) if not (page.parent / name).exists()]
    assert not set(missing) - MADE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_functions_exist(page: Path) -> None:
    """`file`: `function` stands in that file."""
    for name, function in FUNCTION.findall(page.read_text(encoding="utf-8")):
        assert re.search(rf"\b{function}\b", (ROOT / name).read_text(encoding="utf-8")), function


def test_each_drop_reason_has_its_section() -> None:
    """And no other is there."""
    found = re.findall(r"^### (\w+)$", (ROOT / "docs" / "drops.md").read_text(), re.MULTILINE)
    assert sorted(found) == sorted(name for name, _ in reasons() if name != "none")


def test_the_readme_has_all_commands(reference: ModuleType) -> None:
    table = re.findall(r"^\| `hummingbird (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = [name for name, _ in reference.commands(cli.parser()) if " " not in name]
    assert sorted(table) == sorted(named)


def models() -> Iterator[type[BaseModel]]:
    """What checks a topology."""
    yield topology._File
    yield topology._Zone
    yield from (ports.load(name).params for name in ports.NAMES)
    yield from (nfs.load(name).params for name in nfs.TYPES)
    yield topology.RuleParams


@pytest.mark.parametrize("model", list(models()), ids=lambda model: model.__name__)
def test_each_field_is_described(model: type[BaseModel], reference: ModuleType) -> None:
    """So the reference says something about each, also of the models inside."""
    texts = reference.described(model)
    assert [name for name in model.model_fields if not texts.get(name)] == []
    for field in model.model_fields.values():
        for inner in reference.models_in(field.annotation):
            test_each_field_is_described(inner, reference)


@pytest.mark.parametrize("name", [name for name in nfs.NAMES if name != "forward"])
def test_pages_of_nfs_have_all_fields(name: str) -> None:
    """A page has a table of parameters; the defaults that stand there are those of the model."""
    text = (ROOT / "docs" / f"{name}.md").read_text()
    for field, info in nfs.load(name).params.model_fields.items():
        rows = re.findall(rf"^\| [^|]*`{field}`[^|]* \| ([^|]*) \|", text, re.MULTILINE)
        assert rows or f"`{field}`" in text or f"{field}:" in text, f"{field} is not there"
        if isinstance(info.default, int | str) and rows:
            assert str(info.default).lower() in rows[0].replace(",", "").lower(), field


def test_pages_that_the_code_names_exist() -> None:
    named = {
        found
        for folder in ("hummingbird", "cl_kernels", "bench", "policies", "mdpdk_patches")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".c", ".h", ".cl", ".yaml", ".csv", ".md", ".sh"}
        for found in re.findall(r"\bdocs/[\w-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
