/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nids: finds byte strings in payloads with the automaton of Aho and Corasick ("Efficient String
 * Matching", CACM 1975) as a full table: one access per payload byte, whatever the bytes are, so
 * no sender can slow it down. It only says that there is something; finish() looks at the rules.
 *
 * Result, the same from every engine: 0 if no pattern occurs in what is searched of the packet,
 * else the lowest number of those that do, + 1. It depends neither on the order in which matches
 * are found nor on how often each is. Matching states are numbered so that the highest one met
 * stands for it: a step takes a maximum, and never branches on what is found.
 *
 * Table, built by hummingbird/nfs/automaton.py. Words (u32) of its head; all `*_at` are bytes from
 * the table's start, multiples of 128:
 *   [0] 1 if next states are u32, 0 if u16   [7]  lists_at: u32 [matching states + 1]
 *   [1] first matching state                 [8]  ids_at: u32
 *   [2] classes of bytes in the local part   [9]  depth_at: u16 [state]
 *   [3] hot states: rows of the local part   [10] patterns_at: u32 [pattern][2]
 *   [4] patterns                             [11] bytes_at: u8
 *   [5] next_at: u16 or u32 [state][byte]
 *   [6] ends_at: u32 [matching state]        [31] free, for the host part
 * next    the search starts in state 0; a state from [1] on ends a pattern. In u32, [1] included,
 *         a state is 256 times its number, which saves a shift; in u16 it is its number
 * ends    the lowest pattern that ends in a matching state; they descend
 * lists   where the numbers of all of them start in ids, ascending; the next entry is their end
 * depth   bytes of text that a state stands for: what came before them makes no difference
 * patterns  where in bytes it starts; its length, bit 31: letter case makes no difference
 * The local part, from byte 128 on, serves the states that are met most: u16 class of each byte,
 * then u16 [hot state][class], the number of the next state.
 */
#define HB_NIDS_CLASSES 256u /* entries in front of the hot rows */

/* Protocol at l4, behind the extension headers of IPv6 (RFC 8200 section 4); 0 if they do not end
 * there. */
static inline hb_u32 hb_nids_protocol(const hb_packet *p)
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
static inline hb_u32 hb_nids_payload(const hb_packet *p, hb_u32 end)
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

/* What of a packet is searched: bytes at .. end-1 from its first; at <= end <= its length. */
typedef struct {
    hb_u32 at;
    hb_u32 end;
} hb_nids_span;

/* Empty for a packet that is not IP. */
static inline hb_nids_span hb_nids_span_of(const hb_packet *p)
{
    hb_nids_span span = {0, 0};
    if (!hb_ip_version(p))
        return span;
    span.end = hb_ip_end(p);
    if (span.end == 0) /* lengths that lie must not hide a payload */
        span.end = p->length;
    span.at = hb_nids_payload(p, span.end);
    span.at = span.at < span.end ? span.at : span.end;
    return span;
}

/* What a search reads of the table's head. */
typedef struct {
    hb_table t;   /* by value: compilers then keep it in registers */
    hb_u32 next;  /* index of next[0][0] among elements of its width */
    hb_u32 depth; /* index of depth[0] */
    hb_u32 classes;
    hb_u32 hot;
} hb_nids_dfa;

/* `wide` is a constant wherever this is used. */
static inline hb_u32 hb_nids_next(const hb_nids_dfa *d, hb_u32 wide, hb_u32 state, hb_u32 byte)
{
#ifndef HB_LOCAL_IS_TABLE
    hb_u32 number = state >> (wide ? 8 : 0);
    if (number < d->hot) {
        hb_u32 i = HB_NIDS_CLASSES + number * d->classes + hb_local16(&d->t, byte);
        return hb_local16(&d->t, i) << (wide ? 8 : 0);
    }
#endif
    return wide ? hb_table32(&d->t, d->next + state + byte)
                : hb_table16(&d->t, d->next + (state << 8) + byte);
}

static inline hb_u32 hb_nids_max(hb_u32 a, hb_u32 b)
{
    return a > b ? a : b;
}

/* The highest state met on bytes at .. end-1. They are searched as two halves at once, because each
 * step waits for the one before. The first goes on into the second until what its state remembers
 * lies in there entirely: from there on the second has been in the same state. */
static inline hb_u32 hb_nids_run(const hb_nids_dfa *d, hb_u32 wide, const hb_packet *p, hb_u32 at,
                                 hb_u32 end)
{
    hb_u32 a = 0, b = 0, top = 0;
    for (; at < end && (p->offset + at) % 4; at++) {
        a = hb_nids_next(d, wide, a, hb_get8(p, at));
        top = hb_nids_max(top, a);
    }
    hb_u32 middle = (end - at) / 8 * 4;
    for (hb_u32 i = 0; i < middle; i += 4) {
        hb_u32 x = hb_word(p, at + i), y = hb_word(p, at + middle + i);
        a = hb_nids_next(d, wide, a, x & 255);
        b = hb_nids_next(d, wide, b, y & 255);
        top = hb_nids_max(top, hb_nids_max(a, b));
        a = hb_nids_next(d, wide, a, x >> 8 & 255);
        b = hb_nids_next(d, wide, b, y >> 8 & 255);
        top = hb_nids_max(top, hb_nids_max(a, b));
        a = hb_nids_next(d, wide, a, x >> 16 & 255);
        b = hb_nids_next(d, wide, b, y >> 16 & 255);
        top = hb_nids_max(top, hb_nids_max(a, b));
        a = hb_nids_next(d, wide, a, x >> 24);
        b = hb_nids_next(d, wide, b, y >> 24);
        top = hb_nids_max(top, hb_nids_max(a, b));
    }
    for (hb_u32 i = at + 2 * middle; i < end; i++) {
        b = hb_nids_next(d, wide, b, hb_get8(p, i));
        top = hb_nids_max(top, b);
    }
    at += middle;
    for (hb_u32 i = 0; at + i < end && hb_table16(&d->t, d->depth + (a >> (wide ? 8 : 0))) > i;
         i++) {
        a = hb_nids_next(d, wide, a, hb_get8(p, at + i));
        top = hb_nids_max(top, a);
    }
    return top;
}

static inline hb_u32 hb_nf_nids(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    (void)arg;
    hb_nids_span span = hb_nids_span_of(p);
    hb_u32 wide = hb_table32(t, 0), first_match = hb_table32(t, 1);
    hb_nids_dfa d;
    d.t = *t;
    d.classes = hb_table32(t, 2);
    d.hot = hb_table32(t, 3);
    d.next = hb_table32(t, 5) / (wide ? 4 : 2);
    d.depth = hb_table32(t, 9) / 2;
    hb_u32 top =
        wide ? hb_nids_run(&d, 1, p, span.at, span.end) : hb_nids_run(&d, 0, p, span.at, span.end);
    if (top >= first_match)
        *result = hb_table32(t, hb_table32(t, 6) / 4 + (top - first_match) / (wide ? 256 : 1)) + 1;
    return HB_PASS;
}
