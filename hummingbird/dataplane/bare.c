/* SPDX-License-Identifier: BSD-3-Clause */
#include "bare.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

#define MOST_PASSES 65536u
#define WARM_UP 2 /* passes that do not count */
#define LINE 64   /* bytes between two words that NF `touch` changes */

/* L2 and IPv4 of a UDP packet; the word at 0, which NF `touch` changes, is 0. */
static void write_headers(uint8_t *packet, uint32_t length)
{
    static const uint8_t head[34] = {
        [12] = 8, [14] = 0x45, [22] = 64, [23] = 17, [26] = 10, [29] = 1, [30] = 10, [33] = 2};
    uint32_t sum = 0;
    memcpy(packet, head, sizeof head);
    packet[16] = (uint8_t)((length - 14) >> 8);
    packet[17] = (uint8_t)(length - 14);
    for (uint32_t i = 14; i < 34; i += 2)
        sum += (uint32_t)packet[i] << 8 | packet[i + 1];
    sum = ~(sum + (sum >> 16)); /* one carry at most: ten words, few bits set */
    packet[24] = (uint8_t)(sum >> 8);
    packet[25] = (uint8_t)sum;
}

void hb_bare_fill(hb_arena *a, uint32_t length)
{
    for (uint32_t i = 0; i < a->mbufs; i++) {
        hb_mbuf *m = hb_header(a, i);
        m->data_off = HB_FRAME_RESERVED + HB_FRAME_HEADROOM;
        m->data_len = (uint16_t)length;
        m->l3 = length < 42 ? HB_NO_LAYER : 14;
        m->l4 = length < 42 ? HB_NO_LAYER : 34;
        m->flow = i;
        memset(hb_data(a, m), 0, length);
        if (length >= 42)
            write_headers(hb_data(a, m), length);
    }
}

uint64_t hb_bare_wrong(const hb_arena *a, uint64_t sent, uint32_t touch)
{
    uint64_t wrong = 0;
    for (uint32_t i = 0; i < a->mbufs; i++) {
        const hb_mbuf *m = hb_header(a, i);
        uint32_t want = __builtin_bswap32((uint32_t)(sent / a->mbufs + (i < sent % a->mbufs)));
        bool good = true;
        for (uint32_t at = 0; at < touch && at + 4 <= m->data_len; at += LINE)
            good = good && !memcmp(hb_data(a, m) + at, &want, sizeof want);
        wrong += !good;
    }
    return wrong;
}

int hb_pin(int cpu, cpu_set_t *before)
{
    cpu_set_t set;
    pthread_getaffinity_np(pthread_self(), sizeof *before, before);
    if (cpu < 0)
        return 0;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set) ? -1 : 0;
}

void hb_unpin(const cpu_set_t *before)
{
    pthread_setaffinity_np(pthread_self(), sizeof *before, before);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int hb_bare_passes(double (*pass)(void *context), void *context, double seconds, uint32_t n,
                   hb_bare_nf_result *result)
{
    double *took = malloc(MOST_PASSES * sizeof *took);
    uint32_t passes = 0;
    if (!took)
        return -1;
    for (uint32_t i = 0; seconds > 0 && i < WARM_UP; i++)
        pass(context);
    uint64_t end = hb_monotonic_ns() + (uint64_t)(seconds * 1e9);
    do
        took[passes++] = pass(context);
    while (passes < MOST_PASSES && hb_monotonic_ns() < end);
    qsort(took, passes, sizeof *took, compare);
    *result = (hb_bare_nf_result){.ns = took[passes / 4] / n, .passes = passes};
    free(took);
    return 0;
}
