/* SPDX-License-Identifier: BSD-3-Clause */
/* device.c: the executor's thread: start, stop, sleep and wake, and what happens when a launch
 * fails. */
#include "device.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void hb_device_ring(struct hb_device_ctl *d)
{
    atomic_fetch_add_explicit(&d->bell, 1, memory_order_release);
    syscall(SYS_futex, &d->bell, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void hb_device_wake(struct hb_device_ctl *d)
{
    /* seq_cst fence: our CpuIndex store is before our look at `asleep`, as the executor's store of
     * `asleep` is before its look at CpuIndex: one of the two sees the other (Dekker). */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&d->asleep, memory_order_relaxed))
        hb_device_ring(d);
}

bool hb_device_pending(struct hb_device_ctl *d)
{
    struct hb_control *c = d->control;
    for (uint32_t w = 0; w < d->config.workgroups; w++)
        if (hb_load_acquire(hb_control_word(c, c->cpu_off, w)) !=
            hb_load_acquire(hb_control_word(c, c->gpu_off, w)))
            return true;
    return false;
}

void hb_device_sleep(struct hb_device_ctl *d, bool for_work, uint32_t timeout_us)
{
    uint32_t bell = atomic_load_explicit(&d->bell, memory_order_acquire);
    if (for_work) {
        atomic_store_explicit(&d->asleep, 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst); /* see hb_device_wake() */
        if (hb_device_pending(d) || atomic_load_explicit(&d->stop, memory_order_acquire))
            timeout_us = 0;
    }
    if (timeout_us) {
        struct timespec t = {timeout_us / 1000000, (long)(timeout_us % 1000000) * 1000};
        syscall(SYS_futex, &d->bell, FUTEX_WAIT_PRIVATE, bell, &t, NULL, 0);
    }
    if (for_work)
        atomic_store_explicit(&d->asleep, 0, memory_order_relaxed);
}

/* No launch runs. Have every syncer drop what the device did not finish; wait until they have, or
 * for a second if nothing else would end the wait. */
static void have_cleaned_up(struct hb_device_ctl *d, bool executor)
{
    atomic_store_explicit(&d->acks, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&d->losses, 1, memory_order_relaxed);
    /* release: the syncers that see LOST see the launch over and the counters reset */
    atomic_store_explicit(&d->condition, HB_DEVICE_LOST, memory_order_release);
    for (uint32_t ms = 0; atomic_load_explicit(&d->acks, memory_order_acquire) < d->syncers; ms++) {
        if (executor ? atomic_load_explicit(&d->stop, memory_order_acquire) : ms > 1000)
            break;
        hb_device_sleep(d, false, 1000);
    }
    atomic_store_explicit(&d->condition, HB_DEVICE_HEALTHY, memory_order_release);
}

void hb_device_lose(struct hb_device_ctl *d)
{
    d->stats->failures++;
    atomic_store_explicit(&d->failed, 1, memory_order_relaxed);
    have_cleaned_up(d, true);
    uint32_t doublings = d->failures_in_a_row++;
    hb_device_sleep(d, false, doublings < 7 ? 10000u << doublings : 1000000u);
}

void hb_device_abandon(struct hb_device_ctl *d)
{
    if (atomic_load_explicit(&d->condition, memory_order_acquire) != HB_DEVICE_HUNG)
        have_cleaned_up(d, false);
}

static void *executor_main(void *arg)
{
    struct hb_device_ctl *d = arg;
    pthread_setname_np(pthread_self(), "hb-executor");
    if (d->config.executor == HB_EXECUTOR_PERSISTENT)
        hb_run_persistent(d);
    else
        hb_run_launch(d);
    return NULL;
}

int hb_device_start(struct hb_device_ctl *d)
{
    d->started = !pthread_create(&d->thread, NULL, executor_main, d);
    return d->started ? 0 : -1;
}

void hb_device_stop(struct hb_device_ctl *d)
{
    if (!d->started)
        return;
    atomic_store_explicit(&d->stop, 1, memory_order_release);
    hb_device_ring(d);
    pthread_join(d->thread, NULL);
    d->started = false;
}

void hb_device_free(struct hb_device_ctl *d)
{
    free(d);
}
