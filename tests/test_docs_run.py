# SPDX-License-Identifier: BSD-3-Clause
"""Every command of our pages is run, and every configuration is checked; doc_blocks.py says how a
page tells what one needs.

    page ── blocks ── [ folder, /run, interfaces, a sudo that has nothing to do ] ── status, output
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import FENCE, PAGES, ROOT, Block, blocks, commands, missing
from elsewhere import Place, place

from hummingbird import topology
from hummingbird.cli import main
from hummingbird.errors import UserError

TIMEOUT_S = 120.0
ALL = [block for page in PAGES for block in blocks(page)]
OURS = ("sh", "console", "yaml", "csv", "json")
OTHER = ("c", "python", "text", "ini", "promql", "")
MOST_NOT_RUN = 20
HELP = "(tests/doc_blocks.py: how a page says what a command needs)"
TOOLS = {
    "sudo": 'exec "$@"',
    "make": f'exec /usr/bin/make -n -C {ROOT} "$@" >/dev/null',  # is there such a target?
}
"""Commands of the pages that are others here."""


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_what_is_not_run_is_little_and_says_why() -> None:
    left = [f"{block}: {block.not_run}" for block in ALL if block.not_run is not None]
    print(*left, sep="\n")
    assert all(block.not_run != "" for block in ALL)
    assert len(left) <= MOST_NOT_RUN, "\n".join(left)


def test_where_numbers_vary_so_may_their_units() -> None:
    shown = "p50 0.38us p99 1.02us 5.00k"
    assert missing(shown, "p50 12.1us p99 1.2ms 980", True) is None
    assert missing(shown, "p50 - p99 1.2ms 980", True) is not None
    assert missing("18 flows", "18us flows", False) is not None


def test_every_block_is_of_a_kind_that_is_known() -> None:
    kinds = {*OURS, *OTHER}
    assert [f"{block}: {block.language}" for block in ALL if block.language not in kinds] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_no_block_is_indented(page: Path) -> None:
    """It would say neither what it is nor what it needs, and nobody would run it."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert re.findall(r"(?<=\n\n)    (?! *[-*] ).*", text) == []


# ---- configurations ------------------------------------------------------------------------------


def prepare(folder: Path, page: Path) -> None:
    """What the commands and topologies of a page find in a folder."""
    subprocess.run(["cp", "-a", ROOT / "policies", folder], check=True)
    for name in ("bench", "cl_kernels", "hummingbird", "mdpdk_patches", "tests"):
        (folder / name).symlink_to(ROOT / name)
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text)
            if is_key(block):
                (folder / block.file).chmod(0o600)


def whole(data: dict[str, Any]) -> dict[str, Any]:
    """A topology around sections of one, or around single ports or NFs."""
    entries = list(data.values())
    for section, field in (("ports", "driver"), ("nfs", "type")):
        if all(isinstance(entry, dict) and field in entry for entry in entries):
            data = {section: data}
    rest = {"policy": "policies/forward.csv", "ports": {"gen0": {"driver": "generator"}}}
    return rest | data


