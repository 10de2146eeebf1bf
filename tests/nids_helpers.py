# SPDX-License-Identifier: BSD-3-Clause
"""Runs Snort rules over packets: through the whole data plane, or rule by rule without it."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chain import Result, run_chain
from hummingbird.dataplane._native import ffi, lib

from hummingbird.nfs import nids_rules, snort
from hummingbird.nfs.snort_header import Variables

ROWS = "*,in0,nids0\n*,nids0,out0\n"


@dataclass(frozen=True)
class Alerts:
    """What a run has found."""

    events: list[dict[str, Any]]
    """The lines of the EVE file, but for the last."""
    stats: dict[str, Any]
    """The last."""
    result: Result

    def by_sid(self) -> dict[int, int]:
        """Alerts of each rule."""
        counts: dict[int, int] = {}
        for event in self.events:
            sid = event["alert"]["signature_id"]
            counts[sid] = counts.get(sid, 0) + 1
        return dict(sorted(counts.items()))

    def pairs(self) -> set[tuple[int, int]]:
        """Packet (its place in the capture, from 1) and sid of each alert."""
        return {(e["pcap_cnt"], e["alert"]["signature_id"]) for e in self.events}


def run_rules(
    rules: str | Path,
    packets: Sequence[bytes] | Path,
    *,
    rows: str = ROWS,
    engine: str = "cpu",
    types: Mapping[str, Any] | None = None,
    times: Sequence[int] | None = None,
    cores: Mapping[str, Any] | None = None,
    **params: Any,
) -> Alerts:
    """Rules over packets::

    in0 ── nids0 ── out0
             └── EVE file
    """
    with tempfile.TemporaryDirectory() as folder:
        eve = Path(folder) / "eve.json"
        path = rules if isinstance(rules, Path) else Path(folder) / "test.rules"
        if isinstance(rules, str):
            path.write_text(rules, encoding="utf-8")
        nids = {"type": "nids", "engine": engine, "rules": str(path), "eve": str(eve)}
        topology: dict[str, Any] = {
            "ports": {
                "in0": {"driver": "pcap", "read": "$in"},
                "out0": {"driver": "pcap", "write": "$out"},
            },
            "nfs": {"nids0": {**nids, "alert_rate": 0, "packet_alerts": 0, **params}},
            "types": dict(types or {}),
        }
        if cores:
            topology["cores"] = dict(cores)
        device = {"executor": "launch"} if engine == "gpu" else {}  # no probe, which takes seconds
        result = run_chain(topology, packets, rows, times=times, **device)
        # the engine is closed: the file is complete
        lines = [json.loads(line) for line in eve.read_text(encoding="utf-8").splitlines()]
    *events, stats = lines
    assert stats["event_type"] == "stats"
    return Alerts(events, stats["stats"]["detect"], result)


class Matcher:
    """All rules on single packets, whatever their patterns: no search, no flows, no threads."""

    def __init__(self, text: str, variables: Mapping[str, str] | None = None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "test.rules"
            path.write_text(text, encoding="utf-8")
            self.found = snort.read([path], Variables.of(variables or {}))
        self.compiled = nids_rules.compile_rules(self.found.rules)
        self._nids = ffi.gc(self.compiled.open(), lib.hb_nids_free)
        self._rules = ffi.new("uint32_t[]", len(self.compiled.rules) + 1)

    def sids(self, packet: bytes, flow: int = 0) -> set[int]:
        """The rules that an Ethernet frame matches."""
        most = len(self.compiled.rules)
        found = lib.hb_nids_match(self._nids, packet, len(packet), flow, self._rules, most)
        return {self.compiled.rules[self._rules[i]].sid for i in range(found)}


# ---- captures ------------------------------------------------------------------------------------

ETHERNET_TYPE, RAW, RAW_IPV4, SLL = 1, 101, 228, 113
MACS = bytes.fromhex("020000000001 020000000002")


def read_packets(path: Path) -> list[bytes]:
    """The packets of a classic capture, as Ethernet frames whatever they were captured on."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    (link,) = struct.unpack_from(order + "I", data, 20)
    packets, at = [], 24
    while at + 16 <= len(data):
        (length,) = struct.unpack_from(order + "I", data, at + 8)
        packets.append(_ethernet(data[at + 16 : at + 16 + length], link & 0xFFFF))
        at += 16 + length
    return packets


def _ethernet(packet: bytes, link: int) -> bytes:
    if link == ETHERNET_TYPE:
        return packet
    if link == SLL:
        return MACS + packet[14:]
    assert link in (RAW, RAW_IPV4), f"link type {link}"
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return MACS + kind + packet


def joined(lines: Iterable[str]) -> str:
    """Rules, one a line."""
    return "\n".join(lines) + "\n"
