/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taps_api.h: what looks at packets while a data plane runs: captures of an edge, and traces of
 * some packets on their whole way. The control thread adds and removes them, before, while and
 * after it runs; lcores write what they see into rings, one for each lcore and tap, and never wait
 * for a reader: a record that does not fit is counted and left out.
 */
#ifndef HB_TAPS_API_H
#define HB_TAPS_API_H
#include <stddef.h>
#include <stdint.h>

#include "api.h"

#define HB_MOST_TAPS 8

/* ---- captures --------------------------------------------------------------------------------
 * The rings of a capture lie in a region that another process may map: this head, then for each
 * lcore, `stride` bytes apart from `rings_off` on, an hb_tap_ring with `ring_bytes` bytes behind
 * it. In a ring stand records as nanosecond pcap files have them, in this machine's byte order: 16
 * bytes (seconds, nanoseconds, bytes that are here, bytes that the packet has), then the packet. A
 * record may go round the ring's end. Only whole records lie between `tail` and `head`.
 */
#define HB_CAPTURE_MAGIC 0x48624361
#define HB_CAPTURE_VERSION 1
typedef struct {
    uint64_t magic; /* HB_CAPTURE_MAGIC */
    uint64_t version;
    uint64_t rings;
    uint64_t ring_bytes; /* a power of two */
    uint64_t rings_off;
    uint64_t stride;
} hb_capture_head;

typedef struct {
    uint64_t head;    /* bytes written so far; the lcore, like the next two */
    uint64_t records; /* written so far ... */
    uint64_t missed;  /* ... and those for which there was no room */
    uint64_t unused[13];
    uint64_t tail; /* bytes read so far; the reader */
    uint64_t unused2[15];
} hb_tap_ring;

#define HB_TAP_ANY 0xffff     /* any node */
#define HB_TAP_OUTSIDE 0xfffe /* what lies behind a port */
typedef struct {
    uint16_t from; /* node, HB_TAP_ANY or HB_TAP_OUTSIDE ... */
    uint16_t to;   /* ... and where the packets go from there */
    uint32_t snap; /* bytes of a packet at most; 0: all */
    uint32_t ring_bytes;
    void *region; /* hb_capture_bytes(), zero, 128-byte aligned; the caller keeps it */
} hb_capture;
size_t hb_capture_bytes(const hb_dataplane *dp, uint32_t ring_bytes);
/* Its number from 0, or -1: there are HB_MOST_TAPS, or no memory. */
int hb_add_capture(hb_dataplane *dp, const hb_capture *capture);

/* For the reader, which may be another process: takes whole records, `most` at most, the oldest of
 * all rings first, into a buffer. Returns how many bytes, *records says how many records.
 * UINT64_MAX: this is no such region. */
uint64_t hb_capture_take(void *region, uint64_t region_bytes, uint8_t *to, uint64_t room,
                         uint64_t most, uint64_t *records);
/* Sums over the rings. */
uint64_t hb_capture_missed(const void *region);
uint64_t hb_capture_records(const void *region);

/* ---- traces ----------------------------------------------------------------------------------
 */

#define HB_TRACE_SLOTS 31 /* packets that one trace follows at the same time */

typedef struct {
    const hb_rule *rules; /* packets that one of these matches ... */
    uint32_t nb_rules;    /* ... 0: any */
    uint32_t type;        /* packets of this type; HB_MAX_TYPES: of any */
    uint32_t count;       /* packets to follow in all, at least 1 */
} hb_trace;
/* As hb_add_capture(). */
int hb_add_trace(hb_dataplane *dp, const hb_trace *trace);

/* What may happen to a packet that is followed. `node` is where it happens. */
#define HB_TRACE_RECEIVED 1  /* it has a type; `flow` says who sent it to whom */
#define HB_TRACE_GOES 2      /* `to` is the node that it goes to */
#define HB_TRACE_PUBLISHED 3 /* `row`: a device gets it */
#define HB_TRACE_VERDICT 4   /* `nf`: what an NF has made of it */
#define HB_TRACE_SENT 5      /* the last of it */
#define HB_TRACE_DROPPED 6   /* likewise; `to` is the reason */

/* Verdicts, as HB_VERDICT_* of hummingbird.h. */
#define HB_TRACE_PASS 1
#define HB_TRACE_DROP 2
#define HB_TRACE_RETYPE 3

#define HB_TRACE_RANGES 6
typedef struct {
    uint64_t tick;    /* when */
    uint64_t rx_tick; /* when the packet came in */
    uint32_t packet;  /* which of the trace's, from 1 */
    uint32_t length;  /* bytes that it has now */
    uint8_t kind;     /* HB_TRACE_* */
    uint8_t lcore;
    uint16_t node;
    uint16_t to;
    uint16_t type; /* packet type that it has now */
    union {
        struct {
            uint8_t src[16]; /* IPv4 as ::ffff:a.b.c.d; all zero, both: it is not IP */
            uint8_t dst[16];
            uint16_t src_port; /* of a fragment or an ICMP echo: what tells the flow apart */
            uint16_t dst_port;
            uint8_t protocol;
            uint8_t fragment; /* 1: of a fragmented datagram */
        } flow;
        struct {
            uint32_t workgroup; /* of the device */
            uint32_t row;       /* of those that the workgroup has had, from 0 */
            uint32_t lane;      /* in the row */
        } row;
        struct {
            int32_t longer;   /* bytes that it has more than it came with */
            uint32_t changed; /* bytes that are others now, place by place from its first one */
            uint8_t verdict;  /* HB_TRACE_PASS or ...; its value is in `to` */
            uint8_t ranges;   /* first and last place of changed bytes that follow each other */
            uint16_t range[HB_TRACE_RANGES][2]; /* the last one goes on to the last change */
        } nf;
    };
} hb_trace_event;

typedef struct {
    uint64_t sampled; /* packets that it follows or has followed ... */
    uint64_t ended;   /* ... of which so many have ended */
    uint64_t skipped; /* packets that it should have followed, but HB_TRACE_SLOTS others were on
                         their way */
    uint64_t missed;  /* events for which there was no room */
} hb_trace_state;
/* Control thread. Takes events, those of each lcore in order; returns how many. */
uint32_t hb_trace_take(hb_dataplane *dp, int tap, hb_trace_event *events, uint32_t most);
void hb_trace_look(const hb_dataplane *dp, int tap, hb_trace_state *state);

/* Control thread: it sees nothing any more; its memory and its number may be used again. -1: an
 * lcore is stuck and may still write to its memory, which is never used again. */
int hb_remove_tap(hb_dataplane *dp, int tap);

#endif
