/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec.c: what IPsec decides about packets on the host (RFC 4301 section 5). prepare() finds what
 * is to be done with each and gives out sequence numbers; the packet function does it; finish()
 * looks at what came out.
 *
 *   outbound   policy ── MTU ── number ──  encapsulate              ── fragment, if too big
 *   inbound    SPI ── seen before?     ──  check ICV, decapsulate   ── seen before? ── policy
 */
#include "ipsec.h"

#include <string.h>

#include "inet.h"
#include "nf/ipsec_mb.h"
#include "parse.h"

enum { IP_UDP = 17, IP_ESP = 50 };

#define LAST_NUMBER 0xffffffffu /* without extended sequence numbers (RFC 4303 section 2.2.1) */
#define IPV6_LEAST_MTU 1280u    /* RFC 8200 section 5 */
#define NOT_OURS 0u             /* no ESP that ends here; as an operation it does not occur */

/* What the packet function is told, and what it tells: a number, a security association, and what
 * is done. */
enum { DROP = 0, ENCAPSULATE = 1, DECAPSULATE = 2, BYPASS = 3 };

static inline uint64_t operation(uint64_t what, uint32_t sa, uint32_t number)
{
    return what << 48 | (uint64_t)sa << 32 | number;
}

static inline uint64_t drop(enum hb_reason reason)
{
    return operation(DROP, 0, reason);
}

/* ---- before: outbound ------------------------------------------------------------------------ */

/* Bytes of the packet, IP header included. */
static inline uint32_t length_of(const hb_spd_packet *p)
{
    return p->v6 ? 40 + hb_get_be16(p->ends - 4) : hb_get_be16(p->ends - 10);
}

static inline bool may_be_cut(const hb_spd_packet *p)
{
    return !p->v6 && !(p->ends[-6] & 0x40); /* DF */
}

/* The longest packet of this kind that the SA takes in. IPv6 never has to be shorter than its least
 * MTU: what ESP adds is cut off as fragments of the outer header then (RFC 2473 section 7.1). */
static inline uint32_t most_of(const hb_sa *sa, const hb_spd_packet *p)
{
    return p->v6 && sa->most < IPV6_LEAST_MTU ? IPV6_LEAST_MTU : sa->most;
}

static inline bool is_too_big(const hb_sa *sa, const hb_spd_packet *p)
{
    return length_of(p) > sa->most && length_of(p) > most_of(sa, p) && !may_be_cut(p);
}

static uint64_t encapsulate(hb_ipsec *ipsec, uint32_t number, const hb_spd_packet *p)
{
    hb_sa *sa = ipsec->sa + number;
    if (is_too_big(sa, p)) {
        hb_ipsec_bump(&sa->count.too_big, 1);
        return drop(HB_REASON_too_big); /* finish() tells the sender */
    }
    if (sa->transport && hb_spd_is_fragment(p)) { /* RFC 4303 section 3.3.4: whole packets only */
        hb_ipsec_bump(&ipsec->total.fragments, 1);
        return drop(HB_REASON_esp_fragment);
    }
    uint64_t next = sa->next;
    /* relaxed: the limit is all there is to know, and the disk has known it since before */
    if (next >= __atomic_load_n(&sa->limit, __ATOMIC_RELAXED)) {
        hb_ipsec_bump(&sa->count.no_number, 1);
        return drop(next > LAST_NUMBER ? HB_REASON_seq_exhausted : HB_REASON_seq_unsaved);
    }
    __atomic_store_n(&sa->next, next + 1, __ATOMIC_RELAXED);
    return operation(ENCAPSULATE, number, (uint32_t)next);
}

static uint64_t refuse(uint64_t *counter, enum hb_reason reason)
{
    hb_ipsec_bump(counter, 1);
    return drop(reason);
}

