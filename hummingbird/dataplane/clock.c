/* SPDX-License-Identifier: BSD-3-Clause */
#include "clock.h"

#include <pthread.h>
#include <stddef.h>

#include "api.h"

static double rate;

#if defined(__x86_64__)
/* The counter and the clock at one moment. */
typedef struct {
    uint64_t ticks;
    uint64_t ns;
} hb_moment;

/* The tightest of a few readings: one that was interrupted half-way would spoil the rate. */
static hb_moment read_both(void)
{
    hb_moment best = {0, 0};
    uint64_t tightest = UINT64_MAX;
    for (int i = 0; i < 16; i++) {
        uint64_t before = hb_now();
        uint64_t ns = hb_monotonic_ns();
        uint64_t took = hb_now() - before;
        if (took < tightest) {
            tightest = took;
            best = (hb_moment){before + took / 2, ns};
        }
    }
    return best;
}

static void measure(void)
{
    hb_moment first = read_both();
    struct timespec wait = {0, 5000000};
    nanosleep(&wait, NULL);
    hb_moment last = read_both();
    rate = (double)(last.ticks - first.ticks) * 1e9 / (double)(last.ns - first.ns);
}
#elif defined(__aarch64__)
static void measure(void)
{
    uint64_t hertz;
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hertz));
    rate = (double)hertz;
}
#else
static void measure(void)
{
    rate = 1e9;
}
#endif

double hb_tick_rate(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, measure);
    return rate;
}

uint64_t hb_ticks(void)
{
    return hb_now();
}

double hb_ticks_per_second(void)
{
    return hb_tick_rate();
}
