/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec_replay.h: the anti-replay window of an inbound SA (RFC 4303 section 3.4.3), as RFC 6479
 * lays it out: a ring of 64-bit words, bit s % 64 of word s / 64 stands for sequence number s.
 * Moving on clears whole words and shifts nothing. Written by the lcore of its NF.
 */
#ifndef HB_IPSEC_REPLAY_H
#define HB_IPSEC_REPLAY_H
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t top;    /* highest number accepted; 0: none yet, which no packet has */
    uint32_t window; /* numbers from top - window + 1 on are told apart */
    uint32_t mask;   /* words - 1; a power of two of them, more than the window touches at once */
    uint64_t *word;  /* zero at first */
} hb_replay;

/* Words that a window needs. */
static inline uint32_t hb_replay_words(uint32_t window)
{
    uint32_t words = 2;
    while (words < (window + 63) / 64 + 1)
        words *= 2;
    return words;
}

/* Could a packet with this number be new? */
static inline bool hb_replay_is_new(const hb_replay *r, uint32_t number)
{
    if (number > r->top)
        return true;
    if (r->top - number >= r->window || !number)
        return false;
    return !(r->word[(number >> 6) & r->mask] >> (number & 63) & 1);
}

/* A new number whose ICV was right: it has been seen now. */
static inline void hb_replay_accept(hb_replay *r, uint32_t number)
{
    if (number > r->top) {
        uint32_t from = r->top >> 6, words = (number >> 6) - from;
        if (words > r->mask)
            words = r->mask + 1;
        for (uint32_t i = 1; i <= words; i++)
            r->word[(from + i) & r->mask] = 0;
        /* relaxed: the control thread looks at it */
        __atomic_store_n(&r->top, number, __ATOMIC_RELAXED);
    }
    r->word[(number >> 6) & r->mask] |= (uint64_t)1 << (number & 63);
}

#endif
