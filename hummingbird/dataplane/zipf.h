/* SPDX-License-Identifier: BSD-3-Clause */
/* zipf.h: ranks 0, 1, ... drawn with probability ~ (rank + 1)^-exponent, from an alias table: one
 * random number and one look at the table for each, however many ranks there are. */
#ifndef HB_ZIPF_H
#define HB_ZIPF_H
#include <stdint.h>

#define HB_ZIPF_RANKS (1u << 22)
#define HB_ZIPF_STEEPEST 3.0

/* Of all draws that come to a column some are of its own rank, the others of one other. */
typedef struct {
    uint32_t below; /* a fraction below this is the column's own rank */
    uint32_t alias; /* else it is this one */
} hb_zipf_column;

typedef struct {
    uint32_t ranks;
    hb_zipf_column *column; /* [ranks] */
} hb_zipf;

/* 0 or -1 (no memory). exponent > 0, 1 to HB_ZIPF_RANKS ranks. */
int hb_zipf_init(hb_zipf *z, uint32_t ranks, double exponent);
void hb_zipf_free(hb_zipf *z);

static inline uint64_t hb_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* drawn * ranks, of 96 bits: the upper third is the column, what follows the fraction. */
static inline uint32_t hb_zipf_place(const hb_zipf *z, uint64_t drawn, uint32_t *fraction)
{
    uint64_t upper = (drawn >> 32) * z->ranks + ((drawn & 0xffffffff) * z->ranks >> 32);
    *fraction = (uint32_t)upper;
    return (uint32_t)(upper >> 32);
}

static inline void hb_zipf_prefetch(const hb_zipf *z, uint64_t drawn)
{
    uint32_t fraction;
    __builtin_prefetch(z->column + hb_zipf_place(z, drawn, &fraction));
}

static inline uint32_t hb_zipf_rank(const hb_zipf *z, uint64_t drawn)
{
    uint32_t fraction, at = hb_zipf_place(z, drawn, &fraction);
    const hb_zipf_column *c = z->column + at;
    return fraction < c->below ? at : c->alias;
}

#endif
