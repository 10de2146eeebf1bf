# SPDX-License-Identifier: BSD-3-Clause
"""router: the same next hop as py-radix, the same checksum as scapy, and errors that name the line.

routes.csv ── router.build ── table ─┐
                                     ├─ hb_run_program ── next hop, TTL, checksum, MACs
                           packets ──┘
"""

from __future__ import annotations

import lzma
import time
from pathlib import Path

import nf_helpers as nf
import numpy as np
import pytest
import radix
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import checksum

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, NfTable, load
from hummingbird.nfs.router import RouterParams, build
from hummingbird.nfs.router_fib import FORWARD, MAX_HOPS, Fib, Room

HOPS = {
    "core": {"mac": "02:00:00:00:01:01", "src_mac": "02:00:00:00:02:01"},
    "edge": {"mac": "02:00:00:00:01:02", "src_mac": "02:00:00:00:02:02"},
}
DEMO = Path(__file__).parent.parent / "policies" / "demo"


def built(folder: Path, text: str, hops: object = HOPS) -> NfTable:
    """The table of a routes file with this text."""
    (folder / "routes.csv").write_text(text)
    params = RouterParams.model_validate({"routes": "routes.csv", "next_hops": hops})
    return build(params, BuildContext("router0", folder, {}))


def packet(dst: str, ttl: int = 64) -> bytes:
    ip = IP(src="10.1.0.10", dst=dst, ttl=ttl) / UDP() / b"payload"
    return nf.ETHERNET + b"\x08\x00" + bytes(ip)


# ---- lookups -------------------------------------------------------------------------------------


def generated(count: int) -> list[tuple[str, int]]:
    """Prefixes with the lengths of a full table, nested, and their next hops; always the same."""
    rng = np.random.default_rng(1519)
    bits = rng.choice(
        [8, 12, 16, 19, 20, 21, 22, 23, 24, 25, 28, 30, 32],
        size=2 * count,
        p=[0.001, 0.002, 0.03, 0.05, 0.07, 0.08, 0.12, 0.1, 0.537, 0.002, 0.003, 0.002, 0.003],
    )
    address = rng.integers(1 << 24, 224 << 24, size=2 * count)
    address[1::2] = address[::2] + rng.integers(0, 1 << 14, size=count)  # so that many nest
    prefix = address >> (32 - bits) << (32 - bits)
    keys = np.unique(prefix << 6 | bits)[: count * 2]
    keys = rng.permutation(keys)[:count]
    hops = rng.integers(0, 300, size=keys.size)
    return [
        (f"{k >> 30}.{k >> 22 & 255}.{k >> 14 & 255}.{k >> 6 & 255}/{k & 63}", int(hop))
        for k, hop in zip(keys.tolist(), hops, strict=True)
    ]


def looked_up(table: NfTable, addresses: np.ndarray) -> np.ndarray:
    """Results of the router for packets to these addresses: next hop + 1, or 0 for a drop."""
    frames = np.zeros((addresses.size, 64), dtype=np.uint8)
    header = np.frombuffer(bytes(IP(src="10.0.0.1", dst="0.0.0.0")), dtype=np.uint8)
    frames[:, :20] = header
    frames[:, 16:20] = addresses.astype(">u4").view(np.uint8).reshape(-1, 4)
    words = frames[:, :20].reshape(-1, 10, 2).astype(np.uint32)
    words[:, 5] = 0
    total = (words[:, :, 0] << 8 | words[:, :, 1]).sum(axis=1)
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    frames[:, 10], frames[:, 11] = total >> 8, total & 255

    work = np.zeros(addresses.size, dtype=nf.WORK)
    work["frame"] = np.arange(addresses.size)
    work["length"], work["l4"] = 20, 20
    region = nf.region(2, table.data)
    done = nf.run_raw(region, frames, work, np.zeros(addresses.size, np.uint64), 0, 0)
    passed = done["verdict"] == nf.PASS
    dropped = (done["verdict"] == nf.DROP) & (done["value"] == nf.REASONS.index("no_route"))
    assert (passed | dropped).all()
    assert ((done["result"] & 0xFFFF != 0) == passed).all()
    return done["result"] & 0xFFFF


