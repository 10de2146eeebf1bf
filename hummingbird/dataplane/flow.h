/* SPDX-License-Identifier: BSD-3-Clause */
/* flow.h: the flow cache of an lcore: 5-tuple to packet type, so that rules run once per flow. */
#ifndef HB_FLOW_H
#define HB_FLOW_H
#include "parse.h"

#define HB_FLOW_PROBES 8

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

typedef struct {
    hb_flow *flow;
    uint32_t mask;
    uint32_t clock;      /* lookups so far / 256: coarse enough for `seen` */
    uint32_t generation; /* of the last flow inserted */
    const hb_rule *rules;
    uint32_t nb_rules;
    hb_lcore_stats *stats;
} hb_flows;

int hb_flows_init(hb_flows *f, uint32_t entries, const hb_rule *rules, uint32_t nb_rules,
                  hb_lcore_stats *stats);

static inline void hb_flow_prefetch(const hb_flows *f, uint32_t hash)
{
    __builtin_prefetch(f->flow + (hash & f->mask), 1);
}

/* Sets type, flow and flow_gen of the header: from the cache, else by the rules. */
void hb_flow_classify(hb_flows *f, hb_mbuf *m, const hb_key *key);

/* All packets of this flow, both directions, are `type` from now on. */
void hb_flow_retype(hb_flows *f, const hb_mbuf *m, uint16_t type);

#endif
