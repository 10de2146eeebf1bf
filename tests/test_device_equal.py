# SPDX-License-Identifier: BSD-3-Clause
"""GPU = CPU, persistent = launch = staged copies, one dialect = the other, tables in local memory =
tables where they are, one lcore = several.

                ┌─ on the CPU, one lcore ─────────────────────┐
    packets ────┼─ on a device, by executor, memory, dialect ─┼─ the same packets, drops and alerts
                └─ on a device, several lcores and syncers ───┘

All four NFs stand in the topology, so that one device program serves all of these tests; the route
policy leads through the one that is tested.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nf_helpers as nf
import numpy as np
import pytest
from chain import (
    IPV4,
    IPV6,
    Result,
    by_flow,
    capture,
    line,
    open_esp,
    run_chain,
    tcp,
    tunnel,
    udp,
)

from hummingbird.nfs import ipsec
from hummingbird.nfs.automaton import LOCAL
from hummingbird.nfs.ipsec import Keys
from hummingbird.opencl import probe, program
from hummingbird.opencl.device import FINE, Device, choose
from hummingbird.opencl.probe import Tier

pytest.importorskip("pyopencl")

DEMO = (Path(__file__).parent.parent / "policies" / "demo").resolve()
KEYS = Keys(bytes(range(16)), bytes(range(20)))
KEY_FILE = f"encryption: {KEYS.encryption.hex()}\nauthentication: {KEYS.authentication.hex()}\n"
MACS = {"mac": "02:00:00:00:01:01", "src_mac": "02:00:00:00:02:01"}
SMALLEST, LARGEST = 14, 1664  # an Ethernet header; what a frame has room for
NFS: dict[str, dict[str, Any]] = {
    "forward": {},
    "router": {
        "routes": str(DEMO / "routes.csv"),
        "next_hops": {name: MACS for name in ("isp", "core", "branch", "servers", "gateway")},
        "mtu": LARGEST,  # pieces of several packets of a flow come in another order by burst
    },
    "nids": {"rules": str(DEMO / "web.rules"), "on_alert": "bad"},
    "ipsec": tunnel(4096, "192.0.2.9", "192.0.2.1") | {"mtu": 3712},  # which nothing reaches
}


# ---- packets -------------------------------------------------------------------------------------


def random_packets() -> list[bytes]:
    """A mixed bag: right, damaged and nonsense."""
    rng = np.random.default_rng(40)
    return [nf.some_packet(rng) for _ in range(3000)]


def every_size() -> list[bytes]:
    """Frames of 14 to 1,664 bytes: IPv4, IPv6 and neither."""
    rng = np.random.default_rng(41)
    packets = []
    for size in range(SMALLEST, LARGEST + 1):
        packets.append(nf.ETHERNET + b"\x88\xb5" + rng.bytes(size - 14))
        if size >= 42:
            packets.append(udp("10.0.0.1", "203.0.113.5", 1, 2, rng.bytes(size - 42)))
        if size >= 54:
            packets.append(nf.ETHERNET + IPV6 + nf.ipv6(rng.bytes(size - 54), 59, rng))
    return packets


def patterned() -> list[bytes]:
    """Every pattern of the demo at every place of a payload, also cut short at its end."""
    packets = []
    for number, content in enumerate([b"/etc/passwd", b"CMD.exe", b"jndi:ldap", b"() { :; };"]):
        for at in range(0, 90):
            payload = bytes(at) + content + bytes(90 - at)
            whole = tcp("10.0.0.9", "203.0.113.9", 1000 + number, 80, payload)
            packets += [whole, tcp("10.0.0.9", "203.0.113.9", 1000 + number, 80, payload[:90])]
    return packets


def tagged() -> list[bytes]:
    """VLAN tags, IPv6 extension headers, fragments: headers that move what follows."""
    rng = np.random.default_rng(42)
    packets = []
    for number in range(400):
        tags = b"".join(b"\x81\x00" + rng.bytes(2) for _ in range(number % 3))
        payload = rng.bytes(int(rng.integers(60)))
        udp_part = nf.udp(payload, rng)
        options = b"\x11\x00" + bytes(6) if number % 2 else b""
        v6 = nf.ipv6(options + udp_part, 60 if options else 17, rng)
        v4 = bytearray(nf.ipv4(udp_part, 17, rng, options=number % 11))
        v4[6:8] = (number % 5).to_bytes(2, "big")
        v4[10:12] = bytes(2)
        v4[10:12] = nf.ip_sum(v4[: (v4[0] & 15) * 4]).to_bytes(2, "big")
        packets += [nf.ETHERNET + tags + IPV6 + v6, nf.ETHERNET + tags + IPV4 + bytes(v4)]
    return packets


@functools.cache
def packets() -> list[bytes]:
    return [*random_packets(), *every_size(), *patterned(), *tagged()]


# ---- runs ----------------------------------------------------------------------------------------


def through(name: str, **sections: Any) -> tuple[dict[str, Any], str]:
    """A topology with every NF on the device, and the rows that lead through one: nf0."""
    others = [other for other in NFS if other != name]
    gpu = [{"type": kind, "engine": "gpu"} | NFS[kind] for kind in (name, *others)]
    source, _ = line(*gpu, **sections)
    return source, "*,in0,nf0\n*,nf0,out0\nbad,nf0,out0\n"


@pytest.fixture(autouse=True)
def same_ivs(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPsec draws a key at each start, so that no initialisation vector repeats: not here."""
    monkeypatch.setattr(ipsec, "os", SimpleNamespace(urandom=bytes))


