/* SPDX-License-Identifier: BSD-3-Clause */
/* peer_api.h: what the thread of a peer NF (peer.h) calls. One thread per peer, which is none of
 * the data plane's; hb_peer_new, hb_peer_kind, hb_peer_close and hb_peer_free are for the control
 * thread. */
#ifndef HB_PEER_API_H
#define HB_PEER_API_H
#include <stdint.h>

typedef struct hb_peer hb_peer;

#define HB_PEER_BURST 256

/* A burst in the peer's hands: each packet lies in row frame[i] of the frames, offset[i] bytes from
 * the row's start; its header is number slot[i]. */
typedef struct {
    uint32_t n;
    uint32_t slot[HB_PEER_BURST];
    uint32_t frame[HB_PEER_BURST];
    uint32_t offset[HB_PEER_BURST];
    uint32_t length[HB_PEER_BURST];
} hb_peer_burst;

/* A packet's header as a peer may read it: hb_mbuf of mbuf.h, field by field. */
typedef struct {
    uint16_t type;     /* packet type */
    uint8_t route;     /* policy version slot */
    uint8_t in_port;   /* node that received or created it */
    uint16_t offset;   /* bytes from the frame's start to the first packet byte */
    uint16_t length;   /* bytes */
    uint32_t frame;    /* row of the frames */
    uint32_t hash;     /* of its flow, the same for both directions */
    uint32_t flow;     /* number in a flow cache, 0xffffffff if none */
    uint32_t flow_gen; /* generation of that */
    uint8_t owner;     /* lcore whose flow cache that is */
    uint8_t trace;     /* number of a trace's slot, 0 if nobody follows the packet */
    uint16_t zone;
    uint8_t l3;        /* bytes from the first packet byte; 255: there is none */
    uint8_t l4;        /* likewise; 255 also for a later fragment */
    uint8_t protocol;  /* IP protocol, 0 if none */
    uint8_t direction; /* 0 or 1: of its flow's two */
    uint16_t vlan[2];  /* tags, outer first; 0 if none */
    uint32_t serial;   /* which packet of its input port it is, from 1 */
    uint64_t rx_tick;  /* when it came in */
    uint64_t time_ns;  /* packet time */
    uint64_t hop_tick; /* when it came to this NF */
} hb_peer_header;

/* The address that hb_nf.code takes. */
void *hb_peer_kind(void);
/* types: those that it may give to packets. NULL: out of memory. */
hb_peer *hb_peer_new(const uint16_t *types, uint32_t n);
/* Its thread gets no more packets and leaves hb_peer_take(). */
void hb_peer_close(hb_peer *peer);
/* After its thread and the data plane have ended. */
void hb_peer_free(hb_peer *peer);

/* Waits for packets, at most so long: how many there are, 0 if none came, -1 after
 * hb_peer_close(). */
int hb_peer_take(hb_peer *peer, hb_peer_burst *burst, uint32_t timeout_ms);
/* The answers to the burst taken last, burst.n of them: how many are impossible, such as a type
 * that the peer may not give. */
int hb_peer_answer(hb_peer *peer, const uint32_t *verdict, uint32_t n);
/* All headers, and how many there are; NULL before the first packet was taken. */
const hb_peer_header *hb_peer_headers(const hb_peer *peer);
uint32_t hb_peer_slots(const hb_peer *peer);
/* All frames, hb_peer_frame_size() bytes each. */
uint8_t *hb_peer_frames(const hb_peer *peer);
uint32_t hb_peer_frame_size(const hb_peer *peer);

#endif
