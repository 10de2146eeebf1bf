# SPDX-License-Identifier: BSD-3-Clause
"""nids: all engines find what pyahocorasick finds, over the right bytes of each packet.

patterns ── make_table ── table ─┬─ hb_run_program: the packet function ─┐
                                 ├─ engine cpu                           ├─ the same results
                       packets ──┴─ engine hyperscan ────────────────────┘
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import nf_helpers as nf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nids_oracle import (
    KIND,
    Oracle,
    packet_of,
    random_patterns,
    real_packets,
    region,
    result_of,
    snort_patterns,
    sprinkled,
)

from hummingbird.nfs.automaton import LOCAL, MAX_STATES, SMALL, Pattern, make_table

ENGINES = ["cpu", "hyperscan"]
SNORT = [("content147.rules", 147), ("content3000.rules.xz", 2999)]


def engine_number(name: str) -> int:
    """Skips, loudly, without the library."""
    for number in range(8):
        found = nf.lib.hb_nf_engine_name(KIND, number)
        if found == nf.ffi.NULL:
            break
        if nf.ffi.string(found).decode() == name and nf.lib.hb_nf_engine_usable(KIND, number):
            return number
    pytest.skip(f"NOT TESTED: engine {name} is not built in or not usable here")


def by_engine(name: str, tables: nf.Array, frames: nf.Array, work: nf.Array) -> list[int]:
    result = np.full(len(work), 0xEE, dtype=np.uint64)
    at = [nf.ffi.cast("void *", array.ctypes.data) for array in (frames, tables, work, result)]
    results = nf.ffi.cast("uint64_t *", at[3])
    failed = nf.lib.hb_nids_try(
        engine_number(name), at[0], frames.shape[1], at[1], at[2], results, len(work)
    )
    assert failed == 0
    return [int(r) for r in result]


def by_packet_function(tables: nf.Array, frames: nf.Array, work: nf.Array) -> list[int]:
    arg = np.zeros(len(work), dtype=np.uint64)
    before = frames.copy()
    done = nf.run_raw(tables, frames, work, arg, 0, 0)
    assert (done["verdict"] == nf.PASS).all()
    assert (frames == before).all()
    return [int(r) for r in done["result"]]


def results(tables: nf.Array, packets: Sequence[bytes]) -> list[int]:
    """What the packet function says; all engines say the same."""
    frames, work = nf.frames_of(packets)
    found = by_packet_function(tables, frames, work)
    for name in ENGINES:
        try:
            assert by_engine(name, tables, frames, work) == found, name
        except pytest.skip.Exception:
            continue
    return found


def ids_in(tables: nf.Array, payload: bytes, most: int = 1 << 12) -> list[int]:
    """hb_nids_ids()"""
    ids = nf.ffi.new("uint32_t[]", max(most, 1))
    at = nf.ffi.cast("void *", tables.ctypes.data)
    found = nf.lib.hb_nids_try_ids(at, payload, len(payload), ids, most)
    assert found <= most
    return list(ids[0:found])


def check(patterns: Sequence[Pattern], payloads: Sequence[bytes]) -> list[list[int]]:
    """Results and lists are the oracle's; returns the lists."""
    oracle, tables = Oracle(patterns), region(patterns)
    expected = [oracle.ids(payload) for payload in payloads]
    found = results(tables, [packet_of(payload) for payload in payloads])
    assert found == [result_of(ids) for ids in expected]
    assert [ids_in(tables, payload) for payload in payloads] == expected
    return expected


# ---- against other implementations ---------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_the_engine_is_there(name: str) -> None:
    """One skip for each that is not: then the tests below say less."""
    engine_number(name)


@pytest.mark.parametrize("count", [1, 10, 147, 3_000])
def test_random_patterns_are_found_as_pyahocorasick_does(count: int) -> None:
    rng = np.random.default_rng(count)
    patterns = random_patterns(rng, count)
    payloads = [sprinkled(rng, patterns, int(rng.integers(0, 600))) for _ in range(300)]
    payloads += [rng.choice(list(b"abcABC"), 300).astype(np.uint8).tobytes() for _ in range(300)]
    check(patterns, payloads)


