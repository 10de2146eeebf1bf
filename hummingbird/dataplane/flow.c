/* SPDX-License-Identifier: BSD-3-Clause */
#include "flow.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#if defined(__SSE4_1__)
#include <smmintrin.h>
#endif

#define GENERATION(word) ((uint32_t)((word) >> 32))
#define TYPE(word, direction) ((uint16_t)((word) >> (16 * (direction))))

uint32_t hb_flow_places(uint32_t flows)
{
    uint32_t places = 2 * flows;
    return places < HB_FLOW_WAYS ? HB_FLOW_WAYS : places;
}

int hb_flows_init(hb_flows *f, uint32_t flows, uint32_t base, const hb_rule *rules,
                  uint32_t nb_rules, hb_lcore_stats *stats)
{
    memset(f, 0, sizeof *f);
    f->mask = hb_flow_places(flows) / HB_FLOW_WAYS - 1;
    f->shift = 32 - (uint32_t)__builtin_popcount(f->mask);
    f->base = base;
    /* `seen` counts lookups in steps of an eighth of the flows: most leave a flow's line clean */
    while (f->clock_shift < 28 && (16u << f->clock_shift) <= flows)
        f->clock_shift++;
    f->rules = rules;
    f->nb_rules = nb_rules;
    f->stats = stats;
    f->flow = hb_region_new(hb_flows_places(f) * sizeof *f->flow);
    f->tag = hb_region_new(hb_flows_places(f) * sizeof *f->tag);
    return f->flow && f->tag ? 0 : -1;
}

void hb_flows_free(hb_flows *f)
{
    if (f->lives) {
        free(f->lives->expendable);
        free(f->lives->gone);
        free(f->lives);
    }
    hb_region_free(f->flow, hb_flows_places(f) * sizeof *f->flow);
    hb_region_free(f->tag, hb_flows_places(f) * sizeof *f->tag);
}

/* ---- lookup ---------------------------------------------------------------------------------- */

/* Not from the bits that name the set; never 0. */
static inline uint16_t tag_of(uint32_t hash)
{
    return (uint16_t)(hash >> 16 | 1);
}

/* The ways of a set that have this tag, as bits. */
static inline uint32_t ways_with(const hb_flows *f, uint32_t set, uint16_t tag)
{
    const uint16_t *tags = f->tag + (size_t)set * HB_FLOW_WAYS;
#if defined(__SSE2__)
    __m128i wanted = _mm_set1_epi16((short)tag);
    __m128i low = _mm_load_si128((const __m128i *)tags);
    __m128i high = _mm_load_si128((const __m128i *)(tags + 8));
    __m128i equal = _mm_packs_epi16(_mm_cmpeq_epi16(low, wanted), _mm_cmpeq_epi16(high, wanted));
    return (uint32_t)_mm_movemask_epi8(equal);
#else
    uint32_t ways = 0;
    for (uint32_t i = 0; i < HB_FLOW_WAYS; i++)
        ways |= (uint32_t)(tags[i] == tag) << i;
    return ways;
#endif
}

static inline uint32_t entry(uint32_t set, uint32_t ways)
{
    return set * HB_FLOW_WAYS + (uint32_t)__builtin_ctz(ways);
}

static inline bool same_key(const hb_key *a, const hb_key *b)
{
    const uint64_t *x = a->word, *y = b->word;
#if defined(__SSE4_1__)
    __m128i first =
        _mm_xor_si128(_mm_loadu_si128((const __m128i *)x), _mm_loadu_si128((const __m128i *)y));
    __m128i second = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(x + 2)),
                                   _mm_loadu_si128((const __m128i *)(y + 2)));
    __m128i differ = _mm_or_si128(first, second);
    return _mm_testz_si128(differ, differ) && x[4] == y[4];
#else
    return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]));
#endif
}

/* What is not IP has a key that is all zero: its flows differ in the hash alone, and a free entry,
 * which has no generation, may look like one. */
