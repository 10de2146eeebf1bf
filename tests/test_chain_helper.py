# SPDX-License-Identifier: BSD-3-Clause
"""The helper that all tests of chains rest on: it notices every packet that is lost or doubled, and
it is cheap.

    Result ── one counter changed by one ── check_balance(), check_hops(): AssertionError
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from chain import (
    Result,
    by_flow,
    capture,
    check_balance,
    check_hops,
    flow_of,
    is_subsequence,
    line,
    read_capture,
    run_chain,
    tcp,
    udp,
)
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

PACKETS = [udp("10.0.0.1", "10.0.0.2", 5, number, b"x" * number) for number in range(200)]
RUNT = [b"too short"]
IN, OUT, FIRST, SECOND = range(4)
TYPE = REASON = 0


@pytest.fixture(scope="module")
def good() -> Result:
    """in0 -> nf0 -> nf1 -> out0, and a runt that in0 drops."""
    source, rows = line("cpu", "cpu")
    return run_chain(source, PACKETS + RUNT, rows)


def test_what_goes_in_comes_out(good: Result) -> None:
    assert good.packets == PACKETS
    assert good.outputs["out0"].times == [number * 1000 for number in range(200)]
    assert good.dropped == {"runt": 1} and good.counters == {}
    assert good.type_packets() == {"other": 201}


WRONG: dict[str, Callable[[Any, Any], None]] = {
    "a packet received twice": lambda s, t: add(s.nodes, IN, "in_packets"),
    "a packet an NF never got": lambda s, t: add(s.nodes, SECOND, "in_packets", -1),
    "a packet an NF kept": lambda s, t: add(s.nodes, FIRST, "out_packets", -1),
    "a packet sent twice": lambda s, t: add(s.nodes, OUT, "out_packets"),
    "a drop without a reason": lambda s, t: add(s.nodes, SECOND, "dropped"),
    "a reason without a drop": lambda s, t: add(s.drops[FIRST], 5),
    "a hop too many": lambda s, t: add(s.hops[FIRST], TYPE),
    "a packet that ended twice": lambda s, t: add(s.ended[TYPE], 0),
    "a packet that never ended": lambda s, t: add(s.lcores, 0, "born"),
    "a packet of an old policy": lambda s, t: add(s.lcores["admitted"][0], 0),
    "a balance that is off": lambda s, t: t.update(balance=1),
    "a packet in flight": lambda s, t: t.update(in_flight=1),
    "a port that sent more": lambda s, t: t["ports"]["out0"].update(sent=201),
}


def add(array: Any, at: int, field: str | None = None, count: int = 1) -> None:
    """Change a counter; numpy's are unsigned."""
    target, key = (array, at) if field is None else (array[field], at)
    target[key] = int(target[key]) + count


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_counter_is_noticed(what: str, good: Result) -> None:
    snapshot, summary = copy.deepcopy(good.snapshot), copy.deepcopy(good.summary)
    check_balance(good.topology, snapshot, summary)
    check_hops(good.topology, good.policy, snapshot)
    WRONG[what](snapshot, summary)
    with pytest.raises(AssertionError):
        check_balance(good.topology, snapshot, summary)
        check_hops(good.topology, good.policy, snapshot)


def test_a_chain_that_never_ends_is_given_up() -> None:
    source, rows = line("cpu")
    source["ports"]["in0"] = {"driver": "generator", "rate": 1}
    with pytest.raises(TimeoutError, match="the inputs to end"):
        run_chain(source, None, rows, timeout=0.05)


@pytest.mark.parametrize("executor", ["launch", "auto"])
def test_a_warm_start_takes_less_than_300_ms(executor: str) -> None:
    """The best of five, in CPU time; cold, OpenCL compiles, which takes more than a second."""
    source, rows = line("gpu", "cpu")
    seconds = [run_chain(source, PACKETS, rows, executor=executor).start_seconds for _ in range(6)]
    assert min(seconds[1:]) < 0.3, seconds


def test_the_packets_are_what_scapy_makes() -> None:
    for made, layer in ((udp, UDP), (tcp, TCP)):
        packet = made("10.0.0.1", "10.0.0.2", 1234, 80, b"payload")
        seen = Ether(packet)
        assert (seen[IP].src, seen[IP].dst, seen[layer].sport, seen[layer].dport) == (
            "10.0.0.1",
            "10.0.0.2",
            1234,
            80,
        )
        assert bytes(seen[layer].payload) == b"payload"
        checksum = seen[IP].chksum
        del seen[IP].chksum
        assert Ether(bytes(seen))[IP].chksum == checksum


def test_a_capture_is_read_as_it_was_written(tmp_path: Any) -> None:
    (tmp_path / "c.pcap").write_bytes(capture(PACKETS, [n * 10**9 + n for n in range(200)]))
    sent = read_capture(tmp_path / "c.pcap")
    assert sent.packets == PACKETS and sent.times[7] == 7_000_000_007
    (tmp_path / "c.pcap").write_bytes(capture(PACKETS)[:-1])
    with pytest.raises(AssertionError, match="cut"):
        read_capture(tmp_path / "c.pcap")


def test_flows_are_told_apart() -> None:
    one, other = tcp("10.0.0.1", "10.0.0.2", 1, 2), tcp("10.0.0.1", "10.0.0.2", 1, 3)
    back = tcp("10.0.0.2", "10.0.0.1", 2, 1)
    assert len({flow_of(one), flow_of(other), flow_of(back)}) == 3
    assert by_flow([one, other, one + b"\0"]) == {
        flow_of(one): [one, one + b"\0"],
        flow_of(other): [other],
    }


def test_a_subsequence_is_in_order() -> None:
    assert is_subsequence([1, 3], [1, 2, 3]) and is_subsequence([], [])
    assert not is_subsequence([3, 1], [1, 2, 3]) and not is_subsequence([1, 1], [1, 2])
