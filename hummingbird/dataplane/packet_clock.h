/* SPDX-License-Identifier: BSD-3-Clause */
/* packet_clock.h: packet time of all ports, made one that never goes back. Captures of different
 * years may come in at two ports, and a capture may jump: a port whose time goes back, or leaps,
 * goes on from where the clock stands, and so does one whose first packet this is. */
#ifndef HB_PACKET_CLOCK_H
#define HB_PACKET_CLOCK_H
#include <stdint.h>

#include "api.h"

#define HB_CLOCK_START (1ull << 40) /* ns: what is a little older is not before its begin */
#define HB_CLOCK_LATE 1000000000ull /* a packet may be this much behind the clock */
#define HB_CLOCK_LEAP (3600 * 1000000000ull) /* no gap between two packets of a port is longer */

typedef struct {
    uint64_t now;                  /* ns; HB_CLOCK_START at first */
    uint64_t offset[HB_MAX_NODES]; /* of each input port's time from it; 0: no packet yet */
} hb_packet_clock;

/* A packet of this port has this time. */
static inline void hb_clock_see(hb_packet_clock *c, uint32_t port, uint64_t time_ns)
{
    if (!c->offset[port])
        c->offset[port] = c->now - time_ns;
    uint64_t t = time_ns + c->offset[port];
    if (t >= c->now && t - c->now <= HB_CLOCK_LEAP)
        c->now = t;
    else if (t > c->now || c->now - t > HB_CLOCK_LATE)
        c->offset[port] = c->now - time_ns;
}

#endif
