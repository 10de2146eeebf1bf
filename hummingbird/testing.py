# SPDX-License-Identifier: BSD-3-Clause
"""For tests of NFs: packets through one NF in the real data plane, and what came of them.

outcome = run_packets(Path(__file__).parent, {"type": "./ttl_counter.py"}, [udp(ttl=3)])
assert outcome.counters == {"ttl 3": 1}
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hummingbird import policy, topology, yamlfile
from hummingbird.engine import Engine, Wanted
from hummingbird.telemetry.summary import summarise

NANOSECOND_PCAP = 0xA1B23C4D
POLL_S = 0.001

_numbers = itertools.count()


@dataclass(frozen=True)
class Sent:
    """What a written capture holds."""

    packets: list[bytes]
    times: list[int]
    """Nanoseconds."""


def capture(packets: Sequence[Any], times: Sequence[int] | None = None) -> bytes:
    """An Ethernet capture; packet i at ``times[i]`` ns, by default at i microseconds. Packets are
    bytes, or what bytes() takes."""
    parts = [struct.pack("<IHHiIII", NANOSECOND_PCAP, 2, 4, 0, 0, 262144, 1)]
    for number, packet in enumerate(packets):
        data = bytes(packet)
        seconds, ns = divmod(times[number] if times else number * 1000, 1_000_000_000)
        parts += (struct.pack("<IIII", seconds, ns, len(data), len(data)), data)
    return b"".join(parts)


def read_capture(path: Path) -> Sent:
    """Read a capture as the data plane writes it."""
    data = path.read_bytes()
    assert struct.unpack_from("<I16xI", data) == (NANOSECOND_PCAP, 1), f"{path} is damaged"
    sent, at = Sent([], []), 24
    while at < len(data):
        seconds, ns, length, full = struct.unpack_from("<IIII", data, at)
        assert length == full and at + 16 + length <= len(data), f"{path} is cut"
        sent.packets.append(data[at + 16 : at + 16 + length])
        sent.times.append(seconds * 1_000_000_000 + ns)
        at += 16 + length
    return sent


def udp(
    payload: bytes = b"",
    *,
    src: str = "198.51.100.1",
    dst: str = "203.0.113.1",
    sport: int = 4000,
    dport: int = 53,
    ttl: int = 64,
) -> bytes:
    """An Ethernet frame with a UDP datagram, without UDP checksum."""
    ends = ipaddress.IPv4Address(src).packed + ipaddress.IPv4Address(dst).packed
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, ttl, 17, 0) + ends
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    ethernet = bytes.fromhex("020000000001 020000000002 0800")
    ports = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0)
    return ethernet + head[:10] + checksum + head[12:] + ports + payload


@dataclass(frozen=True)
class Outcome:
    """What an NF did with some packets."""

    packets: list[bytes]
    """Those that it let pass, in order."""
    retyped: dict[str, list[bytes]]
    """Those that it gave one of ``types``, in order."""
    dropped: dict[str, int]
    """How many it dropped, by reason."""
    counters: dict[str, int]
    """Its counters (NfTable.rules) that are not 0."""
    summary: dict[str, Any]
    """As ``hummingbird run --json`` writes it."""


def run_packets(
    folder: Path,
    nf: Mapping[str, Any],
    packets: Sequence[Any],
    *,
    types: Sequence[str] = (),
    device: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
) -> Outcome:
    """Run an NF on packets: in0 -> nf0 -> out0, and for each of ``types`` a port of its own.

    Args:
        folder: where relative paths start from.
        nf: what a topology says about the NF, such as ``{"type": "./mine.py", "engine": "gpu"}``.
        packets: bytes, or what bytes() takes, such as scapy's packets.
        types: packet types that the NF gives, each of which is to be told apart.
        device: a topology's section ``device:``, such as ``{"use": "required"}``.
        timeout: seconds, after which it is stopped and TimeoutError raised.

    Raises:
        UserError: as a run would print it.
    """
    with tempfile.TemporaryDirectory(prefix="hummingbird-nf-") as name:
        work = Path(name)
        (work / "in.pcap").write_bytes(capture(packets))
        rows = [f"{type_},nf0,to-{type_}" for type_ in types]
        text = "\n".join(["packet_type,current_nf,next_nf", *rows, "*,in0,nf0", "*,nf0,out0", ""])
        (work / "routes.csv").write_text(text)
        outputs = {"out0": "out.pcap", **{f"to-{type_}": f"{type_}.pcap" for type_ in types}}
        source = {
            "policy": str(work / "routes.csv"),
            "ports": {"in0": {"driver": "pcap", "read": str(work / "in.pcap")}}
            | {port: {"driver": "pcap", "write": str(work / o)} for port, o in outputs.items()},
            "nfs": {"nf0": dict(nf)},
            "device": dict(device or {}),
        }
        path = folder / "(test).yaml"  # which need not exist: only its folder counts
        wanted = topology.build(yamlfile.parse(yaml.safe_dump(source).encode(), path))
        summary = _run(wanted, timeout)
        sent = {port: read_capture(work / o).packets for port, o in outputs.items()}
    return Outcome(
        packets=sent["out0"],
        retyped={type_: sent[f"to-{type_}"] for type_ in types},
        dropped=summary["dropped"],
        counters=summary["counters"].get("nf0", {}),
        summary=summary,
    )


def _run(wanted: topology.Topology, timeout: float) -> dict[str, Any]:
    """Until all packets are through; every one is accounted for."""
    engine = Engine(f"test-nf-{os.getpid()}-{next(_numbers)}")
    end = time.monotonic() + timeout
    try:
        engine.apply(Wanted(wanted, policy.load(wanted.policy, wanted.vocabulary())))
        while not engine.plane.finished():
            if time.monotonic() > end:
                raise TimeoutError(f"{engine.plane.in_flight()} packets are not through yet")
            engine.poll()
            time.sleep(POLL_S)
        engine.stop()
        summary = summarise(engine.view(), engine.counters(), time.monotonic() - engine.started)
    finally:
        engine.close()
    assert summary["balance"] == 0, "packets were lost or doubled"
    return summary
