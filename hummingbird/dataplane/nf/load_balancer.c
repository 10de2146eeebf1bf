/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_balancer.c: what the load balancer does on the host. flow_setup() chooses the backend of a
 * flow and writes everything that the packet function needs into the flow's state, so that whatever
 * happens to services and backends, a flow stays where it is. finish() counts, and does what is too
 * rare for the packet function.
 */
#include "nf/load_balancer.h"

#include <stdlib.h>
#include <string.h>

#include "inet.h"

enum { IP_ICMP = 1, IP_TCP = 6, IP_UDP = 17, IP_ICMP6 = 58 };

/* ---- the instance -------------------------------------------------------------------------------
 */

hb_lb_host *hb_lb_host_new(hb_lb_config *config, uint64_t seed, uint32_t slots, uint32_t rate,
                           int32_t type)
{
    size_t bytes = (sizeof(hb_lb_host) + 127) / 128 * 128;
    hb_lb_host *h = aligned_alloc(128, bytes);
    hb_lb_use *use = calloc((size_t)slots * HB_MAX_LCORES, sizeof *use);
    if (!h || !use) {
        free(h);
        free(use);
        return NULL;
    }
    memset(h, 0, bytes);
    h->config = config;
    h->seed = seed;
    h->slots = slots;
    h->type = type;
    h->use = use;
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++) {
        h->lane[i].limit.rate = rate;
        h->lane[i].use = use + (size_t)i * slots;
    }
    return h;
}

void hb_lb_host_free(hb_lb_host *h)
{
    if (!h)
        return;
    hb_lb_config_free((hb_lb_config *)h->config);
    free(h->use);
    free(h);
}

hb_lb_config *hb_lb_swap(hb_lb_host *h, hb_lb_config *config)
{
    hb_lb_config *old = (hb_lb_config *)h->config;
    /* Release: all of it before the pointer to it. */
    __atomic_store_n(&h->config, config, __ATOMIC_RELEASE);
    return old;
}

#define SUM(field) sum.field += __atomic_load_n(&c->field, __ATOMIC_RELAXED)

hb_lb_use hb_lb_used(const hb_lb_host *h, uint32_t slot)
{
    hb_lb_use sum = {0};
    for (uint32_t i = 0; i < HB_MAX_LCORES && slot < h->slots; i++) {
        const hb_lb_use *c = &h->lane[i].use[slot];
        SUM(flows), SUM(ended), SUM(held), SUM(released);
        SUM(packets), SUM(bytes), SUM(reply_packets), SUM(reply_bytes);
    }
    return sum;
}

hb_lb_counts hb_lb_count(const hb_lb_host *h)
{
    hb_lb_counts sum = {0};
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++) {
        const hb_lb_counts *c = &h->lane[i].count;
        SUM(no_backend), SUM(no_first), SUM(icmp_translated), SUM(icmp_errors);
        SUM(icmp_suppressed), SUM(fragmented), SUM(without_flow);
    }
    return sum;
}

/* ---- the choice ---------------------------------------------------------------------------------
 */

/* Both halves of the product: every bit of a factor reaches every bit of the result. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t half(const uint8_t *address, uint32_t which)
{
    return (uint64_t)hb_get_be32(address + 8 * which) << 32 | hb_get_be32(address + 8 * which + 4);
}

/* The constants (wyhash's) keep zero words from wiping out their partner. */
uint64_t hb_lb_hash(uint64_t seed, const uint8_t *client, uint32_t client_port,
                    const uint8_t *address, uint32_t port, uint32_t protocol)
{
    uint64_t ports = (uint64_t)client_port << 32 | (uint64_t)port << 16 | protocol;
    uint64_t h = fold(seed ^ 0xa0761d6478bd642fu, half(client, 0) ^ 0xe7037ed1a0b428dbu);
    h = fold(h ^ half(client, 1), 0x8ebc6af09c88c6e3u);
    h = fold(h ^ half(address, 0), 0x589965cc75374cc3u);
    h = fold(h ^ half(address, 1), 0x1d8e4e27c47d124fu);
    return fold(h ^ ports, 0xeb44accab455d165u);
}

