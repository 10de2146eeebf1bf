# SPDX-License-Identifier: BSD-3-Clause
"""Security associations for tests: as a topology has them, and as scapy, tshark and Linux want
them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chain import line
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation

from hummingbird.nfs.ipsec_config import AUTHS, CIPHERS
from hummingbird.nfs.ipsec_keys import Keys

LEFT, RIGHT = "192.0.2.1", "192.0.2.2"
"""Two gateways."""

SCAPY = {
    "aes-128-cbc": "AES-CBC",
    "aes-192-cbc": "AES-CBC",
    "aes-256-cbc": "AES-CBC",
    "aes-128-gcm": "AES-GCM",
    "aes-256-gcm": "AES-GCM",
    "null": "NULL",
    "hmac-sha1-96": "HMAC-SHA1-96",
    "hmac-sha2-256-128": "SHA2-256-128",
    "none": "NULL",
}
TSHARK = {
    "aes-128-cbc": "AES-CBC [RFC3602]",
    "aes-192-cbc": "AES-CBC [RFC3602]",
    "aes-256-cbc": "AES-CBC [RFC3602]",
    "aes-128-gcm": "AES-GCM with 16 octet ICV [RFC4106]",
    "aes-256-gcm": "AES-GCM with 16 octet ICV [RFC4106]",
    "hmac-sha1-96": "HMAC-SHA-1-96 [RFC2404]",
    "hmac-sha2-256-128": "HMAC-SHA-256-128 [RFC4868]",
    "none": "NULL",
}
XFRM = {
    "hmac-sha1-96": "auth-trunc hmac(sha1) {} 96",
    "hmac-sha2-256-128": "auth-trunc hmac(sha256) {} 128",
}
ALGORITHMS = [
    ("aes-128-cbc", "hmac-sha1-96"),
    ("aes-192-cbc", "hmac-sha2-256-128"),
    ("aes-256-cbc", "hmac-sha2-256-128"),
    ("aes-128-gcm", "none"),
    ("aes-256-gcm", "none"),
]


@dataclass(frozen=True)
class TestSa:
    """One direction between two gateways; keys are made from its SPI."""

    __test__ = False

    spi: int
    src: str = LEFT
    dst: str = RIGHT
    cipher: str = "aes-128-cbc"
    auth: str = "hmac-sha1-96"
    mode: str = "tunnel"
    udp: int | None = None

    @property
    def keys(self) -> Keys:
        """As in its key file."""
        stream = hashlib.shake_128(f"{self.spi} {self.cipher} {self.auth}".encode())
        size = CIPHERS[self.cipher].key
        drawn = stream.digest(size + AUTHS[self.auth].key)
        return Keys(drawn[:size], drawn[size:])

    @property
    def key_file(self) -> str:
        """Name of its key file."""
        return f"{self.spi}.key"

    def yaml(self, direction: str, **more: Any) -> dict[str, Any]:
        """As a topology has it."""
        fields: dict[str, Any] = {"direction": direction, "spi": self.spi}
        fields |= {"src": self.src, "dst": self.dst, "mode": self.mode}
        fields |= {"cipher": self.cipher, "key_file": self.key_file}
        if self.auth != "none":
            fields["auth"] = self.auth
        if self.udp is not None:
            fields["udp"] = self.udp
        if self.cipher == "null":
            fields["allow_null"] = True
        return fields | more

    def scapy(self) -> SecurityAssociation:
        """An independent implementation's."""
        tunnel = IP(src=self.src, dst=self.dst) if self.mode == "tunnel" else None
        return SecurityAssociation(
            ESP,
            spi=self.spi,
            crypt_algo=SCAPY[self.cipher],
            crypt_key=self.keys.encryption,
            auth_algo=SCAPY[self.auth],
            auth_key=self.keys.authentication or None,
            tunnel_header=tunnel,
            nat_t_header=UDP(sport=self.udp, dport=self.udp) if self.udp is not None else None,
        )

    def uat(self) -> str:
        """tshark's preference esp_sa."""
        key, auth = self.keys.encryption.hex(), self.keys.authentication.hex()
        names = f'"{TSHARK[self.cipher]}","0x{key}","{TSHARK[self.auth]}"'
        hmac_key = f"0x{auth}" if auth else ""
        ends = f'"IPv4","{self.src}","{self.dst}","0x{self.spi:08x}"'
        return f'{ends},{names},"{hmac_key}","32-bit"'

    def xfrm(self) -> str:
        """What `ip xfrm state add` takes."""
        head = f"src {self.src} dst {self.dst} proto esp spi {self.spi:#x} mode {self.mode}"
        key = "0x" + self.keys.encryption.hex()
        if self.cipher.endswith("gcm"):
            algorithms = f"aead rfc4106(gcm(aes)) {key} 128"
        else:
            auth = XFRM[self.auth].format("0x" + self.keys.authentication.hex())
            algorithms = f"{auth} enc cbc(aes) {key}"
        udp = f" encap espinudp {self.udp} {self.udp} 0.0.0.0" if self.udp is not None else ""
        return f"{head} replay-window 32 reqid {self.spi} {algorithms}{udp}"


def key_files(*sas: TestSa) -> dict[str, str]:
    """Their key files, by name."""
    files = {}
    for sa in sas:
        text = ""
        if sa.keys.encryption:
            text += f"encryption: {sa.keys.encryption.hex()}\n"
        if sa.keys.authentication:
            text += f"authentication: {sa.keys.authentication.hex()}\n"
        files[sa.key_file] = text
    return files


def ipsec(
    out: Mapping[str, TestSa] | None = None,
    into: Mapping[str, TestSa] | None = None,
    policies: Sequence[Mapping[str, Any]] | None = None,
    engine: str = "cpu",
    **more: Any,
) -> dict[str, Any]:
    """An NF with these security associations; by default every packet may use any of them."""
    sas = {name: sa.yaml("out") for name, sa in (out or {}).items()}
    sas |= {name: sa.yaml("in") for name, sa in (into or {}).items()}
    if policies is None:
        policies = [{"action": name} for name in sas]
    return {"type": "ipsec", "engine": engine, "sas": sas, "policies": list(policies), **more}


def through(*nfs: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """in0 -> nf0 -> ... -> out0, without a device unless an NF asks for one."""
    return line(*nfs)
