/* SPDX-License-Identifier: BSD-3-Clause */
/* nf.c: the device code of all NFs, compiled for the CPU; see nf.h. */
#include "nf.h"

#include "api.h"

#define HB_HOST
#include "nf/forward.cl"
#include "nf/ipsec.cl"
#include "nf/nids.cl"
#include "nf/probe.cl"
#include "nf/router.cl"
#include "nf/touch.cl"

#define HB_NF_CASE(number, name)                                                                   \
    case number:                                                                                   \
        return hb_nf_##name(p, &t, arg, result);
#define HB_NF_CASES HB_NF_KINDS(HB_NF_CASE)
#include "gpusyncer.cl"

/* Tentative definitions: all zero for an NF whose .cl file defines no hooks. */
#define HB_NF_HOOKS(number, name) static const hb_nf_hooks hb_nf_##name##_hooks;
HB_NF_KINDS(HB_NF_HOOKS)

const hb_nf_hooks *hb_nf_hooks_of(uint32_t kind)
{
    static const hb_nf_hooks none;
#define HB_NF_HOOKS_CASE(number, name)                                                             \
    case number:                                                                                   \
        return &hb_nf_##name##_hooks;
    switch (kind) {
        HB_NF_KINDS(HB_NF_HOOKS_CASE)
    default:
        return &none;
    }
}

/* ---- engines: the packet function in a loop ----------------------------------------------------
 */

static inline hb_packet packet_of(const hb_nf_burst *b, const hb_mbuf *m)
{
    return (hb_packet){.frame = hb_frame(b->arena, m),
                       .low = m->data_off - b->head,
                       .high = (uint32_t)m->data_off + m->data_len + b->tail,
                       .offset = m->data_off,
                       .length = m->data_len,
                       .l3 = m->l3,
                       .l4 = m->l4,
                       .type = m->type,
                       .flow = m->flow};
}

static void answer(hb_answers *all, uint32_t i, const hb_packet *p, uint32_t verdict,
                   uint64_t result)
{
    all->at[all->n] = (uint16_t)i;
    all->done[all->n++] = (struct hb_done){.offset = (uint16_t)p->offset,
                                           .length = (uint16_t)p->length,
                                           .value = (uint16_t)(verdict >> 8),
                                           .verdict = (uint8_t)verdict,
                                           .result = result};
}

#define HB_NF_ENGINE(number, name)                                                                 \
    static void run_##name(const hb_nf_burst *b)                                                   \
    {                                                                                              \
        for (uint32_t i = 0; i < b->n; i++) {                                                      \
            hb_packet p = packet_of(b, hb_header(b->arena, b->handles[i]));                        \
            uint32_t offset = p.offset, length = p.length;                                         \
            uint64_t result = 0;                                                                   \
            uint32_t verdict = hb_nf_##name(&p, b->table, b->arg ? b->arg[i] : 0, &result);        \
            if (b->result)                                                                         \
                b->result[i] = result;                                                             \
            if (verdict != HB_PASS || p.offset != offset || p.length != length)                    \
                answer(b->answers, i, &p, verdict, result);                                        \
        }                                                                                          \
    }
HB_NF_KINDS(HB_NF_ENGINE)

hb_nf_engine *hb_nf_engine_of(uint32_t kind)
{
#define HB_NF_ENGINE_CASE(number, name)                                                            \
    case number:                                                                                   \
        return run_##name;
    switch (kind) {
        HB_NF_KINDS(HB_NF_ENGINE_CASE)
    default:
        return NULL;
    }
}

hb_table hb_nf_table(const void *tables, uint32_t instance)
{
    const struct hb_tables *head = tables;
    const uint8_t *base = tables;
    const struct hb_nf_instance *inst =
        (const struct hb_nf_instance *)(base + head->nfs_off) + instance;
    return (hb_table){.base = base + inst->base, .length = inst->length};
}

uint32_t hb_nf_run(const void *tables, uint32_t instance, hb_packet *p, uint64_t arg,
                   uint64_t *result)
{
    *result = 0;
    return hb_run_nf(tables, instance, p, arg, result);
}

void hb_run_program(void *frames, uint32_t frame_size, const void *tables, uint32_t program,
                    uint32_t head, uint32_t tail, const void *work, const uint64_t *arg, void *done,
                    uint32_t n)
{
    struct hb_rowdesc row = {
        .program = program, .count = 1, .head = (uint16_t)head, .tail = (uint16_t)tail};
    for (uint32_t i = 0; i < n; i++) { /* rows of one lane, because a row's count has 16 bits */
        hb_queue q = {.rowdesc = &row,
                      .work = (const struct hb_work *)work + i,
                      .arg = arg + i,
                      .done = (struct hb_done *)done + i,
                      .frames = frames,
                      .stride = frame_size,
                      .lanes = 1,
                      .tables = tables};
        hb_run_lane(&q, 0, 0);
    }
}

const char *hb_reason_name(uint32_t reason)
{
#define HB_REASON_NAME(name, text) #name,
    static const char *const names[] = {HB_DROP_REASONS(HB_REASON_NAME)};
    return reason < HB_REASONS ? names[reason] : NULL;
}

const char *hb_reason_text(uint32_t reason)
{
#define HB_REASON_TEXT(name, text) text,
    static const char *const texts[] = {HB_DROP_REASONS(HB_REASON_TEXT)};
    return reason < HB_REASONS ? texts[reason] : NULL;
}

const char *hb_nf_kind_name(uint32_t kind)
{
#define HB_NF_NAME(number, name)                                                                   \
    case number:                                                                                   \
        return #name;
    switch (kind) {
        HB_NF_KINDS(HB_NF_NAME)
    default:
        return NULL;
    }
}
