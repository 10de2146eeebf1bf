/* SPDX-License-Identifier: BSD-3-Clause */
/* region.c: big memory: anonymous and private, so that NICs, userptr mappings and OpenCL all accept
 * it. */
#include <sys/mman.h>

#include "api.h"

void *hb_region_new(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    /* All three are hints: without them everything still works, slower. */
    madvise(p, bytes, MADV_HUGEPAGE);
    madvise(p, bytes, MADV_DONTFORK); /* a fork would make a device's mapping copy-on-write */
    mlock(p, bytes);
    volatile unsigned char *b = p;
    for (size_t i = 0; i < bytes; i += 4096)
        b[i] = 0; /* pre-fault: no page fault on the packet path */
    return p;
}

void hb_region_free(void *region, size_t bytes)
{
    if (region)
        munmap(region, bytes);
}
