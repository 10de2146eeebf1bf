/* SPDX-License-Identifier: BSD-3-Clause */
/* lcore.c: one pinned thread that polls its nodes in turn, and rests only when nothing is in
 * flight. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "dataplane.h"

#define SPIN_PASSES 64      /* empty passes before the CPU is offered to others */
#define SLEEP_NS 50000      /* first sleep of an idle lcore; doubles ... */
#define SLEEP_MAX_NS 800000 /* ... up to this, so that a device's tick never stops for long */
#define MOST_WAKERS 32      /* interfaces' queues that end a sleep */

/* Packets from other lcores go to the inputs of their nodes. */
static uint32_t drain_rings(hb_lcore *lc)
{
    uint64_t e[HB_BURST];
    uint32_t total = 0;
    for (uint32_t l = 0; l < lc->dp->config.lcores; l++) {
        if (!lc->from[l])
            continue;
        uint32_t n = hb_ring_take(lc->from[l], e, HB_BURST);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t queue = (uint32_t)(e[i] >> 32), handle = (uint32_t)e[i];
            /* its line is in the other CPU's cache: on its way while the rest is sorted */
            __builtin_prefetch(hb_header(&lc->dp->arena, handle), 1);
            if (!hb_fifo_put(&lc->input[queue], &handle, 1))
                hb_drop(lc, HB_NODE_OF(queue), HB_REASON_node_full, handle);
        }
        total += n;
    }
    return total;
}

/* A drain that ran out of time: whatever waits here ends now. */
static uint32_t drop_all(hb_lcore *lc)
{
    uint32_t handles[HB_BURST], n, total = 0;
    if (lc->syncer)
        total += hb_drop_waiting(lc, HB_REASON_shutdown);
    for (uint32_t q = 0; q < HB_QUEUES; q++) {
        uint32_t node = HB_NODE_OF(q);
        if (!lc->input[q].slot)
            continue;
        if (lc->dp->node[node].kind == HB_NODE_PEER)
            total += hb_drop_peer(lc, node);
        while ((n = hb_fifo_take(&lc->input[q], handles, HB_BURST))) {
            for (uint32_t k = 0; k < n; k++)
                hb_drop(lc, node, HB_REASON_shutdown, handles[k]);
            total += n;
        }
    }
    return total;
}

static void flush(hb_lcore *lc)
{
    for (uint32_t l = 0; l < lc->dp->config.lcores; l++)
        if (lc->to[l])
            hb_ring_flush(lc->to[l]);
    if (lc->deads)
        hb_free_dead(lc);
}

static uint32_t pass(hb_lcore *lc)
{
    hb_account_shared(lc, HB_ACCOUNT_POLL);
    uint64_t now = hb_now();
    lc->pass_ticks = now - lc->pass_tick;
    lc->pass_tick = lc->sampled = now;
    lc->stats->busy_ticks += lc->worked ? lc->pass_ticks : 0;
    uint32_t work = drain_rings(lc);
    if (atomic_load_explicit(&lc->dp->draining, memory_order_relaxed) > 1)
        work += drop_all(lc);
    for (uint32_t i = 0; i < lc->duties; i++) {
        hb_account(lc, lc->duty[i].node);
        work += lc->duty[i].run(lc, lc->duty[i].node);
    }
    hb_account_shared(lc, HB_ACCOUNT_POLL);
    if (lc->syncer)
        work += hb_poll_syncer(lc);
    hb_account_shared(lc, HB_ACCOUNT_POLL);
    if (lc->dp->tracked)
        hb_poll_flows(lc, !work);
    flush(lc);
    lc->worked = work;
    lc->stats->passes++;
    /* release: policies this pass looked at are done with (hb_publish_policy) */
    atomic_store_explicit(&lc->passes, lc->stats->passes, memory_order_release);
    return work;
}

/* What may wake the lcore: packets at its interfaces. Returns how many. */
static nfds_t wakers(const hb_lcore *lc, struct pollfd *fd)
{
    nfds_t n = 0;
    for (uint32_t i = 0; i < lc->dp->nodes; i++) {
        const hb_node *node = &lc->dp->node[i];
        for (uint32_t q = 0; node->kind == HB_NODE_PORT && q < node->lcores; q++)
            if (node->lcore[q] == lc->id && n < MOST_WAKERS && node->port[q]->ready_fd &&
                !atomic_load_explicit(&node->port[q]->away, memory_order_acquire))
                fd[n++] = (struct pollfd){.fd = node->port[q]->ready_fd, .events = POLLIN};
    }
    return n;
}

