# SPDX-License-Identifier: BSD-3-Clause
"""A bed for live ports: network namespaces in a line, a veth pair between neighbours. Tests and
benchmarks share it; everything is gone when the block ends, however it ends.

    a ─────────── m ─────────── b              line("a", "m", "b")
     east ═ west   east ═ west
     10.81.0.2           10.82.0.2             the two ends talk to each other ...
         10.81.0.1   10.82.0.1                 ... by way of these, whoever answers for them

Nobody forwards in the middle until told to: Linux by `Bed.route()`, or a process that is started
there. The ends' offloads are off, because a veth pair passes on what a cable never would: TCP
segments of 64 KiB, and checksums that are still to be computed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird.errors import UserError

PREFIX = "hbl"
TOOLS = {"ip": "iproute2", "ethtool": "ethtool", "sysctl": "procps"}
"""Commands, and the Debian packages that have them."""
ENDS = ("10.81.0.2", "10.82.0.2")
GATEWAYS = ("10.81.0.1", "10.82.0.1")
NETWORKS = ("10.81.0.0/24", "10.82.0.0/24")
ENDS6 = ("fd81::2", "fd82::2")
GATEWAYS6 = ("fd81::1", "fd82::1")
NAMES = Path("/run/netns")
LINK_S = 60.0
_OFFLOADS = ("tx", "sg", "tso", "gso", "gro")


def missing(*more: str) -> str | None:
    """Why there can be no bed here; None if there can. ``more``: further tools that are needed, as
    COMMAND or COMMAND:PACKAGE."""
    tools = TOOLS | {tool.partition(":")[0]: tool.rpartition(":")[2] for tool in more}
    absent = [package for tool, package in tools.items() if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)} not installed (fix: apt-get install {' '.join(absent)})"
    if os.geteuid() != 0:
        return "only root can make network namespaces (fix: run it as root)"
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True, text=True)
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else None


def _sh(*argv: str, text: str | None = None) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"`{' '.join(argv)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@dataclass(frozen=True)
class Counts:
    """What Linux counted on an interface (`ip -s link`)."""

    rx: int
    tx: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int


@dataclass(frozen=True)
class Bed:
    """Namespaces in a line, from west to east; they are named by their short names here."""

    names: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, str]:
        """The short names of both ends."""
        return self.names[0], self.names[-1]

    def full(self, name: str) -> str:
        """What `ip netns` calls a namespace."""
        return f"{PREFIX}{os.getpid()}-{name}"

    def mac(self, name: str, side: str) -> str:
        """The Ethernet address of an interface."""
        return f"02:00:00:00:{self.names.index(name):02x}:{'01' if side == 'west' else '02'}"

    def inside(self, name: str, *argv: str) -> list[str]:
        """A command, to be run in a namespace. It replaces itself: its pid is that of `argv`."""
        return ["ip", "netns", "exec", self.full(name), *argv]

    def run(self, name: str, *argv: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a namespace, to its end, whatever its status is."""
        return subprocess.run(self.inside(name, *argv), capture_output=True, text=True, **how)

    def do(self, name: str, *argv: str) -> str:
        """Run a command in a namespace that must succeed; its output.

        Raises:
            UserError: it did not.
        """
        return _sh(*self.inside(name, *argv))

    def ip(self, name: str, *commands: str) -> None:
        """Commands of `ip`, all at once."""
        _sh("ip", "-n", self.full(name), "-batch", "-", text="\n".join(commands) + "\n")

    def sysctl(self, name: str, *settings: str) -> None:
        """Settings as `net.ipv4.ip_forward=1`."""
        self.do(name, "sysctl", "-qw", *settings)

    def counts(self, name: str, side: str) -> Counts:
        """Of an interface, now."""
        base = f"/sys/class/net/{side}/statistics"
        fields = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped")
        text = self.do(name, "cat", *(f"{base}/{field}" for field in fields))
        return Counts(*map(int, text.split()))

    # ---- cables ----------------------------------------------------------------------------------

    def plug(self, west: str, east: str, queues: int = 1, mtu: int = 1500) -> None:
        """Connect neighbours: `east` of the one, `west` of the other."""
        many = f"mtu {mtu} numtxqueues {queues} numrxqueues {queues}"
        there = f"peer name west netns {self.full(east)} address {self.mac(east, 'west')} {many}"
        here = f"link add east address {self.mac(west, 'east')} {many} type veth {there}"
        self.ip(west, here, "link set east up")
        self.ip(east, "link set west up")
        for name, side in ((west, "east"), (east, "west")):
            if name in self.ends:
                self.offloads(name, side, on=False)

    def await_links(self) -> None:
        """Until Linux has noticed that everything is connected, which it does in its own time.

        Raises:
            UserError: it never did.
        """
        end = time.monotonic() + LINK_S
        for name in self.names:
            sides = [side for side in ("west", "east") if self._has(name, side)]
            files = [f"/sys/class/net/{side}/operstate" for side in sides]
            while files and set(self.do(name, "cat", *files).split()) != {"up"}:
                if time.monotonic() > end:
                    raise UserError(f"the interfaces of {self.full(name)} have no link")

    def _has(self, name: str, side: str) -> bool:
        return name != self.names[0 if side == "west" else -1]

    def offloads(self, name: str, side: str, *, on: bool) -> None:
        """Let Linux leave checksums and segments to the "hardware", or not."""
        words = [word for offload in _OFFLOADS for word in (offload, "on" if on else "off")]
        self.do(name, "ethtool", "-K", side, *words)

    def address(self, ipv6: bool) -> None:
        """Give the ends their addresses, and routes by way of the gateways'."""
        for name, side, n in ((self.names[0], "east", 0), (self.names[-1], "west", 1)):
            commands = [
                f"address add {ENDS[n]}/24 dev {side}",
                f"route add default via {GATEWAYS[n]}",
            ]
            if ipv6:
                commands += [
                    f"address add {ENDS6[n]}/64 dev {side} nodad",
                    f"route add default via {GATEWAYS6[n]} dev {side}",
                ]
            self.ip(name, *commands)

    # ---- who forwards ----------------------------------------------------------------------------

    def route(self) -> None:
        """Linux forwards in the middle, which is one namespace then."""
        (middle,) = self.names[1:-1]
        for n, side in enumerate(("west", "east")):
            mac = self.mac(self.ends[n], "east" if n == 0 else "west")
            self.ip(
                middle,
                f"address add {GATEWAYS[n]}/24 dev {side}",
                f"neighbour replace {ENDS[n]} lladdr {mac} dev {side}",
            )
        self.sysctl(middle, "net.ipv4.ip_forward=1")

    def bridge(self, name: str) -> None:
        """Linux passes frames on as they are, where tcpdump can see them all."""
        enslaved = (f"link set {side} master bridge" for side in ("west", "east"))
        # with snooping, a bridge joins a multicast group and says so on the wire
        made = "link add bridge type bridge mcast_snooping 0"
        self.ip(name, made, *enslaved, "link set bridge up")

    def neighbours(self, *, far: bool = False) -> None:
        """Tell the ends the gateways' Ethernet addresses, so that nobody has to ask: those of the
        middle, or of the far end, for a middle that passes frames on as they are."""
        for name, side, n in ((self.names[0], "east", 0), (self.names[-1], "west", 1)):
            other = self.names[-1 if n == 0 else 0] if far else self.names[1 if n == 0 else -2]
            mac = self.mac(other, "west" if n == 0 else "east")
            self.ip(name, f"neighbour replace {GATEWAYS[n]} lladdr {mac} dev {side}")


