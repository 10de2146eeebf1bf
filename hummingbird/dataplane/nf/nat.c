/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nat.c: what the NAT is on the host. flow_setup() says what becomes of a flow: it finds or makes
 * the mappings that the flow holds until its end. prepare() translates what no state of a flow can
 * tell about: ICMP errors, queries other than echo, packets without a flow. finish() lets
 * translated packets join the flow of their connection. One lcore serves an instance.
 */
#include <string.h>

#include "dataplane.h"
#include "inet.h"
#include "nf/nat.cl"
#include "nf/nat_icmp.h"
#include "nf/nat_table.h"

/* The state of a flow, as nat.cl describes it. */
typedef struct {
    uint32_t what;
    uint32_t src, dst, ports;
    uint32_t was_src, was_dst, was_ports;
    uint32_t peer;       /* that the source is known to send to; index + 1, 0: none */
    uint32_t mapping[2]; /* of source and destination, likewise */
} flow_state;

/* What counts of a packet. */
typedef struct {
    uint32_t src, dst;
    uint16_t sport, dport; /* as in the key of its flow, but ICMP: the id of any query */
    uint16_t zone;
    uint8_t protocol;
    uint8_t icmp;  /* enum hb_nat_icmp */
    bool echo;     /* ICMP echo, or its reply */
    bool fragment; /* of any offset */
    bool later;    /* without a transport header ... */
    bool cut;      /* ... or not with a whole one */
} tuple;

/* ---- reading a packet ---------------------------------------------------------------------------
 */

static void read_ports(tuple *t, const uint8_t *l4)
{
    switch (t->protocol) {
    case HB_NAT_IP_ICMP:
        t->icmp = (uint8_t)hb_nat_icmp_of(l4[0]);
        t->echo = l4[0] == 8 || l4[0] == 0;
        t->sport = t->dport = t->icmp <= HB_NAT_ICMP_REPLY ? (uint16_t)hb_get_be16(l4 + 4) : 0;
        break;
    case HB_NAT_IP_TCP:
    case HB_NAT_IP_UDP:
    case 132: /* SCTP keeps its ports: its checksum is not one that can be mended */
        t->sport = (uint16_t)hb_get_be16(l4);
        t->dport = (uint16_t)hb_get_be16(l4 + 2);
        break;
    default:
        break;
    }
}

/* False: not IPv4. */
static bool read_tuple(tuple *t, const hb_mbuf *m, const uint8_t *packet)
{
    *t = (tuple){.zone = m->zone, .icmp = HB_NAT_ICMP_NONE};
    const uint8_t *ip = packet + m->l3;
    if (m->l3 == HB_NO_LAYER || m->l3 + 20u > m->data_len || ip[0] >> 4 != 4)
        return false;
    uint32_t place = hb_get_be16(ip + 6) & 0x3fff, end = m->l3 + hb_get_be16(ip + 2);
    t->src = hb_get_be32(ip + 12);
    t->dst = hb_get_be32(ip + 16);
    t->protocol = ip[9];
    t->fragment = place != 0;
    t->later = (place & 0x1fff) != 0 || m->l4 == HB_NO_LAYER;
    uint32_t least = t->protocol == HB_NAT_IP_TCP ? 20 : t->protocol == 132 ? 12 : 8;
    t->cut = !t->later && (end > m->data_len || m->l4 + least > end) &&
             (hb_nat_class(t->protocol) != HB_NAT_OTHER || t->protocol == 132);
    if (!t->later && !t->cut)
        read_ports(t, packet + m->l4);
    return true;
}

/* ---- what becomes of a flow ---------------------------------------------------------------------
 */

static bool has_ports(const tuple *t)
{
    return hb_nat_class(t->protocol) != HB_NAT_OTHER;
}

/* Of the other end, as peers are known: queries and their answers have one id. */
static uint32_t peer_port(const tuple *t, uint32_t port)
{
    return t->protocol == HB_NAT_IP_ICMP || !has_ports(t) ? 0 : port;
}

/* The mapping with a number of a state, or NULL. A state lies where a device may write, so it is
 * not believed. */
