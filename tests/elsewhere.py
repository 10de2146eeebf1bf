# SPDX-License-Identifier: BSD-3-Clause
"""A place of its own for commands: a network namespace with interfaces of the test, and a /run that
no other run uses. Needs root; goes with its processes, and they with it.

    test ── [ /run, lo, a0 ══ a1 ] ── hummingbird COMMAND, ip, ...
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("HUMMINGBIRD_", "XDG_", "RUNTIME_"))
} | {"PYTHONPATH": str(ROOT)}
_SETUP = "mount -t tmpfs none /run && ip link set lo up && echo ready && exec cat"


class Place:
    """See above."""

    def __init__(self, holder: subprocess.Popen[str], folder: Path) -> None:
        self.folder = folder
        self._enter = ["nsenter", "-t", str(holder.pid), "-m", "-n"]
        self.run_dir = Path(f"/proc/{holder.pid}/root/run")
        """Its /run, as seen from here."""
        self.environment = ENVIRONMENT | {"XDG_CACHE_HOME": str(folder / "cache")}
        self._started: list[subprocess.Popen[str]] = []

    def popen(self, *command: object, **options: object) -> subprocess.Popen[str]:
        """Start a command there."""
        process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            [*self._enter, *map(str, command)], text=True, env=self.environment, **options
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """End whatever a test that failed has left running."""
        for process in self._started:
            process.kill()
            process.communicate()

    def call(self, *command: object) -> str:
        """What a command that succeeds prints."""
        process = self.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
        return out

    def hummingbird(self, *arguments: object) -> tuple[int, str]:
        """Exit status and output of a subcommand."""
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a subcommand."""
        command = [sys.executable, "-m", "hummingbird.cli", *arguments]
        return self.popen(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def veth(self, *names: str) -> None:
        """Two interfaces, each the other's end, both up."""
        self.call("ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name in names:
            self.call("ip", "link", "set", name, "up")


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    """One that goes with the block, with a folder for files and its cache."""
    need_root("a /run and a network namespace of its own")
    command = ["unshare", "-m", "-n", "--propagation", "private", "sh", "-c", _SETUP]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    holder = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    try:
        if holder.stdout.readline() != "ready\n":
            pytest.skip(f"NOT TESTED: no namespaces here: {holder.stderr.read().strip()}")
        made = Place(holder, folder)
        try:
            yield made
        finally:
            made.end()
    finally:
        holder.communicate()


def need_root(why: str) -> None:
    """Skip without root."""
    if os.geteuid() != 0:
        pytest.skip(f"NOT TESTED without root: {why}")


def need_tool(name: str, package: str) -> str:
    """Where a tool is; skip without it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"NOT TESTED: no {name}; apt-get install {package}")
    return found
