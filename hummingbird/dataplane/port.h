/* SPDX-License-Identifier: BSD-3-Clause */
/* port.h: what a port driver is. A driver moves packets between mbufs and the outside, nothing
 * else: parsing, types, counting and routing are the port node's (node_port.c). */
#ifndef HB_PORT_H
#define HB_PORT_H
#include "clock.h"
#include "port/interface_api.h"
#include "mbuf.h"

/*
 * A port of a topology has one hb_port for each queue of its interface; files and generators have
 * one. One thread at a time uses it: its lcore while lcores run, except while `away` is set, else
 * the control thread.
 */
typedef struct hb_port hb_port;
struct hb_owned; /* neighbour.h */

typedef struct {
    /* Bring in up to n packets. `handles` are n empty mbufs, whose data_off is set to the default
     * headroom; afterwards they are n mbufs again, the first of them filled (bytes, data_off,
     * data_len, time_ns, serial), the others empty. A driver whose frames are filled behind its
     * back keeps a stock of its own and swaps: an empty mbuf for each filled one. A packet that
     * does not fit is consumed and counted in port->too_long. Returns how many were filled. Never
     * waits. A driver that keeps mbufs is called with n = 0, too, so that it gives back what has
     * gone out when there is no other empty one. NULL: nothing comes in here. */
    uint32_t (*rx)(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n);
    /* Send n mbufs; returns how many of them, from the first on, went out; the rest is dropped for
     * the reason port->unsent. If that is too_long, it is so only of the first of the rest, and
     * those behind it are tried again. NULL: nothing goes out here. */
    uint32_t (*tx)(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n);
    /* The lcore stops: bring out whatever tx() buffered, count in port->lost what cannot be, and
     * give all mbufs that the driver holds back to port->cache. May be NULL. */
    void (*flush)(hb_port *port);
    /* The interface was gone and is back: let go of the old one, with all mbufs, and open it anew.
     * 0, or -1 and a text in error; the port is then closed inside, and may be reopened later. NULL
     * if that cannot be. Control thread. */
    int (*reopen)(hb_port *port, char *error, size_t error_size);
    /* Free everything; mbufs that flush() has not given back go to port->cache. */
    void (*close)(hb_port *port);
    /* The mbufs that went out are the driver's, which gives them to port->cache once the interface
     * has done with them; false: the caller frees them. */
    bool keeps;
} hb_port_ops;

/* Common part of every port; a driver's own struct starts with it. */
struct hb_port {
    const hb_port_ops *ops;
    bool paced;     /* false: takes credits and waits instead of overrunning the chain */
    bool has_end;   /* rx() stops some day */
    bool live;      /* its packets have the time of day */
    uint8_t unsent; /* enum hb_reason of what tx() has just not taken */
    uint16_t zone;  /* of its packets */
    uint8_t mac[6]; /* of the interface, if the driver knows it; else 0 */
    struct hb_owned *_Atomic owned; /* what is answered for here, or NULL; written by the control
                                       thread */
    _Atomic bool done;              /* rx() will give nothing more; written by the lcore */
    _Atomic bool away;              /* the lcore keeps off; written by the control thread */
    uint32_t serial;                /* of the packet consumed last */
    hb_cache *cache;                /* of whoever may use the port now */
    int ready_fd; /* readable when packets wait: an idle lcore sleeps on it; 0: there is none */
    uint64_t too_long; /* packets consumed that fit no frame; and their bytes. These and the ... */
    uint64_t too_long_bytes;
    uint64_t lost; /* packets that tx() took but that did not come out; and by packet type ... */
    uint64_t *lost_by_type; /* ... [HB_MAX_TYPES], or NULL if the driver no longer knows */
    uint64_t missed;    /* packets that interface or kernel dropped before rx() could have them */
                        /* ... three after them: since the node has last counted and zeroed them */
    char note[128];     /* from open: how it is used, for the operator; or "" */
    char warning[256];  /* from open: what is wrong with the source though it can be used; or "" */
    char error[256];    /* the first failure while it ran; valid once `failed` is set */
    _Atomic int failed; /* errno of that failure; 0 for none; written by the lcore */
};

/* What a driver is given to open a port in. */
typedef struct {
    const hb_arena *arena;
    hb_cache *cache; /* of the control thread */
} hb_port_home;

/* Drivers. NULL and a text in error (error_size bytes) when it cannot be opened. */
hb_port *hb_pcap_input_open(const hb_pcap_input *in, char *error, size_t error_size);
hb_port *hb_pcap_output_open(const char *path, char *error, size_t error_size);
hb_port *hb_generator_open(const hb_generator *gen, char *error, size_t error_size);
hb_port *hb_sink_open(void);
/* All of params->queues ports, or none. 0, or -1 and a text in error, perhaps with a second line:
 * what mends it. */
int hb_af_packet_open(const hb_interface *params, hb_port **queues, char *error, size_t error_size);
int hb_tap_open(const hb_interface *params, hb_port **queues, char *error, size_t error_size);

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
