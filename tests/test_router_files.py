# SPDX-License-Identifier: BSD-3-Clause
"""Files with routes: CSV, `ip route`, `show ip cef`; what they say, how mistakes in them are told.

The backbone routers' own tables are read a second time here, word by word, into py-radix.
"""

from __future__ import annotations

import ipaddress
import lzma
import time
from pathlib import Path
from typing import Any

import nf_helpers as nf
import numpy as np
import pytest
import radix

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, NfTable
from hummingbird.nfs.router import RouterParams, build
from hummingbird.nfs.router_plan import Loaded, difference, plan
from hummingbird.nfs.routes_file import (
    Action,
    Attached,
    Group,
    Named,
    RouteFile,
    Target,
    Via,
    parse,
)

HERE = Path("routes.txt")


def via(address: str, dev: str = "") -> Via:
    return Via(ipaddress.ip_address(address), dev)


def said(text: str) -> dict[str, Target]:
    """Prefix -> what it leads to."""
    file = parse(text, HERE)
    found = {}
    for routes in (file.v4, file.v6):
        for hi, lo, length, target in zip(
            routes.hi.tolist(), routes.lo.tolist(), routes.length.tolist(), routes.target.tolist(),
            strict=True,
        ):  # fmt: skip
            address: Any = (
                ipaddress.IPv4Address(hi >> 32)
                if routes.family == 4
                else ipaddress.IPv6Address(hi << 64 | lo)
            )
            found[f"{address}/{length}"] = file.targets[target]
    return found


# ---- formats -------------------------------------------------------------------------------------


def test_csv() -> None:
    assert said(
        "\ufeffprefix,next_hop\r\n".lstrip("\ufeff") + "10.0.0.0/8, core # a comment\n# another\n\n"
        "  10.1.0.0/16 ,core|edge|core\n"
        "2001:db8::/32,fe80::1@eth0\n"
        "0.0.0.0/0,192.0.2.1\n"
        "10.2.0.0/16,drop\n10.3.0.0/16,local\n10.4.0.0/16,attached@lan\n10.5.0.0/16,prohibit\n"
    ) == {
        "10.0.0.0/8": Named("core"),
        "10.1.0.0/16": Group((Named("core"), Named("edge"), Named("core"))),
        "2001:db8::/32": via("fe80::1", "eth0"),
        "0.0.0.0/0": via("192.0.2.1"),
        "10.2.0.0/16": Action("blackhole"),
        "10.3.0.0/16": Action("local"),
        "10.4.0.0/16": Attached("lan"),
        "10.5.0.0/16": Action("prohibit"),
    }


IP_ROUTE = """\
default via 192.0.2.1 dev eth0 proto dhcp src 192.0.2.7 metric 100
default via 192.0.2.2 dev eth1 proto dhcp metric 600
10.0.0.0/24 dev eth1 proto kernel scope link src 10.0.0.7 linkdown
10.1.0.0/16 via 10.0.0.1 dev eth1 onlink
10.2.0.0/16 proto static metric 20
\tnexthop via 10.0.0.1 dev eth1 weight 2
\tnexthop via 10.0.0.2 dev eth1 weight 1
10.3.0.0/16 nhid 12 proto bgp metric 20 nexthop via 10.0.0.1 dev eth1 weight 1 \\ nexthop dev tun0
10.4.0.1 via inet6 fe80::5 dev eth0
blackhole 10.9.0.0/16 proto bgp metric 20
unreachable 10.10.0.0/16
prohibit 10.11.0.0/16
local 10.0.0.7 dev eth1 table local proto kernel scope host src 10.0.0.7
broadcast 10.0.0.255 dev eth1 table local proto kernel scope link src 10.0.0.7
throw 10.12.0.0/16
10.13.0.0/16 via 10.0.0.3 dev eth1 dead linkdown
"""