static const hb_lb_backend *choose(const hb_lb_host *h, const hb_lb_service *s,
                                   const hb_lb_ends *ends, uint32_t end)
{
    bool alone = s->by_client;
    uint64_t hash =
        hb_lb_hash(h->seed, ends->addr[!end], alone ? 0 : ends->port[!end], ends->addr[end],
                   alone ? 0 : ends->port[end], alone ? 0 : ends->protocol);
    uint32_t backend = s->table[hash % s->size];
    return backend < s->backends ? &s->backend[backend] : NULL;
}

/* ---- states -------------------------------------------------------------------------------------
 */

static bool is_four(const uint8_t *address)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return !memcmp(address, mapped, sizeof mapped);
}

static uint32_t flags_of(const hb_lb_ends *ends)
{
    return (ends->fragment ? HB_LB_FRAGMENT : 0) | (ends->protocol == IP_UDP ? HB_LB_UDP : 0);
}

static void set_address(uint32_t *state, const uint8_t *address)
{
    bool four = is_four(address);
    for (uint32_t i = 0; i < 4; i++)
        state[4 + i] = four && i < 3 ? 0 : hb_get_be32(address + 4 * i);
    state[0] |= four ? 0 : HB_LB_SIX;
}

static void set_backend(uint32_t *state, const hb_lb_service *s, const hb_lb_backend *b)
{
    state[0] |= (s->mode == HB_LB_IPIP ? HB_LB_TUNNEL : HB_LB_TO_BACKEND) |
                (b->has_mac ? HB_LB_HAS_MAC : 0);
    state[1] = b->slot | (uint32_t)s->number << 16;
    state[2] = b->port | hb_get_be16(b->mac) << 16;
    state[3] = hb_get_be32(b->mac + 2);
    set_address(state, b->address);
}

static enum hb_reason refuse(uint64_t *counter, enum hb_reason reason)
{
    hb_lb_add(counter, 1);
    return reason;
}

/* The normalised key of a connection between two ends. */
static hb_key key_between(const hb_lb_ends *ends)
{
    int order = memcmp(ends->addr[0], ends->addr[1], 16);
    uint32_t back = order > 0 || (!order && ends->port[0] > ends->port[1]);
    hb_key key = {.zone = ends->zone, .protocol = ends->protocol};
    for (uint32_t i = 0; i < 2; i++) {
        memcpy(key.addr[i], ends->addr[i ^ back], 16);
        key.port[i] = ends->port[i ^ back];
    }
    return key;
}

bool hb_lb_find_state(const hb_nf_seat *seat, const hb_lb_ends *ends, uint32_t *state)
{
    hb_key key = key_between(ends);
    uint32_t flow = hb_flow_find(seat, &key);
    const void *of = flow == HB_NO_FLOW ? NULL : hb_flow_state(seat, flow);
    if (!of)
        return false;
    uint32_t generation = hb_flow_generation(seat, flow);
    memcpy(state, of, HB_LB_WORDS * sizeof *state);
    return hb_flow_is_set_up(seat->lcore->dp, seat->node, flow, generation) &&
           hb_flow_find(seat, &key) == flow && hb_flow_generation(seat, flow) == generation;
}

/* The backend of the connection that a fragment or an ICMP error belongs to. */
static bool as_known(const hb_nf_seat *seat, const hb_lb_service *s, const hb_lb_ends *ends,
                     uint32_t *state)
{
    const uint32_t keep = 255 | HB_LB_HAS_MAC | HB_LB_SIX;
    uint32_t found[HB_LB_WORDS];
    if (!hb_lb_find_state(seat, ends, found))
        return false;
    uint32_t mode = found[0] & 255;
    if ((mode != HB_LB_TO_BACKEND && mode != HB_LB_TUNNEL) || found[1] >> 16 != s->number)
        return false;
    state[0] |= found[0] & keep;
    memcpy(state + 1, found + 1, sizeof found - sizeof *found);
    return true;
}

