/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gpusyncer.cl: the device side of the circular queue (docs/protocol.md; Hummingbird paper,
 * Algorithm 1, with rows that carry their program).
 *
 * The build puts in front of this file: hummingbird.h, the nf/<name>.cl of every NF in use, and
 * HB_NF_CASES, the `case kind: verdict = hb_nf_name(...)` lines of those NFs.
 * hb_run_lane() is also compiled as C: the tests run the same code on a thread that plays the GPU.
 */

/* Local parts of tables: bytes of the largest program; the build defines it. */
#ifndef HB_LOCAL_BYTES
#define HB_LOCAL_BYTES 0
#endif

/* Where the arrays of a queue lie; a `launch` executor with staged copies has its own. */
typedef struct {
    HB_GLOBAL const struct hb_rowdesc *rowdesc;
    HB_GLOBAL const struct hb_work *work;
    HB_GLOBAL const hb_u64 *arg;
    HB_GLOBAL struct hb_done *done;
    HB_GLOBAL hb_u8 *frames;
    hb_u64 stride; /* bytes between two values of hb_work.frame */
    hb_u32 lanes;
    HB_GLOBAL const hb_u8 *tables;
    HB_LOCAL const hb_u8 *local_parts; /* of the tables of the row's program, in its order */
} hb_queue;

static inline HB_GLOBAL const struct hb_nf_instance *hb_instance_of(HB_GLOBAL const hb_u8 *tables,
                                                                    hb_u32 nf)
{
    HB_GLOBAL const struct hb_tables *head = (HB_GLOBAL const struct hb_tables *)tables;
    return (HB_GLOBAL const struct hb_nf_instance *)(tables + head->nfs_off) + nf;
}

static inline HB_GLOBAL const struct hb_program *hb_program_of(HB_GLOBAL const hb_u8 *tables,
                                                               hb_u32 program)
{
    HB_GLOBAL const struct hb_tables *head = (HB_GLOBAL const struct hb_tables *)tables;
    return (HB_GLOBAL const struct hb_program *)(tables + head->programs_off) + program;
}

static inline hb_table hb_table_of(HB_GLOBAL const hb_u8 *tables,
                                   HB_GLOBAL const struct hb_nf_instance *inst)
{
    hb_table t;
    t.base = tables + inst->base;
    t.length = inst->length;
    t.local_part = HB_LOCAL_PART(t.base + inst->local_off);
    t.local_length = inst->local_bytes;
    return t;
}

/* The state that an NF has of the packet's flow, for its accessors. */
static inline void hb_find_state(HB_GLOBAL const hb_u8 *tables,
                                 HB_GLOBAL const struct hb_nf_instance *inst, hb_packet *p)
{
    int has = p->flow < inst->state_flows;
    p->state = (HB_GLOBAL hb_u8 *)tables + inst->state_base +
               (has ? (hb_u64)p->flow * inst->state_stride : 0);
    p->state_length = has ? inst->state_bytes : 0;
}

/* *parts: where the local parts of this NF and those behind it lie; moves on to the next one. */
static inline hb_u32 hb_run_nf(HB_GLOBAL const hb_u8 *tables, hb_u32 nf, hb_packet *p, hb_u64 arg,
                               hb_u64 *result, HB_LOCAL const hb_u8 **parts)
{
    HB_GLOBAL const struct hb_nf_instance *inst = hb_instance_of(tables, nf);
    hb_table t = hb_table_of(tables, inst);
    hb_find_state(tables, inst, p);
#if HB_LOCAL_BYTES
    t.local_part = *parts;
    *parts += inst->local_bytes;
#else
    (void)parts;
#endif
    switch (inst->kind) {
        HB_NF_CASES
    default:
        return 0; /* no such NF: the host counts drop{bad_result} */
    }
}

static inline void hb_copy_state(HB_GLOBAL hb_u8 *to, HB_GLOBAL const hb_u8 *from, hb_u32 bytes)
{
    for (hb_u32 i = 0; i < bytes / 4; i++)
        ((HB_GLOBAL hb_u32 *)to)[i] = ((HB_GLOBAL const hb_u32 *)from)[i];
}

