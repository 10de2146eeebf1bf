# SPDX-License-Identifier: BSD-3-Clause
"""Single keys from a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

_CONTROL_CHARACTERS = 6
"""Place in what tcgetattr() gives."""


class Keyboard:
    """Keys as they are typed; none where standard input is no terminal."""

    def __init__(self, file: int | None) -> None:
        self._file = file

    def wait(self, seconds: float) -> str:
        """Wait for keys, but not longer than this: what was typed, or nothing."""
        if self._file is None:
            time.sleep(seconds)
            return ""
        if not select.select([self._file], [], [], seconds)[0]:
            return ""
        try:
            typed = os.read(self._file, 64)
        except OSError:  # the terminal has gone
            typed = b""
        if not typed:
            self._file = None
        return typed.decode("latin-1")


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Keys come at once and are not echoed; afterwards the terminal is as it was.

    Ctrl-C works as ever. Ctrl-Z does nothing: a stopped process would leave its screen behind.
    """
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    try:
        tty.setcbreak(file)
        settings = termios.tcgetattr(file)
        settings[_CONTROL_CHARACTERS][termios.VSUSP] = b"\0"
        termios.tcsetattr(file, termios.TCSANOW, settings)
        yield Keyboard(file)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
