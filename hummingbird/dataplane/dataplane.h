/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dataplane.h: the data plane's own view of itself: nodes, lcores, policies, and the one way a
 * packet moves on or ends.
 *
 * Everything here is laid out before hb_start() and constant while lcores run, except what is
 * marked with its writer.
 */
#ifndef HB_DATAPLANE_H
#define HB_DATAPLANE_H
#include <pthread.h>

#include "clock.h"
#include "flow.h"
#include "mbuf.h"
#include "nf.h"
#include "parse.h"
#include "port.h"
#include "ring.h"
#include "taps_api.h"
#include "watched.h"

typedef struct hb_device_ctl hb_device_ctl;
typedef struct hb_syncer hb_syncer;
typedef struct hb_tap hb_tap;

enum hb_node_kind { HB_NODE_PORT, HB_NODE_CNF, HB_NODE_GNF, HB_NODE_PEER };

/* A place a packet can be in: a port or an NF. */
typedef struct {
    enum hb_node_kind kind;
    uint32_t lcores; /* that serve it; a flow always meets the same one. Ports: for each queue one,
                        the same one perhaps for several */
    uint32_t lcore[HB_MAX_LCORES];
    hb_port *port[HB_MAX_LCORES]; /* ports: the queues */
    hb_nf nf;                     /* NFs */
    uint32_t workgroups;          /* GNF: of each of its syncers */
} hb_node;

/* Packets come in at it; ... */
static inline bool hb_is_input(const hb_node *node)
{
    return node->kind == HB_NODE_PORT && node->port[0]->ops->rx;
}

/* ... packets go out at it; both may be true. */
static inline bool hb_is_output(const hb_node *node)
{
    return node->kind == HB_NODE_PORT && node->port[0]->ops->tx;
}

/* Queues of packets before a node, on an lcore (hb_lcore.input) or in a ring: one by its number,
 * and for input ports one more, of what other lcores have received there but is of our flows. */
#define HB_QUEUES (2 * HB_MAX_NODES)
#define HB_HANDED_OVER(node) ((node) + HB_MAX_NODES)
#define HB_NODE_OF(queue) ((queue) % HB_MAX_NODES)

/* One policy version; immutable once current. */
typedef struct {
    uint32_t version; /* 0: slot free */
    uint16_t *next;   /* [node * types + type]: node or HB_NEXT_* */
} hb_policy;

/* One thing that an lcore does in turn: returns how many packets it handled. */
typedef struct {
    uint32_t (*run)(hb_lcore *lc, uint32_t node);
    uint32_t node;
} hb_duty;

/* One data-plane thread and what only it touches. */
struct hb_lcore {
    hb_dataplane *dp;
    uint32_t id;
    int cpu;
    pthread_t thread;
    hb_cache cache;
    hb_flows flows;    /* of the flows it owns; used by lcores with an input port */
    hb_syncer *syncer; /* NULL if it serves no GNF */

    hb_lcore_stats *stats; /* in the stats region, like the next eight */
    hb_node_stats *node_stats;
    uint64_t *drops;
    uint64_t *hops;
    uint64_t *ended;
    uint64_t *edges;
    uint64_t *latency;
    uint64_t *chain_latency;
    uint64_t *profile;

    bool sampling;       /* copy of config.samples */
    bool profiling;      /* copy of config.profile */
    uint32_t account;    /* index in profile[] of what it is doing ... */
    uint64_t account_at; /* ... since this tick */

    uint32_t stateful;                          /* NFs here that have state of flows ... */
    uint32_t stateful_node[HB_MAX_NODES];       /* ... and their numbers */
    _Atomic uint32_t ends_heard[HB_MAX_LCORES]; /* by owner: flows of whose end they were told;
                                                   written by this lcore, read by the owner */

    uint32_t duties; /* what this lcore does in each pass */
    hb_duty duty[HB_QUEUES];
    hb_fifo input[HB_QUEUES]; /* set for what it serves */
    hb_nf_seat seat[HB_MAX_NODES];
    hb_ring *from[HB_MAX_LCORES]; /* by lcore; NULL for itself */
    hb_ring *to[HB_MAX_LCORES];

