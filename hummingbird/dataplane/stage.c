/* SPDX-License-Identifier: BSD-3-Clause */
#include "stage.h"

#include <stdlib.h>
#include <string.h>

#include "nf.h"

#define AHEAD 8u /* packets between a look at one and the request for its line */

/* Rows name programs; what a program reads and writes was declared by its NF. */
static const hb_nf *nf_of(const struct hb_device_ctl *d, const struct hb_rowdesc *rd)
{
    return d->program[rd->program];
}

static size_t place(size_t *at, size_t bytes)
{
    size_t off = *at;
    *at += (bytes + HB_LINE - 1) / HB_LINE * HB_LINE;
    return off;
}

static void lay_out(hb_stage *s, const struct hb_device_ctl *d, uint32_t runs, uint32_t rows)
{
    size_t slots = (size_t)rows * d->config.lanes, at = 0;
    s->runs_off = place(&at, runs * sizeof(struct hb_run));
    s->rowdesc_off = place(&at, rows * sizeof(struct hb_rowdesc));
    s->work_off = place(&at, slots * sizeof(struct hb_work));
    s->arg_off = place(&at, slots * sizeof(uint64_t));
    s->done_off = place(&at, slots * sizeof(struct hb_done));
    s->frames_off = s->used = at;
}

bool hb_stage_init(hb_stage *s, struct hb_device_ctl *d)
{
    memset(s, 0, sizeof *s);
    lay_out(s, d, d->config.workgroups, HB_STAGE_ROWS);
    size_t frames = (size_t)HB_STAGE_ROWS * d->config.lanes * (d->frame_size + HB_STATE_MOST);
    size_t size = (s->frames_off + frames + 4095) / 4096 * 4096;
    s->host = aligned_alloc(4096, size);
    if (!s->host)
        return false;
    memset(s->host, 0, size);
    cl_int err;
    s->device = hb_cl(d->config.context)
                    ->clCreateBuffer(d->config.context, CL_MEM_READ_WRITE, size, NULL, &err);
    return err == CL_SUCCESS;
}

void hb_stage_free(hb_stage *s)
{
    if (s->device)
        hb_cl(s->device)->clReleaseMemObject(s->device);
    free(s->host);
}

static uint8_t *packet_of(const struct hb_device_ctl *d, const struct hb_work *w)
{
    return d->frames + (size_t)w->frame * d->frame_size + w->offset;
}

/* Most packets are short: lines of a size that the compiler knows, and what is left over. */
static inline void copy(uint8_t *to, const uint8_t *from, size_t bytes)
{
    for (; bytes >= 64; to += 64, from += 64, bytes -= 64)
        memcpy(to, from, 64);
    if (bytes)
        memcpy(to, from, bytes);
}

/* The states of flows that a row's program has; the host's copy of them. */
static hb_states states_of(const struct hb_device_ctl *d, const struct hb_rowdesc *rd)
{
    const hb_nf *nf = nf_of(d, rd);
    return nf->flow_bytes ? hb_nf_states(d->config.tables, nf->instance) : (hb_states){.flows = 0};
}

static bool has_state(const hb_states *states, const struct hb_work *w)
{
    return w->flow != HB_NO_FLOW && (w->flow & HB_FLOW_INDEX) < states->flows;
}

/* In front of the packet's frame: what the host has set the flow's state to, and room for what
 * becomes of it. */
static void state_in(hb_stage *s, const hb_states *states, const struct hb_work *w)
{
    if (!has_state(states, w))
        return;
    if (w->flow & HB_FLOW_FRESH)
        memcpy(s->host + s->used, hb_state_at(states, w->flow & HB_FLOW_INDEX), states->bytes);
    s->used += states->stride;
}

static void state_out(hb_stage *s, const hb_states *states, const struct hb_work *staged)
{
    if (has_state(states, staged))
        memcpy(hb_state_at(states, staged->flow & HB_FLOW_INDEX),
               s->host + (size_t)staged->frame * HB_STAGE_STRIDE - states->stride, states->bytes);
}

/* Copy one lane's packet in, with room around it; rewrite its work entry to point there. */
static void lane_in(hb_stage *s, struct hb_device_ctl *d, const struct hb_rowdesc *rd, size_t most,
                    struct hb_work *w)
{
    copy(s->host + s->used + rd->head, packet_of(d, w), w->length < most ? w->length : most);
    w->frame = (uint32_t)(s->used / HB_STAGE_STRIDE);
    w->offset = rd->head;
    size_t span = (size_t)rd->head + w->length + rd->tail;
    s->used += (span + HB_STAGE_STRIDE - 1) / HB_STAGE_STRIDE * HB_STAGE_STRIDE;
}

