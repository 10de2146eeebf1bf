/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow.h: the flow table of an lcore: 5-tuple and zone to a flow index and packet types.
 *
 * Without an NF that keeps state of flows it is a cache: rules run once per flow, and a flow that
 * was idle for long gives its place to a new one. With such an NF flows are *tracked*: each has a
 * state and a timeout, and an index is used again only when nobody can know it any more:
 *
 *     live --release--> held --all packets admitted before are gone--> drained
 *          --every lcore has told its NFs of the end (hb_end_flows())--> free
 *
 * flow.c finds and makes flows, flow_life.c ages and releases them.
 */
#ifndef HB_FLOW_H
#define HB_FLOW_H
#include "packet_clock.h"
#include "parse.h"

#define HB_FLOW_WAYS 16 /* entries of a set */

/* Tags of places that have no live flow; those of flows are odd. */
#define HB_TAG_FREE 0
#define HB_TAG_HELD 2

/* Times are counted in 2^HB_FLOW_TICK_SHIFT ns (67 ms) of the table's clock. */
#define HB_FLOW_TICK_SHIFT 26

/* hb_flow.seen_of: what the flow has seen. */
#define HB_SEEN_FIRST 1u    /* the direction of its first packet */
#define HB_SEEN_BOTH 2u     /* packets in both directions */
#define HB_SEEN_FRAGMENT 4u /* the first fragment of its datagram */

/* hb_flow.joined */
#define HB_JOINED_DIRECTION 1u /* one of direction 0; 2: of direction 1 */
#define HB_JOINED_END 4u       /* one with a FIN or RST */

/*
 * One flow, one cache line. Written by the owner lcore only, but for `word`, `seen` and `joined`.
 * `word` holds the entry's generation (upper half, 0: not live) and the types of direction 1 and 0
 * (16 bits each); a sticky re-type may come from another lcore, hence the compare-exchange, which
 * fails when the entry has been given to another flow meanwhile.
 */
typedef struct {
    alignas(64) hb_key key;
    _Atomic uint64_t word;
    uint32_t hash;
    _Atomic uint32_t seen;  /* tick of the last packet, which another lcore may have made join from
                               another flow (hb_flow_adopt()); untracked: a count of lookups, for
                               eviction */
    uint32_t began;         /* tick of the first packet */
    uint8_t state;          /* HB_FLOW_* */
    uint8_t seen_of;        /* HB_SEEN_* */
    _Atomic uint8_t joined; /* HB_JOINED_*, of packets that came from another flow since the owner
                               looked */
} hb_flow;
_Static_assert(sizeof(hb_flow) == 64, "a flow is one cache line");

/* A flow that is over. */
typedef struct {
    uint32_t at;
    uint32_t generation;
    enum hb_flow_end why;
} hb_flow_gone;

/* What tells the flows of an owner apart in time; written by the owner lcore, but for `drained`,
 * which others read. */
typedef struct {
    uint32_t limit; /* flows that may live at once */
    uint32_t live;
    bool evict;
    uint32_t timeout[HB_FLOW_STATES]; /* ticks */

    hb_packet_clock clock;
    _Atomic uint32_t tick; /* the same in ticks; others read it, too */
    uint32_t scan;         /* set to look at next for idle flows */

    /* Flows that may be evicted in a ring, the oldest behind the last entry, which is no flow's.
     * [entries + 1] */
    struct {
        uint32_t older, newer;
    } * expendable;

    /* Ring of the flows that are over; freed <= drained <= released. [entries] */
    hb_flow_gone *gone;
    uint32_t released, freed;
    alignas(128) _Atomic uint32_t drained;
    alignas(128) uint32_t closing; /* those before are drained when ... */
    uint32_t epoch;                /* ... no packet of this epoch is in flight */
} hb_flow_lives;

/*
 * A flow lies in the set that its hash names, or in one other if that is nearly full: two
 * choices of 16 places, half of them free, so that no flow need ever move. The tags of a set, 16
 * bits of each flow's hash, share half a line: they say which of its flows to look at, so that a
 * lookup costs two lines that can both be asked for in time. Written by the owner.
 */
