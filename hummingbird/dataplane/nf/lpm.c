/* SPDX-License-Identifier: BSD-3-Clause */
/* lpm.c: see lpm.h. */
#include <stdlib.h>
#include <string.h>

#include "nf/lpm.h"

/* ---- entries ------------------------------------------------------------------------------------
 */

static uint32_t top_bit(const hb_lpm *l)
{
    return l->wide ? 0x80000000u : 0x8000u;
}

static uint32_t root_entries(const hb_lpm *l)
{
    return 1u << l->root_bits;
}

static uint32_t first_of(const hb_lpm *l, uint32_t group)
{
    return root_entries(l) + group * HB_LPM_GROUP;
}

/* The writer's own load: what it wrote itself. */
static uint32_t load(const hb_lpm *l, uint32_t e)
{
    return l->wide ? __atomic_load_n((uint32_t *)l->entry + e, __ATOMIC_RELAXED)
                   : __atomic_load_n((uint16_t *)l->entry + e, __ATOMIC_RELAXED);
}

static void note(hb_lpm_dirt *dirt, uint32_t e)
{
    dirt->from = e < dirt->from ? e : dirt->from;
    dirt->to = e >= dirt->to ? e + 1 : dirt->to;
}

/* Release: an entry may lead to a group, which has to be complete for whoever sees the entry. */
static void store(hb_lpm *l, uint32_t e, uint32_t value)
{
    note(&l->dirty[e >= root_entries(l)], e);
    if (l->wide)
        __atomic_store_n((uint32_t *)l->entry + e, value, __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint16_t *)l->entry + e, (uint16_t)value, __ATOMIC_RELEASE);
}

/* n bits of an address from bit `from` on, all in one half of it. */
static uint32_t bits_at(hb_address a, uint32_t from, uint32_t n)
{
    uint64_t half = from < 64 ? a.hi : a.lo;
    return (uint32_t)(half << (from & 63) >> (64 - n));
}

/* ---- life ---------------------------------------------------------------------------------------
 */

uint64_t hb_lpm_bytes(bool v6, uint32_t groups)
{
    uint64_t root = 1ull << (v6 ? 16 : 24);
    return (root + (uint64_t)groups * HB_LPM_GROUP) * (v6 ? 4 : 2);
}

int hb_lpm_init(hb_lpm *l, bool v6, void *entry, uint32_t groups)
{
    *l = (hb_lpm){.entry = entry,
                  .root_bits = v6 ? 16 : 24,
                  .bits = v6 ? 128 : 32,
                  .wide = v6,
                  .groups = groups,
                  .free = groups,
                  .dirty = {{UINT32_MAX, 0}, {UINT32_MAX, 0}}};
    /* One more than there are, because calloc(0) may be NULL. */
    l->depth = calloc(root_entries(l) + (size_t)groups * HB_LPM_GROUP, 1);
    l->uses = calloc(groups + 1ull, sizeof *l->uses);
    l->idle = calloc(groups + 1ull, sizeof *l->idle);
    l->given = calloc(groups + 1ull, sizeof *l->given);
    if (hb_rib_init(&l->rib) || !l->depth || !l->uses || !l->idle || !l->given) {
        hb_lpm_free(l);
        return -1;
    }
    for (uint32_t i = 0; i < groups; i++)
        l->idle[i] = groups - 1 - i; /* group 0 goes first */
    return 0;
}

void hb_lpm_free(hb_lpm *l)
{
    free(l->depth);
    free(l->uses);
    free(l->idle);
    free(l->given);
    hb_rib_free(&l->rib);
    *l = (hb_lpm){0};
}

void hb_lpm_readers_passed(hb_lpm *l)
{
    while (l->waiting)
        l->idle[l->free++] = l->given[--l->waiting];
}

static void give_up(hb_lpm *l, uint32_t group)
{
    l->used--;
    if (l->read)
        l->given[l->waiting++] = group;
    else
        l->idle[l->free++] = group;
}

/* ---- changes ------------------------------------------------------------------------------------
 */

/* The blocks (root, then groups) on the way to a prefix. */
typedef struct {
    uint32_t blocks;
    uint32_t first[HB_LPM_LEVELS]; /* of each block: its first entry ... */
    uint32_t at[HB_LPM_LEVELS];    /* ... and the entry that the prefix lies in or begins at */
    uint32_t end;                  /* bits of an address up to and with the last block */
} way;

static void enter(const hb_lpm *l, way *w, uint32_t first, hb_address prefix)
{
    uint32_t bits = w->blocks ? 8 : l->root_bits;
    w->first[w->blocks] = first;
    w->at[w->blocks++] = first + bits_at(prefix, w->end, bits);
    w->end += bits;
}

