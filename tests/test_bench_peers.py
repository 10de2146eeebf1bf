# SPDX-License-Identifier: BSD-3-Clause
"""The peers of `bench nf` do the work that they are measured for, by libraries that are neither
theirs nor ours; and so is what they are given what it claims to be.

packets ── [ libipsec-mb | Hyperscan | 8-way DFA | rte_fib | rte_acl ] ── cryptography, radix, `in`
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from hashlib import sha1
from hmac import digest

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from hummingbird import benches
from hummingbird.dataplane import bare
from hummingbird.errors import UserError

sys.path.append(str(benches.folder()))

import peer
import workload

Bytes = npt.NDArray[np.uint8]
SKIP = workload.HEADERS


def needs(name: str) -> pytest.MarkDecorator:
    """Skip, and say so, where a peer is not installed."""
    why = peer.missing(name)
    return pytest.mark.skipif(why is not None, reason=f"NOT TESTED: {why}")


def results(ways: Mapping[str, peer.Function], packets: Bytes) -> dict[str, list[int]]:
    """What each way says of each packet."""
    return {
        name: [
            int(found)
            for found in bare.run(bare.Peer(way.address, way.context), packets, seconds=0).result
        ]
        for name, way in ways.items()
    }


# ---- searching -----------------------------------------------------------------------------------


def lowest(payload: bytes, patterns: tuple[bytes, ...]) -> int:
    """Number + 1 of the first pattern that occurs, all looked for one by one."""
    numbers = [i + 1 for i, pattern in enumerate(patterns) if pattern in payload]
    return numbers[0] if numbers else 0


PATTERNS = (b"she", b"he", b"hers", b"his", b"\x00\xff", b"aaaa", b"rsh")


def texts(n: int, size: int) -> Bytes:
    """Payloads in which these patterns overlap all the time."""
    letters = np.frombuffer(b"shersihisa\x00\xffaa", dtype=np.uint8)
    return np.random.default_rng(4).choice(letters, (n, size))


@pytest.mark.parametrize("n", [1, 7, 8, 61])
@pytest.mark.parametrize("name", ["dfa8", pytest.param("hyperscan", marks=needs("hyperscan"))])
def test_searchers_find_the_patterns(name: str, n: int) -> None:
    payloads = texts(n, 60)
    expected = [lowest(row.tobytes(), PATTERNS) for row in payloads]
    assert n == 1 or len(set(expected)) > 2
    ways = peer.dfa8(SKIP, PATTERNS) if name == "dfa8" else peer.hyperscan(SKIP, PATTERNS)
    for way, found in results(ways, workload.udp(payloads)).items():
        assert found == expected, way


def test_the_patterns_of_the_benchmark_are_read_as_they_stand() -> None:
    patterns = workload.patterns()
    assert len(patterns) == len(set(patterns)) == 147
    assert patterns[0] == b"z22lt03g3we0w"
    assert sum(not pattern.isascii() for pattern in patterns) == 15
    assert (min(map(len, patterns)), max(map(len, patterns))) == (4, 30)


# ---- encrypting ----------------------------------------------------------------------------------


@needs("ipsec_mb")
@pytest.mark.parametrize("blocks", [1, 4, 92])
def test_libipsec_mb_encrypts_and_authenticates(blocks: int) -> None:
    key, auth_key = bytes(range(16)), bytes(range(20))
    n, size = 2 * 256 + 44, 16 * blocks
    body = np.random.default_rng(6).integers(0, 256, (n, 24 + size + 12), dtype=np.uint8)
    packets = workload.udp(body)
    for way in peer.ipsec_mb(SKIP, key, auth_key).values():
        ran = bare.run(bare.Peer(way.address, way.context), packets, seconds=0, burst=256)
        for before, after in zip(packets, ran.packets(), strict=True):
            assert after[: SKIP + 24].tobytes() == before[: SKIP + 24].tobytes()
            iv, plain = before[SKIP + 8 : SKIP + 24].tobytes(), before[SKIP + 24 : -12].tobytes()
            cipher = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
            assert after[SKIP + 24 : -12].tobytes() == cipher.update(plain) + cipher.finalize()
            icv = digest(auth_key, after[SKIP:-12].tobytes(), sha1)[:12]
            assert after[-12:].tobytes() == icv


# ---- looking up ----------------------------------------------------------------------------------


@needs("fib")
def test_rte_fib_finds_the_longest_prefix() -> None:
    radix = pytest.importorskip("radix")
    table = workload.routes(5000, 300)
    tree = radix.Radix()
    for prefix, bits, hop in zip(table.prefix, table.bits, table.hop, strict=True):
        tree.add(packed=int(prefix).to_bytes(4, "big"), masklen=int(bits)).data["hop"] = int(hop)
    addresses = np.concatenate([table.inside(2000, seed=1), workload.uniform(500)])
    expected = []
    for address in addresses:
        node = tree.search_best(packed=int(address).to_bytes(4, "big"))
        expected.append(node.data["hop"] if node else 0x7FFF)
    assert 0x7FFF in expected
    try:
        ways = peer.fib(table.prefix, table.bits, table.hop)
    except UserError as error:
        pytest.skip(f"NOT TESTED: {error}")
    for name, way in ways.items():
        _, found = bare.look_up(addresses, way.address, way.context, peer=True, seconds=0)
        assert found.tolist() == expected, name


# ---- what they are given -------------------------------------------------------------------------


def test_packets_are_what_scapy_takes_for_udp() -> None:
    payloads = workload.http(50, 300, PATTERNS)
    for packet, payload in zip(workload.udp(payloads), payloads, strict=True):
        parsed = Ether(packet.tobytes())
        assert parsed[UDP].len == 308 and bytes(parsed[UDP].payload) == payload.tobytes()
        wrong, parsed[IP].chksum = parsed[IP].chksum, None
        assert Ether(bytes(parsed))[IP].chksum == wrong


def test_payloads_are_http_and_some_carry_a_pattern() -> None:
    pattern = b"\x01\x02\x03\x04"
    payloads = [row.tobytes() for row in workload.http(2000, 200, (pattern,))]
    assert all(p.startswith((b"GET /", b"POST /", b"HTTP/1.1 ")) for p in payloads if p[0] > 4)
    assert 20 <= sum(pattern in payload for payload in payloads) <= 70
    assert len(set(payloads)) > 1990


def test_routes_are_each_there_once_and_as_long_as_they_say() -> None:
    table = workload.routes(20_000, 100)
    assert table.prefix.size == 20_000
    host = (1 << (32 - table.bits.astype(np.uint64))) - 1
    assert not (table.prefix & host).any()
    assert len(set(zip(table.prefix.tolist(), table.bits.tolist(), strict=True))) == 20_000
    assert 0.55 < (table.bits == 24).mean() < 0.65 and (table.bits > 24).mean() > 0.01
    assert table.hop.max() == 99


# ---- what cannot be had --------------------------------------------------------------------------


def test_a_peer_that_does_not_compile_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    nowhere = peer.Library(("-lthere-is-no-such-library",), "libnowhere-dev")
    monkeypatch.setitem(peer.LIBRARIES, "dfa8", nowhere)
    peer.load.cache_clear()
    why = peer.missing("dfa8")
    peer.load.cache_clear()
    assert why is not None and "apt-get install libnowhere-dev" in why


# ---- rules ---------------------------------------------------------------------------------------


@needs("acl")
def test_rte_acl_finds_the_first_rule() -> None:
    """Of rules that overlap; each packet compared with one after the other."""
    import nf_acls

    rows = [
        (0x0A000000, 0, 8, 0, 6, 0, (0, 65535), (80, 80)),
        (0x0A010000, 0, 16, 0, 17, 0, (53, 53), (0, 65535)),
        (0, 0xC0000200, 0, 24, 0, 1, (0, 65535), (1000, 2000)),
        (0x0A000001, 0, 32, 0, 0, 1, (0, 65535), (0, 65535)),
    ]
    rules = np.array(rows, nf_acls.RULE)
    rng = np.random.default_rng(2)
    packets, expected = np.zeros((200, nf_acls.LENGTH), np.uint8), []
    packets[:, 12], packets[:, 14], packets[:, 17] = 8, 0x45, nf_acls.LENGTH - 14
    for packet in packets:
        src = int(rng.choice([0x0A000001, 0x0A010203, 0x0B000001]))
        dst = int(rng.choice([0xC0000201, 0xC0000301]))
        protocol, sport = int(rng.choice([6, 17])), int(rng.choice([53, 54]))
        dport = int(rng.choice([80, 1000, 2001]))
        packet[23] = protocol
        packet[26:34] = np.frombuffer((src << 32 | dst).to_bytes(8, "big"), np.uint8)
        packet[34:38] = np.frombuffer((sport << 16 | dport).to_bytes(4, "big"), np.uint8)
        matching = [
            number
            for number, (a, b, a_bits, b_bits, proto, anything, sports, dports) in enumerate(
                rows, 1
            )
            if (src ^ a) >> (32 - a_bits) == (dst ^ b) >> (32 - b_bits) == 0
            and (anything or proto == protocol)
            and sports[0] <= sport <= sports[1]
            and dports[0] <= dport <= dports[1]
        ]
        expected.append(matching[0] if matching else 0)
    assert set(expected) == {0, 1, 2, 3, 4}
    for way, found in results(peer.acl(rules), packets).items():
        assert found == expected, way
