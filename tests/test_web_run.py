# SPDX-License-Identifier: BSD-3-Clause
"""`hummingbird web` beside `hummingbird run`: it finds the instance, loses it and finds it again,
and whatever is asked of it, the run forwards on.

    [ hummingbird run ] ── run directory ── [ hummingbird web ] ══ HTTP ══ this test, Prometheus
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from process import Service, service, write_topology
from test_metrics import DEPLOY, alerts, program, queries
from web import TIMEOUT_S, Web, web

from hummingbird.cli import main
from hummingbird.telemetry import scheduling
from hummingbird.telemetry.rundir import STATS, VIEW, StatsFile, base_dir
from hummingbird.web.server import MOST_CLIENTS
from hummingbird.web.source import MEASURE_S


def generated(rate: int | None = None, **nf: Any) -> tuple[dict[str, Any], str]:
    """gen0 -> nf0 -> sink0; without a rate all that the chain takes."""
    gen0: dict[str, Any] = {"driver": "generator"} | ({"rate": rate} if rate else {})
    nfs = {"nf0": {"type": "forward", "engine": "cpu"} | nf}
    return {"ports": {"gen0": gen0, "sink0": {"driver": "sink"}}, "nfs": nfs}, (
        "*,gen0,nf0\n*,nf0,sink0\n"
    )


def flows(run: Service) -> None:
    """Until packets have come through, and others can look."""
    run.until(lambda: run.packets(1) > 0, "packets")
    run.until((base_dir() / run.name / VIEW).exists, "its view")


# ---- whom it serves ------------------------------------------------------------------------------


def test_it_waits_and_finds_the_restart(tmp_path: Path) -> None:
    """It is there before the instance, stays when that is killed, and serves the next of its name:
    never a number of the one under the name of the other."""
    path = write_topology(tmp_path, *generated(1000))
    name = f"web-{time.monotonic_ns() % 10**9}"
    with web(tmp_path, "--name", name) as page:
        assert page.ask("/status.json")[0] == 503 and page.metric("hummingbird_up") == 0
        assert page.metric("hummingbird_start_time_seconds") is None
        for number in range(2):
            with service(tmp_path, path, name=name) as run:
                flows(run)
                page.until(lambda: page.metric("hummingbird_up") == 1, "the instance is found")
                status = page.status()
                assert (status["name"], status["pid"]) == (name, run.process.pid)
                assert 0 < status["totals"]["received"] < 1000 * (status["uptime_s"] + 1)
                if number == 0:
                    run.process.kill()
                else:
                    assert run.stop().balanced
                run.process.wait()
                page.until(lambda: page.metric("hummingbird_up") == 0, "its end is seen")
                code, body = page.ask("/status.json")
                assert code == 503 and f"no instance named {name!r} is running" in body
        assert page.text.count(f"serving the instance {name}") == 2
        assert page.text.count("waiting: ") == 3
        assert page.stop() == 0


def test_names_of_a_dead_instance_go_with_its_counters() -> None:
    """What is killed leaves counters and the names that they had; the next run of its name has
    other counters before it has names, and nobody may read the ones by the others."""
    name = f"web-{time.monotonic_ns() % 10**9}"
    (base_dir() / name).mkdir(parents=True)
    view = base_dir() / name / VIEW
    for file in (view, view.with_name(STATS)):
        file.write_text("{}")
    with closing(StatsFile(name, 4096)):
        assert not view.exists()


def test_several_instances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --name it has to be clear who is meant; with it, that one is served."""
    path = write_topology(tmp_path, *generated(1000))
    with service(tmp_path, path) as one, service(tmp_path, path) as two:
        flows(one)
        flows(two)
        assert main(["web", "--listen", "127.0.0.1:0"]) == 2
        assert "instances are running" in (said := capsys.readouterr().err) and "--name" in said
        with web(tmp_path, "--name", two.name) as page:
            assert page.status()["pid"] == two.process.pid
            assert page.stop(signal.SIGINT) == 0


