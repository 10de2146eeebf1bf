/* SPDX-License-Identifier: BSD-3-Clause */
/* rib.c: see rib.h. */
#include <stdlib.h>

#include "nf/rib.h"

#define FEWEST_SLOTS 1024u

static uint32_t hash_of(hb_address prefix, uint32_t length)
{
    /* Odd constants spread the bits upward, the shift brings them down to the mask. */
    uint64_t h = (prefix.hi ^ length) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32 ^ prefix.lo) * 0xd6e8feb86659fd93u;
    return (uint32_t)(h >> 32);
}

static bool is(const hb_rib_slot *s, hb_address prefix, uint32_t length)
{
    return s->prefix.hi == prefix.hi && s->prefix.lo == prefix.lo && s->length == length;
}

int hb_rib_init(hb_rib *rib)
{
    *rib = (hb_rib){.slot = calloc(FEWEST_SLOTS, sizeof(hb_rib_slot)), .mask = FEWEST_SLOTS - 1};
    return rib->slot ? 0 : -1;
}

void hb_rib_free(hb_rib *rib)
{
    free(rib->slot);
    rib->slot = NULL;
}

/* The slot of a route, or the free one where it would go: there always is one. */
static uint32_t place(const hb_rib *rib, hb_address prefix, uint32_t length)
{
    uint32_t i = hash_of(prefix, length) & rib->mask;
    while (rib->slot[i].used && !is(&rib->slot[i], prefix, length))
        i = (i + 1) & rib->mask;
    return i;
}

int hb_rib_reserve(hb_rib *rib, uint32_t routes)
{
    uint64_t wanted = ((uint64_t)rib->routes + routes) * 3 / 2, slots = rib->mask + 1ull;
    if (wanted <= slots)
        return 0;
    while (slots < wanted)
        slots *= 2;
    hb_rib old = *rib;
    if (slots > UINT32_MAX || !(rib->slot = calloc(slots, sizeof(hb_rib_slot)))) {
        rib->slot = old.slot;
        return -1;
    }
    rib->mask = (uint32_t)(slots - 1);
    for (uint32_t i = 0; i <= old.mask; i++) {
        if (old.slot[i].used)
            rib->slot[place(rib, old.slot[i].prefix, old.slot[i].length)] = old.slot[i];
    }
    free(old.slot);
    return 0;
}

const hb_rib_slot *hb_rib_find(const hb_rib *rib, hb_address prefix, uint32_t length)
{
    const hb_rib_slot *s = &rib->slot[place(rib, prefix, length)];
    return s->used ? s : NULL;
}

static void count(hb_rib *rib, uint32_t length, uint32_t change)
{
    rib->routes += change;
    rib->of_length[length] += change;
    uint64_t bit = 1ull << (length & 63);
    if (rib->of_length[length])
        rib->lengths[length >> 6] |= bit;
    else
        rib->lengths[length >> 6] &= ~bit;
}

bool hb_rib_put(hb_rib *rib, hb_address prefix, uint32_t length, uint16_t hop)
{
    hb_rib_slot *s = &rib->slot[place(rib, prefix, length)];
    if (s->used) {
        s->hop = hop;
        return false;
    }
    *s = (hb_rib_slot){.prefix = prefix, .hop = hop, .length = (uint8_t)length, .used = true};
    count(rib, length, 1);
    return true;
}

void hb_rib_remove(hb_rib *rib, hb_address prefix, uint32_t length)
{
    uint32_t hole = place(rib, prefix, length);
    if (!rib->slot[hole].used)
        return;
    count(rib, length, UINT32_MAX); /* minus 1 */
    /* Close the hole, or a search for what stands behind it would end there: move up each slot
     * whose own place is not between the hole and itself. */
    for (uint32_t i = (hole + 1) & rib->mask; rib->slot[i].used; i = (i + 1) & rib->mask) {
        uint32_t home = hash_of(rib->slot[i].prefix, rib->slot[i].length) & rib->mask;
        if (((i - home) & rib->mask) >= ((i - hole) & rib->mask)) {
            rib->slot[hole] = rib->slot[i];
            hole = i;
        }
    }
    rib->slot[hole].used = false;
}

const hb_rib_slot *hb_rib_cover(const hb_rib *rib, hb_address address, uint32_t below)
{
    for (int word = 2; word >= 0; word--) {
        uint64_t left = rib->lengths[word];
        if (below < 64u * (uint32_t)word + 64)
            left &= below <= 64u * (uint32_t)word ? 0 : (1ull << (below & 63)) - 1;
        for (; left; left &= ~(1ull << (63 - __builtin_clzll(left)))) {
            uint32_t length = 64u * (uint32_t)word + 63 - (uint32_t)__builtin_clzll(left);
            const hb_rib_slot *s = hb_rib_find(rib, hb_prefix_of(address, length), length);
            if (s)
                return s;
        }
    }
    return NULL;
}
