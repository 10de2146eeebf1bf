# SPDX-License-Identifier: BSD-3-Clause
"""The driver af_xdp on veth pairs, through the real data plane; the far ends are raw sockets of the
kernel.

    lan1 ═ lan0 ── lan ── [ NF ] ── wan ── wan0 ═ wan1
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from chain import Result, by_flow, started, udp
from wires import AT_ONCE, Bed, Wire, bed, node, plane, pump, wires

MODES = {
    "auto": "native, copy mode",
    "native": "native, copy mode",
    "generic": "generic, copy mode",
}
"""What veth makes of each mode."""
ROWS = "*,lan,wan\n*,wan,lan\n"


def topology(nf: dict[str, Any] | None = None, queues: int = 1, **port: Any) -> dict[str, Any]:
    """lan and wan, to be joined by routes."""
    ports = {
        name: {"driver": "af_xdp", "interface": f"{name}0", "queues": queues, **port}
        for name in ("lan", "wan")
    }
    return {"ports": ports, "nfs": {"nf0": nf} if nf else {}}


def sizes() -> list[bytes]:
    """A packet of each size, and some with a VLAN tag or two; no two alike."""
    rng = random.Random(1)
    whole = [udp("10.0.0.1", "10.0.0.2", 5, 6, rng.randbytes(n)) for n in range(60 - 42, 1515 - 42)]
    tags = [b"\x81\x00\x00\x07", b"\x88\xa8\x00\x08\x81\x00\x00\x07"]
    return whole + [p[:12] + tags[n % 2] + p[12:] for n, p in enumerate(whole[:1400:7])]


@pytest.fixture
def one() -> Iterator[Bed]:
    with bed() as made:
        yield made


@pytest.fixture
def two() -> Iterator[Bed]:
    with bed(queues=2) as made:
        yield made


def check(result: Result, received: int, sent: int) -> None:
    ports = result.summary["ports"]
    assert [ports[name]["received"] for name in ("lan", "wan")] == [received, sent]
    assert [ports[name]["sent"] for name in ("lan", "wan")] == [sent, received]
    assert result.dropped == {}
    assert [ports[name]["missed"] for name in ("lan", "wan")] == [0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_every_size_both_ways(mode: str, one: Bed) -> None:
    """Every byte of every packet, tags included, and their order."""
    packets = sizes()
    back = packets[::-1]
    with wires("lan1", "wan1") as (lan, wan), started(topology(mode=mode), None, ROWS) as run:
        notes = dict(run.engine.port_notes())
        for at in range(0, len(packets), AT_ONCE):
            lan.send(packets[at : at + AT_ONCE])
            wan.send(back[at : at + AT_ONCE])
            many = min(at + AT_ONCE, len(packets))
            pump(run, "what was sent", (wan, many), (lan, many))
        result = run.stop()
    assert wan.got() == packets
    assert lan.got() == back
    assert notes == {n: f"af_xdp on {n}0, {MODES[mode]}, 1 queue" for n in ("lan", "wan")}
    check(result, len(packets), len(packets))


def test_two_queues_on_two_cores(two: Bed) -> None:
    """Each packet comes out once, those of a flow in order, and both queues have had some."""
    flows = [udp("10.0.0.1", "10.0.0.2", 1000 + f, 9, bytes([f])) for f in range(64)]
    packets = [flow + n.to_bytes(2, "big") for n in range(60) for flow in flows]
    source = topology({"type": "forward", "engine": "cpu"}, queues=2) | {"cores": {"io": [0, 1]}}
    rows = "*,lan,nf0\n*,nf0,wan\n*,wan,lan\n"
    with wires("lan1", "wan1") as (lan, wan), started(source, None, rows) as run:
        for at in range(0, len(packets), AT_ONCE):
            lan.send(packets[at : at + AT_ONCE])
            pump(run, "what was sent", (wan, min(at + AT_ONCE, len(packets))))
        queues = re.findall(r"rx_queue_\d_xdp_packets: (\d+)", two.run("ethtool", "-S", "lan0"))
        result = run.stop()
    assert by_flow(wan.got()) == by_flow(packets)
    assert len(queues) == 2 and all(int(count) > 100 for count in queues)
    assert sum(map(int, queues)) == len(packets)
    check(result, len(packets), 0)


@pytest.mark.parametrize("mbufs", [1024, 16384])
def test_as_fast_as_they_come(mbufs: int, one: Bed) -> None:
    """Nothing is held back for the receiver: what the kernel could not give us is `missed`, and
    everything else comes out in order."""
    ways = ("lan", "wan")
    packets = [udp("10.0.0.1", "10.0.0.2", 5, 6, n.to_bytes(4, "big")) for n in range(60_000)]
    with (
        wires("lan1", "wan1") as (lan, wan),
        started(topology(), None, ROWS, memory={"mbufs": mbufs}) as run,
    ):
        lan.send(packets)
        many = one.sent("lan1")
        run.until(lambda: _came(run) >= many, what="all to come in")
        pump(run, "what came in", (wan, int(run.counters("lan")["in_packets"])))
        result = run.stop()
    ports = result.summary["ports"]
    assert ports["lan"]["received"] + ports["lan"]["missed"] == many
    # at least what the kernel had frames for, even if nobody took any until all were sent
    assert ports["lan"]["received"] == ports["wan"]["sent"] == len(wan.got()) >= mbufs / 8
    assert [ports[way]["dropped"] for way in ways] == [{}, {}]
    numbers = [int.from_bytes(p[42:46], "big") for p in wan.got()]
    assert numbers == sorted(set(numbers))


def test_what_the_kernel_has_no_frame_for_is_missed(one: Bed) -> None:
    """With 1,024 mbufs a queue has 256 frames to fill. While nobody takes them, the rest is gone,
    and so is what lies in the ring when the port is opened anew; all of it is counted."""
    packets = [udp("10.0.0.1", "10.0.0.2", 5, 6, n.to_bytes(4, "big")) for n in range(1000)]
    with (
        wires("lan1", "wan1") as (lan, wan),
        started(topology(), None, ROWS, memory={"mbufs": 1024}) as run,
    ):
        plane(run).port_away(node(run, "lan"))
        lan.send(packets)
        many = one.sent("lan1")
        plane(run).port_reopen(node(run, "lan"))
        run.until(lambda: run.counters("lan")["missed"] >= many, what="the misses")
        lan.send(packets[:100])
        pump(run, "what came later", (wan, 100))
        result = run.stop()
    assert wan.got() == packets[:100]
    assert result.summary["ports"]["lan"]["missed"] == many > 256
    assert result.summary["ports"]["lan"]["received"] == 100


@pytest.mark.parametrize("mtu", [3400, 9000])
def test_long_packets(mtu: int, one: Bed) -> None:
    """A frame of 4,096 bytes has room for 3,712: what is longer is missed. Where the driver refuses
    the program because of the MTU, `auto` takes the kernel's and says why."""
    for end in ("lan0", "lan1", "wan0", "wan1"):
        one.run("ip", "link", "set", end, "mtu", str(mtu))
    most = min(mtu + 14, 3712)
    lengths = [n for n in (1515, 2048, 3000, most - 1, most, most + 1, 5000) if n <= mtu + 14]
    packets = [
        udp("10.0.0.1", "10.0.0.2", 5, 6, random.Random(n).randbytes(n - 42)) for n in lengths
    ]
    fit = [packet for packet in packets if len(packet) <= most]
    with (
        wires("lan1", "wan1") as (lan, wan),
        started(topology(), None, ROWS, memory={"frame_size": 4096}) as run,
    ):
        lan.send(packets)
        pump(run, "those that fit", (wan, len(fit)))
        run.until(lambda: _came(run) == len(packets), what="the counters")
        notes = dict(run.engine.port_notes())
        result = run.stop()
    assert wan.got() == fit
    assert result.summary["ports"]["lan"]["missed"] == len(packets) - len(fit)
    if mtu == 3400:
        assert notes["lan"] == "af_xdp on lan0, native, copy mode, 1 queue"
    else:
        assert re.fullmatch(
            r"af_xdp on lan0, generic \(its driver refused native: .+\), copy mode, 1 queue",
            notes["lan"],
        )


