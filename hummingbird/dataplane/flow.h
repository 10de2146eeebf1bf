/* SPDX-License-Identifier: BSD-3-Clause */
/* flow.h: the flow cache of an lcore: 5-tuple to packet type, so that rules run once per flow. */
#ifndef HB_FLOW_H
#define HB_FLOW_H
#include "parse.h"

#define HB_FLOW_WAYS 16 /* entries of a set */

/*
 * One flow, one cache line. Key, hash and `seen` are written by the owner lcore only. `word` holds
 * the entry's generation (upper half, 0: free) and the types of direction 1 and 0 (16 bits each); a
 * sticky re-type may come from another lcore, hence the compare-exchange, which fails when the
 * entry has been given to another flow meanwhile.
 */
typedef struct {
    alignas(64) hb_key key;
    _Atomic uint64_t word;
    uint32_t hash;
    uint32_t seen; /* coarse time of the last packet, for eviction */
} hb_flow;
_Static_assert(sizeof(hb_flow) == 64, "a flow is one cache line");

/*
 * A flow lies in the set that the lower bits of its hash name, or in one other if that is full. The
 * tags of a set, 16 bits of each flow's hash, share half a line: they say which of its flows to
 * look at, so that a lookup costs two lines that can both be asked for in time. Written by the
 * owner.
 */
typedef struct {
    uint16_t *tag; /* [sets][HB_FLOW_WAYS]; 0: free */
    hb_flow *flow; /* [sets][HB_FLOW_WAYS] */
    uint32_t mask; /* sets - 1 */
    uint32_t clock_shift;
    uint32_t generation; /* of the last flow inserted */
    const hb_rule *rules;
    uint32_t nb_rules;
    hb_lcore_stats *stats;
} hb_flows;

/* `flows` is how many it shall remember at least: a power of two; there are twice as many entries.
 */
int hb_flows_init(hb_flows *f, uint32_t flows, const hb_rule *rules, uint32_t nb_rules,
                  hb_lcore_stats *stats);
void hb_flows_free(hb_flows *f);

/* Ask for the first line that hb_flow_classify() will read of a flow with this hash. */
static inline void hb_flow_prefetch(const hb_flows *f, uint32_t hash)
{
    __builtin_prefetch(f->tag + (size_t)(hash & f->mask) * HB_FLOW_WAYS);
}

/* Sets type, flow and flow_gen of n headers, at most HB_BURST: from the cache, else by the rules.
 */
void hb_flow_classify(hb_flows *f, hb_mbuf *const *m, const hb_key *keys, uint32_t n);

/* All packets of this flow, both directions, are `type` from now on. */
void hb_flow_retype(hb_flows *f, const hb_mbuf *m, uint16_t type);

#endif
