/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nat: rewrites addresses and ports of IPv4 packets by what flow_setup() (dataplane/nf/nat.c) wrote
 * into the state of their flow, and mends the checksums by what changed (RFC 1624).
 *
 * The state, in 32-bit words:
 *   [0]  HB_NAT_*: what is done to packets of one direction; those of the other have bypassed the
 *        translation that they need. 0: all pass as they are
 *   [1]  source and
 *   [2]  destination address from here on
 *   [3]  source port from here on in the upper half, destination port in the lower one
 *   [4..7]  the host's: the mappings and peers that the flow holds
 * `arg`: the verdict, if the host has done the work already (ICMP errors: each may be about another
 * connection), or 0.
 */
#define HB_NAT_SOURCE 1u
#define HB_NAT_DESTINATION 2u
#define HB_NAT_REVERSED 4u /* packets of direction 1 are meant, else those of direction 0 */
#define HB_NAT_ADOPT 8u    /* the host's: its packets join the flow that they belong to by now */

/* ---- checksums ------------------------------------------------------------------------------- */

/* What replacing a word, of two 16-bit words, adds to a sum: ~m + m' (RFC 1624 section 3). */
static inline hb_u32 hb_nat_change(hb_u32 old, hb_u32 now)
{
    old = ~old;
    return (old >> 16) + (old & 0xffff) + (now >> 16) + (now & 0xffff);
}

/* HC' = ~(~HC + ~m + m'); `change` is a sum of at most some thousand changes. */
static inline hb_u32 hb_nat_mended(hb_u32 checksum, hb_u32 change)
{
    hb_u32 sum = (~checksum & 0xffff) + (change & 0xffff) + (change >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~((sum & 0xffff) + (sum >> 16)) & 0xffff;
}

static inline void hb_nat_mend(hb_packet *p, hb_u32 at, hb_u32 change)
{
    hb_put16(p, at, hb_nat_mended(hb_get16(p, at), change));
}

/* Of UDP: 0 says that there is none, and stays; a sum of 0 is written as its other form. */
static inline void hb_nat_mend_udp(hb_packet *p, hb_u32 at, hb_u32 change)
{
    hb_u32 old = hb_get16(p, at);
    if (!old)
        return;
    hb_u32 sum = hb_nat_mended(old, change);
    hb_put16(p, at, sum ? sum : 0xffff);
}

/* ---- a packet ---------------------------------------------------------------------------------*/

/* Both addresses; returns the change. */
static inline hb_u32 hb_nat_addresses(hb_packet *p, hb_u32 what)
{
    hb_u32 change = 0;
    for (hb_u32 i = 0; i < 2; i++) {
        if (!(what & HB_NAT_SOURCE << i))
            continue;
        hb_u32 at = p->l3 + 12 + 4 * i, now = hb_state32(p, 1 + i);
        change += hb_nat_change(hb_get32(p, at), now);
        hb_put32(p, at, now);
    }
    return change;
}

/* TCP and UDP: ports, and a checksum of addresses and ports. */
static inline hb_u32 hb_nat_put_ports(hb_packet *p)
{
    hb_u32 old = hb_get32(p, p->l4), now = hb_state32(p, 3);
    hb_put32(p, p->l4, now);
    return hb_nat_change(old, now);
}

/* The id of an ICMP query; its checksum is of no addresses (RFC 792). */
static inline void hb_nat_id(hb_packet *p, hb_u32 what)
{
    hb_u32 ports = hb_state32(p, 3), now = what & HB_NAT_SOURCE ? ports >> 16 : ports & 0xffff;
    hb_nat_mend(p, p->l4 + 2, hb_nat_change(hb_get16(p, p->l4 + 4), now));
    hb_put16(p, p->l4 + 4, now);
}

static inline void hb_nat_transport(hb_packet *p, hb_u32 what, hb_u32 change)
{
    switch (hb_get8(p, p->l3 + 9)) {
    case 1:
        hb_nat_id(p, what);
        break;
    case 6:
        hb_nat_mend(p, p->l4 + 16, change + hb_nat_put_ports(p));
        break;
    case 17:
        change += hb_nat_put_ports(p);
        hb_nat_mend_udp(p, p->l4 + 6, change);
        break;
    case 33:  /* DCCP and ... */
    case 136: /* ... UDP-Lite keep their ports, but have the addresses in their checksum */
        hb_nat_mend(p, p->l4 + 6, change);
        break;
    }
}

static inline hb_u32 hb_nf_nat(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)result;
    if (arg)
        return (hb_u32)arg;
    hb_u32 what = hb_state32(p, 0);
    if (!what || hb_ip_version(p) != 4)
        return HB_PASS;
    if (p->direction != (what & HB_NAT_REVERSED ? 1u : 0u))
        return HB_DROP(HB_REASON_no_mapping);
    hb_u32 change = hb_nat_addresses(p, what);
    hb_nat_mend(p, p->l3 + 10, change);
    if (p->l4 != HB_NO_LAYER) /* else a later fragment */
        hb_nat_transport(p, what, change);
    return HB_PASS;
}
