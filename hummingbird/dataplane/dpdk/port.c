/* SPDX-License-Identifier: BSD-3-Clause */
/* port.c: one queue of a device as a port: packets in and out, and what the plug-in exports. */
#include <rte_cycles.h>
#include <rte_lcore.h>
#include <rte_memory.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

#define LOOK_MS                                                                                    \
    100 /* between two looks at a device's own counters: registers of a NIC are slow               \
         */

/* What a device has dropped by itself. */
static void count_missed(hb_dpdk_device *d, hb_port *port)
{
    struct rte_eth_stats stats;
    if (rte_eth_stats_get(d->id, &stats))
        return;
    uint64_t missed = stats.imissed + stats.rx_nombuf;
    if (missed > d->missed)
        port->missed += missed - d->missed;
    d->missed = missed;
}

static void look(hb_dpdk_queue *q)
{
    hb_dpdk_device *d = q->device;
    uint64_t now = rte_rdtsc();
    if (now < d->look_at)
        return;
    struct rte_eth_link link;
    d->look_at = now + rte_get_tsc_hz() * LOOK_MS / 1000;
    count_missed(d, &q->port);
    if (!rte_eth_link_get_nowait(d->id, &link))
        /* relaxed: it only chooses the name of a drop */
        atomic_store_explicit(&d->down, link.link_status == RTE_ETH_LINK_DOWN,
                              memory_order_relaxed);
}

/* Some drivers ask which lcore of DPDK's calls. */
static void enter(hb_dpdk_queue *q)
{
    q->registered = true;
    if (rte_lcore_id() == LCORE_ID_ANY)
        rte_thread_register(); /* fails if DPDK has too many: then without */
}

/* ---- receive -----------------------------------------------------------------------------------
 */

/* A tag that the driver has taken out belongs to the packet. False: it does not fit. */
static bool put_back_vlan(struct rte_mbuf **m)
{
    if ((*m)->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED && rte_vlan_insert(m))
        return false;
    if (!((*m)->ol_flags & RTE_MBUF_F_RX_QINQ_STRIPPED))
        return true;
    (*m)->vlan_tci = (*m)->vlan_tci_outer;
    return !rte_vlan_insert(m);
}

/* It has come in several frames, or has no room for its tag. */
static void refuse(hb_dpdk_queue *q, struct rte_mbuf *m)
{
    q->port.too_long++;
    q->port.too_long_bytes += m->pkt_len;
    rte_pktmbuf_free(m);
}

static uint32_t take_in(hb_dpdk_queue *q, const hb_arena *a, struct rte_mbuf **in, uint32_t n,
                        uint32_t *handles)
{
    const uint64_t stripped = RTE_MBUF_F_RX_VLAN_STRIPPED | RTE_MBUF_F_RX_QINQ_STRIPPED;
    uint64_t now = hb_clock_time_ns();
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct rte_mbuf *m = in[i];
        bool odd = (m->nb_segs > 1) | ((m->ol_flags & stripped) != 0);
        q->port.serial++;
        if (__builtin_expect(odd, 0) && (m->nb_segs > 1 || !put_back_vlan(&m))) {
            refuse(q, m);
            continue;
        }
        m->pool = NULL; /* ours */
        uint32_t handle = hb_dpdk_handle(q, m);
        hb_mbuf *header = hb_header(a, handle);
        header->data_off = (uint16_t)(HB_FRAME_RESERVED + m->data_off);
        header->data_len = m->data_len;
        header->serial = q->port.serial;
        header->time_ns = now;
        handles[kept++] = handle;
    }
    return kept;
}

/* There is no empty mbuf left: give back what is out, and what is at hand. */
static void yield(hb_dpdk_queue *q)
{
    rte_eth_tx_burst(q->id, q->number, NULL, 0); /* drivers look there what they have sent */
    q->device->core->release(q->port.cache, q->stock, q->stocked);
    q->stocked = 0;
}

static uint32_t dpdk_rx(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    hb_dpdk_queue *q = (hb_dpdk_queue *)port;
    struct rte_mbuf *in[HB_RX_BURST];
    uint32_t filled[HB_RX_BURST];
    if (__builtin_expect(!q->registered, 0))
        enter(q);
    if (!q->number)
        look(q);
    if (__builtin_expect(!n, 0)) {
        yield(q);
        return 0;
    }
    uint32_t got =
        rte_eth_rx_burst(q->id, q->number, in, (uint16_t)RTE_MIN(n, (uint32_t)HB_RX_BURST));
    if (!got)
        return 0;
    got = take_in(q, a, in, got, filled);
    for (uint32_t i = 0; i < got; i++) /* an empty one for each: the driver fills them next */
        hb_dpdk_store(q, handles[i]);
    memcpy(handles, filled, got * sizeof *handles);
    return got;
}

/* ---- send --------------------------------------------------------------------------------------
 */

