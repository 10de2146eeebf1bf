/* SPDX-License-Identifier: BSD-3-Clause */
/* ipsec_mb.c: libipsec-mb, called as its documentation says. */
#include <intel-ipsec-mb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peers.h"

#define ESP 8 /* SPI and sequence number */
#define IV 16
#define ICV 12
#define BLOCK 64 /* of SHA-1 */

typedef struct {
    IMB_MGR *manager;
    uint32_t skip; /* bytes in front of ESP */
    uint64_t wrong;
    DECLARE_ALIGNED(uint32_t encrypt[4 * 11], 16);
    DECLARE_ALIGNED(uint32_t decrypt[4 * 11], 16);
    DECLARE_ALIGNED(uint8_t inner[20], 16);
    DECLARE_ALIGNED(uint8_t outer[20], 16);
} context;

/* SHA-1's state behind the key's block (RFC 2104). */
static void pad(context *c, const uint8_t *key, uint8_t with, uint8_t *state)
{
    uint8_t block[BLOCK];
    memset(block, with, sizeof block);
    for (uint32_t i = 0; i < 20; i++)
        block[i] ^= key[i];
    IMB_SHA1_ONE_BLOCK(c->manager, block, state);
}

void *peer_ipsec_mb_new(uint32_t skip, const uint8_t *key, const uint8_t *auth_key, char *text)
{
    context *c = aligned_alloc(64, (sizeof *c + 63) / 64 * 64);
    if (!c || !(c->manager = alloc_mb_mgr(0))) {
        snprintf(text, PEER_TEXT, "out of memory");
        free(c);
        return NULL;
    }
    IMB_ARCH arch;
    init_mb_mgr_auto(c->manager, &arch);
    c->skip = skip;
    c->wrong = 0;
    IMB_AES_KEYEXP_128(c->manager, key, c->encrypt, c->decrypt);
    pad(c, auth_key, 0x36, c->inner);
    pad(c, auth_key, 0x5c, c->outer);
    return c;
}

void peer_ipsec_mb_free(void *context_)
{
    free_mb_mgr(((context *)context_)->manager);
    free(context_);
}

static inline void fill(const context *c, IMB_JOB *job, uint8_t *packet, uint32_t length)
{
    uint8_t *esp = packet + c->skip;
    uint32_t bytes = length - c->skip;
    job->enc_keys = c->encrypt;
    job->dec_keys = c->decrypt;
    job->key_len_in_bytes = 16;
    job->src = esp;
    job->dst = esp + ESP + IV;
    job->cipher_start_src_offset_in_bytes = ESP + IV;
    job->msg_len_to_cipher_in_bytes = bytes - ESP - IV - ICV;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = bytes - ICV;
    job->iv = esp + ESP;
    job->iv_len_in_bytes = IV;
    job->auth_tag_output = esp + bytes - ICV;
    job->auth_tag_output_len_in_bytes = ICV;
    job->u.HMAC._hashed_auth_key_xor_ipad = c->inner;
    job->u.HMAC._hashed_auth_key_xor_opad = c->outer;
    job->cipher_mode = IMB_CIPHER_CBC;
    job->cipher_direction = IMB_DIR_ENCRYPT;
    job->hash_alg = IMB_AUTH_HMAC_SHA_1;
    job->chain_order = IMB_ORDER_CIPHER_HASH;
}

void peer_ipsec_mb_job(void *context_, uint8_t *const *packet, uint32_t length, uint64_t *result,
                       uint32_t n)
{
    context *c = context_;
    (void)result;
    for (uint32_t i = 0; i < n; i++) {
        IMB_JOB *job = IMB_GET_NEXT_JOB(c->manager);
        fill(c, job, packet[i], length);
        for (job = IMB_SUBMIT_JOB_NOCHECK(c->manager); job; job = IMB_GET_COMPLETED_JOB(c->manager))
            c->wrong += job->status != IMB_STATUS_COMPLETED;
    }
    for (IMB_JOB *job; (job = IMB_FLUSH_JOB(c->manager));)
        c->wrong += job->status != IMB_STATUS_COMPLETED;
}

void peer_ipsec_mb_burst(void *context_, uint8_t *const *packet, uint32_t length, uint64_t *result,
                         uint32_t n)
{
    context *c = context_;
    IMB_JOB *jobs[IMB_MAX_BURST_SIZE];
    (void)result;
    for (uint32_t at = 0, room; at < n; at += room) {
        uint32_t want = n - at < IMB_MAX_BURST_SIZE ? n - at : IMB_MAX_BURST_SIZE;
        while ((room = IMB_GET_NEXT_BURST(c->manager, want, jobs)) < want)
            IMB_FLUSH_BURST(c->manager, want - room, jobs);
        for (uint32_t i = 0; i < room; i++)
            fill(c, jobs[i], packet[at + i], length);
        uint32_t done = IMB_SUBMIT_BURST_NOCHECK(c->manager, room, jobs);
        for (uint32_t i = 0; i < done; i++)
            c->wrong += jobs[i]->status != IMB_STATUS_COMPLETED;
        /* here, not behind the loop: once its queue has gone round, version 1.3 loses jobs */
        while (IMB_FLUSH_BURST(c->manager, IMB_MAX_BURST_SIZE, jobs))
            ;
    }
}

const char *peer_ipsec_mb_version(void)
{
    return imb_get_version_str();
}
