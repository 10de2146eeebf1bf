/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_try.c: see nids_scan_api.h. */
#include <stdlib.h>

#include "nids_scan.h"
#include "nids_scan_api.h"

/* A header for each packet of a burst, as ports and the parser would have filled it. */
static void fill(hb_mbuf *headers, uint32_t *handles, const struct hb_work *work, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        handles[i] = i;
        headers[i] = (hb_mbuf){.frame = work[i].frame,
                               .data_off = work[i].offset,
                               .data_len = work[i].length,
                               .l3 = work[i].l3,
                               .l4 = work[i].l4};
    }
}

static void run(hb_nf_seat *seat, const struct hb_work *work, uint64_t *result, uint32_t n)
{
    uint32_t handles[HB_BURST];
    hb_answers answers;
    for (uint32_t at = 0; at < n; at += HB_BURST) {
        uint32_t some = n - at < HB_BURST ? n - at : HB_BURST;
        fill(seat->arena->headers, handles, work + at, some);
        answers.n = 0;
        seat->engine->run(seat, &(hb_nf_burst){.arena = seat->arena,
                                               .states = &seat->states,
                                               .table = &seat->table,
                                               .n = some,
                                               .handles = handles,
                                               .result = result + at,
                                               .answers = &answers});
    }
}

int hb_nids_try(uint32_t engine, void *frames, uint32_t frame_size, const void *tables,
                const void *work, uint64_t *result, uint32_t n)
{
    const hb_nf_engine *e = &hb_nids_engines[engine];
    hb_mbuf *headers = aligned_alloc(64, HB_BURST * sizeof *headers);
    void *state = calloc(1, e->state_bytes + 1);
    hb_arena arena = {
        .frames = frames, .headers = headers, .frame_size = frame_size, .mbufs = HB_BURST};
    hb_nf_seat seat = {
        .engine = e, .arena = &arena, .table = hb_nf_table(tables, 0), .engine_state = state};
    int failed = !headers || !state || (e->open && e->open(&seat));
    if (!failed) {
        run(&seat, work, result, n);
        if (e->close)
            e->close(&seat);
    }
    free(headers);
    free(state);
    return failed ? -1 : 0;
}

uint32_t hb_nids_try_ids(const void *tables, const uint8_t *payload, uint32_t n, uint32_t *ids,
                         uint32_t most)
{
    hb_table t = hb_nf_table(tables, 0);
    return hb_nids_ids(&t, payload, n, ids, most);
}