def _came(run: Any) -> int:
    counters = run.counters("lan")
    return int(counters["in_packets"] + counters["missed"])


OWN = {
    "flip.py": """\
from hummingbird.nfs import Nf, Reads, Writes
NF = Nf("flip", reads=Reads.PACKET, writes=Writes.PACKET)
""",
    "flip.cl": """\
static hb_u32 hb_nf_flip(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    for (hb_u32 at = 42; at < p->length; at++)
        hb_put8(p, at, hb_get8(p, at) ^ 0xff);
    return HB_PASS;
}
""",
}


@pytest.mark.parametrize("executor", ["auto", "launch"])
def test_the_device_works_on_the_frames_of_the_driver(executor: str, one: Bed) -> None:
    """A kernel turns every payload bit over, in the frames that AF_XDP has filled: nothing is
    staged for it, and the driver has no code to copy with."""
    packets = sizes()[:1000]
    rows = "*,lan,nf0\n*,nf0,wan\n*,wan,lan\n"
    source = topology({"type": "./flip.py", "engine": "gpu"})
    with (
        wires("lan1", "wan1") as (lan, wan),
        started(source, None, rows, files=OWN, executor=executor) as run,
    ):
        for at in range(0, len(packets), 250):
            lan.send(packets[at : at + 250])
            pump(run, "what was sent", (wan, at + 250))
        result = run.stop()
    flipped = [p[:42] + bytes(b ^ 0xFF for b in p[42:]) for p in packets]
    assert by_flow(wan.got()) == by_flow(flipped)
    assert result.summary["device"]["copied_bytes"] == 0
    assert result.summary["device"]["row_packets"] == len(packets)
    check(result, len(packets), 0)


