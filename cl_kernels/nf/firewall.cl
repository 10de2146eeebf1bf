/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * firewall: ordered rules decide on the first packet of a flow; connection tracking on the others.
 * firewall_search.h describes the table and how rules are found, firewall_tcp.h what fits a TCP
 * connection, firewall_state.h what is known of a flow.
 *
 * arg: what prepare() has found of the flow that a packet is about (HB_FIREWALL_ABOUT_*), the one
 * that an ICMP error quotes or that a first fragment belongs to; its verdict in the upper half.
 * Result: what finish() counts, + 1.
 */
#include "nf/firewall_search.h"
#include "nf/firewall_state.h"
#include "nf/firewall_tcp.h"

#define HB_FIREWALL_ABOUT_NONE 0u
#define HB_FIREWALL_ABOUT_ACCEPTED 1u /* a live flow that the rules have accepted */
#define HB_FIREWALL_ABOUT_UNDECIDED                                                                \
    2u /* a live flow; nobody has asked the rules, or they deny it */

static inline int hb_firewall_accepts(hb_u32 verdict)
{
    return (verdict & 255) != HB_VERDICT_DROP;
}

static inline hb_u32 hb_firewall_counted(const hb_table *t, hb_u32 what, hb_u64 *result)
{
    *result = hb_table32(t, 6) + what + 1;
    return HB_PASS;
}

/* Ask the rules. */
static inline hb_u32 hb_firewall_ask(const hb_packet *p, const hb_table *t,
                                     const hb_firewall_view *v, hb_u32 found, hb_u64 *result)
{
    hb_firewall_judgement j = hb_firewall_judge(p, t, v, found);
    *result = j.count;
    return j.verdict;
}

/* Ask them, and remember what they say of the flow. */
static inline hb_u32 hb_firewall_begin(hb_packet *p, const hb_table *t, const hb_firewall_view *v,
                                       hb_u32 found, hb_u64 *result)
{
    hb_u32 verdict = hb_firewall_ask(p, t, v, found, result);
    if (hb_firewall_accepts(verdict)) {
        hb_set_state32(p, HB_FIREWALL_VERDICT, verdict);
        hb_set_state32(p, HB_FIREWALL_RULE, (hb_u32)*result);
    }
    return verdict;
}

/* A packet that fits its flow gets the verdict of the rule that accepted the flow. */
static inline hb_u32 hb_firewall_goes(const hb_packet *p, const hb_table *t, hb_u64 *result)
{
    hb_firewall_counted(t, HB_FIREWALL_COUNT_ESTABLISHED, result);
    return hb_state32(p, HB_FIREWALL_VERDICT);
}

static inline hb_u32 hb_firewall_on_tcp(hb_packet *p, const hb_table *t, const hb_firewall_view *v,
                                        hb_u32 found, hb_u64 *result)
{
    hb_firewall_segment s = hb_firewall_read(p, v);
    hb_u32 status = hb_state32(p, HB_FIREWALL_STATUS), state = status & HB_FIREWALL_STATE;
    int over = state == HB_FIREWALL_IN_CLOSED || state == HB_FIREWALL_IN_TIME_WAIT;
    if (s.kind == HB_FIREWALL_BAD)
        return HB_DROP(HB_REASON_bad_state);
    if (state && !(over && s.kind == HB_FIREWALL_SYN)) {
        hb_u32 verdict = hb_firewall_next(p, &s, status);
        return verdict == HB_PASS ? hb_firewall_goes(p, t, result) : verdict;
    }
    if (!hb_firewall_may_open(t, &s))
        return HB_DROP(HB_REASON_bad_state);
    hb_u32 verdict = hb_firewall_begin(p, t, v, found, result);
    if (hb_firewall_accepts(verdict))
        hb_firewall_open(p, &s);
    return verdict;
}

/* UDP, ICMP echo, and whatever else has no states of its own. */
static inline hb_u32 hb_firewall_on_other(hb_packet *p, const hb_table *t,
                                          const hb_firewall_view *v, hb_u32 found, hb_u64 *result)
{
    hb_u32 status = hb_state32(p, HB_FIREWALL_STATUS);
    if (status) {
        if (hb_firewall_began(status) != p->direction)
            hb_firewall_pass_in(p, status, HB_FIREWALL_IN_BOTH_WAYS);
        return hb_firewall_goes(p, t, result);
    }
    hb_u32 verdict = hb_firewall_begin(p, t, v, found, result);
    if (hb_firewall_accepts(verdict))
        hb_set_state32(p, HB_FIREWALL_STATUS,
                       HB_FIREWALL_IN_ONE_WAY | p->direction << HB_FIREWALL_BEGAN_BIT);
    return verdict;
}

