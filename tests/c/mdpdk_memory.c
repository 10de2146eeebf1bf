/* SPDX-License-Identifier: BSD-3-Clause */
/* mdpdk_memory.c: all memory DPDK uses is what the application gave it, from before rte_eal_init()
 * to after rte_eal_cleanup(); and a packet edited in the application's own view of it leaves as
 * edited. Loaded into a process as the port driver is (a shared object with DPDK inside). */
#include <errno.h>
#include <stdlib.h>

#include "mdpdk.h"

enum { PAGE = 2 << 20, MBUFS = 4095, BURST = 32 };

/* The lines of /proc/self/maps about the memory: what is mapped where, with the file behind it. */
static void maps_of_memory(char *lines, size_t size)
{
    FILE *file = fopen("/proc/self/maps", "r");
    char line[512];
    size_t used = 0;

    lines[0] = '\0';
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        unsigned long first = 0, end = 0;

        if (sscanf(line, "%lx-%lx", &first, &end) != 2 || end <= (unsigned long)memory.mapped ||
            first >= (unsigned long)(memory.mapped + memory.size))
            continue;
        used += (size_t)snprintf(lines + used, size - used, "%s", line);
        if (used >= size)
            break;
    }
    if (file != NULL)
        fclose(file);
}

static void what_is_refused(void)
{
    static const size_t no_page[] = {0, 1024, 3 << 20, 2ul << 30, (1ul << 32) + PAGE};
    struct rte_eal_mem_provider provider = {.page_sz = PAGE};

    CHECK_EQUAL(rte_eal_mem_provider_set(&provider), -EINVAL); /* no alloc */
    provider.alloc = give;
    for (size_t i = 0; i < RTE_DIM(no_page); i++) {
        provider.page_sz = no_page[i];
        CHECK_EQUAL(rte_eal_mem_provider_set(&provider), -EINVAL);
    }
}

static int set(void *(*alloc)(size_t, size_t, void *))
{
    return rte_eal_mem_provider_set(
        &(struct rte_eal_mem_provider){.alloc = alloc, .arg = &memory, .page_sz = PAGE});
}

static void *refuse(size_t len, size_t align, void *arg)
{
    (void)len, (void)align, (void)arg;
    return NULL;
}

static void *give_crooked(size_t len, size_t align, void *arg)
{
    return (uint8_t *)give(len, align, arg) + align / 2;
}

static void check_object(struct rte_mempool *pool, void *arg, void *object, unsigned int number)
{
    (void)pool, (void)arg, (void)number;
    check_mbuf(object);
    CHECK_EQUAL(rte_mempool_virt2iova(object), (uintptr_t)object);
}

static struct rte_mempool *check_pool(void)
{
    struct rte_mempool *pool =
        rte_pktmbuf_pool_create("pool", MBUFS, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);

    CHECK(pool != NULL);
    if (pool == NULL)
        return NULL;
    CHECK(in_memory(pool, sizeof *pool));
    CHECK_EQUAL(pool->nb_mem_chunks, 1);
    CHECK_EQUAL(rte_mempool_obj_iter(pool, check_object, NULL), MBUFS);
    /* With pages of 2 MB, mbufs lie side by side, where in pages of 4 KB there would be one each.
     */
    CHECK(STAILQ_FIRST(&pool->mem_list)->len < (size_t)MBUFS * 3000);
    return pool;
}

static void check_malloc(void)
{
    uint8_t *block = rte_zmalloc(NULL, 100000, 0);
    const struct rte_memzone *zone = rte_memzone_reserve("zone", 5000, SOCKET_ID_ANY, 0);

    CHECK(block != NULL && in_memory(block, 100000));
    for (size_t i = 0; block != NULL && i < 100000; i++)
        if (block[i] != 0) {
            CHECK(block[i] == 0);
            break;
        }
    CHECK(zone != NULL && in_memory(zone->addr, 5000));
    rte_free(block);
    CHECK(rte_malloc(NULL, 2 * MEMORY, 0) == NULL); /* it does not grow */
}

/* 10 bursts of what the null driver makes, and back to it. */
static void check_null(uint16_t port)
{
    struct rte_eth_stats stats;

    for (int round = 0; round < 10; round++) {
        struct rte_mbuf *mbufs[BURST];

        CHECK_EQUAL(rte_eth_rx_burst(port, 0, mbufs, BURST), BURST);
        for (int i = 0; i < BURST; i++)
            check_mbuf(mbufs[i]);
        CHECK_EQUAL(rte_eth_tx_burst(port, 0, mbufs, BURST), BURST);
    }
    CHECK_EQUAL(rte_eth_stats_get(port, &stats), 0);
    CHECK_EQUAL(stats.ipackets, 10 * BURST);
    CHECK_EQUAL(stats.opackets, 10 * BURST);
}

