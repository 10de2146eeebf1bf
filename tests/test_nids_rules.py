# SPDX-License-Identifier: BSD-3-Clause
"""Reading Snort and Suricata rules: what they say, what is skipped, what is wrong and where."""

from __future__ import annotations

import itertools
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import nf_helpers as nf
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, nids_rules, snort
from hummingbird.nfs.nids import NidsParams, build, content_types, names_of
from hummingbird.nfs.nids_eve import CLASSES
from hummingbird.nfs.snort_header import Ranges, Variables, complement, union, without
from hummingbird.nfs.snort_model import (
    Action,
    ByteJump,
    ByteTest,
    Check,
    Content,
    Field,
    Flow,
    IsDataAt,
    Number,
    Pcre,
    Rule,
)

BASE = "alert tcp any any -> any any ({} sid:1;)"


def read(folder: Path, text: str, **variables: str) -> snort.RuleSet:
    """What a file with this text holds."""
    path = folder / "some.rules"
    path.write_text(text, encoding="utf-8")
    return snort.read([path], Variables.of(variables))


def one(folder: Path, options: str) -> Rule:
    """The rule with these options."""
    found = read(folder, BASE.format(options))
    assert found.skipped == ()
    (rule,) = found.rules
    return rule


# ---- what rules say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, step",
    [
        ('content:"abc";', Content(b"abc")),
        ('content: ! "abc";', Content(b"abc", negated=True, moves=False)),
        ('content:"a|0d 0A|b|7c|";', Content(b"a\r\nb|")),
        (r'content:"\"\;\:\\";', Content(b'";:\\')),
        ('content:"é";', Content("é".encode())),
        ('content:"abc"; nocase;', Content(b"abc", nocase=True)),
        ('content:"abc"; offset:3; depth:9;', Content(b"abc", start=3, reach=9)),
        ('content:"abc",nocase,offset 3,depth 9;', Content(b"abc", nocase=True, start=3, reach=9)),
        ('content:"abc"; rawbytes; distance:-2;', Content(b"abc", relative=True, start=-2)),
        ('content:"abc"; within:5;', Content(b"abc", relative=True, reach=5)),
        ('content:"abc"; startswith;', Content(b"abc", reach=3)),
        ('content:"abc"; endswith;', Content(b"abc", at_end=True)),
        ('content:"abc"; fast_pattern;', Content(b"abc", fast=(0, 3))),
        ('content:"abc"; fast_pattern:1,2;', Content(b"abc", fast=(1, 2))),
        ('content:"abc"; fast_pattern:only;', Content(b"abc", fast=(0, 3), moves=False)),
        ('pcre:"/a\\/b;c/Rim";'.replace(";c", r"\;c"), Pcre(rb"a\/b\;c", "im", relative=True)),
        ('pcre:!"/a/";', Pcre(b"a", negated=True)),
        ('pcre:"m@a/b@s";', Pcre(b"a/b", "s")),
        ("isdataat:10;", IsDataAt(10)),
        ("isdataat:!1,relative;", IsDataAt(1, True, True)),
        ("byte_test:4,>,0x10,-8,relative,little;", ByteTest(Number(4, -8, True, True), ">", 16)),
        ("byte_test:2,!&,128,3;", ByteTest(Number(2, 3), "&", 128, True)),
        ("byte_test:5,<,9,0,string,dec;", ByteTest(Number(5, 0, base=10), "<", 9)),
        ("byte_jump:2,1,relative,align;", ByteJump(Number(2, 1, True), align=True)),
        (
            "byte_jump:4,0,multiplier 2,from_beginning,post_offset -3;",
            ByteJump(Number(4, 0), 2, False, "begin", -3),
        ),
    ],
)
def test_what_looks_at_the_payload(tmp_path: Path, options: str, step: object) -> None:
    assert one(tmp_path, options).steps == (step,)


