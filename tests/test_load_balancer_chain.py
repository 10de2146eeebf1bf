# SPDX-License-Identifier: BSD-3-Clause
"""The load balancer in the real data plane: what comes out is what the plain Python model says, and
its checksums are scapy's.

    packets ── in0 ── nf0 (load_balancer) ── out0
"""

from __future__ import annotations

import os
import struct
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import line, run_chain
from ipsec_chains import LEFT, RIGHT
from load_balancer_helpers import (
    BALANCER,
    CLIENT_MAC,
    FILE,
    OWN_MAC,
    detail,
    ends,
    expected,
    flows_of,
    flows_of_model,
    model_of,
    packet,
    pieces_of_six,
    rebuilt,
    requests,
    through,
    traffic,
)
from load_balancer_model import updated
from scapy.layers.inet import ICMP, IP, defragment, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import rdpcap

DEMO = Path(__file__).parent.parent / "policies" / "demo" / "branch.pcap"
WEB = ["10.0.1.1", "10.0.1.2", "10.0.1.3"]


# ---- as the model --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_generated_traffic_is_as_in_the_model(seed: int) -> None:
    packets = traffic(np.random.default_rng(seed), 4000)
    model, result = model_of(), through(packets)
    out, dropped = expected(model, packets)
    assert result.packets == out and result.dropped == dropped
    assert {"no_backend", "no_first_fragment"} == set(dropped)
    assert flows_of(result) == flows_of_model(model)
    modes = Counter(flow["mode"] for flow in flows_of(result).values())
    assert {"dnat", "ipip", "reply", "pass"} <= set(modes)
    assert [rebuilt(one) for one in result.packets] == result.packets


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="NOT TESTED: there is one CPU")
def test_several_cores_are_as_one() -> None:
    """The same packets come out, and the same flows are known."""
    packets = traffic(np.random.default_rng(3), 3000)
    a, b = sorted(os.sched_getaffinity(0))[:2]
    cores = {"io": [a], "nf": {"nf0": [a, b]}}
    one, several = through(packets), through(packets, cores=cores)
    assert Counter(several.packets) == Counter(one.packets)
    assert several.dropped == one.dropped and flows_of(several) == flows_of(one)


def test_the_demo_s_capture_is_as_in_the_model() -> None:
    """Its servers become virtual ones; what there is of their answers is none of backends'."""
    services = {
        "web": {"address": "203.0.113.10", "protocol": "tcp", "port": "any"},
        "voice": {"address": "203.0.113.20", "protocol": "udp", "port": "16384-16499"},
        "dns": {"address": "203.0.113.53", "protocol": "udp", "port": 53, "mode": "ipip"},
    }
    file = "service,address,port,weight,state,mac\n" + "".join(
        f"{service},10.9.{n}.{host},,{host},,\n"
        for n, service in enumerate(services)
        for host in (1, 2, 3)
    )
    model = model_of(file, BALANCER | {"services": services})
    packets = [bytes(one) for one in rdpcap(str(DEMO))]
    result = through(packets, file, services=services)
    out, dropped = expected(model, packets)
    assert (result.packets, result.dropped) == (out, dropped)
    assert flows_of(result) == flows_of_model(model)
    right = [rebuilt(one) == one for one in packets]
    assert all(right), "then the packets that come out can be checked, too"
    assert [rebuilt(one) for one in result.packets] == result.packets
    assert sum(a != b for a, b in zip(packets, result.packets, strict=True)) > 300


def test_the_shipped_topology() -> None:
    """policies/load_balancer.yaml with the demo's capture."""
    result = run_chain(DEMO.parent.parent / "load_balancer.yaml", DEMO, use="none")
    assert [rebuilt(one) for one in result.packets] == result.packets
    found = result.summary["nfs"]["lb0"]["detail"]["services"]
    assert {name: one["flows"] > 0 for name, one in found.items()} == dict.fromkeys(found, True)
    assert found["web"]["backends"]["10.80.0.3:8080"]["flows"] == 0
    tunnels = [one for one in map(Ether, result.packets) if IP in one and one[IP].proto == 4]
    assert {one[IP].dst for one in tunnels} <= {"10.16.0.1", "10.16.0.2"} and len(tunnels) > 200


