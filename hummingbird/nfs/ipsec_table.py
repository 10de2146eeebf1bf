# SPDX-License-Identifier: BSD-3-Clause
"""The table of ``ipsec``: security associations, with everything worked out that does not depend on
a packet. ``cl_kernels/nf/ipsec_table.h`` describes the layout."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import numpy as np
import numpy.typing as npt

from hummingbird.nfs import NfTable
from hummingbird.nfs.ipsec_crypto import (
    Bytes,
    Words,
    aes_blocks,
    aes_decryption_keys,
    aes_encryption_keys,
    aes_tables,
    sha1_states,
    sha256_states,
)

CIPHERS = {
    "aes-128-cbc": 16,
    "aes-192-cbc": 24,
    "aes-256-cbc": 32,
    "aes-128-gcm": 20,
    "aes-256-gcm": 36,
    "null": 0,
}
"""Bytes of an SA's ``key``; GCM's ends with 4 bytes of salt (RFC 4106 section 8.1)."""
AUTHS = {"hmac-sha1-96": 20, "hmac-sha2-256-128": 32, "none": 0}
"""Bytes of an SA's ``auth_key`` in use between peers (RFC 2404, RFC 4868). Any length works."""
MOST_SAS = 65_535

# As in cl_kernels/nf/ipsec_table.h; tests/test_nf_ipsec.py compares them.
HEAD_BYTES = 3200
LOCAL_BYTES = 3072
SA = np.dtype(
    [
        ("cipher", "u1"),
        ("rounds", "u1"),
        ("auth", "u1"),
        ("flags", "u1"),
        ("spi", "u4"),
        ("src", "u4"),
        ("dst", "u4"),
        ("ports", "u4"),
        ("salt", "u1", 4),
        ("iv_salt", "u1", 8),
        ("inner", "u4", 8),
        ("outer", "u4", 8),
        ("hash_key", "u1", 16),
        ("key", "u1", (15, 16)),
        ("iv_key", "u1", (11, 16)),
        ("unused", "u4", 28),
    ]
)
INBOUND, TUNNEL, UDP = 1, 2, 4
_CIPHER = {"null": 0, "cbc": 1, "gcm": 2}
_AUTH = {"none": 0, "hmac-sha1-96": 1, "hmac-sha2-256-128": 2}


@dataclass(frozen=True)
class Sa:
    """One security association: one direction between two gateways or hosts."""

    name: str
    spi: int
    """Security parameters index; up to 255 they are reserved (RFC 4303 section 2.1)."""
    outbound: bool
    tunnel: tuple[IPv4Address, IPv4Address] | None
    """Source and destination of the outer header; None: transport mode."""
    cipher: str
    """One of CIPHERS."""
    key: bytes = field(repr=False)
    auth: str
    """One of AUTHS. ``none`` is meant for GCM; with CBC nothing vouches for a packet."""
    auth_key: bytes = field(repr=False)
    udp: tuple[int, int] | None = None
    """Source and destination port where ESP goes inside UDP (RFC 3948)."""
    secret: bytes = field(repr=False, default=bytes(16))
    """Drawn at each start; makes the key for initialisation vectors of CBC."""


def make_table(sas: Sequence[Sa]) -> NfTable:
    """Lay out the table; SA i of the list is number i for the packet function.

    Initialisation vectors of CBC are sequence numbers under a key of their own (RFC 3602 section 2
    wants them unpredictable). Its ``secret`` is drawn at each start, so they differ even if an SA
    should start at 1 again.

    Raises:
        ValueError: an SA that nobody should have let through.
    """
    if len(sas) > MOST_SAS:
        raise ValueError(f"{len(sas)} SAs, at most {MOST_SAS}")
    records = np.zeros(len(sas), SA)
    for record, sa in zip(records, sas, strict=True):
        _fill_in(record, sa)
    _fill_keys(records, sas)
    _fill_iv_keys(records, sas)
    _fill_hmac(records, sas)
    head = np.zeros(HEAD_BYTES, np.uint8)
    tables = aes_tables().view(np.uint8)
    head[: tables.size] = tables
    head[LOCAL_BYTES : LOCAL_BYTES + 4] = np.array([len(sas)], np.uint32).view(np.uint8)
    data = np.concatenate([head, records.view(np.uint8)])
    return NfTable(data, local_bytes=LOCAL_BYTES)