    /* Packets of each input port that ended here: what gives an unpaced port its credits back.
     * Written by this lcore, read by the ports'. */
    _Atomic uint64_t ended_from[HB_MAX_NODES];
    uint32_t spare[HB_MAX_NODES][HB_BURST]; /* empty mbufs an input port holds for its next burst */
    uint32_t spares[HB_MAX_NODES];
    uint64_t admitted[HB_MAX_NODES]; /* by its own input ports */
    uint32_t dead[HB_BURST];         /* ended packets, given back to the pool together */
    uint32_t deads;
    uint32_t made[HB_BURST]; /* packets that the NF now in finish() has made */
    uint32_t mades;
    uint32_t nested;         /* CNFs that run within each other now */
    uint64_t pass_tick;      /* when this pass began ... */
    uint64_t pass_ticks;     /* ... and how long that was after the one before ... */
    uint64_t sampled;        /* when it last looked at the clock: what it does next began then,
                                for looking is most of what busy times and latencies cost */
    bool worked;             /* ... which found something to do */
    _Atomic bool left;       /* its thread has nothing more to do */
    _Atomic uint64_t passes; /* grows with every pass: tells the control thread that old policy
                                pointers are forgotten */
};

struct hb_dataplane {
    hb_config config;
    char error[512];
    hb_arena arena;
    hb_cache cache; /* of the control thread: for ports that no lcore uses */
    hb_node node[HB_MAX_NODES];
    uint32_t nodes;     /* added so far */
    uint32_t max_nodes; /* that the stats region has room for */
    hb_rule *rules;
    uint32_t nb_rules;
    hb_policy policy[HB_MAX_POLICIES];
    _Atomic uint32_t current;      /* slot of the policy that admits packets; written by control */
    uint32_t versions;             /* published so far */
    uint32_t owner[HB_MAX_LCORES]; /* lcores with input ports: the flow owners */
    uint32_t owners;
    bool tracked;                   /* some NF has state of flows */
    uint32_t *set_up[HB_MAX_NODES]; /* hb_nf_seat.set_up of each such NF */
    _Atomic uint32_t epoch;         /* that packets are admitted in; written by the first owner */
    _Atomic uint32_t epoch_done;    /* the last one that has no packet in flight; likewise */
    _Atomic uint32_t epoch_wanted;  /* 1: some owner waits for the present one to end */
    bool epoch_ends;                /* the first owner's own: it waits, too ... */
    uint64_t epoch_passes[HB_MAX_LCORES]; /* ... until all lcores have come so far */
    uint32_t undrained; /* reloads that did not wait until all packets were gone */
    uint32_t credits;   /* of each unpaced input port: packets it may have in flight */
    uint32_t rx_burst;  /* packets an input port takes in at a time: no more than a queue holds */
    hb_lcore *lcore;
    hb_stats_head *stats;
    hb_device_stats *device_stats;
    hb_device_ctl *device; /* NULL without GNFs */
    _Atomic int held;      /* 1: input ports take nothing in for now; written by control */
    bool holding;          /* control's own: held by hb_hold() ... */
    uint64_t hold_seen[HB_MAX_LCORES]; /* ... and seen by an lcore that has come so far */
    _Atomic int draining; /* 1: input ports take nothing in; 2: everything is dropped as shutdown */
    _Atomic int stop;     /* lcores leave */
    bool running;
    bool stuck; /* an lcore did not stop: all that it may use stays as it is, for good */
    uint64_t stuck_at[HB_MAX_LCORES];  /* control's own: 1 + passes of an lcore found stuck */
    _Atomic uint32_t watched;          /* taps that there are; written by control */
    hb_tap *_Atomic tap[HB_MOST_TAPS]; /* NULL: none; likewise (taps.h) */
};

/* Somebody looks at packets. */
static inline bool hb_watched(const hb_lcore *lc)
{
    return hb_any_taps(&lc->dp->watched);
}

/* One of n by a flow's hash: by its upper bits, because flow caches are indexed by the lower ones.
 */
static inline uint32_t hb_spread(uint32_t hash, uint32_t n)
{
    return (uint32_t)((uint64_t)hash * n >> 32);
}

/* What the lcore does from now on; returns what it did until now. */
static inline uint32_t hb_account(hb_lcore *lc, uint32_t account)
{
    if (!lc->profiling)
        return 0;
    uint64_t now = hb_now();
    uint32_t before = lc->account;
    lc->profile[before] += now - lc->account_at;
    lc->account_at = now;
    lc->account = account;
    return before;
}

