# SPDX-License-Identifier: BSD-3-Clause
"""What can be wrong with a live port at the start: one error that says what, where and what to do,
exit status 2, and nothing left half open.

    a ═══ west [ m: hummingbird run, refused ] east ═══ b
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from process import Ended
from testbed import (
    PING,
    Bed,
    hummingbird,
    line,
    needs,
    reach,
    starting,
    summary_of,
    until,
    wire,
    xdp_program,
)

from hummingbird.telemetry.rundir import base_dir

ROOTLESS = ("setpriv", "--bounding-set")
"""Followed by what even root may not do then."""


@pytest.fixture
def bed() -> Iterator[Bed]:
    """The middle is what counts here."""
    needs(PING, "setpriv:util-linux", "prlimit:util-linux")
    with line("a", "m", "b") as made:
        yield made


def refused(bed: Bed, driver: str, folder: Path, *within: str, **port: object) -> Ended:
    """A run that fails; what it has said. ``port``: fields of port lan."""
    topology, rows = wire(driver)
    topology["ports"]["lan"].update(port)
    before = interfaces(bed)
    with starting(bed, "m", folder / "run", topology, rows, within=within) as process:
        ended = process.wait()
        assert not (base_dir() / process.name / "stats").exists()
    assert ended.status == 2, (ended.status, ended.text)
    assert ended.text.count("hummingbird: error:") == 1 and "fix:" in ended.text, ended.text
    assert "Traceback" not in ended.text and "running after" not in ended.text
    assert ended.summary is None
    check_clean(bed)
    assert interfaces(bed) == before
    return ended


def check_clean(bed: Bed) -> None:
    """No XDP program is left, and no promiscuous interface."""
    for side in {"west", "east"} & interfaces(bed):
        assert not xdp_program(bed, "m", side)
        link = bed.do("m", "ip", "-d", "link", "show", "dev", side)
        assert "promiscuity 0" in link, link


def interfaces(bed: Bed) -> set[str]:
    """Of the middle."""
    return set(bed.do("m", "ls", "/sys/class/net").split())


@pytest.mark.parametrize("driver", ["af_xdp", "af_packet"])
def test_there_is_no_such_interface(bed: Bed, driver: str, tmp_path: Path) -> None:
    ended = refused(bed, driver, tmp_path, interface="wets")
    assert "wets" in ended.text and "lan" in ended.text


@pytest.mark.parametrize("driver", ["af_xdp", "af_packet"])
def test_the_second_port_has_no_interface(bed: Bed, driver: str, tmp_path: Path) -> None:
    """The first, which was opened already, is closed again."""
    bed.ip("m", "link delete east")
    ended = refused(bed, driver, tmp_path)
    assert "east" in ended.text and "wan" in ended.text


@pytest.mark.parametrize("driver", ["af_xdp", "af_packet"])
def test_the_interface_is_down(bed: Bed, driver: str, tmp_path: Path) -> None:
    """That can be mended while it runs: it says so, and works as soon as it is up."""
    bed.ip("m", "link set west down")
    bed.neighbours(far=True)
    topology, rows = wire(driver)
    with hummingbird(bed, "m", tmp_path / "run", topology, rows) as process:
        warning = "warning: lan: interface west is down (fix: ip link set west up)"
        process.until(lambda: warning in process.text, "a warning")
        bed.ip("m", "link set west up")
        bed.neighbours(far=True)
        reach(bed)
        # it looks at interfaces every now and then only; packets are faster
        process.until(lambda: "lan: interface west is up" in process.text, "a word about it")
        summary_of(process)
        assert process.text.count("warning:") == 1, process.text


@pytest.mark.parametrize(
    ("driver", "rights"),
    [("af_xdp", "-net_admin,-net_raw,-bpf,-sys_admin"), ("af_packet", "-net_raw,-net_admin")],
)
def test_a_capability_is_missing(bed: Bed, driver: str, rights: str, tmp_path: Path) -> None:
    ended = refused(bed, driver, tmp_path, *ROOTLESS, rights)
    assert "CAP_NET" in ended.text.upper(), ended.text


def test_there_is_too_little_locked_memory(bed: Bed, tmp_path: Path) -> None:
    """AF_XDP pins its frames."""
    little = ("prlimit", "--memlock=65536", *ROOTLESS, "-ipc_lock")
    ended = refused(bed, "af_xdp", tmp_path, *little)
    assert "memlock" in ended.text.lower(), ended.text


def test_another_run_has_the_queue(bed: Bed, tmp_path: Path) -> None:
    """The second is refused; the first never notices."""
    topology, rows = wire("af_xdp")
    with hummingbird(bed, "m", tmp_path / "first", topology, rows) as first:
        with starting(bed, "m", tmp_path / "second", topology, rows) as second:
            ended = second.wait()
        assert ended.status == 2 and ended.text.count("hummingbird: error:") == 1, ended.text
        assert "west" in ended.text and "Traceback" not in ended.text
        assert xdp_program(bed, "m", "west")
        assert summary_of(first)["dropped"] == {}
    check_clean(bed)


def test_another_run_has_the_tap(bed: Bed, tmp_path: Path) -> None:
    topology = {"ports": {"t0": {"driver": "tap", "interface": "hb0"}, "out": {"driver": "sink"}}}
    rows = "*,t0,out\n"
    with hummingbird(bed, "m", tmp_path / "first", topology, rows) as first:
        with starting(bed, "m", tmp_path / "second", topology, rows) as second:
            ended = second.wait()
        assert ended.status == 2 and ended.text.count("hummingbird: error:") == 1, ended.text
        assert "hb0" in ended.text and "Traceback" not in ended.text
        assert "hb0" in interfaces(bed)
        summary_of(first)
    assert "hb0" not in interfaces(bed)


@pytest.mark.parametrize("driver", ["af_xdp", "af_packet"])
def test_an_interface_that_vanishes_during_the_start(bed: Bed, driver: str, tmp_path: Path) -> None:
    """Either the start fails, or a run has begun that says so and ends in order."""
    topology, rows = wire(driver)
    with starting(bed, "m", tmp_path / "run", topology, rows) as process:
        process.until(lambda: process.snapshot() is not None, "its counters")
        bed.ip("m", "link delete east")
        over = process.process.poll
        until(lambda: over() is not None or "running after" in process.text, "its start or end")
        ended = process.wait() if "running after" not in process.text else process.stop()
    assert ended.status in (0, 2) and "Traceback" not in ended.text, ended.text
    if ended.status == 0:
        assert ended.balanced["in_flight"] == 0
    else:
        assert ended.text.count("hummingbird: error:") == 1 and "east" in ended.text, ended.text
    check_clean(bed)
