/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec_aes.h: AES (FIPS 197) by tables in local memory. A block's columns are words in memory
 * order, so nothing is swapped on the way in or out.
 */
#ifndef HB_IPSEC_AES_H
#define HB_IPSEC_AES_H

#define HB_ROL(x, n) ((x) << (n) | (x) >> (32 - (n)))
#define HB_BYTE(x, n) ((x) >> 8 * (n)&255u)

static inline hb_block hb_xor(hb_block x, hb_block y)
{
    x.a ^= y.a, x.b ^= y.b, x.c ^= y.c, x.d ^= y.d;
    return x;
}

/* One column of SubBytes, ShiftRows and MixColumns (or of their inverses), from the columns that
 * hold its bytes. */
static inline hb_u32 hb_aes_mix(const hb_table *t, hb_u32 table, hb_u32 a, hb_u32 b, hb_u32 c,
                                hb_u32 d)
{
    hb_u32 x = hb_local32(t, table + HB_BYTE(a, 0)), y = hb_local32(t, table + HB_BYTE(b, 1));
    hb_u32 z = hb_local32(t, table + HB_BYTE(c, 2)), w = hb_local32(t, table + HB_BYTE(d, 3));
    return x ^ HB_ROL(y, 8) ^ HB_ROL(z, 16) ^ HB_ROL(w, 24);
}

static inline hb_block hb_aes_round(const hb_table *t, hb_block s, hb_block key)
{
    hb_block n;
    n.a = hb_aes_mix(t, HB_AES_TE, s.a, s.b, s.c, s.d);
    n.b = hb_aes_mix(t, HB_AES_TE, s.b, s.c, s.d, s.a);
    n.c = hb_aes_mix(t, HB_AES_TE, s.c, s.d, s.a, s.b);
    n.d = hb_aes_mix(t, HB_AES_TE, s.d, s.a, s.b, s.c);
    return hb_xor(n, key);
}

static inline hb_block hb_aes_unround(const hb_table *t, hb_block s, hb_block key)
{
    hb_block n;
    n.a = hb_aes_mix(t, HB_AES_TD, s.a, s.d, s.c, s.b);
    n.b = hb_aes_mix(t, HB_AES_TD, s.b, s.a, s.d, s.c);
    n.c = hb_aes_mix(t, HB_AES_TD, s.c, s.b, s.a, s.d);
    n.d = hb_aes_mix(t, HB_AES_TD, s.d, s.c, s.b, s.a);
    return hb_xor(n, key);
}

/* The last round has no MixColumns; the S-box is the second and the third byte of the table. */
static inline hb_u32 hb_aes_sub(const hb_table *t, hb_u32 a, hb_u32 b, hb_u32 c, hb_u32 d)
{
    return (hb_local32(t, HB_AES_TE + HB_BYTE(a, 0)) >> 8 & 0xffu) |
           (hb_local32(t, HB_AES_TE + HB_BYTE(b, 1)) & 0xff00u) |
           (hb_local32(t, HB_AES_TE + HB_BYTE(c, 2)) & 0xff0000u) |
           (hb_local32(t, HB_AES_TE + HB_BYTE(d, 3)) << 8 & 0xff000000u);
}

static inline hb_u32 hb_aes_unsub(const hb_table *t, hb_u32 a, hb_u32 b, hb_u32 c, hb_u32 d)
{
    return (hb_local32(t, HB_AES_SI + HB_BYTE(a, 0)) & 0xffu) |
           (hb_local32(t, HB_AES_SI + HB_BYTE(b, 1)) & 0xff00u) |
           (hb_local32(t, HB_AES_SI + HB_BYTE(c, 2)) & 0xff0000u) |
           (hb_local32(t, HB_AES_SI + HB_BYTE(d, 3)) & 0xff000000u);
}

/* Encrypts a block; `keys` is the 16-byte block of the table where the round keys start. */
static inline hb_block hb_aes_encrypt(const hb_table *t, hb_u32 keys, hb_u32 rounds, hb_block s)
{
    hb_block n;
    s = hb_xor(s, hb_table_block(t, keys));
    for (hb_u32 i = 1; i < rounds; i++)
        s = hb_aes_round(t, s, hb_table_block(t, keys + i));
    n.a = hb_aes_sub(t, s.a, s.b, s.c, s.d);
    n.b = hb_aes_sub(t, s.b, s.c, s.d, s.a);
    n.c = hb_aes_sub(t, s.c, s.d, s.a, s.b);
    n.d = hb_aes_sub(t, s.d, s.a, s.b, s.c);
    return hb_xor(n, hb_table_block(t, keys + rounds));
}

/* Decrypts a block, with the round keys of the equivalent inverse cipher. */
static inline hb_block hb_aes_decrypt(const hb_table *t, hb_u32 keys, hb_u32 rounds, hb_block s)
{
    hb_block n;
    s = hb_xor(s, hb_table_block(t, keys));
    for (hb_u32 i = 1; i < rounds; i++)
        s = hb_aes_unround(t, s, hb_table_block(t, keys + i));
    n.a = hb_aes_unsub(t, s.a, s.d, s.c, s.b);
    n.b = hb_aes_unsub(t, s.b, s.a, s.d, s.c);
    n.c = hb_aes_unsub(t, s.c, s.b, s.a, s.d);
    n.d = hb_aes_unsub(t, s.d, s.c, s.b, s.a);
    return hb_xor(n, hb_table_block(t, keys + rounds));
}

/* The n bytes at `at`, a multiple of 16, in cipher block chaining (RFC 3602). */
static void hb_cbc_encrypt(hb_packet *p, const hb_table *t, hb_u32 keys, hb_u32 rounds, hb_u32 at,
                           hb_u32 n, hb_block iv)
{
    for (hb_u32 i = at; i < at + n; i += 16) {
        iv = hb_aes_encrypt(t, keys, rounds, hb_xor(iv, hb_get_block(p, i)));
        hb_put_block(p, i, iv);
    }
}

static void hb_cbc_decrypt(hb_packet *p, const hb_table *t, hb_u32 keys, hb_u32 rounds, hb_u32 at,
                           hb_u32 n, hb_block iv)
{
    for (hb_u32 i = at; i < at + n; i += 16) {
        hb_block s = hb_get_block(p, i);
        hb_put_block(p, i, hb_xor(iv, hb_aes_decrypt(t, keys, rounds, s)));
        iv = s;
    }
}

#endif