static inline uint64_t by_policy(hb_ipsec *ipsec, const hb_mbuf *m, const uint8_t *bytes)
{
    hb_spd_packet p = hb_spd_look(m, bytes);
    if (!p.ends)
        return drop(m->l3 == HB_NO_LAYER ? HB_REASON_not_ip : HB_REASON_malformed);
    uint32_t policy;
    int32_t action = hb_spd_find(&ipsec->spd, &p, -1, &policy);
    if (action == HB_SPD_NONE)
        return refuse(&ipsec->total.no_policy, HB_REASON_no_policy);
    if (action == HB_SPD_FRAGMENT)
        return refuse(&ipsec->total.fragments, HB_REASON_esp_fragment);
    if (action >= 0 && !ipsec->sa[action].outbound)
        return refuse(&ipsec->total.clear, HB_REASON_clear_text);
    hb_ipsec_bump(ipsec->hits + policy, 1);
    if (action >= 0)
        return encapsulate(ipsec, (uint32_t)action, &p);
    if (action == HB_IPSEC_DISCARD)
        return refuse(&ipsec->total.discarded, HB_REASON_nf_action);
    hb_ipsec_bump(&ipsec->total.bypassed, 1);
    return operation(BYPASS, 0, 0);
}

/* ---- before: inbound ------------------------------------------------------------------------- */

/* ESP in UDP that comes to a port of ours: where its SPI stands; 0: it is something else, which
 * policies decide about; UINT32_MAX: a keepalive (RFC 3948 section 2). */
static uint32_t esp_in_udp(const hb_mbuf *m, const uint8_t *bytes)
{
    uint32_t length = hb_get_be16(bytes + m->l4 + 4);
    if (length == 9 && m->l4 + 9u <= m->data_len && bytes[m->l4 + 8] == 0xff)
        return UINT32_MAX;
    if (length < 16 || m->l4 + 16u > m->data_len || !hb_get_be32(bytes + m->l4 + 8))
        return 0; /* the last: IKE */
    return m->l4 + 8u;
}

/* The SPI and the number stand at `at`. */
static uint64_t decapsulate(hb_ipsec *ipsec, const uint8_t *bytes, uint32_t at, uint32_t dst,
                            uint16_t udp)
{
    const hb_sad_entry *e = hb_sad_find(ipsec, dst, hb_get_be32(bytes + at), udp);
    if (!e || !e->spi)
        return refuse(&ipsec->total.no_sa, HB_REASON_no_sa);
    hb_sa *sa = ipsec->sa + e->sa;
    uint32_t number = hb_get_be32(bytes + at + 4);
    if (!hb_replay_is_new(&sa->replay, number))
        return refuse(&sa->count.replayed, HB_REASON_replay);
    return operation(DECAPSULATE, e->sa, number);
}

/* What is to be done with ESP to an address of ours; NOT_OURS with anything else. */
static uint64_t inbound(hb_ipsec *ipsec, const hb_mbuf *m, const uint8_t *bytes)
{
    const uint8_t *ip = bytes + m->l3;
    bool in_udp = m->protocol == IP_UDP;
    if (m->l3 == HB_NO_LAYER || m->l3 + 20u > m->data_len || ip[0] >> 4 != 4)
        return NOT_OURS;
    uint32_t dst, at = m->l4;
    memcpy(&dst, ip + 16, sizeof dst);
    if (in_udp && (m->l4 == HB_NO_LAYER || m->l4 + 8u > m->data_len))
        return NOT_OURS; /* a later fragment */
    uint16_t port = in_udp ? (uint16_t)hb_get_be16(bytes + m->l4 + 2) : 0;
    if (!hb_sad_find(ipsec, dst, 0, port))
        return NOT_OURS;
    if (hb_get_be16(ip + 6) & 0x3fff) /* RFC 4303 section 3.4.1: it would have to be reassembled */
        return refuse(&ipsec->total.fragments, HB_REASON_esp_fragment);
    if (in_udp)
        at = esp_in_udp(m, bytes);
    if (!at)
        return NOT_OURS;
    if (at == UINT32_MAX)
        return refuse(&ipsec->total.keepalives, HB_REASON_keepalive);
    if (m->l4 == HB_NO_LAYER || at + 8 > m->data_len)
        return drop(HB_REASON_truncated);
    return decapsulate(ipsec, bytes, at, dst, port);
}

