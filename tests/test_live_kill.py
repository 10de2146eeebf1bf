# SPDX-License-Identifier: BSD-3-Clause
"""kill -9 leaves nothing behind that stands in anybody's way.

a ═══ m: hummingbird run, killed; then Linux; then hummingbird run again ═══ b
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from testbed import (
    PING,
    Bed,
    hummingbird,
    line,
    needs,
    ping,
    starting,
    summary_of,
    until,
    wire,
    xdp_program,
)


def killed(bed: Bed, driver: str, folder: Path) -> None:
    """A run that forwards, and ends without a chance to tidy up."""
    topology, rows = wire(driver)
    with hummingbird(bed, "m", folder, topology, rows) as process:
        assert ping(bed, 5) == 5
        assert xdp_program(bed, "m", "west") == (driver == "af_xdp")
        process.process.kill()
        process.process.wait()


@pytest.mark.parametrize("driver", ["af_xdp", "af_packet"])
def test_linux_goes_on_and_so_does_the_next_run(driver: str, tmp_path: Path) -> None:
    needs(PING)
    with line("a", "m", "b") as bed:
        bed.neighbours(far=True)
        killed(bed, driver, tmp_path / "first")
        # the kernel takes the program away with the process's last file, a moment later
        until(lambda: not xdp_program(bed, "m", "west"), "the XDP program to go")
        until(lambda: not xdp_program(bed, "m", "east"), "the XDP program to go")
        bed.route()
        bed.neighbours()
        assert ping(bed, 10) == 10  # by Linux
        bed.sysctl("m", "net.ipv4.ip_forward=0")
        bed.neighbours(far=True)
        topology, rows = wire(driver)
        with hummingbird(bed, "m", tmp_path / "next", topology, rows) as process:
            assert ping(bed, 10) == 10
            assert summary_of(process)["dropped"] == {}


def test_a_tap_goes_with_its_run(tmp_path: Path) -> None:
    needs(PING)
    with line("m", addresses=False) as bed:
        ports = {name: {"driver": "tap", "interface": f"hb-{name}"} for name in ("t0", "t1")}
        rows = "*,t0,t1\n*,t1,t0\n"
        with hummingbird(bed, "m", tmp_path / "run", {"ports": ports}, rows) as process:
            assert interfaces(bed) == {"lo", "hb-t0", "hb-t1"}
            process.process.kill()
            process.process.wait()
        until(lambda: interfaces(bed) == {"lo"}, "the taps to go")
        with hummingbird(bed, "m", tmp_path / "next", {"ports": ports}, rows) as process:
            summary_of(process)
        assert interfaces(bed) == {"lo"}


def interfaces(bed: Bed) -> set[str]:
    """Of the middle."""
    return set(bed.do("m", "ls", "/sys/class/net").split())


@pytest.mark.parametrize("driver", ["af_xdp", "af_packet"])
def test_killed_while_it_starts(driver: str, tmp_path: Path) -> None:
    """At whatever moment: as soon as it has a run directory."""
    needs(PING)
    with line("a", "m", "b") as bed:
        bed.neighbours(far=True)
        topology, rows = wire(driver)
        for _ in range(3):
            with starting(bed, "m", tmp_path / "run", topology, rows) as process:
                process.until(lambda: process.snapshot() is not None, "its counters")
                process.process.send_signal(signal.SIGKILL)
                process.process.wait()
            for side in ("west", "east"):
                until(lambda s=side: not xdp_program(bed, "m", s), "the XDP program to go")
        with hummingbird(bed, "m", tmp_path / "next", topology, rows) as process:
            assert ping(bed, 5) == 5
            summary_of(process)
