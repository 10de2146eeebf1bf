/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lpm.h: longest prefix match in a table that is changed while others look up in it.
 *
 * A multibit trie: a root indexed by the first `root_bits` of an address, then groups of 256
 * entries, indexed by eight more bits each. IPv4 is DIR-24-8 (root of 24 bits, one level of groups,
 * 16-bit entries); IPv6 has a root of 16 bits and up to 14 levels, with 32-bit entries, because a
 * full table needs more groups than 15 bits can number. Root and groups are one array:
 *
 *   entry [0 .. 2^root_bits)                the root
 *   entry [2^root_bits + 256 g .. + 256)    group g
 *   an entry is 0 (no route), next hop + 1, or the top bit and a group's number
 *
 * The entries lie in the tables region; readers (lcores, devices) only load. All else is the
 * writer's: one control thread at a time. What readers see of a change, address by address, is
 * the route before or the one after it and nothing else: entries are single stores, and a new group
 * is complete before the store-release of the entry that leads to it. A group that is given up may
 * still be read: it is used again only after hb_lpm_readers_passed().
 */
#ifndef HB_LPM_H
#define HB_LPM_H
#include <stddef.h>

#include "nf/rib.h"

#define HB_LPM_GROUP 256u /* entries */
#define HB_LPM_LEVELS 15u /* most blocks on the way to an address */

/* What a change can end with. */
enum hb_lpm_end {
    HB_LPM_DONE,
    HB_LPM_WAIT,   /* groups are free once the readers have passed: wait for them, and repeat */
    HB_LPM_FULL,   /* no group is left */
    HB_LPM_MEMORY, /* the host has no memory */
};

/* Entries that have changed since somebody asked: first, and one behind the last. */
typedef struct {
    uint32_t from;
    uint32_t to;
} hb_lpm_dirt;

typedef struct {
    void *entry;        /* the array, u16 or u32 */
    uint32_t root_bits; /* 24 or 16 */
    uint32_t bits;      /* of an address: 32 or 128 */
    bool wide;          /* entries of 32 bits */
    bool read;          /* there are readers */
    uint32_t groups;    /* there is room for */
    uint32_t used;      /* groups in use */
    uint8_t *depth;     /* [entries] length of the route that the entry shows, or would without its
                         * group; 0 if there is none */
    uint32_t *uses;     /* [groups] routes that end in it, and groups that hang in it */
    uint32_t *idle;     /* [groups] stack of groups: `free` of them free, ... */
    uint32_t free;
    uint32_t *given; /* [groups] ... and `waiting` of them that readers may still see */
    uint32_t waiting;
    hb_rib rib;
    hb_lpm_dirt dirty[2]; /* root, groups */
} hb_lpm;

/* Bytes of the entries of an IPv4 (false) or IPv6 table with room for so many groups. */
uint64_t hb_lpm_bytes(bool v6, uint32_t groups);
/* `entry` must be zeroed. 0, or -1 without memory. */
int hb_lpm_init(hb_lpm *l, bool v6, void *entry, uint32_t groups);
void hb_lpm_free(hb_lpm *l);

/* Add a route or change its next hop; take one away, if there is one. Bits of the prefix behind
 * `length` must be 0; room in the rib must have been reserved. */
enum hb_lpm_end hb_lpm_put(hb_lpm *l, hb_address prefix, uint32_t length, uint16_t hop);
enum hb_lpm_end hb_lpm_remove(hb_lpm *l, hb_address prefix, uint32_t length);
/* Nobody can see any more what was before this moment. */
void hb_lpm_readers_passed(hb_lpm *l);

/* The next hop + 1 for an address, 0 if there is no route; for the control side. */
uint32_t hb_lpm_lookup(const hb_lpm *l, hb_address address);

#endif
