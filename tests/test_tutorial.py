# SPDX-License-Identifier: BSD-3-Clause
"""docs/write-an-nf.md does what it says: its own code blocks, written to files and run; on the
device, too. (Its commands are run by test_docs_run.py.)"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from chain import tcp, udp
from doc_blocks import blocks

from hummingbird.cli import main
from hummingbird.testing import run_packets

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "write-an-nf.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = {block.file: block.text for block in blocks(PAGE) if block.file}
DEMO = ROOT / "policies" / "demo" / "branch.pcap"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def lines(name: str) -> int:
    return sum(1 for line in BLOCKS[name].splitlines() if line.strip())


def test_the_ttl_counter_has_fewer_than_20_lines() -> None:
    count = lines("ttl_counter.cl") + lines("ttl_counter.py")
    assert count < 20
    assert count == 10 or f"in {count} lines" in TEXT


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_the_ttl_counter(engine: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of the page, and what it says that they print."""
    top = folder / "count.yaml"
    top.write_text(BLOCKS["count.yaml"].replace("engine: cpu", f"engine: {engine}"))
    assert main(["check", str(top)]) == 0
    args = ["--in", str(DEMO), "--out", str(folder / "out.pcap"), "--no-live"]
    args += ["--name", f"test-tutorial-{os.getpid()}", "--json", str(folder / "run.json")]
    assert main(["run", str(top), *args]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = re.search(r"^Counters\n(.*?)^\.\.\.", TEXT, re.DOTALL | re.MULTILINE)
    assert shown
    for line in shown[1].splitlines():
        assert line.split() in printed
    summary: dict[str, Any] = json.loads((folder / "run.json").read_text())
    assert summary["sent"] == 1102 and summary["counters"] == {"count0": {"ttl 64": 1086}}


def test_the_small_python_nf(folder: Path) -> None:
    packets = [udp("10.0.0.1", "10.0.0.2", 1, port) for port in (52, 53, 54)]
    packets.append(tcp("10.0.0.1", "10.0.0.2", 1, 53))
    outcome = run_packets(folder, {"type": "python", "file": "small.py"}, packets)
    changed = [bytes([packet[0] | 2]) + packet[1:] for packet in packets]
    assert outcome.packets == [changed[0], *changed[2:]]
    assert outcome.dropped == {"nf_action": 1}


def test_the_page_names_every_accessor() -> None:
    header = (ROOT / "cl_kernels" / "hummingbird.h").read_text()
    interface = header[header.index("the NF interface (HB_NF_ABI)") :]
    accessors = re.findall(r"^static inline \w+ (hb_\w+)\(", interface, re.MULTILINE)
    parts = {f"hb_{does}_{what}" for does in ("load", "store") for what in ("word", "block")}
    assert len(accessors) > 12
    for name in {*accessors} - parts:
        assert f"`{name}" in TEXT, name
