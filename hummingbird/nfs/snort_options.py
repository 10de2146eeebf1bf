# SPDX-License-Identifier: BSD-3-Clause
"""The options of Snort and Suricata rules, one function each: from text to what it says.

Where Snort and Suricata mean different things, Suricata's meaning holds (docs/nids.md lists them).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hummingbird.nfs.snort_model import (
    ByteJump,
    ByteTest,
    Check,
    Content,
    Field,
    Flow,
    IsDataAt,
    Mistake,
    Number,
    Pcre,
    Skip,
    Step,
)
from hummingbird.textfile import quoted

MOST_STEPS = 64
MOST_CHECKS = 64
FARTHEST = 65535
"""Bytes that offset, depth, distance and within may say."""


@dataclass
class Draft:
    """What the options of a rule have said so far."""

    steps: list[Step | _Draft] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    flow: Flow = field(default_factory=lambda: Flow(0))
    seen: set[str] = field(default_factory=set)
    texts: dict[str, Any] = field(default_factory=dict)
    """msg, sid, ...: fields of Rule."""

    def add(self, keyword: str, value: str | None) -> None:
        """Take in one option.

        Raises:
            Mistake: it is wrong.
            Skip: it is not implemented.
        """
        handle = _OPTIONS.get(keyword)
        if handle is None:
            raise Skip(_why_not(keyword))
        if keyword in _ONCE:
            if keyword in self.seen:
                raise Mistake(f"a second {keyword}")
            self.seen.add(keyword)
        if value is None and keyword not in _BARE:
            raise Mistake(f"{keyword} needs a value", f"write {keyword}:...;")
        if value is not None and keyword in _BARE - {"fast_pattern"}:
            raise Mistake(f"{keyword} takes no value", f"write {keyword};")
        handle(self, keyword, (value or "").strip())
        if len(self.steps) > MOST_STEPS or len(self.checks) > MOST_CHECKS:
            raise Skip(f"more than {MOST_STEPS} options that look at the packet")

    def finished(self) -> tuple[Step, ...]:
        """The steps, complete."""
        fast = [step for step in self.steps if isinstance(step, _Draft) and step.fast]
        if len(fast) > 1:
            raise Mistake("fast_pattern at two contents", "keep one")
        return tuple(step.content() if isinstance(step, _Draft) else step for step in self.steps)


# ---- content -------------------------------------------------------------------------------------


@dataclass
class _Draft:
    """A content while its modifiers come in."""

    data: bytes
    negated: bool
    nocase: bool = False
    numbers: dict[str, int] = field(default_factory=dict)
    """offset, depth, distance, within."""
    starts: bool = False
    ends: bool = False
    fast: bool = False
    only: bool = False
    chop: tuple[int, int] | None = None

    def content(self) -> Content:
        """The content with all its modifiers."""
        size, said = len(self.data), self.numbers
        relative = "distance" in said or "within" in said
        if relative and ("offset" in said or "depth" in said):
            raise Skip("offset or depth together with distance or within")
        if self.starts and said:
            raise Mistake("startswith with offset, depth, distance or within")
        if self.ends and said.keys() - {"distance"}:
            raise Mistake("endswith with offset, depth or within")
        if self.only and (self.negated or said):
            raise Mistake("fast_pattern:only with a position or at a negated content")
        reach = size if self.starts else said.get("within" if relative else "depth")
        if reach is not None and reach < size:
            name = "within" if relative else "depth"
            raise Mistake(f"{name}:{reach} is less than the content's {size} bytes")
        return Content(
            data=self.data,
            negated=self.negated,
            nocase=self.nocase,
            relative=relative,
            start=said.get("distance" if relative else "offset", 0),
            reach=reach,
            at_end=self.ends,
            fast=(self.chop or (0, size)) if self.fast and not self.negated else None,
            moves=not (self.negated or self.only),
        )


_CONTENT = re.compile(r'(!?)\s*"(.*)"\s*(?:,(.*))?', re.DOTALL).fullmatch


def _content(draft: Draft, keyword: str, value: str) -> None:
    found = _CONTENT(value)
    if found is None:
        raise Mistake(
            f"{keyword} {quoted(value)} is not in quotes",
            r'write content:"text|0d 0a|"; with \" \; \: \\ for these four',
        )
    negated, text, modifiers = found.groups()
    draft.steps.append(_Draft(parse_content(text), bool(negated)))
    for modifier in (modifiers or "").split(",") if modifiers is not None else ():
        name, _, argument = modifier.strip().partition(" ")
        if name == "fast_pattern_offset" or name == "fast_pattern_length":
            raise Skip(f"{name} is not implemented")
        if name not in _MODIFIERS:
            if name.startswith("http_"):
                raise Skip(_why_not(name))
            raise Mistake(f"{quoted(name)} is no modifier of a content")
        draft.add(name, argument.strip() or None)


def parse_content(text: str) -> bytes:
    r"""The bytes of a content: text, hex between bars, ``\" \\ \; \:``."""
    parts = text.split("|")
    if len(parts) % 2 == 0:
        raise Mistake("a bar is not closed", "write a bar itself as |7c|")
    content = b""
    for i, part in enumerate(parts):
        if i % 2:
            digits = "".join(part.split())
            if len(digits) % 2 or not re.fullmatch(r"[0-9a-fA-F]+", digits):
                raise Mistake(f"|{part}| is not hex bytes", "write them like |0d 0a|")
            content += bytes.fromhex(digits)
            continue
        plain = re.sub(r'\\(["\\;:])', "", part)
        if "\\" in plain or '"' in plain:
            raise Mistake(r'a backslash goes before " \ ; and :, and before nothing else')
        content += re.sub(r"\\(.)", r"\1", part).encode()
    if not content:
        raise Mistake("the content is empty")
    return content


