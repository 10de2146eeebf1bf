/* SPDX-License-Identifier: BSD-3-Clause */
/* af_xdp.h: what the AF_XDP driver's own files, and its tests, share. */
#ifndef HB_PORT_AF_XDP_H
#define HB_PORT_AF_XDP_H
#include "port.h"
#include "xdp.h"
#include "xsk.h"

/* A port over an open socket, which it takes over, with rings of so many entries. NULL: out of
 * memory. */
hb_port *hb_af_xdp_over(const hb_xsk *xsk, const hb_port_home *home, uint32_t entries);

/* What was tried when opening failed. */
typedef struct {
    const char *interface;
    uint32_t queue;  /* the one that failed ... */
    uint32_t queues; /* ... of so many */
    int mode;        /* HB_AF_XDP_* */
    uint64_t bytes;  /* of the frames */
    uint32_t mbufs;
} hb_xdp_attempt;
/* What is wrong, and in a second line what mends it. xdp_error.c */
void hb_xdp_explain(const hb_xdp_failure *failure, const hb_xdp_attempt *attempt, char *error,
                    size_t error_size);

#endif
