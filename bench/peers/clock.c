/* SPDX-License-Identifier: BSD-3-Clause */
#include <time.h>

#include "peers.h"

#define ADDITIONS 2000000u /* half a millisecond: less than a time slice */
#define TIMES 200

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double once(void)
{
    uint64_t x = 1;
    double begin = now();
    for (uint32_t i = 0; i < ADDITIONS / 10; i++) /* the compiler may not fold them */
        __asm__ volatile("add %1, %0\n\tadd %1, %0\n\tadd %1, %0\n\tadd %1, %0\n\tadd %1, %0\n\t"
                         "add %1, %0\n\tadd %1, %0\n\tadd %1, %0\n\tadd %1, %0\n\tadd %1, %0"
                         : "+r"(x)
                         : "r"((uint64_t)3));
    return ADDITIONS / (now() - begin) * 1e-9;
}

double peer_core_ghz(void)
{
    double best = 0;
    for (int i = 0; i < TIMES; i++) { /* whatever interrupts it only takes longer */
        double ghz = once();
        best = ghz > best ? ghz : best;
    }
    return best;
}
