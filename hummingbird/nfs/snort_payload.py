# SPDX-License-Identifier: BSD-3-Clause
"""Options of Snort and Suricata rules that look at the payload, one function each."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hummingbird.nfs.snort_draft import FARTHEST, ContentDraft, Draft, bounded, signed, unsigned
from hummingbird.nfs.snort_model import ByteJump, ByteTest, IsDataAt, Mistake, Number, Pcre, Skip
from hummingbird.textfile import quoted

# ---- content -------------------------------------------------------------------------------------


_CONTENT = re.compile(r'(!?)\s*"(.*)"\s*(?:,(.*))?', re.DOTALL).fullmatch


def content(draft: Draft, keyword: str, value: str) -> list[tuple[str, str | None]]:
    """Begin a content; returns the modifiers that it has within, behind commas."""
    found = _CONTENT(value)
    if found is None:
        raise Mistake(
            f"{keyword} {quoted(value)} is not in quotes",
            r'write content:"text|0d 0a|"; with \" \; \: \\ for these four',
        )
    negated, text, modifiers = found.groups()
    draft.steps.append(ContentDraft(parse_content(text), bool(negated)))
    said = [] if modifiers is None else [part.strip() for part in modifiers.split(",")]
    return [(name, argument.strip() or None) for name, _, argument in map(_parted, said)]


def _parted(modifier: str) -> tuple[str, str, str]:
    return modifier.partition(" ")


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


def _last(draft: Draft, keyword: str) -> ContentDraft:
    for step in reversed(draft.steps):
        if isinstance(step, ContentDraft):
            return step
    raise Mistake(f"{keyword} without a content in front of it")


def position(draft: Draft, keyword: str, value: str) -> None:
    """offset, depth, distance, within"""
    content = _last(draft, keyword)
    if not re.fullmatch(r"[+-]?\d+", value, re.ASCII):
        if re.fullmatch(r"[A-Za-z_]\w*", value):
            raise Skip("a variable of byte_extract or byte_math")
        raise Mistake(f"{keyword} {quoted(value)} is no number")
    number = bounded(keyword, int(value[:12]), -FARTHEST, FARTHEST)
    if number < 0 and keyword in ("depth", "within"):
        raise Mistake(f"{keyword}:{number} is negative")
    if number < 0 and keyword == "offset":
        raise Mistake(f"offset:{number} is negative", "count from the match before: distance")
    if keyword in content.numbers:
        raise Mistake(f"a second {keyword} at one content")
    content.numbers[keyword] = number


def nocase(draft: Draft, keyword: str, value: str) -> None:
    """nocase"""
    _last(draft, keyword).nocase = True


def rawbytes(draft: Draft, keyword: str, value: str) -> None:
    """rawbytes"""
    _last(draft, keyword)  # the payload is looked at as it is, whatever is asked for


def startswith(draft: Draft, keyword: str, value: str) -> None:
    """startswith"""
    _last(draft, keyword).starts = True


def endswith(draft: Draft, keyword: str, value: str) -> None:
    """endswith"""
    _last(draft, keyword).ends = True


def fast_pattern(draft: Draft, keyword: str, value: str) -> None:
    """fast_pattern"""
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


def pcre(draft: Draft, keyword: str, value: str) -> None:
    """``pcre:"/regex/flags"``."""
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


def isdataat(draft: Draft, keyword: str, value: str) -> None:
    """isdataat:N"""
    first, *flags = (part.strip() for part in value.split(","))
    negated = first.startswith("!")
    at = unsigned(keyword, first.lstrip("!").strip(), FARTHEST)
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
    count = unsigned(keyword, size, 23 if text else 8)
    if not count:
        raise Mistake(f"{keyword} of no byte")
    if not text and count not in (1, 2, 3, 4, 5, 6, 7, 8):
        raise Mistake(f"{keyword} of {count} bytes")
    return Number(
        count,
        signed(keyword, at),
        "relative" in flags,
        "little" in flags,
        base if text else None,
    )


def byte_test(draft: Draft, keyword: str, value: str) -> None:
    """byte_test:BYTES,OPERATOR,VALUE,OFFSET"""
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
    compared = unsigned(keyword, wanted, (1 << 64) - 1)
    draft.steps.append(ByteTest(number, operator, compared, negated))


def byte_jump(draft: Draft, keyword: str, value: str) -> None:
    """byte_jump:BYTES,OFFSET"""
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
            unsigned(keyword, flags["multiplier"], 65535) if "multiplier" in flags else 1,
            "align" in flags,
            origin,
            signed(keyword, flags["post_offset"]) if "post_offset" in flags else 0,
        )
    )