def compare(folder: Path, routes: list[tuple[str, int]]) -> None:
    """The router and py-radix agree on 100,000 addresses, half of them near prefixes' ends."""
    hops = {
        f"hop{i}": {
            "mac": f"02:00:00:00:{i >> 8:02x}:{i & 255:02x}",
            "src_mac": "02:00:00:00:00:01",
        }
        for i in range(300)
    }
    text = "prefix,next_hop\n" + "".join(f"{prefix},hop{hop}\n" for prefix, hop in routes)
    start = time.process_time()
    table = built(folder, text, hops)
    assert time.process_time() - start < 20, "loading takes a few seconds at most"

    tree = radix.Radix()
    for prefix, hop in routes:
        tree.add(prefix).data["result"] = hop + 1
    rng = np.random.default_rng(1812)
    addresses = rng.integers(0, 1 << 32, size=100_000)
    for i, j in enumerate(rng.integers(0, len(routes), size=50_000)):
        address, bits = routes[j][0].split("/")
        first = int.from_bytes(bytes(map(int, address.split("."))), "big")
        last = first + (1 << 32 - int(bits)) - 1
        addresses[i] = [first, last, max(first - 1, 0), min(last + 1, 0xFFFFFFFF)][i % 4]
    results = looked_up(table, addresses)
    dotted = [f"{a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.{a & 255}" for a in addresses.tolist()]
    best = [tree.search_best(address) for address in dotted]
    wanted = np.array([node.data["result"] if node else 0 for node in best])
    wrong = np.flatnonzero(results != wanted)
    assert wrong.size == 0, [(dotted[i], results[i], wanted[i]) for i in wrong[:5]]
    assert (wanted != 0).any()


def test_500_000_generated_prefixes_route_as_py_radix_does(tmp_path: Path) -> None:
    routes = generated(500_000)
    assert len(routes) == 500_000
    compare(tmp_path, [*routes, ("0.0.0.0/0", 7)])
    compare(tmp_path, routes[:3_000])  # without a default route


def test_a_real_table_routes_as_py_radix_does(tmp_path: Path) -> None:
    path = nf.real_data("routes/routeviews_20140513_prefix_asn.csv.xz")
    lines = lzma.decompress(path.read_bytes()).decode().split()
    by_prefix = dict(line.split(",") for line in lines)
    compare(tmp_path, [(prefix, int(asn) % 300) for prefix, asn in by_prefix.items()])


@pytest.mark.parametrize(
    "routes, dst, hop",
    [
        ("0.0.0.0/0,edge", "203.0.113.1", "edge"),
        ("0.0.0.0/0,edge\n203.0.113.0/24,core", "203.0.113.1", "core"),
        ("0.0.0.0/0,edge\n203.0.113.1/32,core", "203.0.113.1", "core"),
        ("0.0.0.0/0,edge\n203.0.113.1/32,core", "203.0.113.2", "edge"),
        ("203.0.113.1/32,core", "203.0.113.2", None),
        ("203.0.113.0/25,core\n203.0.113.64/26,edge", "203.0.113.127", "edge"),
        ("203.0.113.64/26,edge\n203.0.113.0/25,core", "203.0.113.127", "edge"),
        ("255.255.255.255/32,core\n0.0.0.0/32,edge", "255.255.255.255", "core"),
        ("128.0.0.0/1,core\n0.0.0.0/1,edge", "127.255.255.255", "edge"),
        ("128.0.0.0/1,core\n0.0.0.0/1,edge", "128.0.0.0", "core"),
    ],
)
def test_the_longest_prefix_wins(tmp_path: Path, routes: str, dst: str, hop: str | None) -> None:
    table = built(tmp_path, f"prefix,next_hop\n{routes}\n")
    [answer] = nf.run(nf.region(2, table.data), [packet(dst)])
    if hop is None:
        assert answer.reason == "no_route"
    else:
        assert answer.verdict == nf.PASS
        assert answer.result & 0xFFFF == 1 + list(HOPS).index(hop)
        assert answer.data[:12].hex(":") == HOPS[hop]["mac"] + ":" + HOPS[hop]["src_mac"]


# ---- the packet ----------------------------------------------------------------------------------


def default_region(folder: Path) -> nf.Array:
    return nf.region(2, built(folder, "prefix,next_hop\n0.0.0.0/0,edge\n").data)


