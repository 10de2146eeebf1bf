/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec: puts packets into ESP (RFC 4303) and takes them out again. IPv4 and IPv6 in tunnels over
 * IPv4, or in transport mode; AES-CBC (RFC 3602) with HMAC-SHA1-96 (RFC 2404) or HMAC-SHA2-256-128
 * (RFC 4868), AES-GCM (RFC 4106), NULL (RFC 2410, for tests); inside UDP on demand (RFC 3948).
 *
 * arg says which SA, which sequence number and which direction: whoever fills it in knows policies
 * and sequence numbers, this code does not. ipsec_table.h has the table, arg and result,
 * ipsec_frame.h the packets' form, the others the ciphers.
 */
#include "nf/ipsec_table.h"
#include "nf/ipsec_frame.h"
#include "nf/ipsec_aes.h"
#include "nf/ipsec_hash.h"
#include "nf/ipsec_gcm.h"

/* RFC 3602 section 2 wants IVs that nobody can predict. This one is the sequence number, which
 * never repeats, under a key that nobody knows. Computed, not random, so that CPU and GPU agree. */
static hb_block hb_cbc_iv(const hb_table *t, hb_u32 sa, hb_u32 sequence)
{
    hb_block s = {hb_table32(t, sa + HB_SA_IV_SALT), hb_table32(t, sa + HB_SA_IV_SALT + 1), 0,
                  hb_swap32(sequence)};
    return hb_aes_encrypt(t, (sa + HB_SA_IV_KEY) / 4, 10, s);
}

/* The ICV over everything from SPI on; 16 bytes or the first 12 of them count. */
static hb_block hb_esp_icv(const hb_packet *p, const hb_table *t, const hb_esp *e)
{
    hb_u32 auth = HB_SA_AUTH(e->kind), n = e->data - e->esp + e->n;
    hb_block none = {0, 0, 0, 0};
    if (auth == HB_AUTH_SHA1)
        return hb_hmac_sha1(p, t, e->sa, e->esp, n);
    if (auth == HB_AUTH_SHA256)
        return hb_hmac_sha256(p, t, e->sa, e->esp, n);
    if (HB_SA_CIPHER(e->kind) == HB_CIPHER_GCM)
        return hb_gcm_icv(p, t, e->sa, HB_SA_ROUNDS(e->kind), e->data, e->n);
    return none;
}

static hb_u32 hb_esp_seal(hb_packet *p, const hb_table *t, hb_esp *e)
{
    hb_u32 verdict = hb_esp_wrap(p, t, e), rounds = HB_SA_ROUNDS(e->kind);
    if (verdict != HB_PASS)
        return verdict;
    if (HB_SA_CIPHER(e->kind) == HB_CIPHER_CBC) {
        hb_block iv = hb_cbc_iv(t, e->sa, e->sequence);
        hb_put_block(p, e->data - 16, iv);
        hb_cbc_encrypt(p, t, (e->sa + HB_SA_KEY) / 4, rounds, e->data, e->n, iv);
    } else if (HB_SA_CIPHER(e->kind) == HB_CIPHER_GCM) {
        hb_put32(p, e->data - 8, 0);
        hb_put32(p, e->data - 4, e->sequence);
        hb_gcm_crypt(p, t, e->sa, rounds, e->data, e->n);
    }
    hb_u32 bytes = hb_sa_icv_bytes(e->kind), at = e->data + e->n;
    hb_block icv = hb_esp_icv(p, t, e);
    if (bytes == 16)
        hb_put_block(p, at, icv);
    if (bytes == 12) {
        hb_put32(p, at, hb_swap32(icv.a));
        hb_put32(p, at + 4, hb_swap32(icv.b));
        hb_put32(p, at + 8, hb_swap32(icv.c));
    }
    return HB_PASS;
}

/* Compares in the same time wherever the first difference is. */
static hb_u32 hb_esp_icv_is_right(const hb_packet *p, const hb_table *t, const hb_esp *e)
{
    hb_u32 bytes = hb_sa_icv_bytes(e->kind), at = e->data + e->n;
    hb_block icv = hb_esp_icv(p, t, e);
    hb_u32 wrong = 0;
    if (bytes) {
        wrong = (icv.a ^ hb_swap32(hb_get32(p, at))) | (icv.b ^ hb_swap32(hb_get32(p, at + 4))) |
                (icv.c ^ hb_swap32(hb_get32(p, at + 8)));
        wrong |= bytes == 16 ? icv.d ^ hb_swap32(hb_get32(p, at + 12)) : 0;
    }
    return !wrong;
}

/* Checks and decrypts; the verdict. */
static hb_u32 hb_esp_open(hb_packet *p, const hb_table *t, hb_esp *e)
{
    hb_u32 verdict = hb_esp_find(p, t, e), rounds = HB_SA_ROUNDS(e->kind);
    if (verdict != HB_PASS)
        return verdict;
    if (!hb_esp_icv_is_right(p, t, e))
        return HB_DROP(HB_REASON_bad_icv);
    if (HB_SA_CIPHER(e->kind) == HB_CIPHER_CBC)
        hb_cbc_decrypt(p, t, (e->sa + HB_SA_KEY) / 4, rounds, e->data, e->n,
                       hb_get_block(p, e->data - 16));
    else if (HB_SA_CIPHER(e->kind) == HB_CIPHER_GCM)
        hb_gcm_crypt(p, t, e->sa, rounds, e->data, e->n);
    return HB_PASS;
}

static hb_u32 hb_nf_ipsec(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    hb_u32 op = (hb_u32)(arg >> 48) & 255, index = (hb_u32)(arg >> 32) & 0xffff, verdict = 0;
    if (op == HB_ESP_BYPASS) {
        *result = HB_ESP_ARG(op, index, arg);
        return HB_PASS;
    }
    if (op == HB_ESP_DROP)
        return HB_DROP((hb_u32)arg & 0xffff);
    /* Copies, which no store to the frame can alias: compilers keep them in registers and, with
     * the local part's length known, drop the checks of its accessor. */
    hb_packet packet = *p;
    hb_table table = *t;
    hb_esp e;
    if (table.local_length < HB_AES_BYTES)
        return 0;
    table.local_length = HB_AES_BYTES;
    e.sequence = (hb_u32)arg;
    e.sa = hb_sa_of(&table, index);
    if (!e.sa)
        return HB_DROP(HB_REASON_policy);
    if (op == HB_ESP_ENCAPSULATE)
        verdict = hb_esp_seal(&packet, &table, &e);
    else if (op == HB_ESP_DECAPSULATE)
        verdict = hb_esp_open(&packet, &table, &e);
    if (verdict != HB_PASS)
        return verdict;
    *result = HB_ESP_ARG(op, index, e.sequence); /* also if what was inside is of no use */
    if (op == HB_ESP_DECAPSULATE)
        verdict = hb_esp_unwrap(&packet, &e);
    if (verdict == HB_PASS)
        *p = packet;
    return verdict;
}
