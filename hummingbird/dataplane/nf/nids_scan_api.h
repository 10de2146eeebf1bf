/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_scan_api.h: the search of the NIDS by itself, for tests and tools. */
#ifndef HB_NIDS_SCAN_API_H
#define HB_NIDS_SCAN_API_H
#include <stdint.h>

/* Run an engine (hb_nf_engine_name()) of NF 0 of a tables region, which is a NIDS, on n packets
 * laid out as for hb_run_program(). result[i] as cl_kernels/nf/nids.cl says. 0; -1 if the engine
 * does not open. */
int hb_nids_try(uint32_t engine, void *frames, uint32_t frame_size, const void *tables,
                const void *work, uint64_t *result, uint32_t n);

/* hb_nids_ids() over the same table. */
uint32_t hb_nids_try_ids(const void *tables, const uint8_t *payload, uint32_t n, uint32_t *ids,
                         uint32_t most);

#endif