static const hb_nat_mapping *mapping_of(const hb_nat *n, uint32_t number)
{
    if (number - 1 >= n->config.mappings || !n->mapping[number - 1].life.holders)
        return NULL;
    return &n->mapping[number - 1];
}

static void let_go(hb_nat *n, const flow_state *s)
{
    /* the peer first: it must not outlive its mapping */
    if (s->peer - 1 < n->config.peers && n->peer[s->peer - 1].life.holders)
        hb_nat_release_peer(n, s->peer - 1);
    for (uint32_t i = 0; i < 2; i++)
        if (mapping_of(n, s->mapping[i]))
            hb_nat_release(n, s->mapping[i] - 1);
}

static void set_source(hb_nat *n, const tuple *t, flow_state *s, uint32_t mapping)
{
    const hb_nat_mapping *m = &n->mapping[mapping];
    s->mapping[0] = mapping + 1;
    s->what |= HB_NAT_SOURCE;
    s->src = n->config.external[m->external];
    if (has_ports(t))
        s->ports = (uint32_t)m->external_port << 16 | (s->ports & 0xffff);
    if (t->protocol == HB_NAT_IP_ICMP)
        s->ports = m->external_port * 0x10001u;
}

/* From an inside host to anywhere but the inside. */
static enum hb_reason translate_source(hb_nat *n, const tuple *t, flow_state *s)
{
    if (t->protocol == HB_NAT_IP_ICMP && t->icmp != HB_NAT_ICMP_REQUEST)
        return HB_REASON_no_mapping;
    hb_nat_end end = {.address = t->src, .zone = t->zone, .protocol = t->protocol};
    end.port = has_ports(t) ? t->sport : 0;
    uint32_t m = hb_nat_get(n, &end);
    if (m == HB_NAT_NONE)
        return HB_REASON_no_port;
    set_source(n, t, s, m);
    if (n->config.filter == HB_NAT_FILTER_NONE || n->mapping[m].forward)
        return HB_REASON_none;
    uint32_t peer = hb_nat_permit(n, m, t->dst, peer_port(t, t->dport));
    if (peer == HB_NAT_NONE)
        return HB_REASON_no_port;
    s->peer = peer + 1;
    return HB_REASON_none;
}

/* To an external address, from `src` and `sport` as they are outside. */
static enum hb_reason translate_destination(hb_nat *n, const tuple *t, flow_state *s, uint32_t src,
                                            uint32_t sport)
{
    if (t->protocol == HB_NAT_IP_ICMP && t->icmp != HB_NAT_ICMP_REPLY)
        return HB_REASON_no_mapping;
    uint32_t external = hb_nat_external(n, t->dst);
    uint32_t m = hb_nat_by_external(n, external, t->protocol, has_ports(t) ? t->dport : 0);
    if (m == HB_NAT_NONE)
        return HB_REASON_no_mapping;
    if (!hb_nat_permitted(n, m, src, peer_port(t, sport))) {
        hb_nat_add(&n->count.filtered);
        return HB_REASON_no_mapping;
    }
    hb_nat_hold(n, m);
    const hb_nat_end *inside = &n->mapping[m].inside;
    s->mapping[1] = m + 1;
    s->what |= HB_NAT_DESTINATION;
    s->dst = inside->address;
    if (has_ports(t))
        s->ports = (s->ports & 0xffff0000u) | inside->port;
    if (t->protocol == HB_NAT_IP_ICMP)
        s->ports = inside->port * 0x10001u;
    return HB_REASON_none;
}

/* RFC 4787 section 6: from inside to inside by way of an external address. What is sent opens the
 * way back, also where it is not let in itself. */
static enum hb_reason translate_both(hb_nat *n, const tuple *t, flow_state *s)
{
    if (!n->config.hairpin || t->protocol == HB_NAT_IP_ICMP)
        return HB_REASON_no_mapping;
    enum hb_reason bad = translate_source(n, t, s);
    return bad ? bad : translate_destination(n, t, s, s->src, s->ports >> 16);
}

