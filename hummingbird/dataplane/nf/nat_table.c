/* SPDX-License-Identifier: BSD-3-Clause */
#include "nf/nat_table.h"

#define SECOND 1000000000u
#define SWEEP 64u /* mappings and peers that may go at a time: no packet waits for more */

static uint64_t hash_end(const hb_nat *n, const hb_nat_end *e)
{
    return hb_nat_hash(n->config.secret, (uint64_t)e->zone << 32 | e->address,
                       (uint64_t)e->protocol << 16 | e->port);
}

static uint32_t *inside_chain(const hb_nat *n, const hb_nat_end *e)
{
    return n->by_inside + (hash_end(n, e) & n->mask);
}

static uint32_t *external_chain(const hb_nat *n, uint32_t external, uint32_t protocol,
                                uint32_t port)
{
    uint64_t h = hb_nat_hash(n->config.secret, external, protocol << 16 | port);
    return n->by_external + (h & n->mask);
}

static uint32_t *peer_chain(const hb_nat *n, uint32_t mapping, uint32_t address, uint32_t port)
{
    uint64_t h = hb_nat_hash(n->config.secret, (uint64_t)mapping << 32 | address, port);
    return n->by_peer + (h & n->peer_mask);
}

uint32_t hb_nat_class(uint32_t protocol)
{
    switch (protocol) {
    case HB_NAT_IP_TCP:
        return HB_NAT_TCP;
    case HB_NAT_IP_UDP:
        return HB_NAT_UDP;
    case HB_NAT_IP_ICMP:
        return HB_NAT_ICMP;
    default:
        return HB_NAT_OTHER;
    }
}

/* ---- how long things are kept -------------------------------------------------------------------
 */

static bool is_over(const hb_nat *n, const hb_nat_life *life)
{
    return !life->holders && life->until <= n->clock.now;
}

/* Mappings and peers have their lives first: `at` and `size` say where and how far apart. */
typedef struct {
    hb_nat_list *list;
    uint8_t *at;
    size_t size;
} lives;

static hb_nat_life *life_of(const lives *l, uint32_t i)
{
    return (hb_nat_life *)(void *)(l->at + i * l->size);
}

static lives lives_of(hb_nat *n, uint32_t protocol)
{
    return (lives){&n->held[hb_nat_class(protocol)], (uint8_t *)n->mapping, sizeof *n->mapping};
}

static lives peer_lives(hb_nat *n, uint32_t class)
{
    return (lives){&n->held_peers[class], (uint8_t *)n->peer, sizeof *n->peer};
}

/* Behind what was let go before: hold times of a list are equal, so it is in the order of `until`.
 */
static void append(const lives *l, uint32_t i)
{
    hb_nat_life *life = life_of(l, i);
    life->newer = 0;
    life->older = l->list->newest;
    if (l->list->newest)
        life_of(l, l->list->newest - 1)->newer = i + 1;
    else
        l->list->oldest = i + 1;
    l->list->newest = i + 1;
}

static void take_out(const lives *l, uint32_t i)
{
    hb_nat_life *life = life_of(l, i);
    if (life->older)
        life_of(l, life->older - 1)->newer = life->newer;
    else
        l->list->oldest = life->newer;
    if (life->newer)
        life_of(l, life->newer - 1)->older = life->older;
    else
        l->list->newest = life->older;
}

/* ---- ports --------------------------------------------------------------------------------------
 */

static hb_nat_ports *ports_of(const hb_nat *n, uint32_t external, uint32_t class)
{
    return n->ports + (size_t)external * 3 + class;
}

static bool in_ranges(const hb_nat *n, uint32_t port)
{
    const uint16_t *r = n->config.range;
    for (uint32_t i = 0; i < n->config.nb_ranges; i++)
        if (port >= r[2 * i] && port <= r[2 * i + 1])
            return true;
    return false;
}

/* Where the search for an end's port starts: anywhere, but for one end always there (RFC 6056
 * section 3.3.3). */