def test_an_address_that_others_reach(tmp_path: Path) -> None:
    with web(tmp_path, "--name", "nobody", "--listen", "0.0.0.0:0") as page:
        page.until(lambda: "nobody" in page.text, "it has said all")
        (line,) = [line for line in page.text.splitlines() if line.startswith("warning")]
        assert "without a password" in line


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("9464", "no address; write HOST:PORT"),
        ("127.0.0.1:http", "no address; write HOST:PORT"),
        ("127.0.0.1:", "no address; write HOST:PORT"),
        (":9464", "no address; write HOST:PORT"),
        ("::1:9464", "no address; write HOST:PORT"),
        ("[]:9464", "no address; write HOST:PORT"),
        ("127.0.0.1:65536", "a port is a number up to 65535"),
        ("127.0.0.1:9999999999", "a port is a number up to 65535"),
    ],
)
def test_bad_addresses(listen: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["web", "--listen", listen])
    assert said in " ".join(capsys.readouterr().err.split())


def test_somebody_listens_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["web", "--listen", f"127.0.0.1:{port}"]) == 2
    said = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1:{port}: somebody listens there already\n  fix: " in said


# ---- a scrape storm ------------------------------------------------------------------------------


class Storm:
    """Many requests a second, at /metrics and /status.json in turn."""

    def __init__(self, page: Web, per_second: int, threads: int = 4) -> None:
        self.took: list[float] = []
        self._port, self._gap = page.port, threads / per_second
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)) as connection:
            due = time.monotonic()
            while not self._stop.is_set():
                for path in ("/metrics", "/status.json"):
                    time.sleep(max(0.0, due - time.monotonic()))
                    due += self._gap
                    began = time.monotonic()
                    connection.request("GET", path)
                    assert connection.getresponse().read()
                    self.took.append(time.monotonic() - began)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_scrape_storm(tmp_path: Path) -> None:
    """3,000 requests, 1,000 a second if the machine can, beside connections that ask nothing:
    shared memory is read twice a second all the same, most answers take no time, memory and files
    are what they were, and the run never stands still: its source waits for the chain, so nothing
    is dropped either."""
    path = write_topology(tmp_path, *generated())
    with service(tmp_path, path) as run, web(tmp_path, "--name", run.name) as page:
        flows(run)
        page.until(lambda: page.metric("hummingbird_up") == 1, "the instance is found")
        theirs = {lcore["cpu"] for lcore in page.status()["lcores"]}
        cpus = os.sched_getaffinity(0)
        assert os.sched_getaffinity(page.process.pid) == (cpus - theirs or cpus)
        read = page.metric("hummingbird_web_measurements_total")
        silent = []
        for _ in range(200):
            silent.append(socket.create_connection(("127.0.0.1", page.port)))
            assert page.files() < MOST_CLIENTS + 16
        memory = page.resident()
        began = time.monotonic()
        storm = Storm(page, 1000)
        try:
            standing_still = _standing_still(run, lambda: len(storm.took) >= 3000)
        finally:
            storm.end()
        seconds = time.monotonic() - began
        more = (page.metric("hummingbird_web_measurements_total") or 0) - (read or 0)
        assert 1 <= more <= seconds / MEASURE_S + 2
        assert statistics.median(storm.took) < 0.2  # single ones may wait for a CPU
        assert page.resident() - memory < 32 << 20
        assert page.files() < MOST_CLIENTS + 16
        assert standing_still < 1
        for one in silent:
            one.close()
        assert not run.stop().balanced["dropped"]


def _standing_still(run: Service, over: Callable[[], bool]) -> float:
    """The longest time in which the run forwarded nothing, or its lcore did not go round, although
    it had its CPU: from a look that saw it move to the last one that did not."""
    threads = scheduling.find_lcores(run.process.pid)

    def waited() -> float:
        return sum(scheduling.waited_ns(threads).values()) / 1e9

    longest, before = 0.0, (0, 0)
    moved = stood = time.monotonic()
    delay = waited()
    end = moved + TIMEOUT_S
    while not over():
        now = time.monotonic()
        assert now < end, "the storm takes too long"
        snapshot = run.snapshot()
        assert snapshot is not None
        seen = int(snapshot.nodes[1]["out_packets"]), int(snapshot.lcores["passes"].sum())
        if seen[0] > before[0] and seen[1] > before[1]:
            longest = max(longest, stood - moved - (waited() - delay))
            before, moved, stood, delay = seen, now, now, waited()
        else:
            stood = now
        time.sleep(0.01)
    return max(longest, stood - moved - (waited() - delay))


