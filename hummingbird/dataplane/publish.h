/* SPDX-License-Identifier: BSD-3-Clause */
/* publish.h: when a CPUSyncer gives a row to the device. */
#ifndef HB_PUBLISH_H
#define HB_PUBLISH_H
#include <stdbool.h>
#include <stdint.h>

/* A row that is full goes at once. At the end of a pass one of fewer packets goes, too, if the NF
 * would run dry: fewer than two rows are pending, so that the device works on its last one. Batches
 * so grow under load and shrink when idle, with no knob and no timer. (bench/adaptive_batch.py has
 * another rule compiled in the place of this one, to compare.) */
static inline bool hb_row_goes(uint32_t count, uint32_t pending)
{
    return count && pending < 2;
}

#endif