static uint32_t start_of(const hb_nat *n, const hb_nat_end *e)
{
    if (n->config.preserve && in_ranges(n, e->port))
        return e->port;
    uint32_t at = (uint32_t)((hash_end(n, e) >> 32) * n->range_ports >> 32);
    const uint16_t *r = n->config.range;
    for (; at > (uint32_t)r[1] - r[0]; r += 2)
        at -= (uint32_t)r[1] - r[0] + 1;
    return r[0] + at;
}

/* A free port of an external address; HB_NAT_NONE. */
static uint32_t choose_port(const hb_nat *n, uint32_t external, const hb_nat_end *e)
{
    uint32_t class = hb_nat_class(e->protocol);
    if (class == HB_NAT_OTHER)
        return hb_nat_by_external(n, external, e->protocol, 0) == HB_NAT_NONE ? 0 : HB_NAT_NONE;
    const hb_nat_ports *p = ports_of(n, external, class);
    uint32_t start = start_of(n, e), port = HB_NAT_NONE;
    if (class == HB_NAT_UDP && n->config.parity)
        port = hb_nat_find_port(p, 1u << e->port % 2, start);
    return port == HB_NAT_NONE ? hb_nat_find_port(p, 3, start) : port;
}

/* ---- mappings -----------------------------------------------------------------------------------
 */

static bool same_end(const hb_nat_end *a, const hb_nat_end *b)
{
    return a->address == b->address && a->port == b->port && a->protocol == b->protocol &&
           a->zone == b->zone;
}

/* Also one whose time is over. */
static uint32_t look_inside(const hb_nat *n, const hb_nat_end *e)
{
    uint32_t i = *inside_chain(n, e);
    while (i && !same_end(&n->mapping[i - 1].inside, e))
        i = n->mapping[i - 1].next_inside;
    return i - 1;
}

static uint32_t look_external(const hb_nat *n, uint32_t external, uint32_t protocol, uint32_t port)
{
    uint32_t i = *external_chain(n, external, protocol, port);
    for (; i; i = n->mapping[i - 1].next_external) {
        const hb_nat_mapping *m = &n->mapping[i - 1];
        if (m->external == external && m->external_port == port && m->inside.protocol == protocol)
            break;
    }
    return i - 1;
}

uint32_t hb_nat_by_inside(const hb_nat *n, const hb_nat_end *end)
{
    uint32_t i = look_inside(n, end);
    return i == HB_NAT_NONE || is_over(n, &n->mapping[i].life) ? HB_NAT_NONE : i;
}

uint32_t hb_nat_by_external(const hb_nat *n, uint32_t external, uint32_t protocol, uint32_t port)
{
    uint32_t i = look_external(n, external, protocol, port);
    return i == HB_NAT_NONE || is_over(n, &n->mapping[i].life) ? HB_NAT_NONE : i;
}

static void insert(hb_nat *n, const hb_nat_end *inside, uint32_t external, uint32_t port)
{
    uint32_t i = n->free_mapping - 1;
    hb_nat_mapping *m = &n->mapping[i];
    n->free_mapping = m->next_inside;
    *m = (hb_nat_mapping){.life = {.holders = 1},
                          .inside = *inside,
                          .external = external,
                          .external_port = (uint16_t)port};
    uint32_t *chain = inside_chain(n, inside);
    m->next_inside = *chain;
    *chain = i + 1;
    chain = external_chain(n, external, inside->protocol, port);
    m->next_external = *chain;
    *chain = i + 1;
    uint32_t class = hb_nat_class(inside->protocol);
    if (class != HB_NAT_OTHER && hb_nat_port_is_free(ports_of(n, external, class), port))
        hb_nat_take_port(ports_of(n, external, class), port);
    hb_nat_set(&n->count.mappings, n->count.mappings + 1);
}

