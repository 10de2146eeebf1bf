# SPDX-License-Identifier: BSD-3-Clause
"""What mkdocs does not do by itself: pages that are made of the code or lie outside docs/, parts of
the README, and what our pages have that its Markdown does not know.

In a page stand

    <!-- from README.md: HEADING -->      that section of the README, without its heading
    <!-- made: drop reasons -->           what tools/reference.py makes
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "policies/README.md": "policies.md",
    "mdpdk_patches/README.md": "mdpdk.md",
}
"""Pages of the site by files that lie elsewhere."""
MADE = {"drop reasons": reference.drops_table}

LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
FROM = re.compile(r"<!-- from README\.md: (.+?) -->")
MADE_HERE = re.compile(r"<!-- made: (.+?) -->")
COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"^!\[.*\]\((\w+\.svg)\)$", re.MULTILINE)
VARIABLES = re.compile(r"\.hb-picture \{ (--ink.*?) \}")
FENCE = re.compile(r"^```(\w+) .*$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that do not lie in docs/."""
    pages = {
        "reference/topology.md": reference.topology_page(),
        "reference/commands.md": reference.commands_page(),
        "policies.md": outside("policies/README.md") + examples(),
        "mdpdk.md": outside("mdpdk_patches/README.md"),
        "site.css": (ROOT / "tools" / "site.css").read_text() + colours(),
    }
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Our Markdown as mkdocs takes it."""
    markdown = FROM.sub(lambda found: section("README.md", found[1]), markdown)
    markdown = MADE_HERE.sub(lambda found: MADE[found[1]](), markdown)
    if page.file.generated_by is None:
        markdown = relinked(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)
    markdown = FENCE.sub(r"```\1", COMMENT.sub("", markdown))
    return PICTURE.sub(picture, markdown)


def picture(found: re.Match[str]) -> str:
    """A picture inside its page, where it follows the page's light and dark; in one line, as
    Markdown would see paragraphs else."""
    return "".join(line.strip() + " " for line in (ROOT / "docs" / found[1]).open())


def outside(file: str) -> str:
    """A page that lies outside docs/."""
    return relinked((ROOT / file).read_text(), file, OUTSIDE[file])


def section(file: str, heading: str) -> str:
    """A section of a page that lies outside docs/, for one that lies there at the top."""
    text = outside(file)
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"{file} has no section {heading!r}")
    return found[1].strip()


def relinked(text: str, file: str, page: str) -> str:
    """Links of a file of the repository, as they have to be on a page of the site."""

    def relink(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), found[1]))
        place = OUTSIDE.get(target)
        if place is None and target.startswith("docs/"):
            place = target.removeprefix("docs/")
        if place is None:
            return found[0]  # mkdocs says what is wrong with it
        return "](" + posixpath.relpath(place, posixpath.dirname(page) or ".")

    return LINK.sub(relink, text)


def examples() -> str:
    """The topologies and route policies of policies/, whole."""
    parts = ["\n## The files\n"]
    for topology in sorted((ROOT / "policies").glob("*.yaml")):
        parts.append(f"### {topology.name}\n")
        for file in (topology, topology.with_suffix(".csv")):
            if file.exists():
                parts.append(f"```{file.suffix[1:]}\n{file.read_text().rstrip()}\n```\n")
    return "\n".join(parts)


def colours() -> str:
    """Pygments' styles for light and dark; the picture's, where a reader has chosen one."""
    light, dark = HtmlFormatter(style="friendly"), HtmlFormatter(style="github-dark")
    lines = [
        light.get_style_defs(".codehilite"),
        dark.get_style_defs('[data-bs-theme="dark"] .codehilite'),
        ".codehilite, [data-bs-theme] .codehilite { background: var(--bs-tertiary-bg); }",
    ]
    text = (ROOT / "docs" / "concepts.svg").read_text()
    for theme, values in zip(("light", "dark"), VARIABLES.findall(text), strict=True):
        lines.append(f'[data-bs-theme="{theme}"] svg.hb-picture {{ {values} }}')
    return "\n".join(["", *lines, ""])