@pytest.mark.parametrize(
    "options, check",
    [
        ("dsize:5;", Check(Field.DSIZE, 5, 5)),
        ("dsize:<5;", Check(Field.DSIZE, 0, 4)),
        ("dsize:>5;", Check(Field.DSIZE, 6, 65535)),
        ("dsize:!5;", Check(Field.DSIZE, 5, 5, negated=True)),
        ("dsize:3<>9;", Check(Field.DSIZE, 4, 8)),
        ("ttl:3-9;", Check(Field.TTL, 3, 9)),
        ("itype:3<=>9;", Check(Field.ICMP_TYPE, 3, 9)),
        ("ip_proto:!udp;", Check(Field.IP_PROTOCOL, 17, 17, negated=True)),
        ("flags:S;", Check(Field.TCP_FLAGS, 2, 2, 0xFF)),
        ("flags:S,12;", Check(Field.TCP_FLAGS, 2, 2, 0x3F)),
        ("flags:SA+;", Check(Field.TCP_FLAGS, 18, 18, 18)),
        ("flags:*SA;", Check(Field.TCP_FLAGS, 0, 0, 18, True)),
        ("flags:!R;", Check(Field.TCP_FLAGS, 4, 4, 4, True)),
        ("flags:0;", Check(Field.TCP_FLAGS, 0, 0, 0xFF)),
        ("fragbits:MD;", Check(Field.FRAGBITS, 3, 3, 7)),
        ("sameip;", Check(Field.SAME_IP, 1, 1)),
    ],
)
def test_what_looks_at_headers(tmp_path: Path, options: str, check: Check) -> None:
    assert one(tmp_path, options).checks == (check,)


def test_all_that_a_rule_is_called(tmp_path: Path) -> None:
    rule = one(
        tmp_path,
        r'msg:"a \"b\" \; c"; gid:3; rev:7; classtype:misc-attack; priority:2; metadata:a b, c d; '
        "reference:cve,2017-1; reference:url,x.example; flow:from_client, established;",
    )
    assert (rule.msg, rule.gid, rule.sid, rule.rev) == ('a "b" ; c', 3, 1, 7)
    assert (rule.classtype, rule.priority) == ("misc-attack", 2)
    assert rule.metadata == ("a b", "c d") and len(rule.references) == 2
    assert rule.flow == Flow.TO_SERVER | Flow.ESTABLISHED and rule.action is Action.ALERT


def test_lines_of_a_file(tmp_path: Path) -> None:
    text = (
        "# a comment\r\n\n"
        "  drop udp any any <> any 53 ( \\\n"
        '  content:"x y"; \\\n'
        "  sid:5; )  \r\n"
        "#alert tcp any any -> any any (sid:6;)\n"
        "pass icmp [10.0.0.1, 10.0.0.2] any -> any any (sid:7;)"
    )
    first, second = read(tmp_path, text).rules
    assert (first.line, first.action, first.both, first.protocols) == (3, Action.DROP, True, (17,))
    assert first.dst_ports == ((53, 53),)
    assert (second.line, second.action, second.protocols) == (7, Action.PASS, (1, 58))
    assert second.src == (((0xFFFF << 32) + 0x0A000001, (0xFFFF << 32) + 0x0A000002),)


@pytest.mark.parametrize(
    "text, ranges",
    [
        ("any", ((0, 65535),)),
        ("80", ((80, 80),)),
        ("1024:", ((1024, 65535),)),
        (":10", ((0, 10),)),
        ("!80", ((0, 79), (81, 65535))),
        ("[80,81,90]", ((80, 81), (90, 90))),
        ("[1:10,!5]", ((1, 4), (6, 10))),
        ("[!5,!7]", ((0, 4), (6, 6), (8, 65535))),
        ("![1:65535]", ((0, 0),)),
        ("[1:100,![2:50,!30]]", ((1, 1), (30, 30), (51, 100))),
        ("$WEB", ((80, 80), (8080, 8080))),
        ("!$WEB", ((0, 79), (81, 8079), (8081, 65535))),
    ],
)
def test_ports(text: str, ranges: Ranges) -> None:
    assert Variables.of({"WEB": "[80,8080]"}).ports(text) == ranges


SETS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted).map(tuple), max_size=5
)


