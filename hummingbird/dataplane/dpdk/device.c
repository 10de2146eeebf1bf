/* SPDX-License-Identifier: BSD-3-Clause */
/* device.c: a device of DPDK is opened and closed. */
#include <errno.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_version.h>
#include <string.h>

#include "plugin.h"

#define DESCRIPTORS 1024 /* of a queue, where the driver has no opinion */

/* ---- errors ------------------------------------------------------------------------------------
 */

typedef struct {
    char *text;
    size_t size;
} text;

/* -1; the text is: device, what failed, what DPDK says, how to mend it. */
static int fail(const hb_dpdk_device *d, const text *error, const char *what, int number,
                const char *fix)
{
    const char *said = hb_dpdk_log();
    snprintf(error->text, error->size, "%s %s: %s\n%s", d->name, what,
             *said ? said : rte_strerror(number < 0 ? -number : number), fix);
    return -1;
}

static int too_few_queues(const hb_dpdk_device *d, const text *error,
                          const struct rte_eth_dev_info *info)
{
    uint32_t most = RTE_MIN(info->max_rx_queues, info->max_tx_queues);
    snprintf(error->text, error->size,
             "%s has %u queues to receive with and %u to send with, not %u\n"
             "write queues: %u, or ask the driver for more (%s)",
             d->name, info->max_rx_queues, info->max_tx_queues, d->queues, most ? most : 1,
             "net_af_packet: qpairs=, net_af_xdp: queue_count=, a NIC: see its driver");
    return -1;
}

static bool short_of_mbufs(const hb_dpdk_device *d)
{
    bool any = false;
    for (uint32_t q = 0; q < d->queues; q++)
        any = any || d->queue[q].short_of_mbufs;
    return any;
}

static int too_few_mbufs(const hb_dpdk_device *d, const text *error)
{
    snprintf(error->text, error->size,
             "%s wants more packets' memory than there is: %u mbufs\n"
             "raise memory.mbufs (net_af_xdp takes 2048 for each queue and as many to send)",
             d->name, d->arena->mbufs);
    return -1;
}

/* ---- memory ------------------------------------------------------------------------------------
 */

/* DPDK knows that the frames are memory, and a NIC that gets at memory through an IOMMU may get at
 * them; virtual devices need neither. Registered once for all devices of an arena. */
static int map_frames(const hb_dpdk_device *d, const struct rte_eth_dev_info *info)
{
    const hb_arena *a = d->arena;
    if (rte_extmem_register(a->frames, hb_dpdk_arena_bytes(a), NULL, 0, HB_DPDK_PAGE) &&
        rte_errno != EEXIST)
        return rte_errno;
    if (rte_dev_dma_map(info->device, a->frames, (rte_iova_t)(uintptr_t)a->frames,
                        hb_dpdk_arena_bytes(a)) &&
        rte_errno != ENOTSUP)
        return rte_errno;
    return 0;
}

/* ---- open --------------------------------------------------------------------------------------
 */

static struct rte_eth_conf configuration(const hb_dpdk_device *d,
                                         const struct rte_eth_dev_info *info)
{
    struct rte_eth_conf conf = {0};
    if (d->queues > 1 && info->flow_type_rss_offloads) {
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf =
            (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP) & info->flow_type_rss_offloads;
    }
    return conf;
}

static uint16_t descriptors(const struct rte_eth_dev_portconf *wish)
{
    return wish->ring_size ? wish->ring_size : DESCRIPTORS;
}

static int set_up_queues(hb_dpdk_device *d, const struct rte_eth_dev_info *info)
{
    uint16_t rx = descriptors(&info->default_rxportconf),
             tx = descriptors(&info->default_txportconf);
    int failed = rte_eth_dev_adjust_nb_rx_tx_desc(d->id, &rx, &tx);
    for (uint16_t q = 0; q < d->queues && !failed; q++) {
        d->queue[q].id = d->id;
        failed = hb_dpdk_pool_make(&d->queue[q]);
        if (!failed)
            failed = rte_eth_rx_queue_setup(d->id, q, rx, SOCKET_ID_ANY, NULL, d->queue[q].pool);
        if (!failed)
            failed = rte_eth_tx_queue_setup(d->id, q, tx, SOCKET_ID_ANY, NULL);
    }
    return failed;
}