def test_ip_route() -> None:
    one, two = via("10.0.0.1", "eth1"), via("10.0.0.2", "eth1")
    assert said(IP_ROUTE) == {
        "0.0.0.0/0": via("192.0.2.1", "eth0"),
        "10.0.0.0/24": Attached("eth1"),
        "10.1.0.0/16": one,
        "10.2.0.0/16": Group((one, one, two)),
        "10.3.0.0/16": Group((one, Attached("tun0"))),
        "10.4.0.1/32": via("fe80::5", "eth0"),
        "10.9.0.0/16": Action("blackhole"),
        "10.10.0.0/16": Action("unreachable"),
        "10.11.0.0/16": Action("prohibit"),
        "10.0.0.7/32": Action("local"),
        "10.0.0.255/32": Action("local"),
    }
    assert parse(IP_ROUTE, HERE).notes == ["routes.txt: 2 routes skipped (dead, multicast)"]


def test_ip_6_route() -> None:
    """The same prefix twice is one route with two next hops; default is ::/0 here."""
    text = (
        "::1 dev lo proto kernel metric 256 pref medium\n"
        "2001:db8:1::/64 dev eth0 proto ra metric 100 expires 1200sec pref medium\n"
        "2001:db8:2::/48 via fe80::1 dev eth0 metric 1024 pref medium\n"
        "2001:db8:2::/48 via fe80::2 dev eth1 metric 1024 pref medium\n"
        "2001:db8:2::/48 via fe80::3 dev eth1 metric 2048 pref medium\n"
        "multicast ff00::/8 dev eth0 table local proto kernel metric 256 pref medium\n"
        "default via fe80::1 dev eth0 proto ra metric 100 pref medium\n"
    )
    assert said(text) == {
        "::1/128": Attached("lo"),
        "2001:db8:1::/64": Attached("eth0"),
        "2001:db8:2::/48": Group((via("fe80::1", "eth0"), via("fe80::2", "eth1"))),
        "::/0": via("fe80::1", "eth0"),
    }


def test_show_ip_cef() -> None:
    text = (
        "Prefix               Next Hop             Interface\n"
        "0.0.0.0/0            172.20.4.2           Vlan2\n"
        "0.0.0.0/8            drop\n"
        "0.0.0.0/32           receive              \n"
        "10.0.0.0/8           attached             Null0\n"
        "10.37.4.0/24         attached             Vlan3704\n"
        "10.48.0.0/16         172.20.10.6          Vlan11\n"
        "                     172.20.10.2          Vlan11\n"
        "224.0.0.0/4          multicast\n"
    )
    assert said(text) == {
        "0.0.0.0/0": via("172.20.4.2", "Vlan2"),
        "0.0.0.0/8": Action("blackhole"),
        "0.0.0.0/32": Action("local"),
        "10.0.0.0/8": Action("blackhole"),
        "10.37.4.0/24": Attached("Vlan3704"),
        "10.48.0.0/16": Group((via("172.20.10.6", "Vlan11"), via("172.20.10.2", "Vlan11"))),
        "224.0.0.0/4": Action("blackhole"),
    }


# ---- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "what", "fix"),
    [
        ("", 1, "no header row", "begin with prefix,next_hop"),
        ("# nothing\n10.0.0.0/8\n", 2, "no header row", "begin with"),
        ("prefix,next_hop\n10.0.0.0/8,a,b\n", 2, "no route: 10.0.0.0/8,a,b", "write a prefix"),
        ("prefix,next_hop\n\n10.0.0.0/8,a|\n", 3, "'' is no next hop", "the name of a next hop"),
        ("prefix,next_hop\n10.0.0.0/8,10.0.0\n", 2, "'10.0.0' is no next hop", "an address"),
        ("prefix,next_hop\n2001:db8::/20,a\n", 2, "bits set behind its length", "clear them"),
        ("prefix,next_hop\n::/0,a\n0::/0,a\n", 3, "0::/0 stands here a second time", "remove"),
        ("prefix,next_hop\n10.0.0.0/8,drop|a\n", 2, "one of which is none", "next hops only"),
        ("default via 1.2.3.4\n10.0.0.0/8 by eth0\n", 2, "unknown word 'by'", "take the word out"),
        ("default via 1.2.3.4\n10.0.0.0/8 via\n", 2, "nothing behind via", "complete the line"),
        ("default via 1.2.3.4\n10.0.0.0/8 via eth0\n", 2, "'eth0' is no address", "correct it"),
        ("default via 1.2.3.4\n10.0.0.0/8 proto bgp\n", 2, "neither via nor dev", "write via"),
        ("default via 1.2.3.4\nrubbish\n", 2, "no route: rubbish", "as `ip route` does"),
        (
            "default proto x\n\tnexthop via 1.2.3.4 weight 1\n\tnexthop via x weight 1\n",
            1,
            "'x' is no address",
            "correct it",
        ),
        ("default via 1.2.3.4 weight 99\n", 1, "weight '99'", "from 1 to 32"),
        ("10.0.0.0/8 via 1.2.3.4\n10.0.0.0/8 via 1.2.3.5\n", 2, "a second time", "remove"),
        ("10.0.0.0/8 via 1.2.3.4 metric x\n", 1, "no route", "as `ip route` does"),
        ("Prefix Next Hop Interface\n10.0.0.0/8 Vlan2\n", 2, "'Vlan2' is no address", "correct"),
        ("Prefix Next Hop Interface\n10.0.0.0/8\n", 2, "no route: 10.0.0.0/8", "show ip cef"),
    ],
)
def test_a_mistake_is_told_with_line_and_fix(text: str, line: int, what: str, fix: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text, HERE)
    assert (error.value.path, error.value.line) == (HERE, line)
    assert what in error.value.what
    assert fix in (error.value.fix or "")


