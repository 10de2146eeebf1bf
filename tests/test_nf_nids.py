# SPDX-License-Identifier: BSD-3-Clause
"""nids: the same matches as pyahocorasick, over the right bytes of each packet.

patterns.txt ── nids.build ── automaton ─┐
                                         ├─ hb_run_program ── lowest rule, positions, verdict
                              packets ───┘
"""

from __future__ import annotations

import lzma
import re
import time
from collections.abc import Sequence
from pathlib import Path

import ahocorasick
import nf_helpers as nf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import rdpcap

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, NfTable
from hummingbird.nfs.nids import (
    NidsParams,
    Rule,
    build,
    content_types,
    make_table,
    parse_content,
    read_rules,
)

DEMO = Path(__file__).parent.parent / "policies" / "demo"
TYPES = {"other": 0, "web": 1, "suspicious": 2}
IPV4_TYPE, IPV6_TYPE = b"\x08\x00", b"\x86\xdd"


def built(folder: Path, text: str, on_match: str = "pass") -> NfTable:
    (folder / "patterns.txt").write_text(text)
    params = NidsParams.model_validate({"patterns": "patterns.txt", "on_match": on_match})
    return build(params, BuildContext("nids0", folder, TYPES))


def udp_packet(payload: bytes) -> bytes:
    """A packet whose headers match nothing: only the payload varies."""
    rng = np.random.default_rng(0)
    return nf.ETHERNET + IPV4_TYPE + nf.ipv4(nf.udp(payload, rng), 17, rng)


def scan(rules: Sequence[Rule], payloads: Sequence[bytes]) -> list[tuple[int | None, int]]:
    """The NF's answers: lowest rule, positions at which some rule ends."""
    return scan_with(make_table(rules, 0), payloads)


def scan_with(table: nf.Array, payloads: Sequence[bytes]) -> list[tuple[int | None, int]]:
    answers = nf.run(nf.region(3, table), [udp_packet(payload) for payload in payloads])
    assert all(answer.verdict == nf.PASS for answer in answers)
    results = [answer.result for answer in answers]
    return [((r & 0xFFFFFFFF) - 1 if r else None, r >> 32) for r in results]


# ---- against other implementations ---------------------------------------------------------------


