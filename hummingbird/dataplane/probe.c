/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * probe.c: the real queue protocol on a device, with every byte checked. Each packet carries a
 * value that its frame line, its table line and its arg must agree on; the device counts what is
 * stale and writes the complement back, which the host checks in turn. One stale word decides.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "device.h"

/* Checked in a packet, big-endian 32 bits each: one line is stale or fresh as a whole. */
#define WORDS 4
#define TABLE_LINE 128 /* bytes of a slot's table line: hb_table32() index flow * 32 */

typedef struct {
    const hb_probe_config *config;
    struct hb_device_ctl *d;
    struct hb_control *c;
    uint32_t published, reaped;
    uint32_t lanes, depth;
    uint64_t sent; /* packets published; decides frame and value of each */
    hb_probe_result *result;
} probe;

static uint32_t value_of(uint64_t n)
{
    return (uint32_t)((n + 1) * 0x9e3779b97f4a7c15ull >> 32);
}

static uint8_t *packet_of(const probe *p, uint64_t n)
{
    size_t frame = n % p->config->frames_used;
    return (uint8_t *)p->config->frames + frame * p->config->frame_size + HB_FRAME_RESERVED +
           HB_FRAME_HEADROOM;
}

static void write_row(probe *p)
{
    struct hb_control *c = p->c;
    uint32_t row = p->published & (p->depth - 1);
    ((struct hb_rowdesc *)hb_control_array(c, c->rowdesc_off))[row] =
        (struct hb_rowdesc){.program = 0, .count = (uint16_t)p->lanes};
    for (uint32_t lane = 0; lane < p->lanes; lane++, p->sent++) {
        size_t slot = (size_t)row * p->lanes + lane;
        uint32_t v = value_of(p->sent), big = __builtin_bswap32(v);
        uint8_t *packet = packet_of(p, p->sent);
        for (uint32_t i = 0; i < WORDS; i++)
            memcpy(packet + 4 * i, &big, 4);
        memcpy((uint8_t *)p->config->table + slot * TABLE_LINE, &v, 4);
        ((struct hb_work *)hb_control_array(c, c->work_off))[slot] =
            (struct hb_work){.frame = (uint32_t)(p->sent % p->config->frames_used),
                             .offset = HB_FRAME_RESERVED + HB_FRAME_HEADROOM,
                             .length = WORDS * 4,
                             .l3 = HB_NO_LAYER,
                             .l4 = HB_NO_LAYER,
                             .flow = (uint32_t)slot};
        ((uint64_t *)hb_control_array(c, c->arg_off))[slot] = v;
    }
    hb_store_release(hb_control_word(c, c->cpu_off, 0), ++p->published);
    hb_device_wake(p->d);
}

static void check_row(probe *p)
{
    struct hb_control *c = p->c;
    uint32_t row = p->reaped & (p->depth - 1);
    uint64_t first = p->sent - (uint64_t)(p->published - p->reaped) * p->lanes;
    const struct hb_done *done =
        (struct hb_done *)hb_control_array(c, c->done_off) + (size_t)row * p->lanes;
    for (uint32_t lane = 0; lane < p->lanes; lane++) {
        uint32_t want = __builtin_bswap32(~value_of(first + lane)), got;
        const uint8_t *packet = packet_of(p, first + lane);
        p->result->stale_on_device += done[lane].result;
        if (done[lane].verdict != HB_VERDICT_PASS)
            p->result->stale_on_host++;
        for (uint32_t i = 0; i < WORDS; i++) {
            memcpy(&got, packet + 4 * i, 4);
            p->result->stale_on_host += got != want;
        }
        p->result->packets++;
    }
    p->reaped++;
}

static bool pass(probe *p, uint64_t total)
{
    struct hb_control *c = p->c;
    uint32_t us = (uint32_t)(hb_monotonic_ns() / 1000);
    hb_store_release(hb_control_word(c, c->tick_off, 0), us);
    bool worked = false;
    for (; p->reaped != hb_load_acquire(hb_control_word(c, c->gpu_off, 0)); worked = true)
        check_row(p);
    /* never more packets in flight than frames: each line is rewritten only after it came back */
    uint32_t rows = p->config->frames_used / p->lanes;
    rows = rows < p->depth ? rows : p->depth;
    for (; p->sent < total && p->published - p->reaped < rows; worked = true)
        write_row(p);
    return worked;
}

int hb_probe(const hb_probe_config *config, hb_probe_result *result)
{
    hb_device_stats stats = {0};
    hb_nf nf = {.reads = HB_READS_PACKET, .writes = HB_WRITES_PACKET};
    struct hb_device_ctl *d =
        hb_device_alone(&config->device, config->frames, config->frame_size, &nf, &stats);
    if (!d)
        return -1;
    probe p = {.config = config,
               .d = d,
               .c = d->control,
               .lanes = config->device.lanes,
               .depth = config->device.depth,
               .result = result};
    uint64_t total = (uint64_t)config->frames_used * config->rounds / p.lanes * p.lanes;
    memset(result, 0, sizeof *result);
    int rc = hb_device_start(d);
    uint64_t moved = hb_monotonic_ns();
    while (!rc && result->packets < total) {
        uint64_t before = result->packets, now = hb_monotonic_ns();
        if (!pass(&p, total))
            sched_yield(); /* a CPU device may need this very core */
        if (result->packets != before)
            moved = now;
        else if (now - moved > config->stall_ms * 1000000ull)
            rc = -1;
        if (atomic_load(&d->failed) || atomic_load(&d->condition) == HB_DEVICE_HUNG)
            rc = -1;
    }
    hb_device_stop(d);
    result->launches = stats.launches;
    result->resident = stats.resident;
    hb_device_free(d);
    return rc;
}
