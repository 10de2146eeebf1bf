# SPDX-License-Identifier: BSD-3-Clause
"""Snort rules by their definition, as simply as can be: a reader and a matcher that share nothing
with those of the NF. A step turns the places that matching may have come to into those that it can
come to next; a rule matches if a place is left."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import ahocorasick

Option = tuple[str, str]


# ---- packets -------------------------------------------------------------------------------------


@dataclass
class Packet:
    """What rules ask of a packet."""

    version: int
    ip: bytes
    """The header."""
    protocol: int
    src: int
    dst: int
    l4: bytes | None
    """The transport header and what follows; None if it is not there, whole."""
    payload: bytes
    fragment: bool
    ports: tuple[int, int] | None = None
    flow: set[str] = field(default_factory=set)


def decode(frame: bytes) -> Packet | None:
    """None: not IP, or an input port drops it."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8", b"\x91\x00") and at < 20:
        at += 4
    kind, ip = int.from_bytes(frame[at : at + 2], "big"), frame[at + 2 :]
    if kind == 0x0800 and len(ip) >= 20 and ip[0] >> 4 == 4:
        return _ipv4(ip)
    if kind == 0x86DD and len(ip) >= 40 and ip[0] >> 4 == 6:
        return _ipv6(ip)
    return None


def _ipv4(ip: bytes) -> Packet | None:
    head, total = 4 * (ip[0] & 15), int.from_bytes(ip[2:4], "big")
    bits = int.from_bytes(ip[6:8], "big")
    if head < 20 or total < head or total > len(ip):
        return None
    src, dst = (int.from_bytes(ip[i : i + 4], "big") for i in (12, 16))
    later, fragment = bool(bits & 0x1FFF), bool(bits & 0x3FFF)
    return _transport(4, ip[:head], ip[9], src, dst, ip[head:total], later, fragment)


def _ipv6(ip: bytes) -> Packet | None:
    length, protocol, at = int.from_bytes(ip[4:6], "big"), ip[6], 40
    if 40 + length > len(ip):
        return None
    body = ip[: 40 + length] if length else ip
    later = fragment = False
    while protocol in (0, 43, 44, 60) and not fragment:
        size = 8 if protocol == 44 else 8 * body[at + 1] + 8
        if protocol == 44:
            bits = int.from_bytes(body[at + 2 : at + 4], "big")
            later, fragment = bits >> 3 != 0, bits & 0xFFF9 != 0
        protocol, at = body[at], at + size
    src, dst = (int.from_bytes(ip[i : i + 16], "big") for i in (8, 24))
    if later:
        return _transport(6, ip[:40], protocol, src, dst, body[40:], later, fragment)
    return _transport(6, ip[:40], protocol, src, dst, body[at:], later, fragment)


LEAST = {6: 20, 17: 8, 132: 12, 1: 8, 58: 8}


def _transport(
    version: int, head: bytes, protocol: int, src: int, dst: int, l4: bytes, later: bool, frag: bool
) -> Packet | None:
    least = LEAST.get(protocol, 0)
    packet = Packet(version, head, protocol, src, dst, None, l4, frag)
    if later:
        return packet
    if len(l4) < least and not frag and (protocol != 58 or len(l4) < 4):
        return None
    packet.l4 = l4 if least and len(l4) >= least else None
    if packet.l4 is None:
        return packet
    skip = {17: 8, 1: 8, 58: 8, 6: 4 * (l4[12] >> 4) if protocol == 6 else 0}.get(protocol, 0)
    packet.payload = l4[skip:] if skip <= len(l4) else l4
    if protocol in (6, 17, 132):
        packet.ports = int.from_bytes(l4[:2], "big"), int.from_bytes(l4[2:4], "big")
    return packet


