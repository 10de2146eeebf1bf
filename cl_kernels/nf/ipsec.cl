/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec: puts IPv4 and IPv6 packets into an ESP tunnel over IPv4 (RFC 4303), encrypted with
 * AES-128-CBC (RFC 3602) and authenticated with HMAC-SHA1-96 (RFC 2404).
 *
 *   before   L2 header | inner packet | Ethernet padding
 *   after    L2 header | outer IPv4 | SPI, sequence | IV | inner packet, padding, trailer | ICV
 *                                                        '------- encrypted -------'
 * arg is the sequence number; 0 says that they are used up.
 *
 * Table, built by hummingbird/nfs/ipsec.py, u32 words that hold big-endian bytes:
 */
#define HB_IPSEC_SPI 0u
#define HB_IPSEC_SRC 1u
#define HB_IPSEC_DST 2u
#define HB_IPSEC_SALT 3u   /* 2 words */
#define HB_IPSEC_INNER 5u  /* SHA-1 state behind the HMAC key's inner block, 5 words */
#define HB_IPSEC_OUTER 10u /* likewise outer */
#define HB_IPSEC_KEY 16u   /* AES round keys, 44 words */
#define HB_IPSEC_IVKEY 60u /* round keys of the key that makes IVs, 44 words */
#define HB_IPSEC_TE0 104u  /* SubBytes and MixColumns of the first row, 256 words */
#define HB_IPSEC_BYTES (4u * 360u)

#define HB_IPSEC_OUTER_BYTES 20u
#define HB_IPSEC_ESP_BYTES 8u
#define HB_IPSEC_IV_BYTES 16u
#define HB_IPSEC_HEAD (HB_IPSEC_OUTER_BYTES + HB_IPSEC_ESP_BYTES + HB_IPSEC_IV_BYTES)
#define HB_IPSEC_ICV_BYTES 12u

/* ---- AES-128 (FIPS 197), columns as words ---------------------------------------------------- */

typedef struct {
    hb_u32 a, b, c, d;
} hb_aes_block;

#define HB_ROL(x, n) ((x) << (n) | (x) >> (32 - (n)))
#define HB_AES_TE0(t, x) hb_table32(t, HB_IPSEC_TE0 + (255 & (x)))

/* One column of SubBytes, ShiftRows and MixColumns. */
static inline hb_u32 hb_aes_mix(const hb_table *t, hb_u32 a, hb_u32 b, hb_u32 c, hb_u32 d)
{
    hb_u32 y = HB_AES_TE0(t, b >> 16);
    hb_u32 z = HB_AES_TE0(t, c >> 8);
    hb_u32 w = HB_AES_TE0(t, d);
    return HB_AES_TE0(t, a >> 24) ^ HB_ROL(y, 24) ^ HB_ROL(z, 16) ^ HB_ROL(w, 8);
}

/* The last round has no MixColumns; the S-box is the second byte of Te0. */
static inline hb_u32 hb_aes_last(const hb_table *t, hb_u32 a, hb_u32 b, hb_u32 c, hb_u32 d)
{
    return (HB_AES_TE0(t, a >> 24) & 0xff00) << 16 | (HB_AES_TE0(t, b >> 16) & 0xff00) << 8 |
           (HB_AES_TE0(t, c >> 8) & 0xff00) | (HB_AES_TE0(t, d) & 0xff00) >> 8;
}

static inline hb_aes_block hb_aes_encrypt(const hb_table *t, hb_u32 key, hb_aes_block s)
{
    hb_aes_block n;
    s.a ^= hb_table32(t, key);
    s.b ^= hb_table32(t, key + 1);
    s.c ^= hb_table32(t, key + 2);
    s.d ^= hb_table32(t, key + 3);
    for (hb_u32 round = 1; round < 10; round++) {
        n.a = hb_aes_mix(t, s.a, s.b, s.c, s.d) ^ hb_table32(t, key + 4 * round);
        n.b = hb_aes_mix(t, s.b, s.c, s.d, s.a) ^ hb_table32(t, key + 4 * round + 1);
        n.c = hb_aes_mix(t, s.c, s.d, s.a, s.b) ^ hb_table32(t, key + 4 * round + 2);
        n.d = hb_aes_mix(t, s.d, s.a, s.b, s.c) ^ hb_table32(t, key + 4 * round + 3);
        s = n;
    }
    n.a = hb_aes_last(t, s.a, s.b, s.c, s.d) ^ hb_table32(t, key + 40);
    n.b = hb_aes_last(t, s.b, s.c, s.d, s.a) ^ hb_table32(t, key + 41);
    n.c = hb_aes_last(t, s.c, s.d, s.a, s.b) ^ hb_table32(t, key + 42);
    n.d = hb_aes_last(t, s.d, s.a, s.b, s.c) ^ hb_table32(t, key + 43);
    return n;
}