def test_many_services_are_told_apart() -> None:
    """Neighbouring addresses, protocols and ranges of ports; packets to their edges and beyond."""
    rng = np.random.default_rng(5)
    services: dict[str, dict[str, Any]] = {}
    file, packets = FILE.split("\n")[0] + "\n", []
    for address in range(1, 30):
        for protocol in ("tcp", "udp"):
            first = int(rng.integers(1, 50))
            while first < 120:
                last = first + int(rng.integers(0, 30)) * int(rng.integers(2))
                name = f"s{len(services)}"
                services[name] = {
                    "address": f"203.0.113.{address}",
                    "protocol": protocol,
                    "port": str(first) if first == last else f"{first}-{last}",
                }
                number = len(services)
                file += f"{name},10.1.{number >> 8}.{number & 255},,,,\n"
                for port in (first - 1, first, last, last + 1):
                    packets.append((address, port, protocol == "udp"))
                first = last + 1 + int(rng.integers(1, 40))
    data = [bytes(packet(f"203.0.113.{a}", port, udp=udp)) for a, port, udp in packets]
    model = model_of(file, BALANCER | {"services": services, "table_size": 251})
    result = through(data, file, services=services, table_size=251)
    assert result.packets == expected(model, data)[0]
    assert (
        len(services) > 150
        and 0.3 < sum(a != b for a, b in zip(data, result.packets, strict=True)) / len(data) < 0.9
    )


def test_a_restart_changes_nothing() -> None:
    packets = requests(300)
    assert through(packets).packets == through(packets).packets


def test_every_checksum_is_updated_rightly() -> None:
    """Random contents, so that every carry occurs; a UDP checksum that comes to 0 is sent as
    0xffff (RFC 768), one that is 0 stays."""
    rng = np.random.default_rng(1624)
    packets = []
    for number in range(3000):
        one = packet("203.0.113.10", 53, src="198.51.100.7", sport=number + 1, udp=True, size=0)
        packets.append(bytes(one / Raw(rng.bytes(int(rng.integers(2, 9))))))
    aimed = bytearray(packets[0])  # a checksum that becomes 0, by what becomes of others
    result = through(packets)
    assert [rebuilt(one) for one in result.packets] == result.packets
    before, after = bytes(aimed[30:34]), result.packets[0][30:34]
    ports = bytes(aimed[36:38]), result.packets[0][36:38]
    for wanted in range(1, 0x10000):  # the payload that makes it 0
        change = updated(wanted, before + ports[0], after + ports[1])
        if change in (0, 0xFFFF):
            aimed[40:42] = wanted.to_bytes(2, "big")
            [out] = through([bytes(aimed)]).packets
            assert out[40:42] == b"\xff\xff"
            break
    else:
        pytest.fail("no checksum leads to 0")


def test_weights_share_the_flows_out() -> None:
    found = detail(through(requests(4000)))["services"]["web"]
    flows = {name: one["flows"] for name, one in found["backends"].items()}
    assert sum(flows.values()) == found["flows"] == 4000
    assert flows == {
        "10.0.1.1:8443": pytest.approx(1000, rel=0.12),
        "10.0.1.2:8443": pytest.approx(2000, rel=0.08),
        "10.0.1.3:443": pytest.approx(1000, rel=0.12),
    }


def test_a_client_stays_with_its_backend_where_that_is_asked_for() -> None:
    packets = [
        bytes(packet("203.0.113.10", 53, src=f"198.51.100.{host}", sport=port, udp=True))
        for host in range(1, 60)
        for port in range(2000, 2010)
    ]
    chosen: dict[str, set[str]] = defaultdict(set)
    for one in through(packets).packets:
        src, _, dst, _ = ends(one)
        chosen[src].add(dst)
    assert all(len(backends) == 1 for backends in chosen.values())
    assert {one for backends in chosen.values() for one in backends} == {"10.0.2.1", "10.0.2.2"}


# ---- which packets are ours ----------------------------------------------------------------------


def test_what_is_of_no_service_passes_as_it_is() -> None:
    """Other ports, protocols, echo, ARP; and what talks to a backend itself, with its answers."""
    to = Ether(src=CLIENT_MAC, dst=OWN_MAC)
    packets = [
        bytes(packet("203.0.113.10", 80)),
        bytes(packet("203.0.113.10", 443, udp=True)),
        bytes(to / IP(src="198.51.100.1", dst="203.0.113.10") / ICMP()),
        bytes(to / IP(src="198.51.100.1", dst="203.0.113.10", proto=132) / Raw(b"x" * 20)),
        bytes.fromhex("ffffffffffff 020000000001 0806") + bytes(28),
        bytes(packet("10.0.1.1", 8443, sport=5000)),
        bytes(packet("198.51.100.1", 5000, src="10.0.1.1", sport=8443)),
        bytes(packet("198.51.100.1", 5000, src="10.0.1.1", sport=9999)),
    ]
    result = through(packets)
    assert (result.packets, result.dropped) == (packets, {})