@given(SETS, SETS)
def test_sets_of_ranges(one: Any, other: Any) -> None:
    def members(ranges: Any) -> set[int]:
        return {n for low, high in ranges for n in range(low, high + 1)}

    a, b = union(one), union(other)
    assert members(a) == members(one) and members(complement(a, 20)) == {*range(21)} - members(one)
    assert members(without(a, b, 20)) == members(one) - members(other)
    assert all(x[1] + 1 < y[0] for x, y in itertools.pairwise(a))


# ---- what is skipped -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule, reason",
    [
        ("alert http any any -> any any (sid:1;)", "protocol http (needs the application layer)"),
        ("alert tcp-stream any any -> any any (sid:1;)", "protocol tcp-stream (no reassembly)"),
        ("log tcp any any -> any any (sid:1;)", "action log"),
        ("alert tcp any any => any any (sid:1;)", "direction => (needs the application layer)"),
        (BASE.format('content:"x"; http_uri;'), "http_uri (needs the application layer)"),
        (BASE.format('http.uri; content:"x";'), "http.uri (needs the application layer)"),
        (BASE.format('content:"x",http_uri;'), "http_uri (needs the application layer)"),
        (BASE.format("flowbits:set,x;"), "flowbits is not implemented"),
        (BASE.format("nonsense;"), "nonsense is not implemented"),
        (BASE.format('pcre:"/x/U";'), "pcre on a buffer of the application layer"),
        (BASE.format('pcre:"/(?P<pkt_x>a)/";'), "pcre that sets variables"),
        (BASE.format("flow:only_stream;"), "flow:only_stream (no reassembly)"),
        (BASE.format("byte_jump:4,0,dce;"), "byte_jump with dce"),
        (BASE.format('content:"x"; offset:len;'), "a variable of byte_extract or byte_math"),
        (
            BASE.format("flags:!SA;"),
            "flags: several bits behind '!', of which Snort and Suricata differ",
        ),
        (
            BASE.format('content:"x"; offset:1; distance:1;'),
            "offset or depth together with distance or within",
        ),
        (BASE.format("ttl:1; " * 65), "more than 64 options that look at the packet"),
    ],
)
def test_what_is_not_implemented_is_skipped(tmp_path: Path, rule: str, reason: str) -> None:
    found = read(tmp_path, rule)
    assert found.rules == ()
    assert [(skip.sid, skip.reason) for skip in found.skipped] == [(1, reason)]


def test_an_expression_that_pcre2_does_not_take(tmp_path: Path) -> None:
    found = nids_rules.without_bad_regexes(read(tmp_path, BASE.format('pcre:"/a(b/";')))
    assert [skip.reason for skip in found.skipped] == ["pcre: missing closing parenthesis"]


@pytest.mark.parametrize(
    "name, loaded, skipped",
    [("content147.rules", 44, 103), ("content3000.rules.xz", 1466, 1534)],
)
def test_community_rules(tmp_path: Path, name: str, loaded: int, skipped: int) -> None:
    data = nf.real_data(f"rules/snort-community-2017/{name}").read_bytes()
    text = (lzma.decompress(data) if name.endswith(".xz") else data).decode()
    found = nids_rules.without_bad_regexes(read(tmp_path, text))
    assert (len(found.rules), len(found.skipped)) == (loaded, skipped)
    compiled = nids_rules.compile_rules(found.rules)
    assert compiled.without_pattern < loaded / 20
    lines = nids_rules.describe(found, len(compiled.patterns))
    assert lines[0].startswith(f"{loaded:,} rules loaded, ") and f"{skipped:,} skipped" in lines[0]
    reasons = [int(line.split()[0].replace(",", "")) for line in lines[1:]]
    assert sum(reasons) == skipped and reasons == sorted(reasons, reverse=True)
    classes = {rule.classtype for rule in found.rules}
    assert classes <= CLASSES.keys()


def test_all_community_rules_that_are_switched_off_can_be_read(tmp_path: Path) -> None:
    data = nf.real_data("rules/snort-community-2017/community.rules.xz").read_bytes()
    lines = lzma.decompress(data).decode().splitlines()
    text = "\n".join(line.removeprefix("# ") for line in lines if "sid:" in line)
    found = read(tmp_path, text)
    assert (len(found.rules), len(found.skipped)) == (1669, 1859)