typedef struct {
    uint16_t *tag;  /* [sets][HB_FLOW_WAYS]; HB_TAG_FREE, HB_TAG_HELD, or of a flow */
    hb_flow *flow;  /* [sets][HB_FLOW_WAYS] */
    uint32_t mask;  /* sets - 1 */
    uint32_t shift; /* 32 - log2(sets) */
    uint32_t base;  /* index of its first flow: an index is that of one table only */
    uint32_t clock_shift;
    uint32_t generation; /* of the last flow inserted */
    const hb_rule *rules;
    uint32_t nb_rules;
    hb_lcore_stats *stats;
    hb_flow_lives *lives; /* NULL: flows are not tracked */
} hb_flows;

/* `flows` is how many it shall remember at least: a power of two. */
int hb_flows_init(hb_flows *f, uint32_t flows, uint32_t base, const hb_rule *rules,
                  uint32_t nb_rules, hb_lcore_stats *stats);
/* Track them from here on, before the first packet. */
int hb_flows_track(hb_flows *f, const hb_config *config);
void hb_flows_free(hb_flows *f);

static inline uint32_t hb_flows_places(const hb_flows *f)
{
    return (f->mask + 1) * HB_FLOW_WAYS;
}

/* The set in which a flow with this hash is looked for first. The product's upper bits, because the
 * hash is a CRC, which is linear: keys that count up may share all bits of which a set could be. */
static inline uint32_t hb_flow_set(const hb_flows *f, uint32_t hash)
{
    return (uint32_t)((uint64_t)(hash * 0x9e3779b1u) >> f->shift);
}

/* Ask for the first line that hb_flow_classify() will read of a flow with this hash. */
static inline void hb_flow_prefetch(const hb_flows *f, uint32_t hash)
{
    __builtin_prefetch(f->tag + (size_t)hb_flow_set(f, hash) * HB_FLOW_WAYS);
}

/* Sets type, flow and flow_gen of n headers, at most HB_BURST: from the table, else by the rules.
 * `a` has their packets; NULL: flows are not tracked. The flow of a packet for which the table has
 * no place is HB_NO_FLOW; returns how many. */
uint32_t hb_flow_classify(hb_flows *f, const hb_arena *a, hb_mbuf *const *m, const hb_key *keys,
                          uint32_t n);

/* All packets of this flow, both directions, are `type` from now on. */
void hb_flow_retype(hb_flows *f, const hb_mbuf *m, uint16_t type);

/* The place of a live flow, or HB_NO_FLOW. Any thread may look: a flow may end meanwhile. */
uint32_t hb_flow_place(const hb_flows *f, const hb_key *key, uint32_t hash);

/* ---- flow_life.c: tracked flows, by the owner unless it says otherwise --------------------------
 */

/* The clock moves with this packet. */
void hb_flow_clock(hb_flow_lives *l, uint32_t port, uint64_t time_ns);

static inline uint32_t hb_flow_now(const hb_flow_lives *l)
{
    return atomic_load_explicit(&l->tick, memory_order_relaxed);
}

/* A flow begins with this packet. */
void hb_flow_begin(hb_flows *f, uint32_t at, const hb_mbuf *m, const uint8_t *packet);
/* Another packet of a flow has come; false: it is the first of a new one with the same key, and the
 * old one is released. */
bool hb_flow_goes_on(hb_flows *f, uint32_t at, const hb_mbuf *m, const uint8_t *packet);
/* Is there room for one more? May release another. */
bool hb_flow_admit(hb_flows *f);
void hb_flow_release(hb_flows *f, uint32_t at, enum hb_flow_end why);
/* Ticks since its last packet. */
uint32_t hb_flow_idle(const hb_flow_lives *l, const hb_flow *e);
/* A packet of another flow has joined this one; any lcore may say so. */
void hb_flow_join(const hb_flow_lives *l, hb_flow *e, const hb_mbuf *m, const uint8_t *packet);
/* Look for idle flows in this many sets. */
void hb_flows_age(hb_flows *f, uint32_t sets);
/* Flows whose packets are all gone are drained. `epoch` is the one that packets are admitted in
 * now, `done` the last that has no packet in flight. True: it waits for an epoch to end. */
bool hb_flows_drain(hb_flows *f, uint32_t epoch, uint32_t done);
/* Places of flows of whose end everybody has heard are free: those before `heard`. */
void hb_flows_reuse(hb_flows *f, uint32_t heard);

#endif
