/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a packet: nothing outside them is read, and what is said about them can be true. */
#include "parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLDS(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Rules that ask for everything a rule can ask for; the last matches all. */
static const hb_rule rules[] = {
    {.proto = 6, .src_port = {1024, 65535}, .dst_port = {80, 80}, .port = {0, 65535}},
    {.any_proto = 1,
     .src_bits = 104,
     .src = {[10] = 0xff, [11] = 0xff, [12] = 10},
     .src_port = {0, 65535},
     .dst_port = {0, 65535},
     .port = {0, 65535}},
    {.any_proto = 1,
     .dst_bits = 3,
     .dst = {0x20},
     .src_port = {0, 65535},
     .dst_port = {0, 65535},
     .port = {53, 53}},
    {.any_proto = 1, .src_port = {0, 65535}, .dst_port = {0, 65535}, .port = {0, 65535}},
};
enum { RULES = sizeof rules / sizeof *rules };

static void check_offsets(const hb_mbuf *m, uint32_t length)
{
    if (m->l3 == HB_NO_LAYER) {
        HOLDS(m->l4 == HB_NO_LAYER);
        return;
    }
    HOLDS(m->l3 == 14 || m->l3 == 18 || m->l3 == 22);
    HOLDS(m->l3 + 20u <= length);
    HOLDS(m->l4 == HB_NO_LAYER || (m->l4 >= m->l3 + 20u && m->l4 <= length));
}

static void check_key(const hb_mbuf *m, const hb_key *key)
{
    int order = memcmp(key->addr[0], key->addr[1], 16);
    HOLDS(order < 0 || (order == 0 && key->port[0] <= key->port[1]));
    HOLDS(key->fragment <= 1 && m->direction <= 1);
    HOLDS(key->zone == (m->l3 == HB_NO_LAYER ? 0 : m->zone));
    HOLDS(key->protocol == m->protocol);
    if (m->l3 != HB_NO_LAYER)
        HOLDS(hb_key_hash(key) == m->hash);
}

/* Turn the packet around, ports too where there are any. */
static void swap_ends(uint8_t *p, const hb_mbuf *m, const hb_key *key)
{
    uint8_t other[16];
    uint32_t bytes = p[m->l3] >> 4 == 4 ? 4 : 16;
    uint8_t *src = p + m->l3 + (bytes == 4 ? 12 : 8);
    memcpy(other, src, bytes);
    memcpy(src, src + bytes, bytes);
    memcpy(src + bytes, other, bytes);
    if (m->l4 != HB_NO_LAYER && !key->fragment && m->protocol != 1 && m->protocol != 58 &&
        (key->port[0] | key->port[1])) {
        memcpy(other, p + m->l4, 2);
        memcpy(p + m->l4, p + m->l4 + 2, 2);
        memcpy(p + m->l4 + 2, other, 2);
    }
}

static void check_reverse(uint8_t *p, uint32_t length, const hb_mbuf *m, const hb_key *key)
{
    hb_mbuf back = {.zone = m->zone};
    hb_key back_key;
    bool ports_out_of_reach = m->l4 == HB_NO_LAYER && (key->port[0] | key->port[1]);
    if (m->l3 == HB_NO_LAYER || ports_out_of_reach || key->fragment) /* an id has a direction */
        return;
    swap_ends(p, m, key);
    HOLDS(hb_parse(p, length, &back, &back_key) == HB_REASON_none);
    HOLDS(!memcmp(key, &back_key, sizeof *key) && back.hash == m->hash);
}

static void check_packet(uint8_t *p, uint32_t length)
{
    hb_mbuf m;
    hb_key key;
    memset(&m, 0xa5, sizeof m);
    memset(&key, 0xa5, sizeof key);
    enum hb_reason reason = hb_parse(p, length, &m, &key);
    HOLDS(reason == HB_REASON_none || reason == HB_REASON_runt || reason == HB_REASON_truncated ||
          reason == HB_REASON_malformed);
    HOLDS((reason == HB_REASON_runt) == (length < 14));
    check_offsets(&m, length);
    check_key(&m, &key);
    HOLDS(hb_match_rules(rules, RULES, &key, m.direction) != NULL);
    if (reason == HB_REASON_none)
        check_reverse(p, length, &m, &key);
    else
        HOLDS(m.l3 == HB_NO_LAYER && m.hash == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size); /* so that ASan sees the first byte behind the packet */
    if (size && !exact)
        return 0;
    if (size)
        memcpy(exact, data, size);
    check_packet(exact, (uint32_t)size);
    free(exact);
    return 0;
}
