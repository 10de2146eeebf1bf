# SPDX-License-Identifier: BSD-3-Clause
"""Interfaces for port drivers: veth pairs in a network namespace of the test's own, and raw sockets
of the kernel at their far ends.

    test ── raw socket ── lan1 ═ lan0 ── [ data plane ] ── wan0 ═ wan1 ── raw socket ── test
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from namespaces import Namespace, namespace, needs

from hummingbird.dataplane.plane import Dataplane

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
AT_ONCE = 200
"""Packets that may be sent without a look at what has become of them: a veth interface with an XDP
program has room for 256, and whoever takes them there may have to wait for a CPU."""


class Bed(Namespace):
    """A namespace with pairs lan0-lan1 and wan0-wan1, both ends of each up."""

    def make(self, pair: str, queues: int = 1) -> None:
        """A veth pair, both ends up and with so many queues."""
        many = f"numrxqueues {queues} numtxqueues {queues}"
        self.wire(f"{pair}0 {many}", f"{pair}1 {many}")

    def sent(self, interface: str) -> int:
        """Packets that an interface has handed to its peer, of which that may still miss some;
        without those for which there was no room on the way (AT_ONCE)."""
        return int(self.run("cat", f"/sys/class/net/{interface}/statistics/tx_packets"))

    def link(self, interface: str) -> str:
        """What `ip` says of an interface."""
        return self.run("ip", "-d", "link", "show", interface)


@contextmanager
def bed(queues: int = 1) -> Iterator[Bed]:
    """A Bed, which this thread is in; gone with everything in it when the block ends."""
    needs("ethtool")
    with namespace() as made, made.entered():
        found = Bed(made.name)
        for pair in ("lan", "wan"):
            found.make(pair, queues)
        yield found


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
