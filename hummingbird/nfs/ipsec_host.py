# SPDX-License-Identifier: BSD-3-Clause
"""What an ``ipsec`` NF has on the host while it runs: policies and security associations in C, the
sequence numbers on the disk, counters, and a word in the log when something is wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hummingbird import logs
from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs import HostContext, NfHost
from hummingbird.nfs.ipsec_config import BYPASS, DISCARD, IpsecParams
from hummingbird.nfs.ipsec_state import END, SequenceFile, identity
from hummingbird.nfs.ipsec_table import Sa
from hummingbird.rules import Selector

LEAST_BLOCK, MOST_BLOCK = 1 << 20, 1 << 24
"""Numbers that are reserved on the disk at a time. A run that is killed loses what is left of its
block, of 4,096 of the least; an association that uses up half of one within a second gets twice as
many the next time."""
FAST_S = 1.0
DUE = 64
"""Associations that a poll cares for: the others' turn comes with the next."""
LOOK_S = 1.0
"""Counters are looked at this often for what belongs into the log."""
NEARLY = END - (END >> 4)
"""From here on there is a warning that the numbers run out."""

_IN = ("packets", "bytes", "last", "not_authentic", "replayed", "mismatched", "malformed")
_OUT = ("packets", "bytes", "last", "no_number", "too_big", "fragmented", "malformed")
_COUNTS = tuple(dict.fromkeys(_IN + _OUT))
_TOTALS = (
    *("bypassed", "discarded", "no_policy", "no_sa", "clear", "fragments", "keepalives"),
    "icmp_suppressed",
)
_EVENTS = {
    "not_authentic": (
        "packets with a wrong ICV: forged, damaged, or the peer has another key",
        "compare the keys of both ends; if they are the same, find out who forges",
    ),
    "mismatched": (
        "packets that its policies do not allow: the peer has other policies",
        "compare the policies of both ends",
    ),
}
"""Auditable events (RFC 4303): the first of each kind is logged, all are counted."""


