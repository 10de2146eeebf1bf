# SPDX-License-Identifier: BSD-3-Clause
"""The fenced blocks of our pages, and what the comment above one says about running it.

    ```sh                 commands, run as one script
    ```console            commands behind "$ ", and what they print; "..." stands for anything
    ```yaml file=a.yaml   a topology, or sections of one, or ports or NFs; also written to a.yaml
    ```csv file=a.csv     written to a.csv

    <!-- run: DIRECTIVE; DIRECTIVE -->   status 2             the last command ends with this status
                                         numbers vary         no number of the output is compared,
                                                              and no unit: us may be ms
                                         interfaces a0 a1     there are these, each with a far end
                                         in the background    goes on until the page ends
                                         until TEXT           ... and the page once it says this
                                         it says              what goes on says this block by now
                                         it says at the end   ... when it ends
                                         again                until it prints what is shown
                                         stop after 2 s       Ctrl-C then
                                         instead COMMAND      because the one shown takes too long,
                                                              or may be over before the page is
    <!-- not run: REASON -->

Commands of a page run in its order, in a folder with policies/ and the files of its blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "policies/README.md"]
COMMENT = re.compile(r"<!-- (run|not run): (.*?) -->\s*\Z", re.DOTALL)
FENCE = re.compile(r"^```(\S*)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    file: str | None
    text: str
    directives: tuple[str, ...]
    not_run: str | None
    """Why."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def said(self, directive: str) -> str | None:
        """What stands behind a directive; None without it."""
        for one in self.directives:
            if one == directive or one.startswith(directive + " "):
                return one[len(directive) :].strip()
        return None


def blocks(page: Path) -> list[Block]:
    """All of a page, in order."""
    return list(_blocks(page, page.read_text(encoding="utf-8")))


def _blocks(page: Path, text: str) -> Iterator[Block]:
    for found in FENCE.finditer(text):
        before = text[: found.start()]
        directives: tuple[str, ...] = ()
        not_run = None
        if comment := COMMENT.search(before[before.rfind("<!--") :] if "<!--" in before else ""):
            if comment[1] == "run":
                directives = tuple(" ".join(one.split()) for one in comment[2].split(";"))
            else:
                not_run = " ".join(comment[2].split())
        line = before.count("\n") + 1
        yield Block(page, line, found[1], found[2], found[3], directives, not_run)


def commands(block: Block) -> list[tuple[str, str]]:
    """Of a ``console`` block: each command and what it prints. Of an ``sh`` block: all of it."""
    if block.language == "sh":
        return [(block.text, "")]
    joined = block.text.replace("\\\n", "\\\0")
    parts = re.split(r"^\$ (.*)\n", joined, flags=re.MULTILINE)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [(command.replace("\0", "\n"), output.replace("\0", "\n")) for command, output in pairs]


_UNITS = r"(?:ns|us|ms|s|min|%|pps|[kMG]pps|[kMG]?bit/s|[KMG]iB)"
_MEASURED = re.compile(rf"(?<![\w.])[\d,.]*\d ?{_UNITS}(?![\w/])")
_NUMBER = re.compile(rf"\d[\d,.]*(?: ?{_UNITS}(?![\w/])|[kMG](?!\w))?")


def comparable(text: str, numbers_vary: bool) -> str:
    """Without how it is laid out, and without what a machine measures."""
    text = (_NUMBER if numbers_vary else _MEASURED).sub("#", text)
    return " ".join(text.split())


def missing(shown: str, printed: str, numbers_vary: bool) -> str | None:
    """The first part of what is shown that was not printed, in order."""
    rest = comparable(printed, numbers_vary)
    for part in re.split(r"^\s*\.\.\.\s*$", shown, flags=re.MULTILINE):
        wanted = comparable(part, numbers_vary)
        if not wanted:
            continue
        before, found, rest = rest.partition(wanted)
        if not found:
            return f"{wanted}\nis not in\n{before[-3000:]}"
    return None
