# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird trace`: every hop of a packet, and no other; and nothing is left of it afterwards.

known packets ── [ gateway of taps_helpers.py ] ── trace ── what the test knows of each packet
"""

from __future__ import annotations

import io
import itertools
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process import Service, write_topology
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from taps_helpers import (
    GOOD,
    LOST,
    NEXT,
    OWN,
    PLAYED,
    ROWS,
    VPN,
    captured,
    events,
    gateway,
    is_round,
    said,
    start,
    topology,
)

from hummingbird.control_client import Reply
from hummingbird.errors import UserError
from hummingbird.trace import _Shown, block

Packet = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One gateway for all tests that change nothing."""
    with gateway(tmp_path_factory.mktemp("trace")) as service:
        yield service
        summary = service.stop().balanced
        assert summary["sent"] > 0


@pytest.fixture(scope="module")
def packets(run: Service) -> dict[int, Packet]:
    """What a trace says of some rounds of the packets; by the source's port, 0 if malformed."""
    found = events(said(start("trace", "--name", run.name, "--json", "--count", 30)))
    assert sorted(found) == list(range(1, 31))
    return {packet[0]["sport"] or 0: packet for packet in found.values()}


def way(packet: Packet) -> list[str]:
    """The hops as the test writes them."""
    words = []
    for event in packet:
        more = {"goes": "to", "verdict": "verdict", "dropped": "reason"}.get(event["event"])
        words.append(" ".join([event["node"], event["event"], *([event[more]] if more else [])]))
    return words


def places(before: bytes, after: bytes) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b]


def changed(event: dict[str, Any]) -> list[int]:
    """The places that an event names."""
    return [*itertools.chain(*(range(a, b + 1) for a, b in event["ranges"]))]


def test_all_ways_are_seen(packets: dict[int, Packet]) -> None:
    assert set(packets) == {4000, 4001, 4002, 4003, 4004, 0}


def test_a_packet_that_passes(packets: dict[int, Packet]) -> None:
    """Through a GPU and two CPU NFs; scapy says what the router has to change."""
    packet = packets[4000]
    assert way(packet) == [
        "in0 received",
        "in0 goes nids0",
        "nids0 published",
        "nids0 verdict pass",
        "nids0 goes firewall0",
        "firewall0 verdict pass",
        "firewall0 goes router0",
        "router0 verdict pass",
        "router0 goes out0",
        "out0 sent",
    ]
    first, published, nids, firewall, router = (packet[i] for i in (0, 2, 3, 5, 7))
    ends = {"protocol": "tcp", "src": "10.0.0.7", "dst": "203.0.113.1", "dport": 80}
    assert {key: first[key] for key in ends} == ends
    assert all(event["type"] == "web" and event["length"] == len(GOOD) for event in packet)
    assert 0 <= published["lane"] < 64 and published["workgroup"] == 0 and published["row"] >= 0
    assert (nids["by"], nids["changed"], nids["longer"]) == ("gpu", 0, 0)
    assert (firewall["by"], firewall["changed"]) == ("cpu", 0)
    wanted = Ether(GOOD)
    wanted.src, wanted.dst = OWN, NEXT
    wanted[IP].ttl -= 1
    del wanted[IP].chksum
    assert changed(router) == places(GOOD, bytes(wanted)) and router["longer"] == 0
    assert router["changed"] == len(changed(router))


def test_times_and_lcores(packets: dict[int, Packet]) -> None:
    for packet in packets.values():
        times = [event["us"] for event in packet]
        assert times == sorted(times) and times[0] == 0
        assert {event["lcore"] for event in packet} == {0}


def test_a_packet_that_a_nids_finds(packets: dict[int, Packet]) -> None:
    """A retype, and then the policy says drop."""
    assert way(packets[4001])[3:] == ["nids0 verdict retype", "nids0 dropped policy"]
    assert [event["type"] for event in packets[4001][2:]] == ["web", "suspicious", "suspicious"]


def test_a_packet_that_a_firewall_denies(packets: dict[int, Packet]) -> None:
    assert way(packets[4002])[4:] == [
        "nids0 goes firewall0",
        "firewall0 verdict drop",
        "firewall0 dropped denied",
    ]


