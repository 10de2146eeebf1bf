/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec_gcm.h: AES-GCM as ESP uses it (RFC 4106, NIST SP 800-38D).
 *
 * GHASH multiplies without carries. Integer multiplication does that if each operand has three
 * empty bits between its bits: what carries stays in the gaps and is masked away. That takes no
 * table per key and the same time for all data.
 */
#ifndef HB_IPSEC_GCM_H
#define HB_IPSEC_GCM_H
#include "nf/ipsec_aes.h"

#define HB_EVERY4 0x1111111111111111ul
#define HB_MUL(x, y) ((hb_u64)(x) * (y))

/* The product of two polynomials of 32 bits. */
static inline hb_u64 hb_clmul(hb_u32 x, hb_u32 y)
{
    hb_u32 x0 = x & 0x11111111u, x1 = x & 0x22222222u, x2 = x & 0x44444444u, x3 = x & 0x88888888u;
    hb_u32 y0 = y & 0x11111111u, y1 = y & 0x22222222u, y2 = y & 0x44444444u, y3 = y & 0x88888888u;
    hb_u64 z0 = HB_MUL(x0, y0) ^ HB_MUL(x1, y3) ^ HB_MUL(x2, y2) ^ HB_MUL(x3, y1);
    hb_u64 z1 = HB_MUL(x0, y1) ^ HB_MUL(x1, y0) ^ HB_MUL(x2, y3) ^ HB_MUL(x3, y2);
    hb_u64 z2 = HB_MUL(x0, y2) ^ HB_MUL(x1, y1) ^ HB_MUL(x2, y0) ^ HB_MUL(x3, y3);
    hb_u64 z3 = HB_MUL(x0, y3) ^ HB_MUL(x1, y2) ^ HB_MUL(x2, y1) ^ HB_MUL(x3, y0);
    return (z0 & HB_EVERY4) | (z1 & HB_EVERY4 << 1) | (z2 & HB_EVERY4 << 2) | (z3 & HB_EVERY4 << 3);
}

/* The product of two polynomials of 64 bits in words lo, hi: three multiplications (Karatsuba). */
typedef struct {
    hb_u64 lo, hi;
} hb_u128;

static inline hb_u128 hb_clmul64(hb_u32 xlo, hb_u32 xhi, hb_u32 ylo, hb_u32 yhi)
{
    hb_u128 z;
    z.lo = hb_clmul(xlo, ylo);
    z.hi = hb_clmul(xhi, yhi);
    hb_u64 middle = hb_clmul(xlo ^ xhi, ylo ^ yhi) ^ z.lo ^ z.hi;
    z.lo ^= middle << 32;
    z.hi ^= middle >> 32;
    return z;
}

/* x times h in GHASH's field; words big-endian, a the first: bits run backwards, so the product is
 * one bit short of its place, and what is beyond the field's 128 bits is at the low end. */
static inline hb_block hb_ghash_times(hb_block x, hb_block h)
{
    hb_u128 low = hb_clmul64(x.d, x.c, h.d, h.c);
    hb_u128 high = hb_clmul64(x.b, x.a, h.b, h.a);
    hb_u128 middle = hb_clmul64(x.d ^ x.b, x.c ^ x.a, h.d ^ h.b, h.c ^ h.a);
    middle.lo ^= low.lo ^ high.lo;
    middle.hi ^= low.hi ^ high.hi;
    hb_u64 z0 = low.lo, z1 = low.hi ^ middle.lo, z2 = high.lo ^ middle.hi, z3 = high.hi;
    z3 = z3 << 1 | z2 >> 63;
    z2 = z2 << 1 | z1 >> 63;
    z1 = z1 << 1 | z0 >> 63;
    z0 = z0 << 1;
    z2 ^= z0 ^ z0 >> 1 ^ z0 >> 2 ^ z0 >> 7;
    z1 ^= z0 << 63 ^ z0 << 62 ^ z0 << 57;
    z3 ^= z1 ^ z1 >> 1 ^ z1 >> 2 ^ z1 >> 7;
    z2 ^= z1 << 63 ^ z1 << 62 ^ z1 << 57;
    hb_block r;
    r.a = (hb_u32)(z3 >> 32), r.b = (hb_u32)z3, r.c = (hb_u32)(z2 >> 32), r.d = (hb_u32)z2;
    return r;
}

static inline hb_block hb_swap_block(hb_block b)
{
    b.a = hb_swap32(b.a), b.b = hb_swap32(b.b), b.c = hb_swap32(b.c), b.d = hb_swap32(b.d);
    return b;
}

/* A block whose words from byte `n` on are 0; n is a multiple of 4. */
static inline hb_block hb_first_words(hb_block b, hb_u32 n)
{
    b.b = n > 4 ? b.b : 0;
    b.c = n > 8 ? b.c : 0;
    b.d = n > 12 ? b.d : 0;
    return b;
}

/* The counter block of a packet whose IV is at `iv` (RFC 4106 section 3.1). */
static inline hb_block hb_gcm_counter(const hb_packet *p, const hb_table *t, hb_u32 sa, hb_u32 iv,
                                      hb_u32 counter)
{
    hb_block b;
    b.a = hb_table32(t, sa + HB_SA_SALT);
    b.b = hb_swap32(hb_get32(p, iv));
    b.c = hb_swap32(hb_get32(p, iv + 4));
    b.d = hb_swap32(counter);
    return b;
}

/* Encrypts, or decrypts, the n bytes at `at`; n is a multiple of 4, and 16 bytes more follow: the
 * ICV, which stays as it is. */
static void hb_gcm_crypt(hb_packet *p, const hb_table *t, hb_u32 sa, hb_u32 rounds, hb_u32 at,
                         hb_u32 n)
{
    hb_block counter = hb_gcm_counter(p, t, sa, at - 8, 2);
    for (hb_u32 i = 0; i < n; i += 16) {
        hb_block stream = hb_aes_encrypt(t, (sa + HB_SA_KEY) / 4, rounds, counter);
        hb_put_block(p, at + i, hb_xor(hb_get_block(p, at + i), hb_first_words(stream, n - i)));
        counter.d = hb_swap32(hb_swap32(counter.d) + 1);
    }
}

/* The ICV over SPI, sequence number (8 bytes in front of the IV) and the n bytes at `at`. */
static hb_block hb_gcm_icv(const hb_packet *p, const hb_table *t, hb_u32 sa, hb_u32 rounds,
                           hb_u32 at, hb_u32 n)
{
    hb_block h = hb_swap_block(hb_table_block(t, (sa + HB_SA_HASH_KEY) / 4));
    hb_block y = {hb_get32(p, at - 16), hb_get32(p, at - 12), 0, 0};
    for (hb_u32 i = 0; i < n; i += 16) {
        y = hb_ghash_times(y, h);
        y = hb_xor(y, hb_swap_block(hb_first_words(hb_get_block(p, at + i), n - i)));
    }
    y = hb_ghash_times(y, h);
    y.b ^= 8 * 8; /* bits that are only authenticated, and bits that are encrypted, too */
    y.d ^= 8 * n;
    y = hb_swap_block(hb_ghash_times(y, h));
    hb_block first = hb_gcm_counter(p, t, sa, at - 8, 1);
    return hb_xor(y, hb_aes_encrypt(t, (sa + HB_SA_KEY) / 4, rounds, first));
}

#endif
