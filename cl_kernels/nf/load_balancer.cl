/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_balancer: gives packets to a virtual address to the backend of their flow, and makes the
 * backends' replies look as if the virtual address had sent them. dataplane/nf/load_balancer.c
 * chooses the backend when a flow begins; here its packets are rewritten.
 *
 * State of a flow, 8 words; all but the first are for the modes that rewrite:
 *   0     mode in bits 0..7 (HB_LB_*), the direction it is for in bit 8, flags in bits 9..12
 *   1     counters of the backend (slot) in bits 0..15, service in bits 16..31
 *   2     new port in bits 0..15 (0: none), first two bytes of the MAC address in bits 16..31
 *   3     the other four
 *   4..7  new address, the first four bytes in word 4; IPv4 in word 7 alone
 * Table, words:
 *   0     HB_LB_MAGIC
 *   1     MTU of tunnels
 *   2, 3  source MAC address as in the state, bit 16 of word 2 if there is one
 *   4..7  source of IPv6 tunnels
 *   8     source of IPv4 tunnels
 * Result: bits 0..15 slot + 1 of a packet that is to be counted, bit 16 if it is a reply, bits
 * 32..39 what finish() has to do (HB_LB_DO_*).
 */
#define HB_LB_MAGIC 0x48624c62u /* "HbLb" */

/* Modes. 0: nothing is known of the flow yet. */
#define HB_LB_UNKNOWN 0u
#define HB_LB_PASS 1u
#define HB_LB_DROP 2u /* there was no backend */
#define HB_LB_TO_BACKEND 3u
#define HB_LB_FROM_BACKEND 4u
#define HB_LB_TUNNEL 5u
#define HB_LB_ICMP 6u /* it may bear errors about balanced connections */

#define HB_LB_HAS_MAC (1u << 9)
#define HB_LB_SIX (1u << 10)      /* the new address is an IPv6 one */
#define HB_LB_FRAGMENT (1u << 11) /* a flow of fragments: most have no transport header */
#define HB_LB_UDP (1u << 12)      /* else TCP */

#define HB_LB_DO_CHOOSE 1u /* the packet has no flow: all of it */
#define HB_LB_DO_ICMP 2u   /* translate what an ICMP error quotes */
#define HB_LB_DO_CUT 3u    /* cut the tunnel's packet into pieces of the MTU */
#define HB_LB_DO_TELL 4u   /* tell the sender what fits */

#define HB_LB_REPLY (1u << 16)

/* Where a transport header may begin at most, so that its checksum lies in the bytes that a device
 * gets of a packet. Behind this there are only strange IPv6 extension headers. */
#define HB_LB_MOST_L4 110u

/* ---- checksums ------------------------------------------------------------------------------- */

/* One's complement sum of ~m and m', folded to 16 bits: what a checksum's complement changes by
 * when the word m becomes m' (RFC 1624 section 3). */
