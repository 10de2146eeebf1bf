/* SPDX-License-Identifier: BSD-3-Clause */
/* mdpdk.h: memory of the application for DPDK, mapped twice, and what a test asks about it.
 *
 *              ┌─ DPDK's view: what EAL gets ──┐
 *     memfd ───┤                               │ the same pages
 *              └─ ours: `alias` ───────────────┘
 *
 * Whatever EAL mapped over its view would not be seen in ours.
 */
#ifndef HB_MDPDK_H
#define HB_MDPDK_H
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_mempool.h>
#include <rte_version.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

enum { MEMORY = 96 << 20 }; /* bytes; what -m says, in MB */

static struct {
    uint8_t
        *mapped;    /* DPDK's view, `size` bytes: unaligned, so that there is something around it */
    uint8_t *alias; /* ours */
    size_t size;
    uint8_t *given; /* what EAL got of it, `wanted` bytes */
    size_t wanted;
    int calls; /* of give() */
} memory;

/* false: there is none. */
static inline bool memory_make(size_t align)
{
    int fd = memfd_create("mdpdk", MFD_CLOEXEC);

    memory.size = MEMORY + 2 * align;
    if (fd < 0 || ftruncate(fd, (off_t)memory.size) != 0)
        return false;
    memory.mapped = mmap(NULL, memory.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memory.alias = mmap(NULL, memory.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory.mapped == MAP_FAILED || memory.alias == MAP_FAILED)
        return false;
    memset(memory.mapped, 0xa5, memory.size);
    return true;
}

/* The provider's alloc(). */
static inline void *give(size_t len, size_t align, void *arg)
{
    CHECK(arg == &memory);
    memory.calls++;
    memory.wanted = len;
    memory.given = RTE_PTR_ALIGN_CEIL(memory.mapped + 1, align);
    return memory.given + len <= memory.mapped + memory.size ? memory.given : NULL;
}

/* Does all of it lie in the memory EAL was given? */
static inline bool in_memory(const void *at, size_t len)
{
    const uint8_t *first = at;

    return first >= memory.given && first + len <= memory.given + memory.wanted;
}

/* The same byte in our own view. */
static inline uint8_t *alias_of(const void *at)
{
    return memory.alias + ((const uint8_t *)at - memory.mapped);
}

static inline void check_mbuf(struct rte_mbuf *mbuf)
{
    CHECK(in_memory(mbuf, sizeof *mbuf + mbuf->buf_len));
    CHECK(in_memory(mbuf->buf_addr, mbuf->buf_len));
    CHECK(memcmp(alias_of(mbuf->buf_addr), mbuf->buf_addr, mbuf->buf_len) == 0);
}

/* One queue each way; false (said) if the port does not come up. */
static inline bool port_start(uint16_t port, struct rte_mempool *pool)
{
    static const struct rte_eth_conf conf;

    CHECK_EQUAL(rte_eth_dev_configure(port, 1, 1, &conf), 0);
    CHECK_EQUAL(rte_eth_rx_queue_setup(port, 0, 512, 0, NULL, pool), 0);
    CHECK_EQUAL(rte_eth_tx_queue_setup(port, 0, 512, 0, NULL), 0);
    if (failures == 0)
        CHECK_EQUAL(rte_eth_dev_start(port), 0);
    return failures == 0;
}

static inline void port_stop(uint16_t port)
{
    CHECK_EQUAL(rte_eth_dev_stop(port), 0);
    CHECK_EQUAL(rte_eth_dev_close(port), 0);
}

#endif
