# SPDX-License-Identifier: BSD-3-Clause
"""A real Linux kernel as IPsec peer: User-Mode Linux (Debian's user-mode-linux) in a network
namespace of its own, reached through a raw socket. Nothing stays behind.

    test ── raw socket ── hb0 ═ veth ═ hb1 ── User-Mode Linux (tests/uml_peer.py is its init)
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
INIT = Path(__file__).parent / "uml_peer.py"
SHIM = Path(__file__).parent / "c" / "uml_ptrace.c"
ESP_MODULES = [
    *("esp4", "xfrm_user", "authenc", "hmac", "cbc", "gcm", "ctr", "ghash-generic"),
    *("sha512_generic", "jitterentropy_rng", "drbg", "seqiv", "echainiv"),  # IVs
]
MAC = "02:00:00:00:09:02"
BOOT_S, ANSWER_S = 120.0, 60.0

CLONE_NEWNET = 0x40000000
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
ALL_PROTOCOLS = 3
_libc = ctypes.CDLL(None, use_errno=True)


def needs_uml() -> None:
    """Skip, and say so, where it cannot run."""
    if shutil.which(KERNEL) is None:
        pytest.skip("NOT TESTED against a real kernel: apt-get install user-mode-linux")
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED against a real kernel: network namespaces need root")
    if not Path("/usr/bin/python3").exists() or shutil.which("ip") is None:
        pytest.skip("NOT TESTED against a real kernel: apt-get install python3 iproute2")


def modules(names: Sequence[str]) -> list[str]:
    """Files of modules, those they depend on first."""
    folder = next(MODULES.iterdir())
    needs: dict[str, list[str]] = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    by_name = {Path(path).stem: path for path in needs}
    found: list[str] = []
    for name in names:
        if name in by_name:  # else it is built in
            path = by_name[name]
            found += [*reversed(needs[path]), path]
    return [str(folder / path) for path in dict.fromkeys(found)]


@contextlib.contextmanager
def _inside(name: str) -> Iterator[None]:
    """This thread in a network namespace."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{name}") as there:
        assert _libc.setns(there.fileno(), CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert _libc.setns(home.fileno(), CLONE_NEWNET) == 0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Uml:
    """The kernel, and the frames that it sends and gets."""

    def __init__(self, process: subprocess.Popen[bytes], frames: socket.socket) -> None:
        self._process, self.frames = process, frames
        self._text = b""

    def ask(self, *words: object) -> None:
        """Give a command; see uml_peer.py."""
        assert self._process.stdin is not None
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self._process.stdin.flush()

    def answer(self, timeout: float) -> list[Any]:
        """The answer, if it comes within this time, or nothing."""
        assert self._process.stdout is not None
        end = time.monotonic() + timeout
        while True:
            head, at, rest = self._text.partition(b"\n")
            if at:
                self._text = rest
                if head.startswith(b"@"):
                    return [json.loads(base64.b64decode(head.split(b"@")[1]))]
                sys.stderr.write(head.decode(errors="replace") + "\n")
                continue
            left = max(0.0, end - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return []
            data = os.read(self._process.stdout.fileno(), 65536)
            assert data, f"the kernel has ended: {self._process.poll()}"
            self._text += data

    def run(self, *words: object) -> Any:
        """A command and its answer."""
        self.ask(*words)
        (found,) = self.answer(ANSWER_S) or ["no answer"]
        return found

    def receive(self, wait: float, quiet: float = 0.02) -> list[bytes]:
        """Frames that it sends: until none came for a short time."""
        found: list[bytes] = []
        while select.select([self.frames], [], [], quiet if found else wait)[0]:
            frame = self.frames.recv(65536)
            if frame[6:12] == bytes.fromhex(MAC.replace(":", "")):  # not the host's own
                found.append(frame)
        return found

    def send(self, packets: Sequence[bytes]) -> None:
        """Frames for it."""
        for packet in packets:
            self.frames.send(packet)


@contextlib.contextmanager
def uml(folder: Path, commands: Sequence[str], udp: Sequence[int] = ()) -> Iterator[Uml]:
    """A kernel that has run these commands; it is gone when the block ends."""
    name = f"hb-test-{os.getpid()}"
    plan = folder / "plan.json"
    words = [command.split() for command in commands]
    files = modules(ESP_MODULES)
    plan.write_text(json.dumps({"modules": files, "commands": words, "udp": list(udp)}))
    _ip("netns", "add", name)
    process = None
    try:
        _ip("-n", name, "link", "add", "hb0", "type", "veth", "peer", "name", "hb1")
        for end in ("hb0", "hb1"):
            _ip("-n", name, "link", "set", end, "up")
        with _inside(name), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as frames:
            frames.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            frames.bind(("hb0", ALL_PROTOCOLS))
            process = _boot(folder, plan)
            kernel = Uml(process, frames)
            (done,) = kernel.answer(BOOT_S) or [["it does not boot"]]
            assert not any("FAILED" in text for text in done), done
            yield kernel
            kernel.ask("halt")
            process.wait(ANSWER_S)
    finally:
        if process is not None and process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
        _ip("netns", "del", name)


def _shim(folder: Path) -> Path:
    """The library without which it does not run on every CPU."""
    made = folder / "uml_ptrace.so"
    words = ["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-O1", "-o", str(made), str(SHIM), "-ldl"]
    subprocess.run(words, check=True)
    return made


def _boot(folder: Path, plan: Path) -> subprocess.Popen[bytes]:
    """Start it in the network namespace of this thread."""
    return subprocess.Popen(
        [
            KERNEL,
            "mem=192M",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "quiet",
            "loglevel=0",
            f"init={INIT}",
            "con=null",
            "con0=fd:0,fd:1",
            f"vec0:transport=raw,ifname=hb1,mac={MAC}",
            f"uml_dir={folder}",
            f"PLAN={plan}",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LD_PRELOAD": str(_shim(folder)),
        },
        start_new_session=True,
    )
