# SPDX-License-Identifier: BSD-3-Clause
"""ipsec: one end of an ESP tunnel, the sending one (RFC 4303; AES-128-CBC, RFC 3602; HMAC-SHA1-96,
RFC 2404). Builds the table that ``cl_kernels/nf/ipsec.cl`` describes from the keys."""

from __future__ import annotations

import hmac
import logging
import os
import re
import stat
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hummingbird.errors import UserError
from hummingbird.nfs import Affinity, BuildContext, Nf, NfParams, NfTable, Reads, Writes

log = logging.getLogger(__name__)


class Tunnel(NfParams):
    """Addresses of the outer header."""

    src: IPv4Address
    dst: IPv4Address


class IpsecParams(NfParams):
    """Parameters of ``type: ipsec``, one security association."""

    spi: int = Field(ge=256, le=0xFFFFFFFF)
    """Security parameters index; up to 255 they are reserved (RFC 4303 section 2.1)."""
    tunnel: Tunnel
    key_file: Path


@dataclass(frozen=True)
class Keys:
    """The SA's keys; never shown."""

    encryption: bytes = field(repr=False)
    authentication: bytes = field(repr=False)


def build(params: IpsecParams, context: BuildContext) -> NfTable:
    """Read the keys and compute everything that does not depend on a packet."""
    keys = read_keys(context.base / params.key_file)
    return NfTable(make_table(params, keys, os.urandom(16)))


# ---- the key file --------------------------------------------------------------------------------

_SIZES = {"encryption": 16, "authentication": 20}
_FORM = "encryption: <32 hex digits>, then authentication: <40 hex digits>"


def read_keys(path: Path) -> Keys:
    """Read the key file. What stands in it never gets into a message."""
    if not path.exists():
        raise UserError(f"there is no key file {path}", path=path, fix=_make_keys(path))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError):
        raise UserError("the key file cannot be read as text", path=path, fix=_FORM) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("others may read the keys in %s; chmod 600 it", path)
    found: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, _, digits = (part.strip() for part in text.partition(":"))
        if name not in _SIZES or name in found:
            what = "given twice" if name in found else "no key's name in front of a colon"
            raise UserError(what, path=path, line=number, fix=_FORM)
        size = _SIZES[name]
        if not re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", digits):
            raise UserError(
                f"the {name} key is not {2 * size} hex digits", path=path, line=number, fix=_FORM
            )
        found[name] = bytes.fromhex(digits)
    for name in _SIZES.keys() - found.keys():
        raise UserError(f"no {name} key", path=path, fix=_FORM)
    return Keys(**found)


def _make_keys(path: Path) -> str:
    """The shell command that draws new keys."""
    draw = "$(head -c {} /dev/urandom | od -An -v -tx1 | tr -d ' \\n')"
    return (
        f"(umask 077; printf 'encryption: %s\\nauthentication: %s\\n' "
        f'"{draw.format(16)}" "{draw.format(20)}" >{path})'
    )


# ---- the table -----------------------------------------------------------------------------------


def make_table(params: IpsecParams, keys: Keys, random: bytes) -> npt.NDArray[np.uint8]:
    """Lay out the table. ``random`` is drawn at each start.

    Initialisation vectors are sequence numbers under a key of their own. Sequence numbers start
    at 1 again after a restart; without fresh randomness in that key the IVs would repeat under
    the same encryption key, and equal packets would show (RFC 3602 section 2).
    """
    secret = keys.encryption + keys.authentication + random
    derived = hmac.digest(secret, b"hummingbird ESP IV", "sha256")
    pad = [
        bytes(byte ^ key for key in keys.authentication.ljust(64, b"\0")) for byte in (0x36, 0x5C)
    ]
    words = [params.spi, int(params.tunnel.src), int(params.tunnel.dst)]
    words += _words(derived[16:24])
    words += _sha1_block(pad[0]) + _sha1_block(pad[1]) + [0]
    words += _expand(keys.encryption) + _expand(derived[:16])
    words += _te0()
    return np.array(words, dtype=np.uint32).view(np.uint8)


def _words(data: bytes) -> list[int]:
    """Big-endian 32-bit words."""
    return [int.from_bytes(data[i : i + 4], "big") for i in range(0, len(data), 4)]


def _rotate(word: int, left: int) -> int:
    return (word << left | word >> (32 - left)) & 0xFFFFFFFF


def _sha1_block(block: bytes) -> list[int]:
    """SHA-1's state behind its first block (FIPS 180-4 section 6.1.2); hashlib does not show it."""
    start = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0]
    w = _words(block)
    for i in range(16, 80):
        w.append(_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1))
    a, b, c, d, e = start
    for i in range(80):
        f, k = (
            (b & c | ~b & d, 0x5A827999),
            (b ^ c ^ d, 0x6ED9EBA1),
            (b & c | b & d | c & d, 0x8F1BBCDC),
            (b ^ c ^ d, 0xCA62C1D6),
        )[i // 20]
        a, b, c, d, e = (_rotate(a, 5) + f + e + k + w[i]) & 0xFFFFFFFF, a, _rotate(b, 30), c, d
    return [(x + y) & 0xFFFFFFFF for x, y in zip(start, (a, b, c, d, e), strict=True)]


def _double(byte: int) -> int:
    """Times 2 in AES's field (FIPS 197 section 4.2)."""
    return (byte << 1) ^ (0x11B if byte & 0x80 else 0)


def _sbox() -> list[int]:
    """The S-box (FIPS 197 section 5.1.1), by powers of the generator 3 and of its inverse."""
    powers = [1]
    for _ in range(254):
        powers.append(powers[-1] ^ _double(powers[-1]))
    sbox = [0x63] * 256
    for i, value in enumerate(powers):
        inverse = powers[-i % 255] * 0x101  # twice side by side, so that a shift rotates
        sbox[value] = 0x63 ^ (
            (inverse ^ inverse >> 4 ^ inverse >> 5 ^ inverse >> 6 ^ inverse >> 7) & 0xFF
        )
    return sbox


_SBOX = _sbox()


def _te0() -> list[int]:
    """SubBytes and MixColumns for a byte in the first row: 2s, s, s, 3s."""
    return [_double(s) << 24 | s << 16 | s << 8 | _double(s) ^ s for s in _SBOX]


def _expand(key: bytes) -> list[int]:
    """The 44 round key words of AES-128 (FIPS 197 section 5.2)."""
    w = _words(key)
    constant = 1
    for i in range(4, 44):
        word = w[i - 1]
        if i % 4 == 0:
            rotated = _rotate(word, 8).to_bytes(4, "big")
            word = _words(bytes(_SBOX[byte] for byte in rotated))[0] ^ constant << 24
            constant = _double(constant)
        w.append(w[i - 4] ^ word)
    return w


NF = Nf(
    name="ipsec",
    kind=4,
    params=IpsecParams,
    build=build,
    reads=Reads.PACKET,
    writes=Writes.PACKET,
    head=20 + 8 + 16,  # outer header, SPI and sequence number, IV
    tail=15 + 2 + 12,  # most padding, trailer, ICV
    affinity=Affinity.KEY,  # sequence numbers go out in order
)