static void prepare(hb_nf_seat *seat, const uint32_t *handles, uint64_t *arg, uint32_t n)
{
    hb_ipsec *ipsec = seat->host;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(seat->arena, handles[i]);
        const uint8_t *bytes = hb_data(seat->arena, m);
        arg[i] = NOT_OURS;
        if ((m->protocol == IP_ESP && ipsec->esp_in) || (m->protocol == IP_UDP && ipsec->udp_in))
            arg[i] = inbound(ipsec, m, bytes);
        if (arg[i] == NOT_OURS)
            arg[i] = by_policy(ipsec, m, bytes);
    }
}

/* ---- after ----------------------------------------------------------------------------------- */

static uint32_t fragmented(hb_nf_seat *seat, hb_sa *sa, uint32_t handle, uint32_t mtu)
{
    hb_ipsec_bump(&sa->count.fragmented, 1);
    return hb_fragment(seat, handle, mtu) ? sa->verdict : HB_DROP(HB_REASON_no_mbuf);
}

static uint32_t encapsulated(hb_nf_seat *seat, hb_sa *sa, uint32_t handle)
{
    const hb_ipsec *ipsec = seat->host;
    const hb_mbuf *m = hb_header(seat->arena, handle);
    uint32_t bytes = (uint32_t)m->data_len - m->l3;
    hb_ipsec_bump(&sa->packets, 1);
    hb_ipsec_bump(&sa->bytes, bytes);
    return bytes <= ipsec->mtu ? sa->verdict : fragmented(seat, sa, handle, ipsec->mtu);
}

/* It is a packet of its own now, no longer one of the flow that brought it here. */
static enum hb_reason become(const hb_arena *a, hb_mbuf *m)
{
    hb_key key;
    m->flow = HB_NO_FLOW;
    return hb_parse(hb_data(a, m), m->data_len, m, &key);
}

static uint32_t decapsulated(hb_nf_seat *seat, hb_sa *sa, uint32_t handle, uint32_t number)
{
    hb_ipsec *ipsec = seat->host;
    hb_mbuf *m = hb_header(seat->arena, handle);
    /* again: one that came twice may have been under way when the second one was let in */
    if (!hb_replay_is_new(&sa->replay, number)) {
        hb_ipsec_bump(&sa->count.replayed, 1);
        return HB_DROP(HB_REASON_replay);
    }
    hb_replay_accept(&sa->replay, number);
    enum hb_reason bad = become(seat->arena, m);
    hb_spd_packet p = hb_spd_look(m, hb_data(seat->arena, m));
    if (bad != HB_REASON_none || !p.ends) {
        hb_ipsec_bump(&sa->count.malformed, 1);
        return HB_DROP(bad != HB_REASON_none ? bad : HB_REASON_malformed);
    }
    uint32_t policy;
    int32_t own = (int32_t)(sa - ipsec->sa);
    if (hb_spd_find(&ipsec->spd, &p, own, &policy) != own) { /* RFC 4301 section 5.2, 4 */
        hb_ipsec_bump(&sa->count.mismatched, 1);
        return HB_DROP(HB_REASON_not_for_sa);
    }
    hb_ipsec_bump(ipsec->hits + policy, 1);
    hb_ipsec_bump(&sa->packets, 1);
    hb_ipsec_bump(&sa->bytes, (uint32_t)m->data_len - m->l3);
    return sa->verdict;
}

