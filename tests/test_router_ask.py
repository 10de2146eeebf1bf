# SPDX-License-Identifier: BSD-3-Clause
"""The router asks for Ethernet addresses that it does not know: whom, as whom, in which words. How
often, and between hosts that answer, is shown by test_live_router.py.

    packets ── in0 ── nf0 (router, ask: true) ── out0: what is forwarded, and questions
    answers ── in1 ────'
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import Result, capture, line, run_chain, started
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from hummingbird import policy, topology
from hummingbird.errors import UserError
from hummingbird.nfs import router_host
from hummingbird.opencl.device import choose

POLICIES = Path(__file__).parent.parent / "policies"
SENDER, SELF, LAN, TAUGHT = (f"02:00:00:00:00:0{n}" for n in (1, 2, 3, 9))
OWN = ["10.0.0.254", "192.0.2.254", "2001:db8::fe", "2001:db8:5::fe", "fe80::fe"]
ROUTES = """prefix,next_hop
203.0.113.0/24,10.0.0.9
192.0.2.0/24,attached@lan
2001:db8:1::/48,fe80::9@lan
2001:db8:5::/64,attached
198.51.100.0/24,10.0.0.8|10.0.0.8@lan
"""
ROUTER: dict[str, Any] = {
    "type": "router",
    "engine": "cpu",
    "routes": "table.csv",
    "mac": SELF,
    "interfaces": {"lan": {"mac": LAN}},
    "addresses": OWN,
    "ask": True,
}


def packet(dst: str, *tags: Packet) -> Packet:
    """UDP to an address of either family."""
    whole: Packet = Ether(src=SENDER, dst=SELF)
    for tag in tags:
        whole = whole / tag
    ip = IPv6(src="2001:db8:7::1", dst=dst) if ":" in dst else IP(src="10.0.7.7", dst=dst)
    return whole / ip / UDP(sport=1000, dport=2000)


def run(packets: list[Packet], engine: str = "cpu", **fields: Any) -> Result:
    source, rows = line(ROUTER | {"engine": engine} | fields)
    data = [bytes(one) for one in packets]
    device = {"use": "auto", "executor": "launch"} if engine == "gpu" else {"use": "none"}
    return run_chain(source, data, rows, files={"table.csv": ROUTES}, **device)


def who_has(target: str, own: str, mac: str, *tags: Packet) -> bytes:
    """scapy's ARP request, in a frame of at least 60 bytes."""
    whole: Packet = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
    for tag in tags:
        whole = whole / tag
    return bytes(whole / ARP(op=1, hwsrc=mac, psrc=own, pdst=target)).ljust(60, b"\0")


def solicit(target: str, group: str, own: str, mac: str) -> bytes:
    """scapy's neighbour solicitation."""
    ether = Ether(src=mac, dst="33:33:" + ":".join(f"{b:02x}" for b in group_bytes(group)))
    ip = IPv6(src=own, dst=group, hlim=255)
    return bytes(ether / ip / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=mac))


def group_bytes(group: str) -> bytes:
    """What of an IPv6 group stands in its Ethernet address (RFC 2464)."""
    return ipaddress.IPv6Address(group).packed[12:]


def questions_in(result: Result) -> int:
    """How often one may be asked for in a run: once, unless it took more than a second."""
    return 1 + int(result.summary["seconds"])


WORDS = {
    "a next hop": ("203.0.113.5", who_has("10.0.0.9", OWN[0], SELF)),
    "one of a group": ("198.51.100.5", None),
    "a host": ("192.0.2.77", who_has("192.0.2.77", OWN[1], LAN)),
    "a next hop, IPv6": ("2001:db8:1::5", solicit("fe80::9", "ff02::1:ff00:9", OWN[4], LAN)),
    "a host, IPv6": (
        "2001:db8:5::ab:cdef",
        solicit("2001:db8:5::ab:cdef", "ff02::1:ffab:cdef", OWN[3], SELF),
    ),
}


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
@pytest.mark.parametrize(("dst", "words"), WORDS.values(), ids=WORDS)
def test_the_words(dst: str, words: bytes | None, engine: str) -> None:
    """One question for many packets, and nobody is told of a host that is unreachable."""
    if engine == "gpu" and choose("auto") is None:
        pytest.skip("NOT TESTED on a device: there is none")
    result = run([packet(dst)] * 20, engine)
    assert result.dropped == {"no_neighbour": 20}
    assert result.summary["created"] <= questions_in(result)
    detail = result.summary["nfs"]["nf0"]["detail"]
    assert (detail["asked"], detail["icmp_errors"]) == (result.summary["created"], 0)
    [question] = set(result.packets)
    if words is None:
        words = who_has("10.0.0.8", OWN[0], Ether(question).src)
    assert question == words