def test_a_packet_without_a_route(packets: dict[int, Packet]) -> None:
    assert way(packets[4003])[-2:] == ["router0 verdict drop", "router0 dropped no_route"]
    verdict = packets[4003][-2]
    assert verdict["reason"] == "no_route" and verdict["length"] == len(LOST)


def test_a_packet_that_grows(packets: dict[int, Packet]) -> None:
    """RFC 4303, AES-CBC and HMAC-SHA1-96 in tunnel mode: header 8, IV 16, padding, 2, ICV 12, and
    an IP header."""
    packet = packets[4004]
    inner = len(VPN) - 14
    esp = 20 + 8 + 16 + (inner + 2 + 15) // 16 * 16 + 12
    verdict = packet[3]
    assert way(packet)[2:4] == ["ipsec0 published", "ipsec0 verdict pass"]
    assert verdict["longer"] == esp - inner and verdict["length"] == 14 + esp
    assert 0 < verdict["changed"] <= len(VPN) - 14 and min(changed(verdict)) >= 14
    assert packet[-1]["event"] == "sent" and packet[-1]["length"] == 14 + esp


def test_a_malformed_packet(packets: dict[int, Packet]) -> None:
    packet = packets[0]
    assert way(packet) == ["in0 received", "in0 dropped truncated"]
    assert packet[0]["protocol"] == "-" and packet[0]["src"] is None


def test_filters(run: Service) -> None:
    """By flow, in both directions, and by type. At the same time only those that do not meet: a
    packet is followed by one trace."""

    def trace(*words: object) -> subprocess.Popen[str]:
        return start("trace", "--name", run.name, "--json", "--count", 12, *words)

    def ports(command: subprocess.Popen[str]) -> set[int]:
        return {packet[0]["sport"] for packet in events(said(command)).values()}

    asked = {
        "tcp 203.0.113.1:80 -> 10.0.0.7:4000": {4000},
        "10.0.0.7 -> 192.0.2.0/24": {4003},
        ":23": {4002},
        "udp": {4004},
    }
    commands = {flow: trace("--flow", flow) for flow in asked}
    assert {flow: ports(command) for flow, command in commands.items()} == asked
    of_type, of_flow = trace("--type", "vpn"), trace("--flow", "tcp 10.0.0.7 -> :80")
    assert ports(of_type) == {4004} and ports(of_flow) == {4000, 4001, 4003}


def test_what_a_person_sees(run: Service) -> None:
    """A block a packet, a line a hop, at most 80 columns."""
    text = said(start("trace", "--name", run.name, "--count", 18))
    assert max(len(line) for line in text.splitlines() if "gpu is" not in line) <= 80
    blocks = text.split("\n\n")
    assert len(blocks) == 18 + 1 and blocks[-1].startswith("18 packets followed")
    good = next(b for b in blocks if ":4000 ->" in b).splitlines()
    good = good[next(i for i, line in enumerate(good) if line.startswith("packet")) :]
    assert "tcp 10.0.0.7:4000 -> 203.0.113.1:80  59 bytes, type web, in at in0" in good[0]
    assert [line[15:24].strip() for line in good[1:] if line[15] != " "] == [
        "in0", "nids0", "nids0", "firewall0", "router0", "out0",
    ]  # fmt: skip
    assert "gpu: workgroup 0, row" in good[2] and "gpu: pass, 0 bytes changed" in good[3]
    assert good[-1].endswith("sent")
    evil = next(b for b in blocks if ":4001 ->" in b)
    assert "type suspicious from here on" in evil and "dropped: policy" in evil
    assert "drop: no_route" in next(b for b in blocks if ":4003 ->" in b)
    assert "bytes longer" in next(b for b in blocks if ":4004 ->" in b)


def test_ipv6_and_lcores_fit_the_screen() -> None:
    """A long head has two lines, and a change of lcore is told."""
    common = {"packet": 1, "us": 0.0, "node": "in0", "type": "web", "length": 98}
    address = "2001:db8:1111:2222:3333:4444:5555:666"
    ends = {"src": address + "6", "dst": address + "7", "sport": 40000, "dport": 443}
    first = common | ends | {"event": "received", "lcore": 0, "protocol": "tcp", "fragment": False}
    last = common | {"event": "sent", "lcore": 1, "node": "out0", "us": 1234.56}
    lines = list(block([first, last]))
    assert lines[0].startswith(f"packet 1  tcp [{address}6]:40000 -> [")
    assert lines[1].strip() == "98 bytes, type web, in at in0"
    assert lines[-1] == "    1234.6 us  out0  sent, on lcore 1"


