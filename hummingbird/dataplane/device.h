/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * device.h: what CPUSyncers and an executor share about a device (host side of docs/protocol.md).
 *
 * The executor is one thread that never touches a packet header; it starts kernels and, for
 * HB_EXECUTOR_LAUNCH, plays the device's side of the queue. Syncers cannot tell the two apart.
 */
#ifndef HB_DEVICE_H
#define HB_DEVICE_H
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "api.h"
#include "hummingbird.h"

enum hb_device_condition {
    HB_DEVICE_HEALTHY,
    HB_DEVICE_LOST, /* a launch failed and is over: syncers drop its unfinished rows and acknowledge
                     */
    HB_DEVICE_HUNG  /* a launch does not end: its packets stay in quarantine for good */
};

struct hb_device_ctl {
    hb_device config;
    struct hb_control *control;
    hb_device_stats *stats; /* written by the executor */
    uint8_t *frames;        /* of the arena, for staging */
    uint32_t frame_size;
    const hb_nf *program[HB_MAX_NODES]; /* what the NF of each program declares */
    pthread_t thread;
    bool started;
    uint32_t syncers;           /* lcores that must acknowledge a loss */
    uint32_t failures_in_a_row; /* launches; the executor's, for its back-off */

    /* Dekker pair with the syncers' publish: see hb_device_wake() and hb_device_sleep(). */
    alignas(128) _Atomic uint32_t asleep;    /* executor: 1 while it waits for work */
    _Atomic uint32_t bell;                   /* futex; changed by whoever wakes the executor */
    alignas(128) _Atomic uint32_t condition; /* enum hb_device_condition; written by the executor */
    _Atomic uint32_t losses;                 /* counts losses; written by the executor */
    _Atomic uint32_t acks;   /* syncers that have cleaned up after the latest loss */
    _Atomic uint32_t stop;   /* written by hb_stop() */
    _Atomic uint32_t failed; /* 1: some launch failed since the start */
};

static inline uint32_t *hb_control_word(struct hb_control *c, uint32_t off, uint32_t i)
{
    return (uint32_t *)((uint8_t *)c + off + (uint64_t)i * HB_LINE);
}

/* Array of rows or slots of workgroup w. */
static inline void *hb_control_array(struct hb_control *c, uint32_t off)
{
    return (uint8_t *)c + off;
}

int hb_device_start(struct hb_device_ctl *d);
void hb_device_stop(struct hb_device_ctl *d);
void hb_device_free(struct hb_device_ctl *d);

/* Syncer, after publishing: wake the executor if it sleeps. */
void hb_device_wake(struct hb_device_ctl *d);
/* Executor: any published row that the device has not finished? */
bool hb_device_pending(struct hb_device_ctl *d);
/* Executor: wait until woken, at most timeout_us; returns at once if rows are pending and
 * `for_work` is set. */
void hb_device_sleep(struct hb_device_ctl *d, bool for_work, uint32_t timeout_us);
/* Executor: the launch failed. Tell the syncers, wait until all have cleaned up, and then longer
 * after each failure in a row. */
void hb_device_lose(struct hb_device_ctl *d);
/* The executor has ended with rows unfinished: have the syncers drop them. */
void hb_device_abandon(struct hb_device_ctl *d);
/* Ring the bell; also from an OpenCL callback. */
void hb_device_ring(struct hb_device_ctl *d);

void hb_run_persistent(struct hb_device_ctl *d); /* exec_persistent.c */
void hb_run_launch(struct hb_device_ctl *d);     /* exec_launch.c */

#endif
