/* SPDX-License-Identifier: BSD-3-Clause */
/* watched.h: what each burst is asked at each hop: does anybody look? (bench/taps.py compiles
 * another answer in its place, to see what the question costs.) */
#ifndef HB_WATCHED_H
#define HB_WATCHED_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* relaxed: a burst more or less is seen. */
static inline bool hb_any_taps(const _Atomic uint32_t *taps)
{
    return __builtin_expect(atomic_load_explicit(taps, memory_order_relaxed) != 0, 0);
}

#endif
