/* SPDX-License-Identifier: BSD-3-Clause */
/* mdpdk_af_xdp.c: the kernel writes frames into memory the application gave, and sends them from
 * it.
 *
 *     raw socket ── veth ── net_af_xdp0 ─┬─ one mempool in our memory
 *     raw socket ── veth ── net_af_xdp1 ─┘  (without a second port: back out of the first)
 *
 * Frames are sent in small batches, and each batch is awaited, so none may be missing. */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <time.h>

#include "mdpdk.h"

enum {
    BATCH = 32,
    BATCHES = 500, /* 16,000 frames: more than the pool has, so each mbuf's memory is used */
    FRAME = 60,
    TYPE = 0x88b5,  /* for local experiments: nobody else's */
    WAIT_MS = 5000, /* until a frame counts as missing */
};

struct frame {
    uint8_t to[6], from[6];
    uint16_t type;
    uint32_t number;
    uint8_t rest[FRAME - 18];
} __attribute__((packed));

static long now_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* A socket that sends to, and gets all of TYPE from, an interface. */
static int raw_socket(const char *interface)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(TYPE),
                                  .sll_ifindex = (int)if_nametoindex(interface)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(TYPE)), yes = 1;

    CHECK(fd >= 0 && address.sll_ifindex > 0);
    CHECK_EQUAL(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes), 0);
    CHECK_EQUAL(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void send_batch(int fd, uint32_t first)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        struct frame frame = {.to = {2, 0, 0, 0, 0, 1},
                              .from = {2, 0, 0, 0, 0, 2},
                              .type = htons(TYPE),
                              .number = htonl(first + i)};

        CHECK_EQUAL(send(fd, &frame, sizeof frame, 0), FRAME);
    }
}

/* Receive the batch, note in our own view of the memory that we have seen it, and send it. Returns
 * how much of it came. */
static uint32_t pass_batch(uint16_t in, uint16_t out, uint32_t first)
{
    long end = now_ms() + WAIT_MS;
    uint32_t got = 0;

    while (got < BATCH && now_ms() < end) {
        struct rte_mbuf *mbufs[BATCH];
        uint16_t count = rte_eth_rx_burst(in, 0, mbufs, BATCH);

        for (uint16_t i = 0; i < count; i++) {
            struct frame *frame = rte_pktmbuf_mtod(mbufs[i], struct frame *);

            CHECK(in_memory(frame, FRAME));
            if (frame->type != htons(TYPE)) { /* the kernel says something itself */
                rte_pktmbuf_free(mbufs[i]);
                continue;
            }
            CHECK_EQUAL(ntohl(frame->number), first + got);
            alias_of(frame)[offsetof(struct frame, rest)] = 0x5e;
            CHECK_EQUAL(rte_eth_tx_burst(out, 0, &mbufs[i], 1), 1);
            got++;
        }
    }
    return got;
}

/* Returns how much of the batch came out. */
static uint32_t await_batch(int fd, uint32_t first)
{
    long end = now_ms() + WAIT_MS;
    uint32_t got = 0;

    while (got < BATCH && now_ms() < end) {
        struct frame frame;

        if (recv(fd, &frame, sizeof frame, 0) != FRAME)
            continue;
        CHECK_EQUAL(ntohl(frame.number), first + got);
        CHECK_EQUAL(frame.rest[0], 0x5e);
        got++;
    }
    return got;
}

static void pass_all(int from, int to, uint16_t in, uint16_t out)
{
    for (uint32_t batch = 0; batch < BATCHES && failures == 0; batch++) {
        send_batch(from, batch * BATCH);
        CHECK_EQUAL(pass_batch(in, out, batch * BATCH), BATCH);
        CHECK_EQUAL(await_batch(to, batch * BATCH), BATCH);
        if (failures > 0)
            printf("in batch %u of %d\n", batch, BATCHES);
    }
}

static int start(bool shared)
{
    char cpu[32];
    char *one[] = {"--vdev=net_af_xdp0,iface=hbm0"};
    char *two[] = {"--vdev=net_af_xdp0,iface=hbm0,shared_umem=1",
                   "--vdev=net_af_xdp1,iface=hbm2,shared_umem=1"};
    char *argv[] = {"mdpdk",
                    "--lcores",
                    cpu,
                    "-m",
                    "96",
                    "--no-huge",
                    "--no-shconf",
                    "--no-pci",
                    "--no-telemetry",
                    shared ? two[0] : one[0],
                    two[1],
                    NULL};

    snprintf(cpu, sizeof cpu, "0@%d", sched_getcpu());
    return rte_eal_init((int)RTE_DIM(argv) - (shared ? 1 : 2), argv);
}

/* `how`: "shared", two ports with one UMEM, or "small", one port, and pages so small that mbufs do
 * not lie side by side. `from`, `to`: the far ends of the interfaces hbm0 and hbm2, or of hbm0. */
__attribute__((visibility("default"))) int mdpdk_test(const char *how, const char *from,
                                                      const char *to)
{
    bool shared = strcmp(how, "shared") == 0;
    size_t page_sz = shared ? 2 << 20 : 4096;
    struct rte_eal_mem_provider provider = {.alloc = give, .arg = &memory, .page_sz = page_sz};
    uint16_t in = 0, out = shared ? 1 : 0;
    struct rte_mempool *pool;

    CHECK(memory_make(page_sz));
    CHECK_EQUAL(rte_eal_mem_provider_set(&provider), 0);
    CHECK(start(shared) >= 0);
    if (failures > 0)
        return failures;
    CHECK_EQUAL(rte_eth_dev_count_avail(), out + 1);
    pool = rte_pktmbuf_pool_create("pool", shared ? 16383 : 12287, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
                                   SOCKET_ID_ANY);
    CHECK(pool != NULL && in_memory(pool, sizeof *pool));
    if (failures == 0 && port_start(in, pool) && (!shared || port_start(out, pool))) {
        pass_all(raw_socket(from), raw_socket(to), in, out);
        port_stop(in);
        if (shared)
            port_stop(out);
    }
    CHECK_EQUAL(rte_eal_cleanup(), 0);
    return failures;
}
