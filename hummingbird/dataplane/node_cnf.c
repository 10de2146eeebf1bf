/* SPDX-License-Identifier: BSD-3-Clause */
/* node_cnf.c: an NF that a CPU runs, from the same source as on a device. */
#include "dataplane.h"

static void run_one(hb_dataplane *dp, const hb_nf *nf, uint32_t handle, uint64_t arg,
                    struct hb_done *d)
{
    hb_mbuf *m = hb_header(&dp->arena, handle);
    hb_packet p = {.frame = hb_frame(&dp->arena, m),
                   .low = m->data_off - nf->head,
                   .high = (uint32_t)m->data_off + m->data_len + nf->tail,
                   .offset = m->data_off,
                   .length = m->data_len,
                   .l3 = m->l3,
                   .l4 = m->l4,
                   .type = m->type,
                   .flow = m->flow};
    uint64_t result = 0;
    uint32_t verdict = hb_nf_run(dp->config.tables, nf->instance, &p, arg, &result);
    *d = (struct hb_done){.offset = (uint16_t)p.offset,
                          .length = (uint16_t)p.length,
                          .value = (uint16_t)(verdict >> 8),
                          .verdict = (uint8_t)verdict,
                          .result = result};
}

uint32_t hb_poll_cnf(hb_lcore *lc, uint32_t node)
{
    hb_dataplane *dp = lc->dp;
    const hb_nf *nf = &dp->node[node].nf;
    uint32_t handles[HB_BURST];
    uint64_t arg[HB_BURST] = {0};
    struct hb_done done[HB_BURST];
    uint32_t taken = hb_fifo_take(&lc->input[node], handles, HB_BURST), n = 0;
    for (uint32_t i = 0; i < taken; i++)
        if (hb_has_room(lc, node, handles[i]))
            handles[n++] = handles[i];
    if (!n)
        return taken;
    hb_prepare(lc, node, arg, n);
    for (uint32_t i = 0; i < n; i++)
        run_one(dp, nf, handles[i], arg[i], &done[i]);
    hb_finish(lc, node, handles, done, n);
    return taken;
}
