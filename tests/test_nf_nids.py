# SPDX-License-Identifier: BSD-3-Clause
"""nids: its parameters and the file of patterns."""

from __future__ import annotations

from pathlib import Path

import nf_helpers as nf
import numpy as np
import pytest

from hummingbird.errors import UserError
from hummingbird.nfs import BuildContext, NfTable
from hummingbird.nfs.nids import (
    NidsParams,
    Rule,
    build,
    content_types,
    read_rules,
)

DEMO = Path(__file__).parent.parent / "policies" / "demo"
TYPES = {"other": 0, "web": 1, "suspicious": 2}
IPV4_TYPE, IPV6_TYPE = b"\x08\x00", b"\x86\xdd"


def built(folder: Path, text: str, on_match: str = "pass") -> NfTable:
    (folder / "patterns.txt").write_text(text)
    params = NidsParams.model_validate({"patterns": "patterns.txt", "on_match": on_match})
    return build(params, BuildContext("nids0", folder, TYPES))


def udp_packet(payload: bytes) -> bytes:
    """A packet whose headers match nothing: only the payload varies."""
    rng = np.random.default_rng(0)
    return nf.ETHERNET + IPV4_TYPE + nf.ipv4(nf.udp(payload, rng), 17, rng)


def test_packet_types_it_gives() -> None:
    def types(on_match: str) -> list[str]:
        return content_types(NidsParams(patterns=Path("x"), on_match=on_match))

    assert types("pass") == types("drop") == []
    assert types("suspicious") == ["suspicious"]


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nfs\.nids0\.on_match: unknown packet type wbe"):
        built(tmp_path, 'evil: "EVIL"\n', "wbe")


# ---- the patterns file ---------------------------------------------------------------------------


def test_contents_are_written_as_snort_does(tmp_path: Path) -> None:
    path = tmp_path / "patterns.txt"
    path.write_text(
        "# comment\n\n"
        'get: "GET /etc/passwd|0d 0a|" nocase   # behind it, too\n'
        r'quoted:"a \"b\" \\ \; \: # c"' + "\n"
        '  2-hex_only.x : "|00FF 7c|" \n'
        'mixed: "|41|B|43 44|"\r\n'
        r'slash: "\\\\x"'
    )
    assert read_rules(path) == [
        Rule("get", b"GET /etc/passwd\r\n", True),
        Rule("quoted", rb'a "b" \ ; : # c'),
        Rule("2-hex_only.x", b"\x00\xff|"),
        Rule("mixed", b"ABCD"),
        Rule("slash", rb"\\x"),
    ]


@pytest.mark.parametrize(
    "line, says",
    [
        ("evil", "no rule: evil"),
        ("evil: EVIL", "no rule: evil: EVIL"),
        ('evil: "EVIL" nocas', "no rule"),
        ('evil: "EVIL', "no rule"),
        ('e vil: "EVIL"', "no rule"),
        ('evil: ""', "the content is empty"),
        ('evil: "EV|49 4c"', "a bar is not closed"),
        ('evil: "|4|"', "|4| is not hex bytes"),
        ('evil: "||"', "|| is not hex bytes"),
        ('evil: "|xy|"', "|xy| is not hex bytes"),
        (r'evil: "C:\\dir\n"', "a backslash goes only before"),
        ('evil: "Übel"', "bytes beyond ASCII as hex"),
        ('first: "again"', "a second rule called first"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(UserError, match=r"patterns\.txt:3: ") as error:
        built(tmp_path, f'# comment\nfirst: "1"\n{line}\n')
    assert says in str(error.value)


def test_files_without_rules(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no rule in this file"):
        built(tmp_path, "# nothing\n")
    params = NidsParams(patterns=Path("nowhere.txt"))
    with pytest.raises(UserError, match="cannot read the patterns"):
        build(params, BuildContext("nids0", tmp_path, TYPES))


def test_demo_patterns() -> None:
    params = NidsParams(patterns=Path("patterns.txt"), on_match="drop")
    table = build(params, BuildContext("nids0", DEMO, TYPES))
    payloads = [
        b"cat /etc/passwd",
        b"GET /CMD.EXE",
        b"q=<script>alert(1)",
        b"1 union Select 2",
        b"() { :; }; echo",
        b"${jndi:ldap://x}",
        b"/ETC/PASSWD",
        b"Jndi:ldap",
    ]
    answers = nf.run(nf.region(3, table.data), [udp_packet(payload) for payload in payloads])
    assert [answer.result & 0xFFFFFFFF for answer in answers] == [1, 2, 3, 4, 5, 6, 0, 0]
    assert len(table.rules) == 6