/* Run the program of `row` on the packet of `lane`; a dummy packet (lane >= count) does nothing. */
static inline void hb_run_lane(const hb_queue *q, hb_u32 row, hb_u32 lane)
{
    HB_GLOBAL const struct hb_rowdesc *rd = q->rowdesc + row;
    if (lane >= rd->count)
        return;
    hb_u64 slot = (hb_u64)row * q->lanes + lane;
    struct hb_work w = q->work[slot];
    hb_packet p;
    p.frame = q->frames + (hb_u64)w.frame * q->stride;
    p.offset = w.offset;
    p.length = w.length;
    p.low = w.offset - rd->head;
    p.high = (hb_u32)w.offset + w.length + rd->tail;
    p.l3 = w.l3;
    p.l4 = w.l4;
    p.type = w.type;
    p.flow = w.flow == HB_NO_FLOW ? HB_NO_FLOW : w.flow & HB_FLOW_INDEX;
    p.direction = w.flow >> 31; /* of no meaning without a flow */

    HB_GLOBAL const struct hb_program *prog = hb_program_of(q->tables, rd->program);
    HB_LOCAL const hb_u8 *parts = q->local_parts;
    hb_u32 verdict = 0;
    hb_u32 i = 0;
    hb_u64 result = 0;
    /* Where memory is not shared the host's word on a new flow comes with its first packet, and
     * what each packet makes of the state goes back with it. Programs of one NF only. */
    int travels = rd->states && p.flow != HB_NO_FLOW;
    HB_GLOBAL const struct hb_nf_instance *first = hb_instance_of(q->tables, prog->nf[0]);
    hb_find_state(q->tables, first, &p);
    HB_GLOBAL hb_u8 *state = p.state;
    if (travels && (w.flow & HB_FLOW_FRESH))
        hb_copy_state(state, p.frame - first->state_stride, p.state_length);
    for (;; i++) {
        verdict = hb_run_nf(q->tables, prog->nf[i], &p, q->arg[slot], &result, &parts);
        if (verdict != HB_PASS || i + 1 >= prog->count)
            break;
    }
    if (travels)
        hb_copy_state(p.frame - first->state_stride, state, first->state_bytes);
    struct hb_done d;
    d.offset = (hb_u16)p.offset;
    d.length = (hb_u16)p.length;
    d.value = (hb_u16)(verdict >> 8);
    d.verdict = (hb_u8)verdict;
    d.stopped = (hb_u8)i;
    d.result = result;
    q->done[slot] = d;
}

#ifdef __OPENCL_VERSION__

#define HB_AT(type, base, off) ((__global type *)((base) + (off)))
#define HB_WORD(base, off, i) HB_AT(hb_u32, base, (off) + (ulong)(i)*HB_LINE)

/* Polls of an unchanging tick after which the host is taken for dead. A poll is a few ns to a few
 * hundred; the host writes the tick at least every millisecond while it lives. */
#define HB_DEAD_POLLS (1u << 26)

static hb_queue hb_queue_of(__global hb_u8 *control, __global hb_u8 *frames, ulong stride,
                            __global hb_u8 *tables)
{
    __global struct hb_control *c = (__global struct hb_control *)control;
    hb_queue q;
    q.rowdesc = HB_AT(const struct hb_rowdesc, control, c->rowdesc_off);
    q.work = HB_AT(const struct hb_work, control, c->work_off);
    q.arg = HB_AT(const hb_u64, control, c->arg_off);
    q.done = HB_AT(struct hb_done, control, c->done_off);
    q.frames = frames;
    q.stride = stride;
    q.lanes = c->lanes;
    q.tables = tables;
    return q;
}

#if HB_LOCAL_BYTES
/* What is in local memory: program + 1, and the generation of its tables. */
typedef struct {
    hb_u32 program;
    hb_u32 generation;
} hb_loaded;

/* All work-items together: bring in the local parts of the row's program, unless they are there.
 * A persistent kernel so loads them once, and again only when its program or a table changes. */
