# SPDX-License-Identifier: BSD-3-Clause
"""The peer: DPDK's testpmd forwards on one lcore between two null ports, which make and swallow
packets without a copy. Nothing of it stays behind: no process, no huge pages, no files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from child import prepare
from harness import Reading

from hummingbird.errors import UserError

COMMAND = "dpdk-testpmd"
MBUFS = 16384
MEMORY_MIB = 256
WARM_UP_S = 0.3
SAMPLE_S = 1.0
TIMEOUT_S = 20.0
"""Of starting and of stopping."""
_NR_HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")
_COMPACT = Path("/proc/sys/vm/compact_memory")
_HUGE_PAGE_KIB = 2048
_RATE = re.compile(r"Rx-pps:\s*(\d+)")


def missing() -> str | None:
    """Why there is no testpmd here; None if there is."""
    if shutil.which(COMMAND):
        return None
    return f"{COMMAND} is not installed (fix: apt-get install dpdk dpdk-dev)"


def measure(seconds: float, cpu: int, *, huge_pages: bool) -> Reading:
    """Mpps that testpmd forwards, each packet counted once.

    Args:
        seconds: how long to look, in samples of about a second.
        cpu: CPU of the forwarding lcore. The other lcore sleeps.
        huge_pages: 2 MiB pages, which are reserved for the time; else 4 KiB pages.

    Raises:
        UserError: it is not installed, does not start, or there are no huge pages to be had.
    """
    if why := missing():
        raise UserError(why)
    samples = max(1, round(seconds / SAMPLE_S))
    with reserved(MEMORY_MIB if huge_pages else 0):
        rates = _rates(cpu, huge_pages, samples, seconds / samples)
    return Reading(statistics.median(rates) / 1e6, {"samples_mpps": [r / 1e6 for r in rates]})


def _rates(cpu: int, huge_pages: bool, samples: int, pause: float) -> list[float]:
    """Packets a second: what both ports together have received in each sample."""
    limit = samples * pause + 2 * TIMEOUT_S
    ports = ("net_null0", "net_null1")
    with started(ports, cpu, limit, huge_pages=huge_pages, mode="macswap") as process:
        assert process.stdin is not None
        time.sleep(WARM_UP_S)
        for _ in range(samples):
            _ask(process.stdin, "show port stats all")  # rates are since the last time
            time.sleep(pause)
        _ask(process.stdin, "show port stats all", "stop", "quit")
        text, _ = process.communicate()
    # two ports; the first answer has nothing to be a rate of
    found = [int(rate) for rate in _RATE.findall(text)]
    rates = [float(a + b) for a, b in zip(found[2::2], found[3::2], strict=True)]
    if len(rates) != samples or not all(rates):
        raise UserError(f"{COMMAND} forwarded nothing: {text[-500:].strip()}")
    return rates


@contextlib.contextmanager
def started(
    ports: Sequence[str],
    cpu: int,
    limit: float,
    *,
    huge_pages: bool,
    mode: str,
    mib: int = MEMORY_MIB,
    within: Sequence[str] = (),
) -> Iterator[subprocess.Popen[str]]:
    """testpmd that forwards between two ports, from when it does to the end of the block.

    Args:
        ports: vdevs, with their arguments.
        cpu: of the forwarding lcore.
        limit: seconds after which it is killed.
        huge_pages: whether it takes reserved ones, which `reserved` provides.
        mode: of forwarding.
        mib: of memory.
        within: a command that runs the rest of its arguments in its own place.

    Raises:
        UserError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="hummingbird-testpmd-") as directory:
        process = subprocess.Popen(
            [*within, *_command(ports, cpu, huge_pages, mode, mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "RUNTIME_DIRECTORY": directory},  # instead of /var/run
            preexec_fn=prepare(huge_pages=huge_pages),
        )
        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            _wait_for(process.stdout, "nb forwarding cores=1")
            yield process
        finally:
            timer.cancel()
            process.kill()
            process.wait()


def _command(ports: Sequence[str], cpu: int, huge_pages: bool, mode: str, mib: int) -> list[str]:
    others = sorted(os.sched_getaffinity(0) - {cpu})
    # stdbuf: a line is to be seen when it is written. --in-memory: no files in a hugetlbfs.
    return [
        *("stdbuf", "-oL", COMMAND, "--lcores", f"0@{others[0] if others else cpu},1@{cpu}"),
        *("--no-pci", "--no-telemetry", "-m", str(mib)),
        *("--file-prefix", f"hummingbird-{os.getpid()}"),
        "--in-memory" if huge_pages else "--no-huge",
        *(f"--vdev={port}" for port in ports),
        *("--", "--interactive", "--auto-start", f"--forward-mode={mode}"),
        *(f"--total-num-mbufs={MBUFS}", "--no-lsc-interrupt"),
    ]


def _ask(stdin: IO[str], *commands: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # its last words are read by _rates()
        stdin.write("".join(f"{command}\n" for command in commands))
        stdin.flush()


def _wait_for(stdout: IO[str], words: str) -> None:
    said = []
    for line in stdout:
        said.append(line)
        if words in line:
            return
    raise UserError(f"{COMMAND} did not start: {''.join(said)[-500:].strip()}")


@contextlib.contextmanager
def reserved(mib: int) -> Iterator[None]:
    """Have `mib` MiB of huge pages free, for a while."""
    pages = max(0, mib * 1024 // _HUGE_PAGE_KIB - _meminfo("HugePages_Free")) if mib else 0
    if mib and _meminfo("Hugepagesize") != _HUGE_PAGE_KIB:
        raise UserError("the huge pages of this machine are not of 2 MiB")
    if pages and os.geteuid() != 0:
        fix = f"as root: echo {mib * 1024 // _HUGE_PAGE_KIB} > {_NR_HUGEPAGES}"
        raise UserError("no huge pages are reserved, and only root may reserve some", fix=fix)
    _add_huge_pages(pages)
    try:
        if mib and _meminfo("HugePages_Free") * _HUGE_PAGE_KIB < mib * 1024:
            raise UserError(f"memory is too fragmented for {mib} MiB of huge pages")
        yield
    finally:
        _add_huge_pages(-pages)


def _add_huge_pages(pages: int) -> None:
    """Relative to what there is, so that two benchmarks do not take each other's pages away."""
    if pages > 0:  # memory in one piece is rare on a machine that has run for a while
        with contextlib.suppress(OSError):
            _COMPACT.write_text("1", encoding="ascii")
    if pages:
        number = int(_NR_HUGEPAGES.read_text(encoding="ascii")) + pages
        try:
            _NR_HUGEPAGES.write_text(str(max(0, number)), encoding="ascii")
        except OSError as error:
            what = f"no huge pages are reserved, and none can be: {error.strerror}"
            raise UserError(what, path=_NR_HUGEPAGES) from None


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0
