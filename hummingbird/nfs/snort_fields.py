# SPDX-License-Identifier: BSD-3-Clause
"""Options of Snort and Suricata rules that look at headers and flows or name the rule, one function
each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from hummingbird.nfs.snort_draft import Draft, bounded, unsigned
from hummingbird.nfs.snort_model import Check, Field, Flow, Mistake, Skip
from hummingbird.textfile import quoted

Handler = Callable[[Draft, str, str], None]

# ---- fields of headers ---------------------------------------------------------------------------


_RANGE = re.compile(r"(\w+)\s*(<>|<=>|-)\s*(\w+)", re.ASCII).fullmatch
_BOUND = re.compile(r"(!|<=|>=|<|>|=)?\s*(\w+)", re.ASCII).fullmatch


def _check(of: Field, keyword: str, value: str, top: int) -> Check:
    """``n``, ``!n``, ``<n``, ``a<>b`` (in between), ``a-b`` and ``a<=>b`` (ends included)."""
    if found := _RANGE(value):
        low, high = (unsigned(keyword, found[i], top) for i in (1, 3))
        inner = found[2] == "<>"
        if low + inner > high - inner:
            raise Mistake(f"{keyword}:{value} leaves nothing to match")
        return Check(of, low + inner, high - inner)
    found = _BOUND(value)
    if found is None:
        raise Mistake(f"{keyword} {quoted(value)} is no number", f"write {keyword}:5; or <5 or 3-5")
    number = unsigned(keyword, found[2], top)
    low, high = {
        "<": (0, number - 1),
        ">": (number + 1, top),
        "<=": (0, number),
        ">=": (number, top),
    }.get(found[1] or "=", (number, number))
    if low > high:
        raise Mistake(f"{keyword}:{value} leaves nothing to match")
    return Check(of, low, high, negated=found[1] == "!")


def field_of(of: Field, top: int) -> Handler:
    """An option that is one number."""

    def handle(draft: Draft, keyword: str, value: str) -> None:
        draft.checks.append(_check(of, keyword, value, top))

    return handle


_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "ipv6": 41, "gre": 47, "esp": 50,
    "ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "eigrp": 88, "ospf": 89, "pim": 103, "sctp": 132,
}  # fmt: skip


def ip_proto(draft: Draft, keyword: str, value: str) -> None:
    """``ip_proto``."""
    bare = value.lstrip("!<> ")
    number = _PROTOCOLS.get(bare.lower())
    if number is None and not re.fullmatch(r"\d+", bare, re.ASCII):
        raise Mistake(f"ip_proto {quoted(bare)} is no protocol", "write its number")
    text = value if number is None else value.replace(bare, str(number))
    draft.checks.append(_check(Field.IP_PROTOCOL, keyword, text, 255))


def sameip(draft: Draft, keyword: str, value: str) -> None:
    """``sameip``."""
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


def flags(draft: Draft, keyword: str, value: str) -> None:
    """``flags``."""
    text, _, ignored = value.partition(",")
    if not text.strip():
        raise Mistake("flags of nothing")
    mask = 0xFF & ~_bits(keyword, re.sub(r"[\s!]", "", ignored), _TCP_FLAGS)
    draft.checks.append(_masked(Field.TCP_FLAGS, keyword, text, _TCP_FLAGS, mask))


def fragbits(draft: Draft, keyword: str, value: str) -> None:
    """``fragbits``."""
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


def flow(draft: Draft, keyword: str, value: str) -> None:
    """``flow``."""
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


def msg(draft: Draft, keyword: str, value: str) -> None:
    """``msg``."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        raise Mistake(f"msg {quoted(value)} is not in quotes")
    draft.texts["msg"] = re.sub(r"\\(.)", r"\1", value[1:-1])


def id_up_to(top: int) -> Handler:
    """An option that is one number."""

    def handle(draft: Draft, keyword: str, value: str) -> None:
        if not re.fullmatch(r"\d{1,10}", value, re.ASCII):
            raise Mistake(f"{keyword} {quoted(value)} is no number")
        draft.texts[keyword] = bounded(keyword, int(value), 0, top)

    return handle


def word(draft: Draft, keyword: str, value: str) -> None:
    """``word``."""
    draft.texts[keyword] = value


def listed(draft: Draft, keyword: str, value: str) -> None:
    """``listed``."""
    name = {"reference": "references"}.get(keyword, keyword)
    more = [value] if keyword == "reference" else [part.strip() for part in value.split(",")]
    draft.texts[name] = (*draft.texts.get(name, ()), *more)