enum hb_reason hb_lb_toward(hb_nf_seat *seat, const hb_lb_service *s, const hb_lb_ends *ends,
                            uint32_t end, bool known, uint32_t *state)
{
    state[0] |= flags_of(ends);
    if (known && as_known(seat, s, ends, state))
        return HB_REASON_none;
    const hb_lb_backend *b = s->usable ? choose(seat->host, s, ends, end) : NULL;
    if (!b)
        return refuse(&hb_lb_lane_of(seat)->count.no_backend, HB_REASON_no_backend);
    set_backend(state, s, b);
    return HB_REASON_none;
}

static void set_reply(uint32_t *state, const hb_lb_reply *r, const hb_lb_ends *ends)
{
    state[0] |= HB_LB_FROM_BACKEND | flags_of(ends);
    state[1] = r->slot | (uint32_t)r->service << 16;
    state[2] = r->virtual_port;
    set_address(state, r->virtual_address);
}

/* ---- a flow begins ------------------------------------------------------------------------------
 */

/* The two ends of a packet, as it is now: NFs before this one may have changed it. False: not IP.
 */
static bool look(const hb_mbuf *m, const uint8_t *bytes, hb_lb_ends *ends)
{
    hb_mbuf copy = *m;
    hb_key key;
    if (hb_parse(bytes, m->data_len, &copy, &key) != HB_REASON_none || copy.l3 == HB_NO_LAYER)
        return false;
    *ends = (hb_lb_ends){.zone = m->zone, .protocol = key.protocol, .fragment = key.fragment};
    for (uint32_t i = 0; i < 2; i++)
        memcpy(ends->addr[i], key.addr[i ^ copy.direction], 16);
    if (copy.l4 > HB_LB_MOST_L4 || copy.l4 + 4u > m->data_len) /* HB_NO_LAYER is more, too */
        return true;
    ends->has_ports = true;
    for (uint32_t i = 0; i < 2; i++)
        ends->port[i] = (uint16_t)hb_get_be16(bytes + copy.l4 + 2 * i);
    return true;
}

static enum hb_reason passes(uint32_t *state, uint32_t mode)
{
    state[0] |= mode;
    return HB_REASON_none;
}

/* A backend behind a tunnel answers the client itself: its packet may be the first one here. */
static enum hb_reason begin_backwards(hb_nf_seat *seat, const hb_lb_service *s,
                                      const hb_lb_ends *ends, uint32_t *state)
{
    state[0] ^= 1u << 8;
    if (hb_lb_toward(seat, s, ends, 0, false, state) != HB_REASON_none)
        state[0] |= HB_LB_DROP;
    return HB_REASON_none;
}

/* A flow of TCP or UDP: is an end of it a service, or a backend that answers? */
static enum hb_reason begin(hb_nf_seat *seat, const hb_lb_ends *ends, uint32_t *state)
{
    const hb_lb_config *c = hb_lb_current(seat->host);
    uint32_t protocol = ends->protocol;
    if (!ends->has_ports) {
        bool ours = hb_lb_has_service(c, ends->addr[1], protocol) ||
                    hb_lb_has_reply(c, ends->addr[0], protocol);
        return ours && ends->fragment
                   ? refuse(&hb_lb_lane_of(seat)->count.no_first, HB_REASON_no_first_fragment)
                   : passes(state, HB_LB_PASS);
    }
    const hb_lb_service *s = hb_lb_service_at(c, ends->addr[1], protocol, ends->port[1]);
    if (s)
        return hb_lb_toward(seat, s, ends, 1, ends->fragment, state);
    const hb_lb_reply *r = hb_lb_reply_at(c, ends->addr[0], protocol, ends->port[0]);
    if (r) {
        set_reply(state, r, ends);
        return HB_REASON_none;
    }
    s = hb_lb_service_at(c, ends->addr[0], protocol, ends->port[0]);
    return s && !ends->fragment ? begin_backwards(seat, s, ends, state) : passes(state, HB_LB_PASS);
}

