/* SPDX-License-Identifier: BSD-3-Clause */
/* nids.c: counts, for each rule, the packets in which it was the lowest one found. */
#include "nids_scan.h"

/* What happens on a match: 0 pass, 1 drop, 2 + type re-type. */
static uint32_t action_of(const hb_nf_seat *seat)
{
    uint32_t action = ((const uint32_t *)seat->table.base)[31];
    if (action == 0)
        return HB_PASS;
    return action == 1 ? HB_DROP(HB_REASON_nf_action) : HB_RETYPE(action - 2);
}

static void finish(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    (void)handles;
    uint32_t on_match = action_of(seat);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rule = (uint32_t)result[i];
        if (rule == 0 || rule > seat->rules)
            continue;
        seat->hits[rule - 1]++;
        verdict[i] = on_match;
    }
}

extern const hb_nf_kind hb_nids_kind;
const hb_nf_kind hb_nids_kind = {
    .finish = finish, .engines = hb_nids_engines, .nb_engines = HB_NIDS_ENGINES};
