# SPDX-License-Identifier: BSD-3-Clause
"""Backends that come, go and drain while packets flow: no flow moves, new ones go by the new table.

packets (for ever, at a rate) ── in0 ── nf0 (load_balancer) ── out0        backends.csv: edited
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import Result, Run, line, started
from load_balancer_helpers import (
    BALANCER,
    FILE,
    ends,
    expected,
    model_of,
    packet,
    requests,
    through,
)
from scapy.layers.inet import TCP

WEB = ["10.0.1.1", "10.0.1.2", "10.0.1.3"]


class Playing:
    """A load balancer through which a capture is played for ever."""

    def __init__(self, run: Run, file: Path) -> None:
        self.run, self.file = run, file
        assert run.engine is not None
        self.host: Any = run.engine.hosts["nf0"]

    def edit(self, text: str) -> None:
        """The file says this from now on."""
        self.file.write_text(text)
        self.host.reload()

    def more(self, packets: int = 3000) -> None:
        """So many further packets have left."""
        before = int(self.run.counters("out0")["out_packets"])
        self.run.until(lambda: self.run.counters("out0")["out_packets"] >= before + packets)

    def backends(self, service: str = "web") -> dict[str, Any]:
        """What is reported of them."""
        found: dict[str, Any] = self.host.report()["services"][service]
        return found


def playing(
    tmp_path: Path, packets: list[bytes], then: Callable[[Playing], None], **fields: Any
) -> Result:
    """Play packets for ever at a rate; do something meanwhile."""
    file = tmp_path / "backends.csv"
    file.write_text(FILE)
    source, rows = line(BALANCER | {"backends": str(file)} | fields)
    source["ports"]["in0"] |= {"loop": 0, "rate": 20_000}
    with started(source, packets, rows, use="none") as run:
        playing = Playing(run, file)
        playing.more(len(packets) + 100)
        then(playing)
        return run.stop()


def by_client(result: Result) -> dict[tuple[str, int], list[str]]:
    """The backends that a client's packets went to, in order, without repetition."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for data in result.packets:
        src, sport, dst, _ = ends(data)
        if dst not in found[src, sport][-1:]:
            found[src, sport].append(dst)
    return found


def test_existing_flows_stay_whatever_happens_to_their_backend(tmp_path: Path) -> None:
    """Drained, removed, all of them; another one added. No flow moves, no packet is lost."""

    def then(play: Playing) -> None:
        play.edit(FILE.replace("10.0.1.1,8443,1,,", "10.0.1.1,8443,1,drain,"))
        play.more()
        play.edit(FILE.replace("web,10.0.1.2,8443,2,,02:00:00:00:01:02\n", "web,10.0.1.9,,5,,\n"))
        play.more()
        play.edit("\n".join(one for one in FILE.split("\n") if not one.startswith("web")))
        play.more()
        found = play.backends()
        assert found["backends"] == {} and sum(b["live"] for b in found["removed"].values()) == 500

    result = playing(tmp_path, requests(500), then)
    assert result.dropped == {}
    assert all(len(backends) == 1 for backends in by_client(result).values())
    assert Counter(b[0] for b in by_client(result).values()).keys() == set(WEB)


def test_new_flows_go_by_the_new_table(tmp_path: Path) -> None:
    """A run that begins with the edited file chooses alike: few flows differ from before."""
    packets = requests(2000)
    drained = FILE.replace("web,10.0.1.3,,1,,", "web,10.0.1.3,,1,drain,")
    before, after = through(packets), through(packets, drained)
    chosen = [[ends(one)[2] for one in result.packets] for result in (before, after)]
    assert "10.0.1.3" not in chosen[1]
    moved = sum(a != b for a, b in zip(*chosen, strict=True) if a != "10.0.1.3")
    assert moved / 2000 < 0.12
    assert after.packets == expected(model_of(drained), packets)[0]


def test_a_backend_comes_and_gets_its_share(tmp_path: Path) -> None:
    """Connections that end, and begin anew."""
    packets = []
    for number in range(1000):
        one = packet("203.0.113.10", 443, sport=1024 + number)
        for flags in ("S", "R"):
            one[TCP].flags = flags
            packets.append(bytes(one))
    added = FILE + "web,10.0.1.7,,4,,\n"

    def then(play: Playing) -> None:
        play.edit(added)
        play.run.until(
            lambda: play.backends()["backends"]["10.0.1.7:443"]["flows"] > 50, what="new flows"
        )

    result = playing(tmp_path, packets, then)
    assert "10.0.1.7" in {backends[-1] for backends in by_client(result).values()}


