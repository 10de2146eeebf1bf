/* SPDX-License-Identifier: BSD-3-Clause */
/* device.c: the executor's thread: start, stop, sleep and wake, and what happens when a launch
 * fails. */
#include "device.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clapi.h"
#include "clock.h"

#define GIVEN_UP UINT64_MAX /* in waits_since */

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

void hb_device_sleep(struct hb_device_ctl *d, uint32_t bell, uint32_t timeout_us)
{
    struct timespec t = {timeout_us / 1000000, (long)(timeout_us % 1000000) * 1000};
    syscall(SYS_futex, &d->bell, FUTEX_WAIT_PRIVATE, bell, &t, NULL, 0);
}

void hb_device_sleep_for_work(struct hb_device_ctl *d, uint32_t timeout_us)
{
    uint32_t bell = hb_device_bell(d);
    atomic_store_explicit(&d->asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* see hb_device_wake() */
    if (!hb_device_pending(d) && !hb_device_stops(d))
        hb_device_sleep(d, bell, timeout_us);
    atomic_store_explicit(&d->asleep, 0, memory_order_relaxed);
}

/* The last thing the callback does is to count itself off: after that d may be freed. */
static void CL_CALLBACK ended(cl_event event, cl_int status, void *device)
{
    struct hb_device_ctl *d = device;
    (void)event, (void)status;
    hb_device_ring(d);
    atomic_fetch_sub_explicit(&d->callbacks, 1, memory_order_release);
}

void hb_device_watch(struct hb_device_ctl *d, void *event)
{
    atomic_fetch_add_explicit(&d->callbacks, 1, memory_order_relaxed);
    if (hb_cl(event)->clSetEventCallback(event, CL_COMPLETE, ended, d) != CL_SUCCESS)
        atomic_fetch_sub_explicit(&d->callbacks, 1, memory_order_relaxed);
}

/* Of hb_device_wait() and hb_device_look() one alone ends the wait: the one whose exchange wins. */
bool hb_device_wait(struct hb_device_ctl *d, void *event)
{
    uint64_t since = hb_monotonic_ns();
    cl_event e = event;
    /* release, to given_up(): who finds it given up may read what this thread has counted */
    atomic_store_explicit(&d->waits_since, since, memory_order_release);
    hb_cl(e)->clWaitForEvents(1, &e); /* whether it failed is asked again */
    return atomic_compare_exchange_strong(&d->waits_since, &since, 0);
}

static bool given_up(struct hb_device_ctl *d)
{
    return atomic_load_explicit(&d->waits_since, memory_order_acquire) == GIVEN_UP;
}

void hb_device_look(struct hb_device_ctl *d)
{
    uint64_t since = atomic_load_explicit(&d->waits_since, memory_order_relaxed);
    uint64_t now = hb_monotonic_ns();
    if (since && since != GIVEN_UP && now > since && now - since > d->overdue_ns &&
        atomic_compare_exchange_strong(&d->waits_since, &since, GIVEN_UP))
        atomic_store_explicit(&d->condition, HB_DEVICE_HUNG, memory_order_release);
}

void hb_device_suspect(struct hb_device_ctl *d)
{
    if (atomic_exchange_explicit(&d->suspect, 1, memory_order_relaxed) == 0)
        hb_device_ring(d);
}

/* Longer after each failure in a row, so that a device that is broken is not driven on and on. */
static void back_off(struct hb_device_ctl *d)
{
    uint32_t doublings = d->failures_in_a_row++;
    uint64_t now = hb_monotonic_ns();
    uint64_t until = now + (doublings < 7 ? 10000000ull << doublings : 1000000000);
    for (; now < until; now = hb_monotonic_ns()) {
        uint32_t bell = hb_device_bell(d);
        if (hb_device_stops(d))
            break;
        hb_device_sleep(d, bell, (uint32_t)((until - now) / 1000 + 1));
    }
}

/* Have every syncer drop what the launch did not finish. */
static void have_cleaned_up(struct hb_device_ctl *d)
{
    atomic_store_explicit(&d->acks, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&d->losses, 1, memory_order_relaxed);
    /* release: the syncers that see LOST see the launch over and the counters reset */
    atomic_store_explicit(&d->condition, HB_DEVICE_LOST, memory_order_release);
    for (;;) {
        uint32_t bell = hb_device_bell(d);
        if (atomic_load_explicit(&d->acks, memory_order_acquire) >= d->syncers ||
            hb_device_stops(d))
            break;
        hb_device_sleep(d, bell, 1000);
    }
    atomic_store_explicit(&d->suspect, 0, memory_order_relaxed);
    atomic_store_explicit(&d->condition, HB_DEVICE_HEALTHY, memory_order_release);
}

void hb_device_lose(struct hb_device_ctl *d)
{
    d->stats->failures++;
    atomic_store_explicit(&d->failed, 1, memory_order_relaxed);
    have_cleaned_up(d);
    back_off(d);
}

void hb_device_abandon(struct hb_device_ctl *d)
{
    /* release: the launches are over for whoever sees it */
    if (atomic_load_explicit(&d->condition, memory_order_acquire) != HB_DEVICE_HUNG)
        atomic_store_explicit(&d->condition, HB_DEVICE_GONE, memory_order_release);
}

/* The executor's thread and its maker: who leaves last frees it. */
static void let_go(struct hb_device_ctl *d)
{
    if (atomic_fetch_sub(&d->others, 1) != 0)
        return;
    free(d->changed);
    free(d);
}

void hb_device_roam(void)
{
    cpu_set_t all;
    if (!sched_getaffinity(getpid(), sizeof all, &all)) /* the main thread's */
        pthread_setaffinity_np(pthread_self(), sizeof all, &all);
}

static void *executor_main(void *arg)
{
    struct hb_device_ctl *d = arg;
    pthread_setname_np(pthread_self(), "hb-executor");
    prctl(PR_SET_TIMERSLACK, 1000ul); /* ns; 50 us otherwise, more than most sleeps of ours */
    if (d->config.executor == HB_EXECUTOR_PERSISTENT)
        hb_run_persistent(d);
    else
        hb_run_launch(d);
    let_go(d);
    return NULL;
}

struct hb_device_ctl *hb_device_alone(const hb_device *config, void *frames, uint32_t frame_size,
                                      const hb_nf *nf, hb_device_stats *stats)
{
    struct hb_device_ctl *d = aligned_alloc(128, (sizeof *d + 127) / 128 * 128);
    if (!d)
        return NULL;
    memset(d, 0, sizeof *d);
    d->config = *config;
    d->control = config->control;
    d->stats = stats;
    d->frames = frames;
    d->frame_size = frame_size;
    d->program[0] = nf;
    hb_control_init(d->control, config->workgroups, config->lanes, config->depth, config->groups);
    return d;
}

int hb_device_start(struct hb_device_ctl *d)
{
    if (!d->overdue_ns)
        d->overdue_ns = HB_OVERDUE_NS;
    atomic_store(&d->others, 1);
    d->started = !pthread_create(&d->thread, NULL, executor_main, d);
    if (!d->started)
        atomic_store(&d->others, 0);
    return d->started ? 0 : -1;
}

/* Of a launch that hangs they may come any time, or never. */
static bool pending_callbacks(struct hb_device_ctl *d)
{
    return atomic_load_explicit(&d->callbacks, memory_order_acquire) &&
           atomic_load_explicit(&d->condition, memory_order_relaxed) != HB_DEVICE_HUNG;
}

void hb_device_stop(struct hb_device_ctl *d)
{
    if (!d->started)
        return;
    atomic_store_explicit(&d->stop, 1, memory_order_release);
    hb_device_ring(d);
    struct timespec t = {0, 100000};
    if (d->config.on_cpu)
        for (; !given_up(d) && pthread_tryjoin_np(d->thread, NULL); nanosleep(&t, NULL))
            hb_device_look(d);
    else
        pthread_join(d->thread, NULL);
    if (given_up(d))
        pthread_detach(d->thread);
    d->started = false;
    /* a runtime may call back a while after it says that an event is over */
    for (uint32_t i = 0; i < 10000 && pending_callbacks(d); i++)
        nanosleep(&t, NULL);
}

void hb_device_free(struct hb_device_ctl *d)
{
    /* a callback that is still to come writes here: then the memory is left to it */
    if (!atomic_load_explicit(&d->callbacks, memory_order_acquire))
        let_go(d);
}