@functools.cache
def on_one_cpu(name: str) -> Result:
    source, rows = through(name)
    result = run_chain(source, packets(), rows, files={"sa.key": KEY_FILE}, use="none")
    assert len(result.packets) > len(packets()) // 4, "nearly nothing gets through"
    return result


@pytest.fixture
def device() -> Device:
    found = choose("auto")
    if found is None:
        pytest.skip("NOT COMPARED with a device: there is no OpenCL device")
    return found


def force(monkeypatch: pytest.MonkeyPatch, device: Device, **settings: str) -> None:
    """Set BINDING or DIALECT. CPU runtimes share all memory, which spares a probe of each; what a
    GPU can do with these settings has to be probed."""
    for name, value in settings.items():
        monkeypatch.setenv(f"HUMMINGBIRD_{name}", value)
    if device.is_cpu:
        way = settings.get("BINDING") or probe.memory.bindings(device)[0]
        found = Tier("B", "forced by a test", way, settings.get("DIALECT", "c11"), 1, 1, 1)
        monkeypatch.setattr(probe, "tier_of", lambda device: found)


def tables_in_local_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU. A CPU's program leaves them where they are: its caches do as well."""
    build = program.source

    def source(codes: Iterable[program.Code], kernels: str, local_bytes: int) -> str:
        return build(codes, kernels, local_bytes or LOCAL)

    monkeypatch.setattr(program, "source", source)


def needs_persistent(device: Device) -> None:
    tier = probe.tier_of(device)
    if tier.tier == "C":
        pytest.skip(f"{device.label} runs no persistent kernel: {tier.reason}")


WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "launch": ("launch", {}),
    "launch-staged": ("launch", {"BINDING": "staged"}),
    "launch-userptr": ("launch", {"BINDING": "userptr"}),
    "launch-cl12": ("launch", {"DIALECT": "cl12"}),
    "launch-local": ("launch", {}),
    "persistent": ("persistent", {}),
    "persistent-userptr": ("persistent", {"BINDING": "userptr"}),
    "persistent-fine-grain": ("persistent", {"BINDING": FINE.replace("buffer", "SVM")}),
    "persistent-cl12": ("persistent", {"DIALECT": "cl12"}),
    "persistent-local": ("persistent", {}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NFS)
