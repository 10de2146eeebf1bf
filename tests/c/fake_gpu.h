/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fake_gpu.h: an OpenCL device made of threads, for tests of the executors and all that is above
 * them. It runs cl_kernels/gpusyncer.cl, compiled as C, and it can be made to fail.
 *
 * A test includes fake_gpu.c, because each test is compiled from one file.
 */
#ifndef HB_FAKE_GPU_H
#define HB_FAKE_GPU_H
#include <stdbool.h>
#include <stdint.h>

#include "api.h"

enum fake_fault {
    FAKE_SOUND,
    FAKE_FAIL,     /* half-way through a row the launch ends, with an error; so do all its groups */
    FAKE_HANG,     /* half-way through a row a group stops for good: the launch never ends */
    FAKE_GARBAGE,  /* a finished row's answers are replaced by impossible ones */
    FAKE_SKIP,     /* a row is said to be finished, but no lane has run it */
    FAKE_INDEX,    /* GpuIndex gets a value that cannot be */
    FAKE_REFUSE,   /* a launch cannot be enqueued */
    FAKE_NO_START, /* a launch is enqueued and never starts */
};

typedef struct {
    uint32_t resident; /* groups that run at once; a later one starts when one of them has ended */
    enum fake_fault fault;
    /* The fault strikes at this row, at every so many rows from there, and so many times in all.
     * Rows count from 1 over all launches. For FAKE_REFUSE and FAKE_NO_START: launches. */
    uint32_t first, every, times;
    uint32_t callback_us; /* a launch is over this long before its callback comes */
    uint32_t row_us;      /* what a row takes longer than it must */
} fake_config;

typedef struct fake_gpu fake_gpu;

/* The memory stays the caller's and has to outlive the device. */
fake_gpu *fake_new(const fake_config *config, bool persistent, void *control, void *frames,
                   uint32_t frame_size, void *tables);
/* Waits for all launches, wakes what hangs. Returns the events and buffers nobody released. */
uint32_t fake_free(fake_gpu *g);
/* Fills in queue, kernel and context. */
void fake_handles(fake_gpu *g, hb_device *device);

/* While it is held, the device does nothing: no row begins, no group checks in. */
void fake_hold(fake_gpu *g, bool held);
/* Wakes what hangs, as a driver's reset does: a lane that hung ends its row, then all is over. */
void fake_thaw(fake_gpu *g);

typedef struct {
    uint64_t launches;
    uint64_t rows;
    uint64_t packets; /* lanes that ran one */
    uint64_t strikes; /* times the fault struck */
    uint64_t garbled; /* packets of rows hit by FAKE_GARBAGE or FAKE_SKIP */
} fake_counts;
fake_counts fake_count(fake_gpu *g);

#endif
