# SPDX-License-Identifier: BSD-3-Clause
"""What it costs a run that somebody asks `hummingbird web` a thousand times a second.

    gen0 (as fast as it goes) ── nf0 (CPU) ── sink0      64 B, one lcore
                    └── shared memory ── [ hummingbird web ] ══ HTTP ══ [ storm ]

`web` reads shared memory twice a second, however often it is asked, and runs where no lcore is
pinned, if there are other CPUs; so what may be left is what it does to the caches. The figure is
packets by CPU time of the lcore: where others take the CPU away, that is not in it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import chains
import numpy as np
from harness import Bench, Case, Ratio, Reading, Result, Settings, main
from watched import Shared, Watched, folder, watched

from hummingbird.errors import UserError

PER_S = 1000
START_S = 30.0
FIRST = 100_000
"""Packets that have to be through before anything is measured."""
AT_LEAST = 0.95
PATHS = ("/metrics", "/status.json")


# ---- the storm, a process of its own -------------------------------------------------------------


def storm(port: int, seconds: float) -> None:
    """Ask; print when that has begun, then how long each answer took, in us."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print("asking", flush=True)
    began = time.monotonic()
    took: list[int] = []
    with closing(connection):
        while (now := time.monotonic()) < began + seconds or not took:
            time.sleep(max(0.0, began + len(took) / PER_S - now))
            asked = time.monotonic()
            _ask(connection, PATHS[len(took) % len(PATHS)])
            took.append(round((time.monotonic() - asked) * 1e6))
    print(*took)


def _ask(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _received(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length and head.startswith(b"HTTP/1.1 200 "), head
    left = int(length[1]) - len(body)
    while left:
        left -= len(_received(connection))


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise ConnectionError("`hummingbird web` has hung up")
    return data


# ---- what is measured ----------------------------------------------------------------------------


@contextmanager
def _web(name: str, at: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`hummingbird web` for an instance, and its port."""
    said = at / "web.txt"
    command = [sys.executable, "-m", "hummingbird.cli", "web", "--name", name]
    with open(said, "wb") as text:
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=text,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        end = time.monotonic() + START_S
        while "serving the instance" not in (words := said.read_text()):
            if process.poll() is not None or time.monotonic() > end:
                raise UserError(f"`hummingbird web` does not serve: {words.strip()}")
            time.sleep(0.05)
        yield process, int(words.partition("127.0.0.1:")[2].partition("/")[0])
    finally:
        process.kill()
        process.wait()


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process of one thread."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _stretch(run: Watched, pid: int, seconds: float) -> dict[str, Any]:
    """A stretch of the run, and what `web` used meanwhile."""
    before, cpu = run.moment(), _cpu_seconds(pid)
    time.sleep(seconds)
    found = run.stretch(before, run.moment())
    return {
        "mpps": found.mpps_by_cpu,
        "mpps_by_the_clock": found.packets / found.seconds / 1e6,
        "lcore_cpu_share": found.lcore_cpu / found.seconds,
        "web_cpu_share": (_cpu_seconds(pid) - cpu) / found.seconds,
    }


def _both(seconds: float) -> Mapping[str, Any]:
    """One run, quiet and then in the storm."""
    topology = {
        "ports": {"gen0": chains.generator(60), "sink0": {"driver": "sink"}},
        "nfs": chains.forwarders(1),
    }
    rows = chains.straight("gen0", *chains.forwarders(1), "sink0")
    with folder() as at, watched(topology, rows, at) as run:
        run.await_packets(FIRST)
        with _web(run.name, at) as (web, port):
            quiet = _stretch(run, web.pid, seconds)
            asking = subprocess.Popen(
                [sys.executable, __file__, "--storm", str(port), str(seconds + 0.5)],
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: os.sched_setaffinity(0, os.sched_getaffinity(web.pid)),
            )
            assert asking.stdout and asking.stdout.readline() == "asking\n"
            stormy = _stretch(run, web.pid, seconds)
            said, _ = asking.communicate()
            if asking.returncode:
                raise UserError("not every question was answered")
            took = np.array(list(map(int, said.split()))) / 1e3
            pages = int(Path(f"/proc/{web.pid}/statm").read_text().split()[1])
        run.stop()
    stormy |= {
        "requests_per_s": len(took) / (seconds + 0.5),
        "answer_ms": {"p50": float(np.median(took)), "p99": float(np.quantile(took, 0.99))},
        "longest_ms": float(took.max()),
        "web_mib": pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20),
    }
    return {name: Reading(d.pop("mpps"), d) for name, d in (("quiet", quiet), ("storm", stormy))}


def cases(settings: Settings) -> Sequence[Case]:
    """What is measured each round."""
    shared = Shared(lambda: _both(settings.seconds))
    return [Case(name, "Mpps", lambda n=name: shared.take(n)) for name in ("quiet", "storm")]  # type: ignore[misc]


def ratios(_: Settings) -> Sequence[Ratio]:
    """With against without."""
    return [Ratio("scrape_storm_vs_quiet", "storm", "quiet", at_least=AT_LEAST)]


def notes(result: Result) -> Sequence[str]:
    """How to read the table."""
    asked = [sample for sample in result.samples if sample["case"] == "storm"]
    if not asked:
        return []

    def median(of: str) -> float:
        return float(np.median([sample[of] for sample in asked]))

    p50, p99 = (float(np.median([s["answer_ms"][q] for s in asked])) for q in ("p50", "p99"))
    return [
        "Mpps by CPU time of the lcore. One NF that does nothing, 64 B (60 and the FCS), on one "
        f"lcore, which had {median('lcore_cpu_share'):.0%} of its CPU in the storm. "
        f"{median('requests_per_s'):,.0f} requests/s, {' and '.join(PATHS)} in turn: half of the "
        f"answers within {p50:.2f} ms, 99 % within {p99:.1f} ms, the longest "
        f"{max(sample['longest_ms'] for sample in asked):.0f} ms; `web` took "
        f"{median('web_cpu_share'):.0%} of a CPU and {median('web_mib'):.0f} MiB.",
    ]


BENCH = Bench(
    name="scrape_storm",
    title="A run while `hummingbird web` is asked a thousand times a second",
    cases=cases,
    ratios=ratios,
    notes=notes,
    rounds=15,
    seconds=2.0,
    quick_seconds=0.5,
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--storm"]:
        storm(int(sys.argv[2]), float(sys.argv[3]))
        sys.exit(0)
    sys.exit(main(BENCH))
