/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * af_xdp.c: a network interface by AF_XDP. The arena's frames are the UMEM of every queue's
 * socket, so nothing is copied here: a frame that the kernel or the NIC has filled is taken as it
 * is, and one that is sent goes as it lies.
 *
 * The kernel has a stock of frames of each queue to fill. rx() swaps: for each filled one that it
 * takes, an empty one goes into the fill ring. Frames that are sent stay the kernel's until they
 * come back in the completion ring. What the kernel has is written down in two bitmaps, so that it
 * comes back exactly, whatever state the rings are in, and no frame is taken for given back that
 * was not.
 */
#include "af_xdp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "af_xdp_api.h"
#include "dataplane.h"
#include "guard.h"

#define MOST_ENTRIES 2048u /* of a ring; and a queue has so many frames to fill */
#define LEAST_ENTRIES 64u
#define LOOK_S 0.01           /* between two looks at the kernel's counters, or at what is down */
#define FLUSH_NS 100000000ull /* flush() waits so long for what is on its way out */
#define BATCH 64              /* frames that go to or come from the pool together */
#define AHEAD 4               /* headers and packets are fetched so many packets ahead */
#define NO_FRAME UINT32_MAX

/* The program of an interface, which its queues share; goes with the last of them. */
typedef struct {
    hb_xdp xdp;
    hb_af_xdp params;
    char name[16]; /* of the interface */
    uint32_t users;
} af_xdp_interface;

/* One queue. */
typedef struct {
    hb_port port;
    hb_xsk xsk;
    const hb_arena *arena;
    uint32_t frame_shift;        /* log2 of the frame size */
    uint32_t entries;            /* of each ring, and frames to fill that the kernel should have */
    uint32_t stock;              /* frames to fill that it has */
    uint32_t sending;            /* frames to send that it has */
    bool down;                   /* the last send failed because the interface is down or gone */
    uint64_t look_at;            /* tick of the next look */
    uint64_t look_ticks;         /* LOOK_S */
    uint64_t missed;             /* that the kernel had counted at the last look */
    uint64_t bogus;              /* addresses that it gave back but did not have */
    uint64_t *filling;           /* bit of each frame that it has to fill ... */
    uint64_t *sent;              /* ... and to send */
    af_xdp_interface *interface; /* NULL in tests */
    uint32_t number;             /* of the queue */
    uint64_t lost_by_type[HB_MAX_TYPES];
} af_xdp;

/* ---- what the kernel has --------------------------------------------------------------------- */

static inline void mark(uint64_t *bits, uint32_t handle)
{
    bits[handle / 64] |= 1ull << handle % 64;
}

/* True if it was marked; it no longer is. */
static inline bool unmark(uint64_t *bits, uint32_t handle)
{
    uint64_t bit = 1ull << handle % 64;
    bool was = bits[handle / 64] & bit;
    bits[handle / 64] &= ~bit;
    return was;
}

static void complain(af_xdp *q, int number, const char *what)
{
    const char *name = q->interface ? q->interface->name : "";
    if (atomic_load_explicit(&q->port.failed, memory_order_relaxed))
        return;
    snprintf(q->port.error, sizeof q->port.error, "interface %s, queue %u: %s", name, q->number,
             what);
    /* release: who sees the number sees the text */
    atomic_store_explicit(&q->port.failed, number, memory_order_release);
}

static void refuse(af_xdp *q)
{
    q->bogus++;
    complain(q, EPROTO, "the kernel gave back a frame that it did not have");
}

/* The frame of an address that came from the kernel, if the kernel had it; else NO_FRAME. */
static inline uint32_t take_back(af_xdp *q, uint64_t *bits, uint64_t address)
{
    uint64_t handle = address >> q->frame_shift;
    if (__builtin_expect(handle < q->arena->mbufs && unmark(bits, (uint32_t)handle), 1))
        return (uint32_t)handle;
    refuse(q);
    return NO_FRAME;
}

static void give_back_marked(af_xdp *q, uint64_t *bits)
{
    for (uint32_t word = 0; word * 64 < q->arena->mbufs; word++)
        while (bits[word]) {
            uint32_t handle = word * 64 + (uint32_t)__builtin_ctzll(bits[word]);
            unmark(bits, handle);
            hb_release(q->port.cache, &handle, 1);
        }
}

