# SPDX-License-Identifier: BSD-3-Clause
"""Interfaces for port drivers: veth pairs in a network namespace of the test's own, and raw sockets
of the kernel at their far ends.

    test ── raw socket ── lan1 ═ lan0 ── [ data plane ] ── wan0 ═ wan1 ── raw socket ── test
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from hummingbird.dataplane.plane import Dataplane

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING, PACKET_STATISTICS = 263, 8, 23, 6
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
CLONE_NEWNET = 0x40000000

_numbers = itertools.count()


def missing() -> str | None:
    """Why no namespaces with veth pairs can be made; None if they can."""
    for tool in ("ip", "ethtool", "sysctl"):
        if not shutil.which(tool):
            return f"there is no {tool}"
    if os.geteuid():
        return "only root can make a network namespace with veth pairs"
    done = subprocess.run(["unshare", "-n", "true"], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else None


why_not = missing()
needs_wires = pytest.mark.skipif(bool(why_not), reason=f"NOT TESTED ON INTERFACES: {why_not}")


class Bed:
    """A network namespace with pairs lan0-lan1 and wan0-wan1, which this thread is in."""

    def __init__(self, name: str, queues: int) -> None:
        self.name = name
        self._queues = queues
        for pair in ("lan", "wan"):
            self.make(pair)

    def make(self, pair: str) -> None:
        """A veth pair, both ends up."""
        many = ["numrxqueues", str(self._queues), "numtxqueues", str(self._queues)]
        peer = ["peer", "name", f"{pair}1", *many]
        self.call("ip", "link", "add", f"{pair}0", *many, "type", "veth", *peer)
        for end in (f"{pair}0", f"{pair}1"):
            self.call("ip", "link", "set", end, "up")

    def call(self, *command: str, may_fail: bool = False) -> str:
        """Run a command in the namespace; what it says."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command], capture_output=True, text=True
        )
        assert may_fail or done.returncode == 0, (command, done.stderr)
        return done.stdout

    def link(self, interface: str) -> str:
        """What `ip` says of an interface."""
        return self.call("ip", "-d", "link", "show", interface)

    def enter(self) -> None:
        """This thread is in the namespace from now on."""
        _enter(f"/run/netns/{self.name}")


def _enter(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path) as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")


@contextmanager
def bed(prefix: str, queues: int = 1) -> Iterator[Bed]:
    """A Bed; gone with everything in it when the block ends."""
    name = f"{prefix}-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        for which in ("all", "default"):  # the kernel's own packets would be in the way
            option = f"net.ipv6.conf.{which}.disable_ipv6=1"
            subprocess.run(["ip", "netns", "exec", name, "sysctl", "-qw", option], check=True)
        made = Bed(name, queues)
        made.enter()
        yield made
    finally:
        _enter(f"/proc/self/fd/{before}")
        os.close(before)
        subprocess.run(["ip", "netns", "del", name], check=True)


class Wire:
    """The far end of a pair: what is sent there comes in at the data plane's end."""

    def __init__(self, interface: str) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_PACKET, kind, 0)  # hears nothing until it is bound
        for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)
        self._got: list[bytes] = []

    def send(self, packets: Sequence[bytes]) -> None:
        """Send them, one by one."""
        self._socket.setblocking(True)
        for packet in packets:
            self._socket.send(packet)
        self._socket.setblocking(False)

    def got(self) -> list[bytes]:
        """All that have come so far, in order, as they were on the wire."""
        while self._socket.fileno() >= 0:
            try:
                packet, extra, _, _ = self._socket.recvmsg(65536, 64)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # said once, when the interface goes down
                    raise
                continue
            self._got.append(_with_tag(packet, extra))
        return self._got

    def close(self) -> None:
        """Take what has come so far; there will be no more."""
        self.got()
        self._socket.close()


def _with_tag(packet: bytes, extra: Sequence[tuple[int, int, bytes]]) -> bytes:
    """The kernel takes the outer VLAN tag out of what a raw socket gets: put it back."""
    for level, kind, data in extra:
        if (level, kind) != (SOL_PACKET, PACKET_AUXDATA):
            continue
        status, _, _, _, _, tci, tpid = struct.unpack_from("IIIHHHH", data)
        if status & TP_STATUS_VLAN_VALID:
            kind = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
            return packet[:12] + struct.pack(">HH", kind, tci) + packet[12:]
    return packet


@contextmanager
def wires(*interfaces: str) -> Iterator[list[Wire]]:
    """A Wire on each interface."""
    made = [Wire(interface) for interface in interfaces]
    try:
        yield made
    finally:
        for wire in made:
            wire.close()


def pump(run: Any, what: str, *pairs: tuple[Wire, int]) -> None:
    """Until each Wire has got so many packets."""
    run.until(lambda: all(len(wire.got()) >= count for wire, count in pairs), what=what)


def node(run: Any, name: str) -> int:
    """Number of a port or NF of a run."""
    number: int = run.engine.running.topology.nodes.index(name)
    return number


def plane(run: Any) -> Dataplane:
    """The data plane of a run."""
    found: Dataplane = run.engine.plane
    return found
