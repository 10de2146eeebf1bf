# SPDX-License-Identifier: BSD-3-Clause
"""A gateway that plays a few known packets for ever, and the commands that look into it.

in0 ─┬─ nids0 (GPU) ── firewall0 ── router0 ─┬─ out0
     └─ ipsec0 (GPU) ────────────────────────┘
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipsec_chains import TestSa, key_files
from process import ROOT, Service, service, write_topology
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapReader

from hummingbird.control_client import running
from hummingbird.testing import capture

MALFORMED = bytes(Ether(src="02:00:00:00:00:01") / IP(dst="203.0.113.1") / TCP())[:30]
OWN, NEXT = "02:00:00:00:02:fe", "02:00:00:00:02:01"
SA = TestSa(0x1001)
ROWS = """\
suspicious,nids0,drop
vpn,in0,ipsec0
*,in0,nids0
*,nids0,firewall0
*,firewall0,router0
*,router0,out0
*,ipsec0,out0
"""


def packet(l4: Packet, dst: str = "203.0.113.1", payload: bytes = b"hello") -> bytes:
    """From the inside."""
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    ip = IPv6(src="2001:db8::1", dst=dst) if ":" in dst else IP(src="10.0.0.7", dst=dst)
    return bytes(ether / ip / l4 / Raw(payload))


GOOD = packet(TCP(sport=4000, dport=80))
EVIL = packet(TCP(sport=4001, dport=80), payload=b"an EVIL thing")
DENIED = packet(TCP(sport=4002, dport=23))
LOST = packet(TCP(sport=4003, dport=80), "192.0.2.99")
VPN = packet(UDP(sport=4004, dport=5000), payload=bytes(range(200)))
PLAYED = [GOOD, EVIL, DENIED, LOST, VPN, MALFORMED]
"""In this order, again and again."""


def topology(rate: float) -> dict[str, Any]:
    """The gateway; ``rate`` is in packets per second."""
    nids = {"type": "nids", "engine": "gpu", "rules": "nids.rules", "on_alert": "suspicious"}
    hop = {"mac": NEXT, "src_mac": OWN}
    return {
        "ports": {
            "in0": {"driver": "pcap", "read": "in.pcap", "loop": 0, "rate": rate},
            "out0": {"driver": "sink"},
        },
        "nfs": {
            "nids0": nids,
            "firewall0": {"type": "firewall", "engine": "cpu", "rules": "fw.csv"},
            "router0": {
                "type": "router",
                "engine": "cpu",
                "routes": "fib.csv",
                "next_hops": {"isp": hop},
            },
            "ipsec0": {
                "type": "ipsec",
                "engine": "gpu",
                "sas": {"sa": SA.yaml("out")},
                "policies": [{"action": "sa"}],
            },
        },
        "types": {"web": {"protocol": "tcp"}, "vpn": {"protocol": "udp", "dst_port": 5000}},
        "memory": {"mbufs": 2048},
    }


@contextmanager
def gateway(
    folder: Path,
    *args: str,
    packets: Sequence[bytes] = PLAYED,
    rate: float = 2000.0,
    **sections: Any,
) -> Iterator[Service]:
    """It runs, and packets flow; ``sections`` are those of the topology to put in place of its."""
    (folder / "in.pcap").write_bytes(capture(packets))
    (folder / "nids.rules").write_text(
        'alert tcp any any -> any any (msg:"evil"; content:"EVIL"; sid:1; rev:1;)\n'
    )
    (folder / "fw.csv").write_text(
        "name,src,dst,protocol,sport,dport,action\nweb,any,any,tcp,any,80,accept\n"
    )
    (folder / "fib.csv").write_text("prefix,next_hop\n203.0.113.0/24,isp\n")
    for name, text in key_files(SA).items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    path = write_topology(folder, topology(rate) | sections, ROWS)
    with service(folder, path, *args, STATE_DIRECTORY=str(folder / "state")) as run:
        run.until(lambda: run.packets(1) > 0 and run.name in running(), "packets to flow")
        yield run


def start(*args: object, **options: Any) -> subprocess.Popen[str]:
    """A command of `hummingbird`."""
    return subprocess.Popen(
        [sys.executable, "-m", "hummingbird.cli", *map(str, args)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def said(process: subprocess.Popen[str], status: int = 0) -> str:
    """What it has said once it has ended, as it should."""
    out, errors = process.communicate(timeout=60)
    assert process.returncode == status, (process.returncode, out, errors)
    return (out or "") + errors


def events(text: str) -> dict[int, list[dict[str, Any]]]:
    """The events of each packet of a trace with --json, in order."""
    packets: dict[int, list[dict[str, Any]]] = {}
    for line in text.splitlines():
        item = json.loads(line)
        if "event" in item:
            packets.setdefault(item["packet"], []).append(item)
    return packets


def captured(path: Path) -> list[bytes]:
    """The packets of a capture, as scapy reads it."""
    reader = RawPcapReader(str(path))
    assert reader.nano and reader.linktype == 1
    return [data for data, _ in reader]


def is_round(packets: Sequence[bytes], of: Sequence[bytes]) -> bool:
    """These are what comes when some are played again and again, from any of them on."""
    begin = of.index(packets[0])
    return all(data == of[(begin + i) % len(of)] for i, data in enumerate(packets))