def test_linux_finds_the_address_of_a_port(one: Bed) -> None:
    """The kernel at the far end asks by ARP; the answer, with the interface's Ethernet address,
    goes back in the frame that the question came in."""
    source = topology()
    source["ports"]["lan"]["address"] = "192.0.2.1"
    one.run("ip", "addr", "add", "192.0.2.9/24", "dev", "lan1")
    mac = one.run("cat", "/sys/class/net/lan0/address").strip()
    with started(source, None, ROWS) as run:

        def known() -> bool:
            one.run("ping", "-c", "1", "-W", "1", "192.0.2.1", may_fail=True)  # it has no answer
            return mac in one.run("ip", "neigh", "show", "192.0.2.1")

        run.until(known, what="the answer")
        run.stop()


def test_routes_change_while_packets_flow(one: Bed) -> None:
    packets = [udp("10.0.0.1", "10.0.0.2", 5, 6, n.to_bytes(4, "big")) for n in range(400)]
    with wires("lan1", "wan1") as (lan, wan), started(topology(), None, ROWS) as run:
        lan.send(packets[:200])
        pump(run, "the first ones", (wan, 200))
        run.reload("*,lan,lan\n*,wan,lan\n")
        lan.send(packets[200:])
        pump(run, "the others, where they came from", (lan, 200))
        result = run.stop()
    assert wan.got() == packets[:200] and lan.got() == packets[200:]
    assert result.summary["ports"]["lan"]["sent"] == result.summary["ports"]["wan"]["sent"] == 200


# ---- interfaces that go down, or away ------------------------------------------------------------


def drops(run: Any, port: str, reason: str) -> int:
    from hummingbird.dataplane.plane import reasons

    number = [name for name, _ in reasons()].index(reason)
    return int(run.engine.reader().snapshot().drops[node(run, port)][number])


def send_until(run: Any, wire: Wire, packet: bytes, condition: Any, what: str) -> int:
    """Send it again and again; how often."""
    sent = 0

    def satisfied() -> bool:
        nonlocal sent
        wire.send([packet])
        sent += 1
        return bool(condition())

    run.until(satisfied, what=what)
    return sent


def test_down_and_up_again(one: Bed) -> None:
    packet = udp("10.0.0.1", "10.0.0.2", 5, 6, b"down")
    with wires("lan1", "wan1") as (lan, wan), started(topology(), None, ROWS) as run:
        one.run("ip", "link", "set", "wan0", "down")
        sent = send_until(run, lan, packet, lambda: drops(run, "wan", "port_down") >= 5, "drops")
        one.run("ip", "link", "set", "wan0", "up")
        sent += send_until(run, lan, packet, lambda: len(wan.got()) >= 5, "packets again")
        result = run.stop()
    ports = result.summary["ports"]
    assert ports["lan"]["received"] + ports["lan"]["missed"] == sent
    assert ports["wan"]["sent"] == len(wan.got())
    assert set(result.dropped) == {"port_down"}


def test_no_link(one: Bed) -> None:
    """The kernel drops what is sent without a link, and we count it."""
    packet = udp("10.0.0.1", "10.0.0.2", 5, 6, b"no link")
    with wires("lan1", "wan1") as (lan, wan), started(topology(), None, ROWS) as run:
        one.run("ip", "link", "set", "wan1", "down")
        run.until(lambda: "LOWERLAYERDOWN" in one.link("wan0"), what="the loss of the link")
        lan.send([packet] * 100)
        run.until(lambda: drops(run, "wan", "port_error") >= 100, what="drops")
        one.run("ip", "link", "set", "wan1", "up")
        send_until(run, lan, packet, lambda: len(wan.got()) >= 5, "packets again")
        result = run.stop()
    assert result.dropped == {"port_error": 100}


def test_deleted_and_made_again(one: Bed) -> None:
    packet = udp("10.0.0.1", "10.0.0.2", 5, 6, b"gone")
    with wires("lan1") as (lan,), started(topology(), None, ROWS) as run:
        one.run("ip", "link", "del", "wan0")
        send_until(run, lan, packet, lambda: drops(run, "wan", "port_down") >= 100, "drops")
        one.make("wan")
        with wires("wan1") as (wan,):
            send_until(run, lan, packet, lambda: len(wan.got()) >= 5, "packets again")
            many = len(lan.got())
            wan.send([packet] * 7)
            pump(run, "the other way", (lan, many + 7))
            result = run.stop()
            assert "hb_xdp" in one.link("wan0")  # until the data plane is closed
    assert set(result.dropped) <= {"port_down", "port_error"}
    assert result.summary["ports"]["wan"]["detail"] == {
        "mode": "af_xdp on wan0, native, copy mode, 1 queue"
    }
    assert "prog/xdp" not in one.link("wan0")


def test_both_deleted_and_one_made_again(one: Bed) -> None:
    with started(topology(), None, ROWS) as run:
        for end in ("lan0", "wan0"):
            one.run("ip", "link", "del", end)
        one.make("lan")
        run.until(lambda: "hb_xdp" in one.link("lan0"), what="the port to come back")
        result = run.stop()
    assert result.summary["received"] == 0
