# SPDX-License-Identifier: BSD-3-Clause
"""The bed that live ports are tested on, with Linux itself in the middle: what does not work here
cannot be asked of Hummingbird.

    a ═══ veth ═══ m: Linux, ip_forward ═══ veth ═══ b
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import testbed
from testbed import (
    A_MOMENT_S,
    ENDS,
    IPERF,
    PING,
    Bed,
    http,
    line,
    needs,
    ping,
    stream,
    sweep,
    tcpdump,
    until,
)

from hummingbird.testing import read_capture


@pytest.fixture
def bed() -> Iterator[Bed]:
    """Linux forwards."""
    needs(PING, IPERF, "tcpdump", "curl")
    with line("a", "m", "b") as made:
        made.route()
        yield made


def namespaces() -> set[str]:
    """All of this machine."""
    return set(subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split())


def test_the_ends_reach_each_other(bed: Bed) -> None:
    assert ping(bed, 20) == 20
    assert ping(bed, 20, name="b", size=1472) == 20
    assert bed.counts("b", "west").rx >= 40


def test_nobody_forwards_until_told_to() -> None:
    needs(PING)
    with line("a", "m", "b") as made:
        assert ping(made, 3, wait=A_MOMENT_S) == 0
        assert made.counts("a", "east").tx > 0 and made.counts("b", "west").rx == 0


def test_a_quiet_line_is_quiet() -> None:
    """Nothing is sent of Linux's own accord, so that tests may count exactly."""
    needs(PING)
    with line("a", "m", "b") as made:
        made.route()
        made.neighbours()
        made.do("a", "ping", "-n", "-i", "0.01", "-c", "50", ENDS[1])  # so many and no more
        until(lambda: made.counts("a", "east").rx >= 50, "the last answer")
        west = made.counts("a", "east")
        assert (west.tx, west.rx) == (50, 50)


@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
def test_tcp(bed: Bed, tmp_path: Path, reverse: bool) -> None:
    stream(bed, tmp_path, reverse)


def test_http_and_a_capture(bed: Bed, tmp_path: Path) -> None:
    """What tcpdump saw are frames as on a cable: none longer than the MTU allows."""
    root = tmp_path / "root"
    root.mkdir()
    content = bytes(range(256)) * 4096
    (root / "file").write_bytes(content)
    got = tmp_path / "got"
    with (
        tcpdump(bed, "m", "west", tmp_path) as capture,
        http(bed, "b", tmp_path, root, ENDS[1]) as url,
    ):
        bed.do("a", "curl", "-sS", "-o", str(got), f"{url}/file")
    assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(content).digest()
    sizes = [len(packet) for packet in read_capture(capture).packets]
    assert max(sizes) == 1514 and sum(sizes) > len(content)


def test_a_bed_is_gone_afterwards_also_when_its_process_was_killed(tmp_path: Path) -> None:
    """By the block's end, by an error in it, and by whoever makes the next bed."""
    needs()
    with pytest.raises(ValueError, match="in the block"), line("a", "b") as made:
        mine = {made.full(name) for name in made.names}
        assert mine <= namespaces()
        raise ValueError("in the block")
    assert not mine & namespaces()
    script = (
        f"import sys; sys.path[:0] = [{str(Path(testbed.__file__).parent)!r}]\n"
        "from testbed import line\n"
        "with line('a', 'b') as made:\n"
        "    print(*map(made.full, made.names), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True)
    assert child.stdout is not None
    theirs = set(child.stdout.readline().split())
    assert len(theirs) == 2 and theirs <= namespaces()
    assert not theirs & set(sweep()), "a bed in use was swept away"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert theirs <= namespaces() and set(sweep()) >= theirs
    assert not theirs & namespaces()
