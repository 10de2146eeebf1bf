# SPDX-License-Identifier: BSD-3-Clause
"""The docs as a site: it builds without a warning, all its links lead somewhere, and it loads
nothing from elsewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent


class Page(HTMLParser):
    """What a page points to, and what can be pointed to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found.get("href", ""))
        elif "src" in found:
            self.loads.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that was just built, with each warning an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """All of its pages."""
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def test_each_page_of_docs_is_there(site: Path) -> None:
    """And those that are made, or lie elsewhere; that each is in the nav mkdocs makes sure of."""
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").exists(), page
    for made in ("policies", "mdpdk", "reference/topology", "reference/commands"):
        assert (site / f"{made}.html").exists(), made


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    lost: list[str] = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            if urlsplit(target).scheme:
                continue
            there = (path.parent / unquote(target)).resolve() if target else path
            there = there / "index.html" if there.is_dir() else there
            if not there.exists():
                lost.append(f"{path.name}: {link}")
            elif anchor and there in pages and unquote(anchor) not in pages[there].ids:
                lost.append(f"{path.name}: {link}: no such place")
    assert lost == []


def test_nothing_comes_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    """No font, script or style is loaded from the network; and what is loaded is there."""
    for path, page in pages.items():
        for load in page.loads:
            assert not urlsplit(load).netloc and not urlsplit(load).scheme, f"{path.name}: {load}"
            assert (path.parent / load.partition("?")[0]).exists(), f"{path.name}: {load}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert "url(http" not in text and "@import" not in text, style.name


def test_the_reference_has_what_the_code_has(site: Path) -> None:
    """A field, a range, a default, an option: each as the code says it."""
    topology = (site / "reference" / "topology.html").read_text(encoding="utf-8")
    for wanted in ("replay_window", "1,024", "16384", "suffix", "tcp_established"):
        assert wanted in topology
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "--no-live" in commands and "hummingbird explain" in commands