class IpsecHost(NfHost):
    """One instance."""

    def __init__(self, params: IpsecParams, sas: Sequence[Sa], context: HostContext) -> None:
        """Take the sequence numbers of all outbound associations into use.

        Raises:
            UserError: another NF or instance uses them, or they cannot be kept.
        """
        self._name, self._params = context.name, params
        self._numbers: dict[int, _Numbers] = {}
        self._told: set[tuple[str, str]] = set()
        self._look_at = 0.0
        folder = context.state.parent / "ipsec.sequences"  # of all instances, whatever their name
        try:
            for index, (name, sa) in enumerate(params.sas.items()):
                if sa.outbound:
                    label = f"{context.name}'s security association {name}"
                    file = SequenceFile(folder, identity(sas[index], sa.dst.packed), label)
                    self._numbers[index] = _Numbers(file, label)
            self.pointer = ffi.gc(self._make(context.types), lib.hb_ipsec_free)
            if self.pointer == ffi.NULL:
                raise UserError("out of memory for security associations and policies")
            for index in self._numbers:
                self._reserve(index, first=True)
        except BaseException:
            self._give_free()
            raise

    # ---- what C needs ----

    def _make(self, types: Any) -> Any:
        params = self._params
        selectors = params.selectors()
        config = ffi.new("hb_ipsec_config *")
        sa = ffi.new("hb_ipsec_sa[]", [self._sa(i, types) for i in range(len(params.sas))])
        selector = ffi.new("hb_ipsec_selector[]", [self._selector(*one) for one in selectors])
        config.sa, config.sas = sa, len(params.sas)
        config.selector, config.selectors = selector, len(selectors)
        config.policies = len(params.policies)
        config.mtu = params.mtu
        icmp = params.icmp
        config.icmp_type = types[icmp.type] if icmp.type is not None else -1
        config.icmp_rate = icmp.rate
        config.icmp_source = _address(icmp.source)
        config.icmp_source6 = _address(icmp.source6)
        return lib.hb_ipsec_new(config)

    def _sa(self, index: int, types: Any) -> dict[str, Any]:
        sa = list(self._params.sas.values())[index]
        return {
            "spi": sa.spi,
            "outbound": sa.outbound,
            "src": _address(sa.src),
            "dst": _address(sa.dst),
            "udp": sa.udp.dst if sa.udp else 0,
            "window": sa.window,
            "most": sa.most(self._params.mtu),
            "transport": sa.mode == "transport",
            "type": types[sa.type] if sa.type is not None else -1,
            "next": self._numbers[index].file.next if sa.outbound else 0,
        }

    def _selector(self, policy: int, selector: Selector) -> dict[str, Any]:
        action = self._params.policies[policy].action
        actions = {BYPASS: lib.HB_IPSEC_BYPASS, DISCARD: lib.HB_IPSEC_DISCARD}
        return selector.native() | {
            "action": actions[action] if action in actions else self._params.names.index(action),
            "policy": policy,
        }

    # ---- sequence numbers ----

    def poll(self) -> None:
        """Reserve numbers where they get scarce; look for what an operator has to know."""
        due = ffi.new(f"uint32_t[{DUE}]")
        for i in range(lib.hb_ipsec_due(self.pointer, due, DUE)):
            self._reserve(int(due[i]))
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            self._look()

    def _reserve(self, index: int, first: bool = False) -> None:
        """Let the data plane go on with an association, once the disk knows of it."""
        numbers = self._numbers[index]
        at = int(lib.hb_ipsec_next(self.pointer, index))
        if at >= END:
            self._say(numbers, "exhausted")
            lib.hb_ipsec_set_limit(self.pointer, index, END, (1 << 64) - 1)  # asked no more
            return
        if numbers.limit >= END:
            return
        if at >= NEARLY:
            self._say(numbers, "nearly")
        limit = min(at + numbers.block(time.monotonic()), END)
        try:
            numbers.file.reserve(limit)
        except OSError as error:
            if first:
                raise UserError(
                    f"cannot keep the sequence numbers of {numbers.label}: {error.strerror}",
                    path=numbers.file.path,
                    fix="make room on that disk",
                ) from None
            self._say(numbers, "unsaved", str(error.strerror))
            return
        numbers.limit = limit
        low = END if limit == END else limit - (limit - at) // 2
        lib.hb_ipsec_set_limit(self.pointer, index, limit, low)

    def _say(self, numbers: _Numbers, what: str, detail: str = "") -> None:
        """Once."""
        if (numbers.label, what) in self._told:
            return
        self._told.add((numbers.label, what))
        text, fix = _SEQUENCE_EVENTS[what]
        text = text.format(label=numbers.label, detail=detail)
        say = logs.warning if what == "nearly" else logs.error
        say(f"sequence_{what}", text, fix=fix, subject=numbers.label)

    # ---- counters ----

    def _look(self) -> None:
        if len(self._told) >= 2 * len(self._params.sas) + 16:
            return
        for index, (name, sa) in enumerate(self._params.sas.items()):
            if sa.outbound:
                continue
            counts = self._counts(index)
            for what, (text, fix) in _EVENTS.items():
                if counts[what] and (name, what) not in self._told:
                    self._told.add((name, what))
                    text = f"{self._name}: {name}: {text}"
                    logs.warning(f"ipsec_{what}", text, fix=fix, subject=f"{self._name} {name}")

    def _counts(self, index: int) -> dict[str, int]:
        counts = ffi.new("hb_ipsec_counts *")
        lib.hb_ipsec_count(self.pointer, index, counts)
        return {name: int(getattr(counts, name)) for name in _COUNTS}

    def report(self) -> dict[str, Any]:
        """Counters of each association and policy, and of what belongs to none."""
        if self.pointer == ffi.NULL:
            return {}
        totals = ffi.new("hb_ipsec_totals *")
        lib.hb_ipsec_total(self.pointer, totals)
        sas = {}
        for index, (name, sa) in enumerate(self._params.sas.items()):
            counts = self._counts(index)
            sas[name] = {key: counts[key] for key in (_OUT if sa.outbound else _IN)}
        return {
            "sas": sas,
            "policies": [
                {
                    "action": policy.action,
                    "packets": int(lib.hb_ipsec_policy_hits(self.pointer, index)),
                }
                for index, policy in enumerate(self._params.policies)
            ],
            **{name: int(getattr(totals, name)) for name in _TOTALS},
        }

    def close(self) -> None:
        """Note down where to go on."""
        self._look()
        self._give_free()

    def _give_free(self) -> None:
        for index, numbers in self._numbers.items():
            exact = None
            if numbers.limit:  # else it never gave any out
                exact = int(lib.hb_ipsec_next(self.pointer, index))
            try:
                numbers.file.close(exact)
            except OSError as error:  # the block is used up then, no more
                self._say(numbers, "unsaved", str(error.strerror))
        self._numbers = {}


_SEQUENCE_EVENTS = {
    "exhausted": (
        "{label} has used all its sequence numbers and sends nothing any more",
        "give both ends new keys",
    ),
    "nearly": (
        "{label} has used 15 of 16 parts of its sequence numbers",
        "give both ends new keys",
    ),
    "unsaved": (
        "cannot keep the sequence numbers of {label}: {detail}; it stops when the reserved ones "
        "are used up",
        "make room on the disk of /var/lib/hummingbird",
    ),
}


class _Numbers:
    """What is reserved of an outbound association's sequence numbers."""

    def __init__(self, file: SequenceFile, label: str) -> None:
        self.file = file
        self.label = label
        self.limit = 0
        """Numbers below it are reserved; 0: none yet."""
        self._block = LEAST_BLOCK
        self._at = 0.0

    def block(self, now: float) -> int:
        """How many to reserve now."""
        fast = self._at and now - self._at < FAST_S
        self._block = min(2 * self._block, MOST_BLOCK) if fast else LEAST_BLOCK
        self._at = now
        return self._block


def _address(address: IPv4Address | IPv6Address | None) -> list[int]:
    """16 bytes, IPv4 as ::ffff:a.b.c.d; none: all 0."""
    if address is None:
        return [0] * 16
    mapped = b"\0" * 10 + b"\xff\xff" if isinstance(address, IPv4Address) else b""
    return list(mapped + address.packed)
