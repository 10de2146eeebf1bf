/* SPDX-License-Identifier: BSD-3-Clause */
/* policy.c: versions of the route policy. A version is immutable; a packet finishes on the version
 * that admitted it; a slot is used again when none of its packets is left. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane.h"

uint64_t hb_admitted_in_flight(const hb_dataplane *dp, uint32_t admission)
{
    uint64_t retired = 0, admitted = 0;
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        retired += __atomic_load_n(&dp->lcore[l].stats->retired[admission], __ATOMIC_ACQUIRE);
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        admitted += __atomic_load_n(&dp->lcore[l].stats->admitted[admission], __ATOMIC_ACQUIRE);
    return admitted - retired;
}

/* Packets of the version in this slot that are still in flight. Call when no lcore admits with it.
 */
static uint64_t packets_of(const hb_dataplane *dp, uint32_t slot)
{
    uint64_t packets = 0;
    for (uint32_t epoch = 0; epoch < 2; epoch++)
        packets += hb_admitted_in_flight(dp, hb_admission(slot, epoch));
    return packets;
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

#define HOLD_MS 1000

/* With flows that have state, a flow goes its new way when the last packet on the old one is gone.
 */
static void change_to(hb_dataplane *dp, uint32_t slot)
{
    bool hold = dp->running && dp->tracked;
    atomic_store_explicit(&dp->held, hold || dp->holding, memory_order_relaxed);
    dp->undrained += hold && hb_wait_empty(dp, HOLD_MS);
    /* release: the table before the slot that names it */
    atomic_store_explicit(&dp->current, slot, memory_order_release);
    /* release: who takes in again, does so by the new one */
    atomic_store_explicit(&dp->held, dp->holding, memory_order_release);
}

uint32_t hb_undrained_reloads(const hb_dataplane *dp)
{
    return dp->undrained;
}

int hb_publish_policy(hb_dataplane *dp, const uint16_t *next)
{
    /* one that still holds an old slot would find another table there */
    if (!hb_wait_passes(dp))
        return HB_POLICY_STUCK;
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
    change_to(dp, (uint32_t)slot);
    hb_wait_passes(dp); /* none still holds the slot that was current before */
    return (int)p->version;
}
