/* SPDX-License-Identifier: BSD-3-Clause */
/* taps.c: taps come and go while lcores run: the control thread's side. */
#include "taps.h"

#include <stdlib.h>
#include <string.h>

int hb_new_tap(hb_dataplane *dp, enum hb_tap_kind kind, hb_tap **tap)
{
    int number = 0;
    while (number < HB_MOST_TAPS && hb_tap_at(dp, (uint32_t)number))
        number++;
    if (number == HB_MOST_TAPS)
        return hb_fail(dp, "%d captures and traces are running already", HB_MOST_TAPS);
    hb_tap *t = aligned_alloc(alignof(hb_tap), sizeof *t);
    if (!t)
        return hb_fail(dp, "out of memory");
    memset(t, 0, sizeof *t);
    t->kind = kind;
    t->rings = dp->config.lcores;
    *tap = t;
    return number;
}

void hb_show_tap(hb_dataplane *dp, int number, hb_tap *tap)
{
    /* release: all that it is made of */
    atomic_store_explicit(&dp->tap[number], tap, memory_order_release);
    /* relaxed: an lcore that sees it late sees the tap late; only control writes it */
    uint32_t taps = atomic_load_explicit(&dp->watched, memory_order_relaxed);
    atomic_store_explicit(&dp->watched, taps + 1, memory_order_relaxed);
}

void hb_free_tap(hb_tap *tap)
{
    free(tap->rules);
    free(tap->memory);
    free(tap->copies);
    free(tap);
}

int hb_remove_tap(hb_dataplane *dp, int number)
{
    hb_tap *tap = number >= 0 && number < HB_MOST_TAPS ? hb_tap_at(dp, (uint32_t)number) : NULL;
    if (!tap)
        return 0;
    uint32_t taps = atomic_load_explicit(&dp->watched, memory_order_relaxed);
    /* relaxed, both: the passes that are waited for order them */
    atomic_store_explicit(&dp->tap[number], NULL, memory_order_relaxed);
    atomic_store_explicit(&dp->watched, taps - 1, memory_order_relaxed);
    if (!hb_wait_passes(dp))
        return -1;
    hb_free_tap(tap);
    return 0;
}

void hb_free_taps(hb_dataplane *dp)
{
    for (int k = 0; k < HB_MOST_TAPS; k++)
        hb_remove_tap(dp, k);
}

void hb_tap_packets(hb_lcore *lc, uint32_t from, uint32_t to, const uint32_t *handles, uint32_t n)
{
    for (uint32_t k = 0; k < HB_MOST_TAPS; k++) {
        const hb_tap *tap = hb_tap_at(lc->dp, k);
        if (tap && tap->kind == HB_TAP_CAPTURE)
            hb_capture_packets(lc, tap, from, to, handles, n);
    }
    if (from < lc->dp->nodes && to < lc->dp->nodes)
        hb_trace_hop(lc, from, to, handles, n);
}
