/* SPDX-License-Identifier: BSD-3-Clause */
/* control.c: where the arrays of a control region lie. */
#include <string.h>

#include "device.h"

static uint32_t place(uint32_t *at, uint64_t bytes)
{
    uint32_t off = *at;
    *at += (uint32_t)((bytes + HB_LINE - 1) / HB_LINE * HB_LINE);
    return off;
}

static struct hb_control layout(uint32_t workgroups, uint32_t lanes, uint32_t depth,
                                uint32_t groups)
{
    struct hb_control c = {.magic = HB_CONTROL_MAGIC,
                           .version = HB_LAYOUT_VERSION,
                           .workgroups = workgroups,
                           .lanes = lanes,
                           .depth = depth,
                           .groups = groups};
    uint64_t rows = (uint64_t)workgroups * depth, slots = rows * lanes;
    uint32_t at = 0;
    place(&at, sizeof c);
    c.exit_off = place(&at, HB_LINE);
    c.tick_off = place(&at, HB_LINE);
    c.launch_off = place(&at, sizeof(struct hb_launch));
    c.checkin_off = place(&at, (uint64_t)groups * HB_LINE);
    c.rank_off = place(&at, (uint64_t)groups * HB_LINE);
    c.cpu_off = place(&at, (uint64_t)workgroups * HB_LINE);
    c.gpu_off = place(&at, (uint64_t)workgroups * HB_LINE);
    c.rowdesc_off = place(&at, rows * sizeof(struct hb_rowdesc));
    c.work_off = place(&at, slots * sizeof(struct hb_work));
    c.arg_off = place(&at, slots * sizeof(uint64_t));
    c.done_off = place(&at, slots * sizeof(struct hb_done));
    c.runs_off = place(&at, 2 * (uint64_t)workgroups * sizeof(struct hb_run));
    c.size = at;
    return c;
}

size_t hb_control_size(uint32_t workgroups, uint32_t lanes, uint32_t depth, uint32_t groups)
{
    return layout(workgroups, lanes, depth, groups).size;
}

void hb_control_init(void *control, uint32_t workgroups, uint32_t lanes, uint32_t depth,
                     uint32_t groups)
{
    struct hb_control c = layout(workgroups, lanes, depth, groups);
    memset(control, 0, c.size);
    memcpy(control, &c, sizeof c);
}

void hb_control_exit(void *control)
{
    struct hb_control *c = control;
    hb_store_release(hb_control_word(c, c->exit_off, 0), 1);
}
