/* SPDX-License-Identifier: BSD-3-Clause */
/* Stand-in until the search is there: all patterns may occur. */
#include "nids_scan.h"
uint32_t hb_nids_ids(const hb_table *t, const uint8_t *payload, uint32_t n, uint32_t *ids, uint32_t most)
{
    (void)t, (void)payload, (void)n;
    for (uint32_t i = 0; i < most; i++)
        ids[i] = i;
    return most;
}
