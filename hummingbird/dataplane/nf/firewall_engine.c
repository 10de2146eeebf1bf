/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * firewall_engine.c: the firewall on the CPU. The vectors of a packet do not depend on those of
 * another one, so those of many are on their way at once. What is rare (IPv6, IPv4 options,
 * fragments) is left to the packet function.
 */
#include <string.h>

#include "firewall.h"

#define STEP 64u /* packets whose headers and vectors wait in the cache together */
#define MOST 8u  /* fields of a set of IPv4 entries */

/* The set of the IPv4 entries, as pointers. */
typedef struct {
    uint32_t fields;
    uint32_t blocks;
    uint32_t summaries;
    uint32_t at[MOST]; /* HB_FIREWALL_AT_* */
    const uint16_t *map[MOST];
    const uint8_t *vector[MOST];
    const uint8_t *summary[MOST];
} plan;

/* What is known of the packets of one step. */
typedef struct {
    hb_packet packet[STEP];
    uint32_t found[STEP];
    uint32_t n; /* those that are searched for: ... */
    uint8_t at[STEP];
    uint16_t class_[STEP][MOST]; /* ... their classes by field */
} step;

static bool read_plan(const hb_table *t, plan *s)
{
    uint32_t set = hb_table32(t, 4);
    *s = (plan){.fields = set ? hb_table32(t, set) : 0,
                .blocks = hb_table32(t, set + 1),
                .summaries = hb_table32(t, set + 2)};
    for (uint32_t i = 0; i < s->fields && i < MOST; i++) {
        uint32_t field = set + HB_FIREWALL_SET + HB_FIREWALL_FIELD * i;
        s->at[i] = hb_table32(t, field);
        s->map[i] = (const uint16_t *)t->base + hb_table32(t, field + 1);
        s->vector[i] = t->base + 16ull * hb_table32(t, field + 2);
        s->summary[i] = t->base + 16ull * hb_table32(t, field + 3);
    }
    if (s->fields > MOST)
        s->fields = 0;
    return s->fields != 0;
}

/* ---- headers ----------------------------------------------------------------------------------
 */

/* Values of all fields: IPv4 without options, not a fragment, and all there. */
static inline bool values_of(const hb_packet *p, uint16_t *address, uint32_t *other)
{
    const uint8_t *ip = p->frame + p->offset + p->l3;
    uint32_t word, ports;
    if (p->l3 == HB_NO_LAYER || p->l3 + 34u > p->length || ip[0] != 0x45)
        return false;
    uint32_t total = (uint32_t)ip[2] << 8 | ip[3], protocol = ip[9];
    if (((uint32_t)ip[6] << 8 | ip[7]) & 0x3fff || total < 34 || total > p->length - p->l3)
        return false;
    for (int i = 0; i < 2; i++) {
        memcpy(&word, ip + 12 + 4 * i, 4);
        word = hb_swap32(word);
        address[2 * i] = (uint16_t)(word >> 16);
        address[2 * i + 1] = (uint16_t)word;
    }
    memcpy(&ports, ip + 20, 4);
    ports = hb_swap32(ports);
    bool ported = protocol == 6 || protocol == 17 || protocol == 132;
    other[HB_FIREWALL_AT_SPORT - 16] = ported ? ports >> 16 : HB_FIREWALL_NO_PORT;
    other[HB_FIREWALL_AT_DPORT - 16] = ported          ? ports & 0xffff
                                       : protocol == 1 ? ports >> 16
                                                       : HB_FIREWALL_NO_PORT;
    other[HB_FIREWALL_AT_PROTOCOL - 16] = protocol;
    other[HB_FIREWALL_AT_FLAGS - 16] = protocol == 6 ? ip[33] & 63u : HB_FIREWALL_NO_FLAGS;
    return true;
}

/* Packet i of the step is searched for, if that is easy and its flow does not know it yet. */
static inline void choose(step *s, const plan *set, bool tracking, uint32_t i)
{
    const hb_packet *p = &s->packet[i];
    uint16_t address[4];
    uint32_t other[4];
    s->found[i] = HB_FIREWALL_UNKNOWN;
    if (!set->fields || (tracking && hb_state32(p, HB_FIREWALL_STATUS)) ||
        !values_of(p, address, other))
        return;
    uint16_t *class_ = s->class_[s->n];
    s->at[s->n++] = (uint8_t)i;
    for (uint32_t f = 0; f < set->fields; f++) {
        uint32_t at = set->at[f];
        class_[f] = set->map[f][at < 4 ? address[at] : other[at & 3]];
    }
}

/* ---- vectors ----------------------------------------------------------------------------------
 */

