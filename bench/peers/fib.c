/* SPDX-License-Identifier: BSD-3-Clause */
/* fib.c: DPDK's rte_fib. Its memory has transparent huge pages where ours has them. */
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fib.h>
#include <rte_memory.h>
#include <rte_version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dpdk.h"
#include "peers.h"

#define NO_HOP 0x7fff
#define MOST_TBL8 32767
#define HUGE_PAGE (2ul << 20)

typedef struct {
    struct rte_fib *fib;
    enum rte_fib_lookup_type is; /* what `fib` is set to */
    int has_vector;
} context;

static int add(struct rte_fib *fib, const peer_routes *r, char *text)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (rte_fib_add(fib, r->prefix[i], r->bits[i], r->hop[i])) {
            snprintf(text, PEER_TEXT, "rte_fib takes no more than %u of these routes", i);
            return -1;
        }
    return 0;
}

/* Put what lies in [at, at + bytes) into huge pages: DPDK without reserved ones has 4 KiB pages,
 * which no madvise() changes. Addresses stay. */
static int move_to_huge_pages(void *at, size_t bytes)
{
    uint8_t *fresh =
        mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED)
        return -1;
    fresh += -(uintptr_t)fresh % HUGE_PAGE;
    madvise(fresh, bytes, MADV_HUGEPAGE);
    memcpy(fresh, at, bytes);
    return mremap(fresh, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at ? 0 : -1;
}

/* All of DPDK's memory, but for the ends that share a huge page with something else. */
static int move_list(const struct rte_memseg_list *list, void *unused)
{
    (void)unused;
    uintptr_t begin = ((uintptr_t)list->base_va + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t end = ((uintptr_t)list->base_va + list->len) / HUGE_PAGE * HUGE_PAGE;
    return list->external || end <= begin ? 0 : move_to_huge_pages((void *)begin, end - begin);
}

void *peer_fib_new(const peer_routes *routes, char *text)
{
    context *c = calloc(1, sizeof *c);
    struct rte_fib_conf conf = {.type = RTE_FIB_DIR24_8,
                                .default_nh = NO_HOP,
                                .max_routes = (int)routes->n * 2, /* inner nodes of its tree, too */
                                .dir24_8 = {.nh_sz = RTE_FIB_DIR24_8_2B, .num_tbl8 = MOST_TBL8}};
    if (!c || start_dpdk(text)) {
        free(c);
        return NULL;
    }
    c->fib = rte_fib_create("peer", SOCKET_ID_ANY, &conf);
    if (!c->fib)
        snprintf(text, PEER_TEXT, "rte_fib_create: %s", rte_strerror(rte_errno));
    if (!c->fib || add(c->fib, routes, text)) {
        rte_fib_free(c->fib);
        free(c);
        return NULL;
    }
    if (rte_memseg_list_walk(move_list, NULL))
        snprintf(text, PEER_TEXT, "DPDK's memory cannot be moved to huge pages");
    c->has_vector = !rte_fib_select_lookup(c->fib, RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512);
    c->is = RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512;
    return c;
}

static void lookup(context *c, enum rte_fib_lookup_type type, const uint32_t *address,
                   uint64_t *hop, uint32_t n)
{
    if (c->is != type) {
        rte_fib_select_lookup(c->fib, type);
        c->is = type;
    }
    rte_fib_lookup_bulk(c->fib, (uint32_t *)address, hop, (int)n);
}

void peer_fib_scalar(void *context_, const uint32_t *address, uint64_t *hop, uint32_t n)
{
    lookup(context_, RTE_FIB_LOOKUP_DIR24_8_SCALAR_MACRO, address, hop, n);
}

void peer_fib_vector(void *context_, const uint32_t *address, uint64_t *hop, uint32_t n)
{
    lookup(context_, RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512, address, hop, n);
}

int peer_fib_has_vector(void *context_)
{
    return ((context *)context_)->has_vector;
}

const char *peer_fib_version(void)
{
    return rte_version();
}
