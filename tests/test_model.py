# SPDX-License-Identifier: BSD-3-Clause
"""The queue protocol of docs/protocol.md: Spin tries every interleaving of a small queue.

    queue.pml --spin -a--> pan.c --gcc--> pan --> no error in the right protocol,
                                                  an error with each seeded fault

The right protocol passes only if the search was complete and reached all of the model.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).parent / "model" / "queue.pml"
TOOLS = ("spin", "gcc")
# Exhaustive, in at most 3.5 GB. NOREDUCE: partial-order reduction does not allow for "provided".
PAN = ("-DSAFETY", "-DNOREDUCE", "-DVECTORSZ=512", "-DMEMLIM=3500")
INCOMPLETE = re.compile(r"Search not completed|max search depth too small|out of memory")

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
def tools() -> None:
    """Skip, and say what was not checked, where the model checker is not installed."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"THE QUEUE PROTOCOL WAS NOT CHECKED: {' and '.join(missing)} not found")


def check(directory: Path, defines: list[str], optimise: str, table: str) -> Verdict:
    """Generate, build and run the verifier with these -D options; `table` sizes its hash table."""

    def call(*command: str) -> str:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    call("spin", "-a", *defines, str(MODEL))
    call("gcc", optimise, *PAN, "-o", "pan", "pan.c")
    text = call("./pan", "-m10000", table)
    errors = re.search(r"errors: (\d+)", text)
    assert errors, text
    return Verdict(
        errors=int(errors[1]),
        complete=not INCOMPLETE.search(text),
        unreached=frozenset(re.findall(r'^\t\S+:\d+, state \d+, "(.*)"$', text, re.MULTILINE)),
        text=text,
    )


@pytest.mark.parametrize("name", RIGHT)
def test_right_protocol_holds(name: str, tmp_path: Path) -> None:
    """No packet is lost, doubled, stale or run twice; indices stay in order; nothing deadlocks."""
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