def _remove(names: Sequence[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def sweep() -> list[str]:
    """Remove namespaces of processes that were killed and could not; their names."""
    stale = []
    for path in NAMES.glob(f"{PREFIX}[0-9]*-*"):
        owner = re.match(rf"{PREFIX}(\d+)-", path.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            stale.append(path.name)
    _remove(stale)
    return stale


@contextlib.contextmanager
def line(
    *names: str, queues: int = 1, mtu: int = 1500, ipv6: bool = False, addresses: bool = True
) -> Iterator[Bed]:
    """Namespaces in a line, each connected to the next.

    Args:
        names: from west to east.
        queues: of each interface.
        mtu: of each interface.
        ipv6: without it nothing on the wire is of Linux's own accord.
        addresses: whether the ends have any.

    Raises:
        UserError: it cannot be made.
    """
    if why := missing():
        raise UserError(why)
    sweep()
    bed = Bed(names)
    full = [bed.full(name) for name in names]
    remove = functools.partial(_remove, full)
    atexit.register(remove)
    try:
        for name in names:
            _sh("ip", "netns", "add", bed.full(name))
            off = "0" if ipv6 else "1"
            bed.sysctl(
                name,
                *(f"net.ipv6.conf.{of}.disable_ipv6={off}" for of in ("all", "default")),
                *(f"net.ipv4.conf.{of}.rp_filter=0" for of in ("all", "default")),
            )
            bed.ip(name, "link set lo up")
        for west, east in itertools.pairwise(names):
            bed.plug(west, east, queues, mtu)
        if addresses:
            bed.address(ipv6)
        bed.await_links()
        yield bed
    finally:
        remove()
        atexit.unregister(remove)
