/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nf.h: the network functions on the CPU (HB_NF_ABI). The packet functions are those of
 * cl_kernels/nf, compiled as C, so CPU and GPU run the same source. What an NF does for a burst on
 * the host, around its packet function, stands in dataplane/nf/<name>.c.
 */
#ifndef HB_NF_H
#define HB_NF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hummingbird.h"
#include "mbuf.h"
#include "parse.h"

typedef struct hb_lcore hb_lcore;
typedef struct hb_nf_kind hb_nf_kind;
typedef struct hb_nf_engine hb_nf_engine;

/* The states that an instance has of flows: element `flow index`, in the tables region. */
typedef struct {
    uint8_t *base;
    uint32_t flows;  /* 0: it has none */
    uint32_t stride; /* bytes from one to the next */
    uint32_t bytes;  /* of each */
} hb_states;

/* An NF instance as one lcore runs it. Filled before the start; then only that lcore touches it. */
typedef struct {
    const hb_nf_kind *kind;
    const hb_nf_engine *engine; /* on the CPU */
    bool opened;                /* the engine was */
    const hb_arena *arena;
    hb_table table;
    hb_states states;
    uint32_t *set_up; /* [states.flows] generation of the flow that has been set up, 0: none; shared
                         by the lcores of the instance, each writes those of its flows */
    uint8_t *fresh;   /* [states.flows] 1: set up, and the device, which has a copy of the tables,
                         does   not know; NULL without such a device */
    void *host;       /* hb_nf.host: what the instance has on the host, shared by its lcores */
    void *state;      /* kind->state_bytes, zero at first */
    void *engine_state; /* engine->state_bytes, likewise */
    uint64_t *hits;     /* [rules] counters, read with hb_rule_hits() */
    uint32_t rules;
    uint32_t node;
    hb_lcore *lcore;
    bool resized; /* finish() has changed the length of a packet that was there before */
} hb_nf_seat;

/* The answers to a burst that say more than "pass it on as it is": to which packets, in order, and
 * what. */
typedef struct {
    uint32_t n;
    uint16_t at[HB_BURST];
    struct hb_done done[HB_BURST];
} hb_answers;

/* A burst for an engine. */
typedef struct {
    const hb_arena *arena;
    const hb_table *table;
    const hb_states *states;
    uint32_t head; /* bytes the NF may add in front ... */
    uint32_t tail; /* ... and behind, for which there is room */
    uint32_t n;
    const uint32_t *handles; /* [n] */
    const uint64_t *arg;     /* [n], or NULL: all 0 */
    uint64_t *result;        /* [n]; NULL if nobody asks */
    hb_answers *answers;
} hb_nf_burst;

/* One way to run an NF on the CPU. All ways of one NF give the same answers. */
struct hb_nf_engine {
    const char *name;     /* "cpu": the packet function itself; else the library it is built on */
    bool (*usable)(void); /* on this machine; NULL: always */
    size_t state_bytes;   /* of seat->engine_state */
    /* By the control thread, before the start and after the end; may be NULL. open(): 0, or -1. */
    int (*open)(hb_nf_seat *seat);
    void (*close)(hb_nf_seat *seat);
    /* Writes result, if somebody asks, and answers. */
    void (*run)(hb_nf_seat *seat, const hb_nf_burst *burst);
};

