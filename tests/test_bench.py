# SPDX-License-Identifier: BSD-3-Clause
"""Every benchmark runs and writes what it should; what the figures are is not for tests to say.

hummingbird bench NAME --quick ── table, JSON, picture
samples, made up ── [ harness ] ── ratios
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hummingbird import benches
from hummingbird.errors import UserError
from hummingbird.opencl.device import choose

sys.path.append(str(benches.folder()))

import harness
import report
import testpmd

ROOT = Path(__file__).parent.parent
DESIGN = {"bench", "machine", "runtime", "tier", "settings", "samples", "ratios"}
KEYS = DESIGN | {"claims", "limits", "reasons", "notes"}
DRAWS = importlib.util.find_spec("matplotlib") is not None


def command(*args: object) -> tuple[list[str], dict[str, str]]:
    """`hummingbird bench ...` and its environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HUMMINGBIRD_")}
    environment = {**kept, "PYTHONPATH": str(ROOT), harness.SHORT: "0.1", "COLUMNS": "200"}
    return [sys.executable, "-m", "hummingbird.cli", "bench", *map(str, args)], environment


def call(*args: object) -> subprocess.CompletedProcess[str]:
    """Run it to the end."""
    words, environment = command(*args)
    return subprocess.run(words, env=environment, capture_output=True, text=True)


# ---- every script --------------------------------------------------------------------------------


@pytest.mark.timeout(600)  # dozens of runs, each of which a busy machine may start in seconds
@pytest.mark.parametrize("name", benches.names())
def test_writes_what_the_design_says(name: str, tmp_path: Path) -> None:
    """A table, JSON with every sample and ratio, and a picture."""
    bench = benches.load(name)
    file, picture = tmp_path / "result.json", tmp_path / "result.png"
    draw = ["--plot", picture] if DRAWS and bench.plot else []
    done = call(name, "--quick", "--json", file, *draw)
    assert done.returncode == 0, done.stdout + done.stderr
    assert bench.title in done.stdout
    result = json.loads(file.read_text())
    assert set(result) == KEYS
    assert result["bench"] == bench.name == name
    check_samples(result)
    check_ratios(result, bench.ratios(harness.Settings(True, 1, 0.1)), bench.limits)
    if draw:
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert picture.stat().st_size > 8_000


def check_samples(result: dict[str, Any]) -> None:
    """Each says what it is of, and a run has accounted for every packet."""
    assert result["samples"] or result["reasons"]
    for sample in result["samples"]:
        assert {"case", "round", "value", "unit"} <= set(sample)
        assert sample["value"] >= 0 and sample["unit"]
        assert sample.get("balance", 0) in (0, None), sample


def check_ratios(
    result: dict[str, Any], declared: Sequence[harness.Ratio], limits: Sequence[harness.Limit]
) -> None:
    """Each is a median within its spread, or null with a reason."""
    assert set(result["ratios"]) == {ratio.name for ratio in declared}
    bounds = {r.name: (r.at_least, r.at_most) for r in declared} | {
        limit.case: (limit.at_least, limit.at_most) for limit in limits
    }
    for name, (at_least, at_most) in bounds.items():
        given = {"at_least": at_least, "at_most": at_most}
        wanted = {kind: bound for kind, bound in given.items() if bound is not None}
        assert result["claims"].get(name, {}) == wanted
    assert set(result["limits"]) == {limit.case for limit in limits}
    for name, ratio in result["ratios"].items():
        if ratio is None:
            assert result["reasons"][name]
        else:
            assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]


def test_no_script_hides_a_module_of_python() -> None:
    """`python bench/x.py` puts bench/ first: a queue.py there would break much of Python."""
    scripts = {path.stem for path in benches.folder().glob("*.py")}
    assert not scripts & set(sys.stdlib_module_names)