@pytest.mark.parametrize("size", [*range(80), 255, 256, 257, 1000, 1471, 1472, 1500])
def test_a_pattern_is_found_wherever_it_lies(size: int) -> None:
    """The search goes by halves and words: none of their borders hides anything."""
    patterns = [Pattern(b"Needle-in-a-haystack"), Pattern(b"NEED", True), Pattern(b"k")]
    text = b"Needle-in-a-haystack"
    ends = range(1, size + 1) if size < 300 else (20, size // 2, size // 2 + 9, size - 1, size)
    payloads = [bytes(size)]
    payloads += [(b"." * end + text)[-end:].ljust(size, b".")[:size] for end in ends]
    check(patterns, payloads)


LETTERS = st.text("aAbB", min_size=1, max_size=9).map(str.encode)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(LETTERS, st.booleans()), max_size=8),
    st.lists(st.text("aAbB", max_size=40).map(str.encode), max_size=12),
)
def test_what_is_found_is_what_the_definition_says(
    drawn: list[tuple[bytes, bool]], payloads: list[bytes]
) -> None:
    """A pattern is found if its bytes occur, letter case aside if it says so."""
    tables = region([Pattern(*pattern) for pattern in drawn])
    expected = [
        [
            number
            for number, (content, nocase) in enumerate(drawn)
            if (content.lower() in text.lower() if nocase else content in text)
        ]
        for text in payloads
    ]
    assert results(tables, list(map(packet_of, payloads))) == [result_of(ids) for ids in expected]
    assert [ids_in(tables, text) for text in payloads] == expected


@pytest.mark.parametrize("name, count", SNORT)
def test_snort_contents_in_payloads_made_of_them(name: str, count: int) -> None:
    patterns = snort_patterns(name)
    assert len(patterns) == count
    rng = np.random.default_rng(count)
    payloads = [sprinkled(rng, patterns, int(rng.integers(0, 600))) for _ in range(500)]
    found = check(patterns, payloads)
    assert len({i for ids in found for i in ids}) > 50


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name, step", [("content147.rules", 1), ("content3000.rules.xz", 16)])
def test_snort_contents_in_real_traffic(name: str, step: int) -> None:
    """Packets of all kinds; pyahocorasick looks at those whose payload is easily told, all engines
    at all."""
    patterns = snort_patterns(name)
    tables, oracle = region(patterns), Oracle(patterns)
    packets = real_packets("mixed_ndpi.pcap")[::step]
    compared, hits = 0, 0
    for first in range(0, len(packets), 4096):
        some = packets[first : first + 4096]
        for packet, result in zip(some, results(tables, some), strict=True):
            payload = plain_payload(packet)
            if payload is not None:
                assert result == result_of(oracle.ids(payload))
                compared += 1
                hits += result != 0
    assert compared > len(packets) * 0.9
    assert hits > 1000


def plain_payload(packet: bytes) -> bytes | None:
    """Of an unfragmented IPv4 packet with TCP or UDP that is as long as it says."""
    if packet[12:15] != b"\x08\x00\x45" or packet[20] & 0x3F or packet[21]:
        return None
    total = int.from_bytes(packet[16:18], "big")
    if packet[23] not in (6, 17) or not 28 <= total <= len(packet) - 14:
        return None
    header = packet[46] >> 4 << 2 if packet[23] == 6 and total >= 40 else 8
    return packet[34 + header : 14 + total] if 20 + header <= total else None


# ---- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name, seconds", [("content147.rules", 1), ("content3000.rules.xz", 12)])
def test_tables_are_made_quickly(name: str, seconds: float) -> None:
    patterns = snort_patterns(name)
    start = time.process_time()
    make_table(patterns)
    assert time.process_time() - start < seconds


@pytest.mark.parametrize(
    "count, wide", [(100, True), (1_000, False), (3_000, True)], ids=["few", "more", "many"]
)
def test_widths_of_states(count: int, wide: bool) -> None:
    """32 bits where they are faster, 16 where a table gets large, 32 where those do not do."""
    rng = np.random.default_rng(65536)
    patterns = [Pattern(rng.bytes(24)) for _ in range(count)]
    table = make_table(patterns)
    assert bool(table.data[:4].view(np.uint32)[0]) == wide
    assert (table.states <= SMALL, table.states > 1 << 16) == (count == 100, count == 3_000)
    payloads = [rng.bytes(50) + p.content + rng.bytes(i % 50) for i, p in enumerate(patterns)]
    assert [ids for ids in check(patterns, payloads)] == [[i] for i in range(count)]