/* As far as groups lead, to the block in which a prefix of this length ends. */
static way descend(const hb_lpm *l, hb_address prefix, uint32_t length)
{
    way w = {0};
    enter(l, &w, 0, prefix);
    while (length > w.end) {
        uint32_t entry = load(l, w.at[w.blocks - 1]);
        if (!(entry & top_bit(l)))
            break;
        enter(l, &w, first_of(l, entry & ~top_bit(l)), prefix);
    }
    return w;
}

/* Which entries show a route now, by its length, and what shall they show. */
typedef struct {
    uint32_t least;
    uint32_t most;
    uint32_t depth;
    uint32_t value;
} paint;

/* The entries [e, e + n), and those of the groups in them. Recursion ends: a group is a level down.
 */
static void paint_entries(hb_lpm *l, uint32_t e, uint32_t n, const paint *p)
{
    for (uint32_t end = e + n; e < end; e++) {
        if (l->depth[e] < p->least || l->depth[e] > p->most)
            continue; /* a longer route: all below is its, or longer ones' */
        l->depth[e] = (uint8_t)p->depth;
        uint32_t entry = load(l, e);
        if (entry & top_bit(l))
            paint_entries(l, first_of(l, entry & ~top_bit(l)), HB_LPM_GROUP, p);
        else
            store(l, e, p->value);
    }
}

static void paint_prefix(hb_lpm *l, const way *w, uint32_t length, const paint *p)
{
    paint_entries(l, w->at[w->blocks - 1], 1u << (w->end - length), p);
}

/* A free group, showing what the entry `e` shows. */
static uint32_t new_group(hb_lpm *l, uint32_t e)
{
    uint32_t group = l->idle[--l->free], first = first_of(l, group), value = load(l, e);
    l->used++;
    l->uses[group] = 0;
    memset(l->depth + first, l->depth[e], HB_LPM_GROUP);
    for (uint32_t i = 0; i < HB_LPM_GROUP; i++)
        store(l, first + i, value);
    return group;
}

static uint32_t *uses_of(hb_lpm *l, uint32_t first)
{
    return &l->uses[(first - root_entries(l)) / HB_LPM_GROUP];
}

/* Groups that a prefix of this length needs beyond the end of the way. */
static uint32_t groups_missing(const way *w, uint32_t length)
{
    return length > w->end ? (length - w->end + 7) / 8 : 0;
}

enum hb_lpm_end hb_lpm_put(hb_lpm *l, hb_address prefix, uint32_t length, uint16_t hop)
{
    way w = descend(l, prefix, length);
    uint32_t missing = groups_missing(&w, length);
    if (missing > l->free)
        return missing > l->free + l->waiting ? HB_LPM_FULL : HB_LPM_WAIT;
    bool fresh = hb_rib_put(&l->rib, prefix, length, hop);
    /* Where there is no group yet, make all of them out of the readers' sight ... */
    uint32_t door = w.at[w.blocks - 1], behind = 0;
    for (uint32_t i = 0; i < missing; i++) {
        uint32_t from = w.at[w.blocks - 1], group = new_group(l, from);
        if (i == 0)
            behind = top_bit(l) | group;
        else
            store(l, from, top_bit(l) | group);
        if (w.blocks > 1)
            ++*uses_of(l, w.first[w.blocks - 1]);
        enter(l, &w, first_of(l, group), prefix);
    }
    paint_prefix(l, &w, length, &(paint){.most = length, .depth = length, .value = hop + 1u});
    /* ... and open the door last. */
    if (missing)
        store(l, door, behind);
    if (fresh && w.blocks > 1)
        ++*uses_of(l, w.first[w.blocks - 1]);
    return HB_LPM_DONE;
}

/* Groups at the end of the way that nothing needs any more: what they show is one route, the same
 * for all of their entries. */
static void collapse(hb_lpm *l, way *w)
{
    while (w->blocks > 1) {
        uint32_t first = w->first[w->blocks - 1];
        if (--*uses_of(l, first))
            return;
        w->blocks--;
        store(l, w->at[w->blocks - 1], load(l, first));
        give_up(l, (first - root_entries(l)) / HB_LPM_GROUP);
    }
}

enum hb_lpm_end hb_lpm_remove(hb_lpm *l, hb_address prefix, uint32_t length)
{
    if (!hb_rib_find(&l->rib, prefix, length))
        return HB_LPM_DONE;
    hb_rib_remove(&l->rib, prefix, length);
    const hb_rib_slot *cover = hb_rib_cover(&l->rib, prefix, length);
    way w = descend(l, prefix, length);
    paint_prefix(l, &w, length,
                 &(paint){.least = length,
                          .most = length,
                          .depth = cover ? cover->length : 0,
                          .value = cover ? cover->hop + 1u : 0});
    collapse(l, &w);
    return HB_LPM_DONE;
}

uint32_t hb_lpm_lookup(const hb_lpm *l, hb_address address)
{
    way w = descend(l, address, l->bits);
    return load(l, w.at[w.blocks - 1]);
}
