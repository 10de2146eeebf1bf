/* SPDX-License-Identifier: BSD-3-Clause */
/* clock.h: the tick of all latencies: the CPU's constant counter where there is one. */
#ifndef HB_CLOCK_H
#define HB_CLOCK_H
#include <stdint.h>
#include <time.h>

static inline uint64_t hb_monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The time of day. */
static inline uint64_t hb_clock_time_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t hb_now(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return hb_monotonic_ns();
#endif
}

/* Ticks a second, measured once against CLOCK_MONOTONIC (5 ms at the first call). */
double hb_tick_rate(void);

static inline void hb_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