@pytest.mark.skipif(not DRAWS, reason="NOT TESTED: no matplotlib")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of empty legends
@pytest.mark.parametrize("value", [None, 0.0])
@pytest.mark.parametrize("name", [n for n in benches.names() if benches.load(n).plot])
def test_a_picture_is_drawn_of_what_there_is(
    name: str, value: float | None, tmp_path: Path
) -> None:
    """On a busy machine a case may have no figure, or be 0."""
    bench, result = benches.load(name), result_of(("of no panel", 1.0, None))
    shown = () if value is None else bench.cases(harness.Settings(True, 1, 0.1))
    for case in shown:
        result.samples.append(
            {"case": case.name, "round": 0, "value": value, "unit": case.unit, "series": []}
        )
    result.machine = harness.machine()
    harness._plot(bench, result, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 4_000


def test_parts_that_cannot_be_predict_nothing() -> None:
    """A port that was kept from its CPU, and then was not."""
    bench = importlib.import_module("gpu_partition")
    parts = {"ports": 0.1, "ipsec": 1.1, "router": 0.2, "gnf": 0.3, "nids": 0.5}
    assert bench.predict(parts) == pytest.approx(1 / 1.4)
    with pytest.raises(UserError, match="too busy"):
        bench.predict(parts | {"ports": 0.8})


# ---- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["--list"]])
def test_lists_the_benchmarks(args: list[str]) -> None:
    done = call(*args)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == benches.names()
    assert all(benches.load(line.split()[0]).title in line for line in lines)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    done = call("forwardin")
    assert done.returncode == 2
    assert "did you mean 'forwarding'?" in done.stderr and "Traceback" not in done.stderr


def test_an_option_that_a_benchmark_does_not_know_is_refused() -> None:
    done = call("forwarding", "--fast")
    assert done.returncode == 2 and "--fast" in done.stderr


# ---- ratios --------------------------------------------------------------------------------------

NEAR, FAR = [harness.FAR_NS * 0.5] * 2, [harness.FAR_NS * 2] * 2
CHANGED = [NEAR[0], FAR[0]]


def result_of(*samples: tuple[str, float, list[float] | None]) -> harness.Result:
    """A result of samples (case, value, round trips before and after); each case's next round."""
    result = harness.Result("made-up", {}, None, None, {})
    for case, value, trips in samples:
        sample = {"case": case, "round": len(result.values(case)), "value": value, "unit": "Mpps"}
        result.samples.append(sample | ({"round_trip_ns": trips} if trips else {}))
    return result


def work_out(result: harness.Result, **more: Any) -> dict[str, float] | None:
    """The ratio a/b."""
    harness._work_out(result, harness.Ratio("a_vs_b", "a", "b", **more))
    return result.ratios["a_vs_b"]


def test_a_ratio_is_taken_round_by_round() -> None:
    """The ratio of the medians would be 1; the median of the ratios is 2."""
    pairs = [("a", 2.0, None), ("b", 1.0, None), ("a", 8.0, None), ("b", 4.0, None)]
    found = work_out(result_of(*pairs, ("a", 1.0, None), ("b", 2.0, None)))
    assert found == {"median": 2.0, "low": 0.5, "high": 2.0, "pairs": 3}


def test_an_inverse_ratio_is_base_over_case() -> None:
    found = work_out(result_of(("a", 2.0, None), ("b", 8.0, None)), inverse=True)
    assert found is not None and found["median"] == 4.0


@pytest.mark.parametrize(
    ("of_a", "of_b", "counts"),
    [
        (NEAR, NEAR, True),
        (FAR, FAR, True),
        (NEAR, FAR, False),
        (CHANGED, NEAR, False),
        (CHANGED, CHANGED, False),
        (NEAR, None, True),
        (FAR, None, True),
    ],
)
def test_a_pair_that_straddles_a_change_is_thrown_away(
    of_a: list[float], of_b: list[float] | None, counts: bool
) -> None:
    samples = [("a", 3.0, NEAR), ("b", 1.0, NEAR), ("a", 5.0, of_a), ("b", 1.0, of_b)]
    found = work_out(result_of(*samples))
    assert found is not None and found["pairs"] == (2 if counts else 1)


def test_a_ratio_of_near_cpus_leaves_out_far_ones() -> None:
    samples = [("a", 3.0, NEAR), ("b", 1.0, None), ("a", 5.0, FAR), ("b", 1.0, None)]
    assert work_out(result_of(*samples), near=True) == {
        "median": 3.0,
        "low": 3.0,
        "high": 3.0,
        "pairs": 1,
    }
    only_far = result_of(("a", 5.0, FAR), ("b", 1.0, None))
    assert work_out(only_far, near=True) is None
    assert "near" in only_far.reasons["a_vs_b"]


def test_null_has_its_reason() -> None:
    """What the benchmark knows beforehand, or why a case of the ratio has no samples."""
    known = result_of(("a", 1.0, None), ("b", 1.0, None))
    assert work_out(known, missing="no GPU") is None
    assert known.reasons == {"a_vs_b": "no GPU"}
    failed = result_of(("a", 1.0, None))
    failed.reasons["b"] = "no testpmd"
    assert work_out(failed) is None
    assert failed.reasons["a_vs_b"] == "b could not be measured: no testpmd"


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"at_least": 2.0}, "met"),
        ({"at_least": 2.01}, "not met"),
        ({"at_most": 2.0}, "met"),
        ({"at_most": 1.99}, "not met"),
        (None, "no bound"),
    ],
)
def test_a_claim_is_met_by_the_median(claim: dict[str, float] | None, said: str) -> None:
    result = result_of(("a", 2.0, None), ("b", 1.0, None), ("a", 9.0, None), ("b", 9.0, None))
    result.samples.append({"case": "a", "round": 2, "value": 4.0, "unit": "Mpps"})
    result.samples.append({"case": "b", "round": 2, "value": 2.0, "unit": "Mpps"})
    work_out(result)
    assert harness.verdict(claim, result.ratios["a_vs_b"]) == said
    assert harness.verdict(claim, None) == "not measurable here"


