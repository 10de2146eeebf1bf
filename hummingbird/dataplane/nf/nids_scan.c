/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nids_scan.c: the search on the CPU in plain C. A step of the automaton waits for the one before,
 * so several packets are searched at once, a byte of each in turn.
 */
#include "nids_scan.h"

#include <string.h>

#include "nf/nids.cl"

enum { STREAMS = 8, SPARE = HB_BURST, CLASSES = 64 };

/* The table as pointers; see nids.cl. */
typedef struct {
    const uint32_t *next32; /* [state][256]; one of these two */
    const uint16_t *next16;
    uint32_t first_match;
    uint32_t shift; /* from a state to its number */
    const uint32_t *ends;
    const uint32_t *lists;
    const uint32_t *ids;
} dfa;

static dfa dfa_of(const hb_table *t)
{
    const uint32_t *head = (const uint32_t *)t->base;
    const void *next = t->base + head[5];
    return (dfa){.next32 = head[0] ? next : NULL,
                 .next16 = head[0] ? NULL : next,
                 .first_match = head[1],
                 .shift = head[0] ? 8 : 0,
                 .ends = (const void *)(t->base + head[6]),
                 .lists = (const void *)(t->base + head[7]),
                 .ids = (const void *)(t->base + head[8])};
}

/* A state is the row of its next states in a wide table, else its number. */
static inline uint32_t next_of(const dfa *d, bool wide, uint32_t state, uint8_t byte)
{
    return wide ? d->next32[state + byte] : d->next16[state << 8 | byte];
}

/* Which of the matching states it is. */
static inline uint32_t match_of(const dfa *d, uint32_t state)
{
    return (state - d->first_match) >> d->shift;
}

/* ---- one burst ---------------------------------------------------------------------------------
 */

/* What is to be searched of a packet. */
typedef struct {
    const uint8_t *payload;
    uint16_t length;
    uint16_t packet;
} job;

/* The jobs of a burst, longest first, and the highest state met in each packet; one entry to spare,
 * for a stream that has run out of jobs. */
typedef struct {
    dfa d;
    uint32_t n;
    uint32_t taken; /* of n */
    job job[HB_BURST];
    uint32_t top[HB_BURST + 1]; /* by packet */
} burst;

/* What is being searched: streams with nothing left repeat what another one searches. */
typedef struct {
    const uint8_t *at[STREAMS];
    uint32_t left[STREAMS]; /* bytes */
    uint32_t state[STREAMS];
    uint32_t top[STREAMS]; /* highest state met; only matching ones count */
    uint32_t packet[STREAMS];
} streams;

/* Rare, so out of the way. */
static __attribute__((noinline)) void note(streams *s, int k, uint32_t state)
{
    s->top[k] = state > s->top[k] ? state : s->top[k];
}

/* Every stream searches `steps` bytes. */
static inline __attribute__((always_inline)) void advance(const dfa *of, bool wide, streams *s,
                                                          uint32_t steps)
{
    const dfa d = *of;
    const uint8_t *at[STREAMS];
    uint32_t state[STREAMS];
    memcpy(at, s->at, sizeof at);
    memcpy(state, s->state, sizeof state);
    for (uint32_t i = 0; i < steps; i++) {
#pragma GCC unroll 8
        for (int k = 0; k < STREAMS; k++) {
            state[k] = next_of(&d, wide, state[k], at[k][i]);
            if (__builtin_expect(state[k] >= d.first_match, 0))
                note(s, k, state[k]);
        }
    }
    memcpy(s->state, state, sizeof state);
}

/* Streams that are at their end get the next payload. Returns how many steps all streams can do; 0
 * when there is nothing left. */
static uint32_t refill(burst *b, streams *s)
{
    uint32_t steps = UINT32_MAX;
    const uint8_t *some = NULL;
    for (int k = 0; k < STREAMS; k++) {
        if (!s->left[k])
            b->top[s->packet[k]] = s->top[k];
        if (!s->left[k] && b->taken < b->n) {
            const job *next = &b->job[b->taken++];
            s->at[k] = next->payload;
            s->left[k] = next->length;
            s->packet[k] = next->packet;
            s->state[k] = 0;
            s->top[k] = 0;
        }
        if (s->left[k]) {
            steps = s->left[k] < steps ? s->left[k] : steps;
            some = s->at[k];
        }
    }
    if (!some)
        return 0;
    for (int k = 0; k < STREAMS; k++)
        if (!s->left[k]) {
            s->at[k] = some;
            s->packet[k] = SPARE;
        }
    return steps;
}

