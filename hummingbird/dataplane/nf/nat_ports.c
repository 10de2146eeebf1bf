/* SPDX-License-Identifier: BSD-3-Clause */
#include "nf/nat_ports.h"

/* ---- hash -------------------------------------------------------------------------------------
 */

static inline uint64_t left(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = left(v[1], 13) ^ v[0], v[0] = left(v[0], 32);
    v[2] += v[3], v[3] = left(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = left(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = left(v[1], 17) ^ v[2], v[2] = left(v[2], 32);
}

static inline void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

uint64_t hb_nat_hash(const uint64_t secret[2], uint64_t a, uint64_t b)
{
    uint64_t v[4] = {secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du,
                     secret[0] ^ 0x6c7967656e657261u, secret[1] ^ 0x7465646279746573u};
    sip_word(v, a);
    sip_word(v, b);
    sip_word(v, (uint64_t)16 << 56);
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- ports -----------------------------------------------------------------------------------
 */

static const uint64_t parity_bits[2] = {0x5555555555555555u, 0xaaaaaaaaaaaaaaaau};

static void summarise(hb_nat_ports *p, uint32_t word)
{
    for (uint32_t odd = 0; odd < 2; odd++) {
        uint64_t bit = (uint64_t)1 << word % 64;
        if (p->free[word] & parity_bits[odd])
            p->any[odd][word / 64] |= bit;
        else
            p->any[odd][word / 64] &= ~bit;
    }
}

void hb_nat_give_port(hb_nat_ports *p, uint32_t port)
{
    p->free[port / 64] |= (uint64_t)1 << port % 64;
    hb_nat_set(&p->left, p->left + 1);
    summarise(p, port / 64);
}

bool hb_nat_port_is_free(const hb_nat_ports *p, uint32_t port)
{
    return p->free[port / 64] >> port % 64 & 1;
}

void hb_nat_take_port(hb_nat_ports *p, uint32_t port)
{
    p->free[port / 64] &= ~((uint64_t)1 << port % 64);
    hb_nat_set(&p->left, p->left - 1);
    summarise(p, port / 64);
}

/* A word that has a free port of the wanted parities (bit 0: even, bit 1: odd): the first one from
 * `from` on, and round; HB_NAT_NONE. */
static uint32_t find_word(const hb_nat_ports *p, uint32_t parities, uint32_t from)
{
    uint64_t bits = UINT64_MAX << from % 64;
    for (uint32_t i = 0; i <= HB_NAT_WORDS / 64; i++) {
        uint32_t at = (from / 64 + i) % (HB_NAT_WORDS / 64);
        bits &= (parities & 1 ? p->any[0][at] : 0) | (parities & 2 ? p->any[1][at] : 0);
        if (bits)
            return at * 64 + (uint32_t)__builtin_ctzll(bits);
        bits = UINT64_MAX;
    }
    return HB_NAT_NONE;
}

uint32_t hb_nat_find_port(const hb_nat_ports *p, uint32_t parities, uint32_t start)
{
    uint64_t wanted = (parities & 1 ? parity_bits[0] : 0) | (parities & 2 ? parity_bits[1] : 0);
    uint64_t bits = p->free[start / 64] & wanted & UINT64_MAX << start % 64;
    if (bits)
        return start / 64 * 64 + (uint32_t)__builtin_ctzll(bits);
    uint32_t word = find_word(p, parities, (start / 64 + 1) % HB_NAT_WORDS);
    if (word == HB_NAT_NONE)
        return HB_NAT_NONE;
    return word * 64 + (uint32_t)__builtin_ctzll(p->free[word] & wanted);
}
