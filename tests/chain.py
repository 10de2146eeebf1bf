# SPDX-License-Identifier: BSD-3-Clause
"""run_chain(): packets through the real data plane, and what came of them. Every test of a chain
uses it, and it always checks that no packet is lost or counted twice.

    packets ── capture ── [ Engine: ports, NFs, threads, device ] ── captures ── Result
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import itertools
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from nf_helpers import ETHERNET, ip_sum

from hummingbird import policy, topology
from hummingbird.dataplane.plane import reasons
from hummingbird.engine import Engine, Wanted
from hummingbird.flows import Flow as LiveFlow
from hummingbird.nfs.ipsec import Keys
from hummingbird.telemetry.stats import Snapshot
from hummingbird.telemetry.summary import summarise
from hummingbird.testing import Sent, capture, read_capture
from hummingbird.topology import Topology

TIMEOUT_S = 60.0
POLL_S = 0.0005
HEADER = "packet_type,current_nf,next_nf\n"

Source = Mapping[str, Any] | str | Path
"""A topology: as YAML would parse it, as YAML, or a file that is used where it lies."""
Packets = Sequence[Any]
"""Bytes, or what bytes() takes, such as scapy's packets."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    outputs: dict[str, Sent]
    """By port; only those that write a capture."""
    summary: dict[str, Any]
    snapshot: Snapshot
    topology: Topology
    policy: policy.Policy
    start_seconds: float
    """CPU time from a parsed topology to running threads; of wall clock time a busy machine takes
    more."""
    flows: list[LiveFlow]
    """Those that lived at the end."""

    @property
    def packets(self) -> list[bytes]:
        """The packets of the only written capture, in order."""
        (port,) = self.outputs
        return self.outputs[port].packets

    def packets_of(self, port: str) -> list[bytes]:
        """The packets of one written capture, in order."""
        return self.outputs[port].packets

    @property
    def dropped(self) -> dict[str, int]:
        """Drops by reason."""
        dropped: dict[str, int] = self.summary["dropped"]
        return dropped

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Packets by NF and rule or counter."""
        counters: dict[str, dict[str, int]] = self.summary["counters"]
        return counters

    def type_packets(self) -> dict[str, int]:
        """Packets that ended, by type."""
        return {name: entry["packets"] for name, entry in self.summary["types"].items()}


# ---- running -------------------------------------------------------------------------------------


def run_chain(
    source: Source,
    packets: Packets | Path | None = None,
    rows: str | None = None,
    *,
    files: Mapping[str, str | bytes] | None = None,
    timeout: float = TIMEOUT_S,
    times: Sequence[int] | None = None,
    memory: Mapping[str, int] | None = None,
    state: Path | None = None,
    **device: Any,
) -> Result:
    """Run a topology until its inputs have ended.

    Args:
        source: the topology. It may call the capture of ``packets`` ``$in``, and ``$out`` what is
            read back; any other written capture is read back, too.
        packets: what comes in, or a capture.
        rows: the rows of the route policy, without the header; not for a file.
        files: files for the NFs, by name.
        timeout: seconds.
        times: nanoseconds, of ``packets``.
        memory: fields of the section ``memory:`` to set.
        state: where NFs keep what survives a restart; None: a fresh one.
        device: fields of the section ``device:`` to set, such as ``executor="launch"``.
    """
    options: dict[str, Any] = {"files": files, "times": times, "memory": memory, "state": state}
    with started(source, packets, rows, **options, **device) as run:
        run.wait(timeout)
        return run.stop()


@contextmanager
def started(
    source: Source,
    packets: Packets | Path | None = None,
    rows: str | None = None,
    *,
    files: Mapping[str, str | bytes] | None = None,
    times: Sequence[int] | None = None,
    memory: Mapping[str, int] | None = None,
    state: Path | None = None,
    **device: Any,
) -> Iterator[Run]:
    """A topology that runs; as `run_chain`, which waits for its end. Stop it before you leave."""
    with tempfile.TemporaryDirectory(prefix="hummingbird-test-") as folder:
        base = Path(folder)
        wanted = _load(base, source, packets, rows, files or {}, times)
        wanted = replace(
            wanted,
            device=wanted.device.model_copy(update=device),
            memory=wanted.memory.model_copy(update=memory or {}),
        )
        engine = Engine(f"test-{os.getpid()}-{next(_numbers)}")
        with _environment("STATE_DIRECTORY", str(state or base / "state")):
            try:
                yield Run(engine, wanted)
            finally:
                engine.close()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _load(
    base: Path,
    source: Source,
    packets: Packets | Path | None,
    rows: str | None,
    files: Mapping[str, str | bytes],
    times: Sequence[int] | None,
) -> Topology:
    """Write everything to a folder and load the topology from there."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (base / name).write_bytes(data)
        (base / name).chmod(0o600)  # as keys want it
    path, text = _topology_file(base, source, rows)
    bindings = {"in": base / "in.pcap", "out": base / "out.pcap"}
    if isinstance(packets, Path):
        bindings["in"] = packets
    else:
        bindings["in"].write_bytes(capture(packets or [], times))
    return topology.load(path, {name: b for name, b in bindings.items() if f"${name}" in text})


