/* SPDX-License-Identifier: BSD-3-Clause */
#include "nf/router_ask.h"

#include <stdlib.h>
#include <string.h>

#include "dataplane.h"
#include "neighbour.h"
#include "nf/router.cl"

#define SLOTS 1024u /* neighbours asked for at once, a power of two: so many questions a second */
#define EVERY_MS 1000u   /* RFC 1122 section 2.3.2.1, and RETRANS_TIMER of RFC 4861 */
#define FORGET_MS 10000u /* so long after its last question a neighbour is a new one */
#define TRIES 3u         /* MAX_MULTICAST_SOLICIT of RFC 4861 */

/*
 * One word for each neighbour that is asked for, at the place that its hash says: bits 0..31 when
 * it was asked last (ms), 32..39 how often, 40..63 the rest of its hash; 0: nobody. Whoever changes
 * a word from what it was has the right, and the duty, to ask: so lcores share one limit. Two
 * neighbours at one place share it, too, and nobody who makes up addresses gets more questions out
 * of it than there are places.
 */
struct hb_router_asker {
    _Atomic uint64_t slot[SLOTS];
    uint64_t seed; /* so that nobody knows which neighbours meet */
    uint32_t n;
    hb_ip_address own[HB_MOST_ADDRESSES];
};

hb_router_asker *hb_router_asker_new(const hb_ip_address *own, uint32_t n)
{
    hb_router_asker *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->seed = hb_ticks() * 0x9e3779b97f4a7c15u;
    a->n = n < HB_MOST_ADDRESSES ? n : HB_MOST_ADDRESSES;
    memcpy(a->own, own, a->n * sizeof *own);
    return a;
}

void hb_router_asker_free(hb_router_asker *asker)
{
    free(asker);
}

/* ---- whom ------------------------------------------------------------------------------------ */

static uint32_t bits_in_common(const uint8_t *a, const uint8_t *b, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        if (a[i] != b[i])
            return 8 * i + (uint32_t)__builtin_clz((uint32_t)(a[i] ^ b[i]) << 24);
    return 8 * bytes;
}

/* The router's address that is nearest to another one, which is most likely that of its link. */
static const uint8_t *nearest(const hb_router_asker *asker, uint32_t family, const uint8_t *target)
{
    const uint8_t *best = NULL;
    uint32_t most = 0;
    for (uint32_t i = 0; i < asker->n; i++) {
        const hb_ip_address *own = &asker->own[i];
        uint32_t common = bits_in_common(own->bytes, target, family == 4 ? 4 : 16);
        if (own->family == family && (!best || common > most)) {
            best = own->bytes;
            most = common;
        }
    }
    return best;
}

/* False: there is nothing to ask. */
static bool fill_in(const hb_router_asker *asker, const hb_nf_seat *seat, uint32_t handle,
                    uint32_t hop, hb_router_question *q)
{
    const hb_mbuf *m = hb_header(seat->arena, handle);
    const uint8_t *ip = hb_data(seat->arena, m) + m->l3;
    uint32_t word = hb_table32(&seat->table, HB_ROUTER_HOPS + hop);
    uint32_t record = hb_router_record(hop, word), words[4];
    if (m->l3 == HB_NO_LAYER || m->l3 < 14)
        return false;
    q->family = (uint8_t)hb_table32(&seat->table, record + HB_ROUTER_FAMILY);
    for (uint32_t i = 0; i < 4; i++)
        words[i] = hb_table32(&seat->table, record + HB_ROUTER_ADDRESS + i);
    memcpy(q->target, words, sizeof q->target);
    if (!q->family) {
        q->family = ip[0] >> 4 == 4 ? 4 : 6;
        memset(q->target, 0, sizeof q->target);
        memcpy(q->target, ip + (q->family == 4 ? 16 : 24), q->family == 4 ? 4 : 16);
    }
    uint32_t second = hb_table32(&seat->table, record + 1); /* as hb_put32() wants it */
    uint32_t third = hb_table32(&seat->table, record + 2);
    for (uint32_t i = 0; i < 6; i++)
        q->mac[i] = (uint8_t)(i < 2 ? second >> (8 - 8 * i) : third >> (40 - 8 * i));
    q->own = nearest(asker, q->family, q->target);
    return q->own != NULL;
}

/* ---- how often ------------------------------------------------------------------------------- */

static uint64_t hash_of(const hb_router_asker *asker, const hb_router_question *q)
{
    uint64_t half[2], h = asker->seed ^ q->family;
    memcpy(half, q->target, sizeof half);
    for (uint32_t i = 0; i < 2; i++) {
        h = (h ^ half[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h * 0xc4ceb9fe1a85ec53u;
}

/* May it be asked for now? */
static enum hb_router_asked may(hb_router_asker *asker, const hb_router_question *q, uint32_t now)
{
    uint64_t hash = hash_of(asker, q);
    _Atomic uint64_t *slot = &asker->slot[hash % SLOTS];
    /* relaxed, like the exchange: nothing else is told by it */
    uint64_t was = atomic_load_explicit(slot, memory_order_relaxed);
    uint32_t since = now - (uint32_t)was, tries = (uint32_t)(was >> 32) & 255;
    bool same = was && was >> 40 == hash >> 40;
    if (was && since < EVERY_MS)
        return same && tries > TRIES ? HB_ROUTER_SILENT : HB_ROUTER_WAITING;
    tries = !same || since > FORGET_MS ? 1 : tries < 255 ? tries + 1 : 255;
    uint64_t is = hash >> 40 << 40 | (uint64_t)tries << 32 | now;
    if (!atomic_compare_exchange_strong_explicit(slot, &was, is, memory_order_relaxed,
                                                 memory_order_relaxed))
        return HB_ROUTER_WAITING;
    return tries > TRIES ? HB_ROUTER_ASKED_AGAIN : HB_ROUTER_ASKED;
}

/* ---- the question ---------------------------------------------------------------------------- */

enum hb_router_asked hb_router_ask(hb_router_asker *asker, hb_nf_seat *seat, uint32_t handle,
                                   uint32_t hop, hb_router_question *q)
{
    if (!fill_in(asker, seat, handle, hop, q))
        return HB_ROUTER_CANNOT;
    uint32_t now = (uint32_t)(uint64_t)((double)seat->lcore->pass_tick / hb_tick_rate() * 1000);
    enum hb_router_asked asked = may(asker, q, now);
    if (asked == HB_ROUTER_WAITING || asked == HB_ROUTER_SILENT)
        return asked;
    const hb_mbuf *m = hb_header(seat->arena, handle);
    uint32_t made = hb_nf_create(seat, handle);
    if (made == HB_NO_MBUF)
        return HB_ROUTER_WAITING;
    hb_mbuf *question = hb_header(seat->arena, made);
    uint8_t *out = hb_data(seat->arena, question);
    memcpy(out, hb_data(seat->arena, m), m->l3); /* with its tags */
    question->data_len =
        (uint16_t)hb_ask_neighbour(out, m->l3, q->family, q->mac, q->own, q->target);
    hb_nf_emit(seat, made, m->type);
    return asked;
}
