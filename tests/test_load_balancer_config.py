# SPDX-License-Identifier: BSD-3-Clause
"""What a topology and a backends file may say of a load balancer; what is said of mistakes.

a mistake ── topology.load, build_tables ── one UserError: file, line, field, fix
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hummingbird import topology
from hummingbird.errors import UserError
from hummingbird.nfs.load_balancer_file import COLUMNS, HEADER, Row, parse
from hummingbird.nfs.load_balancer_plan import Plan

HERE = Path("backends.csv")
BASE = """\
policy: routes.csv
ports:
  in0: {driver: generator}
  out0: {driver: sink}
nfs:
  lb0:
    type: load_balancer
    backends: backends.csv
    tunnel: {source: 192.0.2.1}
    services:
      web: {address: 203.0.113.10, protocol: tcp, port: 443}
      dns:
        address: 203.0.113.10
        protocol: udp
        port: 53
        backends:
          - {address: 10.0.0.53}
          - {address: 10.0.0.54, weight: 2}
      many: {address: 203.0.113.11, protocol: tcp, port: 8000-8099}
      six: {address: "2001:db8::10", protocol: tcp, port: any}
      tube: {address: 203.0.113.12, protocol: udp, port: any, mode: ipip}
"""
FILE = """\
service,address,port,weight,state,mac
web,10.0.1.1,8443,,,02:00:00:00:01:01   # a comment

web,10.0.1.2,,3,,
web,10.0.1.3,8443,3,drain,
many,10.0.1.1,,,,
six,2001:db8:1::1,,0,up,
tube,10.0.2.1,,,,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "routes.csv").write_text("packet_type,current_nf,next_nf\n*,in0,lb0\n*,lb0,out0\n")
    (tmp_path / "backends.csv").write_text(FILE)
    return tmp_path


def built(folder: Path, text: str = BASE) -> Plan:
    (folder / "topology.yaml").write_text(text)
    plan = topology.load(folder / "topology.yaml").build_tables()["lb0"].extra
    assert isinstance(plan, Plan)
    return plan


def refused(folder: Path, text: str = BASE) -> UserError:
    with pytest.raises(UserError) as error:
        built(folder, text)
    assert error.value.fix and error.value.path, error.value
    return error.value


def test_what_is_right_is_taken(folder: Path) -> None:
    plan = built(folder)
    found = {
        service.name: {str(one): (one.weight, one.mac) for one in service.backends}
        for service in plan.services
    }
    assert found == {
        "web": {
            "10.0.1.1:8443": (1, "02:00:00:00:01:01"),
            "10.0.1.2:443": (3, None),
            "10.0.1.3:8443": (0, None),
        },
        "dns": {"10.0.0.53:53": (1, None), "10.0.0.54:53": (2, None)},
        "many": {"10.0.1.1": (1, None)},
        "six": {"2001:db8:1::1": (0, None)},
        "tube": {"10.0.2.1": (1, None)},
    }


def test_notes_tell_what_is_odd(folder: Path) -> None:
    (folder / "topology.yaml").write_text(
        BASE.replace("    services:", "    table_size: 251\n    services:")
    )
    table = topology.load(folder / "topology.yaml").build_tables()["lb0"]
    assert "5 services, 8 backends" in table.notes
    assert "six has no backend that takes flows: its packets are dropped" in table.notes
    rows = "".join(f"web,10.0.3.{i},,,,\n" for i in range(1, 9))
    (folder / "backends.csv").write_text(FILE + rows)
    table = topology.load(folder / "topology.yaml").build_tables()["lb0"]
    assert any("shares differ by more than 1 %" in note for note in table.notes)


def test_the_order_of_the_file_does_not_count(folder: Path) -> None:
    rows = "".join(f"web,10.0.3.{i},,{i % 3},,\n" for i in range(1, 9))
    tables = []
    for lines in (rows.splitlines(), reversed(rows.splitlines())):
        (folder / "backends.csv").write_text(HEADER + "\n" + "\n".join(lines) + "\n")
        tables.append(built(folder).services[0].table)
    assert (tables[0] == tables[1]).all()


# ---- mistakes ------------------------------------------------------------------------------------

