/* SPDX-License-Identifier: BSD-3-Clause */
/* exec_persistent.c: keeps one persistent kernel running while there are rows (docs/protocol.md).
 */
#include "clapi.h"
#include "clock.h"
#include "device.h"

#define CHECKIN_NS 5000000u /* groups that have not checked in by then are not resident */

typedef struct {
    uint32_t id;       /* of the running launch */
    uint32_t resident; /* most groups that ever checked in; 0 before the first launch */
    cl_event event;
    bool roams; /* hb_device_roam() has been called */
} launch;

static struct hb_launch *launch_words(struct hb_device_ctl *d)
{
    return hb_control_array(d->control, d->control->launch_off);
}

static void set_exit(struct hb_device_ctl *d, uint32_t value)
{
    hb_store_release(hb_control_word(d->control, d->control->exit_off, 0), value);
}

static uint32_t checked_in(struct hb_device_ctl *d, uint32_t id, uint32_t groups)
{
    struct hb_control *c = d->control;
    uint32_t n = 0;
    for (uint32_t g = 0; g < groups; g++)
        n += hb_load_acquire(hb_control_word(c, c->checkin_off, g)) == id;
    return n;
}

/* Ranks 0, 1, ... to those that checked in; the others leave when they start. A group that checks
 * in between the two looks gets no rank: each word is written once per launch. */
static void give_ranks(struct hb_device_ctl *d, launch *l, uint32_t groups)
{
    struct hb_control *c = d->control;
    uint32_t rank[HB_RANK_MASK], resident = 0;
    for (uint32_t g = 0; g < groups; g++)
        rank[g] = hb_load_acquire(hb_control_word(c, c->checkin_off, g)) == l->id ? resident++
                                                                                  : HB_RANK_EXIT;
    launch_words(d)->resident = resident;
    for (uint32_t g = 0; g < groups; g++)
        hb_store_release(hb_control_word(c, c->rank_off, g), l->id << HB_RANK_BITS | rank[g]);
    if (resident > l->resident)
        l->resident = resident;
    d->stats->resident = resident;
}

enum check_in { CHECKED_IN, ENDED, HANGS };

/* Wait until as many groups as ever are there, or those that are CHECKIN_NS after the first. ENDED:
 * the launch was over before any came; HANGS: neither. */
static enum check_in check_in(struct hb_device_ctl *d, launch *l, uint32_t groups)
{
    uint64_t first = 0, overdue = hb_monotonic_ns() + d->overdue_ns;
    uint32_t n;
    while ((n = checked_in(d, l->id, groups)) < groups) {
        uint64_t now = hb_monotonic_ns();
        if (n && !first)
            first = now;
        if (n && (n == l->resident || now - first > CHECKIN_NS))
            break;
        if (!n && hb_cl_status(l->event) <= CL_COMPLETE)
            return ENDED;
        if (now > overdue)
            return HANGS;
        hb_device_sleep(d, hb_device_bell(d), 10); /* a packet waits for this */
    }
    if (!l->roams)
        hb_device_roam();
    l->roams = true;
    give_ranks(d, l, groups);
    return CHECKED_IN;
}

static bool enqueue(struct hb_device_ctl *d, launch *l, uint32_t groups)
{
    const cl_icd_dispatch *cl = hb_cl(d->config.queue);
    size_t local = d->config.lanes, global = groups * local;
    l->id = (l->id + 1) & (0xffffffffu >> HB_RANK_BITS);
    if (!l->id)
        l->id = 1;
    struct hb_launch *w = launch_words(d);
    w->id = l->id;
    w->lifetime_us = d->config.lifetime_us;
    set_exit(d, 0);
    cl_int err = cl->clEnqueueNDRangeKernel(d->config.queue, d->config.kernel, 1, NULL, &global,
                                            &local, 0, NULL, &l->event);
    if (err != CL_SUCCESS)
        return false;
    hb_device_watch(d, l->event);
    cl->clFlush(d->config.queue);
    d->stats->launches++;
    return true;
}

/* Rows published so far on all workgroups, modulo 2^32. */
static uint32_t published(struct hb_device_ctl *d)
{
    struct hb_control *c = d->control;
    uint32_t rows = 0;
    for (uint32_t w = 0; w < d->config.workgroups; w++)
        rows += hb_load_acquire(hb_control_word(c, c->cpu_off, w));
    return rows;
}

static bool suspect(struct hb_device_ctl *d)
{
    return atomic_load_explicit(&d->suspect, memory_order_relaxed);
}

/* Until the kernel has ended. It is told to leave when the whole device had no row for idle_us:
 * were each group to leave for itself, the rows of one that left would wait for the last of the
 * others. False: it hangs. */
static bool await_end(struct hb_device_ctl *d, launch *l)
{
    uint64_t now = hb_monotonic_ns(), active = now;
    uint64_t overdue = now + d->config.lifetime_us * 1000ull + d->overdue_ns;
    uint32_t seen = published(d);
    for (;;) {
        uint32_t bell = hb_device_bell(d);
        if (hb_cl_status(l->event) <= CL_COMPLETE)
            return true;
        now = hb_monotonic_ns();
        uint32_t rows = published(d);
        if (rows != seen)
            active = now;
        seen = rows;
        if (now - active > d->config.idle_us * 1000ull || hb_device_stops(d) || suspect(d))
            set_exit(d, 1);
        if (now > overdue)
            return false;
        hb_device_sleep(d, bell, d->config.idle_us / 4 + 100);
    }
}

/* One launch, from enqueue to end. False if the device hangs. */
static bool run_once(struct hb_device_ctl *d, launch *l)
{
    uint32_t groups = d->config.groups; /* always all: those that are late leave at once */
    if (!enqueue(d, l, groups)) {
        hb_device_lose(d);
        return true;
    }
    enum check_in c = check_in(d, l, groups);
    bool over = c == ENDED || (c == CHECKED_IN && await_end(d, l));
    bool failed = over && (hb_cl_status(l->event) < 0 || suspect(d));
    if (over)
        hb_cl(l->event)->clReleaseEvent(l->event);
    if (failed)
        hb_device_lose(d);
    else
        d->failures_in_a_row = 0;
    return over;
}

void hb_run_persistent(struct hb_device_ctl *d)
{
    launch l = {0};
    while (!hb_device_stops(d)) {
        if (suspect(d)) {
            hb_device_lose(d); /* what the last launch left behind */
        } else if (!hb_device_pending(d)) {
            hb_device_sleep_for_work(d, 1000000);
        } else if (!run_once(d, &l)) {
            atomic_store_explicit(&d->condition, HB_DEVICE_HUNG, memory_order_release);
            return;
        }
    }
}
