/* SPDX-License-Identifier: BSD-3-Clause */
/* fake_gpu.c: see fake_gpu.h. One thread plays the in-order queue; `resident` threads play the
 * compute units, each a group at a time, its lanes one after the other. */
#include "fake_gpu.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clapi.h"
#include "device.h"

/* ---- the device's own source ----------------------------------------------------------------- */

static hb_u32 fake_load(const hb_u32 *p);

#include "nf/forward.cl"
#include "nf/probe.cl"
#include "nf/touch.cl"
#include "test_nfs.h"

#define FAKE_CASE(number, name)                                                                    \
    case number:                                                                                   \
        return hb_nf_##name(p, &t, arg, result);
#define HB_NF_CASES                                                                                \
    FAKE_CASE(NF_forward, forward)                                                                 \
    FAKE_CASE(NF_probe, probe)                                                                     \
    FAKE_CASE(NF_touch, touch)                                                                     \
    FAKE_CASE(NF_sift, sift)                                                                       \
    FAKE_CASE(NF_stamp, stamp)                                                                     \
    FAKE_CASE(NF_tally, tally)

/* hummingbird.h has been read as C; what follows is OpenCL C in as far as it goes through a C
 * compiler. Check-in and polling are used as they are, the two kernels' loops are written anew
 * below, because a thread here is a whole group. */
#define __OPENCL_VERSION__ 300
#define __kernel static inline
#define __global
#define __local
#define CLK_LOCAL_MEM_FENCE 1
#define CLK_GLOBAL_MEM_FENCE 2
#define barrier(fence) (void)(fence)
#define get_local_id(dimension) (dimension)
#define get_group_id(dimension) (dimension)
#define hb_load_acquire(p) fake_load(p)
#include "gpusyncer.cl"
#undef hb_load_acquire
#undef __OPENCL_VERSION__

/* ---- objects --------------------------------------------------------------------------------- */

/* What any handle points to. */
typedef struct {
    const cl_icd_dispatch *dispatch;
    fake_gpu *gpu;
} object;

typedef struct {
    object object;
    _Atomic cl_int status;
    uint32_t references; /* guarded by the lock, like what follows */
    void(CL_CALLBACK *callback)(cl_event, cl_int, void *);
    void *user;
} event;

typedef struct {
    object object;
    uint8_t *bytes;
} buffer;

enum { ARGUMENTS = 10 };

typedef struct {
    uint64_t value[ARGUMENTS]; /* up to 8 bytes each */
} arguments;

/* A command of the queue. `over` is the caller's event if it wanted one. */
typedef struct command {
    struct command *next;
    enum { RUN, COPY } kind;
    event *over;
    event *after; /* a command that must have ended well, or NULL */
    arguments args;
    uint32_t groups;
    void *to;
    const void *from;
    size_t bytes;
} command;

struct fake_gpu {
    object queue, kernel, context;
    buffer control, frames, tables;
    fake_config config;
    bool persistent;
    arguments args;
    pthread_t thread, *unit;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* anything below, up to `quit` */
    command *first, *last;
    command *run;         /* being run by the units */
    uint32_t next, ended; /* groups of it */
    uint32_t objects;     /* events and buffers */
    bool last_call;       /* the queue ends when it is empty ... */
    bool quit;            /* ... and then the units do */
    _Atomic int aborting; /* the launch: groups leave at once */
    _Atomic int held, thawed;
    _Atomic uint64_t launches, rows, packets, strikes, garbled;
};

/* With the lock. What a launch that hangs may still use is left to it for good; whoever looks for
 * leaks finds it here. */
static void remember(const fake_gpu *g, const void *memory)
{
    static const void *left[256];
    static uint32_t n;
    bool known = g->config.fault != FAKE_HANG && g->config.fault != FAKE_NO_START;
    for (uint32_t i = 0; i < n && !known; i++)
        known = left[i] == memory;
    if (!known && n < 256)
        left[n++] = memory;
}