@pytest.mark.parametrize(
    ("end", "last", "total"),
    [
        ({}, "still on its way", "2 packets followed, 1 of them still on their way"),
        (
            {"packets": 2, "ended": 1, "missed": 0},
            "still on its way",
            "2 packets followed, 1 of them still on their way",
        ),
        ({"packets": 2, "ended": 2, "missed": 3}, "its end is missing", "2 packets followed"),
        (
            {"packets": 9, "ended": 8, "missed": 30},
            "its end is missing, or it is still on its way",
            "9 packets followed, 1 of them still on their way",
        ),
        ({"removed": True}, "still on its way", "2 packets followed, 1 of them still on their way"),
    ],
)
def test_a_packet_whose_end_is_not_there(end: dict[str, Any], last: str, total: str) -> None:
    """Of events that were missed nobody says that their packets are on their way: the instance
    knows how many have ended."""
    out = io.StringIO()
    shown = _Shown(out)
    common = {"us": 0.0, "node": "in0", "type": "web", "length": 98, "lcore": 0}
    shown.take({"what": "the next 2 packets", "device": None})
    for number, event in ((1, "goes"), (2, "goes"), (1, "sent")):
        shown.take(common | {"packet": number, "event": event})
    shown.close(end)
    lines = out.getvalue().splitlines()
    assert "packet 2" in lines and total in lines
    assert lines[lines.index("packet 2") + 1].strip() == last
    missing = f"{end.get('missed')} events are missing: they came faster than they could be read"
    assert (missing in lines) == bool(end.get("missed"))


def test_the_instance_restarts_and_dies(tmp_path: Path) -> None:
    """What a trace and a capture have seen until then is summed up, and which of both it was is
    said."""
    nfs = {
        name: {"type": "forward", "engine": "cpu"}
        for name in ("nids0", "firewall0", "router0", "ipsec0")
    }
    types = {"vpn": {"protocol": "udp"}, "suspicious": {"protocol": 200}}
    sections: dict[str, Any] = {"nfs": nfs, "types": types}
    with gateway(tmp_path, **sections) as run:

        def begin(name: str) -> tuple[subprocess.Popen[str], subprocess.Popen[str], Path]:
            path = tmp_path / name
            trace = start("trace", "--name", run.name, "--count", 1_000_000_000)
            capture = start("capture", "outside:in0", path, "--name", run.name)
            assert trace.stdout is not None
            while "sent" not in trace.stdout.readline():
                pass
            run.until(lambda: path.exists() and path.stat().st_size > 2000, "packets in the file")
            return trace, capture, path

        trace, capture, path = begin("restart.pcap")
        write_topology(tmp_path, topology(1000.0) | sections, ROWS)
        list(Reply(run.name, "reload", restart=True))
        text = said(trace, 2)
        assert " followed" in text and "error: the instance is restarting" in text
        assert "the instance has been restarted: " in said(capture)
        assert is_round(captured(path), PLAYED)

        trace, capture, path = begin("kill.pcap")
        run.process.kill()
        text = said(trace, 2)
        assert " followed" in text and "error: the instance ended before its" in text
        assert "the instance has ended: " in said(capture)
        assert is_round(captured(path), PLAYED)


