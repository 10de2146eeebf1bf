/* SPDX-License-Identifier: BSD-3-Clause */
/* region.c: big memory: anonymous and private, so that NICs, userptr mappings and OpenCL all accept
 * it. */
#include <sys/mman.h>

#include "api.h"

#define HUGE ((size_t)2 << 20)
#define HUGE_FROM (HUGE / 4) /* smaller regions would waste most of a huge page */

static void *map(size_t bytes, int flags)
{
    flags |= MAP_PRIVATE | MAP_ANONYMOUS;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* From a huge page's boundary on: a mapping anywhere else begins and ends with small pages. */
static void *map_aligned(size_t bytes)
{
    uint8_t *p = map(bytes + HUGE, 0);
    if (!p)
        return NULL;
    size_t before = (HUGE - (uintptr_t)p % HUGE) % HUGE;
    if (before)
        munmap(p, before);
    munmap(p + before + bytes, HUGE - before);
    return p + before;
}

static size_t whole_pages(size_t bytes)
{
    size_t page = bytes < HUGE_FROM ? 4096 : HUGE;
    return (bytes + page - 1) / page * page;
}

void *hb_region_new(size_t bytes)
{
    bytes = whole_pages(bytes);
    /* reserved huge pages if there are enough, else transparent ones */
    void *p = bytes < HUGE_FROM ? map(bytes, 0) : map(bytes, MAP_HUGETLB);
    if (!p && !(p = map_aligned(bytes)))
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
        munmap(region, whole_pages(bytes));
}
