# SPDX-License-Identifier: BSD-3-Clause
"""The alerts that Suricata's own tests demand, wherever these ask for what single packets show.

rules, capture ── [ in0 ── nids0 ── out0 ] ── EVE file ── the filters of test.yaml

A filter that asks for more is left out, with the reason found in rules, arguments or capture.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nf_helpers as nf
import pytest
import yaml
from nids_helpers import Alerts, read_packets, run_rules

from hummingbird.nfs import snort
from hummingbird.nfs.snort_header import Variables

CASES = "rules/suricata-verify-cases"
NAMES = [
    "alert-distance-within-1",
    "alert-testmyids-async",
    "alert-testmyids-midstream",
    "alert-testmyids-midstream3",
    "alert-testmyids-midstream5",
    "alert-testmyids-not-established",
    "bug-2491-01",
    "bug-2491-02",
    "bug-4571-01",
    "bug-4571-02",
    "bug-4571-03",
    "bug-4571-04",
    "bug-4571-05",
    "bug-4571-06",
    "bug-8021-alert-max-verdict-01",
    "decode-nsh-type1",
    "decode-nsh-type2",
    "eve-overlap-payload-01",
    "eve-overlap-payload-02-policy-oldlinux",
    "eve-overlap-payload-03-ips",
    "eve-overlap-payload-04-partial-overlap",
    "eve-overlap-payload-05-gap",
    "eve-payload-01-tcp-exact-overlap",
    "eve-payload-02-tcp-exact-overlap-policy-oldlinux",
    "eve-payload-03-tcp-exact-overlap-ips",
    "eve-payload-04-partial-overlap",
    "eve-payload-05-tcp-data-gap",
    "eve-payload-06-tcp-data-leading-gap",
    "issue-4220-01-ids",
    "pcap-file-stdin",
    "ssh-newkeys",
    "tcp-fastopen-05",
    "tcp-fastopen-06",
    "tls__tls-bypass-missing-event",
]
# Filters that can be applied, of those about alerts: if more are left out than now, say so.
APPLIED = 39

Filter = dict[str, Any]


class Case:
    """One of Suricata's tests."""

    def __init__(self, folder: Path) -> None:
        test = yaml.safe_load((folder / "test.yaml").read_text())
        settings = folder / "suricata.yaml"
        self.name = folder.name
        self.rules = next(folder.glob("*.rules"))
        self.packets = read_packets(next(folder.glob("*.pcap")))
        self.args = " ".join(map(str, test.get("args", [])))
        self.settings = yaml.safe_load(settings.read_text()) if settings.exists() else {}
        checks = [check["filter"] for check in test["checks"] if "filter" in check]
        self.filters = [c for c in checks if c["match"].get("event_type") == "alert"]
        found = snort.read([self.rules], Variables())
        self.skipped = {rule.sid: rule.reason for rule in found.skipped}

    def why_not(self, wanted: Filter) -> str | None:
        """Why a filter asks for more than single packets show; None if it does not."""
        match, version = wanted["match"], wanted.get("requires", {})
        if "lt-version" in version:
            return "how older versions counted"
        if any(name.startswith("tunnel.") for name in match) or "tunnel" in match.get(
            "pkt_src", ""
        ):
            return "decapsulation"
        kind = int.from_bytes(self.packets[0][12:14], "big")
        if kind not in (0x0800, 0x86DD, 0x8100, 0x88A8):
            return f"decapsulation of EtherType {kind:#06x}"
        sid = match.get("alert.signature_id")
        reasons = set(self.skipped.values()) if sid is None else {self.skipped.get(sid)} - {None}
        if reasons:
            return ", ".join(sorted(filter(None, reasons)))
        if ("-ips" in self.name or "simulate-ips" in self.args) and self.overlaps_differ():
            return "IPS mode, in which overlapping segments are rewritten (no reassembly)"
        return None

    def overlaps_differ(self) -> bool:
        """Does a byte of a TCP stream come twice, not the same?"""
        seen: dict[tuple[bytes, int], int] = {}
        for ends, sequence, payload in filter(None, map(tcp_of, self.packets)):
            for at, byte in enumerate(payload):
                if seen.setdefault((ends, sequence + at), byte) != byte:
                    return True
        return False

    def run(self) -> Alerts:
        """The alerts; arguments are followed as far as they mean something here."""
        assumed = "midstream=true" in self.args or "async-oneside=true" in self.args
        most = self.settings.get("packet-alert-max", 15)
        handshake = "assumed" if assumed else "seen"
        return run_rules(self.rules, self.packets, handshake=handshake, packet_alerts=most)


def tcp_of(packet: bytes) -> tuple[bytes, int, bytes] | None:
    """Addresses and ports, sequence number and payload of a TCP packet over IPv4."""
    at = 14
    while packet[at - 2 : at] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    if packet[at - 2 : at] != b"\x08\x00" or packet[at + 9] != 6:
        return None
    end = at + int.from_bytes(packet[at + 2 : at + 4], "big")
    tcp = at + 4 * (packet[at] & 15)
    payload = packet[tcp + 4 * (packet[tcp + 12] >> 4) : end]
    ends = packet[at + 12 : at + 20] + packet[tcp : tcp + 4]
    return ends, int.from_bytes(packet[tcp + 4 : tcp + 8], "big"), payload


def values(event: dict[str, Any], packet: bytes) -> Iterator[tuple[str, Any]]:
    """What a filter may ask for of an event, by its name there."""
    for name, value in event.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", v) for inner, v in value.items())
        else:
            yield name, value
    yield "stream", 0  # no alert is about a stream
    yield "verdict.action", "alert" if event["alert"]["action"] == "allowed" else "drop"
    yield "packet", base64.b64encode(packet).decode()
    found = tcp_of(packet)
    if found:
        payload = found[2]
        yield "payload", base64.b64encode(payload).decode()
        printable = "".join(chr(c) if 32 <= c < 127 else "." for c in payload)
        yield "payload_printable", printable


def case(name: str) -> Case:
    """A test by its name."""
    return Case(nf.real_data(CASES) / name)


@pytest.mark.parametrize("name", NAMES)
def test_alerts_are_those_that_suricata_must_give(name: str) -> None:
    this = case(name)
    reasons = {this.why_not(wanted) for wanted in this.filters} - {None}
    wanted = [f for f in this.filters if this.why_not(f) is None]
    if not wanted:
        pytest.skip(f"not for single packets: {'; '.join(sorted(filter(None, reasons)))}")
    alerts = this.run()
    events = [dict(values(e, this.packets[e["pcap_cnt"] - 1])) for e in alerts.events]
    for filter_ in wanted:
        match = filter_["match"]
        assert match.keys() <= events[0].keys() if events else True, "a filter of an unknown field"
        hits = [e for e in events if all(e[name] == value for name, value in match.items())]
        assert len(hits) == filter_["count"], f"{match}: {alerts.by_sid()}"


def test_no_more_filters_are_left_out_than_must_be() -> None:
    filters = [(this, f) for this in map(case, NAMES) for f in this.filters]
    assert {p.name for p in nf.real_data(CASES).iterdir()} == set(NAMES)
    assert sum(this.why_not(f) is None for this, f in filters) == APPLIED, len(filters)


def test_at_most_so_many_alerts_of_a_packet_as_suricata_counts_them() -> None:
    stats = case("bug-8021-alert-max-verdict-01").run().stats
    assert (stats["alert"], stats["alert_queue_overflow"], stats["alerts_suppressed"]) == (6, 1, 0)
