/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * peer.h: an NF that is no packet function but a thread with its own pace, such as a Python one.
 *
 * Each lcore that serves it hands it packets through a ring of its own and gets them back, with
 * verdicts, through the same ring: a packet stays in its entry from publish to reap. Always
 *     reaped <= done <= taken <= published <= reaped + entries
 * so there is room for every answer, packets come back in order, and the lcore finds its handles
 * where it has put them itself, whatever the peer does.
 *
 *   word / array   writer   published with
 *   entry.handle   lcore    published (release)
 *   entry.verdict  peer     done (release)
 *
 * node_peer.c is the lcore's side, nf/peer.c the peer's.
 */
#ifndef HB_PEER_H
#define HB_PEER_H
#include "mbuf.h"

typedef struct {
    uint32_t handle;
    uint32_t verdict; /* HB_PASS, HB_DROP(), HB_RETYPE(); 0: impossible */
} hb_peer_entry;

typedef struct {
    alignas(128) _Atomic uint32_t published;
    uint32_t reaped; /* lcore */
    alignas(128) _Atomic uint32_t done;
    uint32_t taken; /* peer */
    alignas(128) uint32_t mask;
    hb_peer_entry *entry;
} hb_peer_ring;

/* One peer. All but what is marked is written before its lcores start. */
struct hb_peer {
    const hb_arena *arena;
    bool may_give[HB_MAX_TYPES]; /* packet types that it may give to packets */
    alignas(
        128) _Atomic(hb_peer_ring *) ring[HB_MAX_LCORES]; /* NULL: the lcore does not serve it */
    hb_peer_ring *in_hand; /* peer: the burst it works on came from here */
    uint32_t next;         /* peer: lcore to look at next */
    alignas(
        128) _Atomic uint32_t asleep; /* 1: the peer waits for a wake-up; whoever wakes it sets 0 */
    alignas(128) _Atomic uint32_t closed; /* nobody reads answers any more; never 0 again */
};

/* Wakes the peer if it is asleep; after something was published. */
void hb_peer_wake(struct hb_peer *peer);

#endif
