/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes, with any offsets said about them, through every NF: nothing outside the frame is
 * touched, and the verdict is one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nf.h"
#include "parse.h"

#define HOLDS(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { HEAD = 44, TAIL = 29, KINDS = 5, NIDS_STATES = 128, TBL24 = 1 << 24 };

/* The tables region, one instance of each kind, with tables that make sense to their NFs. */
static struct {
    struct hb_tables head;
    _Alignas(8) struct hb_nf_instance nf[KINDS];
    _Alignas(128) uint32_t ipsec[512];
    _Alignas(128) uint32_t nids[32];
    uint16_t next[NIDS_STATES * 256];
    _Alignas(128) uint32_t ends[NIDS_STATES];
    _Alignas(128) uint16_t depth[NIDS_STATES];
    _Alignas(128) uint32_t router[32];
    uint16_t tbl24[TBL24];
    uint32_t hops[8];
} tables;

#define OFFSET(field) (uint32_t)((uint8_t *)&(field) - (uint8_t *)&tables)

static void add(uint32_t kind, uint32_t base, uint32_t length)
{
    tables.nf[kind - 1] = (struct hb_nf_instance){.kind = kind, .base = base, .length = length};
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    uint32_t seed = 1;
    for (int i = 0; i < 512; i++)
        tables.ipsec[i] = seed = seed * 1664525u + 1013904223u;
    for (int i = 0; i < NIDS_STATES * 256; i++)
        tables.next[i] = (uint16_t)((seed = seed * 1664525u + 1013904223u) >> 25);
    for (int i = 0; i < NIDS_STATES; i++)
        tables.depth[i] = (uint16_t)(i / 8);
    tables.nids[1] = NIDS_STATES - 8; /* matching states */
    tables.nids[5] = OFFSET(tables.next) - OFFSET(tables.nids);
    tables.nids[6] = OFFSET(tables.ends) - OFFSET(tables.nids);
    tables.nids[9] = OFFSET(tables.depth) - OFFSET(tables.nids);
    tables.router[0] = (OFFSET(tables.hops) - OFFSET(tables.router)) / 4;
    for (int i = 0; i < TBL24; i += 2)
        tables.tbl24[i] = 2;
    tables.head.nfs_off = OFFSET(tables.nf);
    add(1, OFFSET(tables.ipsec), 0);
    add(2, OFFSET(tables.router), OFFSET(tables.hops) + sizeof tables.hops - OFFSET(tables.router));
    add(3, OFFSET(tables.nids), OFFSET(tables.router) - OFFSET(tables.nids));
    add(4, OFFSET(tables.ipsec), sizeof tables.ipsec);
    add(5, OFFSET(tables.ipsec), sizeof tables.ipsec);
    return 0;
}

static void run(uint32_t instance, const uint8_t *data, uint32_t length, uint32_t l3, uint32_t l4)
{
    uint8_t *frame = malloc(HEAD + length + TAIL);
    memset(frame, 0xee, HEAD + length + TAIL);
    memcpy(frame + HEAD, data, length);
    hb_packet p = {.frame = frame,
                   .low = 0,
                   .high = HEAD + length + TAIL,
                   .offset = HEAD,
                   .length = length,
                   .l3 = l3,
                   .l4 = l4};
    uint64_t result = 1;
    uint32_t verdict = hb_nf_run(&tables, instance, &p, length, &result);
    HOLDS(p.offset <= HEAD && p.offset + p.length <= p.high);
    switch (verdict & 0xff) {
    case HB_VERDICT_PASS:
        HOLDS(verdict == HB_PASS);
        break;
    case HB_VERDICT_DROP:
        HOLDS(verdict >> 8 > HB_REASON_none && verdict >> 8 < HB_REASONS);
        HOLDS(p.length == length && memcmp(frame + HEAD, data, length) == 0);
        break;
    default:
        HOLDS(!"a verdict that these NFs give");
    }
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t length = (uint32_t)size, l3 = HB_NO_LAYER, l4 = HB_NO_LAYER;
    if (length < 2 || length > 2048)
        return 0;
    hb_mbuf m;
    hb_key key;
    if (hb_parse(data, length, &m, &key) == HB_REASON_none)
        l3 = m.l3, l4 = m.l4;
    for (uint32_t instance = 0; instance < KINDS; instance++) {
        run(instance, data, length, l3, l4);
        run(instance, data, length, data[length - 1], data[length - 2]);
    }
    return 0;
}
