# SPDX-License-Identifier: BSD-3-Clause
"""Runs all benchmarks, one after the other, and writes their results to one page.

hummingbird bench NAME ── results/NAME.json, results/NAME.png ── results/REPORT.md
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import TERMINATED, claim_text, figure, verdict
from rich.console import Console

from hummingbird import benches

RESULTS = Path(__file__).resolve().parent / "results"
INTERRUPTED = 130


@dataclass(frozen=True)
class Done:
    """A benchmark that has run."""

    name: str
    title: str
    status: int
    """Its exit status."""
    result: dict[str, Any] | None
    """What it wrote as JSON; None if it wrote nothing."""
    picture: str | None
    """File name."""


# ---- running -------------------------------------------------------------------------------------


def run(name: str, quick: bool, folder: Path) -> Done:
    """Run one benchmark in a process of its own; what it prints is seen."""
    bench = benches.load(name)
    file, picture = folder / f"{name}.json", folder / f"{name}.png"
    for old in (file, picture):
        old.unlink(missing_ok=True)
    command = [sys.executable, "-m", "hummingbird.cli", "bench", name, "--json", str(file)]
    if bench.plot is not None and importlib.util.find_spec("matplotlib"):
        command += ["--plot", str(picture)]
    status = subprocess.run([*command, *(["--quick"] if quick else [])]).returncode
    result = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    return Done(name, bench.title, status, result, picture.name if picture.exists() else None)


# ---- the page ------------------------------------------------------------------------------------


def page(done: Sequence[Done], quick: bool) -> str:
    """The report as Markdown."""
    lines = ["# Benchmarks", "", *_machine(done, quick), "", "## Claims", "", *_claims(done)]
    for bench in done:
        lines += ["", f"## {bench.name}: {bench.title}", "", *_bench(bench)]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    """A table; a colon at the end of a name aligns its column to the right."""
    yield "| " + " | ".join(name.rstrip(":") for name in head) + " |"
    yield "|" + "|".join("--:" if name.endswith(":") else "---" for name in head) + "|"
    for row in rows:
        yield "| " + " | ".join(_cell(text) for text in row) + " |"


def _cell(text: str) -> str:
    one_line = " ".join(text.replace("\n  fix:", "; fix:").split())
    return one_line.replace("|", "\\|")


def _machine(done: Sequence[Done], quick: bool) -> Iterator[str]:
    yield f"{datetime.date.today()}, {'quick runs' if quick else 'full runs'}."
    result = next((bench.result for bench in done if bench.result), None)
    if result is None:
        return
    m = result["machine"]
    yield (
        f"{m['cpu']}, {m['cpus']} CPUs, {m['memory_gib']} GiB, kernel {m['kernel']}, transparent "
        f"huge pages: {m['transparent_huge_pages']}. OpenCL: {result['runtime'] or 'none'}, tier "
        f"{result['tier'] or 'not probed'}."
    )
    yield (
        "A claim is about the median of a ratio whose two cases were measured in turn; low and "
        "high are those of single rounds."
    )


def _claims(done: Sequence[Done]) -> Iterator[str]:
    head = ("ratio or figure", "benchmark", "median:", "low:", "high:", "claim:", "")
    yield from _table(head, (row for bench in done for row in _claim_rows(bench)))
    yield from _reasons([(b.result or {}, name) for b in done for name in _claimed(b)])


def _claim_rows(bench: Done) -> Iterator[Sequence[str]]:
    if bench.status or bench.result is None:
        yield ("", bench.name, "", "", "", "", f"**failed** with status {bench.status}")
    for name, found in _claimed(bench).items():
        claim = (bench.result or {})["claims"].get(name)
        said = verdict(claim, found).replace("not met", "**not met**")
        yield (f"`{name}`", bench.name, *_spread(found), claim_text(claim), said)


def _claimed(bench: Done) -> Mapping[str, Any]:
    """Ratios, and figures that have a limit."""
    return {**bench.result["ratios"], **bench.result["limits"]} if bench.result else {}


def _spread(ratio: Mapping[str, float] | None) -> tuple[str, str, str]:
    if ratio is None:
        return "-", "-", "-"
    return figure(ratio["median"]), figure(ratio["low"]), figure(ratio["high"])


def _reasons(names: Sequence[tuple[Mapping[str, Any], str]]) -> Iterator[str]:
    """Why something was not measured, as a list."""
    known = [(name, r["reasons"][name]) for r, name in names if name in r.get("reasons", {})]
    if known:
        yield ""
        yield from (f"- `{name}`: {_cell(reason)}" for name, reason in known)


def _bench(bench: Done) -> Iterator[str]:
    result = bench.result
    if result is None:
        yield f"It failed with status {bench.status}."
        return
    s = result["settings"]
    yield f"Rounds: {s['rounds']}, {s['seconds']:g} s a case."
    yield ""
    cases = list(dict.fromkeys(sample["case"] for sample in result["samples"]))
    yield from _table(
        ("case", "median:", "low:", "high:", "unit"), (_row(result, c) for c in cases)
    )
    yield from _reasons(
        [(result, name) for name in result["reasons"] if name not in _claimed(bench)]
    )
    if bench.picture:
        yield from ("", f"![{bench.title}]({bench.picture})")
    for note in result["notes"]:
        yield from ("", note)


def _row(result: Mapping[str, Any], case: str) -> Sequence[str]:
    samples = [sample for sample in result["samples"] if sample["case"] == case]
    values = [sample["value"] for sample in samples]
    shown = (figure(statistics.median(values)), figure(min(values)), figure(max(values)))
    return (case, *shown, samples[0]["unit"])


# ---- main ----------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks named, or all; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description="Run all benchmarks and write a report.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--quick", action="store_true", help="quicker, and less certain")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    console, done = Console(), []
    names = args.names or benches.names()
    for number, name in enumerate(names, 1):
        console.rule(f"{name} ({number} of {len(names)})")
        done.append(run(name, args.quick, args.out))
        if done[-1].status in (INTERRUPTED, TERMINATED):
            return done[-1].status
    report = args.out / "REPORT.md"
    report.write_text(page(done, args.quick), encoding="utf-8")
    failed = [bench.name for bench in done if bench.status]
    console.rule()
    console.print(f"The report: {report}", soft_wrap=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
