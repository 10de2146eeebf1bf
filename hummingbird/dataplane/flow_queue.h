/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow_queue.h: packets that wait for a GNF with state of flows, and which of them may go into the
 * next row of a workgroup (design section 4, Order): a row has at most one packet of a flow, and a
 * flow stays with its workgroup while it has packets there. So no two packets of a flow run at
 * once, and rows are full as long as enough flows have packets waiting.
 *
 * Flows take turns, each with one packet: a flow with many packets waiting holds up none but
 * itself. Used by the syncer's lcore only.
 */
#ifndef HB_FLOW_QUEUE_H
#define HB_FLOW_QUEUE_H
#include <stdbool.h>
#include <stdint.h>

#include "mbuf.h"

#define HB_NOTHING 0xffffffffu

/* A flow, by its index. */
typedef struct {
    uint32_t first, last; /* of its packets that wait: handles */
    uint32_t next;        /* flow behind it in its list */
    uint32_t waiting;     /* packets; if there are any, it is in one list */
    uint16_t in_rows;     /* packets in rows that are not reaped, the open ones included ... */
    uint16_t group;       /* ... of this workgroup */
    bool in_open_row;
} hb_flow_line;

/* Of flows or of packets. */
typedef struct {
    uint32_t first, last, count;
} hb_flow_list;

typedef struct {
    hb_flow_line *line; /* [flows] */
    uint32_t flows;
    uint32_t *next;        /* [mbufs] by handle: the packet behind it in its flow, or in `loose` */
    hb_flow_list *ready;   /* [groups] flows that may have a packet in the workgroup's open row */
    hb_flow_list *later;   /* [groups] flows that have one there, and another one waiting */
    hb_flow_list anywhere; /* flows with no packet in rows */
    hb_flow_list loose;    /* packets of no flow */
    uint32_t waiting;      /* packets in all */
    uint32_t turn;
    uint32_t groups;
} hb_flow_queue;

int hb_flow_queue_init(hb_flow_queue *q, uint32_t flows, uint32_t mbufs, uint32_t groups);
void hb_flow_queue_free(hb_flow_queue *q);

void hb_flow_put(hb_flow_queue *q, uint32_t handle, uint32_t flow);
/* A packet for the open row of the workgroup, or HB_NOTHING. With `own` only of flows that are its
 * already. */
uint32_t hb_flow_take(hb_flow_queue *q, uint32_t group, bool own);
/* The open row of the workgroup was published, or is given up: it had these packets. */
void hb_flow_close_row(hb_flow_queue *q, uint32_t group, const hb_arena *a, const uint32_t *handles,
                       uint32_t n);
/* A packet of this flow has come back. */
void hb_flow_back(hb_flow_queue *q, uint32_t flow);
/* Any packet that waits, or HB_NOTHING: to be dropped. */
uint32_t hb_flow_any(hb_flow_queue *q);

static inline void hb_flow_prefetch_line(const hb_flow_queue *q, uint32_t flow)
{
    if (flow < q->flows)
        __builtin_prefetch(q->line + flow, 1);
}

/* Packets that wait of this flow. */
static inline uint32_t hb_flow_waiting(const hb_flow_queue *q, uint32_t flow)
{
    return flow < q->flows ? q->line[flow].waiting : 0;
}

#endif
