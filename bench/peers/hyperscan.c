/* SPDX-License-Identifier: BSD-3-Clause */
/* hyperscan.c: one database of literals, hs_scan() packet by packet. */
#include <hs/hs.h>
#include <stdio.h>
#include <stdlib.h>

#include "peers.h"

typedef struct {
    hs_database_t *database;
    hs_scratch_t *scratch;
    uint32_t skip;
} context;

static hs_error_t compile(context *c, const peer_patterns *patterns, char *text)
{
    unsigned *flags = calloc(patterns->n, sizeof *flags), *ids = calloc(patterns->n, sizeof *ids);
    size_t *lengths = calloc(patterns->n, sizeof *lengths);
    hs_compile_error_t *error = NULL;
    hs_error_t rc = HS_NOMEM;
    for (uint32_t i = 0; flags && ids && lengths && i < patterns->n; i++) {
        ids[i] = i;
        lengths[i] = patterns->length[i];
    }
    if (flags && ids && lengths)
        rc = hs_compile_lit_multi((const char *const *)patterns->bytes, flags, ids, lengths,
                                  patterns->n, HS_MODE_BLOCK, NULL, &c->database, &error);
    if (rc != HS_SUCCESS)
        snprintf(text, PEER_TEXT, "%s", error ? error->message : "out of memory");
    hs_free_compile_error(error);
    free(flags);
    free(ids);
    free(lengths);
    return rc;
}

void *peer_hyperscan_new(uint32_t skip, const peer_patterns *patterns, char *text)
{
    context *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->skip = skip;
    if (compile(c, patterns, text) == HS_SUCCESS &&
        hs_alloc_scratch(c->database, &c->scratch) == HS_SUCCESS)
        return c;
    hs_free_database(c->database);
    free(c);
    return NULL;
}

void peer_hyperscan_free(void *context_)
{
    context *c = context_;
    hs_free_scratch(c->scratch);
    hs_free_database(c->database);
    free(c);
}

/* Of the patterns found, by number + 1, the lowest; UINT32_MAX: none. */
static int on_match(unsigned id, unsigned long long from, unsigned long long to, unsigned flags,
                    void *lowest_)
{
    uint32_t *lowest = lowest_;
    (void)from, (void)to, (void)flags;
    *lowest = id + 1 < *lowest ? id + 1 : *lowest;
    return 0;
}

void peer_hyperscan_scan(void *context_, uint8_t *const *packet, uint32_t length, uint64_t *result,
                         uint32_t n)
{
    const context *c = context_;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t lowest = UINT32_MAX;
        hs_scan(c->database, (const char *)packet[i] + c->skip, length - c->skip, 0, c->scratch,
                on_match, &lowest);
        result[i] = lowest == UINT32_MAX ? 0 : lowest;
    }
}

const char *peer_hyperscan_version(void)
{
    return hs_version();
}