def test_ttl_and_checksum_are_what_scapy_computes(tmp_path: Path) -> None:
    """RFC 1624's update equals the recomputed checksum, for random headers with options."""
    rng = np.random.default_rng(1624)
    packets = [
        nf.ETHERNET + b"\x08\x00" + nf.ipv4(b"x" * 8, 6, rng, int(rng.integers(0, 11)))
        for _ in range(3_000)
    ]
    for before, answer in zip(packets, nf.run(default_region(tmp_path), packets), strict=True):
        if before[22] <= 1:
            assert answer.reason == "ttl_expired"
            continue
        assert answer.verdict == nf.PASS
        wanted = IP(before[14:])
        wanted.ttl -= 1
        del wanted.chksum
        assert answer.data[14:] == bytes(wanted)


def test_every_checksum_is_updated_rightly(tmp_path: Path) -> None:
    """All 65,535 values, the carries and both zeros of one's complement among them."""
    packets = []
    for identification in range(0x10000):
        header = bytearray(bytes.fromhex("4500001400000000 02060000 0a000001 cb007101"))
        header[4:6] = identification.to_bytes(2, "big")
        header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
        packets.append(nf.ETHERNET + b"\x08\x00" + bytes(header))
    assert len({packet[24:26] for packet in packets}) == 0xFFFF
    for before, answer in zip(packets, nf.run(default_region(tmp_path), packets), strict=True):
        wanted = bytearray(before[14:])
        wanted[8:12] = b"\x01\x06\x00\x00"
        wanted[10:12] = checksum(bytes(wanted)).to_bytes(2, "big")
        assert answer.data[14:] == bytes(wanted)


def test_behind_vlan_tags_and_without_ethernet(tmp_path: Path) -> None:
    """Tags stay; a packet without an Ethernet header has no addresses to rewrite."""
    region = default_region(tmp_path)
    ip = IP(dst="203.0.113.1") / UDP()
    tagged = bytes(Ether() / Dot1Q(vlan=5) / Dot1Q(vlan=6) / ip)
    [answer] = nf.run(region, [tagged])
    assert answer.data[:12].hex(":") == HOPS["edge"]["mac"] + ":" + HOPS["edge"]["src_mac"]
    assert answer.data[12:22] == tagged[12:22]
    assert IP(answer.data[22:]).ttl == 63

    frames, work = nf.frames_of([bytes(ip)])
    work["l3"], work["l4"] = 0, 20
    done = nf.run_raw(region, frames, work, np.zeros(1, np.uint64))
    [answer] = nf.answers(frames, done)
    ip.ttl -= 1
    assert (answer.verdict, answer.data) == (nf.PASS, bytes(ip))


