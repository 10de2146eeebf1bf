# SPDX-License-Identifier: BSD-3-Clause
"""The firewall against Linux's: the same rules, the same packets, in the same order, and every
verdict the same (tests/kernel_firewall.py). Where the two differ on purpose, a test says so: Linux
6 lets a sender exceed a window by as much again, and passes what is older than a window.

    near (10.0.0.0/24) ── firewall ── far (192.0.2.0/24)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import kernel_firewall
import pytest
from firewall_helpers import Tracked, table_of
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet, Raw

NEAR, FAR = "10.0.0.1", "192.0.2.1"
RULES = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -s 10.0.0.0/24 -p tcp -m tcp --dport 80 -j ACCEPT
-A FORWARD -s 10.0.0.0/24 -p udp -m udp --dport 53 -j ACCEPT
-A FORWARD -s 10.0.0.0/24 -p icmp -m icmp --icmp-type 8 -j ACCEPT
COMMIT
"""

missing = kernel_firewall.missing()
pytestmark = pytest.mark.skipif(missing is not None, reason=f"NOT TESTED: {missing}")

Packets = list[tuple[int, bytes]]


def both(
    folder: Path, packets: Packets, rules: str = RULES, laxer: Collection[int] = ()
) -> list[str]:
    """Our verdicts, which have to be the kernel's; ``laxer``: packets that it alone passes."""
    ours = Tracked(table_of(folder, rules)).run([packet for _, packet in packets])
    theirs = kernel_firewall.forwarded(rules, packets)
    shown = [
        f"{i} {IP(packet).summary()}: {mine}, kernel {'pass' if its else 'drop'}"
        for i, ((_, packet), mine, its) in enumerate(zip(packets, ours, theirs, strict=True))
    ]
    passed = [verdict == "pass" or i in laxer for i, verdict in enumerate(ours)]
    assert passed == theirs and not any(ours[i] == "pass" for i in laxer), "\n".join(shown)
    return ours


class End:
    """One end of a TCP connection, as little as a test needs."""

    def __init__(self, side: int, port: int, isn: int, window: int, scale: int | None) -> None:
        self.side, self.port, self.seq = side, port, isn
        self.window, self.scale = window, scale
        self.peer: End

    def send(self, flags: str, size: int = 0, **fields: int) -> tuple[int, bytes]:
        """A segment; sequence numbers move unless ``seq`` is given."""
        src, dst = (NEAR, FAR) if self.side == 0 else (FAR, NEAR)
        options = [("WScale", self.scale)] if "S" in flags and self.scale is not None else []
        tcp = TCP(
            sport=self.port, dport=self.peer.port, flags=flags, options=options,
            seq=fields.get("seq", self.seq) % 2**32,
            ack=fields.get("ack", self.peer.seq if "A" in flags else 0) % 2**32,
            window=fields.get("window", self.window),
        )  # fmt: skip
        if "seq" not in fields:
            self.seq += size + ("S" in flags) + ("F" in flags)
        return self.side, bytes(IP(src=src, dst=dst) / tcp / Raw(bytes(size)))


def ends(
    scales: tuple[int | None, int | None] = (7, 7), isn: tuple[int, int] = (1000, 900_000)
) -> tuple[End, End]:
    """Client and server."""
    client = End(0, 40000, isn[0], 64000, scales[0])
    server = End(1, 80, isn[1], 28000, scales[1])
    client.peer, server.peer = server, client
    return client, server


def handshake(client: End, server: End) -> Packets:
    return [client.send("S"), server.send("SA"), client.send("A")]


# ---- TCP ---------------------------------------------------------------------------------------


