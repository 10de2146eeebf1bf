/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nids_flow.c: which end of a flow is the server, and is it established?
 *
 * TCP: who sends the SYN is the client. Established is every packet without SYN behind a SYN that
 * the other end has answered with SYN and ACK; nothing is asked of sequence numbers. If no SYN was
 * seen, the end with the lower port is taken for the server, and the flow is established only if
 * the rules are told to assume so. Anything else: who sends first is the client, and established
 * means that both have sent.
 *
 * State lies beside the flow tables: same index, and valid only for the same generation.
 */
#include "nids_seat.h"

enum { TCP = 6 };
enum { SYN = 2, ACK = 16 };

#define HB_SEEN_SYN 1u      /* of the client */
#define HB_SEEN_ANSWER 2u   /* to it; for other protocols: both ends have sent */
#define HB_SEEN_CLIENT 4u   /* it is known ... */
#define HB_SEEN_REVERSED 8u /* ... and it is the end that sends in direction 1 */

static hb_nids_flow *entry_of(const hb_nids_seat *s, const hb_mbuf *m)
{
    return s->flow && m->flow < s->flows ? s->flow + m->flow : NULL;
}

static uint32_t client(uint32_t direction)
{
    return HB_SEEN_CLIENT | (direction ? HB_SEEN_REVERSED : 0);
}

/* TCP flags of a packet whose header offsets say that it is TCP; 0 if they are not there. */
static uint32_t tcp_flags(const hb_mbuf *m, const uint8_t *packet)
{
    uint32_t at = m->l4 + 13u;
    return m->l4 != HB_NO_LAYER && at < m->data_len ? packet[at] : 0;
}

static uint32_t after_syn(uint32_t state, uint32_t flags, uint32_t direction)
{
    if (flags & ACK) { /* from the server */
        bool answers = (state & HB_SEEN_SYN) &&
                       (state & (HB_SEEN_CLIENT | HB_SEEN_REVERSED)) == client(!direction);
        if (answers)
            return state | HB_SEEN_ANSWER;
        return state & HB_SEEN_ANSWER ? state : client(!direction);
    }
    bool again = (state & (HB_SEEN_CLIENT | HB_SEEN_REVERSED)) == client(direction);
    return again ? state | HB_SEEN_SYN : client(direction) | HB_SEEN_SYN;
}

void hb_nids_flow_see(hb_nids_seat *s, const hb_mbuf *m, const uint8_t *packet)
{
    bool tcp = m->protocol == TCP;
    uint32_t flags = tcp ? tcp_flags(m, packet) : 0;
    if (tcp ? !(flags & SYN) : !(s->nids->c.track & HB_NIDS_TRACK_OTHERS))
        return;
    hb_nids_flow *flow = entry_of(s, m);
    if (!flow)
        return;
    uint32_t state = flow->generation == m->flow_gen ? flow->state : 0;
    if (tcp)
        state = after_syn(state, flags, m->direction);
    else if (!state)
        state = client(m->direction);
    else if ((state & (HB_SEEN_CLIENT | HB_SEEN_REVERSED)) != client(m->direction))
        state |= HB_SEEN_ANSWER;
    if (flow->state != state || flow->generation != m->flow_gen)
        *flow = (hb_nids_flow){.generation = m->flow_gen, .state = state};
}

static uint32_t direction_of(uint32_t state, const hb_mbuf *m, const hb_nids_packet *p)
{
    if (state & HB_SEEN_CLIENT)
        return m->direction == !!(state & HB_SEEN_REVERSED) ? HB_NIDS_FLOW_TO_SERVER
                                                            : HB_NIDS_FLOW_TO_CLIENT;
    if (!p->has_ports || p->src_port == p->dst_port)
        return 0;
    return p->src_port > p->dst_port ? HB_NIDS_FLOW_TO_SERVER : HB_NIDS_FLOW_TO_CLIENT;
}

uint32_t hb_nids_flow_of(hb_nids_seat *s, const hb_mbuf *m, const hb_nids_packet *p)
{
    hb_nids_flow *flow = entry_of(s, m);
    uint32_t state = flow && flow->generation == m->flow_gen ? flow->state : 0;
    uint32_t flags = m->protocol == TCP ? tcp_flags(m, p->packet) : 0;
    bool established = (state & HB_SEEN_ANSWER) && !(flags & SYN);
    if (m->protocol == TCP && !established) {
        established = s->nids->c.assume && (flags & (ACK | SYN)) == ACK;
        s->count.no_handshake += !established && !(flags & SYN);
    }
    return direction_of(state, m, p) |
           (established ? HB_NIDS_FLOW_ESTABLISHED : HB_NIDS_FLOW_NOT_ESTABLISHED);
}
