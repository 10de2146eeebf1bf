/* SPDX-License-Identifier: BSD-3-Clause */
/* stage.h: one launch's staging copies for a device that shares no memory with the host. */
#ifndef HB_STAGE_H
#define HB_STAGE_H
#include "clapi.h"
#include "device.h"

#define HB_STAGE_ROWS 64u   /* rows that fit one stage */
#define HB_STAGE_STRIDE 64u /* bytes: unit of hb_work.frame in a stage */

/*
 * Host copy and device buffer have one layout: runs, row descriptors, work, args, done, frames.
 * Frames are packed: head room, packet, tail room of each lane, HB_STAGE_STRIDE aligned.
 * Owned and written by the executor thread.
 */
typedef struct {
    uint8_t *host;
    cl_mem device;
    size_t runs_off, rowdesc_off, work_off, arg_off, done_off, frames_off;
    size_t size;               /* of the whole stage */
    size_t used;               /* bytes filled so far */
    uint32_t rows;             /* staged so far */
    bool writes;               /* some program of the launch writes packets */
    const struct hb_run *runs; /* the launch's runs, copied in at write */
    uint32_t nb_runs;
    uint32_t origin[HB_STAGE_ROWS]; /* slot row in the control region of each staged row */
} hb_stage;

bool hb_stage_init(hb_stage *s, struct hb_device_ctl *d, const struct hb_run *runs);
void hb_stage_free(hb_stage *s);
void hb_stage_reset(hb_stage *s);
/* How many of `rows` more rows fit. */
uint32_t hb_stage_limit(const hb_stage *s, uint32_t rows);
/* Copy the run's rows in; the run that the kernel shall see. */
struct hb_run hb_stage_in(hb_stage *s, struct hb_device_ctl *d, struct hb_run run);
/* Kernel arguments 0 to 2, and the offsets for 5 to 9. */
cl_int hb_stage_args(hb_stage *s, cl_kernel k, cl_ulong off[5]);
cl_int hb_stage_write(hb_stage *s, struct hb_device_ctl *d, cl_event *event);
cl_int hb_stage_read(hb_stage *s, struct hb_device_ctl *d, cl_event after, cl_event *event);
/* Copy answers and changed packet bytes back to the control region and the frames. */
void hb_stage_out(hb_stage *s, struct hb_device_ctl *d);

#endif
