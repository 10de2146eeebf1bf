# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird top`: watches an instance by what lies in its run directory; it is not asked, and
does not notice."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hummingbird.telemetry import top
from hummingbird.telemetry.attach import Attached
from hummingbird.telemetry.keyboard import keyboard
from hummingbird.telemetry.status import Meter

FIRST_S = 0.3
"""The first screen shows so much of an interval: nobody wants to wait for it."""
ALIVE_S = 0.5
"""Whether the instance still runs is looked at so often."""
WIDE = 1000
"""Columns where there is no terminal: names are not cut."""
FILLED = 80
"""Columns that are filled there."""


@dataclass(frozen=True)
class Options:
    """What the command line may say."""

    name: str | None = None
    """Of the instance; None: the only one that runs."""
    interval: float = 1.0
    """Seconds."""
    once: bool = False
    json: bool = False


def watch(options: Options) -> None:
    """Show what an instance does, once or until somebody types ``q`` or it ends.

    Raises:
        UserError: there is no instance, or it is not clear which is meant.
    """
    with Attached(options.name) as instance:
        if options.once or options.json or not _has_screen():
            _once(instance, options)
        else:
            _live(instance, options)


def _has_screen() -> bool:
    """Somebody watches, on a terminal whose cursor can be moved."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal


def _once(instance: Attached, options: Options) -> None:
    meter = Meter(instance.view)
    meter.measure(instance.view)
    ended = _pass(instance, options.interval)
    status = meter.measure(instance.view)
    if options.json:
        print(json.dumps(status, indent=2))
        return
    width, _ = shutil.get_terminal_size((WIDE, 0))
    console = Console(width=width)
    fill = width if sys.stdout.isatty() else min(width, FILLED)
    for line in top.lines(status, width, fill=fill):
        console.print(line, soft_wrap=True, highlight=False)
    if ended:
        _say_end(instance)


def _pass(instance: Attached, seconds: float) -> bool:
    """Let time pass; whether the instance has ended meanwhile, which ends the wait."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, ALIVE_S))
        if not instance.running:
            return True
    return False


def _say_end(instance: Attached) -> None:
    print(f"the instance {instance.name!r} has ended")


def _live(instance: Attached, options: Options) -> None:
    """Until a key, Ctrl-C, a signal or the end of the instance."""
    ended = False
    with _signals(), keyboard() as keys:
        console = Console()
        meter = Meter(instance.view)
        meter.measure(instance.view)
        with Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
            live.update(Text(f"watching {instance.name} ..."), refresh=True)
            due = time.monotonic() + min(FIRST_S, options.interval)
            status: dict[str, Any] | None = None
            while not ended:
                typed = keys.wait(max(0.0, min(due - time.monotonic(), ALIVE_S)))
                if "q" in typed.lower():
                    break
                if time.monotonic() >= due:
                    status = meter.measure(instance.view)
                    due = time.monotonic() + options.interval
                if status:
                    live.update(_screen(status, console), refresh=True)
                ended = not instance.running
    if ended:
        _say_end(instance)


def _screen(status: dict[str, Any], console: Console) -> Group:
    """As much as the terminal now has room for."""
    width, height = console.size
    lines = top.lines(status, width, height - 1)
    return Group(*lines, Text("q quits", style="dim"))


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C is how people leave, so it is no failure; a signal that ends it leaves the terminal
    as it was."""
    before = {n: signal.signal(n, _stop) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
