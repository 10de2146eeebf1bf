/* SPDX-License-Identifier: BSD-3-Clause */
/* bare_nf.c: an engine of an NF, or a peer, by itself: the same packets in bursts, pass by pass.
 * See api.h. */
#include <stdlib.h>
#include <string.h>

#include "bare.h"
#include "nf.h"
#include "parse.h"

typedef struct {
    const hb_bare_nf_config *config;
    hb_arena arena;
    hb_nf_seat seat;
    bool opened;       /* by its kind */
    hb_mbuf *headers;  /* [mbufs] as they are before each pass */
    uint32_t *handles; /* [mbufs] 0, 1, 2, ... */
    uint8_t **packet;  /* [mbufs] first bytes, for the peer */
    uint64_t *result;  /* [mbufs] */
    uint32_t *verdict; /* [mbufs] */
} loop;

/* ---- a pass -----------------------------------------------------------------------------------
 */

static void put_back(loop *l)
{
    const hb_bare_nf_config *config = l->config;
    memcpy(l->arena.headers, l->headers, config->mbufs * sizeof *l->headers);
    for (uint32_t i = 0; i < config->mbufs; i++)
        memcpy(l->packet[i], (const uint8_t *)config->packets + (size_t)i * config->length,
               config->length);
}

/* What hb_finish() does with answers, but for the next node. */
static void apply(loop *l, const hb_nf_burst *b, uint32_t *verdict)
{
    for (uint32_t i = 0; i < b->answers->n; i++) {
        const struct hb_done *d = &b->answers->done[i];
        hb_mbuf *m = hb_header(&l->arena, b->handles[b->answers->at[i]]);
        m->data_off = d->offset;
        m->data_len = d->length;
        verdict[b->answers->at[i]] = d->verdict | (uint32_t)d->value << 8;
    }
}

static void run_burst(loop *l, uint32_t at, uint32_t n)
{
    const hb_bare_nf_config *config = l->config;
    hb_nf_seat *seat = &l->seat;
    bool prepared = config->whole && seat->kind->prepare;
    uint64_t arg[HB_BURST];
    hb_answers answers = {.n = 0};
    hb_nf_burst b = {.arena = &l->arena,
                     .states = &l->seat.states,
                     .table = &seat->table,
                     .head = config->head,
                     .tail = config->tail,
                     .n = n,
                     .handles = l->handles + at,
                     .arg = prepared      ? arg
                            : config->arg ? config->arg + at
                                          : NULL,
                     .result = l->result + at,
                     .answers = &answers};
    if (prepared)
        seat->kind->prepare(seat, b.handles, arg, n);
    seat->engine->run(seat, &b);
    apply(l, &b, l->verdict + at);
    if (config->whole && seat->kind->finish)
        seat->kind->finish(seat, b.handles, b.result, l->verdict + at, n);
}

static void run_engine(loop *l)
{
    const hb_bare_nf_config *config = l->config;
    for (uint32_t at = 0; at < config->mbufs; at += config->burst) {
        uint32_t left = config->mbufs - at;
        run_burst(l, at, left < config->burst ? left : config->burst);
    }
}

static void run_peer(loop *l)
{
    const hb_bare_nf_config *config = l->config;
    for (uint32_t at = 0; at < config->mbufs; at += config->burst) {
        uint32_t left = config->mbufs - at;
        config->peer(config->context, l->packet + at, config->length, l->result + at,
                     left < config->burst ? left : config->burst);
    }
}

static double run_pass(void *loop_)
{
    loop *l = loop_;
    put_back(l);
    for (uint32_t i = 0; i < l->config->mbufs; i++)
        l->verdict[i] = HB_PASS;
    uint64_t begin = hb_thread_ns();
    if (l->config->peer)
        run_peer(l);
    else
        run_engine(l);
    return (double)(hb_thread_ns() - begin);
}

/* ---- set-up -----------------------------------------------------------------------------------
 */

