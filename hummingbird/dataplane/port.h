/* SPDX-License-Identifier: BSD-3-Clause */
/* port.h: what a port driver is. A driver moves packets between mbufs and the outside, nothing
 * else: parsing, types, counting and routing are the port node's (node_port.c). */
#ifndef HB_PORT_H
#define HB_PORT_H
#include "clock.h"
#include "mbuf.h"

typedef struct hb_port hb_port;

typedef struct {
    /* Fill up to n mbufs, whose data_off is set to the default headroom, from the outside: bytes,
     * data_len, time_ns and serial. A packet that does not fit is consumed and counted in
     * port->too_long. Returns how many were filled. Called by the port's lcore only; never waits.
     */
    uint32_t (*rx)(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n);
    /* Send n mbufs; returns how many went out, the rest is counted drop{port_error}. The caller
     * frees them all. */
    uint32_t (*tx)(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n);
    /* Flush whatever tx() buffered; called when the port's lcore stops. May be NULL. 0 or -1 (some
     * of what tx() said was sent was lost; said on the error line of the port). */
    int (*flush)(hb_port *port);
    void (*close)(hb_port *port);
} hb_port_ops;

/* Common part of every port; a driver's own struct starts with it. */
struct hb_port {
    const hb_port_ops *ops;
    bool paced;        /* false: takes credits and waits instead of overrunning the chain */
    bool has_end;      /* rx() stops some day */
    bool live;         /* its packets have the time of day */
    uint16_t zone;     /* of its packets */
    _Atomic bool done; /* rx() will give nothing more; written by the lcore */
    uint32_t serial;   /* of the packet consumed last */
    uint64_t too_long; /* packets consumed that fit no frame; and their bytes */
    uint64_t too_long_bytes;
    uint64_t lost;      /* packets that tx() took but flush() could not bring out */
    char warning[256];  /* from open: what is wrong with the source though it can be used; or "" */
    char error[256];    /* the first failure while it ran; valid once `failed` is set */
    _Atomic int failed; /* errno of that failure; 0 for none; written by the lcore */
};

/* Drivers. NULL and a text in error (error_size bytes) when it cannot be opened. */
hb_port *hb_pcap_input_open(const hb_pcap_input *in, char *error, size_t error_size);
hb_port *hb_pcap_output_open(const char *path, char *error, size_t error_size);
hb_port *hb_generator_open(const hb_generator *gen, char *error, size_t error_size);
hb_port *hb_sink_open(void);

/* How many packets a source paced to a rate owes; shared by the drivers. The lcore may be kept from
 * polling for a moment, and the rate still holds; after more than HB_PACER_LATE the time is gone,
 * because what would make up for it is a burst, not a rate. */
#define HB_PACER_LATE 0.01 /* seconds */
typedef struct {
    uint64_t start_ticks; /* 0: not started */
    double per_tick;      /* packets per tick */
    double late;          /* packets that may be owed at most */
    uint64_t sent;        /* or given up; the driver adds what it sent */
} hb_pacer;

static inline hb_pacer hb_pacer_at(double packets_per_second)
{
    double late = packets_per_second * HB_PACER_LATE;
    return (hb_pacer){.per_tick = packets_per_second / hb_tick_rate(), .late = late < 1 ? 1 : late};
}

/* The packets due by `now`, the first of them at the first call; at most `most`. */
static inline uint32_t hb_pacer_due(hb_pacer *p, uint64_t now, uint32_t most)
{
    if (!p->start_ticks)
        p->start_ticks = now;
    if (now < p->start_ticks)
        return 0;
    double owed = (double)(now - p->start_ticks) * p->per_tick + 1 - (double)p->sent;
    if (owed > p->late) {
        p->sent += (uint64_t)(owed - p->late);
        owed = p->late;
    }
    if (owed < 1)
        return 0;
    return owed < most ? (uint32_t)owed : most;
}

#endif
