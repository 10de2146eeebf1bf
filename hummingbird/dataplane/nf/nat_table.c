/* SPDX-License-Identifier: BSD-3-Clause */
#include "nf/nat_table.h"

#include <stdlib.h>
#include <string.h>

#include "api.h"

#define SECOND 1000000000u
#define SWEEP 64u /* mappings and peers that may go at a time: no packet waits for more */
#define CLOCK_START (1ull << 40) /* what is a little older is not before its begin */
#define LATE_NS 1000000000ull    /* a packet may be this much behind the clock */
#define LEAP_NS 3600000000000ull /* and no gap between two packets of a port is longer */

/* ---- hash -------------------------------------------------------------------------------------
 */

static inline uint64_t left(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = left(v[1], 13) ^ v[0], v[0] = left(v[0], 32);
    v[2] += v[3], v[3] = left(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = left(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = left(v[1], 17) ^ v[2], v[2] = left(v[2], 32);
}

static inline void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

uint64_t hb_nat_hash(const uint64_t secret[2], uint64_t a, uint64_t b)
{
    uint64_t v[4] = {secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du,
                     secret[0] ^ 0x6c7967656e657261u, secret[1] ^ 0x7465646279746573u};
    sip_word(v, a);
    sip_word(v, b);
    sip_word(v, (uint64_t)16 << 56);
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

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

/* ---- time -------------------------------------------------------------------------------------
 */

/* As the flow tables do it (flow_life.c): a port whose time goes back, or leaps, goes on from where
 * the clock stands. */
void hb_nat_tick(hb_nat *n, uint32_t port, uint64_t time_ns)
{
    hb_nat_clock *c = &n->clock;
    uint64_t t = time_ns + c->offset[port];
    if (t >= c->now && t - c->now <= LEAP_NS)
        c->now = t;
    else if (t > c->now || c->now - t > LATE_NS)
        c->offset[port] = c->now - time_ns;
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

static void set(uint32_t *counter, uint32_t value)
{
    __atomic_store_n(counter, value, __ATOMIC_RELAXED); /* one writer, any reader */
}

/* ---- ports --------------------------------------------------------------------------------------
 */

static const uint64_t parity_bits[2] = {0x5555555555555555u, 0xaaaaaaaaaaaaaaaau};

static hb_nat_ports *ports_of(const hb_nat *n, uint32_t external, uint32_t class)
{
    return n->ports + (size_t)external * 3 + class;
}

static void summarise(hb_nat_ports *p, uint32_t word)
{
    for (uint32_t odd = 0; odd < 2; odd++) {
        uint64_t bit = (uint64_t)1 << word % 64;
        if (p->free[word] & parity_bits[odd])
            p->any[odd][word / 64] |= bit;
        else
            p->any[odd][word / 64] &= ~bit;
    }
}

static void give_port(hb_nat_ports *p, uint32_t port)
{
    p->free[port / 64] |= (uint64_t)1 << port % 64;
    set(&p->left, p->left + 1);
    summarise(p, port / 64);
}

static bool is_free(const hb_nat_ports *p, uint32_t port)
{
    return p->free[port / 64] >> port % 64 & 1;
}

static void take_port(hb_nat_ports *p, uint32_t port)
{
    p->free[port / 64] &= ~((uint64_t)1 << port % 64);
    set(&p->left, p->left - 1);
    summarise(p, port / 64);
}

/* A word that has a free port of the wanted parities (bit 0: even, bit 1: odd): the first one from
 * `from` on, and round; HB_NAT_NONE. */
static uint32_t find_word(const hb_nat_ports *p, uint32_t parities, uint32_t from)
{
    uint64_t bits = UINT64_MAX << from % 64;
    for (uint32_t i = 0; i <= HB_NAT_WORDS / 64; i++) {
        uint32_t at = (from / 64 + i) % (HB_NAT_WORDS / 64);
        bits &= (parities & 1 ? p->any[0][at] : 0) | (parities & 2 ? p->any[1][at] : 0);
        if (bits)
            return at * 64 + (uint32_t)__builtin_ctzll(bits);
        bits = UINT64_MAX;
    }
    return HB_NAT_NONE;
}

/* The first free port from `start` on, and round; HB_NAT_NONE. */
static uint32_t find_port(const hb_nat_ports *p, uint32_t parities, uint32_t start)
{
    uint64_t wanted = (parities & 1 ? parity_bits[0] : 0) | (parities & 2 ? parity_bits[1] : 0);
    uint64_t bits = p->free[start / 64] & wanted & UINT64_MAX << start % 64;
    if (bits)
        return start / 64 * 64 + (uint32_t)__builtin_ctzll(bits);
    uint32_t word = find_word(p, parities, (start / 64 + 1) % HB_NAT_WORDS);
    if (word == HB_NAT_NONE)
        return HB_NAT_NONE;
    return word * 64 + (uint32_t)__builtin_ctzll(p->free[word] & wanted);
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
        port = find_port(p, 1u << e->port % 2, start);
    return port == HB_NAT_NONE ? find_port(p, 3, start) : port;
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
    if (class != HB_NAT_OTHER && is_free(ports_of(n, external, class), port))
        take_port(ports_of(n, external, class), port);
    set(&n->count.mappings, n->count.mappings + 1);
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
        give_port(ports_of(n, m->external, class), m->external_port);
    m->external = HB_NAT_NONE;
    m->next_inside = n->free_mapping;
    n->free_mapping = i + 1;
    set(&n->count.mappings, n->count.mappings - 1);
}

static void take_mapping(hb_nat *n, uint32_t i)
{
    lives l = lives_of(n, n->mapping[i].inside.protocol);
    take_out(&l, i);
    set(&n->count.held, n->count.held - 1);
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
    set(&n->count.held, n->count.held + 1);
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
    set(&n->count.peers, n->count.peers - 1);
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
    set(&n->count.peers, n->count.peers + 1);
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

/* ---- the whole ----------------------------------------------------------------------------------
 */

bool hb_nat_is_inside(const hb_nat *n, uint32_t address)
{
    const uint32_t *p = n->config.inside;
    for (uint32_t i = 0; i < n->config.nb_inside; i++, p += 2)
        if ((address & p[1]) == p[0])
            return true;
    return false;
}

uint32_t hb_nat_external(const hb_nat *n, uint32_t address)
{
    const uint32_t *e = n->config.external;
    uint32_t low = 0, high = n->config.nb_external;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (e[middle] < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n->config.nb_external && e[low] == address ? low : HB_NAT_NONE;
}

static void *copy(const void *from, size_t bytes)
{
    void *to = malloc(bytes ? bytes : 1);
    if (to && bytes)
        memcpy(to, from, bytes);
    return to;
}

static uint32_t chains(uint32_t entries)
{
    uint32_t n = 1;
    while (n < entries)
        n *= 2;
    return n;
}

static size_t ports_bytes(const hb_nat *n)
{
    return (size_t)n->config.nb_external * 3 * sizeof *n->ports;
}

static bool allocate(hb_nat *n, const hb_nat_config *c)
{
    n->config.inside = copy(c->inside, c->nb_inside * 2 * sizeof *c->inside);
    n->config.external = copy(c->external, c->nb_external * sizeof *c->external);
    n->config.range = copy(c->range, c->nb_ranges * 2 * sizeof *c->range);
    n->ports = hb_region_new(ports_bytes(n));
    n->mapping = hb_region_new(c->mappings * sizeof *n->mapping);
    n->by_inside = hb_region_new((n->mask + (size_t)1) * sizeof *n->by_inside);
    n->by_external = hb_region_new((n->mask + (size_t)1) * sizeof *n->by_external);
    n->by_peer = hb_region_new((n->peer_mask + (size_t)1) * sizeof *n->by_peer);
    n->peer = hb_region_new((c->peers + (size_t)1) * sizeof *n->peer);
    return n->config.inside && n->config.external && n->config.range && n->ports && n->mapping &&
           n->by_inside && n->by_external && n->by_peer && n->peer;
}

static void fill_ports(hb_nat *n)
{
    for (uint32_t i = 0; i < n->config.nb_ranges; i++) {
        uint32_t first = n->config.range[2 * i], last = n->config.range[2 * i + 1];
        n->range_ports += last - first + 1;
        for (uint32_t which = 0; which < n->config.nb_external * 3; which++)
            for (uint32_t port = first; port <= last; port++)
                give_port(&n->ports[which], port);
    }
}

hb_nat *hb_nat_new(const hb_nat_config *c)
{
    hb_nat *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->config = *c;
    n->clock.now = CLOCK_START;
    n->mask = chains(c->mappings) - 1;
    n->peer_mask = chains(c->peers) - 1;
    if (!allocate(n, c)) {
        hb_nat_free(n);
        return NULL;
    }
    fill_ports(n);
    for (uint32_t i = c->mappings; i > 0; i--) {
        n->mapping[i - 1].external = HB_NAT_NONE;
        n->mapping[i - 1].next_inside = n->free_mapping;
        n->free_mapping = i;
    }
    for (uint32_t i = c->peers; i > 0; i--) {
        n->peer[i - 1].mapping = HB_NAT_NONE;
        n->peer[i - 1].next = n->free_peer;
        n->free_peer = i;
    }
    return n;
}

void hb_nat_free(hb_nat *n)
{
    if (!n)
        return;
    free((void *)(uintptr_t)n->config.inside);
    free((void *)(uintptr_t)n->config.external);
    free((void *)(uintptr_t)n->config.range);
    hb_region_free(n->ports, ports_bytes(n));
    hb_region_free(n->mapping, n->config.mappings * sizeof *n->mapping);
    hb_region_free(n->by_inside, (n->mask + (size_t)1) * sizeof *n->by_inside);
    hb_region_free(n->by_external, (n->mask + (size_t)1) * sizeof *n->by_external);
    hb_region_free(n->by_peer, (n->peer_mask + (size_t)1) * sizeof *n->by_peer);
    hb_region_free(n->peer, (n->config.peers + (size_t)1) * sizeof *n->peer);
    free(n);
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

/* ---- reports ------------------------------------------------------------------------------------
 */

hb_nat_counts hb_nat_count(const hb_nat *n)
{
    const hb_nat_counts *c = &n->count;
    return (hb_nat_counts){
        .mappings = __atomic_load_n(&c->mappings, __ATOMIC_RELAXED),
        .held = __atomic_load_n(&c->held, __ATOMIC_RELAXED),
        .peers = __atomic_load_n(&c->peers, __ATOMIC_RELAXED),
        .no_port = __atomic_load_n(&c->no_port, __ATOMIC_RELAXED),
        .full = __atomic_load_n(&c->full, __ATOMIC_RELAXED),
        .filtered = __atomic_load_n(&c->filtered, __ATOMIC_RELAXED),
        .icmp_errors = __atomic_load_n(&c->icmp_errors, __ATOMIC_RELAXED),
    };
}

uint32_t hb_nat_ports_free(const hb_nat *n, uint32_t external, uint32_t protocol)
{
    uint32_t class = hb_nat_class(protocol);
    if (external >= n->config.nb_external || class == HB_NAT_OTHER)
        return 0;
    return __atomic_load_n(&ports_of(n, external, class)->left, __ATOMIC_RELAXED);
}

int hb_nat_look(const hb_nat *n, uint32_t i, hb_nat_view *view)
{
    if (i >= n->config.mappings)
        return 0;
    const hb_nat_mapping *m = &n->mapping[i];
    /* it may go at any time; what is shown then may be half another's */
    uint32_t external = __atomic_load_n(&m->external, __ATOMIC_RELAXED);
    if (external >= n->config.nb_external)
        return 0;
    *view = (hb_nat_view){.inside = m->inside.address,
                          .external = n->config.external[external],
                          .port = m->inside.port,
                          .external_port = m->external_port,
                          .zone = m->inside.zone,
                          .protocol = m->inside.protocol,
                          .forward = m->forward,
                          .flows = m->life.holders - m->forward};
    return 1;
}
