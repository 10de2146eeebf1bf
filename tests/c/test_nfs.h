/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_nfs.h: the NFs of these tests, on the CPU and on the fake GPU. Each does what is hard for a
 * data plane and nothing else.
 *
 *   sift    re-types packets that hold an X to SUSPICIOUS, and counts them in finish()
 *   stamp   numbers packets in prepare(); grows them at both ends and changes every byte
 *   tally   counts packets in its state of their flow, and lets none pass that is out of order
 */
#ifndef HB_TEST_NFS_H
#define HB_TEST_NFS_H
#include <string.h>

#include "plane.h"

enum { STAMP_HEAD = 28, STAMP_TAIL = 28 };

static hb_u32 hb_nf_sift(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)arg;
    for (hb_u32 at = p->l4 + 8; at < p->length; at++)
        *result += hb_get8(p, at) == 'X';
    return *result ? HB_RETYPE(SUSPICIOUS) : HB_PASS;
}

/*   L2 | IP header | 4 bytes, number | IP packet, each byte changed | number % 29 bytes
 *        '- a copy                                                                       */
static hb_u32 hb_nf_stamp(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t;
    hb_u32 inner = p->length - p->l3, tail = (hb_u32)arg % (STAMP_TAIL + 1);
    if (!hb_grow_head(p, STAMP_HEAD) || !hb_grow_tail(p, tail))
        return HB_DROP(HB_REASON_no_room);
    for (hb_u32 i = 0; i < p->l3 + 20; i++)
        hb_put8(p, i, hb_get8(p, i + STAMP_HEAD));
    hb_put32(p, p->l3 + 20, 0);
    hb_put32(p, p->l3 + 24, (hb_u32)arg);
    for (hb_u32 i = 0; i < inner + tail; i++) {
        hb_u32 at = p->l3 + STAMP_HEAD + i;
        hb_put8(p, at, hb_get8(p, at) * (i < inner) ^ (i + (hb_u32)arg));
    }
    *result = arg;
    return HB_PASS;
}

enum { TALLY_LAST, TALLY_BUSY, TALLY_PACKETS, TALLY_SET_UP, TALLY_WORDS };

/* The number that a packet has in its flow's source, from 1: 16 small letters, the lowest first. */
static hb_u32 tally_number(const hb_packet *p)
{
    hb_u32 number = 0;
    for (hb_u32 i = 0; i < 7; i++)
        number |= (hb_get8(p, p->l4 + 8 + i) - 'a' & 15) << 4 * i;
    return number + 1;
}

static hb_u32 hb_nf_tally(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)arg, (void)result;
    hb_u32 number = tally_number(p);
    if (!hb_state32(p, TALLY_SET_UP) || hb_state32(p, TALLY_BUSY))
        return HB_DROP(HB_REASON_bad_state);
    hb_set_state32(p, TALLY_BUSY, 1);
    hb_u32 late = number <= hb_state32(p, TALLY_LAST);
    hb_set_state32(p, TALLY_LAST, number);
    hb_set_state32(p, TALLY_PACKETS, hb_state32(p, TALLY_PACKETS) + 1);
    hb_set_state32(p, TALLY_BUSY, 0);
    return late ? HB_DROP(HB_REASON_out_of_window) : HB_PASS;
}

/* ---- on the host ----------------------------------------------------------------------------- */

static void finish_sift(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                        uint32_t *verdict, uint32_t n)
{
    (void)handles, (void)verdict;
    for (uint32_t i = 0; i < n; i++)
        seat->hits[0] += result[i] != 0;
}

static void prepare_stamp(hb_nf_seat *seat, const uint32_t *handles, uint64_t *arg, uint32_t n)
{
    (void)handles;
    uint64_t *last = seat->state;
    for (uint32_t i = 0; i < n; i++)
        arg[i] = ++*last;
}

enum { TALLY_BEGUN, TALLY_ENDED, TALLY_COUNTED, TALLY_HITS }; /* its counters */

static enum hb_reason begin_tally(hb_nf_seat *seat, uint32_t handle, void *state)
{
    static const uint32_t none[TALLY_WORDS];
    (void)handle;
    if (memcmp(state, none, sizeof none))
        return HB_REASON_nf_action;
    ((uint32_t *)state)[TALLY_SET_UP] = 1;
    seat->hits[TALLY_BEGUN]++;
    return HB_REASON_none;
}

static void end_tally(hb_nf_seat *seat, uint32_t flow, const hb_key *key, enum hb_flow_end why,
                      const void *state)
{
    (void)flow, (void)key, (void)why;
    seat->hits[TALLY_ENDED]++;
    seat->hits[TALLY_COUNTED] += ((const uint32_t *)state)[TALLY_PACKETS];
}

static HB_NF_LOOP(tally) static HB_NF_LOOP(sift) static HB_NF_LOOP(stamp) static const hb_nf_engine
    sift_engine = {.name = "cpu", .run = hb_loop_sift};
static const hb_nf_engine stamp_engine = {.name = "cpu", .run = hb_loop_stamp};
static const hb_nf_engine tally_engine = {.name = "cpu", .run = hb_loop_tally};
static const hb_nf_kind tally_kind = {
    .flow_setup = begin_tally, .flow_end = end_tally, .engines = &tally_engine, .nb_engines = 1};
static const hb_nf_kind sift_kind = {
    .finish = finish_sift, .engines = &sift_engine, .nb_engines = 1};
static const hb_nf_kind stamp_kind = {.state_bytes = sizeof(uint64_t),
                                      .prepare = prepare_stamp,
                                      .engines = &stamp_engine,
                                      .nb_engines = 1};

#endif
