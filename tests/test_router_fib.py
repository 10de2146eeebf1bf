# SPDX-License-Identifier: BSD-3-Clause
"""The router's table against py-radix: 900,000 routes, a million updates, IPv6, edges of prefixes.

prefixes ──┬── Fib (trie, changed in place) ──┬── the same next hops
           └── py-radix ──────────────────────┘
"""

from __future__ import annotations

import ipaddress
import lzma
import time

import nf_helpers as nf
import numpy as np
import pytest
import radix

from hummingbird.errors import UserError
from hummingbird.nfs.router_fib import Fib, Room, groups_needed
from hummingbird.nfs.router_plan import packed

Prefixes = list[tuple[str, int]]


def arrays(prefixes: Prefixes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prefixes as Fib takes them."""
    parts = [text.split("/") for text, _ in prefixes]
    words = [packed(ipaddress.ip_address(address)) for address, _ in parts]
    both = np.array(words, dtype=np.uint64).reshape(-1, 2)
    lengths = np.array([int(length) for _, length in parts], dtype=np.int64)
    return both[:, 0], both[:, 1], lengths


def loaded(prefixes: Prefixes, family: int = 4, spare: int = 64) -> Fib:
    hi, lo, length = arrays(prefixes)
    need = groups_needed(family, hi, lo, length)
    fib = Fib(Room(need + spare, 0) if family == 4 else Room(0, need + spare))
    fib.change(family, hi, lo, length, np.array([hop for _, hop in prefixes]))
    assert fib.used(family)["groups"] == need
    return fib


def edges(prefixes: Prefixes, family: int, count: int, seed: int) -> list[int]:
    """First and last addresses of prefixes, and those in front and behind."""
    rng = np.random.default_rng(seed)
    bits = 32 if family == 4 else 128
    addresses = []
    for number in rng.integers(0, len(prefixes), size=count).tolist():
        text, length = prefixes[number][0].split("/")
        first = int(ipaddress.ip_address(text))
        last = first + (1 << bits - int(length)) - 1
        addresses += [first, last, max(first - 1, 0), min(last + 1, (1 << bits) - 1)]
    return addresses


def compare(fib: Fib, tree: radix.Radix, addresses: list[int], family: int = 4) -> None:
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    ips = [kind(address) for address in addresses]
    if family == 4:
        entries = fib.lookup(np.array(addresses, dtype=np.uint32))
    else:
        entries = fib.lookup6(np.frombuffer(b"".join(ip.packed for ip in ips), dtype=np.uint8))
    best = [tree.search_best(str(ip)) for ip in ips]
    wanted = np.array([node.data["hop"] + 1 if node else 0 for node in best])
    wrong = np.flatnonzero(entries != wanted)
    assert wrong.size == 0, [(str(ips[i]), int(entries[i]), int(wanted[i])) for i in wrong[:5]]
    assert (wanted != 0).any()


def tree_of(prefixes: Prefixes) -> radix.Radix:
    tree = radix.Radix()
    for prefix, hop in prefixes:
        tree.add(prefix).data["hop"] = hop
    return tree


@pytest.fixture(scope="module")
def full_table() -> Prefixes:
    """The 901,899 prefixes of a full table; the next hop is a hash of the prefix."""
    path = nf.real_data("routes/bart_full_table_ipv4_prefixes.txt.xz")
    lines = lzma.decompress(path.read_bytes()).decode().split()
    rng = np.random.default_rng(900)
    return list(zip(lines, rng.integers(0, 32767, size=len(lines)).tolist(), strict=True))


@pytest.mark.timeout(300)
def test_a_full_table_loads_in_seconds_and_a_million_updates_replay(full_table: Prefixes) -> None:
    assert len(full_table) > 900_000
    hi, lo, length = arrays(full_table)
    hop = np.array([hop for _, hop in full_table])
    fib = Fib(Room(groups_needed(4, hi, lo, length) + 64, 0))
    start = time.process_time()
    fib.change(4, hi, lo, length, hop)
    assert time.process_time() - start < 10
    tree = tree_of(full_table)
    uniform = np.random.default_rng(1).integers(0, 1 << 32, size=50_000).tolist()
    compare(fib, tree, edges(full_table, 4, 25_000, 2) + uniform)

    # As readers were there: every group that is given up has to wait for them.
    fib.move(fib.table.copy())
    rng = np.random.default_rng(3)
    rows = rng.integers(0, len(full_table), size=1_000_000)
    hops = np.where(rng.random(rows.size) < 0.5, -1, rng.integers(0, 32767, size=rows.size))
    start = time.process_time()
    fib.change(4, hi[rows], lo[rows], length[rows], hops)
    assert time.process_time() - start < 20
    for row, new in dict(zip(rows.tolist(), hops.tolist(), strict=True)).items():
        if new < 0:
            tree.delete(full_table[row][0])
        else:
            tree.search_exact(full_table[row][0]).data["hop"] = new
    compare(fib, tree, edges(full_table, 4, 25_000, 4) + uniform)

    fib.change(4, hi, lo, length, np.full(hi.size, -1))
    used = fib.used(4)
    assert (used["routes"], used["groups"]) == (0, 0)
    assert not fib.lookup(np.array(uniform, dtype=np.uint32)).any()


def generated_v6(count: int) -> Prefixes:
    """Prefixes nested as a provider nests them; every length from /0 to /128 is there."""
    rng = np.random.default_rng(128)
    prefixes = {"::/0": 7}
    while len(prefixes) < count:
        bits = int(rng.choice([16, 29, 32, 40, 44, 48, 56, 64, 127, 128, rng.integers(1, 129)]))
        value = 0x2001 << 112 | int(rng.integers(16)) << 92 | int(rng.integers(8)) << 84
        value |= int(rng.integers(4)) << 72 | int(rng.integers(4)) << 60 | int(rng.integers(3))
        if rng.random() < 0.2:
            value = int.from_bytes(rng.bytes(16), "big")
        value = value >> (128 - bits) << (128 - bits)
        prefixes[f"{ipaddress.IPv6Address(value)}/{bits}"] = int(rng.integers(32767))
    return list(prefixes.items())


def test_ipv6_routes_as_py_radix_does_also_after_updates() -> None:
    prefixes = generated_v6(20_000)
    fib, tree = loaded(prefixes, 6), tree_of(prefixes)
    rng = np.random.default_rng(5)
    anywhere = [int.from_bytes(rng.bytes(16), "big") for _ in range(5_000)]
    compare(fib, tree, edges(prefixes, 6, 10_000, 6) + anywhere, 6)
    hi, lo, length = arrays(prefixes)
    fib.move(fib.table.copy())
    for _ in range(3):
        rows = rng.permutation(len(prefixes))[:8_000]
        hops = np.where(rng.random(rows.size) < 0.5, -1, rng.integers(0, 32767, size=rows.size))
        fib.change(6, hi[rows], lo[rows], length[rows], hops)
        for row, new in zip(rows.tolist(), hops.tolist(), strict=True):
            node = tree.search_exact(prefixes[row][0])
            if new < 0 and node:
                tree.delete(prefixes[row][0])
            elif new >= 0:
                tree.add(prefixes[row][0]).data["hop"] = new
        compare(fib, tree, edges(prefixes, 6, 5_000, 7) + anywhere, 6)
    fib.change(6, hi, lo, length, np.full(hi.size, -1))
    assert fib.used(6)["groups"] == 0


def test_the_packet_function_finds_what_the_bulk_lookup_finds() -> None:
    prefixes = generated_v6(3_000)
    fib = loaded(prefixes, 6)
    for hop in range(256):
        fib.set_hop(hop, 1)
    addresses = edges(prefixes, 6, 500, 8)
    packets = [
        nf.ETHERNET
        + b"\x86\xdd"
        + bytes.fromhex("60000000 0000 3b 40 20010db8000000000000000000000001")
        + address.to_bytes(16, "big")
        for address in addresses
    ]
    bulk = fib.lookup6(np.frombuffer(b"".join(p[-16:] for p in packets), dtype=np.uint8))
    seen = 0
    for address, entry, answer in zip(
        addresses, bulk.tolist(), nf.run(nf.region(2, fib.table), packets), strict=True
    ):
        if address >> 120 == 0xFF or address >> 118 == 0xFE80 >> 6:
            assert answer.reason == "link_local"
        elif 0 < entry <= 256:
            assert (answer.verdict, answer.result & 0xFFFF) == (nf.PASS, entry)
            seen += 1
        else:  # no route, or a next hop that was never set
            assert answer.reason == "no_route"
    assert seen


def test_no_more_groups_than_there_is_room_for() -> None:
    fib = Fib(Room(1, 0))
    hi, lo, length = arrays([("10.0.0.1/32", 0), ("10.0.1.1/32", 0)])
    with pytest.raises(UserError, match="IPv4 table has room for 1 groups"):
        fib.change(4, hi, lo, length, np.array([1, 2]))
    assert fib.lookup(np.array([0x0A000001, 0x0A000101], dtype=np.uint32)).tolist() == [2, 0]