def test_a_format_can_be_given() -> None:
    with pytest.raises(UserError, match="begin with Prefix  Next Hop  Interface"):
        parse("10.0.0.0/8 via 1.2.3.4\n", HERE, "cef")
    assert parse("default via 1.2.3.4\n", HERE, "ip-route").v4.length.tolist() == [0]


WORDS = """prefix next_hop , 10.0.0.0/8 default via dev eth0 ::/0 nexthop weight 1 # | @ drop
attached receive fe80::1 2001:db8::/32 metric 5 Prefix Interface"""


def test_random_text_is_no_crash() -> None:
    """Whatever stands in a file: routes or one error in a line of it."""
    rng = np.random.default_rng(77)
    words = [*WORDS.split(), "\n", "\n", "\n\t", "\r\n", "\v", "\f", "\0"]
    heads = ["prefix,next_hop\n", "Prefix Next Hop Interface\n", "default via 1.2.3.4\n", ""]
    fine = 0
    for number in range(4000):
        text = heads[number % 4] + " ".join(rng.choice(words, size=int(rng.integers(0, 12))))
        try:
            parse(text, HERE)
            fine += 1
        except UserError as error:
            assert error.line is not None and 1 <= error.line <= text.count("\n") + 1
    assert 100 < fine < 3900


# ---- whole routers -------------------------------------------------------------------------------

BACKBONE = ("bbra", "bbrb", "goza", "gozb", "roza", "rozb", "yoza", "yozb")


def built(folder: Path, text: str, **fields: Any) -> NfTable:
    (folder / "routes.txt").write_text(text)
    params = RouterParams.model_validate(
        {"routes": "routes.txt", "mac": "02:00:00:00:00:01"} | fields
    )
    return build(params, BuildContext("router0", folder, {}))


@pytest.mark.parametrize("router", BACKBONE)
def test_a_backbone_router_forwards_as_its_own_table_says(tmp_path: Path, router: str) -> None:
    path = nf.real_data(f"routes/stanford_backbone/{router}_rtr_route.txt.xz")
    text = lzma.decompress(path.read_bytes()).decode()
    tree: Any = radix.Radix()
    neighbours: dict[str, str] = {}
    node: Any = None
    for line in text.splitlines()[1:]:
        if line[0] == " ":  # a further next hop of the prefix before
            node.data["to"].add(line.split()[0])
            continue
        prefix, to, *_ = line.split()
        node = tree.add(prefix)
        node.data["to"] = {to if "Null0" not in line else "drop"}
    hops = sorted({to for node in tree for to in node.data["to"] if to[0].isdigit()})
    for number, address in enumerate(hops):
        neighbours[address] = f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"
    table = built(tmp_path, text, neighbours=neighbours)
    rng = np.random.default_rng(12)
    addresses = [int(ipaddress.IPv4Address(node.network)) for node in tree]
    addresses += [
        int(ipaddress.ip_network(node.prefix).broadcast_address) + 1 & 0xFFFFFFFF for node in tree
    ]
    addresses += rng.integers(0, 1 << 32, size=2000).tolist()
    head = nf.ETHERNET + b"\x08\x00"
    packets = [head + ipv4_to(address, number) for number, address in enumerate(addresses)]
    reasons = {"drop": "blackhole", "multicast": "blackhole", "receive": "to_router",
               "attached": "no_neighbour"}  # fmt: skip
    for address, answer in zip(addresses, nf.run(nf.region(2, table), packets), strict=True):
        ip = str(ipaddress.IPv4Address(address))
        to = tree.search_best(ip).data["to"]
        if answer.verdict == nf.PASS:
            known = {neighbours.get(one, "") for one in to}
            known |= {neighbours.get(ip, "")} if "attached" in to else set()
            assert answer.data[:6].hex(":") in known, ip
        else:
            assert {answer.reason} == {reasons[one] for one in to}, ip


