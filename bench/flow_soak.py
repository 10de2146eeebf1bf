# SPDX-License-Identifier: BSD-3-Clause
"""Ten million short flows through two NFs that keep state of flows: memory stays as it is, each
flow that begins ends, and no index is lost.

    in0 (TCP from SYN to FIN and UDP of one packet, for ever) ── count0 ── count1 ── out0

The capture is played again and again, each time a minute of packet time later, so that the flows
before are over when the same ports come again. Its pace is that of the chain.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import Bench, Case, Limit, Reading, Result, Settings, main
from paper import one_lcore
from watched import POLL_S, Shared, Watched, folder, watched

from hummingbird.errors import UserError
from hummingbird.testing import capture

FLOWS = 10_000_000
IN_CAPTURE = 20_000
SPAN_S = 60
"""Packet time that the capture takes."""
TABLE = 32768
"""A flow of the capture is over some 30 s after its last packet."""
MOST_S = 1200.0
COUNT_PY = """\
import numpy as np
from hummingbird.nfs import Nf, Reads, Writes
NF = Nf("count", reads=Reads.PACKET, writes=Writes.PACKET,
        flow_state=np.dtype([("packets", "u8"), ("bytes", "u8")]))
"""
COUNT_CL = """\
static hb_u32 hb_nf_count(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)arg, (void)result;
    hb_set_state64(p, 0, hb_state64(p, 0) + 1);
    hb_set_state64(p, 1, hb_state64(p, 1) + p->length);
    return HB_PASS;
}
"""
ROWS = [("*", "in0", "count0"), ("*", "count0", "count1"), ("*", "count1", "out0")]
SYN, SYN_ACK, ACK, FIN_ACK = 0x02, 0x12, 0x10, 0x11
ETHERNET = bytes.fromhex("020000000001 020000000002 0800")


@dataclass(frozen=True)
class Counts:
    """Of all flows so far."""

    begun: int
    over: int
    """And their places free again."""
    live: int
    refused: int
    """Packets."""


# ---- the capture ---------------------------------------------------------------------------------


def _packet(flow: int, back: bool, protocol: int, l4: bytes) -> bytes:
    ends = (struct.pack(">I", 0x0A000000 + flow), bytes([192, 0, 2, 1]))[:: -1 if back else 1]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0, 64, protocol, 0)
    return ETHERNET + head + b"".join(ends) + l4


def _tcp(flow: int, back: bool, flags: int) -> bytes:
    ports = (1024 + flow % 60000, 80)[:: -1 if back else 1]
    return _packet(flow, back, 6, struct.pack(">HHIIBBHI", *ports, 0, 0, 0x50, flags, 65535, 0))


def packets_of(flow: int) -> list[bytes]:
    """Every other flow is TCP."""
    if flow % 2:
        return [_packet(flow, False, 17, struct.pack(">HHHH", 1024 + flow % 60000, 53, 8, 0))]
    shake = [(False, SYN), (True, SYN_ACK), (False, ACK)]
    return [_tcp(flow, *one) for one in [*shake, (False, ACK), (True, FIN_ACK), (False, FIN_ACK)]]


def short_flows(count: int = IN_CAPTURE) -> bytes:
    """A capture; some 100 of its flows are under way at a time."""
    gap = SPAN_S * 1_000_000_000 // count
    made = [
        ((flow + 25 * n) * gap, packet)
        for flow in range(count)
        for n, packet in enumerate(packets_of(flow))
    ]
    made.sort(key=lambda one: one[0])
    return capture([packet for _, packet in made], [at for at, _ in made])


# ---- a run ---------------------------------------------------------------------------------------


def _write(at: Path) -> None:
    (at / "in.pcap").write_bytes(short_flows())
    (at / "count.py").write_text(COUNT_PY, encoding="utf-8")
    (at / "count.cl").write_text(COUNT_CL, encoding="utf-8")


def _counts(run: Watched) -> Counts:
    lcores = run.moment().counters.lcores
    misses, refused, over, live = (
        int(lcores[name].sum())
        for name in ("flow_misses", "flow_refusals", "flow_ends", "flows_live")
    )
    return Counts(misses - refused, over, live, refused)


def _until_begun(run: Watched, flows: int) -> Counts:
    end = time.monotonic() + MOST_S
    while (counts := _counts(run)).begun < flows:
        if time.monotonic() > end:
            raise UserError(f"only {counts.begun:,} of {flows:,} flows in {MOST_S:.0f} s")
        time.sleep(POLL_S)
    return counts


def soak(flows: int, engine: str = "cpu") -> dict[str, float]:
    """So many flows; memory is looked at after a tenth of them and in the end.

    Raises:
        UserError: packets were lost, flows were refused, or more are not over than there can be.
    """
    with folder() as at:
        _write(at)
        count = {"type": "./count.py", "engine": engine}
        topology = {
            "ports": {
                "in0": {"driver": "pcap", "read": "in.pcap", "loop": 0},
                "out0": {"driver": "sink"},
            },
            "nfs": {"count0": count, "count1": count},
            "cores": one_lcore(),
            "memory": {"flows": TABLE},
        }
        told = at / "summary.json"
        with watched(topology, ROWS, at, "--json", str(told)) as run:
            run.await_packets(1)
            early = _until_begun(run, flows // 10)
            began, rss = time.monotonic(), run.resident_mib()
            late = _until_begun(run, flows)
            seconds, grown = time.monotonic() - began, run.resident_mib() - rss
            run.stop()
        summary = json.loads(told.read_text(encoding="utf-8"))
    if summary["received"] != summary["sent"]:
        raise UserError(f"packets were lost: {summary['dropped']}")
    if late.refused:
        raise UserError(f"{late.refused:,} packets of new flows were refused")
    if late.begun - late.over > 2 * TABLE:
        raise UserError(f"{late.begun:,} flows began, and only {late.over:,} places came back")
    return {
        "Mflows/s": (late.begun - early.begun) / seconds / 1e6,
        "grown": max(grown, 0.0),
        "resident": rss,
        "flows": late.begun,
        "not over": late.begun - late.over,
    }


# ---- the benchmark -------------------------------------------------------------------------------


def cases(settings: Settings) -> Sequence[Case]:
    flows = min(FLOWS, int(FLOWS * settings.seconds / 2))
    made = []
    for engine, share in (("cpu", 1), ("gpu", 20)):  # CPU cores that play a GPU are slow
        run = Shared(partial(soak, flows // share, engine))
        made += [
            Case(f"short flows, {engine}", "Mflows/s", partial(_speed, run)),
            Case(f"memory grown by, {engine}", "MiB", partial(_growth, run)),
        ]
    return made


def _speed(run: Shared) -> Reading:
    return Reading(run.take("Mflows/s"), {"flows": run.take("flows")})


def _growth(run: Shared) -> Reading:
    more = {name: run.take(name) for name in ("resident", "not over")}
    return Reading(run.take("grown"), more)


def notes(result: Result) -> Sequence[str]:
    said = []
    for sample in result.samples:
        if "resident" in sample:
            said.append(
                f"{sample['case']}: {sample['resident']:.0f} MiB after a tenth of the flows; "
                f"{sample['not over']:,} flows not over in the end"
            )
    return said


BENCH = Bench(
    name="flow_soak",
    title="Short flows through NFs with state: memory and indexes hold out",
    cases=cases,
    notes=notes,
    rounds=1,
    limits=[Limit(f"memory grown by, {engine}", at_most=2) for engine in ("cpu", "gpu")],
)

if __name__ == "__main__":
    sys.exit(main(BENCH))
