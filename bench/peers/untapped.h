/* SPDX-License-Identifier: BSD-3-Clause */
/* untapped.h: compiled before everything else, and so in the place of watched.h: nobody ever looks,
 * and all that captures and traces need is compiled out of the lcores' way. */
#define HB_WATCHED_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

static inline bool hb_any_taps(const _Atomic uint32_t *taps)
{
    (void)taps;
    return false;
}
