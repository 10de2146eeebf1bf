# SPDX-License-Identifier: BSD-3-Clause
"""Any topology, any route policy that can be loaded, any packets: each packet comes out where a
model of the policy says, once, and in the order of its flow.

    in0, in1 ── [ up to 4 forward NFs on CPU or device, in any order per type ] ─┬─ out0
                                                                                 ├─ out1
                                                                                 └─ drop
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any

from chain import Result, by_flow, capture, flow_of, run_chain, udp
from hypothesis import assume, given, note
from hypothesis import strategies as st

from hummingbird.errors import UserError

TYPES = ("other", "one", "two", "three")
PORTS = {"in0": "read", "in1": "read", "out0": "write", "out1": "write"}
EXITS = ("out0", "out1", "drop")
CPUS = sorted(os.sched_getaffinity(0))[:4]
MOST_NFS = 4


@dataclass(frozen=True)
class Case:
    """One example."""

    engines: list[str]
    paths: dict[str, list[str]]
    """By type, from behind the input to an exit."""
    noise: list[tuple[str, str, str]]
    """Rows for states that no packet need come into."""
    memory: dict[str, int]
    device: dict[str, Any]
    cores: dict[str, Any]
    flows: list[tuple[int, int, bool]]
    """Type, input and damage of each flow."""
    order: list[int]
    """Indices of flows: the packets."""

    @property
    def nfs(self) -> list[str]:
        return [f"nf{number}" for number in range(len(self.engines))]

    def rows(self) -> str:
        rows = {(name, "in1"): path[0] for name, path in self.paths.items()}
        for name, path in self.paths.items():
            rows |= {(name, at): to for at, to in zip(["in0", *path], path, strict=False)}
        for name, at, to in self.noise:
            rows.setdefault((name, at), to)
        return "".join(f"{name},{at},{to}\n" for (name, at), to in rows.items())

    def topology(self) -> dict[str, Any]:
        ports: dict[str, Any] = {n: {"driver": "pcap", w: f"{n}.pcap"} for n, w in PORTS.items()}
        ports["in0"]["read"] = "$in"
        nfs = {
            n: {"type": "forward", "engine": e} for n, e in zip(self.nfs, self.engines, strict=True)
        }
        types = {name: {"protocol": "udp", "dst_port": n} for n, name in enumerate(TYPES) if n}
        return {
            "ports": ports,
            "nfs": nfs,
            "types": types,
            "memory": self.memory,
            "device": self.device,
            "cores": self.cores,
        }

    def packets(self, port: int) -> list[bytes]:
        """What comes in at in0 or in1."""
        return [
            _packet(flow, number, *self.flows[flow][::2])
            for number, flow in enumerate(self.order)
            if self.flows[flow][1] == port
        ]


def _packet(flow: int, number: int, kind: int, damaged: bool) -> bytes:
    """Packet ``number`` of all, of this flow; a damaged one is cut short."""
    packet = udp(f"10.0.0.{flow + 1}", "10.1.0.1", 1000, kind, struct.pack(">I", number))
    return packet[:-2] if damaged else packet


@st.composite
def cases(draw: st.DrawFn) -> Case:
    engines = draw(st.lists(st.sampled_from(["cpu", "gpu"]), min_size=1, max_size=MOST_NFS))
    nfs = [f"nf{number}" for number in range(len(engines))]
    ways = st.lists(st.sampled_from(nfs), unique=True).flatmap(
        lambda way: st.sampled_from(EXITS).map(lambda end: [*way, end])
    )
    noise = st.tuples(
        st.sampled_from(["*", *TYPES]), st.sampled_from(nfs), st.sampled_from([*nfs, *EXITS])
    )
    flows = st.tuples(
        st.integers(0, 3), st.integers(0, 1), st.sampled_from([False, False, False, True])
    )
    few = draw(st.lists(flows, min_size=1, max_size=6))
    order = draw(st.lists(st.integers(0, len(few) - 1), max_size=60))
    cores = {"io": CPUS, "syncer": CPUS} if draw(st.booleans()) else {}
    return Case(
        engines=engines,
        paths={name: draw(ways) for name in TYPES},
        noise=draw(st.lists(noise, max_size=2)),
        memory={"mbufs": 1024, "queue": draw(st.sampled_from([64, 1024]))},
        device=draw(
            st.fixed_dictionaries(
                {
                    "use": st.sampled_from(["auto", "auto", "none"]),
                    "executor": st.sampled_from(["launch", "auto"]),
                    "lanes": st.sampled_from([3, 64]),
                    "depth": st.sampled_from([2, 64]),
                }
            )
        ),
        cores=cores,
        flows=few,
        order=order * draw(st.sampled_from([1, 3, 40])),
    )


@given(cases())
def test_every_packet_comes_out_where_the_policy_says(case: Case) -> None:
    note(case.rows())
    try:
        result = run_chain(
            case.topology(),
            case.packets(0),
            case.rows(),
            files={"in1.pcap": capture(case.packets(1))},
        )
    except UserError as error:
        assume("go round for ever" not in error.what)  # by the noise
        raise
    check_outputs(case, result)
    check_counts(case, result)


def check_outputs(case: Case, result: Result) -> None:
    """At each exit the packets of the flows that end there, all of them, in order."""
    sent = {port: by_flow(result.packets_of(port)) for port in ("out0", "out1")}
    for port, flows in sent.items():
        expected = {
            flow_of(packets[0]): packets
            for flow, packets in packets_by_flow(case).items()
            if exit_of(case, flow) == port
        }
        assert flows == expected, port


def check_counts(case: Case, result: Result) -> None:
    """Drops by reason, and the packets of each NF and type."""
    drops = {"policy": 0, "truncated": 0}
    through = dict.fromkeys(case.nfs, 0)
    types = dict.fromkeys(TYPES, 0)
    for flow, packets in packets_by_flow(case).items():
        kind, _, damaged = case.flows[flow]
        path = [] if damaged else case.paths[TYPES[kind]]
        drops["truncated" if damaged else "policy"] += len(packets) * (path[-1:] in ([], ["drop"]))
        types[TYPES[0 if damaged else kind]] += len(packets)
        for name in path[:-1]:
            through[name] += len(packets)
    assert result.dropped == {reason: count for reason, count in drops.items() if count}
    assert {name: nf["packets"] for name, nf in result.summary["nfs"].items()} == through
    assert result.type_packets() == types


def packets_by_flow(case: Case) -> dict[int, list[bytes]]:
    flows: dict[int, list[bytes]] = {}
    for number, flow in enumerate(case.order):
        flows.setdefault(flow, []).append(_packet(flow, number, *case.flows[flow][::2]))
    return flows


def exit_of(case: Case, flow: int) -> str:
    kind, _, damaged = case.flows[flow]
    return "drop" if damaged else case.paths[TYPES[kind]][-1]
