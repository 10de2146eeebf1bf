/* SPDX-License-Identifier: BSD-3-Clause */
/* acl.c: DPDK's rte_acl over packets as they lie in memory, as DPDK's l3fwd does it: the search
 * begins at the protocol of the IPv4 header, and nothing is copied. */
#include <pthread.h>
#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ip.h>
#include <rte_version.h>
#include <stdio.h>
#include <stdlib.h>

#include "dpdk.h"
#include "peers.h"

#define PROTOCOL_AT (14 + 9) /* of an Ethernet frame with IPv4 */
#define MOST 256             /* packets of a call */

enum { PROTOCOL, SRC, DST, SPORT, DPORT, FIELDS };
RTE_ACL_RULE_DEF(rule, FIELDS);

typedef struct {
    struct rte_acl_ctx *acl;
    int way; /* enum rte_acl_classify_alg that it is set to */
} context;

/* Offsets from the protocol on. */
static const struct rte_acl_field_def fields[FIELDS] = {
    {RTE_ACL_FIELD_TYPE_BITMASK, 1, PROTOCOL, 0, 0}, {RTE_ACL_FIELD_TYPE_MASK, 4, SRC, 1, 3},
    {RTE_ACL_FIELD_TYPE_MASK, 4, DST, 2, 7},         {RTE_ACL_FIELD_TYPE_RANGE, 2, SPORT, 3, 11},
    {RTE_ACL_FIELD_TYPE_RANGE, 2, DPORT, 3, 13},
};

static int add(struct rte_acl_ctx *acl, const peer_rules *rules, char *text)
{
    for (uint32_t i = 0; i < rules->n; i++) {
        const peer_rule *r = &rules->rule[i];
        struct rule one = {.data = {.category_mask = 1,
                                    .priority = RTE_ACL_MAX_PRIORITY - (int)i,
                                    .userdata = i + 1}};
        one.field[PROTOCOL].value.u8 = r->protocol;
        one.field[PROTOCOL].mask_range.u8 = r->any_protocol ? 0 : 0xff;
        one.field[SRC].value.u32 = r->src;
        one.field[SRC].mask_range.u32 = r->src_bits;
        one.field[DST].value.u32 = r->dst;
        one.field[DST].mask_range.u32 = r->dst_bits;
        one.field[SPORT].value.u16 = r->sport[0];
        one.field[SPORT].mask_range.u16 = r->sport[1];
        one.field[DPORT].value.u16 = r->dport[0];
        one.field[DPORT].mask_range.u16 = r->dport[1];
        int rc = rte_acl_add_rules(acl, (const struct rte_acl_rule *)&one, 1);
        if (rc) {
            snprintf(text, PEER_TEXT, "rte_acl does not take rule %u: %s", i, rte_strerror(-rc));
            return -1;
        }
    }
    return 0;
}

static struct rte_acl_ctx *build(const peer_rules *rules, char *text)
{
    static int made;
    char name[32];
    snprintf(name, sizeof name, "peer%d", made++);
    struct rte_acl_param param = {.name = name,
                                  .socket_id = SOCKET_ID_ANY,
                                  .rule_size = RTE_ACL_RULE_SZ(FIELDS),
                                  .max_rule_num = rules->n};
    struct rte_acl_config config = {.num_categories = 1, .num_fields = FIELDS};
    for (int i = 0; i < FIELDS; i++)
        config.defs[i] = fields[i];
    struct rte_acl_ctx *acl = rte_acl_create(&param);
    int rc = acl ? 0 : -rte_errno;
    if (acl && add(acl, rules, text))
        rc = -1;
    else if (acl && (rc = rte_acl_build(acl, &config)))
        snprintf(text, PEER_TEXT, "rte_acl_build: %s", rte_strerror(-rc));
    else if (!acl)
        snprintf(text, PEER_TEXT, "rte_acl_create: %s", rte_strerror(-rc));
    if (!rc)
        return acl;
    rte_acl_free(acl);
    return NULL;
}

void *peer_acl_new(const peer_rules *rules, char *text)
{
    context *c = calloc(1, sizeof *c);
    if (c && !start_dpdk(text))
        c->acl = build(rules, text);
    if (c && c->acl)
        return c;
    free(c);
    return NULL;
}

static void classify(context *c, int way, uint8_t *const *packet, uint64_t *result, uint32_t n)
{
    const uint8_t *data[MOST];
    uint32_t found[MOST];
    if (c->way != way) {
        rte_acl_set_ctx_classify(c->acl, (enum rte_acl_classify_alg)way);
        c->way = way;
    }
    for (uint32_t i = 0; i < n; i++)
        data[i] = packet[i] + PROTOCOL_AT;
    rte_acl_classify(c->acl, data, found, n, 1);
    for (uint32_t i = 0; i < n; i++)
        result[i] = found[i];
}

#define WAY(name, algorithm)                                                                       \
    void peer_acl_##name(void *context_, uint8_t *const *packet, uint32_t length,                  \
                         uint64_t *result, uint32_t n)                                             \
    {                                                                                              \
        (void)length;                                                                              \
        classify(context_, RTE_ACL_CLASSIFY_##algorithm, packet, result, n);                       \
    }
WAY(sse, SSE)
WAY(avx2, AVX2)
WAY(avx512x16, AVX512X16)
WAY(avx512x32, AVX512X32)

int peer_acl_has(void *context_, int way)
{
    static const enum rte_acl_classify_alg ways[] = {RTE_ACL_CLASSIFY_SSE, RTE_ACL_CLASSIFY_AVX2,
                                                     RTE_ACL_CLASSIFY_AVX512X16,
                                                     RTE_ACL_CLASSIFY_AVX512X32};
    return rte_acl_set_ctx_classify(((context *)context_)->acl, ways[way]) == 0;
}

const char *peer_acl_version(void)
{
    return rte_version();
}
