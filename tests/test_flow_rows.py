# SPDX-License-Identifier: BSD-3-Clause
"""Rows of flows that have state: a hot flow needs a row for each of its packets, and they go ahead
of need, so that a launch has many of them.

in0 (half of it one flow) ── NF count (GPU) ── out0
"""

from __future__ import annotations

import pytest
from chain import by_flow, line, run_chain, udp
from test_flow_state import FILES, counted

HOT, COLD = 2000, 50
KEYS = [0 if number % 2 else 1 + number // 2 % COLD for number in range(2 * HOT)]


@pytest.mark.parametrize("executor", ["auto", "launch"])
def test_rows_of_a_hot_flow_go_ahead(executor: str) -> None:
    """Every packet in order; as few rows as the hot flow allows, few launches for them."""
    packets = [
        udp("10.0.0.1", "10.0.0.2", 1000 + key, 53, number.to_bytes(4, "big") + bytes(4))
        for number, key in enumerate(KEYS)
    ]
    source, rows = line({"type": "./count.py", "engine": "gpu"})
    result = run_chain(source, packets, rows, files=FILES, executor=executor)
    for sent in by_flow(result.packets).values():
        assert list(counted(sent).values()) == list(range(1, len(sent) + 1))
    device = result.summary["device"]
    assert device["row_packets"] == 2 * HOT
    assert HOT <= device["rows"] <= HOT + HOT // 4
    if executor == "launch":
        assert device["launches"] < device["rows"] / 4
