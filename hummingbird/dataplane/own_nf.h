/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * own_nf.h: makes a shared object of a user's NF. hummingbird/nfs/native.py compiles
 *
 *     #define HB_OWN ttl_counter
 *     #include "own_nf.h"
 *     #include "/somewhere/ttl_counter.cl"
 *     #include "own_nf.h"
 *
 * What the second inclusion adds is the NF on the CPU: hb_own_kind, for hb_nf.code. The user's file
 * may define, under #ifdef HB_HOST: HB_NF_PREPARE and HB_NF_FINISH, the names of its functions for
 * hb_nf_kind; and HB_NF_STATE, the type of seat->state.
 */
#ifndef HB_OWN_NF_H
#define HB_OWN_NF_H
#include "nf.h"

#define HB_HOST
#define HB_OWN_JOIN(a, b) a##b
#define HB_OWN_NAME(a, b) HB_OWN_JOIN(a, b)
#define HB_OWN_LOOP(name) HB_NF_LOOP(name)

/* So that a compiler complains about the user's line if that says something else. */
static hb_u32 HB_OWN_NAME(hb_nf_, HB_OWN)(hb_packet *p, const hb_table *t, hb_u64 arg,
                                          hb_u64 *result);

#else

HB_OWN_LOOP(HB_OWN)

#ifndef HB_NF_PREPARE
#define HB_NF_PREPARE NULL
#endif
#ifndef HB_NF_FLOW_SETUP
#define HB_NF_FLOW_SETUP NULL
#endif
#ifndef HB_NF_FLOW_END
#define HB_NF_FLOW_END NULL
#endif
#ifdef HB_NF_STATE
#define HB_OWN_STATE sizeof(HB_NF_STATE)
#else
#define HB_OWN_STATE 0
#endif

/* Result n counts for the n-th of NfTable.rules; 0 and what is beyond them count for none. */
static inline void hb_own_count(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                                uint32_t *verdict, uint32_t n)
{
    (void)handles, (void)verdict;
    for (uint32_t i = 0; i < n; i++)
        if (result[i] && result[i] <= seat->rules)
            seat->hits[result[i] - 1]++;
}
#ifndef HB_NF_FINISH
#ifdef HB_OWN_RESULTS
#define HB_NF_FINISH hb_own_count
#else
#define HB_NF_FINISH NULL
#endif
#endif

static const hb_nf_engine hb_own_engines[] = {
    {.name = "cpu", .run = HB_OWN_NAME(hb_loop_, HB_OWN)}};
extern const hb_nf_kind hb_own_kind;
__attribute__((visibility("default")))
const hb_nf_kind hb_own_kind = {.state_bytes = HB_OWN_STATE,
                                .flow_setup = HB_NF_FLOW_SETUP,
                                .flow_end = HB_NF_FLOW_END,
                                .prepare = HB_NF_PREPARE,
                                .finish = HB_NF_FINISH,
                                .engines = hb_own_engines,
                                .nb_engines = 1};
#endif
