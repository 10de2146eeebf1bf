/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exec_launch.c: plays the device's side of the queue with short kernels, for devices that cannot
 * share memory with the host while a kernel runs: one launch runs every row published so far, up to
 * two launches are in flight (on a CPU runtime one). Where memory is not shared at all, staging
 * copies of just the bytes that the programs declare go with each launch, and are counted.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "clapi.h"
#include "clock.h"
#include "device.h"
#include "stage.h"

#define IN_FLIGHT 2
#define SPIN_NS 50000u /* poll this long for more work before sleeping */

/* One launch: the rows it runs, and its staging memory if there is any. */
typedef struct {
    struct hb_run *runs; /* [workgroups], in the control region */
    uint32_t *w;         /* [runs] workgroup of each */
    uint32_t *last;      /* [runs] GpuIndex of that workgroup once it is done */
    uint32_t nb_runs;
    cl_event event;
    bool watched; /* its end rings the bell */
    uint64_t start_ns;
    hb_stage stage;
} batch;

typedef struct {
    struct hb_device_ctl *d;
    batch batch[IN_FLIGHT];
    uint32_t first, count; /* batches in flight, oldest first */
    uint32_t *launched;    /* [workgroups] rows already in some batch */
    uint32_t turn;         /* workgroup that the next batch begins with */
} state;

/* A CPU runtime runs a launch best on the very thread that waits for it: a second one would only
 * make that thread look for its end again and again. */
static uint32_t most_in_flight(const state *s)
{
    return s->d->config.on_cpu ? 1 : IN_FLIGHT;
}

static uint32_t new_rows(state *s, uint32_t w)
{
    struct hb_control *c = s->d->control;
    return hb_load_acquire(hb_control_word(c, c->cpu_off, w)) - s->launched[w];
}

/* Rows of a workgroup that a batch takes at most. A stage holds only so many: each workgroup gets
 * its share, so that they run side by side and none waits for ever. */
static uint32_t share(state *s)
{
    uint32_t busy = 0, workgroups = s->d->control->workgroups;
    if (!s->d->config.staged)
        return UINT32_MAX;
    for (uint32_t w = 0; w < workgroups; w++)
        busy += new_rows(s, w) != 0;
    return busy < HB_STAGE_ROWS ? HB_STAGE_ROWS / (busy + !busy) : 1;
}

/* Put every published row that is in no batch yet into b, if it takes so many. */
static bool collect(state *s, batch *b)
{
    struct hb_device_ctl *d = s->d;
    struct hb_control *c = d->control;
    uint32_t most = share(s), room = d->config.staged ? HB_STAGE_ROWS : UINT32_MAX;
    b->nb_runs = 0;
    s->turn++;
    for (uint32_t i = 0; i < c->workgroups; i++) {
        uint32_t w = (s->turn + i) % c->workgroups, rows = new_rows(s, w);
        rows = rows < most ? rows : most;
        rows = rows < room ? rows : room;
        if (!rows)
            continue;
        b->runs[b->nb_runs] = (struct hb_run){w * c->depth, s->launched[w], rows, c->depth - 1};
        room -= rows;
        s->launched[w] += rows;
        b->w[b->nb_runs] = w;
        b->last[b->nb_runs++] = s->launched[w];
    }
    if (d->config.staged && b->nb_runs)
        hb_stage_in(&b->stage, d, b->runs, b->nb_runs);
    return b->nb_runs > 0;
}

static cl_int set_args(struct hb_device_ctl *d, batch *b, uint32_t index)
{
    const cl_icd_dispatch *cl = hb_cl(d->config.kernel);
    cl_kernel k = d->config.kernel;
    struct hb_control *c = d->control;
    cl_uint lanes = c->lanes;
    cl_ulong off[5] = {c->runs_off + (uint64_t)index * c->workgroups * sizeof(struct hb_run),
                       c->rowdesc_off, c->work_off, c->arg_off, c->done_off};
    cl_int err = CL_SUCCESS;
    if (d->config.staged)
        err = hb_stage_args(&b->stage, k, off);
    err |= cl->clSetKernelArg(k, 4, sizeof lanes, &lanes);
    for (cl_uint i = 0; i < 5; i++)
        err |= cl->clSetKernelArg(k, 5 + i, sizeof off[i], &off[i]);
    return err;
}

/* The launch is over when the last of its commands is. Each waits for the one before it by name:
 * only so is one that fails sure to make the next fail, too. */
static bool follow(batch *b, cl_int err, cl_event event)
{
    if (err != CL_SUCCESS)
        return false;
    if (b->event)
        hb_cl(b->event)->clReleaseEvent(b->event);
    b->event = event;
    return true;
}

static bool enqueue_all(struct hb_device_ctl *d, batch *b)
{
    cl_command_queue q = d->config.queue;
    size_t local = d->config.lanes, global = b->nb_runs * local;
    cl_event event = NULL;
    cl_int err;
    if (d->config.staged) {
        /* in order with what follows on the queue, and so seen by this launch */
        err = hb_device_copy_tables(d);
        if (err != CL_SUCCESS)
            return false;
        err = hb_stage_write(&b->stage, d, &event);
        if (!follow(b, err, event))
            return false;
    }
    err = hb_cl(q)->clEnqueueNDRangeKernel(q, d->config.kernel, 1, NULL, &global, &local,
                                           b->event ? 1 : 0, b->event ? &b->event : NULL, &event);
    if (!follow(b, err, event) || !d->config.staged)
        return err == CL_SUCCESS;
    err = hb_stage_read(&b->stage, d, b->event, &event);
    return follow(b, err, event);
}