def test_the_virtual_address_s_own_packets_pass() -> None:
    """A backend behind a tunnel answers its client without the load balancer, or through it."""
    request = packet("203.0.113.12", 7, sport=5000, udp=True)
    answer = packet("198.51.100.1", 5000, src="203.0.113.12", sport=7, udp=True)
    one = through([bytes(request), bytes(answer)]).packets
    other = through([bytes(answer), bytes(request)]).packets
    assert one[1] == other[0] == bytes(answer)
    assert one[0] == other[1] and IP in Ether(one[0]) and Ether(one[0])[IP].proto in (4, 41)


def test_a_reply_comes_from_the_virtual_address() -> None:
    there = packet("203.0.113.10", 443, sport=5000)
    [out] = through([bytes(there)]).packets
    _, _, backend, port = ends(out)
    back = packet("198.51.100.1", 5000, src=backend, sport=port)
    [_, reply] = through([bytes(there), bytes(back)]).packets
    assert ends(reply) == ("203.0.113.10", 443, "198.51.100.1", 5000)
    assert reply == rebuilt(reply) and reply[:12] == bytes(back)[:12]


def test_a_packet_without_a_flow_is_balanced_alike() -> None:
    """As what comes out of an IPsec tunnel: none of its own flow is known."""
    sa = {"src": LEFT, "dst": RIGHT, "spi": 4096, "cipher": "aes-128-gcm", "key_file": "sa.key"}
    key = {"sa.key": f"encryption: {'0b' * 20}\n"}
    away: dict[str, Any] = {
        "type": "ipsec",
        "engine": "cpu",
        "sas": {"sa": sa | {"direction": "out"}},
    }
    home: dict[str, Any] = away | {"sas": {"sa": sa | {"direction": "in"}}}
    away |= {"policies": [{"action": "sa"}]}
    home |= {"policies": [{"action": "sa"}]}
    rng = np.random.default_rng(8)
    packets = [one for one in traffic(rng, 900) if len(one) < 1000 and one[12:14] != b"\x81\x00"]
    packets = [one for one in packets if Ether(one)[1].fields.get("frag", 0) == 0]
    packets = [one for one in packets if not _is_piece(one)][:400]
    source, rows = line(away)
    sealed = run_chain(source, packets, rows, files=key, use="none").packets
    source, rows = line(home, BALANCER)
    files = {**key, "backends.csv": FILE}
    result = run_chain(source, sealed, rows, files=files, use="none")
    model = model_of(balancer=BALANCER | {"seed": 0})
    model.seed = _crc("nf1")
    out, dropped = expected(model, packets)
    model.flows.clear()
    assert Counter(_behind_link(one) for one in result.packets) == Counter(map(_behind_link, out))
    assert result.dropped == dropped
    found = result.summary["nfs"]["nf1"]["detail"]
    assert found["without_flow"] == len(packets)
    assert sum(one["flows"] for one in found["services"].values()) == 0
    nf1, out0 = (result.snapshot.nodes[result.topology.nodes.index(n)] for n in ("nf1", "out0"))
    assert nf1["out_bytes"] == out0["out_bytes"] == sum(map(len, result.packets))


def _crc(name: str) -> int:
    import zlib

    return zlib.crc32(name.encode())


def _is_piece(data: bytes) -> bool:
    one = Ether(data)
    return bool(one[IP].flags.MF) if IP in one else one[IPv6].nh == 44


def _behind_link(data: bytes) -> bytes:
    return data[12:]


# ---- fragments -----------------------------------------------------------------------------------


def fragmented(sport: int, six: bool = False) -> list[bytes]:
    """A datagram to a service, in pieces."""
    if six:
        whole = packet("2001:db8::10", 80, sport=sport, size=500)
        return pieces_of_six(whole, sport)
    whole = packet("203.0.113.10", 443, sport=sport, size=500, id=sport)
    return [bytes(one) for one in fragment(Ether(bytes(whole)), 200)]


