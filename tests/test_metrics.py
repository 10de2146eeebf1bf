# SPDX-License-Identifier: BSD-3-Clause
"""Metrics for Prometheus: they are the run's own numbers, bounded in number, and what Prometheus,
its promtool and Grafana's model of dashboards take.

    packets ── [ Engine ] ── run directory ── Source ── text ── parsers, promtool, Prometheus
"""

from __future__ import annotations

import gc
import itertools
import json
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from chain import line, started
from hummingbird.dataplane._native import lib
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as open_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from hummingbird.dataplane.plane import reasons
from hummingbird.telemetry.stats import bucket_ticks
from hummingbird.telemetry.summary import summarise
from hummingbird.web import metrics
from hummingbird.web.metrics import DEVICE, FAMILIES, LATENCY_BOUNDS_S, OWN, Now, most_series
from hummingbird.web.source import Source

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "hummingbird" / "deploy"
GATEWAY = ROOT / "policies" / "branch_gateway.yaml"
DEMO = ROOT / "policies" / "demo" / "branch.pcap"

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]
"""By name of a sample, then by labels."""


def program(name: str) -> str:
    """Of Prometheus: an installed one, or that of tools/bootstrap."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"{name} is missing: tools/bootstrap test"
    return found


def promtool(*words: object, text: str = "") -> str:
    """What it says; it has to be content."""
    command = [program("promtool"), *map(str, words)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def samples(text: str, parse: Any = parse_text) -> Samples:
    """A scrape, parsed. No series is there twice."""
    found: Samples = {}
    for family in parse(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), (sample.name, labels)
            found[sample.name][labels] = sample.value
    return found


def scrape(name: str) -> tuple[str, str]:
    """Both formats, from outside the instance."""
    source = Source(name)
    try:
        return tuple(source.metrics(which)[1].decode() for which in (False, True))  # type: ignore
    finally:
        source.close()


def by(found: Samples, name: str, label: str) -> dict[str, float]:
    """The values of a metric with this label alone."""
    return {dict(labels)[label]: value for labels, value in found[name].items()}


# ---- the numbers ---------------------------------------------------------------------------------


def test_the_runs_own_numbers() -> None:
    """branch.pcap ── the gateway of the demonstration: what is scraped from outside at a quiet
    point is what the run says of itself, in both formats."""
    with started(GATEWAY, DEMO) as run:
        run.wait()
        text, open_text = scrape(run.engine.name)
        summary = summarise(run.engine.view(), run.engine.counters(), 1.0)
        snapshot = run.engine.reader().snapshot()
        run.stop()
    found = samples(text)
    other = samples(open_text, open_parser.text_string_to_metric_families)
    changing = {"hummingbird_lcore_passes_total", "hummingbird_lcore_sleeps_total"}
    assert {n: v for n, v in found.items() if n not in changing} == {
        n: v for n, v in other.items() if n not in changing
    }
    assert found["hummingbird_up"] == {(): 1}
    for name, kind, field in (
        ("port_received_packets", "ports", "received"),
        ("port_received_bytes", "ports", "received_bytes"),
        ("port_sent_packets", "ports", "sent"),
        ("port_sent_bytes", "ports", "sent_bytes"),
        ("nf_received_packets", "nfs", "packets"),
        ("nf_received_bytes", "nfs", "bytes"),
        ("nf_passed_packets", "nfs", "passed"),
        ("nf_retyped_packets", "nfs", "retyped"),
        ("chain_sent_packets", "types", "sent"),
        ("chain_dropped_packets", "types", "dropped"),
    ):
        label = name.partition("_")[0]
        expected = {n: entry[field] for n, entry in summary[kind].items() if field in entry}
        assert by(found, f"hummingbird_{name}_total", label) == expected, name
    drops = {
        tuple(dict(labels)[label] for label in ("node", "reason")): count
        for labels, count in found["hummingbird_dropped_packets_total"].items()
    }
    assert {key: count for key, count in drops.items() if count} == {
        (node, reason): count
        for kind, field in (("ports", "dropped"), ("nfs", "drops"))
        for node, entry in summary[kind].items()
        for reason, count in entry[field].items()
    }
    assert len(drops) == 5 * (len(reasons()) - 1)  # those of which there are none yet, too
    assert sum(drops.values()) == sum(summary["dropped"].values()) > 0
    assert found["hummingbird_in_flight_packets"] == {(): 0}
    for name, field in (
        ("rows", "rows"),
        ("real_slots", "row_packets"),
        ("dummy_slots", "dummy_packets"),
        ("launches", "launches"),
        ("failures", "failures"),
        ("copied_bytes", "copied_bytes"),
    ):
        assert found[f"hummingbird_device_{name}_total"] == {(): summary["device"][field]}, name
    assert found["hummingbird_device_row_packets_count"] == {(): summary["device"]["rows"]}
    assert found["hummingbird_device_row_packets_sum"] == {(): summary["device"]["row_packets"]}
    (labels,) = found["hummingbird_device_info"]
    assert dict(labels)["tier"] == summary["device"]["tier"]
    latencies = by(found, "hummingbird_node_latency_seconds_count", "node")
    assert latencies == {
        node: int(snapshot.latency[number].sum())
        for number, node in enumerate(("in0", "out0", "nids0", "ipsec0", "router0"))
        if node != "in0"
    }
    assert all(latencies.values())


def test_what_has_no_source_is_not_there() -> None:
    """telemetry.latency: false and no device: no latencies, busy times or rows, rather than 0."""
    topology, rows = line("cpu", telemetry={"latency": False})
    with started(topology, [bytes(60)], rows) as run:
        run.wait()
        text = scrape(run.engine.name)[0]
        run.stop()
    found = samples(text)
    assert "hummingbird_lcore_busy_seconds_total" in found
    assert [n for n in found if "device" in n or "latency" in n or "node_busy" in n] == []
    assert "hummingbird_port_answered_packets" not in text  # nothing that could ask


TICKS_PER_SECOND = 2_100_000_000


def now_of(**fields: Any) -> Now:
    """Enough of a run for what looks at no more."""
    reader = SimpleNamespace(ticks_per_second=TICKS_PER_SECOND)
    return Now(SimpleNamespace(reader=reader, **fields), SimpleNamespace())  # type: ignore[arg-type]


def least_and_most(bucket: int) -> tuple[int, int]:
    """What a bucket holds, by the text of api.h."""
    if bucket < 16:
        return bucket, bucket
    exponent, mantissa = divmod(bucket, 16)
    return (16 + mantissa) << (exponent - 1), ((17 + mantissa) << (exponent - 1)) - 1


@given(st.dictionaries(st.integers(0, lib.HB_HIST_BUCKETS - 1), st.integers(1, 2**40), max_size=30))
def test_latency_buckets(filled: dict[int, int]) -> None:
    """A bound counts no sample that is longer, and all that are 1/16 shorter; sum and count are
    those of the samples."""
    counts = np.zeros(lib.HB_HIST_BUCKETS, np.uint64)
    for bucket, count in filled.items():
        counts[bucket] = count
    histogram = now_of().latency(counts)
    cumulative = [int(value) for _, value in histogram.cumulative()]
    assert cumulative == sorted(cumulative) and cumulative[-1] == sum(filled.values())
    for bound, value in zip(LATENCY_BOUNDS_S, cumulative, strict=False):
        ticks = bound * TICKS_PER_SECOND
        no_longer = sum(n for bucket, n in filled.items() if least_and_most(bucket)[1] <= ticks)
        surely = sum(
            n for bucket, n in filled.items() if least_and_most(bucket)[0] * 17 / 16 + 1 < ticks
        )
        assert surely <= value == no_longer
    total = sum(bucket_ticks(b) * n for b, n in filled.items()) / TICKS_PER_SECOND
    assert histogram.total == pytest.approx(total)


def test_a_day_of_measurements_takes_no_more_memory_than_an_hour() -> None:
    """A source that is asked for all it has, again and again, with the clock moved on each time.
    What it keeps grows in every round; what Python reuses of its own, less and less."""
    moment = itertools.count()
    topology, rows = line("cpu")
    with started(topology, [bytes(60)], rows) as run:
        run.wait()
        source = Source(run.engine.name, clock=lambda: float(next(moment)))

        def ask(times: int) -> int:
            for _ in range(times):
                source.status(), source.metrics(False), source.metrics(True)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        sizes = [ask(9) for _ in range(5)]
        tracemalloc.stop()
        grown = [after - before for before, after in itertools.pairwise(sizes)]
        assert min(grown) < 9_000, grown
        assert source.own.measurements == 3 * 45
        source.close()
        run.stop()


# ---- how many ------------------------------------------------------------------------------------


def test_a_full_topology_stays_bounded() -> None:
    """gen0 -> nf0 -> ... -> nf61 -> sink0, 64 nodes and 256 packet types: as many series as
    docs/metrics.md says, whatever packets come, and scraped in well under a second."""
    nfs = {f"nf{n}": {"type": "forward", "engine": "cpu"} for n in range(62)}
    ports = {
        "gen0": {"driver": "generator", "packets": 1000, "flows": 500},
        "sink0": {"driver": "sink"},
    }
    types = {f"t{n}": {"dst_port": n + 1} for n in range(255)}
    hops = ["gen0", *nfs, "sink0"]
    rows = "".join(f"*,{a},{b}\n" for a, b in itertools.pairwise(hops))
    with started({"ports": ports, "nfs": nfs, "types": types}, None, rows) as run:
        run.wait()
        now = Now(run.engine.view(), run.engine.reader().snapshot())
        text = scrape(run.engine.name)[0]
        run.stop()
    found = samples(text)
    count = sum(map(len, found.values()))
    lcores = len(now.snapshot.lcores)
    of_device = sum(1 for family in DEVICE if family.kind != "histogram")
    of_device += lib.HB_BATCH_BUCKETS + 2
    ports_have_less = count - (most_series(64, 256, lcores) - of_device)
    assert -1500 < ports_have_less <= 0
    most = most_series(lib.HB_MAX_NODES, lib.HB_MAX_TYPES, lib.HB_MAX_LCORES)
    assert count <= most and f"{most:,}" in (ROOT / "docs" / "metrics.md").read_text()
    promtool("check", "metrics", text=text)
    labels = {label for series in found.values() for each in series for label, _ in each}
    measured = {label for f in (*FAMILIES, *DEVICE) if f.kind != "info" for label in f.labels}
    assert measured == {"node", "port", "nf", "chain", "reason", "lcore"}
    of_info = {label for f in (*FAMILIES, *DEVICE) if f.kind == "info" for label in f.labels}
    assert labels <= measured | of_info | {"le", "version"}


# ---- names, files --------------------------------------------------------------------------------


def names() -> set[str]:
    """Of everything that can be scraped, as queries name it."""
    found = {metrics.UP[0], f"{metrics.BUILD[0]}_info", *(f"{name}_total" for name in OWN)}
    for family in (*FAMILIES, *DEVICE):
        if family.kind == "histogram":
            found |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            found.add(family.full_name)
    return found


@pytest.fixture(scope="module")
def real_scrape() -> tuple[str, str]:
    """Of a run with a device, ports and NFs."""
    with started(GATEWAY, DEMO) as run:
        run.wait()
        texts = scrape(run.engine.name)
        run.stop()
    return texts


def test_promtool_likes_the_metrics(real_scrape: tuple[str, str]) -> None:
    assert promtool("check", "metrics", text=real_scrape[0]).strip() == ""
    with pytest.raises(AssertionError, match="no help text"):
        promtool("check", "metrics", text="# TYPE a_total counter\na_total 1\n")


def table() -> str:
    """Of docs/metrics.md."""
    lines = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    gauge, counter = "gauge", "counter"
    up = [(metrics.UP[0], gauge, (), metrics.UP[1])]
    up += [(f"{metrics.BUILD[0]}_info", "info", ("version",), metrics.BUILD[1])]
    up += [(f"{name}_total", counter, (), text) for name, (_, text) in OWN.items()]
    rest = [(f.full_name, f.kind, f.labels, f.text) for f in (*FAMILIES, *DEVICE)]
    for name, kind, labels, text in up + rest:
        lines.append(f"| `{name}` | {kind} | {', '.join(labels)} | {text} |")
    return "\n".join(lines)


def test_every_metric_stands_in_the_docs() -> None:
    """Put what `python tests/test_metrics.py` prints there."""
    assert table() in (ROOT / "docs" / "metrics.md").read_text()


def alerts() -> dict[str, dict[str, Any]]:
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    return {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}


def test_alert_rules() -> None:
    """Each says what is wrong, what that means and what to do; promtool takes them, and each fires
    in a test of tests/alerts.yml when it should and only then."""
    promtool("check", "rules", DEPLOY / "alerts.yml")
    promtool("test", "rules", "tests/alerts.yml")
    tested = (ROOT / "tests" / "alerts.yml").read_text()
    documented = (ROOT / "docs" / "metrics.md").read_text()
    for name, rule in alerts().items():
        assert set(rule["annotations"]) == {"summary", "description", "action"}, name
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert f'alertname="{name}",alertstate="firing"' in tested, name
        assert f"`{name}`" in documented, name
        used = set(re.findall(r"\bhummingbird_\w+", rule["expr"]))
        assert used <= names(), name
        known = {reason for reason, _ in reasons()}
        for listed in re.findall(r'reason=~"([^"]+)"', rule["expr"]):
            assert set(listed.split("|")) <= known, name


# ---- the dashboard -------------------------------------------------------------------------------


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "dashboard.json").read_text())
    return found


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard()["panels"] if panel["type"] != "row")


def queries() -> dict[str, str]:
    """What the dashboard asks, by where it stands."""
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }
    return found | {note["name"]: note["expr"] for note in dashboard()["annotations"]["list"]}


def lost(ours: Any, theirs: Any, at: str = "") -> Iterator[str]:
    """What of ours is not in theirs."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key, value in ours.items():
            if key in theirs:
                yield from lost(value, theirs[key], f"{at}.{key}")
            elif value is not None:
                yield f"{at}.{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs, strict=True):
            yield from lost(one, other, f"{at}[]")
    elif ours != theirs:
        yield at