def _last(draft: Draft, keyword: str) -> _Draft:
    for step in reversed(draft.steps):
        if isinstance(step, _Draft):
            return step
    raise Mistake(f"{keyword} without a content in front of it")


def _position(draft: Draft, keyword: str, value: str) -> None:
    content = _last(draft, keyword)
    if not re.fullmatch(r"[+-]?\d+", value, re.ASCII):
        if re.fullmatch(r"[A-Za-z_]\w*", value):
            raise Skip("a variable of byte_extract or byte_math")
        raise Mistake(f"{keyword} {quoted(value)} is no number")
    number = _bounded(keyword, int(value[:12]), -FARTHEST, FARTHEST)
    if number < 0 and keyword in ("depth", "within"):
        raise Mistake(f"{keyword}:{number} is negative")
    if number < 0 and keyword == "offset":
        raise Mistake(f"offset:{number} is negative", "count from the match before: distance")
    if keyword in content.numbers:
        raise Mistake(f"a second {keyword} at one content")
    content.numbers[keyword] = number


def _nocase(draft: Draft, keyword: str, value: str) -> None:
    _last(draft, keyword).nocase = True


def _nothing(draft: Draft, keyword: str, value: str) -> None:
    """Says nothing about the bytes of a packet."""


def _rawbytes(draft: Draft, keyword: str, value: str) -> None:
    _last(draft, keyword)  # the payload is looked at as it is, whatever is asked for


def _startswith(draft: Draft, keyword: str, value: str) -> None:
    _last(draft, keyword).starts = True


def _endswith(draft: Draft, keyword: str, value: str) -> None:
    _last(draft, keyword).ends = True


def _fast_pattern(draft: Draft, keyword: str, value: str) -> None:
    content = _last(draft, keyword)
    content.fast = True
    if value == "only":
        content.only = True
    elif value:
        found = re.fullmatch(r"(\d{1,5})\s*,\s*(\d{1,5})", value, re.ASCII)
        if not found:
            raise Mistake(
                f"fast_pattern {quoted(value)}", "write fast_pattern:only or OFFSET,LENGTH"
            )
        at, size = int(found[1]), int(found[2])
        if not size or at + size > len(content.data):
            raise Mistake(f"fast_pattern:{at},{size} is not a part of the content")
        content.chop = (at, size)