def load(folder: Path, data: dict[str, Any]) -> tuple[topology.Topology, bool]:
    """A topology, and whether all files that it names were there; those that were not are now."""
    path, complete = folder / "topology-of-the-page.yaml", True
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    while True:
        try:
            return topology.load(path), complete
        except UserError as error:
            _, lacks, name = error.what.partition("no such file: ")
            if not lacks:
                raise
            complete = False
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_configurations(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A topology passes `hummingbird check`; a part of one has only fields that there are, and
    where the page has the files that it names, these are right, too."""
    prepare(tmp_path, page)
    text = page.read_text()
    for block in blocks(page):
        if block.not_run is not None or block.said("status"):
            continue
        try:
            if block.language == "yaml" and not is_key(block):
                check_yaml(block, tmp_path)
            elif block.language == "csv":
                assert block.file and text.count(block.file) > 1, "nothing reads it"
            elif block.language == "json":
                check_json(block.text)
        except (UserError, AssertionError, ValueError) as error:
            pytest.fail(f"{block}: {error}", pytrace=False)


def is_key(block: Block) -> bool:
    """It is read with the topology that names it."""
    return block.file is not None and block.file.endswith(".key")


def check_yaml(block: Block, folder: Path) -> None:
    data = yaml.safe_load(block.text)
    if block.file and {"policy", "ports"} <= data.keys():
        assert main(["check", str(folder / block.file)]) == 0
        return
    loaded, complete = load(folder, whole(data))
    if complete:
        loaded.build_tables()


def check_json(text: str) -> None:
    """One value, or one a line."""
    try:
        json.loads(text)
    except ValueError:
        for line in text.splitlines():
            json.loads(line)


# ---- commands ------------------------------------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Place]:
    """Where the commands of a page run; what earlier probes have found is known there."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in TOOLS.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    folder = tmp_path / "clone"
    folder.mkdir()
    with place(folder) as made:
        path = os.pathsep.join(
            [str(tools), str(Path(sys.executable).parent), made.environment["PATH"], "/usr/sbin"]
        )
        del made.environment["XDG_CACHE_HOME"]
        made.environment |= {"PATH": path, "COLUMNS": "80"}
        yield made


class Page:
    """A page whose commands are run."""

    def __init__(self, there: Place) -> None:
        self._there = there
        self._running: list[tuple[Block, str, subprocess.Popen[str], Path]] = []

    def run(self, block: Block) -> None:
        """Run the commands of a block."""
        for name in (block.said("interfaces") or "").split():
            self._there.veth(name, f"{name}-far")
        for command, shown in commands(block):
            command = block.said("instead") or command
            if block.said("in the background") is not None:
                self._start(block, command, shown)
                continue
            wanted = int(block.said("status") or 0)
            stop = block.said("stop after")
            status, printed = self._run(command, float(stop.split()[0]) if stop else None)
            end = time.monotonic() + TIMEOUT_S
            while block.said("again") is not None and time.monotonic() < end:
                if not missing(shown, printed, block.said("numbers vary") is not None):
                    break
                status, printed = self._run(command, None)
            good = (0, 130) if stop else (wanted,)
            assert status in good, (
                f"{block}: status {status} of {command}\n{printed[-3000:]}\n{HELP}"
            )
            self._compare(block, shown, printed)

    def _popen(self, command: str, **options: Any) -> subprocess.Popen[str]:
        script = f"set -euo pipefail\ncd {self._there.folder}\n{command}"
        return self._there.popen(
            "bash", "-c", script, stdin=subprocess.DEVNULL,
            start_new_session=True, **options,
        )  # fmt: skip

    def _run(self, command: str, stop_s: float | None) -> tuple[int, str]:
        process = self._popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            printed, _ = process.communicate(timeout=stop_s or TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT if stop_s else signal.SIGKILL)
            printed, _ = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, printed

    def _start(self, block: Block, command: str, shown: str) -> None:
        file = self._there.folder.parent / f"output-{len(self._running)}"
        with open(file, "w") as output:
            process = self._popen(f"exec {command}", stdout=output, stderr=subprocess.STDOUT)
        self._running.append((block, shown, process, file))
        text = block.said("until")
        end = time.monotonic() + TIMEOUT_S
        while not (text in file.read_text() if text else self._is_up(command)):
            assert process.poll() is None, f"{block}: {command} ended\n{file.read_text()}"
            assert time.monotonic() < end, f"{block}: waited for {command}\n{file.read_text()}"
            time.sleep(0.02)

    def _is_up(self, command: str) -> bool:
        """The instance takes questions."""
        words = command.split()
        name = words[words.index("--name") + 1] if "--name" in words else "default"
        return (self._there.run_dir / "hummingbird" / name / "control").exists()

    def says(self, block: Block) -> None:
        """Wait until what runs has said this."""
        _, _, process, file = self._running[-1]
        end = time.monotonic() + TIMEOUT_S
        while lacks := missing(block.text, file.read_text(), False):
            assert process.poll() is None and time.monotonic() < end, f"{block}: {lacks}"
            time.sleep(0.02)

    def says_at_the_end(self, block: Block) -> None:
        """What runs has to say this when it ends."""
        _, _, process, file = self._running[-1]
        self._running.append((block, block.text, process, file))

    def end(self) -> None:
        """Stop what still runs, as Ctrl-C does."""
        for block, shown, process, file in reversed(self._running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            status = process.wait(TIMEOUT_S)
            assert status in (0, 130), f"{block}: status {status}\n{file.read_text()}"
            self._compare(block, shown, file.read_text())

    @staticmethod
    def _compare(block: Block, shown: str, printed: str) -> None:
        lacks = missing(shown, printed, block.said("numbers vary") is not None)
        if lacks:
            pytest.fail(f"{block}: {lacks}", pytrace=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [p for p in PAGES if any(
    block.language in ("sh", "console") and block.not_run is None for block in blocks(p)
)], ids=ids)  # fmt: skip
def test_commands(page: Path, there: Place) -> None:
    """They end as the page says, and print what it shows."""
    prepare(there.folder, page)
    running = Page(there)
    for block in blocks(page):
        if block.said("it says at the end") is not None:
            running.says_at_the_end(block)
        elif block.said("it says") is not None:
            running.says(block)
        elif block.language in ("sh", "console") and block.not_run is None:
            running.run(block)
    running.end()
