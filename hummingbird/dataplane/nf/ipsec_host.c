/* SPDX-License-Identifier: BSD-3-Clause */
/* ipsec_host.c: making an ipsec instance, and what the control thread reads and writes of it. */
#include <stdlib.h>
#include <string.h>

#include "ipsec.h"

/* ---- the security association database ------------------------------------------------------- */

static uint32_t sad_hash(uint32_t dst, uint32_t spi, uint16_t udp)
{
    uint64_t h = ((uint64_t)dst << 32 | spi) * 0x9e3779b97f4a7c15u + udp * 0xff51afd7ed558ccdu;
    return (uint32_t)(h >> 32);
}

const hb_sad_entry *hb_sad_find(const hb_ipsec *ipsec, uint32_t dst, uint32_t spi, uint16_t udp)
{
    for (uint32_t i = sad_hash(dst, spi, udp);; i++) {
        const hb_sad_entry *e = ipsec->sad + (i & ipsec->sad_mask);
        if (!e->used)
            return NULL;
        if (e->dst == dst && e->spi == spi && e->udp == udp)
            return e;
    }
}

static void sad_add(hb_ipsec *ipsec, uint32_t dst, uint32_t spi, uint16_t udp, uint32_t sa)
{
    uint32_t i = sad_hash(dst, spi, udp);
    while (ipsec->sad[i & ipsec->sad_mask].used)
        i++;
    ipsec->sad[i & ipsec->sad_mask] =
        (hb_sad_entry){.dst = dst, .spi = spi, .udp = udp, .used = true, .sa = sa};
}

static void sad_add_sa(hb_ipsec *ipsec, uint32_t number)
{
    const hb_sa *sa = ipsec->sa + number;
    uint32_t dst;
    memcpy(&dst, sa->dst + 12, sizeof dst);
    sad_add(ipsec, dst, sa->spi, sa->udp, number);
    if (!hb_sad_find(ipsec, dst, 0, sa->udp))
        sad_add(ipsec, dst, 0, sa->udp, 0);
    ipsec->esp_in |= !sa->udp;
    ipsec->udp_in |= sa->udp != 0;
}

/* ---- making it ------------------------------------------------------------------------------- */

static void set_sa(hb_sa *sa, const hb_ipsec_sa *from)
{
    sa->spi = from->spi;
    sa->outbound = from->outbound;
    sa->transport = from->transport;
    sa->udp = from->udp;
    sa->most = from->most;
    sa->verdict = from->type < 0 ? HB_PASS : HB_RETYPE(from->type);
    sa->next = sa->limit = sa->low = from->next;
    memcpy(sa->src, from->src, sizeof sa->src);
    memcpy(sa->dst, from->dst, sizeof sa->dst);
}

static int make_windows(hb_ipsec *ipsec, const hb_ipsec_config *config)
{
    size_t words = 0;
    for (uint32_t i = 0; i < config->sas; i++)
        if (!config->sa[i].outbound)
            words += hb_replay_words(config->sa[i].window);
    ipsec->replay_words = calloc(words + 1, sizeof *ipsec->replay_words);
    if (!ipsec->replay_words)
        return -1;
    uint64_t *word = ipsec->replay_words;
    for (uint32_t i = 0; i < config->sas; i++) {
        if (config->sa[i].outbound)
            continue;
        uint32_t n = hb_replay_words(config->sa[i].window);
        ipsec->sa[i].replay =
            (hb_replay){.window = config->sa[i].window, .mask = n - 1, .word = word};
        word += n;
    }
    return 0;
}

static int make(hb_ipsec *ipsec, const hb_ipsec_config *config)
{
    uint32_t entries = 4;
    while (entries < 4 * config->sas) /* each SA and each address has one: half stay empty */
        entries *= 2;
    ipsec->sad_mask = entries - 1;
    ipsec->sad = calloc(entries, sizeof *ipsec->sad);
    ipsec->hits = calloc(config->policies + 1, sizeof *ipsec->hits);
    ipsec->sa = aligned_alloc(alignof(hb_sa), (config->sas + 1) * sizeof *ipsec->sa);
    if (!ipsec->sad || !ipsec->hits || !ipsec->sa)
        return -1;
    memset(ipsec->sa, 0, (config->sas + 1) * sizeof *ipsec->sa);
    for (uint32_t i = 0; i < config->sas; i++) {
        set_sa(ipsec->sa + i, config->sa + i);
        if (!ipsec->sa[i].outbound)
            sad_add_sa(ipsec, i);
    }
    if (make_windows(ipsec, config))
        return -1;
    return hb_spd_init(&ipsec->spd, config->selector, config->selectors);
}

