# SPDX-License-Identifier: BSD-3-Clause
"""The rule searches of bench/nf.py: the firewall's engine and rte_acl with the same rules, given
the same packets; that they find the same rules is checked first.

The rules are ClassBench filter sets of 1,000 and 10,000 rules, and the first 188 of each of the
former: as many as G-NET's firewall has. Both sides look at addresses, ports and protocol.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import peer
from harness import Reading
from nf_sides import Bytes, Table, Words

from hummingbird.dataplane import bare
from hummingbird.errors import UserError
from hummingbird.nfs import NfTable, load
from hummingbird.nfs.firewall_files import Options, read
from hummingbird.nfs.firewall_rules import ANY_FLAGS, PROTOCOL, Entry
from hummingbird.nfs.firewall_table import PASS, Verdicts, make_table

FEW = 188
SETS = ("acl1", "fw1", "ipc1")
SIZES = ("188", "1k", "10k")
PACKETS = 4096
HIT = 0.9
"""Share of packets that are made from a rule; the others have random addresses and ports."""
LENGTH = 60
KIND = 7
DATA = Path(
    os.environ.get("HUMMINGBIRD_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)

NOTE = (
    f"Rules: ClassBench sets; 188 are the first of each set of 1,000. {PACKETS} packets of "
    f"{LENGTH} bytes, {100 * HIT:.0f} % of them from a rule, all accepted, in bursts of "
    f"{bare.BURST}. rte_acl is given where the packets are and searches in place; the firewall "
    "also finds the IP header, checks it, gives the verdict and says which rule it was."
)

RULE = np.dtype(
    [
        *(("src", "u4"), ("dst", "u4"), ("src_bits", "u1"), ("dst_bits", "u1")),
        *(("protocol", "u1"), ("any_protocol", "u1"), ("sport", "u2", 2), ("dport", "u2", 2)),
    ]
)
"""peer_rule of peers.h."""


def missing() -> str | None:
    """Why it cannot be measured; None if it can."""
    folder = DATA / "acl" / "classbench"
    if not folder.is_dir():
        return f"there is no {folder}; see HUMMINGBIRD_TEST_DATA"
    return peer.missing("acl")


@functools.cache
def rules(name: str, size: str) -> list[Entry]:
    """The rules of a set, without what they ask of TCP flags."""
    if why := missing():
        raise UserError(why)
    file = f"{name}_{'10k' if size == '10k' else '1k'}.xz"
    text = lzma.decompress((DATA / "acl" / "classbench" / file).read_bytes()).decode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(re.sub(r"\t0x\w+/0x\w+\s*$", "", text, flags=re.MULTILINE))
        found = read(path, Options("classbench", "", tracking=False, skip=False))
    entries = [entry for rule in found.rules for entry in rule.entries if entry.family == 4]
    return entries[: FEW if size == "188" else None]


@functools.cache
def _table(name: str, size: str) -> Table:
    entries = rules(name, size)
    verdicts = Verdicts(np.full(len(entries), PASS), np.arange(len(entries)))
    made = make_table(entries, verdicts, len(entries), (PASS, PASS), 0)
    return Table(load("firewall"), NfTable(made))


@functools.cache
def _peer(name: str, size: str) -> dict[str, peer.Function]:
    entries = rules(name, size)
    given = np.zeros(len(entries), RULE)
    for row, entry in zip(given, entries, strict=True):
        any_protocol = entry.protocol == PROTOCOL
        row["src"], row["src_bits"] = entry.src
        row["dst"], row["dst_bits"] = entry.dst
        row["protocol"], row["any_protocol"] = (
            0 if any_protocol else entry.protocol[0],
            any_protocol,
        )
        row["sport"], row["dport"] = entry.sport, entry.dport
        assert entry.flags == ANY_FLAGS
    return peer.acl(given)


# ---- packets -----------------------------------------------------------------------------------


@functools.cache
def packets(name: str, size: str) -> Bytes:
    """Ethernet, IPv4 and the beginning of TCP, UDP or whatever a rule asks for."""
    rng = np.random.default_rng(3)
    entries = rules(name, size)
    made = np.zeros((PACKETS, LENGTH), np.uint8)
    made[:, 12], made[:, 14], made[:, 17], made[:, 22] = 8, 0x45, LENGTH - 14, 64
    for packet in made:
        entry = entries[rng.integers(len(entries))] if rng.random() < HIT else None
        protocol, src, dst, sport, dport = _tuple(entry, rng)
        packet[23] = protocol
        packet[26:34] = np.frombuffer((src << 32 | dst).to_bytes(8, "big"), np.uint8)
        packet[34:38] = np.frombuffer((sport << 16 | dport).to_bytes(4, "big"), np.uint8)
    return made


def _tuple(entry: Entry | None, rng: np.random.Generator) -> tuple[int, ...]:
    """A 5-tuple that an entry matches."""
    if entry is None:
        entry = Entry(4, (0, 0), (0, 0), (6, 6), (0, 65535), (0, 65535), ANY_FLAGS)
    addresses = [
        address | int(rng.integers(1 << 32)) & ((1 << 32 - bits) - 1)
        for address, bits in (entry.src, entry.dst)
    ]
    ports = [int(rng.integers(first, last + 1)) for first, last in (entry.sport, entry.dport)]
    protocol = 6 if entry.protocol == PROTOCOL else entry.protocol[0]
    return (protocol, *addresses, *ports)


# ---- both sides --------------------------------------------------------------------------------


def _found(name: str, size: str, engine: str) -> npt.NDArray[np.uint64]:
    """Of each packet: the rule's number + 1, as rte_acl says it."""
    ran = bare.run(_table(name, size).engine(engine), packets(name, size), seconds=0)
    result: Words = ran.result
    return np.where(result == len(rules(name, size)) + 1, np.uint64(0), result)


@functools.cache
def _check(name: str, size: str, way: str) -> None:
    function = _peer(name, size)[way]
    side = bare.Peer(function.address, function.context)
    theirs = bare.run(side, packets(name, size), seconds=0).result
    for engine in bare.engines(KIND):
        wrong = int((_found(name, size, engine) != theirs).sum())
        if wrong:
            raise UserError(f"{name} {size}: {wrong} rules of {engine} and rte_acl differ")


def firewall(name: str, size: str, seconds: float) -> Reading:
    """Million packets a second by the best engine."""
    side = _table(name, size).engine(bare.engines(KIND)[-1])
    return _reading(bare.run(side, packets(name, size), seconds=seconds).ns)


def rte_acl(name: str, size: str, seconds: float) -> Reading:
    """The same of rte_acl, by the fastest of its ways."""
    took, ways = {}, _peer(name, size)
    for way, function in ways.items():
        _check(name, size, way)
        side = bare.Peer(function.address, function.context)
        took[way] = bare.run(side, packets(name, size), seconds=seconds / len(ways)).ns
    way = min(took, key=lambda name: took[name])
    return _reading(took[way], way=way, ways=took)


def _reading(ns: float, **more: Any) -> Reading:
    return Reading(1e3 / ns, {"ns": ns, **more})


SIDES = {"firewall": firewall, "rte_acl": rte_acl}
