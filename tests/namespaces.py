# SPDX-License-Identifier: BSD-3-Clause
"""Network namespaces with real interfaces, and the far side of an interface: frames sent by a raw
socket, and those that came as tcpdump has them.

    Raw ══ veth ══ [ driver, chain, driver ] ══ veth ══ tcpdump
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.utils import RawPcapReader

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
TIMEOUT_S = 60.0
POLL_S = 0.002
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def needs(*tools: str) -> None:
    """Skip, and say so, where there can be no namespace, or one of these tools is missing."""
    lacking = [tool for tool in ("ip", *tools) if shutil.which(tool) is None]
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED on interfaces: needs root, for network namespaces")
    if lacking:
        pytest.skip(f"NOT TESTED on interfaces: needs {', '.join(lacking)}")
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"NOT TESTED on interfaces: no network namespace: {probe.stderr.strip()}")


def until(condition: Callable[[], object], what: str) -> None:
    """Until a condition holds."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, f"waited {TIMEOUT_S:g} s for {what}"
        time.sleep(POLL_S)


def set_namespace(fd: int) -> None:
    """Move this thread; what it opens, and threads and processes it starts, are there too."""
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@dataclass(frozen=True)
class Namespace:
    """A network namespace without IPv6, in which nothing is sent but by the test."""

    name: str

    def run(self, *argv: str, may_fail: bool = False) -> str:
        """Run a program in it; what it says."""
        command = ["ip", "netns", "exec", self.name, *argv]
        done = subprocess.run(command, capture_output=True, text=True)
        assert may_fail or done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, *commands: str) -> None:
        """Run `ip` with each of these."""
        for command in commands:
            self.run("ip", *command.split())

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in it."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            set_namespace(there)
            yield
        finally:
            set_namespace(home)
            os.close(home)
            os.close(there)

    def enter(self) -> None:
        """Move this thread for good: for a child before it starts a program."""
        set_namespace(os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC))

    def socket(self, family: int, kind: int) -> socket.socket:
        """One of this namespace; a packet socket sends only."""
        with self.entered():
            return socket.socket(family, kind)

    def wire(self, ours: str, peer: str, at: Namespace | None = None) -> None:
        """A pair of interfaces that are up, the peer in another namespace perhaps. Behind a name
        may stand options of `ip link add`."""
        at = at or self
        (our, *more), (their, *_) = ours.split(), peer.split()
        self.ip(
            f"link add {our} {' '.join(more)} type veth peer name {peer} netns {at.name}",
            f"link set {our} up",
        )
        at.ip(f"link set {their} up")
        self.wait_linked(our)
        at.wait_linked(their)

    def wait_linked(self, *interfaces: str) -> None:
        """Until the kernel has seen that they have a link, and sends by them."""
        for name in interfaces:
            until(functools.partial(self._is_linked, name), f"a link at {name}")

    def _is_linked(self, name: str) -> bool:
        says = self.run("ip", "-d", "link", "show", name)
        # a tap's state is never known; that of others is not yet known when they are new
        return "state UP" in says or ("state UNKNOWN" in says and " tun " in says)

    def offload(self, interface: str, on: bool, *features: str) -> None:
        """ethtool -K."""
        words = [word for feature in features for word in (feature, "on" if on else "off")]
        self.run("ethtool", "-K", interface, *words)


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace, gone when the block ends."""
    new = Namespace(f"hbp{os.getpid()}-{next(_numbers)}")
    subprocess.run(["ip", "netns", "add", new.name], check=True)
    try:
        for what in ("all", "default"):
            new.run("sysctl", "-qw", f"net.ipv6.conf.{what}.disable_ipv6=1")
        new.ip("link set lo up")
        yield new
    finally:
        subprocess.run(["ip", "netns", "del", new.name], check=True)


class Sender(socket.socket):
    """A packet socket that sends a frame again which the kernel had no room for just then."""

    def send(self, data: bytes, *_: int) -> int:  # type: ignore[override]
        """Send a frame."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return super().send(data)
            except OSError as error:
                if error.errno != errno.ENOBUFS or time.monotonic() > end:
                    raise
            time.sleep(POLL_S)


@contextlib.contextmanager
def raw(at: Namespace, interface: str) -> Iterator[Sender]:
    """A socket whose send() sends a frame by an interface."""
    with at.entered():
        s = Sender(socket.AF_PACKET, socket.SOCK_RAW)
    with s:
        s.bind((interface, 0))
        yield s


class Capture:
    """What tcpdump has seen come in at an interface, VLAN tags and all, and nothing that went out
    there."""

    def __init__(self, at: Namespace, interface: str, folder: Path, rule: Sequence[str]) -> None:
        self.file = folder / f"{interface}-{next(_numbers)}.pcap"
        self._text = self.file.with_suffix(".txt")
        argv = ["ip", "netns", "exec", at.name, "tcpdump", "-Z", "root", "-Unni", interface, "-Qin"]
        argv += ["--immediate-mode", "-s", "4096", "-B", "65536", "-w", str(self.file), *rule]
        with open(self._text, "wb") as text:
            self.process = subprocess.Popen(argv, stderr=text)
        until(lambda: "listening on" in self._text.read_text(), "tcpdump to listen")

    @property
    def packets(self) -> list[bytes]:
        """All so far."""
        if not self.file.exists() or self.file.stat().st_size < 24:
            return []
        with RawPcapReader(str(self.file)) as reader:  # the last one may not be whole yet
            return [bytes(data) for data, about in reader if len(data) == about.caplen]

    def wait(self, count: int) -> list[bytes]:
        """Until there are so many; all there are."""
        until(lambda: len(self.packets) >= count, f"{count} packets")
        return self.packets


@contextlib.contextmanager
def capture(at: Namespace, interface: str, folder: Path, *rule: str) -> Iterator[Capture]:
    """tcpdump, from when it listens to the end of the block."""
    new = Capture(at, interface, folder, rule)
    try:
        yield new
    finally:
        new.process.terminate()  # which leaves whole packets in the file
        new.process.wait()
