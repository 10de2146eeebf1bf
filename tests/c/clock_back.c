/* SPDX-License-Identifier: BSD-3-Clause */
/* clock_back.c: preloaded, sets the time of day back by an hour, a second after the program began.
 * Only CLOCK_REALTIME: whatever a machine does to that one, CLOCK_MONOTONIC goes on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    static int64_t began;
    struct timespec now;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    real(CLOCK_MONOTONIC, &now);
    if (!began)
        began = now.tv_sec;
    int rc = real(clock, t);
    if (clock == CLOCK_REALTIME && now.tv_sec > began + 1)
        t->tv_sec -= 3600;
    return rc;
}