@pytest.mark.parametrize("tags", [[Dot1Q(vlan=7, prio=5)], [Dot1AD(vlan=3), Dot1Q(vlan=7)]])
def test_with_the_tags_of_the_packet(tags: list[Packet]) -> None:
    result = run([packet("203.0.113.5", *tags)])
    assert result.packets == [who_has("10.0.0.9", OWN[0], SELF, *tags)]


def test_neighbours_are_asked_for_each_by_itself() -> None:
    """A whole network, packet by packet: no more questions than neighbours, and hardly fewer."""
    result = run([packet(f"192.0.2.{n}") for n in range(1, 200)] * 3)
    asked = [Ether(one)[ARP].pdst for one in result.packets]
    assert set(asked) <= {f"192.0.2.{n}" for n in range(1, 200)}
    assert max(Counter(asked).values()) <= questions_in(result)
    assert len(set(asked)) > 150  # some share a place among those that are asked for


def test_nobody_is_asked_without_an_address_of_the_family() -> None:
    result = run([packet("2001:db8:1::5")], addresses=OWN[:2])
    assert result.summary["created"] == 0 and result.dropped == {"no_neighbour": 1}


def test_a_router_that_does_not_ask_says_so_at_once() -> None:
    result = run([packet("203.0.113.5")], ask=False)
    [error] = map(Ether, result.packets)
    assert (error[ICMP].type, error[ICMP].code) == (3, 1)


# ---- with answers --------------------------------------------------------------------------------


def answered(rate: float | None) -> tuple[dict[str, Any], str, dict[str, str | bytes]]:
    """Packets for ever, and an answer beside them: once, or at a rate."""
    source, rows = line(ROUTER)
    source["ports"]["in0"] = {"driver": "pcap", "read": "$in", "loop": 0, "rate": 500}
    again = {"loop": 0, "rate": rate} if rate else {}
    source["ports"]["in1"] = {"driver": "pcap", "read": "teach.pcap", **again}
    reply = Ether(src=TAUGHT, dst=SELF) / ARP(op=2, hwsrc=TAUGHT, psrc="10.0.0.9", pdst=OWN[0])
    files: dict[str, str | bytes] = {"table.csv": ROUTES, "teach.pcap": capture([bytes(reply)])}
    return source, rows + "*,in1,nf0\n", files


def detail(run: Any) -> Any:
    """Of the router, now."""
    return run.engine.hosts["nf0"].report()