def normal(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """A connection from its beginning to its end."""
    yield from handshake(c, s)
    yield c.send("PA", 300)
    for _ in range(20):
        yield s.send("A", 1400)
        yield c.send("A")
    yield s.send("FA")
    yield c.send("A")
    yield c.send("FA")
    yield s.send("A")


def out_of_window(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """Segments far ahead of, and far behind what they may be; and acknowledgements."""
    yield from handshake(c, s)
    yield c.send("PA", 100)
    yield s.send("A", 1000)
    for away in (10_000_000, 2**31 - 5000, -10_000_000):
        yield s.send("A", 100, seq=s.seq + away)
        yield c.send("A", 100, seq=c.seq + away)
    yield c.send("A", ack=s.seq + 1)
    yield c.send("A", ack=s.seq - 5_000_000)
    yield c.send("A")


def window_edges(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """The last byte that a window allows, and the one behind it."""
    c.scale = s.scale = None
    yield from handshake(c, s)
    yield s.send("A", 10, seq=s.seq + c.window)
    yield s.send("A", 10, seq=s.seq + c.window + 1)
    yield c.send("A", 10, seq=c.seq + s.window + 1)


def scaled(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """More in flight than 64 KiB: what only a scaled window allows."""
    yield from handshake(c, s)
    yield c.send("A", window=65535)
    start = s.seq
    for i in range(0, 1_000_000, 100_000):
        yield s.send("A", 1400, seq=start + i)


def unscaled(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """One end does not scale, so neither does."""
    s.scale = None
    yield from scaled(c, s)


def resets(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """A reset out of the window does nothing; one in it ends the connection."""
    yield from handshake(c, s)
    yield s.send("R", seq=s.seq + 50_000_000)
    yield c.send("A", 10)
    yield s.send("R")


def refused(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """Nobody listens; then somebody does."""
    yield c.send("S")
    yield s.send("RA", seq=0, ack=c.seq)


def wrong_refusal(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """A reset that does not acknowledge the SYN is not of this connection."""
    yield c.send("S")
    yield s.send("SA", ack=c.seq + 77)
    yield s.send("SA")


def bad_flags(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """What no sound sender combines."""
    yield from handshake(c, s)
    for flags in ("", "SF", "SR", "F", "FPU", "SFRPAU", "SAF", "RF"):
        yield c.send(flags, seq=c.seq)
    yield c.send("A")


def no_beginning(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """What cannot begin a connection."""
    yield s.send("SA")
    yield c.send("SA")
    yield c.send("R")
    yield c.send("FA")
    yield s.send("A")
    yield c.send("S")


def midstream(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """It was there before the firewall was."""
    yield s.send("A", 500)
    yield c.send("A", 500)
    yield s.send("A", 500)
    yield c.send("A")
    yield c.send("FA")
    yield s.send("FA")
    yield c.send("A")


def simultaneous(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """Both begin (RFC 9293, figure 7)."""
    yield c.send("S")
    yield s.send("S")
    yield s.send("SA", seq=s.seq - 1)
    yield c.send("SA", seq=c.seq - 1)
    yield c.send("A", 100)
    yield s.send("A", 100)


def retransmitted(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """Everything twice."""
    for packet in normal(c, s):
        yield packet
        yield packet


def zero_window(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """The server has no room; the client probes with one byte."""
    yield from handshake(c, s)
    yield c.send("A", 1000)
    yield s.send("A", window=0)
    yield c.send("A", 1, seq=c.seq)
    yield s.send("A", window=0)
    yield s.send("A", window=1000)
    yield c.send("A", 1000)


def keepalive(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """An old byte, to hear of the other end."""
    yield from handshake(c, s)
    yield c.send("A", 100)
    yield s.send("A")
    yield c.send("A", seq=c.seq - 1)
    yield s.send("A")


def early_data(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """Data before the handshake is over, and a SYN from the wrong end."""
    yield c.send("S")
    yield c.send("A", 100, seq=c.seq)
    yield s.send("SA")
    yield s.send("S", seq=s.seq)
    yield c.send("A", 100)


def half_open(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """The client has restarted and begins anew; the server tells it of the old connection, which it
    resets (RFC 9293, figure 9)."""
    yield from handshake(c, s)
    yield c.send("A", 100)
    yield s.send("A")
    old = c.seq
    yield c.send("S", seq=77_000_000)
    yield s.send("A", ack=old)
    yield c.send("R", seq=old)


def unknown(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """As before, but the firewall has restarted, too."""
    yield c.send("S")
    yield s.send("A", seq=5_000_000, ack=77_000_000)
    yield c.send("R", seq=77_000_000)
    yield c.send("S", seq=c.seq - 1)
    yield s.send("SA")
    yield c.send("A")


def forgotten(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """Both have restarted: the new connection has the ports of the old one."""
    yield from handshake(c, s)
    yield c.send("A", 100)
    c.seq, s.seq = 77_000_000, 88_000_000
    yield c.send("S")
    yield s.send("SA")
    yield c.send("A")
    yield c.send("A", 500)
    yield s.send("A", 500)


def wrapped(c: End, s: End) -> Iterator[tuple[int, bytes]]:
    """Sequence numbers pass 2^32."""
    c.seq, s.seq = 2**32 - 200, 2**32 - 5000
    yield from normal(c, s)


SCENARIOS = (
    normal, out_of_window, window_edges, scaled, unscaled, resets, refused, wrong_refusal,
    bad_flags, no_beginning, midstream, simultaneous, retransmitted, zero_window, keepalive,
    early_data, half_open, unknown, forgotten, wrapped,
)  # fmt: skip


LAXER: dict[Callable[..., Iterator[tuple[int, bytes]]], set[int]] = {
    out_of_window: {5, 9, 10, 11},
    window_edges: {4, 5},
    unscaled: {5},
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_tcp(scenario: Callable[[End, End], Iterator[tuple[int, bytes]]], tmp_path: Path) -> None:
    found = both(tmp_path, list(scenario(*ends())), laxer=LAXER.get(scenario, ()))
    assert "pass" in found


def test_random_segments(tmp_path: Path) -> None:
    """Whatever the ends say: near right sequence numbers, with sound flags. We never pass what the
    kernel drops, and few that it passes are too old or too far ahead for us."""
    rng = random.Random(5)
    packets: Packets = []
    for port in range(40000, 40030):
        client, server = ends((rng.choice((None, 0, 7)), rng.choice((None, 2, 7))))
        client.port = port
        packets += handshake(client, server) if rng.random() < 0.8 else []
        for _ in range(12):
            end = rng.choice((client, server))
            flags = rng.choice(("A", "A", "A", "A", "PA", "FA", "R", "S", "SA"))
            away = rng.choice((0, 0, 0, 0, 0, 1, -1, 3000, -3000))
            if away:
                packets.append(end.send(flags, seq=end.seq + away))
            else:
                packets.append(end.send(flags, 0 if "S" in flags else rng.choice((0, 700))))
            if "R" in flags:
                break
    ours = Tracked(table_of(tmp_path, RULES)).run([packet for _, packet in packets])
    theirs = kernel_firewall.forwarded(RULES, packets)
    more = [i for i, mine in enumerate(ours) if mine == "pass" and not theirs[i]]
    less = [i for i, mine in enumerate(ours) if mine != "pass" and theirs[i]]
    assert not more and len(less) < len(packets) / 20


# ---- other protocols ---------------------------------------------------------------------------


def packet(side: int, l4: Packet, near: str = NEAR, far: str = FAR) -> tuple[int, bytes]:
    src, dst = (near, far) if side == 0 else (far, near)
    return side, bytes(IP(src=src, dst=dst) / l4)


def test_udp(tmp_path: Path) -> None:
    query, answer = UDP(sport=5000, dport=53), UDP(sport=53, dport=5000)
    packets = [packet(1, answer), packet(0, query), packet(1, answer), packet(0, query)]
    packets += [packet(0, UDP(sport=5000, dport=54)), packet(1, UDP(sport=53, dport=5001))]
    assert both(tmp_path, packets).count("pass") == 3


def test_echo(tmp_path: Path) -> None:
    """A reply that nobody has asked for does not pass."""
    request, reply = ICMP(type=8, id=7), ICMP(type=0, id=7)
    packets = [packet(1, reply), packet(0, request), packet(1, reply), packet(1, reply)]
    packets += [packet(1, ICMP(type=8, id=9)), packet(0, ICMP(type=0, id=9))]
    assert both(tmp_path, packets) == ["bad_state", "pass", "pass", "pass", "denied", "bad_state"]


def test_other_protocols(tmp_path: Path) -> None:
    rules = RULES.replace("COMMIT", "-A FORWARD -s 10.0.0.0/24 -p esp -j ACCEPT\nCOMMIT")
    out, back = ((side, bytes(IP(src=s, dst=d, proto=50) / Raw(bytes(40))))
                 for side, s, d in ((0, NEAR, FAR), (1, FAR, NEAR)))  # fmt: skip
    assert both(tmp_path, [back, out, back], rules) == ["denied", "pass", "pass"]


# ---- rules -------------------------------------------------------------------------------------

STATELESS = """*filter
:FORWARD {policy} [0:0]
:web - [0:0]
:deep - [0:0]
-A FORWARD -d 192.0.2.8/29 -p tcp -m tcp --dport 80:90 -j web
-A FORWARD ! -s 10.0.0.64/26 -p udp -m multiport --dports 53,123,1000:2000 -j ACCEPT
-A FORWARD -p udp -m udp ! --sport 1024:65535 -m comment --comment "low ports" -j DROP
-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m multiport --ports 22,443 -j ACCEPT
-A FORWARD ! -p tcp -d 192.0.2.128/25 -j ACCEPT
-A FORWARD -p icmp -m icmp --icmp-type 3/4 -j DROP
-A FORWARD -p icmp -m icmp ! --icmp-type 8 -j ACCEPT
-A FORWARD -s 10.0.0.200/32 -j RETURN
-A FORWARD -p udp -m udp --dport 5000:6000 -j {other}
-A web -s 10.0.0.0/28 -j DROP
-A web -p tcp -m tcp --dport 85 -j deep
-A web -s 10.0.0.0/25 -j ACCEPT
-A deep -s 10.0.0.16/28 -j ACCEPT
-A deep -j RETURN
COMMIT
"""


def some_packet(rng: random.Random) -> tuple[int, bytes]:
    src, dst = (
        f"10.0.0.{rng.randrange(1, 254)}",
        f"192.0.2.{rng.choice((9, 12, rng.randrange(1, 254)))}",
    )
    port = [rng.choice((22, 53, 80, 85, 90, 123, 443, 999, 1000, 2001, 5500, 60000)) for _ in "12"]
    l4 = rng.choice((
        TCP(sport=port[0], dport=port[1], flags=rng.choice(("S", "A", "SA", "PA"))),
        UDP(sport=port[0], dport=port[1]),
        ICMP(type=rng.choice((8, 3, 13)), code=rng.choice((0, 4))),
    ))  # fmt: skip
    return 0, bytes(IP(src=src, dst=dst) / l4)


@pytest.mark.parametrize("policy", ["ACCEPT", "DROP"])
def test_rules_alone(policy: str, tmp_path: Path) -> None:
    """Every kind of match that is implemented, without states."""
    rng = random.Random(3)
    rules = STATELESS.format(policy=policy, other="DROP" if policy == "ACCEPT" else "ACCEPT")
    packets = [some_packet(rng) for _ in range(300)]
    table = table_of(tmp_path, rules, tracking=False)
    ours = Tracked(table).run([packet for _, packet in packets])
    theirs = kernel_firewall.forwarded(rules, packets)
    wrong = [
        (mine, its, IP(packet).summary())
        for mine, its, (_, packet) in zip(ours, theirs, packets, strict=True)
        if (mine == "pass") != its
    ]
    assert not wrong
    assert 50 < ours.count("pass") < 250
