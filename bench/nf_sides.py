# SPDX-License-Identifier: BSD-3-Clause
"""Both sides of each comparison of bench/nf.py: the engine of an NF and its peer, given the same
packets; that they answer the same is checked before anything is measured.

A size is that of what the work is done on: bytes to encrypt, payload bytes to search. What stands
around them (headers, IV, ICV) is the same on both sides and not counted.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import numpy as np
import numpy.typing as npt
import peer
import workload
from harness import Reading
from hummingbird.dataplane._native import ffi, lib

from hummingbird.dataplane import bare
from hummingbird.errors import UserError
from hummingbird.nfs import Nf, NfTable, automaton, ipsec_table, load
from hummingbird.nfs.tables import layout
from hummingbird.opencl.memory import host_region

PACKETS = 4096
"""8 MiB of frames: more than the first two levels of caches."""
PASS = 1
"""HB_PASS."""

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Table:
    """An NF with its table, alone in a tables region."""

    nf: Nf
    table: NfTable

    @functools.cached_property
    def region(self) -> Any:
        """The region."""
        made = layout([(self.nf.kind, self.table)], [[0]])
        region = host_region(made.size)
        made.fill(region.array)
        return region

    def engine(self, name: str) -> bare.Engine:
        """An engine over it; UserError if it is not usable here."""
        return bare.engine(self.nf, name, self.region)


def gbps(ns: float, size: int, **more: Any) -> Reading:
    """A reading in Gbit/s of packets of `size` counted bytes."""
    cycles = ns * clock() / size
    return Reading(size * 8 / ns, {"ns": ns, "cycles_per_byte": cycles, **more})


@functools.cache
def clock() -> float:
    """GHz of the core."""
    return peer.core_ghz()


def best(
    ways: Mapping[str, peer.Function], packets: Bytes, size: int, seconds: float, **how: Any
) -> Reading:
    """The fastest of a peer's ways to do the same: it is what the ratio is about."""
    took = {
        name: bare.run(
            bare.Peer(way.address, way.context), packets, seconds=seconds / len(ways), **how
        ).ns
        for name, way in ways.items()
    }
    name = min(took, key=lambda name: took[name])
    return gbps(took[name], size, way=name, ways=took)


