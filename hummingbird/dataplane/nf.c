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
