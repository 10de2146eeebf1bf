/* SPDX-License-Identifier: BSD-3-Clause */
/* with_state: counts packets and bytes of each flow in the flow's state. */
static hb_u32 hb_nf_with_state(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)arg;
    hb_set_state64(p, 0, hb_state64(p, 0) + 1);
    hb_set_state64(p, 1, hb_state64(p, 1) + p->length);
    *result = hb_get16(p, p->l4);
    return HB_PASS;
}
