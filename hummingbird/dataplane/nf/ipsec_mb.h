/* SPDX-License-Identifier: BSD-3-Clause */
/* ipsec_mb.h: the engine "ipsec_mb" of ipsec, where libipsec-mb is installed. */
#ifndef HB_IPSEC_MB_H
#define HB_IPSEC_MB_H
#include "nf.h"

#ifdef HB_HAVE_IPSEC_MB
bool hb_ipsec_mb_usable(void);
int hb_ipsec_mb_open(hb_nf_seat *seat);
void hb_ipsec_mb_close(hb_nf_seat *seat);
void hb_ipsec_mb_run(hb_nf_seat *seat, const hb_nf_burst *burst);

/* state: a pointer to what open() made. Goes into ipsec's list of engines, behind "cpu" and a
 * comma. */
#define HB_IPSEC_MB_ENGINE                                                                         \
    {                                                                                              \
        .name = "ipsec_mb", .usable = hb_ipsec_mb_usable, .state_bytes = sizeof(void *),           \
        .open = hb_ipsec_mb_open, .close = hb_ipsec_mb_close, .run = hb_ipsec_mb_run               \
    }
#else
#define HB_IPSEC_MB_ENGINE
#endif

#endif