/* Multicast, broadcast, and what never leaves a host or link stays as it is. */
static bool leads_out(uint32_t dst)
{
    return dst >> 24 != 0 && dst >> 24 != 127 && dst < 0xe0000000u && dst >> 16 != 0xa9fe;
}

/* Is this what packets from src to dst need? */
static bool crosses(const hb_nat *n, uint32_t src, uint32_t dst)
{
    return hb_nat_external(n, dst) != HB_NAT_NONE ||
           (hb_nat_is_inside(n, src) && !hb_nat_is_inside(n, dst) && leads_out(dst));
}

static enum hb_reason translate(hb_nat *n, const tuple *t, flow_state *s)
{
    if (hb_nat_external(n, t->dst) == HB_NAT_NONE)
        return translate_source(n, t, s);
    return hb_nat_is_inside(n, t->src) ? translate_both(n, t, s)
                                       : translate_destination(n, t, s, t->src, t->sport);
}

/* Fills the state of a flow that crosses, for packets such as this one. A reason other than none:
 * it holds nothing. */
static enum hb_reason plan(hb_nat *n, const tuple *t, flow_state *s)
{
    uint32_t ports = (uint32_t)t->sport << 16 | t->dport;
    *s = (flow_state){.src = t->src,
                      .dst = t->dst,
                      .ports = ports,
                      .was_src = t->src,
                      .was_dst = t->dst,
                      .was_ports = ports};
    if (has_ports(t) && t->later)
        return HB_REASON_no_first_fragment;
    if (t->cut)
        return HB_REASON_malformed;
    enum hb_reason bad = translate(n, t, s);
    if (bad)
        let_go(n, s);
    return bad;
}

/* ---- flows --------------------------------------------------------------------------------------
 */

/* The key of the packets that a state makes of those it is for, and their direction. */
static hb_key key_of(const hb_nat *n, const flow_state *s, uint8_t protocol, uint16_t zone,
                     uint32_t *direction)
{
    uint32_t address[2] = {s->src, s->dst}, port[2] = {s->ports >> 16, s->ports & 0xffff};
    const hb_nat_mapping *m = mapping_of(n, s->mapping[1]);
    hb_key key = {.protocol = protocol};
    key.zone = m ? m->inside.zone : zone;
    *direction = address[0] > address[1] || (address[0] == address[1] && port[0] > port[1]);
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t end = i ^ *direction;
        key.addr[i][10] = key.addr[i][11] = 0xff;
        hb_put_be32(key.addr[i] + 12, address[end]);
        key.port[i] = (uint16_t)port[end];
    }
    return key;
}

/* A connection has two flows here, one before and one behind the translation. The one that came
 * first is the connection's, and the packets of the other join it. */
static bool comes_second(hb_nf_seat *seat, const hb_mbuf *m, const flow_state *s)
{
    uint32_t direction;
    hb_key key = key_of(seat->host, s, m->protocol, m->zone, &direction);
    uint32_t flow = hb_flow_find(seat, &key);
    if (flow == HB_NO_FLOW || flow == m->flow)
        return false;
    const flow_state *other = hb_flow_state(seat, flow);
    return seat->set_up[flow] == hb_flow_generation(seat, flow) && !(other->what & HB_NAT_ADOPT);
}

/* Each packet tells for itself: errors, queries without a flow of their own, and the echo with an
 * id of 0, which shares a flow with those. */
static bool stands_alone(const tuple *t)
{
    bool has_flow = t->fragment || t->later || t->cut || (t->echo && t->sport);
    return t->protocol == HB_NAT_IP_ICMP && !has_flow;
}