/* Half a line; without AVX2 two registers. */
typedef uint64_t half_line __attribute__((vector_size(32), may_alias));
#define HALF 32u
#define INLINE static inline __attribute__((always_inline))

/* The bits that all vectors have, `from` bytes behind `at`; returns the first one, or 256. Which
 * word it is in is a coin toss, so nothing branches on it. */
INLINE uint32_t first_of(const uint8_t *const *at, uint32_t fields, uint32_t from)
{
    half_line all = *(const half_line *)(at[0] + from);
    for (uint32_t f = 1; f < fields; f++)
        all &= *(const half_line *)(at[f] + from);
    uint64_t word[5];
    memcpy(word, &all, sizeof all);
    word[4] = 1;
    uint32_t some = (word[0] != 0) | (word[1] != 0) << 1 | (word[2] != 0) << 2 |
                    (word[3] != 0) << 3 | 1u << 4;
    uint32_t k = (uint32_t)__builtin_ctz(some);
    return 64 * k + (uint32_t)__builtin_ctzll(word[k]);
}

INLINE uint32_t search_all(const plan *set, const uint16_t *class_, uint32_t fields)
{
    const uint8_t *at[MOST];
    uint32_t bytes = 16 * set->blocks;
    for (uint32_t f = 0; f < fields; f++)
        at[f] = set->vector[f] + (size_t)class_[f] * bytes;
    for (uint32_t b = 0; b < bytes; b += HALF) {
        uint32_t i = first_of(at, fields, b);
        if (i < 256)
            return 8 * b + i;
    }
    return HB_FIREWALL_MISS;
}

typedef uint64_t block __attribute__((vector_size(16), may_alias));

INLINE block and_of(const uint8_t *const *at, uint32_t fields, uint32_t number)
{
    block all = ((const block *)at[0])[number];
    for (uint32_t f = 1; f < fields; f++)
        all &= ((const block *)at[f])[number];
    return all;
}

INLINE uint32_t low_of(block b)
{
    return b[0] ? (uint32_t)__builtin_ctzll(b[0]) : 64 + (uint32_t)__builtin_ctzll(b[1]);
}

INLINE uint32_t search_summaries(const plan *set, const uint16_t *class_, uint32_t fields)
{
    const uint8_t *at[MOST], *summary[MOST];
    for (uint32_t f = 0; f < fields; f++) {
        at[f] = set->vector[f] + (size_t)class_[f] * 16 * set->blocks;
        summary[f] = set->summary[f] + (size_t)class_[f] * 16 * set->summaries;
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
    return HB_FIREWALL_MISS;
}

INLINE void search_step(step *s, const plan *set, uint32_t fields)
{
    for (uint32_t i = 0; i < s->n; i++)
        s->found[s->at[i]] = set->summaries ? search_summaries(set, s->class_[i], fields)
                                            : search_all(set, s->class_[i], fields);
}

/* ---- a burst ----------------------------------------------------------------------------------
 */

/* Headers of a step, and what is to be searched for. */
static void look_at(const hb_nf_burst *b, step *s, const plan *set, bool tracking, uint32_t first,
                    uint32_t n)
{
    s->n = 0;
    for (uint32_t i = 0; i < n; i++)
        __builtin_prefetch(hb_data(b->arena, hb_header(b->arena, b->handles[first + i])) + 14);
    for (uint32_t i = 0; i < n; i++) {
        s->packet[i] = hb_packet_of(b, first + i);
        choose(s, set, tracking, i);
    }
}

/* In the order of the packets: one may have begun the flow of another. */
static void conclude(const hb_nf_burst *b, step *s, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t result = 0;
        hb_packet *p = &s->packet[i];
        uint32_t verdict = hb_firewall_run(p, b->table, b->arg ? b->arg[first + i] : 0, &result,
                                           s->found[i]);
        if (b->result)
            b->result[first + i] = result;
        if (verdict != HB_PASS)
            hb_answer(b->answers, first + i, p, verdict, result);
    }
}

/* The number of fields as a constant: loops over them are unrolled. */
INLINE void run(const hb_nf_burst *b)
{
    plan set;
    step s;
    bool easy = read_plan(b->table, &set);
    bool tracking = hb_table32(b->table, 1) & HB_FIREWALL_TRACKING;
    for (uint32_t first = 0; first < b->n; first += STEP) {
        uint32_t n = b->n - first < STEP ? b->n - first : STEP;
        look_at(b, &s, &set, tracking, first, n);
        if (easy && set.fields == 7)
            search_step(&s, &set, 7);
        else if (easy && set.fields == 6)
            search_step(&s, &set, 6);
        else if (easy)
            search_step(&s, &set, set.fields);
        conclude(b, &s, first, n);
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