class Flows:
    """Who is the server of a flow, and is it established?"""

    def __init__(self, assumed: bool = False) -> None:
        self._assumed = assumed
        self._client: dict[object, tuple[int, int]] = {}
        self._syn: set[object] = set()
        self._answered: set[object] = set()

    def see(self, p: Packet) -> None:
        """Fill p.flow; packets in order."""
        ports = p.ports if p.ports and not p.fragment else (0, 0)
        sender, receiver = (p.src, ports[0]), (p.dst, ports[1])
        key = (frozenset((sender, receiver)), p.protocol, p.fragment, p.version)
        flags = p.l4[13] if p.protocol == 6 and p.l4 else 0
        if p.protocol == 6:
            self._see_tcp(key, sender, receiver, flags)
        elif self._client.setdefault(key, sender) != sender:
            self._answered.add(key)
        client = self._client.get(key)
        if client is None and p.ports and ports[0] != ports[1]:
            client = sender if p.ports[0] > p.ports[1] else receiver
        if client is not None:
            p.flow.add("to_server" if client == sender else "to_client")
        established = key in self._answered and not flags & 2
        if self._assumed and p.protocol == 6:
            established |= flags & 18 == 16
        p.flow.add("established" if established else "not_established")

    def _see_tcp(self, key: object, sender: object, receiver: object, flags: int) -> None:
        if flags & 18 == 2 and self._client.get(key) != sender:
            self._client[key] = sender  # type: ignore[assignment]
            self._answered.discard(key)
        if flags & 18 == 2:
            self._syn.add(key)
        if flags & 18 == 18:
            if key in self._syn and self._client.get(key) == receiver:
                self._answered.add(key)
            elif key not in self._answered:
                self._client[key] = receiver  # type: ignore[assignment]
                self._syn.discard(key)


# ---- rules ---------------------------------------------------------------------------------------

NAMES = {"to_server": "to_server", "from_client": "to_server", "to_client": "to_client"}
NAMES |= {"from_server": "to_client", "established": "established"}
NAMES |= {"not_established": "not_established"}


@dataclass
class Rule:
    """One rule, as text that has been cut into pieces."""

    protocol: str
    ends: tuple[str, str, str, str]
    both: bool
    options: list[Option]
    sid: int

    def longest(self) -> bytes | None:
        """The longest content that has to be there, in lower case."""
        found = [unescape(v) for k, v in self.options if k == "content" and v[0] != "!"]
        return max(found, key=len).lower() if found else None


def parse(line: str) -> Rule:
    """A rule that is known to be right."""
    head, body = line.rstrip()[:-1].split("(", 1)
    words = re.sub(r"\[[^]]*\]", lambda m: m[0].replace(" ", ""), head).split()
    options = []
    for text in re.findall(r"((?:\\.|[^\\;])+);", body):
        key, _, value = text.strip().partition(":")
        options.append((key.strip(), value.strip()))
    (sid,) = (int(value) for key, value in options if key == "sid")
    ends = (words[2], words[3], words[5], words[6])
    return Rule(words[1], ends, words[4] == "<>", options, sid)


def unescape(value: str) -> bytes:
    """The bytes of a content."""
    text = re.search(r'"(.*)"', value, re.DOTALL)
    assert text
    found = b""
    for part in re.finditer(r"\|([0-9a-fA-F ]+)\||\\(.)|([^|\\]+)", text[1], re.DOTALL):
        found += bytes.fromhex(part[1]) if part[1] else (part[2] or part[3]).encode()
    return found


