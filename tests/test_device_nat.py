# SPDX-License-Identifier: BSD-3-Clause
"""The NAT on a device: verdicts, bytes and mappings of the model, with every executor.

    packets ─┬─ in0 ── nf0 (nat, on a device) ── out0 ─┬─ the same
             └─ nat_model.Nat ─────────────────────────┘

Flows may overtake each other; the packets of each come in order.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import pytest
from chain import Flow, by_flow
from nat_traffic import NAT, Traffic
from nf_helpers import real_data
from test_chain_captures import DEMO, is_sound, packets_in
from test_device_equal import WAYS, force, needs_persistent
from test_nat import handshake, seen_behind
from test_nat_model import FORWARDS, through

from hummingbird.opencl.device import Device, choose

pytest.importorskip("pyopencl")

PARAMS = NAT | {"engine": "gpu", "forwards": FORWARDS}


@functools.cache
def traffic(filtering: str) -> Traffic:
    return Traffic(PARAMS | {"filtering": filtering}, 21).mixed(1500, queries=False)


def connections(packets: list[bytes]) -> dict[Flow, list[bytes]]:
    """Those of TCP and UDP: of the others several flows may look like one behind the NAT."""
    return {flow: some for flow, some in by_flow(packets).items() if flow[1] in (6, 17) and flow[2]}


@pytest.fixture
def device() -> Device:
    found = choose("auto")
    if found is None:
        pytest.skip("NOT COMPARED with a device: there is no OpenCL device")
    return found


@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-and-port-dependent"])
@pytest.mark.parametrize("way", ["launch", "launch-staged", "launch-cl12", "persistent"])
def test_a_device_does_what_the_model_does(
    way: str, filtering: str, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, settings = WAYS[way]
    if settings:
        force(monkeypatch, device, **settings)
    if executor == "persistent":
        needs_persistent(device)
    wanted = traffic(filtering)
    params: dict[str, Any] = PARAMS | {"filtering": filtering}
    result, mappings, _ = through(wanted.packets, params, executor=executor, lanes=16)
    seen = result.summary["device"]
    assert seen["executor"] == executor and seen["failures"] == 0
    assert result.dropped == wanted.dropped
    assert Counter(result.packets) == Counter(wanted.expected)
    assert connections(result.packets) == connections(wanted.expected)
    assert mappings == wanted.mappings()


@pytest.mark.parametrize("name", ["demo", "traces/mixed_ndpi.pcap"])
@pytest.mark.parametrize("executor", ["launch", "persistent"])
def test_captures(name: str, executor: str, device: Device) -> None:
    """Half of all addresses are inside, so packets go all ways."""
    if executor == "persistent":
        needs_persistent(device)
    params = PARAMS | {"inside": ["0.0.0.0/1"], "forwards": []}
    wanted = Traffic(params, 1)
    for packet in packets_in(DEMO if name == "demo" else real_data(name))[:5000]:
        if is_sound(packet):
            wanted.add(packet)
    result, mappings, _ = through(wanted.packets, params, executor=executor)
    assert result.summary["device"]["failures"] == 0
    assert result.dropped == wanted.dropped
    assert Counter(result.packets) == Counter(wanted.expected)
    assert mappings == wanted.mappings()


@pytest.mark.parametrize("executor", ["launch", "persistent"])
def test_an_nf_behind_sees_one_connection(executor: str, device: Device) -> None:
    if executor == "persistent":
        needs_persistent(device)
    seen = seen_behind(handshake(), {"executor": executor})
    assert seen == {("10.0.0.1:5000", "198.51.100.7:80"): [2, 3]}
