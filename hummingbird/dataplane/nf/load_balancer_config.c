/* SPDX-License-Identifier: BSD-3-Clause */
/* load_balancer_config.c: services and their tables, as the choice of a backend looks at them. The
 * control thread makes a new one for every change. */
#include <stdlib.h>
#include <string.h>

#include "nf/load_balancer.h"

/* ---- Maglev -------------------------------------------------------------------------------------
 */

/* What one backend does in its turn: take the next free entry of its permutation. */
static void take(uint16_t *table, uint32_t size, uint16_t backend, uint32_t skip, uint32_t *at)
{
    while (table[*at] != UINT16_MAX)
        *at = (*at + skip) % size;
    table[*at] = backend;
}

int hb_maglev_fill(const uint32_t *permutation, const uint32_t *weight, uint32_t n, uint16_t *table,
                   uint32_t size)
{
    uint32_t *at = calloc(n, sizeof *at), *saved = calloc(n, sizeof *saved), most = 0, filled = 0;
    if (!at || !saved) {
        free(at);
        free(saved);
        return 0;
    }
    memset(table, 0xff, size * sizeof *table);
    for (uint32_t i = 0; i < n; i++) {
        at[i] = permutation[2 * i];
        most = weight[i] > most ? weight[i] : most;
    }
    for (uint32_t i = 0; filled < size && most; i = i + 1 < n ? i + 1 : 0) {
        saved[i] += weight[i];
        if (saved[i] < most) /* less than the highest weight: not in every round */
            continue;
        saved[i] -= most;
        take(table, size, (uint16_t)i, permutation[2 * i + 1], &at[i]);
        filled++;
    }
    free(at);
    free(saved);
    return 1;
}

/* ---- the whole ----------------------------------------------------------------------------------
 */

struct hb_lb_config {
    uint32_t services;
    uint32_t replies;
    hb_lb_service *service;
    hb_lb_reply *reply;
};

static void *copy_of(const void *from, size_t bytes)
{
    void *copy = malloc(bytes ? bytes : 1);
    if (copy && bytes)
        memcpy(copy, from, bytes);
    return copy;
}

hb_lb_config *hb_lb_config_new(const hb_lb_service *services, uint32_t n,
                               const hb_lb_reply *replies, uint32_t m)
{
    hb_lb_config *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->service = calloc(n ? n : 1, sizeof *c->service);
    c->reply = copy_of(replies, m * sizeof *replies);
    c->replies = m;
    bool whole = c->service && c->reply;
    for (uint32_t i = 0; whole && i < n; i++) {
        hb_lb_service *s = &c->service[c->services++];
        *s = services[i];
        s->backend = copy_of(s->backend, s->backends * sizeof *s->backend);
        whole = s->backend != NULL;
    }
    if (whole)
        return c;
    hb_lb_config_free(c);
    return NULL;
}

void hb_lb_config_free(hb_lb_config *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < c->services; i++)
        free((void *)c->service[i].backend);
    free(c->service);
    free(c->reply);
    free(c);
}

/* ---- lookups ------------------------------------------------------------------------------------
 */

/* What services and replies are sorted by. */
typedef struct {
    const uint8_t *address;
    uint32_t protocol;
    uint32_t port;
} place;

static bool before(const uint8_t *address, uint32_t protocol, uint32_t first, const place *p)
{
    int order = memcmp(address, p->address, 16);
    if (order)
        return order < 0;
    return protocol != p->protocol ? protocol < p->protocol : first <= p->port;
}

/* The number of elements that do not begin behind `p`. */
#define COUNT_BEFORE(array, n, p, count)                                                           \
    uint32_t count = 0;                                                                            \
    for (uint32_t left = (n); left;) {                                                             \
        uint32_t half = left / 2;                                                                  \
        bool is = before((array)[count + half].address, (array)[count + half].protocol,            \
                         (array)[count + half].first, (p));                                        \
        count += is ? half + 1 : 0;                                                                \
        left = is ? left - half - 1 : half;                                                        \
    }

/* The last element that does not begin behind `p`, if it is at its address. */
#define LAST_AT(array, count, p)                                                                   \
    ((count) && !memcmp((array)[(count)-1].address, (p)->address, 16) &&                           \
             (array)[(count)-1].protocol == (p)->protocol                                          \
         ? &(array)[(count)-1]                                                                     \
         : NULL)

static const hb_lb_service *last_service(const hb_lb_config *c, const place *p)
{
    COUNT_BEFORE(c->service, c->services, p, count)
    return LAST_AT(c->service, count, p);
}

static const hb_lb_reply *last_reply(const hb_lb_config *c, const place *p)
{
    COUNT_BEFORE(c->reply, c->replies, p, count)
    return LAST_AT(c->reply, count, p);
}

const hb_lb_service *hb_lb_service_at(const hb_lb_config *c, const uint8_t *address,
                                      uint32_t protocol, uint32_t port)
{
    const hb_lb_service *s = last_service(c, &(place){address, protocol, port});
    return s && port <= s->last ? s : NULL;
}

const hb_lb_reply *hb_lb_reply_at(const hb_lb_config *c, const uint8_t *address, uint32_t protocol,
                                  uint32_t port)
{
    const hb_lb_reply *r = last_reply(c, &(place){address, protocol, port});
    return r && port <= r->last ? r : NULL;
}

bool hb_lb_has_service(const hb_lb_config *c, const uint8_t *address, uint32_t protocol)
{
    return last_service(c, &(place){address, protocol, UINT16_MAX}) != NULL;
}

bool hb_lb_has_reply(const hb_lb_config *c, const uint8_t *address, uint32_t protocol)
{
    return last_reply(c, &(place){address, protocol, UINT16_MAX}) != NULL;
}
