/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * firewall_engine.c: the firewall on the CPU. The vectors of a packet do not depend on those of
 * another one, so those of many are on their way at once. What is rare (IPv6, IPv4 options,
 * fragments) is left to the packet function.
 */
#include <string.h>

#include "firewall.h"

#define STEP 64u /* packets whose headers are asked for together */
#define MOST 8u  /* fields of a set of IPv4 entries */

/* The set of the IPv4 entries, as pointers. */
typedef struct {
    uint32_t fields; /* a bit for each that it has, as in `values`; 0: there is no set */
    uint32_t blocks;
    uint32_t summaries;
    const uint16_t *map[MOST]; /* by field */
    const uint8_t *vector[MOST];
    const uint8_t *summary[MOST];
    const uint32_t *told; /* verdict and rule of each entry; behind the last block, of none */
} plan;

/* The address in four parts, then the fields from HB_FIREWALL_AT_SPORT on. */
typedef uint32_t values[MOST];

static void read_plan(const hb_table *t, plan *s)
{
    uint32_t set = hb_table32(t, 4), fields = set ? hb_table32(t, set) : 0;
    *s = (plan){.blocks = hb_table32(t, set + 1),
                .summaries = hb_table32(t, set + 2),
                .told = (const uint32_t *)t->base + hb_table32(t, set + 3)};
    for (uint32_t i = 0; i < fields && i < MOST; i++) {
        uint32_t field = set + HB_FIREWALL_SET + HB_FIREWALL_FIELD * i, at = hb_table32(t, field);
        uint32_t f = at < 4 ? at : 4 + (at - HB_FIREWALL_AT_SPORT) % 4;
        s->fields |= 1u << f;
        s->map[f] = (const uint16_t *)t->base + hb_table32(t, field + 1);
        s->vector[f] = t->base + 16ull * hb_table32(t, field + 2);
        s->summary[f] = t->base + 16ull * hb_table32(t, field + 3);
    }
}

/* ---- headers ----------------------------------------------------------------------------------
 */

static inline uint32_t be32(const uint8_t *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return hb_swap32(word);
}

/* What a protocol has, as masks: which one it is is a coin toss, so nothing branches on it. */
static const struct {
    uint32_t ported, icmp, flags;
} known[256] = {[1] = {.icmp = 0x1ffff},
                [6] = {.ported = 0x1ffff, .flags = 127},
                [17] = {.ported = 0x1ffff},
                [132] = {.ported = 0x1ffff}};

/* Values of all fields: IPv4 without options, not a fragment, and all of them there. `left` bytes
 * lie at ip. */
static inline bool values_of(const uint8_t *ip, uint32_t left, values v)
{
    if (left < 34)
        return false;
    uint32_t first = be32(ip), total = first & 0xffff, protocol = ip[9];
    if (first >> 24 != 0x45 || be32(ip + 4) & 0x3fff || total < 34 || total > left)
        return false;
    uint32_t src = be32(ip + 12), dst = be32(ip + 16), ports = be32(ip + 20);
    uint32_t ported = known[protocol].ported, icmp = known[protocol].icmp;
    v[0] = src >> 16;
    v[1] = src & 0xffff;
    v[2] = dst >> 16;
    v[3] = dst & 0xffff;
    uint32_t sport = ports >> 16, dport = ports & 0xffff;
    v[4] = (sport & ported) | (HB_FIREWALL_NO_PORT & ~ported);
    v[5] = (dport & ported) | (sport & icmp) | (HB_FIREWALL_NO_PORT & ~ported & ~icmp);
    v[6] = protocol;
    v[7] = (ip[33] & 63u & known[protocol].flags) | (HB_FIREWALL_NO_FLAGS & ~known[protocol].flags);
    return true;
}

/* ---- vectors ----------------------------------------------------------------------------------
 */

/* Half a line; without AVX2 two registers. */
typedef uint64_t half_line __attribute__((vector_size(32), may_alias));
#define HALF 32u
#define INLINE static inline __attribute__((always_inline))

INLINE size_t class_of(const plan *set, const uint32_t *v, uint32_t f)
{
    const uint16_t *map = set->map[f];
    return map[HB_FIREWALL_PARTS + 256u * map[v[f] >> 8] + (v[f] & 255)];
}

#define EACH_FIELD(f, fields)                                                                      \
    _Pragma("GCC unroll 8") for (uint32_t f = 0; f < MOST; f++) if ((fields) >> f & 1)

/* The first bit of half a line, or 256. Which word it is in is a coin toss, so nothing branches on
 * it. */
INLINE uint32_t first_of(const half_line *all)
{
    uint64_t word[5];
    memcpy(word, all, sizeof *all);
    word[4] = 1;
    uint32_t some =
        (word[0] != 0) | (word[1] != 0) << 1 | (word[2] != 0) << 2 | (word[3] != 0) << 3 | 1u << 4;
    uint32_t k = (uint32_t)__builtin_ctz(some);
    return 64 * k + (uint32_t)__builtin_ctzll(word[k]);
}

/* An entry, or the one behind the last block: vectors of half a line. */
INLINE uint32_t search_half(const plan *set, const uint32_t *v, uint32_t fields)
{
    half_line all = ~(half_line){0};
    EACH_FIELD(f, fields)
    all &= *(const half_line *)(set->vector[f] + class_of(set, v, f) * HALF);
    return first_of(&all);
}