# ---- pcre ----------------------------------------------------------------------------------------

_PCRE = re.compile(r'(!?)\s*"\s*(?:/|m(\W))(.*)"', re.DOTALL).fullmatch


def _pcre(draft: Draft, keyword: str, value: str) -> None:
    found = _PCRE(value)
    if not found:
        if re.fullmatch(r'!?\s*".*"\s*,.*', value, re.DOTALL):
            raise Skip("pcre that sets variables")
        raise Mistake(f"pcre {quoted(value)} is not /in slashes/", 'write pcre:"/regex/flags";')
    negated, delimiter, rest = found.groups()
    regex, slash, flags = rest.rpartition(delimiter or "/")
    if not slash or not regex:
        raise Mistake(f"pcre {quoted(value)} lacks its second slash", 'write pcre:"/regex/flags";')
    for flag in flags.strip():
        if flag in "UIPHDMCSYKVWQZL":
            raise Skip("pcre on a buffer of the application layer")
        if flag not in "imsxAEGRBO":
            raise Mistake(f"pcre has no flag {quoted(flag)}")
    if re.search(r"\(\?P?<(pkt|flow|glob)_?\w*>", regex):
        raise Skip("pcre that sets variables")
    kept = "".join(sorted(set(flags) & set("imsxAEG")))
    draft.steps.append(Pcre(regex.encode(), kept, bool(negated), "R" in flags))


# ---- places and numbers in the payload -----------------------------------------------------------


def _isdataat(draft: Draft, keyword: str, value: str) -> None:
    first, *flags = (part.strip() for part in value.split(","))
    negated = first.startswith("!")
    at = _number(keyword, first.lstrip("!").strip(), FARTHEST)
    for flag in flags:
        if flag not in ("relative", "rawbytes"):
            raise Mistake(f"isdataat has no {quoted(flag)}")
    draft.steps.append(IsDataAt(at, negated, "relative" in flags))


def _flags_of(keyword: str, parts: list[str], known: tuple[str, ...]) -> dict[str, str]:
    """What follows the fixed arguments of byte_test and byte_jump, by name."""
    found = {}
    for part in parts:
        name, _, argument = part.partition(" ")
        if name in ("dce", "bitmask"):
            raise Skip(f"{keyword} with {name}")
        if name not in known:
            raise Mistake(f"{keyword} has no {quoted(name)}")
        found[name] = argument.strip()
    return found


_NUMBER = ("relative", "big", "little", "string", "dec", "hex", "oct")


def _read_number(keyword: str, size: str, at: str, flags: Mapping[str, str]) -> Number:
    text = "string" in flags or bool(flags.keys() & {"dec", "hex", "oct"})
    base = next((b for n, b in (("dec", 10), ("hex", 16), ("oct", 8)) if n in flags), 0)
    count = _number(keyword, size, 23 if text else 8)
    if not count:
        raise Mistake(f"{keyword} of no byte")
    if not text and count not in (1, 2, 3, 4, 5, 6, 7, 8):
        raise Mistake(f"{keyword} of {count} bytes")
    return Number(
        count,
        _signed(keyword, at),
        "relative" in flags,
        "little" in flags,
        base if text else None,
    )


def _byte_test(draft: Draft, keyword: str, value: str) -> None:
    parts = [part.strip() for part in value.split(",")]
    if len(parts) < 4:
        raise Mistake(f"byte_test {quoted(value)}", "write byte_test:BYTES,OPERATOR,VALUE,OFFSET;")
    size, operator, wanted, at, *rest = parts
    flags = _flags_of(keyword, rest, _NUMBER)
    negated = operator.startswith("!")
    operator = operator.lstrip("!").strip() or "="
    if operator not in ("<", ">", "=", "<=", ">=", "&", "^"):
        raise Mistake(f"byte_test has no operator {quoted(operator)}")
    number = _read_number(keyword, size, at, flags)
    compared = _number(keyword, wanted, (1 << 64) - 1)
    draft.steps.append(ByteTest(number, operator, compared, negated))