static void sleep_at_most(const hb_lcore *lc, long ns)
{
    struct pollfd fd[MOST_WAKERS];
    struct timespec t = {0, ns};
    nfds_t n = wakers(lc, fd);
    int ready = ppoll(fd, n, &t, NULL);
    for (nfds_t i = 0; ready > 0 && i < n; i++)
        if (fd[i].revents & ~POLLIN) { /* an interface that is down would wake it all the time */
            nanosleep(&t, NULL);
            return;
        }
}

/* Nothing to do: spin, then yield; sleep only when no packet is in flight anywhere. */
static void rest(hb_lcore *lc, uint32_t idle)
{
    hb_account_shared(lc, HB_ACCOUNT_REST);
    lc->stats->idle_passes++;
    if (idle < SPIN_PASSES) {
        hb_pause();
        return;
    }
    if (hb_in_flight(lc->dp) > 0) {
        sched_yield(); /* lcores may share a CPU with each other or with the OpenCL device */
        return;
    }
    uint32_t doublings = (idle - SPIN_PASSES) / 8;
    long ns = doublings > 3 ? SLEEP_MAX_NS : SLEEP_NS << doublings;
    lc->stats->sleeps++;
    sleep_at_most(lc, ns);
}

static void settle(hb_lcore *lc)
{
    char name[16];
    snprintf(name, sizeof name, "hb-lcore%u", lc->id);
    pthread_setname_np(pthread_self(), name);
    prctl(PR_SET_TIMERSLACK, 1000L); /* ns; the default would round short sleeps up to 50 us */
    if (lc->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((unsigned)lc->cpu, &set);
        pthread_setaffinity_np(pthread_self(), sizeof set,
                               &set); /* best effort: still correct unpinned */
    }
}

static void leave_port(hb_lcore *lc, uint32_t node)
{
    const hb_node *n = &lc->dp->node[node];
    for (uint32_t q = 0; q < n->lcores; q++) {
        hb_port *port = n->port[q];
        if (n->lcore[q] != lc->id)
            continue;
        if (port->ops->flush)
            port->ops->flush(port);
        hb_count_port(lc, node, port);
    }
}

static void *lcore_main(void *arg)
{
    hb_lcore *lc = arg;
    uint32_t idle = 0;
    settle(lc);
    lc->account = lc->dp->max_nodes + HB_ACCOUNT_POLL;
    lc->account_at = lc->pass_tick = hb_now();
    while (!atomic_load_explicit(&lc->dp->stop, memory_order_relaxed)) {
        if (pass(lc))
            idle = 0;
        else
            rest(lc, ++idle);
    }
    hb_account_shared(lc, HB_ACCOUNT_POLL); /* books what it did last */
    for (uint32_t i = 0; i < lc->dp->nodes; i++) {
        hb_release(&lc->cache, lc->spare[i], lc->spares[i]);
        lc->spares[i] = 0;
        if (lc->dp->node[i].kind == HB_NODE_PORT)
            leave_port(lc, i);
    }
    /* release: all that it has done */
    atomic_store_explicit(&lc->left, true, memory_order_release);
    return NULL;
}

/* Busy lcores pass in a few microseconds, which is shorter than any sleep. */
#define WATCH_NS 100000
/* An lcore that makes no pass for this long is stuck: an NF on it does not return. */
#define STUCK_NS 5000000000u

bool hb_wait_passes(hb_dataplane *dp)
{
    struct timespec t = {0, 100000};
    uint64_t begin = hb_monotonic_ns(), now = begin;
    for (uint32_t l = 0; dp->running && l < dp->config.lcores; l++) {
        uint64_t seen = atomic_load_explicit(&dp->lcore[l].passes, memory_order_acquire), is = seen;
        if (dp->stuck_at[l] == seen + 1) /* still: nobody waits for it again */
            return false;
        for (; is < seen + 2;
             is = atomic_load_explicit(&dp->lcore[l].passes, memory_order_acquire)) {
            now = hb_monotonic_ns();
            if (dp->stuck || now - begin > STUCK_NS) {
                dp->stuck_at[l] = is + 1;
                return false;
            }
            if (now - begin < WATCH_NS)
                hb_pause();
            else
                nanosleep(&t, NULL);
        }
    }
    return true;
}

bool hb_join_lcores(hb_dataplane *dp)
{
    struct timespec t = {0, 100000};
    uint64_t begin = hb_monotonic_ns();
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        /* acquire: all that it has done */
        while (!atomic_load_explicit(&dp->lcore[l].left, memory_order_acquire)) {
            if (hb_monotonic_ns() - begin > STUCK_NS)
                return false;
            nanosleep(&t, NULL);
        }
    for (uint32_t l = 0; l < dp->config.lcores; l++)
        pthread_join(dp->lcore[l].thread, NULL);
    return true;
}

int hb_lcore_start(hb_lcore *lc)
{
    return pthread_create(&lc->thread, NULL, lcore_main, lc) ? -1 : 0;
}
