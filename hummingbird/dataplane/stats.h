/* SPDX-License-Identifier: BSD-3-Clause */
/* stats.h: the counters' region, shared with readers that the data plane does not know. */
#ifndef HB_STATS_H
#define HB_STATS_H
#include "dataplane.h"

/* Write the head of the region; returns the device's counters in it. */
hb_device_stats *hb_stats_init(void *region, uint32_t lcores, uint32_t nodes, uint32_t types);
/* From now on packets are counted. */
void hb_stats_begin(hb_stats_head *h);
/* Point an lcore at its block. */
void hb_stats_attach(hb_lcore *lc);

#endif