static inline bool is_of(const hb_flow *e, const hb_key *key, uint32_t hash)
{
    return e->hash == hash && same_key(&e->key, key) &&
           GENERATION(atomic_load_explicit(&e->word, memory_order_relaxed));
}

static uint32_t clock_of(const hb_flows *f)
{
    return (uint32_t)((f->stats->flow_hits + f->stats->flow_misses) >> f->clock_shift);
}

/* Where a flow goes when its first set is nearly full; never the same one. */
static uint32_t other_set(const hb_flows *f, uint32_t set, uint16_t tag)
{
    return (set ^ (tag * 0x9e3779b1u >> 7 | 1)) & f->mask;
}

/* ---- the flow is not the first with its tag, or is new -----------------------------------------
 */

static uint16_t type_by_rules(const hb_flows *f, const hb_key *key, uint32_t direction)
{
    const hb_rule *r = hb_match_rules(f->rules, f->nb_rules, key, direction);
    return r ? r->type : 0;
}

static uint32_t seen(const hb_flow *e)
{
    return atomic_load_explicit(&e->seen, memory_order_relaxed);
}

/* Flows are looked for in their first set first, so that is where they go while it has this many
 * free places: the few that go elsewhere are spread so well that no set is full before its time. */
#define ENOUGH 4

/* A free entry in either set, else, if flows are not tracked, the one of the first set that was
 * idle longest; or HB_NO_FLOW. */
static uint32_t make_room(hb_flows *f, const uint32_t set[2])
{
    uint32_t now = clock_of(f), victim = set[0] * HB_FLOW_WAYS;
    uint32_t first = ways_with(f, set[0], HB_TAG_FREE), other = ways_with(f, set[1], HB_TAG_FREE);
    int few = __builtin_popcount(first);
    if (few && (few >= ENOUGH || few >= __builtin_popcount(other)))
        return entry(set[0], first);
    if (other)
        return entry(set[1], other);
    if (f->lives)
        return HB_NO_FLOW;
    for (uint32_t at = victim; at < (set[0] + 1) * HB_FLOW_WAYS; at++)
        if (now - seen(&f->flow[at]) > now - seen(&f->flow[victim]))
            victim = at;
    f->stats->flow_evictions++;
    return victim;
}

static uint32_t insert(hb_flows *f, uint32_t at, const hb_key *key, uint32_t hash)
{
    hb_flow *e = f->flow + at;
    if (!++f->generation)
        f->generation = 1;
    e->key = *key;
    e->hash = hash;
    f->tag[at] = tag_of(hash);
    uint64_t word = (uint64_t)f->generation << 32 | (uint32_t)type_by_rules(f, key, 1) << 16 |
                    type_by_rules(f, key, 0);
    atomic_store_explicit(&e->word, word, memory_order_relaxed);
    return at;
}

uint32_t hb_flow_place(const hb_flows *f, const hb_key *key, uint32_t hash)
{
    uint16_t tag = tag_of(hash);
    uint32_t set = hb_flow_set(f, hash);
    for (uint32_t k = 0; k < 2; k++, set = other_set(f, set, tag))
        for (uint32_t ways = ways_with(f, set, tag); ways; ways &= ways - 1)
            if (is_of(&f->flow[entry(set, ways)], key, hash))
                return entry(set, ways);
    return HB_NO_FLOW;
}

/* A new flow, or HB_NO_FLOW if there is no place for it. */
static uint32_t make(hb_flows *f, const hb_key *key, uint32_t hash)
{
    uint32_t first = hb_flow_set(f, hash);
    f->stats->flow_misses++;
    uint32_t at = make_room(f, (uint32_t[]){first, other_set(f, first, tag_of(hash))});
    /* none goes for one that has no place in the end */
    if (at == HB_NO_FLOW || (f->lives && !hb_flow_admit(f)))
        return HB_NO_FLOW;
    return insert(f, at, key, hash);
}

