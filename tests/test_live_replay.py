# SPDX-License-Identifier: BSD-3-Clause
"""Captures of real traffic at full speed into a live port: nothing gets lost without a count.

a: tcpreplay --topspeed ═══ lan [ there ] wan ═══ b: counters of Linux

what tcpreplay sent = received + missed + what the cable refused        sent = what b received
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from namespaces import Namespace, raw
from process import Service
from scapy.utils import RawPcapReader
from testbed import LIVE, Bed, counted, hummingbird, line, needs, summary_of, tcpdump, wire
from wires import AT_ONCE

from hummingbird.testing import read_capture

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("HUMMINGBIRD_TEST_DATA") or ROOT.parent / "shared" / "data")
OWN = ROOT / "policies" / "demo" / "branch.pcap"
OTHERS = ("mixed_ndpi.pcap", "attack/ndpi__WebattackXSS.pcap", "fragments/suricata__frag-15.pcap")
EXACT = ("af_xdp", "af_packet")
"""Drivers that know what was missed; DPDK's af_packet never asks Linux."""
_SENT = re.compile(r"Successful packets:\s+(\d+)")


def replay(bed: Bed, capture: Path, loops: int) -> int:
    """Frames that tcpreplay says it has sent."""
    argv = ["tcpreplay", "--topspeed", "--preload-pcap", f"--loop={loops}", "-i", "east"]
    done = bed.run("a", *argv, str(capture))
    sent = _SENT.search(done.stdout)
    assert done.returncode == 0 and sent, done.stdout + done.stderr
    return int(sent[1])


def taken(process: Service) -> int:
    """Packets that lan has received, and missed."""
    return process.packets(0, "in_packets") + process.packets(0, "missed")


def check_counts(driver: str, capture: Path, loops: int, engine: str, folder: Path) -> None:
    """Replay, and compare everybody's counters."""
    needs("tcpreplay")
    with line("a", "m", "b", addresses=False) as bed:
        topology, rows = wire(driver, engine)
        with hummingbird(bed, "m", folder / "run", topology, rows) as process:
            replayed = replay(bed, capture, loops)
            cable = bed.counts("a", "east")
            process.until(lambda: taken(process) >= cable.tx, f"{cable.tx} packets")
            summary = summary_of(process)
            left, arrived = bed.counts("m", "east"), bed.counts("b", "west")
    lan = summary["ports"]["lan"]
    assert replayed == cable.tx + cable.tx_dropped
    assert lan["received"] + lan.get("missed", 0) == cable.tx, (lan, cable)
    sent = counted(summary, "sent", "wan")
    assert sent == left.tx + left.tx_dropped, (sent, left)
    assert arrived.rx == left.tx
    assert sent + sum(summary["dropped"].values()) == lan["received"]
    assert sent > 0


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
@pytest.mark.parametrize("driver", EXACT)
def test_the_demonstration_at_full_speed(driver: str, engine: str, tmp_path: Path) -> None:
    check_counts(driver, OWN, 20, engine, tmp_path)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("driver", EXACT)
def test_other_captures_at_full_speed(driver: str, name: str, tmp_path: Path) -> None:
    capture = DATA / "traces" / name
    if not capture.exists():
        pytest.skip(f"NOT TESTED with {name}: set HUMMINGBIRD_TEST_DATA to where traces/ lies")
    check_counts(driver, capture, 1, "cpu", tmp_path)


@pytest.mark.parametrize("driver", LIVE)
def test_frames_come_out_as_they_went_in(driver: str, tmp_path: Path) -> None:
    """No more at a time than every queue on the way holds, so that none is missed: those at b are
    those of the capture, in their order."""
    needs("tcpdump")
    with line("a", "m", "b", addresses=False) as bed:
        topology, rows = wire(driver)
        with (
            hummingbird(bed, "m", tmp_path / "run", topology, rows) as process,
            tcpdump(bed, "b", "west", tmp_path) as seen,
            raw(Namespace(bed.full("a")), "east") as out,
        ):
            replayed = [data for data, _ in RawPcapReader(str(OWN))]
            for number, data in enumerate(replayed, 1):
                out.send(data)
                if number % AT_ONCE == 0 or number == len(replayed):
                    process.until(lambda n=number: process.packets(1) >= n, f"{number} packets")
            summary = summary_of(process)
    assert counted(summary, "missed", "lan") == 0
    assert read_capture(seen).packets == replayed