def test_states_that_are_met_most_are_local() -> None:
    """The traffic of the demonstration mostly stays in them, and they are no larger than agreed."""
    patterns = snort_patterns("content147.rules")
    table = make_table(patterns)
    head = table.data[:128].view(np.uint32)
    assert table.local_bytes <= LOCAL
    following = table.data[head[5] :][: table.states * 1024].view(np.uint32)
    rows = following.reshape(-1, 256) // 256
    met = np.zeros(table.states, dtype=np.int64)
    for packet in real_packets("mixed_ndpi.pcap")[::97]:
        state = 0
        for byte in plain_payload(packet) or b"":
            state = rows[state, byte]
            met[state] += 1
    assert met[: head[3]].sum() > 0.95 * met.sum()


def test_no_patterns() -> None:
    assert results(region([]), [packet_of(b"anything")]) == [0]


def test_a_pattern_without_bytes() -> None:
    with pytest.raises(ValueError, match="without bytes"):
        make_table([Pattern(b"a"), Pattern(b"")])


def test_too_many_states_are_refused() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(ValueError, match=f"more than {MAX_STATES} states"):
        make_table([Pattern(rng.bytes(1000)) for _ in range(1_100)])


def test_a_list_that_is_too_short_holds_the_lowest() -> None:
    patterns = [Pattern(bytes([c])) for c in b"gfedcba"] + [Pattern(b"A", True)]
    tables = region(patterns)
    assert ids_in(tables, b"abcdefga") == list(range(8))
    for most in range(8):
        assert ids_in(tables, b"abcdefga", most) == list(range(most))


# ---- what of a packet is searched ----------------------------------------------------------------


EVIL = b"EVIL"


def fragment(packet: bytes, offset: int) -> bytes:
    """The IPv4 packet as a later fragment, at this many units of 8 bytes."""
    header = bytearray(packet[:20])
    header[6:8] = offset.to_bytes(2, "big")
    return bytes(header) + packet[20:]


def cases() -> list[tuple[str, bool, bytes]]:
    """What it is, whether the content in it is found, the packet."""
    rng = np.random.default_rng(6)
    lying = bytearray(nf.tcp(EVIL, rng))
    lying[12] = 0xF0  # a header of 60 bytes in a segment of 24
    short = bytearray(nf.tcp(EVIL, rng))
    short[12] = 0x40  # a header of 16 bytes
    in_header = bytearray(nf.udp(b"", rng))
    in_header[:4] = EVIL
    in_options = bytearray(nf.tcp(b"harmless", rng, 2))
    in_options[20:24] = EVIL
    liar = bytearray(nf.ipv4(nf.udp(EVIL, rng), 17, rng))
    liar[2:4] = b"\x7f\xff"
    options6 = bytes([17, 3]) + bytes(30)
    long6 = bytes([6, 3]) + bytes(30)
    v4 = [
        ("UDP payload", True, nf.ipv4(nf.udp(EVIL, rng), 17, rng)),
        ("behind IP options", True, nf.ipv4(nf.udp(EVIL, rng), 17, rng, 10)),
        ("TCP payload", True, nf.ipv4(nf.tcp(EVIL, rng), 6, rng)),
        ("behind TCP options", True, nf.ipv4(nf.tcp(b"x" + EVIL, rng, 10), 6, rng)),
        ("in TCP options", False, nf.ipv4(bytes(in_options), 6, rng)),
        ("UDP ports", False, nf.ipv4(bytes(in_header), 17, rng)),
        ("a TCP header that is too long", True, nf.ipv4(bytes(lying), 6, rng)),
        ("a TCP header that is too short", True, nf.ipv4(bytes(short), 6, rng)),
        ("ICMP", True, nf.ipv4(bytes(8) + EVIL, 1, rng)),
        ("another protocol, at once", True, nf.ipv4(EVIL, 200, rng)),
        ("a later fragment, at once", True, fragment(nf.ipv4(EVIL, 6, rng), 5)),
        ("Ethernet padding", False, nf.ipv4(nf.udp(b"", rng), 17, rng) + EVIL),
        ("cut by the IP length", False, nf.ipv4(nf.udp(EVIL[:3], rng), 17, rng) + EVIL[3:]),
        ("an IP length that lies", True, bytes(liar)),
    ]
    v6 = [
        ("IPv6 UDP", True, nf.ipv6(nf.udp(EVIL, rng), 17, rng)),
        ("IPv6 UDP ports", False, nf.ipv6(bytes(in_header), 17, rng)),
        ("IPv6 behind an extension", True, nf.ipv6(options6 + nf.udp(EVIL, rng), 60, rng)),
        ("IPv6 ports behind one", False, nf.ipv6(options6 + bytes(in_header), 60, rng)),
        (
            "IPv6 TCP behind two",
            True,
            nf.ipv6(b"\x3c\x00" + bytes(6) + long6 + nf.tcp(EVIL, rng), 0, rng),
        ),
        ("IPv6 ICMPv6", True, nf.ipv6(bytes(8) + EVIL, 58, rng)),
    ]
    tag = b"\x81\x00\x00\x05"
    return [
        ("ARP", False, nf.ETHERNET + b"\x08\x06" + EVIL * 7),
        ("behind a VLAN tag", True, nf.ETHERNET + tag + b"\x08\x00" + v4[0][2]),
        *((what, found, nf.ETHERNET + b"\x08\x00" + ip) for what, found, ip in v4),
        *((what, found, nf.ETHERNET + b"\x86\xdd" + ip) for what, found, ip in v6),
    ]