def test_pieces_go_where_the_connection_goes() -> None:
    """All to one backend, the connection's; together they are the packet that it would have got."""
    for sport in range(2000, 2008):
        whole = bytes(packet("203.0.113.10", 443, sport=sport, size=500, id=sport))
        result = through([whole, *fragmented(sport)])
        [first, *pieces] = [Ether(one) for one in result.packets]
        [together] = defragment([piece[IP] for piece in pieces])
        first[IP].flags = together.flags
        assert bytes(first[IP]) == bytes(IP(rebuilt(bytes(first)[:14] + bytes(together))[14:]))
        assert {piece.dst for piece in pieces} == {first.dst}


def test_pieces_alone_go_by_the_same_hash() -> None:
    for six in (False, True):
        for sport in range(2000, 2006):
            model, pieces = model_of(), fragmented(sport, six)
            assert through(pieces).packets == expected(model, pieces)[0]


def test_a_piece_before_the_first_one_is_dropped() -> None:
    for six in (False, True):
        first, *rest = fragmented(3000, six)
        result = through([rest[0], first, *rest])
        assert result.dropped == {"no_first_fragment": 1}
        assert len(result.packets) == 1 + len(rest)
        assert detail(result)["no_first"] == 1


def test_a_first_piece_too_short_for_a_checksum_is_dropped() -> None:
    """RFC 1858: the TCP checksum would lie in the second one."""
    whole = packet("203.0.113.10", 443, size=100, id=1)
    tiny = [bytes(one) for one in fragment(Ether(bytes(whole)), 16)]
    result = through(tiny)
    assert result.dropped == {"malformed": 1} and len(result.packets) == len(tiny) - 1


# ---- tunnels -------------------------------------------------------------------------------------


def test_what_is_too_big_for_a_tunnel() -> None:
    """With DF, or in IPv6: an error from the virtual address with what fits. Else it is cut."""
    file = "service,address,port,weight,state,mac\ntube,10.0.4.1,,,,\ntube6,2001:db8:5::1,,,,\n"
    four = packet("203.0.113.12", 7, udp=True, size=1460, flags="DF")
    six = packet("2001:db8::12", 80, size=1420)
    result = through([bytes(four), bytes(six)], file)
    assert result.dropped == {"too_big": 2}
    one, other = (Ether(data) for data in result.packets)
    assert (one.src, one.dst) == (OWN_MAC, CLIENT_MAC)
    assert (one[IP].src, one[IP].dst) == ("203.0.113.12", "198.51.100.1")
    assert (one[ICMP].type, one[ICMP].code, one[ICMP].nexthopmtu) == (3, 4, 1480)
    assert (other[IPv6].src, other[ICMPv6PacketTooBig].mtu) == ("2001:db8::12", 1460)
    assert [rebuilt(data) for data in result.packets] == result.packets
    assert detail(result)["icmp_errors"] == 2

    big = packet("203.0.113.12", 7, udp=True, size=1460)
    result = through([bytes(big)] * 3, file)
    assert result.dropped == {} and len(result.packets) == 6
    assert detail(result)["fragmented"] == 3
    pieces = [Ether(data)[IP] for data in result.packets]
    assert all(piece.len <= 1500 for piece in pieces)
    assert len({piece.id for piece in pieces}) == 3
    for whole in defragment(pieces):
        assert bytes(whole.payload) == bytes(big[IP])


def test_errors_about_tunnels_are_limited() -> None:
    big = [bytes(packet("203.0.113.12", 7, udp=True, size=1460, flags="DF"))] * 500
    found = detail(through(big, icmp={"rate": 10}))
    assert found["icmp_errors"] < 30
    assert found["icmp_errors"] + found["icmp_suppressed"] == 500


# ---- ICMP errors ---------------------------------------------------------------------------------


def error_about(quoted: Packet, src: str, dst: str, **fields: Any) -> Packet:
    """An ICMP error that quotes a packet."""
    link = Ether(src=CLIENT_MAC, dst=OWN_MAC)
    if IPv6 in quoted:
        quote = Raw(bytes(quoted[IPv6])[:1000])
        return link / IPv6(src=src, dst=dst) / ICMPv6PacketTooBig(mtu=1300) / quote
    quote = Raw(bytes(quoted[IP])[: fields.pop("quote", 548)])
    return link / IP(src=src, dst=dst) / ICMP(type=3, code=4, nexthopmtu=1300) / quote


def quoted_in(data: bytes) -> Any:
    """The packet that an error quotes."""
    error = Ether(data)
    six = IPv6 in error
    raw = bytes(error[ICMPv6PacketTooBig].payload if six else error[ICMP].payload)
    return IPv6(raw) if six else IP(raw)


