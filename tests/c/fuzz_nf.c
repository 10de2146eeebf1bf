/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes, with any offsets said about them, through every packet function: nothing outside the
 * frame is touched, and the verdict is one.
 *
 * HUMMINGBIRD_FUZZ_TABLES names a file: the tables region of real NFs, an instance of each kind. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nf.h"
#include "nf/firewall_state.h"
#include "parse.h"

#define HOLDS(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { HEAD = 60, TAIL = 40, ROUTER = 2, NIDS = 3, IPSEC = 4, FIREWALL = 7 };

static uint8_t *tables;
static const struct hb_tables *head;

static const struct hb_nf_instance *instance_of(uint32_t i)
{
    return (const struct hb_nf_instance *)(tables + head->nfs_off) + i;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    const char *path = getenv("HUMMINGBIRD_FUZZ_TABLES");
    FILE *file = fopen(path ? path : "", "rb");
    HOLDS(file && !fseek(file, 0, SEEK_END));
    size_t size = (size_t)ftell(file), whole = (size + 4095) / 4096 * 4096;
    tables = aligned_alloc(4096, whole);
    HOLDS(tables && !fseek(file, 0, SEEK_SET) && fread(tables, 1, size, file) == size);
    fclose(file);
    head = (const struct hb_tables *)tables;
    HOLDS(head->magic == HB_TABLES_MAGIC && head->nfs > 3);
    return 0;
}

/* What the host would tell the packet function: of IPsec, what to do, by which SA. */
static uint64_t arg_of(uint32_t kind, const uint8_t *data, uint32_t length)
{
    uint64_t arg = 0;
    for (uint32_t i = 0; kind == IPSEC && i < 8 && i < length; i++)
        arg = arg << 8 | data[length - 1 - i];
    arg &= 0x0003000fffffffffull; /* four operations, a few SAs */
    return arg >> 48 || kind != IPSEC ? arg : 1 + arg % (HB_REASONS - 1); /* drop, and why */
}

/* What the NF knows of the flow is anything, and often the packet's own bytes. */
static void set_state(uint32_t instance, const uint8_t *data, uint32_t length)
{
    const struct hb_nf_instance *i = instance_of(instance);
    for (uint32_t b = 0; b < i->state_bytes; b++)
        tables[i->state_base + b] = data[b % length] & (data[(b + 1) % length] | 3);
    if (i->kind == FIREWALL) { /* what it returns is one of these, whatever else it believes */
        static const uint32_t verdicts[] = {HB_PASS, HB_DROP(HB_REASON_denied), HB_RETYPE(1)};
        memcpy(tables + i->state_base + 4 * HB_FIREWALL_VERDICT, verdicts + data[0] % 3, 4);
    }
}

static void run(uint32_t instance, const uint8_t *data, uint32_t length, uint32_t l3, uint32_t l4)
{
    uint8_t *frame = malloc(HEAD + length + TAIL);
    uint32_t kind = instance_of(instance)->kind;
    memset(frame, 0xee, HEAD + length + TAIL);
    memcpy(frame + HEAD, data, length);
    hb_packet p = {.frame = frame,
                   .low = 0,
                   .high = HEAD + length + TAIL,
                   .offset = HEAD,
                   .length = length,
                   .l3 = l3,
                   .l4 = l4,
                   .flow = 0,
                   .direction = length & 1};
    set_state(instance, data, length);
    uint64_t result = 1;
    uint32_t verdict = hb_nf_run(tables, instance, &p, arg_of(kind, data, length), &result);
    HOLDS(p.offset + p.length <= p.high && p.length <= HEAD + length + TAIL);
    switch (verdict & 0xff) {
    case HB_VERDICT_PASS:
        HOLDS(verdict == HB_PASS);
        break;
    case HB_VERDICT_DROP:
        HOLDS(verdict >> 8 > HB_REASON_none && verdict >> 8 < HB_REASONS);
        /* what was decrypted before it was found to be of no use has changed */
        HOLDS(kind == IPSEC || (p.length == length && !memcmp(frame + HEAD, data, length)));
        break;
    default:
        HOLDS((kind == ROUTER || kind == FIREWALL) && (verdict & 0xff) == HB_VERDICT_RETYPE);
    }
    HOLDS(kind != NIDS || !memcmp(frame + HEAD, data, length));
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t length = (uint32_t)size, l3 = HB_NO_LAYER, l4 = HB_NO_LAYER;
    if (length < 2 || length > 2048)
        return 0;
    hb_mbuf m = {.zone = 0};
    hb_key key;
    if (hb_parse(data, length, &m, &key) == HB_REASON_none)
        l3 = m.l3, l4 = m.l4;
    for (uint32_t instance = 0; instance < head->nfs; instance++) {
        run(instance, data, length, l3, l4);
        run(instance, data, length, data[length - 1], data[length - 2]);
    }
    return 0;
}
