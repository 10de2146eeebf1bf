/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * xsk.h: an AF_XDP socket: the arena's frames as its UMEM, and the four rings that it shares with
 * the kernel. By the kernel's own interface (Documentation/networking/af_xdp.rst), with no library
 * in between.
 *
 *     fill         we -> kernel   frames to receive into, by address
 *     rx           kernel -> we   frames that were filled: address and length
 *     tx           we -> kernel   frames to send: address and length
 *     completion   kernel -> we   frames that were sent, by address
 *
 * An address is a byte in the arena: handle * frame_size + offset. Used by one thread.
 */
#ifndef HB_XSK_H
#define HB_XSK_H
#include <linux/if_xdp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One ring. Its indices run on for ever; entry i lies at i & mask. */
typedef struct {
    uint32_t *producer;    /* shared: written by whoever fills the ring ... */
    uint32_t *consumer;    /* ... and by whoever empties it */
    const uint32_t *flags; /* shared: XDP_RING_NEED_WAKEUP, written by the kernel */
    void *entry;           /* struct xdp_desc, or uint64_t addresses */
    uint32_t mask;         /* entries, a power of two, less one */
    uint32_t at;           /* our own index: of what we produce or consume next */
    void *map;             /* what close unmaps, and its bytes; NULL: not mapped */
    size_t map_bytes;
} hb_xsk_ring;

typedef struct {
    int fd; /* -1: closed */
    bool zero_copy;
    hb_xsk_ring fill, rx, tx, completion;
} hb_xsk;

typedef struct {
    void *frames; /* page-aligned */
    uint64_t bytes;
    uint32_t frame_size;
    uint32_t headroom; /* from behind the kernel's 256 bytes to the packet */
    uint32_t entries;  /* of each ring, a power of two */
    uint32_t ifindex;
    uint32_t queue;
    uint16_t bind_flags; /* XDP_COPY, XDP_ZEROCOPY, or 0: zero-copy if the driver can */
} hb_xsk_params;

/* What opening was about when it failed. */
enum hb_xdp_step {
    HB_XDP_INTERFACE, /* finding it */
    HB_XDP_PROGRAM,   /* loading it, and its map */
    HB_XDP_ATTACH,    /* the program, to the interface */
    HB_XDP_PROMISC,   /* having the interface take every packet */
    HB_XDP_SOCKET,    /* making one */
    HB_XDP_UMEM,      /* giving it the frames */
    HB_XDP_RINGS,     /* making and mapping them */
    HB_XDP_BIND,      /* the socket, to the queue */
    HB_XDP_ENTER,     /* the socket, into the program's map */
    HB_XDP_FRAMES     /* having enough for the kernel to fill; no errno */
};
typedef struct {
    enum hb_xdp_step step;
    int number; /* errno */
} hb_xdp_failure;

/* 0, or -1: *failure says why, and the socket is closed. */
int hb_xsk_open(hb_xsk *x, const hb_xsk_params *params, hb_xdp_failure *failure);
/* The kernel lets go of the frames. Also if it is closed, or was opened half-way. */
void hb_xsk_close(hb_xsk *x);

/* Packets that the kernel could not put into the rx ring since the socket was opened: no frame to
 * fill, too long for one, or the ring was full. */
uint64_t hb_xsk_missed(const hb_xsk *x);

/* ---- rings we consume from ------------------------------------------------------------------- */

/* Entries that are there, at most n. */
static inline uint32_t hb_xsk_ready(const hb_xsk_ring *r, uint32_t n)
{
    /* acquire: what the kernel wrote into the entries and frames */
    uint32_t there = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) - r->at;
    return there < n ? there : n;
}

/* n entries are read. */
static inline void hb_xsk_consumed(hb_xsk_ring *r, uint32_t n)
{
    r->at += n;
    /* release: our reading comes before the kernel's next writing */
    __atomic_store_n(r->consumer, r->at, __ATOMIC_RELEASE);
}

/* ---- rings we produce into ------------------------------------------------------------------- */

/* Entries that the kernel has not taken yet. */
static inline uint32_t hb_xsk_pending(const hb_xsk_ring *r)
{
    /* acquire: the kernel has read the entries before we write them again */
    return r->at - __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE);
}

static inline uint32_t hb_xsk_room(const hb_xsk_ring *r)
{
    return r->mask + 1 - hb_xsk_pending(r);
}

/* n more entries, from r->at on, are written. */
static inline void hb_xsk_produced(hb_xsk_ring *r, uint32_t n)
{
    r->at += n;
    /* release: entries and frames before the index */
    __atomic_store_n(r->producer, r->at, __ATOMIC_RELEASE);
}

/* The kernel wants to be told that there is something in the ring. */
static inline bool hb_xsk_wants_wakeup(const hb_xsk_ring *r)
{
    return __atomic_load_n(r->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP;
}

static inline struct xdp_desc *hb_xsk_desc(const hb_xsk_ring *r, uint32_t index)
{
    return (struct xdp_desc *)r->entry + (index & r->mask);
}

static inline uint64_t *hb_xsk_addr(const hb_xsk_ring *r, uint32_t index)
{
    return (uint64_t *)r->entry + (index & r->mask);
}

#endif