@pytest.mark.parametrize("quote", [28, 40, 548])
def test_an_error_from_a_client_s_side_goes_to_the_backend(quote: int) -> None:
    """A router on the way to the client takes only smaller packets: the backend is to know."""
    for sport in range(5000, 5004):
        request = packet("203.0.113.10", 443, sport=sport)
        answer = packet("198.51.100.1", sport, src="203.0.113.10", sport=443, size=1300)
        error = error_about(answer, "192.0.2.77", "203.0.113.10", quote=quote)
        for packets in ([request, error], [error]):  # also where the connection is not known
            result = through([bytes(one) for one in packets])
            sent = Ether(result.packets[-1])
            _, _, backend, port = ends(through([bytes(request)]).packets[0])
            assert (sent[IP].src, sent[IP].dst) == ("192.0.2.77", backend)
            inner = quoted_in(bytes(sent))
            assert (inner.src, inner.dst) == (backend, "198.51.100.1")
            ports = struct.unpack(">2H", bytes(inner.payload)[:4])
            assert ports == (port, sport)
            assert bytes(sent) == rebuilt(bytes(sent))
            assert detail(result)["icmp_translated"] == 1


def test_an_error_from_a_backend_s_side_is_about_the_virtual_address() -> None:
    request = packet("203.0.113.10", 443, sport=5000, size=800, flags="DF")
    [inside] = through([bytes(request)]).packets
    _, _, backend, _ = ends(inside)
    for source in ("192.0.2.88", backend):
        error = error_about(Ether(inside), source, "198.51.100.1")
        [sent] = through([bytes(error)]).packets
        shown = "203.0.113.10" if source == backend else source
        assert (Ether(sent)[IP].src, Ether(sent)[IP].dst) == (shown, "198.51.100.1")
        assert sent[42:] == bytes(request)[14:][:548]
        assert sent == rebuilt(sent)


def test_an_error_about_a_connection_to_the_backend_itself_passes() -> None:
    direct = packet("10.0.1.1", 8443, sport=5000, size=800)
    error = error_about(direct, "192.0.2.88", "198.51.100.1")
    packets = [bytes(direct), bytes(error)]
    assert through(packets).packets == packets


def test_errors_in_ipv6_both_ways() -> None:
    request = packet("2001:db8::10", 80, sport=5000, size=600)
    [inside] = through([bytes(request)]).packets
    backend = Ether(inside)[IPv6].dst
    error = error_about(Ether(inside), "2001:db8:77::1", "2001:db8:c::1")
    answer = packet("2001:db8:c::1", 5000, src="2001:db8::10", sport=80, size=600)
    other = error_about(answer, "2001:db8:78::1", "2001:db8::10")
    one, two = through([bytes(error), bytes(other)]).packets
    assert bytes(quoted_in(one)) == bytes(request[IPv6])
    inner = quoted_in(two)
    assert (Ether(two)[IPv6].dst, inner.src, inner.sport) == (backend, backend, 8080)
    assert rebuilt(one) == one and rebuilt(two) == two


def test_an_error_about_a_tunnelled_connection_goes_through_the_tunnel() -> None:
    request = packet("203.0.113.12", 7, sport=5000, udp=True)
    answer = packet("198.51.100.1", 5000, src="203.0.113.12", sport=7, udp=True)
    error = error_about(answer, "192.0.2.77", "203.0.113.12")
    one, two = map(Ether, through([bytes(request), bytes(error)]).packets)
    layer = IP if IP in one and one[IP].proto == 4 else one[1].__class__
    assert one[layer].dst == two[layer].dst
    assert bytes(two).endswith(bytes(error[IP]))
    assert bytes(two) == rebuilt(bytes(two))


def test_errors_about_others_pass_as_they_are() -> None:
    stranger = packet("198.51.100.1", 5000, src="203.0.113.99", sport=443)
    errors = [
        error_about(stranger, "192.0.2.77", "203.0.113.99"),
        error_about(packet("198.51.100.1", 5, src="203.0.113.10", sport=443), "1.2.3.4", "9.9.9.9"),
        Ether() / IP(src="192.0.2.77", dst="203.0.113.10") / ICMP(type=3, code=4) / Raw(b"E" * 27),
        Ether() / IP(src="192.0.2.77", dst="203.0.113.10") / ICMP(type=3) / IP(proto=6, frag=5),
        Ether()
        / IPv6(src="2001:db8::7", dst="2001:db8::10")
        / ICMPv6DestUnreach()
        / Raw(b"`" * 44),
    ]
    data = [bytes(one) for one in errors]
    assert through(data).packets == data
