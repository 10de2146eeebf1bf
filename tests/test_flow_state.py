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
FILES = {"count.py": COUNT_PY, "count.cl": COUNT_CL}
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
    flows: Mapping[str, Any] | None = None,
    **options: Any,
) -> Result:
    device = dict(way)
    engine = device.pop("engine")
    source, rows = line(*[{"type": "./count.py", "engine": engine}] * nfs)
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