def _byte_jump(draft: Draft, keyword: str, value: str) -> None:
    parts = [part.strip() for part in value.split(",")]
    if len(parts) < 2:
        raise Mistake(f"byte_jump {quoted(value)}", "write byte_jump:BYTES,OFFSET;")
    size, at, *rest = parts
    known = (*_NUMBER, "align", "from_beginning", "from_end", "multiplier", "post_offset")
    flags = _flags_of(keyword, rest, known)
    if "from_beginning" in flags and "from_end" in flags:
        raise Mistake("byte_jump from_beginning and from_end")
    origin = "begin" if "from_beginning" in flags else "end" if "from_end" in flags else "here"
    draft.steps.append(
        ByteJump(
            _read_number(keyword, size, at, flags),
            _number(keyword, flags["multiplier"], 65535) if "multiplier" in flags else 1,
            "align" in flags,
            origin,
            _signed(keyword, flags["post_offset"]) if "post_offset" in flags else 0,
        )
    )


# ---- fields of headers ---------------------------------------------------------------------------


def _bounded(keyword: str, number: int, low: int, high: int) -> int:
    if not low <= number <= high:
        raise Mistake(f"{keyword}: {number} is not in {low} to {high}")
    return number


def _number(keyword: str, text: str, top: int) -> int:
    """A number without a sign, in decimal or 0x..."""
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
        return _bounded(keyword, int(text, 16), 0, top)
    if re.fullmatch(r"\d{1,20}", text, re.ASCII):
        return _bounded(keyword, int(text), 0, top)
    if re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII):
        raise Skip("a variable of byte_extract or byte_math")
    raise Mistake(f"{keyword}: {quoted(text)} is no number")


def _signed(keyword: str, text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    return sign * _number(keyword, text.lstrip("+-").strip(), FARTHEST)


_RANGE = re.compile(r"(\w+)\s*(<>|<=>|-)\s*(\w+)", re.ASCII).fullmatch
_BOUND = re.compile(r"(!|<=|>=|<|>|=)?\s*(\w+)", re.ASCII).fullmatch


def _check(of: Field, keyword: str, value: str, top: int) -> Check:
    """``n``, ``!n``, ``<n``, ``a<>b`` (in between), ``a-b`` and ``a<=>b`` (ends included)."""
    if found := _RANGE(value):
        low, high = (_number(keyword, found[i], top) for i in (1, 3))
        inner = found[2] == "<>"
        if low + inner > high - inner:
            raise Mistake(f"{keyword}:{value} leaves nothing to match")
        return Check(of, low + inner, high - inner)
    found = _BOUND(value)
    if found is None:
        raise Mistake(f"{keyword} {quoted(value)} is no number", f"write {keyword}:5; or <5 or 3-5")
    number = _number(keyword, found[2], top)
    low, high = {
        "<": (0, number - 1),
        ">": (number + 1, top),
        "<=": (0, number),
        ">=": (number, top),
    }.get(found[1] or "=", (number, number))
    if low > high:
        raise Mistake(f"{keyword}:{value} leaves nothing to match")
    return Check(of, low, high, negated=found[1] == "!")


def _field(of: Field, top: int) -> Callable[[Draft, str, str], None]:
    def handle(draft: Draft, keyword: str, value: str) -> None:
        draft.checks.append(_check(of, keyword, value, top))

    return handle


_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "ipv6": 41, "gre": 47, "esp": 50,
    "ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "eigrp": 88, "ospf": 89, "pim": 103, "sctp": 132,
}  # fmt: skip