@pytest.mark.parametrize(
    "reason, what, data",
    [
        ("not_ip", "ARP", nf.ETHERNET + b"\x08\x06" + bytes(28)),
        ("link_local", "IPv6 from ::", nf.ETHERNET + b"\x86\xdd\x60" + bytes(39)),
        ("malformed", "16-byte header", packet("8.8.8.8").replace(b"\x45\x00", b"\x44\x00")),
        ("malformed", "60-byte header", packet("8.8.8.8").replace(b"\x45\x00", b"\x4f\x00")),
        ("malformed", "one byte short", packet("8.8.8.8")[:-1]),
        ("malformed", "cut in the header", packet("8.8.8.8")[:33]),
        ("malformed", "total length 19", nf.ETHERNET + b"\x08\x00" + bytes(IP(len=19))),
        ("bad_checksum", "", nf.ETHERNET + b"\x08\x00" + bytes(IP(chksum=0x1234))),
        ("ttl_expired", "TTL 1", packet("8.8.8.8", ttl=1)),
        ("ttl_expired", "TTL 0", packet("8.8.8.8", ttl=0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_drops(tmp_path: Path, reason: str, what: str, data: bytes) -> None:
    [answer] = nf.run(default_region(tmp_path), [data])
    assert answer.reason == reason
    assert answer.data == data


def test_no_packet_is_too_strange(tmp_path: Path) -> None:
    """Damaged packets get a verdict; nothing but a forwarded packet's header changes."""
    rng = np.random.default_rng(791)
    packets = [nf.some_packet(rng) for _ in range(3_000)]
    answers = nf.run(default_region(tmp_path), packets, head=0, tail=0)
    for before, answer in zip(packets, answers, strict=True):
        assert answer.verdict in (nf.PASS, nf.DROP)
        if answer.verdict == nf.DROP:
            assert answer.data == before
        else:
            assert len(answer.data) == len(before)
    assert {nf.PASS, nf.DROP} == {answer.verdict for answer in answers}


# ---- the routes file -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, says",
    [
        ("10.0.0.0/8,nowhere", "unknown next hop nowhere"),
        ("10.0.0.1/8,core", "10.0.0.1/8 has bits set behind its length"),
        ("10.0.0.256/32,core", "a number is above 255"),
        ("10.0.0.0/33,core", "longer than 32 bits"),
        ("10.0.0.0,core", "no route: 10.0.0.0"),
        ("2001:db8::1/32,core", "2001:db8::1/32 has bits set behind its length"),
        ("2001:db8::/129,core", "longer than 128 bits"),
        ("2001:db8:::/32,core", "'2001:db8:::' is no IPv6 address"),
        ("10.0.0.0/8,core,5", "no route"),
        ("10.0.0.0/8,10.0.0.1", "no source MAC address for neighbours.10.0.0.1"),
        ("10.0.0.0/8,core|drop", "several next hops, one of which is none"),
        ("10.0.0.0/8," + "|".join(["core"] * 33), "33 next hops of one route"),
        ("198.51.100.0/24,edge", "198.51.100.0/24 stands here a second time"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    text = f"# comment\nprefix,next_hop\n\n198.51.100.0/24,core # comment\n{line}\n"
    with pytest.raises(UserError, match=r"routes\.csv:5: ") as error:
        built(tmp_path, text)
    assert says in str(error.value)


def test_files_that_are_no_routes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"routes.csv:1: no header row\n  fix: begin with"):
        built(tmp_path, "10.0.0.0/8,core\n")
    with pytest.raises(UserError, match="no header row"):
        built(tmp_path, "")
    built(tmp_path, "prefix,next_hop\n")  # no route at all is a table, too
    (tmp_path / "routes.csv").unlink()
    params = RouterParams.model_validate({"routes": "routes.csv", "next_hops": HOPS})
    with pytest.raises(UserError, match="no such file"):
        build(params, BuildContext("router0", tmp_path, {}))


def test_limits_are_refused_by_name(tmp_path: Path) -> None:
    hops = {f"hop{i}": HOPS["core"] for i in range(MAX_HOPS + 1)}
    with pytest.raises(UserError, match=r"nfs\.router0\.next_hops: 32768 next hops"):
        built(tmp_path, "prefix,next_hop\n", hops)
    rows = "".join(f"10.{i >> 8 & 255}.{i & 255}.0/25,core\n" for i in range(1 << 15))
    built(tmp_path, f"prefix,next_hop\n{rows}")
    with pytest.raises(UserError, match="32769 different /24"):
        built(tmp_path, f"prefix,next_hop\n{rows}11.0.0.0/30,core\n")


def test_the_last_next_hop_is_reached() -> None:
    """Entries are 15 bits: next hop 32,766 is the largest."""
    fib = Fib(Room(0, 0))
    macs = bytes(range(12))
    fib.set_hop(MAX_HOPS - 1, FORWARD, macs)
    zero = np.zeros(1, dtype=np.uint64)
    fib.change(4, zero, zero, np.zeros(1, np.int64), np.array([MAX_HOPS - 1]))
    [answer] = nf.run(nf.region(2, fib.table), [packet("203.0.113.1")])
    assert answer.result & 0xFFFF == MAX_HOPS
    assert answer.data[:12] == macs


def test_demo_routes() -> None:
    names = ["isp", "core", "branch", "servers", "gateway"]
    hops = {
        name: {"mac": f"02:00:00:00:01:0{i}", "src_mac": "02:00:00:00:02:00"}
        for i, name in enumerate(names)
    }
    params = RouterParams.model_validate({"routes": "routes.csv", "next_hops": hops})
    table = load("router").build(params, BuildContext("router0", DEMO, {}))
    wanted = {
        "10.1.0.10": "branch",
        "203.0.113.20": "servers",
        "192.0.2.1": "gateway",
        "198.51.100.1": "isp",
        "8.8.8.8": "isp",
    }
    answers = nf.run(nf.region(2, table.data), [packet(dst) for dst in wanted])
    assert [names[(answer.result & 0xFFFF) - 1] for answer in answers] == list(wanted.values())
