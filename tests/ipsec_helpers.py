# SPDX-License-Identifier: BSD-3-Clause
"""Security associations for the tests of ipsec: ours, and scapy's with the same keys."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

import nf_helpers as nf
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation

from hummingbird.nfs.ipsec_table import AUTHS, CIPHERS, Sa, make_table

SRC, DST = "192.0.2.9", "192.0.2.1"
TUNNEL = (IPv4Address(SRC), IPv4Address(DST))
SPI = 0x1F2E3D4C
HEAD, TAIL = 52, 33  # what ipsec declares to add at most
ENCAPSULATE, DECAPSULATE, BYPASS = 1, 2, 3
SUITES = [
    *((f"aes-{bits}-cbc", auth) for bits in (128, 192, 256) for auth in AUTHS if auth != "none"),
    ("aes-128-gcm", "none"),
    ("aes-256-gcm", "none"),
    ("null", "hmac-sha1-96"),
    ("null", "hmac-sha2-256-128"),
]
_SCAPY_CIPHER = {"cbc": "AES-CBC", "gcm": "AES-GCM", "null": "NULL"}
_SCAPY_AUTH = {
    "hmac-sha1-96": "HMAC-SHA1-96",
    "hmac-sha2-256-128": "SHA2-256-128",
    "none": "NULL",
}


def sa(
    cipher: str = "aes-128-cbc",
    auth: str = "hmac-sha1-96",
    outbound: bool = True,
    tunnel: tuple[IPv4Address, IPv4Address] | None = TUNNEL,
    udp: tuple[int, int] | None = None,
    key: bytes | None = None,
    auth_key: bytes | None = None,
    spi: int = SPI,
) -> Sa:
    """An SA with keys that are as good as any."""
    if key is None:
        key = bytes(range(1, 1 + CIPHERS[cipher]))
    if auth_key is None:
        auth_key = bytes(range(101, 101 + AUTHS[auth]))
    return Sa("sa", spi, outbound, tunnel, cipher, key, auth, auth_key, udp, bytes(range(16)))


def scapy_sa(of: Sa) -> SecurityAssociation:
    """The same SA for scapy."""
    header = IP(src=str(of.tunnel[0]), dst=str(of.tunnel[1])) if of.tunnel else None
    return SecurityAssociation(
        ESP,
        spi=of.spi,
        crypt_algo=_SCAPY_CIPHER[of.cipher.rpartition("-")[2]],
        crypt_key=of.key,
        auth_algo=_SCAPY_AUTH[of.auth],
        auth_key=of.auth_key,
        tunnel_header=header,
        nat_t_header=UDP(sport=of.udp[0], dport=of.udp[1]) if of.udp else None,
    )


def arg(operation: int, sequence: int = 0, index: int = 0) -> int:
    """What prepare() tells the packet function."""
    return operation << 48 | index << 32 | sequence


def region(sas: Sequence[Sa] | Sa) -> nf.Array:
    """A tables region with these SAs."""
    return nf.region(4, make_table([sas] if isinstance(sas, Sa) else sas))


def sealed(of: Sa, packets: Sequence[bytes], first: int = 1) -> list[nf.Answer]:
    """Encapsulate with sequence numbers from ``first`` on."""
    args = [arg(ENCAPSULATE, first + i) for i in range(len(packets))]
    return nf.run(region(of), packets, args, HEAD, TAIL)


def opened(of: Sa, packets: Sequence[bytes]) -> list[nf.Answer]:
    """Decapsulate."""
    return nf.run(region(of), packets, [arg(DECAPSULATE)] * len(packets), HEAD, TAIL)


def reverse(of: Sa) -> Sa:
    """The other end of the SA."""
    return Sa(
        of.name,
        of.spi,
        not of.outbound,
        of.tunnel,
        of.cipher,
        of.key,
        of.auth,
        of.auth_key,
        of.udp,
        of.secret,
    )
