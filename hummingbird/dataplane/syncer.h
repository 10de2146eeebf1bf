/* SPDX-License-Identifier: BSD-3-Clause */
/* syncer.h: the CPUSyncer of one lcore (paper Algorithm 2): its workgroups and the GNFs it feeds.
 * Everything here is written by that lcore only. */
#ifndef HB_SYNCER_H
#define HB_SYNCER_H
#include "dataplane.h"
#include "device.h"
#include "flow_queue.h"

/* One logical workgroup. Indices run free; reaped <= GpuIndex <= published <= reaped + depth. */
typedef struct {
    uint32_t w;          /* number in the control region */
    uint32_t published;  /* CpuIndex as last stored */
    uint32_t reaped;     /* rows taken back */
    uint32_t *cpu_word;  /* CpuIndex */
    uint32_t *gpu_word;  /* GpuIndex */
    uint64_t idle_since; /* tick at which it ran dry */
    uint32_t open_count; /* packets in its row that is being filled */
    uint32_t *shadow;    /* [depth][lanes] handles: a row's packets, whatever the device writes */
    uint16_t *shadow_count; /* [depth] */
    hb_burst_sum *sum;      /* [depth]: of the row's packets as they were published */
} hb_workgroup;

/* A GNF as this syncer sees it. */
typedef struct {
    uint32_t node;
    uint32_t program;
    uint32_t groups;
    hb_workgroup *group;  /* [groups] */
    hb_workgroup *open;   /* has the row being filled, or NULL; with `flows` each may have one */
    uint32_t rows;        /* published and not reaped */
    hb_flow_queue *flows; /* NULL: it has no state of flows */
    uint32_t *order;      /* ring of group numbers in the order of publishing, [groups * depth] */
    uint32_t order_mask;
    uint32_t order_head, order_tail;
} hb_gnf;

struct hb_syncer {
    hb_device_ctl *device;
    uint32_t gnfs;
    hb_gnf gnf[HB_MAX_NODES];
    bool writes_tick; /* the device's first syncer does */
    uint32_t tick;    /* last written, microseconds */
    double ticks_per_us;
    uint32_t losses; /* cleaned up after, so far */
};

/* Workgroups are numbered by GNF, then by syncer: first_w is the next free one. NULL without
 * memory. */
hb_syncer *hb_syncer_new(hb_lcore *lc, hb_device_ctl *device, uint32_t *first_w, bool writes_tick);
void hb_syncer_free(hb_syncer *s);

#endif
