/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec.h: an ipsec instance on the host. Everything is constant once made, except what is marked
 * with its writer: the lcore that serves the NF, or the control thread.
 */
#ifndef HB_IPSEC_H
#define HB_IPSEC_H
#include <stdalign.h>

#include "ipsec_api.h"
#include "ipsec_replay.h"
#include "ipsec_spd.h"
#include "nf.h"

/* One security association. The first line is all that encapsulating a packet touches. */
typedef struct {
    alignas(64) uint64_t next; /* lcore: next sequence number */
    uint64_t limit;            /* control: numbers below it may be used */
    uint64_t packets;          /* lcore, like bytes */
    uint64_t bytes;
    uint32_t most;    /* longest packet that fits the MTU */
    uint32_t verdict; /* of its packets: HB_PASS or HB_RETYPE(type) */
    bool outbound;
    bool transport;
    uint16_t udp;
    uint32_t spi;

    alignas(64) hb_replay replay; /* lcore */
    hb_ipsec_counts count;        /* lcore; without packets and bytes */
    uint64_t low;                 /* control: from here on a new limit is due */
    uint8_t src[16];
    uint8_t dst[16];
} hb_sa;

/* The inbound SAs by what a packet says (RFC 4301 section 4.1): a hash table, open addressing. An
 * entry with SPI 0, which no SA has, says that the address is one of ours. */
typedef struct {
    uint32_t dst; /* as in a packet */
    uint32_t spi;
    uint16_t udp; /* destination port; 0: plain ESP */
    bool used;
    uint32_t sa;
} hb_sad_entry;

struct hb_ipsec {
    hb_sa *sa;
    uint32_t sas;
    uint32_t sad_mask; /* entries - 1 */
    hb_sad_entry *sad;
    bool esp_in; /* there are inbound SAs of plain ESP ... */
    bool udp_in; /* ... and in UDP */
    uint32_t mtu;
    hb_spd spd;
    uint64_t *hits; /* lcore: [policies] */
    uint32_t policies;
    uint64_t *replay_words; /* of all windows */
    int32_t icmp_type;
    hb_icmp_source icmp_source;
    hb_icmp_limit icmp_limit; /* lcore */
    hb_ipsec_totals total;    /* lcore */
};

/* NULL: there is none. */
const hb_sad_entry *hb_sad_find(const hb_ipsec *ipsec, uint32_t dst, uint32_t spi, uint16_t udp);

/* A counter of one writer: relaxed, since a reader only wants some recent value. */
static inline void hb_ipsec_bump(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

#endif
