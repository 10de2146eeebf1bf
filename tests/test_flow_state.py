# SPDX-License-Identifier: BSD-3-Clause
"""State of flows in the tables region, the same on every executor; flows that begin, age and end.

in0 ── NF count: state word 0 += 1 in each direction, and the number goes into the packet ── out0
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from chain import Result, by_flow, line, run_chain, udp

COUNT_PY = """\
import numpy as np
from hummingbird.nfs import Nf, Reads, Writes
NF = Nf("count", reads=Reads.PACKET, writes=Writes.PACKET,
        flow_state=np.dtype([("packets", "u4", 2), ("sum", "u8")]))
"""
# The packet's last four bytes become the number of packets of its flow and direction until then.
COUNT_CL = """\
static hb_u32 hb_nf_count(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)arg, (void)result;
    if (!hb_has_state(p))
        return HB_DROP(HB_REASON_nf_action);
    hb_u32 n = hb_state32(p, p->direction) + 1;
    hb_set_state32(p, p->direction, n);
    hb_set_state64(p, 1, hb_state64(p, 1) + p->length);
    hb_put32(p, p->length - 4, n);
    return HB_PASS;
}
"""
BEGUN_PY = """\
import numpy as np
from hummingbird.nfs import Nf, NfTable, Reads, Writes
NF = Nf("begun", reads=Reads.PACKET, writes=Writes.PACKET, flow_state=np.dtype([("count", "u8")]),
        build=lambda params, context: NfTable(rules=["begun", "ended", "counted"]))
"""
# The same from 1000 on; flows of port 1023 do not come in.
BEGUN_CL = """\
static hb_u32 hb_nf_begun(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)arg, (void)result;
    hb_set_state64(p, 0, hb_state64(p, 0) + 1);
    hb_put32(p, p->length - 4, (hb_u32)hb_state64(p, 0));
    return HB_PASS;
}
#ifdef HB_HOST
static enum hb_reason begin(hb_nf_seat *seat, uint32_t handle, void *state)
{
    const hb_mbuf *m = hb_header(seat->arena, handle);
    const uint8_t *ports = hb_data(seat->arena, m) + m->l4;
    if (ports[0] == 3 && ports[1] == 255)
        return HB_REASON_denied;
    *(uint64_t *)state = 1000;
    seat->hits[0]++;
    return HB_REASON_none;
}
static void end(hb_nf_seat *seat, uint32_t flow, const hb_key *key, enum hb_flow_end why,
                const void *state)
{
    (void)flow, (void)key, (void)why;
    seat->hits[1]++;
    seat->hits[2] += *(const uint64_t *)state - 1000;
}
#define HB_NF_FLOW_SETUP begin
#define HB_NF_FLOW_END end
#endif
"""
FILES = {
    "count.py": COUNT_PY,
    "count.cl": COUNT_CL,
    "begun.py": BEGUN_PY,
    "begun.cl": BEGUN_CL,
}
WAYS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "cpu": ({"engine": "cpu"}, {}),
    "persistent": ({"engine": "gpu", "executor": "auto"}, {}),
    "launch": ({"engine": "gpu", "executor": "launch"}, {}),
    "staged": ({"engine": "gpu", "executor": "launch"}, {"HUMMINGBIRD_BINDING": "staged"}),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    device, settings = WAYS[request.param]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return device


def run(
    packets: Sequence[bytes],
    way: Mapping[str, Any],
    nfs: int = 1,
    name: str = "count",
    flows: Mapping[str, Any] | None = None,
    **options: Any,
) -> Result:
    device = dict(way)
    engine = device.pop("engine")
    source, rows = line(*[{"type": f"./{name}.py", "engine": engine}] * nfs)
    if flows:
        source = {**source, "flows": flows}
    return run_chain(source, packets, rows, files=FILES, **options, **device)


A, B = "10.0.0.1", "10.0.0.2"


def counted(packets: Sequence[bytes]) -> dict[int, int]:
    """By number of the packet (see `some`) what the NF wrote into it."""
    tails = [packet[-8:] for packet in packets]
    return {int.from_bytes(t[:4], "big"): int.from_bytes(t[4:], "big") for t in tails}


def some(keys: Sequence[tuple[int, int]]) -> list[bytes]:
    """UDP packets, numbered in their payload, of these flows and directions."""
    made = []
    for number, (flow, back) in enumerate(keys):
        ends = (B, A, 53, 1000 + flow) if back else (A, B, 1000 + flow, 53)
        made.append(udp(*ends, number.to_bytes(4, "big") + bytes(4)))
    return made


def expected(keys: Sequence[Any]) -> dict[int, int]:
    """How many of the same key there were up to each."""
    seen: Counter[Any] = Counter()
    found = {}
    for number, key in enumerate(keys):
        seen[key] += 1
        found[number] = seen[key]
    return found


@pytest.mark.parametrize("nfs", [1, 2])
def test_each_flow_and_direction_is_counted(way: dict[str, Any], nfs: int) -> None:
    """One flow has half of the packets, so rows have to wait for it."""
    draw = random.Random(7)
    keys = [
        (0 if draw.random() < 0.5 else draw.randrange(1, 60), draw.randrange(2))
        for _ in range(4000)
    ]
    result = run(some(keys), way, nfs, lanes=16)
    assert counted(result.packets) == expected(keys)
    for packets in by_flow(result.packets).values():
        assert numbers_rise(packets)
    last = Counter(keys)
    for flow in result.flows:
        assert flow.protocol == "udp" and flow.zone == 0
        port = max(flow.sport, flow.dport) - 1000
        seen = [flow.nfs[f"nf{n}"]["packets"] for n in range(nfs)]
        wanted = [last[port, 0], last[port, 1]]
        assert all(sorted(one) == sorted(wanted) for one in seen), flow
    assert len(result.flows) == len({flow for flow, _ in keys})


def numbers_rise(packets: Sequence[bytes]) -> bool:
    """Packets of one flow are in the order they came."""
    numbers = list(counted(packets))
    return numbers == sorted(numbers)


def test_flows_are_set_up_and_end(way: dict[str, Any]) -> None:
    """What the host has written is what the first packet finds, wherever it runs; flows that it
    refuses are asked about with each packet; and what the last packet left is what the end sees."""
    draw = random.Random(8)
    keys = [(draw.randrange(20, 70), 0) for _ in range(3000)]
    refused = [flow == 23 for flow, _ in keys]
    result = run(some(keys), way, name="begun", lanes=16)
    wanted = {n: 1000 + count for n, count in expected(keys).items() if not refused[n]}
    assert counted(result.packets) == wanted
    assert result.dropped == {"denied": sum(refused)}
    flows = len({flow for flow, _ in keys}) - 1
    told = {"begun": flows, "ended": flows, "counted": len(wanted)}
    assert result.counters == {"nf0": told}