static void hb_load_local(const hb_queue *q, hb_u32 row, __local uint4 *to, __local hb_loaded *is)
{
    hb_u32 program = q->rowdesc[row].program, generation = q->rowdesc[row].generation;
    if (is->program == program + 1 && is->generation == generation)
        return;
    __global const struct hb_program *prog = hb_program_of(q->tables, program);
    barrier(CLK_LOCAL_MEM_FENCE); /* all have looked, and are done with what was there */
    for (hb_u32 i = 0; i < prog->count; i++) {
        __global const struct hb_nf_instance *inst = hb_instance_of(q->tables, prog->nf[i]);
        __global const uint4 *from =
            (__global const uint4 *)(q->tables + inst->base + inst->local_off);
        for (hb_u32 n = get_local_id(0); n < inst->local_bytes / 16; n += get_local_size(0))
            to[n] = from[n];
        to += inst->local_bytes / 16;
    }
    if (get_local_id(0) == 0) {
        is->program = program + 1;
        is->generation = generation;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}
#endif

/* Work-item 0: say that this group runs, wait for its rank. HB_RANK_EXIT if it came too late. */
static hb_u32 hb_check_in(__global hb_u8 *control, hb_u32 group)
{
    __global struct hb_control *c = (__global struct hb_control *)control;
    hb_u32 id = HB_AT(struct hb_launch, control, c->launch_off)->id;
    hb_store_release(HB_WORD(control, c->checkin_off, group), id);
    for (hb_u32 polls = 0; polls < HB_DEAD_POLLS; polls++) {
        hb_u32 word = hb_load_acquire(HB_WORD(control, c->rank_off, group));
        if (word >> HB_RANK_BITS == (id & (0xffffffffu >> HB_RANK_BITS)))
            return word & HB_RANK_MASK;
        if (hb_load_acquire(HB_AT(hb_u32, control, c->exit_off)))
            break;
    }
    return HB_RANK_EXIT;
}

/* What work-item 0 remembers between rows; private to it. */
typedef struct {
    hb_u32 w;     /* workgroup it looks at next */
    hb_u32 first; /* its first workgroup: its rank */
    hb_u32 step;  /* R */
    hb_u32 start; /* tick of the first poll */
    hb_u32 tick;  /* last tick seen */
    hb_u32 quiet; /* polls since the tick moved */
} hb_poller;

#define HB_LEAVE 0xffffffffu

/* Where a CPU plays the GPU: the states of the packets' flows and the packets' first lines, all on
 * their way at once, where one lane after the other would wait for its own. Packets of a short
 * queue are still in the caches of the CPU that published them, and fetching them would only take
 * them away from it. */
#ifdef HB_ON_CPU
#define HB_LONG_QUEUE 512 /* packets */
static void hb_fetch(const hb_queue *q, hb_u32 row, hb_u32 waiting)
{
    __global const struct hb_rowdesc *rd = q->rowdesc + row;
    __global const struct hb_work *work = q->work + (hb_u64)row * q->lanes;
    __global const struct hb_nf_instance *nf =
        hb_instance_of(q->tables, hb_program_of(q->tables, rd->program)->nf[0]);
    if (nf->state_stride)
        for (hb_u32 i = 0; i < rd->count; i++)
            __builtin_prefetch(q->tables + nf->state_base +
                                   (hb_u64)(work[i].flow & HB_FLOW_INDEX) * nf->state_stride,
                               1);
    if (waiting * q->lanes >= HB_LONG_QUEUE)
        for (hb_u32 i = 0; i < rd->count; i++)
            __builtin_prefetch(q->frames + work[i].frame * q->stride + work[i].offset);
}
#endif

/* Work-item 0: the next workgroup with a published row, or HB_LEAVE. Returns between rows only, so
 * the kernel always ends at a row boundary. */
static hb_u32 hb_poll(__global hb_u8 *control, hb_poller *s)
{
    __global struct hb_control *c = (__global struct hb_control *)control;
    __global struct hb_launch *launch = HB_AT(struct hb_launch, control, c->launch_off);
    for (;;) {
        hb_u32 tick = hb_load_acquire(HB_AT(hb_u32, control, c->tick_off));
        s->quiet = tick == s->tick ? s->quiet + 1 : 0;
        s->tick = tick;
        if (hb_load_acquire(HB_AT(hb_u32, control, c->exit_off)) ||
            tick - s->start > launch->lifetime_us || s->quiet > HB_DEAD_POLLS)
            return HB_LEAVE;
        for (hb_u32 n = s->first; n < c->workgroups; n += s->step) {
            hb_u32 w = s->w;
            s->w = w + s->step < c->workgroups ? w + s->step : s->first;
            hb_u32 published = hb_load_acquire(HB_WORD(control, c->cpu_off, w));
            if (published != *HB_WORD(control, c->gpu_off, w))
                return w;
        }
    }
}

/* GPUSyncer: one atomic load and one store per workgroup and row, by work-item 0; barriers keep
 * the group in step; lanes without a packet run as dummy packets. */
__kernel void hb_persistent(__global hb_u8 *control, __global hb_u8 *frames, ulong stride,
                            __global hb_u8 *tables)
{
    __local hb_u32 next_w, next_row;
#if HB_LOCAL_BYTES
    __local uint4 local_tables[HB_LOCAL_BYTES / 16];
    __local hb_loaded loaded;
#endif
    __global struct hb_control *c = (__global struct hb_control *)control;
    hb_queue q = hb_queue_of(control, frames, stride, tables);
#if HB_LOCAL_BYTES
    q.local_parts = (__local const hb_u8 *)local_tables;
#endif
    hb_u32 lane = get_local_id(0);
    hb_u32 depth = c->depth;
    hb_poller s;
    if (lane == 0) {
        s.first = hb_check_in(control, get_group_id(0));
        s.step = HB_AT(struct hb_launch, control, c->launch_off)->resident;
        s.w = s.first;
        s.start = s.tick = hb_load_acquire(HB_AT(hb_u32, control, c->tick_off));
        s.quiet = 0;
#if HB_LOCAL_BYTES
        loaded.program = 0;
#endif
    }
    for (;;) {
        if (lane == 0) {
            hb_u32 w = s.first >= c->workgroups ? HB_LEAVE : hb_poll(control, &s);
            next_w = w;
            if (w != HB_LEAVE) {
                hb_u32 row = *HB_WORD(control, c->gpu_off, w);
                next_row = row;
#ifdef HB_ON_CPU
                hb_fetch(&q, w * depth + (row & (depth - 1)),
                         hb_load_acquire(HB_WORD(control, c->cpu_off, w)) - row);
#endif
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        hb_u32 w = next_w, row = next_row;
        if (w == HB_LEAVE)
            break;
        hb_u32 slot_row = w * depth + (row & (depth - 1));
#if HB_LOCAL_BYTES
        hb_load_local(&q, slot_row, local_tables, &loaded);
#endif
        hb_run_lane(&q, slot_row, lane);
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        if (lane == 0)
            hb_store_release(HB_WORD(control, c->gpu_off, w), row + 1);
    }
}

/* The `launch` executor's kernel: group g runs the rows of runs[g], in order. The arrays may be
 * those of the control region or staged copies; their places come as offsets from `queue`. */
__kernel void hb_batch(__global hb_u8 *queue, __global hb_u8 *frames, ulong stride,
                       __global hb_u8 *tables, uint lanes, ulong runs_off, ulong rowdesc_off,
                       ulong work_off, ulong arg_off, ulong done_off)
{
    __global const struct hb_run *run =
        HB_AT(const struct hb_run, queue, runs_off) + get_group_id(0);
#if HB_LOCAL_BYTES
    __local uint4 local_tables[HB_LOCAL_BYTES / 16];
    __local hb_loaded loaded;
#endif
    hb_queue q;
    q.rowdesc = HB_AT(const struct hb_rowdesc, queue, rowdesc_off);
    q.work = HB_AT(const struct hb_work, queue, work_off);
    q.arg = HB_AT(const hb_u64, queue, arg_off);
    q.done = HB_AT(struct hb_done, queue, done_off);
    q.frames = frames;
    q.stride = stride;
    q.lanes = lanes;
    q.tables = tables;
#if HB_LOCAL_BYTES
    q.local_parts = (__local const hb_u8 *)local_tables;
    if (get_local_id(0) == 0)
        loaded.program = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
    for (hb_u32 i = 0; i < run->count; i++) {
        hb_u32 slot_row = run->base + ((run->first + i) & run->mask);
#if HB_LOCAL_BYTES
        hb_load_local(&q, slot_row, local_tables, &loaded);
#endif
        hb_run_lane(&q, slot_row, get_local_id(0));
        barrier(CLK_GLOBAL_MEM_FENCE);
    }
}

#endif
