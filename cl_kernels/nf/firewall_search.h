/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * firewall_search.h: what a packet is to the rules, and the first of them that it matches, by bit
 * vectors (Lakshman and Stiliadis, "High-Speed Policy-based Packet Forwarding Using Efficient
 * Multi-dimensional Range Matching", SIGCOMM 1998; Baboescu and Varghese, "Scalable Packet
 * Classification", SIGCOMM 2001, for the summaries).
 *
 * The table in u32 elements, unless another unit is named; hummingbird/nfs/firewall_table.py lays
 * it out: [0] HB_FIREWALL_MAGIC [1] HB_FIREWALL_* flags [2], [3]  verdict of packets that no rule
 * matches, IPv4 and IPv6 [4], [5]  where the sets of IPv4 and of IPv6 entries begin; 0: there are
 * none [6]       rules; counters behind those of the rules are HB_FIREWALL_COUNT_* A set, in
 * elements from its beginning: [0] fields  [1] blocks of 128 entries  [2] blocks of 128 summary
 * bits, 0: none [3] where the verdicts are: two elements for each entry, the verdict and the number
 * of its rule; blocks * 128 entries, then one for packets that no entry matches [4 + 4 i ..] field
 * i: [0] where its value is in a packet (HB_FIREWALL_AT_*) [1] its map from values to classes, in
 * u16: the part for each upper 8 bits, HB_FIREWALL_PARTS of them; then the parts, 256 classes each
 *                         [2] the vectors of its classes, in blocks of 16 bytes
 *                         [3] their summaries, likewise
 * A vector has a bit for each entry whose field holds in the class; a summary has one for each
 * block of the vector that is not 0. An entry is a product of fields; a rule is one or several of
 * them.
 */
#ifndef HB_FIREWALL_SEARCH_H
#define HB_FIREWALL_SEARCH_H

#define HB_FIREWALL_MAGIC 0x48624677u /* "HbFw" */
#define HB_FIREWALL_TRACKING 1u       /* connections are tracked */
#define HB_FIREWALL_MIDSTREAM 2u      /* those whose beginning was not seen, too */
#define HB_FIREWALL_SET 4u            /* elements of a set's head ... */
#define HB_FIREWALL_FIELD 4u          /* ... and of each field */
#define HB_FIREWALL_FIELDS 20u        /* most fields of a set */
#define HB_FIREWALL_MISS 0xffffffffu  /* no entry matches */
#define HB_FIREWALL_UNKNOWN 0xfffffffeu

#define HB_FIREWALL_PARTS 257u
/* Where the value of a field is: 0 .. 15: 16 bits of the addresses, source first; else: */
#define HB_FIREWALL_AT_SPORT 16u
#define HB_FIREWALL_AT_DPORT 17u    /* ICMP: type and code */
#define HB_FIREWALL_AT_PROTOCOL 18u /* 8 bits */
#define HB_FIREWALL_AT_FLAGS 19u    /* of TCP, 6 bits */
#define HB_FIREWALL_NO_PORT 65536u
#define HB_FIREWALL_NO_FLAGS 64u

/* Counters behind those of the rules. */
#define HB_FIREWALL_COUNT_DEFAULT 0u
#define HB_FIREWALL_COUNT_ESTABLISHED 1u /* of a flow that a rule has accepted */
#define HB_FIREWALL_COUNT_RELATED 2u     /* about such a flow */

/* An IP packet, possibly one that an ICMP error quotes. */
typedef struct {
    hb_u32 version; /* 4 or 6 */
    hb_u32 l3;
    hb_u32 l4;  /* where the transport header is */
    hb_u32 end; /* of the IP packet, or of what there is of it */
    hb_u32 protocol;
    hb_u32 fragment; /* 0: whole, 1: the first, 2: a later one */
    hb_u32 offset;   /* of a fragment, in units of 8 bytes */
} hb_firewall_view;

/* ---- what a packet is ------------------------------------------------------------------------ */

static inline hb_u32 hb_firewall_min(hb_u32 a, hb_u32 b)
{
    return a < b ? a : b;
}

/* One extension header of IPv6 at v->l4; 0 behind the last one. */
static inline int hb_firewall_extension(const hb_packet *p, hb_firewall_view *v)
{
    hb_u32 kind = v->protocol, at = v->l4;
    if ((kind != 0 && kind != 43 && kind != 44 && kind != 60) || at + 8 > v->end)
        return 0;
    v->protocol = hb_get8(p, at);
    v->l4 = at + (kind == 44 ? 8 : (hb_get8(p, at + 1) + 1) * 8);
    if (kind != 44)
        return 1;
    hb_u32 field = hb_get16(p, at + 2);
    v->offset = field >> 3;
    v->fragment = v->offset ? 2 : field & 1;
    return !v->fragment;
}

/* 0 if there is no IP header at l3. Lengths were checked when the packet came in, but not those of
 * a quoted one, which is cut. */
static inline int hb_firewall_look(const hb_packet *p, hb_u32 l3, hb_firewall_view *v)
{
    hb_u32 first = l3 == HB_NO_LAYER ? 0 : hb_get8(p, l3);
    v->version = first >> 4;
    v->l3 = l3;
    if (v->version == 4) {
        hb_u32 field = hb_get16(p, l3 + 6) & 0x3fff;
        v->l4 = l3 + (first & 15) * 4;
        v->protocol = hb_get8(p, l3 + 9);
        v->offset = field & 0x1fff;
        v->fragment = v->offset ? 2 : field != 0;
        v->end = hb_firewall_min(l3 + hb_get16(p, l3 + 2), p->length);
        return 1;
    }
    if (v->version != 6)
        return 0;
    hb_u32 payload = hb_get16(p, l3 + 4);
    v->l4 = l3 + 40;
    v->protocol = hb_get8(p, l3 + 6);
    v->fragment = v->offset = 0;
    v->end = payload ? hb_firewall_min(v->l4 + payload, p->length) : p->length;
    for (hb_u32 i = 0; i < 9 && hb_firewall_extension(p, v); i++)
        ;
    return 1;
}

static inline int hb_firewall_has(const hb_firewall_view *v, hb_u32 bytes)
{
    return v->fragment != 2 && v->l4 + bytes <= v->end;
}

static inline int hb_firewall_is_icmp(const hb_firewall_view *v)
{
    return v->protocol == (v->version == 4 ? 1u : 58u);
}

/* The value of a field that is not part of an address. */
static inline hb_u32 hb_firewall_other(const hb_packet *p, const hb_firewall_view *v, hb_u32 at)
{
    hb_u32 protocol = v->protocol;
    int ported = protocol == 6 || protocol == 17 || protocol == 132;
    if (at == HB_FIREWALL_AT_PROTOCOL)
        return protocol;
    if (at == HB_FIREWALL_AT_FLAGS)
        return protocol == 6 && hb_firewall_has(v, 14) ? hb_get8(p, v->l4 + 13) & 63u
                                                       : HB_FIREWALL_NO_FLAGS;
    if (ported && hb_firewall_has(v, 4))
        return hb_get16(p, v->l4 + (at == HB_FIREWALL_AT_DPORT ? 2 : 0));
    if (at == HB_FIREWALL_AT_DPORT && hb_firewall_is_icmp(v) && hb_firewall_has(v, 2))
        return hb_get16(p, v->l4);
    return HB_FIREWALL_NO_PORT;
}

static inline hb_u32 hb_firewall_value(const hb_packet *p, const hb_firewall_view *v, hb_u32 at)
{
    if (at < 16)
        return hb_get16(p, v->l3 + (v->version == 4 ? 12 : 8) + 2 * at);
    return hb_firewall_other(p, v, at);
}

/* ---- search ---------------------------------------------------------------------------------- */

static inline hb_u32 hb_firewall_low(hb_u32 word)
{
#ifdef __OPENCL_VERSION__
    return 31 - clz(word & (0 - word));
#else
    return (hb_u32)__builtin_ctz(word);
#endif
}

/* The lowest bit of a block that is not 0. */
static inline hb_u32 hb_firewall_first(hb_block b)
{
    if (b.a)
        return hb_firewall_low(b.a);
    if (b.b)
        return 32 + hb_firewall_low(b.b);
    return b.c ? 64 + hb_firewall_low(b.c) : 96 + hb_firewall_low(b.d);
}

/* Block `block` of all vectors: 1 bits are entries that the packet matches. */
static inline hb_block hb_firewall_and(const hb_table *t, const hb_u32 *vector, hb_u32 fields,
                                       hb_u32 block)
{
    hb_block all = {~0u, ~0u, ~0u, ~0u};
    for (hb_u32 i = 0; i < fields; i++) {
        hb_block b = hb_table_block(t, vector[i] + block);
        all.a &= b.a;
        all.b &= b.b;
        all.c &= b.c;
        all.d &= b.d;
    }
    return all;
}

static inline int hb_firewall_some(hb_block b)
{
    return (b.a | b.b | b.c | b.d) != 0;
}

/* Without bit i. */
static inline hb_block hb_firewall_without(hb_block b, hb_u32 i)
{
    hb_u32 bit = ~(1u << (i & 31));
    b.a &= i < 32 ? bit : ~0u;
    b.b &= i >> 5 == 1 ? bit : ~0u;
    b.c &= i >> 5 == 2 ? bit : ~0u;
    b.d &= i >> 5 == 3 ? bit : ~0u;
    return b;
}

/* One block of summaries: which blocks of vectors may hold the entry. */
static inline hb_u32 hb_firewall_below(const hb_table *t, const hb_u32 *vector,
                                       const hb_u32 *summary, hb_u32 fields, hb_u32 block)
{
    hb_block maybe = hb_firewall_and(t, summary, fields, block);
    while (hb_firewall_some(maybe)) {
        hb_u32 i = hb_firewall_first(maybe);
        hb_block found = hb_firewall_and(t, vector, fields, 128 * block + i);
        if (hb_firewall_some(found))
            return 128 * (128 * block + i) + hb_firewall_first(found);
        maybe = hb_firewall_without(maybe, i);
    }
    return HB_FIREWALL_MISS;
}

/* The first entry that matches, or HB_FIREWALL_MISS. */
static inline hb_u32 hb_firewall_search(const hb_packet *p, const hb_table *t,
                                        const hb_firewall_view *v)
{
    hb_u32 vector[HB_FIREWALL_FIELDS], summary[HB_FIREWALL_FIELDS];
    hb_u32 set = hb_table32(t, v->version == 4 ? 4 : 5);
    hb_u32 fields = set ? hb_table32(t, set) : 0;
    hb_u32 blocks = hb_table32(t, set + 1), summaries = hb_table32(t, set + 2);
    if (!fields || fields > HB_FIREWALL_FIELDS)
        return HB_FIREWALL_MISS;
    for (hb_u32 i = 0; i < fields; i++) {
        hb_u32 field = set + HB_FIREWALL_SET + HB_FIREWALL_FIELD * i;
        hb_u32 value = hb_firewall_value(p, v, hb_table32(t, field));
        hb_u64 map = hb_table32(t, field + 1);
        hb_u32 part = hb_table16(t, map + (value >> 8));
        hb_u32 class_ = hb_table16(t, map + HB_FIREWALL_PARTS + 256 * part + (value & 255));
        vector[i] = hb_table32(t, field + 2) + class_ * blocks;
        summary[i] = hb_table32(t, field + 3) + class_ * summaries;
    }
    hb_u32 found = HB_FIREWALL_MISS;
    for (hb_u32 i = 0; i < summaries && found == HB_FIREWALL_MISS; i++)
        found = hb_firewall_below(t, vector, summary, fields, i);
    for (hb_u32 i = 0; !summaries && i < blocks && found == HB_FIREWALL_MISS; i++) {
        hb_block some = hb_firewall_and(t, vector, fields, i);
        if (hb_firewall_some(some))
            found = 128 * i + hb_firewall_first(some);
    }
    return found;
}

/* ---- what the rules say ---------------------------------------------------------------------- */

/* A verdict, and what finish() counts for it, + 1. */
typedef struct {
    hb_u32 verdict;
    hb_u32 count;
} hb_firewall_judgement;

/* Of an entry, or of none. */
static inline hb_firewall_judgement hb_firewall_entry(const hb_table *t, hb_u32 version,
                                                      hb_u32 entry)
{
    hb_firewall_judgement j;
    if (entry == HB_FIREWALL_MISS) { /* there may be no set */
        j.verdict = hb_table32(t, version == 4 ? 2 : 3);
        j.count = hb_table32(t, 6) + HB_FIREWALL_COUNT_DEFAULT + 1;
    } else {
        hb_u32 set = hb_table32(t, version == 4 ? 4 : 5);
        hb_u32 at = hb_table32(t, set + 3) + 2 * entry;
        j.verdict = hb_table32(t, at);
        j.count = hb_table32(t, at + 1) + 1;
    }
    return j;
}

/* `found`: the entry, or HB_FIREWALL_UNKNOWN: nobody has searched yet. */
static inline hb_firewall_judgement hb_firewall_judge(const hb_packet *p, const hb_table *t,
                                                      const hb_firewall_view *v, hb_u32 found)
{
    if (found == HB_FIREWALL_UNKNOWN)
        found = hb_firewall_search(p, t, v);
    return hb_firewall_entry(t, v->version, found);
}

#endif
