/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * xdp.h: the XDP program that gives the packets of an interface to our sockets, one program for all
 * queues: return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS). What comes in at a
 * queue without a socket goes to the kernel, as if there were no program.
 *
 * It hangs on a bpf_link, which is a file of this process: the kernel takes the program off the
 * interface however the process ends. Control thread only.
 */
#ifndef HB_XDP_H
#define HB_XDP_H
#include "xsk.h"

typedef struct {
    uint32_t ifindex; /* 0: closed */
    bool native;      /* the driver runs it; else the kernel does, behind the driver */
    int refused;      /* errno with which the driver refused it; 0: it did not */
    int map; /* the sockets, by queue; file descriptors, -1 for none, like the next three */
    int program;
    int link;
    int promisc; /* while it is open the interface takes packets to other MAC addresses, too */
} hb_xdp;

/* How it is attached. */
enum hb_xdp_attach { HB_XDP_NATIVE, HB_XDP_GENERIC, HB_XDP_EITHER };

/* 0, or -1: *failure says why, and nothing is left. */
int hb_xdp_open(hb_xdp *x, const char *interface, uint32_t queues, enum hb_xdp_attach attach,
                hb_xdp_failure *failure);
/* Also if it is closed, or was opened half-way. */
void hb_xdp_close(hb_xdp *x);
/* Packets of this queue go to this socket from now on, until it is closed. 0, or -1. */
int hb_xdp_enter(const hb_xdp *x, uint32_t queue, int socket, hb_xdp_failure *failure);

#endif
