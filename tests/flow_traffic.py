# SPDX-License-Identifier: BSD-3-Clause
"""Traffic for tests of flows, and an NF that says of each packet where in its flow it stood.

packet ─┬─ + trailer: its number ── in0 ── mark ── out0 ── trailer ─┬─ FlowModel.check()
        └─ look() ──────────────────────────────────────────────────┘
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from chain import Result, line, run_chain
from flow_model import Answer, FlowModel, look

MARK_PY = """\
import numpy as np
from hummingbird.nfs import Nf, Reads, Writes
NF = Nf("mark", reads=Reads.PACKET, writes=Writes.PACKET,
        flow_state=np.dtype([("packets", "u4", 2)]))
"""
# The packet's last eight bytes become the number of packets of its flow until then, and of those in
# its direction.
MARK_CL = """\
static hb_u32 hb_nf_mark(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)arg, (void)result;
    hb_u32 own = hb_state32(p, p->direction) + 1, other = hb_state32(p, !p->direction);
    hb_set_state32(p, p->direction, own);
    hb_put32(p, p->length - 8, hb_has_state(p) ? own + other : 0);
    hb_put32(p, p->length - 4, hb_has_state(p) ? own : 0);
    return HB_PASS;
}
"""
FILES = {"mark.py": MARK_PY, "mark.cl": MARK_CL}
TRAILER = 12
BROKEN = ("runt", "truncated", "malformed")
EPOCH = 1_700_000_000 * 10**9
"""Packet time of a first packet, ns."""

ETHERNET = bytes.fromhex("020000000001 020000000002")
SYN, SYN_ACK, ACK, FIN_ACK, RST = 2, 18, 16, 17, 4


def ip(
    src: bytes,
    dst: bytes,
    protocol: int,
    l4: bytes,
    *,
    tags: Sequence[int] = (),
    fragment: tuple[int, int, bool] | None = None,
) -> bytes:
    """An Ethernet frame; IPv4 or IPv6 by the length of the addresses.

    Args:
        tags: VLANs, outer first.
        fragment: id, offset in eight bytes, are there more.
    """
    link = ETHERNET + b"".join(struct.pack(">HH", 0x8100, tag) for tag in tags)
    ident, offset, more = fragment or (0, 0, False)
    if len(src) == 4:
        where = offset | more << 13
        total = 20 + len(l4)
        head = struct.pack(">BBHHHBBH", 0x45, 0, total, ident, where, 64, protocol, 0)
        return link + b"\x08\x00" + head + src + dst + l4
    if fragment is not None:
        l4 = struct.pack(">BBHI", protocol, 0, offset << 3 | more, ident) + l4
        protocol = 44
    head = struct.pack(">IHBB", 6 << 28, len(l4), protocol, 64)
    return link + b"\x86\xdd" + head + src + dst + l4


def tcp_header(sport: int, dport: int, flags: int) -> bytes:
    return struct.pack(">HHIIBBHI", sport, dport, 0, 0, 0x50, flags, 65535, 0)


def udp_header(sport: int, dport: int) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8, 0)


def segment(
    client: int, flags: int, *, back: bool = False, sport: int = 4000, dport: int = 80
) -> bytes:
    """A TCP segment from client number ``client`` to the one server; ``back``: from that."""
    ends = (struct.pack(">I", 0x0A000000 + client), sport), (bytes([192, 0, 2, 1]), dport)
    (src, a), (dst, b) = ends[::-1] if back else ends
    return ip(src, dst, 6, tcp_header(a, b, flags))


def datagram(client: int, *, back: bool = False, sport: int = 4000, dport: int = 53) -> bytes:
    """As `segment`, of UDP."""
    ends = (struct.pack(">I", 0x0A000000 + client), sport), (bytes([192, 0, 2, 1]), dport)
    (src, a), (dst, b) = ends[::-1] if back else ends
    return ip(src, dst, 17, udp_header(a, b))


# ---- through the data plane ----------------------------------------------------------------------


def numbered(packets: Sequence[bytes]) -> list[bytes]:
    """With a trailer that has their number, and room for the NF's answer."""
    return [p + n.to_bytes(4, "big") + bytes(TRAILER - 4) for n, p in enumerate(packets)]


def answers(packets: Sequence[bytes]) -> dict[int, Answer]:
    """By number, of the packets that came out; those of no flow are left out."""
    found = {}
    for packet in packets:
        number, total, own = struct.unpack(">III", packet[-TRAILER:])
        if total:
            found[number] = Answer(total, own)
    return found


def through(
    packets: Sequence[bytes],
    times: Sequence[int] | None,
    way: Mapping[str, Any],
    flows: Mapping[str, Any] | None = None,
    size: int = 65536,
) -> Result:
    """Numbered packets through in0 -> mark -> out0."""
    device = dict(way)
    source, rows = line({"type": "./mark.py", "engine": device.pop("engine", "cpu")})
    if flows:
        source = {**source, "flows": dict(flows)}
    memory = {"flows": size}
    return run_chain(source, packets, rows, files=FILES, times=times, memory=memory, **device)


def check_against_model(
    packets: Sequence[bytes],
    times: Sequence[int] | None,
    way: Mapping[str, Any],
    flows: Mapping[str, Any] | None = None,
    size: int = 65536,
) -> tuple[FlowModel, Result]:
    """Every packet's answer, the drops and the flows in the end are the model's."""
    sent = numbered(packets)
    result = through(sent, times, way, flows, size)
    options = dict(flows or {})
    model = FlowModel(size, options.get("when_full") == "evict", options.get("timeouts"))
    known, broken = answers(result.packets), 0
    for number, packet in enumerate(sent):
        seen = look(packet)
        broken += seen is None
        if seen is not None:
            time = times[number] if times else number * 1000
            note = f"packet {number}: {packet.hex()}"
            try:
                model.check(seen, time, known.get(number))
            except AssertionError as error:
                raise AssertionError(f"{note}: {error}") from None
    assert sum(result.dropped.get(reason, 0) for reason in BROKEN) == broken
    others = {why: n for why, n in result.dropped.items() if why not in BROKEN}
    links = sum(1 for p in sent if (seen := look(p)) and seen.key[0] == "link")
    assert set(others) <= {"flows_full"}
    assert 0 <= model.refused - others.get("flows_full", 0) <= links
    model.check_flows(result.flows, ["nf0"])
    return model, result