static inline __attribute__((always_inline)) void search(burst *b, bool wide)
{
    streams s = {.left = {0}};
    for (int k = 0; k < STREAMS; k++)
        s.packet[k] = SPARE;
    for (uint32_t steps; (steps = refill(b, &s)) != 0;) {
        advance(&b->d, wide, &s, steps);
        for (int k = 0; k < STREAMS; k++) {
            s.at[k] += steps;
            s.left[k] -= s.left[k] ? steps : 0;
        }
    }
}

/* ---- what of a burst is searched ---------------------------------------------------------------
 */

/* The longest first, near enough, so that streams end together and none runs on alone. */
static void sort(job *jobs, uint32_t n, uint32_t longest)
{
    job unsorted[HB_BURST];
    uint32_t shift = 0, at = 0;
    uint16_t first[CLASSES] = {0};
    while (longest >> shift >= CLASSES)
        shift++;
    for (uint32_t i = 0; i < n; i++)
        first[CLASSES - 1 - (jobs[i].length >> shift)]++;
    for (uint32_t c = 0; c < CLASSES; c++) {
        uint32_t count = first[c];
        first[c] = (uint16_t)at;
        at += count;
    }
    memcpy(unsorted, jobs, n * sizeof *jobs);
    for (uint32_t i = 0; i < n; i++)
        jobs[first[CLASSES - 1 - (unsorted[i].length >> shift)]++] = unsorted[i];
}

static void collect(burst *b, const hb_nf_burst *in)
{
    uint32_t n = 0, longest = 0, shortest = UINT32_MAX;
    for (uint32_t i = 0; i < in->n; i++) {
        hb_packet p = hb_packet_of(in, i);
        hb_nids_span span = hb_nids_span_of(&p);
        uint32_t length = span.end - span.at;
        if (!length)
            continue;
        b->job[n++] = (job){.payload = p.frame + p.offset + span.at,
                            .length = (uint16_t)length,
                            .packet = (uint16_t)i};
        longest = length > longest ? length : longest;
        shortest = length < shortest ? length : shortest;
    }
    if (longest > shortest)
        sort(b->job, n, longest);
    b->n = n;
}

static void run(hb_nf_seat *seat, const hb_nf_burst *in)
{
    (void)seat;
    if (!in->result) /* it does nothing but to look */
        return;
    burst b;
    b.d = dfa_of(in->table);
    b.taken = 0;
    memset(b.top, 0, sizeof b.top);
    collect(&b, in);
    if (b.d.next32)
        search(&b, true);
    else
        search(&b, false);
    for (uint32_t i = 0; i < in->n; i++)
        in->result[i] =
            b.top[i] < b.d.first_match ? 0 : (uint64_t)b.d.ends[match_of(&b.d, b.top[i])] + 1;
}

const hb_nf_engine hb_nids_engines[HB_NIDS_ENGINES] = {
    {.name = "cpu", .run = run},
#ifdef HB_HAVE_HYPERSCAN
    {.name = "hyperscan",
     .usable = hb_nids_hyperscan_usable,
     .state_bytes = HB_NIDS_HYPERSCAN_STATE,
     .open = hb_nids_hyperscan_open,
     .close = hb_nids_hyperscan_close,
     .run = hb_nids_hyperscan_run},
#endif
};

/* ---- which patterns are in a payload -----------------------------------------------------------
 */

/* Put id where it belongs among ids[0 .. n-1], ascending, if it is new; the highest falls out when
 * there are `most`. */
static uint32_t insert(uint32_t *ids, uint32_t n, uint32_t most, uint32_t id)
{
    uint32_t at = n;
    while (at > 0 && ids[at - 1] > id)
        at--;
    if ((at > 0 && ids[at - 1] == id) || at == most)
        return n;
    n -= n == most;
    memmove(ids + at + 1, ids + at, (n - at) * sizeof *ids);
    ids[at] = id;
    return n + 1;
}

uint32_t hb_nids_ids(const hb_table *t, const uint8_t *payload, uint32_t n, uint32_t *ids,
                     uint32_t most)
{
    const dfa d = dfa_of(t);
    uint32_t state = 0, found = 0;
    for (uint32_t i = 0; i < n; i++) {
        state = next_of(&d, d.next32 != NULL, state, payload[i]);
        if (state < d.first_match)
            continue;
        const uint32_t *list = d.lists + match_of(&d, state);
        for (uint32_t at = list[0]; at < list[1]; at++)
            found = insert(ids, found, most, d.ids[at]);
    }
    return found;
}
