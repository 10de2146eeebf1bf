# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzed packets through every NF and every CPU engine, in the real data plane. Run by
test_fuzz_chain.py with a data plane that checks every access to memory.

    fuzz_chain.py PACKETS SEED
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mutate
import numpy as np
from chain import run_chain

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "policies" / "demo"
DATA = Path(os.environ.get("HUMMINGBIRD_TEST_DATA", ROOT.parent / "shared" / "data"))
ROUND = 50_000
MEMORY = {"mbufs": 8192, "queue": 1024, "flows": 1024}


def scenarios() -> list[tuple[str, dict[str, Any], str, dict[str, bytes]]]:
    """Name, topology, policy rows, and files."""
    ports = {"in0": {"driver": "pcap", "read": "$in"}, "out0": {"driver": "pcap", "write": "$out"}}
    return [
        (
            "nothing",
            {"ports": ports, "nfs": {"nf0": {"type": "forward"}}},
            "*,in0,nf0\n*,nf0,out0\n",
            {},
        )
    ]


def corpus() -> mutate.Array:
    """The demo's capture and, where they are, the real ones."""
    captures = [DEMO / "branch.pcap"]
    if (DATA / "traces").is_dir():
        captures += (DATA / "traces").glob("*/*.pcap*")
    return mutate.read_corpus(captures)


def main() -> None:
    """Rounds of ROUND packets through each scenario in turn."""
    packets, seed = int(sys.argv[1]), int(sys.argv[2])
    rows, rng = corpus(), np.random.default_rng(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "in.pcap"
        for first in range(0, packets, ROUND):
            count = min(ROUND, packets - first)
            mutate.write_capture(capture, *mutate.mutate(rows, count, rng))
            for name, source, policy, files in scenarios():
                result = run_chain(source, capture, policy, files=files, memory=MEMORY)
                assert result.summary["received"] == count, name
            print(f"{first + count:,} packets, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
