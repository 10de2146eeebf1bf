# SPDX-License-Identifier: BSD-3-Clause
"""What is measured with an NF by itself: the packets it gets, the answers it gives, and that each
pass begins anew.

packets ── [ hb_bare_nf: engine | peer ] ── packets, results      addresses ── [ hb_bare_lookup ]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hummingbird.dataplane._native import ffi
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from hummingbird.dataplane import bare
from hummingbird.errors import UserError
from hummingbird.nfs import NfTable, load
from hummingbird.nfs.tables import layout
from hummingbird.opencl.memory import host_region

PASS = 1
Bytes = npt.NDArray[np.uint8]


def packets(n: int, payload: int) -> Bytes:
    """n UDP packets, each with payload of its own."""
    made = [
        bytes(
            Ether()
            / IP(src="10.0.0.1", dst=f"10.1.0.{i % 250}")
            / UDP()
            / bytes([i % 251] * payload)
        )
        for i in range(n)
    ]
    return np.frombuffer(b"".join(made), dtype=np.uint8).reshape(n, -1)


def address_of(function: Any) -> int:
    return int(ffi.cast("uintptr_t", function))


# ---- engines -------------------------------------------------------------------------------------


def forward() -> bare.Engine:
    """The NF that does nothing."""
    nf = load("forward")
    made = layout([(nf.kind, NfTable(np.zeros(0, dtype=np.uint8)))], [[0]])
    region = host_region(made.size)
    made.fill(region.array)
    return bare.engine(nf, "cpu", region)


def test_packets_that_pass_come_out_as_they_went_in() -> None:
    given = packets(300, 100)
    ran = bare.run(forward(), given, seconds=0)
    assert ran.passes == 1 and ran.ns > 0
    assert (ran.verdict == PASS).all()
    assert (ran.packets() == given).all()
    assert ran.packet(299) == given[299].tobytes()


def test_it_measures_as_long_as_it_shall() -> None:
    ran = bare.run(forward(), packets(64, 10), seconds=0.5)  # it may get no CPU for most of it
    assert ran.passes > 10


def test_every_nf_has_the_engine_cpu_first() -> None:
    for name in ("forward", "router", "nids", "ipsec"):
        assert bare.engines(load(name).kind)[0] == "cpu"


def test_an_unknown_engine_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="the engine abacus of forward"):
        bare.engine(load("forward"), "abacus", None)


def test_malformed_packets_are_refused() -> None:
    given = packets(4, 10).copy()
    given[2, 17] = 255  # the IPv4 length claims more than there is
    with pytest.raises(UserError):
        bare.run(forward(), given, seconds=0)


# ---- peers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("burst", [1, 32, 256])
@pytest.mark.parametrize("first", [bare.FIRST, 300])
def test_a_peer_sees_each_packet_once_a_pass_and_always_anew(burst: int, first: int) -> None:
    """The peer spoils what it sees; the next pass puts it back."""
    given = packets(100, 64)
    seen: list[bytes] = []

    @ffi.callback("hb_bare_peer")
    def spoil(context: Any, packet: Any, length: int, result: Any, n: int) -> None:
        assert length == given.shape[1] and 0 < n <= burst
        for i in range(n):
            memory = ffi.buffer(packet[i], length)
            result[i] = len(seen)
            seen.append(bytes(memory))
            memory[:] = bytes(length)

    peer = bare.Peer(address_of(spoil), 0)
    ran = bare.run(peer, given, seconds=1e-9, first=first, burst=burst)
    assert ran.passes == 1
    assert seen == [row.tobytes() for row in given] * 3  # two that do not count, one that does
    assert list(ran.result) == list(range(200, 300))
    assert not ran.packets().any()
    assert (ran.offset == first).all()


# ---- look-ups ------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [False, True])
def test_every_address_is_looked_up(peer: bool) -> None:
    def answer(context: Any, address: Any, hop: Any, n: int) -> None:
        assert 0 < n <= bare.LOOKUPS
        for i in range(n):
            hop[i] = address[i] % 1000

    function = ffi.callback("hb_bare_lookup64" if peer else "hb_bare_lookup16", answer)
    addresses = np.arange(1000, 1200, dtype=np.uint32)
    ns, hops = bare.look_up(addresses, address_of(function), 0, peer=peer, seconds=0)
    assert ns > 0
    assert list(hops) == list(range(200))
