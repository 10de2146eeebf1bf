/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * taps.h: the lcores' side of taps_api.h. While there is a tap (hb_watched()), each place that
 * packets come by calls one of these; what they find is written into the lcore's rings.
 */
#ifndef HB_TAPS_H
#define HB_TAPS_H
#include "dataplane.h"
#include "tap_ring.h"

enum hb_tap_kind { HB_TAP_CAPTURE, HB_TAP_TRACE };

/* A packet that is followed. The slot goes with the packet from lcore to lcore, as its header does.
 */
typedef struct {
    _Atomic uint32_t handle; /* whose it is: a number that is left from a trace before is not */
    uint32_t packet;         /* which of the trace's, from 1 */
    uint64_t rx_tick;
    uint32_t length; /* of the copy */
    uint8_t *copy;   /* the packet as it came to the NF where it is now; frame_size bytes */
} hb_trace_slot;

typedef struct {
    alignas(HB_LINE) hb_tap_writer w; /* of one lcore */
} hb_tap_end;

/* Control makes it, lcores see it in hb_dataplane.tap until control takes it out there and has
 * waited for their passes. */
struct hb_tap {
    enum hb_tap_kind kind;
    uint32_t rings;
    hb_tap_end end[HB_MAX_LCORES];
    /* captures */
    uint32_t from, to, snap;
    /* traces */
    hb_rule *rules;
    uint32_t nb_rules, type, count;
    uint8_t first;                            /* hb_mbuf.trace of slot 0 */
    uint8_t *memory;                          /* of the rings */
    uint8_t *copies;                          /* of the slots */
    uint64_t ring_size;                       /* bytes */
    _Atomic uint32_t free_slots;              /* bits; an lcore that takes or gives one back */
    _Atomic uint64_t sampled, ended, skipped; /* lcores */
    hb_trace_slot slot[HB_TRACE_SLOTS];
};
_Static_assert(HB_MOST_TAPS *HB_TRACE_SLOTS <= UINT8_MAX, "hb_mbuf.trace names any slot");

/* ---- captures: tap_capture.c ------------------------------------------------------------------
 */

/* n packets go along an edge; outside of a port is HB_TAP_OUTSIDE. Of their headers only data_off
 * and data_len need to be right. */
void hb_capture_packets(hb_lcore *lc, const hb_tap *tap, uint32_t from, uint32_t to,
                        const uint32_t *handles, uint32_t n);

/* ---- traces: trace.c --------------------------------------------------------------------------
 */

/* n packets have come in at a port and have their types: which are to be followed? */
void hb_trace_arrivals(hb_lcore *lc, uint32_t node, const uint32_t *handles, const hb_key *keys,
                       uint32_t n);
/* A packet is about to be dropped before it has a type. */
void hb_trace_unclassified(hb_lcore *lc, uint32_t node, uint32_t handle);
void hb_trace_hop(hb_lcore *lc, uint32_t from, uint32_t to, const uint32_t *handles, uint32_t n);
/* A device gets them, in this row of its workgroup; packet i is in lane i. */
void hb_trace_published(hb_lcore *lc, uint32_t node, uint32_t workgroup, uint32_t row,
                        const uint32_t *handles, uint32_t n);
/* What the NF says of them; verdict is NULL if all pass. Not carried out yet. */
void hb_trace_verdicts(hb_lcore *lc, uint32_t node, const uint32_t *handles,
                       const uint32_t *verdict, uint32_t n);
void hb_trace_dropped(hb_lcore *lc, uint32_t node, enum hb_reason reason, uint32_t handle);
/* Before packets are sent: their numbers, which cannot be read in their headers any more
 * afterwards; ... */
void hb_trace_remember(const hb_lcore *lc, const uint32_t *handles, uint32_t n, uint8_t *trace);
/* ... and when they are. */
void hb_trace_sent(hb_lcore *lc, uint32_t node, const hb_leaving *packets, const uint32_t *handles,
                   const uint8_t *trace, uint32_t n);

/* ---- both: taps.c -----------------------------------------------------------------------------
 */

/* n packets go along an edge, for all taps. */
void hb_tap_packets(hb_lcore *lc, uint32_t from, uint32_t to, const uint32_t *handles, uint32_t n);

/* acquire: what control has made it of */
static inline hb_tap *hb_tap_at(const hb_dataplane *dp, uint32_t k)
{
    return atomic_load_explicit(&dp->tap[k], memory_order_acquire);
}

/* Control thread: a tap with nothing in it and a free number for it, or -1 and a text in
 * hb_error(). hb_show_tap() lets the lcores see it. */
int hb_new_tap(hb_dataplane *dp, enum hb_tap_kind kind, hb_tap **tap);
void hb_show_tap(hb_dataplane *dp, int number, hb_tap *tap);
void hb_free_tap(hb_tap *tap);
void hb_free_taps(hb_dataplane *dp);

#endif
