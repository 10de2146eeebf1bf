/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a question for an address: nothing outside them is touched, what is no question
 * stays as it is, and what is answered is a sound answer to one who asked. The first byte says how
 * much room there is behind the packet; some bytes are made right, which a fuzzer would not find.
 */
#include "inet.h"
#include "neighbour.h"

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

static const hb_owned owned = {
    .mac = {2, 0, 0, 0, 0, 9},
    .n = 2,
    .address = {{{192, 0, 2, 1}, 4}, {{0x20, 1, 0xd, 0xb8, [15] = 1}, 6}},
};

static uint32_t link_bytes(const uint8_t *p, uint32_t length)
{
    uint32_t at = 14;
    while (at < 22 && at + 4 <= length &&
           (hb_get_be16(p + at - 2) == 0x8100 || hb_get_be16(p + at - 2) == 0x88a8 ||
            hb_get_be16(p + at - 2) == 0x9100))
        at += 4;
    return at;
}

static uint64_t pseudo(const uint8_t *ip, uint32_t payload)
{
    uint64_t sum = payload + 58;
    for (uint32_t i = 8; i < 40; i += 2)
        sum += hb_get_be16(ip + i);
    return sum;
}

/* A solicitation's checksum, and where it goes. */
static void make_right(uint8_t *p, uint32_t length)
{
    uint32_t at = link_bytes(p, length);
    if (length < at + 64 || hb_get_be16(p + at - 2) != 0x86dd || p[at + 40] != 135)
        return;
    uint8_t *ip = p + at;
    uint32_t payload = hb_get_be16(ip + 4);
    if (payload < 24 || at + 40 + payload > length)
        return;
    memcpy(ip + 48, owned.address[1].bytes, 16);
    memcpy(ip + 24, "\xff\2\0\0\0\0\0\0\0\0\0\1\xff\0\0\1", 16);
    hb_put_be16(ip + 42, 0);
    hb_put_be16(ip + 42, hb_inet_sum(ip + 40, payload, pseudo(ip, payload)));
}

static void check_answer(const uint8_t *p, uint32_t length, const uint8_t *before)
{
    uint32_t at = link_bytes(p, length);
    HOLDS(!memcmp(p + 6, owned.mac, 6) && memcmp(p, owned.mac, 6));
    HOLDS(!memcmp(p + 12, before + 12, at - 12)); /* tags and type */
    if (hb_get_be16(p + at - 2) == 0x0806) {
        HOLDS(length >= at + 28 && hb_get_be16(p + at + 6) == 2);
        HOLDS(!memcmp(p + at + 8, owned.mac, 6));
        HOLDS(!memcmp(p + at + 14, owned.address[0].bytes, 4));
        HOLDS(!memcmp(p + at + 18, before + at + 8, 10) && !memcmp(p, before + at + 8, 6));
        return;
    }
    const uint8_t *ip = p + at;
    HOLDS(hb_get_be16(p + at - 2) == 0x86dd && length == at + 72);
    HOLDS(ip[6] == 58 && ip[7] == 255 && hb_get_be16(ip + 4) == 32);
    HOLDS(!hb_inet_sum(ip + 40, 32, pseudo(ip, 32)));
    HOLDS(ip[40] == 136 && !memcmp(ip + 8, owned.address[1].bytes, 16));
    HOLDS(!memcmp(ip + 66, owned.mac, 6));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    uint32_t length = (uint32_t)size - 1, room = length + data[0] % 64;
    uint8_t *exact = malloc(room + !room), *before = malloc(size); /* ASan sees their ends */
    if (!exact || !before)
        abort();
    memcpy(exact, data + 1, length);
    if (data[0] & 64)
        make_right(exact, length);
    memcpy(before, exact, length);
    uint32_t answer = hb_answer_neighbour(&owned, exact, length, room);
    HOLDS(answer <= room);
    if (answer)
        check_answer(exact, answer, before);
    else
        HOLDS(!memcmp(exact, before, length));
    free(exact);
    free(before);
    return 0;
}
