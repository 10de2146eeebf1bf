/* SPDX-License-Identifier: BSD-3-Clause */
/* The AF_XDP driver over rings in plain memory: the test plays the kernel, also one that lies. A
 * send does nothing, the socket behind it is one of a pair. */
#include "check.h"
#include "dataplane.h"
#include "port/af_xdp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MBUFS 1024u
#define FRAME 2048u
#define ENTRIES 64u
#define DATA (HB_FRAME_RESERVED + HB_FRAME_HEADROOM)

/* What the kernel shares: two indices and the entries of each ring. */
typedef struct {
    uint32_t producer, consumer, flags;
    union {
        struct xdp_desc desc[ENTRIES];
        uint64_t addr[ENTRIES];
    };
} fake_ring;

static fake_ring fill, rx, tx, completion;
static hb_arena arena;
static hb_cache cache;
static uint8_t *frames;
static hb_port *port;
static uint32_t handle[HB_BURST];

static hb_xsk_ring ring(fake_ring *r)
{
    memset(r, 0, sizeof *r);
    return (hb_xsk_ring){.producer = &r->producer,
                         .consumer = &r->consumer,
                         .flags = &r->flags,
                         .entry = r->desc,
                         .mask = ENTRIES - 1};
}

static void set_up(void)
{
    int pair[2];
    frames = hb_region_new(MBUFS * FRAME);
    CHECK_EQUAL(hb_arena_init(&arena, frames, FRAME, MBUFS, 1), 0);
    hb_cache_init(&cache, &arena);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    close(pair[1]);
    hb_xsk xsk = {.fd = pair[0],
                  .fill = ring(&fill),
                  .rx = ring(&rx),
                  .tx = ring(&tx),
                  .completion = ring(&completion)};
    port = hb_af_xdp_over(&xsk, &(hb_port_home){&arena, &cache}, ENTRIES);
}

/* All mbufs are the pool's again. */
static void tear_down(void)
{
    port->ops->close(port);
    CHECK_EQUAL(hb_arena_count_free(&arena), MBUFS);
    hb_arena_free(&arena);
    hb_region_free(frames, MBUFS * FRAME);
}

/* The port is given n empty mbufs; those that it leaves empty go back. */
static uint32_t receive(uint32_t n)
{
    CHECK_EQUAL(hb_alloc(&cache, handle, n), n);
    uint32_t got = port->ops->rx(port, &arena, handle, n);
    hb_release(&cache, handle + got, n - got);
    return got;
}

/* The kernel takes the next frame to fill. */
static uint64_t take_frame(void)
{
    CHECK(fill.producer - fill.consumer > 0);
    return fill.addr[fill.consumer++ % ENTRIES];
}

static void give(uint64_t address, uint32_t length)
{
    rx.desc[rx.producer++ % ENTRIES] = (struct xdp_desc){address, length, 0};
}

static void send_done(uint64_t address)
{
    completion.addr[completion.producer++ % ENTRIES] = address;
}

/* A packet stays in one place: where the kernel has put it, where an NF sees it, where it is sent
 * from. */
static void test_one_place(void)
{
    set_up();
    CHECK_EQUAL(receive(8), 0);
    CHECK_EQUAL(fill.producer, ENTRIES);
    for (uint32_t i = 0; i < 1000; i++) {
        uint64_t address = take_frame() + DATA;
        uint32_t length = 60 + i;
        CHECK_EQUAL((address - DATA) % FRAME, 0);
        memset(frames + address, (int)i, length);
        give(address, length);
        CHECK_EQUAL(receive(1 + i % 8), 1);
        hb_mbuf *m = hb_header(&arena, handle[0]);
        CHECK(hb_data(&arena, m) == frames + address);
        CHECK_EQUAL(m->data_len, length);
        CHECK_EQUAL(m->serial, i + 1);
        m->data_off -= 20; /* an NF adds a header */
        m->data_len += 20;
        CHECK_EQUAL(port->ops->tx(port, &arena, handle, 1), 1);
        struct xdp_desc d = tx.desc[tx.consumer++ % ENTRIES];
        CHECK_EQUAL(d.addr, address - 20);
        CHECK_EQUAL(d.len, length + 20);
        CHECK_EQUAL(frames[d.addr + 20 + length - 1], (uint8_t)i);
        send_done(d.addr);
    }
    CHECK_EQUAL(fill.producer - fill.consumer, ENTRIES); /* the stock is what it was */
    CHECK_EQUAL(port->missed + port->lost + (uint64_t)port->failed, 0);
    tear_down();
}

