# SPDX-License-Identifier: BSD-3-Clause
"""Rules match what their definition says: the same alerts, packet by packet and rule by rule, as a
matcher that shares no line with the NF's (snort_oracle.py)."""

from __future__ import annotations

import lzma
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nf_helpers as nf
import pytest
import snort_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from nids_helpers import Matcher, joined, read_packets, run_rules

from hummingbird.dataplane.plane import cpu_engines
from hummingbird.nfs import load, snort
from hummingbird.nfs.snort_header import DEFAULTS, Variables
from hummingbird.opencl.device import choose

COMMUNITY = "rules/snort-community-2017"
MIXED = "traces/mixed_ndpi.pcap"


# ---- real rules, real traffic --------------------------------------------------------------------


def rule_lines(name: str) -> list[str]:
    """The rules of one of the shared files."""
    data = nf.real_data(f"{COMMUNITY}/{name}").read_bytes()
    text = lzma.decompress(data) if name.endswith(".xz") else data
    return [line for line in text.decode().splitlines() if line.startswith("alert")]


_BUFFERS = re.compile(
    r"(?<=[;( ])(http_\w+|file_data|pkt_data|urilen|flow|flowbits|detection_filter|ssl_\w+|sip_\w+)"
    r"\s*(:[^;]*)?;"
)


def loosened(lines: Sequence[str]) -> list[str]:
    """The same contents, looked for in any TCP or UDP payload: a rule set that matches more often,
    and whose rules are not what their authors meant."""
    made = []
    for line in lines:
        _, body = line.split("(", 1)
        body = _BUFFERS.sub("", body)
        body = re.sub(r"(pcre:!?\"/(?:[^\"\\]|\\.)*/\w*)[UPHDMCI]+", r"\1", body)
        rule = f"alert ip any any <> any any ({body}"
        longest = oracle.parse(rule).longest()
        if longest and len(longest) >= 5:  # the others' candidates are every packet
            made.append(rule)
    return made


def compare(
    tmp_path: Path, lines: Sequence[str], capture: str, *, assumed: bool
) -> tuple[int, int]:
    """Rules over a capture, both ways; how many alerts of how many rules there are."""
    path = tmp_path / "some.rules"
    path.write_text(joined(lines), encoding="utf-8")
    loaded = snort.read([path], Variables()).rules
    rules = [oracle.parse(lines[rule.line - 1]) for rule in loaded]
    rules = [rule for rule in rules if known_to_python(rule)]
    assert len(rules) >= len(loaded) - 2
    judge = oracle.Oracle(rules, DEFAULTS)
    flows = oracle.Flows(assumed)
    wanted: set[tuple[int, int]] = set()
    capture_path = nf.real_data(capture)
    for number, frame in enumerate(read_packets(capture_path), 1):
        packet = oracle.decode(frame)
        if packet is not None:
            flows.see(packet)
            wanted |= {(number, sid) for sid in judge.sids(packet)}
    alerts = run_rules(path, capture_path, handshake="assumed" if assumed else "seen")
    assert alerts.stats["alerts_lost"] == 0
    sids = {rule.sid for rule in rules}
    found = {pair for pair in alerts.pairs() if pair[1] in sids}
    gave_up = alerts.result.summary["nfs"]["nids0"]["detail"]["gave_up"]
    assert sorted(found - wanted) == []
    assert len(wanted - found) <= gave_up <= len(wanted) // 100, sorted(wanted - found)[:20]
    return len(wanted), len({sid for _, sid in wanted})


def known_to_python(rule: oracle.Rule) -> bool:
    """Are its expressions such that Python's re takes them?"""
    try:
        for key, value in rule.options:
            if key == "pcre":
                oracle.compiled(value)
    except re.error:
        return False
    return True


@pytest.mark.parametrize(
    "name, assumed, least",
    [
        ("content147.rules", False, (231, 4)),
        ("content147.rules", True, (231, 4)),
        ("content3000.rules.xz", False, (273, 6)),
        ("content3000.rules.xz", True, (273, 6)),
    ],
)
def test_community_rules_over_mixed_traffic(
    tmp_path: Path, name: str, assumed: bool, least: tuple[int, int]
) -> None:
    found = compare(tmp_path, rule_lines(name), MIXED, assumed=assumed)
    assert found >= least


@pytest.mark.parametrize("name, least", [("content147.rules", 9), ("content3000.rules.xz", 33)])
def test_their_contents_anywhere(tmp_path: Path, name: str, least: int) -> None:
    """More to match: all rules, whatever buffer they mean, over the whole payload."""
    alerts, rules = compare(tmp_path, loosened(rule_lines(name)), MIXED, assumed=False)
    assert rules >= least and alerts > 200, (alerts, rules)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["hyperscan", "gpu"])