static inline hb_u32 hb_lb_fold(hb_u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

static inline hb_u32 hb_lb_change16(hb_u32 before, hb_u32 after)
{
    return (~before & 0xffff) + after;
}

static inline hb_u32 hb_lb_change32(hb_u32 before, hb_u32 after)
{
    return hb_lb_change16(before >> 16, after >> 16) +
           hb_lb_change16(before & 0xffff, after & 0xffff);
}

/* HC' = ~(~HC + ~m + m') */
static inline hb_u32 hb_lb_updated(hb_u32 checksum, hb_u32 change)
{
    return ~hb_lb_fold((~checksum & 0xffff) + hb_lb_fold(change)) & 0xffff;
}

/* The checksum of a TCP or UDP header at l4. UDP's 0 means that there is none. */
static inline void hb_lb_update_l4(hb_packet *p, hb_u32 l4, hb_u32 udp, hb_u32 change)
{
    hb_u32 at = l4 + (udp ? 6 : 16), checksum = hb_get16(p, at);
    if (udp && !checksum)
        return;
    checksum = hb_lb_updated(checksum, change);
    hb_put16(p, at, udp && !checksum ? 0xffff : checksum);
}

/* ---- rewriting ------------------------------------------------------------------------------- */

/* Destination MAC address of the backend, source of the load balancer. */
static inline void hb_lb_macs(hb_packet *p, const hb_table *t, hb_u32 head)
{
    if (!(head & HB_LB_HAS_MAC) || p->l3 < 14)
        return;
    hb_put16(p, 0, hb_state32(p, 2) >> 16);
    hb_put32(p, 2, hb_state32(p, 3));
    if (hb_table32(t, 2) >> 16 & 1) {
        hb_put16(p, 6, hb_table32(t, 2) & 0xffff);
        hb_put32(p, 8, hb_table32(t, 3));
    }
}

/* Put the flow's address at `at` in place of the one there; how the sum changes. */
static inline hb_u32 hb_lb_put_address(hb_packet *p, hb_u32 at, hb_u32 v4)
{
    hb_u32 change = 0;
    for (hb_u32 i = v4 ? 3 : 0; i < 4; i++, at += 4) {
        hb_u32 word = hb_state32(p, 4 + i);
        change += hb_lb_change32(hb_get32(p, at), word);
        hb_put32(p, at, word);
    }
    return change;
}

/* Address and port of one end, 0 the source, 1 the destination, and every checksum. */
static inline hb_u32 hb_lb_rewrite(hb_packet *p, hb_u32 head, hb_u32 end)
{
    hb_u32 ip = p->l3, l4 = p->l4, v4 = hb_ip_version(p) == 4, stop = hb_ip_end(p);
    hb_u32 udp = head & HB_LB_UDP, port = hb_state32(p, 2) & 0xffff;
    if (!stop || v4 == !!(head & HB_LB_SIX))
        return HB_DROP(HB_REASON_malformed);
    /* RFC 1858: a first fragment that ends before the checksum has something to hide. */
    if (l4 == HB_NO_LAYER ? !(head & HB_LB_FRAGMENT)
                          : l4 > HB_LB_MOST_L4 || l4 + (udp ? 8 : 18) > stop)
        return HB_DROP(HB_REASON_malformed);
    hb_u32 change = hb_lb_put_address(p, ip + (v4 ? 12 + 4 * end : 8 + 16 * end), v4);
    if (v4)
        hb_put16(p, ip + 10, hb_lb_updated(hb_get16(p, ip + 10), change));
    if (l4 == HB_NO_LAYER)
        return HB_PASS;
    if (port) {
        change += hb_lb_change16(hb_get16(p, l4 + 2 * end), port);
        hb_put16(p, l4 + 2 * end, port);
    }
    hb_lb_update_l4(p, l4, udp, change);
    return HB_PASS;
}

/* ---- tunnels --------------------------------------------------------------------------------- */

/* RFC 2003. TOS with its ECN bits as inside (RFC 6040); DF, so that no router on the way cuts what
 * has no number of its own. */
static inline void hb_lb_outer4(hb_packet *p, const hb_table *t, hb_u32 tos, hb_u32 length,
                                hb_u32 protocol)
{
    hb_u32 ip = p->l3, source = hb_table32(t, 8), address = hb_state32(p, 7);
    hb_u32 words[3] = {0x45000000u | tos << 16 | length, 0x00004000u, 64u << 24 | protocol << 16};
    hb_u32 sum = (source >> 16) + (source & 0xffff) + (address >> 16) + (address & 0xffff);
    for (hb_u32 i = 0; i < 3; i++) {
        hb_put32(p, ip + 4 * i, words[i]);
        sum += (words[i] >> 16) + (words[i] & 0xffff);
    }
    hb_put16(p, ip + 10, ~hb_lb_fold(sum));
    hb_put32(p, ip + 12, source);
    hb_put32(p, ip + 16, address);
}

/* RFC 2473 */
static inline void hb_lb_outer6(hb_packet *p, const hb_table *t, hb_u32 tos, hb_u32 length,
                                hb_u32 protocol)
{
    hb_u32 ip = p->l3;
    hb_put32(p, ip, 0x60000000u | tos << 20);
    hb_put32(p, ip + 4, length << 16 | protocol << 8 | 64);
    for (hb_u32 i = 0; i < 4; i++) {
        hb_put32(p, ip + 8 + 4 * i, hb_table32(t, 4 + i));
        hb_put32(p, ip + 24 + 4 * i, hb_state32(p, 4 + i));
    }
}

static inline hb_u32 hb_lb_encapsulate(hb_packet *p, const hb_table *t, hb_u32 head, hb_u64 *result)
{
    hb_u32 ip = p->l3, v4 = hb_ip_version(p) == 4, stop = hb_ip_end(p), six = head & HB_LB_SIX;
    hb_u32 outer = six ? 40 : 20, inner = stop - ip, what = 0;
    if (!stop)
        return HB_DROP(HB_REASON_malformed);
    if (inner + outer > hb_table32(t, 1)) {
        if (!v4 || six || hb_get16(p, ip + 6) & 0x4000) {
            *result = (hb_u64)HB_LB_DO_TELL << 32 | (hb_table32(t, 1) - outer);
            return HB_DROP(HB_REASON_too_big);
        }
        what = HB_LB_DO_CUT;
    }
    hb_u32 tos = v4 ? hb_get8(p, ip + 1) : hb_get16(p, ip) >> 4 & 255, protocol = v4 ? 4 : 41;
    if (!hb_grow_head(p, outer))
        return HB_DROP(HB_REASON_no_room);
    hb_trim_tail(p, stop + outer); /* what Ethernet padded */
    hb_move(p, 0, outer, ip);
    if (ip >= 14)
        hb_put16(p, ip - 2, six ? 0x86dd : 0x0800);
    if (six)
        hb_lb_outer6(p, t, tos, inner, protocol);
    else
        hb_lb_outer4(p, t, tos, inner + outer, protocol);
    p->l4 = ip + outer;
    *result = (hb_u64)what << 32;
    return HB_PASS;
}

/* ---- the packet ------------------------------------------------------------------------------ */

/* Does an ICMP message bear an error? Those quote a packet: RFC 792, RFC 4443. */
static inline hb_u32 hb_lb_is_error(const hb_packet *p)
{
    hb_u32 v4 = hb_ip_version(p) == 4, type = hb_get8(p, p->l4);
    if (p->l4 == HB_NO_LAYER || p->l4 >= p->length)
        return 0;
    return v4 ? type == 3 || type == 4 || type == 11 || type == 12 : type >= 1 && type <= 4;
}

/* What the state says. */
static inline hb_u32 hb_lb_act(hb_packet *p, const hb_table *t, hb_u64 *result)
{
    hb_u32 head = hb_state32(p, 0), mode = head & 255, verdict;
    if (mode == HB_LB_ICMP && hb_lb_is_error(p))
        *result = (hb_u64)HB_LB_DO_ICMP << 32;
    if (mode < HB_LB_DROP || mode > HB_LB_TUNNEL || p->direction != (head >> 8 & 1))
        return HB_PASS;
    if (mode == HB_LB_DROP)
        return HB_DROP(HB_REASON_no_backend);
    if (mode == HB_LB_TUNNEL)
        verdict = hb_lb_encapsulate(p, t, head, result);
    else
        verdict = hb_lb_rewrite(p, head, mode == HB_LB_TO_BACKEND);
    if (verdict != HB_PASS)
        return verdict;
    hb_lb_macs(p, t, head);
    hb_u32 slot = hb_state32(p, 1) & 0xffff;
    *result |= (slot + 1) | (mode == HB_LB_FROM_BACKEND ? HB_LB_REPLY : 0);
    return HB_PASS;
}

static inline hb_u32 hb_nf_load_balancer(hb_packet *p, const hb_table *t, hb_u64 arg,
                                         hb_u64 *result)
{
    (void)arg;
    if (hb_has_state(p))
        return hb_lb_act(p, t, result);
    *result = (hb_u64)HB_LB_DO_CHOOSE << 32;
    return HB_PASS;
}
