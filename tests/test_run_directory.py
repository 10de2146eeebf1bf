# SPDX-License-Identifier: BSD-3-Clause
"""A run directory that is full, or becomes so: a clear message at the start, and later nothing that
packets notice.

    hummingbird run ── RUNTIME_DIRECTORY on a tmpfs of a few pages, filled by the test
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from namespaces import needs
from process import Service, service, write_rows, write_topology
from test_logs import NOWHERE, ROWS, TOPOLOGY, named

from hummingbird.telemetry.rundir import base_dir

MOUNT = 'mount -t tmpfs -o size=$0 tmpfs "$RUNTIME_DIRECTORY" && exec "$@"'


def on_a_disk_of(size: str, folder: Path) -> dict[str, Any]:
    """For a run whose run directory lies on one of its own."""
    needs("unshare")
    (folder / "run").mkdir()
    through = ["unshare", "--mount", "sh", "-c", MOUNT, size]
    return {"through": through, "RUNTIME_DIRECTORY": str(folder / "run")}


def test_no_room_at_the_start(tmp_path: Path) -> None:
    """Shared memory that has no pages behind it would end the process at the first count."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    with service(tmp_path, path, **on_a_disk_of("8k", tmp_path)) as process:
        ended = process.wait()
    assert ended.status == 2, ended
    assert "no room for the counters: No space left on device" in ended.text
    assert "fix: make room" in ended.text and "Traceback" not in ended.text


def test_no_room_any_more(tmp_path: Path) -> None:
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    disk = on_a_disk_of("256k", tmp_path)
    with service(tmp_path, path, "--watch", "--log", "json", **disk) as process:
        process.until(lambda: bool(named(process, "started")), "its start")
        folder = Path(f"/proc/{process.process.pid}/root{tmp_path}/run")
        fill(folder)
        write_rows(tmp_path, NOWHERE)
        process.until(lambda: bool(named(process, "not_shown")), "a word of it")
        view = folder / process.name / "view"
        assert json.loads(view.read_text())["policy_version"] == 1, "the old one is whole"
        (folder / "filler").unlink()
        process.until(lambda: version(process, view) == 2, "the new one")
        process.until(lambda: bool(named(process, "drops")), "packets by the new policy")
        summary = process.stop().balanced
        assert len(named(process, "not_shown")) == 1
    assert summary["dropped"].keys() == {"policy"}


def test_what_a_killed_run_leaves_goes_with_the_next(tmp_path: Path) -> None:
    """The rings of a capture, and what was being written; nothing of anybody else."""
    path = write_topology(tmp_path, TOPOLOGY, ROWS)
    with service(tmp_path, path, "--log", "json") as process:
        process.until(lambda: bool(named(process, "started")), "its start")
        process.process.kill()
        process.process.wait()
        folder = base_dir() / process.name
        left = [folder / name for name in ("tap-1", "tap-12", "view.new", "stats.new")]
        for file in (*left, folder / "notes"):
            file.touch()
        with service(tmp_path, path, "--log", "json", name=process.name) as again:
            again.until(lambda: bool(named(again, "started")), "the next start")
            assert not [file for file in left if file.exists()]
            assert (folder / "notes").exists()
            again.until(lambda: again.packets(1) > 0, "packets")
            assert again.stop().balanced["sent"] > 0


def version(process: Service, view: Path) -> int:
    return int(json.loads(view.read_text())["policy_version"])


def fill(folder: Path) -> None:
    with pytest.raises(OSError, match="No space left"), open(folder / "filler", "wb", 0) as file:
        while True:
            file.write(bytes(4096))