def test_time_is_over(run: Service) -> None:
    """Nothing matches."""
    text = said(start("trace", "--name", run.name, "--flow", "192.0.2.200", "--seconds", 0.3))
    assert text.endswith("no such packet has come\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_goes(run: Service, number: signal.Signals) -> None:
    """Ctrl-C ends it well; killed, it leaves nothing either."""
    command = start("trace", "--name", run.name, "--flow", "192.0.2.200")
    assert command.stdout is not None
    assert command.stdout.readline().startswith("tracing the next 10 packets of 192.0.2.200")
    assert [tap["what"] for tap in Reply(run.name, "taps")] == [
        "the next 10 packets of 192.0.2.200"
    ]
    command.send_signal(number)
    said(command, 0 if number == signal.SIGINT else -number)
    run.until(lambda: not list(Reply(run.name, "taps")), "the trace to be gone")


def test_another_connection_ends_it(run: Service) -> None:
    command = start("trace", "--name", run.name, "--flow", "192.0.2.200")
    assert command.stdout is not None and command.stdout.readline()
    (tap,) = Reply(run.name, "taps")
    assert tap["kind"] == "trace" and tap["packets"] == 0
    reply = Reply(run.name, "remove", tap=tap["tap"])
    assert list(reply) == [] and reply.end["removed"] == tap["tap"]
    assert "somebody else has ended this trace" in said(command)
    with pytest.raises(UserError, match="there is no capture or trace 1000\n  fix: there are none"):
        list(Reply(run.name, "remove", tap=1000))


def test_mistakes(run: Service) -> None:
    mistakes = {
        "'1.2.3' is no address or prefix": ("--flow", "tcp 1.2.3"),
        "there is no packet type 'weeb' in this topology": ("--type", "weeb"),
        "'0' is no number of packets": ("--count", 0),
        "'-1' is no time": ("--seconds", -1),
    }
    commands = {e: start("trace", "--name", run.name, *words) for e, words in mistakes.items()}
    for error, command in commands.items():
        assert error in said(command, 2)


@pytest.mark.parametrize(
    "field", [{"count": 0}, {"count": "x"}, {"seconds": 0}, {"flow": 7}, {"type": []}]
)
def test_requests_that_cannot_be(run: Service, field: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="the request's"):
        list(Reply(run.name, "trace", **field))
    assert not list(Reply(run.name, "taps"))


def test_too_many(run: Service) -> None:
    """Eight of them, and a ninth is told so."""
    replies = [Reply(run.name, "trace", flow="192.0.2.200") for _ in range(8)]
    answers = [iter(reply) for reply in replies]
    for answer in answers:
        next(answer)
    with pytest.raises(UserError, match="8 captures and traces are running already"):
        list(Reply(run.name, "trace"))
    for reply in replies:
        reply.hang_up()
    run.until(lambda: not list(Reply(run.name, "taps")), "all traces to be gone")


def test_two_hundred_come_and_go(tmp_path: Path) -> None:
    """On two lcores and the GPU, packets as fast as they go: none is lost or counted twice."""
    cores = {"io": [0], "nf": {"firewall0": [1], "router0": [1]}}
    with gateway(tmp_path, packets=PLAYED * 50, rate=200_000.0, cores=cores) as run:
        for turn in range(100):
            trace = Reply(run.name, "trace", count=50)
            capture = Reply(run.name, "capture", edge=("nids0:", ":router0")[turn % 2], ring=65536)
            for reply in (trace, capture):
                next(iter(reply))  # and hang up
            run.until(lambda: len(list(Reply(run.name, "taps"))) < 6, "some to be gone")
        run.until(lambda: not list(Reply(run.name, "taps")), "all to be gone")
        list(Reply(run.name, "drain", timeout=60))  # a device that gets no CPU takes long
        assert run.stop().balanced["sent"] > 0


def test_fragments_are_not_followed(tmp_path: Path) -> None:
    """A router cuts a packet: the first piece is that packet, the others are new ones."""
    big = bytes(
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src="10.0.0.7", dst="203.0.113.1")
        / UDP(sport=4005, dport=6000)
        / bytes(900)
    )
    with gateway(tmp_path, packets=[big], **small_links(tmp_path)) as run:
        found = events(said(start("trace", "--name", run.name, "--json", "--count", 5)))
    for packet in found.values():
        verdict = next(e for e in packet if e["node"] == "router0" and e["event"] == "verdict")
        assert verdict["longer"] < 0 and packet[-1]["event"] == "sent"
        assert len([e for e in packet if e["event"] == "sent"]) == 1


def small_links(folder: Path) -> dict[str, Any]:
    """A gateway with a router alone, whose next link takes 600 bytes."""
    hop = {"mac": NEXT, "src_mac": OWN, "mtu": 600}
    router = {"type": "router", "engine": "cpu", "routes": "fib.csv", "next_hops": {"isp": hop}}
    nfs = {name: {"type": "forward", "engine": "cpu"} for name in ("nids0", "firewall0", "ipsec0")}
    types = {"vpn": {"protocol": "udp", "dst_port": 5000}, "suspicious": {"protocol": 200}}
    return {"nfs": {**nfs, "router0": router}, "types": types}
