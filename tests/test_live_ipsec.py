# SPDX-License-Identifier: BSD-3-Clause
"""A download through a tunnel between two instances, and what is to be seen of it on the way.

    a ═ lan [ ipsec0 ── router0 ] wan ═══ x ═══ wan [ ipsec0 ── router0 ] lan ═ b
      cleartext     hb in m            bridge          hb in n       cleartext
                                  tcpdump: only ESP

The key files are drawn for each test, mode 600.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from testbed import (
    ENDS,
    GATEWAYS,
    NETWORKS,
    Bed,
    http,
    hummingbird,
    line,
    live_port,
    needs,
    ping,
    reach,
    summary_of,
    tcpdump,
)

from hummingbird.testing import read_capture

OUTER = ("192.0.2.1", "192.0.2.2")
ESP = 50
ALLOWED = {"too_big", "no_policy", "queue_full", "port_full"}
"""Drops: before TCP has found the MTU of the tunnel, what is not for the tunnel, overload."""
ROWS = """\
*,lan,ipsec0
*,wan,ipsec0
*,ipsec0,router0
home,router0,lan
*,router0,wan
"""


def end(bed: Bed, n: int, driver: str, engine: str) -> tuple[dict[str, Any], dict[str, str]]:
    """One end of the tunnel, 0: m in the west, 1: n in the east; a topology and its routes."""
    name, peer, host = (("m", "n", "a"), ("n", "m", "b"))[n]
    inner, outer = ("west", "east") if n == 0 else ("east", "west")
    lan = live_port(driver, inner, address=[GATEWAYS[n]])
    wan = live_port(driver, outer, address=[OUTER[n]])
    ways = {
        "to": (OUTER[n], OUTER[1 - n], 0x1001 + n),
        "from": (OUTER[1 - n], OUTER[n], 0x1002 - n),
    }
    sas = {
        way: {
            "direction": "out" if way == "to" else "in",
            **{"src": src, "dst": dst, "spi": spi, "cipher": "aes-128-gcm"},
            "key_file": f"{spi:x}.key",
        }
        for way, (src, dst, spi) in ways.items()
    }
    sas["from"]["type"] = "home"
    policies = [
        {"src": NETWORKS[n], "dst": NETWORKS[1 - n], "action": "to"},
        {"src": NETWORKS[1 - n], "dst": NETWORKS[n], "action": "from"},
    ]
    icmp = {"source": GATEWAYS[n], "type": "home"}
    hops = {
        "host": {"mac": bed.mac(host, inner_of(host)), "src_mac": bed.mac(name, inner)},
        "peer": {
            "mac": bed.mac(peer, "west" if n == 0 else "east"),
            "src_mac": bed.mac(name, outer),
        },
    }
    nfs = {
        "ipsec0": {
            "type": "ipsec",
            "engine": engine,
            "sas": sas,
            "policies": policies,
            "icmp": icmp,
        },
        "router0": {"type": "router", "routes": "fib.csv", "next_hops": hops},
    }
    routes = f"prefix,next_hop\n{NETWORKS[n]},host\n{OUTER[1 - n]}/32,peer\n"
    topology = {"ports": {"lan": lan, "wan": wan}, "nfs": nfs}
    return {**topology, "types": {"home": {"dst": NETWORKS[n]}}}, {"fib.csv": routes}


def inner_of(host: str) -> str:
    """The interface of an end."""
    return "east" if host == "a" else "west"


def keys() -> dict[str, str]:
    """A key of its own for either direction: AES-128 and 4 bytes of salt."""
    return {f"{spi:x}.key": f"encryption: {secrets.token_hex(20)}\n" for spi in (0x1001, 0x1002)}


def protocols(capture: Path) -> dict[int, int]:
    """Packets by IP protocol; 0 stands for what is not IPv4."""
    found: dict[int, int] = {}
    for packet in read_capture(capture).packets:
        protocol = packet[23] if packet[12:14] == b"\x08\x00" else 0
        found[protocol] = found.get(protocol, 0) + 1
    return found


@pytest.mark.parametrize("driver", ["af_xdp", "af_packet"])
def test_a_download_through_a_tunnel(driver: str, tmp_path: Path) -> None:
    needs("ping:iputils-ping", "curl", "tcpdump")
    root = tmp_path / "root"
    root.mkdir()
    content = b"in the clear, " * 75_000  # a megabyte
    (root / "file").write_bytes(content)
    secret = keys()
    with line("a", "m", "x", "n", "b") as bed:
        bed.bridge("x")
        (west, west_files), (east, east_files) = (
            end(bed, 0, driver, "gpu"),
            end(bed, 1, driver, "cpu"),
        )
        with (
            hummingbird(bed, "m", tmp_path / "m", west, ROWS, files=west_files | secret) as hb1,
            hummingbird(bed, "n", tmp_path / "n", east, ROWS, files=east_files | secret) as hb2,
            tcpdump(bed, "x", "west", tmp_path) as outside,
            tcpdump(bed, "a", "east", tmp_path) as inside,
            http(bed, "b", tmp_path, root, ENDS[1]) as url,
        ):
            reach(bed)
            assert ping(bed, 5) == 5
            bed.do("a", "curl", "-sS", "-o", str(tmp_path / "got"), f"{url}/file")
            ends = [summary_of(hb1), summary_of(hb2)]
    assert (tmp_path / "got").read_bytes() == content
    seen = protocols(outside)
    assert set(seen) == {ESP} and seen[ESP] > len(content) // 1500, seen
    assert ESP not in protocols(inside)
    wire, clear = outside.read_bytes(), inside.read_bytes()
    assert b"in the clear" in clear and b"in the clear" not in wire
    for summary in ends:
        assert set(summary["dropped"]) <= ALLOWED, summary["dropped"]
        assert summary["nfs"]["ipsec0"]["packets"] > 700
    if ends[0]["device"]["name"] is None:
        pytest.skip("NOT TESTED on a device: there is none")
