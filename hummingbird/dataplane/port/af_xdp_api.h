/* SPDX-License-Identifier: BSD-3-Clause */
/* af_xdp_api.h: a network interface by AF_XDP sockets; cffi reads this file, as api.h. */
#ifndef HB_AF_XDP_API_H
#define HB_AF_XDP_API_H
#include "api.h"

/* What XDP mode a port takes. */
#define HB_AF_XDP_AUTO 0 /* the best that works, in the order of the next three */
#define HB_AF_XDP_ZERO_COPY 1
#define HB_AF_XDP_NATIVE 2  /* the driver runs the program, the kernel copies packets */
#define HB_AF_XDP_GENERIC 3 /* the kernel runs the program behind the driver, and copies */

typedef struct {
    const char *interface;
    uint32_t queues; /* the interface's first ones, 1 to HB_MAX_LCORES */
    int mode;        /* HB_AF_XDP_* */
} hb_af_xdp;
/* Queue k is served by lcores[k]. The text in hb_error() may have a second line: what mends it. */
int hb_add_af_xdp(hb_dataplane *dp, const uint32_t *lcores, const hb_af_xdp *params);

#endif
