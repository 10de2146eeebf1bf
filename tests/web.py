# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird web` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60.0


class Web:
    """One that was started."""

    def __init__(self, folder: Path, *args: str) -> None:
        self._file = folder / f"web-{time.monotonic_ns()}.txt"
        command = [sys.executable, "-m", "hummingbird.cli", "web", "--listen", "127.0.0.1:0", *args]
        with open(self._file, "w") as text:
            self.process = subprocess.Popen(
                command,
                env=dict(os.environ) | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=text,
                stderr=subprocess.STDOUT,
            )

    def listens(self) -> bool:
        """Whether it does; then ``port`` is known."""
        found = re.search(r"http://[0-9.]+:(\d+)/", self.text)
        self.port = int(found[1]) if found else 0
        return bool(found)

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self._file.read_text()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Until a condition holds, while it runs."""
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, f"ended before {what}: {self.text}"
            assert time.monotonic() < end, f"waited until {what}: {self.text}"
            time.sleep(0.02)

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def status(self) -> dict[str, Any]:
        """/status.json."""
        found: dict[str, Any] = json.loads(self.ask("/status.json")[1])
        return found

    def metric(self, name: str) -> float | None:
        """The sum of all series of a metric; None: there are none."""
        families = text_string_to_metric_families(self.ask("/metrics")[1])
        values = [s.value for family in families for s in family.samples if s.name == name]
        return sum(values) if values else None

    def resident(self) -> int:
        """Bytes of its memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def files(self) -> int:
        """That it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@contextmanager
def web(folder: Path, *args: str) -> Iterator[Web]:
    """`hummingbird web` with these arguments, at a port of its own; gone when the block ends."""
    started = Web(folder, *args)
    try:
        started.until(started.listens, "it listens")
        yield started
    finally:
        started.process.kill()
        started.process.wait()