/* Writes the IV in front of the n bytes at `at` (a multiple of 16) and encrypts them. */
static void hb_ipsec_encrypt(hb_packet *p, const hb_table *t, hb_u32 at, hb_u32 n, hb_aes_block iv)
{
    hb_aes_block s = iv;
    for (hb_u32 i = at - HB_IPSEC_IV_BYTES; i < at + n; i += 16) {
        if (i >= at) {
            s.a ^= hb_get32(p, i);
            s.b ^= hb_get32(p, i + 4);
            s.c ^= hb_get32(p, i + 8);
            s.d ^= hb_get32(p, i + 12);
            s = hb_aes_encrypt(t, HB_IPSEC_KEY, s);
        }
        hb_put32(p, i, s.a);
        hb_put32(p, i + 4, s.b);
        hb_put32(p, i + 8, s.c);
        hb_put32(p, i + 12, s.d);
    }
}

/* RFC 3602 section 2 wants IVs that nobody can predict. This one is the sequence number, which
 * never repeats, under a key that nobody knows; drawn anew at each start, because the sequence
 * numbers start anew, too. Computed, not random, so that CPU and GPU agree. */
static hb_aes_block hb_ipsec_iv(const hb_table *t, hb_u64 sequence)
{
    hb_aes_block s;
    s.a = hb_table32(t, HB_IPSEC_SALT);
    s.b = hb_table32(t, HB_IPSEC_SALT + 1);
    s.c = (hb_u32)(sequence >> 32);
    s.d = (hb_u32)sequence;
    return hb_aes_encrypt(t, HB_IPSEC_IVKEY, s);
}

/* ---- HMAC-SHA1-96 (RFC 2104, FIPS 180-4) ----------------------------------------------------- */

typedef struct {
    hb_u32 a, b, c, d, e;
} hb_sha1_state;

/* Rounds are spelt out, five at a time, so that w[] stays in registers on a GPU. */
#define HB_SHA1_CHOOSE(b, c, d) (((b) & ((c) ^ (d))) ^ (d))
#define HB_SHA1_PARITY(b, c, d) ((b) ^ (c) ^ (d))
#define HB_SHA1_MAJORITY(b, c, d) (((b) & (c)) | ((d) & ((b) | (c))))
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
static inline hb_sha1_state hb_sha1_block(hb_sha1_state s, hb_u32 *w)
{
    hb_u32 a = s.a, b = s.b, c = s.c, d = s.d, e = s.e, x;
    HB_SHA1_FIVE(HB_SHA1_CHOOSE, 0x5a827999u, HB_SHA1_FIRST, 0)
    HB_SHA1_FIVE(HB_SHA1_CHOOSE, 0x5a827999u, HB_SHA1_FIRST, 5)
    HB_SHA1_FIVE(HB_SHA1_CHOOSE, 0x5a827999u, HB_SHA1_FIRST, 10)
    HB_SHA1_ROUND(a, b, c, d, e, HB_SHA1_CHOOSE, 0x5a827999u, HB_SHA1_FIRST(15))
    HB_SHA1_ROUND(e, a, b, c, d, HB_SHA1_CHOOSE, 0x5a827999u, HB_SHA1_NEXT(16))
    HB_SHA1_ROUND(d, e, a, b, c, HB_SHA1_CHOOSE, 0x5a827999u, HB_SHA1_NEXT(17))
    HB_SHA1_ROUND(c, d, e, a, b, HB_SHA1_CHOOSE, 0x5a827999u, HB_SHA1_NEXT(18))
    HB_SHA1_ROUND(b, c, d, e, a, HB_SHA1_CHOOSE, 0x5a827999u, HB_SHA1_NEXT(19))
    HB_SHA1_TWENTY(HB_SHA1_PARITY, 0x6ed9eba1u, 20)
    HB_SHA1_TWENTY(HB_SHA1_MAJORITY, 0x8f1bbcdcu, 40)
    HB_SHA1_TWENTY(HB_SHA1_PARITY, 0xca62c1d6u, 60)
    s.a += a, s.b += b, s.c += c, s.d += d, s.e += e;
    return s;
}

static inline hb_sha1_state hb_ipsec_sha1_state(const hb_table *t, hb_u32 at)
{
    hb_sha1_state s;
    s.a = hb_table32(t, at);
    s.b = hb_table32(t, at + 1);
    s.c = hb_table32(t, at + 2);
    s.d = hb_table32(t, at + 3);
    s.e = hb_table32(t, at + 4);
    return s;
}

/* Writes the ICV behind the n bytes at `at`; n is a multiple of 4. */
static void hb_ipsec_authenticate(hb_packet *p, const hb_table *t, hb_u32 at, hb_u32 n)
{
    hb_u32 w[16];
    hb_sha1_state s = hb_ipsec_sha1_state(t, HB_IPSEC_INNER);
    for (hb_u32 block = 0; block < n + 9; block += 64) { /* 9: end mark and length of SHA-1 */
        for (hb_u32 i = 0; i < 16; i++) {
            hb_u32 word = block + 4 * i;
            w[i] = word < n ? hb_get32(p, at + word) : word == n ? 0x80000000u : 0;
        }
        if (block + 64 >= n + 9)
            w[15] = 8 * (64 + n);
        s = hb_sha1_block(s, w);
    }
    w[0] = s.a, w[1] = s.b, w[2] = s.c, w[3] = s.d, w[4] = s.e, w[5] = 0x80000000u;
    for (hb_u32 i = 6; i < 15; i++)
        w[i] = 0;
    w[15] = 8 * (64 + 20);
    s = hb_sha1_block(hb_ipsec_sha1_state(t, HB_IPSEC_OUTER), w);
    hb_put32(p, at + n, s.a);
    hb_put32(p, at + n + 4, s.b);
    hb_put32(p, at + n + 8, s.c);
}

