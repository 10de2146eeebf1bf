/* SPDX-License-Identifier: BSD-3-Clause */
#include "stage.h"

#include <stdlib.h>
#include <string.h>

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

bool hb_stage_init(hb_stage *s, struct hb_device_ctl *d, const struct hb_run *runs)
{
    size_t slots = (size_t)HB_STAGE_ROWS * d->config.lanes;
    memset(s, 0, sizeof *s);
    s->runs = runs;
    s->runs_off = place(&s->size, d->config.workgroups * sizeof(struct hb_run));
    s->rowdesc_off = place(&s->size, HB_STAGE_ROWS * sizeof(struct hb_rowdesc));
    s->work_off = place(&s->size, slots * sizeof(struct hb_work));
    s->arg_off = place(&s->size, slots * sizeof(uint64_t));
    s->done_off = place(&s->size, slots * sizeof(struct hb_done));
    s->frames_off = place(&s->size, slots * d->frame_size);
    s->host = aligned_alloc(4096, (s->size + 4095) / 4096 * 4096);
    if (!s->host)
        return false;
    memset(s->host, 0, s->size);
    cl_int err;
    s->device = hb_cl(d->config.context)
                    ->clCreateBuffer(d->config.context, CL_MEM_READ_WRITE, s->size, NULL, &err);
    return err == CL_SUCCESS;
}

void hb_stage_free(hb_stage *s)
{
    if (s->device)
        hb_cl(s->device)->clReleaseMemObject(s->device);
    free(s->host);
}

void hb_stage_reset(hb_stage *s)
{
    s->used = s->frames_off;
    s->rows = 0;
    s->nb_runs = 0;
    s->writes = false;
}

uint32_t hb_stage_limit(const hb_stage *s, uint32_t rows)
{
    return rows < HB_STAGE_ROWS - s->rows ? rows : HB_STAGE_ROWS - s->rows;
}

/* Copy one lane's packet in, with room around it; rewrite its work entry to point there. */
static void lane_in(hb_stage *s, struct hb_device_ctl *d, const struct hb_rowdesc *rd,
                    struct hb_work *w)
{
    const hb_nf *nf = nf_of(d, rd);
    const uint8_t *packet = d->frames + (size_t)w->frame * d->frame_size + w->offset;
    size_t bytes = w->length;
    if (nf->reads == HB_READS_HEADER && bytes > HB_HEADER_BYTES)
        bytes = HB_HEADER_BYTES;
    memcpy(s->host + s->used + rd->head, packet, bytes);
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
    for (uint32_t lane = 0; lane < rd->count; lane++)
        lane_in(s, d, rd, &work[lane]);
    if (nf_of(d, rd)->writes != HB_WRITES_NOTHING)
        s->writes = true;
    s->origin[s->rows++] = row;
}

struct hb_run hb_stage_in(hb_stage *s, struct hb_device_ctl *d, struct hb_run run)
{
    struct hb_run staged = {s->rows, 0, run.count, 0xffffffffu};
    for (uint32_t i = 0; i < run.count; i++)
        row_in(s, d, run.base + ((run.first + i) & run.mask));
    s->nb_runs++;
    return staged;
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
    memcpy(s->host + s->runs_off, s->runs, s->nb_runs * sizeof *s->runs);
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
static void lane_out(hb_stage *s, struct hb_device_ctl *d, const struct hb_rowdesc *rd,
                     const struct hb_work *staged, const struct hb_work *work, struct hb_done *done)
{
    const hb_nf *nf = nf_of(d, rd);
    size_t offset = done->offset, length = done->length;
    int shift = (int)work->offset - (int)staged->offset;
    done->offset = (uint16_t)(offset + (size_t)shift);
    if (nf->writes == HB_WRITES_NOTHING ||
        offset + length > (size_t)rd->head + work->length + rd->tail)
        return;
    if (nf->writes == HB_WRITES_HEADER && length > HB_HEADER_BYTES)
        length = HB_HEADER_BYTES;
    memcpy(d->frames + (size_t)work->frame * d->frame_size + done->offset,
           s->host + (size_t)staged->frame * HB_STAGE_STRIDE + offset, length);
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
        for (uint32_t lane = 0; lane < rd->count; lane++)
            lane_out(s, d, rd, &staged[lane], &work[lane], &done[lane]);
    }
}
