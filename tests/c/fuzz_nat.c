/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a flow's state and a packet through the NAT's packet function, and as an ICMP error
 * about a packet of a mapping: nothing outside the packet is touched, and a translated error is
 * right if it was before. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hummingbird.h"
#include "inet.h"
#include "nf/nat.cl"
#include "nf/nat_icmp.h"
#include "parse.h"

#define HOLDS(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { STATE = 40 };
#define EXTERNAL 0xcb007104u
#define HOST 0x0a000001u
#define PEER 0xc6336407u

static hb_nat *nat;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    static const uint32_t inside[] = {0x0a000000, 0xff000000}, external[] = {EXTERNAL};
    static const uint16_t range[] = {1024, 65535};
    static const uint8_t protocol[] = {1, 6, 17, 33};
    const hb_nat_config c = {.inside = inside,
                             .nb_inside = 1,
                             .external = external,
                             .nb_external = 1,
                             .range = range,
                             .nb_ranges = 1,
                             .mappings = 16,
                             .secret = {1, 2}};
    nat = hb_nat_new(&c);
    HOLDS(nat);
    for (uint32_t i = 0; i < 4; i++)
        HOLDS(!hb_nat_forward(nat, protocol[i], 0, HOST, i < 3 ? 5000 : 0, 0, i < 3 ? 6000 : 0));
    return 0;
}

static void run_packet(const uint8_t *data, uint32_t length)
{
    uint32_t state[STATE / 4];
    if (length < STATE + 2)
        return;
    memcpy(state, data, STATE);
    data += STATE, length -= STATE;
    hb_mbuf m = {.zone = 0};
    hb_key key;
    if (hb_parse(data, length, &m, &key) != HB_REASON_none)
        m.l3 = data[0], m.l4 = data[1];
    uint8_t *frame = malloc(length);
    memcpy(frame, data, length);
    hb_packet p = {.frame = frame,
                   .length = length,
                   .l3 = m.l3,
                   .l4 = m.l4,
                   .direction = m.direction,
                   .state = (uint8_t *)state,
                   .state_length = STATE};
    uint64_t result = 0;
    uint32_t verdict = hb_nf_nat(&p, NULL, 0, &result);
    HOLDS(verdict == HB_PASS || verdict == HB_DROP(HB_REASON_no_mapping));
    HOLDS(verdict == HB_PASS || !memcmp(frame, data, length));
    free(frame);
}

/* Make it one about a packet of a mapping, in one direction or the other. */
static void steer(uint8_t *ip, uint32_t length, uint32_t how)
{
    uint32_t l4 = (ip[0] & 15) * 4, quote = l4 + 8;
    uint32_t quoted = quote + 20 < length ? (ip[quote] & 15u) * 4 : 20;
    if (how & 1 || quote + quoted + 8 > length)
        return;
    bool in = how & 2;
    hb_put_be32(ip + 12, in ? PEER : HOST);
    hb_put_be32(ip + 16, in ? EXTERNAL : PEER);
    hb_put_be32(ip + quote + 12, in ? EXTERNAL : PEER);
    hb_put_be32(ip + quote + 16, in ? PEER : HOST);
    hb_put_be16(ip + quote + quoted + (in ? 0 : 2), in ? 6000 : 5000);
    if (ip[quote + 9] == 1)
        hb_put_be16(ip + quote + quoted + 4, in ? 6000 : 5000);
    hb_put_be16(ip + l4 + 2, 0);
    hb_put_be16(ip + l4 + 2, hb_inet_sum(ip + l4, length - l4, 0));
}

static void run_error(const uint8_t *data, uint32_t length)
{
    if (length < 22)
        return;
    uint32_t how = data[0];
    data++, length--;
    uint8_t *ip = malloc(length), *before = malloc(length);
    memcpy(ip, data, length);
    uint32_t header = (ip[0] & 15u) * 4;
    if (header >= 20 && header <= length) {
        steer(ip, length, how);
        memcpy(before, ip, length);
        uint64_t translated = hb_nat_count(nat).icmp_errors;
        uint32_t verdict = hb_nat_icmp_error(nat, 0, ip, length);
        bool changed = hb_nat_count(nat).icmp_errors != translated;
        HOLDS(verdict == HB_PASS || !changed);
        HOLDS(changed || !memcmp(ip, before, length));
        if (changed) {
            HOLDS(!hb_inet_sum(ip + header, length - header, 0));
            HOLDS(hb_get_be32(ip + 16) == HOST || hb_get_be32(ip + header + 24) == EXTERNAL);
        }
    }
    free(before);
    free(ip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run_packet(data, (uint32_t)size);
    run_error(data, (uint32_t)size);
    return 0;
}
