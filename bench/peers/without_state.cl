/* SPDX-License-Identifier: BSD-3-Clause */
/* without_state: looks at one line of memory for each flow, as with_state does, but of a table. */
static hb_u32 hb_nf_without_state(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    hb_u64 at = (hb_u64)(p->flow & 0x1ffff) * 16; /* lines of 16 words, FLOWS of them */
    (void)arg;
    *result = hb_get16(p, p->l4) + hb_table32(t, at) + hb_table32(t, at + 2);
    return HB_PASS;
}
