# SPDX-License-Identifier: BSD-3-Clause
"""Addresses, ports and variables of Snort and Suricata rules, as sets of ranges."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hummingbird.textfile import quoted, suggest

Ranges = tuple[tuple[int, int], ...]
"""First and last of each range; sorted, and none touches the next."""

PORT_TOP = 65535
ADDRESS_TOP = (1 << 128) - 1
ANY_PORT: Ranges = ((0, PORT_TOP),)
ANY_ADDRESS: Ranges = ((0, ADDRESS_TOP),)
MAPPED = 0xFFFF << 32
"""IPv4 addresses are ::ffff:a.b.c.d, as in the data plane."""
MOST_NESTED = 16

# What rule files expect to be set, as suricata.yaml and snort.conf have it; but where the own
# network is, only the operator knows.
DEFAULTS: Mapping[str, str] = {
    "HOME_NET": "any",
    "EXTERNAL_NET": "any",
    **{
        f"{name}_SERVERS": "$HOME_NET"
        for name in ("AIM", "DC", "DNS", "FTP", "HTTP", "SIP", "SMTP", "SNMP", "SQL", "SSH")
    },
    "TELNET_SERVERS": "$HOME_NET",
    "DNP3_SERVER": "$HOME_NET",
    "DNP3_CLIENT": "$HOME_NET",
    "MODBUS_SERVER": "$HOME_NET",
    "MODBUS_CLIENT": "$HOME_NET",
    "ENIP_SERVER": "$HOME_NET",
    "ENIP_CLIENT": "$HOME_NET",
    "HTTP_PORTS": "80",
    "SHELLCODE_PORTS": "!80",
    "ORACLE_PORTS": "1521",
    "SSH_PORTS": "22",
    "FTP_PORTS": "21",
    "SIP_PORTS": "[5060,5061]",
    "DNP3_PORTS": "20000",
    "MODBUS_PORTS": "502",
    "FILE_DATA_PORTS": "[$HTTP_PORTS,110,143]",
    "GENEVE_PORTS": "6081",
    "VXLAN_PORTS": "4789",
    "TEREDO_PORTS": "3544",
    "GTP_PORTS": "[2123,2152,3386]",
}

_NAME = re.compile(r"\$\(?(\w+)\)?").fullmatch


# ---- sets of ranges ------------------------------------------------------------------------------


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Any ranges, sorted and joined where they overlap or touch."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return tuple(joined)


def complement(ranges: Ranges, top: int) -> Ranges:
    """What is not in them, from 0 to ``top``."""
    left, start = [], 0
    for low, high in ranges:
        if low > start:
            left.append((start, low - 1))
        start = high + 1
    if start <= top:
        left.append((start, top))
    return tuple(left)


def without(ranges: Ranges, others: Ranges, top: int) -> Ranges:
    """What is in the first, but not in the others."""
    return complement(union((*complement(ranges, top), *others)), top)


# ---- reading them --------------------------------------------------------------------------------


@dataclass
class Variables:
    """Names that rules use with a ``$`` in front, and what has been read with them so far."""

    values: Mapping[str, str] = field(default_factory=lambda: DEFAULTS)
    _known: dict[tuple[str, bool], Ranges] = field(default_factory=dict)

    @classmethod
    def of(cls, own: Mapping[str, str]) -> Variables:
        """The defaults, and an operator's own."""
        return cls({**DEFAULTS, **own})

    def addresses(self, text: str) -> Ranges:
        """What a rule may say where an address goes. Raises ValueError."""
        return self._read(text, False)

    def ports(self, text: str) -> Ranges:
        """What a rule may say where a port goes. Raises ValueError."""
        return self._read(text, True)

    def _read(self, text: str, ports: bool) -> Ranges:
        """Most rules say the same, so each text is read once."""
        found = self._known.get((text, ports))
        if found is None:
            top, atom = (PORT_TOP, _port) if ports else (ADDRESS_TOP, _address)
            found = _Reader(self.values, top, atom).read(text)
            self._known[text, ports] = found
        return found


@dataclass
class _Reader:
    """Reads one text, with all that its variables and lists hold."""

    values: Mapping[str, str]
    top: int
    atom: Callable[[str], tuple[int, int]]
    depth: int = 0

    def read(self, text: str) -> Ranges:
        """``any``, an atom, a list in brackets or a variable; ``!`` in front: all others."""
        inner, negated = text.strip(), False
        while inner.startswith("!"):
            inner, negated = inner[1:].strip(), not negated
        found = self._plain(inner)
        if negated:
            found = complement(found, self.top)
        if not found:
            raise ValueError(f"{quoted(text)} leaves nothing to match")
        return found

    def _plain(self, text: str) -> Ranges:
        if text == "any":
            return ((0, self.top),)
        if text.startswith(("$", "[")):
            self.depth += 1
            if self.depth > MOST_NESTED:
                raise ValueError(f"more than {MOST_NESTED} lists or variables within each other")
            found = self._variable(text) if text[0] == "$" else self._list(text)
            self.depth -= 1
            return found
        return (self.atom(text),)

    def _variable(self, text: str) -> Ranges:
        name = _NAME(text)
        if name is None:
            raise ValueError(f"{quoted(text)} is no name of a variable")
        if name[1] not in self.values:
            guess = suggest(name[1], self.values)
            raise ValueError(f"there is no variable {name[1]}: set it under variables; {guess}")
        return self.read(self.values[name[1]])

    def _list(self, text: str) -> Ranges:
        """What is in one of its plain members (any, if there is none) and in no negated one."""
        if not text.endswith("]"):
            raise ValueError(f"{quoted(text)} lacks its closing bracket")
        wanted: list[tuple[int, int]] = []
        unwanted: list[tuple[int, int]] = []
        for member in _members(text[1:-1]):
            if member.startswith("!"):
                unwanted += self.read(member[1:])
            else:
                wanted += self.read(member)
        return without(union(wanted) or ((0, self.top),), union(unwanted), self.top)


def _members(text: str) -> list[str]:
    """The members of a list, which may be lists."""
    members, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            members.append(text[start:at])
            start = at + 1
    members = [member.strip() for member in (*members, text[start:])]
    if "" in members:
        raise ValueError("a list has an empty member")
    return members


def _address(text: str) -> tuple[int, int]:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{quoted(text)} is no address, such as 10.0.0.0/8") from None
    shift = MAPPED if network.version == 4 else 0
    return shift + int(network.network_address), shift + int(network.broadcast_address)


def _port(text: str) -> tuple[int, int]:
    low, colon, high = (part.strip() for part in text.partition(":"))
    if not (low or high) or any(part and not part.isascii() for part in (low, high)):
        raise ValueError(f"{quoted(text)} is no port, such as 80 or 1024:2048")
    if any(part and not (part.isdigit() and len(part) <= 5) for part in (low, high)):
        raise ValueError(f"{quoted(text)} is no port, such as 80 or 1024:2048")
    first = int(low or 0)
    last = int(high or PORT_TOP) if colon else first
    if not first <= last <= PORT_TOP:
        raise ValueError(f"{quoted(text)} is no range of ports from 0 to {PORT_TOP}")
    return first, last
