/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mbuf.h: the arena (frames and headers apart) and the pool of mbufs.
 *
 * A handle is 32 bits: 4 for the arena, 28 for the index; this version has arena 0 only, so the
 * handle is the index of the header and, until frames are shared, of the frame too.
 */
#ifndef HB_MBUF_H
#define HB_MBUF_H
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api.h"
#include "hummingbird.h"

#define HB_HANDLE_INDEX 0x0fffffffu
#define HB_BURST 256    /* packets a node takes at most at a time */
#define HB_RX_BURST 128 /* packets a port takes in at a time: what they touch stays in L1 */
#define HB_MOST_CREDITS                                                                            \
    1024 /* packets an unpaced port has in flight at most: more only add latency */

/* Header of one packet: one 64-byte line, host only. Written by the lcore that holds the packet. */
typedef struct {
    alignas(64) union {
        struct {
            uint16_t type;   /* packet type */
            uint8_t route;   /* policy version slot and epoch that admitted it */
            uint8_t in_port; /* node that received or created it */
        };
        uint32_t path; /* all three: one load tells whether packets of a burst agree */
    };
    uint16_t data_off; /* bytes from the frame's start to the first packet byte */
    uint16_t data_len; /* bytes */
    uint32_t frame;    /* frame index in the arena */
    uint32_t hash;     /* symmetric over the 5-tuple */
    uint32_t flow;     /* index of its flow, or HB_NO_FLOW */
    uint32_t flow_gen; /* generation of that flow: an index is used again */
    union {
        struct {
            uint8_t owner; /* lcore whose flow table has it */
            uint8_t trace; /* number of a trace's slot, from 1; 0: nobody follows it (taps.h) */
        };
        uint16_t owner_untraced; /* both, for one store: the owner, and nobody follows it */
    };
    uint16_t zone; /* of its input port */
    union {
        struct {
            uint8_t l3;        /* bytes from the first packet byte, or HB_NO_LAYER */
            uint8_t l4;        /* likewise */
            uint8_t protocol;  /* IP protocol, 0 if none */
            uint8_t direction; /* 0: in the order of the normalised tuple, 1: reversed */
        };
        uint32_t layers; /* all four: written with one store */
    };
    uint16_t vlan[2];  /* tags, outer first; 0 if none (still in the packet, too) */
    uint32_t serial;   /* which packet of its input port it is, from 1: its place in a capture */
    uint64_t rx_tick;  /* when it entered */
    uint64_t time_ns;  /* packet time: the capture's when replaying */
    uint64_t hop_tick; /* when it entered its present node */
} hb_mbuf;
_Static_assert(sizeof(hb_mbuf) == 64, "an mbuf header is one cache line");
_Static_assert(HB_MAX_NODES <= UINT8_MAX, "a node number fits in_port");
_Static_assert(HB_MAX_LCORES <= UINT8_MAX, "an lcore number fits owner");

/* hb_mbuf.route: which policy version routes a packet, and whether it was admitted in an odd or an
 * even epoch. Epochs tell when all packets that may know a flow index are gone (flow_life.c). */
static inline uint8_t hb_admission(uint32_t slot, uint32_t epoch)
{
    return (uint8_t)(slot | (epoch & 1) * HB_MAX_POLICIES);
}

static inline uint32_t hb_policy_slot(const hb_mbuf *m)
{
    return m->route % HB_MAX_POLICIES;
}

/* Handles travel between the lcores' caches and the pool in magazines of this many. */
#define HB_MAGAZINE 64

/* One magazine. `next` links it in a stack of the pool; the holder writes the rest. */
typedef struct {
    uint32_t handle[HB_MAGAZINE];
    uint32_t count;
    _Atomic uint32_t next; /* index + 1 of the next magazine; 0 ends the stack */
} hb_magazine;

/* Lock-free stack of magazines: low half index + 1, high half a counter against ABA. */
typedef struct {
    alignas(128) _Atomic uint64_t top;
} hb_stack;

typedef struct {
    uint8_t *frames;
    hb_mbuf *headers;
    uint32_t frame_size;
    uint32_t mbufs;
    hb_magazine *magazines;
    uint32_t nb_magazines;
    hb_stack full;  /* magazines with handles */
    hb_stack empty; /* magazines without */
} hb_arena;

/* An lcore's cache: two magazines, so that one lcore swinging between alloc and free stays off the
 * shared stacks. Used by one thread. */
typedef struct {
    hb_arena *arena;
    hb_magazine *loaded;
    hb_magazine *spare;
} hb_cache;

/* 0, or -1 without memory. The arena does not own `frames`. */
int hb_arena_init(hb_arena *a, void *frames, uint32_t frame_size, uint32_t mbufs, uint32_t caches);
void hb_arena_free(hb_arena *a);
/* Handles in pool and magazines, including those the caches hold. Only while nothing runs. */
uint64_t hb_arena_count_free(const hb_arena *a);

void hb_cache_init(hb_cache *c, hb_arena *a);
/* Takes up to n handles; returns how many there were. */
uint32_t hb_alloc(hb_cache *c, uint32_t *handles, uint32_t n);
void hb_release(hb_cache *c, const uint32_t *handles, uint32_t n);

static inline hb_mbuf *hb_header(const hb_arena *a, uint32_t handle)
{
    return a->headers + (handle & HB_HANDLE_INDEX);
}

static inline uint8_t *hb_frame(const hb_arena *a, const hb_mbuf *m)
{
    return a->frames + (uint64_t)m->frame * a->frame_size;
}

static inline uint8_t *hb_data(const hb_arena *a, const hb_mbuf *m)
{
    return hb_frame(a, m) + m->data_off;
}

/* hb_work.flow of a packet. */
static inline uint32_t hb_work_flow(const hb_mbuf *m)
{
    return m->flow == HB_NO_FLOW ? HB_NO_FLOW : m->flow | (uint32_t)m->direction << 31;
}

/* Most packet bytes that fit when a port fills a frame. */
static inline uint32_t hb_frame_room(const hb_arena *a)
{
    return a->frame_size - HB_FRAME_RESERVED - HB_FRAME_HEADROOM;
}

#endif
