/* SPDX-License-Identifier: BSD-3-Clause */
/* nf.c: the device code of all NFs, compiled for the CPU; see nf.h. */
#include "nf.h"

#include "api.h"

#include "nf/firewall.cl"
#include "nf/flow_monitor.cl"
#include "nf/forward.cl"
#include "nf/ipsec.cl"
#include "nf/load_balancer.cl"
#include "nf/nat.cl"
#include "nf/nids.cl"
#include "nf/probe.cl"
#include "nf/router.cl"
#include "nf/touch.cl"

#define HB_NF_CASE(number, name)                                                                   \
    case number:                                                                                   \
        return hb_nf_##name(p, &t, arg, result);
#define HB_NF_CASES HB_NF_KINDS(HB_NF_CASE)
#include "gpusyncer.cl"

#define HB_NF_LOOP_CASE(number, name) HB_NF_LOOP(name)
HB_NF_KINDS(HB_NF_LOOP_CASE)

/* NFs with nothing on the host but their packet function. */
#define HB_NF_PLAIN(nf)                                                                            \
    static const hb_nf_engine nf##_engines[] = {{.name = "cpu", .run = hb_loop_##nf}};             \
    static const hb_nf_kind hb_##nf##_kind = {.engines = nf##_engines, .nb_engines = 1};
HB_NF_PLAIN(forward)
HB_NF_PLAIN(probe)
HB_NF_PLAIN(touch)

/* The others: dataplane/nf/<name>.c. */
extern const hb_nf_kind hb_firewall_kind, hb_flow_monitor_kind, hb_ipsec_kind,
    hb_load_balancer_kind, hb_nat_kind, hb_nids_kind, hb_router_kind;

const hb_nf_kind *hb_nf_kind_of(uint32_t kind)
{
#define HB_NF_KIND_CASE(number, name)                                                              \
    case number:                                                                                   \
        return &hb_##name##_kind;
    switch (kind) {
        HB_NF_KINDS(HB_NF_KIND_CASE)
    default:
        return NULL;
    }
}

const char *hb_nf_engine_name(uint32_t kind, uint32_t engine)
{
    const hb_nf_kind *k = hb_nf_kind_of(kind);
    return k && engine < k->nb_engines ? k->engines[engine].name : NULL;
}

int hb_nf_engine_usable(uint32_t kind, uint32_t engine)
{
    const hb_nf_kind *k = hb_nf_kind_of(kind);
    if (!k || engine >= k->nb_engines)
        return 0;
    return !k->engines[engine].usable || k->engines[engine].usable();
}

hb_table hb_nf_table(const void *tables, uint32_t instance)
{
    return hb_table_of(tables, hb_instance_of(tables, instance));
}

hb_states hb_nf_states(const void *tables, uint32_t instance)
{
    const struct hb_nf_instance *inst = hb_instance_of(tables, instance);
    return (hb_states){.base = (uint8_t *)tables + inst->state_base,
                       .flows = inst->state_flows,
                       .stride = inst->state_stride,
                       .bytes = inst->state_bytes};
}

uint32_t hb_nf_run(const void *tables, uint32_t instance, hb_packet *p, uint64_t arg,
                   uint64_t *result)
{
    const uint8_t *parts = NULL;
    *result = 0;
    return hb_run_nf(tables, instance, p, arg, result, &parts);
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