# ---- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule, says",
    [
        ("alrt tcp any any -> any any (sid:1;)", "no rule begins with 'alrt'"),
        ("alert tcp any any -> any (sid:1;)", "6 words in front of the options, not 7"),
        ("alert tcp any any -- any any (sid:1;)", "'--' is no direction"),
        ("alert t! any any -> any any (sid:1;)", "'t!' is no protocol"),
        ("alert tcp 10.0.0.300 any -> any any (sid:1;)", "'10.0.0.300' is no address"),
        ("alert tcp any any -> any 70000 (sid:1;)", "'70000' is no range of ports"),
        ("alert tcp any any -> any http (sid:1;)", "'http' is no port"),
        ("alert tcp any any -> any [80,81 (sid:1;)", "lacks its closing bracket"),
        ("alert tcp any any -> any [80,,81] (sid:1;)", "a list has an empty member"),
        ("alert tcp any any -> any [80,!80] (sid:1;)", "leaves nothing to match"),
        ("alert tcp !any any -> any any (sid:1;)", "leaves nothing to match"),
        ("alert tcp $HOME_NT any -> any any (sid:1;)", "there is no variable HOME_NT"),
        ("alert tcp $LOOP any -> any any (sid:1;)", "within each other"),
        ("alert icmp any 8 -> any any (sid:1;)", "icmp has no ports"),
        ("alert tcp any any -> any any", "the options are not in parentheses"),
        ("alert tcp any any -> any any (sid:1)", "is not closed"),
        ('alert tcp any any -> any any (content:"x";)', "the rule has no sid"),
        (BASE.format("sid:2;"), "a second sid"),
        (BASE.format('content:"x;y";'), "is not in quotes"),
        (BASE.format("content:x;"), "is not in quotes"),
        (BASE.format('content:"";'), "the content is empty"),
        (BASE.format('content:"|0|";'), "|0| is not hex bytes"),
        (BASE.format('content:"|00";'), "a bar is not closed"),
        (BASE.format('content:"a\\x";'), "a backslash goes before"),
        (BASE.format('content:"abc"; depth:2;'), "depth:2 is less than the content's 3 bytes"),
        (BASE.format('content:"abc"; within:2;'), "within:2 is less than the content's 3 bytes"),
        (BASE.format('content:"a"; depth:2x;'), "is no number"),
        (BASE.format('content:"a"; depth:2; depth:3;'), "a second depth at one content"),
        (BASE.format('content:"a"; offset:-1;'), "offset:-1 is negative"),
        (BASE.format('content:"a"; offset:99999;'), "99999 is not in -65535 to 65535"),
        (BASE.format('content:"a"; startswith; offset:1;'), "startswith with"),
        (BASE.format('content:"a"; nocase:1;'), "nocase takes no value"),
        (BASE.format('content:"a"; offset;'), "offset needs a value"),
        (BASE.format("nocase;"), "nocase without a content in front of it"),
        (BASE.format('content:"a"; fast_pattern:0,2;'), "is not a part of the content"),
        (BASE.format('content:!"a"; fast_pattern:only;'), "fast_pattern:only"),
        (BASE.format('content:"a"; fast_pattern; content:"b"; fast_pattern;'), "at two contents"),
        (BASE.format('content:"a",nocse;'), "'nocse' is no modifier"),
        (BASE.format('pcre:"a";'), "is not /in slashes/"),
        (BASE.format('pcre:"/a/q";'), "pcre has no flag 'q'"),
        (BASE.format("byte_test:9,>,0,0;"), "9 is not in 0 to 8"),
        (BASE.format("byte_test:1,~,0,0;"), "byte_test has no operator '~'"),
        (BASE.format("byte_test:1,>,0;"), "byte_test '1,>,0'"),
        (BASE.format("byte_jump:1,0,upward;"), "byte_jump has no 'upward'"),
        (BASE.format("isdataat:x!;"), "is no number"),
        (BASE.format("dsize:5<>6;"), "leaves nothing to match"),
        (BASE.format("dsize:<0;"), "leaves nothing to match"),
        (BASE.format("ttl:256;"), "256 is not in 0 to 255"),
        (BASE.format("flags:X;"), "flags 'X'"),
        (BASE.format("flow:to_servr;"), "flow has no 'to_servr'"),
        (BASE.format("flow:to_server,to_client;"), "contradicts itself"),
        (BASE.format("msg:x;"), "msg 'x' is not in quotes"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, rule: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, f"# one\n\n{rule}\n", LOOP="[$LOOP,1]")
    error = caught.value
    assert (error.path, error.line) == (tmp_path / "some.rules", 3)
    assert says in error.what and error.fix


def test_two_rules_with_one_sid(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"some\.rules:2: a second rule with sid 1; .*rules:1"):
        read(tmp_path, BASE.format("") + "\n" + BASE.format("dsize:1;"))
    assert len(read(tmp_path, BASE.format("") + "\n" + BASE.format("gid:2;")).rules) == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        snort.read([tmp_path / "none.rules"], Variables())
    (tmp_path / "binary.rules").write_bytes(b"# x\n\xff")
    with pytest.raises(UserError, match=r"binary\.rules:2: byte 0xff is not UTF-8"):
        snort.read([tmp_path / "binary.rules"], Variables())


PIECES = st.sampled_from(
    [
        "alert",
        "drop",
        "pass",
        "tcp",
        "udp",
        "icmp",
        "ip",
        "http",
        "any",
        "->",
        "<>",
        "(",
        ")",
        ";",
        ":",
        ",",
        '"',
        "!",
        "[",
        "]",
        "$HOME_NET",
        "10.0.0.0/8",
        "80",
        "1:2",
        'content:"abc";',
        'content:!"|00|";',
        "nocase;",
        "offset:3;",
        "depth:5;",
        "distance:-1;",
        "within:9;",
        "fast_pattern;",
        'pcre:"/a/i";',
        "sid:1;",
        "rev:2;",
        "flow:established;",
        "flags:S+;",
        "dsize:>3;",
        "byte_test:1,>,2,3;",
        "isdataat:3;",
        "byte_jump:1,2,relative;",
        "\\",
        "|",
        "00",
        "|41|",
        "=",
        "<",
        ">",
        "/x/",
        "#",
        "-",
        "99999999999999999999",
        "\x00",
        "\ud7ff",
        "é",
        "²",
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=25), st.sampled_from(["", " "]))
@example(["alert tcp any any -> any any (", "[" * 5000, "sid:1;)"], "")
@example(["alert tcp ", "[" * 5000, " any -> any any (sid:1;)"], "")
@example(["alert tcp any ", "!" * 5000, "80 -> any any (sid:1;)"], "")
@example(["alert tcp any any -> any any (", "ttl:²;", "sid:1;)"], "")
@example(["alert tcp any any -> any any (", "byte_test:1,>,0,-;", "sid:1;)"], "")
def test_whatever_a_file_says_nothing_but_a_user_error_is_raised(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], between: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.rules"
    path.write_bytes(between.join(pieces).encode("utf-8", "surrogatepass"))
    try:
        found = nids_rules.without_bad_regexes(snort.read([path], Variables()))
    except UserError as error:
        assert error.path == path
    else:
        nids_rules.compile_rules(found.rules)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=6), st.sampled_from(["", ";", "; ", " "]))
