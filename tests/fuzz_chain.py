# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzed packets through every NF and every CPU engine, in the real data plane. Run by
test_fuzz_chain.py with a data plane that checks every access to memory.

    fuzz_chain.py PACKETS SEED [SCENARIO...]

Packets that IPsec shall take in are mutations of what IPsec has sent. Before, every packet of the
corpus goes through each scenario as it is.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutate
import numpy as np
from chain import run_chain
from ipsec_chains import ALGORITHMS, TestSa, ipsec, key_files

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "policies" / "demo"
DATA = Path(os.environ.get("HUMMINGBIRD_TEST_DATA", ROOT.parent / "shared" / "data"))
RULES = DATA / "rules" / "snort-community-2017" / "content147.rules"
ROUND = 50_000
WAIT_S = 600.0
"""A round takes half a second, or a minute of the spare time of a machine that others use."""
MEMORY = {"mbufs": 8192, "queue": 1024, "flows": 1024}
PORTS = {"in0": {"driver": "pcap", "read": "$in"}, "out0": {"driver": "pcap", "write": "$out"}}
TYPES = {"web": {"protocol": "tcp", "port": [80, 443]}}
MAC = {"mac": "02:00:00:00:00:01", "src_mac": "02:00:00:00:00:02"}
ROUTES = """\
prefix,next_hop
0.0.0.0/0,a|b
10.0.0.0/8,a
10.1.2.0/25,small
192.0.2.0/28,unreachable
128.0.0.0/3,small
::/0,a|b
2000::/3,small
fd00::/8,blackhole
"""
FIREWALL = """\
src,dst,protocol,dport,action
0.0.0.0/1,any,tcp,1-1023|8080,accept
any,2000::/3,udp|icmpv6,any,accept
any,0.0.0.0/4,any,any,deny
"""

SERVICES: dict[str, Any] = {
    f"{protocol}{i}": {"address": address, "protocol": protocol, "port": "any", "mode": mode}
    for i, (address, mode) in enumerate(
        [("203.0.113.10", "dnat"), ("203.0.113.20", "ipip"), ("10.1.0.10", "dnat")]
    )
    for protocol in ("tcp", "udp")
}
BACKENDS = "service,address\n" + "".join(
    f"{name},{'198.51.100' if i == 4 else '10.9.0'}.{i}\n" for i, name in enumerate(SERVICES)
)
BALANCER: dict[str, Any] = {
    "type": "load_balancer",
    "backends": "backends.csv",
    "table_size": 251,
    "tunnel": {"source": "192.0.2.1", "source6": "fd00::1", "mtu": 1320},
    "icmp": {"rate": 1_000_000},
    "services": SERVICES,
}

Files = dict[str, str | bytes]


@dataclass(frozen=True)
class Scenario:
    """One NF, or a chain of them."""

    name: str
    nfs: dict[str, Any]
    files: Files
    inbound: bool = False
    """Takes what the outbound IPsec scenario has sent."""

    @property
    def topology(self) -> dict[str, Any]:
        return {"ports": PORTS, "nfs": self.nfs, "types": TYPES}

    @property
    def rows(self) -> str:
        names = ["in0", *self.nfs, "out0"]
        return "".join(f"*,{a},{b}\n" for a, b in itertools.pairwise(names))


def associations() -> dict[str, TestSa]:
    """One of each kind: tunnels, transport mode, in UDP, and without encryption."""
    sas = {f"sa{i}": TestSa(0x1000 + i, cipher=c, auth=a) for i, (c, a) in enumerate(ALGORITHMS)}
    sas["udp"] = TestSa(0x2000, udp=4500)
    sas["open"] = TestSa(0x2001, cipher="null")
    return sas


def policies(sas: dict[str, TestSa]) -> list[dict[str, Any]]:
    """Each has a part of the addresses."""
    parts = [f"{32 * i}.0.0.0/3" for i in range(len(sas))]
    chosen = [{"dst": p, "action": name} for p, name in zip(parts, sas, strict=True)]
    return [{"protocol": "tcp", "port": 22, "action": "bypass"}, *chosen, {"action": "sa0"}]