/* What an NF is on the host. What is NULL has nothing to do. */
struct hb_nf_kind {
    size_t state_bytes; /* of seat->state */
    /* By the control thread, before the start and after the end. open(): 0, or -1. */
    int (*open)(hb_nf_seat *seat);
    void (*close)(hb_nf_seat *seat);
    /* The first packet of a flow has come here; before prepare(), in the order of the packets.
     * `state` is all 0; what is written to it is what the packet function finds. A reason other
     * than none: the packet is dropped for it, and the flow's next packet asks again. */
    enum hb_reason (*flow_setup)(hb_nf_seat *seat, uint32_t handle, void *state);
    /* A flow that was set up here is over, and none of its packets is left. After the end of the
     * run (HB_FLOW_END_SHUTDOWN) by the control thread. */
    void (*flow_end)(hb_nf_seat *seat, uint32_t flow, const hb_key *key, enum hb_flow_end why,
                     const void *state);
    /* Before the packet function, wherever that runs; in the order of the packets: fills
     * arg[0 .. n-1]. */
    void (*prepare)(hb_nf_seat *seat, const uint32_t *handles, uint64_t *arg, uint32_t n);
    /* After it: packets with an answer that cannot be are gone, the others are as the packet
     * function left them, also those that it dropped. verdict[i] is HB_PASS, HB_DROP(reason) or
     * HB_RETYPE(type), and may be changed. `handles` may not. */
    void (*finish)(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n);
    const hb_nf_engine *engines; /* [nb_engines], the best last; the first is called "cpu" */
    uint32_t nb_engines;
};

/* NULL if there is no such kind. */
const hb_nf_kind *hb_nf_kind_of(uint32_t kind);

/* The table of an instance in the tables region. */
hb_table hb_nf_table(const void *tables, uint32_t instance);

/* The states that it has of flows. */
hb_states hb_nf_states(const void *tables, uint32_t instance);

/* Runs one packet through one NF instance: its verdict (HB_PASS, HB_DROP(), HB_RETYPE()), or 0 if
 * there is no such NF; *result is 0 unless the NF sets it. p->offset, length, l3 and l4 may change.
 */
uint32_t hb_nf_run(const void *tables, uint32_t instance, hb_packet *p, uint64_t arg,
                   uint64_t *result);

/* ---- what engines are made of -----------------------------------------------------------------
 */

/* What the NF knows of the flow of a packet. */
static inline uint8_t *hb_state_at(const hb_states *s, uint32_t flow)
{
    return flow < s->flows ? s->base + (size_t)flow * s->stride : NULL;
}

/* Packet i of a burst, as a packet function takes it. */
static inline hb_packet hb_packet_of(const hb_nf_burst *b, uint32_t i)
{
    const hb_mbuf *m = hb_header(b->arena, b->handles[i]);
    return (hb_packet){.frame = hb_frame(b->arena, m),
                       .low = m->data_off - b->head,
                       .high = (uint32_t)m->data_off + m->data_len + b->tail,
                       .offset = m->data_off,
                       .length = m->data_len,
                       .l3 = m->l3,
                       .l4 = m->l4,
                       .type = m->type,
                       .flow = m->flow,
                       .direction = m->direction,
                       .state = hb_state_at(b->states, m->flow),
                       .state_length = m->flow < b->states->flows ? b->states->bytes : 0};
}

/* Packet i got this verdict and lies where p says. */
static inline void hb_answer(hb_answers *all, uint32_t i, const hb_packet *p, uint32_t verdict,
                             uint64_t result)
{
    all->at[all->n] = (uint16_t)i;
    all->done[all->n++] = (struct hb_done){.offset = (uint16_t)p->offset,
                                           .length = (uint16_t)p->length,
                                           .value = (uint16_t)(verdict >> 8),
                                           .verdict = (uint8_t)verdict,
                                           .result = result};
}

/* The engine "cpu" of most NFs: the packet function in a loop. */
#define HB_NF_LOOP(name)                                                                           \
    void hb_loop_##name(hb_nf_seat *seat, const hb_nf_burst *b)                                    \
    {                                                                                              \
        (void)seat;                                                                                \
        for (uint32_t i = 0; i < b->n; i++) {                                                      \
            hb_packet p = hb_packet_of(b, i);                                                      \
            uint32_t offset = p.offset, length = p.length;                                         \
            uint64_t result = 0;                                                                   \
            uint32_t verdict = hb_nf_##name(&p, b->table, b->arg ? b->arg[i] : 0, &result);        \
            if (b->result)                                                                         \
                b->result[i] = result;                                                             \
            if (verdict != HB_PASS || p.offset != offset || p.length != length)                    \
                hb_answer(b->answers, i, &p, verdict, result);                                     \
        }                                                                                          \
    }