static event *new_event(fake_gpu *g)
{
    event *e = calloc(1, sizeof *e);
    e->object = g->queue;
    e->references = 2; /* the caller's and ours */
    atomic_init(&e->status, CL_QUEUED);
    g->objects++;
    remember(g, e);
    return e;
}

/* With the lock. */
static void release(event *e)
{
    if (e && --e->references == 0) {
        e->object.gpu->objects--;
        free(e);
    }
}

/* ---- faults ---------------------------------------------------------------------------------- */

/* Counts what a fault is counted by: does it strike now? */
static bool strikes(fake_gpu *g, enum fake_fault fault, uint64_t number)
{
    const fake_config *c = &g->config;
    if (c->fault != fault || number < c->first)
        return false;
    uint64_t since = number - c->first;
    if (since && (!c->every || since % c->every))
        return false;
    if (c->times && atomic_load(&g->strikes) >= c->times)
        return false;
    atomic_fetch_add(&g->strikes, 1);
    return true;
}

static _Thread_local fake_gpu *self;
static _Thread_local jmp_buf way_out;

static void leave(void)
{
    longjmp(way_out, 1);
}

static void abort_launch(fake_gpu *g)
{
    atomic_store(&g->aborting, 1);
    leave();
}

static void hang(fake_gpu *g)
{
    while (!atomic_load(&g->thawed))
        usleep(500);
}

static void wait_while_held(fake_gpu *g)
{
    while (atomic_load(&g->held) && !atomic_load(&g->aborting))
        usleep(100);
    if (atomic_load(&g->aborting))
        leave();
}

/* Every poll of the device comes through here. */
static hb_u32 fake_load(const hb_u32 *p)
{
    static _Thread_local uint32_t loads;
    wait_while_held(self);
    if (++loads % 32 == 0)
        sched_yield(); /* there may be fewer CPUs than threads that poll */
    return hb_load_acquire(p);
}

/* An answer that no NF can have given, each time another one. */
static void garble(struct hb_done *d, const struct hb_rowdesc *rd, const struct hb_work *w,
                   uint32_t which)
{
    static const struct hb_done wrong[] = {
        {.verdict = 0},
        {.verdict = HB_VERDICT_RETYPE + 1},
        {.verdict = 0xff, .value = 0xffff, .stopped = 0xff, .result = ~0ull},
        {.verdict = HB_VERDICT_DROP, .value = HB_REASON_none},
        {.verdict = HB_VERDICT_DROP, .value = HB_REASONS},
        {.verdict = HB_VERDICT_RETYPE, .value = HB_MAX_TYPES},
        {.verdict = HB_VERDICT_PASS, .stopped = 1},
    };
    enum { WRONG = sizeof wrong / sizeof *wrong };
    which %= WRONG + 5;
    *d = which < WRONG ? wrong[which] : (struct hb_done){.verdict = HB_VERDICT_PASS};
    d->offset = w->offset;
    d->length = w->length;
    if (which == WRONG) /* in front of what it may use */
        d->offset = (uint16_t)(w->offset - rd->head - 1);
    if (which == WRONG + 1) /* behind it */
        d->length = (uint16_t)(w->length + rd->tail + 1);
    if (which == WRONG + 2)
        d->length = 0;
    if (which == WRONG + 3)
        d->offset = d->length = 0xffff;
    if (which == WRONG + 4) /* elsewhere in the frame */
        d->offset = (uint16_t)(w->offset + w->length + rd->tail);
}

/* ---- kernels --------------------------------------------------------------------------------- */

static void *argument(const command *c, uint32_t i)
{
    return ((buffer *)(uintptr_t)c->args.value[i])->bytes;
}

static void run_lanes(fake_gpu *g, const hb_queue *q, uint32_t row, uint32_t first, uint32_t end)
{
    for (uint32_t lane = first; lane < end; lane++) {
        hb_run_lane(q, row, lane);
        if (lane < q->rowdesc[row].count)
            atomic_fetch_add(&g->packets, 1);
    }
}

