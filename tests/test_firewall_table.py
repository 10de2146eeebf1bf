# SPDX-License-Identifier: BSD-3-Clause
"""The firewall's table and search against rules read one after the other, in plain Python."""

from __future__ import annotations

import ipaddress
import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from firewall_helpers import KIND, NUMBERS, Plain, Tracked, first_rule, frame, linear, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from nf_helpers import real_data, region

from hummingbird.dataplane import bare
from hummingbird.nfs import KERNELS, NfTable, firewall, firewall_table, load
from hummingbird.opencl.memory import host_region

COLUMNS = ("src", "dst", "protocol", "sport", "dport", "action")


def csv(rows: list[dict[str, str]]) -> str:
    lines = [",".join(row[name] for name in COLUMNS) for row in rows]
    return "\n".join([",".join(COLUMNS), *lines]) + "\n"


def check(table: NfTable, rows: list[dict[str, str]], packets: list[Plain]) -> list[int | None]:
    """Which rule decides on each packet: by the packet function, and by each engine on the CPU."""
    from nf_helpers import frames_of, run_raw

    frames, work = frames_of([frame(packet.bytes()) for packet in packets])
    done = run_raw(region(KIND, table), frames, work, np.zeros(len(packets), np.uint64))
    found = first_rule(table, done)
    assert found == [linear(rows, packet) for packet in packets]
    for engine in bare.engines(KIND):
        assert [int(n) for n in _engine(table, engine, packets)] == [int(r) for r in done["result"]]
    return found


def _engine(table: NfTable, engine: str, packets: list[Plain]) -> Any:
    """Results of an engine; packets of one length at a time, as it takes them."""
    memory = region(KIND, table)
    tables = host_region(memory.size)
    tables.array[: memory.size] = memory
    data = [frame(packet.bytes()) for packet in packets]
    found = np.zeros(len(data), np.uint64)
    for size in {len(one) for one in data}:
        chosen = [i for i, one in enumerate(data) if len(one) == size]
        array = np.array([list(data[i]) for i in chosen], np.uint8)
        side = bare.engine(load("firewall"), engine, tables)
        found[chosen] = bare.run(side, array, seconds=0).result
    return found


# ---- random rules ------------------------------------------------------------------------------

ADDRESSES4 = ["10.0.0.1", "10.0.0.200", "10.1.2.3", "192.0.2.1", "192.0.2.130", "255.255.255.255"]
ADDRESSES6 = ["2001:db8::1", "2001:db8:0:1::1", "2001:db8::1:0:0:1", "::1", "ff02::1"]
PORTS = [0, 22, 53, 79, 80, 81, 443, 1023, 1024, 65535]


@st.composite
def prefixes(draw: st.DrawFn, family: int) -> str:
    address = draw(st.sampled_from(ADDRESSES4 if family == 4 else ADDRESSES6))
    bits = draw(st.integers(0, 32 if family == 4 else 128))
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


@st.composite
def port_ranges(draw: st.DrawFn) -> str:
    first, last = sorted((draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))))
    return draw(st.sampled_from([str(first), f"{first}-{last}"]))


@st.composite
def rules(draw: st.DrawFn) -> dict[str, str]:
    family = draw(st.sampled_from([4, 4, 6]))

    def some(one: st.SearchStrategy[str]) -> str:
        return draw(
            st.one_of(st.just("any"), one, st.lists(one, min_size=2, max_size=3).map("|".join))
        )

    protocol = draw(st.sampled_from(["any", "tcp", "udp", "tcp|udp", "icmp", "icmpv6", "50"]))
    ported = protocol in ("any", "tcp", "udp", "tcp|udp")
    return {
        "src": some(prefixes(family)),
        "dst": some(prefixes(family)),
        "protocol": protocol,
        "sport": some(port_ranges()) if ported else "",
        "dport": some(port_ranges()) if ported else "",
        "action": draw(st.sampled_from(["accept", "deny"])),
    }


