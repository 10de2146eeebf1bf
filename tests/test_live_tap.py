# SPDX-License-Identifier: BSD-3-Clause
"""Linux itself at one end of a chain: its packets come in and go out by a tap.

m: Linux, ping, curl ═ hb0: tap [ there, back: GPU ] wan ═══ b: a server
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pings import PATIENCE, answered
from testbed import (
    ENDS,
    GATEWAYS,
    PING,
    Bed,
    http,
    hummingbird,
    line,
    needs,
    summary_of,
    until,
    wire,
)


@pytest.fixture
def bed() -> Iterator[Bed]:
    """b has its address; the tap does not exist yet."""
    needs(PING, "curl")
    with line("m", "b", addresses=False) as made:
        made.ip(
            "b",
            f"address add {ENDS[1]}/24 dev west",
            f"route add default via {GATEWAYS[1]}",
        )
        yield made


def connect(bed: Bed) -> None:
    """Give the tap an address, and both ends each other's Ethernet address."""
    bed.ip(
        "m",
        "link set hb0 up",
        f"address add {ENDS[0]}/24 dev hb0",
        f"route add default via {GATEWAYS[0]}",
        f"neighbour replace {GATEWAYS[0]} lladdr {bed.mac('b', 'west')} dev hb0",
    )
    mac = bed.do("m", "cat", "/sys/class/net/hb0/address").strip()
    bed.ip("b", f"neighbour replace {GATEWAYS[1]} lladdr {mac} dev west")


@pytest.mark.parametrize("driver", ["af_xdp", "af_packet"])
def test_linux_reaches_the_far_end(bed: Bed, driver: str, tmp_path: Path) -> None:
    """Pings and a download, both of them whole."""
    root = tmp_path / "root"
    root.mkdir()
    content = hashlib.sha256(b"tap").digest() * 8192
    (root / "file").write_bytes(content)
    topology, rows = wire(driver, "gpu")
    topology["ports"]["lan"] = {"driver": "tap", "interface": "hb0"}
    with hummingbird(bed, "m", tmp_path / "run", topology, rows) as process:
        connect(bed)
        one = ("ping", "-n", "-c", "1", "-W", "1", ENDS[1])
        until(lambda: bed.run("m", *one).returncode == 0, "a ping")
        many = ("ping", "-n", "-c", "20", "-i", "0.01", *PATIENCE, ENDS[1])
        assert answered(bed.do("m", *many), 20) == 20
        with http(bed, "b", tmp_path, root, ENDS[1]) as url:
            bed.do("m", "curl", "-sS", "-o", str(tmp_path / "got"), f"{url}/file")
        summary = summary_of(process)
    assert (tmp_path / "got").read_bytes() == content
    assert set(summary["dropped"]) <= {"port_full", "queue_full"}  # TCP fills what room there is
    assert summary["ports"]["lan"]["received"] > 20 < summary["ports"]["lan"]["sent"]