/* ---- the packet ------------------------------------------------------------------------------ */

/* The outer header's first words, from the inner packet (RFC 4301 section 5.1.2): DSCP is copied,
 * so is ECN (RFC 6040 section 4.1, normal mode), so is DF. IPv6 has no DF: the tunnel may fragment.
 */
static void hb_ipsec_inherit(const hb_packet *p, hb_u32 *tos, hb_u32 *df)
{
    if (hb_ip_version(p) == 4) {
        *tos = hb_get8(p, p->l3 + 1);
        *df = hb_get16(p, p->l3 + 6) & 0x4000;
    } else {
        *tos = hb_get16(p, p->l3) >> 4 & 255;
        *df = 0;
    }
}

static void hb_ipsec_outer(hb_packet *p, const hb_table *t, hb_u32 tos, hb_u32 df, hb_u32 sequence)
{
    hb_u32 src = hb_table32(t, HB_IPSEC_SRC), dst = hb_table32(t, HB_IPSEC_DST);
    hb_u32 first = 0x45000000u | tos << 16 | (p->length - p->l3);
    hb_u32 second = sequence << 16 | df;  /* identification, flags */
    hb_u32 third = 64u << 24 | 50u << 16; /* TTL, ESP */
    hb_u32 sum = (first >> 16) + (first & 0xffff) + (second >> 16) + (second & 0xffff) +
                 (third >> 16) + (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    hb_put32(p, p->l3, first);
    hb_put32(p, p->l3 + 4, second);
    hb_put32(p, p->l3 + 8, third | (~sum & 0xffff));
    hb_put32(p, p->l3 + 12, src);
    hb_put32(p, p->l3 + 16, dst);
}

/* The L2 header moves to the new front; what follows is IPv4 now. */
static void hb_ipsec_move_l2(hb_packet *p)
{
    for (hb_u32 i = 0; i < p->l3; i++)
        hb_put8(p, i, hb_get8(p, i + HB_IPSEC_HEAD));
    if (p->l3 >= 14)
        hb_put16(p, p->l3 - 2, 0x0800);
}

/* Padding 1, 2, 3, ..., its length and the next header (RFC 4303 section 2.4 ff.). */
static void hb_ipsec_trailer(hb_packet *p, hb_u32 at, hb_u32 pad, hb_u32 next_header)
{
    for (hb_u32 i = 0; i < pad; i++)
        hb_put8(p, at + i, i + 1);
    hb_put8(p, at + pad, pad);
    hb_put8(p, at + pad + 1, next_header);
}

static hb_u32 hb_ipsec_encapsulate(hb_packet *p, const hb_table *t, hb_u64 sequence)
{
    hb_u32 version = hb_ip_version(p), end = hb_ip_end(p), tos, df;
    if (!version)
        return HB_DROP(HB_REASON_not_ip);
    if (!end)
        return HB_DROP(HB_REASON_malformed);
    if (sequence == 0)
        return HB_DROP(HB_REASON_seq_exhausted);
    hb_u32 inner = end - p->l3;
    hb_u32 pad = (0u - (inner + 2)) & 15;
    hb_ipsec_inherit(p, &tos, &df);
    hb_trim_tail(p, end);
    if (!hb_grow_tail(p, pad + 2 + HB_IPSEC_ICV_BYTES) || !hb_grow_head(p, HB_IPSEC_HEAD))
        return HB_DROP(HB_REASON_no_room);

    hb_u32 esp = p->l3 + HB_IPSEC_OUTER_BYTES, data = p->l3 + HB_IPSEC_HEAD;
    hb_ipsec_move_l2(p);
    hb_ipsec_outer(p, t, tos, df, (hb_u32)sequence);
    hb_put32(p, esp, hb_table32(t, HB_IPSEC_SPI));
    hb_put32(p, esp + 4, (hb_u32)sequence);
    hb_ipsec_trailer(p, data + inner, pad, version == 4 ? 4 : 41);
    hb_ipsec_encrypt(p, t, data, inner + pad + 2, hb_ipsec_iv(t, sequence));
    hb_ipsec_authenticate(p, t, esp, data - esp + inner + pad + 2);
    p->l4 = esp;
    return HB_PASS;
}

static hb_u32 hb_nf_ipsec(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)result;
    /* Copies, which no store to the frame can alias: compilers keep them in registers and, with
     * the length known, drop the checks of the table's accessors. */
    hb_packet packet = *p;
    const hb_table table = *t;
    if (table.length < HB_IPSEC_BYTES)
        return 0;
    hb_u32 verdict = hb_ipsec_encapsulate(&packet, &table, arg);
    *p = packet;
    return verdict;
}
