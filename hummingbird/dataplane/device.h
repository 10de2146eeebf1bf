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
    HB_DEVICE_HUNG, /* a launch does not end: its packets stay in quarantine for good */
    HB_DEVICE_GONE  /* the executor has ended: what the device has, or waits for it, is dropped */
};

#define HB_OVERDUE_NS 10000000000u /* a launch this late hangs */

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
    uint64_t overdue_ns;        /* HB_OVERDUE_NS; less in tests */

    /* Dekker pair with the syncers' publish: see hb_device_wake() and hb_device_sleep(). */
    alignas(128) _Atomic uint32_t asleep; /* executor: 1 while it waits for work */
    _Atomic uint32_t bell;                /* futex; changed by whoever wakes the executor */
    alignas(128) _Atomic uint32_t
        condition; /* enum; written by the executor, by hb_device_look(), in the end by hb_stop() */
    _Atomic uint32_t losses; /* counts losses; written by the executor */
    _Atomic uint32_t acks;   /* syncers that have cleaned up after the latest loss */
    _Atomic uint32_t stop;   /* written by hb_stop() */
    _Atomic uint32_t failed; /* 1: some launch failed since the start */
    /* A syncer saw a GpuIndex that cannot be: written 1 by syncers, 0 by the executor. */
    _Atomic uint32_t suspect;
    _Atomic uint32_t callbacks; /* of events, that are still to come */
    _Atomic int others;         /* 1 while the executor's thread runs; see let_go() */
    /* Staged: chunks of the tables region that the host has changed since they were copied, a bit
     * each. Set by the control thread, cleared by the executor; `tables_changed` says that some bit
     * is set. NULL unless staged. */
    _Atomic uint64_t *changed;
    _Atomic uint32_t tables_changed;
    /* Staged, a Dekker pair: the control thread is in the middle of a change; the executor copies.
     * Never both. */
    _Atomic uint32_t tables_changing;
    _Atomic uint32_t tables_copying;
    /* Executor: monotonic ns when it began to wait in the driver, or 0. Whoever looks: given up. */
    _Atomic uint64_t waits_since;
};

static inline uint32_t hb_device_bell(struct hb_device_ctl *d)
{
    return atomic_load_explicit(&d->bell, memory_order_acquire);
}

static inline bool hb_device_stops(struct hb_device_ctl *d)
{
    return atomic_load_explicit(&d->stop, memory_order_acquire);
}

static inline uint32_t *hb_control_word(struct hb_control *c, uint32_t off, uint32_t i)
{
    return (uint32_t *)((uint8_t *)c + off + (uint64_t)i * HB_LINE);
}

/* Array of rows or slots of workgroup w. */
static inline void *hb_control_array(struct hb_control *c, uint32_t off)
{
    return (uint8_t *)c + off;
}

/* A device without a data plane: its queue is empty, program 0 declares what `nf` says. For the
 * probe and for benchmarks. NULL without memory. */
struct hb_device_ctl *hb_device_alone(const hb_device *config, void *frames, uint32_t frame_size,
                                      const hb_nf *nf, hb_device_stats *stats);
int hb_device_start(struct hb_device_ctl *d);
void hb_device_stop(struct hb_device_ctl *d);
void hb_device_free(struct hb_device_ctl *d);

/* Syncer, after publishing: wake the executor if it sleeps. */
void hb_device_wake(struct hb_device_ctl *d);
/* Executor: any published row that the device has not finished? */
bool hb_device_pending(struct hb_device_ctl *d);
/* Executor: wait until woken since `bell` was read, at most timeout_us. Whoever waits for something
 * reads the bell first, then looks for it, then sleeps: so no ring is missed. */
void hb_device_sleep(struct hb_device_ctl *d, uint32_t bell, uint32_t timeout_us);
/* Executor: wait for a published row, at most timeout_us. */
void hb_device_sleep_for_work(struct hb_device_ctl *d, uint32_t timeout_us);
/* Executor: the launch failed. Tell the syncers, wait until all have cleaned up, and then longer
 * after each failure in a row. */
void hb_device_lose(struct hb_device_ctl *d);
/* The executor has ended, others go on: have the syncers drop what no device will run. */
void hb_device_abandon(struct hb_device_ctl *d);
/* Control thread, at set-up: keep track of changes if the device has a copy. 0, or -1 without
 * memory. */
int hb_device_track_tables(struct hb_device_ctl *d);
/* Control thread: around a change of the tables; begin waits until no copy is made. */
void hb_device_begin_tables(struct hb_device_ctl *d);
void hb_device_end_tables(struct hb_device_ctl *d);
/* Control thread, between these two: these bytes of the tables region have changed. */
void hb_device_mark_tables(struct hb_device_ctl *d, const void *at, uint64_t bytes);
/* Executor, staged: copy what has changed in the tables, unless a change is being made: then the
 * copy stays as it is until the next launch. CL_SUCCESS or an error. */
int hb_device_copy_tables(struct hb_device_ctl *d);
/* Control thread: wait until the device has finished every row that is published now. */
void hb_device_wait_rows(struct hb_device_ctl *d);
void hb_device_ring(struct hb_device_ctl *d);
/* Executor: from now on this thread may run on any CPU of the process. It was started on those that
 * a CPU runtime shall use, because that starts its threads from here; but a kernel that spins there
 * until this thread answers it would keep it waiting for milliseconds. */
void hb_device_roam(void);
/* Ring the bell when this cl_event is over. */
void hb_device_watch(struct hb_device_ctl *d, void *event);
/* Executor: wait in the driver until this cl_event is over, so that a CPU runtime may run the
 * launch on this thread. False: hb_device_look() has given it up; touch nothing of it any more. */
bool hb_device_wait(struct hb_device_ctl *d, void *event);
/* First syncer, now and then: has the executor waited in the driver for too long? Then it hangs. */
void hb_device_look(struct hb_device_ctl *d);
/* Syncer: the device wrote what cannot be. The executor ends the launch and takes it for failed. */
void hb_device_suspect(struct hb_device_ctl *d);

void hb_run_persistent(struct hb_device_ctl *d); /* exec_persistent.c */
void hb_run_launch(struct hb_device_ctl *d);     /* exec_launch.c */

#endif