def test_whatever_the_options_say(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], between: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz2.rules"
    text = BASE.format(between.join(pieces) + ";")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        nids_rules.compile_rules(snort.read([path], Variables()).rules)
    except UserError as error:
        assert error.path == path and error.line


# ---- patterns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, pattern",
    [
        ('content:"abc"; content:"abcde"; content:"xyz";', (b"abcde", False)),
        ('content:"aBc"; nocase; content:"ab";', (b"abc", True)),
        ('content:"abc"; content:!"abcde";', (b"abc", False)),
        ('content:"abc"; fast_pattern; content:"abcde";', (b"abc", False)),
        ('content:"abcdef"; fast_pattern:2,3; content:"1234567";', (b"cde", False)),
        ('content:!"abc";', None),
        ('content:"a";', None),
        ("dsize:5;", None),
    ],
)
def test_the_pattern_of_a_rule(
    tmp_path: Path, options: str, pattern: tuple[bytes, bool] | None
) -> None:
    assert nids_rules.pattern_of(one(tmp_path, options)) == pattern


def test_rules_share_patterns_and_are_numbered_by_action(tmp_path: Path) -> None:
    lines = [
        f'{action} tcp any any -> any {port} (content:"same"; sid:{sid};)'
        for sid, (action, port) in enumerate(
            [("alert", 1), ("reject", 2), ("pass", 3), ("drop", 4)], 1
        )
    ]
    compiled = nids_rules.compile_rules(read(tmp_path, "\n".join(lines)).rules)
    assert compiled.patterns == [(b"same", False)]
    assert [rule.sid for rule in compiled.rules] == [3, 4, 2, 1]