/* From capture to capture; the first byte of each packet is changed, in our own view of the memory.
 */
static void check_pcap(uint16_t port)
{
    struct rte_mbuf *mbufs[BURST];
    uint16_t got;

    while ((got = rte_eth_rx_burst(port, 0, mbufs, BURST)) > 0) {
        for (int i = 0; i < got; i++) {
            check_mbuf(mbufs[i]);
            *alias_of(rte_pktmbuf_mtod(mbufs[i], void *)) ^= 0xff;
        }
        CHECK_EQUAL(rte_eth_tx_burst(port, 0, mbufs, got), got);
    }
}

static int start(const char *in, const char *out, bool no_huge)
{
    char cpu[32], vdev[4096];
    char *argv[] = {
        "mdpdk",          "--lcores",         cpu,  "-m",        "96", "--no-shconf", "--no-pci",
        "--no-telemetry", "--vdev=net_null0", vdev, "--no-huge", NULL};

    snprintf(cpu, sizeof cpu, "0@%d", sched_getcpu());
    snprintf(vdev, sizeof vdev, "--vdev=net_pcap0,rx_pcap=%s,tx_pcap=%s", in, out);
    return rte_eal_init((int)RTE_DIM(argv) - (no_huge ? 1 : 2), argv);
}

/* What of the memory EAL did not get is as it was. */
static bool untouched_around(void)
{
    for (const uint8_t *at = memory.mapped; at < memory.mapped + memory.size; at++)
        if (!in_memory(at, 1) && *at != 0xa5)
            return false;
    return true;
}

static void whole_life(const char *in, const char *out)
{
    static char before[4096], after[4096];
    struct rte_mempool *pool;
    uint16_t null, pcap;
    char *note;

    what_is_refused();
    CHECK_EQUAL(set(refuse), 0);
    CHECK_EQUAL(rte_eal_mem_provider_set(NULL), 0);
    CHECK_EQUAL(set(give), 0);
    CHECK_EQUAL(memory.calls, 0);
    maps_of_memory(before, sizeof before);
    if (start(in, out, true) < 0) {
        CHECK(!"EAL starts");
        return;
    }
    CHECK_EQUAL(memory.calls, 1);
    CHECK_EQUAL(memory.wanted, MEMORY);
    CHECK_EQUAL(set(give), -EBUSY);
    CHECK_EQUAL(rte_eal_mem_provider_set(NULL), -EBUSY);

    check_malloc();
    pool = check_pool();
    CHECK_EQUAL(rte_eth_dev_get_port_by_name("net_null0", &null), 0);
    CHECK_EQUAL(rte_eth_dev_get_port_by_name("net_pcap0", &pcap), 0);
    if (failures == 0 && port_start(null, pool) && port_start(pcap, pool)) {
        check_null(null);
        check_pcap(pcap);
        port_stop(null);
        port_stop(pcap);
        CHECK_EQUAL(rte_mempool_avail_count(pool), MBUFS);
    }
    note = rte_malloc(NULL, 100, 0);
    CHECK(note != NULL && in_memory(note, 100));
    if (note == NULL)
        return;
    strcpy(note, "still there");

    CHECK_EQUAL(rte_eal_cleanup(), 0);
    maps_of_memory(after, sizeof after);
    CHECK(strcmp(before, after) == 0 && strstr(before, "memfd:mdpdk") != NULL);
    CHECK(strcmp(note, "still there") == 0 && strcmp((char *)alias_of(note), "still there") == 0);
    CHECK(untouched_around());
    CHECK_EQUAL(set(give), -EBUSY);
    CHECK_EQUAL(munmap(memory.mapped, memory.size), 0);
}

/* `how`: "life", or what goes wrong: "none", "crooked", "huge". Returns how much was not as it
 * should be; says what. */
__attribute__((visibility("default"))) int mdpdk_test(const char *how, const char *in,
                                                      const char *out)
{
    if (!memory_make(PAGE)) {
        CHECK(!"there is memory");
        return failures;
    }
    if (strcmp(how, "life") == 0) {
        whole_life(in, out);
    } else {
        CHECK_EQUAL(set(strcmp(how, "none") == 0      ? refuse
                        : strcmp(how, "crooked") == 0 ? give_crooked
                                                      : give),
                    0);
        CHECK_EQUAL(start(in, out, strcmp(how, "huge") != 0), -1);
    }
    return failures;
}
