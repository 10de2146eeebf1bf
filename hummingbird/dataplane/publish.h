/* SPDX-License-Identifier: BSD-3-Clause */
/* publish.h: when a CPUSyncer gives a row to the device. */
#ifndef HB_PUBLISH_H
#define HB_PUBLISH_H
#include <stdbool.h>
#include <stdint.h>

/* The publishing rule: a full row goes at once. One that is not full goes at the end of a pass if
 * the NF would run dry: fewer than two of its rows are pending, so that the device works on the
 * last. Batches so grow under load and shrink when idle, with no knob and no timer.
 * (bench/adaptive_batch.py compiles another rule in the place of this one, to compare.) */
static inline bool hb_runs_dry(uint32_t pending)
{
    return pending < 2;
}

#endif
