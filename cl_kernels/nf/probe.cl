/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * probe: used by the coherence probe, not by topologies. Does this device see what the host wrote
 * last, in the packet and in the table, and does the host see what the device answers?
 *
 * The packet's first 16 bytes and the table's word for this slot (`flow` is the slot; slots are
 * HB_LINE bytes apart) must all hold the low 32 bits of arg. Result: how many words did not. The
 * packet then gets the complement, so that each use of a line has new content both ways.
 */
#define HB_PROBE_WORDS 4u

static hb_u32 hb_nf_probe(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    hb_u32 value = (hb_u32)arg;
    hb_u32 wrong = hb_table32(t, (hb_u64)p->flow * (HB_LINE / 4)) != value;
    for (hb_u32 i = 0; i < HB_PROBE_WORDS; i++)
        wrong += hb_get32(p, 4 * i) != value;
    for (hb_u32 i = 0; i < HB_PROBE_WORDS; i++)
        hb_put32(p, 4 * i, ~value);
    *result = wrong;
    return HB_PASS;
}