static void row_in(hb_stage *s, struct hb_device_ctl *d, uint32_t row)
{
    struct hb_control *c = d->control;
    uint32_t lanes = d->config.lanes, at = s->rows;
    struct hb_rowdesc *rd = (struct hb_rowdesc *)(s->host + s->rowdesc_off) + at;
    struct hb_work *work = (struct hb_work *)(s->host + s->work_off) + (size_t)at * lanes;
    uint64_t *arg = (uint64_t *)(s->host + s->arg_off) + (size_t)at * lanes;
    *rd = ((struct hb_rowdesc *)hb_control_array(c, c->rowdesc_off))[row];
    memcpy(work, (struct hb_work *)hb_control_array(c, c->work_off) + (size_t)row * lanes,
           rd->count * sizeof *work);
    memcpy(arg, (uint64_t *)hb_control_array(c, c->arg_off) + (size_t)row * lanes,
           rd->count * sizeof *arg);
    /* no answer yet: the device's copy of an earlier one is overwritten, too */
    memset((struct hb_done *)(s->host + s->done_off) + (size_t)at * lanes, 0,
           rd->count * sizeof(struct hb_done));
    const hb_nf *nf = nf_of(d, rd);
    size_t most = nf->reads == HB_READS_HEADER ? HB_HEADER_BYTES : SIZE_MAX;
    hb_states states = states_of(d, rd);
    rd->states = states.flows != 0;
    for (uint32_t lane = 0; lane < rd->count; lane++) {
        if (lane + AHEAD < rd->count)
            __builtin_prefetch(packet_of(d, &work[lane + AHEAD]));
        state_in(s, &states, &work[lane]);
        lane_in(s, d, rd, most, &work[lane]);
    }
    s->writes = s->writes || nf->writes != HB_WRITES_NOTHING || rd->states;
    s->origin[s->rows++] = row;
}

void hb_stage_in(hb_stage *s, struct hb_device_ctl *d, const struct hb_run *runs, uint32_t n)
{
    uint32_t rows = 0;
    for (uint32_t r = 0; r < n; r++)
        rows += runs[r].count;
    lay_out(s, d, n, rows);
    s->rows = 0;
    s->writes = false;
    struct hb_run *staged = (struct hb_run *)(s->host + s->runs_off);
    for (uint32_t r = 0; r < n; r++) {
        staged[r] = (struct hb_run){s->rows, 0, runs[r].count, 0xffffffffu};
        for (uint32_t i = 0; i < runs[r].count; i++)
            row_in(s, d, runs[r].base + ((runs[r].first + i) & runs[r].mask));
    }
}

cl_int hb_stage_args(hb_stage *s, cl_kernel k, cl_ulong off[5])
{
    const cl_icd_dispatch *cl = hb_cl(k);
    cl_ulong stride = HB_STAGE_STRIDE;
    off[0] = s->runs_off;
    off[1] = s->rowdesc_off;
    off[2] = s->work_off;
    off[3] = s->arg_off;
    off[4] = s->done_off;
    return cl->clSetKernelArg(k, 0, sizeof s->device, &s->device) |
           cl->clSetKernelArg(k, 1, sizeof s->device, &s->device) |
           cl->clSetKernelArg(k, 2, sizeof stride, &stride);
}

cl_int hb_stage_write(hb_stage *s, struct hb_device_ctl *d, cl_event *event)
{
    d->stats->copied_bytes += s->used;
    return hb_cl(d->config.queue)
        ->clEnqueueWriteBuffer(d->config.queue, s->device, CL_FALSE, 0, s->used, s->host, 0, NULL,
                               event);
}

cl_int hb_stage_read(hb_stage *s, struct hb_device_ctl *d, cl_event after, cl_event *event)
{
    size_t bytes = (s->writes ? s->used : s->frames_off) - s->done_off;
    d->stats->copied_bytes += bytes;
    return hb_cl(d->config.queue)
        ->clEnqueueReadBuffer(d->config.queue, s->device, CL_FALSE, s->done_off, bytes,
                              s->host + s->done_off, 1, &after, event);
}

/* Answer and changed bytes of one lane. An answer outside the packet's room is passed on as it is,
 * without its bytes: the syncer refuses it. */
static void lane_out(hb_stage *s, struct hb_device_ctl *d, const struct hb_rowdesc *rd, size_t most,
                     const struct hb_work *staged, const struct hb_work *work, struct hb_done *done)
{
    size_t offset = done->offset, length = done->length;
    int shift = (int)work->offset - (int)staged->offset;
    done->offset = (uint16_t)(offset + (size_t)shift);
    if (!most || offset + length > (size_t)rd->head + work->length + rd->tail)
        return;
    copy(d->frames + (size_t)work->frame * d->frame_size + done->offset,
         s->host + (size_t)staged->frame * HB_STAGE_STRIDE + offset, length < most ? length : most);
}

void hb_stage_out(hb_stage *s, struct hb_device_ctl *d)
{
    struct hb_control *c = d->control;
    uint32_t lanes = d->config.lanes;
    for (uint32_t r = 0; r < s->rows; r++) {
        const struct hb_rowdesc *rd = (struct hb_rowdesc *)(s->host + s->rowdesc_off) + r;
        size_t from = (size_t)r * lanes, to = (size_t)s->origin[r] * lanes;
        const struct hb_work *staged = (struct hb_work *)(s->host + s->work_off) + from;
        const struct hb_work *work = (struct hb_work *)hb_control_array(c, c->work_off) + to;
        struct hb_done *done = (struct hb_done *)hb_control_array(c, c->done_off) + to;
        memcpy(done, (struct hb_done *)(s->host + s->done_off) + from, rd->count * sizeof *done);
        const hb_nf *nf = nf_of(d, rd);
        size_t most = nf->writes == HB_WRITES_NOTHING  ? 0
                      : nf->writes == HB_WRITES_HEADER ? HB_HEADER_BYTES
                                                       : SIZE_MAX;
        hb_states states = states_of(d, rd);
        for (uint32_t lane = 0; lane < rd->count; lane++) {
            state_out(s, &states, &staged[lane]);
            if (most && lane + AHEAD < rd->count)
                __builtin_prefetch(packet_of(d, &work[lane + AHEAD]), 1);
            lane_out(s, d, rd, most, &staged[lane], &work[lane], &done[lane]);
        }
    }
}
