/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bare.cl: what anyone writes who has no queue: one work-item a packet, one enqueue a batch. It is
 * the yardstick of the `launch` executor (hummingbird/dataplane/bare_enqueue.c). The build puts
 * hummingbird.h and nf/touch.cl in front, so each packet costs the device what it costs in a row.
 */
__kernel void hb_bare(__global hb_u8 *batch, __global hb_u8 *frames, ulong stride,
                      ulong verdict_off, uint touch)
{
    size_t i = get_global_id(0);
    struct hb_work w = ((__global const struct hb_work *)batch)[i];
    hb_table none = {0, 0};
    hb_packet p;
    p.frame = frames + (hb_u64)w.frame * stride;
    p.offset = w.offset;
    p.length = w.length;
    hb_u64 result;
    ((__global hb_u32 *)(batch + verdict_off))[i] = hb_nf_touch(&p, &none, touch, &result);
}
