/* SPDX-License-Identifier: BSD-3-Clause */
#include "nf/nat_icmp.h"

#include <stddef.h>

#include "hummingbird.h"
#include "inet.h"
#include "nf/nat.cl"

/* An error, and the packet that it quotes. */
typedef struct {
    uint8_t *ip;
    uint8_t *icmp;
    uint8_t *quote;   /* the IP header in it ... */
    uint8_t *l4;      /* ... what follows that ... */
    uint32_t l4_have; /* ... and how much of it there is */
    uint32_t src, dst;
    uint32_t quote_src, quote_dst;
    uint16_t sport, dport; /* of the quoted packet */
    uint8_t protocol;
    uint32_t change; /* of the bytes that the ICMP checksum is of */
} error;

enum hb_nat_icmp hb_nat_icmp_of(uint32_t type)
{
    switch (type) {
    case 8:  /* echo, ... */
    case 13: /* timestamp, ... */
    case 15: /* information, ... */
    case 17: /* address mask */
        return HB_NAT_ICMP_REQUEST;
    case 0:
    case 14:
    case 16:
    case 18:
        return HB_NAT_ICMP_REPLY;
    case 3:  /* unreachable */
    case 4:  /* source quench */
    case 11: /* time exceeded */
    case 12: /* parameter problem */
        return HB_NAT_ICMP_ERROR;
    default: /* among them redirects, which are of one link only */
        return HB_NAT_ICMP_NONE;
    }
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Ports of the quoted packet; false if they are not there. */
static bool read_ports(error *e)
{
    switch (hb_nat_class(e->protocol)) {
    case HB_NAT_OTHER:
        return true;
    case HB_NAT_ICMP:
        e->sport = e->dport = (uint16_t)hb_get_be16(e->l4 + 4);
        return hb_nat_icmp_of(e->l4[0]) <= HB_NAT_ICMP_REPLY;
    default:
        e->sport = (uint16_t)hb_get_be16(e->l4);
        e->dport = (uint16_t)hb_get_be16(e->l4 + 2);
        return true;
    }
}

/* HB_PASS, or why it cannot be translated. */
static uint32_t read_error(error *e, uint8_t *ip, uint32_t length)
{
    uint32_t header = (ip[0] & 15u) * 4;
    if (length < header + 8 + 20 + 8) /* at least 8 bytes behind the quoted header (RFC 792) */
        return HB_DROP(HB_REASON_malformed);
    *e = (error){.ip = ip, .icmp = ip + header, .quote = ip + header + 8};
    if (hb_inet_sum(e->icmp, length - header, 0)) /* RFC 5508 REQ-3 */
        return HB_DROP(HB_REASON_bad_checksum);
    uint32_t have = length - header - 8, quoted = (e->quote[0] & 15u) * 4;
    if (e->quote[0] >> 4 != 4 || quoted < 20 || have < quoted + 8)
        return HB_DROP(HB_REASON_malformed);
    e->l4 = e->quote + quoted;
    e->l4_have = have - quoted;
    e->src = hb_get_be32(ip + 12);
    e->dst = hb_get_be32(ip + 16);
    e->quote_src = hb_get_be32(e->quote + 12);
    e->quote_dst = hb_get_be32(e->quote + 16);
    e->protocol = e->quote[9];
    /* what is behind the header of a later fragment says nothing of ports */
    if (hb_get_be16(e->quote + 6) & 0x1fff || !read_ports(e))
        return HB_DROP(HB_REASON_no_mapping);
    return HB_PASS;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

/* Where the checksum is in a quoted transport header, or 0: there is none, or it was cut off. */
static uint32_t checksum_of(const error *e)
{
    switch (e->protocol) {
    case HB_NAT_IP_ICMP:
        return 2;
    case HB_NAT_IP_TCP:
        return e->l4_have >= 18 ? 16 : 0;
    case HB_NAT_IP_UDP: /* 0: it had none */
        return hb_get_be16(e->l4 + 6) ? 6 : 0;
    case 33:
    case 136:
        return 6;
    default:
        return 0;
    }
}

static uint32_t put16(uint8_t *at, uint32_t now)
{
    uint32_t change = hb_nat_change(hb_get_be16(at), now);
    hb_put_be16(at, now);
    return change;
}

static uint32_t put32(uint8_t *at, uint32_t now)
{
    uint32_t change = hb_nat_change(hb_get_be32(at), now);
    hb_put_be32(at, now);
    return change;
}

/* Mend a checksum of the quoted packet; the ICMP checksum is of that one, too. */
static void mend(error *e, uint8_t *at, uint32_t change, bool udp)
{
    uint32_t sum = hb_nat_mended(hb_get_be16(at), change);
    e->change += put16(at, udp && !sum ? 0xffff : sum);
}

/* Another source (else destination) for the quoted packet. */
static void requote(error *e, bool source, uint32_t address, uint32_t port)
{
    uint32_t change = put32(e->quote + (source ? 12 : 16), address);
    mend(e, e->quote + 10, change, false);
    e->change += change;
    uint32_t class = hb_nat_class(e->protocol), ports = 0, sum = checksum_of(e);
    if (class != HB_NAT_OTHER)
        ports = put16(e->l4 + (class == HB_NAT_ICMP ? 4 : source ? 0 : 2), port);
    if (sum)
        mend(e, e->l4 + sum, ports + (class == HB_NAT_ICMP ? 0 : change), e->protocol == 17);
    e->change += ports;
}

static void readdress(error *e, bool source, uint32_t address)
{
    uint32_t change = put32(e->ip + (source ? 12 : 16), address);
    hb_put_be16(e->ip + 10, hb_nat_mended(hb_get_be16(e->ip + 10), change));
}

/* ---- which way ----------------------------------------------------------------------------------
 */

/* The mapping of the inside end that a quoted packet was sent to. */
static uint32_t receiver(const hb_nat *n, const error *e, uint16_t zone)
{
    hb_nat_end end = {.address = e->quote_dst, .port = e->dport, .zone = zone};
    end.protocol = e->protocol;
    return hb_nat_by_inside(n, &end);
}

/* It complains of what was sent to an inside host, which has this mapping: nobody outside may see
 * inside addresses. */
static void hide_receiver(hb_nat *n, error *e, uint32_t mapping)
{
    const hb_nat_mapping *m = &n->mapping[mapping];
    uint32_t address = n->config.external[m->external];
    requote(e, false, address, m->external_port);
    if (hb_nat_is_inside(n, e->src)) /* by the host itself, or a router before it */
        readdress(e, true, address);
}

/* To an external address: about what an inside host has sent. */
static uint32_t inbound(hb_nat *n, error *e, uint16_t zone, uint32_t external)
{
    uint32_t m = hb_nat_by_external(n, external, e->protocol, e->sport), to = HB_NAT_NONE;
    uint32_t peer = e->quote_dst, port = hb_nat_class(e->protocol) <= HB_NAT_UDP ? e->dport : 0;
    if (e->quote_src != e->dst || m == HB_NAT_NONE)
        return HB_DROP(HB_REASON_no_mapping);
    if (hb_nat_is_inside(n, e->src)) { /* ... to another inside host, which answers so */
        to = receiver(n, e, zone);
        if (to == HB_NAT_NONE)
            return HB_DROP(HB_REASON_no_mapping);
        peer = n->config.external[n->mapping[to].external];
        port = n->mapping[to].external_port;
    }
    if (!hb_nat_permitted(n, m, peer, port)) {
        hb_nat_add(&n->count.filtered);
        return HB_DROP(HB_REASON_no_mapping);
    }
    if (to != HB_NAT_NONE)
        hide_receiver(n, e, to);
    requote(e, true, n->mapping[m].inside.address, n->mapping[m].inside.port);
    readdress(e, false, n->mapping[m].inside.address);
    return HB_PASS;
}

/* About what came in: to its sender. */
static uint32_t outbound(hb_nat *n, error *e, uint16_t zone)
{
    uint32_t m = receiver(n, e, zone);
    if (e->quote_src != e->dst || m == HB_NAT_NONE)
        return HB_DROP(HB_REASON_no_mapping);
    hide_receiver(n, e, m);
    return HB_PASS;
}

/* Does it cross the NAT at all? By its own addresses, and by what it quotes: a router of ours has
 * an address of its own. */
static bool crosses(const hb_nat *n, const uint8_t *ip, const error *e)
{
    uint32_t src = hb_get_be32(ip + 12), dst = hb_get_be32(ip + 16);
    if (hb_nat_external(n, dst) != HB_NAT_NONE)
        return true;
    if (hb_nat_is_inside(n, dst))
        return false;
    return hb_nat_is_inside(n, src) || (e && hb_nat_is_inside(n, e->quote_dst));
}

uint32_t hb_nat_icmp_error(hb_nat *n, uint16_t zone, uint8_t *ip, uint32_t length)
{
    error e;
    uint32_t verdict = read_error(&e, ip, length);
    if (!crosses(n, ip, verdict == HB_PASS ? &e : NULL))
        return HB_PASS;
    if (verdict != HB_PASS)
        return verdict;
    uint32_t external = hb_nat_external(n, e.dst);
    verdict = external == HB_NAT_NONE ? outbound(n, &e, zone) : inbound(n, &e, zone, external);
    if (verdict != HB_PASS)
        return verdict;
    hb_put_be16(e.icmp + 2, hb_nat_mended(hb_get_be16(e.icmp + 2), e.change));
    hb_nat_add(&n->count.icmp_errors);
    return HB_PASS;
}