def _ip_proto(draft: Draft, keyword: str, value: str) -> None:
    bare = value.lstrip("!<> ")
    number = _PROTOCOLS.get(bare.lower())
    if number is None and not re.fullmatch(r"\d+", bare, re.ASCII):
        raise Mistake(f"ip_proto {quoted(bare)} is no protocol", "write its number")
    text = value if number is None else value.replace(bare, str(number))
    draft.checks.append(_check(Field.IP_PROTOCOL, keyword, text, 255))


def _sameip(draft: Draft, keyword: str, value: str) -> None:
    draft.checks.append(Check(Field.SAME_IP, 1, 1))


_TCP_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "2": 64, "C": 128}
_TCP_FLAGS |= {"1": 128, "0": 0}
_FRAGBITS = {"M": 1, "D": 2, "R": 4}


def _bits(keyword: str, text: str, names: Mapping[str, int]) -> int:
    bits = 0
    for letter in text.upper():
        if letter not in names:
            raise Mistake(f"{keyword} {quoted(text)}", f"write letters of {''.join(names)}")
        bits |= names[letter]
    return bits


def _masked(of: Field, keyword: str, text: str, names: Mapping[str, int], mask: int) -> Check:
    """``+`` these and others, ``*`` any of them, ``!`` not these; else exactly these."""
    modifiers = [letter for letter in text if letter in "+*!"]
    if len(modifiers) > 1:
        raise Mistake(f"{keyword} {quoted(text)} has two modifiers")
    bits = _bits(keyword, re.sub(r"[+*!\s]", "", text), names) & mask
    if not modifiers:
        return Check(of, bits, bits, mask)
    if modifiers[0] == "+":
        return Check(of, bits, bits, bits)
    if modifiers[0] == "*":
        return Check(of, 0, 0, bits, negated=True)
    if bits.bit_count() != 1:
        raise Skip(f"{keyword}: several bits behind '!', of which Snort and Suricata differ")
    return Check(of, bits, bits, bits, negated=True)


def _flags(draft: Draft, keyword: str, value: str) -> None:
    text, _, ignored = value.partition(",")
    if not text.strip():
        raise Mistake("flags of nothing")
    mask = 0xFF & ~_bits(keyword, re.sub(r"[\s!]", "", ignored), _TCP_FLAGS)
    draft.checks.append(_masked(Field.TCP_FLAGS, keyword, text, _TCP_FLAGS, mask))


def _fragbits(draft: Draft, keyword: str, value: str) -> None:
    if not value:
        raise Mistake("fragbits of nothing")
    draft.checks.append(_masked(Field.FRAGBITS, keyword, value, _FRAGBITS, 7))


# ---- flow ----------------------------------------------------------------------------------------

_FLOW = {
    "to_server": Flow.TO_SERVER,
    "from_client": Flow.TO_SERVER,
    "to_client": Flow.TO_CLIENT,
    "from_server": Flow.TO_CLIENT,
    "established": Flow.ESTABLISHED,
    "not_established": Flow.NOT_ESTABLISHED,
    "stateless": Flow(0),
    # every packet is looked at for itself, and none is put together of fragments
    "no_stream": Flow(0),
    "no_frag": Flow(0),
}


def _flow(draft: Draft, keyword: str, value: str) -> None:
    for word in (part.strip().lower() for part in value.split(",")):
        if word in ("only_stream", "only_frag"):
            raise Skip(f"flow:{word} (no reassembly)")
        if word not in _FLOW:
            raise Mistake(f"flow has no {quoted(word)}", f"write one of: {', '.join(_FLOW)}")
        draft.flow |= _FLOW[word]
    for one, other in ((Flow.TO_SERVER, Flow.TO_CLIENT), (Flow.ESTABLISHED, Flow.NOT_ESTABLISHED)):
        if one in draft.flow and other in draft.flow:
            raise Mistake(f"flow {quoted(value)} contradicts itself")


# ---- what a rule is called -----------------------------------------------------------------------