def test_chains_depend_on_what_they_count_from(tmp_path: Path) -> None:
    rule = one(
        tmp_path,
        'content:"A"; content:!"B"; content:"C"; distance:1; content:"D"; offset:2; '
        "isdataat:5; byte_test:1,>,2,0,relative;",
    )
    a, b, c, d, at, test = rule.steps
    chains = nids_rules.chains_of(rule.steps)
    assert sorted(chains, key=str) == sorted([[at], [a, c], [b], [d, test]], key=str)


# ---- parameters ----------------------------------------------------------------------------------


def built(folder: Path, **params: Any) -> Any:
    context = BuildContext("nids0", folder, {"other": 0, "bad": 1})
    return build(NidsParams.model_validate({"rules": "some.rules", **params}), context)


def test_parameters(tmp_path: Path) -> None:
    (tmp_path / "some.rules").write_text(
        BASE.format('msg:"one"; content:"xy";')
        + "\nalert tcp $HOME_NET $MY_PORTS -> any any (sid:2;)"
    )
    table = built(tmp_path, variables={"HOME_NET": ["10.0.0.0/8", "!10.1.0.0/16"], "MY_PORTS": 80})
    assert table.rules == ["one", "(sid 2)"]
    assert table.notes == ["2 rules loaded, 1 patterns; 0 skipped"]
    assert content_types(NidsParams(rules=[Path("x")], on_alert="bad")) == ["bad"]
    assert content_types(NidsParams(rules=[Path("x")], on_alert="drop")) == []


@pytest.mark.parametrize(
    "params, says",
    [
        ({"on_alert": "wbe"}, r"nfs\.nids0\.on_alert: unknown packet type wbe"),
        ({"variables": {"X_PORTS": "http"}}, r"nfs\.nids0\.variables\.X_PORTS: 'http' is no port"),
        ({"variables": {"X": [1, "a"]}}, r"nfs\.nids0\.variables\.X: '1' is no address"),
        ({"eve": "none/eve.json"}, r"nfs\.nids0\.eve: no folder"),
        ({"eve": "."}, r"nfs\.nids0\.eve: .* is a folder"),
        ({"eve": ""}, r"nfs\.nids0\.eve: .* is a folder"),
    ],
)
def test_wrong_parameters(tmp_path: Path, params: dict[str, Any], says: str) -> None:
    (tmp_path / "some.rules").write_text(BASE.format('content:"xy";'))
    with pytest.raises(UserError, match=says):
        built(tmp_path, **params)


def test_a_file_of_which_nothing_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "some.rules").write_text(BASE.format("flowbits:set,x;"))
    with pytest.raises(UserError, match="none of 1 rules can be used"):
        built(tmp_path)


def test_names_of_counters(tmp_path: Path) -> None:
    rule = one(tmp_path, 'msg:"m";')
    rules = [rule, replace(rule, sid=2), replace(rule, sid=2, gid=3), replace(rule, msg="n")]
    assert names_of(rules) == ["m (sid 1)", "m (sid 2) (gid 1)", "m (sid 2) (gid 3)", "n"]
