/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nids_scan.h: the search in payloads on the CPU, over the table that cl_kernels/nf/nids.cl
 * describes. All engines give the result described there.
 */
#ifndef HB_NIDS_SCAN_H
#define HB_NIDS_SCAN_H
#include <stdint.h>

#include "nf.h"

/* The engines of the NIDS, for hb_nids_kind: "cpu", and "hyperscan" where it is built in. */
#ifdef HB_HAVE_HYPERSCAN
#define HB_NIDS_ENGINES 2
#else
#define HB_NIDS_ENGINES 1
#endif
extern const hb_nf_engine hb_nids_engines[HB_NIDS_ENGINES];

/* The numbers of the patterns that occur in payload[0 .. n-1], each once, ascending. Writes the
 * lowest `most` of them; returns how many it wrote. */
uint32_t hb_nids_ids(const hb_table *t, const uint8_t *payload, uint32_t n, uint32_t *ids,
                     uint32_t most);

/* hb_nids_engines[1]: nids_hyperscan.c. */
bool hb_nids_hyperscan_usable(void);
int hb_nids_hyperscan_open(hb_nf_seat *seat);
void hb_nids_hyperscan_close(hb_nf_seat *seat);
void hb_nids_hyperscan_run(hb_nf_seat *seat, const hb_nf_burst *burst);
#define HB_NIDS_HYPERSCAN_STATE (2 * sizeof(void *))

#endif