@dataclass
class Oracle:
    """All rules on one packet after the other."""

    rules: Sequence[Rule]
    variables: Mapping[str, str]

    def __post_init__(self) -> None:
        """Candidates by content; the rules without one are candidates always."""
        self._always = [rule for rule in self.rules if rule.longest() is None]
        self._finder = ahocorasick.Automaton()
        by_content: dict[bytes, list[Rule]] = {}
        for rule in self.rules:
            content = rule.longest()
            if content is not None:
                by_content.setdefault(content, []).append(rule)
        for content, rules in by_content.items():
            self._finder.add_word(content.decode("latin-1"), rules)
        if by_content:
            self._finder.make_automaton()

    def sids(self, packet: Packet) -> set[int]:
        """The rules that match."""
        candidates = list(self._always)
        if len(self._finder):
            text = packet.payload.lower().decode("latin-1")
            seen = {id(rules): rules for _, rules in self._finder.iter(text)}
            candidates += [rule for rules in seen.values() for rule in rules]
        return {rule.sid for rule in candidates if self.matches(rule, packet)}

    def matches(self, rule: Rule, packet: Packet) -> bool:
        """Does the packet match the rule?"""
        if not self._header(rule, packet):
            return False
        return all(self._field(*option, packet) for option in rule.options) and payload_matches(
            rule.options, packet.payload
        )

    # -- header --

    def _header(self, rule: Rule, p: Packet) -> bool:
        wanted = {"tcp": (6,), "udp": (17,), "icmp": (1, 58), "ip": ()}[rule.protocol]
        if wanted and (p.protocol not in wanted or p.l4 is None):
            return False
        src, src_port, dst, dst_port = rule.ends
        if (src_port, dst_port) != ("any", "any") and p.ports is None:
            return False
        here, there = p.ports or (0, 0)
        forward = ((src, p.src), (src_port, here), (dst, p.dst), (dst_port, there))
        back = ((src, p.dst), (src_port, there), (dst, p.src), (dst_port, here))
        ways = (forward, back) if rule.both else (forward,)
        return any(all(self._in(text, value, p.version) for text, value in way) for way in ways)

    def _in(self, text: str, value: int, version: int) -> bool:
        if text.startswith("!"):
            return not self._in(text[1:], value, version)
        if text == "any":
            return True
        if text.startswith("$"):
            return self._in(self.variables[text[1:]], value, version)
        if text.startswith("["):
            members = split_list(text[1:-1])
            no = any(self._in(m[1:], value, version) for m in members if m[0] == "!")
            plain = [m for m in members if m[0] != "!"]
            return not no and (not plain or any(self._in(m, value, version) for m in plain))
        if "." in text:
            net = ipaddress.ip_network(text, strict=False)
            return version == 4 and ipaddress.IPv4Address(value) in net
        low, colon, high = text.partition(":")
        return int(low or 0) <= value <= (int(high or 65535) if colon else int(low))

    # -- fields --

    def _field(self, key: str, value: str, p: Packet) -> bool:
        if key == "flow":
            words = {NAMES[w] for w in re.split(r"\s*,\s*", value) if w in NAMES}
            return words <= p.flow
        if key == "flags":
            return p.protocol == 6 and p.l4 is not None and tcp_flags(value, p.l4[13])
        if key == "fragbits":
            return p.version == 4 and fragbits(value, p.ip[6] >> 5)
        if key == "sameip":
            return p.src == p.dst
        number = number_of(key, p)
        return number is None or (number >= 0 and in_range(value, number))


def split_list(text: str) -> list[str]:
    """Members of a list that may hold lists."""
    members, depth = [""], 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == "," and not depth:
            members.append("")
        else:
            members[-1] += char
    return [member.strip() for member in members]


def number_of(key: str, p: Packet) -> int | None:
    """The field of that name; None: there is no such field, -1: this packet has none."""

    def at(data: bytes | None, first: int, size: int, ok: bool = True) -> int:
        return int.from_bytes(data[first : first + size], "big") if ok and data else -1

    icmp = p.protocol in (1, 58)
    echo = bool(
        icmp and p.l4 and p.l4[0] in ((0, 8, *range(13, 19)) if p.protocol == 1 else (128, 129))
    )
    tcp = p.protocol == 6
    found = {
        "dsize": lambda: len(p.payload),
        "ttl": lambda: p.ip[8 if p.version == 4 else 7],
        "tos": lambda: at(p.ip, 1, 1, p.version == 4),
        "id": lambda: at(p.ip, 4, 2, p.version == 4),
        "ip_proto": lambda: p.protocol,
        "itype": lambda: at(p.l4, 0, 1, icmp),
        "icode": lambda: at(p.l4, 1, 1, icmp),
        "icmp_id": lambda: at(p.l4, 4, 2, echo),
        "icmp_seq": lambda: at(p.l4, 6, 2, echo),
        "seq": lambda: at(p.l4, 4, 4, tcp),
        "ack": lambda: at(p.l4, 8, 4, tcp),
        "window": lambda: at(p.l4, 14, 2, tcp),
    }.get(key)
    return found() if found else None