@st.composite
def plain_packets(draw: st.DrawFn) -> Plain:
    addresses = st.sampled_from(draw(st.sampled_from([ADDRESSES4, ADDRESSES6])))
    protocol = draw(st.sampled_from([*NUMBERS.values(), 50]))
    ports: list[int | None] = [None, None]
    if protocol in (6, 17, 132):
        ports = [draw(st.sampled_from(PORTS)) for _ in ports]
    return Plain(draw(addresses), draw(addresses), protocol, *ports)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(rules(), min_size=1, max_size=12), st.lists(plain_packets(), min_size=1, max_size=40)
)
def test_random_rules(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], packets: list[Plain]
) -> None:
    table = table_of(tmp_path_factory.mktemp("fw"), csv(rows), tracking=False)
    check(table, rows, packets)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 256, 257, 1000, 1100, 3000, 17000])
def test_many_rules(count: int, tmp_path: Path) -> None:
    """Around every border of blocks and summaries; the last rule is found, too."""
    rng = np.random.default_rng(count)
    rows = [
        {
            "src": f"10.{n >> 8 & 255}.{n & 255}.0/{rng.integers(24, 33)}", "dst": "any",
            "protocol": "tcp", "sport": "", "dport": str(n % 1000), "action": "deny",
        }
        for n in range(count)
    ]  # fmt: skip
    chosen = {0, count - 1, *(int(n) for n in rng.integers(0, count, 20))}
    packets = [Plain(f"10.{n >> 8 & 255}.{n & 255}.0", "1.2.3.4", 6, 1, n % 1000) for n in chosen]
    packets += [Plain("10.0.0.0", "1.2.3.4", 6, 1, 9999), Plain("11.0.0.0", "1.2.3.4", 6, 1, 0)]
    found = check(table_of(tmp_path, csv(rows), tracking=False), rows, packets)
    assert found.count(None) >= 2 and count - 1 in found


@pytest.mark.parametrize("name", ["acl1_1k", "fw1_1k", "ipc1_1k"])
def test_classbench_sets(name: str, tmp_path: Path) -> None:
    """Real sets of filters; the packets are corners of them."""
    text = lzma.decompress(real_data(f"acl/classbench/{name}.xz").read_bytes()).decode()
    pattern = r"@(\S+)\s+(\S+)\s+(\d+) : (\d+)\s+(\d+) : (\d+)\s+0x(\w+)/0x(\w+)\s+0x(\w+)/0x(\w+)"
    rng, rows, packets = np.random.default_rng(1), [], []
    for src, dst, *ranges, protocol, mask, _, flags in re.findall(pattern, text):
        low, high, dlow, dhigh = map(int, ranges)
        nets = [ipaddress.IPv4Network(net, strict=False) for net in (src, dst)]
        number = int(protocol, 16) if mask.upper() == "FF" else None
        rows.append({
            "src": str(nets[0]), "dst": str(nets[1]),
            "protocol": "any" if number is None else str(number),
            "sport": "any" if (low, high) == (0, 65535) else f"{low}-{high}",
            "dport": "any" if (dlow, dhigh) == (0, 65535) else f"{dlow}-{dhigh}",
            "action": "accept", "flags": flags,
        })  # fmt: skip
        corner = rng.integers(0, 2, 4)
        ports = ((low, high)[corner[0]], (dlow, dhigh)[corner[1]]) if number in (6, 17) else ()
        packets.append(Plain(
            str(nets[0][-1 if corner[2] else 0]), str(nets[1][-1 if corner[3] else 0]),
            50 if number is None else number, *ports,
        ))  # fmt: skip
    # The fields that no row here has are those of TCP flags and ICMP types: without them.
    plain = "\n".join(re.sub(r"\t0x\w+/0x\w+\s*$", "", line) for line in text.split("\n"))
    found = check(table_of(tmp_path, plain, tracking=False), rows, packets)
    assert None not in found and len(set(found)) > len(rows) / 3


