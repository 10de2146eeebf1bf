# SPDX-License-Identifier: BSD-3-Clause
"""The flow monitor's records are what a plain model makes of the packets that passed it, as tshark
reads them from the IPFIX messages and as they stand in the CSV file.

    packets ── in0 ── monitor ── out0 ── packets ── model ─┐
                         ├── IPFIX ── collector ── tshark ─┼─ the same
                         └── CSV ──────────────────────────┘
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nf_helpers as nf
import numpy as np
import pytest
import yaml
from chain import ETHERNET, IPV6, Result, ipv4, line, run_chain, started, udp
from flow_helpers import (
    NS,
    Collector,
    Flows,
    Record,
    by_direction,
    csv_records,
    in_milliseconds,
    model,
    timeless,
    tshark_records,
)
from hummingbird.dataplane._native import ffi

from hummingbird import topology
from hummingbird.errors import UserError
from hummingbird.nfs import flow_monitor_collector, flow_monitor_host
from hummingbird.nfs.flow_monitor_collector import parse_place
from hummingbird.nfs.flow_monitor_ipfix import Encoder
from hummingbird.nfs.flow_monitor_records import CSV_HEADER, RECORD, csv_lines

DEMO = (Path(__file__).parent.parent / "policies" / "demo" / "branch.pcap").resolve()
FOREVER = {
    name: 43200
    for name in ("tcp_syn", "tcp_established", "tcp_midstream", "tcp_closing", "udp", "udp_both")
} | {"icmp": 43200, "other": 43200, "fragment": 43200}  # fmt: skip
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, SERVER = "10.0.0.1", "192.0.2.1"


def monitor(**fields: Any) -> dict[str, Any]:
    """What stands under the NF's name."""
    return {"type": "flow_monitor", **fields}


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of a run."""

    result: Result
    ipfix: list[Record]
    csv: list[Record]
    datagrams: list[bytes]
    detail: dict[str, Any]

    def check(self) -> Flows:
        """Everybody says the same; returns the model's."""
        sent = self.result.outputs["out0"]
        expected = model(sent.packets, sent.times)
        assert by_direction(self.ipfix) == expected
        assert timeless(by_direction(self.csv)) == timeless(expected)
        assert len(self.csv) == self.detail["records"] == self.detail["csv_lines"]
        assert self.detail["lost_records"] == self.detail["refused"] == 0
        return expected


def run(folder: Path, packets: Any, *, flows: Any = None, **options: Any) -> Run:
    """Packets through a monitor that exports both ways; timeouts in seconds."""
    fields = options.pop("fields", {})
    with Collector() as collector:
        nf_fields = {"timestamps": "nanoseconds", **fields}
        file = folder / "flows.csv"
        source, rows = line(
            monitor(collector=collector.place, csv=str(file), **nf_fields),
            flows={"timeouts": FOREVER} | (flows or {}),
        )
        result = run_chain(source, packets, rows, **options)
    detail = result.summary["nfs"]["nf0"]["detail"]
    ipfix = tshark_records(collector.datagrams, folder)
    assert len(ipfix) == detail["exported"] and len(collector.datagrams) == detail["messages"]
    return Run(result, ipfix, csv_records(file), collector.datagrams, detail)


def segment(
    flags: int, *, back: bool = False, sport: int = 4000, dport: int = 80, payload: bytes = b""
) -> bytes:
    """A TCP segment from the client to the server, or back."""
    ports, ends = (sport, dport), (CLIENT, SERVER)
    if back:
        ports, ends = (dport, sport), (SERVER, CLIENT)
    head = struct.pack(">HHIIHHI", *ports, 0, 0, 0x5000 | flags, 65535, 0)
    return ipv4(*ends, 6, head + payload)


def connection(sport: int = 4000) -> list[bytes]:
    """A whole one."""
    data = segment(ACK | PSH, sport=sport, payload=bytes(100))
    return [
        segment(SYN, sport=sport),
        segment(SYN | ACK, back=True, sport=sport),
        segment(ACK, sport=sport),
        data,
        segment(ACK | PSH, back=True, sport=sport, payload=bytes(1000)),
        segment(FIN | ACK, sport=sport),
        segment(FIN | ACK, back=True, sport=sport),
        segment(ACK, sport=sport),
    ]


# ---- records = model -----------------------------------------------------------------------------


