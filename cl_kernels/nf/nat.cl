/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nat: rewrites addresses and ports of IPv4 packets by what flow_setup() (dataplane/nf/nat.c) wrote
 * into the state of their flow, and mends the checksums by what changed (RFC 1624).
 *
 * The state, in 32-bit words:
 *   [0]     HB_NAT_*: what is done to packets of one direction, and undone for those of the other:
 *           that have come to what the NAT made of it. 0: all pass as they are
 *   [1..3]  source and destination address from here on; ports, the source's in the upper half
 *   [4..6]  what they were
 *   [7..9]  the host's: the peer and the mappings that the flow holds
 * `arg`: the verdict, if the host has done the work already (ICMP errors: each may be about another
 * connection), or 0.
 */
#define HB_NAT_SOURCE 1u
#define HB_NAT_DESTINATION 2u
#define HB_NAT_REVERSED 4u /* done to packets of direction 1, else to those of direction 0 */
#define HB_NAT_ADOPT 8u    /* the host's: its packets join the flow that they belong to by now */

/* What a packet becomes. */
typedef struct {
    hb_u32 src, dst, sport, dport;
    hb_u32 what; /* HB_NAT_SOURCE, HB_NAT_DESTINATION */
} hb_nat_ends;

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

static inline hb_u32 hb_nat_put_address(hb_packet *p, hb_u32 at, hb_u32 now)
{
    hb_u32 change = hb_nat_change(hb_get32(p, at), now);
    hb_put32(p, at, now);
    return change;
}

/* Both addresses; returns the change. */
static inline hb_u32 hb_nat_put_addresses(hb_packet *p, const hb_nat_ends *e)
{
    hb_u32 change = 0;
    if (e->what & HB_NAT_SOURCE)
        change += hb_nat_put_address(p, p->l3 + 12, e->src);
    if (e->what & HB_NAT_DESTINATION)
        change += hb_nat_put_address(p, p->l3 + 16, e->dst);
    return change;
}

/* TCP and UDP: ports, for a checksum of addresses and ports. */
static inline hb_u32 hb_nat_put_ports(hb_packet *p, const hb_nat_ends *e)
{
    hb_u32 now = e->sport << 16 | e->dport;
    hb_u32 change = hb_nat_change(hb_get32(p, p->l4), now);
    hb_put32(p, p->l4, now);
    return change;
}

/* The id of an ICMP query; its checksum is of no addresses (RFC 792). */
static inline void hb_nat_put_id(hb_packet *p, const hb_nat_ends *e)
{
    hb_nat_mend(p, p->l4 + 2, hb_nat_change(hb_get16(p, p->l4 + 4), e->sport));
    hb_put16(p, p->l4 + 4, e->sport);
}

static inline void hb_nat_transport(hb_packet *p, const hb_nat_ends *e, hb_u32 change)
{
    switch (hb_get8(p, p->l3 + 9)) {
    case 1:
        hb_nat_put_id(p, e);
        break;
    case 6:
        hb_nat_mend(p, p->l4 + 16, change + hb_nat_put_ports(p, e));
        break;
    case 17:
        hb_nat_mend_udp(p, p->l4 + 6, change + hb_nat_put_ports(p, e));
        break;
    case 33:  /* DCCP and ... */
    case 136: /* ... UDP-Lite keep their ports, but have the addresses in their checksum */
        hb_nat_mend(p, p->l4 + 6, change);
        break;
    }
}

static inline hb_nat_ends hb_nat_done(const hb_packet *p, hb_u32 what)
{
    hb_u32 ports = hb_state32(p, 3);
    hb_nat_ends e = {hb_state32(p, 1), hb_state32(p, 2), ports >> 16, ports & 0xffff, what};
    return e;
}

static inline hb_nat_ends hb_nat_undone(const hb_packet *p, hb_u32 what)
{
    hb_u32 ports = hb_state32(p, 6);
    hb_nat_ends e = {hb_state32(p, 5), hb_state32(p, 4), ports & 0xffff, ports >> 16, 0};
    e.what = (what & HB_NAT_SOURCE ? HB_NAT_DESTINATION : 0) |
             (what & HB_NAT_DESTINATION ? HB_NAT_SOURCE : 0);
    return e;
}

/* Is it between what the NAT made of the flow's ends? */
static inline hb_u32 hb_nat_comes_back(const hb_packet *p)
{
    return hb_get32(p, p->l3 + 12) == hb_state32(p, 2) &&
           hb_get32(p, p->l3 + 16) == hb_state32(p, 1);
}

static inline hb_u32 hb_nf_nat(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)t, (void)result;
    if (arg)
        return (hb_u32)arg;
    hb_u32 what = hb_state32(p, 0);
    if (!what || hb_ip_version(p) != 4)
        return HB_PASS;
    hb_u32 forth = p->direction == (what & HB_NAT_REVERSED ? 1u : 0u);
    if (!forth && !hb_nat_comes_back(p))
        return HB_DROP(HB_REASON_no_mapping);
    hb_nat_ends e = forth ? hb_nat_done(p, what) : hb_nat_undone(p, what);
    hb_u32 change = hb_nat_put_addresses(p, &e);
    hb_nat_mend(p, p->l3 + 10, change);
    if (p->l4 != HB_NO_LAYER) /* else a later fragment */
        hb_nat_transport(p, &e, change);
    return HB_PASS;
}