/* ---- receiving ------------------------------------------------------------------------------- */

static inline void put_to_fill(af_xdp *q, uint32_t at, uint32_t handle)
{
    *hb_xsk_addr(&q->xsk.fill, at) = (uint64_t)handle << q->frame_shift;
    mark(q->filling, handle);
}

/* Frames to fill, as many as are missing; fewer if the pool has no more. The fill ring has room for
 * all that the kernel ever has. */
static void stock_up(af_xdp *q)
{
    uint32_t handles[BATCH];
    while (q->stock < q->entries) {
        uint32_t missing = q->entries - q->stock, want = missing < BATCH ? missing : BATCH;
        uint32_t n = hb_alloc(q->port.cache, handles, want);
        for (uint32_t i = 0; i < n; i++) {
            hb_unguard(q->arena, handles[i]);
            put_to_fill(q, q->xsk.fill.at + i, handles[i]);
        }
        hb_xsk_produced(&q->xsk.fill, n);
        q->stock += n;
        if (n < want)
            return;
    }
}

/* Where a packet will be looked at: its header, which is written, and its first bytes. */
static inline void prefetch(const af_xdp *q, uint64_t address)
{
    uint32_t handle = (uint32_t)(address >> q->frame_shift) & HB_HANDLE_INDEX;
    __builtin_prefetch(hb_header(q->arena, handle), 1);
    __builtin_prefetch(q->arena->frames + ((uint64_t)handle << q->frame_shift) + HB_FRAME_RESERVED +
                       HB_FRAME_HEADROOM);
}

/* Does the packet lie in its frame, behind what is the driver's? */
static inline bool fits(const hb_arena *a, uint32_t offset, uint32_t length)
{
    return offset >= HB_FRAME_RESERVED && length <= a->frame_size - offset;
}

/* Filled frames for empty ones; returns how many. */
static uint32_t swap(af_xdp *q, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    hb_xsk_ring *rx = &q->xsk.rx, *fill = &q->xsk.fill;
    uint32_t there = hb_xsk_ready(rx, n), got = 0, filled = 0;
    if (!there)
        return 0;
    uint64_t now = hb_clock_time_ns();
    for (uint32_t i = 0; i < AHEAD && i < there; i++)
        prefetch(q, hb_xsk_desc(rx, rx->at + i)->addr);
    for (uint32_t i = 0; i < there; i++) {
        const struct xdp_desc d = *hb_xsk_desc(rx, rx->at + i);
        if (i + AHEAD < there)
            prefetch(q, hb_xsk_desc(rx, rx->at + i + AHEAD)->addr);
        uint32_t handle = take_back(q, q->filling, d.addr);
        uint32_t offset = (uint32_t)d.addr & (a->frame_size - 1);
        if (__builtin_expect(handle == NO_FRAME, 0))
            continue;
        if (__builtin_expect(!fits(a, offset, d.len), 0)) {
            refuse(q);
            put_to_fill(q, fill->at + filled++, handle);
            continue;
        }
        put_to_fill(q, fill->at + filled++, handles[got]);
        handles[got++] = handle;
        hb_mbuf *m = hb_header(a, handle);
        m->data_off = (uint16_t)offset;
        m->data_len = (uint16_t)d.len;
        m->time_ns = now;
        m->serial = ++q->port.serial;
    }
    hb_xsk_consumed(rx, there);
    hb_xsk_produced(fill, filled);
    q->port.missed += there - got;
    return got;
}

/* ---- sending --------------------------------------------------------------------------------- */

/* Frames that were sent go back to the pool. */
static void reap(af_xdp *q)
{
    hb_xsk_ring *done = &q->xsk.completion;
    uint32_t handles[BATCH], n;
    while ((n = hb_xsk_ready(done, BATCH))) {
        uint32_t ours = 0;
        for (uint32_t i = 0; i < n; i++) {
            handles[ours] = take_back(q, q->sent, *hb_xsk_addr(done, done->at + i));
            ours += handles[ours] != NO_FRAME;
        }
        hb_xsk_consumed(done, n);
        hb_release(q->port.cache, handles, ours);
        q->sending -= ours;
    }
}

