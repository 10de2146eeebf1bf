/* SPDX-License-Identifier: BSD-3-Clause */
/* interface_api.h: network interfaces whose packets the kernel copies; cffi reads this file, as
 * api.h. */
#ifndef HB_INTERFACE_API_H
#define HB_INTERFACE_API_H
#include "api.h"

typedef struct {
    const char *interface;
    uint32_t queues; /* 1 to HB_MAX_LCORES; queue k is served by lcores[k] */
} hb_interface;
/* Of an interface that exists, by packet sockets. The text in hb_error() may have a second line:
 * what mends it. */
int hb_add_af_packet(hb_dataplane *dp, const uint32_t *lcores, const hb_interface *params);
/* Of a tap, which is made, and gone when the port is closed; likewise. */
int hb_add_tap(hb_dataplane *dp, const uint32_t *lcores, const hb_interface *params);

#endif