CARELESS: list[tuple[str, str, str]] = [
    ("port: 443", "port: 0", "'0' is no port|0 is no port"),
    ("port: 443", "port: 443-80", "is no port"),
    ("port: 443", "port: http", "is no port"),
    ("203.0.113.10, protocol: tcp", "203.0.113.300, protocol: tcp", "is no address"),
    ("203.0.113.10, protocol: tcp", "224.0.0.1, protocol: tcp", "many hosts"),
    ("protocol: tcp, port: 443", "protocol: sctp, port: 443", "'sctp' is not offered here"),
    ("protocol: tcp, port: 443", "port: 443", "protocol is missing"),
    ("port: 443}", "port: 443, mode: snat}", "'snat' is not offered here"),
    ("port: 443}", "port: 443, modus: dnat}", "unknown field 'modus'"),
    ("weight: 2", "weight: -1", "cannot stand here"),
    ("weight: 2", "weight: 20000", "cannot stand here"),
    ("{address: 10.0.0.53}", "{address: 10.0.0.53, state: down}", "'down' is not offered here"),
    ("{address: 10.0.0.53}", "{address: 10.0.0.53, mac: 02-00-00-00-00-01}", "is no MAC address"),
    ("{address: 10.0.0.53}", "{address: 10.0.0.54}", "10.0.0.54:53 of dns stands on"),
    ("{address: 10.0.0.53}", "{address: 203.0.113.12}", "virtual address of tube"),
    ("{address: 10.0.0.53}", '{address: "2001:db8::1"}', "2001:db8::1 is IPv6"),
    ("    backends: backends.csv\n", "", "it has no backends"),
    ("    backends: backends.csv\n", "    backends: backend.csv\n", "no such file"),
    ("    services:", "    table_size: 65536\n    services:", "65536 is no prime number"),
    ("    services:", "    table_size: 11\n    services:", "cannot stand here"),
    ("    services:", "    mac: ff:ff:ff:ff:ff:ff\n    services:", "MAC address of a group"),
    ("    tunnel: {source: 192.0.2.1}\n", "", "needs a source address"),
    ("203.0.113.11, protocol: tcp, port: 8000-8099", "203.0.113.10, protocol: tcp, port: any",
     "web has port 443 of 203.0.113.10 already"),
    ("      web:", "      Web:", "is no name"),
]  # fmt: skip


@pytest.mark.parametrize("was, now, says", CARELESS)
def test_careless_topologies(folder: Path, was: str, now: str, says: str) -> None:
    assert BASE.count(was) == 1, was
    error = refused(folder, BASE.replace(was, now))
    assert any(part in error.what for part in says.split("|")), error
    assert error.line


ROWS: list[tuple[str, str, str]] = [
    ("wbe,10.0.1.9,,,,", "there is no service 'wbe'", "did you mean 'web'?"),
    (",10.0.1.9,,,,", "no service", "name the service"),
    ("web,10.0.1,,,,", "'10.0.1' is no address", "write the address of one host"),
    ("web,10.0.1.300,,,,", "is no address", "write the address of one host"),
    ("web,0.0.0.0,,,,", "no host's address", "write the address of one host"),
    ("web,ff02::1,,,,", "many hosts", "write the address of one host"),
    ("web,::ffff:10.0.0.1,,,,", "in disguise", "write the address of one host"),
    ("web,fe80::1%eth0,,,,", "has a scope", "write the address of one host"),
    ("web,2001:db8::9,,,,", "2001:db8::9 is IPv6", "same family, or mode: ipip"),
    ("web,10.0.1.9,0,,,", "'0' is no port", "from 1 to 65535"),
    ("web,10.0.1.9,65536,,,", "'65536' is no port", "from 1 to 65535"),
    ("web,10.0.1.9,http,,,", "'http' is no port", "from 1 to 65535"),
    ("web,10.0.1.9,\uff18\uff10,,,", "is no port", "from 1 to 65535"),
    ("web,10.0.1.9,,-1,,", "'-1' is no weight", "from 0 to 10000"),
    ("web,10.0.1.9,,1.5,,", "'1.5' is no weight", "from 0 to 10000"),
    ("web,10.0.1.9,,10001,,", "'10001' is no weight", "from 0 to 10000"),
    ("web,10.0.1.9,,,drained,", "there is no state 'drained'", "did you mean 'drain'?"),
    ("web,10.0.1.9,,,,02:00:00:00:01", "is no MAC address", "write six bytes"),
    ("web,10.0.1.9,,,,01:00:5e:00:00:01", "of a group", "one station"),
    ("web,10.0.1.9", "2 columns instead of 6", f"write: {HEADER}"),
    ("web,10.0.1.9,,,,,", "7 columns instead of 6", f"write: {HEADER}"),
    ("web,10.0.1.1,8443,,,", "10.0.1.1:8443 of web stands on line 2 already", "remove one"),
    ("many,10.0.9.9,80,,,", "many has several ports", "leave port 80 out"),
    ("tube,10.0.9.9,80,,,", "a tunnel does not change ports", "leave port 80 out"),
    ("tube,2001:db8::1,,,,", "a tunnel to 2001:db8::1 needs a source", "source6: ..."),
    ("dns,10.0.9.9,,,,", "dns has its backends in the topology", "remove them there"),
    ("web,203.0.113.10,,,,", "the virtual address of web", "the backend's own address"),
    ("web,10.0.1.1,8050,,,", "(line 6) already: web could not have its own",
     "another port or address"),
]  # fmt: skip