static enum hb_reason set_up(hb_nf_seat *seat, const hb_mbuf *m, uint32_t *state)
{
    hb_lb_ends ends;
    if (!seat->host || !look(m, hb_data(seat->arena, m), &ends))
        return passes(state, HB_LB_PASS);
    state[0] = (uint32_t)m->direction << 8;
    if (ends.protocol == IP_TCP || ends.protocol == IP_UDP)
        return begin(seat, &ends, state);
    bool icmp = ends.protocol == (is_four(ends.addr[0]) ? IP_ICMP : IP_ICMP6);
    return passes(state, icmp && !ends.fragment ? HB_LB_ICMP : HB_LB_PASS);
}

/* The counters of the backend that a state names; NULL if it names none. */
static hb_lb_use *use_of(const hb_nf_seat *seat, const uint32_t *state)
{
    const hb_lb_host *h = seat->host;
    uint32_t mode = state[0] & 255, slot = state[1] & 0xffff;
    bool names = mode == HB_LB_TO_BACKEND || mode == HB_LB_FROM_BACKEND || mode == HB_LB_TUNNEL;
    return h && names && slot < h->slots ? &hb_lb_lane_of(seat)->use[slot] : NULL;
}

/* It is one that was given to the backend, and not some pieces of it, or the answer. */
static bool is_whole(const uint32_t *state)
{
    return (state[0] & 255) != HB_LB_FROM_BACKEND && !(state[0] & HB_LB_FRAGMENT);
}

static enum hb_reason flow_setup(hb_nf_seat *seat, uint32_t handle, void *of)
{
    uint32_t state[HB_LB_WORDS] = {0};
    enum hb_reason bad = set_up(seat, hb_header(seat->arena, handle), state);
    hb_lb_use *use = bad == HB_REASON_none ? use_of(seat, state) : NULL;
    memcpy(of, state, sizeof state);
    if (use) {
        hb_lb_add(&use->held, 1);
        hb_lb_add(&use->flows, is_whole(state));
    }
    return bad;
}

static void flow_end(hb_nf_seat *seat, uint32_t flow, const hb_key *key, enum hb_flow_end why,
                     const void *of)
{
    uint32_t state[HB_LB_WORDS];
    (void)flow, (void)key, (void)why;
    memcpy(state, of, sizeof state);
    hb_lb_use *use = use_of(seat, state);
    if (use) {
        hb_lb_add(&use->released, 1);
        hb_lb_add(&use->ended, is_whole(state));
    }
}

/* ---- after the packet function ------------------------------------------------------------------
 */

hb_packet hb_lb_packet(const hb_nf_seat *seat, const hb_mbuf *m, uint32_t *state)
{
    return (hb_packet){.frame = hb_frame(seat->arena, m),
                       .low = HB_FRAME_RESERVED,
                       .high = (uint32_t)m->data_off + m->data_len,
                       .offset = m->data_off,
                       .length = m->data_len,
                       .l3 = m->l3,
                       .l4 = m->l4,
                       .type = m->type,
                       .flow = m->flow,
                       .direction = m->direction,
                       .state = (uint8_t *)state,
                       .state_length = HB_LB_WORDS * sizeof *state};
}

void hb_lb_moved(hb_nf_seat *seat, hb_mbuf *m, const hb_packet *p)
{
    if (p->offset == m->data_off)
        return;
    seat->resized = true;
    m->data_off = (uint16_t)p->offset;
    m->data_len = (uint16_t)p->length;
    const uint8_t *ip = hb_data(seat->arena, m) + m->l3;
    m->l4 = (uint8_t)p->l4;
    m->protocol = ip[0] >> 4 == 6 ? ip[6] : ip[9];
}

/* A packet of no flow: everything at once, and nothing is remembered. */
static uint32_t choose_for_one(hb_nf_seat *seat, uint32_t handle, uint64_t *result)
{
    hb_mbuf *m = hb_header(seat->arena, handle);
    uint32_t state[HB_LB_WORDS] = {0};
    *result = 0;
    hb_lb_add(&hb_lb_lane_of(seat)->count.without_flow, 1);
    enum hb_reason bad = set_up(seat, m, state);
    if (bad != HB_REASON_none)
        return HB_DROP(bad);
    hb_packet p = hb_lb_packet(seat, m, state);
    uint32_t verdict = hb_lb_act(&p, &seat->table, result);
    if (verdict == HB_PASS)
        hb_lb_moved(seat, m, &p);
    return verdict;
}

