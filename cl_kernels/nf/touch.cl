/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * touch: used by benchmarks of the queue, not by topologies. Adds 1 to the first 32-bit word of
 * every 64-byte line of the packet's first `arg` bytes, so that afterwards each packet tells how
 * often it was here. An arg of 4 is one word a packet.
 */
static hb_u32 hb_nf_touch(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)result;
    for (hb_u32 at = 0; at < (hb_u32)arg && at < p->length; at += 64)
        hb_put32(p, at, hb_get32(p, at) + 1);
    return HB_PASS;
}