def test_a_limit_is_about_samples_taken_near() -> None:
    result = result_of(("a", 2.0, NEAR), ("a", 9.0, FAR), ("a", 4.0, NEAR), ("a", 8.0, CHANGED))
    harness._check_limit(result, harness.Limit("a", at_most=5))
    assert result.limits["a"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    harness._check_limit(result, harness.Limit("a", at_least=2))
    assert result.claims["a"] == {"at_least": 2}
    far = result_of(("a", 2.0, FAR))
    harness._check_limit(far, harness.Limit("a", at_most=5))
    assert far.limits["a"] is None and "near" in far.reasons["a"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (0.5, "0.500"),
        (1.005, "1.00"),
        (17.66, "17.7"),
        (855.4, "855"),
        (123456.0, "123,456"),
        (-2.5, "-2.50"),
    ],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert harness.figure(value) == text


# ---- a data plane with another rule --------------------------------------------------------------


def test_a_fixed_batch_is_one_and_ours_is_not() -> None:
    """gen0 ── router0 (GPU) ── sink0: a packet that comes alone goes alone, or waits for others.

    They come 10 ms apart: a row of many is of those that came while others had the CPUs, and most
    of a second has to be lost like that for half of a fixed batch on average."""
    bench = importlib.import_module("adaptive_batch")
    if choose("auto") is None:
        pytest.skip("there is no OpenCL device")
    assert bench.fixed("router", 96, 0.1).more["batch"] == 96
    assert 0 < bench.paced("router", 100, 96, 1.0).more["batch"] < 48


# ---- the page and the peer -----------------------------------------------------------------------


def test_the_report_says_what_failed_and_what_was_not_met() -> None:
    result = result_of(("a", 1.0, None), ("b", 2.0, None))
    work_out(result, at_least=0.7)
    result.machine = harness.machine()
    result.settings = vars(harness.Settings(True, 1, 0.1))
    done = [
        report.Done("made-up", "Made up", 0, vars(result), "made-up.png"),
        report.Done("broken", "Breaks", 1, None, None),
    ]
    page = report.page(done, quick=True)
    assert "| `a_vs_b` | made-up | 0.500 | 0.500 | 0.500 | >= 0.7 | **not met** |" in page
    assert "**failed** with status 1" in page
    assert "![Made up](made-up.png)" in page


def huge_pages() -> str:
    """How many are reserved."""
    return Path("/proc/sys/vm/nr_hugepages").read_text()


def started_by(pid: int) -> list[Path]:
    """Processes whose command line has the prefix that testpmd got from this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may just have ended
            if f"hummingbird-{pid}".encode() in path.read_bytes():
                found.append(path)
    return found


@pytest.mark.skipif(testpmd.missing() is not None, reason=str(testpmd.missing()))
@pytest.mark.parametrize("pages", [False, True])
def test_testpmd_leaves_nothing_behind(pages: bool) -> None:
    """Not even if it is told to end in the middle."""
    if pages and os.geteuid() != 0:
        pytest.skip("only root may reserve huge pages")
    before = huge_pages()
    script = f"""
import signal, sys
sys.path.append({str(benches.folder())!r})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
import testpmd
start = testpmd._wait_for
def started(*how):
    start(*how)
    print("forwards", flush=True)
testpmd._wait_for = started
try:
    testpmd.measure(60.0, 0, huge_pages={pages})
except testpmd.UserError as error:
    print(repr(str(error)), flush=True)
"""
    words = [sys.executable, "-c", script]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = child.stdout.readline()
    if pages and re.search("memory is too fragmented|Cannot init memory", said):
        pytest.skip(f"NOT TESTED: no huge pages to be had just now: {said.strip()}")
    assert said == "forwards\n" and started_by(child.pid)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 143
    assert huge_pages() == before
    assert not list(Path("/var/run/dpdk").glob(f"hummingbird-{child.pid}*"))
    assert not started_by(child.pid)
