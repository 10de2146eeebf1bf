/* SPDX-License-Identifier: BSD-3-Clause */
/* icmp.c: ICMP and ICMPv6 errors about packets. */
#include <string.h>

#include "dataplane.h"
#include "inet.h"

#define HOPS 64            /* TTL and hop limit of an error */
#define QUOTE4 (576 - 28)  /* as much as fits the least MTU: RFC 1812 section 4.3.2.3 ... */
#define QUOTE6 (1280 - 48) /* ... and RFC 4443 section 2.4 c */
#define ICMP 1
#define ICMP6 58

static bool any_bit(const uint8_t *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (p[i])
            return true;
    return false;
}

/* One token, if the bucket has one. Refilled by the clock of the seat's lcore. */
static bool take(hb_nf_seat *seat, hb_icmp_limit *limit)
{
    uint64_t now = seat->lcore->pass_tick;
    uint32_t most = limit->rate ? limit->rate / 10 + 1 : 0;
    double due = (double)(now - limit->tick) / hb_tick_rate() * limit->rate;
    if (!limit->tick || limit->tokens + due >= most) {
        limit->tokens = most;
        limit->tick = now;
    } else if (due >= 1) {
        limit->tokens += (uint32_t)due;
        limit->tick += (uint64_t)((uint32_t)due * hb_tick_rate() / limit->rate);
    }
    if (!limit->tokens) {
        limit->suppressed++;
        return false;
    }
    limit->tokens--;
    return true;
}

/* May anybody be told about this packet? */
static bool tellable4(const uint8_t *packet, const uint8_t *ip, uint32_t left)
{
    uint32_t header = (ip[0] & 15u) * 4;
    bool to_one = !(packet[0] & 1) && ip[16] < 224; /* also of L2: no broadcast, no multicast */
    bool from_one = ip[12] != 0 && ip[12] != 127 && ip[12] < 224;
    if (left < 20 || header < 20 || left < header || !to_one || !from_one ||
        hb_get_be16(ip + 6) & 0x1fff)
        return false;
    if (ip[9] != ICMP)
        return true;
    /* of ICMP only what asks: echo, timestamp, information, mask, router solicitation */
    uint32_t type = left > header ? ip[header] : 3;
    return type == 0 || type == 8 || type == 10 || (type >= 13 && type <= 18);
}

static bool tellable6(const uint8_t *packet, const hb_mbuf *m, const uint8_t *ip, uint32_t left,
                      uint32_t type)
{
    bool too_big = type == 2; /* may also answer a multicast: RFC 4443 section 2.4 e.3 */
    bool to_one = !(packet[0] & 1) && ip[24] != 0xff;
    if (left < 40 || (!to_one && !too_big) || ip[8] == 0xff || !any_bit(ip + 8, 16))
        return false;
    bool error =
        m->protocol == ICMP6 && m->l4 != HB_NO_LAYER && m->l4 < m->data_len && packet[m->l4] < 128;
    return !error;
}

/* L2 back to where the packet came from, with its tags. */
static uint8_t *back(uint8_t *to, const uint8_t *packet, uint32_t l3)
{
    memcpy(to, packet, l3);
    if (l3 >= 14) {
        memcpy(to, packet + 6, 6);
        memcpy(to + 6, packet, 6);
    }
    return to + l3;
}

static uint32_t write4(uint8_t *out, const uint8_t *ip, uint32_t quote, const uint8_t *from,
                       uint32_t type, uint32_t code, uint32_t word)
{
    uint32_t total = 28 + quote;
    memset(out, 0, 28);
    out[0] = 0x45;
    out[1] = 0xc0; /* internetwork control: RFC 1812 section 4.3.2.5 */
    hb_put_be16(out + 2, total);
    out[8] = HOPS;
    out[9] = ICMP;
    memcpy(out + 12, from, 4);
    memcpy(out + 16, ip + 12, 4);
    hb_put_be16(out + 10, hb_inet_sum(out, 20, 0));
    out[20] = (uint8_t)type;
    out[21] = (uint8_t)code;
    hb_put_be32(out + 24, word);
    memcpy(out + 28, ip, quote);
    hb_put_be16(out + 22, hb_inet_sum(out + 20, 8 + quote, 0));
    return total;
}

static uint32_t write6(uint8_t *out, const uint8_t *ip, uint32_t quote, const uint8_t *from,
                       uint32_t type, uint32_t code, uint32_t word)
{
    uint32_t payload = 8 + quote;
    memset(out, 0, 48);
    out[0] = 0x60;
    hb_put_be16(out + 4, payload);
    out[6] = ICMP6;
    out[7] = HOPS;
    memcpy(out + 8, from, 16);
    memcpy(out + 24, ip + 8, 16);
    out[40] = (uint8_t)type;
    out[41] = (uint8_t)code;
    hb_put_be32(out + 44, word);
    memcpy(out + 48, ip, quote);
    uint64_t pseudo = payload + ICMP6;
    for (uint32_t i = 8; i < 40; i += 2)
        pseudo += hb_get_be16(out + i);
    hb_put_be16(out + 42, hb_inet_sum(out + 40, payload, pseudo));
    return 40 + payload;
}

bool hb_icmp_error(hb_nf_seat *seat, hb_icmp_limit *limit, const hb_icmp_source *from,
                   uint32_t about, uint32_t type, uint32_t code, uint32_t word, uint32_t as_type)
{
    const hb_arena *a = seat->arena;
    const hb_mbuf *m = hb_header(a, about);
    const uint8_t *packet = hb_data(a, m);
    if (m->l3 == HB_NO_LAYER || m->l3 >= m->data_len)
        return false;
    const uint8_t *ip = packet + m->l3;
    uint32_t left = m->data_len - m->l3;
    bool six = ip[0] >> 4 == 6;
    bool ours = six ? any_bit(from->ipv6, 16) : any_bit(from->ipv4, 4);
    if (!ours || !(six ? tellable6(packet, m, ip, left, type) : tellable4(packet, ip, left)) ||
        !take(seat, limit))
        return false;
    uint32_t handle = hb_nf_create(seat, about);
    if (handle == HB_NO_MBUF) {
        limit->suppressed++;
        return false;
    }
    hb_mbuf *error = hb_header(a, handle);
    uint8_t *out = back(hb_data(a, error), packet, m->l3);
    uint32_t most = six ? QUOTE6 : QUOTE4, quote = left < most ? left : most;
    uint32_t bytes = six ? write6(out, ip, quote, from->ipv6, type, code, word)
                         : write4(out, ip, quote, from->ipv4, type, code, word);
    error->data_len = (uint16_t)(m->l3 + bytes);
    hb_nf_emit(seat, handle, as_type);
    return true;
}