/* Nobody holds it, and it is in no list. */
static void remove_mapping(hb_nat *n, uint32_t i)
{
    hb_nat_mapping *m = &n->mapping[i];
    uint32_t class = hb_nat_class(m->inside.protocol);
    uint32_t *chain = inside_chain(n, &m->inside);
    while (*chain != i + 1)
        chain = &n->mapping[*chain - 1].next_inside;
    *chain = m->next_inside;
    chain = external_chain(n, m->external, m->inside.protocol, m->external_port);
    while (*chain != i + 1)
        chain = &n->mapping[*chain - 1].next_external;
    *chain = m->next_external;
    if (class != HB_NAT_OTHER)
        hb_nat_give_port(ports_of(n, m->external, class), m->external_port);
    m->external = HB_NAT_NONE;
    m->next_inside = n->free_mapping;
    n->free_mapping = i + 1;
    hb_nat_set(&n->count.mappings, n->count.mappings - 1);
}

static void take_mapping(hb_nat *n, uint32_t i)
{
    lives l = lives_of(n, n->mapping[i].inside.protocol);
    take_out(&l, i);
    hb_nat_set(&n->count.held, n->count.held - 1);
}

/* What is over goes, the oldest first, but at most so many. */
static void sweep(hb_nat *n, uint32_t most)
{
    for (uint32_t class = 0; class < HB_NAT_CLASSES; class ++) {
        uint32_t i;
        while (most && (i = n->held[class].oldest) && is_over(n, &n->mapping[i - 1].life)) {
            take_mapping(n, i - 1);
            remove_mapping(n, i - 1);
            most--;
        }
    }
}

/* A mapping for an end that has none. */
static uint32_t make(hb_nat *n, const hb_nat_end *e)
{
    uint32_t count = n->config.nb_external, tries = n->config.paired ? 1 : count;
    uint64_t h =
        hb_nat_hash(n->config.secret, (uint64_t)e->zone << 32 | e->address, (uint64_t)1 << 32);
    uint32_t first = (uint32_t)((h >> 32) * count >> 32), external = first, port = HB_NAT_NONE;
    for (uint32_t i = 0; i < tries && port == HB_NAT_NONE; i++) {
        external = (first + i) % count;
        port = choose_port(n, external, e);
    }
    if (port == HB_NAT_NONE)
        return HB_NAT_NONE;
    if (hb_nat_class(e->protocol) == HB_NAT_OTHER) { /* one that is over may still be there */
        uint32_t old = look_external(n, external, e->protocol, 0);
        if (old != HB_NAT_NONE) {
            take_mapping(n, old);
            remove_mapping(n, old);
        }
    }
    uint32_t i = n->free_mapping - 1;
    insert(n, e, external, port);
    return i;
}

uint32_t hb_nat_get(hb_nat *n, const hb_nat_end *inside)
{
    sweep(n, SWEEP);
    uint32_t i = look_inside(n, inside);
    if (i != HB_NAT_NONE && is_over(n, &n->mapping[i].life)) {
        take_mapping(n, i);
        remove_mapping(n, i);
        i = HB_NAT_NONE;
    }
    if (i != HB_NAT_NONE) {
        hb_nat_hold(n, i);
        return i;
    }
    if (n->free_mapping)
        i = make(n, inside);
    if (i == HB_NAT_NONE) { /* what is over may hold what is wanted */
        sweep(n, UINT32_MAX);
        if (n->free_mapping)
            i = make(n, inside);
    }
    if (i == HB_NAT_NONE)
        hb_nat_add(n->free_mapping ? &n->count.no_port : &n->count.full);
    return i;
}

void hb_nat_hold(hb_nat *n, uint32_t mapping)
{
    if (!n->mapping[mapping].life.holders++)
        take_mapping(n, mapping);
}

void hb_nat_release(hb_nat *n, uint32_t mapping)
{
    hb_nat_mapping *m = &n->mapping[mapping];
    if (--m->life.holders)
        return;
    uint32_t hold = n->config.hold[hb_nat_class(m->inside.protocol)];
    m->life.until = n->clock.now + (uint64_t)hold * SECOND;
    lives l = lives_of(n, m->inside.protocol);
    append(&l, mapping);
    hb_nat_set(&n->count.held, n->count.held + 1);
}

