/* SPDX-License-Identifier: BSD-3-Clause */
/* router_table.c: the router's table (cl_kernels/nf/router.cl has the layout), written. */
#include <stdlib.h>
#include <string.h>

#include "hummingbird.h"
#include "nf/lpm.h"
#include "nf/router.cl"
#include "nf/router_api.h"

struct hb_router {
    uint32_t *word; /* the table */
    hb_lpm v4;
    hb_lpm v6;
    bool read;
    uint32_t epoch;                           /* counts hb_router_readers_passed(), from 1 */
    uint32_t set_in[HB_ROUTER_MOST_HOPS + 1]; /* epoch of a hop's last change; 0: never read yet */
    hb_lpm_dirt hops;                         /* changed next hops */
};

static uint64_t end_of_v4(uint32_t groups4)
{
    uint64_t end = HB_ROUTER_V4 * 2ull + hb_lpm_bytes(false, groups4);
    return (end + HB_LINE - 1) / HB_LINE * HB_LINE;
}

uint64_t hb_router_bytes(uint32_t groups4, uint32_t groups6)
{
    return end_of_v4(groups4) + hb_lpm_bytes(true, groups6);
}

static void point(hb_router *r, void *table)
{
    r->word = table;
    r->v4.entry = (uint16_t *)table + HB_ROUTER_V4;
    r->v6.entry = r->word + r->word[1];
}

hb_router *hb_router_new(void *table, uint32_t groups4, uint32_t groups6, uint32_t seed,
                         int32_t local)
{
    hb_router *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    uint32_t *word = table;
    word[0] = HB_ROUTER_MAGIC;
    word[1] = (uint32_t)(end_of_v4(groups4) / 4);
    word[2] = (uint32_t)(local + 1);
    word[3] = seed;
    r->epoch = 1;
    r->hops = (hb_lpm_dirt){UINT32_MAX, 0};
    if (hb_lpm_init(&r->v4, false, NULL, groups4) || hb_lpm_init(&r->v6, true, NULL, groups6)) {
        hb_router_free(r);
        return NULL;
    }
    point(r, table);
    return r;
}

void hb_router_free(hb_router *r)
{
    if (!r)
        return;
    hb_lpm_free(&r->v4);
    hb_lpm_free(&r->v6);
    free(r);
}

void hb_router_move(hb_router *r, void *table)
{
    point(r, table);
    r->read = r->v4.read = r->v6.read = true;
}

void hb_router_readers_passed(hb_router *r)
{
    hb_lpm_readers_passed(&r->v4);
    hb_lpm_readers_passed(&r->v6);
    r->epoch++;
}

/* ---- routes -----------------------------------------------------------------------------------
 */

static hb_lpm *family_of(hb_router *r, uint32_t family)
{
    return family == 4 ? &r->v4 : &r->v6;
}

int hb_router_change(hb_router *r, uint32_t family, const uint64_t *hi, const uint64_t *lo,
                     const uint8_t *length, const int32_t *hop, uint32_t n, uint32_t *done)
{
    hb_lpm *l = family_of(r, family);
    *done = 0;
    if (hb_rib_reserve(&l->rib, n))
        return HB_ROUTER_MEMORY;
    for (uint32_t i = 0; i < n; i++) {
        hb_address prefix = {hi[i], lo[i]};
        enum hb_lpm_end end = hop[i] < 0 ? hb_lpm_remove(l, prefix, length[i])
                                         : hb_lpm_put(l, prefix, length[i], (uint16_t)hop[i]);
        if (end != HB_LPM_DONE)
            return (int)end;
        ++*done;
    }
    return HB_ROUTER_DONE;
}

int hb_router_route(const hb_router *r, uint32_t family, uint64_t hi, uint64_t lo, uint32_t below,
                    uint32_t *hop)
{
    const hb_rib *rib = family == 4 ? &r->v4.rib : &r->v6.rib;
    const hb_rib_slot *s = hb_rib_cover(rib, (hb_address){hi, lo}, below);
    if (!s)
        return -1;
    *hop = s->hop;
    return s->length;
}

