/* SPDX-License-Identifier: BSD-3-Clause */
/* flow_monitor_api.h: what the control plane calls of the flow monitor (cffi reads this file). */
#ifndef HB_FLOW_MONITOR_API_H
#define HB_FLOW_MONITOR_API_H
#include <stddef.h>
#include <stdint.h>

typedef struct hb_flow_monitor hb_flow_monitor;

/* Why a record was made: the numbers of flowEndReason (RFC 5102). */
#define HB_FLOW_MONITOR_IDLE 1
#define HB_FLOW_MONITOR_ACTIVE 2
#define HB_FLOW_MONITOR_CLOSED 3
#define HB_FLOW_MONITOR_SHUTDOWN 4
#define HB_FLOW_MONITOR_EVICTED 5

/* A flow that has ended, or one that goes on, since its last record. Of each pair the first belongs
 * to the end that began the flow, or to its packets. */
typedef struct {
    uint64_t packets[2];
    uint64_t octets[2];
    uint64_t first[2]; /* packet times, ns; 0 without packets */
    uint64_t last[2];
    uint8_t address[2][16]; /* IPv4 as ::ffff:a.b.c.d */
    uint32_t fragment_id;   /* of a fragmented datagram, whose ports are 0 */
    uint16_t port[2];
    uint16_t flags[2]; /* TCP flags seen since the flow began */
    uint16_t zone;
    uint8_t protocol;
    uint8_t reason;   /* HB_FLOW_MONITOR_* */
    uint8_t version;  /* 4 or 6 */
    uint8_t fragment; /* 1: a fragmented datagram */
    uint8_t pad[6];
} hb_flow_record;

/* active_ns: time between the records of a flow that goes on; 0: only one, at its end.
 * ring: records that may wait on an lcore, a power of two. NULL: out of memory. */
hb_flow_monitor *hb_flow_monitor_new(uint64_t active_ns, uint32_t ring);
void hb_flow_monitor_free(hb_flow_monitor *monitor);

/* Records made since the last call, at most `most`. By the control thread. */
uint32_t hb_flow_monitor_take(hb_flow_monitor *monitor, hb_flow_record *records, uint32_t most);

typedef struct {
    uint64_t records;     /* made, those that were lost included */
    uint64_t lost;        /* came faster than they were taken */
    uint64_t unmonitored; /* packets of no flow: not IP, or the flow table was full */
} hb_flow_monitor_counts;
/* Sums over the lcores; by the control thread. */
hb_flow_monitor_counts hb_flow_monitor_count(const hb_flow_monitor *monitor);

#define HB_FLOW_MONITOR_CSV_BYTES 320 /* that a line has at most */
/* The records as CSV lines in text[n * HB_FLOW_MONITOR_CSV_BYTES]; returns the bytes written. */
size_t hb_flow_monitor_csv(const hb_flow_record *records, uint32_t n, char *text);

#endif