def _topology_file(base: Path, source: Source, rows: str | None) -> tuple[Path, str]:
    """Where the topology lies, and its text."""
    if isinstance(source, Path):
        assert rows is None, "a topology's file names its own policy"
        return source, source.read_text()
    path = base / "topology.yaml"
    text = source if isinstance(source, str) else yaml.safe_dump(dict(source), sort_keys=False)
    if rows is not None:
        text += "\npolicy: routes.csv\n"
        (base / "routes.csv").write_text(HEADER + rows)
    path.write_text(text)
    return path, text


class Run:
    """A topology that runs."""

    def __init__(self, engine: Engine, wanted: Topology) -> None:
        self.engine = engine
        began = time.process_time()
        engine.apply(Wanted(wanted, policy.load(wanted.policy, wanted.vocabulary())))
        self.start_seconds = time.process_time() - began
        self._began = time.monotonic()
        self._reloaded = False

    def reload(self, rows: str) -> None:
        """Make these the rows of the route policy."""
        running = self.engine.running
        assert running is not None
        data = (HEADER + rows).encode()
        names, path = running.topology.vocabulary(), running.policy.path
        self.engine.reload_policy(policy.parse(data, names, path))
        self._reloaded = True

    def counters(self, node: str) -> Any:
        """The hb_node_stats of a port or NF at this moment."""
        assert self.engine.running is not None
        number = self.engine.running.topology.nodes.index(node)
        return self.engine.reader().snapshot().nodes[number]

    def wait(self, timeout: float = TIMEOUT_S) -> None:
        """Until all inputs have ended and nothing is in flight."""
        self.until(self.engine.plane.finished, timeout, "the inputs to end")

    def until(
        self, condition: Callable[[], bool], timeout: float = TIMEOUT_S, what: str = "a condition"
    ) -> None:
        """Until a condition holds."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                state = summarise(self.engine.view(), self.engine.counters(), timeout)
                raise TimeoutError(f"waited {timeout} s for {what}: {state}")
            self.engine.poll()
            time.sleep(POLL_S)

    def stop(self) -> Result:
        """Drain, stop, check that every packet is accounted for, and tell what came of them."""
        engine = self.engine
        assert engine.running is not None
        tracked = any(spec.nf.flow_state for spec in engine.running.topology.nfs)
        flows = list(engine.flows()) if tracked else []
        left = engine.stop()
        summary = summarise(engine.view(), engine.counters(), time.monotonic() - self._began)
        assert left == 0, f"{left} packets did not make it out: {summary}"
        snapshot = engine.reader().snapshot()
        top, routes = engine.running.topology, engine.running.policy
        check_balance(top, snapshot, summary)
        if not self._reloaded:
            check_hops(top, routes, snapshot)
        free = engine.plane.count_free()
        assert free == top.memory.mbufs, f"{free} of {top.memory.mbufs} mbufs are free"
        outputs = dict(_read_outputs(top, summary))
        return Result(outputs, summary, snapshot, top, routes, self.start_seconds, flows)


def _read_outputs(top: Topology, summary: Mapping[str, Any]) -> Iterator[tuple[str, Sent]]:
    for port in top.ports:
        for path in port.params.writes():
            if path.is_file():
                sent = read_capture(path)
                assert len(sent.packets) == summary["ports"][port.name]["sent"]
                assert sum(map(len, sent.packets)) == summary["ports"][port.name]["sent_bytes"]
                yield port.name, sent


# ---- conservation --------------------------------------------------------------------------------

FORWARDED = ("policy", "no_route_row")
"""Reasons for which a packet is dropped after it has left its node."""


def check_balance(top: Topology, snapshot: Snapshot, summary: Mapping[str, Any]) -> None:
    """Every packet is accounted for: in total, at every node, by type and by policy version."""
    totals = {name: summary[name] for name in ("received", "created", "sent", "dropped")}
    assert summary["balance"] == 0, totals
    assert summary["in_flight"] == snapshot.in_flight == 0, totals
    sent, dropped = summary["sent"], sum(summary["dropped"].values())
    assert summary["received"] + summary["created"] == sent + dropped, totals
    assert sent == sum(port.get("sent", 0) for port in summary["ports"].values())
    assert [int(n) for n in snapshot.ended.sum(axis=0)] == [sent, dropped], totals
    lcores = snapshot.lcores
    assert lcores["admitted"].sum(axis=0).tolist() == lcores["retired"].sum(axis=0).tolist()
    for number, name in enumerate(top.nodes):
        assert int(snapshot.nodes[number]["dropped"]) == int(snapshot.drops[number].sum()), name
    for number, port in enumerate(top.ports):
        if not port.params.egress:  # nobody sends there, so this holds whatever was reloaded
            forwarded = int(snapshot.hops[number].sum())
            came = int(snapshot.nodes[number]["in_packets"])
            assert came == forwarded + _kept(snapshot, number), (port.name, came, forwarded)
    for number in range(len(top.ports), len(top.nodes)):
        _check_nf(number, top.nodes[number], snapshot)
    _check_edges(top, snapshot)


def _kept(snapshot: Snapshot, number: int) -> int:
    """Packets that ended at a node without leaving it: its drops but those after forwarding."""
    drops = zip(reasons(), snapshot.drops[number], strict=True)
    return sum(int(count) for (why, _), count in drops if why not in FORWARDED)


def _check_nf(number: int, name: str, snapshot: Snapshot) -> None:
    """in + created = forwarded + dropped."""
    node, forwarded = snapshot.nodes[number], int(snapshot.hops[number].sum())
    came = int(node["in_packets"]) + int(node["created"])
    assert came == forwarded + _kept(snapshot, number), (name, came, forwarded)
    assert int(node["out_packets"]) == forwarded, name


def _check_edges(top: Topology, snapshot: Snapshot) -> None:
    """What is counted between nodes is what left the one and came to the other."""
    after = [number for number, (name, _) in enumerate(reasons()) if name in FORWARDED]
    left = snapshot.edges.sum(axis=1) + snapshot.drops[:, after].sum(axis=1)
    assert left.tolist() == snapshot.hops.sum(axis=1).tolist()
    for number, came in enumerate(snapshot.edges.sum(axis=0).tolist()):
        node = snapshot.nodes[number]
        if number >= len(top.ports):
            assert came == int(node["in_packets"]), top.nodes[number]
        elif not top.ports[number].params.ingress:
            assert came == int(node["out_packets"]) + int(node["dropped"]), top.nodes[number]


def check_hops(top: Topology, routes: policy.Policy, snapshot: Snapshot) -> None:
    """What came into each NF is what the others sent there by the policy; what they sent to a port,
    and what came in there, left it or was dropped there."""
    count = len(top.nodes)
    arrived = [0] * count
    for at, packet_type in itertools.product(range(count), range(len(top.types))):
        to = int(routes.next[at, packet_type])
        if to < count:
            arrived[to] += int(snapshot.hops[at, packet_type])
    for number, name in enumerate(top.nodes):
        came = int(snapshot.nodes[number]["in_packets"])
        if number >= len(top.ports):
            assert arrived[number] == came, name
            continue
        went = int(snapshot.nodes[number]["out_packets"]) + int(snapshot.hops[number].sum())
        assert came + arrived[number] == went + _kept(snapshot, number), name


# ---- topologies that many tests use --------------------------------------------------------------


def line(*nfs: Mapping[str, Any] | str, **sections: Any) -> tuple[dict[str, Any], str]:
    """in0 -> nf0 -> nf1 -> ... -> out0: a topology from capture to capture, and its rows.

    Args:
        nfs: what stands under each NF's name; ``"cpu"`` and ``"gpu"`` are ``forward`` NFs there.
        sections: further sections of the topology.
    """
    entries = [{"type": "forward", "engine": nf} if isinstance(nf, str) else dict(nf) for nf in nfs]
    names = ["in0", *(f"nf{number}" for number in range(len(entries))), "out0"]
    rows = "".join(f"*,{a},{b}\n" for a, b in itertools.pairwise(names))
    ports = {
        "in0": {"driver": "pcap", "read": "$in"},
        "out0": {"driver": "pcap", "write": "$out"},
    }
    return {"ports": ports, "nfs": dict(zip(names[1:-1], entries, strict=True)), **sections}, rows


def tunnel(spi: int, src: str, dst: str, key_file: str = "sa.key") -> dict[str, Any]:
    """Parameters of ``type: ipsec``: one outbound tunnel for all packets, with the two algorithms
    of `open_esp`."""
    sa = {"direction": "out", "spi": spi, "src": src, "dst": dst, "key_file": key_file}
    sa |= {"cipher": "aes-128-cbc", "auth": "hmac-sha1-96"}
    return {"sas": {"sa": sa}, "policies": [{"action": "sa"}]}


# ---- packets, made fast --------------------------------------------------------------------------


def ipv4(src: str, dst: str, protocol: int, payload: bytes) -> bytes:
    """An Ethernet frame with an IPv4 packet; its header checksum is right."""
    ends = ipaddress.IPv4Address(src).packed + ipaddress.IPv4Address(dst).packed
    head = struct.pack(">BBHHHBB", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol)
    checksum = ip_sum(head + bytes(2) + ends).to_bytes(2, "big")
    return ETHERNET + IPV4 + head + checksum + ends + payload


def tcp(src: str, dst: str, sport: int, dport: int, payload: bytes = b"") -> bytes:
    """A TCP segment; its checksum is 0, which no NF looks at."""
    head = struct.pack(">HHIIHHI", sport, dport, 0, 0, 0x5010, 65535, 0)
    return ipv4(src, dst, 6, head + payload)


def udp(src: str, dst: str, sport: int, dport: int, payload: bytes = b"") -> bytes:
    """A UDP datagram without checksum."""
    return ipv4(src, dst, 17, struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload)


# ---- an independent look at packets --------------------------------------------------------------

PORTED = (6, 17, 132)
TAGS = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"

Flow = tuple[bytes | int, ...]


def network_header(packet: bytes) -> int:
    """Where the header behind Ethernet and at most two VLAN tags starts."""
    at = 14
    for _ in range(2):
        at += 4 * (packet[at - 2 : at] in TAGS)
    return at


def flow_of(packet: bytes) -> Flow:
    """Packets with the same one belong to one flow and direction. Where that is hard to see they
    get one of their own, so that nothing is said of their order."""
    at = network_header(packet)
    kind, ip = packet[at - 2 : at], packet[at:]
    if kind == IPV4 and len(ip) >= 20:
        fragment = bool(ip[6] & 0x3F or ip[7])
        return (*_ends(ip[12:20], ip[9], ip[(ip[0] & 15) * 4 :], fragment, 8), fragment)
    if kind == IPV6 and len(ip) >= 40:
        known = ip[6] in (*PORTED, 58)
        return _ends(ip[8:40], ip[6], ip[40:], False, 128) if known else (packet,)
    return (packet[:12], kind)


def _ends(addresses: bytes, protocol: int, l4: bytes, fragment: bool, echo: int) -> Flow:
    """Addresses, protocol and ports; the id of an ICMP echo is one, too."""
    ports = b""
    if protocol in PORTED and not fragment:
        ports = l4[:4]
    elif protocol in (1, 58) and l4[:1] and l4[0] in (echo, 0 if echo == 8 else 129):
        ports = l4[4:6]
    return addresses, protocol, ports


def by_flow(packets: Iterable[bytes]) -> dict[Flow, list[bytes]]:
    """The packets of each flow, in order."""
    flows: dict[Flow, list[bytes]] = {}
    for packet in packets:
        flows.setdefault(flow_of(packet), []).append(packet)
    return flows


def is_subsequence(some: Iterable[object], everything: Iterable[object]) -> bool:
    """All of ``some`` stands in ``everything``, in the same order."""
    rest = iter(everything)
    return all(any(one == other for other in rest) for one in some)


@dataclass(frozen=True)
class Esp:
    """A packet that came out of a tunnel."""

    spi: int
    sequence: int
    packet: bytes
    """The packet in it, behind the Ethernet header that it came with."""


def open_esp(packet: bytes, keys: Keys) -> Esp:
    """Check and decrypt an ESP packet (RFC 4303), by cryptography."""
    at = network_header(packet)
    esp = packet[at + 20 :]
    icv = hmac.digest(keys.authentication, esp[:-12], hashlib.sha1)[:12]
    assert esp[-12:] == icv, "the ICV is wrong"
    cipher = Cipher(algorithms.AES(keys.encryption), modes.CBC(esp[8:24])).decryptor()
    plain = cipher.update(esp[24:-12]) + cipher.finalize()
    assert plain[-1] in (4, 41) and len(plain) >= plain[-2] + 2
    inner = plain[: len(plain) - 2 - plain[-2]]
    kind = IPV4 if plain[-1] == 4 else IPV6
    spi, sequence = struct.unpack_from(">II", esp)
    return Esp(spi, sequence, packet[: at - 2] + kind + inner)
