/* SPDX-License-Identifier: BSD-3-Clause */
/* stage.h: one launch's staging copies for a device that shares no memory with the host. */
#ifndef HB_STAGE_H
#define HB_STAGE_H
#include "clapi.h"
#include "device.h"

#define HB_STAGE_ROWS 64u   /* rows that fit one stage */
#define HB_STAGE_STRIDE 64u /* bytes: unit of hb_work.frame in a stage */

/*
 * Host copy and device buffer have one layout: runs, row descriptors, work, args, done, frames;
 * each array just as long as the launch needs, so that one copy in and one out move little else.
 * Frames are packed: head room, packet, tail room of each lane, HB_STAGE_STRIDE aligned.
 * Owned and written by the executor thread.
 */
typedef struct {
    uint8_t *host;
    cl_mem device;
    size_t runs_off, rowdesc_off, work_off, arg_off, done_off, frames_off;
    size_t used;                    /* bytes filled so far */
    uint32_t rows;                  /* staged so far */
    bool writes;                    /* some program of the launch writes packets */
    uint32_t origin[HB_STAGE_ROWS]; /* slot row in the control region of each staged row */
} hb_stage;

bool hb_stage_init(hb_stage *s, struct hb_device_ctl *d);
void hb_stage_free(hb_stage *s);
/* Copy the rows of runs[0 .. n-1] in: one run for each workgroup at most, HB_STAGE_ROWS rows in
 * all.
 */
void hb_stage_in(hb_stage *s, struct hb_device_ctl *d, const struct hb_run *runs, uint32_t n);
/* Kernel arguments 0 to 2, and the offsets for 5 to 9. */
cl_int hb_stage_args(hb_stage *s, cl_kernel k, cl_ulong off[5]);
cl_int hb_stage_write(hb_stage *s, struct hb_device_ctl *d, cl_event *event);
cl_int hb_stage_read(hb_stage *s, struct hb_device_ctl *d, cl_event after, cl_event *event);
/* Copy answers and changed packet bytes back to the control region and the frames. */
void hb_stage_out(hb_stage *s, struct hb_device_ctl *d);

#endif
