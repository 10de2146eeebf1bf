/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nids_hyperscan.c: the search by Hyperscan (https://www.hyperscan.io), whose database is compiled
 * from the patterns in the table when an engine is opened.
 */
#ifdef HB_HAVE_HYPERSCAN
#include <hs/hs.h>
#include <stdlib.h>

#include "nids_scan.h"

#include "nf/nids.cl"

/* The database of an instance, by its table; only the control thread touches the list. Those who
 * run read what `database` points to. */
typedef struct shared {
    struct shared *next;
    const void *table;
    hs_database_t *database;
    uint32_t users;
} shared;
static shared *all;

/* seat->engine_state: of one lcore. */
typedef struct {
    shared *of; /* NULL: there are no patterns */
    hs_scratch_t *scratch;
} hyperscan;

_Static_assert(sizeof(hyperscan) == HB_NIDS_HYPERSCAN_STATE, "nids_scan.c says so, too");

bool hb_nids_hyperscan_usable(void)
{
    return hs_valid_platform() == HS_SUCCESS;
}

/* Literals as they are; which of them Hyperscan reports first makes no difference to the result. */
static hs_database_t *compile(const hb_table *t, uint32_t n)
{
    const uint32_t *head = (const uint32_t *)t->base;
    const uint32_t(*pattern)[2] = (const void *)(t->base + head[10]);
    const char *bytes = (const char *)t->base + head[11];
    const char **literal = calloc(n, sizeof *literal);
    size_t *length = calloc(n, sizeof *length);
    unsigned *flags = calloc(n, sizeof *flags), *id = calloc(n, sizeof *id);
    hs_database_t *database = NULL;
    hs_compile_error_t *error = NULL;
    if (literal && length && flags && id) {
        for (uint32_t i = 0; i < n; i++) {
            literal[i] = bytes + pattern[i][0];
            length[i] = pattern[i][1] & 0x7fffffffu;
            flags[i] = HS_FLAG_SINGLEMATCH | (pattern[i][1] >> 31 ? HS_FLAG_CASELESS : 0);
            id[i] = i;
        }
        if (hs_compile_lit_multi(literal, flags, id, length, n, HS_MODE_BLOCK, NULL, &database,
                                 &error) != HS_SUCCESS) {
            hs_free_compile_error(error);
            database = NULL;
        }
    }
    free(literal), free(length), free(flags), free(id);
    return database;
}

static shared *take(const hb_table *t, uint32_t patterns)
{
    for (shared *s = all; s; s = s->next)
        if (s->table == t->base) {
            s->users++;
            return s;
        }
    shared *s = malloc(sizeof *s);
    hs_database_t *database = s ? compile(t, patterns) : NULL;
    if (!database) {
        free(s);
        return NULL;
    }
    *s = (shared){.next = all, .table = t->base, .database = database, .users = 1};
    return all = s;
}

static void give_back(shared *s)
{
    if (!s || --s->users)
        return;
    shared **at = &all;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    hs_free_database(s->database);
    free(s);
}

int hb_nids_hyperscan_open(hb_nf_seat *seat)
{
    hyperscan *h = seat->engine_state;
    uint32_t patterns = ((const uint32_t *)seat->table.base)[4];
    if (!patterns)
        return 0;
    h->of = take(&seat->table, patterns);
    if (h->of && hs_alloc_scratch(h->of->database, &h->scratch) == HS_SUCCESS)
        return 0;
    give_back(h->of);
    return -1;
}

void hb_nids_hyperscan_close(hb_nf_seat *seat)
{
    hyperscan *h = seat->engine_state;
    hs_free_scratch(h->scratch);
    give_back(h->of);
}

/* Of the patterns found, + 1, the lowest; UINT32_MAX: none. */
static int note(unsigned id, unsigned long long from, unsigned long long to, unsigned flags,
                void *lowest)
{
    (void)from, (void)to, (void)flags;
    uint32_t *low = lowest;
    *low = id + 1 < *low ? id + 1 : *low;
    return 0;
}

void hb_nids_hyperscan_run(hb_nf_seat *seat, const hb_nf_burst *b)
{
    const hyperscan *h = seat->engine_state;
    if (!b->result)
        return;
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t lowest = UINT32_MAX;
        hb_packet p = hb_packet_of(b, i);
        hb_nids_span span = hb_nids_span_of(&p);
        if (h->of && span.end > span.at)
            hs_scan(h->of->database, (const char *)p.frame + p.offset + span.at, span.end - span.at,
                    0, h->scratch, note, &lowest);
        b->result[i] = lowest == UINT32_MAX ? 0 : lowest;
    }
}
#else
typedef int hb_nothing; /* a translation unit needs something */
#endif
