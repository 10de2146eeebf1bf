/* SPDX-License-Identifier: BSD-3-Clause */
#include "bare.h"

#include <pthread.h>
#include <string.h>

#define LINE 64 /* bytes between two words that NF `touch` changes */

void hb_bare_fill(hb_arena *a, uint32_t length)
{
    for (uint32_t i = 0; i < a->mbufs; i++) {
        hb_mbuf *m = hb_header(a, i);
        m->data_off = HB_FRAME_RESERVED + HB_FRAME_HEADROOM;
        m->data_len = (uint16_t)length;
        m->l3 = 14; /* as an input port would find it in an IPv4 packet */
        m->l4 = 34;
        m->flow = i;
        memset(hb_data(a, m), 0, length);
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