/* One row of a group, and what goes wrong with it. Returns which row of all it was. */
static uint64_t run_row(fake_gpu *g, const hb_queue *q, uint32_t row)
{
    uint64_t number = atomic_fetch_add(&g->rows, 1) + 1;
    bool fails = strikes(g, FAKE_FAIL, number), hangs = strikes(g, FAKE_HANG, number);
    uint32_t half = q->lanes / 2, count = q->rowdesc[row].count;
    bool skips = strikes(g, FAKE_SKIP, number);
    if (g->config.row_us)
        usleep(g->config.row_us);
    run_lanes(g, q, row, 0, skips ? 0 : half);
    if (hangs)
        hang(g);
    if (fails)
        abort_launch(g);
    run_lanes(g, q, row, skips ? q->lanes : half, q->lanes);
    if (hangs)
        abort_launch(g);
    if (skips || strikes(g, FAKE_GARBAGE, number)) {
        uint64_t slot = (uint64_t)row * q->lanes;
        for (uint32_t i = 0; i < count && !skips; i++)
            garble(&q->done[slot + i], &q->rowdesc[row], &q->work[slot + i], (uint32_t)number + i);
        atomic_fetch_add(&g->garbled, count);
    }
    return number;
}

static bool strange_index(fake_gpu *g, uint64_t number, uint32_t *index)
{
    static const uint32_t jump[] = {1000, 0xfffffff0u, 0x80000000u};
    if (!strikes(g, FAKE_INDEX, number))
        return false;
    *index += jump[atomic_load(&g->strikes) % 3];
    return true;
}

/* hb_persistent; work-item 0 and the others are one thread. */
static void run_persistent(fake_gpu *g, const command *run, uint32_t group)
{
    uint8_t *control = argument(run, 0);
    struct hb_control *c = (struct hb_control *)control;
    hb_queue q = hb_queue_of(control, argument(run, 1), run->args.value[2], argument(run, 3));
    hb_poller s = {0};
    s.first = s.w = hb_check_in(control, group);
    s.step = HB_AT(struct hb_launch, control, c->launch_off)->resident;
    s.start = s.tick = fake_load(HB_AT(hb_u32, control, c->tick_off));
    for (;;) {
        hb_u32 w = s.first >= c->workgroups ? HB_LEAVE : hb_poll(control, &s);
        if (w == HB_LEAVE)
            break;
        hb_u32 row = *HB_WORD(control, c->gpu_off, w);
        uint64_t number = run_row(g, &q, w * c->depth + (row & (c->depth - 1)));
        row++;
        bool strange = strange_index(g, number, &row);
        hb_store_release(HB_WORD(control, c->gpu_off, w), row);
        if (strange)
            break; /* to take rows from such an index would be a race with who writes them */
    }
}

/* hb_batch. With FAKE_INDEX it writes where it has no business. */
static void run_batch(fake_gpu *g, const command *c, uint32_t group)
{
    uint8_t *queue = argument(c, 0);
    const struct hb_run *run = (const struct hb_run *)(queue + c->args.value[5]) + group;
    struct hb_control *control = (struct hb_control *)queue;
    hb_queue q = {.rowdesc = (const struct hb_rowdesc *)(queue + c->args.value[6]),
                  .work = (const struct hb_work *)(queue + c->args.value[7]),
                  .arg = (const hb_u64 *)(queue + c->args.value[8]),
                  .done = (struct hb_done *)(queue + c->args.value[9]),
                  .frames = argument(c, 1),
                  .stride = c->args.value[2],
                  .lanes = (hb_u32)c->args.value[4],
                  .tables = argument(c, 3)};
    for (uint32_t i = 0; i < run->count; i++) {
        wait_while_held(g);
        uint64_t number = run_row(g, &q, run->base + ((run->first + i) & run->mask));
        uint32_t index = run->first;
        if (control->magic == HB_CONTROL_MAGIC && strange_index(g, number, &index))
            hb_store_release(HB_WORD(queue, control->gpu_off, run->base / control->depth), index);
    }
}

