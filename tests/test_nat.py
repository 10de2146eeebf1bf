# SPDX-License-Identifier: BSD-3-Clause
"""The NAT in the real data plane, one behaviour at a time. Scapy says what checksums have to be.

packets ── in0 ── nf0 (nat) ── out0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from chain import Result, capture, line, run_chain, started
from nat_traffic import MACS, NAT, frame
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from test_flow_state import FILES as COUNT_FILES
from test_nat_model import through

A, B, OUT, ROUTER = "10.0.0.1", "10.0.0.2", "198.51.100.7", "192.0.2.77"
ONE = NAT | {"external": ["203.0.113.4"]}
EXTERNAL = "203.0.113.4"
S = 1_000_000_000


def udp(src: str, dst: str, sport: int, dport: int, data: bytes = b"data", **ip: Any) -> bytes:
    return frame(IP(src=src, dst=dst, **ip) / UDP(sport=sport, dport=dport) / data)


def tcp(src: str, dst: str, sport: int, dport: int, flags: str = "S", data: bytes = b"") -> bytes:
    return frame(IP(src=src, dst=dst) / TCP(sport=sport, dport=dport, flags=flags) / data)


def run(packets: Sequence[bytes], times: Any = None, **fields: Any) -> Result:
    return through(list(packets), ONE | fields, times, use="none")[0]


def ends(packet: bytes) -> tuple[str, int, str, int]:
    """Source and destination, ports included."""
    ip = Ether(packet)[IP]
    return ip.src, ip.payload.sport, ip.dst, ip.payload.dport


def port_of(packets: Sequence[bytes], **fields: Any) -> int:
    """The external port of the last of these."""
    return ends(run(packets, **fields).packets[-1])[1]


def rebuilt(packet: bytes) -> bytes:
    """The same packet with every checksum made anew, but for a UDP checksum of 0."""
    copy = Ether(packet)
    for layer in (IP, TCP, ICMP):
        if layer in copy:
            del copy[layer].chksum
    if UDP in copy and copy[UDP].chksum:
        del copy[UDP].chksum
    return bytes(copy)


# ---- translation ---------------------------------------------------------------------------------


def answer(packet: Packet, number: int) -> Packet:
    """What the outside says to a translated one, without its payload."""
    l4: Packet = packet[IP].payload.copy()
    l4.remove_payload()
    del l4.chksum
    if ICMP in packet:
        l4.type = 0
    else:
        l4.sport, l4.dport = l4.dport, l4.sport
    return l4 / bytes(number)


def test_checksums_are_right() -> None:
    """Scapy's; whatever stands in front, and however long."""
    shapes = [
        (tags, options, size)
        for tags in (0, 1, 2)
        for options in ([], [b"\x94\x04\x00\x00"] * 10)
        for size in (0, 1, 999)
    ]
    there = []
    for number, (tags, options, size) in enumerate(shapes, 5):
        for l4 in (TCP(sport=number, flags="PA"), UDP(sport=number), ICMP(id=number)):
            data = Raw(bytes(i % 251 for i in range(size)))
            there.append(frame(IP(src=A, dst=OUT, options=options) / l4 / data, tags))
    out = run(there).packets
    assert len(out) == len(there) and [rebuilt(packet) for packet in out] == out
    back = []
    for packet, (tags, options, size) in zip(
        map(Ether, out), [shape for shape in shapes for _ in range(3)], strict=True
    ):
        back.append(frame(IP(src=OUT, dst=EXTERNAL, options=options) / answer(packet, size), tags))
    answers = run(there + back).packets[len(there) :]
    assert len(answers) == len(back) and [rebuilt(packet) for packet in answers] == answers
    for number, packet in enumerate(map(Ether, answers)):
        l4 = packet[IP].payload
        assert packet[IP].dst == A
        assert (l4.id if ICMP in packet else l4.dport) == 5 + number // 3
        assert packet.haslayer(Dot1Q) == (shapes[number // 3][0] > 0)


def test_a_udp_checksum_of_zero_stays_and_none_becomes_zero() -> None:
    """RFC 768: 0 says that there is none; a sum that is 0 is sent as 0xffff."""
    none = frame(IP(src=A, dst=OUT) / UDP(sport=5, dport=6, chksum=0) / b"x")
    [sent] = map(Ether, run([none]).packets)
    assert sent[UDP].chksum == 0
    first = Ether(run([udp(A, OUT, 5, 6, bytes(2))]).packets[0])
    sum_now = first[UDP].chksum  # as much more in the data makes the sum 0
    becomes = udp(A, OUT, 5, 6, sum_now.to_bytes(2, "big"))
    [sent] = map(Ether, run([becomes]).packets)
    assert sent[UDP].chksum == 0xFFFF
    assert rebuilt(bytes(sent)) == bytes(sent)


def test_mappings_are_endpoint_independent() -> None:
    """RFC 4787 REQ-1: one for an inside address and port, wherever it sends to."""
    remotes = [(f"198.51.100.{n}", port) for n in range(1, 9) for port in (53, 80)]
    out = run([udp(A, host, 5000, port) for host, port in remotes]).packets
    assert len({ends(packet)[:2] for packet in out}) == 1
    others = [udp(A, OUT, 5001, 53), udp(B, OUT, 5000, 53), tcp(A, OUT, 5000, 53)]
    out = run([udp(A, OUT, 5000, 53), *others]).packets
    assert len({ends(packet)[1] for packet in out[:3]}) == 3


def test_a_host_has_one_external_address() -> None:
    """RFC 4787 REQ-2; hosts are spread over all of them."""
    packets = [udp(f"10.0.1.{n}", OUT, port, 53) for n in range(60) for port in (1, 2, 3)]
    out = through(packets, NAT, use="none")[0].packets
    of_host = [{ends(packet)[0] for packet in out[i : i + 3]} for i in range(0, 180, 3)]
    assert all(len(addresses) == 1 for addresses in of_host)
    assert len(set.union(*of_host)) == 5


def test_ports_are_spread_and_depend_on_the_seed() -> None:
    """RFC 6056: an even one somewhere, not one behind the other."""
    packets = [udp(A, OUT, 2 * port, 53) for port in range(1000, 1040)]
    ports, others = (
        [ends(packet)[1] for packet in run(packets, seed=seed).packets] for seed in (1, 2)
    )
    assert all(port % 2 == 0 and port >= 1024 for port in ports + others)
    assert max(ports) - min(ports) > 30_000 and ports != sorted(ports)
    assert not set(ports) & set(others)
    assert ports == [ends(packet)[1] for packet in run(packets, seed=1).packets]


def test_without_a_seed_ports_are_others_each_time() -> None:
    packets = [udp(A, OUT, port, 53) for port in range(1000, 1010)]
    one, other = ({ends(packet)[1] for packet in run(packets, seed=None).packets} for _ in range(2))
    assert one != other


# ---- who may come in -----------------------------------------------------------------------------

FROM = {
    "endpoint-independent": [True, True, True],
    "address-dependent": [True, True, False],
    "address-and-port-dependent": [True, False, False],
}


@pytest.mark.parametrize("filtering", FROM)
@pytest.mark.parametrize("kind", [udp, tcp])
def test_filtering(filtering: str, kind: Any) -> None:
    """RFC 4787 section 5: who was sent to, its address from another port, a stranger."""
    port = port_of([kind(A, OUT, 5000, 53)])
    back = [(OUT, 53), (OUT, 54), ("198.51.100.8", 53)]
    packets = [kind(A, OUT, 5000, 53)]
    packets += [kind(host, EXTERNAL, sport, port) for host, sport in back]
    result, _, report = through(packets, ONE | {"filtering": filtering}, use="none")
    expected = [(host, sport, A, 5000) for host, sport in back]
    assert [ends(packet) for packet in result.packets[1:]] == [
        end for end, may in zip(expected, FROM[filtering], strict=True) if may
    ]
    assert report["filtered"] == result.dropped.get("no_mapping", 0) == 3 - sum(FROM[filtering])


def test_what_nobody_asked_for_stays_outside() -> None:
    scan = [udp(OUT, EXTERNAL, 53, port) for port in range(1, 500)]
    result = run(scan)
    assert (result.packets, result.dropped) == ([], {"no_mapping": 499})


def test_the_inside_is_not_reached_by_its_own_addresses() -> None:
    """Neither before nor after an inside host has sent there; and nobody has our address."""
    direct, ours = udp(OUT, A, 53, 5000), udp(EXTERNAL, OUT, 7, 53)
    result = run([direct, ours, udp(A, OUT, 5000, 53), direct, udp(OUT, EXTERNAL, 53, 7), ours])
    assert result.dropped == {"no_mapping": 5}
    assert len(result.packets) == 1


def test_what_is_none_of_its_business_passes() -> None:
    """Inside to inside, outside to outside, multicast, broadcast: to the byte as they came."""
    pairs = [(A, B), (OUT, "8.8.8.8"), (A, "224.0.0.251"), (A, "255.255.255.255"), ("0.0.0.0", A)]
    packets = [udp(src, dst, 5000, 53) for src, dst in pairs]
    assert run(packets).packets == packets


def test_a_forward() -> None:
    """From outside to an inside server, and what the server answers; nobody is filtered."""
    forward = {"protocol": "tcp", "external": f"{EXTERNAL}:443", "inside": f"{A}:8443"}
    fields = {"forwards": [forward], "filtering": "address-and-port-dependent"}
    packets = [tcp(OUT, EXTERNAL, 999, 443), tcp(A, OUT, 8443, 999, "SA"), tcp(A, OUT, 8443, 5)]
    packets.append(tcp(OUT, EXTERNAL, 999, 444))
    result = run(packets, **fields)
    assert [ends(packet) for packet in result.packets] == [
        (OUT, 999, A, 8443),
        (EXTERNAL, 443, OUT, 999),
        (EXTERNAL, 443, OUT, 5),
    ]
    assert result.dropped == {"no_mapping": 1}


# ---- hairpin -------------------------------------------------------------------------------------


def hairpin_packets(**fields: Any) -> tuple[int, int, list[bytes]]:
    """A and B know each other's external ports, and send."""
    opened = [udp(A, OUT, 5000, 53), udp(B, OUT, 6000, 53)]
    a, b = (ends(packet)[1] for packet in run(opened, **fields).packets)
    return a, b, [*opened, udp(A, EXTERNAL, 5000, b), udp(B, EXTERNAL, 6000, a)]


@pytest.mark.parametrize("filtering", FROM)
def test_hairpin(filtering: str) -> None:
    """RFC 4787 REQ-9: by external addresses, and with the external source. What A sends first may
    not be let in, but it opens the way for B."""
    a, b, packets = hairpin_packets()
    result = run(packets * 2, filtering=filtering)
    seen = [ends(packet) for packet in result.packets if ends(packet)[2] != OUT]
    to_b, to_a = (EXTERNAL, a, B, 6000), (EXTERNAL, b, A, 5000)
    assert seen[-2:] == [to_b, to_a]
    assert len(seen) == (4 if filtering == "endpoint-independent" else 3)
    assert [rebuilt(packet) for packet in result.packets] == result.packets


def test_no_hairpin() -> None:
    assert run(hairpin_packets()[2], hairpin=False).dropped == {"no_mapping": 2}


# ---- ICMP ----------------------------------------------------------------------------------------


def error(by: str, to: str, quoted: bytes, **fields: Any) -> bytes:
    return frame(IP(src=by, dst=to) / ICMP(**({"type": 3, "code": 1} | fields)) / quoted)


def check_error(packet: bytes, by: str, to: str, about: bytes) -> None:
    """Its checksum is right, and it quotes that packet as its sender sent it."""
    sent = Ether(packet)
    assert (sent[IP].src, sent[IP].dst) == (by, to)
    assert rebuilt_error(packet) == packet
    quote = bytes(sent[ICMP].payload)
    assert quote == about[14:][: len(quote)]


def rebuilt_error(packet: bytes) -> bytes:
    copy = Ether(packet)
    del copy[IP].chksum
    raw = Raw(bytes(copy[ICMP]))
    head = ICMP(bytes(raw)[:8] + b"")
    del head.chksum
    return bytes(Ether(**MACS) / IP(bytes(copy[IP])[:20]) / head / Raw(bytes(raw)[8:]))


@pytest.mark.parametrize("by", [OUT, ROUTER])
def test_errors_about_what_went_out(by: str) -> None:
    """RFC 5508 REQ-4: they come to the sender, about the packet as it was when it left there;
    however much of that they quote."""
    l4s = [TCP(sport=5), UDP(sport=5), ICMP(id=5), UDP(sport=6, chksum=0)]
    about = [frame(IP(src=A, dst=OUT) / l4 / bytes(range(40))) for l4 in l4s]
    cases = [
        (number, error(by, EXTERNAL, left[14:][: 20 + size], code=4, nexthopmtu=1400))
        for number, left in enumerate(run(about).packets)
        for size in (8, 18, 20, 60)
    ]
    result, _, report = through([*about, *(packet for _, packet in cases)], ONE, use="none")
    for (number, _), packet in zip(cases, result.packets[4:], strict=True):
        check_error(packet, by, A, about[number])
        assert Ether(packet)[ICMP].nexthopmtu == 1400
    assert report["icmp_errors"] == 16


@pytest.mark.parametrize("size", [8, 40])
@pytest.mark.parametrize("by", [A, B, ROUTER])
def test_errors_about_what_came_in(size: int, by: str) -> None:
    """RFC 5508 REQ-5: they tell nothing of the inside, whoever there sends them."""
    there = udp(A, OUT, 5000, 53)
    back = udp(OUT, EXTERNAL, 53, port_of([there]))
    came = run([there, back]).packets[1]
    result = run([there, back, error(by, OUT, came[14:][: 20 + size], code=3)])
    check_error(result.packets[2], EXTERNAL if by != ROUTER else ROUTER, OUT, back)


def test_errors_about_hairpinned_packets() -> None:
    """RFC 5508 REQ-7: from B to A, about what A sent to the external end of B."""
    _, _, packets = hairpin_packets()
    at_b = run(packets).packets[2]
    result = run([*packets, error(B, EXTERNAL, at_b[14:])])
    check_error(result.packets[4], EXTERNAL, A, packets[2])


def test_errors_that_are_not_believed() -> None:
    """About no packet of ours, a later fragment, or another's; and with a wrong checksum."""
    about = udp(A, OUT, 5000, 53, bytes(100))
    [left] = run([about]).packets
    quote = left[14:]
    foreign = bytes(IP(src=EXTERNAL, dst=OUT) / UDP(sport=7, dport=53))
    later = bytes(IP(src=EXTERNAL, dst=OUT, proto=17, frag=5) / bytes(20))
    other = bytes(IP(src=ROUTER, dst=OUT) / UDP(sport=7, dport=53))
    wrong = bytearray(error(ROUTER, EXTERNAL, quote))
    wrong[36] ^= 1
    packets = [error(ROUTER, EXTERNAL, some) for some in (foreign, later, other, quote[:27])]
    redirect = error(ROUTER, EXTERNAL, quote, type=5, gw=ROUTER)
    result = run([about, *packets, bytes(wrong), redirect])
    assert len(result.packets) == 1
    assert result.dropped == {"no_mapping": 4, "malformed": 1, "bad_checksum": 1}


def test_errors_pass_the_filter_of_who_was_sent_to() -> None:
    """Whoever sends it: the quoted packet has to be one that went there."""
    about = udp(A, OUT, 5000, 53)
    [left] = run([about]).packets
    other = IP(left[14:])
    other.dst = "198.51.100.8"
    del other.chksum
    packets = [about, error(ROUTER, EXTERNAL, left[14:]), error(ROUTER, EXTERNAL, bytes(other))]
    result = run(packets, filtering="address-and-port-dependent")
    assert len(result.packets) == 2 and result.dropped == {"no_mapping": 1}


@pytest.mark.parametrize("ident", [0, 5])
@pytest.mark.parametrize("kinds", [(8, 0), (13, 14), (17, 18)])
def test_queries(kinds: tuple[int, int], ident: int) -> None:
    """RFC 5508 REQ-1: all kinds, and an id of 0 is one like any other."""

    def query(src: str, dst: str, kind: int, number: int) -> bytes:
        l4 = ICMP(bytes([kind, 0, 0, 0]) + number.to_bytes(2, "big") + b"\0\7" * 7)
        del l4.chksum
        return frame(IP(src=src, dst=dst) / l4)

    there = query(A, OUT, kinds[0], ident)
    [left] = run([there]).packets
    number = int.from_bytes(left[38:40], "big")
    assert number >= 1024
    came = run([there, query(OUT, EXTERNAL, kinds[1], number)]).packets[1]
    assert came == query(OUT, A, kinds[1], ident)
    asked = run([there, query(OUT, EXTERNAL, kinds[0], number)])
    assert asked.dropped == {"no_mapping": 1}  # nobody outside may ask


def test_an_error_of_a_router_behind_comes_to_the_sender() -> None:
    """A packet that an NF made is of no flow.

    in0 ── nf0 (nat) ── nf1 (router: TTL 1) ── time exceeded ── nf0 ── out0
    """
    router = {"type": "router", "routes": "r.csv", "mac": MACS["dst"], "addresses": [ROUTER]}
    router["icmp"] = {"type": "errors"}
    source, _ = line(ONE, router)
    rows = "*,in0,nf0\n*,nf0,nf1\n*,nf1,out0\nerrors,nf1,nf0\nerrors,nf0,out0\n"
    about = udp(A, OUT, 5000, 53, ttl=1)
    files = {"r.csv": "prefix,next_hop\n0.0.0.0/0,unreachable\n"}
    result = run_chain(source, [about], rows, files=files, use="none")
    [sent] = result.packets
    ip = Ether(sent)[IP]
    assert (ip.src, ip.dst, ip[ICMP].type) == (ROUTER, A, 11)
    quote = bytes(ip[ICMP].payload)
    assert quote == about[14:][: len(quote)] and len(quote) >= 28


# ---- fragments, protocols without ports ----------------------------------------------------------


def pieces(src: str, dst: str, sport: int, dport: int, size: int = 100) -> list[bytes]:
    whole = IP(src=src, dst=dst, id=77) / UDP(sport=sport, dport=dport) / bytes(range(size))
    return [frame(piece) for piece in fragment(IP(bytes(whole)), 40)]


def joined(packets: Sequence[bytes]) -> Packet:
    """The datagram that these are pieces of."""
    parts = {Ether(p)[IP].frag: bytes(Ether(p)[IP].payload) for p in packets}
    ip = Ether(packets[0])[IP]
    return IP(src=ip.src, dst=ip.dst, proto=ip.proto) / Raw(
        b"".join(parts[n] for n in sorted(parts))
    )


def test_fragments_in_both_directions() -> None:
    there = pieces(A, OUT, 5000, 53)
    out = run(there).packets
    whole = IP(bytes(joined(out)))
    assert (whole.src, whole[UDP].dport) == (EXTERNAL, 53)
    back = pieces(OUT, EXTERNAL, 53, whole[UDP].sport)
    came = IP(bytes(joined(run(there + back).packets[len(there) :])))
    assert (came.dst, came[UDP].sport, came[UDP].dport) == (A, 53, 5000)
    for ip in (whole, came):
        assert rebuilt(bytes(Ether(**MACS) / ip)) == bytes(Ether(**MACS) / ip)


def test_what_comes_before_the_first_fragment_is_dropped() -> None:
    some = pieces(A, OUT, 5000, 53)
    result = run([some[1], some[0], *some[2:]])
    assert result.dropped == {"no_first_fragment": 1}
    assert len(result.packets) == len(some) - 1


def test_a_first_fragment_without_the_whole_header() -> None:
    """RFC 1858: nobody may put another checksum or other flags into the second."""
    tiny = IP(src=A, dst=OUT, flags="MF", proto=6) / bytes(16)
    assert run([frame(tiny)]).dropped == {"malformed": 1}


@pytest.mark.parametrize("protocol", [47, 50, 132])
def test_protocols_without_ports(protocol: int) -> None:
    """One inside host at a time for an external address; the payload stays as it is."""
    first, second = (frame(IP(src=src, dst=OUT, proto=protocol) / bytes(20)) for src in (A, B))
    back = frame(IP(src=OUT, dst=EXTERNAL, proto=protocol) / bytes(20))
    result = run([first, second, back])
    assert [Ether(p)[IP].src for p in result.packets] == [EXTERNAL, OUT]
    assert Ether(result.packets[1])[IP].dst == A
    assert [rebuilt(packet) for packet in result.packets] == result.packets
    assert result.dropped == {"no_port": 1}


# ---- ports run out, and come back ----------------------------------------------------------------


def test_ports_run_out() -> None:
    """A counted drop for each packet that needs one; those that have one go on."""
    packets = [udp(A, OUT, port, 53) for port in range(5000, 5400)]
    result, _, report = through(packets * 2, ONE | {"ports": ["2000-2099"]}, use="none")
    assert len(result.packets) == 200 and result.dropped == {"no_port": 600}
    assert report["no_port"] == 600 and report["full"] == 0 and report["mappings"] == 100
    assert report["ports_free"] == {EXTERNAL: {"tcp": 100, "udp": 0, "icmp": 100}}


def test_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Once in a while, not for each packet."""
    packets = [udp(A, OUT, port, 53) for port in range(5000, 5100)]
    run(packets, ports=["2000-2009"])
    [record] = [record for record in caplog.records if "no free port" in record.message]
    assert record.message.startswith("nf0: packets that found no free port: ")


def test_there_is_no_room_for_a_mapping() -> None:
    packets = [udp(A, OUT, port, 53) for port in range(5000, 5100)]
    result, _, report = through(packets, ONE | {"mappings": 10}, use="none")
    assert len(result.packets) == 10 and result.dropped == {"no_port": 90}
    assert (report["full"], report["no_port"]) == (90, 0)


def test_there_is_no_room_for_a_peer() -> None:
    packets = [udp(A, OUT, 5000, port) for port in range(50, 60)]
    fields = {"filtering": "address-and-port-dependent", "peers": 4}
    result, _, report = through(packets, ONE | fields, use="none")
    assert len(result.packets) == 4 and result.dropped == {"no_port": 6}
    assert (report["full"], report["peers"]) == (6, 4)


def test_a_port_is_used_again_after_its_hold_time() -> None:
    """There is one port. A has it, and keeps it for a second after its flow, which lasts one, too;
    then B gets it, with a packet of the flow that was refused before. In real time."""
    source, rows = line(ONE | {"ports": ["6000"], "hold": {"udp": 1}})
    source["ports"]["in0"]["pace"] = "original"
    source["flows"] = {"timeouts": {"udp": 1}}
    source["memory"] = {"flows": 64}
    plan = [(0.0, A), (0.1, B), (1.4, B), (3.5, B), (3.6, B)]
    packets = [udp(host, OUT, 5000, 53) for _, host in plan]
    packets.append(udp(OUT, EXTERNAL, 53, 6000))
    times = [int((1_700_000_000 + at) * S) for at in [*(at for at, _ in plan), 3.7]]
    result = run_chain(source, packets, rows, times=times, use="none")
    assert result.dropped == {"no_port": 2}
    assert [ends(packet) for packet in result.packets] == [
        *[(EXTERNAL, 6000, OUT, 53)] * 3,
        (OUT, 53, B, 5000),
    ]


def test_the_clock_may_jump() -> None:
    """Back a year, forward ten: a mapping with a flow stays, and nobody gets its port."""
    year, now = 365 * 86400 * S, 1_700_000_000 * S
    times = [now, now + S, now - year, now - year + S, now + 10 * year, now + 10 * year + 1, 1, 2]
    packets = [udp(host, OUT, 5000, 53) for host in (A, B) * 4]
    result = run(packets, times, hold={"udp": 0}, ports=["6000", "6002"])
    by_host = [{ends(packet)[1] for packet in result.packets[n::2]} for n in (0, 1)]
    assert result.dropped == {} and by_host in ([{6000}, {6002}], [{6002}, {6000}])


# ---- flows ---------------------------------------------------------------------------------------

HANDSHAKE = ("S", "SA", "A", "PA", "PA")


def seen_behind(
    packets: list[bytes], device: Mapping[str, Any] | None = None, **fields: Any
) -> dict[tuple[str, str], list[int]]:
    """Packets that an NF behind the NAT saw of each flow: by its ends, of each direction."""
    engine = "gpu" if device else "cpu"
    source, rows = line(ONE | fields | {"engine": engine}, {"type": "./count.py", "engine": engine})
    result = run_chain(source, packets, rows, files=COUNT_FILES, **(device or {"use": "none"}))
    assert result.dropped == {}
    return {
        (f"{f.src}:{f.sport}", f"{f.dst}:{f.dport}"): sorted(f.nfs["nf1"]["packets"])
        for f in result.flows
        if f.nfs.get("nf1")
    }


def handshake() -> list[bytes]:
    """A connection from inside."""
    port = port_of([tcp(A, OUT, 5000, 80)])
    return [
        tcp(A, OUT, 5000, 80, flags, b"x" * 9)
        if number % 2 == 0
        else tcp(OUT, EXTERNAL, 80, port, flags, b"x" * 9)
        for number, flags in enumerate(HANDSHAKE)
    ]


def test_an_nf_behind_sees_one_connection() -> None:
    """That of the inside end, whichever way its packets go."""
    assert seen_behind(handshake()) == {(f"{A}:5000", f"{OUT}:80"): [2, 3]}


def test_an_nf_behind_sees_one_connection_that_came_in() -> None:
    """By a forward: the connection is that of the outside end."""
    forward = {"protocol": "tcp", "external": f"{EXTERNAL}:443", "inside": f"{A}:8443"}
    packets = [
        tcp(OUT, EXTERNAL, 999, 443, flags, b"x" * 9)
        if number % 2 == 0
        else tcp(A, OUT, 8443, 999, flags, b"x" * 9)
        for number, flags in enumerate(HANDSHAKE)
    ]
    seen = seen_behind(packets, forwards=[forward])
    assert seen == {(f"{OUT}:999", f"{EXTERNAL}:443"): [2, 3]}


def test_an_nf_behind_sees_one_connection_that_is_hairpinned() -> None:
    a, b, packets = hairpin_packets()
    talk = [udp(A, EXTERNAL, 5000, b), udp(B, EXTERNAL, 6000, a)] * 3
    seen = seen_behind(packets + talk)
    assert seen[f"{A}:5000", f"{EXTERNAL}:{b}"] == [4, 4]
    assert len(seen) == 3


def test_equal_addresses_in_two_zones() -> None:
    """Two customers with one address have a mapping each; answers, which come in at a port of a
    third zone, join the connection that they belong to."""
    source, rows = line(ONE, {"type": "./count.py", "engine": "cpu"})
    for zone, port in enumerate(("in0", "in1", "in2")):
        source["ports"][port] = {"driver": "pcap", "read": f"{port}.pcap", "zone": zone}
    rows += "*,in1,nf0\n*,in2,nf0\n"
    there = capture([udp(A, OUT, 5000, 53)], [S])

    def go(answers: list[bytes]) -> Result:
        """The answers come 0.3 s later than anything else."""
        first = udp(OUT, "8.8.8.8", 1, 2)
        late = capture([first, *answers], [S, *([S + 3 * S // 10] * len(answers))])
        files = COUNT_FILES | {"in0.pcap": late, "in1.pcap": there, "in2.pcap": there}
        return run_chain(source, [], rows, files=files, use="none")

    source["ports"]["in0"]["pace"] = "original"
    ports = [ends(packet)[1] for packet in go([]).packets if ends(packet)[0] == EXTERNAL]
    assert len(set(ports)) == 2
    result = go([udp(OUT, EXTERNAL, 53, port) for port in ports])
    seen = {f.zone: f.nfs["nf1"]["packets"] for f in result.flows if f.zone and "nf1" in f.nfs}
    assert {zone: sorted(counts) for zone, counts in seen.items()} == {1: [1, 1], 2: [1, 1]}


def test_what_hummingbird_flows_shows() -> None:
    a, b, packets = hairpin_packets()
    source, rows = line(ONE)
    with started(source, packets, rows, use="none") as chain:
        chain.wait()
        shown = {(str(f.src), str(f.dst)): f.nfs["nf0"] for f in chain.engine.flows()}
        chain.stop()
    ends_of_a = f"{A}:5000 <-> {EXTERNAL}:{a}"
    ends_of_b = f"{B}:6000 <-> {EXTERNAL}:{b}"
    assert shown[A, OUT] == {"source": ends_of_a}
    assert shown[A, EXTERNAL] == {"source": ends_of_a, "destination": ends_of_b}


def test_two_nats_in_a_row() -> None:
    """Each translates what the other has; answers go the same way back."""
    carrier = ONE | {"inside": ["203.0.113.0/24"], "external": ["198.18.0.1"], "seed": 2}
    source, _ = line(ONE, carrier)
    source["ports"]["in1"] = {"driver": "pcap", "read": "in1.pcap"}
    source["ports"]["out1"] = {"driver": "pcap", "write": "out1.pcap"}
    rows = "*,in0,nf0\n*,nf0,nf1\n*,nf1,out0\n"
    there = udp(A, OUT, 5000, 53)
    source["types"] = {"back": {"dst": "198.18.0.1"}}
    rows += "back,in0,nf1\nback,nf1,nf0\nback,nf0,out1\n*,in1,nf0\n"
    files = {"in1.pcap": capture([])}
    [left] = run_chain(source, [there], rows, files=files, use="none").packets_of("out0")
    src, port, _, _ = ends(left)
    assert src == "198.18.0.1"
    back = udp(OUT, src, 53, port)
    result = run_chain(source, [there, back], rows, files=files, use="none")
    [came] = result.packets_of("out1")
    assert ends(came) == (OUT, 53, A, 5000)


BACK_PY = """\
from hummingbird.nfs import Nf, Writes
NF = Nf("back", writes=Writes.HEADER)
"""
BACK_CL = """\
static hb_u32 hb_nf_back(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)arg, (void)result;
    if (hb_get32(p, p->l3 + 12) == 0xc6336407) { /* from 198.51.100.7 */
        hb_put32(p, p->l3 + 16, 0xcb007104);     /* to 203.0.113.4 ... */
        hb_put16(p, p->l4 + 2, PORT);            /* ... and its port */
    }
    return HB_PASS;
}
"""


def test_answers_that_have_joined_their_connection_before_the_nat() -> None:
    """An NF in front has made them packets of the connection's own flow: they are translated back,
    and still nobody reaches the inside by its own addresses."""
    there, direct = udp(A, OUT, 5000, 53), udp(OUT, A, 53, 5000)
    port = port_of([there])
    source, rows = line({"type": "./back.py", "engine": "cpu"}, ONE)
    files = {"back.py": BACK_PY, "back.cl": BACK_CL.replace("PORT", str(port))}
    result = run_chain(source, [there, direct], rows, files=files, use="none")
    # ... to the byte, checksums too, but for those that the NF in front left wrong
    assert [ends(packet) for packet in result.packets] == [
        (EXTERNAL, port, OUT, 53),
        (OUT, 53, A, 5000),
    ]
