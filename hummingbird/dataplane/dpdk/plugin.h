/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * plugin.h: ports of DPDK's drivers, whose packets lie in our frames.
 *
 * A frame as DPDK sees it; what it has in front lies in the bytes that belong to port drivers:
 *
 *   0      64          192      256                       384
 *   | free | rte_mbuf  | unused | headroom of DPDK: 128 B | packet ...
 *                               '- buf_addr               '- buf_addr + data_off, by default
 *
 * So frame and rte_mbuf follow from each other by arithmetic, and nothing is copied between them. A
 * frame is DPDK's while its rte_mbuf names a mempool, else ours: that is how frames which a driver
 * forgets are found again (hb_dpdk_reclaim). Each queue has a mempool of its own, which is no more
 * than its hands on the arena: it allocates from and frees to the cache of the lcore that serves
 * the queue, so what DPDK takes and gives is counted like everything else. DPDK's memory has
 * nothing of ours, and frames have nothing of DPDK's malloc.
 */
#ifndef HB_DPDK_PLUGIN_H
#define HB_DPDK_PLUGIN_H
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <stdio.h>

#include "dpdk.h"

#define HB_DPDK_STOCK 256u
#define HB_DPDK_PAGE 4096ull
#define MBUF_AT                                                                                    \
    64u /* bytes from a frame's start to its rte_mbuf: the mempool's header lies before */
#define MBUF_PRIVATE (HB_FRAME_RESERVED - MBUF_AT - (uint32_t)sizeof(struct rte_mbuf))
_Static_assert(sizeof(struct rte_mempool_objhdr) <= MBUF_AT, "no room for a mempool's header");
_Static_assert(MBUF_AT + sizeof(struct rte_mbuf) <= HB_FRAME_RESERVED, "no room for an rte_mbuf");

typedef struct hb_dpdk_device hb_dpdk_device;

/* One queue: what hb_port says of threads holds for all of it. */
typedef struct {
    hb_port port;
    hb_dpdk_device *device;
    const hb_arena *arena;
    struct rte_mempool *pool;
    uint32_t shift;      /* log2 of the frame size */
    uint16_t id;         /* of the device, */
    uint16_t number;     /* and of the queue in it, as ethdev counts */
    bool short_of_mbufs; /* the driver has asked for more than there were */
    bool registered;     /* its lcore has told DPDK of itself, or tried to */
    uint32_t stocked;
    uint32_t stock[HB_DPDK_STOCK]; /* free frames at hand: most drivers take and give them singly */
} hb_dpdk_queue;

/* One device. Written by the control thread, but for what says otherwise. */
struct hb_dpdk_device {
    hb_dpdk_device *next; /* of those that are open */
    const hb_dpdk_core *core;
    const hb_arena *arena;
    char *device;  /* as hb_dpdk.device */
    char name[64]; /* what it begins with */
    uint16_t id;
    uint32_t queues;
    bool probed;              /* there is such a device in DPDK */
    bool started;             /* and packets flow */
    _Atomic uint32_t flushed; /* queues that their lcores have left; by these */
    uint32_t closed;
    _Atomic bool down; /* no link; by the lcore of queue 0, like the next two */
    uint64_t missed;   /* that the device has counted so far */
    uint64_t look_at;  /* tick */
    hb_dpdk_queue queue[HB_MAX_LCORES];
};

/* What is registered: whole pages, which the region of the frames consists of. */
static inline size_t hb_dpdk_arena_bytes(const hb_arena *a)
{
    return ((uint64_t)a->mbufs * a->frame_size + HB_DPDK_PAGE - 1) / HB_DPDK_PAGE * HB_DPDK_PAGE;
}

static inline struct rte_mbuf *hb_dpdk_mbuf(uint8_t *frame)
{
    return (struct rte_mbuf *)(frame + MBUF_AT);
}

static inline uint32_t hb_dpdk_handle(const hb_dpdk_queue *q, const struct rte_mbuf *m)
{
    return (uint32_t)((uint64_t)((const uint8_t *)m - q->arena->frames) >> q->shift);
}

/* A frame is free. */
static inline void hb_dpdk_store(hb_dpdk_queue *q, uint32_t handle)
{
    if (q->stocked == HB_DPDK_STOCK) {
        q->stocked /= 2;
        q->device->core->release(q->port.cache, q->stock + q->stocked, HB_DPDK_STOCK - q->stocked);
    }
    q->stock[q->stocked++] = handle;
}

/* The frame is DPDK's from now on, and its rte_mbuf is as in a pool. All of it is written, because
 * other drivers have their own things there. */
static inline struct rte_mbuf *hb_dpdk_lend(const hb_dpdk_queue *q, uint8_t *frame)
{
    struct rte_mbuf *m = hb_dpdk_mbuf(frame);
    m->buf_addr = frame + HB_FRAME_RESERVED;
    rte_mbuf_iova_set(m, (rte_iova_t)(uintptr_t)m->buf_addr);
    m->data_off = RTE_PKTMBUF_HEADROOM;
    m->refcnt = 1;
    m->nb_segs = 1;
    m->port = RTE_MBUF_PORT_INVALID;
    m->ol_flags = 0;
    m->buf_len = (uint16_t)(q->arena->frame_size - HB_FRAME_RESERVED);
    m->pool = q->pool;
    m->next = NULL;
    m->tx_offload = 0;
    m->shinfo = NULL;
    m->priv_size = MBUF_PRIVATE;
    return m;
}

/* ---- pool.c -------------------------------------------------------------------------------------
 */

/* 0, or an errno. */
int hb_dpdk_pool_make(hb_dpdk_queue *q);
void hb_dpdk_pool_free(hb_dpdk_queue *q);
/* The driver is gone: what it still had of the queue's frames goes to port.cache. */
void hb_dpdk_reclaim(hb_dpdk_queue *q);

/* ---- start.c ------------------------------------------------------------------------------------
 */

/* Start DPDK unless it runs. 0, or -1 and a text in error. */
int hb_dpdk_start(const hb_dpdk *params, char *error, size_t error_size);
/* mDPDK: end it, because its memory goes; it cannot be started again. */
void hb_dpdk_end(void);
/* The first error that DPDK has logged since hb_dpdk_forget_log(), or "". Control thread. */
const char *hb_dpdk_log(void);
void hb_dpdk_forget_log(void);

/* ---- device.c: control thread -------------------------------------------------------------------
 */

/* Probe, configure and start the device. 0, or -1 and a text in error. */
int hb_dpdk_device_open(hb_dpdk_device *d, char *error, size_t error_size);
/* Stop and remove it; every frame it has goes to `cache`. Also the lcore that leaves it last. */
void hb_dpdk_device_close(hb_dpdk_device *d, hb_cache *cache);

#endif
