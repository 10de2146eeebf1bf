/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * router: forwards IPv4 packets by longest prefix match (RFC 1812), with the DIR-24-8 tables of
 * Gupta, Lin and McKeown, "Routing Lookups in Hardware at Memory Access Speeds", INFOCOM 1998:
 * one memory access for prefixes up to /24, two for longer ones.
 *
 * Table, built by hummingbird/nfs/router.py:
 *   u32 [0]                 u32 index of the next hops
 *   u16 [64 ..]             tbl24, one entry for each upper 24 bits of an address
 *   u16 [64 + 2^24 ..]      tbl8, groups of 256 entries, one for each last byte
 *   u32 [next hops + 4 * i] next hop i: destination MAC, source MAC (3 words), one word unused
 * An entry is 0 for no route, or next hop + 1; in tbl24 also 0x8000 + tbl8 group.
 * Result: next hop + 1.
 */
#define HB_ROUTER_TBL24 64u
#define HB_ROUTER_TBL8 (HB_ROUTER_TBL24 + (1u << 24))
#define HB_ROUTER_GROUP 0x8000u

static hb_u32 hb_router_lookup(const hb_table *t, hb_u32 address)
{
    hb_u32 entry = hb_table16(t, HB_ROUTER_TBL24 + (address >> 8));
    if (entry & HB_ROUTER_GROUP)
        entry = hb_table16(t, HB_ROUTER_TBL8 + ((entry & ~HB_ROUTER_GROUP) << 8 | (address & 255)));
    return entry;
}

/* The one's complement sum of a header; 0xffff if its checksum is right (RFC 1071). */
static hb_u32 hb_router_sum(const hb_packet *p, hb_u32 at, hb_u32 bytes)
{
    hb_u64 sum = 0;
    for (hb_u32 i = 0; i < bytes; i += 4)
        sum += hb_get32(p, at + i);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    return (hb_u32)((sum & 0xffff) + (sum >> 16));
}

/* TTL - 1, and the checksum by what changed: HC' = ~(~HC + ~m + m') (RFC 1624 section 3). With
 * m' = m - 0x100 the last two are 0xfeff, whatever protocol stands in the same word. */
static void hb_router_age(hb_packet *p, hb_u32 ip)
{
    hb_u32 sum = (~hb_get16(p, ip + 10) & 0xffff) + 0xfeff;
    hb_put8(p, ip + 8, hb_get8(p, ip + 8) - 1);
    hb_put16(p, ip + 10, ~((sum & 0xffff) + (sum >> 16)));
}

static void hb_router_readdress(hb_packet *p, const hb_table *t, hb_u32 hop)
{
    hb_u32 entry = hb_table32(t, 0) + 4 * hop;
    for (hb_u32 i = 0; i < 3; i++)
        hb_put32(p, 4 * i, hb_table32(t, entry + i));
}

static hb_u32 hb_nf_router(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)arg;
    hb_u32 ip = p->l3;
    if (hb_ip_version(p) != 4)
        return HB_DROP(HB_REASON_not_ipv4);
    if (hb_ip_end(p) == 0)
        return HB_DROP(HB_REASON_malformed);
    /* RFC 1812 section 5.2.2: a router verifies the checksum ... */
    if (hb_router_sum(p, ip, (hb_get8(p, ip) & 15) * 4) != 0xffff)
        return HB_DROP(HB_REASON_bad_checksum);
    /* ... and section 5.3.1: never forwards with a TTL of 0. */
    if (hb_get8(p, ip + 8) <= 1)
        return HB_DROP(HB_REASON_ttl_expired);
    hb_u32 entry = hb_router_lookup(t, hb_get32(p, ip + 16));
    if (entry == 0)
        return HB_DROP(HB_REASON_no_route);
    hb_router_age(p, ip);
    if (ip >= 14)
        hb_router_readdress(p, t, entry - 1);
    *result = entry;
    return HB_PASS;
}
