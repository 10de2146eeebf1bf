/* SPDX-License-Identifier: BSD-3-Clause */
/* firewall.h: the parts of the firewall on the host. */
#ifndef HB_FIREWALL_H
#define HB_FIREWALL_H
#include "nf.h"

#include "nf/firewall.cl"

/* firewall_engine.c: as the packet function in a loop, but the rules are searched for many packets
 * at once; by any processor's instructions, and by those of AVX2. */
void hb_firewall_run_plain(hb_nf_seat *seat, const hb_nf_burst *b);
#if defined(__x86_64__)
void hb_firewall_run_avx2(hb_nf_seat *seat, const hb_nf_burst *b);
bool hb_firewall_has_avx2(void);
#define HB_FIREWALL_ENGINES                                                                        \
    {.name = "cpu", .run = hb_firewall_run_plain},                                                 \
    {                                                                                              \
        .name = "avx2", .usable = hb_firewall_has_avx2, .run = hb_firewall_run_avx2                \
    }
#else
#define HB_FIREWALL_ENGINES                                                                        \
    {                                                                                              \
        .name = "cpu", .run = hb_firewall_run_plain                                                \
    }
#endif

#endif