def test_a_device_does_what_the_cpu_does(
    name: str, way: str, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packet for packet and byte for byte, in the same order."""
    executor, settings = WAYS[way]
    if "fine-grain" in way and FINE not in device.svm:
        pytest.skip(f"{device.label} has no fine-grain SVM")
    expected = on_one_cpu(name)
    if settings:
        force(monkeypatch, device, **settings)
    if "local" in way:
        tables_in_local_memory(monkeypatch)
    if executor == "persistent":
        needs_persistent(device)
    source, rows = through(name)
    result = run_chain(source, packets(), rows, files={"sa.key": KEY_FILE}, executor=executor)
    seen = result.summary["device"]
    assert seen["executor"] == executor and seen["failures"] == 0
    assert seen["binding"] == settings.get("BINDING", seen["binding"])
    assert seen["dialect"] == settings.get("DIALECT", "c11")
    assert (seen["copied_bytes"] > 0) == (seen["binding"] == "staged")
    assert result.dropped == expected.dropped
    assert result.counters == expected.counters
    assert result.type_packets() == expected.type_packets()
    assert result.packets == expected.packets


@pytest.mark.parametrize("shape", [(1, 2, 1), (3, 2, 2), (64, 4, 4), (256, 64, 1)])
@pytest.mark.parametrize("executor", ["launch", "persistent"])
def test_the_shape_of_the_queue_does_not_matter(
    shape: tuple[int, int, int], executor: str, device: Device
) -> None:
    """Lanes of a row, rows of a workgroup, groups of a launch: from the smallest on."""
    if executor == "persistent":
        needs_persistent(device)
    lanes, depth, groups = shape
    source, rows = line("gpu", "gpu")
    some = [packet for packet in packets() if len(packet) < 200][:1500]
    expected = run_chain(source, some, rows, use="none").packets
    settings = {"lanes": lanes, "depth": depth, "groups": groups, "executor": executor}
    assert run_chain(source, some, rows, **settings).packets == expected


# ---- headroom ------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["none", "launch", "persistent"])
def test_room_runs_out_in_front_and_behind(executor: str, device: Device) -> None:
    """in0 -> ipsec -> ipsec -> ipsec -> out0: two fit into the room in front, three do not."""
    if executor == "persistent":
        needs_persistent(device)
    settings = {"use": "none"} if executor == "none" else {"executor": executor}
    some = [udp("10.0.0.1", "10.0.0.2", 1, 2, bytes(size)) for size in range(0, 1623)]
    first, second, third = (
        {"type": "ipsec", "engine": "gpu", "mtu": 3712} | tunnel(spi, "192.0.2.9", "192.0.2.1")
        for spi in (4096, 4097, 4098)
    )
    files = {"sa.key": KEY_FILE}
    once = run_chain(*with_packets(some, first), files=files, **settings)
    fits = [packet for packet in some if len(packet) + 33 <= LARGEST]  # the tail that it declares
    assert [open_esp(packet, KEYS).packet for packet in once.packets] == fits
    assert once.dropped == {"no_room": len(some) - len(fits)}
    thrice = run_chain(*with_packets(some, first, second, third), files=files, **settings)
    assert thrice.packets == [] and thrice.dropped == {"no_room": len(some)}
    assert thrice.summary["nfs"]["nf2"]["dropped"] > 1000, "the third has no room in front"
    assert thrice.summary["nfs"]["nf1"]["dropped"] > 0, "the second has none behind"


def with_packets(some: list[bytes], *specs: Any) -> tuple[Any, list[bytes], str]:
    source, rows = line(*specs)
    return source, some, rows


# ---- several lcores ------------------------------------------------------------------------------


def cpus() -> list[int]:
    found = sorted(os.sched_getaffinity(0))[:4]
    if len(found) < 2:
        pytest.skip("NOT TESTED with several lcores: there is one CPU")
    return found


@pytest.mark.parametrize("executor", ["none", "launch", "persistent"])
@pytest.mark.parametrize("name", NFS)
def test_several_lcores_do_what_one_does(name: str, executor: str, device: Device) -> None:
    """Two inputs and the output on lcores of their own, syncers and NFs on all: the packets of each
    flow in order, whichever port they came in at.

        in0 (lcore 0) ─┬─ flows change hands ─┬─ nf0 on lcore 0, 1, ... ─── out0
        in1 (lcore 1) ─┘                      └─ (ipsec: on lcore 1 alone)
    """
    if executor == "persistent":
        needs_persistent(device)
    settings = {"use": "none"} if executor == "none" else {"executor": executor}
    everywhere = cpus()
    serving = [everywhere[1]] if name == "ipsec" else everywhere
    cores = {"io": everywhere, "syncer": everywhere, "nf": {"nf0": serving}}
    for number, other in enumerate([other for other in NFS if other != name], 1):
        cores["nf"][f"nf{number}"] = [everywhere[1]] if other == "ipsec" else everywhere
    source, rows = through(name, cores=cores)
    source["ports"] = {"in1": {"driver": "pcap", "read": "in1.pcap"}} | source["ports"]
    halves: tuple[list[bytes], list[bytes]] = [], []
    for number, flow in enumerate(by_flow(packets()).values()):
        halves[number % 2].extend(flow)
    files = {"sa.key": KEY_FILE, "in1.pcap": capture(halves[1])}
    result = run_chain(source, halves[0], rows + "*,in1,nf0\n", files=files, **settings)
    expected = on_one_cpu(name)
    assert result.dropped == expected.dropped
    assert result.counters == expected.counters
    assert result.type_packets() == expected.type_packets()
    assert by_flow(plain(name, result.packets)) == by_flow(plain(name, expected.packets))
    lcores = result.snapshot.lcores
    busy = int((lcores["rows"] if executor != "none" else lcores["born"] > 0).astype(bool).sum())
    assert busy >= (1 if name == "ipsec" else 2), "only one lcore did all the work"


def plain(name: str, sent: list[bytes]) -> list[bytes]:
    """IPsec's packets depend on the order over all flows; what is in them does not."""
    if name != "ipsec":
        return sent
    opened = [open_esp(packet, KEYS) for packet in sent]
    numbers = [esp.sequence for esp in opened]
    assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)
    return [esp.packet for esp in opened]
