/* SPDX-License-Identifier: BSD-3-Clause */
/* policy.c: versions of the route policy. A version is immutable; a packet finishes on the version
 * that admitted it; a slot is used again when none of its packets is left. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane.h"

/* Packets of the version in this slot that are still in flight. Call when no lcore admits with it.
 */
static uint64_t packets_of(const hb_dataplane *dp, uint32_t slot)
{
    uint64_t retired = 0, admitted = 0;
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        retired += __atomic_load_n(&dp->lcore[l].stats->retired[slot], __ATOMIC_ACQUIRE);
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        admitted += __atomic_load_n(&dp->lcore[l].stats->admitted[slot], __ATOMIC_ACQUIRE);
    return admitted - retired;
}

uint32_t hb_live_policies(hb_dataplane *dp)
{
    uint32_t current = atomic_load_explicit(&dp->current, memory_order_relaxed), live = 0;
    for (uint32_t s = 0; s < HB_MAX_POLICIES; s++)
        if (dp->policy[s].version && (s == current || (dp->running && packets_of(dp, s))))
            live |= 1u << s;
    return live;
}

static int free_slot(hb_dataplane *dp)
{
    uint32_t live = hb_live_policies(dp);
    for (int s = 0; s < HB_MAX_POLICIES; s++)
        if (!(live & 1u << s))
            return s;
    return -1;
}

int hb_publish_policy(hb_dataplane *dp, const uint16_t *next)
{
    int slot = free_slot(dp);
    if (slot < 0) {
        snprintf(dp->error, sizeof dp->error,
                 "%d policy versions still have packets in flight; try again in a moment",
                 HB_MAX_POLICIES);
        return -1;
    }
    hb_policy *p = &dp->policy[slot];
    size_t bytes = (size_t)dp->max_nodes * dp->config.types * sizeof *next;
    if (!p->next && !(p->next = malloc(bytes))) {
        snprintf(dp->error, sizeof dp->error, "out of memory for a route policy");
        return -1;
    }
    memcpy(p->next, next, bytes);
    p->version = ++dp->versions;
    /* release: the table before the slot that names it */
    atomic_store_explicit(&dp->current, (uint32_t)slot, memory_order_release);
    hb_wait_passes(dp); /* none still holds the slot that was current before */
    return (int)p->version;
}