static enum hb_reason flow_setup(hb_nf_seat *seat, uint32_t handle, void *state)
{
    const hb_mbuf *m = hb_header(seat->arena, handle);
    hb_nat *n = seat->host;
    flow_state s;
    tuple t;
    if (!n || !read_tuple(&t, m, hb_data(seat->arena, m)))
        return HB_REASON_none;
    hb_clock_see(&n->clock, m->in_port, m->time_ns);
    if (stands_alone(&t)) { /* but its answer, which may be in this burst, has to find a mapping */
        if (t.icmp == HB_NAT_ICMP_REQUEST && crosses(n, t.src, t.dst) && !plan(n, &t, &s))
            let_go(n, &s);
        return HB_REASON_none;
    }
    if (!crosses(n, t.src, t.dst)) /* but if the other direction does, this is no way to go */
        return crosses(n, t.dst, t.src) ? HB_REASON_no_mapping : HB_REASON_none;
    enum hb_reason bad = plan(n, &t, &s);
    if (bad)
        return bad;
    s.what |= m->direction ? HB_NAT_REVERSED : 0;
    if (!t.fragment && comes_second(seat, m, &s))
        s.what |= HB_NAT_ADOPT;
    memcpy(state, &s, sizeof s);
    return HB_REASON_none;
}

static void flow_end(hb_nf_seat *seat, uint32_t flow, const hb_key *key, enum hb_flow_end why,
                     const void *state)
{
    (void)flow, (void)key, (void)why;
    if (seat->host)
        let_go(seat->host, state);
}

/* ---- around the packet function -----------------------------------------------------------------
 */

/* As a flow of its own, of this one packet. */
static uint32_t translate_alone(hb_nat *n, const tuple *t, const hb_mbuf *m, uint8_t *packet)
{
    flow_state s;
    uint64_t result;
    if (!crosses(n, t->src, t->dst))
        return HB_PASS;
    enum hb_reason bad = plan(n, t, &s);
    if (bad)
        return HB_DROP(bad);
    hb_packet p = {.frame = packet,
                   .length = m->data_len,
                   .l3 = m->l3,
                   .l4 = m->l4,
                   .state = (uint8_t *)&s,
                   .state_length = sizeof s};
    uint32_t verdict = hb_nf_nat(&p, NULL, 0, &result);
    let_go(n, &s);
    return verdict;
}

/* The verdict of a packet that no flow's state can tell about; 0 if it has one. */
static uint64_t by_host(hb_nat *n, const hb_mbuf *m, uint8_t *packet)
{
    tuple t;
    if ((m->flow != HB_NO_FLOW && m->protocol != HB_NAT_IP_ICMP) || !read_tuple(&t, m, packet) ||
        (m->flow != HB_NO_FLOW && !stands_alone(&t)))
        return 0;
    hb_clock_see(&n->clock, m->in_port, m->time_ns);
    if (t.icmp != HB_NAT_ICMP_ERROR || t.fragment)
        return translate_alone(n, &t, m, packet);
    return hb_nat_icmp_error(n, t.zone, packet + m->l3, hb_get_be16(packet + m->l3 + 2));
}

static void prepare(hb_nf_seat *seat, const uint32_t *handles, uint64_t *arg, uint32_t n)
{
    hb_nat *nat = seat->host;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(seat->arena, handles[i]);
        uint8_t *packet = hb_data(seat->arena, m);
        arg[i] = nat ? by_host(nat, m, packet) : 0;
    }
    if (nat && n) {
        const hb_mbuf *last = hb_header(seat->arena, handles[n - 1]);
        hb_clock_see(&nat->clock, last->in_port, last->time_ns);
    }
}

static void finish(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    (void)result;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(seat->arena, handles[i]);
        const flow_state *s = m->flow == HB_NO_FLOW ? NULL : hb_flow_state(seat, m->flow);
        if (!s || !(s->what & HB_NAT_ADOPT) || verdict[i] != HB_PASS ||
            m->direction != (s->what & HB_NAT_REVERSED ? 1 : 0))
            continue;
        uint32_t direction;
        hb_key key = key_of(seat->host, s, m->protocol, m->zone, &direction);
        uint32_t flow = hb_flow_find(seat, &key);
        if (flow != HB_NO_FLOW)
            hb_flow_adopt(seat, handles[i], flow, hb_flow_generation(seat, flow), direction);
    }
}

static const hb_nf_engine engines[] = {{.name = "cpu", .run = hb_loop_nat}};
extern const hb_nf_kind hb_nat_kind;
const hb_nf_kind hb_nat_kind = {.flow_setup = flow_setup,
                                .flow_end = flow_end,
                                .prepare = prepare,
                                .finish = finish,
                                .engines = engines,
                                .nb_engines = 1};