/* Headers as an input port fills them. */
static int parse(loop *l)
{
    const hb_bare_nf_config *config = l->config;
    for (uint32_t i = 0; i < config->mbufs; i++) {
        hb_mbuf *m = hb_header(&l->arena, i);
        hb_key key;
        l->handles[i] = i;
        m->data_off = (uint16_t)config->first;
        m->data_len = (uint16_t)config->length;
        l->packet[i] = hb_data(&l->arena, m);
        if (hb_parse((const uint8_t *)config->packets + (size_t)i * config->length, config->length,
                     m, &key))
            return -1;
    }
    for (uint32_t i = 0; i < config->mbufs; i++)
        hb_header(&l->arena, i)->flow = HB_NO_FLOW;
    memcpy(l->headers, l->arena.headers, config->mbufs * sizeof *l->headers);
    return 0;
}

static int open_seat(loop *l)
{
    const hb_bare_nf_config *config = l->config;
    const hb_nf_kind *kind = hb_nf_kind_of(config->kind);
    if (!kind || config->engine >= kind->nb_engines)
        return -1;
    const hb_nf_engine *engine = &kind->engines[config->engine];
    l->seat = (hb_nf_seat){.kind = kind,
                           .engine = engine,
                           .arena = &l->arena,
                           .table = hb_nf_table(config->tables, 0),
                           .host = config->host,
                           .state = calloc(1, kind->state_bytes + 1),
                           .engine_state = calloc(1, engine->state_bytes + 1)};
    if (!l->seat.state || !l->seat.engine_state)
        return -1;
    if (config->whole && kind->open && kind->open(&l->seat))
        return -1;
    l->opened = config->whole;
    if (engine->open && engine->open(&l->seat))
        return -1;
    l->seat.opened = true;
    return 0;
}

static void close_seat(loop *l)
{
    if (l->seat.opened && l->seat.engine->close)
        l->seat.engine->close(&l->seat);
    if (l->opened && l->seat.kind->close)
        l->seat.kind->close(&l->seat);
    free(l->seat.state);
    free(l->seat.engine_state);
}

static int prepare(loop *l)
{
    const hb_bare_nf_config *config = l->config;
    size_t n = config->mbufs;
    if (!n || !config->burst || config->burst > HB_BURST ||
        hb_arena_init(&l->arena, config->frames, config->frame_size, config->mbufs, 0))
        return -1;
    l->headers = aligned_alloc(64, n * sizeof *l->headers);
    l->handles = calloc(n, sizeof *l->handles);
    l->packet = calloc(n, sizeof *l->packet);
    l->result = calloc(n, sizeof *l->result);
    l->verdict = calloc(n, sizeof *l->verdict);
    if (!l->headers || !l->handles || !l->packet || !l->result || !l->verdict)
        return -1;
    if (parse(l))
        return -1;
    return config->peer ? 0 : open_seat(l);
}

static void hand_out(const loop *l)
{
    const hb_bare_nf_config *config = l->config;
    memcpy(config->result, l->result, config->mbufs * sizeof *l->result);
    memcpy(config->verdict, l->verdict, config->mbufs * sizeof *l->verdict);
    for (uint32_t i = 0; i < config->mbufs; i++) {
        const hb_mbuf *m = hb_header(&l->arena, i);
        config->offset[i] = m->data_off;
        config->end[i] = (uint16_t)(m->data_off + m->data_len);
    }
}

static void release(loop *l)
{
    close_seat(l);
    hb_arena_free(&l->arena);
    free(l->headers);
    free(l->handles);
    free(l->packet);
    free(l->result);
    free(l->verdict);
}

int hb_bare_nf(const hb_bare_nf_config *config, hb_bare_nf_result *result)
{
    loop l = {.config = config};
    cpu_set_t before;
    int rc = prepare(&l);
    if (!rc) {
        rc = hb_pin(config->cpu, &before);
        if (!rc)
            rc = hb_bare_passes(run_pass, &l, config->seconds, config->mbufs, result);
        if (!rc)
            hand_out(&l);
        hb_unpin(&before);
    }
    release(&l);
    return rc;
}
