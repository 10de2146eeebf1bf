/* SPDX-License-Identifier: BSD-3-Clause */
/* ipsec_hash.h: HMAC-SHA1 and HMAC-SHA2-256 (RFC 2104, FIPS 180-4) over a part of a packet. */
#ifndef HB_IPSEC_HASH_H
#define HB_IPSEC_HASH_H
#include "nf/ipsec_aes.h"

/* State of a hash; SHA-1 uses five words. */
typedef struct {
    hb_u32 a, b, c, d, e, f, g, h;
} hb_hash;

/* Rounds are spelt out, so that w[] stays in registers on a GPU. */
#define HB_CHOOSE(b, c, d) (((b) & ((c) ^ (d))) ^ (d))
#define HB_PARITY(b, c, d) ((b) ^ (c) ^ (d))
#define HB_MAJORITY(b, c, d) (((b) & (c)) | ((d) & ((b) | (c))))

/* ---- SHA-1 ----------------------------------------------------------------------------------- */

#define HB_SHA1_FIRST(i) w[i]
#define HB_SHA1_NEXT(i)                                                                            \
    (x = w[((i) + 13) & 15] ^ w[((i) + 8) & 15] ^ w[((i) + 2) & 15] ^ w[15 & (i)],                 \
     w[15 & (i)] = HB_ROL(x, 1))
#define HB_SHA1_ROUND(a, b, c, d, e, f, k, word)                                                   \
    e += HB_ROL(a, 5) + f(b, c, d) + k + (word);                                                   \
    b = HB_ROL(b, 30);
#define HB_SHA1_FIVE(f, k, word, i)                                                                \
    HB_SHA1_ROUND(a, b, c, d, e, f, k, word(i))                                                    \
    HB_SHA1_ROUND(e, a, b, c, d, f, k, word((i) + 1))                                              \
    HB_SHA1_ROUND(d, e, a, b, c, f, k, word((i) + 2))                                              \
    HB_SHA1_ROUND(c, d, e, a, b, f, k, word((i) + 3))                                              \
    HB_SHA1_ROUND(b, c, d, e, a, f, k, word((i) + 4))
#define HB_SHA1_TWENTY(f, k, i)                                                                    \
    HB_SHA1_FIVE(f, k, HB_SHA1_NEXT, i)                                                            \
    HB_SHA1_FIVE(f, k, HB_SHA1_NEXT, (i) + 5)                                                      \
    HB_SHA1_FIVE(f, k, HB_SHA1_NEXT, (i) + 10)                                                     \
    HB_SHA1_FIVE(f, k, HB_SHA1_NEXT, (i) + 15)

/* The state behind one more block; w is used up. */
static inline hb_hash hb_sha1_block(hb_hash s, hb_u32 *w)
{
    hb_u32 a = s.a, b = s.b, c = s.c, d = s.d, e = s.e, x;
    HB_SHA1_FIVE(HB_CHOOSE, 0x5a827999u, HB_SHA1_FIRST, 0)
    HB_SHA1_FIVE(HB_CHOOSE, 0x5a827999u, HB_SHA1_FIRST, 5)
    HB_SHA1_FIVE(HB_CHOOSE, 0x5a827999u, HB_SHA1_FIRST, 10)
    HB_SHA1_ROUND(a, b, c, d, e, HB_CHOOSE, 0x5a827999u, HB_SHA1_FIRST(15))
    HB_SHA1_ROUND(e, a, b, c, d, HB_CHOOSE, 0x5a827999u, HB_SHA1_NEXT(16))
    HB_SHA1_ROUND(d, e, a, b, c, HB_CHOOSE, 0x5a827999u, HB_SHA1_NEXT(17))
    HB_SHA1_ROUND(c, d, e, a, b, HB_CHOOSE, 0x5a827999u, HB_SHA1_NEXT(18))
    HB_SHA1_ROUND(b, c, d, e, a, HB_CHOOSE, 0x5a827999u, HB_SHA1_NEXT(19))
    HB_SHA1_TWENTY(HB_PARITY, 0x6ed9eba1u, 20)
    HB_SHA1_TWENTY(HB_MAJORITY, 0x8f1bbcdcu, 40)
    HB_SHA1_TWENTY(HB_PARITY, 0xca62c1d6u, 60)
    s.a += a, s.b += b, s.c += c, s.d += d, s.e += e;
    return s;
}

/* ---- SHA-256 --------------------------------------------------------------------------------- */

#define HB_SHA256_FIRST(i) w[i]
#define HB_SHA256_NEXT(i)                                                                          \
    (x = w[((i) + 1) & 15], y = w[((i) + 14) & 15],                                                \
     w[15 & (i)] += (HB_ROL(x, 25) ^ HB_ROL(x, 14) ^ x >> 3) + w[((i) + 9) & 15] +                 \
                    (HB_ROL(y, 15) ^ HB_ROL(y, 13) ^ y >> 10))
#define HB_SHA256_ROUND(a, b, c, d, e, f, g, h, k, word)                                           \
    h += (HB_ROL(e, 26) ^ HB_ROL(e, 21) ^ HB_ROL(e, 7)) + HB_CHOOSE(e, f, g) + k + (word);         \
    d += h;                                                                                        \
    h += (HB_ROL(a, 30) ^ HB_ROL(a, 19) ^ HB_ROL(a, 10)) + HB_MAJORITY(a, b, c);
