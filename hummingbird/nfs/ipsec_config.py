# SPDX-License-Identifier: BSD-3-Clause
"""What a topology says about ``type: ipsec``: security associations and security policies.

    sas:
      to-hub: {direction: out, spi: 0x1001, src: 198.51.100.1, dst: 192.0.2.1,
               cipher: aes-128-gcm, key_file: to-hub.key}
      from-hub: {direction: in, spi: 0x2001, ...}
    policies:
      - {dst: 10.2.0.0/16, action: to-hub}
      - {src: 10.2.0.0/16, action: from-hub}
      - {protocol: udp, port: 500, action: bypass}

docs/ipsec.md describes it to those who write one.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from hummingbird.nfs import NfParams
from hummingbird.ports import Whole, mistake
from hummingbird.rules import ANY_ADDRESS, Prefix, Selector, SelectorParams
from hummingbird.textfile import NAME, NAME_RULE, quoted, suggest

BYPASS, DISCARD = "bypass", "discard"
MAX_SELECTORS = 65536
"""Entries that all policies together become."""
LEAST_MTU, MOST_MTU = 576, 3712  # what any host takes (RFC 791); what a frame can have room for


class Cipher(NamedTuple):
    """What a cipher needs of its key file, and adds to a packet."""

    key: int
    """Bytes; with AES-GCM the 4 bytes of salt behind the key included (RFC 4106 section 8.1)."""
    iv: int
    """Bytes in front of what is encrypted."""
    block: int
    """What is encrypted is a multiple of this long."""
    icv: int
    """Bytes of its own integrity check value; 0: needs `auth`."""


class Auth(NamedTuple):
    """The same of an authentication algorithm."""

    key: int
    icv: int


CIPHERS = {
    "aes-128-cbc": Cipher(16, 16, 16, 0),
    "aes-192-cbc": Cipher(24, 16, 16, 0),
    "aes-256-cbc": Cipher(32, 16, 16, 0),
    "aes-128-gcm": Cipher(16 + 4, 8, 4, 16),
    "aes-256-gcm": Cipher(32 + 4, 8, 4, 16),
    "null": Cipher(0, 0, 4, 0),
}
AUTHS = {
    "hmac-sha1-96": Auth(20, 12),
    "hmac-sha2-256-128": Auth(32, 16),
    "none": Auth(0, 0),
}


def mistakes_at(place: tuple[str | int, ...], what: str, fix: str) -> ValidationError:
    """A mistake at a place within what is validated: pydantic puts it behind the place of that."""
    details = InitErrorDetails(type=mistake(what, fix), loc=place, input=None)
    return ValidationError.from_exception_data("ipsec", [details])


# ---- security associations -----------------------------------------------------------------------


def _sa_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise mistake(f"{quoted(name)} is no name", f"write {NAME_RULE}")
    if name in (BYPASS, DISCARD):
        raise mistake(f"{name!r} is what a policy does, not a name", "choose another name")
    return name


def _cipher(value: Any) -> Any:
    if value is None:
        raise mistake("no cipher stands here", f"write one of: {', '.join(list(CIPHERS)[:-1])}")
    return value


class UdpPorts(NfParams):
    """Ports of ESP in UDP (RFC 3948)."""

    src: Annotated[Whole, Field(ge=1, le=65535)]
    """Source port."""
    dst: Annotated[Whole, Field(ge=1, le=65535)]
    """Destination port."""


def _udp_ports(value: Any) -> Any:
    return {"src": value, "dst": value} if isinstance(value, int) else value


class SaParams(NfParams):
    """A security association."""

    direction: Literal["in", "out"]
    """``out``: encapsulates; ``in``: decapsulates."""
    spi: Annotated[Whole, Field(ge=256, le=0xFFFFFFFF)]
    """Security parameters index; those up to 255 are reserved (RFC 4303 section 2.1)."""
    mode: Literal["tunnel", "transport"] = "tunnel"
    """``transport``: between the two hosts ``src`` and ``dst`` themselves."""
    src: IPv4Address
    """Source of the outer header; in transport mode of the packets themselves."""
    dst: IPv4Address
    """Destination likewise."""
    cipher: Annotated[
        Literal["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "aes-128-gcm", "aes-256-gcm", "null"],
        BeforeValidator(_cipher),
    ]
    """What encrypts."""
    auth: Literal["hmac-sha1-96", "hmac-sha2-256-128", "none"] = "none"
    """What authenticates; AES-GCM does it by itself."""
    key_file: Path
    """File with the keys, which its owner alone may read."""
    udp: Annotated[UdpPorts | None, BeforeValidator(_udp_ports)] = None
    """ESP in UDP (RFC 3948): a port, or source and destination port."""
    replay_window: Annotated[Whole, Field(ge=64, le=4096)] | None = None
    """Packets, inbound only; left out: 1,024."""
    allow_null: bool = False
    """The cipher "null" is meant: nothing is encrypted."""
    type: str | None = None
    """Packet type that its packets get."""

    @model_validator(mode="after")
    def _fits_together(self) -> SaParams:
        if CIPHERS[self.cipher].icv and self.auth != "none":
            what = f"{self.cipher} authenticates by itself"
            raise mistakes_at(("auth",), what, "remove auth")
        if not CIPHERS[self.cipher].icv and self.auth == "none":
            what = f"{self.cipher} does not authenticate, and without that it can be forged"
            raise mistakes_at(("auth",), what, "add 'auth: hmac-sha2-256-128'")
        if self.cipher == "null" and not self.allow_null:
            what = "the cipher null encrypts nothing: everybody on the way can read the packets"
            fix = "write a cipher such as aes-128-gcm; for tests only, add 'allow_null: true'"
            raise mistakes_at(("cipher",), what, fix)
        if self.allow_null and self.cipher != "null":
            raise mistakes_at(("allow_null",), f"{self.cipher} does encrypt", "remove allow_null")
        if self.replay_window is not None and self.outbound:
            what = "an outbound security association has no replay window"
            raise mistakes_at(("replay_window",), what, "remove it; the receiver has one")
        return self

    @property
    def outbound(self) -> bool:
        """Its packets are encapsulated here."""
        return self.direction == "out"

    @property
    def window(self) -> int:
        """Packets of the replay window."""
        return 1024 if self.replay_window is None else self.replay_window

    @property
    def overhead(self) -> int:
        """Bytes that it adds to a packet before padding: headers, IV, trailer, ICV."""
        cipher, auth = CIPHERS[self.cipher], AUTHS[self.auth]
        outer = 20 if self.mode == "tunnel" else 0
        return outer + 8 * (self.udp is not None) + 8 + cipher.iv + 2 + cipher.icv + auth.icv

    def most(self, mtu: int) -> int:
        """The longest packet (its IP header included) that fits `mtu` once it is encapsulated."""
        plain = 0 if self.mode == "tunnel" else 20  # an IPv4 header that stays in front
        block = CIPHERS[self.cipher].block
        room = mtu - (self.overhead - 2) - plain
        return room // block * block - 2 + plain


# ---- security policies ---------------------------------------------------------------------------


class PolicyParams(SelectorParams):
    """A security policy: what is done with the packets that all of its fields match."""

    WHAT = ("policy", "policies")
    MOST = MAX_SELECTORS

    action: str
    """Name of a security association, ``bypass`` or ``discard``."""


def _host(address: IPv4Address) -> Prefix:
    return Prefix(b"\0" * 10 + b"\xff\xff" + address.packed, 128)


# ---- the whole -----------------------------------------------------------------------------------


class IcmpParams(NfParams):
    """Who tells the sender that a packet is too big, and how often."""

    source: IPv4Address | None = None
    """Address that ICMP errors come from; left out: that of the security association."""
    source6: IPv6Address | None = None
    """Likewise of ICMPv6; left out: there are none."""
    type: str | None = None
    """Packet type that errors get; left out: that of the packet they are about."""
    rate: Annotated[Whole, Field(ge=0, le=1_000_000)] = 100
    """Errors per second at most; 0: none."""


SaName = Annotated[str, AfterValidator(_sa_name)]


class IpsecParams(NfParams):
    """Parameters of ``type: ipsec``."""

    sas: Annotated[dict[SaName, SaParams], Field(min_length=1, max_length=65535)]
    """Security associations by name."""
    policies: Annotated[tuple[PolicyParams, ...], Field(min_length=1)]
    """In order, and the first that a packet matches decides; what none matches is discarded
    (RFC 4301)."""
    mtu: Annotated[Whole, Field(ge=LEAST_MTU, le=MOST_MTU)] = 1500
    """Bytes of an IP packet that the way of encapsulated packets takes."""
    icmp: IcmpParams = IcmpParams()
    """Who tells a sender that its packets are too big."""

    @model_validator(mode="after")
    def _fits_together(self) -> IpsecParams:
        self._check_spis()
        for index, policy in enumerate(self.policies):
            self._check_policy(("policies", index), policy)
        used = {policy.action for policy in self.policies}
        for name in self.sas:
            if name not in used:
                what = f"no policy names the security association {name}: nothing could use it"
                raise mistakes_at(("sas", name), what, f"add a policy with 'action: {name}'")
        if sum(policy.count for policy in self.policies) > MAX_SELECTORS:
            what = "the lists of these policies have too many combinations"
            raise mistakes_at(("policies",), what, f"write at most {MAX_SELECTORS}")
        return self

    def _check_spis(self) -> None:
        seen: dict[tuple[Any, ...], str] = {}
        for name, sa in self.sas.items():
            key = (sa.direction, sa.spi, sa.dst)
            first = seen.setdefault(key, name)
            if first != name:
                what = f"{first} goes to {sa.dst} with this SPI, too"
                raise mistakes_at(("sas", name, "spi"), what, "give one of the two another SPI")

    def _check_policy(self, place: tuple[str | int, ...], policy: PolicyParams) -> None:
        if policy.action in (BYPASS, DISCARD):
            return
        sa = self.sas.get(policy.action)
        if sa is None:
            what = f"there is no security association {quoted(policy.action)}"
            fix = suggest(policy.action, [*self.sas, BYPASS, DISCARD])
            raise mistakes_at((*place, "action"), what, fix)
        if sa.mode == "tunnel":
            return
        for field, address in (("src", sa.src), ("dst", sa.dst)):
            if getattr(policy, field) not in ((ANY_ADDRESS,), (_host(address),)):
                what = f"{policy.action} is in transport mode: its packets have {field} {address}"
                raise mistakes_at((*place, field), what, f"write {address}, or remove it")

    @property
    def names(self) -> list[str]:
        """The security associations; a number is an index into these."""
        return list(self.sas)

    def selectors(self) -> list[tuple[int, Selector]]:
        """What the data plane matches, in order: number of the policy, and one of its selectors."""
        return [
            (index, selector)
            for index, policy in enumerate(self.policies)
            for selector in self._confined(policy).selectors()
        ]

    def _confined(self, policy: PolicyParams) -> PolicyParams:
        """Transport mode is between two hosts: whatever their policies leave open."""
        sa = self.sas.get(policy.action)
        if sa is None or sa.mode == "tunnel":
            return policy
        return policy.model_copy(update={"src": (_host(sa.src),), "dst": (_host(sa.dst),)})

    def content_types(self) -> list[str]:
        """Packet types that it gives to packets."""
        given = [self.icmp.type, *(sa.type for sa in self.sas.values())]
        return list(dict.fromkeys(name for name in given if name is not None))
