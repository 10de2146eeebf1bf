/* SPDX-License-Identifier: BSD-3-Clause */
/* ipsec.c: sequence numbers of ESP (RFC 4303 section 3.3.3). */
#include "nf.h"

/* The last sequence number given out. It never wraps: the SA ends instead. */
typedef struct {
    uint64_t last;
} sa_state;

static void prepare(hb_nf_seat *seat, const uint32_t *handles, uint64_t *arg, uint32_t n)
{
    (void)handles;
    sa_state *sa = seat->state;
    for (uint32_t i = 0; i < n; i++)
        arg[i] = sa->last < 0xffffffffu ? ++sa->last : 0;
}

static const hb_nf_engine engines[] = {{.name = "cpu", .run = hb_loop_ipsec}};
extern const hb_nf_kind hb_ipsec_kind;
const hb_nf_kind hb_ipsec_kind = {
    .state_bytes = sizeof(sa_state), .prepare = prepare, .engines = engines, .nb_engines = 1};
