# SPDX-License-Identifier: BSD-3-Clause
"""The report and the live page in Chromium, which nobody here wrote.

branch.pcap ── hummingbird run --report --json ─┬─ report.html ── Chromium ── what it shows
                                                └─ summary.json ─────────────┘ the same?
instance ── counters ── hummingbird web ── Chromium ── what it shows, for a day
"""

from __future__ import annotations

import base64
import copy
import itertools
import json
import random
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, browser
from process import Ended, run, service, write_topology
from test_web_run import flows
from web import web

from hummingbird.control_client import Reply, running
from hummingbird.errors import UserError
from hummingbird.web.report import render
from hummingbird.web.run_report import HIDDEN, without_secrets

ROOT = Path(__file__).parent.parent
GATEWAY = ROOT / "policies" / "branch_gateway.yaml"
DEMO = ROOT / "policies" / "demo" / "branch.pcap"
KEYS = ROOT / "policies" / "demo" / "ipsec.key"
LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]

Json = dict[str, Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The report of a run of the demonstration, and the run."""
    folder = tmp_path_factory.mktemp("report")
    report = folder / "report.html"
    args = ["--in", DEMO, "--out", folder / "out.pcap", "--pace", "original", "--report", report]
    return report, run(folder, GATEWAY, *args)


def embedded(report: Path) -> Json:
    """The data in a report."""
    found = re.search(r'id="data">(.*?)</script>', report.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    data: Json = json.loads(found[1])
    return data


# ---- the report ----------------------------------------------------------------------------------


SHOWN = """[...document.querySelectorAll('[data-path]')].map((e) =>
    [JSON.parse(e.dataset.path), e.dataset.kind, e.textContent, JSON.parse(e.dataset.value)])"""
"""Path, kind, text and value of every number on the page."""


def value_at(data: Json, path: list[Any]) -> Any:
    """What stands in the JSON; a sum where there are several numbers."""
    found: Any = data
    for key in path:
        if found is None or (isinstance(found, dict) and key not in found):
            return None
        found = found[key]
    if isinstance(found, dict | list):
        return sum(found.values() if isinstance(found, dict) else found)
    return found


STEPS = {"G": 1e9, "M": 1e6, "k": 1e3, "": 1}
TIMES = {"s": 1e6, "ms": 1e3, "µs": 1, "ns": 1e-3}
BYTES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
SPANS = {"d": 86400, "h": 3600, "min": 60, "s": 1, "ms": 1e-3, "µs": 1e-6}
LEAST = {"busy": 0.0051, "percent": 6e-5, "pps": 0.01, "rps": 0.01, "sps": 0.01}
"""How near a small number is, of which fewer digits are shown."""
RATES = {"pps": "pps", "rps": "rows/s", "sps": "slots/s", "gbps": "bit/s"}


def read_number(text: str, kind: str) -> float:
    """The number that a text with its unit says."""
    if kind == "seconds":
        parts = re.findall(r"([\d.,]+) (\S+)", text)
        assert parts, text
        return sum(float(number.replace(",", "")) * SPANS[unit] for number, unit in parts)
    if kind == "version":
        return float(text.removeprefix("version "))
    found = re.fullmatch(r"(<?)(-?[\d,.]+(?:e-\d+)?) ?(.*)", text)
    assert found, (text, kind)
    if found[1]:
        return 0.0
    number, unit = float(found[2].replace(",", "")), found[3]
    if kind in RATES:
        step = unit.removesuffix(RATES[kind]).strip()
        assert unit.endswith(RATES[kind]), (text, kind)
        return number * STEPS[step] / (1e9 if kind == "gbps" else 1)
    if kind == "us":
        return number * TIMES[unit]
    if kind == "bytes":
        return number * BYTES[unit]
    if kind in ("percent", "busy"):
        assert unit in ("%", "% busy"), text
        return number / 100
    if kind == "dropped":
        step, _, word = unit.rpartition(" ")
        assert word == "dropped", text
        return number * STEPS[step]
    if kind == "ppr":
        assert unit == "packets a row", text
        return number
    assert unit in (kind, kind.removesuffix("s")), (text, kind)
    return number


def check_numbers(numbers: list[Any], data: Json) -> int:
    """Every number on the page (SHOWN) is that of the JSON, has a unit, and what is read is what is
    meant; returns how many there are."""
    for path, kind, text, value in numbers:
        expected = value_at(data, path)
        assert value == expected, path
        if expected is None:
            assert text == "-", path
        elif kind == "text":
            assert text == expected, path
        else:
            near = pytest.approx(expected, rel=0.006, abs=LEAST.get(kind, 1e-6))
            assert read_number(text, kind) == near, (path, text)
    return len(numbers)


def check_quiet(page: Browser, *asked: str) -> None:
    """Nothing on the console, and nothing asked for but these."""
    assert page.said == []
    assert set(page.asked) == set(asked)


def test_the_report_says_what_the_run_says(chromium: Browser, demo: tuple[Path, Ended]) -> None:
    """It loads without a word on the console and without asking anybody for anything; its numbers
    are those of the JSON in it, and these those of the run's --json."""
    report, ended = demo
    summary, data = ended.balanced, embedded(report)
    chromium.look(1280)
    chromium.open(report.as_uri())
    check_quiet(chromium, report.as_uri())
    assert check_numbers(chromium.run(SHOWN), data) > 150
    assert data["summary"] == summary
    totals = data["status"]["totals"]
    for name in ("received", "created", "sent", "dropped", "in_flight"):
        assert totals[name] == summary[name]
    for name, nf in data["status"]["nfs"].items():
        assert nf["in"]["packets"] == summary["nfs"][name]["packets"]
    for name, chain in data["status"]["chains"].items():
        assert chain["packets"] == summary["types"][name]["packets"]
    text = chromium.run("document.body.innerText")
    for words in ("branch_gateway.yaml", "Balanced: every packet is accounted for", "CPU plays"):
        assert words in text
    reasons = chromium.run("document.getElementById('drop-table').innerText")
    assert all(reason in reasons for reason in summary["dropped"]) and "IPv6 address" in reasons


def test_over_time_adds_up(demo: tuple[Path, Ended]) -> None:
    """Rates times the time they held for are what came, and the distributions have all samples."""
    report, ended = demo
    data = embedded(report)
    series, t = data["series"], data["series"]["t"]
    spans = [b - a for a, b in zip([0.0, *t], t, strict=False)]
    for name, count in (("received_pps", "received"), ("sent_pps", "sent")):
        counted = sum(rate * span for rate, span in zip(series[name], spans, strict=True))
        assert counted == pytest.approx(ended.balanced[count]), name
    for reason, count in ended.balanced["dropped"].items():
        rates = zip(series["dropped_pps"][reason], spans, strict=True)
        assert sum(rate * span for rate, span in rates) == pytest.approx(count), reason
    for group in ("nfs", "chains"):
        for name, buckets in data["latency"][group].items():
            said = data["status"][group][name]["latency_us"]
            assert sum(count for _, count in buckets) == (said["samples"] if said else 0), name
            if said:  # the median lies in the bucket that has it
                below = sum(count for us, count in buckets if us < said["p50"] * 0.99)
                assert below <= said["samples"] / 2, name


CONTRAST = """(() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    const box = e.closest('.tag') ? e.closest('.tag').querySelector('rect')
      : e.closest('.node') && e.closest('.node').querySelector('.box');
    if (box) return parse(getComputedStyle(box).fill);
    for (let at = e; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    const words = walk.currentNode.data.trim().slice(0, 40);
    if (!words || !e.getClientRects().length || e.closest('script, title')) continue;
    const style = getComputedStyle(e);
    if (style.visibility === 'hidden') continue;
    const [a, b] = [light(parse(e.closest('svg') ? style.fill : style.color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const picture = e.closest('svg[viewBox]');
    const wide = picture && picture.viewBox.baseVal.width;
    const scale = picture ? picture.getBoundingClientRect().width / wide : 1;
    found.push([ratio, words, scale * parseFloat(style.fontSize)]);
  }
  return found;
})()"""
"""Contrast (WCAG 2), text and font size of everything that is written on the page."""


def check_legible(page: Browser, width: int) -> None:
    """Nothing to scroll sideways, contrast, sizes."""
    assert page.run("document.documentElement.scrollWidth") == width
    texts = page.run(CONTRAST)
    assert len(texts) > 100
    assert [text for text in texts if text[0] < 4.5 or text[2] < 10] == []
    inside = "Math.max(...[...document.querySelectorAll('section, table, svg text')]"
    inside += ".filter((e) => !e.closest('.graph')).map((e) => e.getBoundingClientRect().right))"
    assert page.run(inside) <= width + 1


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_legible(chromium: Browser, demo: tuple[Path, Ended], width: int, scheme: str) -> None:
    """Light and dark, on a desk and on a phone, with all that can be unfolded."""
    chromium.look(width, scheme=scheme)
    chromium.open(demo[0].as_uri())
    chromium.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert chromium.run("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    check_legible(chromium, width)
    check_quiet(chromium, demo[0].as_uri())


def with_graph(data: Json, count: int, rng: random.Random) -> Json:
    """A report with so many nodes, some with long names, and edges here and there: forwards,
    backwards, and across many."""
    data = copy.deepcopy(data)
    status = data["status"]
    nf, port = status["nfs"]["nids0"], status["ports"]["in0"]
    ports = {f"port{n}": {**port, "out": port["in"]} for n in range(1 + count // 8)}
    nfs = {f"nf{n}{'-with-a-long-name' * (n % 4 == 0)}": nf for n in range(count - 2 * len(ports))}
    names = [*nfs]
    pairs = {(rng.choice([*ports]), names[0]), (names[-1], rng.choice([*ports]))}
    pairs |= {(a, b) for a, b in itertools.pairwise(names) if rng.random() < 0.8}
    pairs |= {(rng.choice(names), rng.choice([*names, *ports])) for _ in range(count // 2)}
    status["ports"], status["nfs"] = ports, nfs
    status["edges"] = [
        {"from": a, "to": b, "packets": 5, "pps": 10 ** rng.uniform(-3, 8)}
        for a, b in sorted(pairs)
        if a != b
    ]
    status["chains"] = {
        "other": {**status["chains"]["other"], "path": ["port0", names[0], "port0"]}
    }
    status["bottleneck"] = {"node": names[0], "kind": "cpu", "why": "it is"}
    data["latency"] = None
    return data


GRAPH = """(() => {
  const rect = (e) => e.getBoundingClientRect();
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const pairs = (list) => list.flatMap((a, i) => list.slice(i + 1).map((b) => [a, b]));
  const nodes = [...document.querySelectorAll('.graph .node')];
  const wrong = pairs(nodes.map((n) => n.querySelector('.box')))
    .filter(([a, b]) => meet(rect(a), rect(b))).map(() => 'two boxes');
  for (const node of nodes) {
    const box = rect(node.querySelector('.box'));
    const texts = [...node.querySelectorAll(':scope > text')];
    wrong.push(...pairs(texts).filter(([a, b]) => meet(rect(a), rect(b)))
      .map(([a, b]) => `${a.textContent} and ${b.textContent}`));
    wrong.push(...texts.filter((t) => rect(t).left < box.left || rect(t).right > box.right)
      .map((t) => `${t.textContent} sticks out`));
  }
  return [nodes.length, document.querySelectorAll('.graph .edge').length, wrong];
})()"""


@pytest.mark.parametrize("width", [1280, 390])
def test_graphs_of_all_sizes(
    chromium: Browser, demo: tuple[Path, Ended], tmp_path: Path, width: int
) -> None:
    """3 to 30 nodes, live ports among them: all are there, none lies on another, every text is in
    its box and on no other, and the page does not get wider."""
    page, rng = tmp_path / "graph.html", random.Random(1)
    for count in (3, 5, 8, 13, 20, 30):
        data = with_graph(embedded(demo[0]), count, rng)
        page.write_text(render(data), encoding="utf-8")
        chromium.look(width)
        chromium.open(page.as_uri())
        nodes, edges, wrong = chromium.run(GRAPH)
        assert (nodes, wrong) == (count, []), count
        assert edges >= len(data["status"]["edges"])
        assert chromium.run("document.documentElement.scrollWidth") == width
        check_quiet(chromium, page.as_uri())


def test_by_keyboard(chromium: Browser, demo: tuple[Path, Ended]) -> None:
    """Arrow keys read the charts, and what they say is what stands in the JSON."""
    chromium.look(1280)
    chromium.open(demo[0].as_uri())
    series = embedded(demo[0])["series"]
    chromium.run("document.querySelector('#time .plot').focus()")
    for _ in range(2):
        chromium.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    said = chromium.run(
        "[...document.querySelectorAll('#time .chart')[0].querySelectorAll('.then')]"
        ".map((e) => e.textContent)"
    )
    for text, name in zip(said, ("sent_pps", "received_pps"), strict=True):
        assert read_number(text, "pps") == pytest.approx(series[name][1], rel=0.006, abs=0.01)
    chromium.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    assert not chromium.run("document.querySelectorAll('.reading').length")


def test_no_keys(demo: tuple[Path, Ended]) -> None:
    """No key of the security association in any form, although the topology names their file."""
    text = demo[0].read_text(encoding="utf-8")
    assert "demo/ipsec.key" in text
    keys = re.findall(r"^\w+:\s*([0-9a-fA-F]+)", KEYS.read_text(), re.MULTILINE)
    assert len(keys) == 2
    for key in map(bytes.fromhex, keys):
        numbers = ",".join(map(str, key))
        for form in (key.hex(), key.hex().upper(), base64.b64encode(key).decode(), numbers):
            assert form not in text
            assert form[: len(form) // 2] not in text


def test_what_sounds_secret_is_not_shown() -> None:
    """Parameters of users' own NFs may hold what Hummingbird keeps in files."""
    given = {
        "nfs": {
            "mine0": {"api_token": "t", "key": "k", "keys": [1], "key_file": "f", "monkey": "m"},
            "mine1": {"list": [{"password": "p"}], "private-key": {"a": 1}},
        }
    }
    assert without_secrets(given) == {
        "nfs": {
            "mine0": {
                "api_token": HIDDEN,
                "key": HIDDEN,
                "keys": HIDDEN,
                "key_file": "f",
                "monkey": "m",
            },
            "mine1": {"list": [{"password": HIDDEN}], "private-key": HIDDEN},
        }
    }


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The same with other names, as keys and as values."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def test_names_stay_names(chromium: Browser, demo: tuple[Path, Ended], tmp_path: Path) -> None:
    """Whatever the names are, they are shown and do nothing; nor would code that got in."""
    evil = "</script><script>window.got = 1</script><img src=x onerror='window.got = 2'>"
    names = {
        "branch_gateway.yaml": evil,
        "nids0": "<svg onload=window.got=3>",
        "ipsec0": "__proto__",
        "router0": "constructor",
        "web": "\"'`${window.got=4}\u2028\\",
        "voice": os_name(b"\xff\xfe"),
        "not_ip": "</style><b>",
        "passwd-file": "<!--",
    }
    data = renamed(copy.deepcopy(embedded(demo[0])), names)
    page = tmp_path / "evil.html"
    page.write_text(render(data), encoding="utf-8")
    chromium.look(1280)
    chromium.open(page.as_uri())
    check_quiet(chromium, page.as_uri())
    assert chromium.run("document.querySelector('h1').textContent") == evil
    assert chromium.run("document.querySelectorAll('main *').length") > 300
    table = chromium.run("document.getElementById('nf-table').textContent")
    assert all(names[nf] in table for nf in ("nids0", "ipsec0", "router0"))
    assert check_numbers(chromium.run(SHOWN), data) > 150
    chromium.run(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.got = 5';"
        " document.body.append(s); document.body.insertAdjacentHTML('beforeend',"
        ' \'<img src="https://192.0.2.1/x.png" onerror="window.got = 6">\'); })()'
    )
    chromium.until("document.images.length === 1 && document.images[0].complete")
    assert chromium.run("window.got === undefined")
    assert any("Content Security Policy" in said for said in chromium.said)


def os_name(name: bytes) -> str:
    """A file name of any bytes, as Python has it."""
    return name.decode("utf-8", "surrogateescape")


# ---- files ---------------------------------------------------------------------------------------


def generator(folder: Path, **parameters: Any) -> Path:
    """in0 -> nf0 -> out0."""
    ports = {"in0": {"driver": "generator", **parameters}, "out0": {"driver": "sink"}}
    nfs = {"nf0": {"type": "forward", "engine": "cpu"}}
    return write_topology(folder, {"ports": ports, "nfs": nfs}, "*,in0,nf0\n*,nf0,out0\n")


def test_a_restart_is_not_hidden(chromium: Browser, tmp_path: Path) -> None:
    """Charts, counters and balance are of what ran last; what ran before stands beside it."""
    report = tmp_path / "report.html"
    with service(tmp_path, generator(tmp_path, rate=5000), "--report", report) as instance:
        instance.until(lambda: instance.packets(1) > 2000, "packets")
        instance.until(lambda: instance.name in running(), "its control socket")
        generator(tmp_path, rate=100)  # it takes 20 s until it has as many as the first
        list(Reply(instance.name, "reload", restart=True))
        instance.until(lambda: 0 < instance.packets(1) < 2000, "packets of the second")
        summary = instance.stop().balanced
    data = embedded(report)
    series = data["series"]
    spans = [b - a for a, b in zip([0.0, *series["t"]], series["t"], strict=False)]
    counted = sum(rate * span for rate, span in zip(series["received_pps"], spans, strict=True))
    assert counted == pytest.approx(summary["received"])
    chromium.look(390)
    chromium.open(report.as_uri())
    assert check_numbers(chromium.run(SHOWN), data) > 40
    (before,) = summary["runs"]
    table = chromium.run("document.getElementById('runs').innerText")
    for words in ("was restarted", "topology.yaml", "balanced", f"{before['received']:,} packets"):
        assert words in table
    check_legible(chromium, 390)
    check_quiet(chromium, report.as_uri())


def test_where_no_report_can_be_written(tmp_path: Path) -> None:
    """It is said before the run."""
    topology = generator(tmp_path, rate=1000)
    for file in (tmp_path / "nowhere" / "r.html", tmp_path):
        ended = run(tmp_path, topology, "--report", file, "--duration", "60")
        assert (ended.status, ended.summary) == (2, None)
        assert f"{file}: cannot write the report" in ended.text and "fix:" in ended.text
    file = tmp_path / "both"
    ended = run(tmp_path, topology, "--report", file, "--json", file, "--duration", "60")
    assert ended.status == 2 and "the summary goes there" in ended.text and not file.exists()


def test_a_full_disk(tmp_path: Path) -> None:
    """The run's summary is there all the same, and what the report lacks is said."""
    topology = generator(tmp_path, rate=1000, packets=200)
    ended = run(tmp_path, topology, "--report", "/dev/full")
    assert ended.status == 2
    assert ended.summary is not None and ended.summary["sent"] == 200
    assert "/dev/full: cannot write the report: No space left on device" in ended.text
    assert "balanced" in ended.text and "Traceback" not in ended.text


def test_the_status_of_the_run_comes_first() -> None:
    """Packets that do not balance are worse than a report that cannot be written."""
    from hummingbird.service import _write_report

    class Unwritable:
        def write(self) -> None:
            raise UserError("cannot write the report: No space left on device")

    assert [_write_report(Unwritable(), status) for status in (0, 1)] == [2, 1]  # type: ignore[arg-type]


# ---- the live page -------------------------------------------------------------------------------


@contextmanager
def serving(folder: Path, name: str) -> Iterator[str]:
    """The live page of an instance, and its status."""
    with web(folder, "--name", name) as page:
        yield f"http://127.0.0.1:{page.port}/"


RECEIVED = "Number(document.querySelector('#summary .received [data-value]').dataset.value)"
SAYS = "document.getElementById('connection').textContent"


def test_live(chromium: Browser, tmp_path: Path) -> None:
    """Numbers move and are those of the status; the end of the instance is said, and of the server;
    an instance that comes is found."""
    topology = generator(tmp_path, rate=5000)
    chromium.look(1280)
    with service(tmp_path, topology) as instance:
        flows(instance)
        with serving(tmp_path, instance.name) as address:
            chromium.open(address)
            first = chromium.until(
                "document.querySelector('#summary') && hummingbird.state.series.t.length > 1"
                f" && {RECEIVED}"
            )
            chromium.until(f"{RECEIVED} > {first}")
            assert "Live" in chromium.run(SAYS)
            # at one moment, at which all that has come is drawn
            status, numbers = chromium.until(
                f"!hummingbird.state.frame && [hummingbird.state.data.status, {SHOWN}]"
            )
            assert check_numbers(numbers, {"status": status}) > 40
            check_quiet(chromium, address, f"{address}status.json")

            last = instance.stop().balanced["received"]
            chromium.until(f"{SAYS}.includes('has not been running since')")
            assert 0 < chromium.run(RECEIVED) <= last
            for width, scheme in LOOKS:
                chromium.look(width, scheme=scheme)
                check_legible(chromium, width)
            with service(tmp_path, topology, name=instance.name) as again:
                flows(again)
                chromium.run("hummingbird.ask()")
                chromium.until(f"{SAYS}.includes('Live') && {RECEIVED} < 1e9")
                pid = chromium.until("hummingbird.state.data.status.pid")
                assert pid == again.process.pid
                began = "hummingbird.state.series.start >= hummingbird.state.data.status.started"
                assert chromium.run(began)  # and nothing of the other is left in the charts
        chromium.run("hummingbird.ask()")
        chromium.until(f"{SAYS}.includes('has not been reachable since')")
        waits = chromium.run(
            "Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(() => hummingbird.ask()))"
            ".then(() => hummingbird.nextAfter())"
        )
        assert waits == 30_000  # at most, however long the server has been gone
        assert chromium.run("(hummingbird.poll.failures = 0, hummingbird.nextAfter())") == 1000
        chromium.run("Object.defineProperty(document, 'hidden', {value: true})")
        assert chromium.run("hummingbird.nextAfter()") == 15_000  # nobody looks


DAY = """(async (count, step) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const drawn = () => frame().then(frame);
  const base = hummingbird.state.data.status;
  for (let i = 0; i < count; i++) {
    const k = (step + i) % 3907;
    const status = {...base, time: base.time + 1 + i, totals: {...base.totals, received: 1000 * i},
      rates: {...base.rates, received_pps: 1000 + k}, ports: {...base.ports}};
    status.ports.in0 = {...base.ports.in0, drops_pps: k % 5 ? {} : {port_full: k}};
    if (k === 500) status.ports[`port${i % 7}`] = base.ports.in0;
    hummingbird.addSample(status);
    if (i % 1000 === 0 || k === 500 || k === 501) await drawn();
  }
  await drawn();
  return hummingbird.state.series.t.length;
})"""


def test_a_browser_left_open_for_a_day(chromium: Browser, tmp_path: Path) -> None:
    """86,400 samples, among them some that change what there is to draw: heap and document do not
    grow, and the page still follows."""
    chromium.look(1280)
    with service(tmp_path, generator(tmp_path, rate=5000)) as instance, ExitStack() as stack:
        flows(instance)
        chromium.open(stack.enter_context(serving(tmp_path, instance.name)))
        chromium.until("document.querySelector('#summary') !== null")
        chromium.run("hummingbird.stop()")
        chromium.run(f"{DAY}(3000, 0)")
        heap, nodes = chromium.sizes()
        assert chromium.run(f"{DAY}(86400 - 3000, 3000)") == 600
        heap_later, nodes_later = chromium.sizes()
        assert nodes_later <= 1.05 * nodes, (nodes, nodes_later)
        assert heap_later <= 1.1 * heap + (1 << 20), (heap, heap_later)
        assert chromium.said == []