def test_a_removed_backend_s_replies_are_translated_while_it_has_flows(tmp_path: Path) -> None:
    request = packet("203.0.113.10", 443, sport=5000)
    _, _, backend, port = ends(through([bytes(request)]).packets[0])
    reply = packet("198.51.100.1", 5000, src=backend, sport=port)
    rest = "\n".join(one for one in FILE.split("\n") if backend not in one)

    def then(play: Playing) -> None:
        play.edit(rest)
        play.more()

    result = playing(tmp_path, [bytes(request), bytes(reply)], then)
    assert {ends(one)[:2] for one in result.packets} == {
        ("198.51.100.1", 5000),
        ("203.0.113.10", 443),
    }


def test_a_bad_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def then(play: Playing) -> None:
        before = play.backends()["backends"].keys()
        play.edit(FILE + "web,10.0.1.1,8443,1,,\n")
        play.edit("nonsense\n")
        assert play.backends()["backends"].keys() == before
        play.more()

    result = playing(tmp_path, requests(100), then)
    assert result.dropped == {}
    assert "the backends of nf0 stay as they were" in caplog.text
    assert "backends.csv:19: 10.0.1.1:8443 of web stands on line 2 already" in caplog.text
    assert "backends.csv:1: 'nonsense' is not the header row" in caplog.text


def test_backends_come_back_and_room_runs_out(tmp_path: Path, caplog: Any) -> None:
    """Slots of backends with flows are kept; more than there is room for are refused."""
    rest = "\n".join(one for one in FILE.split("\n") if not one.startswith("web"))
    many = rest + "".join(f"web,10.0.7.{n},,,,\n" for n in range(1, 5))

    def then(play: Playing) -> None:
        flows = {name: one["flows"] for name, one in play.backends()["backends"].items()}
        play.edit(rest)
        play.edit(FILE)
        again = play.backends()
        assert {name: one["flows"] for name, one in again["backends"].items()} == flows
        assert "removed" not in again
        play.edit(many)
        assert set(play.backends()["backends"]) == set(flows)
        play.edit(many.replace("web,10.0.7.4,,,,\nweb", "web").replace("web,10.0.7.4,,,,\n", ""))
        assert len(play.backends()["backends"]) == 3

    playing(tmp_path, requests(100), then, room=3)
    assert "there is room for 20 backends, removed ones that have flows counted" in caplog.text


@pytest.mark.parametrize("seed", range(3))
def test_flows_keep_backend_and_order_under_random_edits(tmp_path: Path, seed: int) -> None:
    """Every flow has one backend from its first packet to its last, and its packets come out in
    order, while backends come, go, drain and come back at random."""
    rng = np.random.default_rng(seed)
    packets = requests(400)
    hosts = [f"10.0.1.{n}" for n in range(1, 12)]

    def then(play: Playing) -> None:
        for _ in range(25):
            lines = [
                f"web,{host},,{rng.integers(0, 4)},{'drain' if rng.random() < 0.2 else ''},"
                for host in hosts
                if rng.random() < 0.6
            ]
            play.edit("\n".join([FILE.split("\n")[0], *lines, ""]))
            play.more(300)

    result = playing(tmp_path, packets, then)
    assert result.dropped == {}
    assert all(len(backends) == 1 for backends in by_client(result).values())
    clients = [ends(one)[:2] for one in packets]
    turn = {client: number for number, client in enumerate(clients)}
    played = [turn[ends(one)[0], ends(one)[1]] for one in result.packets]
    assert played == [number % len(packets) for number in range(len(played))]


def test_slots_are_given_back_when_the_last_flow_has_ended(tmp_path: Path) -> None:
    """UDP flows end after a second of packet time; their backend's slot is another's then."""
    packets = [bytes(packet("203.0.113.10", 53, sport=n, udp=True)) for n in range(1, 50)]
    quiet = [bytes(packet("203.0.113.99", 9, sport=9, udp=True))] * 3000
    file = tmp_path / "backends.csv"
    file.write_text(FILE)
    nf = BALANCER | {"backends": str(file)}
    source, rows = line(nf, flows={"timeouts": {"udp": 1}})
    source["ports"]["in0"] |= {"pace": "original"}
    times = [n * 1_000_000 for n in range(len(packets) + len(quiet))]
    with started(source, packets + quiet, rows, times=times, use="none") as run:
        host: Any = run.engine.hosts["nf0"]
        run.until(lambda: run.counters("out0")["out_packets"] >= len(packets), what="packets")
        run.engine.hold()  # or their second is over while the file is read
        file.write_text(
            FILE.replace("dns,10.0.2.1,,,,\n", "").replace("dns,10.0.2.2,5353,,,\n", "")
        )
        host.reload()
        gone = host.report()["services"]["dns"]["removed"]
        assert sum(one["live"] for one in gone.values()) == len(packets)
        run.engine.resume()
        run.until(lambda: "removed" not in host.report()["services"]["dns"], what="the end of them")
        run.stop()
