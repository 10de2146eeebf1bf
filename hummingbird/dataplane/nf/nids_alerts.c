/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_alerts.c: alerts and counters, from the lcores to the control thread. Nobody waits. */
#include <stdlib.h>
#include <string.h>

#include "nids_seat.h"

#define SECOND 1000000000u

/* ---- an lcore -------------------------------------------------------------------------------- */

static bool too_many(hb_nids_seat *s, uint32_t rule, uint64_t time_ns)
{
    hb_nids_rate *rate = s->rate + rule;
    uint64_t second = time_ns / SECOND;
    if (rate->second != second)
        *rate = (hb_nids_rate){.second = second};
    if (!s->nids->c.alert_rate || rate->alerts < s->nids->c.alert_rate) {
        rate->alerts++;
        return false;
    }
    s->suppressed[rule]++;
    s->count.suppressed++;
    return true;
}

static void put_address(uint8_t to[16], const uint64_t from[2])
{
    for (int i = 0; i < 16; i++)
        to[i] = (uint8_t)(from[i / 8] >> (56 - 8 * (i % 8)));
}

static void fill(hb_nids_alert *a, uint32_t rule, const hb_mbuf *m, const hb_nids_packet *p,
                 bool blocked)
{
    uint32_t type = 0, code = 0;
    memset(a, 0, sizeof *a);
    a->time_ns = m->time_ns;
    a->flow_id = (uint64_t)(m->flow_gen & 0x7ffff) << 32 | m->hash;
    a->serial = m->serial;
    a->rule = rule;
    put_address(a->src, p->src);
    put_address(a->dst, p->dst);
    a->src_port = p->src_port;
    a->dst_port = p->dst_port;
    if (hb_nids_field(p, HB_NIDS_FIELD_ICMP_TYPE, &type) &&
        hb_nids_field(p, HB_NIDS_FIELD_ICMP_CODE, &code)) {
        a->src_port = (uint16_t)type;
        a->dst_port = (uint16_t)code;
    }
    a->protocol = p->protocol;
    a->blocked = blocked;
    a->flow = (uint8_t)p->flow;
    a->in_port = m->in_port;
    a->version = p->version;
    a->has_ports = p->has_ports;
}

void hb_nids_alarm(hb_nids_seat *s, uint32_t rule, const hb_mbuf *m, const hb_nids_packet *p,
                   bool blocked)
{
    hb_nids_ring *r = &s->ring;
    if (too_many(s, rule, m->time_ns))
        return;
    uint32_t tail =
        atomic_load_explicit(&r->tail, memory_order_relaxed); /* nobody else writes it */
    /* acquire: the control thread has read the alert that we are about to overwrite */
    if (tail - atomic_load_explicit(&r->head, memory_order_acquire) > r->mask) {
        s->count.lost++;
        return;
    }
    fill(r->alert + (tail & r->mask), rule, m, p, blocked);
    /* release: the alert before its index */
    atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
}

hb_nids_seat *hb_nids_seat_new(hb_nids *nids, uint32_t flows)
{
    const hb_nids_config *c = &nids->c;
    hb_nids_seat *s = aligned_alloc(alignof(hb_nids_seat), sizeof *s);
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    s->nids = nids;
    s->ring.mask = c->ring - 1;
    s->ring.alert = calloc(c->ring, sizeof *s->ring.alert);
    s->scratch.regex = hb_regex_scratch_new();
    s->suppressed = calloc(c->rules + 1, sizeof *s->suppressed);
    s->rate = calloc(c->rules + 1, sizeof *s->rate);
    s->matched = calloc(c->rules + 1, sizeof *s->matched);
    s->ids = calloc(c->patterns + 1, sizeof *s->ids);
    if (c->track)
        s->flow = calloc(flows, sizeof *s->flow);
    s->flows = flows;
    for (int i = 0; i < 3; i++)
        s->always[i] = c->always[i].count || (i < 2 && (c->by_port[i][0] || c->by_port[i][1]));
    if (!s->ring.alert || !s->scratch.regex || !s->suppressed || !s->rate || !s->matched ||
        !s->ids || (c->track && !s->flow)) {
        hb_nids_seat_free(s);
        return NULL;
    }
    return s;
}

void hb_nids_seat_free(hb_nids_seat *s)
{
    if (!s)
        return;
    free(s->ring.alert);
    hb_regex_scratch_free(s->scratch.regex);
    free(s->suppressed);
    free(s->rate);
    free(s->matched);
    free(s->ids);
    free(s->flow);
    free(s);
}

/* ---- the control thread ---------------------------------------------------------------------- */

static uint32_t take_from(hb_nids_ring *r, hb_nids_alert *alerts, uint32_t most)
{
    uint32_t head =
        atomic_load_explicit(&r->head, memory_order_relaxed); /* nobody else writes it */
    /* acquire: the alerts that the index tells of */
    uint32_t have = atomic_load_explicit(&r->tail, memory_order_acquire) - head;
    uint32_t n = have < most ? have : most;
    for (uint32_t i = 0; i < n; i++)
        alerts[i] = r->alert[(head + i) & r->mask];
    /* release: they are read before the lcore may overwrite them */
    atomic_store_explicit(&r->head, head + n, memory_order_release);
    return n;
}

uint32_t hb_nids_take(hb_nids *nids, hb_nids_alert *alerts, uint32_t most)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++)
        if (nids->seat[i])
            n += take_from(&nids->seat[i]->ring, alerts + n, most - n);
    return n;
}

/* A counter that its lcore may be counting up. */
static uint64_t load(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void hb_nids_count(const hb_nids *nids, hb_nids_counters *sum)
{
    *sum = (hb_nids_counters){.candidates = 0};
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++) {
        const hb_nids_seat *s = nids->seat[i];
        if (!s)
            continue;
        sum->candidates += load(&s->count.candidates);
        sum->evaluated += load(&s->count.evaluated);
        sum->alerts += load(&s->count.alerts);
        sum->passed += load(&s->count.passed);
        sum->surplus += load(&s->count.surplus);
        sum->suppressed += load(&s->count.suppressed);
        sum->lost += load(&s->count.lost);
        sum->gave_up += load(&s->scratch.gave_up);
        sum->no_handshake += load(&s->count.no_handshake);
    }
}

void hb_nids_suppressed(const hb_nids *nids, uint64_t *suppressed)
{
    memset(suppressed, 0, nids->c.rules * sizeof *suppressed);
    for (uint32_t i = 0; i < HB_MAX_LCORES; i++)
        for (uint32_t rule = 0; nids->seat[i] && rule < nids->c.rules; rule++)
            suppressed[rule] += load(&nids->seat[i]->suppressed[rule]);
}
