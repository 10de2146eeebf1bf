/* SPDX-License-Identifier: BSD-3-Clause */
/* ports.c: the control thread's side of ports: they are added, lent to their lcores, taken off them
 * while an interface is away, and closed. */
#include <stdlib.h>
#include <string.h>

#include "dataplane.h"
#include "neighbour.h"

int hb_add_queues(hb_dataplane *dp, const uint32_t *lcores, hb_port *const *queues, uint32_t n)
{
    hb_node node = {.kind = HB_NODE_PORT, .lcores = n};
    if (!queues[0])
        return -1;
    for (uint32_t q = 0; q < n; q++) {
        node.lcore[q] = lcores[q];
        node.port[q] = queues[q];
        queues[q]->cache = &dp->cache;
        if (!queues[q]->unsent)
            queues[q]->unsent = HB_REASON_port_error;
    }
    int number = hb_add_node(dp, &node);
    for (uint32_t q = 0; q < n && number < 0; q++)
        queues[q]->ops->close(queues[q]);
    return number;
}

static int add_port(hb_dataplane *dp, uint32_t lcore, hb_port *port)
{
    return hb_add_queues(dp, &lcore, &port, 1);
}

int hb_add_pcap_input(hb_dataplane *dp, uint32_t lcore, const hb_pcap_input *in)
{
    return add_port(dp, lcore, hb_pcap_input_open(in, dp->error, sizeof dp->error));
}

int hb_add_pcap_output(hb_dataplane *dp, uint32_t lcore, const char *path)
{
    return add_port(dp, lcore, hb_pcap_output_open(path, dp->error, sizeof dp->error));
}

int hb_add_generator(hb_dataplane *dp, uint32_t lcore, const hb_generator *gen)
{
    return add_port(dp, lcore, hb_generator_open(gen, dp->error, sizeof dp->error));
}

int hb_add_sink(hb_dataplane *dp, uint32_t lcore)
{
    return add_port(dp, lcore, hb_sink_open());
}

int hb_add_af_packet(hb_dataplane *dp, const uint32_t *lcores, const hb_interface *params)
{
    hb_port *queues[HB_MAX_LCORES];
    if (hb_af_packet_open(params, queues, dp->error, sizeof dp->error))
        return -1;
    return hb_add_queues(dp, lcores, queues, params->queues);
}

int hb_add_tap(hb_dataplane *dp, const uint32_t *lcores, const hb_interface *params)
{
    hb_port *queues[HB_MAX_LCORES];
    if (hb_tap_open(params, queues, dp->error, sizeof dp->error))
        return -1;
    return hb_add_queues(dp, lcores, queues, params->queues);
}

void hb_set_zone(hb_dataplane *dp, uint32_t node, uint16_t zone)
{
    for (uint32_t q = 0; q < dp->node[node].lcores; q++)
        dp->node[node].port[q]->zone = zone;
}

void hb_give_ports(hb_dataplane *dp, bool to_lcores)
{
    for (uint32_t i = 0; i < dp->nodes; i++)
        for (uint32_t q = 0; dp->node[i].kind == HB_NODE_PORT && q < dp->node[i].lcores; q++)
            dp->node[i].port[q]->cache =
                to_lcores ? &dp->lcore[dp->node[i].lcore[q]].cache : &dp->cache;
}

/* All queues of a port answer for this from now on; returns what they did before. */
static hb_owned *exchange_owned(const hb_node *node, hb_owned *owned)
{
    hb_owned *old = atomic_load_explicit(&node->port[0]->owned, memory_order_relaxed);
    for (uint32_t q = 0; q < node->lcores; q++)
        /* release: what is in it, before an lcore reads it */
        atomic_store_explicit(&node->port[q]->owned, owned, memory_order_release);
    return old;
}

int hb_set_addresses(hb_dataplane *dp, uint32_t node, const hb_ip_address *list, uint32_t n,
                     const uint8_t *mac)
{
    static const uint8_t none[6];
    const hb_node *port = &dp->node[node];
    hb_owned *owned = NULL;
    if (!hb_is_input(port) || !hb_is_output(port))
        return hb_fail(dp, "only a port that packets come in and go out at can answer for them");
    if (n > HB_MOST_ADDRESSES)
        return hb_fail(dp, "a port has at most %u addresses", HB_MOST_ADDRESSES);
    mac = mac ? mac : port->port[0]->mac;
    if (n && !memcmp(mac, none, sizeof none))
        return hb_fail(dp, "the port has no Ethernet address to answer with");
    if (n && !(owned = calloc(1, sizeof *owned)))
        return hb_fail(dp, "out of memory");
    if (n) {
        owned->n = n;
        memcpy(owned->address, list, n * sizeof *list);
        memcpy(owned->mac, mac, sizeof owned->mac);
    }
    hb_owned *old = exchange_owned(port, owned);
    if (hb_wait_passes(dp)) /* else it may be looked at for good */
        free(old);
    return 0;
}

void hb_close_ports(hb_dataplane *dp)
{
    for (uint32_t i = 0; i < dp->nodes; i++)
        if (dp->node[i].kind == HB_NODE_PORT)
            free(exchange_owned(&dp->node[i], NULL));
    for (uint32_t i = 0; i < dp->nodes; i++)
        for (uint32_t q = 0; dp->node[i].kind == HB_NODE_PORT && q < dp->node[i].lcores; q++)
            dp->node[i].port[q]->ops->close(dp->node[i].port[q]);
}

const char *hb_port_message(const hb_dataplane *dp, uint32_t node)
{
    const hb_node *n = &dp->node[node];
    for (uint32_t q = 0; n->kind == HB_NODE_PORT && q < n->lcores; q++)
        if (atomic_load_explicit(&n->port[q]->failed, memory_order_acquire))
            return n->port[q]->error;
    return n->kind == HB_NODE_PORT ? n->port[0]->warning : "";
}

const char *hb_port_note(const hb_dataplane *dp, uint32_t node)
{
    const hb_node *n = &dp->node[node];
    return n->kind == HB_NODE_PORT ? n->port[0]->note : "";
}

/* Lcores keep off the port; false: one that is stuck does not. */
static bool set_away(hb_dataplane *dp, const hb_node *node)
{
    for (uint32_t q = 0; q < node->lcores; q++)
        /* relaxed: the passes that are waited for order it */
        atomic_store_explicit(&node->port[q]->away, true, memory_order_relaxed);
    return hb_wait_passes(dp);
}

void hb_port_away(hb_dataplane *dp, uint32_t node)
{
    set_away(dp, &dp->node[node]);
}

int hb_port_reopen(hb_dataplane *dp, uint32_t node)
{
    const hb_node *n = &dp->node[node];
    if (!n->port[0]->ops->reopen)
        return hb_fail(dp, "such a port cannot be opened again");
    if (!set_away(dp, n))
        return hb_fail(dp, "an lcore is stuck, and may still use it");
    int failed = 0;
    for (uint32_t q = 0; q < n->lcores && !failed; q++) {
        hb_cache *cache = n->port[q]->cache;
        n->port[q]->cache = &dp->cache;
        failed = n->port[q]->ops->reopen(n->port[q], dp->error, sizeof dp->error);
        n->port[q]->cache = cache;
    }
    for (uint32_t q = 0; q < n->lcores && !failed; q++)
        /* release: what reopen() did, before the lcore uses the port */
        atomic_store_explicit(&n->port[q]->away, false, memory_order_release);
    return failed ? -1 : 0;
}