def in_range(text: str, number: int) -> bool:
    """``5``, ``!5``, ``<5``, ``>5``, ``3<>5``."""
    if "<>" in text:
        low, high = text.split("<>")
        return int(low) < number < int(high)
    if re.fullmatch(r"\d+-\d+", text):
        low, high = text.split("-")
        return int(low) <= number <= int(high)
    value = int(text.lstrip("!<>= "))
    return {
        "!": number != value,
        "<": number < value,
        ">": number > value,
    }.get(text[0], number == value)


def tcp_flags(text: str, flags: int) -> bool:
    """Snort's letters."""
    text, _, ignored = text.partition(",")
    bits = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128, "0": 0}
    bits |= {"2": 64, "1": 128}
    flags &= ~sum({bits[c] for c in ignored.strip("! ")})
    wanted = sum({bits[c] for c in text if c in bits} - {0})
    if "+" in text:
        return flags & wanted == wanted
    if "*" in text:
        return flags & wanted != 0
    return flags & wanted != wanted if "!" in text else flags == wanted


def fragbits(text: str, bits: int) -> bool:
    """R, D and M."""
    wanted = sum({"R": 4, "D": 2, "M": 1}[c] for c in text if c in "RDM")
    if "+" in text:
        return bits & wanted == wanted
    if "*" in text:
        return bits & wanted != 0
    return bits & wanted != wanted if "!" in text else bits == wanted


# ---- payload -------------------------------------------------------------------------------------


def payload_matches(options: Sequence[Option], payload: bytes) -> bool:
    """All that looks at the payload, in order."""
    places = {0}
    for key, value, modifiers in steps(options):
        places = set(next_places(key, value, modifiers, payload, places))
        if not places:
            return False
    return True