def test_grafanas_own_model_knows_all_of_the_dashboard() -> None:
    """Read into it and written again nothing is lost, but for what newer or older ones have."""
    pytest.importorskip("grafana_foundation_sdk", reason="needs Python 3.11")
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    read = Dashboard.from_json(dashboard())
    written = json.loads(JSONEncoder(sort_keys=True).encode(read))
    assert set(lost(dashboard(), written)) <= {
        ".annotations.list[].titleFormat",
        ".panels[].options.tooltip.mode",
        ".panels[].options.tooltip.showColorScale",
        ".templating.list[].definition",
    }
    assert ".panels[].grid" in set(lost({"panels": [{"grid": 1}]}, {"panels": [{}]}))


def test_the_dashboard() -> None:
    """Panels do not overlap, say what they show, and ask the chosen source and instance for metrics
    that there are."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        columns = range(at["x"], at["x"] + at["w"])
        cells = set(itertools.product(columns, range(at["y"], at["y"] + at["h"])))
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["description"] and panel["title"], panel
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    variables = {entry["name"]: entry["type"] for entry in dashboard()["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query"}
    for where, query in queries().items():
        used = re.findall(r"(\bhummingbird_\w+)(\{[^}]*\})?", query)
        assert used and {name for name, _ in used} <= names(), where
        assert all('instance=~"$instance"' in selected for _, selected in used), where


if __name__ == "__main__":
    print(table())