class Oracle:
    """pyahocorasick, once for rules with case and once for those without."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.finders = []
        for fold in (False, True):
            finder = ahocorasick.Automaton()
            for number, rule in enumerate(rules):
                if rule.nocase == fold:
                    content = rule.content.lower() if fold else rule.content
                    word = content.decode("latin-1")
                    finder.add_word(word, min(number, finder.get(word, number)))
            if len(finder):
                finder.make_automaton()
                self.finders.append((fold, finder))

    def scan(self, payload: bytes) -> tuple[int | None, int]:
        found = [
            hit
            for fold, finder in self.finders
            for hit in finder.iter((payload.lower() if fold else payload).decode("latin-1"))
        ]
        lowest = min((rule for _, rule in found), default=None)
        return lowest, len({end for end, _ in found})


def sprinkled(rng: np.random.Generator, rules: Sequence[Rule], size: int) -> bytes:
    """Random bytes with some contents, whole, cut and in other case, strewn in."""
    payload = rng.bytes(size)
    for _ in range(rng.integers(0, 5)):
        rule = rules[rng.integers(len(rules))]
        content = [rule.content, rule.content.upper(), rule.content.lower()][rng.integers(3)]
        content = content[: len(content) - int(rng.integers(2)) * int(rng.integers(2))]
        at = int(rng.integers(size + 1))
        payload = payload[:at] + content + payload[at:]
    return payload[:1400]


def random_rules(rng: np.random.Generator, count: int) -> list[Rule]:
    """Contents over a small alphabet, so that many are parts of others."""
    letters = np.frombuffer(b"abcABC\x00\xff", dtype=np.uint8)
    return [
        Rule(f"r{i}", rng.choice(letters, rng.integers(1, 12)).tobytes(), bool(rng.integers(2)))
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 10, 147, 3_000])
def test_random_rules_match_as_pyahocorasick_does(count: int) -> None:
    rng = np.random.default_rng(count)
    rules = random_rules(rng, count)
    payloads = [sprinkled(rng, rules, int(rng.integers(0, 600))) for _ in range(300)]
    payloads += [rng.choice(list(b"abcABC"), 300).astype(np.uint8).tobytes() for _ in range(300)]
    oracle = Oracle(rules)
    assert scan(rules, payloads) == [oracle.scan(payload) for payload in payloads]


LETTERS = st.text("aAbB", min_size=1, max_size=5).map(str.encode)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(LETTERS, st.booleans()), min_size=1, max_size=8),
    st.text("aAbB", max_size=40).map(str.encode),
)
def test_matches_are_what_the_definition_says(drawn: list[tuple[bytes, bool]], text: bytes) -> None:
    """A rule ends at a position if the bytes before it are its content, letter case aside."""
    rules = [Rule(f"r{i}", content, nocase) for i, (content, nocase) in enumerate(drawn)]
    ends: set[int] = set()
    found: set[int] = set()
    for number, rule in enumerate(rules):
        where = text.lower() if rule.nocase else text
        content = rule.content.lower() if rule.nocase else rule.content
        for end in range(len(text) + 1):
            if where[:end].endswith(content):
                ends.add(end)
                found.add(number)
    assert scan(rules, [text]) == [(min(found, default=None), len(ends))]


def snort_rules(text: str) -> list[Rule]:
    """The longest content of each rule."""
    rules = []
    for line in text.splitlines():
        contents = re.findall(r'content:(!?)"((?:[^"\\]|\\.)*)"([^:]*)', line)
        plain = [(parse_content(c), "nocase" in rest) for no, c, rest in contents if not no]
        if plain and not line.startswith("#"):
            content, nocase = max(plain, key=lambda pair: len(pair[0]))
            rules.append(Rule(f"r{len(rules)}", content, nocase))
    return rules


@pytest.mark.parametrize(
    "name, count, seconds", [("147.rules", 147, 0.5), ("3000.rules.xz", 2999, 20)]
)
def test_snort_rules_match_as_pyahocorasick_does(name: str, count: int, seconds: float) -> None:
    """Real contents, in payloads made of them and in real traffic."""
    path = nf.real_data(f"rules/snort-community-2017/content{name}")
    raw = path.read_bytes()
    rules = snort_rules((lzma.decompress(raw) if path.suffix == ".xz" else raw).decode())
    assert len(rules) == count
    start = time.process_time()
    table = make_table(rules, 0)
    assert time.process_time() - start < seconds

    rng = np.random.default_rng(count)
    payloads = [sprinkled(rng, rules, int(rng.integers(0, 600))) for _ in range(500)]
    for trace in ("attack/ndpi__WebattackRCE.pcap", "vlan/zeek__http-qinq-0.pcap"):
        for packet in rdpcap(str(nf.real_data("traces") / trace)):
            payloads.append(bytes(packet)[40:1400])
    oracle = Oracle(rules)
    answers = scan_with(table, payloads)
    assert answers == [oracle.scan(payload) for payload in payloads]
    assert len({rule for rule, _ in answers}) > 50


def test_more_states_than_16_bits_hold() -> None:
    rng = np.random.default_rng(65536)
    rules = [Rule(f"r{i}", rng.bytes(24)) for i in range(3_000)]
    payloads = [rng.bytes(50) + rules[i].content + rng.bytes(i % 50) for i in range(3_000)]
    table = make_table(rules, 0)
    assert table[:4].view(np.uint32)[0] == 1, "next states are 32 bits wide"
    assert scan_with(table, payloads) == [(i, 1) for i in range(3_000)]


def test_too_many_states_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = [f'r{i}: "|{rng.bytes(1000).hex(" ")}|"' for i in range(1_100)]
    with pytest.raises(UserError, match=r"patterns\.txt: the patterns need more than 1048576"):
        built(tmp_path, "\n".join(lines))


# ---- which bytes are scanned ---------------------------------------------------------------------

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
        ("behind a VLAN tag", True, nf.ETHERNET + tag + IPV4_TYPE + v4[0][2]),
        *((what, found, nf.ETHERNET + IPV4_TYPE + ip) for what, found, ip in v4),
        *((what, found, nf.ETHERNET + IPV6_TYPE + ip) for what, found, ip in v6),
    ]


@pytest.mark.parametrize("what, found, packet", cases(), ids=lambda v: v if type(v) is str else "")
def test_what_is_scanned(what: str, found: bool, packet: bytes) -> None:
    region = nf.region(3, make_table([Rule("evil", EVIL)], 1))
    [answer] = nf.run(region, [packet])
    assert answer.reason == ("nf_action" if found else None)
    assert answer.data == packet


def test_no_packet_is_too_strange() -> None:
    """Damaged packets pass unchanged, with what is found in them."""
    rng = np.random.default_rng(2018)
    packets = [nf.some_packet(rng) for _ in range(3_000)]
    rules = [Rule("zero", b"\x00"), Rule("letters", b"a", True), Rule("two", b"\x01\x02")]
    answers = nf.run(nf.region(3, make_table(rules, 0)), packets, head=0, tail=0)
    for packet, answer in zip(packets, answers, strict=True):
        assert (answer.verdict, answer.data) == (nf.PASS, packet)
        assert answer.result & 0xFFFFFFFF <= len(rules)
        assert answer.result >> 32 <= len(packet)
        assert (answer.result & 0xFFFFFFFF == 0) == (answer.result >> 32 == 0)


# ---- what happens on a match ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "on_match, verdict, value",
    [
        ("pass", nf.PASS, 0),
        ("drop", nf.DROP, nf.REASONS.index("nf_action")),
        ("other", nf.RETYPE, 0),
        ("suspicious", nf.RETYPE, 2),
    ],
)
def test_verdicts(tmp_path: Path, on_match: str, verdict: int, value: int) -> None:
    table = built(tmp_path, 'evil: "EVIL"\nworse: "worse" nocase\n', on_match)
    assert table.rules == ["evil", "worse"]
    payloads = [b"harmless evil", b"WORSE", b"worse and EVIL and Worse"]
    answers = nf.run(nf.region(3, table.data), [udp_packet(payload) for payload in payloads])
    assert [answer.result for answer in answers] == [0, 1 << 32 | 2, 3 << 32 | 1]
    assert answers[0].verdict == nf.PASS
    for answer in answers[1:]:
        assert (answer.verdict, answer.value) == (verdict, value)


def test_packet_types_it_gives() -> None:
    def types(on_match: str) -> list[str]:
        return content_types(NidsParams(patterns=Path("x"), on_match=on_match))

    assert types("pass") == types("drop") == []
    assert types("suspicious") == ["suspicious"]


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nfs\.nids0\.on_match: unknown packet type wbe"):
        built(tmp_path, 'evil: "EVIL"\n', "wbe")


# ---- the patterns file ---------------------------------------------------------------------------


def test_contents_are_written_as_snort_does(tmp_path: Path) -> None:
    path = tmp_path / "patterns.txt"
    path.write_text(
        "# comment\n\n"
        'get: "GET /etc/passwd|0d 0a|" nocase   # behind it, too\n'
        r'quoted:"a \"b\" \\ \; \: # c"' + "\n"
        '  2-hex_only.x : "|00FF 7c|" \n'
        'mixed: "|41|B|43 44|"\r\n'
        r'slash: "\\\\x"'
    )
    assert read_rules(path) == [
        Rule("get", b"GET /etc/passwd\r\n", True),
        Rule("quoted", rb'a "b" \ ; : # c'),
        Rule("2-hex_only.x", b"\x00\xff|"),
        Rule("mixed", b"ABCD"),
        Rule("slash", rb"\\x"),
    ]


@pytest.mark.parametrize(
    "line, says",
    [
        ("evil", "no rule: evil"),
        ("evil: EVIL", "no rule: evil: EVIL"),
        ('evil: "EVIL" nocas', "no rule"),
        ('evil: "EVIL', "no rule"),
        ('e vil: "EVIL"', "no rule"),
        ('evil: ""', "the content is empty"),
        ('evil: "EV|49 4c"', "a bar is not closed"),
        ('evil: "|4|"', "|4| is not hex bytes"),
        ('evil: "||"', "|| is not hex bytes"),
        ('evil: "|xy|"', "|xy| is not hex bytes"),
        (r'evil: "C:\\dir\n"', "a backslash goes only before"),
        ('evil: "Übel"', "bytes beyond ASCII as hex"),
        ('first: "again"', "a second rule called first"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(UserError, match=r"patterns\.txt:3: ") as error:
        built(tmp_path, f'# comment\nfirst: "1"\n{line}\n')
    assert says in str(error.value)


def test_files_without_rules(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no rule in this file"):
        built(tmp_path, "# nothing\n")
    params = NidsParams(patterns=Path("nowhere.txt"))
    with pytest.raises(UserError, match="cannot read the patterns"):
        build(params, BuildContext("nids0", tmp_path, TYPES))


def test_demo_patterns() -> None:
    params = NidsParams(patterns=Path("patterns.txt"), on_match="drop")
    table = build(params, BuildContext("nids0", DEMO, TYPES))
    payloads = [
        b"cat /etc/passwd",
        b"GET /CMD.EXE",
        b"q=<script>alert(1)",
        b"1 union Select 2",
        b"() { :; }; echo",
        b"${jndi:ldap://x}",
        b"/ETC/PASSWD",
        b"Jndi:ldap",
    ]
    answers = nf.run(nf.region(3, table.data), [udp_packet(payload) for payload in payloads])
    assert [answer.result & 0xFFFFFFFF for answer in answers] == [1, 2, 3, 4, 5, 6, 0, 0]
    assert len(table.rules) == 6
