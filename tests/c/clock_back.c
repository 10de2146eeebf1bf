/* SPDX-License-Identifier: BSD-3-Clause */
/* clock_back.c: preloaded, sets the time of day back by an hour while the file that CLOCK_BACK
 * names is there. Only CLOCK_REALTIME: whatever happens to that one, CLOCK_MONOTONIC goes on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int rc = real(clock, t);
    const char *file = getenv("CLOCK_BACK");
    if (clock == CLOCK_REALTIME && file && !access(file, F_OK))
        t->tv_sec -= 3600;
    return rc;
}
