/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nids: finds byte strings in payloads with the automaton of Aho and Corasick ("Efficient String
 * Matching", CACM 1975) as a full table: one access per payload byte, whatever the bytes are, so
 * no sender can slow it down.
 *
 * Table, built by hummingbird/nfs/nids.py:
 *   u32 [0]  1 if next states are u32, 0 if u16
 *   u32 [1]  first matching state: states from here on end a rule
 *   u32 [2]  on match: 0 pass, 1 drop, 2 + type re-type
 *   u32 [3]  u32 index of the rules: for each matching state the lowest rule that ends there
 *   byte 128 next[state][byte]; the search starts in state 0
 * Result: bits 0..31 lowest rule found + 1, or 0; bits 32..63 positions at which a rule ends.
 */
#define HB_NIDS_NEXT16 64u
#define HB_NIDS_NEXT32 32u

/* Protocol at l4, behind the extension headers of IPv6 (RFC 8200 section 4); 0 if they do not end
 * there. */
static hb_u32 hb_nids_protocol(const hb_packet *p)
{
    if (hb_ip_version(p) == 4)
        return hb_get8(p, p->l3 + 9);
    hb_u32 protocol = hb_get8(p, p->l3 + 6);
    hb_u32 at = p->l3 + 40;
    while (at < p->l4) {
        protocol = hb_get8(p, at);
        at += 8 * hb_get8(p, at + 1) + 8;
    }
    return at == p->l4 ? protocol : 0;
}

/* First byte to scan: behind TCP or UDP, else behind the IP header. A TCP header that claims to be
 * longer than its segment is scanned itself, so that nothing hides behind it. */
static hb_u32 hb_nids_payload(const hb_packet *p, hb_u32 end)
{
    if (p->l4 == HB_NO_LAYER)
        return p->l3 + (hb_ip_version(p) == 4 ? (hb_get8(p, p->l3) & 15) * 4 : 40);
    hb_u32 protocol = hb_nids_protocol(p);
    hb_u32 header = 0;
    if (protocol == 17)
        header = 8;
    if (protocol == 6)
        header = (hb_get8(p, p->l4 + 12) >> 4) * 4;
    return p->l4 + header > end ? p->l4 : p->l4 + header;
}

/* The scan itself; returns the result word. The table handle comes by value, so that compilers
 * keep it in registers. */
static hb_u64 hb_nids_scan(const hb_packet *p, const hb_table t, hb_u32 at, hb_u32 end)
{
    hb_u32 wide = hb_table32(&t, 0);
    hb_u32 first_match = hb_table32(&t, 1);
    hb_u32 rules = hb_table32(&t, 3);
    hb_u32 lowest = 0xffffffffu;
    hb_u32 matches = 0;
    hb_u32 state = 0;
    for (; at < end; at++) {
        hb_u32 i = state << 8 | hb_get8(p, at);
        state = wide ? hb_table32(&t, HB_NIDS_NEXT32 + i) : hb_table16(&t, HB_NIDS_NEXT16 + i);
        if (state >= first_match) {
            hb_u32 rule = hb_table32(&t, rules + (state - first_match));
            lowest = rule < lowest ? rule : lowest;
            matches++;
        }
    }
    return (hb_u64)matches << 32 | (lowest + 1);
}

static hb_u32 hb_nf_nids(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)arg;
    if (!hb_ip_version(p))
        return HB_PASS;
    hb_u32 end = hb_ip_end(p);
    if (end == 0) /* lengths that lie must not hide a payload */
        end = p->length;
    *result = hb_nids_scan(p, *t, hb_nids_payload(p, end), end);
    hb_u32 action = hb_table32(t, 2);
    if (*result == 0 || action == 0)
        return HB_PASS;
    return action == 1 ? HB_DROP(HB_REASON_nf_action) : HB_RETYPE(action - 2);
}
