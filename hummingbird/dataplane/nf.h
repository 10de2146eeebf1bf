/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nf.h: the network functions on the CPU. The packet functions are those of cl_kernels/nf, compiled
 * as C, so CPU and GPU run the same source. What an NF does for a burst on the host stands in its
 * .cl file, too, under #ifdef HB_HOST.
 */
#ifndef HB_NF_H
#define HB_NF_H
#include <stddef.h>
#include <stdint.h>

#include "hummingbird.h"
#include "mbuf.h"

/*
 * What an NF does for a burst, around its packet function and on the CPU even when that runs on a
 * GPU. Both may be NULL: nothing to do.
 *
 * `state` is `state_bytes` of memory, zeroed at start and aligned for any type. There is one for
 * each NF instance and lcore that serves it; the caller owns it, and no other thread touches it.
 */
typedef struct {
    size_t state_bytes;
    /* Before the packet functions, in the order of the packets: fills arg[0 .. n-1]. */
    void (*prepare)(void *state, const hb_table *t, uint64_t *arg, uint32_t n);
    /* After them: result[i] of each packet that came back with a valid verdict, dropped ones
     * included. hits[0 .. rules-1] are the counters of NfTable.rules. */
    void (*finish)(void *state, const uint64_t *result, uint32_t n, uint64_t *hits, uint32_t rules);
} hb_nf_hooks;

/* Never NULL; an unknown kind has no hooks. */
const hb_nf_hooks *hb_nf_hooks_of(uint32_t kind);

/* The table of an instance in the tables region, for prepare(). */
hb_table hb_nf_table(const void *tables, uint32_t instance);

/* The answers to a burst that say more than "pass it on as it is": to which packets, in order, and
 * what. */
typedef struct {
    uint32_t n;
    uint16_t at[HB_BURST];
    struct hb_done done[HB_BURST];
} hb_answers;

/* A burst for an NF on the CPU. */
typedef struct {
    const hb_arena *arena;
    const hb_table *table;
    uint32_t head; /* bytes it may add in front ... */
    uint32_t tail; /* ... and behind, for which there is room */
    uint32_t n;
    const uint32_t *handles; /* [n] */
    const uint64_t *arg;     /* [n], or NULL: all 0 */
    uint64_t *result;        /* [n]; NULL if nobody asks */
    hb_answers *answers;
} hb_nf_burst;

/* Runs an NF on a burst; writes result and answers. */
typedef void hb_nf_engine(const hb_nf_burst *burst);

/* The engine of a kind; NULL if there is no such kind. */
hb_nf_engine *hb_nf_engine_of(uint32_t kind);

/* Runs one packet through one NF instance: its verdict (HB_PASS, HB_DROP(), HB_RETYPE()), or 0 if
 * there is no such NF; *result is 0 unless the NF sets it. p->offset, length, l3 and l4 may change.
 */
uint32_t hb_nf_run(const void *tables, uint32_t instance, hb_packet *p, uint64_t arg,
                   uint64_t *result);

/* hb_run_program(), hb_nf_kind_name(), hb_reason_name() and hb_reason_text(): see api.h. */

#endif