def _fill_in(record: Any, sa: Sa) -> None:
    if len(sa.key) != CIPHERS[sa.cipher]:
        raise ValueError(f"SA {sa.name}: {len(sa.key)} bytes of key for {sa.cipher}")
    gcm = sa.cipher.endswith("gcm")
    if gcm and sa.auth != "none":
        raise ValueError(f"SA {sa.name}: {sa.cipher} authenticates by itself")
    record["cipher"] = _CIPHER[sa.cipher.rpartition("-")[2]]
    record["rounds"] = 6 + len(_aes_key(sa)) // 4 if sa.key else 0
    record["auth"] = _AUTH[sa.auth]
    record["flags"] = (
        (0 if sa.outbound else INBOUND)
        | (TUNNEL if sa.tunnel is not None else 0)
        | (UDP if sa.udp is not None else 0)
    )
    record["spi"] = sa.spi
    if sa.tunnel is not None:
        record["src"], record["dst"] = map(int, sa.tunnel)
    if sa.udp is not None:
        record["ports"] = sa.udp[0] << 16 | sa.udp[1]
    if gcm:
        record["salt"] = np.frombuffer(sa.key[-4:], np.uint8)


def _aes_key(sa: Sa) -> bytes:
    return sa.key[:-4] if sa.cipher.endswith("gcm") else sa.key


def _fill_keys(records: npt.NDArray[Any], sas: Sequence[Sa]) -> None:
    """Round keys, for decryption where CBC needs that; GCM's hash key."""
    for size in (16, 24, 32):
        for backward in (False, True):
            at = [
                i
                for i, sa in enumerate(sas)
                if len(_aes_key(sa)) == size
                and (sa.cipher.endswith("cbc") and not sa.outbound) is backward
            ]
            if not at:
                continue
            keys = aes_encryption_keys(_rows([_aes_key(sas[i]) for i in at]))
            hash_keys = aes_blocks(keys, np.zeros((len(at), 16), np.uint8))
            gcm = np.array([sas[i].cipher.endswith("gcm") for i in at])
            records["hash_key"][np.array(at)[gcm]] = hash_keys[gcm]
            records["key"][at, : keys.shape[1]] = aes_decryption_keys(keys) if backward else keys


def _fill_iv_keys(records: npt.NDArray[Any], sas: Sequence[Sa]) -> None:
    at = [i for i, sa in enumerate(sas) if sa.cipher.endswith("cbc") and sa.outbound]
    if not at:
        return
    derived = [
        hmac.digest(
            sas[i].key + sas[i].auth_key + sas[i].secret,
            b"hummingbird ESP IV " + sas[i].spi.to_bytes(4, "big"),
            "sha256",
        )
        for i in at
    ]
    records["iv_key"][at] = aes_encryption_keys(_rows([key[:16] for key in derived]))
    records["iv_salt"][at] = _rows([key[16:24] for key in derived])


def _fill_hmac(records: npt.NDArray[Any], sas: Sequence[Sa]) -> None:
    """The hash's states behind the inner and the outer block of the key (RFC 2104)."""
    kinds: list[tuple[str, str, Callable[[Bytes], Words]]] = [
        ("hmac-sha1-96", "sha1", sha1_states),
        ("hmac-sha2-256-128", "sha256", sha256_states),
    ]
    for auth, digest, states in kinds:
        at = [i for i, sa in enumerate(sas) if sa.auth == auth]
        if not at:
            continue
        keys = [sas[i].auth_key for i in at]
        keys = [hashlib.new(digest, key).digest() if len(key) > 64 else key for key in keys]
        blocks = _rows([key.ljust(64, b"\0") for key in keys])
        for name, byte in (("inner", 0x36), ("outer", 0x5C)):
            state = states(blocks ^ np.uint8(byte))
            records[name][at, : state.shape[1]] = state


def _rows(keys: Sequence[bytes]) -> Bytes:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)