/* A full tx ring takes no more, and what the kernel has taken comes back, in whatever order. */
static void test_full(void)
{
    set_up();
    CHECK_EQUAL(hb_alloc(&cache, handle, 100), 100);
    for (uint32_t i = 0; i < 100; i++)
        *hb_header(&arena, handle[i]) =
            (hb_mbuf){.frame = handle[i], .data_off = DATA, .data_len = 60};
    CHECK_EQUAL(port->ops->tx(port, &arena, handle, 100), ENTRIES);
    CHECK_EQUAL(port->unsent, HB_REASON_port_full);
    hb_release(&cache, handle + ENTRIES, 100 - ENTRIES);
    tx.consumer += ENTRIES;
    for (uint32_t i = ENTRIES; i-- > 0;)
        send_done(((uint64_t)handle[i] * FRAME) + DATA);
    CHECK_EQUAL(receive(0), 0); /* what has gone out comes back without a packet */
    CHECK_EQUAL(hb_arena_count_free(&arena), MBUFS - ENTRIES);
    tear_down();
}

/* Addresses that the kernel cannot have: none of them becomes a packet, or an mbuf of the pool. */
static void test_bogus(void)
{
    set_up();
    receive(8);
    uint64_t mine = take_frame();
    uint32_t not_given;
    CHECK_EQUAL(hb_alloc(&cache, &not_given, 1), 1);
    give(UINT64_MAX, 60);
    give((uint64_t)MBUFS * FRAME + DATA, 60); /* past the arena */
    give((uint64_t)not_given * FRAME + DATA, 60);
    give(mine + DATA, 60);
    give(mine + DATA, 60); /* twice */
    CHECK_EQUAL(receive(8), 1);
    CHECK_EQUAL(port->missed, 4);
    CHECK_EQUAL(port->failed, EPROTO);
    hb_release(&cache, handle, 1);

    static const struct {
        uint32_t offset, length;
    } wrong[] = {{HB_FRAME_RESERVED - 1, 60},
                 {FRAME - 59, 60},
                 {DATA, FRAME - DATA + 1},
                 {DATA, UINT32_MAX}};
    for (uint32_t i = 0; i < 4; i++)
        give(take_frame() + wrong[i].offset, wrong[i].length);
    give(take_frame() + DATA, FRAME - DATA); /* as long as it may be */
    CHECK_EQUAL(receive(8), 1);
    CHECK_EQUAL(port->missed, 8);
    hb_release(&cache, handle, 1);

    send_done(UINT64_MAX);
    send_done((uint64_t)not_given * FRAME);
    send_done(take_frame()); /* it is to fill, not sent */
    CHECK_EQUAL(receive(0), 0);
    hb_release(&cache, &not_given, 1);
    tear_down();
}

/* A pool without mbufs: what is missing is made up for later. */
static void test_empty_pool(void)
{
    static uint32_t all[MBUFS];
    set_up();
    CHECK_EQUAL(hb_alloc(&cache, all, MBUFS), MBUFS);
    CHECK_EQUAL(receive(0), 0);
    CHECK_EQUAL(fill.producer, 0);
    hb_release(&cache, all, 10);
    CHECK_EQUAL(receive(0), 0);
    CHECK_EQUAL(fill.producer, 10);
    hb_release(&cache, all + 10, MBUFS - 10);
    CHECK_EQUAL(receive(0), 0);
    CHECK_EQUAL(fill.producer, ENTRIES);
    tear_down();
}

/* The end: what nobody took is missed, what was not sent is lost, by its type. */
static void test_end(void)
{
    set_up();
    receive(8);
    for (uint32_t i = 0; i < 5; i++)
        give(take_frame() + DATA, 60);
    CHECK_EQUAL(hb_alloc(&cache, handle, 3), 3);
    for (uint32_t i = 0; i < 3; i++)
        *hb_header(&arena, handle[i]) = (hb_mbuf){
            .frame = handle[i], .data_off = DATA, .data_len = 60, .type = (uint16_t)(7 + i % 2)};
    CHECK_EQUAL(port->ops->tx(port, &arena, handle, 3), 3);
    tx.consumer++;
    port->ops->flush(port);
    CHECK_EQUAL(hb_arena_count_free(&arena), MBUFS);
    CHECK_EQUAL(port->missed, 5);
    CHECK_EQUAL(port->lost, 2);
    CHECK_EQUAL(port->lost_by_type[7], 1);
    CHECK_EQUAL(port->lost_by_type[8], 1);
    CHECK_EQUAL(receive(8), 0); /* closed */
    CHECK_EQUAL(port->ops->tx(port, &arena, handle, 0), 0);
    CHECK_EQUAL(port->unsent, HB_REASON_port_down);
    tear_down();
}

int main(void)
{
    test_one_place();
    test_full();
    test_bogus();
    test_empty_pool();
    test_end();
    return failures != 0;
}
