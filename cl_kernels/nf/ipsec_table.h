/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec_table.h: the table of ipsec, made by hummingbird/nfs/ipsec_table.py.
 *
 *   byte 0      AES tables, the part that lies in local memory: 3 x 256 words
 *   byte 3072   number of SAs
 *   byte 3200   SAs, HB_SA_BYTES each; the index of an SA is its place
 *
 * One SA. Keys and what else goes straight into packets is in memory order; round keys are those of
 * AES instructions, too: for decryption with CBC those of the equivalent inverse cipher.
 *
 *   word   what                 word   what
 *   0      cipher, rounds,      8      state of the hash behind the HMAC key's inner block
 *          auth, flags (bytes)  16     likewise outer
 *   1      SPI                  24     hash key of GCM
 *   2, 3   outer source and     28     round keys, 15 x 16 bytes
 *          destination          88     round keys of the key that makes IVs, 11 x 16 bytes
 *   4      UDP ports, source    132    unused
 *          in the high half
 *   5      salt of GCM
 *   6, 7   salt of IVs
 */
#ifndef HB_IPSEC_TABLE_H
#define HB_IPSEC_TABLE_H

#define HB_AES_TE 0u       /* element of the local part: SubBytes and MixColumns of the first row */
#define HB_AES_TD 256u     /* InvSubBytes and InvMixColumns of the first row */
#define HB_AES_SI 512u     /* InvSubBytes, in all four bytes */
#define HB_AES_BYTES 3072u /* of the local part */

#define HB_SA_COUNT 768u /* word of the table */
#define HB_SA_FIRST 3200u
#define HB_SA_BYTES 640u
#define HB_SA_WORDS (HB_SA_BYTES / 4)

/* Words of an SA. */
#define HB_SA_KIND 0u
#define HB_SA_SPI 1u
#define HB_SA_SRC 2u
#define HB_SA_DST 3u
#define HB_SA_PORTS 4u
#define HB_SA_SALT 5u
#define HB_SA_IV_SALT 6u
#define HB_SA_INNER 8u
#define HB_SA_OUTER 16u
#define HB_SA_HASH_KEY 24u
#define HB_SA_KEY 28u
#define HB_SA_IV_KEY 88u

/* Word HB_SA_KIND, taken apart. */
#define HB_SA_CIPHER(kind) ((kind)&255u)
#define HB_SA_ROUNDS(kind) ((kind) >> 8 & 255u)
#define HB_SA_AUTH(kind) ((kind) >> 16 & 255u)
#define HB_SA_INBOUND(kind) ((kind) >> 24 & 1u)
#define HB_SA_TUNNEL(kind) ((kind) >> 24 & 2u)
#define HB_SA_UDP(kind) ((kind) >> 24 & 4u)
#define HB_CIPHER_NULL 0u
#define HB_CIPHER_CBC 1u
#define HB_CIPHER_GCM 2u
#define HB_AUTH_NONE 0u
#define HB_AUTH_SHA1 1u
#define HB_AUTH_SHA256 2u

/* What prepare() tells the packet function to do, and what that says it has done: arg and result
 * are sequence number | SA << 32 | operation << 48. */
#define HB_ESP_DROP 0u /* the reason in the bits of the sequence number */
#define HB_ESP_ENCAPSULATE 1u
#define HB_ESP_DECAPSULATE 2u
#define HB_ESP_BYPASS 3u
#define HB_ESP_ARG(op, sa, sequence) ((hb_u64)(op) << 48 | (hb_u64)(sa) << 32 | (hb_u32)(sequence))

/* Bytes that a kind of SA adds around what it protects. */
static inline hb_u32 hb_sa_iv_bytes(hb_u32 kind)
{
    hb_u32 cipher = HB_SA_CIPHER(kind);
    return cipher == HB_CIPHER_CBC ? 16 : cipher == HB_CIPHER_GCM ? 8 : 0;
}

static inline hb_u32 hb_sa_icv_bytes(hb_u32 kind)
{
    hb_u32 auth = HB_SA_AUTH(kind);
    return auth == HB_AUTH_SHA1                                            ? 12
           : auth == HB_AUTH_SHA256 || HB_SA_CIPHER(kind) == HB_CIPHER_GCM ? 16
                                                                           : 0;
}

/* What is encrypted is a multiple of this. */
static inline hb_u32 hb_sa_align(hb_u32 kind)
{
    return HB_SA_CIPHER(kind) == HB_CIPHER_CBC ? 16 : 4;
}

/* Padding for `payload` bytes and the two bytes of the trailer. */
static inline hb_u32 hb_sa_padding(hb_u32 kind, hb_u32 payload)
{
    return (0u - (payload + 2)) & (hb_sa_align(kind) - 1);
}

/* Bytes in front of what is encrypted: outer header, UDP, SPI and sequence number, IV. */
static inline hb_u32 hb_sa_head_bytes(hb_u32 kind)
{
    return (HB_SA_TUNNEL(kind) ? 20u : 0) + (HB_SA_UDP(kind) ? 8u : 0) + 8 + hb_sa_iv_bytes(kind);
}

/* Bytes of the IP packet that comes of one of `length` bytes, `header` of them not protected in
 * transport mode (ignored in tunnel mode). For checks of an MTU. */
static inline hb_u32 hb_sa_sealed_bytes(hb_u32 kind, hb_u32 length, hb_u32 header)
{
    hb_u32 payload = HB_SA_TUNNEL(kind) ? length : length - header;
    return length + hb_sa_head_bytes(kind) + hb_sa_padding(kind, payload) + 2 +
           hb_sa_icv_bytes(kind);
}

/* First word of an SA in the table; 0 if there is no such SA. */
static inline hb_u32 hb_sa_of(const hb_table *t, hb_u32 index)
{
    return index < hb_table32(t, HB_SA_COUNT) ? HB_SA_FIRST / 4 + index * HB_SA_WORDS : 0;
}

static inline hb_u32 hb_sa_kind(const hb_table *t, hb_u32 sa)
{
    return hb_table32(t, sa + HB_SA_KIND);
}

#endif
