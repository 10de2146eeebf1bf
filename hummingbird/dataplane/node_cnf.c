/* SPDX-License-Identifier: BSD-3-Clause */
/* node_cnf.c: an NF that a CPU runs, from the same source as on a device. */
#include "dataplane.h"

uint32_t hb_poll_cnf(hb_lcore *lc, uint32_t node)
{
    hb_dataplane *dp = lc->dp;
    const hb_nf *nf = &dp->node[node].nf;
    const hb_nf_seat *seat = &lc->seat[node];
    uint32_t handles[HB_BURST];
    uint64_t arg[HB_BURST], results[HB_BURST];
    uint64_t *result = seat->hooks->finish ? results : NULL;
    hb_answers answers;
    uint32_t taken = hb_fifo_take(&lc->input[node], handles, HB_BURST);
    uint32_t n = hb_keep_with_room(lc, node, handles, taken);
    if (!n)
        return taken;
    hb_prepare(lc, node, arg, n);
    answers.n = 0;
    seat->engine(&(hb_nf_burst){.arena = &dp->arena,
                                .table = &seat->table,
                                .head = nf->head,
                                .tail = nf->tail,
                                .n = n,
                                .handles = handles,
                                .arg = seat->hooks->prepare ? arg : NULL,
                                .result = result,
                                .answers = &answers});
    hb_finish(lc, node, handles, n, result, &answers);
    return taken;
}
