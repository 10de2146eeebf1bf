/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nids_scan.h: search in payloads on the CPU, over the table of hummingbird/nfs/automaton.py.
 * Offsets are bytes from the first packet byte.
 */
#ifndef HB_NIDS_SCAN_H
#define HB_NIDS_SCAN_H
#include <stdint.h>

#include "nf.h"

/* What of a packet is searched: bytes at .. end-1; at <= end <= the packet's length. Empty for a
 * packet that is not IP. The packet function and all engines search the same bytes. */
typedef struct {
    uint32_t at;
    uint32_t end;
} hb_nids_span;

hb_nids_span hb_nids_span_of(const hb_packet *p);

/* The numbers of the patterns that occur in payload[0 .. n-1], letter case taken into account where
 * the pattern does, each once, ascending. Writes the lowest `most` of them; returns how many it
 * wrote. */
uint32_t hb_nids_ids(const hb_table *t, const uint8_t *payload, uint32_t n, uint32_t *ids,
                     uint32_t most);

#endif
