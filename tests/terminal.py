# SPDX-License-Identifier: BSD-3-Clause
"""A terminal of 80 columns and 24 lines, and a command in it.

test ── keys ──> [ pseudo-terminal: hummingbird top ] ── what is written there ──> test
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60.0
COLUMNS, LINES = 80, 24
HOME = "\x1b[H"
ALTERNATE, ORDINARY, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command of `hummingbird` that believes to be watched by somebody."""

    def __init__(self, *args: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._slave = slave
        self.before = termios.tcgetattr(slave)
        self.said = ""
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hummingbird.cli", *args],
            env=kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    @property
    def settings(self) -> list[Any]:
        """Of the terminal, as they are now."""
        return termios.tcgetattr(self._slave)

    @property
    def screen(self) -> list[str]:
        """The lines of the last whole screen; empty before there is one."""
        screens = self.said.split(HOME)
        whole = screens[-2] if len(screens) > 2 else ""
        return [line.rstrip() for line in _CONTROL.sub("", whole).split("\r\n")] if whole else []

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def _read(self) -> None:
        while select.select([self._master], [], [], 0.02)[0]:
            self.said += self._decode(os.read(self._master, 1 << 16))

    def until(self, *wanted: str) -> None:
        """Until a screen has all of this."""
        end = time.monotonic() + TIMEOUT_S
        while not all(text in "\n".join(self.screen) for text in wanted):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, f"waited for {wanted}: {self.screen}"
            self._read()

    def until_said(self, *wanted: str) -> None:
        """Until all of this has been written, on whatever screen."""
        end = time.monotonic() + TIMEOUT_S
        while not all(text in self.said for text in wanted):
            assert self.process.poll() is None and time.monotonic() < end, self.said
            self._read()

    def wait(self) -> int:
        """Until the command has ended: its status."""
        end = time.monotonic() + TIMEOUT_S
        while self.process.poll() is None:
            assert time.monotonic() < end, self.said
            self._read()
        self._read()
        return int(self.process.returncode)

    def close(self) -> None:
        """Hang up."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@contextmanager
def terminal(*args: str, **environment: str) -> Iterator[Terminal]:
    """`hummingbird ARGS` in a terminal, gone when the block ends."""
    opened = Terminal(*args, **environment)
    try:
        yield opened
    finally:
        opened.close()
