/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rib.h: all routes of one address family, by prefix: which there are, and which one covers
 * another. Host only, one thread. What packets are looked up in is made from it (lpm.h).
 *
 * A hash table with open addressing; a million IPv4 routes take 48 MiB.
 */
#ifndef HB_RIB_H
#define HB_RIB_H
#include <stdbool.h>
#include <stdint.h>

/* 128 bits, most significant first; an IPv4 address fills the upper 32. */
typedef struct {
    uint64_t hi;
    uint64_t lo;
} hb_address;

typedef struct {
    hb_address prefix; /* bits behind `length` are 0 */
    uint16_t hop;
    uint8_t length; /* bits */
    bool used;
} hb_rib_slot;

typedef struct {
    hb_rib_slot *slot;
    uint32_t mask; /* slots - 1; a power of two less one */
    uint32_t routes;
    uint32_t of_length[129]; /* routes of each length */
    uint64_t lengths[3];     /* bit n: of_length[n] is not 0 */
} hb_rib;

/* 0, or -1 without memory. */
int hb_rib_init(hb_rib *rib);
void hb_rib_free(hb_rib *rib);
/* Make room for this many more routes: 0, or -1 without memory. */
int hb_rib_reserve(hb_rib *rib, uint32_t routes);
/* The slot of a route, valid until the next change; NULL if there is none. */
const hb_rib_slot *hb_rib_find(const hb_rib *rib, hb_address prefix, uint32_t length);
/* Add a route for which room was reserved, or give it another next hop. True if it is new. */
bool hb_rib_put(hb_rib *rib, hb_address prefix, uint32_t length, uint16_t hop);
/* Take a route away, if there is one. */
void hb_rib_remove(hb_rib *rib, hb_address prefix, uint32_t length);
/* The longest route shorter than `below` bits that covers an address; NULL if there is none. */
const hb_rib_slot *hb_rib_cover(const hb_rib *rib, hb_address address, uint32_t below);

/* An address with all bits behind the first `length` cleared. */
static inline hb_address hb_prefix_of(hb_address a, uint32_t length)
{
    a.hi = length == 0 ? 0 : length < 64 ? a.hi & ~(UINT64_MAX >> length) : a.hi;
    a.lo = length <= 64 ? 0 : length < 128 ? a.lo & ~(UINT64_MAX >> (length - 64)) : a.lo;
    return a;
}

#endif
