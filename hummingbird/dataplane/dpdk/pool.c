/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.c: a mempool of DPDK whose objects are our free frames, wherever they are: its free list is
 * the cache of the lcore that uses the queue. */
#include <errno.h>
#include <rte_errno.h>

#include "plugin.h"

static int make(struct rte_mempool *mp)
{
    mp->pool_data = mp->pool_config;
    return 0;
}

/* Frames begin anew. */
static int put(struct rte_mempool *mp, void *const *objects, unsigned int n)
{
    hb_dpdk_queue *q = mp->pool_data;
    for (uint32_t i = 0; i < n; i++) {
        struct rte_mbuf *m = objects[i];
        m->pool = NULL;
        hb_dpdk_store(q, hb_dpdk_handle(q, m));
    }
    return 0;
}

/* All n, or none. */
static int get(struct rte_mempool *mp, void **objects, unsigned int n)
{
    hb_dpdk_queue *q = mp->pool_data;
    for (uint32_t i = 0; i < n; i++) {
        if (!q->stocked)
            q->stocked = q->device->core->alloc(q->port.cache, q->stock, HB_DPDK_STOCK / 4);
        if (!q->stocked) {
            put(mp, objects, i);
            q->short_of_mbufs = true;
            return -ENOBUFS;
        }
        uint32_t handle = q->stock[--q->stocked];
        objects[i] = hb_dpdk_lend(q, q->arena->frames + ((uint64_t)handle << q->shift));
    }
    return 0;
}

/* Nobody can know: other lcores take from the same frames. Enough. */
static unsigned int count(const struct rte_mempool *mp)
{
    return mp->size;
}

/* The frames are in the arena's pool already, and DPDK's list through all objects would lead
 * through bytes that other drivers write to: that they are there is all that is noted. */
static int populate(struct rte_mempool *mp, unsigned int n, void *first, rte_iova_t iova,
                    size_t bytes, rte_mempool_populate_obj_cb_t *add, void *arg)
{
    (void)first, (void)iova, (void)bytes, (void)add, (void)arg;
    mp->populated_size += n;
    return (int)n;
}

static const struct rte_mempool_ops ops = {
    .name = "hummingbird",
    .alloc = make,
    .enqueue = put,
    .dequeue = get,
    .get_count = count,
    .populate = populate,
};
RTE_MEMPOOL_REGISTER_OPS(ops)

/* Does DPDK lay out an object as we do? */
static bool fits(const struct rte_mempool *mp, uint32_t frame_size)
{
    return mp->header_size == MBUF_AT &&
           mp->header_size + mp->elt_size + mp->trailer_size == frame_size;
}

int hb_dpdk_pool_make(hb_dpdk_queue *q)
{
    static unsigned int number; /* names are unique in a process */
    const hb_arena *a = q->arena;
    struct rte_pktmbuf_pool_private mbufs = {.mbuf_data_room_size =
                                                 (uint16_t)(a->frame_size - HB_FRAME_RESERVED),
                                             .mbuf_priv_size = MBUF_PRIVATE};
    char name[RTE_MEMPOOL_NAMESIZE];
    snprintf(name, sizeof name, "hummingbird%u", number++);
    /* no cache per lcore: ours is one */
    q->pool = rte_mempool_create_empty(name, a->mbufs, a->frame_size - MBUF_AT, 0, sizeof mbufs,
                                       SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_SPREAD);
    if (!q->pool)
        return rte_errno;
    if (!fits(q->pool, a->frame_size))
        return EPROTO;
    int failed = rte_mempool_set_ops_byname(q->pool, ops.name, q);
    if (failed)
        return -failed;
    rte_pktmbuf_pool_init(q->pool, &mbufs);
    /* one chunk, all of the frames: drivers that register a pool's memory register the arena. IOVAs
     * are virtual addresses (start.c). */
    failed = rte_mempool_populate_iova(q->pool, (char *)a->frames, (rte_iova_t)(uintptr_t)a->frames,
                                       (size_t)a->mbufs * a->frame_size, NULL, NULL);
    return failed < 0 ? -failed : 0;
}

void hb_dpdk_pool_free(hb_dpdk_queue *q)
{
    if (!q->pool)
        return;
    q->pool->populated_size = 0;
    rte_mempool_free(q->pool);
    q->pool = NULL;
}

void hb_dpdk_reclaim(hb_dpdk_queue *q)
{
    const hb_arena *a = q->arena;
    q->device->core->release(q->port.cache, q->stock, q->stocked);
    q->stocked = 0;
    for (uint32_t handle = 0; q->pool && handle < a->mbufs; handle++) {
        struct rte_mbuf *m = hb_dpdk_mbuf(a->frames + ((uint64_t)handle << q->shift));
        if (m->pool != q->pool)
            continue;
        m->pool = NULL;
        q->device->core->release(q->port.cache, &handle, 1);
    }
}