def test_engines_give_the_same_alerts_over_mixed_traffic(tmp_path: Path, engine: str) -> None:
    """Packet by packet and rule by rule what the portable engine gives, which the tests above hold
    against the oracle."""
    if engine == "gpu" and choose("auto") is None:
        pytest.skip("NOT COMPARED with a device: there is no OpenCL device")
    if engine not in ("gpu", *(e.name for e in cpu_engines(load("nids").kind) if e.usable)):
        pytest.skip(f"NOT COMPARED with {engine}: it is not built in or not usable here")
    rules = tmp_path / "some.rules"
    rules.write_text(joined(loosened(rule_lines("content3000.rules.xz"))), encoding="utf-8")
    capture = nf.real_data(MIXED)
    portable, other = (
        run_rules(rules, capture, engine=name, handshake="assumed") for name in ("cpu", engine)
    )
    assert other.result.summary["nfs"]["nids0"]["engine"] == engine
    assert len(portable.pairs()) > 200 and len(portable.by_sid()) >= 33
    assert sorted(other.events, key=place) == sorted(portable.events, key=place)
    assert other.result.counters == portable.result.counters


def place(event: dict[str, Any]) -> tuple[int, int]:
    """Of an alert: packet and rule."""
    return event["pcap_cnt"], event["alert"]["signature_id"]


# ---- made-up rules, made-up packets --------------------------------------------------------------

LETTERS = st.text("abAB", min_size=1, max_size=3)
SMALL = st.integers(0, 12)


@st.composite
def contents(draw: st.DrawFn) -> str:
    """A content with its modifiers."""
    text = draw(LETTERS)
    option = f'content:{draw(st.sampled_from(["", "", "!"]))}"{text}"; '
    if draw(st.booleans()):
        option += "nocase; "
    kind = draw(st.sampled_from(["none", "absolute", "relative", "starts", "ends"]))
    if kind == "absolute":
        option += f"offset:{draw(SMALL)}; " if draw(st.booleans()) else ""
        option += f"depth:{len(text) + draw(SMALL)}; " if draw(st.booleans()) else ""
    elif kind == "relative":
        option += f"distance:{draw(st.integers(-6, 8))}; "
        option += f"within:{len(text) + draw(SMALL)}; " if draw(st.booleans()) else ""
    elif kind == "starts":
        option += "startswith; "
    elif kind == "ends":
        option += "endswith; "
    return option


@st.composite
def others(draw: st.DrawFn) -> str:
    """Something else that looks at the payload."""
    relative = draw(st.sampled_from(["", ", relative"]))
    number = draw(st.integers(1, 2))
    negated = draw(st.sampled_from(["", "!"]))
    kind = draw(st.sampled_from(["at", "test", "jump", "pcre", "size"]))
    if kind == "at":
        return f"isdataat:{negated}{draw(SMALL)}{relative}; "
    if kind == "test":
        operator = draw(st.sampled_from(["<", ">", "=", "&", "^", "<=", ">="]))
        value = draw(st.sampled_from([0x41, 0x61, 0x62, 0x6161, 3]))
        order = draw(st.sampled_from(["", ", little"]))
        place = draw(st.integers(-2, 6))
        return f"byte_test:{number},{negated}{operator},{value},{place}{relative}{order}; "
    if kind == "jump":
        more = draw(st.sampled_from(["", ", align", ", from_beginning", ", multiplier 2"]))
        digits = draw(st.sampled_from(["", ", string, dec", ", string, hex"]))
        return f"byte_jump:{number},{draw(SMALL)}{relative}{more}{digits}; "
    if kind == "size":
        return f"dsize:{draw(st.sampled_from(['<', '>', '!', '']))}{draw(st.integers(1, 30))}; "
    regex = draw(st.sampled_from(["a+b", "[ab]{2}", "^a", "b$", "(a|B)b", "a.*b", ".", "1+"]))
    flags = draw(st.sampled_from(["", "i", "R", "Ri", "s", "Am"]))
    return f'pcre:{negated}"/{regex}/{flags}"; '


PAYLOADS = st.text("abAB12\n", max_size=24).map(str.encode)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.one_of(contents(), contents(), others()), min_size=1, max_size=5),
    st.lists(PAYLOADS, min_size=1, max_size=6),
)
def test_any_rule_matches_what_its_definition_says(parts: list[str], payloads: list[bytes]) -> None:
    text = f"alert udp any any -> any any ({''.join(parts)}sid:1;)"
    matcher, judge = Matcher(text), oracle.Oracle([oracle.parse(text)], {})
    for payload in payloads:
        frame = udp_frame(payload)
        packet = oracle.decode(frame)
        assert packet is not None and packet.payload == payload
        assert matcher.sids(frame) == judge.sids(packet), (text, payload)


