# SPDX-License-Identifier: BSD-3-Clause
"""State of flows while policies are reloaded: whatever way packets take, each NF sees those of a
flow one by one and in order, and its state is what came by.

    in0, in1 ── [ nf0, nf1, nf2: some of them in any order per type, until the next reload ] ── out0

Packets come for ever, the same ones again and again. Each NF writes into its slot of a packet as
how manieth of its flow it came, and drops it if it finds another one of the flow in there.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from chain import Result, Run, capture, started, udp
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chain_properties import CPUS
from test_flow_state import WAYS

from hummingbird.errors import UserError

MOST_NFS = 3
TYPES = ("other", "one", "two")
SLOTS = 4 + 4 * MOST_NFS
STEP = 500
"""Packets that come out before the next reload."""

SEEN_PY = """\
import numpy as np
from hummingbird.nfs import Nf, Reads, Writes
NF = Nf("seen{n}", reads=Reads.PACKET, writes=Writes.PACKET,
        flow_state=np.dtype([("packets", "u4"), ("busy", "u4")]))
"""
# Reading the packet in between takes a while, and may not be done before or after.
SEEN_CL = """\
static hb_u32 hb_nf_seen{n}(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{{
    (void)t, (void)arg, (void)result;
    if (!hb_has_state(p) || hb_state32(p, 1))
        return HB_DROP(HB_REASON_nf_action);
    hb_set_state32(p, 1, 1);
    hb_u32 n = hb_state32(p, 0) + 1;
    for (hb_u32 i = 0; i < 50; i++)
        hb_put32(p, p->length - {slot}, hb_get32(p, p->length - {slot}) * 3 + i);
    hb_put32(p, p->length - {slot}, n);
    hb_set_state32(p, 0, n);
    hb_set_state32(p, 1, 0);
    return HB_PASS;
}}
"""
FILES = {
    f"seen{n}.{kind}": text.format(n=n, slot=4 * (MOST_NFS - n))
    for n in range(MOST_NFS)
    for kind, text in (("py", SEEN_PY), ("cl", SEEN_CL))
}

Path = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One example."""

    way: str
    engines: list[bool]
    """Of each NF: on the device, if the way is one of a device."""
    versions: list[dict[str, Path]]
    """The NFs on the way of each type."""
    flows: list[tuple[int, int]]
    """Type and input of each flow."""
    order: list[int]
    """Indices of flows: the packets, again and again."""
    lcores: int

    def rows(self, version: int) -> str:
        rows = []
        for name, path in self.versions[version].items():
            stops = [*(f"nf{n}" for n in path), "out0"]
            rows += [(name, f"in{port}", stops[0]) for port in range(2)]
            rows += [(name, a, b) for a, b in itertools.pairwise(stops)]
        return "".join(f"{','.join(row)}\n" for row in rows)

    def topology(self, device: dict[str, Any]) -> dict[str, Any]:
        ports: dict[str, Any] = {
            f"in{n}": {"driver": "pcap", "read": f"in{n}.pcap", "loop": 0} for n in range(2)
        }
        engine = device.pop("engine")
        nfs = {
            f"nf{n}": {"type": f"./seen{n}.py", "engine": engine if mine else "cpu"}
            for n, mine in enumerate(self.engines)
        }
        cpus = (CPUS * 2)[: self.lcores]
        return {
            "ports": {**ports, "out0": {"driver": "pcap", "write": "$out"}},
            "nfs": nfs,
            "types": {n: {"protocol": "udp", "dst_port": k} for k, n in enumerate(TYPES) if k},
            "cores": {"io": cpus, "syncer": cpus} if self.lcores > 1 and len(CPUS) > 1 else {},
            "memory": {"mbufs": 4096, "flows": 256},
            "device": {"lanes": 16, **device},
        }

    def packets(self, port: int) -> list[bytes]:
        return [
            udp(f"10.0.0.{flow + 1}", "10.1.0.1", 1000, self.flows[flow][0], _payload(number))
            for number, flow in enumerate(self.order)
            if self.flows[flow][1] == port
        ]


def _payload(number: int) -> bytes:
    return struct.pack(">I", number) + bytes(SLOTS - 4)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    nfs = draw(st.integers(2, MOST_NFS))
    path = st.lists(st.integers(0, nfs - 1), unique=True).map(tuple)
    versions = draw(
        st.lists(st.fixed_dictionaries({n: path for n in TYPES}), min_size=2, max_size=5)
    )
    flows = [(n % 3, n % 2) for n in range(draw(st.integers(2, 40)))]
    draws = st.integers(0, len(flows) - 1)
    hot = draw(st.integers(0, 3))
    order = draw(st.lists(draws, min_size=20, max_size=200))
    return Case(
        way=draw(st.sampled_from(sorted(WAYS))),
        engines=draw(st.lists(st.booleans(), min_size=nfs, max_size=nfs)),
        versions=versions,
        flows=flows,
        order=[0, 1, *order, *order[:1] * hot * 20],
        lcores=draw(st.integers(1, 2)),
    )


@settings(max_examples=12)
@given(cases())
def test_state_and_order_hold_while_policies_change(case: Case) -> None:
    check(case)


def check(case: Case) -> Result:
    device, variables = WAYS[case.way]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        files = FILES | {f"in{n}.pcap": capture(case.packets(n)) for n in range(2)}
        with started(case.topology(dict(device)), None, case.rows(0), files=files) as run:
            for version in range(1, len(case.versions)):
                await_packets(run)
                run.until(functools.partial(reloads, run, case.rows(version)), what="a reload")
            await_packets(run)
            assert run.engine.plane.drain(10_000) == 0  # so that states are those in the end
            strict = run.engine.plane.undrained_reloads() == 0
            result = run.stop()
    changes = sum(a != b for a, b in itertools.pairwise(case.versions))
    assert result.summary["policy_version"] == 1 + changes
    assert not result.dropped, "two packets of a flow were in an NF at once, or one was lost"
    by_flow: dict[int, list[list[int]]] = defaultdict(list)
    for packet in result.packets:
        number, *slots = struct.unpack(f">{1 + MOST_NFS}I", packet[-SLOTS:])
        by_flow[case.order[number]].append([number, *slots])
    for flow, rows in by_flow.items():
        check_flow(case, flow, rows, strict)
    check_states(case, result, by_flow)
    return result


def reloads(run: Run, rows: str) -> bool:
    """False: too many versions have packets in flight, or an lcore got no CPU for five seconds,
    which may be on a busy machine."""
    try:
        run.reload(rows)
    except UserError as error:
        assert "in flight" in error.what or "makes no passes" in error.what
        return False
    return True


def await_packets(run: Run) -> None:
    until = int(run.counters("out0")["out_packets"]) + STEP
    run.until(lambda: int(run.counters("out0")["out_packets"]) >= until, what="packets")


def check_flow(case: Case, flow: int, rows: Sequence[Sequence[int]], strict: bool) -> None:
    """All packets of a flow, in order, each by the way of its policy, counted without a gap."""
    mine = [number for number, of in enumerate(case.order) if of == flow]
    ways = [set(version[TYPES[case.flows[flow][0]]]) for version in case.versions]
    if strict:  # else some of two policies may have been on their ways at once
        assert [row[0] for row in rows] == (mine * (len(rows) // len(mine) + 1))[: len(rows)]
    version = 0
    for _, *slots in rows:
        visited = {n for n, count in enumerate(slots) if count}
        while strict and ways[version] != visited:
            version += 1
            assert version < len(ways), (flow, visited, ways)
        assert visited in ways
    for n in range(MOST_NFS):
        counts = [row[1 + n] for row in rows if row[1 + n]]
        assert (counts if strict else sorted(counts)) == list(range(1, len(counts) + 1)), n


def check_states(case: Case, result: Result, by_flow: dict[int, list[list[int]]]) -> None:
    """The states in the end are what came by."""
    assert len(result.flows) == len(by_flow)
    for shown in result.flows:
        rows = by_flow[int(str(shown.src).rsplit(".", 1)[1]) - 1]
        for n in range(len(case.engines)):
            count = sum(row[1 + n] > 0 for row in rows)
            state = shown.nfs.get(f"nf{n}", {"packets": 0, "busy": 0})
            assert state == {"packets": count, "busy": 0}, (shown, n)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lcores", [1, 2])
def test_one_flow_has_nearly_all_packets(way: str, lcores: int) -> None:
    """Rows of the hot flow's packets alone would have one packet each: others fill them."""
    order = [0 if n % 10 else 1 + n // 10 % 29 for n in range(580)]
    ways: list[dict[str, Path]] = [
        {"other": (0, 1, 2), "one": (2, 1, 0), "two": (1,)},
        {"other": (2,), "one": (), "two": (0, 2, 1)},
        {"other": (1, 0), "one": (0, 1, 2), "two": (2, 0)},
    ]
    flows = [(n % 3, n % 2) for n in range(30)]
    check(Case(way, [True, False, True], ways, flows, order, lcores))