def agree(what: str, ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
    """UserError if the sides differ in a packet."""
    if ours.shape != theirs.shape:
        raise UserError(f"{what}: packets of {ours.shape[1]} and {theirs.shape[1]} bytes")
    wrong = (ours != theirs).reshape(len(ours), -1).any(axis=1)
    if wrong.any():
        first = int(wrong.argmax())
        raise UserError(f"{what}: {int(wrong.sum())} of {len(ours)} differ, packet {first} first")


# ---- ipsec ---------------------------------------------------------------------------------------

OUTER = 14 + 20
"""Bytes in front of ESP: Ethernet and the outer IPv4 header."""
ESP = 8 + 16
"""SPI, sequence number, IV."""
ICV = 12
IPV4 = 4
"""The next header of ESP's trailer."""
_KEY, _AUTH_KEY = bytes(range(16)), bytes(range(100, 120))


@functools.cache
def ipsec_table_of_one() -> Table:
    """One SA: tunnel, AES-128-CBC with HMAC-SHA1-96."""
    tunnel = (IPv4Address("198.51.100.1"), IPv4Address("192.0.2.1"))
    sa = ipsec_table.Sa(
        name="bench", spi=0x1001, outbound=True, tunnel=tunnel, cipher="aes-128-cbc", key=_KEY,
        auth="hmac-sha1-96", auth_key=_AUTH_KEY, udp=None, secret=bytes(16),
    )  # fmt: skip
    made = ipsec_table.make_table([sa])
    table = NfTable(made.data, local_off=made.local_off, local_bytes=made.local_bytes)
    return Table(load("ipsec"), table)


@functools.cache
def ipsec_host() -> Any:
    """What an instance has on the host: one policy, for all packets, and that SA. All of its
    sequence numbers are free: a run takes some 2^24 of 2^32."""
    everything = (0, 65535)
    sa = ffi.new("hb_ipsec_sa[1]", [{"outbound": 1, "most": 9000, "type": -1, "next": 1}])
    selector = ffi.new(
        "hb_ipsec_selector[1]",
        [{"any_proto": 1, "src_port": everything, "dst_port": everything, "port": everything}],
    )
    config = ffi.new("hb_ipsec_config *")
    config.sa, config.sas, config.selector, config.selectors = sa, 1, selector, 1
    config.policies, config.mtu, config.icmp_type = 1, 9000, -1
    host = ffi.gc(lib.hb_ipsec_new(config), lib.hb_ipsec_free)
    lib.hb_ipsec_set_limit(host, 0, 0xFFFFFFFF, 0xFFFFFFFF)
    return host


def ipsec_arg(n: int) -> Words:
    """Encapsulate, with SA 0 and sequence numbers from 1 on."""
    return np.arange(1, n + 1, dtype=np.uint64) | np.uint64(1 << 48)


def ipsec_packets(n: int, size: int) -> Bytes:
    """Packets of which ESP encrypts `size` bytes, a multiple of 16: two are its trailer."""
    payload = np.random.default_rng(2).integers(0, 256, (n, size - 2 - 28), dtype=np.uint8)
    return workload.udp(payload)


class Ipsec:
    """ipsec's engines and libipsec-mb; packets of one size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.packets = ipsec_packets(PACKETS, size)
        self.arg = ipsec_arg(PACKETS)

    def _out(self, engine: str) -> bare.Ran:
        """What an engine makes of them."""
        side = ipsec_table_of_one().engine(engine)
        ran = bare.run(side, self.packets, seconds=0, arg=self.arg)
        if (ran.verdict != PASS).any():
            raise UserError(f"ipsec's engine {engine} passes no packets of {self.size} bytes")
        return ran

    @functools.cached_property
    def _ways(self) -> dict[str, peer.Function]:
        return peer.ipsec_mb(OUTER, _KEY, _AUTH_KEY)

    @functools.cached_property
    def _theirs(self) -> tuple[Bytes, int]:
        """Packets for the peer, with all but ciphertext and ICV as the NF makes them, and where
        they begin in a frame."""
        ran = self._out("cpu")
        ours = ran.packets()
        plain = ours.copy()
        plain[:, OUTER + ESP : -ICV - 2] = self.packets[:, 14:]
        plain[:, -ICV - 2 : -ICV] = (0, IPV4)
        plain[:, -ICV:] = 0
        first = int(ran.offset[0])
        for name, way in self._ways.items():
            theirs = bare.run(
                bare.Peer(way.address, way.context), plain, seconds=0, first=first
            ).packets()
            agree(f"ESP of ipsec and of libipsec-mb ({name}), {self.size} B", ours, theirs)
        return plain, first

    def engine(self, name: str, seconds: float) -> Reading:
        """Gbit/s of an engine, whose packets are those of the packet function."""
        agree(f"ESP of ipsec's engines, {self.size} B", self._ours(name), self._ours("cpu"))
        side = ipsec_table_of_one().engine(name)
        return gbps(bare.run(side, self.packets, seconds=seconds, arg=self.arg).ns, self.size)

    def whole(self, name: str, seconds: float) -> Reading:
        """The same with what the NF does around an engine: policies, sequence numbers, checks."""
        side, host = ipsec_table_of_one().engine(name), ffi.cast("void *", ipsec_host())
        ran = bare.run(side, self.packets, seconds=seconds, host=host)
        if (ran.verdict != PASS).any():
            raise UserError(f"ipsec passes no packets of {self.size} bytes")
        return gbps(ran.ns, self.size)

    @functools.lru_cache(maxsize=2)  # noqa: B019  there are four of these objects
    def _ours(self, engine: str) -> Bytes:
        return self._out(engine).packets()

    def peer(self, seconds: float) -> Reading:
        """Gbit/s of libipsec-mb."""
        plain, first = self._theirs
        return best(self._ways, plain, self.size, seconds, first=first)


# ---- nids ----------------------------------------------------------------------------------------


@functools.cache
def nids_table() -> Table:
    """The automaton of all patterns."""
    made = automaton.make_table([(pattern, False) for pattern in workload.patterns()])
    table = NfTable(made.data, local_off=made.local_off, local_bytes=made.local_bytes)
    return Table(load("nids"), table)


class Nids:
    """nids's engines, hs_scan() and an 8-way DFA; HTTP payloads of one size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.packets = workload.udp(workload.http(PACKETS, size, workload.patterns()))

    @functools.cached_property
    def hyperscan(self) -> dict[str, peer.Function]:
        """The peer of the best engine."""
        return self._checked(peer.hyperscan(workload.HEADERS, workload.patterns()))

    @functools.cached_property
    def dfa8(self) -> dict[str, peer.Function]:
        """The peer of the portable engine."""
        return self._checked(peer.dfa8(workload.HEADERS, workload.patterns()))

    @functools.cached_property
    def _found(self) -> Words:
        """Of each packet: the lowest pattern in it, by the packet function."""
        return self._found_by("cpu")

    def _found_by(self, engine: str) -> Words:
        return bare.run(nids_table().engine(engine), self.packets, seconds=0).result

    def _checked(self, ways: dict[str, peer.Function]) -> dict[str, peer.Function]:
        for name, way in ways.items():
            ran = bare.run(bare.Peer(way.address, way.context), self.packets, seconds=0)
            agree(f"patterns that nids and {name} find, {self.size} B", self._found, ran.result)
        return ways

    def engine(self, name: str, seconds: float) -> Reading:
        """Gbit/s of an engine, which finds what the peers find."""
        agree(f"patterns that nids finds, {self.size} B", self._found_by(name), self._found)
        side = nids_table().engine(name)
        ns = bare.run(side, self.packets, seconds=seconds).ns
        return gbps(ns, self.size, found=int((self._found != 0).sum()))

    def peer(self, name: str, seconds: float) -> Reading:
        """Gbit/s of ``hyperscan`` or ``dfa8``."""
        return best(getattr(self, name), self.packets, self.size, seconds)