static inline uint32_t hb_account_shared(hb_lcore *lc, uint32_t account)
{
    return hb_account(lc, lc->dp->max_nodes + account);
}

/* ---- forward.c: how a packet moves on, and how it ends
 * ------------------------------------------- */

/* What is known of a burst without looking at its packets again. */
typedef struct {
    uint64_t bytes;
    bool alike; /* one type and route */
} hb_burst_sum;

/* CNFs that run within each other at most: the next one's burst goes to its input instead. */
#define HB_MOST_NESTED 16

/* Route n packets, at most HB_BURST, that leave node `from`, an NF's being counted as out there,
 * and deliver each to where its type goes next: run it at once if that is a CNF of this lcore with
 * nothing before them, else put them into that node's input here, or into the ring to the lcore
 * that serves it. `handles` is used up. */
void hb_forward(hb_lcore *lc, uint32_t from, uint32_t *handles, uint32_t n);
/* The same for a burst, at least one packet, whose packets are known to be alike. */
void hb_forward_alike(hb_lcore *lc, uint32_t from, uint32_t *handles, uint32_t n, uint64_t bytes);
/* What is counted of a packet once it is sent. Taken before: a driver that keeps mbufs may give
 * them back while it sends, and then the header is another packet's. */
typedef struct {
    uint32_t path; /* hb_mbuf.path */
    uint32_t bytes;
} hb_leaving;

/* Count n packets, at least one, as sent by the port `node`, end them, and free them; `handles` is
 * NULL if the port keeps them. */
void hb_end_sent(hb_lcore *lc, uint32_t node, const hb_leaving *packets, const uint32_t *handles,
                 uint32_t n);
/* End one packet, counted at `node` under `reason`. It is freed at the end of the pass. */
void hb_drop(hb_lcore *lc, uint32_t node, enum hb_reason reason, uint32_t handle);
/* As hb_drop, but the frame is not given back: a hung device may still write to it. */
void hb_quarantine(hb_lcore *lc, uint32_t node, uint32_t handle);
void hb_free_dead(hb_lcore *lc);

/* One more latency in a histogram. */
static inline void hb_count_sample(uint64_t *histogram, uint64_t ticks)
{
    uint32_t bucket;
    if (ticks < 16) {
        bucket = (uint32_t)ticks;
    } else {
        uint32_t e = 63 - (uint32_t)__builtin_clzll(ticks);
        bucket = 16 * (e - 3) + (uint32_t)(ticks >> (e - 4) & 15);
    }
    if (bucket >= HB_HIST_BUCKETS)
        bucket = HB_HIST_BUCKETS - 1;
    histogram[bucket]++;
}

/* Latency at a node of a packet that came there at the tick `since`: one of a burst is enough,
 * every counter is exact. */
static inline void hb_sample_latency(hb_lcore *lc, uint32_t node, uint64_t since)
{
    if (!lc->sampling)
        return;
    lc->sampled = hb_now();
    hb_count_sample(lc->latency + node * HB_HIST_BUCKETS, lc->sampled - since);
}

/* The node was at it since the tick `begin`. */
static inline void hb_count_busy(hb_lcore *lc, uint32_t node, uint64_t begin)
{
    if (!lc->sampling)
        return;
    lc->sampled = hb_now();
    lc->node_stats[node].busy_ticks += lc->sampled - begin;
}

/* The node was at it since `begin` and answers a packet that came to it at `came`. */
static inline void hb_sample_work(hb_lcore *lc, uint32_t node, uint64_t begin, uint64_t came)
{
    if (!lc->sampling)
        return;
    lc->sampled = hb_now();
    lc->node_stats[node].busy_ticks += lc->sampled - begin;
    hb_count_sample(lc->latency + node * HB_HIST_BUCKETS, lc->sampled - came);
}

/* ---- nodes: each takes what waits for it and returns how many packets it handled ----------------
 */

