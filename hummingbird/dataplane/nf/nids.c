/* SPDX-License-Identifier: BSD-3-Clause */
/* nids.c: counts, for each rule, the packets in which it was the lowest one found. */
#include "nf.h"

static void finish(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    (void)handles, (void)verdict;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rule = (uint32_t)result[i];
        if (rule != 0 && rule <= seat->rules)
            seat->hits[rule - 1]++;
    }
}

static const hb_nf_engine engines[] = {{.name = "cpu", .run = hb_loop_nids}};
extern const hb_nf_kind hb_nids_kind;
const hb_nf_kind hb_nids_kind = {.finish = finish, .engines = engines, .nb_engines = 1};
