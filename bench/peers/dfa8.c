/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dfa8.c: the automaton of Aho and Corasick (CACM 1975) as a full table of next states. One packet
 * is a chain of dependent loads; eight packets side by side keep the core's load units busy.
 *
 * An entry is next state * 256, with MATCH set if a pattern ends there: 32 bits. Or, with 16 bits,
 * just the next state; states in which a pattern ends have the highest numbers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peers.h"

#define LANES 8
#define MATCH 0x80000000u

typedef struct {
    uint32_t *ends;   /* [states - first_match]: the lowest pattern that ends there, + 1 */
    uint32_t *wide;   /* [states][256] */
    uint16_t *narrow; /* [states][256], NULL if there are too many states */
    uint32_t first_match;
    uint32_t skip;
} context;

/* A trie on its way to become an automaton. */
typedef struct {
    uint32_t (*next)[256];
    uint32_t *ends; /* the lowest pattern that ends there, + 1; 0: none */
    uint32_t *fail, *queue;
    uint32_t states;
} trie;

static void merge(uint32_t *lowest, uint32_t other)
{
    if (other && (!*lowest || other < *lowest))
        *lowest = other;
}

static void insert(trie *t, const uint8_t *bytes, uint32_t length, uint32_t number)
{
    uint32_t state = 0;
    for (uint32_t i = 0; i < length; i++) {
        if (!t->next[state][bytes[i]])
            t->next[state][bytes[i]] = t->states++;
        state = t->next[state][bytes[i]];
    }
    merge(&t->ends[state], number + 1);
}

/* Breadth first: where the trie leads nowhere, on from its longest suffix that is in it. */
static void complete(trie *t)
{
    uint32_t head = 0, tail = 0;
    for (uint32_t byte = 0; byte < 256; byte++)
        if (t->next[0][byte])
            t->queue[tail++] = t->next[0][byte];
    while (head < tail) {
        uint32_t state = t->queue[head++], fail = t->fail[state];
        merge(&t->ends[state], t->ends[fail]);
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t child = t->next[state][byte];
            if (child) {
                t->fail[child] = t->next[fail][byte];
                t->queue[tail++] = child;
            } else {
                t->next[state][byte] = t->next[fail][byte];
            }
        }
    }
}

/* Renumber the states, those in which a pattern ends last, and write both tables. */
static int lay_out(context *c, const trie *t, uint32_t *number)
{
    uint32_t place = 0;
    for (uint32_t matching = 0; matching < 2; matching++) {
        c->first_match = place;
        for (uint32_t s = 0; s < t->states; s++)
            if ((t->ends[s] != 0) == matching)
                number[s] = place++;
    }
    c->wide = aligned_alloc(64, (size_t)t->states * 1024);
    if (t->states <= 1 << 16)
        c->narrow = aligned_alloc(64, (size_t)t->states * 512);
    c->ends = calloc(t->states - c->first_match + 1, sizeof *c->ends);
    if (!c->wide || !c->ends)
        return -1;
    for (uint32_t s = 0; s < t->states; s++) {
        if (t->ends[s])
            c->ends[number[s] - c->first_match] = t->ends[s];
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t to = t->next[s][byte], at = number[s] << 8 | byte;
            c->wide[at] = number[to] << 8 | (t->ends[to] ? MATCH : 0);
            if (c->narrow)
                c->narrow[at] = (uint16_t)number[to];
        }
    }
    return 0;
}

void *peer_dfa8_new(uint32_t skip, const peer_patterns *patterns, char *text)
{
    uint32_t most = 1;
    for (uint32_t i = 0; i < patterns->n; i++)
        most += patterns->length[i];
    context *c = calloc(1, sizeof *c);
    trie t = {.next = calloc(most, sizeof *t.next),
              .ends = calloc(most, sizeof(uint32_t)),
              .fail = calloc(most, sizeof(uint32_t)),
              .queue = calloc(most, sizeof(uint32_t)),
              .states = 1};
    uint32_t *number = calloc(most, sizeof *number);
    int rc = -1;
    if (c && t.next && t.ends && t.fail && t.queue && number) {
        for (uint32_t i = 0; i < patterns->n; i++)
            insert(&t, patterns->bytes[i], patterns->length[i], i);
        complete(&t);
        c->skip = skip;
        rc = lay_out(c, &t, number);
    }
    free(t.next), free(t.ends), free(t.fail), free(t.queue), free(number);
    if (!rc)
        return c;
    snprintf(text, PEER_TEXT, "out of memory");
    free(c);
    return NULL;
}

void peer_dfa8_free(void *context_)
{
    context *c = context_;
    free(c->ends);
    free(c->wide);
    free(c->narrow);
    free(c);
}

/* What is left over when n is no multiple of eight. */
static uint64_t scan_one(const context *c, const uint8_t *packet, uint32_t length)
{
    uint32_t s = 0;
    uint32_t found = 0;
    for (uint32_t i = c->skip; i < length; i++) {
        s = c->wide[(s & ~MATCH) + packet[i]];
        if (s & MATCH)
            merge(&found, c->ends[((s & ~MATCH) >> 8) - c->first_match]);
    }
    return found;
}

/* Eight packets a byte at a time, in step: the state of each stays in a register. */
#define EIGHT(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define DECLARE(l)                                                                                 \
    uint32_t s##l = 0;                                                                             \
    const uint8_t *p##l = packet[at + l] + c->skip;
#define STEP32(l) s##l = wide[(s##l & ~MATCH) + p##l[i]];
#define FIND32(l)                                                                                  \
    if (s##l & MATCH)                                                                              \
        merge(&found[l], c->ends[((s##l & ~MATCH) >> 8) - c->first_match]);
#define STEP16(l) s##l = narrow[(s##l << 8) + p##l[i]];
#define FIND16(l)                                                                                  \
    if (s##l >= first)                                                                             \
        merge(&found[l], c->ends[s##l - first]);
#define WRITE(l) result[at + l] = found[l];

void peer_dfa8_scan32(void *context_, uint8_t *const *packet, uint32_t length, uint64_t *result,
                      uint32_t n)
{
    const context *c = context_;
    const uint32_t *wide = c->wide;
    uint32_t at = 0, bytes = length - c->skip;
    for (; at + LANES <= n; at += LANES) {
        uint32_t found[LANES] = {0};
        EIGHT(DECLARE)
        for (uint32_t i = 0; i < bytes; i++) {
            EIGHT(STEP32)
            if (__builtin_expect((s0 | s1 | s2 | s3 | s4 | s5 | s6 | s7) & MATCH, 0)) {
                EIGHT(FIND32)
            }
        }
        EIGHT(WRITE)
    }
    for (; at < n; at++)
        result[at] = scan_one(c, packet[at], length);
}

void peer_dfa8_scan16(void *context_, uint8_t *const *packet, uint32_t length, uint64_t *result,
                      uint32_t n)
{
    const context *c = context_;
    const uint16_t *narrow = c->narrow;
    uint32_t at = 0, bytes = length - c->skip, first = c->first_match;
    for (; at + LANES <= n; at += LANES) {
        uint32_t found[LANES] = {0};
        EIGHT(DECLARE)
        for (uint32_t i = 0; i < bytes; i++) {
            EIGHT(STEP16)
            if (__builtin_expect(s0 >= first || s1 >= first || s2 >= first || s3 >= first ||
                                     s4 >= first || s5 >= first || s6 >= first || s7 >= first,
                                 0)) {
                EIGHT(FIND16)
            }
        }
        EIGHT(WRITE)
    }
    for (; at < n; at++)
        result[at] = scan_one(c, packet[at], length);
}