/* The same for some lines. */
INLINE uint32_t search_all(const plan *set, const uint32_t *v, uint32_t fields)
{
    const uint8_t *at[MOST];
    uint32_t bytes = 16 * set->blocks, found = 256;
    EACH_FIELD(f, fields)
    at[f] = set->vector[f] + class_of(set, v, f) * bytes;
    uint32_t b = 0;
    for (; b < bytes && found == 256; b += HALF) {
        half_line all = ~(half_line){0};
        EACH_FIELD(f, fields)
        all &= *(const half_line *)(at[f] + b);
        found = first_of(&all);
    }
    return 8 * (b - HALF) + found;
}

typedef uint64_t block __attribute__((vector_size(16), may_alias));

INLINE block and_of(const uint8_t *const *at, uint32_t fields, uint32_t number)
{
    block all = ~(block){0};
    EACH_FIELD(f, fields)
    all &= ((const block *)at[f])[number];
    return all;
}

INLINE uint32_t low_of(block b)
{
    return b[0] ? (uint32_t)__builtin_ctzll(b[0]) : 64 + (uint32_t)__builtin_ctzll(b[1]);
}

INLINE uint32_t search_summaries(const plan *set, const uint32_t *v, uint32_t fields)
{
    const uint8_t *at[MOST], *summary[MOST];
    EACH_FIELD(f, fields)
    {
        size_t class_ = class_of(set, v, f);
        at[f] = set->vector[f] + class_ * 16 * set->blocks;
        summary[f] = set->summary[f] + class_ * 16 * set->summaries;
    }
    for (uint32_t s = 0; s < set->summaries; s++) {
        block maybe = and_of(summary, fields, s);
        while (maybe[0] | maybe[1]) {
            uint32_t number = low_of(maybe);
            block found = and_of(at, fields, 128 * s + number);
            if (found[0] | found[1])
                return 128 * (128 * s + number) + low_of(found);
            maybe[number >> 6] &= maybe[number >> 6] - 1;
        }
    }
    return 128 * set->blocks;
}

INLINE uint32_t search(const plan *set, const uint32_t *v, uint32_t fields)
{
    if (set->summaries)
        return search_summaries(set, v, fields);
    return set->blocks == 2 ? search_half(set, v, fields) : search_all(set, v, fields);
}

/* ---- a burst ----------------------------------------------------------------------------------
 */

static void put(const hb_nf_burst *b, uint32_t i, const hb_packet *p, uint32_t verdict,
                uint64_t result)
{
    if (b->result)
        b->result[i] = result;
    if (verdict != HB_PASS)
        hb_answer(b->answers, i, p, verdict, result);
}

/* All that an untracked packet asks for. */
static inline void judge(const hb_nf_burst *b, const plan *set, uint32_t i, uint32_t found)
{
    uint32_t verdict = set->told[2 * found], count = set->told[2 * found + 1] + 1;
    if (b->result)
        b->result[i] = count;
    if (verdict != HB_PASS) {
        hb_packet p = hb_packet_of(b, i);
        hb_answer(b->answers, i, &p, verdict, count);
    }
}

INLINE void run_one(const hb_nf_burst *b, const plan *set, bool tracking, uint32_t fields,
                    uint32_t i)
{
    const hb_mbuf *m = hb_header(b->arena, b->handles[i]);
    const uint8_t *ip = hb_data(b->arena, m) + m->l3;
    uint32_t found = HB_FIREWALL_UNKNOWN;
    values v;
    tracking = tracking && m->flow < b->states->flows;
    bool ask = !tracking || !*(const uint32_t *)hb_state_at(b->states, m->flow);
    if (fields && ask && m->l3 != HB_NO_LAYER && m->l3 < m->data_len &&
        values_of(ip, m->data_len - (uint32_t)m->l3, v))
        found = search(set, v, fields);
    if (!tracking && found != HB_FIREWALL_UNKNOWN) {
        judge(b, set, i, found);
        return;
    }
    hb_packet p = hb_packet_of(b, i);
    uint64_t result = 0;
    uint32_t verdict = hb_firewall_run(&p, b->table, b->arg ? b->arg[i] : 0, &result, found);
    put(b, i, &p, verdict, result);
}

/* The packets first .. end - 1. */
INLINE void run_step(const hb_nf_burst *b, const plan *set, bool tracking, uint32_t fields,
                     uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        __builtin_prefetch(hb_data(b->arena, hb_header(b->arena, b->handles[i])) + 14);
    for (uint32_t i = first; i < end; i++)
        run_one(b, set, tracking, fields, i);
}

/* The fields that rules have most often, as a constant: loops over them are unrolled. */
INLINE void run(const hb_nf_burst *b)
{
    enum { ALL_BUT_FLAGS = 0x7f, NO_SPORT = 0x6f };
    plan set;
    read_plan(b->table, &set);
    bool tracking = hb_table32(b->table, 1) & HB_FIREWALL_TRACKING;
    for (uint32_t first = 0; first < b->n; first += STEP) {
        uint32_t end = b->n - first < STEP ? b->n : first + STEP;
        if (set.fields == ALL_BUT_FLAGS)
            run_step(b, &set, tracking, ALL_BUT_FLAGS, first, end);
        else if (set.fields == NO_SPORT)
            run_step(b, &set, tracking, NO_SPORT, first, end);
        else
            run_step(b, &set, tracking, set.fields, first, end);
    }
}

void hb_firewall_run_plain(hb_nf_seat *seat, const hb_nf_burst *b)
{
    (void)seat;
    run(b);
}

#if defined(__x86_64__)
__attribute__((target("avx2,bmi"))) void hb_firewall_run_avx2(hb_nf_seat *seat,
                                                              const hb_nf_burst *b)
{
    (void)seat;
    run(b);
}

bool hb_firewall_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
}
#endif