/* ---- a burst --------------------------------------------------------------------------------- */

static inline void use(hb_flows *f, hb_mbuf *m, uint32_t at, uint32_t now)
{
    hb_flow *e = f->flow + at;
    uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);
    if (seen(e) != now) /* most leave the line clean; relaxed: a time, which publishes nothing */
        atomic_store_explicit(&e->seen, now, memory_order_relaxed);
    m->flow = f->base + at;
    m->flow_gen = GENERATION(word);
    m->type = TYPE(word, m->direction);
}

/* Not a flow, for want of a place: by the rules. */
static void refuse(hb_flows *f, hb_mbuf *m, const hb_key *key)
{
    f->stats->flow_refusals++;
    m->flow = HB_NO_FLOW;
    m->flow_gen = 0;
    m->type = type_by_rules(f, key, m->direction);
}

/* The place of a tracked flow, with what this packet makes of it. */
static uint32_t follow(hb_flows *f, uint32_t at, const hb_mbuf *m, const uint8_t *packet,
                       const hb_key *key)
{
    hb_flow_clock(f->lives, m->in_port, m->time_ns);
    if (at != HB_NO_FLOW && hb_flow_goes_on(f, at, m, packet))
        return at;
    at = make(f, key, m->hash);
    if (at != HB_NO_FLOW)
        hb_flow_begin(f, at, m, packet);
    return at;
}

/* A packet of a tracked flow, or of one that is not where it was looked for first: at `at`. False:
 * there is no place for its flow. */
static bool find(hb_flows *f, const hb_arena *a, hb_mbuf *m, const hb_key *key, uint32_t at)
{
    if (!is_of(&f->flow[at], key, m->hash))
        at = hb_flow_place(f, key, m->hash);
    f->stats->flow_hits += at != HB_NO_FLOW;
    if (f->lives)
        at = follow(f, at, m, hb_data(a, m), key);
    else if (at == HB_NO_FLOW)
        at = make(f, key, m->hash);
    if (at != HB_NO_FLOW)
        use(f, m, at, f->lives ? hb_flow_now(f->lives) : clock_of(f));
    return at != HB_NO_FLOW;
}

uint32_t hb_flow_classify(hb_flows *f, const hb_arena *a, hb_mbuf *const *m, const hb_key *keys,
                          uint32_t n)
{
    uint32_t at[HB_BURST], hits = 0, refused = 0;
    uint32_t now = clock_of(f);
    bool tracked = f->lives != NULL;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t set = hb_flow_set(f, m[i]->hash);
        /* no way at all: an entry that is none of this flow's, as is_of() will find */
        at[i] = entry(set, ways_with(f, set, tag_of(m[i]->hash)) | 1u << (HB_FLOW_WAYS - 1));
        __builtin_prefetch(f->flow + at[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (__builtin_expect(is_of(&f->flow[at[i]], &keys[i], m[i]->hash) && !tracked, 1)) {
            use(f, m[i], at[i], now);
            hits++;
        } else if (!find(f, a, m[i], &keys[i], at[i])) {
            refuse(f, m[i], &keys[i]);
            refused++;
        }
    }
    f->stats->flow_hits += hits;
    return refused;
}

void hb_flow_retype(hb_flows *f, const hb_mbuf *m, uint16_t type)
{
    hb_flow *e = f->flow + (m->flow - f->base);
    uint64_t word = atomic_load_explicit(&e->word, memory_order_relaxed);
    uint64_t sticky = (uint64_t)m->flow_gen << 32 | (uint32_t)type << 16 | type;
    /* relaxed: the types are data of their own, nothing else is published by them */
    while (GENERATION(word) == m->flow_gen && word != sticky)
        if (atomic_compare_exchange_weak_explicit(&e->word, &word, sticky, memory_order_relaxed,
                                                  memory_order_relaxed))
            break;
}