/* The loops of the NFs that are compiled in, for their lists of engines. */
#define HB_NF_LOOP_OF(number, name) void hb_loop_##name(hb_nf_seat *, const hb_nf_burst *);
HB_NF_KINDS(HB_NF_LOOP_OF)

/* ---- flows: nf_flow.c --------------------------------------------------------------------------
 * flow_setup() and the packet function write a flow's state; prepare() and finish() may read it.
 */

/* This NF's state of a flow; NULL for HB_NO_FLOW. */
void *hb_flow_state(const hb_nf_seat *seat, uint32_t flow);
/* Of the live flow with this index; 0 if there is none. */
uint32_t hb_flow_generation(const hb_nf_seat *seat, uint32_t flow);
/* The live flow of a key, or HB_NO_FLOW. It may end meanwhile: compare generations. */
uint32_t hb_flow_find(const hb_nf_seat *seat, const hb_key *key);
/* In finish(): from here on the packet is one of another flow, and keeps that alive; nothing
 * happens if that flow is over. */
void hb_flow_adopt(const hb_nf_seat *seat, uint32_t handle, uint32_t flow, uint32_t generation,
                   uint32_t direction);

/* ---- packets that an NF makes itself: nf_make.c ------------------------------------------------
 */

#define HB_NO_MBUF 0xffffffffu

/* An empty mbuf with room in front, in finish() only: its time and its place in the capture are
 * those of the packet it is about. Counted as created at this node; it must be emitted. HB_NO_MBUF:
 * the pool is empty, or this burst has made HB_BURST packets already. */
uint32_t hb_nf_create(hb_nf_seat *seat, uint32_t about);
/* It is filled: parse it, and let it leave the node, behind the burst, as a packet of `type`. */
#define HB_TYPE_BY_RULES 0xffffu /* of the type that it would have if it came in at a port */
void hb_nf_emit(hb_nf_seat *seat, uint32_t handle, uint32_t type);

/* What bounds the packets an NF makes: a token bucket. One for each seat; zero, then set `rate`. */
typedef struct {
    uint32_t rate;       /* packets per second; 0: none at all */
    uint32_t tokens;     /* left, at most rate / 10 + 1 */
    uint64_t tick;       /* when they were counted last */
    uint64_t suppressed; /* packets that were not made, for want of a token or a buffer */
} hb_icmp_limit;

/* Who says so: the addresses that errors come from; all 0 if there is none of that family. */
typedef struct {
    uint8_t ipv4[4];
    uint8_t ipv6[16];
} hb_icmp_source;

/* Make an ICMP (RFC 792, 1191, 1812) or ICMPv6 (RFC 4443) error about a packet, which stays as it
 * is: type and code are those of its IP version, `word` is the second word of the header (such as
 * the MTU). It goes back to the packet's sender, MAC addresses included, and leaves this node as a
 * packet of `as_type`. False if none was made: there is no source address, the limit is reached
 * (counted), or nobody may be told, as of an error, a fragment other than the first, or a broadcast
 * (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e). */
bool hb_icmp_error(hb_nf_seat *seat, hb_icmp_limit *limit, const hb_icmp_source *from,
                   uint32_t about, uint32_t type, uint32_t code, uint32_t word, uint32_t as_type);

/* Cut an IPv4 packet into fragments of at most `mtu` bytes (RFC 791 section 3.2): it becomes the
 * first, the others are created and leave the node behind the burst with its type. False, and
 * nothing has changed, if it is not IPv4, carries DF, or there is no mbuf. */
bool hb_fragment(hb_nf_seat *seat, uint32_t handle, uint32_t mtu);

/* hb_run_program(), hb_nf_kind_name(), hb_nf_engine_name(), hb_reason_name() and hb_reason_text():
 * see api.h. */

#endif