/* The outer header gets a number of its own, and may be cut. The numbers of the lcores differ. */
static uint32_t cut(hb_nf_seat *seat, uint32_t handle)
{
    hb_lb_lane *l = hb_lb_lane_of(seat);
    const hb_mbuf *m = hb_header(seat->arena, handle);
    uint8_t *ip = hb_data(seat->arena, m) + m->l3;
    uint32_t id = l->cut++ * seat->lcore->dp->config.lcores + seat->lcore->id;
    hb_put_be16(ip + 4, id);
    hb_put_be16(ip + 6, 0);
    hb_put_be16(ip + 10, 0);
    hb_put_be16(ip + 10, hb_inet_sum(ip, 20, 0));
    if (!hb_fragment(seat, handle, hb_table32(&seat->table, 1)))
        return HB_DROP(HB_REASON_no_mbuf);
    hb_lb_add(&l->count.fragmented, 1);
    return HB_PASS;
}

/* The sender learns, as if from the virtual address, what fits (RFC 2003 section 5.1, RFC 2473
 * section 7.1). */
static void tell(hb_nf_seat *seat, uint32_t handle, uint32_t mtu)
{
    hb_lb_host *h = seat->host;
    hb_lb_lane *l = hb_lb_lane_of(seat);
    const hb_mbuf *m = hb_header(seat->arena, handle);
    const uint8_t *ip = hb_data(seat->arena, m) + m->l3;
    bool six = ip[0] >> 4 == 6;
    hb_icmp_source from = {0};
    memcpy(six ? from.ipv6 : from.ipv4, ip + (six ? 24 : 16), six ? 16 : 4);
    uint32_t type = h->type < 0 ? m->type : (uint32_t)h->type;
    uint64_t before = l->limit.suppressed;
    bool made = hb_icmp_error(seat, &l->limit, &from, handle, six ? 2 : 3, six ? 0 : 4, mtu, type);
    hb_lb_add(&l->count.icmp_errors, made);
    hb_lb_add(&l->count.icmp_suppressed, l->limit.suppressed - before);
}

static void count(hb_nf_seat *seat, uint32_t handle, uint64_t result)
{
    const hb_lb_host *h = seat->host;
    uint32_t slot = ((uint32_t)result & 0xffff) - 1;
    if (slot >= h->slots) /* what a device answers is not believed */
        return;
    hb_lb_use *use = &hb_lb_lane_of(seat)->use[slot];
    bool reply = result & HB_LB_REPLY;
    hb_lb_add(reply ? &use->reply_packets : &use->packets, 1);
    hb_lb_add(reply ? &use->reply_bytes : &use->bytes, hb_header(seat->arena, handle)->data_len);
}

static uint32_t after(hb_nf_seat *seat, uint32_t handle, uint64_t result, uint32_t verdict)
{
    if (result >> 32 == HB_LB_DO_CHOOSE)
        verdict = choose_for_one(seat, handle, &result);
    if (result >> 32 == HB_LB_DO_ICMP)
        verdict = hb_lb_translate(seat, handle, &result);
    if (verdict == HB_PASS)
        count(seat, handle, result);
    if (result >> 32 == HB_LB_DO_CUT && verdict == HB_PASS)
        verdict = cut(seat, handle);
    if (result >> 32 == HB_LB_DO_TELL && verdict == HB_DROP(HB_REASON_too_big))
        tell(seat, handle, (uint32_t)result & 0xffff);
    return verdict;
}

static void finish(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    for (uint32_t i = 0; seat->host && i < n; i++)
        if (result[i])
            verdict[i] = after(seat, handles[i], result[i], verdict[i]);
}

static const hb_nf_engine engines[] = {{.name = "cpu", .run = hb_loop_load_balancer}};
extern const hb_nf_kind hb_load_balancer_kind;
const hb_nf_kind hb_load_balancer_kind = {.flow_setup = flow_setup,
                                          .flow_end = flow_end,
                                          .finish = finish,
                                          .engines = engines,
                                          .nb_engines = 1};
