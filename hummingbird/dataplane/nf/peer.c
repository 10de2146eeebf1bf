/* SPDX-License-Identifier: BSD-3-Clause */
/* peer.c: the peer's side of peer.h. */
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "nf/peer_api.h"
#include "peer.h"

#define SPIN_NS 20000 /* looks for packets so long before it sleeps: a wake-up takes as long */

#define SAME(field, of_mbuf)                                                                       \
    _Static_assert(offsetof(hb_peer_header, field) == offsetof(hb_mbuf, of_mbuf) &&                \
                       sizeof((hb_peer_header){0}.field) == sizeof((hb_mbuf){0}.of_mbuf),          \
                   "hb_peer_header is hb_mbuf: " #field)
SAME(type, type);
SAME(route, route);
SAME(in_port, in_port);
SAME(offset, data_off);
SAME(length, data_len);
SAME(frame, frame);
SAME(hash, hash);
SAME(flow, flow);
SAME(flow_gen, flow_gen);
SAME(owner, owner);
SAME(trace, trace);
SAME(zone, zone);
SAME(l3, l3);
SAME(l4, l4);
SAME(protocol, protocol);
SAME(direction, direction);
SAME(vlan, vlan);
SAME(serial, serial);
SAME(rx_tick, rx_tick);
SAME(time_ns, time_ns);
SAME(hop_tick, hop_tick);
_Static_assert(sizeof(hb_peer_header) == sizeof(hb_mbuf), "hb_peer_header is hb_mbuf");
_Static_assert(HB_PEER_BURST <= HB_BURST, "an lcore takes the answers to a burst together");

/* ---- life ------------------------------------------------------------------------------------ */

hb_peer *hb_peer_new(const uint16_t *types, uint32_t n)
{
    hb_peer *peer = aligned_alloc(alignof(hb_peer), sizeof *peer);
    if (!peer)
        return NULL;
    memset(peer, 0, sizeof *peer);
    for (uint32_t i = 0; i < n; i++)
        if (types[i] < HB_MAX_TYPES)
            peer->may_give[types[i]] = true;
    return peer;
}

void hb_peer_close(hb_peer *peer)
{
    atomic_store_explicit(&peer->closed, 1, memory_order_release);
    hb_peer_wake(peer);
}

void hb_peer_free(hb_peer *peer)
{
    for (uint32_t l = 0; l < HB_MAX_LCORES; l++) {
        hb_peer_ring *ring = atomic_load_explicit(&peer->ring[l], memory_order_acquire);
        if (ring)
            free(ring->entry);
        free(ring);
    }
    free(peer);
}

/* ---- sleep and wake-up ------------------------------------------------------------------------
 */

void hb_peer_wake(hb_peer *peer)
{
    /* acq_rel, both here and in doze(): of the two exchanges the later one sees the other, so
     * either we see that it is asleep, or it sees what we have published */
    if (atomic_exchange_explicit(&peer->asleep, 0, memory_order_acq_rel))
        syscall(SYS_futex, &peer->asleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* The next ring with packets, in turn, or NULL. */
static hb_peer_ring *look(hb_peer *peer)
{
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++) {
        uint32_t l = (peer->next + i) % HB_MAX_LCORES;
        /* acquire: the ring's fields before its pointer, the arena's with them */
        hb_peer_ring *ring = atomic_load_explicit(&peer->ring[l], memory_order_acquire);
        /* acquire: the entries, and what they name, before the index */
        if (ring && atomic_load_explicit(&ring->published, memory_order_acquire) != ring->taken) {
            peer->next = l + 1;
            return ring;
        }
    }
    return NULL;
}

static bool is_closed(const hb_peer *peer)
{
    return atomic_load_explicit(&peer->closed, memory_order_acquire) != 0;
}

static void doze(hb_peer *peer, uint64_t ns)
{
    struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    atomic_exchange_explicit(&peer->asleep, 1, memory_order_acq_rel); /* see hb_peer_wake() */
    if (!look(peer) && !is_closed(peer))
        syscall(SYS_futex, &peer->asleep, FUTEX_WAIT_PRIVATE, 1, &t, NULL, 0);
    atomic_store_explicit(&peer->asleep, 0, memory_order_relaxed);
}

static hb_peer_ring *wait_for_packets(hb_peer *peer, uint32_t timeout_ms)
{
    uint64_t now = hb_monotonic_ns(), until = now + timeout_ms * 1000000ull;
    uint64_t spin = now + SPIN_NS;
    for (;;) {
        hb_peer_ring *ring = look(peer);
        if (ring || is_closed(peer) || now >= until)
            return ring;
        if (now < spin)
            hb_pause();
        else
            doze(peer, until - now);
        now = hb_monotonic_ns();
    }
}

/* ---- bursts ---------------------------------------------------------------------------------- */

int hb_peer_take(hb_peer *peer, hb_peer_burst *burst, uint32_t timeout_ms)
{
    hb_peer_ring *ring = wait_for_packets(peer, timeout_ms);
    burst->n = 0;
    if (is_closed(peer))
        return -1;
    if (!ring)
        return 0;
    uint32_t n = atomic_load_explicit(&ring->published, memory_order_acquire) - ring->taken;
    burst->n = n < HB_PEER_BURST ? n : HB_PEER_BURST;
    for (uint32_t i = 0; i < burst->n; i++) {
        uint32_t handle = ring->entry[(ring->taken + i) & ring->mask].handle;
        const hb_mbuf *m = hb_header(peer->arena, handle);
        burst->slot[i] = handle & HB_HANDLE_INDEX;
        burst->frame[i] = m->frame;
        burst->offset[i] = m->data_off;
        burst->length[i] = m->data_len;
    }
    ring->taken += burst->n;
    peer->in_hand = ring;
    return (int)burst->n;
}

/* What the lcore cannot find out from the verdict itself. */
static bool may_say(const hb_peer *peer, uint32_t verdict)
{
    uint32_t value = verdict >> 8;
    if ((verdict & 255) == HB_VERDICT_RETYPE)
        return value < HB_MAX_TYPES && peer->may_give[value];
    return value <= UINT16_MAX && (verdict == HB_PASS || (verdict & 255) != HB_VERDICT_PASS);
}

int hb_peer_answer(hb_peer *peer, const uint32_t *verdict, uint32_t n)
{
    hb_peer_ring *ring = peer->in_hand;
    uint32_t done = ring->taken - n;
    int impossible = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool may = may_say(peer, verdict[i]);
        ring->entry[(done + i) & ring->mask].verdict = may ? verdict[i] : 0;
        impossible += !may;
    }
    /* release: verdicts, and what was written to the packets, before the index */
    atomic_store_explicit(&ring->done, ring->taken, memory_order_release);
    return impossible;
}

/* ---- what it sees -----------------------------------------------------------------------------
 */

const hb_peer_header *hb_peer_headers(const hb_peer *peer)
{
    return peer->arena ? (const hb_peer_header *)peer->arena->headers : NULL;
}

uint32_t hb_peer_slots(const hb_peer *peer)
{
    return peer->arena->mbufs;
}

uint8_t *hb_peer_frames(const hb_peer *peer)
{
    return peer->arena->frames;
}

uint32_t hb_peer_frame_size(const hb_peer *peer)
{
    return peer->arena->frame_size;
}
