/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * firewall_tcp.h: which TCP segments fit their connection: the states, and the windows of
 * G. van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (10th USENIX Security Symposium,
 * 2001). Of each end we know, from what it and the other one sent:
 *   end      the highest sequence number that it has sent, + 1
 *   most     the highest one that the other end's window allows it
 *   window   the largest window that it has offered
 *   acked    what the other end has acknowledged: an RST is not older
 * A segment with bytes [seq, end) and acknowledgement ack is in the window if
 *   seq <= most,  end >= sender's end - receiver's window
 *   ack <= receiver's end,  ack >= receiver's end - HB_FIREWALL_BEHIND (or the sender's window)
 */
#ifndef HB_FIREWALL_TCP_H
#define HB_FIREWALL_TCP_H
#include "nf/firewall_state.h"

#define HB_FIREWALL_BEHIND 66000u

/* What a segment is, by its flags. */
#define HB_FIREWALL_BAD 0u /* flags that no sound sender combines */
#define HB_FIREWALL_SYN 1u
#define HB_FIREWALL_SYN_ACK 2u
#define HB_FIREWALL_RST 3u
#define HB_FIREWALL_FIN 4u
#define HB_FIREWALL_ACK 5u

typedef struct {
    hb_u32 kind;
    hb_u32 from; /* direction: 0 or 1 */
    hb_u32 seq;
    hb_u32 end; /* behind its last byte; SYN and FIN count as one */
    hb_u32 ack;
    hb_u32 has_ack;
    hb_u32 window; /* as it stands there */
    hb_u32 scale;  /* of a SYN: shift + 1, 0: no option */
} hb_firewall_segment;

/* a < b, for sequence numbers. */
static inline int hb_firewall_before(hb_u32 a, hb_u32 b)
{
    return (hb_u32)(a - b) >> 31 != 0;
}

static inline hb_u32 hb_firewall_kind_of(hb_u32 flags)
{
    switch (flags & 0x17) { /* FIN, SYN, RST, ACK; PSH and URG say nothing here */
    case 0x02:
        return HB_FIREWALL_SYN;
    case 0x12:
        return HB_FIREWALL_SYN_ACK;
    case 0x04:
    case 0x14:
        return HB_FIREWALL_RST;
    case 0x11:
        return HB_FIREWALL_FIN;
    case 0x10:
        return HB_FIREWALL_ACK;
    default:
        return HB_FIREWALL_BAD;
    }
}

/* The window scale option of a SYN (RFC 7323): shift + 1, or 0. */
static inline hb_u32 hb_firewall_scale(const hb_packet *p, hb_u32 at, hb_u32 end)
{
    for (hb_u32 i = 0; i < 40 && at < end; i++) {
        hb_u32 kind = hb_get8(p, at), length = kind == 1 ? 1 : hb_get8(p, at + 1);
        if (kind == 0 || length == 0 || at + length > end)
            return 0;
        if (kind == 3 && length == 3)
            return hb_firewall_min(hb_get8(p, at + 2), 14) + 1;
        at += length;
    }
    return 0;
}

/* kind is HB_FIREWALL_BAD if the header contradicts itself. */
static inline hb_firewall_segment hb_firewall_read(const hb_packet *p, const hb_firewall_view *v)
{
    hb_firewall_segment s;
    hb_u32 l4 = v->l4, header = (hb_get8(p, l4 + 12) >> 4) * 4, flags = hb_get8(p, l4 + 13);
    s.kind = header < 20 || l4 + header > v->end ? HB_FIREWALL_BAD : hb_firewall_kind_of(flags);
    s.from = p->direction;
    s.seq = hb_get32(p, l4 + 4);
    s.ack = hb_get32(p, l4 + 8);
    s.has_ack = flags >> 4 & 1;
    s.end = s.seq + (v->end - l4 - header) + (flags & 1) + (flags >> 1 & 1);
    s.window = hb_get16(p, l4 + 14);
    s.scale = s.kind == HB_FIREWALL_SYN || s.kind == HB_FIREWALL_SYN_ACK
                  ? hb_firewall_scale(p, l4 + 20, l4 + header)
                  : 0;
    return s;
}

/* ---- windows --------------------------------------------------------------------------------- */

static inline hb_u32 hb_firewall_end_word(hb_u32 direction, hb_u32 which)
{
    return HB_FIREWALL_ENDS + HB_FIREWALL_END * direction + which;
}

static inline hb_u32 hb_firewall_get_end(const hb_packet *p, hb_u32 direction, hb_u32 which)
{
    return hb_state32(p, hb_firewall_end_word(direction, which));
}

static inline void hb_firewall_set_end(hb_packet *p, hb_u32 direction, hb_u32 which, hb_u32 value)
{
    hb_set_state32(p, hb_firewall_end_word(direction, which), value);
}

static inline hb_u32 hb_firewall_at_least(hb_u32 a, hb_u32 b)
{
    return a > b ? a : b;
}

static inline hb_u32 hb_firewall_get_scale(const hb_packet *p, hb_u32 direction)
{
    return hb_state32(p, HB_FIREWALL_STATUS) >> (HB_FIREWALL_SCALE_BIT + 4 * direction) & 15;
}

static inline void hb_firewall_set_scale(hb_packet *p, hb_u32 direction, hb_u32 scale)
{
    hb_u32 shift = HB_FIREWALL_SCALE_BIT + 4 * direction;
    hb_u32 others = hb_state32(p, HB_FIREWALL_STATUS) & ~(15u << shift);
    hb_set_state32(p, HB_FIREWALL_STATUS, others | scale << shift);
}

/* All there is to know of an end is its SYN. */
static inline void hb_firewall_begin_end(hb_packet *p, hb_u32 direction, hb_u32 end, hb_u32 window,
                                         hb_u32 scale)
{
    hb_firewall_set_end(p, direction, HB_FIREWALL_LAST, end);
    hb_firewall_set_end(p, direction, HB_FIREWALL_MOST, end);
    hb_firewall_set_end(p, direction, HB_FIREWALL_WINDOW, hb_firewall_at_least(window, 1));
    hb_firewall_set_end(p, direction, HB_FIREWALL_ACKED, end);
    hb_firewall_set_scale(p, direction, scale);
}

/* Windows are scaled if both ends have said so. */
static inline void hb_firewall_agree(hb_packet *p)
{
    if (hb_firewall_get_scale(p, 0) && hb_firewall_get_scale(p, 1))
        return;
    hb_firewall_set_scale(p, 0, 0);
    hb_firewall_set_scale(p, 1, 0);
}

/* The receiver may send as much as this acknowledgement and window allow. */
static inline void hb_firewall_allow(hb_packet *p, hb_u32 receiver, hb_u32 ack, hb_u32 window)
{
    hb_u32 most = ack + hb_firewall_at_least(window, 1); /* a probe of a window of 0 is one byte */
    if (hb_firewall_before(hb_firewall_get_end(p, receiver, HB_FIREWALL_MOST), most))
        hb_firewall_set_end(p, receiver, HB_FIREWALL_MOST, most);
    if (hb_firewall_before(hb_firewall_get_end(p, receiver, HB_FIREWALL_ACKED), ack))
        hb_firewall_set_end(p, receiver, HB_FIREWALL_ACKED, ack);
}

/* Some stacks send an RST with ACK that acknowledges 0. */
static inline int hb_firewall_acknowledges(const hb_firewall_segment *s)
{
    return s->has_ack && !(s->kind == HB_FIREWALL_RST && s->ack == 0);
}

/* Is the segment in the window? */
static inline int hb_firewall_fits(const hb_packet *p, const hb_firewall_segment *s)
{
    hb_u32 from = s->from, to = from ^ 1;
    hb_u32 last = hb_firewall_get_end(p, from, HB_FIREWALL_LAST);
    hb_u32 most = hb_firewall_get_end(p, from, HB_FIREWALL_MOST);
    hb_u32 window = hb_firewall_get_end(p, from, HB_FIREWALL_WINDOW);
    hb_u32 to_last = hb_firewall_get_end(p, to, HB_FIREWALL_LAST);
    hb_u32 to_window = hb_firewall_get_end(p, to, HB_FIREWALL_WINDOW);
    hb_u32 ack = hb_firewall_acknowledges(s) ? s->ack : to_last;
    hb_u32 behind = hb_firewall_at_least(window, HB_FIREWALL_BEHIND);
    return (hb_state32(p, HB_FIREWALL_STATUS) & HB_FIREWALL_LOOSE) ||
           !(hb_firewall_before(most, s->seq) || hb_firewall_before(s->end, last - to_window) ||
             hb_firewall_before(to_last, ack) || hb_firewall_before(ack, to_last - behind));
}

/* If it is, the windows move with it. */
static inline int hb_firewall_in_window(hb_packet *p, const hb_firewall_segment *s)
{
    hb_u32 from = s->from, to = from ^ 1;
    hb_u32 last = hb_firewall_get_end(p, from, HB_FIREWALL_LAST);
    hb_u32 most = hb_firewall_get_end(p, from, HB_FIREWALL_MOST);
    hb_u32 window = hb_firewall_get_end(p, from, HB_FIREWALL_WINDOW);
    hb_u32 scale = hb_firewall_get_scale(p, from);
    hb_u32 offered = s->window << (scale ? scale - 1 : 0);
    if (!hb_firewall_fits(p, s))
        return 0;
    if (hb_state32(p, HB_FIREWALL_STATUS) & HB_FIREWALL_LOOSE)
        return 1;
    if (offered > window)
        hb_firewall_set_end(p, from, HB_FIREWALL_WINDOW, offered);
    if (hb_firewall_before(most, s->end)) /* it began inside; the receiver takes it */
        hb_firewall_set_end(p, to, HB_FIREWALL_WINDOW,
                            hb_firewall_get_end(p, to, HB_FIREWALL_WINDOW) + (s->end - most));
    if (hb_firewall_before(last, s->end))
        hb_firewall_set_end(p, from, HB_FIREWALL_LAST, s->end);
    if (hb_firewall_acknowledges(s))
        hb_firewall_allow(p, to, s->ack, offered);
    return 1;
}

/* ---- states ---------------------------------------------------------------------------------- */

/* Scales are as they stand in the state now. */
static inline hb_u32 hb_firewall_pass_in(hb_packet *p, hb_u32 status, hb_u32 state)
{
    hb_u32 scales = hb_state32(p, HB_FIREWALL_STATUS) & HB_FIREWALL_SCALES;
    status &= ~(HB_FIREWALL_STATE | HB_FIREWALL_SCALES);
    hb_set_state32(p, HB_FIREWALL_STATUS, status | scales | state);
    return HB_PASS;
}

/* A connection begins with this segment, which the rules accept. */
static inline void hb_firewall_open(hb_packet *p, const hb_firewall_segment *s)
{
    hb_u32 loose = s->kind != HB_FIREWALL_SYN;
    hb_u32 state = loose ? HB_FIREWALL_IN_MIDSTREAM : HB_FIREWALL_IN_SYN_SENT;
    hb_set_state32(p, HB_FIREWALL_STATUS,
                   state | s->from << HB_FIREWALL_BEGAN_BIT | (loose ? HB_FIREWALL_LOOSE : 0));
    hb_set_state32(p, HB_FIREWALL_IGNORED, 0);
    hb_set_state32(p, HB_FIREWALL_CHALLENGE, 0);
    hb_firewall_begin_end(p, s->from, s->end, s->window, s->scale);
    hb_firewall_begin_end(p, s->from ^ 1, s->ack, 0, 0);
}

/* A SYN within a connection that lives. From who began it: that end may have forgotten it, and the
 * other one will say (RFC 9293 section 3.5.1), or take it for a new connection: remembered. */
static inline hb_u32 hb_firewall_syn(hb_packet *p, const hb_firewall_segment *s, hb_u32 status)
{
    hb_u32 state = status & HB_FIREWALL_STATE;
    int began = s->from == hb_firewall_began(status);
    if (state == HB_FIREWALL_IN_SYN_SENT) {
        hb_firewall_begin_end(p, s->from, s->end, s->window, s->scale);
        if (began)
            return HB_PASS;
        return hb_firewall_pass_in(p, status | HB_FIREWALL_BOTH_BEGAN, HB_FIREWALL_IN_SYN_SENT_2);
    }
    if (state == HB_FIREWALL_IN_SYN_SENT_2)
        return s->end == hb_firewall_get_end(p, s->from, HB_FIREWALL_LAST)
                   ? HB_PASS
                   : HB_DROP(HB_REASON_out_of_window);
    if (!began)
        return HB_DROP(HB_REASON_bad_state);
    hb_set_state32(p, HB_FIREWALL_IGNORED, 1u << 31 | s->scale << 16 | s->window);
    hb_set_state32(p, HB_FIREWALL_IGNORED + 1, s->end);
    return HB_PASS;
}

/* The answer to a SYN that was ignored: who began it has a new connection. */
static inline int hb_firewall_reopen(hb_packet *p, const hb_firewall_segment *s, hb_u32 status)
{
    hb_u32 word = hb_state32(p, HB_FIREWALL_IGNORED), end = hb_state32(p, HB_FIREWALL_IGNORED + 1);
    if (!word || s->ack != end)
        return 0;
    hb_set_state32(p, HB_FIREWALL_IGNORED, 0);
    hb_set_state32(p, HB_FIREWALL_STATUS, status & HB_FIREWALL_BEGAN);
    hb_firewall_begin_end(p, s->from ^ 1, end, word & 0xffff, word >> 16 & 15);
    return 1;
}

static inline hb_u32 hb_firewall_syn_ack(hb_packet *p, const hb_firewall_segment *s, hb_u32 status)
{
    hb_u32 state = status & HB_FIREWALL_STATE;
    int began = s->from == hb_firewall_began(status);
    if (state == HB_FIREWALL_IN_SYN_SENT_2) { /* both SYNs have been seen */
        hb_firewall_agree(p);
        if (!hb_firewall_in_window(p, s))
            return HB_DROP(HB_REASON_out_of_window);
        return hb_firewall_pass_in(p, status, HB_FIREWALL_IN_ESTABLISHED);
    }
    if (began) /* of two ends that began together */
        return status & HB_FIREWALL_BOTH_BEGAN && hb_firewall_fits(p, s)
                   ? HB_PASS
                   : HB_DROP(HB_REASON_bad_state);
    if (state != HB_FIREWALL_IN_SYN_SENT && !hb_firewall_reopen(p, s, status))
        return hb_firewall_fits(p, s) ? HB_PASS : HB_DROP(HB_REASON_out_of_window);
    status = hb_state32(p, HB_FIREWALL_STATUS);
    hb_u32 last = hb_firewall_get_end(p, s->from ^ 1, HB_FIREWALL_LAST);
    if (hb_firewall_before(last, s->ack) || hb_firewall_before(s->ack, last - HB_FIREWALL_BEHIND))
        return HB_DROP(HB_REASON_out_of_window);
    hb_firewall_begin_end(p, s->from, s->end, s->window, s->scale);
    hb_firewall_agree(p);
    hb_firewall_allow(p, s->from ^ 1, s->ack, s->window);
    return hb_firewall_pass_in(p, status, HB_FIREWALL_IN_SYN_RECEIVED);
}

/* Who resets a connection must be in its window; one that answers a SYN must acknowledge that. */
static inline hb_u32 hb_firewall_rst(hb_packet *p, const hb_firewall_segment *s, hb_u32 status)
{
    hb_u32 state = status & HB_FIREWALL_STATE;
    int began = s->from == hb_firewall_began(status);
    hb_u32 challenge = hb_state32(p, HB_FIREWALL_CHALLENGE);
    if (state == HB_FIREWALL_IN_SYN_SENT && began && challenge && s->seq == challenge)
        return HB_PASS; /* ends what the other end still had; the SYN comes again */
    int old = hb_firewall_before(s->seq, hb_firewall_get_end(p, s->from, HB_FIREWALL_ACKED)) &&
              !(status & HB_FIREWALL_LOOSE);
    int fits = state == HB_FIREWALL_IN_SYN_SENT && !began
                   ? s->has_ack && s->ack == hb_firewall_get_end(p, s->from ^ 1, HB_FIREWALL_LAST)
                   : hb_firewall_in_window(p, s) && !old;
    return fits ? hb_firewall_pass_in(p, status, HB_FIREWALL_IN_CLOSED)
                : HB_DROP(HB_REASON_out_of_window);
}

/* Note a FIN, and the acknowledgement of the other end's: the state they make. */
static inline hb_u32 hb_firewall_closing(hb_packet *p, const hb_firewall_segment *s, hb_u32 *status)
{
    hb_u32 fin = HB_FIREWALL_FIN_SENT << s->from, other = HB_FIREWALL_FIN_SENT << (s->from ^ 1);
    if (s->kind == HB_FIREWALL_FIN && !(*status & fin)) {
        *status |= fin;
        hb_firewall_set_end(p, s->from, HB_FIREWALL_FIN_AT, s->end);
    }
    if ((*status & other) && s->has_ack &&
        !hb_firewall_before(s->ack, hb_firewall_get_end(p, s->from ^ 1, HB_FIREWALL_FIN_AT)))
        *status |= other << 2;
    hb_u32 fins = *status >> HB_FIREWALL_FIN_BIT & 3;
    hb_u32 acked = *status >> HB_FIREWALL_FIN_BIT >> 2 & 3;
    if (fins == 3)
        return acked == 3 ? HB_FIREWALL_IN_TIME_WAIT : HB_FIREWALL_IN_LAST_ACK;
    if (fins)
        return acked ? HB_FIREWALL_IN_CLOSE_WAIT : HB_FIREWALL_IN_FIN_WAIT;
    return *status & HB_FIREWALL_LOOSE ? HB_FIREWALL_IN_MIDSTREAM : HB_FIREWALL_IN_ESTABLISHED;
}

/* With ACK: data, or FIN. */
static inline hb_u32 hb_firewall_ack(hb_packet *p, const hb_firewall_segment *s, hb_u32 status)
{
    hb_u32 state = status & HB_FIREWALL_STATE;
    int began = s->from == hb_firewall_began(status);
    if (state == HB_FIREWALL_IN_SYN_SENT) { /* "I have a connection there": an RST follows */
        if (began || s->kind == HB_FIREWALL_FIN)
            return HB_DROP(HB_REASON_bad_state);
        hb_set_state32(p, HB_FIREWALL_CHALLENGE, s->ack);
        return HB_PASS;
    }
    if (state == HB_FIREWALL_IN_SYN_SENT_2)
        hb_firewall_agree(p);
    if (!hb_firewall_in_window(p, s))
        return HB_DROP(HB_REASON_out_of_window);
    if (state == HB_FIREWALL_IN_CLOSED)
        return HB_PASS;
    if (state == HB_FIREWALL_IN_SYN_RECEIVED && !began && s->kind == HB_FIREWALL_ACK)
        return HB_PASS;
    state = hb_firewall_closing(p, s, &status);
    return hb_firewall_pass_in(p, status, state);
}

/* Of a connection that the rules have accepted. */
static inline hb_u32 hb_firewall_next(hb_packet *p, const hb_firewall_segment *s, hb_u32 status)
{
    switch (s->kind) {
    case HB_FIREWALL_SYN:
        return hb_firewall_syn(p, s, status);
    case HB_FIREWALL_SYN_ACK:
        return hb_firewall_syn_ack(p, s, status);
    case HB_FIREWALL_RST:
        return hb_firewall_rst(p, s, status);
    default:
        return hb_firewall_ack(p, s, status);
    }
}

/* May this segment begin a connection? A SYN may; with `midstream`, so may data. */
static inline int hb_firewall_may_open(const hb_table *t, const hb_firewall_segment *s)
{
    return s->kind == HB_FIREWALL_SYN ||
           (s->kind == HB_FIREWALL_ACK && (hb_table32(t, 1) & HB_FIREWALL_MIDSTREAM));
}

#endif