/* Groups start in an order that is another one for each launch. */
static void start_group(fake_gpu *g, const command *run, uint32_t start)
{
    uint32_t group = atomic_load(&g->launches) % 2 ? run->groups - 1 - start : start;
    if (g->persistent)
        run_persistent(g, run, group);
    else
        run_batch(g, run, group);
}

static void run_group(fake_gpu *g, const command *run, uint32_t start)
{
    if (_setjmp(way_out) == 0)
        start_group(g, run, start);
}

static void *unit_main(void *gpu)
{
    fake_gpu *g = self = gpu;
    pthread_mutex_lock(&g->lock);
    while (!g->quit) {
        if (!g->run || g->next == g->run->groups) {
            pthread_cond_wait(&g->changed, &g->lock);
            continue;
        }
        const command *run = g->run;
        uint32_t start = g->next++;
        pthread_mutex_unlock(&g->lock);
        run_group(g, run, start);
        pthread_mutex_lock(&g->lock);
        g->ended++;
        pthread_cond_broadcast(&g->changed);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

/* ---- the queue ------------------------------------------------------------------------------- */

static cl_int run_launch(fake_gpu *g, command *c)
{
    uint64_t number = atomic_fetch_add(&g->launches, 1) + 1;
    if (strikes(g, FAKE_NO_START, number)) {
        hang(g);
        return CL_OUT_OF_RESOURCES;
    }
    atomic_store(&g->aborting, 0);
    pthread_mutex_lock(&g->lock);
    g->run = c;
    g->next = g->ended = 0;
    pthread_cond_broadcast(&g->changed);
    while (g->ended < c->groups)
        pthread_cond_wait(&g->changed, &g->lock);
    g->run = NULL;
    pthread_mutex_unlock(&g->lock);
    return atomic_load(&g->aborting) ? CL_OUT_OF_RESOURCES : CL_COMPLETE;
}

/* A failure concerns only commands that wait for its event: more is not promised. */
static cl_int execute(fake_gpu *g, command *c)
{
    if (c->after && atomic_load(&c->after->status) < 0)
        return CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST;
    atomic_store(&c->over->status, CL_RUNNING);
    if (c->kind == RUN)
        return run_launch(g, c);
    memcpy(c->to, c->from, c->bytes);
    return CL_COMPLETE;
}

static void finish(fake_gpu *g, command *c, cl_int status)
{
    void(CL_CALLBACK * callback)(cl_event, cl_int, void *);
    pthread_mutex_lock(&g->lock);
    atomic_store(&c->over->status, status);
    callback = c->over->callback;
    c->over->callback = NULL;
    pthread_mutex_unlock(&g->lock);
    if (callback) {
        if (g->config.callback_us)
            usleep(g->config.callback_us);
        callback((cl_event)c->over, status, c->over->user);
    }
    pthread_mutex_lock(&g->lock);
    release(c->after);
    release(c->over);
    free(c);
}

static void *queue_main(void *gpu)
{
    fake_gpu *g = gpu;
    pthread_mutex_lock(&g->lock);
    while (!g->last_call || g->first) {
        command *c = g->first;
        if (!c) {
            pthread_cond_wait(&g->changed, &g->lock);
            continue;
        }
        g->first = c->next;
        pthread_mutex_unlock(&g->lock);
        finish(g, c, execute(g, c)); /* takes the lock */
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

static command *new_command(fake_gpu *g, cl_uint events, const cl_event *list, cl_event *over)
{
    command *c = calloc(1, sizeof *c);
    c->over = new_event(g);
    if (events > 1)
        abort();
    if (events) {
        c->after = (event *)list[0];
        c->after->references++;
    }
    if (over)
        *over = (cl_event)c->over;
    else
        release(c->over);
    return c;
}

static void append(fake_gpu *g, command *c)
{
    if (g->first)
        g->last->next = c;
    else
        g->first = c;
    g->last = c;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

/* ---- the calls ------------------------------------------------------------------------------- */

static fake_gpu *gpu_of(const void *handle)
{
    return ((const object *)handle)->gpu;
}

static cl_int CL_API_CALL enqueue_kernel(cl_command_queue queue, cl_kernel kernel, cl_uint dim,
                                         const size_t *offset, const size_t *global,
                                         const size_t *local, cl_uint events, const cl_event *list,
                                         cl_event *over)
{
    fake_gpu *g = gpu_of(queue);
    (void)kernel, (void)dim, (void)offset;
    if (g->config.fault == FAKE_REFUSE) {
        uint64_t number = atomic_fetch_add(&g->launches, 1) + 1;
        if (strikes(g, FAKE_REFUSE, number))
            return CL_OUT_OF_HOST_MEMORY;
        atomic_fetch_sub(&g->launches, 1);
    }
    pthread_mutex_lock(&g->lock);
    command *c = new_command(g, events, list, over);
    c->kind = RUN;
    c->args = g->args; /* as they are now */
    c->groups = (uint32_t)(*global / *local);
    append(g, c);
    return CL_SUCCESS;
}

static void enqueue_copy(fake_gpu *g, void *to, const void *from, size_t bytes, const void *host,
                         cl_uint events, const cl_event *list, cl_event *over)
{
    pthread_mutex_lock(&g->lock);
    command *c = new_command(g, events, list, over);
    c->kind = COPY;
    c->to = to;
    c->from = from;
    c->bytes = bytes;
    remember(g, host);
    append(g, c);
}

static cl_int CL_API_CALL enqueue_write(cl_command_queue queue, cl_mem mem, cl_bool blocking,
                                        size_t at, size_t bytes, const void *host, cl_uint events,
                                        const cl_event *list, cl_event *over)
{
    (void)blocking;
    enqueue_copy(gpu_of(queue), ((buffer *)mem)->bytes + at, host, bytes, host, events, list, over);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL enqueue_read(cl_command_queue queue, cl_mem mem, cl_bool blocking,
                                       size_t at, size_t bytes, void *host, cl_uint events,
                                       const cl_event *list, cl_event *over)
{
    (void)blocking;
    enqueue_copy(gpu_of(queue), host, ((buffer *)mem)->bytes + at, bytes, host, events, list, over);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL set_callback(cl_event handle, cl_int status,
                                       void(CL_CALLBACK *callback)(cl_event, cl_int, void *),
                                       void *user)
{
    event *e = (event *)handle;
    pthread_mutex_t *lock = &e->object.gpu->lock;
    (void)status;
    pthread_mutex_lock(lock);
    cl_int now = atomic_load(&e->status);
    if (now > CL_COMPLETE) {
        e->callback = callback;
        e->user = user;
        remember(e->object.gpu, user);
    }
    pthread_mutex_unlock(lock);
    if (now <= CL_COMPLETE)
        callback(handle, now, user);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL event_info(cl_event handle, cl_event_info what, size_t size, void *to,
                                     size_t *got)
{
    cl_int status = atomic_load(&((event *)handle)->status);
    (void)got;
    if (what != CL_EVENT_COMMAND_EXECUTION_STATUS || size != sizeof status)
        return CL_INVALID_VALUE;
    memcpy(to, &status, sizeof status);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL wait_for_events(cl_uint n, const cl_event *handles)
{
    cl_int worst = CL_COMPLETE;
    for (cl_uint i = 0; i < n; i++) {
        cl_int status;
        while ((status = atomic_load(&((event *)handles[i])->status)) > CL_COMPLETE)
            usleep(20);
        if (status < 0)
            worst = CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST;
    }
    return worst;
}

static cl_int CL_API_CALL release_event(cl_event handle)
{
    event *e = (event *)handle;
    pthread_mutex_t *lock = &e->object.gpu->lock;
    pthread_mutex_lock(lock);
    release(e);
    pthread_mutex_unlock(lock);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL set_arg(cl_kernel kernel, cl_uint i, size_t size, const void *value)
{
    arguments *a = &gpu_of(kernel)->args;
    if (i >= ARGUMENTS || size > sizeof a->value[i])
        return CL_INVALID_ARG_SIZE;
    a->value[i] = 0;
    memcpy(&a->value[i], value, size);
    return CL_SUCCESS;
}

static cl_mem CL_API_CALL create_buffer(cl_context context, cl_mem_flags flags, size_t size,
                                        void *host, cl_int *error)
{
    fake_gpu *g = gpu_of(context);
    buffer *b = calloc(1, sizeof *b);
    (void)flags, (void)host;
    b->object = g->queue;
    b->bytes = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    memset(b->bytes, 0xee, size);
    pthread_mutex_lock(&g->lock);
    g->objects++;
    remember(g, b);
    pthread_mutex_unlock(&g->lock);
    *error = CL_SUCCESS;
    return (cl_mem)b;
}

static cl_int CL_API_CALL release_mem(cl_mem mem)
{
    buffer *b = (buffer *)mem;
    fake_gpu *g = gpu_of(mem);
    pthread_mutex_lock(&g->lock);
    g->objects--;
    pthread_mutex_unlock(&g->lock);
    free(b->bytes);
    free(b);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL flush(cl_command_queue queue)
{
    (void)queue;
    return CL_SUCCESS;
}

static const cl_icd_dispatch calls = {.clEnqueueNDRangeKernel = enqueue_kernel,
                                      .clEnqueueWriteBuffer = enqueue_write,
                                      .clEnqueueReadBuffer = enqueue_read,
                                      .clSetEventCallback = set_callback,
                                      .clGetEventInfo = event_info,
                                      .clWaitForEvents = wait_for_events,
                                      .clReleaseEvent = release_event,
                                      .clSetKernelArg = set_arg,
                                      .clCreateBuffer = create_buffer,
                                      .clReleaseMemObject = release_mem,
                                      .clFlush = flush};

/* ---- the device ------------------------------------------------------------------------------ */

static void wrap(fake_gpu *g, buffer *b, cl_uint argument, void *bytes)
{
    cl_mem mem = (cl_mem)b;
    b->object = g->queue;
    b->bytes = bytes;
    set_arg((cl_kernel)&g->kernel, argument, sizeof mem, &mem);
}

fake_gpu *fake_new(const fake_config *config, bool persistent, void *control, void *frames,
                   uint32_t frame_size, void *tables)
{
    fake_gpu *g = calloc(1, sizeof *g);
    cl_ulong stride = frame_size;
    g->config = *config;
    g->persistent = persistent;
    g->queue = g->kernel = g->context = (object){&calls, g};
    wrap(g, &g->control, 0, control);
    wrap(g, &g->frames, 1, frames);
    set_arg((cl_kernel)&g->kernel, 2, sizeof stride, &stride);
    wrap(g, &g->tables, 3, tables);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->unit = calloc(config->resident, sizeof *g->unit);
    for (uint32_t i = 0; i < config->resident; i++)
        pthread_create(&g->unit[i], NULL, unit_main, g);
    pthread_create(&g->thread, NULL, queue_main, g);
    return g;
}

static void say(fake_gpu *g, bool *what)
{
    pthread_mutex_lock(&g->lock);
    *what = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

uint32_t fake_free(fake_gpu *g)
{
    fake_hold(g, false);
    fake_thaw(g);
    say(g, &g->last_call);
    pthread_join(g->thread, NULL);
    say(g, &g->quit);
    for (uint32_t i = 0; i < g->config.resident; i++)
        pthread_join(g->unit[i], NULL);
    uint32_t left = g->objects;
    free(g->unit);
    free(g);
    return left;
}

void fake_handles(fake_gpu *g, hb_device *device)
{
    device->queue = &g->queue;
    device->kernel = &g->kernel;
    device->context = &g->context;
}

void fake_hold(fake_gpu *g, bool held)
{
    atomic_store(&g->held, held);
}

void fake_thaw(fake_gpu *g)
{
    atomic_store(&g->thawed, 1);
}

fake_counts fake_count(fake_gpu *g)
{
    return (fake_counts){.launches = atomic_load(&g->launches),
                         .rows = atomic_load(&g->rows),
                         .packets = atomic_load(&g->packets),
                         .strikes = atomic_load(&g->strikes),
                         .garbled = atomic_load(&g->garbled)};
}
