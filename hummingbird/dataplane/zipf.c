/* SPDX-License-Identifier: BSD-3-Clause */
/* zipf.c: builds the alias table (Walker's, by Vose's algorithm): every column has the same area,
 * and what a rank has too little of is filled up with one that has too much. */
#include "zipf.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#define ONE 4294967296.0 /* fractions are of this */

typedef struct {
    double *area;       /* of each rank, in columns */
    uint32_t *rank;     /* those with less than a column from the front, the others from the back */
    uint32_t low, high; /* how many of each */
} heap;

static void weigh(heap *h, uint32_t ranks, double exponent)
{
    double sum = 0;
    for (uint32_t i = ranks; i-- > 0;) /* the smallest first: their sum is not rounded away */
        sum += h->area[i] = pow(i + 1.0, -exponent);
    for (uint32_t i = 0; i < ranks; i++)
        h->area[i] *= ranks / sum;
}

static void sort_in(heap *h, uint32_t ranks, uint32_t i)
{
    h->rank[h->area[i] < 1 ? h->low++ : ranks - ++h->high] = i;
}

static void fill(hb_zipf_column *column, heap *h, uint32_t ranks)
{
    for (uint32_t i = 0; i < ranks; i++) {
        column[i] = (hb_zipf_column){UINT32_MAX, i};
        sort_in(h, ranks, i);
    }
    while (h->low && h->high) {
        uint32_t small = h->rank[--h->low], large = h->rank[ranks - h->high--];
        column[small] = (hb_zipf_column){(uint32_t)(h->area[small] * ONE), large};
        h->area[large] -= 1 - h->area[small];
        sort_in(h, ranks, large);
    }
}

int hb_zipf_init(hb_zipf *z, uint32_t ranks, double exponent)
{
    heap h = {.area = calloc(ranks, sizeof *h.area), .rank = calloc(ranks, sizeof *h.rank)};
    z->ranks = ranks;
    z->column = calloc(ranks, sizeof *z->column);
    bool ok = h.area && h.rank && z->column;
    if (ok) {
        weigh(&h, ranks, exponent);
        fill(z->column, &h, ranks);
    } else {
        hb_zipf_free(z);
    }
    free(h.area);
    free(h.rank);
    return ok ? 0 : -1;
}

void hb_zipf_free(hb_zipf *z)
{
    free(z->column);
    z->column = NULL;
}