/* An ICMP message that is neither echo request nor reply. All of them between two hosts are one
 * flow, so that flow says nothing. */
static inline hb_u32 hb_firewall_on_message(const hb_packet *p, const hb_table *t,
                                            const hb_firewall_view *v, hb_u32 about, hb_u32 found,
                                            hb_u64 *result)
{
    hb_firewall_view quoted;
    if (about == HB_FIREWALL_ABOUT_ACCEPTED)
        return hb_firewall_counted(t, HB_FIREWALL_COUNT_RELATED, result);
    if (about == HB_FIREWALL_ABOUT_UNDECIDED && hb_firewall_look(p, v->l4 + 8, &quoted) &&
        hb_firewall_accepts(hb_firewall_judge(p, t, &quoted, HB_FIREWALL_UNKNOWN).verdict))
        return hb_firewall_counted(t, HB_FIREWALL_COUNT_RELATED, result);
    return hb_firewall_ask(p, t, v, found, result);
}

static inline hb_u32 hb_firewall_on_icmp(hb_packet *p, const hb_table *t, const hb_firewall_view *v,
                                         hb_u32 about, hb_u32 found, hb_u64 *result)
{
    hb_u32 type = hb_firewall_has(v, 8) ? hb_get8(p, v->l4) : 255;
    hb_u32 request = v->version == 4 ? 8 : 128, reply = v->version == 4 ? 0 : 129;
    if (type != request && type != reply)
        return hb_firewall_on_message(p, t, v, about, found, result);
    hb_u32 status = hb_state32(p, HB_FIREWALL_STATUS);
    int first = !status || hb_firewall_began(status) == p->direction;
    if (type == reply && first) /* nobody has asked */
        return HB_DROP(HB_REASON_bad_state);
    return hb_firewall_on_other(p, t, v, found, result);
}

/* Fragments of a datagram are a flow of their own. Its first one belongs to the flow of its ports;
 * the others follow it. */
static inline hb_u32 hb_firewall_on_fragment(hb_packet *p, const hb_table *t,
                                             const hb_firewall_view *v, hb_u64 arg, hb_u32 found,
                                             hb_u64 *result)
{
    hb_u32 status = hb_state32(p, HB_FIREWALL_STATUS), verdict;
    if (v->fragment == 2) {
        if (v->protocol == 6 && v->offset == 1) /* would overwrite the flags (RFC 1858) */
            return HB_DROP(HB_REASON_bad_state);
        if (!status)
            return HB_DROP(HB_REASON_no_first_fragment);
        verdict = hb_firewall_goes(p, t, result);
        if (!hb_firewall_accepts(verdict))
            *result = hb_state32(p, HB_FIREWALL_RULE);
        return verdict;
    }
    if (v->protocol == 6 && !hb_firewall_has(v, 20))
        return HB_DROP(HB_REASON_bad_state);
    if ((hb_u32)arg == HB_FIREWALL_ABOUT_ACCEPTED) {
        hb_firewall_counted(t, HB_FIREWALL_COUNT_ESTABLISHED, result);
        verdict = (hb_u32)(arg >> 32);
    } else {
        verdict = hb_firewall_ask(p, t, v, found, result);
    }
    hb_set_state32(p, HB_FIREWALL_VERDICT, verdict);
    hb_set_state32(p, HB_FIREWALL_RULE, (hb_u32)*result);
    hb_set_state32(p, HB_FIREWALL_STATUS,
                   hb_firewall_accepts(verdict) ? HB_FIREWALL_IN_FRAGMENTS : HB_FIREWALL_IN_DENIED);
    return verdict;
}

/* `found`: what the search would find, from who has searched already. */
static inline hb_u32 hb_firewall_run(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result,
                                     hb_u32 found)
{
    hb_firewall_view v;
    if (!hb_firewall_look(p, p->l3, &v))
        return HB_PASS; /* ARP and the like: there is nothing that rules could say */
    if (!(hb_table32(t, 1) & HB_FIREWALL_TRACKING) || !hb_has_state(p))
        return hb_firewall_ask(p, t, &v, found, result);
    if (v.fragment)
        return hb_firewall_on_fragment(p, t, &v, arg, found, result);
    if (v.protocol == 6)
        return hb_firewall_on_tcp(p, t, &v, found, result);
    if (hb_firewall_is_icmp(&v))
        return hb_firewall_on_icmp(p, t, &v, (hb_u32)arg, found, result);
    return hb_firewall_on_other(p, t, &v, found, result);
}

static inline hb_u32 hb_nf_firewall(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    return hb_firewall_run(p, t, arg, result, HB_FIREWALL_UNKNOWN);
}