def steps(options: Sequence[Option]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Each content with the modifiers behind it, and the others."""
    modifiers = {"nocase", "offset", "depth", "distance", "within", "fast_pattern", "rawbytes"}
    modifiers |= {"startswith", "endswith"}
    found: list[tuple[str, str, dict[str, str]]] = []
    last: dict[str, str] = {}
    for key, value in options:
        if key in modifiers:
            last[key] = value
        elif key in ("content", "pcre", "isdataat", "byte_test", "byte_jump"):
            found.append((key, value, {}))
            if key == "content":
                last = found[-1][2]
                *_, behind = value.rpartition('"')
                for part in filter(None, (p.strip() for p in behind.split(","))):
                    name, _, argument = part.partition(" ")
                    last[name] = argument
    yield from found


def next_places(
    key: str, value: str, modifiers: dict[str, str], payload: bytes, places: Iterable[int]
) -> Iterator[int]:
    """Where matching can come to from these places."""
    places = sorted(places)
    if key == "content":
        yield from content(value, modifiers, payload, places)
        return
    for place in places:
        if key == "pcre":
            yield from pcre(value, payload, place)
        elif key == "isdataat":
            parts = [p.strip() for p in value.split(",")]
            number = int(parts[0].lstrip("!"))
            there = place + number <= len(payload) if "relative" in parts else number < len(payload)
            if there != parts[0].startswith("!"):
                yield place
        elif key == "byte_test":
            if byte_test([p.strip() for p in value.split(",")], payload, place):
                yield place
        else:
            yield from byte_jump([p.strip() for p in value.split(",")], payload, place)


def content(value: str, m: dict[str, str], payload: bytes, places: Sequence[int]) -> Iterator[int]:
    """Ends of all places at which it stands; if negated, the places from which it does not."""
    needle, text = unescape(value), payload
    if "nocase" in m:
        needle, text = needle.lower(), payload.lower()
    all_of_it, at = [], text.find(needle)
    while at >= 0:
        all_of_it.append(at)
        at = text.find(needle, at + 1)
    if "endswith" in m:
        all_of_it = [i for i in all_of_it if i + len(needle) == len(text)]
    relative = "distance" in m or "within" in m
    reach = m.get("within", m.get("depth"))
    if "startswith" in m:
        reach = str(len(needle))
    negated = value.startswith("!")
    if not negated and m.get("fast_pattern") != "only" and reach is None:
        places = places[:1]  # whatever is behind another place is behind the first, too
    for place in places:
        start = (place if relative else 0) + int(m.get("distance", m.get("offset", 0)))
        end = len(text) if reach is None else start + int(reach)
        found = [i for i in all_of_it if max(start, 0) <= i and i + len(needle) <= end]
        if negated or m.get("fast_pattern") == "only":
            if bool(found) != negated:
                yield place
        else:
            yield from (i + len(needle) for i in found)


_FLAGS = {"i": re.IGNORECASE, "s": re.DOTALL, "m": re.MULTILINE, "x": re.VERBOSE}
_known: dict[str, re.Pattern[bytes]] = {}


def compiled(value: str) -> re.Pattern[bytes]:
    """As Python's re has it; raises re.error where that knows less than PCRE."""
    if value not in _known:
        found = re.fullmatch(r'!?\s*"/(.*)/(\w*)"', value, re.DOTALL)
        assert found
        flags = 0
        for letter in found[2]:
            flags |= _FLAGS.get(letter, 0)
        anchor = "\\A" if "A" in found[2] else ""
        _known[value] = re.compile((anchor + found[1]).encode(), flags)
    return _known[value]


def pcre(value: str, payload: bytes, place: int) -> Iterator[int]:
    """Ends of the matches from each place on."""
    regex, flags = compiled(value), value.rpartition("/")[2]
    begin = place if "R" in flags else 0
    text, found, at = payload[begin:], [], 0
    while at <= len(text) and (hit := regex.search(text, at)):
        found.append(begin + hit.end())
        at = hit.start() + 1
        if value.startswith("!"):
            break
    if not value.startswith("!"):
        yield from found
    elif not found:
        yield place


def number_at(
    parts: list[str], size: str, at: str, payload: bytes, place: int
) -> tuple[int, int, int] | None:
    """Where it is, how many bytes were read, and the number."""
    first = int(at) + (place if "relative" in parts else 0)
    count = int(size)
    if first < 0 or first + count > len(payload):
        return None
    data = payload[first : first + count]
    if "string" in parts:
        base = 16 if "hex" in parts else 8 if "oct" in parts else 10
        digits = {16: rb"\s*(0[xX])?([0-9a-fA-F]+)", 8: rb"\s*()([0-7]+)", 10: rb"\s*()(\d+)"}[base]
        found = re.match(digits, data)
        return (first, found.end(), int(found[2], base)) if found else None
    return first, count, int.from_bytes(data, "little" if "little" in parts else "big")


def byte_test(parts: list[str], payload: bytes, place: int) -> bool:
    """byte_test:SIZE,OPERATOR,VALUE,OFFSET"""
    found = number_at(parts, parts[0], parts[3], payload, place)
    if found is None:
        return False
    number, value, operator = found[2], int(parts[2], 0), parts[1].lstrip("!") or "="
    holds = {
        "<": number < value,
        ">": number > value,
        "=": number == value,
        "<=": number <= value,
        ">=": number >= value,
        "&": bool(number & value),
        "^": bool(number ^ value),
    }[operator]
    return holds != parts[1].startswith("!")


def byte_jump(parts: list[str], payload: bytes, place: int) -> Iterator[int]:
    """byte_jump:SIZE,OFFSET"""
    found = number_at(parts, parts[0], parts[1], payload, place)
    if found is None:
        return
    first, read, number = found
    named = dict(p.split(" ", 1) for p in parts if " " in p)
    jump = number * int(named.get("multiplier", 1))
    if "align" in parts:
        jump = -(-jump // 4) * 4
    jump += int(named.get("post_offset", 0))
    if "from_end" in parts:
        jump += len(payload)
    elif "from_beginning" not in parts:
        jump += first + read
    if jump < len(payload):
        yield max(jump, 0)
