/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dpdk.h: what the data plane (port/dpdk.c) and its plug-in for DPDK (dpdk/) say to each other. The
 * plug-in is a library of its own, so that only topologies with such a port need DPDK; and there
 * may be two of it, for the DPDK of the distribution and for a patched one.
 */
#ifndef HB_DPDK_H
#define HB_DPDK_H
#include "port.h"

/* HB_DPDK_INTERFACE, a checksum of this header and those below it, comes from build.py; the two
 * sides work together only if they have been compiled with the same one. */

/* What the plug-in calls. */
typedef struct {
    uint32_t (*alloc)(hb_cache *c, uint32_t *handles, uint32_t n);
    void (*release)(hb_cache *c, const uint32_t *handles, uint32_t n);
} hb_dpdk_core;

/* What it exports, under the name below. */
typedef struct {
    uint32_t interface; /* HB_DPDK_INTERFACE */
    /* Open a device: params->queues ports, one for each queue, in queues[]. Starts DPDK if this is
     * the process's first one. `core` has to last. 0, or -1 and a text in error: what is wrong, and
     * behind a line feed how to mend it. Control thread. */
    int (*open)(const hb_dpdk_core *core, const hb_port_home *home, const hb_dpdk *params,
                hb_port **queues, char *error, size_t error_size);
} hb_dpdk_calls;
#define HB_DPDK_PLUGIN "hb_dpdk_plugin"

#endif
