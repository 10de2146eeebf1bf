/* SPDX-License-Identifier: BSD-3-Clause */
/* nat_ports.h: the ports of a NAT: which are free, and a hash that nobody outside can guess. */
#ifndef HB_NAT_PORTS_H
#define HB_NAT_PORTS_H
#include <stdbool.h>
#include <stdint.h>

#define HB_NAT_NONE 0xffffffffu
#define HB_NAT_WORDS 1024u /* of 64 ports */

/* The ports of an external address and protocol, as bits; and which words of them have a free port,
 * even and odd ones apart: a search looks at no more than 18 words. */
typedef struct {
    uint64_t free[HB_NAT_WORDS];
    uint64_t any[2][HB_NAT_WORDS / 64];
    uint32_t left;
} hb_nat_ports;

void hb_nat_give_port(hb_nat_ports *p, uint32_t port);
void hb_nat_take_port(hb_nat_ports *p, uint32_t port);
bool hb_nat_port_is_free(const hb_nat_ports *p, uint32_t port);
/* The first free port of the wanted parities (bit 0: even, bit 1: odd) from `start` on, and round;
 * HB_NAT_NONE. */
uint32_t hb_nat_find_port(const hb_nat_ports *p, uint32_t parities, uint32_t start);

/* SipHash-2-4 (Aumasson and Bernstein, 2012) of two words: nobody outside can tell which port comes
 * next, or which ends share a chain. */
uint64_t hb_nat_hash(const uint64_t secret[2], uint64_t a, uint64_t b);

/* Counters have one writer and any reader. */
static inline void hb_nat_set(uint32_t *counter, uint32_t value)
{
    __atomic_store_n(counter, value, __ATOMIC_RELAXED);
}

static inline void hb_nat_add(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

#endif