static int configure(hb_dpdk_device *d, const text *error)
{
    struct rte_eth_dev_info info;
    int failed = rte_eth_dev_info_get(d->id, &info);
    if (failed)
        return fail(d, error, "says nothing of itself", failed, "name another device");
    if (info.max_rx_queues < d->queues || info.max_tx_queues < d->queues)
        return too_few_queues(d, error, &info);
    failed = map_frames(d, &info);
    if (failed)
        return fail(d, error, "gets no access to the packets' memory", failed,
                    "raise RLIMIT_MEMLOCK, or see docs/dpdk.md for what its driver needs");
    struct rte_eth_conf conf = configuration(d, &info);
    failed = rte_eth_dev_configure(d->id, (uint16_t)d->queues, (uint16_t)d->queues, &conf);
    if (!failed)
        failed = set_up_queues(d, &info);
    if (!failed)
        failed = rte_eth_dev_start(d->id);
    if (failed && short_of_mbufs(d))
        return too_few_mbufs(d, error);
    if (failed)
        return fail(d, error, "cannot be set up", failed,
                    "see that nothing else uses the interface, and docs/dpdk.md");
    d->started = true;
    snprintf(d->queue[0].port.note, sizeof d->queue[0].port.note, "%s of %s", info.driver_name,
             rte_version());
    struct rte_ether_addr mac;
    if (!rte_eth_macaddr_get(d->id, &mac))
        for (uint32_t q = 0; q < d->queues; q++)
            memcpy(d->queue[q].port.mac, mac.addr_bytes, sizeof mac.addr_bytes);
    rte_eth_promiscuous_enable(d->id); /* some have no such mode */
    return 0;
}

int hb_dpdk_device_open(hb_dpdk_device *d, char *error, size_t error_size)
{
    const text to = {error, error_size};
    snprintf(d->name, sizeof d->name, "%.*s", (int)strcspn(d->device, ","), d->device);
    hb_dpdk_forget_log();
    if (!rte_eth_dev_get_port_by_name(d->name, &d->id))
        return fail(d, &to, "cannot be opened", EEXIST,
                    "open a device once; give virtual ones different numbers");
    int failed = rte_dev_probe(d->device);
    d->probed = !failed;
    if (failed || rte_eth_dev_get_port_by_name(d->name, &d->id))
        return fail(d, &to, "cannot be opened", failed ? failed : ENODEV,
                    "correct the device: a PCI address, or a virtual device with its arguments");
    return configure(d, &to);
}

/* ---- close -------------------------------------------------------------------------------------
 */

void hb_dpdk_device_close(hb_dpdk_device *d, hb_cache *cache)
{
    struct rte_eth_dev_info info = {0};
    for (uint32_t q = 0; q < d->queues; q++)
        d->queue[q].port.cache = cache;
    if (d->probed) {
        bool known = !rte_eth_dev_info_get(d->id, &info);
        if (d->started) {
            rte_eth_promiscuous_disable(d->id);
            rte_eth_dev_stop(d->id);
        }
        if (known)
            rte_dev_dma_unmap(info.device, d->arena->frames,
                              (rte_iova_t)(uintptr_t)d->arena->frames,
                              hb_dpdk_arena_bytes(d->arena));
        rte_eth_dev_close(d->id);
        if (known)
            rte_dev_remove(info.device);
    }
    d->probed = d->started = d->down = false;
    d->missed = 0;
    for (uint32_t q = 0; q < d->queues; q++) {
        hb_dpdk_reclaim(&d->queue[q]);
        hb_dpdk_pool_free(&d->queue[q]);
    }
}