# ---- what only the packet function sees --------------------------------------------------------


def test_packets_that_are_easy_to_get_wrong(tmp_path: Path) -> None:
    """IPv4 options, IPv6 extension headers, later fragments, and packets that are cut."""
    text = "protocol,dport,action\ntcp,80,deny\nicmp|icmpv6,,deny\nudp,,deny\n"
    tracked = Tracked(table_of(tmp_path, text, tracking=False, default="accept"))
    tcp = Plain("10.0.0.1", "10.0.0.2", 6, 1, 80).bytes()
    options = bytearray(tcp[:20] + bytes(8) + tcp[20:])
    options[0], options[2:4] = 0x47, len(options).to_bytes(2, "big")
    later = bytearray(tcp)
    later[6:8] = (0x2001).to_bytes(2, "big")
    cut = bytearray(tcp[:22])
    cut[2:4] = (22).to_bytes(2, "big")
    found = tracked.run([tcp, bytes(options), bytes(later), bytes(cut)])
    assert found == ["denied", "denied", "pass", "pass"]


@pytest.mark.parametrize("chain", [b"\0", b"\0\x3c", b"\x2b\0\x3c"])
def test_ipv6_extension_headers(chain: bytes, tmp_path: Path) -> None:
    from nf_helpers import frames_of, run_raw

    text = "protocol,dport,action\ntcp,80,deny\n"
    table = table_of(tmp_path, text, tracking=False, default="accept")
    whole = Plain("2001:db8::1", "2001:db8::2", 6, 1, 80).bytes()
    kinds = [*chain, 6]
    headers = b"".join(bytes([following, 0]) + bytes(6) for following in kinds[1:])
    packet = whole[:4] + (len(headers) + 20).to_bytes(2, "big") + bytes([kinds[0]]) + whole[7:40]
    frames, work = frames_of([frame(packet + headers + whole[40:])])
    done = run_raw(region(KIND, table), frames, work, np.zeros(1, np.uint64))
    assert first_rule(table, done) == [0]


# ---- layout ------------------------------------------------------------------------------------


def _defined(name: str) -> dict[str, int]:
    text = (KERNELS / "nf" / name).read_text()
    found = re.findall(r"#define HB_FIREWALL_(\w+) \(?(0x[0-9a-f]+|\d+)u", text)
    return {word: int(value, 0) for word, value in found}


def test_constants_are_those_of_the_packet_function() -> None:
    names = "MAGIC TRACKING MIDSTREAM AT_SPORT AT_DPORT AT_PROTOCOL AT_FLAGS NO_PORT NO_FLAGS"
    names += " SET FIELD PARTS COUNT_DEFAULT"
    defined = _defined("firewall_search.h")
    for name in names.split():
        assert getattr(firewall_table, name) == defined[name], name


def test_the_state_is_that_of_the_packet_function() -> None:
    words = _defined("firewall_state.h")
    offsets = {name: firewall.FLOW.fields[name][1] // 4 for name in firewall.FLOW.names}  # type: ignore[index]
    for name, word in (("status", "STATUS"), ("verdict", "VERDICT"), ("rule", "RULE")):
        assert offsets[name] == words[word]
    assert offsets["ignored"] == words["IGNORED"] and offsets["end"] == words["ENDS"]
    assert firewall.END.itemsize == 4 * words["END"]
    assert firewall.FLOW.itemsize == words["STATE_BYTES"]
    numbers = {name: words[f"IN_{name.upper()}"] for name in firewall.STATES[1:]}
    assert list(numbers.values()) == list(range(1, len(firewall.STATES)))


def test_counters_behind_the_rules() -> None:
    words = _defined("firewall_search.h")
    assert [words[f"COUNT_{name.upper()}"] for name in firewall.COUNTERS] == [0, 1, 2]
