# SPDX-License-Identifier: BSD-3-Clause
"""Interfaces change while packets flow: what is lost is counted, what can be used again is.

a: ping ═══ lan [ there, back ] wan ═══ b          ip link set down, mtu, delete, in the middle
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process import Service
from testbed import (
    A_MOMENT_S,
    ENDS,
    PING,
    Bed,
    hummingbird,
    line,
    needs,
    ping,
    reach,
    summary_of,
    until,
    wire,
)

from hummingbird.control_client import Reply

DRIVERS = ("af_xdp", "af_packet")
UNSENT = {"port_down", "port_error", "port_full"}
"""Reasons for which a port drops what it cannot send; `port_full` also without a link."""


@contextmanager
def flowing(driver: str, folder: Path) -> Iterator[tuple[Bed, Service]]:
    """A run through which pings go."""
    needs(PING)
    with line("a", "m", "b") as bed:
        bed.neighbours(far=True)
        topology, rows = wire(driver)
        with hummingbird(bed, "m", folder / "run", topology, rows) as process:
            reach(bed)
            yield bed, process


def again(bed: Bed) -> None:
    """Until pings go through, one at a time."""
    reach(bed)
    assert ping(bed, 20) == 20


def warned(process: Service, port: str, what: str) -> None:
    """Until it says what is wrong with a port's interface."""
    process.until(lambda: said(process, port, what) > 0, f"a word that it is {what}")


def said(process: Service, port: str, what: str) -> int:
    """How often it has. One that goes down or away has no link for a moment, which is said before,
    if it was looked at just then."""
    side = "west" if port == "lan" else "east"
    return process.text.count(f"warning: {port}: interface {side} is {what}")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(("name", "side"), [("m", "west"), ("m", "east"), ("b", "west")])
def test_a_link_that_goes_down_and_comes_up(
    driver: str, name: str, side: str, tmp_path: Path
) -> None:
    """Our own interface, or the far end's, which takes the carrier away."""
    with flowing(driver, tmp_path) as (bed, process):
        bed.ip(name, f"link set {side} down")
        port = "lan" if (name, side) == ("m", "west") else "wan"
        what = "down" if name == "m" else "without a link"
        warned(process, port, what)
        assert ping(bed, 3, wait=A_MOMENT_S) == 0
        bed.ip(name, f"link set {side} up")
        bed.neighbours(far=True)  # which Linux forgets where the link was its own
        if name == "b":
            bed.ip("b", "route replace default via 10.82.0.1")
        again(bed)
        summary = summary_of(process)
        assert said(process, port, what) == 1, process.text
    assert set(summary["dropped"]) <= UNSENT


@pytest.mark.parametrize("driver", DRIVERS)
def test_frames_that_the_interface_is_too_small_for(driver: str, tmp_path: Path) -> None:
    """An MTU that was lowered: Linux refuses what is too long from a packet socket, which is
    counted, and sends it from an AF_XDP socket. The rest goes on."""
    with flowing(driver, tmp_path) as (bed, process):
        bed.ip("m", "link set east mtu 1000")
        process.until(lambda: "wan: interface east has MTU 1000" in process.text, "a word of it")
        before = bed.counts("b", "west").rx
        assert ping(bed, 3, size=1400, wait=A_MOMENT_S) == 0  # the answers are too long, too
        came = 3 if driver == "af_xdp" else 0
        until(lambda: bed.counts("b", "west").rx >= before + came, "what goes through")
        assert bed.counts("b", "west").rx == before + came
        assert ping(bed, 10) == 10
        bed.ip("m", "link set east mtu 1500")
        assert ping(bed, 10, size=1400) == 10
        summary = summary_of(process)
    assert summary["dropped"] == ({} if driver == "af_xdp" else {"too_long": 3})


@pytest.mark.parametrize("driver", DRIVERS)
def test_frames_that_fit_no_mbuf(driver: str, tmp_path: Path) -> None:
    """A jumbo frame comes in though frames are of 2 KiB: too_long, and the run goes on."""
    if driver == "af_xdp":
        pytest.skip("native XDP takes no such MTU, and the driver refuses it at the start")
    with flowing(driver, tmp_path) as (bed, process):
        for name, side in (("a", "east"), ("m", "west"), ("m", "east"), ("b", "west")):
            bed.ip(name, f"link set {side} mtu 9000")
        assert ping(bed, 3, size=4000, wait=A_MOMENT_S) == 0
        assert ping(bed, 10) == 10
        summary = summary_of(process)
    assert summary["dropped"] == {"too_long": 3}


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_interface_that_vanishes_and_comes_back(driver: str, tmp_path: Path) -> None:
    """Another interface of the same name takes its place; no restart."""
    with flowing(driver, tmp_path) as (bed, process):
        bed.ip("m", "link delete east")  # and b's, the other end of the pair
        warned(process, "wan", "gone")
        assert ping(bed, 3, wait=A_MOMENT_S) == 0
        bed.plug("m", "b")
        bed.ip("b", f"address add {ENDS[1]}/24 dev west", "route add default via 10.82.0.1")
        bed.neighbours(far=True)
        again(bed)
        summary = summary_of(process)
    assert set(summary["dropped"]) <= UNSENT
    assert sum(summary["dropped"].values()) >= 3


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_interface_that_vanishes_for_good(driver: str, tmp_path: Path) -> None:
    """The run ends as any other, when it is asked to; it said so once."""
    with flowing(driver, tmp_path) as (bed, process):
        bed.ip("m", "link delete west")
        warned(process, "lan", "gone")
        assert ping(bed, 3, name="b", wait=A_MOMENT_S) == 0
        summary = summary_of(process)
        assert said(process, "lan", "gone") == 1, process.text
    assert set(summary["dropped"]) <= UNSENT


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_drain_and_a_restart(driver: str, tmp_path: Path) -> None:
    """Drained nothing is taken in: the interface's queue keeps what comes, and goes first after
    that. A restart opens the same interfaces again."""
    with flowing(driver, tmp_path) as (bed, process):
        reply = Reply(process.name, "drain")
        assert list(reply) == [] and reply.end["drained"]
        before = bed.counts("b", "west").rx
        assert ping(bed, 3, wait=A_MOMENT_S) == 0
        assert bed.counts("b", "west").rx == before
        list(Reply(process.name, "resume"))
        process.until(lambda: bed.counts("b", "west").rx >= before + 3, "what waited")
        again(bed)
        path = tmp_path / "run" / "topology.yaml"
        path.write_text(path.read_text() + "memory: {mbufs: 8192}\n")
        reply = Reply(process.name, "reload", restart=True)
        assert [change["part"] for change in reply] == ["memory"]
        assert reply.end["drained"]["dropped"] == {}
        again(bed)
        summary = summary_of(process)
    assert summary["dropped"] == {} and len(summary["runs"]) == 1