hb_router_use hb_router_used(const hb_router *r, uint32_t family)
{
    const hb_lpm *l = family == 4 ? &r->v4 : &r->v6;
    return (hb_router_use){.routes = l->rib.routes, .groups = l->used, .groups_room = l->groups};
}

/* ---- next hops --------------------------------------------------------------------------------
 */

/* The record to fill; NULL if somebody may still read it. */
static uint32_t *open_record(hb_router *r, uint32_t hop)
{
    if (r->read && r->set_in[hop] == r->epoch)
        return NULL;
    uint32_t other = ~r->word[HB_ROUTER_HOPS + hop] & 0x100;
    return r->word + hb_router_record(hop, other);
}

/* The record that was filled holds from now on. Release: whoever sees the word sees it filled. */
static void close_record(hb_router *r, uint32_t hop, uint32_t kind, uint32_t members)
{
    uint32_t *word = r->word + HB_ROUTER_HOPS + hop;
    __atomic_store_n(word, kind | (~*word & 0x100) | members << 16, __ATOMIC_RELEASE);
    r->set_in[hop] = r->read ? r->epoch : 0;
    r->hops.from = hop < r->hops.from ? hop : r->hops.from;
    r->hops.to = hop >= r->hops.to ? hop + 1 : r->hops.to;
}

int hb_router_set_hop(hb_router *r, uint32_t hop, uint32_t kind, const uint8_t *macs, uint32_t mtu,
                      const hb_ip_address *address, int confirm)
{
    uint32_t *record = open_record(r, hop);
    if (!record)
        return HB_ROUTER_WAIT;
    for (uint32_t i = 0; i < 3; i++) /* as hb_put32() wants them */
        record[i] = (uint32_t)macs[4 * i] << 24 | (uint32_t)macs[4 * i + 1] << 16 |
                    (uint32_t)macs[4 * i + 2] << 8 | macs[4 * i + 3];
    record[3] = mtu | (confirm ? HB_ROUTER_CONFIRM : 0);
    record[HB_ROUTER_FAMILY] = address ? address->family : 0;
    if (address)
        memcpy(record + HB_ROUTER_ADDRESS, address->bytes, sizeof address->bytes);
    close_record(r, hop, kind, 0);
    return HB_ROUTER_DONE;
}

int hb_router_set_group(hb_router *r, uint32_t hop, const uint16_t *members, uint32_t n)
{
    uint32_t *record = open_record(r, hop);
    if (!record)
        return HB_ROUTER_WAIT;
    memcpy(record, members, n * sizeof *members);
    close_record(r, hop, HB_ROUTER_GROUP, n);
    return HB_ROUTER_DONE;
}

/* ---- what has changed -------------------------------------------------------------------------
 */

typedef struct {
    uint64_t *offset;
    uint64_t *bytes;
    uint32_t n;
} parts;

/* Report changed elements of a size, numbered from the byte `first` on. */
static void report(parts *p, hb_lpm_dirt *dirt, uint64_t first, uint64_t size)
{
    if (dirt->from >= dirt->to)
        return;
    p->offset[p->n] = first + dirt->from * size;
    p->bytes[p->n++] = (dirt->to - dirt->from) * size;
}

uint32_t hb_router_changed(hb_router *r, uint64_t *offset, uint64_t *bytes)
{
    parts p = {offset, bytes, 0};
    uint64_t v6 = r->word[1] * 4ull;
    /* What is led to goes before what leads there. */
    report(&p, &r->hops, HB_ROUTER_RECORDS * 4ull, 2 * HB_ROUTER_RECORD * 4ull);
    report(&p, &r->hops, HB_ROUTER_HOPS * 4ull, 4);
    report(&p, &r->v4.dirty[1], HB_ROUTER_V4 * 2ull, 2);
    report(&p, &r->v4.dirty[0], HB_ROUTER_V4 * 2ull, 2);
    report(&p, &r->v6.dirty[1], v6, 4);
    report(&p, &r->v6.dirty[0], v6, 4);
    hb_lpm_dirt none = {UINT32_MAX, 0};
    r->hops = r->v4.dirty[0] = r->v4.dirty[1] = r->v6.dirty[0] = r->v6.dirty[1] = none;
    return p.n;
}
