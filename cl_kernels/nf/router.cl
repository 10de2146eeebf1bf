/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * router: forwards IPv4 and IPv6 packets by longest prefix match (RFC 1812, RFC 8200): TTL, header
 * checksum, Ethernet addresses; one of several next hops by the packet's flow.
 *
 * The table, changed by the control thread while packets are looked up (hummingbird/dataplane/nf/
 * lpm.h says how; router_table.c writes it). Offsets in elements of the type named:
 *   u32 [0]  HB_ROUTER_MAGIC
 *   u32 [1]  where the IPv6 trie begins
 *   u32 [2]  packet type + 1 for packets to the router itself; 0: drop them
 *   u32 [3]  seed of the flow hash
 *   u32 [HB_ROUTER_HOPS ..]     one word for each next hop: its kind, which of its two records
 *                               holds, how many members it has; one store changes it
 *   u32 [HB_ROUTER_RECORDS ..]  two records of 16 words for each next hop; the writer fills the one
 *                               that does not hold, then stores the word
 *   u16 [HB_ROUTER_V4 ..]       IPv4: DIR-24-8 (Gupta, Lin and McKeown, "Routing Lookups in
 *                               Hardware at Memory Access Speeds", INFOCOM 1998): tbl24, one entry
 *                               for each upper 24 bits of an address; then groups of 256 entries
 *   u32 [see above]             IPv6: 2^16 entries, one for each upper 16 bits; then groups of 256
 *                               entries, one level for each further byte
 * An entry is 0 for no route, or next hop + 1, or the top bit and a group.
 * A record: words 0..2 destination and source MAC; word 3 the MTU in bits 0..15, 1 in bit 16 if its
 * Ethernet address wants to be confirmed; words 4..7 its IP address, byte by byte, word 8 that
 * one's family, 0: it is that of the packet. A group of next hops has their numbers instead, 32 x
 * u16, one for each member. Result: bits 0..15 next hop + 1, 16..31 its MTU, 32..39 what finish()
 * has to do (HB_ROUTER_DO_*).
 */
#define HB_ROUTER_MAGIC 0x48625274u /* "HbRt" */
#define HB_ROUTER_MOST_HOPS 0x7fffu
#define HB_ROUTER_MEMBERS 32u
#define HB_ROUTER_RECORD 16u
#define HB_ROUTER_CONFIRM 0x10000u
#define HB_ROUTER_ADDRESS 4u
#define HB_ROUTER_FAMILY 8u
#define HB_ROUTER_HOPS 32u
#define HB_ROUTER_RECORDS (HB_ROUTER_HOPS + 0x8000u)
#define HB_ROUTER_V4 (2 * (HB_ROUTER_RECORDS + 0x8000u * 2 * HB_ROUTER_RECORD))
#define HB_ROUTER_ROOT4 (1u << 24)
#define HB_ROUTER_ROOT6 (1u << 16)
#define HB_ROUTER_GROUP4 0x8000u
#define HB_ROUTER_GROUP6 0x80000000u

/* A next hop's word: kind in bits 0..7, valid record in bit 8, members in bits 16..23. */
#define HB_ROUTER_UNUSED 0u
#define HB_ROUTER_FORWARD 1u
#define HB_ROUTER_GROUP 2u       /* several next hops, of other kinds than this */
#define HB_ROUTER_LOCAL 3u       /* the router itself */
#define HB_ROUTER_BLACKHOLE 4u   /* drop without a word */
#define HB_ROUTER_UNREACHABLE 5u /* drop, and say so */
#define HB_ROUTER_PROHIBIT 6u    /* likewise */
#define HB_ROUTER_UNRESOLVED 7u  /* its Ethernet address is not known (yet) */

/* What is left to do for finish(). */
#define HB_ROUTER_DO_NOTHING 0u
#define HB_ROUTER_DO_TIME 1u       /* ICMP time exceeded */
#define HB_ROUTER_DO_NO_ROUTE 2u   /* ICMP network unreachable */
#define HB_ROUTER_DO_HOST 3u       /* ICMP host unreachable */
#define HB_ROUTER_DO_PROHIBITED 4u /* ICMP communication prohibited */
#define HB_ROUTER_DO_TOO_BIG 5u    /* ICMP fragmentation needed, packet too big */
#define HB_ROUTER_DO_FRAGMENT 6u   /* cut the packet into pieces of the MTU */
#define HB_ROUTER_DO_ARP 7u        /* learn from an ARP packet */
#define HB_ROUTER_DO_ND 8u         /* learn from a neighbour solicitation or advertisement */
#define HB_ROUTER_DO_ASK 9u      /* ask for the next hop's Ethernet address, or host unreachable */
#define HB_ROUTER_DO_CONFIRM 10u /* ask whether it is still the same; the packet leaves */

static inline hb_u64 hb_router_do(hb_u32 what)
{
    return (hb_u64)what << 32;
}

/* ---- lookup ---------------------------------------------------------------------------------- */

static inline hb_u32 hb_router_lookup4(const hb_table *t, hb_u32 address)
{
    hb_u32 entry = hb_table16(t, HB_ROUTER_V4 + (address >> 8));
    if (entry & HB_ROUTER_GROUP4)
        entry = hb_table16(t, HB_ROUTER_V4 + HB_ROUTER_ROOT4 +
                                  ((entry & ~HB_ROUTER_GROUP4) << 8 | (address & 255)));
    return entry;
}

/* For the 16 bytes of an address at `at` of a packet. */
static inline hb_u32 hb_router_lookup6(const hb_table *t, const hb_packet *p, hb_u32 at)
{
    hb_u64 trie = hb_table32(t, 1);
    hb_u32 entry = hb_table32(t, trie + hb_get16(p, at));
    for (hb_u32 i = 2; i < 16 && (entry & HB_ROUTER_GROUP6); i++)
        entry = hb_table32(t, trie + HB_ROUTER_ROOT6 +
                                  ((hb_u64)(entry & ~HB_ROUTER_GROUP6) << 8 | hb_get8(p, at + i)));
    return entry & HB_ROUTER_GROUP6 ? 0 : entry;
}

/* ---- which of several next hops -------------------------------------------------------------- */

static inline hb_u32 hb_router_mix(hb_u32 h, hb_u32 word)
{
    h = (h ^ word) * 0x9e3779b1u;
    return h ^ h >> 15;
}

/* TCP, UDP, DCCP, SCTP and UDP-Lite begin with their ports. */
static inline hb_u32 hb_router_has_ports(hb_u32 protocol)
{
    return protocol == 6 || protocol == 17 || protocol == 33 || protocol == 132 || protocol == 136;
}

/* The same for all packets of a flow and direction. All pieces of a fragmented packet go one way,
 * so no piece's ports count; nor do those behind IPv6 extension headers, one of which may say so.
 */
static inline hb_u32 hb_router_hash(const hb_packet *p, hb_u32 seed)
{
    hb_u32 ip = p->l3, v4 = hb_ip_version(p) == 4;
    hb_u32 first = ip + (v4 ? 12 : 8), words = v4 ? 2 : 8;
    hb_u32 protocol = hb_get8(p, ip + (v4 ? 9 : 6));
    hb_u32 l4 = v4 ? ip + (hb_get8(p, ip) & 15) * 4 : ip + 40;
    hb_u32 h = hb_router_mix(seed, protocol);
    for (hb_u32 i = 0; i < words; i++)
        h = hb_router_mix(h, hb_get32(p, first + 4 * i));
    if (hb_router_has_ports(protocol) && !(v4 && (hb_get16(p, ip + 6) & 0x3fff)))
        h = hb_router_mix(h, hb_get32(p, l4));
    h = (h ^ h >> 16) * 0x85ebca6bu;
    return h ^ h >> 13;
}

static inline hb_u32 hb_router_record(hb_u32 hop, hb_u32 word)
{
    return HB_ROUTER_RECORDS + (2 * hop + (word >> 8 & 1)) * HB_ROUTER_RECORD;
}

static inline hb_u32 hb_router_member(const hb_packet *p, const hb_table *t, hb_u32 hop,
                                      hb_u32 word)
{
    hb_u32 members = word >> 16 & 255;
    hb_u32 i = (hb_u32)((hb_u64)hb_router_hash(p, hb_table32(t, 3)) * members >> 32);
    return hb_table16(t, 2 * hb_router_record(hop, word) + i);
}

/* ---- the packet ------------------------------------------------------------------------------ */

/* The one's complement sum of a header; 0xffff if its checksum is right (RFC 1071). */
static inline hb_u32 hb_router_sum(const hb_packet *p, hb_u32 at, hb_u32 bytes)
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
static inline void hb_router_age(hb_packet *p, hb_u32 ip, hb_u32 v4)
{
    if (!v4) {
        hb_put8(p, ip + 7, hb_get8(p, ip + 7) - 1);
        return;
    }
    hb_u32 sum = (~hb_get16(p, ip + 10) & 0xffff) + 0xfeff;
    hb_put8(p, ip + 8, hb_get8(p, ip + 8) - 1);
    hb_put16(p, ip + 10, ~((sum & 0xffff) + (sum >> 16)));
}

/* Not IP: an ARP packet teaches, behind up to two VLAN tags. */
static inline hb_u32 hb_router_other(const hb_packet *p, hb_u64 *result)
{
    hb_u32 at = 12, ethertype = hb_get16(p, at);
    for (hb_u32 i = 0; i < 2 && (ethertype == 0x8100 || ethertype == 0x88a8); i++)
        ethertype = hb_get16(p, at += 4);
    if (ethertype == 0x0806)
        *result = hb_router_do(HB_ROUTER_DO_ARP);
    return HB_DROP(HB_REASON_not_ip);
}

/* A neighbour solicitation or advertisement, as RFC 4861 section 7.1 wants it. */
static inline hb_u32 hb_router_is_nd(const hb_packet *p, hb_u32 ip)
{
    hb_u32 type = hb_get8(p, ip + 40);
    return hb_get8(p, ip + 6) == 58 && hb_get8(p, ip + 7) == 255 && (type == 135 || type == 136);
}

/* RFC 4291: addresses that never lead off a link: multicast destinations (no multicast is routed
 * here), link-local ones, unspecified and link-local sources. */
static inline hb_u32 hb_router_stays(const hb_packet *p, hb_u32 ip)
{
    hb_u32 src = hb_get16(p, ip + 8), dst = hb_get16(p, ip + 24);
    hb_u32 unspecified = (hb_get32(p, ip + 8) | hb_get32(p, ip + 12) | hb_get32(p, ip + 16) |
                          hb_get32(p, ip + 20)) == 0;
    return dst >= 0xff00 || (dst & 0xffc0) == 0xfe80 || (src & 0xffc0) == 0xfe80 || unspecified;
}

/* HB_PASS if the packet may be looked up. */
static inline hb_u32 hb_router_check(const hb_packet *p, hb_u32 version, hb_u64 *result)
{
    hb_u32 ip = p->l3;
    if (!version)
        return hb_router_other(p, result);
    if (hb_ip_end(p) == 0)
        return HB_DROP(HB_REASON_malformed);
    /* RFC 1812 section 5.2.2: a router verifies the checksum. */
    if (version == 4)
        return hb_router_sum(p, ip, (hb_get8(p, ip) & 15) * 4) == 0xffff
                   ? HB_PASS
                   : HB_DROP(HB_REASON_bad_checksum);
    if (hb_router_is_nd(p, ip))
        *result = hb_router_do(HB_ROUTER_DO_ND);
    return hb_router_stays(p, ip) ? HB_DROP(HB_REASON_link_local) : HB_PASS;
}

static inline hb_u32 hb_router_refuse(hb_u32 reason, hb_u32 what, hb_u64 *result)
{
    *result = hb_router_do(what);
    return HB_DROP(reason);
}

/* A packet that leaves for a next hop whose addresses are known. */
static inline hb_u32 hb_router_forward(hb_packet *p, const hb_table *t, hb_u32 hop, hb_u32 record,
                                       hb_u64 *result)
{
    hb_u32 ip = p->l3, v4 = hb_ip_version(p) == 4;
    hb_u32 word3 = hb_table32(t, record + 3), mtu = word3 & 0xffff;
    hb_u32 what = word3 >> 16 ? HB_ROUTER_DO_CONFIRM : HB_ROUTER_DO_NOTHING;
    if (hb_ip_end(p) - ip > mtu) {
        what = v4 && !(hb_get16(p, ip + 6) & 0x4000) ? HB_ROUTER_DO_FRAGMENT : HB_ROUTER_DO_TOO_BIG;
        if (what == HB_ROUTER_DO_TOO_BIG) {
            *result = hb_router_do(what) | (hb_u64)mtu << 16 | (hop + 1);
            return HB_DROP(HB_REASON_too_big);
        }
    }
    hb_router_age(p, ip, v4);
    for (hb_u32 i = 0; i < 3 && ip >= 14; i++)
        hb_put32(p, 4 * i, hb_table32(t, record + i));
    *result = hb_router_do(what) | (hb_u64)mtu << 16 | (hop + 1);
    return HB_PASS;
}

/* What becomes of a packet with this entry of the trie. */
static inline hb_u32 hb_router_send(hb_packet *p, const hb_table *t, hb_u32 entry, hb_u64 *result)
{
    if (entry == 0)
        return hb_router_refuse(HB_REASON_no_route, HB_ROUTER_DO_NO_ROUTE, result);
    hb_u32 hop = entry - 1, word = hb_table32(t, HB_ROUTER_HOPS + hop);
    if ((word & 255) == HB_ROUTER_GROUP) {
        hop = hb_router_member(p, t, hop, word);
        word = hb_table32(t, HB_ROUTER_HOPS + hop);
    }
    hb_u32 kind = word & 255, own = hb_table32(t, 2);
    if (kind == HB_ROUTER_LOCAL)
        return own ? HB_RETYPE(own - 1) : HB_DROP(HB_REASON_to_router);
    if (kind == HB_ROUTER_BLACKHOLE)
        return HB_DROP(HB_REASON_blackhole);
    /* RFC 1812 section 5.3.1: never forwards with a TTL of 0. */
    if (hb_get8(p, p->l3 + (hb_ip_version(p) == 4 ? 8 : 7)) <= 1)
        return hb_router_refuse(HB_REASON_ttl_expired, HB_ROUTER_DO_TIME, result);
    switch (kind) {
    case HB_ROUTER_FORWARD:
        return hb_router_forward(p, t, hop, hb_router_record(hop, word), result);
    case HB_ROUTER_UNREACHABLE:
        return hb_router_refuse(HB_REASON_unreachable, HB_ROUTER_DO_HOST, result);
    case HB_ROUTER_PROHIBIT:
        return hb_router_refuse(HB_REASON_unreachable, HB_ROUTER_DO_PROHIBITED, result);
    case HB_ROUTER_UNRESOLVED:
        *result = hb_router_do(HB_ROUTER_DO_ASK) | (hop + 1);
        return HB_DROP(HB_REASON_no_neighbour);
    default:
        return hb_router_refuse(HB_REASON_no_route, HB_ROUTER_DO_NO_ROUTE, result);
    }
}

static inline hb_u32 hb_nf_router(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)arg;
    hb_u32 version = hb_ip_version(p);
    hb_u32 verdict = hb_router_check(p, version, result);
    if (verdict != HB_PASS)
        return verdict;
    hb_u32 entry = version == 4 ? hb_router_lookup4(t, hb_get32(p, p->l3 + 16))
                                : hb_router_lookup6(t, p, p->l3 + 24);
    return hb_router_send(p, t, entry, result);
}
