# SPDX-License-Identifier: BSD-3-Clause
"""Key expansion for ``ipsec``, many keys at a time: AES's round keys and tables (FIPS 197), the
states of SHA-1 and SHA-256 behind one block (FIPS 180-4), which hashlib does not show."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]

# ---- AES -----------------------------------------------------------------------------------------


def _double(byte: int) -> int:
    """Times 2 in AES's field (FIPS 197 section 4.2)."""
    return (byte << 1) ^ (0x11B if byte & 0x80 else 0)


def _times(factor: int) -> Bytes:
    """Each byte times a factor."""
    products = []
    for byte in range(256):
        product, power = 0, byte
        for bit in range(4):
            product ^= power if factor >> bit & 1 else 0
            power = _double(power)
        products.append(product)
    return np.array(products, np.uint8)


def _sbox() -> Bytes:
    """The S-box (FIPS 197 section 5.1.1), by powers of the generator 3 and of its inverse."""
    powers = [1]
    for _ in range(254):
        powers.append(powers[-1] ^ _double(powers[-1]))
    sbox = np.full(256, 0x63, np.uint8)
    for i, value in enumerate(powers):
        inverse = powers[-i % 255] * 0x101  # twice side by side, so that a shift rotates
        sbox[value] = 0x63 ^ (
            (inverse ^ inverse >> 4 ^ inverse >> 5 ^ inverse >> 6 ^ inverse >> 7) & 0xFF
        )
    return sbox


_SBOX = _sbox()
_INVERSE = np.argsort(_SBOX).astype(np.uint8)
_TIMES = {factor: _times(factor) for factor in (1, 2, 3, 9, 11, 13, 14)}
_MIX = (2, 1, 1, 3)  # a column of MixColumns, from the first row down
_UNMIX = (14, 9, 13, 11)
_SHIFT_ROWS = [(i + 4 * (i % 4)) % 16 for i in range(16)]


def aes_tables() -> Words:
    """Three tables of 256 words, each holding a column in memory order: SubBytes and MixColumns of
    a byte in the first row; their inverses; the inverse S-box in all four rows."""
    columns = [
        np.stack([_TIMES[factor][of] for factor in factors], axis=1)
        for of, factors in ((_SBOX, _MIX), (_INVERSE, _UNMIX), (_INVERSE, (1, 1, 1, 1)))
    ]
    return np.concatenate(columns).view(np.uint32).reshape(-1)


def aes_encryption_keys(keys: Bytes) -> Bytes:
    """[n, 16, 24 or 32] keys -> [n, rounds + 1, 16] round keys (FIPS 197 section 5.2)."""
    count, size = keys.shape
    length = size // 4
    words = np.zeros((count, 4 * (length + 7), 4), np.uint8)
    words[:, :length] = keys.reshape(count, length, 4)
    constant = 1
    for i in range(length, words.shape[1]):
        word = words[:, i - 1]
        if i % length == 0:
            word = _SBOX[np.roll(word, -1, axis=1)]
            word[:, 0] ^= constant
            constant = _double(constant)
        elif length > 6 and i % length == 4:
            word = _SBOX[word]
        words[:, i] = words[:, i - length] ^ word
    return words.reshape(count, -1, 16)


def aes_decryption_keys(keys: Bytes) -> Bytes:
    """For the equivalent inverse cipher (FIPS 197 section 5.3.5)."""
    back = keys[:, ::-1].copy()
    back[:, 1:-1] = _mixed(back[:, 1:-1], _UNMIX)
    return back


def aes_blocks(keys: Bytes, blocks: Bytes) -> Bytes:
    """Encrypt block i under round keys i."""
    state = blocks ^ keys[:, 0]
    for number in range(1, keys.shape[1]):
        state = _SBOX[state][:, _SHIFT_ROWS]
        if number < keys.shape[1] - 1:
            state = _mixed(state, _MIX)
        state = state ^ keys[:, number]
    return state


def _mixed(blocks: Bytes, factors: tuple[int, ...]) -> Bytes:
    """Each column multiplied by the matrix whose first column is ``factors``."""
    columns = blocks.reshape(*blocks.shape[:-1], 4, 4)
    mixed = np.zeros_like(columns)
    for row in range(4):
        for of in range(4):
            mixed[..., row] ^= _TIMES[factors[(row - of) % 4]][columns[..., of]]
    return mixed.reshape(blocks.shape)


# ---- SHA-1 and SHA-256 ---------------------------------------------------------------------------


def _left(words: Any, n: int) -> Any:
    return words << np.uint32(n) | words >> np.uint32(32 - n)


def _schedule(blocks: Bytes) -> list[Any]:
    """The 16 big-endian words of each block, word by word."""
    return list(blocks.view(">u4").astype(np.uint32).T)


def sha1_states(blocks: Bytes) -> Words:
    """[n, 64] first blocks -> [n, 5] states (FIPS 180-4 section 6.1.2)."""
    start = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0]
    w = _schedule(blocks)
    for i in range(16, 80):
        w.append(_left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1))
    first = [np.full(len(blocks), word, np.uint32) for word in start]
    a, b, c, d, e = first
    for i in range(80):
        f, k = (
            (b & c | ~b & d, 0x5A827999),
            (b ^ c ^ d, 0x6ED9EBA1),
            (b & c | b & d | c & d, 0x8F1BBCDC),
            (b ^ c ^ d, 0xCA62C1D6),
        )[i // 20]
        a, b, c, d, e = _left(a, 5) + f + e + np.uint32(k) + w[i], a, _left(b, 30), c, d
    return np.stack([x + y for x, y in zip(first, (a, b, c, d, e), strict=True)], axis=1)


_PRIMES = [n for n in range(2, 312) if all(n % m for m in range(2, isqrt(n) + 1))]


def _cube_root(number: int) -> int:
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


# The first 32 bits behind the point of the primes' square and cube roots (section 4.2.2, 5.3.3).
_SHA256_START = [isqrt(prime << 64) & 0xFFFFFFFF for prime in _PRIMES[:8]]
_SHA256_K = [_cube_root(prime << 96) & 0xFFFFFFFF for prime in _PRIMES]


def sha256_states(blocks: Bytes) -> Words:
    """[n, 64] first blocks -> [n, 8] states (FIPS 180-4 section 6.2.2)."""
    w = _schedule(blocks)
    for i in range(16, 64):
        x, y = w[i - 15], w[i - 2]
        s0 = _left(x, 25) ^ _left(x, 14) ^ x >> np.uint32(3)
        s1 = _left(y, 15) ^ _left(y, 13) ^ y >> np.uint32(10)
        w.append(w[i - 16] + s0 + w[i - 7] + s1)
    first = [np.full(len(blocks), word, np.uint32) for word in _SHA256_START]
    a, b, c, d, e, f, g, h = first
    for i in range(64):
        s1 = _left(e, 26) ^ _left(e, 21) ^ _left(e, 7)
        t = h + s1 + (e & f ^ ~e & g) + np.uint32(_SHA256_K[i]) + w[i]
        s0 = _left(a, 30) ^ _left(a, 19) ^ _left(a, 10)
        u = s0 + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = t + u, a, b, c, d + t, e, f, g
    last = (a, b, c, d, e, f, g, h)
    return np.stack([x + y for x, y in zip(first, last, strict=True)], axis=1)