uint32_t hb_poll_input(hb_lcore *lc, uint32_t node);  /* node_port.c */
uint32_t hb_poll_output(hb_lcore *lc, uint32_t node); /* node_port.c */
/* Count what the queue of a port has lost or missed since. */
void hb_count_port(hb_lcore *lc, uint32_t node, hb_port *port); /* node_port.c */
uint32_t hb_poll_cnf(hb_lcore *lc, uint32_t node);              /* node_cnf.c */
uint32_t hb_poll_peer(hb_lcore *lc, uint32_t node);             /* node_peer.c */
uint32_t hb_poll_syncer(hb_lcore *lc);                          /* node_syncer.c */

/* The drain ran out of time: end what waits for a device. Returns how many. */
uint32_t hb_drop_waiting(hb_lcore *lc, enum hb_reason reason); /* node_syncer.c */

/* The drain ran out of time: end what a peer has in its hands. Returns how many. */
uint32_t hb_drop_peer(hb_lcore *lc, uint32_t node); /* node_peer.c */

/* ---- nf_common.c: what CNFs and CPUSyncers do alike
 * ---------------------------------------------- */

/* Drops, as no_room, packets that have no room for what the NF may add; the others move up in
 * handles. Returns how many. */
uint32_t hb_keep_with_room(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n);
/* Sets up the flows that are new to this NF; packets of those that cannot be are dropped, the
 * others move up in handles. Returns how many. nf_flow.c */
uint32_t hb_set_up_flows(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n);
/* Run a CNF on n packets, at most HB_BURST, that have come to it, and forward them; node_cnf.c. */
void hb_run_cnf(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n,
                const hb_burst_sum *sum);
/* Apply an NF's answers to n packets that were at `node`: counts, finish(), and on to where each
 * goes next. An answer is believed only if it is possible; else drop{bad_result}. `handles` and
 * `result`, which is NULL if the NF has no finish(), are used up; `sum` is of the packets as they
 * came, or NULL. */
void hb_finish(hb_lcore *lc, uint32_t node, uint32_t *handles, uint32_t n, uint64_t *result,
               const hb_answers *answers, const hb_burst_sum *sum);
/* Count n packets into or out of a node. */
static inline void hb_count_out(hb_lcore *lc, uint32_t node, uint64_t packets, uint64_t bytes)
{
    lc->node_stats[node].out_packets += packets;
    lc->node_stats[node].out_bytes += bytes;
}

/* ---- flow_poll.c, nf_flow.c: tracked flows
 * --------------------------------------------------------
 */

/* In each pass of each lcore. */
void hb_poll_flows(hb_lcore *lc, bool at_rest);
/* Tell the NFs of this lcore of at most so many ends of each owner. */
void hb_end_flows(hb_lcore *lc, uint32_t most);
/* The run is over, nothing runs any more: so are all flows. */
void hb_end_all_flows(hb_dataplane *dp);

/* ---- policy.c -----------------------------------------------------------------------------------
 */

/* Packets in flight that were stamped so (hb_mbuf.route). Exact if nobody admits with it. */
uint64_t hb_admitted_in_flight(const hb_dataplane *dp, uint32_t admission);

/* ---- dataplane.c --------------------------------------------------------------------------------
 */

/* -1, and this text in hb_error(). */
int hb_fail(hb_dataplane *dp, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Its number, or -1. */
int hb_add_node(hb_dataplane *dp, const hb_node *node);

/* Wait until input ports have seen that they are held or drained, and nothing is in flight. Returns
 * what still was at the timeout. */
int64_t hb_wait_empty(hb_dataplane *dp, uint32_t timeout_ms);

/* ---- ports.c ------------------------------------------------------------------------------------
 */

/* Add a port with n queues, queue k served by lcores[k]. Takes the queues over; NULL as the first
 * one: the driver has said why in dp->error. */
int hb_add_queues(hb_dataplane *dp, const uint32_t *lcores, hb_port *const *queues, uint32_t n);
/* Ports use the caches of their lcores while these run, else that of the control thread. */
void hb_give_ports(hb_dataplane *dp, bool to_lcores);
void hb_close_ports(hb_dataplane *dp);

/* ---- lcore.c ------------------------------------------------------------------------------------
 */

int hb_lcore_start(hb_lcore *lc);
/* Control thread: wait until every lcore has begun a pass since; false: one makes none any more,
 * and may still look at whatever it could look at before. */
bool hb_wait_passes(hb_dataplane *dp);
/* Control thread: wait for the ends of lcores that were told to stop; false: one does not. */
bool hb_join_lcores(hb_dataplane *dp);

#endif
