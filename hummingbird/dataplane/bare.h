/* SPDX-License-Identifier: BSD-3-Clause */
/* bare.h: what the two loops that are measured without a data plane share: their packets, and the
 * CPU they run on. */
#ifndef HB_BARE_H
#define HB_BARE_H
#include <sched.h>
#include <time.h>

#include "mbuf.h"

/* Set every packet up: `length` bytes, IPv4 and UDP if these fit, all 0 behind their headers. */
void hb_bare_fill(hb_arena *a, uint32_t length);
/* After `sent` packets were run in turn, 0, 1, ... mbufs-1, 0, ...: how many packets have a word
 * that was not changed once for each time. */
uint64_t hb_bare_wrong(const hb_arena *a, uint64_t sent, uint32_t touch);

/* Pin the calling thread; *before is what hb_unpin() needs. -1: this CPU may not be used. */
int hb_pin(int cpu, cpu_set_t *before);
void hb_unpin(const cpu_set_t *before);

/* CPU time of the calling thread: what else runs on its CPU does not count. */
static inline uint64_t hb_thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Call pass(context), which says how many ns it took, for `seconds` after a few calls that do not
 * count; at least once, and just once if `seconds` is 0. result->ns is the lower quartile by `n`:
 * what
 * disturbs a pass only makes it longer. -1: out of memory. */
int hb_bare_passes(double (*pass)(void *context), void *context, double seconds, uint32_t n,
                   hb_bare_nf_result *result);

#endif
