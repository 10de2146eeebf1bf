# SPDX-License-Identifier: BSD-3-Clause
"""The NIDS in a chain: actions, flows, and alerts as EVE JSON.

packets ── [ in0 ── nids0 ── out0 ] ── what came through
                      └── EVE file
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chain import tcp, udp
from nids_helpers import joined, run_rules
from snort_oracle import LEAST
from test_nids_rules_match import ip_frame, udp_frame

EVIL = b"some evil bytes"
ALERT = 'alert udp any any -> any any (msg:"evil"; content:"evil"; sid:1;)'
A, B = "10.0.0.1", "10.0.0.2"
SYN, SYN_ACK, ACK, DATA = "S", "SA", "A", "PA"


def sids(*args: Any, **params: Any) -> list[tuple[int, int]]:
    """Packet and sid of each alert, in order."""
    return sorted(run_rules(*args, **params).pairs())


# ---- actions -------------------------------------------------------------------------------------


def rule(action: str, sid: int, content: str = "evil") -> str:
    return f'{action} udp any any -> any any (content:"{content}"; sid:{sid};)'


@pytest.mark.parametrize(
    "rules, through, alerts",
    [
        ([("alert", 1)], True, {1: "allowed"}),
        ([("drop", 1)], False, {1: "blocked"}),
        ([("reject", 1)], False, {1: "blocked"}),
        ([("alert", 1), ("drop", 2)], False, {1: "blocked", 2: "blocked"}),
        ([("alert", 1), ("drop", 2), ("pass", 3)], True, {}),
        ([("pass", 1)], True, {}),
    ],
)
def test_actions(rules: list[tuple[str, int]], through: bool, alerts: dict[int, str]) -> None:
    found = run_rules(joined(rule(*r) for r in rules), [udp_frame(EVIL), udp_frame(b"good")])
    assert len(found.result.packets) == 1 + through
    assert {e["alert"]["signature_id"]: e["alert"]["action"] for e in found.events} == alerts
    assert found.result.dropped == ({} if through else {"nf_action": 1})
    names = found.result.counters.get("nids0", {})
    hits = {1: 1} if rules == [("pass", 1)] else {3: 1} if not alerts else dict.fromkeys(alerts, 1)
    assert names == {f"(sid {sid})": count for sid, count in hits.items()}


def test_alerts_can_drop_or_give_a_type() -> None:
    dropped = run_rules(ALERT, [udp_frame(EVIL)], on_alert="drop")
    assert dropped.events[0]["alert"]["action"] == "blocked" and not dropped.result.packets
    rows = "*,in0,nids0\n*,nids0,out0\nbad,nids0,drop\n"
    typed = run_rules(ALERT, [udp_frame(EVIL), udp_frame(b"x")], on_alert="bad", rows=rows)
    assert typed.events[0]["alert"]["action"] == "allowed"
    assert typed.result.dropped == {"policy": 1}


def test_a_pass_rule_concerns_its_own_packets_only() -> None:
    rules = joined([ALERT, 'pass udp any any -> any 53 (content:"fine"; sid:2;)'])
    packets = [udp_frame(b"evil fine"), udp_frame(b"evil"), udp_frame(b"evil fine", 53, 9)]
    assert sids(rules, packets) == [(2, 1), (3, 1)]


@pytest.mark.parametrize("engine", ["cpu", "auto", "gpu"])
def test_engines_give_the_same_alerts(engine: str) -> None:
    rules = joined([ALERT, rule("alert", 2, "EVIL"), rule("alert", 3, "vil by")])
    packets = [
        udp_frame(bytes([i % 251]) * (i % 40) + (EVIL if i % 3 else b"")) for i in range(500)
    ]
    found = sids(rules, packets, engine=engine)
    assert found == sorted((i + 1, sid) for i in range(500) if i % 3 for sid in (1, 3))


# ---- rules without a pattern ---------------------------------------------------------------------


def test_rules_without_a_pattern_are_found_by_protocol_and_port() -> None:
    rules = joined(
        [
            "alert udp any any -> any 53 (dsize:3; sid:1;)",
            "alert udp any 53 -> any any (dsize:3; sid:2;)",
            "alert udp any any <> any 53 (dsize:3; sid:3;)",
            "alert udp any any -> any [50:60,!53] (dsize:3; sid:4;)",
            "alert udp any 1: -> any !53 (dsize:3; sid:5;)",
            "alert ip any any -> any any (ip_proto:47; sid:6;)",
            "alert icmp any any -> any any (itype:8; sid:7;)",
            "alert tcp any any -> any any (flags:S; sid:8;)",
            "alert ip any any -> any any (dsize:3; sid:9;)",
        ]
    )
    packets = [
        udp_frame(b"abc", 9, 53),
        udp_frame(b"abc", 53, 9),
        udp_frame(b"abc", 9, 55),
        udp_frame(b"abcd", 9, 53),
        ip_frame(b"12345678", 47),
        ip_frame(bytes([8, 0, 0, 0, 0, 1, 0, 1]), 1),
        with_flags(tcp(A, B, 4000, 80), SYN),
    ]
    wanted = {1: (1, 3, 9), 2: (2, 3, 5, 9), 3: (4, 5, 9), 5: (6,), 6: (7,), 7: (8,)}
    assert sids(rules, packets) == sorted((n, sid) for n, found in wanted.items() for sid in found)
    assert LEAST[1] == 8


# ---- flows ---------------------------------------------------------------------------------------

FLOWS = joined(
    f'alert tcp any any -> any any (content:"evil"; flow:{words}; sid:{sid};)'
    for sid, words in enumerate(
        ["to_server", "to_client", "established", "not_established", "to_server,established"], 1
    )
)


def talk(*steps: tuple[str, str], client: int = 4000, server: int = 80) -> list[bytes]:
    """TCP packets: who sends, c or s, and its flags; those with data are evil."""
    packets = []
    for who, flags in steps:
        payload = b"evil" if "P" in flags else b""
        ends = (A, B, client, server) if who == "c" else (B, A, server, client)
        packets.append(with_flags(tcp(*ends, payload), flags))
    return packets


def with_flags(packet: bytes, flags: str) -> bytes:
    """The TCP packet with these flags and no others."""
    bits = sum({"F": 1, "S": 2, "P": 8, "A": 16}[letter] for letter in flags)
    return packet[:47] + bytes([bits]) + packet[48:]


HELLO = (("c", SYN), ("s", SYN_ACK), ("c", ACK))


def test_the_sender_of_the_syn_is_the_client() -> None:
    for client, server in ((4000, 80), (80, 4000)):  # whatever the ports say
        packets = talk(*HELLO, ("c", DATA), ("s", DATA), client=client, server=server)
        assert sids(FLOWS, packets) == [(4, 1), (4, 3), (4, 5), (5, 2), (5, 3)]


def test_without_a_handshake_the_lower_port_is_the_server() -> None:
    packets = talk(("c", DATA), ("s", DATA))
    assert sids(FLOWS, packets) == [(1, 1), (1, 4), (2, 2), (2, 4)]
    assert sids(FLOWS, packets, handshake="assumed") == [(1, 1), (1, 3), (1, 5), (2, 2), (2, 3)]
    same = talk(("c", DATA), client=80)
    assert sids(FLOWS, same) == [(1, 4)]


@pytest.mark.parametrize(
    "steps",
    [
        [("c", SYN), ("c", DATA)],
        [("s", SYN_ACK), ("c", DATA)],
        [("c", SYN), ("c", SYN_ACK), ("c", DATA)],
        [*HELLO, ("s", SYN), ("c", DATA)],
    ],
)
def test_half_a_handshake_is_none(steps: list[tuple[str, str]]) -> None:
    found = {sid for _, sid in sids(FLOWS, talk(*steps))}
    assert 4 in found and 3 not in found


def test_a_new_connection_of_the_same_ends_stays_established() -> None:
    assert (9, 5) in sids(FLOWS, talk(*HELLO, ("c", DATA), ("c", "FA"), *HELLO, ("c", DATA)))


def test_who_sends_first_is_the_client_of_anything_else() -> None:
    rules = FLOWS.replace("tcp", "udp")
    packets = [udp_frame(b"evil", 53, 9), udp_frame(b"evil", 53, 9)]
    back = udp(B, A, 9, 53, b"evil")
    assert sids(rules, [*packets, back]) == [(1, 1), (1, 4), (2, 1), (2, 4), (3, 2), (3, 3)]


def test_flows_meet_on_several_lcores() -> None:
    packets = [p for port in range(5000, 5064) for p in talk(*HELLO, ("c", DATA), client=port)]
    cores = {"io": [0], "nf": {"nids0": [0, 1]}}
    import os

    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("NOT TESTED: one CPU only")
    found = run_rules(FLOWS, packets, cores=cores)
    assert found.by_sid() == {1: 64, 3: 64, 5: 64}


# ---- EVE -----------------------------------------------------------------------------------------


def test_an_alert_says_all_that_suricata_says() -> None:
    text = (
        r'alert tcp any any -> any any (msg:"an \"evil\" thing"; content:"evil"; sid:7; gid:2; '
        "rev:3; classtype:web-application-attack; metadata:created_at 2017_01_01, x y;)"
    )
    packets = talk(*HELLO, ("c", DATA))
    found = run_rules(text, packets, times=[1_500_000_000_123_456_000 + i for i in range(4)])
    (event,) = found.events
    flow_id = event.pop("flow_id")
    assert 0 < flow_id < 1 << 53
    assert event == {
        "timestamp": "2017-07-14T02:40:00.123456+0000",
        "in_iface": "in0",
        "pcap_cnt": 4,
        "event_type": "alert",
        "src_ip": A,
        "src_port": 4000,
        "dest_ip": B,
        "dest_port": 80,
        "proto": "TCP",
        "ip_v": 4,
        "pkt_src": "wire/pcap",
        "direction": "to_server",
        "alert": {
            "action": "allowed",
            "gid": 2,
            "signature_id": 7,
            "rev": 3,
            "signature": 'an "evil" thing',
            "category": "Web Application Attack",
            "severity": 1,
            "metadata": {"created_at": ["2017_01_01"], "x": ["y"]},
        },
    }


def test_flows_and_protocols_in_alerts() -> None:
    text = 'alert ip any any -> any any (content:"evil"; priority:9; sid:1;)'
    packets = [
        *talk(*HELLO, ("c", DATA), ("s", DATA)),
        *talk(*HELLO, ("c", DATA), client=4001),
        ip_frame(bytes([8, 3, 0, 0, 0, 1, 0, 1]) + b"evil", 1),
        ip_frame(b"evil", 200),
    ]
    there, back, other, icmp, unknown = run_rules(text, packets).events
    assert there["flow_id"] == back["flow_id"] != other["flow_id"]
    assert (icmp["proto"], icmp["icmp_type"], icmp["icmp_code"]) == ("ICMP", 8, 3)
    assert "src_port" not in icmp and unknown["proto"] == "200"
    assert unknown["alert"]["severity"] == 9


def test_the_rate_is_of_each_rule_and_second_of_packet_time() -> None:
    rules = joined([ALERT, rule("alert", 2, "rare")])
    packets = [udp_frame(EVIL)] * 50 + [udp_frame(b"rare")]
    times = [i * 50_000_000 for i in range(51)]  # 20 a second
    found = run_rules(rules, packets, times=times, alert_rate=3)
    assert sorted(found.pairs()) == [
        *((n, 1) for second in (0, 20, 40) for n in range(second + 1, second + 4)),
        (51, 2),
    ]
    assert found.stats["alerts_suppressed"] == 41
    assert found.stats["suppressed"] == [{"gid": 1, "signature_id": 1, "count": 41}]
    assert found.result.counters["nids0"]["evil"] == 50, "counters count them all"


def test_alerts_of_one_packet_are_bounded() -> None:
    rules = joined(rule("drop" if sid == 30 else "alert", sid) for sid in range(1, 31))
    found = run_rules(rules, [udp_frame(EVIL)], packet_alerts=4)
    assert set(found.by_sid()) == {30, 1, 2, 3}, "what blocks goes first"
    assert found.stats["alert_queue_overflow"] == 26


def test_a_file_that_grows(tmp_path: Path) -> None:
    """As Suricata does: a new run goes on behind the old."""
    eve = tmp_path / "all.json"
    for _ in range(2):
        with pytest.raises(FileNotFoundError):  # the helper's own file is not written
            run_rules(ALERT, [udp_frame(EVIL)], eve=str(eve))
    kinds = [json.loads(line)["event_type"] for line in eve.read_text().splitlines()]
    assert kinds == ["alert", "stats"] * 2
