/* SPDX-License-Identifier: BSD-3-Clause */
/* router_lookup.c: many addresses at once. */
#include "hummingbird.h"
#include "nf/router.cl"
#include "nf/router_api.h"

void hb_router_lookup_bulk(const void *table, const uint32_t *address, uint16_t *entry, uint32_t n)
{
    const uint16_t *root = (const uint16_t *)table + HB_ROUTER_V4, *groups = root + HB_ROUTER_ROOT4;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t e = __atomic_load_n(root + (address[i] >> 8), __ATOMIC_ACQUIRE);
        if (e & HB_ROUTER_GROUP4)
            e = __atomic_load_n(groups + ((e & ~HB_ROUTER_GROUP4) << 8 | (address[i] & 255)),
                                __ATOMIC_RELAXED);
        entry[i] = (uint16_t)e;
    }
}

void hb_router_lookup6_bulk(const void *table, const uint8_t *address, uint16_t *entry, uint32_t n)
{
    const uint32_t *root = (const uint32_t *)table + ((const uint32_t *)table)[1];
    const uint32_t *groups = root + HB_ROUTER_ROOT6;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *a = address + 16 * i;
        uint32_t e = __atomic_load_n(root + (a[0] << 8 | a[1]), __ATOMIC_ACQUIRE);
        for (uint32_t at = 2; at < 16 && (e & HB_ROUTER_GROUP6); at++)
            e = __atomic_load_n(groups + ((uint64_t)(e & ~HB_ROUTER_GROUP6) << 8 | a[at]),
                                __ATOMIC_ACQUIRE);
        entry[i] = (uint16_t)e;
    }
}