def ipv4_to(address: int, number: int) -> bytes:
    header = bytearray(bytes.fromhex("4500001400000000 40fd0000 0a0a0a0a"))
    header += address.to_bytes(4, "big")
    header[4:6] = (number & 0xFFFF).to_bytes(2, "big")
    header[10:12] = nf.ip_sum(header).to_bytes(2, "big")
    return bytes(header)


def test_900_000_lines_are_read_in_seconds() -> None:
    rng = np.random.default_rng(9)
    values = np.unique(rng.integers(1 << 16, 224 << 16, size=1_000_000))[:900_000] << 8
    text = "prefix,next_hop\n" + "".join(
        f"{v >> 24}.{v >> 16 & 255}.{v >> 8 & 255}.0/24,hop{v >> 8 & 63}\n" for v in values.tolist()
    )
    start = time.process_time()
    file: RouteFile = parse(text, HERE)
    assert time.process_time() - start < 20
    assert file.v4.hi.size == 900_000 and len(file.targets) == 64
    assert (file.v4.hi >> np.uint64(32)).tolist() == values.tolist()


# ---- from one file to another --------------------------------------------------------------------


def test_an_edit_is_a_difference(tmp_path: Path) -> None:
    """The table after any edits is the one that a start would build; only what differs changes."""
    rng = np.random.default_rng(31)
    prefixes = [f"10.{i % 200}.{i // 200}.{i % 8 * 32}/{27 + i % 6}" for i in range(2000)]
    prefixes += [f"2001:db8:{i % 50:x}::/{48 if i < 50 else 64 + i}" for i in range(60)]
    hops = {f"h{i}": {"mac": f"02:00:00:00:00:{i:02x}"} for i in range(4)}

    def some() -> str:
        lines = {}
        for prefix in prefixes:
            network = ipaddress.ip_network(prefix, strict=False)
            if rng.random() < 0.5:
                lines[str(network)] = ["h0", "h1", "h2|h3", "10.0.0.1", "drop"][rng.integers(5)]
        return "prefix,next_hop\n" + "".join(f"{p},{h}\n" for p, h in lines.items())

    loaded: Loaded = built(tmp_path, some(), next_hops=hops).extra
    for _ in range(5):
        text = some()
        fresh: Loaded = built(tmp_path, text, next_hops=hops).extra
        params = fresh.hops.params
        wanted = plan(params, tmp_path, loaded.hops)
        changes = [
            difference(old, new)
            for old, new in zip(loaded.plan.families, wanted.families, strict=True)
        ]
        loaded.hops.write(loaded.fib, wanted.numbers, wanted.new)
        loaded.hops.numbers = wanted.numbers
        for one, family in zip(changes, (4, 6), strict=True):
            loaded.fib.change(family, one.hi, one.lo, one.length, one.hop)
        loaded.plan = wanted
        back = {number: target for target, number in loaded.hops.numbers.items()}
        again = {number: target for target, number in fresh.hops.numbers.items()}
        addresses = rng.integers(10 << 24, (10 << 24) + (200 << 16), size=20_000).astype(np.uint32)
        have = [back.get(e - 1) for e in loaded.fib.lookup(addresses).tolist()]
        want = [again.get(e - 1) for e in fresh.fib.lookup(addresses).tolist()]
        assert have == want
        assert loaded.fib.used(4)["routes"] == fresh.fib.used(4)["routes"]
        assert loaded.fib.used(6)["groups"] == fresh.fib.used(6)["groups"]
    same = [difference(family, family) for family in loaded.plan.families]
    assert [one.hop.size for one in same] == [0, 0]