def udp_frame(payload: bytes, src: int = 4000, dst: int = 53) -> bytes:
    """A UDP packet from 10.0.0.1 to 10.0.0.2."""
    udp = src.to_bytes(2, "big") + dst.to_bytes(2, "big")
    udp += (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
    return ip_frame(udp, 17)


def ip_frame(body: bytes, protocol: int, src: str = "0a000001", dst: str = "0a000002") -> bytes:
    """An IPv4 packet."""
    head = bytearray(bytes.fromhex("4500 0000 1234 4000 4000 0000" + src + dst))
    head[2:4] = (20 + len(body)).to_bytes(2, "big")
    head[9] = protocol
    head[10:12] = nf.ip_sum(head).to_bytes(2, "big")
    return nf.ETHERNET + b"\x08\x00" + bytes(head) + body


ADDRESSES = st.sampled_from(
    ["any", "10.0.0.1", "!10.0.0.1", "[10.0.0.0/31,!10.0.0.1]", "10.0.0.0/8", "$NET", "!$NET"]
)
PORTS = st.sampled_from(["any", "53", "!53", "[1:1024,!53]", "1024:", ":52", "[53,4000]", "$P"])
VARIABLES = {"NET": "[10.0.0.2,192.168.0.0/16]", "P": "[1:60,!50]"}
FIELDS = st.sampled_from(
    [
        "",
        "ttl:64;",
        "ttl:<64;",
        "ttl:60-70;",
        "tos:0;",
        "id:4660;",
        "id:!4660;",
        "ip_proto:17;",
        "ip_proto:!6;",
        "fragbits:D;",
        "fragbits:!D;",
        "fragbits:MD*;",
        "flags:S;",
        "flags:S+;",
        "flags:!A;",
        "flags:SA,CE;",
        "flags:PA12*;",
        "itype:8;",
        "itype:>3;",
        "icode:0<>5;",
        "icmp_id:1;",
        "seq:1;",
        "ack:0;",
        "window:!512;",
        "sameip;",
        "dsize:3;",
        "dsize:1<>4;",
    ]
)


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(["tcp", "udp", "icmp", "ip"]),
    st.tuples(ADDRESSES, PORTS, ADDRESSES, PORTS),
    st.sampled_from(["->", "<>"]),
    st.lists(FIELDS, max_size=2, unique_by=lambda text: text[:5]),
    st.sampled_from([(6, 2), (6, 18), (6, 24), (6, 194), (17, 0), (1, 8), (1, 3), (47, 0)]),
    st.sampled_from([(4000, 53), (53, 4000), (50, 53)]),
    st.sampled_from(["0a000001 0a000002", "0a000002 0a000001", "c0a80101 c0a80101"]),
)
def test_any_header_matches_what_its_definition_says(
    protocol: str,
    ends: tuple[str, str, str, str],
    arrow: str,
    fields: list[str],
    kind: tuple[int, int],
    ports: tuple[int, int],
    addresses: str,
) -> None:
    src, src_port, dst, dst_port = ends
    if protocol == "icmp":
        src_port = dst_port = "any"
    head = f"alert {protocol} {src} {src_port} {arrow} {dst} {dst_port}"
    text = f"{head} ({' '.join(fields)} sid:1;)"
    number, detail = kind
    both = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big")
    body = {
        6: both + bytes([0, 0, 0, 1, 0, 0, 0, 0, 0x50, detail, 2, 0, 0, 0, 0, 0]) + b"abc",
        17: both + b"\0\x0b\0\0abc",
        1: bytes([detail, 0, 0, 0, 0, 1, 0, 2]) + b"abc",
    }.get(number, b"abcdefgh")
    frame = ip_frame(body, number, *addresses.split())
    packet = oracle.decode(frame)
    assert packet is not None
    judge = oracle.Oracle([oracle.parse(text)], {**DEFAULTS, **VARIABLES})
    assert Matcher(text, VARIABLES).sids(frame) == judge.sids(packet), text


def test_what_costs_too_much_is_given_up() -> None:
    """64 contents, each behind the one before, and the last is not there: tried 3,000 times."""
    middle = 'content:"a"; distance:0; ' * 62
    text = f'alert udp any any -> any any (content:"a"; {middle}content:"b"; distance:0; sid:1;)'
    assert Matcher(text).sids(udp_frame(b"a" * 1000)) == set()
    assert Matcher(text).sids(udp_frame(b"a" * 63 + b"b")) == {1}


def test_no_packet_is_too_strange() -> None:
    """Damaged packets, every kind of option: no rule reads beyond its packet (ASan would say)."""
    import numpy as np

    rng = np.random.default_rng(7)
    lines = [
        f"alert {protocol} any any <> any any ({option} sid:{number * 10 + which};)"
        for number, option in enumerate(
            [
                'content:"|00|"; byte_jump:4,0,relative; content:"|00|"; distance:-4;',
                'pcre:"/[a-z]/"; byte_test:8,>,0,-8,relative;',
                "ttl:>0;",
                "flags:A+; window:>0;",
                "itype:>0; icmp_id:>0;",
                'content:!"|00|"; endswith;',
                "byte_jump:1,0,string,dec; isdataat:1,relative;",
            ]
        )
        for which, protocol in enumerate(["ip", "tcp", "udp", "icmp"], 1)
    ]
    matcher = Matcher(joined(lines))
    found: set[int] = set()
    for _ in range(4_000):
        found |= matcher.sids(nf.some_packet(rng))
    assert len(found) > 10