def test_one_that_does_not_answer_any_more_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its packets go there until then."""
    caplog.set_level("INFO", "hummingbird")
    monkeypatch.setattr(router_host, "SURE_S", 0.3)
    monkeypatch.setattr(router_host, "SILENT_S", 1e9)  # it is not forgotten yet
    monkeypatch.setattr(router_host, "LOOK_S", 0.05)
    source, rows, files = answered(None)
    with started(source, [bytes(packet("203.0.113.5"))], rows, files=files, use="none") as run:
        run.until(lambda: detail(run)["learned"] == {"10.0.0.9": TAUGHT}, what="a neighbour")
        before = int(run.counters("nf0")["dropped"])
        run.until(lambda: detail(run)["asked"] >= 3, what="three questions")
        assert int(run.counters("nf0")["dropped"]) <= before + 1  # the answer itself
        monkeypatch.setattr(router_host, "SILENT_S", 3.0)
        run.until(lambda: detail(run)["learned"] == {}, what="it to be forgotten")
        run.until(lambda: detail(run)["icmp_errors"] > 0, what="senders to be told")
        result = run.stop()
    assert "neighbour 10.0.0.9 does not answer any more" in caplog.text
    assert result.summary["nfs"]["nf0"]["detail"]["unresolved"] >= 1
    questions = [one for one in result.packets if one == who_has("10.0.0.9", OWN[0], SELF)]
    assert len(questions) == result.summary["nfs"]["nf0"]["detail"]["asked"] >= 4


def test_one_that_answers_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hummingbird")
    monkeypatch.setattr(router_host, "SURE_S", 0.2)
    monkeypatch.setattr(router_host, "LOOK_S", 0.05)
    source, rows, files = answered(1.0)
    with started(source, [bytes(packet("203.0.113.5"))], rows, files=files, use="none") as run:
        run.until(lambda: detail(run)["asked"] >= 6, what="questions")
        assert detail(run)["learned"] == {"10.0.0.9": TAUGHT}
        run.stop()
    assert "does not answer" not in caplog.text


def test_one_that_is_not_heard_of_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for one neighbour: the one that was heard of a while ago goes."""
    monkeypatch.setattr(router_host, "SURE_S", 1e9)
    monkeypatch.setattr(router_host, "LOOK_S", 0.05)
    monkeypatch.setattr(router_host, "MOST_LEARNED", 1)
    source, rows, files = answered(None)
    other = ipaddress.ip_address("192.0.2.77")
    with started(source, [bytes(packet("8.8.8.8"))], rows, files=files, use="none") as run:
        run.until(lambda: detail(run)["learned"] == {"10.0.0.9": TAUGHT}, what="a neighbour")
        host = run.engine.hosts["nf0"]
        assert isinstance(host, router_host.RouterHost)

        def hears() -> bool:
            host._hear(other, bytes.fromhex(LAN.replace(":", "")))
            return LAN in detail(run)["learned"].values()

        assert not hears(), "the first was heard of just now"
        monkeypatch.setattr(router_host, "SURE_S", 0.1)
        run.until(hears, what="room for the other")
        assert detail(run)["learned"] == {"192.0.2.77": LAN}
        run.stop()


# ---- types of ICMP errors ------------------------------------------------------------------------


def test_errors_get_the_type_that_the_rules_say() -> None:
    """They go the other way than the packet that they are about."""
    source, _ = line(ROUTER | {"icmp": {"type": "*"}})
    source["types"] = {"out": {"dst": "8.0.0.0/8"}, "home": {"dst": "10.0.7.0/24"}}
    source["ports"]["back"] = {"driver": "pcap", "write": "back.pcap"}
    rows = "*,in0,nf0\n*,nf0,out0\nhome,nf0,back\n"
    packets = [bytes(packet("8.8.8.8"))]
    result = run_chain(source, packets, rows, files={"table.csv": ROUTES}, use="none")
    assert result.packets_of("out0") == []
    [error] = map(Ether, result.packets_of("back"))
    assert error[IP].dst == "10.0.7.7" and error[ICMP].type == 3
    assert result.type_packets() == {"other": 0, "out": 1, "home": 1}


# ---- the example ---------------------------------------------------------------------------------


def test_the_example_is_sound() -> None:
    """Whatever interfaces there are."""
    top = topology.load(POLICIES / "live_router.yaml")
    routes = policy.load(top.policy, top.vocabulary())
    top.build_tables()
    lan = [port for port in top.ports if port.name == "lan"]
    assert lan[0].params.owned and routes.path_of_each_type()["to_lan"][-1] == "lan"


# ---- mistakes ------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no address": ({"addresses": []}, "ask for nobody's"),
    "deaf": ({"learn": False}, "without learn: true"),
    "too many": ({"addresses": [f"10.0.0.{n}" for n in range(17)]}, "at most 16 addresses"),
}


@pytest.mark.parametrize(("fields", "what"), MISTAKES.values(), ids=MISTAKES)
def test_a_router_that_cannot_ask_is_refused(
    fields: dict[str, Any], what: str, tmp_path: Path
) -> None:
    source, rows = line(ROUTER | fields)
    (tmp_path / "in.pcap").write_bytes(capture([]))
    (tmp_path / "table.csv").write_text(ROUTES)
    (tmp_path / "policy.csv").write_text("packet_type,current_nf,next_nf\n" + rows)
    path = tmp_path / "topology.yaml"
    path.write_text(yaml.safe_dump(source | {"policy": "policy.csv"}))
    files = {"in": tmp_path / "in.pcap", "out": tmp_path / "out.pcap"}
    with pytest.raises(UserError, match=what) as error:
        topology.load(path, files).build_tables()
    assert error.value.field is not None and error.value.fix