@pytest.mark.parametrize("row, says, fix", ROWS)
def test_careless_rows(folder: Path, row: str, says: str, fix: str) -> None:
    (folder / "backends.csv").write_text(FILE + row + "\n")
    error = refused(folder)
    assert (error.path, error.line) == (folder / "backends.csv", 9), error
    assert says in error.what and fix in str(error.fix), error


def test_a_backend_of_two_services_is_refused(folder: Path) -> None:
    """Its replies could not be told apart. Behind a tunnel it may serve many."""
    more = BASE + "      api: {address: 203.0.113.20, protocol: tcp, port: 80}\n"
    (folder / "backends.csv").write_text(FILE + "api,10.0.1.2,443,,,\n")
    error = refused(folder, more)
    assert error.line == 9
    assert error.what == "10.0.1.2:443 answers for web (line 4) already: api could not have its own"
    (folder / "backends.csv").write_text(FILE + "api,10.0.1.2,444,,,\n")
    built(folder, more)
    tube = BASE + "      api: {address: 203.0.113.20, protocol: udp, port: 80, mode: ipip}\n"
    (folder / "backends.csv").write_text(FILE + "api,10.0.2.1,,,,\n")
    built(folder, tube)


HEADERS = [
    ("", 1, "no header row"),
    ("# nothing\n", 1, "no header row"),
    ("web,10.0.1.1,80,1,up,\n", 1, "is not the header row"),
    ("service,adress\n", 1, "there is no column 'adress'"),
    ("service,port\n", 1, "the column address is missing"),
    ("\nservice,address,port,port\n", 2, "two columns are called port"),
    (b"service,address\nweb,\xff\n", 2, "byte 0xff is not UTF-8 text"),
]


@pytest.mark.parametrize("text, line, says", HEADERS)
def test_files_that_are_none(folder: Path, text: str | bytes, line: int, says: str) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "backends.csv").write_bytes(data)
    error = refused(folder)
    assert (error.line, says in error.what) == (line, True), error


def test_columns_may_be_left_out_and_stand_in_any_order() -> None:
    [row] = parse(b"weight,address,service\r\n2, 10.0.0.1 ,web\r\n", HERE)
    assert (row.service, str(row.address), row.port, row.weight) == ("web", "10.0.0.1", None, 2)


# ---- any file ------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.sampled_from(["", "web", "10.0.0.1", "2001:db8::1", "80", "1", "up", "drain", "#"]),
    st.sampled_from(["02:00:00:00:00:01", "-1", "\u0660", "\x00", " ", "65536", "::", "\r"]),
    st.text(max_size=8),
)
LINES = st.lists(st.lists(CELLS, max_size=8).map(",".join), max_size=8)


def taken(data: bytes) -> list[Row]:
    """The rows, or none where the parser refuses with a place and a fix."""
    try:
        return parse(data, HERE)
    except UserError as error:
        assert error.path == HERE and error.line and error.fix
        assert len(str(error)) < 400 and "\n" not in error.what
        return []


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    taken(data)
    taken(HEADER.encode() + b"\n" + data)


@settings(max_examples=600, deadline=None)
@given(st.permutations(COLUMNS), LINES)
def test_any_lines_are_read_or_refused(columns: list[str], lines: list[str]) -> None:
    for row in taken("\n".join([",".join(columns), *lines]).encode("utf-8", "replace")):
        assert row.service and 0 <= row.weight <= 10_000
        assert row.port is None or 1 <= row.port <= 65535
        assert not row.address.is_multicast and row.place.line


BACKENDS = st.builds(
    lambda address, port, weight, drain, mac: (
        str(ipaddress.ip_address(address | 1 << 24)), port, weight, drain, mac
    ),
    st.integers(0, (200 << 24) - 1).map(lambda n: n & 0x7FFFFFFF),
    st.none() | st.integers(1, 65535),
    st.none() | st.integers(0, 10_000),
    st.booleans(),
    st.none() | st.binary(min_size=5, max_size=5).map(lambda five: "02:" + five.hex(":")),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(BACKENDS, max_size=20))
def test_what_is_written_is_read(backends: list[tuple[Any, ...]]) -> None:
    text = HEADER + "\n"
    for address, port, weight, drain, mac in backends:
        cells = ["web", address, port, weight, "drain" if drain else None, mac]
        text += ",".join("" if cell is None else str(cell) for cell in cells) + "\n"
    rows = parse(text.encode(), HERE)
    for row, (address, port, weight, drain, mac) in zip(rows, backends, strict=True):
        assert (str(row.address), row.port, row.mac) == (address, port, mac)
        assert row.weight == (0 if drain else 1 if weight is None else weight)