def scenarios() -> Iterator[Scenario]:
    """All of them."""
    sas, keys = associations(), dict(key_files(*associations().values()))
    rules = RULES.read_text() if RULES.exists() else (DEMO / "web.rules").read_text()
    router: dict[str, Any] = {
        "type": "router",
        "routes": "fib.csv",
        "next_hops": {"a": MAC, "b": MAC, "small": MAC | {"mtu": 600}},
        "addresses": ["192.0.2.1", "2001:db8::1"],
        "icmp": {"rate": 1_000_000},
    }
    yield Scenario("router", {"router0": router}, {"fib.csv": ROUTES})
    files = {"backends.csv": BACKENDS}
    yield Scenario("load_balancer", {"lb0": BALANCER}, files)
    for engine in ("cpu", "avx2"):
        firewall = {"type": "firewall", "engine": engine, "rules": "fw.csv", "default": "accept"}
        yield Scenario(f"firewall {engine}", {"firewall0": firewall}, {"fw.csv": FIREWALL})
    yield Scenario("forward", {"nf0": {"type": "forward"}}, {})
    nat = {"type": "nat", "inside": "0.0.0.0/1", "external": "203.0.113.8/30", "mappings": 4096}
    yield Scenario("nat", {"nat0": nat | {"filtering": "address-dependent"}}, {})
    python = {"type": "python", "file": "classifier.py", "types": ["opaque"]}
    classifier = (DEMO / "classifier.py").read_text()
    yield Scenario("python", {"look0": python}, {"classifier.py": classifier})
    for engine in ("cpu", "hyperscan"):
        nids = {"type": "nids", "engine": engine, "rules": "a.rules", "alert_rate": 0}
        nids |= {"variables": {"HTTP_PORTS": "any", "HOME_NET": "any"}, "handshake": "assumed"}
        yield Scenario(f"nids {engine}", {"nids0": nids}, {"a.rules": rules})
    for engine in ("cpu", "ipsec_mb"):
        more = {"mtu": 900, "engine": engine, "icmp": {"source6": "fd00::1", "rate": 1_000_000}}
        out = ipsec(sas, policies=policies(sas), **more)
        into = ipsec(None, sas, policies=policies(sas), **more)
        yield Scenario(f"ipsec out {engine}", {"ipsec0": out}, keys)
        yield Scenario(f"ipsec in {engine}", {"ipsec0": into}, keys, inbound=True)
    chain = {
        "nids0": {"type": "nids", "rules": "a.rules"},
        "ipsec0": ipsec(sas, policies=policies(sas), mtu=1400, engine="auto"),
        "router0": router,
    }
    yield Scenario("chain", chain, {**keys, "a.rules": rules, "fib.csv": ROUTES})


def corpus() -> mutate.Array:
    """The demo's capture and, where they are, the real ones."""
    captures = [DEMO / "branch.pcap"]
    if (DATA / "traces").is_dir():
        captures += [path for path in (DATA / "traces").rglob("*.*cap*") if path.is_file()]
    return mutate.read_corpus(captures)


def encrypted(rows: mutate.Array, scenario: Scenario) -> mutate.Array:
    """What IPsec makes of the corpus."""
    result = run_chain(scenario.topology, mutate.packets(rows), scenario.rows, files=scenario.files)
    return mutate.as_rows(result.packets)


def main() -> None:
    """Rounds of ROUND packets through each scenario in turn."""
    packets, seed = int(sys.argv[1]), int(sys.argv[2])
    every, rng = list(scenarios()), np.random.default_rng(seed)
    plain = corpus()
    esp = encrypted(plain, next(s for s in every if s.name == "ipsec out cpu"))
    every = [s for s in every if not sys.argv[3:] or s.name in sys.argv[3:]]
    print(f"corpus: {len(plain):,} packets, {len(esp):,} of ESP", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "in.pcap"
        for first in range(-ROUND, packets, ROUND):  # the first round: unchanged
            written = None
            for scenario in sorted(every, key=lambda s: s.inbound):
                rows = esp if scenario.inbound else plain
                count = len(rows) if first < 0 else min(ROUND, packets - first)
                if written is not rows:
                    if first < 0:
                        fresh = mutate.apart(rows)
                    else:  # of ESP in order: an old number is no more than a replay
                        fresh = mutate.mutate(rows, count, rng, scenario.inbound)
                    mutate.write_capture(capture, *fresh)
                    written = rows
                run = run_chain(
                    scenario.topology,
                    capture,
                    scenario.rows,
                    files=scenario.files,
                    memory=MEMORY,
                    use="none",
                    timeout=WAIT_S,
                )
                assert run.summary["received"] == count, scenario.name
                if first <= 0:
                    print(scenario.name, run.summary["created"], run.dropped, flush=True)
            print(
                f"{min(first + ROUND, packets):,} packets, {time.monotonic() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
