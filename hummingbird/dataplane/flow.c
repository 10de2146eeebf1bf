/* SPDX-License-Identifier: BSD-3-Clause */
#include "flow.h"

#include <stdlib.h>
#include <string.h>

#define GENERATION(word) ((uint32_t)((word) >> 32))
#define TYPE(word, direction) ((uint16_t)((word) >> (16 * (direction))))

int hb_flows_init(hb_flows *f, uint32_t entries, const hb_rule *rules, uint32_t nb_rules,
                  hb_lcore_stats *stats)
{
    memset(f, 0, sizeof *f);
    f->mask = entries - 1;
    f->rules = rules;
    f->nb_rules = nb_rules;
    f->stats = stats;
    f->flow = hb_region_new((size_t)entries * sizeof(hb_flow));
    return f->flow ? 0 : -1;
}

static uint16_t type_by_rules(const hb_flows *f, const hb_key *key, uint32_t direction)
{
    const hb_rule *r = hb_match_rules(f->rules, f->nb_rules, key, direction);
    return r ? r->type : 0;
}

/* The key's entry, else a free one, else the one of the window that was idle longest. */
static hb_flow *find(hb_flows *f, const hb_key *key, uint32_t hash)
{
    hb_flow *victim = NULL;
    for (uint32_t i = 0; i < HB_FLOW_PROBES; i++) {
        hb_flow *e = f->flow + ((hash + i) & f->mask);
        bool used = GENERATION(atomic_load_explicit(&e->word, memory_order_relaxed)) != 0;
        if (!used)
            return e;
        if (e->hash == hash && !memcmp(&e->key, key, sizeof *key))
            return e;
        if (!victim || f->clock - e->seen > f->clock - victim->seen)
            victim = e;
    }
    return victim;
}

static uint64_t insert(hb_flows *f, hb_flow *e, const hb_key *key, uint32_t hash)
{
    if (GENERATION(atomic_load_explicit(&e->word, memory_order_relaxed)))
        f->stats->flow_evictions++;
    if (!++f->generation)
        f->generation = 1;
    e->key = *key;
    e->hash = hash;
    uint64_t word = (uint64_t)f->generation << 32 | (uint32_t)type_by_rules(f, key, 1) << 16 |
                    type_by_rules(f, key, 0);
    atomic_store_explicit(&e->word, word, memory_order_relaxed);
    return word;
}

void hb_flow_classify(hb_flows *f, hb_mbuf *m, const hb_key *key)
{
    hb_flow *e = find(f, key, m->hash);
    uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);
    if (GENERATION(word) && e->hash == m->hash && !memcmp(&e->key, key, sizeof *key)) {
        f->stats->flow_hits++;
    } else {
        f->stats->flow_misses++;
        word = insert(f, e, key, m->hash);
    }
    e->seen = f->clock = (uint32_t)((f->stats->flow_hits + f->stats->flow_misses) >> 8);
    m->flow = (uint32_t)(e - f->flow);
    m->flow_gen = GENERATION(word);
    m->type = TYPE(word, m->direction);
}

void hb_flow_retype(hb_flows *f, const hb_mbuf *m, uint16_t type)
{
    hb_flow *e = f->flow + m->flow;
    uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);
    uint64_t sticky = (uint64_t)m->flow_gen << 32 | (uint32_t)type << 16 | type;
    /* relaxed: the types are data of their own, nothing else is published by them */
    while (GENERATION(word) == m->flow_gen && word != sticky)
        if (atomic_compare_exchange_weak_explicit(&e->word, &word, sticky, memory_order_relaxed,
                                                  memory_order_relaxed))
            break;
}
