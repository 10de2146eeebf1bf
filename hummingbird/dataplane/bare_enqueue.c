/* SPDX-License-Identifier: BSD-3-Clause */
/* bare_enqueue.c: a batch, an enqueue, a wait: a GPU as anyone would drive it. See api.h. */
#include <stdlib.h>
#include <string.h>

#include "bare.h"
#include "clapi.h"
#include "clock.h"

#define STRIDE 64 /* bytes: packets in the device's buffer are aligned to this */
#define WARM_UP 3 /* batches */

/* A batch: work, verdicts and, with copies, packets. Without copies it lies in shared memory. */
typedef struct {
    const hb_enqueue_config *config;
    hb_arena arena;
    struct hb_work *work;
    uint32_t *verdict;
    uint8_t *host; /* NULL without copies, like `device` */
    cl_mem device;
    size_t verdict_off, packets_off, packet_size, size; /* bytes */
    uint32_t next;                                      /* first packet of the next batch */
    hb_bare_result *result;
} loop;

/* ---- a batch ----------------------------------------------------------------------------------
 */

static void gather(loop *l)
{
    const hb_enqueue_config *config = l->config;
    for (uint32_t i = 0; i < config->batch; i++) {
        const hb_mbuf *m = hb_header(&l->arena, l->next + i);
        l->work[i] = (struct hb_work){m->frame, m->data_off, m->data_len,    m->l3,
                                      m->l4,    m->type,     hb_work_flow(m)};
        if (!l->host)
            continue;
        size_t at = l->packets_off + i * l->packet_size;
        memcpy(l->host + at, hb_data(&l->arena, m), m->data_len);
        l->work[i].frame = (uint32_t)(at / STRIDE);
        l->work[i].offset = 0;
    }
}

static void scatter(loop *l)
{
    for (uint32_t i = 0; i < l->config->batch; i++) {
        const hb_mbuf *m = hb_header(&l->arena, l->next + i);
        l->result->wrong += l->verdict[i] != HB_VERDICT_PASS;
        l->verdict[i] = 0;
        if (l->host)
            memcpy(hb_data(&l->arena, m), l->host + l->packets_off + i * l->packet_size,
                   m->data_len);
    }
}

static cl_int run_on_device(loop *l)
{
    cl_command_queue q = l->config->queue;
    const cl_icd_dispatch *cl = hb_cl(q);
    size_t global = l->config->batch, local = l->config->group;
    cl_int err = CL_SUCCESS;
    if (l->host)
        err = cl->clEnqueueWriteBuffer(q, l->device, CL_FALSE, 0, l->size, l->host, 0, NULL, NULL);
    if (!err)
        err = cl->clEnqueueNDRangeKernel(q, l->config->kernel, 1, NULL, &global, &local, 0, NULL,
                                         NULL);
    if (!err && l->host)
        return cl->clEnqueueReadBuffer(q, l->device, CL_TRUE, l->verdict_off,
                                       l->size - l->verdict_off, l->host + l->verdict_off, 0, NULL,
                                       NULL);
    cl_int last = cl->clFinish(q); /* nothing is in flight when we leave, whatever went wrong */
    return err ? err : last;
}

static int run_batch(loop *l)
{
    gather(l);
    if (run_on_device(l) != CL_SUCCESS)
        return -1;
    scatter(l);
    l->next = (l->next + l->config->batch) % l->config->mbufs;
    l->result->touched += l->config->batch;
    l->result->launches++;
    return 0;
}

static int measure(loop *l)
{
    hb_bare_result *r = l->result;
    for (uint32_t i = 0; i < WARM_UP; i++)
        if (run_batch(l))
            return -1;
    uint64_t begin = hb_monotonic_ns(), end = begin + (uint64_t)(l->config->seconds * 1e9), now;
    do {
        if (run_batch(l))
            return -1;
        r->rows++;
        r->packets += l->config->batch;
        now = hb_monotonic_ns();
    } while (now < end);
    r->seconds = (double)(now - begin) / 1e9;
    r->wrong += hb_bare_wrong(&l->arena, r->touched, l->config->touch);
    return 0;
}

/* ---- set-up -----------------------------------------------------------------------------------
 */

static cl_int set_args(loop *l)
{
    const hb_enqueue_config *config = l->config;
    const cl_icd_dispatch *cl = hb_cl(config->kernel);
    cl_kernel k = config->kernel;
    cl_ulong stride = STRIDE, verdict_off = l->verdict_off;
    cl_uint touch = config->touch;
    cl_int err = cl->clSetKernelArg(k, 3, sizeof verdict_off, &verdict_off) |
                 cl->clSetKernelArg(k, 4, sizeof touch, &touch);
    if (!l->host)
        return err;
    return err | cl->clSetKernelArg(k, 0, sizeof l->device, &l->device) |
           cl->clSetKernelArg(k, 1, sizeof l->device, &l->device) |
           cl->clSetKernelArg(k, 2, sizeof stride, &stride);
}

static size_t round_up(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

static bool prepare(loop *l)
{
    const hb_enqueue_config *config = l->config;
    cl_int err = CL_SUCCESS;
    l->verdict_off = config->batch * sizeof *l->work;
    l->packets_off = round_up(l->verdict_off + config->batch * sizeof *l->verdict, STRIDE);
    l->packet_size = round_up(config->length, STRIDE);
    l->size = l->packets_off + config->batch * l->packet_size;
    if (hb_arena_init(&l->arena, config->frames, config->frame_size, config->mbufs, 0))
        return false;
    hb_bare_fill(&l->arena, config->length);
    uint8_t *batch = config->shared;
    if (!config->shared) {
        batch = l->host = aligned_alloc(4096, round_up(l->size, 4096));
        if (!l->host)
            return false;
        memset(l->host, 0, l->size);
        l->device = hb_cl(config->context)
                        ->clCreateBuffer(config->context, CL_MEM_READ_WRITE, l->size, NULL, &err);
    }
    l->work = (struct hb_work *)batch;
    l->verdict = (uint32_t *)(batch + l->verdict_off);
    return err == CL_SUCCESS && set_args(l) == CL_SUCCESS;
}

static void release(loop *l)
{
    if (l->device)
        hb_cl(l->device)->clReleaseMemObject(l->device);
    free(l->host);
    hb_arena_free(&l->arena);
}

int hb_bare_enqueue(const hb_enqueue_config *config, hb_bare_result *result)
{
    loop l = {.config = config, .result = result};
    cpu_set_t before;
    int rc = -1;
    memset(result, 0, sizeof *result);
    if (prepare(&l)) {
        rc = hb_pin(config->cpu, &before) ? -1 : measure(&l);
        hb_unpin(&before);
    }
    release(&l);
    return rc;
}
