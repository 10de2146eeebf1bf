/* SPDX-License-Identifier: BSD-3-Clause */
/* node_cnf.c: an NF that a CPU runs, from the same source as on a device. */
#include "dataplane.h"
#include "guard.h"

/* The NF begins at one tick, and the packets came to it at another: before, if they have waited. */
static void run(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n, uint64_t begin,
                uint64_t came_at, const hb_burst_sum *sum)
{
    const hb_nf *nf = &lc->dp->node[node].nf;
    hb_nf_seat *seat = &lc->seat[node];
    uint64_t arg[HB_BURST], results[HB_BURST];
    uint64_t *result = seat->kind->finish ? results : NULL;
    hb_answers answers;
    uint32_t came = n, account = hb_account(lc, node);
    n = hb_keep_with_room(lc, node, handles, came);
    for (uint32_t i = 0; i < n; i++)
        hb_guard(&lc->dp->arena, handles[i], nf->head, nf->tail);
    if (nf->flow_bytes)
        n = hb_set_up_flows(lc, node, handles, n);
    if (n) {
        if (seat->kind->prepare)
            seat->kind->prepare(seat, handles, arg, n);
        answers.n = 0;
        seat->engine->run(seat, &(hb_nf_burst){.arena = &lc->dp->arena,
                                               .table = &seat->table,
                                               .states = &seat->states,
                                               .head = nf->head,
                                               .tail = nf->tail,
                                               .n = n,
                                               .handles = handles,
                                               .arg = seat->kind->prepare ? arg : NULL,
                                               .result = result,
                                               .answers = &answers});
        hb_sample_work(lc, node, begin, came_at);
        hb_finish(lc, node, handles, n, result, &answers, n == came ? sum : NULL);
    }
    hb_account(lc, account);
}

void hb_run_cnf(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n, const hb_burst_sum *sum)
{
    /* right behind the node before, whose look at the clock will do: the way from there counts */
    run(lc, node, handles, n, lc->sampled, lc->sampled, sum);
}

uint32_t hb_poll_cnf(hb_lcore *lc, uint32_t node)
{
    uint32_t handles[HB_BURST];
    lc->node_stats[node].depth = hb_fifo_count(&lc->input[node]);
    uint32_t n = hb_fifo_take(&lc->input[node], handles, HB_BURST);
    if (n)
        run(lc, node, handles, n, lc->sampled, hb_header(&lc->dp->arena, handles[0])->hop_tick,
            NULL);
    return n;
}