@pytest.mark.parametrize("what, found, packet", cases(), ids=lambda v: v if type(v) is str else "")
def test_what_is_searched(what: str, found: bool, packet: bytes) -> None:
    assert results(region([Pattern(EVIL)]), [packet]) == [int(found)]


def test_no_packet_is_too_strange() -> None:
    """Damaged packets, cut ones, headers that lie: all engines look at the same bytes."""
    rng = np.random.default_rng(2018)
    patterns = [Pattern(b"\x00"), Pattern(b"a", True), Pattern(b"\x01\x02"), Pattern(b"\xff\xff")]
    found = results(region(patterns), [nf.some_packet(rng) for _ in range(6_000)])
    assert 0 < sum(r == 0 for r in found) < 6_000


def test_bursts_of_all_lengths() -> None:
    """Long, short and empty payloads in one burst, in any order; the last burst is not full."""
    rng = np.random.default_rng(256)
    for most in (1, 3, 70, 1500):
        check(
            [Pattern(b"\x00"), Pattern(b"\x07\x08")],
            [rng.bytes(int(rng.integers(most + 1))) for _ in range(600)],
        )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=20), st.data())
def test_any_bytes_with_any_offsets(bodies: list[bytes], data: st.DataObject) -> None:
    """What the parser would never say: l3 and l4 anywhere."""
    frames, work = nf.frames_of([nf.ETHERNET + b"\x86\xdd" + body for body in bodies])
    work["l3"] = data.draw(st.integers(0, 255))
    work["l4"] = data.draw(st.integers(0, 255))
    tables = region([Pattern(b"\x00"), Pattern(b"ab", True)])
    found = by_packet_function(tables, frames, work)
    for name in ENGINES:
        try:
            assert by_engine(name, tables, frames, work) == found, name
        except pytest.skip.Exception:
            continue


def test_extension_headers_of_ipv6() -> None:
    """The payload is behind all of them; a chain that ends elsewhere hides nothing."""
    rng = np.random.default_rng(6)
    udp = nf.udp(b"EVIL", rng)
    tables = region([Pattern(b"EVIL")])
    for extensions in ([], [0], [0, 43], [0, 60, 43, 60]):
        chain, following = udp, 17
        for kind in reversed(extensions):
            chain, following = bytes([following, 0]) + b"EVIL\0\0" + chain, kind
        whole = nf.ETHERNET + b"\x86\xdd" + nf.ipv6(chain, following, rng)
        cut = whole[: -len(udp)]
        assert results(tables, [whole, cut, cut[:60]])[0] == 1
