/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nids.c: the second stage of the NIDS. The packet function or an engine has searched the payloads;
 * the few packets with a pattern, and those that rules without one concern, are looked at here,
 * rule by rule (nids_match.c).
 */
#include <string.h>

#include "dataplane.h"
#include "nids_scan.h"
#include "nids_seat.h"
#include "nf.h"

enum { TCP = 6, UDP = 17 };

/* Which of hb_nids_config.always concerns a protocol. */
static uint32_t kind_of(uint8_t protocol)
{
    return protocol == TCP ? 0 : protocol == UDP ? 1 : 2;
}

/* ---- one packet ------------------------------------------------------------------------------ */

static uint32_t try_rules(hb_nids_seat *s, hb_nids_part part, const hb_nids_packet *p,
                          uint32_t found)
{
    const uint32_t *rule = s->nids->c.list + part.first;
    for (uint32_t i = 0; i < part.count; i++)
        if (hb_nids_evaluate(s->nids, rule[i], p, &s->scratch))
            s->matched[found++] = rule[i];
    s->count.evaluated += part.count;
    return found;
}

/* Rules whose pattern is in the payload. */
static uint32_t try_patterns(hb_nids_seat *s, const hb_table *t, const hb_nids_packet *p)
{
    uint32_t n = hb_nids_ids(t, p->payload, p->size, s->ids, s->nids->c.patterns), found = 0;
    for (uint32_t i = 0; i < n; i++)
        if (s->ids[i] < s->nids->c.patterns)
            found = try_rules(s, s->nids->c.of_pattern[s->ids[i]], p, found);
    return found;
}

/* Rules without one. */
static uint32_t try_others(hb_nids_seat *s, const hb_nids_packet *p, uint32_t found)
{
    const hb_nids_config *c = &s->nids->c;
    uint32_t kind = kind_of(p->protocol);
    found = try_rules(s, c->always[kind], p, found);
    if (kind == 2 || !p->has_ports)
        return found;
    const uint16_t *const *by_port = c->by_port[kind];
    if (by_port[0])
        found = try_rules(s, c->port_list[by_port[0][p->src_port]], p, found);
    if (by_port[1])
        found = try_rules(s, c->port_list[by_port[1][p->dst_port]], p, found);
    return found;
}

/* Few, so the simplest way. */
static void sort(uint32_t *rules, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t rule = rules[i], at = i;
        for (; at > 0 && rules[at - 1] > rule; at--)
            rules[at] = rules[at - 1];
        rules[at] = rule;
    }
}

static uint32_t verdict_of(uint32_t on_alert)
{
    if (on_alert < HB_NIDS_RETYPE)
        return on_alert == HB_NIDS_PASS ? HB_PASS : HB_DROP(HB_REASON_nf_action);
    return HB_RETYPE(on_alert - HB_NIDS_RETYPE);
}

/* What the matches say together: rules are numbered by their actions, so the lowest decides. A pass
 * rule takes all alerts of the packet away; one that drops leaves them. */
static uint32_t conclude(hb_nf_seat *seat, hb_nids_seat *s, uint32_t found, const hb_mbuf *m,
                         const hb_nids_packet *p)
{
    const hb_nids_rule *rules = s->nids->c.rule;
    sort(s->matched, found);
    uint8_t first = rules[s->matched[0]].action;
    bool blocks = first == HB_NIDS_ACTION_DROP || first == HB_NIDS_ACTION_REJECT;
    uint32_t verdict = blocks ? HB_DROP(HB_REASON_nf_action) : verdict_of(s->nids->c.on_alert);
    bool blocked = (verdict & 0xff) == HB_VERDICT_DROP;
    for (uint32_t i = 0; i < found; i++) {
        uint32_t rule = s->matched[i];
        if (first == HB_NIDS_ACTION_PASS && rules[rule].action != first)
            break;
        if (rule < seat->rules)
            seat->hits[rule]++;
        if (first == HB_NIDS_ACTION_PASS)
            continue;
        s->count.alerts++;
        if (!s->nids->c.most_alerts || i < s->nids->c.most_alerts)
            hb_nids_alarm(s, rule, m, p, blocked);
        else
            s->count.surplus++;
    }
    if (first != HB_NIDS_ACTION_PASS)
        return verdict;
    s->count.passed++;
    return HB_PASS;
}

static uint32_t inspect(hb_nf_seat *seat, hb_nids_seat *s, const hb_mbuf *m, const uint8_t *packet,
                        bool searched)
{
    hb_nids_packet p;
    if (!hb_nids_view(&p, packet, m))
        return HB_PASS;
    p.flow = hb_nids_flow_of(s, m, &p);
    uint32_t found = searched ? try_patterns(s, &seat->table, &p) : 0;
    if (s->always[kind_of(p.protocol)])
        found = try_others(s, &p, found);
    s->count.candidates++;
    return found ? conclude(seat, s, found, m, &p) : HB_PASS;
}

/* ---- a burst --------------------------------------------------------------------------------- */

static hb_nids_seat *seat_of(const hb_nf_seat *seat)
{
    return *(hb_nids_seat **)seat->state;
}

static void finish(hb_nf_seat *seat, const uint32_t *handles, const uint64_t *result,
                   uint32_t *verdict, uint32_t n)
{
    hb_nids_seat *s = seat_of(seat);
    if (!s)
        return; /* a table without rules, as some tests have */
    bool track = s->flow != NULL;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(seat->arena, handles[i]);
        const uint8_t *packet = hb_data(seat->arena, m);
        if (track)
            hb_nids_flow_see(s, m, packet);
        if (result[i] || s->always[kind_of(m->protocol)])
            verdict[i] = inspect(seat, s, m, packet, result[i] != 0);
    }
}

static int open_seat(hb_nf_seat *seat)
{
    hb_nids *nids = seat->host;
    const hb_dataplane *dp = seat->lcore->dp;
    if (!nids)
        return 0;
    hb_nids_seat *s = hb_nids_seat_new(nids, dp->owners * hb_flow_places(dp->config.flows));
    *(hb_nids_seat **)seat->state = s;
    nids->seat[seat->lcore->id] =
        s; /* hb_nids_free() frees it: Python reads its counters till then */
    return s ? 0 : -1;
}

extern const hb_nf_kind hb_nids_kind;
const hb_nf_kind hb_nids_kind = {.state_bytes = sizeof(hb_nids_seat *),
                                 .open = open_seat,
                                 .finish = finish,
                                 .engines = hb_nids_engines,
                                 .nb_engines = HB_NIDS_ENGINES};
