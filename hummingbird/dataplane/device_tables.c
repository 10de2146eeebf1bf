/* SPDX-License-Identifier: BSD-3-Clause */
/* device_tables.c: tables that change while a device uses them. A device that shares memory sees
 * the host's stores; one that has a copy gets the changed parts of it before its next launch. */
#include <stdlib.h>
#include <time.h>

#include "clapi.h"
#include "clock.h"
#include "device.h"

#define CHUNK 65536u

static uint64_t chunks(const struct hb_device_ctl *d)
{
    return (d->config.tables_bytes + CHUNK - 1) / CHUNK;
}

int hb_device_track_tables(struct hb_device_ctl *d)
{
    if (d->config.staged && d->config.tables_buffer)
        d->changed = calloc(chunks(d) / 64 + 1, sizeof *d->changed);
    return d->config.staged && d->config.tables_buffer && !d->changed ? -1 : 0;
}

void hb_device_mark_tables(struct hb_device_ctl *d, const void *at, uint64_t bytes)
{
    uint64_t first = (uint64_t)((const uint8_t *)at - (const uint8_t *)d->config.tables);
    if (!d->changed || !bytes)
        return;
    for (uint64_t c = first / CHUNK; c <= (first + bytes - 1) / CHUNK; c++)
        atomic_fetch_or_explicit(&d->changed[c / 64], 1ull << c % 64, memory_order_relaxed);
    /* release: the tables' new bytes, and the bits, before the word that says to look */
    atomic_store_explicit(&d->tables_changed, 1, memory_order_release);
}

static cl_int copy_chunk(struct hb_device_ctl *d, uint64_t chunk)
{
    uint64_t at = chunk * CHUNK, left = d->config.tables_bytes - at;
    return hb_cl(d->config.queue)
        ->clEnqueueWriteBuffer(d->config.queue, d->config.tables_buffer, CL_TRUE, at,
                               left < CHUNK ? left : CHUNK, (uint8_t *)d->config.tables + at, 0,
                               NULL, NULL);
}

void hb_device_begin_tables(struct hb_device_ctl *d)
{
    struct timespec t = {0, 100000};
    /* seq_cst here and in hb_device_copy_tables(): of the two, one sees the other */
    atomic_store_explicit(&d->tables_changing, 1, memory_order_seq_cst);
    while (atomic_load_explicit(&d->tables_copying, memory_order_seq_cst))
        nanosleep(&t, NULL);
}

void hb_device_end_tables(struct hb_device_ctl *d)
{
    /* release: the whole change before the word that lets it be copied */
    atomic_store_explicit(&d->tables_changing, 0, memory_order_release);
}

static int copy_changed(struct hb_device_ctl *d)
{
    /* acquire: pairs with hb_device_mark_tables() */
    if (!atomic_exchange_explicit(&d->tables_changed, 0, memory_order_acquire))
        return CL_SUCCESS;
    for (uint64_t word = 0; word * 64 < chunks(d); word++) {
        uint64_t bits = atomic_exchange_explicit(&d->changed[word], 0, memory_order_acquire);
        for (; bits; bits &= bits - 1) {
            cl_int err = copy_chunk(d, word * 64 + (uint64_t)__builtin_ctzll(bits));
            if (err != CL_SUCCESS)
                return err;
            d->stats->copied_bytes += CHUNK;
        }
    }
    return CL_SUCCESS;
}

int hb_device_copy_tables(struct hb_device_ctl *d)
{
    cl_int err = CL_SUCCESS;
    if (!atomic_load_explicit(&d->tables_changed, memory_order_relaxed))
        return CL_SUCCESS;
    atomic_store_explicit(&d->tables_copying, 1, memory_order_seq_cst);
    if (!atomic_load_explicit(&d->tables_changing, memory_order_seq_cst))
        err = copy_changed(d);
    atomic_store_explicit(&d->tables_copying, 0, memory_order_release);
    return err;
}

void hb_device_wait_rows(struct hb_device_ctl *d)
{
    struct hb_control *c = d->control;
    struct timespec t = {0, 100000};
    for (uint32_t w = 0; w < c->workgroups; w++) {
        uint32_t published = hb_load_acquire(hb_control_word(c, c->cpu_off, w));
        /* a device that has failed runs no rows any more, or runs them again from fresh words */
        while ((int32_t)(hb_load_acquire(hb_control_word(c, c->gpu_off, w)) - published) < 0 &&
               atomic_load_explicit(&d->condition, memory_order_acquire) == HB_DEVICE_HEALTHY)
            nanosleep(&t, NULL);
    }
}