def _msg(draft: Draft, keyword: str, value: str) -> None:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        raise Mistake(f"msg {quoted(value)} is not in quotes")
    draft.texts["msg"] = re.sub(r"\\(.)", r"\1", value[1:-1])


def _id(top: int) -> Callable[[Draft, str, str], None]:
    def handle(draft: Draft, keyword: str, value: str) -> None:
        if not re.fullmatch(r"\d{1,10}", value, re.ASCII):
            raise Mistake(f"{keyword} {quoted(value)} is no number")
        draft.texts[keyword] = _bounded(keyword, int(value), 0, top)

    return handle


def _word(draft: Draft, keyword: str, value: str) -> None:
    draft.texts[keyword] = value


def _listed(draft: Draft, keyword: str, value: str) -> None:
    name = {"reference": "references"}.get(keyword, keyword)
    more = [value] if keyword == "reference" else [part.strip() for part in value.split(",")]
    draft.texts[name] = (*draft.texts.get(name, ()), *more)


# ---- which there are -----------------------------------------------------------------------------

_POSITIONS = ("offset", "depth", "distance", "within")
_MODIFIERS = {*_POSITIONS, "nocase", "rawbytes", "fast_pattern", "startswith", "endswith"}
_BARE = {"nocase", "rawbytes", "fast_pattern", "startswith", "endswith", "sameip", "pkt_data"}
_ONCE = {"msg", "sid", "gid", "rev", "classtype", "priority", "flow"}

_OPTIONS: dict[str, Callable[[Draft, str, str], None]] = {
    "content": _content,
    **dict.fromkeys(_POSITIONS, _position),
    "nocase": _nocase,
    "rawbytes": _rawbytes,
    "fast_pattern": _fast_pattern,
    "startswith": _startswith,
    "endswith": _endswith,
    "pcre": _pcre,
    "isdataat": _isdataat,
    "byte_test": _byte_test,
    "byte_jump": _byte_jump,
    "pkt_data": _nothing,
    "dsize": _field(Field.DSIZE, 65535),
    "flags": _flags,
    "tcp.flags": _flags,
    "ttl": _field(Field.TTL, 255),
    "tos": _field(Field.TOS, 255),
    "id": _field(Field.IP_ID, 65535),
    "ip_proto": _ip_proto,
    "fragbits": _fragbits,
    "itype": _field(Field.ICMP_TYPE, 255),
    "icode": _field(Field.ICMP_CODE, 255),
    "icmp_id": _field(Field.ICMP_ID, 65535),
    "icmp_seq": _field(Field.ICMP_SEQ, 65535),
    "seq": _field(Field.TCP_SEQ, 0xFFFFFFFF),
    "ack": _field(Field.TCP_ACK, 0xFFFFFFFF),
    "window": _field(Field.TCP_WINDOW, 65535),
    "sameip": _sameip,
    "flow": _flow,
    "msg": _msg,
    "sid": _id(0xFFFFFFFF),
    "gid": _id(0xFFFFFFFF),
    "rev": _id(0xFFFFFFFF),
    "priority": _id(255),
    "classtype": _word,
    "reference": _listed,
    "metadata": _listed,
    "target": _nothing,
}

_APPLICATION = re.compile(
    r"(http|dns|tls|ssl|ssh|smb|smtp|ftp|sip|dce|dcerpc|krb5|snmp|rfb|mqtt|quic|ike|nfs|modbus|dnp3"
    r"|enip|cip|ja3s?|ja4|file|email|vba|js|websocket|ldap|sdp|rpc|sd|pgsql|mysql|bittorrent)"
    r"[._].*|uricontent|urilen|bufferlen|filemagic|fileext|filename|filesize|filemd5|ftpbounce"
    r"|app-layer-\w+|base64_\w+|file_data"
).fullmatch


def _why_not(keyword: str) -> str:
    if _APPLICATION(keyword):
        return f"{keyword} (needs the application layer)"
    return f"{keyword} is not implemented"
