/* SPDX-License-Identifier: BSD-3-Clause */
static hb_u32 hb_nf_nat(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)p, (void)t, (void)arg, (void)result;
    return HB_PASS;
}