int hb_nat_forward(hb_nat *n, uint32_t protocol, uint16_t zone, uint32_t inside, uint16_t port,
                   uint32_t external, uint16_t external_port)
{
    hb_nat_end end = {.address = inside, .port = port, .zone = zone, .protocol = (uint8_t)protocol};
    if (!n->free_mapping || look_inside(n, &end) != HB_NAT_NONE ||
        look_external(n, external, protocol, external_port) != HB_NAT_NONE)
        return -1;
    uint32_t i = n->free_mapping - 1;
    insert(n, &end, external, external_port);
    n->mapping[i].forward = 1;
    return 0;
}

/* ---- peers --------------------------------------------------------------------------------------
 */

static uint32_t peer_port(const hb_nat *n, uint32_t port)
{
    return n->config.filter == HB_NAT_FILTER_PORT ? port : 0;
}

/* Also one whose time is over. */
static uint32_t look_peer(const hb_nat *n, uint32_t mapping, uint32_t address, uint32_t port)
{
    uint32_t i = *peer_chain(n, mapping, address, port);
    for (; i; i = n->peer[i - 1].next) {
        const hb_nat_peer *p = &n->peer[i - 1];
        if (p->mapping == mapping && p->address == address && p->port == port)
            break;
    }
    return i - 1;
}

static void remove_peer(hb_nat *n, uint32_t i)
{
    hb_nat_peer *p = &n->peer[i];
    uint32_t *chain = peer_chain(n, p->mapping, p->address, p->port);
    while (*chain != i + 1)
        chain = &n->peer[*chain - 1].next;
    *chain = p->next;
    p->mapping = HB_NAT_NONE;
    p->next = n->free_peer;
    n->free_peer = i + 1;
    hb_nat_set(&n->count.peers, n->count.peers - 1);
}

static void sweep_peers(hb_nat *n, uint32_t most)
{
    for (uint32_t class = 0; class < HB_NAT_CLASSES; class ++) {
        lives l = peer_lives(n, class);
        uint32_t i;
        while (most && (i = l.list->oldest) && is_over(n, &n->peer[i - 1].life)) {
            take_out(&l, i - 1);
            remove_peer(n, i - 1);
            most--;
        }
    }
}

uint32_t hb_nat_permit(hb_nat *n, uint32_t mapping, uint32_t address, uint32_t port)
{
    sweep_peers(n, SWEEP);
    port = peer_port(n, port);
    uint32_t i = look_peer(n, mapping, address, port);
    if (i != HB_NAT_NONE) {
        if (!n->peer[i].life.holders++) {
            lives l = peer_lives(n, n->peer[i].class);
            take_out(&l, i);
        }
        return i;
    }
    if (!n->free_peer)
        sweep_peers(n, UINT32_MAX);
    if (!n->free_peer) {
        hb_nat_add(&n->count.full);
        return HB_NAT_NONE;
    }
    i = n->free_peer - 1;
    hb_nat_peer *p = &n->peer[i];
    n->free_peer = p->next;
    uint32_t *chain = peer_chain(n, mapping, address, port);
    *p = (hb_nat_peer){.life = {.holders = 1},
                       .mapping = mapping,
                       .address = address,
                       .port = (uint16_t)port,
                       .class = (uint8_t)hb_nat_class(n->mapping[mapping].inside.protocol),
                       .next = *chain};
    *chain = i + 1;
    hb_nat_set(&n->count.peers, n->count.peers + 1);
    return i;
}

void hb_nat_release_peer(hb_nat *n, uint32_t peer)
{
    hb_nat_peer *p = &n->peer[peer];
    if (--p->life.holders)
        return;
    p->life.until = n->clock.now + (uint64_t)n->config.hold[p->class] * SECOND;
    lives l = peer_lives(n, p->class);
    append(&l, peer);
}

bool hb_nat_permitted(const hb_nat *n, uint32_t mapping, uint32_t address, uint32_t port)
{
    if (n->config.filter == HB_NAT_FILTER_NONE || n->mapping[mapping].forward)
        return true;
    uint32_t i = look_peer(n, mapping, address, peer_port(n, port));
    return i != HB_NAT_NONE && !is_over(n, &n->peer[i].life);
}
