# SPDX-License-Identifier: BSD-3-Clause
"""The route policy: what it compiles to, what is refused, and the paths it makes.

in0 ─┐     ┌─ nids (may make a packet "bad") ─┐
     ├─ a ─┤                                  ├─ out0
in1 ─┘     └─ b ──────────────────────────────┘
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hummingbird.errors import UserError
from hummingbird.policy import (
    DROP,
    NEXT_DROP,
    NEXT_NONE,
    Policy,
    Route,
    Vocabulary,
    load,
    parse,
)

PATH = Path("routes.csv")
HEADER = "packet_type,current_nf,next_nf\n"
NAMES = Vocabulary(
    nodes=("in0", "out0", "a", "b", "nids"),
    types=("other", "web", "voice", "bad"),
    ingress=("in0",),
    egress=("out0",),
    arriving=("other", "web", "voice"),
    retypes={"nids": ("bad",)},
)


def policy(rows: str, names: Vocabulary = NAMES) -> Policy:
    return parse((HEADER + rows).encode(), names, PATH)


def path_of(found: Policy, packet_type: str) -> str:
    (route,) = found.paths()[packet_type]
    return str(route)


# --- What it compiles to --------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(["web,a,b", "*,a,out0", "*,in0,a"])))
def test_a_types_own_row_goes_before_that_of_any_type(order: tuple[str, ...]) -> None:
    found = policy("*,b,out0\n" + "\n".join(order))
    assert path_of(found, "web") == "in0 -> a -> b -> out0"
    assert path_of(found, "other") == path_of(found, "voice") == "in0 -> a -> out0"


def test_the_table_and_the_lines_that_decided() -> None:
    found = policy("web,in0,a\n*,in0,drop\n*,a,out0\n")
    assert (found.next.dtype, found.next.shape) == (np.uint16, (5, 4))
    assert found.next.flags.c_contiguous
    assert found.next.tolist() == [
        [NEXT_DROP, 2, NEXT_DROP, NEXT_DROP],  # in0
        [NEXT_NONE] * 4,  # out0
        [1, 1, 1, 1],  # a
        [NEXT_NONE] * 4,
        [NEXT_NONE] * 4,
    ]
    assert found.lines.tolist() == [[3, 2, 3, 3], [0] * 4, [4] * 4, [0] * 4, [0] * 4]
    assert found.hop("in0", "web") == ("a", 2)
    assert found.hop("in0", "voice") == (DROP, 3)
    assert found.hop("b", "web") == (None, 0)
    assert {line: str(row) for line, row in found.rows.items()} == {
        2: "web,in0,a",
        3: "*,in0,drop",
        4: "*,a,out0",
    }
    with pytest.raises(KeyError):
        found.hop("in0", "wbe")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff# a comment\r\n\r\npacket_type,current_nf,next_nf\r\n*,in0,out0\r\n",
        " packet_type , current_nf,\tnext_nf # the header\n  \n\t# more\n * ,in0 , out0#end",
        "packet_type,current_nf,next_nf\n*,in0,out0",
    ],
)
def test_comments_spaces_and_line_ends(text: str) -> None:
    assert path_of(parse(text.encode(), NAMES, PATH), "web") == "in0 -> out0"


def test_paths_branch_where_an_nf_gives_another_type() -> None:
    found = policy("*,in0,nids\n*,nids,a\nbad,nids,b\n*,a,out0\nbad,b,drop\n")
    assert set(found.paths()) == {"other", "web", "voice"}
    branch = Route("bad", ("nids", "b", "drop"), (4, 6))
    assert found.paths()["web"] == (
        Route("web", ("in0", "nids", "a", "out0"), (2, 3, 5), (branch,)),
    )
    assert found.paths(["voice"])["voice"][0].branches == (branch,)


def test_a_branch_is_told_once_though_two_nfs_lead_to_it() -> None:
    """n1 and n2 make packets x or y: 4 ways to be re-typed, one branch for each NF and type."""
    names = dataclasses.replace(
        NAMES,
        nodes=("in0", "out0", "n1", "n2"),
        types=("other", "x", "y"),
        arriving=("other",),
        retypes={"n1": ("x", "y"), "n2": ("x", "y")},
    )
    (route,) = policy("*,in0,n1\n*,n1,n2\n*,n2,out0\n", names).paths()["other"]

    def count(route: Route) -> int:
        return 1 + sum(count(branch) for branch in route.branches)

    assert count(route) == 1 + 4


def test_each_port_that_packets_come_in_at_has_a_path() -> None:
    names = dataclasses.replace(
        NAMES, nodes=("in0", "in1", "out0", "a"), ingress=("in0", "in1"), retypes={}
    )
    found = policy("*,in0,a\n*,in1,out0\n*,a,out0\n", names)
    assert [str(route) for route in found.paths()["web"]] == ["in0 -> a -> out0", "in1 -> out0"]


def test_a_port_may_be_both_ends() -> None:
    """As an Ethernet port is: packets that come in at one leave at the other, or where they came
    in; from there on they are gone, and do not go round."""
    names = Vocabulary(("p", "q", "a"), ("other",), ("p", "q"), ("p", "q"), ("other",))
    found = policy("*,p,q\n*,q,a\n*,a,q\n", names)
    assert [str(route) for route in found.paths()["other"]] == ["p -> q", "q -> a -> q"]


def test_what_cannot_happen_need_not_lead_on() -> None:
    """web never comes to b, and "bad" is no type of packets that come in."""
    found = policy("*,in0,out0\nvoice,in0,b\nvoice,b,out0\n")
    assert found.hop("b", "web").node is None
    assert policy("web,in0,out0\nvoice,in0,out0\nother,in0,out0\n").hop("in0", "bad").node is None


def test_the_path_of_what_cannot_happen_has_an_end() -> None:
    """No packet comes to a or b; whoever asks for the path from there gets one round."""
    found = policy("*,in0,out0\n*,a,b\n*,b,a\n")
    assert found.route("a", "web").nodes == ("a", "b")
    assert found.route("nids", "web").nodes == ("nids",)


# --- What is refused ------------------------------------------------------------------------------

HERE = "# HERE"  # marks the line that the error has to name
END = "\n*,in0,out0"

MISTAKES = {
    "unknown type": ("wbe,in0,a # HERE", "packet_type", "unknown packet type 'wbe'", "'web'"),
    "unknown NF": ("web,nid,a # HERE", "current_nf", "unknown NF or port 'nid'", "'nids'"),
    "unknown next": ("web,in0,nads # HERE", "next_nf", "unknown NF or port 'nads'", "'nids'"),
    "a type where an NF belongs": ("web,*,a # HERE", "current_nf", "unknown NF or port '*'", "in0"),
    "any next": ("web,in0,* # HERE", "next_nf", "unknown NF or port '*'", "drop"),
    "not lower case": ("Web,in0,a # HERE", "packet_type", "unknown packet type 'Web'", "'web'"),
    "no type": (",in0,a # HERE", "packet_type", "packet_type is empty", "one of"),
    "no next": ("web,in0, # HERE", "next_nf", "next_nf is empty", "one of"),
    "two columns": ("web,in0 # HERE", None, "2 columns instead of 3", HEADER.strip()),
    "four columns": ("web,in0,a,b # HERE", None, "4 columns instead of 3", HEADER.strip()),
    "semicolons": ("web;in0;a # HERE", None, "1 columns", HEADER.strip()),
    "the same row twice": (
        "web,in0,a\nweb,in0,a # HERE",
        None,
        "web,in0 has a row already, on line 2",
        "remove one",
    ),
    "two ways for one type": ("*,in0,a\n*,in0,b # HERE", None, "*,in0 has a row", "remove one"),
    "from drop": ("web,drop,a # HERE", "current_nf", "nothing leaves 'drop'", "remove the row"),
    "from an output": ("web,out0,a # HERE", "current_nf", "out0 only sends packets out", "name an"),
    "to an input": ("web,a,in0 # HERE", "next_nf", "in0 only takes packets in", "name an NF"),
    "weighted choice": ("web,in0,a|b # HERE", "next_nf", "weighted choice (a|b) is", "one NF"),
    "copies": ("web,in0,a+b # HERE", "next_nf", "copies (a+b) is", "one NF"),
    "no default": (
        "web,in0,out0\nvoice,in0,out0 # HERE",
        None,
        "no row says where packets of type other go from in0",
        "add a row: *,in0,<next> or other,in0,<next>",
    ),
    "no row at all": ("", None, "no row says", "*,in0,<next>"),
    "dead end": (
        "web,in0,a # HERE\n*,in0,out0",
        None,
        "packets of type web can reach a, but no row leads on",
        "add a row: web,a,<next>",
    ),
    "dead end of some types": (
        "*,in0,a # HERE\nweb,a,out0\nother,a,drop",
        None,
        "packets of type voice can reach a",
        "add a row: voice,a,<next>",
    ),
    "dead end behind a re-type": (
        "*,in0,nids # HERE\nweb,nids,out0\nother,nids,out0\nvoice,nids,out0",
        None,
        "nids can make other packets bad, but no row leads on",
        "add a row: bad,nids,<next>",
    ),
    "dead end of a re-typed packet, later": (
        "*,in0,nids\n*,nids,out0\nbad,nids,b # HERE",
        None,
        "packets of type bad can reach b",
        "add a row: bad,b,<next>",
    ),
    "loop": (
        "web,in0,a\nweb,a,b\nweb,b,a # HERE" + END,
        None,
        "packets of type web would go round for ever: a -> b -> a",
        "lead out",
    ),
    "loop of one": ("web,in0,a\nweb,a,a # HERE" + END, None, "for ever: a -> a", "lead out"),
    "loop of any type": ("*,in0,b\n*,b,nids\n*,nids,b # HERE", None, "b -> nids -> b", "lead out"),
    "loop by two kinds of row": (
        "*,in0,out0\nvoice,in0,a\n*,a,b\nvoice,b,a # HERE",
        None,
        "packets of type voice would go round for ever: a -> b -> a",
        "lead out",
    ),
    "loop that only a re-typed packet takes": (
        "*,in0,nids\n*,nids,out0\nbad,nids,a # HERE\n*,a,nids",
        None,
        "packets of type bad would go round for ever: a -> nids -> a",
        "lead out",
    ),
    "loop that nothing comes to": (
        "*,in0,out0\nweb,a,b\nweb,b,a # HERE",
        None,
        "packets of type web would go round for ever: a -> b -> a",
        "lead out",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_line(name: str) -> None:
    rows, column, what, fix = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        policy(rows)
    error = caught.value
    lines = [number for number, line in enumerate(rows.split("\n"), 2) if HERE in line]
    assert what in error.what and error.fix is not None and fix in error.fix
    assert (error.path, error.line, error.field) == (PATH, lines[0] if lines else 1, column)


def test_a_loop_by_way_of_two_types() -> None:
    """n makes packets x, m makes them y and y goes from m to n: round and round, with two types."""
    names = Vocabulary(
        nodes=("in0", "out0", "n", "m"),
        types=("other", "x", "y"),
        ingress=("in0",),
        egress=("out0",),
        arriving=("other",),
        retypes={"n": ("x",), "m": ("y",)},
    )
    rows = "*,in0,n\n*,n,m\ny,n,out0\n*,m,out0\ny,m,n\n"
    with pytest.raises(UserError, match=r"type y .* for ever: n -> \(x\) m -> \(y\) n\n"):
        policy(rows, names)
    assert policy(rows.replace("*,n,m\n", "*,n,m\nx,n,out0\n"), names)


@pytest.mark.parametrize(
    ("data", "line", "what"),
    [
        (b"", 1, "no header row"),
        (b"# only\n# comments\n", 1, "no header row"),
        (b"\n*,in0,out0\n", 2, "'*,in0,out0' is not the header row"),
        (b"packet_type;current_nf;next_nf\n", 1, "is not the header row"),
        (b"packet_type,current_nf,next_nf\n*,in0,\xff\xfe\n", 2, "byte 0xff is not UTF-8"),
        (b"packet_type,current_nf,next_nf\n*,in0,out0\n\0", 3, "NUL"),
        (b"\x7fELF\x02\x01\x01\0\0", 1, "NUL"),
        ((HEADER + "*,in0,\x1b[31m").encode(), 2, r"'\x1b[31m'"),
        ((HEADER + "*,in0," + "x" * 500).encode(), 2, "xxx...'"),
    ],
)
def test_what_is_no_policy_at_all(data: bytes, line: int, what: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(data, NAMES, PATH)
    assert what in caught.value.what and caught.value.fix
    assert caught.value.line == line


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "routes.csv").write_bytes(b"#\n" * (1 << 20))
    with pytest.raises(UserError, match="larger than 1048576 bytes"):
        load(tmp_path / "routes.csv", NAMES)


# --- Anything -------------------------------------------------------------------------------------


def parse_or_refuse(data: bytes, names: Vocabulary = NAMES) -> Policy | UserError:
    try:
        return parse(data, names, PATH)
    except UserError as error:
        assert error.path == PATH and error.line is not None and error.fix
        assert 1 <= error.line <= data.count(b"\n") + 1
        str(error).encode()
        return error


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_policy_or_refused(data: bytes) -> None:
    parse_or_refuse(data)
    parse_or_refuse(HEADER.encode() + data)
    parse_or_refuse((HEADER + "*,in0,out0\n").encode() + data)


NFS = ("a", "b", "nids", "dpi")
TYPES = ("other", "web", "voice", "bad", "worse")
ANY_NAMES = Vocabulary(
    nodes=("in0", "out0", *NFS),
    types=TYPES,
    ingress=("in0",),
    egress=("out0",),
    arriving=("other", "web", "voice"),
    retypes={"nids": ("bad", "web"), "dpi": ("worse",)},
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["*", "*", *TYPES]),
        st.sampled_from(["in0", *NFS]),
        st.sampled_from([*NFS, "out0", "out0", "drop"]),
    ),
    max_size=14,
    unique_by=lambda row: row[:2],
)
State = tuple[str, str]


def successors(rows: list[tuple[str, str, str]], state: State) -> Iterator[State | None]:
    """Where packets may go from a state, by the words of README.md; None: no row."""
    node, packet_type = state
    if node in ("out0", "drop"):
        return
    for now in (packet_type, *ANY_NAMES.retypes.get(node, ())):
        own = [row for row in rows if row[:2] == (now, node)]
        any_type = [row for row in rows if row[:2] == ("*", node)]
        chosen = (own or any_type or [None])[0]
        yield None if chosen is None else (chosen[2], now)


def reachable(rows: list[tuple[str, str, str]], start: State) -> set[State | None]:
    """Every state behind `start`, and None if one of them leads nowhere."""
    found: set[State | None] = set()
    fresh: set[State | None] = {start}
    while fresh:
        fresh = {after for state in fresh if state for after in successors(rows, state)} - found
        found |= fresh
    return found


@settings(max_examples=400, deadline=None)
@given(ROWS)
def test_a_policy_is_refused_exactly_if_packets_go_round_or_get_stuck(
    rows: list[tuple[str, str, str]],
) -> None:
    """Random rows; the other opinion looks at what is behind each state, one by one."""
    text = HEADER + "".join(f"{','.join(row)}\n" for row in rows)
    found = parse_or_refuse(text.encode(), ANY_NAMES)
    starts: set[State] = {("in0", name) for name in ANY_NAMES.arriving}
    visited = starts.union(*(reachable(rows, start) for start in starts))
    stuck = None in visited
    named = {(node, name) for name, node, _ in rows if name != "*"}
    states = {state for state in visited if state} | named
    behind = set(states).union(*(reachable(rows, state) for state in states)) - {None}
    rounds = any(state in reachable(rows, state) for state in behind if state)
    assert isinstance(found, UserError) == (stuck or rounds)
    if isinstance(found, UserError):
        assert rounds if "go round" in found.what else stuck
        return
    for route in itertools.chain.from_iterable(found.paths().values()):
        assert route.nodes[-1] in ("out0", "drop")
        for at, (node, line) in enumerate(zip(route.nodes[1:], route.lines, strict=True)):
            assert found.hop(route.nodes[at], route.type) == (node, line)


def test_the_largest_policy_is_checked_soon() -> None:
    """64 nodes and 256 types in one long chain; must not meet Python's recursion limit."""
    nfs = tuple(f"n{i}" for i in range(62))
    types = ("other", *(f"t{i}" for i in range(255)))
    retypes = {name: types[1:5] for name in nfs}
    names = Vocabulary(("in0", "out0", *nfs), types, ("in0",), ("out0",), types, retypes)
    chain = ("in0", *nfs, "out0")
    rows = "".join(f"{t},{a},{b}\n" for t in types for a, b in itertools.pairwise(chain))
    found = policy(rows, names)
    (route,) = found.paths(["t254"])["t254"]
    assert route.nodes == chain and len(found.rows) == 256 * 63