/* False: not all could be enqueued; b->event is the last that was, if any. */
static bool enqueue(struct hb_device_ctl *d, batch *b, uint32_t index)
{
    b->event = NULL;
    b->watched = false;
    b->start_ns = hb_monotonic_ns();
    bool ok = set_args(d, b, index) == CL_SUCCESS && enqueue_all(d, b);
    hb_cl(d->config.queue)->clFlush(d->config.queue);
    d->stats->launches += ok;
    return ok;
}

/* The launch is over and good: copy back, publish GpuIndex of each of its workgroups. */
static void complete(struct hb_device_ctl *d, batch *b)
{
    struct hb_control *c = d->control;
    if (d->config.staged)
        hb_stage_out(&b->stage, d);
    for (uint32_t i = 0; i < b->nb_runs; i++)
        hb_store_release(hb_control_word(c, c->gpu_off, b->w[i]), b->last[i]);
}

/* Some launch failed, or the device wrote what cannot be. All that are in flight come to their end,
 * then the syncers clean up. False: hangs. */
static bool fail(state *s)
{
    struct hb_device_ctl *d = s->d;
    for (; s->count; s->count--, s->first = (s->first + 1) % IN_FLIGHT) {
        batch *b = &s->batch[s->first];
        uint64_t until = hb_monotonic_ns() + d->overdue_ns;
        while (hb_cl_status(b->event) > CL_COMPLETE) {
            if (hb_monotonic_ns() > until)
                return false;
            hb_device_sleep(d, hb_device_bell(d), 1000);
        }
        hb_cl(b->event)->clReleaseEvent(b->event);
    }
    hb_device_lose(d);
    for (uint32_t w = 0; w < d->control->workgroups; w++)
        s->launched[w] = hb_load_acquire(hb_control_word(d->control, d->control->gpu_off, w));
    return true;
}

/* Start a launch if there are rows and room for one. */
static bool start(state *s, bool *worked)
{
    if (s->count == most_in_flight(s) || hb_device_stops(s->d))
        return true;
    uint32_t index = (s->first + s->count) % IN_FLIGHT;
    batch *b = &s->batch[index];
    if (!collect(s, b))
        return true;
    *worked = true;
    bool ok = enqueue(s->d, b, index);
    s->count += b->event != NULL;
    return ok || fail(s);
}

static bool finish(state *s, bool *worked)
{
    batch *b = &s->batch[s->first];
    if (!s->count)
        return true;
    cl_int status = hb_cl_status(b->event);
    if (status < 0)
        return fail(s);
    if (status != CL_COMPLETE)
        return hb_monotonic_ns() - b->start_ns < s->d->overdue_ns;
    complete(s->d, b);
    s->d->failures_in_a_row = 0;
    hb_cl(b->event)->clReleaseEvent(b->event);
    s->first = (s->first + 1) % IN_FLIGHT;
    s->count--;
    *worked = true;
    return true;
}

/* A launch that hangs may still use the staging memory: it is left to it. */
static void release(state *s, bool hangs)
{
    for (uint32_t i = 0; i < IN_FLIGHT; i++) {
        batch *b = &s->batch[i];
        if (!hangs)
            hb_stage_free(&b->stage);
        free(b->w);
        free(b->last);
    }
    free(s->launched);
}

static bool prepare(state *s)
{
    struct hb_device_ctl *d = s->d;
    struct hb_control *c = d->control;
    s->launched = calloc(c->workgroups, sizeof *s->launched);
    bool ok = s->launched != NULL;
    for (uint32_t i = 0; i < IN_FLIGHT; i++) {
        batch *b = &s->batch[i];
        b->w = calloc(c->workgroups, sizeof *b->w);
        b->last = calloc(c->workgroups, sizeof *b->last);
        b->runs = (struct hb_run *)hb_control_array(c, c->runs_off) + i * c->workgroups;
        ok = ok && b->w && b->last;
        ok = ok && (!d->config.staged || hb_stage_init(&b->stage, d));
    }
    return ok;
}

/* Wait for whichever comes first: a published row, or the end of a launch. False: it hangs. */
static bool rest(state *s, uint32_t bell, uint64_t *quiet_since)
{
    batch *oldest = &s->batch[s->first];
    if (s->count && s->d->config.on_cpu)
        return hb_device_wait(s->d, oldest->event);
    uint64_t now = hb_monotonic_ns();
    if (!*quiet_since)
        *quiet_since = now;
    if (now - *quiet_since < SPIN_NS) {
        sched_yield(); /* a CPU runtime may need this very core */
    } else if (s->count && !oldest->watched) {
        oldest->watched = true;
        hb_device_watch(s->d, oldest->event); /* look once more before the first sleep */
    } else if (s->count) {
        hb_device_sleep(s->d, bell, 200); /* the callback rings; rows that come meanwhile wait */
    } else {
        hb_device_sleep_for_work(s->d, 1000000);
    }
    return true;
}

void hb_run_launch(struct hb_device_ctl *d)
{
    state s = {.d = d};
    bool alive = prepare(&s);
    uint64_t quiet_since = 0;
    while (alive && (s.count || !hb_device_stops(d))) {
        bool worked = false;
        uint32_t bell = hb_device_bell(d);
        if (atomic_load_explicit(&d->suspect, memory_order_relaxed))
            alive = fail(&s);
        else
            alive = start(&s, &worked) && finish(&s, &worked);
        if (worked)
            quiet_since = 0;
        else if (alive)
            alive = rest(&s, bell, &quiet_since);
    }
    release(&s, !alive);
    if (!alive)
        atomic_store_explicit(&d->condition, HB_DEVICE_HUNG, memory_order_release);
}