/* Tell the sender how long its packets may be (RFC 4301 section 8.2). */
static void tell(hb_nf_seat *seat, uint32_t handle)
{
    hb_ipsec *ipsec = seat->host;
    const hb_mbuf *m = hb_header(seat->arena, handle);
    hb_spd_packet p = hb_spd_look(m, hb_data(seat->arena, m));
    uint32_t policy;
    int32_t action = p.ends ? hb_spd_find(&ipsec->spd, &p, -1, &policy) : HB_SPD_NONE;
    if (action < 0)
        return;
    const hb_sa *sa = ipsec->sa + action;
    hb_icmp_source from = ipsec->icmp_source;
    static const uint8_t none[4];
    if (!memcmp(from.ipv4, none, sizeof none))
        memcpy(from.ipv4, sa->src + 12, sizeof from.ipv4);
    uint32_t type = ipsec->icmp_type < 0 ? m->type : (uint32_t)ipsec->icmp_type;
    hb_icmp_error(seat, &ipsec->icmp_limit, &from, handle, p.v6 ? 2 : 3, p.v6 ? 0 : 4,
                  most_of(sa, &p), type);
}

/* The inbound SA of a packet that prepare() found one for, and that is as it was then. */
static hb_sa *sa_of(const hb_ipsec *ipsec, const hb_mbuf *m, const uint8_t *bytes)
{
    bool in_udp = m->protocol == IP_UDP;
    uint32_t dst, at = m->l4 + (in_udp ? 8u : 0u);
    if (m->l3 == HB_NO_LAYER || m->l3 + 20u > m->data_len || at + 4 > m->data_len)
        return NULL;
    memcpy(&dst, bytes + m->l3 + 16, sizeof dst);
    uint16_t port = in_udp ? (uint16_t)hb_get_be16(bytes + m->l4 + 2) : 0;
    const hb_sad_entry *e = hb_sad_find(ipsec, dst, hb_get_be32(bytes + at), port);
    return e && e->spi ? ipsec->sa + e->sa : NULL;
}

/* The packet function dropped it, or was told to. */
static void failed(hb_nf_seat *seat, uint32_t handle, uint64_t result, uint32_t verdict)
{
    hb_ipsec *ipsec = seat->host;
    const hb_mbuf *m = hb_header(seat->arena, handle);
    uint32_t number = (uint32_t)(result >> 32) & 0xffff;
    if (verdict == HB_DROP(HB_REASON_too_big)) {
        tell(seat, handle);
    } else if (verdict == HB_DROP(HB_REASON_bad_icv)) {
        hb_sa *sa = sa_of(ipsec, m, hb_data(seat->arena, m));
        if (sa)
            hb_ipsec_bump(&sa->count.not_authentic, 1);
    } else if (result && number < ipsec->sas) { /* authentic, but of no use */
        hb_sa *sa = ipsec->sa + number;
        hb_ipsec_bump(&sa->count.malformed, 1);
        if (!sa->outbound && hb_replay_is_new(&sa->replay, (uint32_t)result))
            hb_replay_accept(&sa->replay, (uint32_t)result);
    }
}

static void finish(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    hb_ipsec *ipsec = seat->host;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t what = (uint32_t)(result[i] >> 48), number = (uint32_t)(result[i] >> 32) & 0xffff;
        if (verdict[i] != HB_PASS) {
            failed(seat, handles[i], result[i], verdict[i]);
            continue;
        }
        if (what == BYPASS)
            continue;
        /* fail closed: what was to be encrypted does not pass because a device says nothing */
        if (number >= ipsec->sas || what == DROP || what > BYPASS ||
            ipsec->sa[number].outbound != (what == ENCAPSULATE))
            verdict[i] = HB_DROP(HB_REASON_bad_result);
        else if (what == ENCAPSULATE)
            verdict[i] = encapsulated(seat, ipsec->sa + number, handles[i]);
        else
            verdict[i] = decapsulated(seat, ipsec->sa + number, handles[i], (uint32_t)result[i]);
    }
}

static const hb_nf_engine engines[] = {{.name = "cpu", .run = hb_loop_ipsec}, HB_IPSEC_MB_ENGINE};
extern const hb_nf_kind hb_ipsec_kind;
const hb_nf_kind hb_ipsec_kind = {.prepare = prepare,
                                  .finish = finish,
                                  .engines = engines,
                                  .nb_engines = sizeof engines / sizeof *engines};
