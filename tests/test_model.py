# SPDX-License-Identifier: BSD-3-Clause
"""The queue protocol of docs/protocol.md, checked by Spin over all interleavings of a small queue.

    queue.pml --spin -a--> pan.c --gcc--> pan --> every reachable state: right protocol 0 errors, seeded fault >= 1

A right protocol counts only when the search was complete and every statement of the model was reached.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).parent / "model" / "queue.pml"
TOOLS = ("spin", "gcc")

# Sizes that the right protocol is checked with. ABEND launches of MAXL may end abnormally.
RIGHT = {
    "a row is reused, abnormal end": {"NS": 1, "ROWS0": 3, "ROWS1": 1, "MAXL": 2, "ABEND": 1},
    "two syncers": {"NS": 2, "ROWS0": 2, "ROWS1": 1, "MAXL": 2, "ABEND": 0},
    "two syncers, two abnormal ends": {"NS": 2, "ROWS0": 1, "ROWS1": 1, "MAXL": 3, "ABEND": 2},
    "both workgroups full": {"NS": 1, "ROWS0": 2, "ROWS1": 2, "MAXL": 2, "ABEND": 0},
}

# What Spin must report for each seeded fault.
DEADLOCK = "invalid end state"
ASSERTION = "assertion violated"
FAULTS = {
    "FAULT_NO_RELEASE": ASSERTION,
    "FAULT_NO_RELEASE_HOST": ASSERTION,
    "FAULT_NO_ACQUIRE": ASSERTION,
    "FAULT_NO_ACQUIRE_HOST": ASSERTION,
    "FAULT_NO_BARRIER": ASSERTION,
    "FAULT_EARLY_PUBLISH": ASSERTION,
    "FAULT_NO_FENCE": DEADLOCK,
    "FAULT_NO_FENCE_EXEC": DEADLOCK,
    "FAULT_REUSE": ASSERTION,
    "FAULT_MID_ROW": ASSERTION,
    "FAULT_STALE_RANK": ASSERTION,
    "FAULT_RERUN": ASSERTION,
    "FAULT_NO_ACK": ASSERTION,
    "FAULT_EARLY_RESET": ASSERTION,
    "FAULT_NO_QUARANTINE": ASSERTION,
}


@dataclass(frozen=True)
class Verdict:
    """What one run of the verifier said."""

    errors: int
    complete: bool
    unreached: frozenset[str]
    text: str


@pytest.fixture(autouse=True, scope="module")
def tools(pytestconfig: pytest.Config) -> None:
    """Skip, and be heard without -rs, where the model checker is not installed."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        reason = f"the queue protocol was NOT model-checked: {', '.join(missing)} not found (apt install spin gcc)"
        with pytestconfig.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
            print(f"\nWARNING: {reason}", file=sys.stderr)
        pytest.skip(reason)


def check(directory: Path, defines: list[str], optimise: str, table: str) -> Verdict:
    """Generate, build and run the verifier for the model with these -D options; table: -w, its hash table, log2."""

    def call(*command: str) -> str:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    call("spin", "-a", *defines, str(MODEL))
    # NOREDUCE: partial-order reduction is not sound with "provided" clauses.
    call("gcc", optimise, "-DSAFETY", "-DNOREDUCE", "-DVECTORSZ=512", "-DMEMLIM=3500", "-o", "pan", "pan.c")
    text = call("./pan", "-m10000", table)
    errors = re.search(r"errors: (\d+)", text)
    assert errors, text
    return Verdict(
        errors=int(errors[1]),
        complete=not re.search(r"Search not completed|max search depth too small|out of memory", text),
        unreached=frozenset(re.findall(r'^\t\S+:\d+, state \d+, "(.*)"$', text, re.MULTILINE)),
        text=text,
    )


@pytest.mark.parametrize("name", RIGHT)
def test_right_protocol_holds(name: str, tmp_path: Path) -> None:
    """No packet is lost, doubled, run twice or stale, the indices stay in order, and nothing deadlocks."""
    sizes = RIGHT[name]
    verdict = check(tmp_path, [f"-D{key}={value}" for key, value in sizes.items()], "-O2", "-w24")
    assert verdict.errors == 0, verdict.text
    assert verdict.complete, verdict.text
    if sizes["ABEND"]:  # the model does all it says: no part of it is dead
        assert verdict.unreached <= {"-end-", "(run Syncer(1))"}, verdict.text


@pytest.mark.parametrize("fault", FAULTS)
def test_seeded_fault_is_found(fault: str, tmp_path: Path) -> None:
    """Each rule of the protocol is needed: without it packets come to harm, or all stand still."""
    verdict = check(tmp_path, ["-DABEND=1", "-DHARM_ONLY", f"-D{fault}"], "-O0", "-w19")
    assert verdict.errors >= 1, verdict.text
    assert FAULTS[fault] in verdict.text, verdict.text


def test_every_fault_of_the_model_is_listed() -> None:
    """A fault seeded in the model and not run here would check nothing."""
    assert set(re.findall(r"\bFAULT_[A-Z_]+\b", MODEL.read_text())) == set(FAULTS)
