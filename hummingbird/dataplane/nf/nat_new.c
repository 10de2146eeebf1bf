/* SPDX-License-Identifier: BSD-3-Clause */
/* nat_new.c: makes what a NAT has on the host, and tells what is in there. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "nf/nat_table.h"

bool hb_nat_is_inside(const hb_nat *n, uint32_t address)
{
    const uint32_t *p = n->config.inside;
    for (uint32_t i = 0; i < n->config.nb_inside; i++, p += 2)
        if ((address & p[1]) == p[0])
            return true;
    return false;
}

uint32_t hb_nat_external(const hb_nat *n, uint32_t address)
{
    const uint32_t *e = n->config.external;
    uint32_t low = 0, high = n->config.nb_external;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (e[middle] < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n->config.nb_external && e[low] == address ? low : HB_NAT_NONE;
}

static void *copy(const void *from, size_t bytes)
{
    void *to = malloc(bytes ? bytes : 1);
    if (to && bytes)
        memcpy(to, from, bytes);
    return to;
}

static uint32_t chains(uint32_t entries)
{
    uint32_t n = 1;
    while (n < entries)
        n *= 2;
    return n;
}

static size_t ports_bytes(const hb_nat *n)
{
    return (size_t)n->config.nb_external * 3 * sizeof *n->ports;
}

static bool allocate(hb_nat *n, const hb_nat_config *c)
{
    n->config.inside = copy(c->inside, c->nb_inside * 2 * sizeof *c->inside);
    n->config.external = copy(c->external, c->nb_external * sizeof *c->external);
    n->config.range = copy(c->range, c->nb_ranges * 2 * sizeof *c->range);
    n->ports = hb_region_new(ports_bytes(n));
    n->mapping = hb_region_new(c->mappings * sizeof *n->mapping);
    n->by_inside = hb_region_new((n->mask + (size_t)1) * sizeof *n->by_inside);
    n->by_external = hb_region_new((n->mask + (size_t)1) * sizeof *n->by_external);
    n->by_peer = hb_region_new((n->peer_mask + (size_t)1) * sizeof *n->by_peer);
    n->peer = hb_region_new((c->peers + (size_t)1) * sizeof *n->peer);
    return n->config.inside && n->config.external && n->config.range && n->ports && n->mapping &&
           n->by_inside && n->by_external && n->by_peer && n->peer;
}

/* All ports are free; those of one address and protocol like those of any other. */
static void fill_ports(hb_nat *n)
{
    for (uint32_t i = 0; i < n->config.nb_ranges; i++)
        for (uint32_t port = n->config.range[2 * i]; port <= n->config.range[2 * i + 1]; port++)
            hb_nat_give_port(&n->ports[0], port);
    n->range_ports = n->ports[0].left;
    for (uint32_t i = 1; i < n->config.nb_external * 3; i++)
        n->ports[i] = n->ports[0];
}

hb_nat *hb_nat_new(const hb_nat_config *c)
{
    hb_nat *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->config = *c;
    n->clock.now = HB_CLOCK_START;
    n->mask = chains(c->mappings) - 1;
    n->peer_mask = chains(c->peers) - 1;
    if (!allocate(n, c)) {
        hb_nat_free(n);
        return NULL;
    }
    fill_ports(n);
    for (uint32_t i = c->mappings; i > 0; i--) {
        n->mapping[i - 1].external = HB_NAT_NONE;
        n->mapping[i - 1].next_inside = n->free_mapping;
        n->free_mapping = i;
    }
    for (uint32_t i = c->peers; i > 0; i--) {
        n->peer[i - 1].mapping = HB_NAT_NONE;
        n->peer[i - 1].next = n->free_peer;
        n->free_peer = i;
    }
    return n;
}

void hb_nat_free(hb_nat *n)
{
    if (!n)
        return;
    free((void *)(uintptr_t)n->config.inside);
    free((void *)(uintptr_t)n->config.external);
    free((void *)(uintptr_t)n->config.range);
    hb_region_free(n->ports, ports_bytes(n));
    hb_region_free(n->mapping, n->config.mappings * sizeof *n->mapping);
    hb_region_free(n->by_inside, (n->mask + (size_t)1) * sizeof *n->by_inside);
    hb_region_free(n->by_external, (n->mask + (size_t)1) * sizeof *n->by_external);
    hb_region_free(n->by_peer, (n->peer_mask + (size_t)1) * sizeof *n->by_peer);
    hb_region_free(n->peer, (n->config.peers + (size_t)1) * sizeof *n->peer);
    free(n);
}

/* ---- reports ------------------------------------------------------------------------------------
 */

hb_nat_counts hb_nat_count(const hb_nat *n)
{
    const hb_nat_counts *c = &n->count;
    return (hb_nat_counts){
        .mappings = __atomic_load_n(&c->mappings, __ATOMIC_RELAXED),
        .held = __atomic_load_n(&c->held, __ATOMIC_RELAXED),
        .peers = __atomic_load_n(&c->peers, __ATOMIC_RELAXED),
        .no_port = __atomic_load_n(&c->no_port, __ATOMIC_RELAXED),
        .full = __atomic_load_n(&c->full, __ATOMIC_RELAXED),
        .filtered = __atomic_load_n(&c->filtered, __ATOMIC_RELAXED),
        .icmp_errors = __atomic_load_n(&c->icmp_errors, __ATOMIC_RELAXED),
    };
}

uint32_t hb_nat_ports_free(const hb_nat *n, uint32_t external, uint32_t protocol)
{
    uint32_t class = hb_nat_class(protocol);
    if (external >= n->config.nb_external || class == HB_NAT_OTHER)
        return 0;
    return __atomic_load_n(&n->ports[(size_t)external * 3 + class].left, __ATOMIC_RELAXED);
}

int hb_nat_look(const hb_nat *n, uint32_t i, hb_nat_view *view)
{
    if (i >= n->config.mappings)
        return 0;
    const hb_nat_mapping *m = &n->mapping[i];
    /* it may go at any time; what is shown then may be half another's */
    uint32_t external = __atomic_load_n(&m->external, __ATOMIC_RELAXED);
    if (external >= n->config.nb_external)
        return 0;
    *view = (hb_nat_view){.inside = m->inside.address,
                          .external = n->config.external[external],
                          .port = m->inside.port,
                          .external_port = m->external_port,
                          .zone = m->inside.zone,
                          .protocol = m->inside.protocol,
                          .forward = m->forward,
                          .flows = m->life.holders - m->forward};
    return 1;
}
