/* SPDX-License-Identifier: BSD-3-Clause */
#include "flow_queue.h"

#include <stdlib.h>
#include <string.h>

static void clear(hb_flow_list *list)
{
    *list = (hb_flow_list){HB_NOTHING, HB_NOTHING, 0};
}

int hb_flow_queue_init(hb_flow_queue *q, uint32_t flows, uint32_t mbufs, uint32_t groups)
{
    memset(q, 0, sizeof *q);
    q->flows = flows;
    q->groups = groups;
    q->line = hb_region_new((size_t)flows * sizeof *q->line);
    q->next = calloc(mbufs, sizeof *q->next);
    q->ready = calloc(groups, sizeof *q->ready);
    q->later = calloc(groups, sizeof *q->later);
    if (!q->line || !q->next || !q->ready || !q->later)
        return -1;
    for (uint32_t i = 0; i < groups; i++) {
        clear(&q->ready[i]);
        clear(&q->later[i]);
    }
    clear(&q->anywhere);
    clear(&q->loose);
    return 0;
}

void hb_flow_queue_free(hb_flow_queue *q)
{
    hb_region_free(q->line, (size_t)q->flows * sizeof *q->line);
    free(q->next);
    free(q->ready);
    free(q->later);
}

/* ---- lists ------------------------------------------------------------------------------------
 */

static void add_flow(hb_flow_queue *q, hb_flow_list *list, uint32_t flow)
{
    q->line[flow].next = HB_NOTHING;
    if (list->count++)
        q->line[list->last].next = flow;
    else
        list->first = flow;
    list->last = flow;
}

static uint32_t take_flow(hb_flow_queue *q, hb_flow_list *list)
{
    uint32_t flow = list->first;
    list->first = q->line[flow].next;
    list->count--;
    return flow;
}

/* All flows of one list to the end of another. */
static void join(hb_flow_queue *q, hb_flow_list *to, hb_flow_list *from)
{
    if (!from->count)
        return;
    if (to->count)
        q->line[to->last].next = from->first;
    else
        to->first = from->first;
    to->last = from->last;
    to->count += from->count;
    clear(from);
}

/* ---- packets ----------------------------------------------------------------------------------
 */

static void put_loose(hb_flow_queue *q, uint32_t handle)
{
    if (q->loose.count++)
        q->next[q->loose.last] = handle;
    else
        q->loose.first = handle;
    q->loose.last = handle;
}

static uint32_t take_loose(hb_flow_queue *q)
{
    uint32_t handle = q->loose.first;
    q->loose.first = q->next[handle];
    q->loose.count--;
    q->waiting--;
    return handle;
}

/* Where a flow waits whose packets in rows are as they are. */
static hb_flow_list *place_of(hb_flow_queue *q, const hb_flow_line *line)
{
    if (line->in_open_row)
        return &q->later[line->group];
    return line->in_rows ? &q->ready[line->group] : &q->anywhere;
}

void hb_flow_put(hb_flow_queue *q, uint32_t handle, uint32_t flow)
{
    q->next[handle] = HB_NOTHING;
    q->waiting++;
    if (flow >= q->flows) {
        put_loose(q, handle);
        return;
    }
    hb_flow_line *line = &q->line[flow];
    if (line->waiting++) {
        q->next[line->last] = handle;
    } else {
        line->first = handle;
        add_flow(q, place_of(q, line), flow);
    }
    line->last = handle;
}

static uint32_t take_packet(hb_flow_queue *q, hb_flow_line *line)
{
    uint32_t handle = line->first;
    line->first = q->next[handle];
    line->waiting--;
    q->waiting--;
    return handle;
}

uint32_t hb_flow_take(hb_flow_queue *q, uint32_t group, bool own)
{
    hb_flow_list *ready = &q->ready[group];
    hb_flow_list *from = ready->count ? ready : &q->anywhere;
    /* in turn: flows that always have packets in rows do not keep out those that have none yet */
    q->turn += !own;
    if (q->turn % 2 && !own && q->anywhere.count)
        from = &q->anywhere;
    if (!own && q->loose.count && (q->turn % 4 == 0 || !from->count))
        return take_loose(q);
    if (!(own ? ready : from)->count)
        return HB_NOTHING;
    uint32_t flow = take_flow(q, from);
    hb_flow_line *line = &q->line[flow];
    uint32_t handle = take_packet(q, line);
    line->group = (uint16_t)group;
    line->in_rows++;
    line->in_open_row = true;
    if (line->waiting)
        add_flow(q, &q->later[group], flow);
    return handle;
}

void hb_flow_close_row(hb_flow_queue *q, uint32_t group, const hb_arena *a, const uint32_t *handles,
                       uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t flow = hb_header(a, handles[i])->flow;
        if (flow < q->flows)
            q->line[flow].in_open_row = false;
    }
    join(q, &q->ready[group], &q->later[group]);
}

void hb_flow_back(hb_flow_queue *q, uint32_t flow)
{
    if (flow < q->flows)
        q->line[flow].in_rows--;
}

/* The next packet of the first flow in a list. */
static uint32_t take_first(hb_flow_queue *q, hb_flow_list *list)
{
    hb_flow_line *line = &q->line[list->first];
    uint32_t handle = take_packet(q, line);
    if (!line->waiting)
        take_flow(q, list);
    return handle;
}

uint32_t hb_flow_any(hb_flow_queue *q)
{
    if (q->loose.count)
        return take_loose(q);
    if (q->anywhere.count)
        return take_first(q, &q->anywhere);
    for (uint32_t i = 0; i < q->groups; i++)
        if (q->ready[i].count || q->later[i].count)
            return take_first(q, q->ready[i].count ? &q->ready[i] : &q->later[i]);
    return HB_NOTHING;
}