def conversations(path: Path, kind: str) -> Counter[frozenset[str]]:
    """Packets between two addresses or ends, as ``tshark -z conv`` counts them."""
    done = subprocess.run(
        ["tshark", "-r", str(path), "-q", "-n", "-z", f"conv,{kind}"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: Counter[frozenset[str]] = Counter()
    for row in done.stdout.splitlines():
        words = row.split()
        if len(words) > 8 and words[1] == "<->":
            numbers = [word for word in words[3:] if word.isdecimal()]
            found[frozenset((words[0], words[2]))] += int(numbers[4])
    return found


def octets(path: Path) -> int:
    """Octets of all IPv4 packets, by tshark."""
    command = ["tshark", "-r", str(path), "-T", "fields", "-e", "ip.len", "-E", "occurrence=f"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return sum(int(word) for word in done.stdout.split())


def test_demonstration(tmp_path: Path) -> None:
    """The project's capture: records are the model's, and their sums are those of tshark."""
    found = run(tmp_path, DEMO)
    flows = found.check()
    assert len(found.ipfix) == len(found.csv) > 80
    pairs: Counter[frozenset[str]] = Counter()
    for (src, _, dst, _, _, _), counts in flows.items():
        pairs[frozenset((src, dst))] += counts.packets
    assert pairs == conversations(DEMO, "ip") | conversations(DEMO, "ipv6")
    ends: Counter[frozenset[str]] = Counter()
    for (src, sport, dst, dport, protocol, _), counts in flows.items():
        if protocol == 6:
            ends[frozenset((f"{src}:{sport}", f"{dst}:{dport}"))] += counts.packets
    assert ends == conversations(DEMO, "tcp")
    assert sum(counts.octets for key, counts in flows.items() if "." in key[0]) == octets(DEMO)


@pytest.mark.parametrize(
    "name",
    [
        "mixed_ndpi.pcap",
        "attack/ndpi__synscan.pcap",
        "attack/ndpi__WebattackRCE.pcap",
        "fragments/ndpi__dns_fragmented.pcap",
        "fragments/ndpi__ip_fragmented_garbage.pcap",
        "fragments/suricata__frag-15.pcap",
        "ipv6/ndpi__http_ipv6.pcap",
        "vlan/zeek__http-qinq-0.pcap",
        "ip_options/arkime__igmp.pcap",
        "icmp_arp/pcapplusplus__IcmpPackets.pcap",
        "malformed/ndpi__fuzz-2006-06-26-2594.pcap",
    ],
)
def test_real_captures(tmp_path: Path, name: str) -> None:
    """Likewise real traffic, good and bad."""
    found = run(tmp_path, nf.real_data("traces") / name, memory={"frame_size": 4096})
    found.check()
    assert found.detail["unmonitored"] == sum(
        1 for packet in found.result.packets if not model([packet], [0])
    )


def test_real_conversations(tmp_path: Path) -> None:
    """Sums of a scan, of which the parser drops nothing, are tshark's."""
    path = nf.real_data("traces") / "attack/ndpi__synscan.pcap"
    flows = run(tmp_path, path).check()
    pairs: Counter[frozenset[str]] = Counter()
    for (src, _, dst, _, _, _), counts in flows.items():
        pairs[frozenset((src, dst))] += counts.packets
    assert pairs == conversations(path, "ip")
    assert sum(counts.octets for counts in flows.values()) == octets(path)


def traffic(seed: int, count: int) -> Iterator[bytes]:
    """Packets of a few hosts in both directions: TCP with any flags, UDP, ICMP, IPv6, fragments,
    ARP."""
    rng = np.random.default_rng(seed)
    hosts = ["10.0.0.1", "10.0.0.2", "192.0.2.1", "192.0.2.2"]
    for _ in range(count):
        src, dst = (hosts[i] for i in rng.choice(4, 2, replace=False))
        sport, dport = (int(port) for port in rng.integers(1, 5, 2))
        payload = rng.bytes(int(rng.integers(0, 600)))
        flags = int(rng.integers(0, 4096))
        head = struct.pack(">HHIIHHI", sport, dport, 0, 0, 0x5000 | flags, 1, 0)
        kind = rng.integers(7)
        if kind < 2:
            yield ipv4(src, dst, 6, head + payload)
        elif kind == 2:
            yield udp(src, dst, sport, dport, payload)
        elif kind == 3:
            yield ipv4(src, dst, 1, struct.pack(">BBHHH", 8, 0, 0, sport, 0) + payload)
        elif kind == 4:
            ends = b"".join(bytes(15) + bytes([port]) for port in (sport, dport + 4))
            fixed = struct.pack(">IHBB", 6 << 28, 20 + len(payload), 6, 64)
            yield ETHERNET + IPV6 + fixed + ends + head + payload
        elif kind == 5:
            packet = bytearray(ipv4(src, dst, 17, payload + bytes(8)))
            packet[18:20] = sport.to_bytes(2, "big")
            packet[20] = 0x20 if rng.integers(2) else 0
            packet[21] = dport if rng.integers(2) else 0
            packet[24:26] = bytes(2)
            packet[24:26] = nf.ip_sum(bytes(packet[14:34])).to_bytes(2, "big")
            yield bytes(packet)
        else:
            yield ETHERNET + b"\x08\x06" + rng.bytes(46)


@pytest.mark.parametrize("seed", range(4))
def test_generated_traffic(tmp_path: Path, seed: int) -> None:
    """Times that jump included."""
    rng = np.random.default_rng(seed)
    packets = list(traffic(seed, 3000))
    times = [int(t) for t in np.cumsum(rng.integers(-1000, 100_000, 3000)) + 10 * NS]
    found = run(tmp_path, packets, times=times)
    found.check()
    arps = sum(packet[12:14] == b"\x08\x06" for packet in found.result.packets)
    assert found.detail["unmonitored"] == arps > 0


def test_several_cores(tmp_path: Path) -> None:
    """Records of several lcores come together; none is lost."""
    packets = list(traffic(7, 4000))
    with Collector() as collector:
        source, rows = line(
            monitor(collector=collector.place),
            flows={"timeouts": FOREVER},
            cores={"io": sorted(os.sched_getaffinity(0))[:2]},
        )
        result = run_chain(source, packets, rows)
    sent = result.outputs["out0"]
    found = by_direction(tshark_records(collector.datagrams, tmp_path))
    assert found == in_milliseconds(model(sent.packets, sent.times))


# ---- what stands in a record ---------------------------------------------------------------------


def test_who_began(tmp_path: Path) -> None:
    """The source of a record is who sent first, whichever end has the smaller address and port."""
    packets = [
        udp("10.0.0.2", "10.0.0.1", 1000, 53),
        udp("10.0.0.1", "10.0.0.2", 53, 1000, bytes(50)),
        udp("10.0.0.1", "10.0.0.3", 2000, 53),
        udp("10.0.0.3", "10.0.0.1", 53, 2000),
    ]
    found = run(tmp_path, packets)
    found.check()
    began = {
        ("10.0.0.2", 1000, "10.0.0.1", 53, 17, None),
        ("10.0.0.1", 2000, "10.0.0.3", 53, 17, None),
    }
    assert {r.key for r in found.ipfix} == {r.key for r in found.csv} == began
    assert all(r.counts[0].packets == r.counts[1].packets == 1 for r in found.ipfix)


def test_octets_are_of_ip(tmp_path: Path) -> None:
    """Ethernet's header and padding do not count: an empty UDP datagram has 28 octets."""
    packet = udp(CLIENT, SERVER, 1, 2)
    found = run(tmp_path, [packet, packet + bytes(60 - len(packet))])
    (record,) = found.ipfix
    assert record.counts[0].octets == 56


def test_flags_of_a_connection(tmp_path: Path) -> None:
    (record,) = run(tmp_path, connection()).ipfix
    assert record.counts[0].flags == FIN | SYN | PSH | ACK
    assert record.counts[1].flags == FIN | SYN | PSH | ACK


def test_flags_of_a_refusal(tmp_path: Path) -> None:
    (record,) = run(tmp_path, [segment(SYN), segment(RST | ACK, back=True)]).ipfix
    assert [counts.flags for counts in record.counts] == [SYN, RST | ACK]


def test_zone(tmp_path: Path) -> None:
    """Of the port that the flow came in at."""
    with Collector() as collector:
        source, rows = line(monitor(collector=collector.place, csv=str(tmp_path / "flows.csv")))
        source["ports"]["in0"]["zone"] = 7
        run_chain(source, [udp(CLIENT, SERVER, 1, 2)], rows)
    (record,) = tshark_records(collector.datagrams, tmp_path)
    assert record.zone == csv_records(tmp_path / "flows.csv")[0].zone == 7


def test_two_uniflows(tmp_path: Path) -> None:
    """biflows: false makes a record of each direction, which any collector understands."""
    found = run(tmp_path, DEMO, fields={"biflows": False})
    found.check()
    assert len(found.ipfix) > len(found.csv)
    assert all(record.counts[1].packets == 0 for record in found.ipfix)


def test_milliseconds(tmp_path: Path) -> None:
    """The default, which more collectors understand."""
    found = run(tmp_path, DEMO, fields={"timestamps": "milliseconds"})
    sent = found.result.outputs["out0"]
    assert by_direction(found.ipfix) == in_milliseconds(model(sent.packets, sent.times))


# ---- when a flow ends ----------------------------------------------------------------------------


def reasons_of(found: Run) -> Counter[str]:
    """Of the records, on which IPFIX and CSV agree."""
    counts = Counter(record.reason for record in found.ipfix)
    assert counts == Counter(record.reason for record in found.csv)
    return counts


def test_end_by_shutdown(tmp_path: Path) -> None:
    """Flows that are there at the end of the run are exported."""
    packets = [udp(CLIENT, SERVER, 1 + n % 60000, 1 + n // 60000) for n in range(5000)]
    found = run(tmp_path, packets)
    found.check()
    assert reasons_of(found) == {"shutdown": 5000}


def test_more_ends_than_the_ring_has(tmp_path: Path) -> None:
    """The end of a run may end more flows than wait while it runs."""
    count = 2 * flow_monitor_host.RING + 100
    packets = [udp(CLIENT, SERVER, 1 + n % 60000, 1 + n // 60000) for n in range(count)]
    file = tmp_path / "flows.csv"
    source, rows = line(monitor(csv=str(file)), flows={"timeouts": FOREVER})
    result = run_chain(source, packets, rows, memory={"flows": 1 << 17})
    detail = result.summary["nfs"]["nf0"]["detail"]
    assert detail["records"] == detail["csv_lines"] == count and detail["lost_records"] == 0
    assert file.read_bytes().count(b"\n") == count + 1


def ages(seconds: float) -> list[bytes]:
    """Packets of another flow, so that time passes."""
    return [udp("10.9.9.9", "10.9.9.8", 9, 9)] * int(seconds)


def test_end_by_idleness(tmp_path: Path) -> None:
    """A flow that goes on after its timeout is another one: two records, which add up."""
    packets = [udp(CLIENT, SERVER, 1, 2), udp(CLIENT, SERVER, 1, 2), udp(SERVER, CLIENT, 2, 1)]
    times = [0, 100 * NS, 101 * NS]
    found = run(tmp_path, packets, times=times, flows={"timeouts": FOREVER | {"udp": 30}})
    found.check()
    assert reasons_of(found) == {"idle": 1, "shutdown": 1}
    assert [r.counts[0].packets + r.counts[1].packets for r in found.csv] == [1, 2]


def test_end_by_closing(tmp_path: Path) -> None:
    """A connection that was closed, then another one from the same port."""
    packets = [*connection(), *connection()]
    times = [n * NS // 10 for n in range(len(packets))]
    found = run(tmp_path, packets, times=times)
    found.check()
    assert reasons_of(found) == {"closed": 1, "shutdown": 1}
    assert all(r.counts[0].packets + r.counts[1].packets == 8 for r in found.ipfix)


def test_end_by_closing_and_idleness(tmp_path: Path) -> None:
    """A connection that was closed ends when its timeout is over, without another packet of it."""
    packets = [*connection(), *ages(20)]
    times = [n * NS // 100 for n in range(8)] + [n * NS for n in range(1, 21)]
    found = run(tmp_path, packets, times=times, flows={"timeouts": FOREVER | {"tcp_closing": 5}})
    found.check()
    assert reasons_of(found) == {"closed": 1, "shutdown": 1}


def test_end_by_eviction(tmp_path: Path) -> None:
    """The flow table is full: the oldest half-open flow goes, and its record says so."""
    packets = [udp(CLIENT, SERVER, 1 + n, 2) for n in range(2000)]
    found = run(
        tmp_path, packets, flows={"timeouts": FOREVER, "when_full": "evict"}, memory={"flows": 1024}
    )
    found.check()
    refused = found.result.dropped.get("flows_full", 0)  # no place in its sets
    assert reasons_of(found)["evicted"] == 2000 - refused - 1024
    assert refused < 20


# ---- flows that go on ----------------------------------------------------------------------------


def test_active_timeout(tmp_path: Path) -> None:
    """A long flow has a record every now and then; they add up, and follow one another in time."""
    packets = [udp(CLIENT, SERVER, 1, 2), udp(SERVER, CLIENT, 2, 1, bytes(10))] * 500
    times = [n * NS // 10 for n in range(1000)]
    found = run(tmp_path, packets, times=times, fields={"active_timeout": 10})
    flows = by_direction(found.ipfix)
    assert flows == model(packets, times)
    assert timeless(by_direction(found.csv)) == timeless(flows)
    assert 3 <= reasons_of(found)["active"] <= 9  # packets of one burst are one record's
    for before, after in zip(found.ipfix, found.ipfix[1:], strict=False):
        for way in (0, 1):
            assert after.counts[way].first == before.counts[way].last


def test_active_timeout_of_idle_flow(tmp_path: Path) -> None:
    """A flow without packets since its last record has no other."""
    packets = [udp(CLIENT, SERVER, 1, 2)] * 2
    found = run(tmp_path, packets, times=[0, 11 * NS], fields={"active_timeout": 10})
    assert reasons_of(found) == {"active": 1}
    assert by_direction(found.ipfix) == model(packets, [0, 11 * NS])


# ---- the messages --------------------------------------------------------------------------------


def some_records(count: int) -> np.ndarray[Any, Any]:
    records = np.zeros(count, dtype=RECORD)
    rng = np.random.default_rng(1)
    records["version"] = rng.choice([4, 6], count)
    records["address"][records["version"] == 4, :, 10:12] = 255
    records["address"][:, :, 12:] = rng.integers(0, 256, (count, 2, 4))
    records["address"][records["version"] == 6, :, 0] = 0x20
    records["fragment"] = rng.integers(0, 2, count)
    records["fragment_id"] = rng.integers(0, 1 << 16, count) * records["fragment"]
    records["port"] = rng.integers(1, 65536, (count, 2)) * (1 - records["fragment"][:, None])
    records["protocol"] = rng.integers(1, 256, count)
    records["reason"] = rng.integers(1, 6, count)
    records["zone"] = rng.integers(0, 65536, count)
    records["packets"][:, 0] = rng.integers(0, 1 << 62, count)
    records["packets"][:, 1] = rng.integers(0, 2, count) * rng.integers(0, 1 << 62, count)
    records["octets"] = rng.integers(0, 1 << 62, (count, 2))
    records["flags"] = rng.integers(0, 4096, (count, 2))
    records["first"] = rng.integers(0, 1 << 60, (count, 2))
    records["last"] = records["first"] + rng.integers(0, 1 << 60, (count, 2)).astype("u8")
    for field in ("octets", "flags", "first", "last"):
        records[field] *= records["packets"] > 0
    return records


@pytest.mark.parametrize("room", [528, 1452, 9000])
def test_messages_fit(room: int, tmp_path: Path) -> None:
    """Templates and data in messages of a size, all of which tshark understands; times after 2036,
    where NTP's seconds begin anew, included."""
    encoder = Encoder(0xFFFFFFFF, room, "nanoseconds", True)
    records = some_records(500)
    messages = [*encoder.templates(0.0), *encoder.encode(records, 1e9)]
    assert all(len(message.data) <= room for message in messages)
    found = tshark_records([message.data for message in messages], tmp_path)
    assert len(found) == sum(message.records for message in messages) == 500
    (tmp_path / "flows.csv").write_bytes(CSV_HEADER.encode() + csv_lines(records))
    said = csv_records(tmp_path / "flows.csv")
    assert Counter(map(_essence, found)) == Counter(map(_essence, said))


def _essence(record: Record) -> tuple[Any, ...]:
    """Without times; one of nothing but returning packets is IPFIX's record of those."""
    ways = [(c.packets, c.octets, c.flags) for c in record.counts]
    return record.key, record.reason, record.zone, *ways


def test_records_are_laid_out_as_in_c() -> None:
    assert RECORD.itemsize == ffi.sizeof("hb_flow_record")
    fields = dict(ffi.typeof("hb_flow_record").fields)
    assert {name: RECORD.fields[name][1] for name in RECORD.names or ()} == {
        name: field.offset for name, field in fields.items()
    }


def test_templates_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that comes late, or lost them."""
    monkeypatch.setattr(flow_monitor_collector, "TEMPLATES_S", 0.1)
    with Collector() as collector:
        source, rows = line(monitor(collector=collector.place))
        source["ports"]["in0"] = {"driver": "generator", "rate": 1000, "flows": 10}
        source["ports"]["out0"] = {"driver": "sink"}

        def templates() -> int:
            return sum(data[16:18] == b"\0\2" for data in collector.datagrams)

        began = time.monotonic()
        with started(source, None, rows) as going:
            going.until(lambda: templates() >= 4, what="templates")
            going.stop()
        most = 1 + (time.monotonic() - began) / 0.1
    assert collector.datagrams[0][16:18] == b"\0\2" and templates() <= most


def test_ipv6_collector(tmp_path: Path) -> None:
    if not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text():
        pytest.skip("NOT TESTED with IPv6: this host has none")
    with Collector(socket.AF_INET6) as collector:
        source, rows = line(monitor(collector=collector.place))
        run_chain(source, [udp(CLIENT, SERVER, 1, 2)], rows)
    (record,) = tshark_records(collector.datagrams, tmp_path)
    assert record.key == (CLIENT, 1, SERVER, 2, 17, None)


# ---- what may go wrong while it runs -------------------------------------------------------------


def test_nobody_collects(caplog: pytest.LogCaptureFixture) -> None:
    """A collector that is not there: counted, one warning, and the run goes on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    source, rows = line(monitor(collector=f"127.0.0.1:{port}"))
    packets = [udp(CLIENT, SERVER, 1 + n, 2) for n in range(3000)]
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "hummingbird"):
        result = run_chain(source, packets, rows)
    detail = result.summary["nfs"]["nf0"]["detail"]
    assert time.monotonic() - began < 10
    assert detail["unreachable"] > 0
    assert detail["records"] == 3000 == detail["exported"] + detail["refused"]
    said = [
        record.message for record in caplog.records if "does not get flow records" in record.message
    ]
    assert len(said) == 1 and f"127.0.0.1:{port}" in said[0]


def test_full_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the socket's buffer is full records wait, and at the end not for ever."""
    monkeypatch.setattr(flow_monitor_host, "FINAL_S", 0.2)
    monkeypatch.setattr(flow_monitor_collector, "CLOSING_S", 0.2)

    class Full(socket.socket):
        def sendto(self, *args: Any) -> int:
            raise BlockingIOError

    monkeypatch.setattr(flow_monitor_collector.socket, "socket", Full)
    source, rows = line(monitor(collector="127.0.0.1:4739"))
    began = time.monotonic()
    result = run_chain(source, [udp(CLIENT, SERVER, 1 + n, 2) for n in range(100)], rows)
    assert time.monotonic() - began < 10
    detail = result.summary["nfs"]["nf0"]["detail"]
    assert detail["records"] == 100 and detail["exported"] == 0


def test_more_records_than_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring that is full loses records and counts them; it never holds up packets."""
    monkeypatch.setattr(flow_monitor_host, "RING", 16)
    packets = [udp(CLIENT, SERVER, 1 + n, 2) for n in range(20_000)] + ages(100)
    times = [0] * 20_000 + [n * NS for n in range(100)]
    file = tmp_path / "flows.csv"
    source, rows = line(monitor(csv=str(file)), flows={"timeouts": FOREVER | {"udp": 5}})
    result = run_chain(source, packets, rows, times=times)
    assert len(result.packets) == len(packets)
    detail = result.summary["nfs"]["nf0"]["detail"]
    assert detail["records"] == 20_001
    assert detail["csv_lines"] + detail["lost_records"] == 20_001
    assert file.read_bytes().count(b"\n") == detail["csv_lines"] + 1


def test_disk_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One error, and every line that is missing is counted."""
    real = flow_monitor_host.os.write

    def write(fd: int, data: bytes) -> int:
        if bytes(data) == CSV_HEADER.encode():
            return real(fd, data)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(flow_monitor_host.os, "write", write)
    source, rows = line(monitor(csv=str(tmp_path / "flows.csv")))
    packets = [udp(CLIENT, SERVER, 1 + n, 2) for n in range(5000)]
    result = run_chain(source, packets, rows)
    detail = result.summary["nfs"]["nf0"]["detail"]
    assert detail["csv_lines"] == 0 and detail["csv_lost"] == 5000
    assert len([r for r in caplog.records if "No space left" in r.message]) == 1


def test_csv_goes_on(tmp_path: Path) -> None:
    """A second run adds to the file of the first; the header stands once."""
    file = tmp_path / "flows.csv"
    for _ in range(2):
        source, rows = line(monitor(csv=str(file)))
        run_chain(source, [udp(CLIENT, SERVER, 1, 2)], rows)
    assert len(csv_records(file)) == 2
    assert file.read_text().count("start,") == 1


# ---- what a user may do wrong --------------------------------------------------------------------


def mistake(**fields: Any) -> str:
    """The error of a run with these parameters."""
    source, rows = line(monitor(**fields))
    with pytest.raises(UserError) as error:
        run_chain(source, [], rows)
    return str(error.value)


def test_nowhere() -> None:
    text = mistake()
    assert "nfs.nf0: its records would go nowhere\n  fix: write collector: HOST:PORT, csv" in text
    assert ".yaml:" in text


@pytest.mark.parametrize(
    "place, what",
    [
        ("192.0.2.1", "'192.0.2.1' is no host and port"),
        ("192.0.2.1:http", "is no host and port"),
        ("2001:db8::1:4739", "is no host and port"),
        ("", "is no host and port"),
        ("192.0.2.1:0", "0 is no port"),
        ("192.0.2.1:65536", "65536 is no port"),
        ("udp://192.0.2.1:4739", "is no host and port"),
    ],
)
def test_bad_collector(place: str, what: str) -> None:
    text = mistake(collector=place)
    assert "nfs.nf0.collector: " in text and what in text and "fix: write HOST:PORT" in text


def test_unknown_collector() -> None:
    text = mistake(collector="no-such-host.invalid:4739")
    assert "nfs.nf0.collector: the collector no-such-host.invalid has no address" in text
    assert "fix: correct its name" in text


@pytest.mark.parametrize(
    "text, place",
    [
        ("192.0.2.1:4739", ("192.0.2.1", 4739)),
        ("[2001:db8::1]:4739", ("2001:db8::1", 4739)),
        ("collector.example:9995", ("collector.example", 9995)),
    ],
)
def test_places(text: str, place: tuple[str, int]) -> None:
    assert parse_place(text) == place


def test_bad_csv(tmp_path: Path) -> None:
    """No folder, a folder, another file, no file at all."""
    text = mistake(csv=str(tmp_path / "none" / "flows.csv"))
    assert f"nfs.nf0.csv: no folder {tmp_path / 'none'}\n  fix: make it" in text
    assert "cannot be written: Is a directory" in mistake(csv=str(tmp_path))
    other = tmp_path / "routes.csv"
    other.write_text("prefix,next_hop\n")
    assert "holds something else than flow records" in mistake(csv=str(other))
    assert other.read_text() == "prefix,next_hop\n"
    assert "is no ordinary file" in mistake(csv="/dev/full")


def test_csv_that_is_a_pipe(tmp_path: Path) -> None:
    """Which would hold up the start until somebody reads it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "is no ordinary file" in mistake(csv=str(fifo))


@pytest.mark.parametrize(
    "fields, what",
    [
        ({"active_timeout": 0}, "nfs.nf0.active_timeout"),
        ({"timestamps": "seconds"}, "nfs.nf0.timestamps"),
        ({"domain": -1}, "nfs.nf0.domain"),
        ({"mtu": 100}, "nfs.nf0.mtu"),
        ({"colector": "x"}, "colector"),
    ],
)
def test_bad_parameters(fields: Any, what: str) -> None:
    assert what in mistake(csv="flows.csv", **fields)


def test_check_writes_nothing(tmp_path: Path) -> None:
    """A topology is checked without a file being made or a collector being asked."""
    source, rows = line(monitor(csv=str(tmp_path / "flows.csv"), collector="192.0.2.1:4739"))
    (tmp_path / "routes.csv").write_text("packet_type,current_nf,next_nf\n" + rows)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(source | {"policy": "routes.csv"}))
    top = topology.load(tmp_path / "t.yaml")
    top.build_tables()
    assert not (tmp_path / "flows.csv").exists()