#define HB_SHA256_EIGHT(word, i, k0, k1, k2, k3, k4, k5, k6, k7)                                   \
    HB_SHA256_ROUND(a, b, c, d, e, f, g, h, k0, word(i))                                           \
    HB_SHA256_ROUND(h, a, b, c, d, e, f, g, k1, word((i) + 1))                                     \
    HB_SHA256_ROUND(g, h, a, b, c, d, e, f, k2, word((i) + 2))                                     \
    HB_SHA256_ROUND(f, g, h, a, b, c, d, e, k3, word((i) + 3))                                     \
    HB_SHA256_ROUND(e, f, g, h, a, b, c, d, k4, word((i) + 4))                                     \
    HB_SHA256_ROUND(d, e, f, g, h, a, b, c, k5, word((i) + 5))                                     \
    HB_SHA256_ROUND(c, d, e, f, g, h, a, b, k6, word((i) + 6))                                     \
    HB_SHA256_ROUND(b, c, d, e, f, g, h, a, k7, word((i) + 7))

static inline hb_hash hb_sha256_block(hb_hash s, hb_u32 *w)
{
    hb_u32 a = s.a, b = s.b, c = s.c, d = s.d, e = s.e, f = s.f, g = s.g, h = s.h, x, y;
    HB_SHA256_EIGHT(HB_SHA256_FIRST, 0, 0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u,
                    0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u)
    HB_SHA256_EIGHT(HB_SHA256_FIRST, 8, 0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u,
                    0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u)
    HB_SHA256_EIGHT(HB_SHA256_NEXT, 16, 0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu,
                    0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau)
    HB_SHA256_EIGHT(HB_SHA256_NEXT, 24, 0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u,
                    0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u)
    HB_SHA256_EIGHT(HB_SHA256_NEXT, 32, 0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u,
                    0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u)
    HB_SHA256_EIGHT(HB_SHA256_NEXT, 40, 0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u,
                    0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u)
    HB_SHA256_EIGHT(HB_SHA256_NEXT, 48, 0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u,
                    0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u)
    HB_SHA256_EIGHT(HB_SHA256_NEXT, 56, 0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u,
                    0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u)
    s.a += a, s.b += b, s.c += c, s.d += d, s.e += e, s.f += f, s.g += g, s.h += h;
    return s;
}

/* ---- HMAC ------------------------------------------------------------------------------------ */

static inline hb_hash hb_hash_of(const hb_table *t, hb_u32 words)
{
    hb_block x = hb_table_block(t, words / 4), y = hb_table_block(t, words / 4 + 1);
    hb_hash s = {x.a, x.b, x.c, x.d, y.a, y.b, y.c, y.d};
    return s;
}

/* Words of the 64 bytes at `at`, all inside the packet. */
static inline void hb_hash_words(const hb_packet *p, hb_u32 at, hb_u32 *w)
{
    for (hb_u32 i = 0; i < 4; i++) {
        hb_block b = hb_get_block(p, at + 16 * i);
        w[4 * i] = hb_swap32(b.a), w[4 * i + 1] = hb_swap32(b.b);
        w[4 * i + 2] = hb_swap32(b.c), w[4 * i + 3] = hb_swap32(b.d);
    }
}

/* Words of the last block or the last but one: what is left of the n bytes at `at` from `from` on,
 * the end mark, the length. */
static inline void hb_hash_tail(const hb_packet *p, hb_u32 at, hb_u32 n, hb_u32 from, hb_u32 *w)
{
    for (hb_u32 i = 0; i < 16; i++) {
        hb_u32 word = from + 4 * i;
        w[i] = word < n ? hb_get32(p, at + word) : word == n ? 0x80000000u : 0;
    }
    if (from + 64 >= n + 9)
        w[15] = 8 * (64 + n);
}

/* The HMAC of the n bytes at `at`, a multiple of 4, with the hash's states for the key in the
 * table; the first four words of it in memory order, as a packet holds them. */
#define HB_HMAC(name, hash_block, words)                                                           \
    static hb_block name(const hb_packet *p, const hb_table *t, hb_u32 sa, hb_u32 at, hb_u32 n)    \
    {                                                                                              \
        hb_u32 w[16], from = 0;                                                                    \
        hb_block icv;                                                                              \
        hb_hash s = hb_hash_of(t, sa + HB_SA_INNER);                                               \
        for (; from + 64 <= n; from += 64) {                                                       \
            hb_hash_words(p, at + from, w);                                                        \
            s = hash_block(s, w);                                                                  \
        }                                                                                          \
        for (; from < n + 9; from += 64) { /* 9: end mark and length */                            \
            hb_hash_tail(p, at, n, from, w);                                                       \
            s = hash_block(s, w);                                                                  \
        }                                                                                          \
        w[0] = s.a, w[1] = s.b, w[2] = s.c, w[3] = s.d, w[4] = s.e;                                \
        w[5] = s.f, w[6] = s.g, w[7] = s.h, w[8] = 0;                                              \
        for (hb_u32 i = (words) + 1; i < 15; i++)                                                  \
            w[i] = 0;                                                                              \
        w[words] = 0x80000000u;                                                                    \
        w[15] = 8 * (64 + 4 * (words));                                                            \
        s = hash_block(hb_hash_of(t, sa + HB_SA_OUTER), w);                                        \
        icv.a = hb_swap32(s.a), icv.b = hb_swap32(s.b), icv.c = hb_swap32(s.c),                    \
        icv.d = hb_swap32(s.d);                                                                    \
        return icv;                                                                                \
    }
HB_HMAC(hb_hmac_sha1, hb_sha1_block, 5)
HB_HMAC(hb_hmac_sha256, hb_sha256_block, 8)

#endif