# ---- Prometheus itself ---------------------------------------------------------------------------


@contextmanager
def prometheus(folder: Path, page: Web) -> Iterator[int]:
    """A server that scrapes twice a second; yields its port."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
                "rule_files": [str(DEPLOY / "alerts.yml")],
                "scrape_configs": [
                    {
                        "job_name": "hummingbird",
                        "static_configs": [{"targets": [f"127.0.0.1:{page.port}"]}],
                    }
                ],
            }
        )
    )
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with open(folder / "prometheus.txt", "w") as text:
        server = subprocess.Popen(command, stdout=text, stderr=subprocess.STDOUT)
    try:
        yield port
    finally:
        server.terminate()
        server.wait(TIMEOUT_S)


def free_port() -> int:
    """One that nobody listens at, and that the kernel gives to no connection meanwhile."""
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, max(least, 20_000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def ask(port: int, what: str, **query: str) -> Any:
    """Of Prometheus' HTTP API; None before it is there."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as connection:
        try:
            connection.request("GET", f"/api/v1/{what}?{urlencode(query)}")
            answer = json.loads(connection.getresponse().read())
        except (OSError, ValueError):
            return None
    assert answer["status"] == "success", (query, answer)
    return answer["data"]


def result(port: int, query: str) -> list[Any]:
    found: list[Any] = (ask(port, "query", query=query) or {"result": []})["result"]
    return found


SILENT = {
    "Packets, by packet type B",
    "Drops, by reason A",
    "Drops, by node A",
    "Drops, by node B",
    "route policy changed",
    "started",
}
"""What the dashboard asks for that there is none of in a run where all is well."""


def test_prometheus_scrapes_a_run(tmp_path: Path) -> None:
    """gen0 -> nf0 (device) -> sink0, scraped for some seconds: everything that the dashboard asks
    has an answer, all rules can be evaluated, and none fires."""
    path = write_topology(tmp_path, *generated(2000, engine="gpu"))
    with service(tmp_path, path) as run, web(tmp_path, "--name", run.name) as page:
        flows(run)
        with prometheus(tmp_path, page) as port:
            run.until(
                lambda: len(result(port, "count_over_time(hummingbird_up[1m]) > 4")) == 1, "scrapes"
            )
            instance = f"127.0.0.1:{page.port}"
            answered = {}
            for where, query in queries().items():
                query = query.replace("$__rate_interval", "1m").replace("$instance", instance)
                answered[where] = len(result(port, query))
            assert {where for where, count in answered.items() if not count} == SILENT
            sent = result(port, 'hummingbird_port_sent_packets_total{port="sink0"}')
            assert 0 < float(sent[0]["value"][1]) <= run.packets(1)
            (group,) = ask(port, "rules")["groups"]
            health = {rule["name"]: (rule["health"], rule["state"]) for rule in group["rules"]}
            assert set(health) == set(alerts())
            run.until(lambda: _all_healthy(port), "all rules to be evaluated")
            run.until(lambda: _last_scrape(port) == ("", "up"), "a scrape without an error")
        assert run.stop().balanced


def _last_scrape(port: int) -> tuple[str, str]:
    """Its error, as when it took more than half a second, and what is said of the target."""
    (target,) = ask(port, "targets")["activeTargets"]
    return target["lastError"], target["health"]


def _all_healthy(port: int) -> bool:
    (group,) = ask(port, "rules")["groups"]
    return all((rule["health"], rule["state"]) == ("ok", "inactive") for rule in group["rules"])