hb_ipsec *hb_ipsec_new(const hb_ipsec_config *config)
{
    hb_ipsec *ipsec = calloc(1, sizeof *ipsec);
    if (!ipsec)
        return NULL;
    ipsec->sas = config->sas;
    ipsec->policies = config->policies;
    ipsec->mtu = config->mtu;
    ipsec->icmp_type = config->icmp_type;
    ipsec->icmp_limit.rate = config->icmp_rate;
    memcpy(ipsec->icmp_source.ipv4, config->icmp_source + 12, sizeof ipsec->icmp_source.ipv4);
    memcpy(ipsec->icmp_source.ipv6, config->icmp_source6, sizeof ipsec->icmp_source.ipv6);
    if (make(ipsec, config)) {
        hb_ipsec_free(ipsec);
        return NULL;
    }
    return ipsec;
}

void hb_ipsec_free(hb_ipsec *ipsec)
{
    if (!ipsec)
        return;
    hb_spd_free(&ipsec->spd);
    free(ipsec->replay_words);
    free(ipsec->sa);
    free(ipsec->hits);
    free(ipsec->sad);
    free(ipsec);
}

/* ---- sequence numbers ------------------------------------------------------------------------ */

void hb_ipsec_set_limit(hb_ipsec *ipsec, uint32_t sa, uint64_t limit, uint64_t low)
{
    ipsec->sa[sa].low = low;
    /* release: what the disk was told of it comes first */
    __atomic_store_n(&ipsec->sa[sa].limit, limit, __ATOMIC_RELEASE);
}

uint64_t hb_ipsec_next(const hb_ipsec *ipsec, uint32_t sa)
{
    /* relaxed: nothing hangs on it but when the next limit comes */
    return __atomic_load_n(&ipsec->sa[sa].next, __ATOMIC_RELAXED);
}

uint32_t hb_ipsec_due(const hb_ipsec *ipsec, uint32_t *sas, uint32_t most)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < ipsec->sas && n < most; i++)
        if (ipsec->sa[i].outbound && hb_ipsec_next(ipsec, i) >= ipsec->sa[i].low)
            sas[n++] = i;
    return n;
}

/* ---- counters -------------------------------------------------------------------------------- */

/* n counters, each by itself: see hb_ipsec_bump(). */
static void load(uint64_t *to, const uint64_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
}

void hb_ipsec_count(const hb_ipsec *ipsec, uint32_t sa, hb_ipsec_counts *counts)
{
    const hb_sa *s = ipsec->sa + sa;
    load((uint64_t *)counts, (const uint64_t *)&s->count, sizeof *counts / sizeof(uint64_t));
    load(&counts->packets, &s->packets, 1);
    load(&counts->bytes, &s->bytes, 1);
    counts->last = s->outbound ? hb_ipsec_next(ipsec, sa) - 1
                               : __atomic_load_n(&s->replay.top, __ATOMIC_RELAXED);
}

void hb_ipsec_total(const hb_ipsec *ipsec, hb_ipsec_totals *totals)
{
    load((uint64_t *)totals, (const uint64_t *)&ipsec->total, sizeof *totals / sizeof(uint64_t));
    load(&totals->icmp_suppressed, &ipsec->icmp_limit.suppressed, 1);
}

uint64_t hb_ipsec_policy_hits(const hb_ipsec *ipsec, uint32_t policy)
{
    return __atomic_load_n(ipsec->hits + policy, __ATOMIC_RELAXED);
}

int hb_ipsec_replay(uint32_t window, const uint32_t *numbers, uint32_t n, uint8_t *accepted)
{
    uint32_t words = hb_replay_words(window);
    hb_replay r = {.window = window, .mask = words - 1, .word = calloc(words, sizeof *r.word)};
    if (!r.word)
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        accepted[i] = hb_replay_is_new(&r, numbers[i]);
        if (accepted[i])
            hb_replay_accept(&r, numbers[i]);
    }
    free(r.word);
    return 0;
}