static uint32_t dpdk_tx(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    hb_dpdk_queue *q = (hb_dpdk_queue *)port;
    struct rte_mbuf *out[HB_BURST];
    if (n > HB_BURST)
        n = HB_BURST;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *header = hb_header(a, handles[i]);
        struct rte_mbuf *m = hb_dpdk_lend(q, hb_frame(a, header));
        m->data_off = (uint16_t)(header->data_off - HB_FRAME_RESERVED);
        m->data_len = header->data_len;
        m->pkt_len = header->data_len;
        out[i] = m;
    }
    uint32_t sent = rte_eth_tx_burst(q->id, q->number, out, (uint16_t)n);
    if (sent == n)
        return n;
    for (uint32_t i = sent; i < n; i++)
        out[i]->pool = NULL; /* still ours */
    bool down = atomic_load_explicit(&q->device->down, memory_order_relaxed);
    port->unsent = down ? HB_REASON_port_down : HB_REASON_port_full;
    return sent;
}

/* ---- leave -------------------------------------------------------------------------------------
 */

/* The lcore leaves the queue; the last one closes the device. */
static void dpdk_flush(hb_port *port)
{
    hb_dpdk_queue *q = (hb_dpdk_queue *)port;
    hb_dpdk_device *d = q->device;
    /* acq_rel: the last one sees what the others have done */
    if (atomic_fetch_add_explicit(&d->flushed, 1, memory_order_acq_rel) + 1 == d->queues) {
        count_missed(d, port);
        hb_dpdk_device_close(d, port->cache);
    }
    if (q->registered && rte_lcore_id() != LCORE_ID_ANY)
        rte_thread_unregister();
    q->registered = false;
}

/* All of the device at its first queue; whoever has away set keeps the lcores off the others. */
static int dpdk_reopen(hb_port *port, char *error, size_t error_size)
{
    hb_dpdk_queue *q = (hb_dpdk_queue *)port;
    hb_dpdk_device *d = q->device;
    hb_cache *caches[HB_MAX_LCORES];
    if (q->number)
        return d->started ? 0 : -1;
    for (uint32_t i = 0; i < d->queues; i++)
        caches[i] = d->queue[i].port.cache;
    hb_dpdk_device_close(d, port->cache);
    int failed = hb_dpdk_device_open(d, error, error_size);
    if (failed)
        hb_dpdk_device_close(d, port->cache);
    for (uint32_t i = 0; i < d->queues; i++)
        d->queue[i].port.cache = caches[i];
    return failed;
}

static hb_dpdk_device *devices; /* open ones; control thread */

static void forget(hb_dpdk_device *d)
{
    hb_dpdk_device **link = &devices;
    bool last = true; /* of its arena's */
    while (*link != d)
        link = &(*link)->next;
    *link = d->next;
    for (hb_dpdk_device *other = devices; other; other = other->next)
        last = last && other->arena != d->arena;
    if (last)
        rte_extmem_unregister(d->arena->frames, hb_dpdk_arena_bytes(d->arena));
    free(d->device);
    free(d);
    if (!devices)
        hb_dpdk_end();
}

static void dpdk_close(hb_port *port)
{
    hb_dpdk_device *d = ((hb_dpdk_queue *)port)->device;
    if (++d->closed < d->queues)
        return;
    hb_dpdk_device_close(d, port->cache); /* if no lcore has */
    forget(d);
}

/* ---- open --------------------------------------------------------------------------------------
 */

static hb_dpdk_device *new_device(const hb_dpdk_core *core, const hb_port_home *home,
                                  const char *device, uint32_t queues)
{
    static const hb_port_ops ops = {.rx = dpdk_rx,
                                    .tx = dpdk_tx,
                                    .flush = dpdk_flush,
                                    .reopen = dpdk_reopen,
                                    .close = dpdk_close,
                                    .keeps = true};
    hb_dpdk_device *d = calloc(1, sizeof *d);
    if (!d || !(d->device = strdup(device))) {
        free(d);
        return NULL;
    }
    d->core = core;
    d->arena = home->arena;
    d->queues = queues;
    for (uint32_t q = 0; q < queues; q++)
        d->queue[q] = (hb_dpdk_queue){.port = {.ops = &ops,
                                               .paced = true,
                                               .live = true,
                                               .cache = home->cache,
                                               .unsent = HB_REASON_port_full},
                                      .device = d,
                                      .arena = home->arena,
                                      .shift = (uint32_t)__builtin_ctz(home->arena->frame_size),
                                      .number = (uint16_t)q};
    return d;
}

static int dpdk_open(const hb_dpdk_core *core, const hb_port_home *home, const hb_dpdk *params,
                     hb_port **queues, char *error, size_t error_size)
{
    if (hb_dpdk_start(params, error, error_size))
        return -1;
    hb_dpdk_device *d = new_device(core, home, params->device, params->queues);
    if (!d) {
        snprintf(error, error_size, "not enough memory");
        return -1;
    }
    d->next = devices;
    devices = d;
    int failed = hb_dpdk_device_open(d, error, error_size);
    for (uint32_t q = 0; q < d->queues; q++)
        queues[q] = &d->queue[q].port;
    for (uint32_t q = 0, n = d->queues; failed && q < n; q++)
        dpdk_close(queues[q]);
    return failed;
}

/* HB_DPDK_PLUGIN */
extern const hb_dpdk_calls hb_dpdk_plugin __attribute__((visibility("default")));
const hb_dpdk_calls hb_dpdk_plugin = {.interface = HB_DPDK_INTERFACE, .open = dpdk_open};