/* The packet at this place of the tx ring will not come out; its mbuf has not been used again. */
static void lose(af_xdp *q, uint32_t at)
{
    uint64_t address = hb_xsk_desc(&q->xsk.tx, at)->addr;
    q->port.lost++;
    q->lost_by_type[hb_header(q->arena, (uint32_t)(address >> q->frame_shift))->type]++;
}

static bool is_down(int number)
{
    return number == ENETDOWN || number == ENXIO || number == ENODEV;
}

/* The kernel is told to send; true if it has taken some of the tx ring. */
static bool send_some(af_xdp *q)
{
    uint32_t before = hb_xsk_pending(&q->xsk.tx);
    bool failed = sendto(q->xsk.fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0;
    int number = failed ? errno : 0;
    uint32_t left = hb_xsk_pending(&q->xsk.tx);
    bool some = left != before;
    q->down = is_down(number);
    if (number == EBUSY && some && !q->xsk.zero_copy)
        lose(q, q->xsk.tx.at - left - 1); /* dropped by the kernel, as there is no link */
    else if (failed && !q->down && number != EAGAIN && number != EBUSY && number != EINTR &&
             number != ENOBUFS)
        complain(q, number, strerror(number));
    return some;
}

/* Where the kernel copies, a call sends some 32 packets; with zero-copy, one call wakes the driver
 * if it sleeps. */
static void send_pending(af_xdp *q)
{
    hb_xsk_ring *tx = &q->xsk.tx;
    while (hb_xsk_pending(tx) && hb_xsk_wants_wakeup(tx))
        if (!send_some(q) || q->down)
            break; /* what is left goes at the next poll */
}

/* ---- the ops --------------------------------------------------------------------------------- */

/* What need not be done often, because it is a system call. */
static void look(af_xdp *q)
{
    uint64_t now = hb_now();
    if (now < q->look_at)
        return;
    q->look_at = now + q->look_ticks;
    uint64_t missed = hb_xsk_missed(&q->xsk);
    if (missed > q->missed) {
        q->port.missed += missed - q->missed;
        q->missed = missed;
    }
    if (q->down || q->sending)
        send_some(q); /* tells whether it still is; and a driver that sleeps looks what has gone */
}

static uint32_t af_xdp_rx(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    af_xdp *q = (af_xdp *)port;
    if (q->xsk.fd < 0)
        return 0;
    reap(q);
    if (!q->down)
        send_pending(q);
    if (q->stock < q->entries)
        stock_up(q);
    uint32_t got = swap(q, a, handles, n);
    if (hb_xsk_wants_wakeup(&q->xsk.fill))
        recvfrom(q->xsk.fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
    look(q);
    return got;
}

static uint32_t af_xdp_tx(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    af_xdp *q = (af_xdp *)port;
    hb_xsk_ring *tx = &q->xsk.tx;
    port->unsent = HB_REASON_port_down;
    if (q->xsk.fd < 0 || q->down)
        return 0;
    reap(q);
    uint32_t room = hb_xsk_room(tx), take = n < room ? n : room;
    for (uint32_t i = 0; i < take; i++) {
        const hb_mbuf *m = hb_header(a, handles[i]);
        *hb_xsk_desc(tx, tx->at + i) = (struct xdp_desc){
            .addr = ((uint64_t)handles[i] << q->frame_shift) + m->data_off, .len = m->data_len};
        mark(q->sent, handles[i]);
    }
    hb_xsk_produced(tx, take);
    q->sending += take;
    send_pending(q);
    if (!q->down)
        port->unsent = HB_REASON_port_full;
    return take;
}

/* The socket is closed, and everything that the kernel had is the pool's again. */
static void let_go(af_xdp *q)
{
    if (q->xsk.fd < 0)
        return;
    q->look_at = 0;
    q->down = false;
    reap(q);
    look(q);
    q->port.missed += hb_xsk_ready(&q->xsk.rx, UINT32_MAX); /* filled, but nobody took them */
    for (uint32_t left = hb_xsk_pending(&q->xsk.tx); left; left--)
        lose(q, q->xsk.tx.at - left); /* put there, but never sent */
    q->port.ready_fd = 0;
    hb_xsk_close(&q->xsk);
    give_back_marked(q, q->filling);
    give_back_marked(q, q->sent);
    q->stock = q->sending = 0;
    q->missed = 0;
}

static void af_xdp_flush(hb_port *port)
{
    af_xdp *q = (af_xdp *)port;
    uint64_t until = hb_monotonic_ns() + FLUSH_NS;
    struct timespec t = {0, 100000};
    while (q->xsk.fd >= 0 && q->sending && !q->down && hb_monotonic_ns() < until) {
        send_some(q);
        reap(q);
        if (q->sending)
            nanosleep(&t, NULL);
    }
    let_go(q);
}

static void af_xdp_close(hb_port *port)
{
    af_xdp *q = (af_xdp *)port;
    let_go(q);
    if (q->interface && !--q->interface->users) {
        hb_xdp_close(&q->interface->xdp);
        free(q->interface);
    }
    free(q->filling);
    free(q->sent);
    free(q);
}

/* ---- opening --------------------------------------------------------------------------------- */

static hb_xsk_params socket_params(const af_xdp *q)
{
    const hb_arena *a = q->arena;
    int mode = q->interface->params.mode;
    uint16_t flags = mode == HB_AF_XDP_ZERO_COPY ? XDP_ZEROCOPY : XDP_COPY;
    if (mode == HB_AF_XDP_AUTO && q->interface->xdp.native)
        flags = 0; /* zero-copy if the driver can */
    return (hb_xsk_params){.frames = a->frames,
                           .bytes = (uint64_t)a->mbufs * a->frame_size,
                           .frame_size = a->frame_size,
                           .headroom = HB_FRAME_HEADROOM,
                           .entries = q->entries,
                           .ifindex = q->interface->xdp.ifindex,
                           .queue = q->number,
                           .bind_flags = flags};
}

/* Bind the queue, give it frames, and have it get packets. */
static int open_queue(af_xdp *q, hb_xdp_failure *failure)
{
    hb_xsk_params params = socket_params(q);
    if (hb_xsk_open(&q->xsk, &params, failure))
        return -1;
    stock_up(q);
    if (!q->stock)
        *failure = (hb_xdp_failure){HB_XDP_FRAMES, 0};
    else if (!hb_xdp_enter(&q->interface->xdp, q->number, q->xsk.fd, failure)) {
        q->port.ready_fd = q->xsk.fd;
        return 0;
    }
    let_go(q);
    return -1;
}

static int open_interface(af_xdp_interface *i, hb_xdp_failure *failure)
{
    static const enum hb_xdp_attach attach[] = {
        [HB_AF_XDP_AUTO] = HB_XDP_EITHER,
        [HB_AF_XDP_ZERO_COPY] = HB_XDP_NATIVE,
        [HB_AF_XDP_NATIVE] = HB_XDP_NATIVE,
        [HB_AF_XDP_GENERIC] = HB_XDP_GENERIC,
    };
    return hb_xdp_open(&i->xdp, i->name, i->params.queues, attach[i->params.mode], failure);
}

static void explain(const af_xdp_interface *i, uint32_t queue, const hb_arena *a,
                    const hb_xdp_failure *failure, char *error, size_t error_size)
{
    hb_xdp_attempt attempt = {.interface = i->name,
                              .queue = queue,
                              .queues = i->params.queues,
                              .mode = i->params.mode,
                              .bytes = (uint64_t)a->mbufs * a->frame_size,
                              .mbufs = a->mbufs};
    hb_xdp_explain(failure, &attempt, error, error_size);
}

/* How the interface is used now; the first queue says it for all. */
static void say_mode(af_xdp *first)
{
    const af_xdp_interface *i = first->interface;
    const hb_xdp *x = &i->xdp;
    char why[64] = "";
    if (x->refused)
        snprintf(why, sizeof why, " (its driver refused native: %s)", strerror(x->refused));
    snprintf(first->port.note, sizeof first->port.note, "af_xdp on %s, %s%s, %s, %u queue%s",
             i->name, x->native ? "native" : "generic", why,
             first->xsk.zero_copy ? "zero-copy" : "copy mode", i->params.queues,
             i->params.queues > 1 ? "s" : "");
}

/* The first queue opens the program anew, too: it is called first. */
static int af_xdp_reopen(hb_port *port, char *error, size_t error_size)
{
    af_xdp *q = (af_xdp *)port;
    af_xdp_interface *i = q->interface;
    hb_xdp_failure failure;
    int failed = 0;
    let_go(q);
    if (q->number == 0) {
        hb_xdp_close(&i->xdp);
        failed = open_interface(i, &failure);
    }
    if (!failed && !open_queue(q, &failure)) {
        if (q->number == 0)
            say_mode(q);
        return 0;
    }
    explain(i, q->number, q->arena, &failure, error, error_size);
    return -1;
}

hb_port *hb_af_xdp_over(const hb_xsk *xsk, const hb_port_home *home, uint32_t entries)
{
    static const hb_port_ops ops = {.rx = af_xdp_rx,
                                    .tx = af_xdp_tx,
                                    .flush = af_xdp_flush,
                                    .reopen = af_xdp_reopen,
                                    .close = af_xdp_close,
                                    .keeps = true};
    size_t words = (home->arena->mbufs + 63) / 64;
    af_xdp *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->port.ops = &ops;
    q->port.paced = q->port.live = true;
    q->port.cache = home->cache;
    q->port.lost_by_type = q->lost_by_type;
    q->arena = home->arena;
    q->xsk = *xsk;
    q->frame_shift = (uint32_t)__builtin_ctz(home->arena->frame_size);
    q->entries = entries;
    q->look_ticks = (uint64_t)(LOOK_S * hb_tick_rate());
    q->filling = calloc(words, sizeof *q->filling);
    q->sent = calloc(words, sizeof *q->sent);
    if (q->filling && q->sent)
        return &q->port;
    q->xsk.fd = -1; /* the caller's */
    af_xdp_close(&q->port);
    return NULL;
}

/* Rings of a queue: together they may have a quarter of the pool to fill. */
static uint32_t ring_entries(const hb_arena *a, uint32_t queues)
{
    uint32_t entries = MOST_ENTRIES;
    while (entries > a->mbufs / (4 * queues))
        entries /= 2;
    return entries;
}

static hb_port *new_queue(af_xdp_interface *i, uint32_t number, const hb_port_home *home,
                          hb_xdp_failure *failure)
{
    const hb_xsk closed = {.fd = -1};
    uint32_t entries = ring_entries(home->arena, i->params.queues);
    af_xdp *q = (af_xdp *)hb_af_xdp_over(&closed, home, entries);
    *failure = (hb_xdp_failure){HB_XDP_FRAMES, ENOMEM};
    if (!q)
        return NULL;
    q->interface = i;
    q->number = number;
    i->users++;
    /* nothing runs yet, so the pool can be counted */
    if (entries >= LEAST_ENTRIES && !open_queue(q, failure)) {
        if (hb_arena_count_free(home->arena) >= home->arena->mbufs / 4)
            return &q->port;
        *failure = (hb_xdp_failure){HB_XDP_FRAMES, 0};
    }
    i->users--;
    q->interface = NULL;
    af_xdp_close(&q->port);
    return NULL;
}

int hb_add_af_xdp(hb_dataplane *dp, const uint32_t *lcores, const hb_af_xdp *params)
{
    const hb_port_home home = {&dp->arena, &dp->cache};
    hb_port *queue[HB_MAX_LCORES];
    hb_xdp_failure failure;
    uint32_t n = 0;
    af_xdp_interface *i = calloc(1, sizeof *i);
    if (!i)
        return hb_fail(dp, "out of memory");
    i->params = *params;
    snprintf(i->name, sizeof i->name, "%s", params->interface);
    if (!open_interface(i, &failure))
        while (n < params->queues && (queue[n] = new_queue(i, n, &home, &failure)))
            n++;
    if (n == params->queues) {
        say_mode((af_xdp *)queue[0]);
        return hb_add_queues(dp, lcores, queue, n);
    }
    explain(i, n, &dp->arena, &failure, dp->error, sizeof dp->error);
    for (uint32_t k = 0; k < n; k++) /* the last of them closes the interface */
        queue[k]->ops->close(queue[k]);
    if (!n) {
        hb_xdp_close(&i->xdp);
        free(i);
    }
    return -1;
}
