/* SPDX-License-Identifier: BSD-3-Clause */
#include "neighbour.h"

#include <string.h>

#include "inet.h"

enum { ETHERNET_BYTES = 14, ARP_BYTES = 28, LEAST_FRAME = 60 };
enum { IPV6_BYTES = 40, SOLICIT_BYTES = 24, ADVERTISE_BYTES = 32 };
enum { ICMPV6 = 58, SOLICITATION = 135, ADVERTISEMENT = 136, SOURCE_LINK = 1, TARGET_LINK = 2 };
enum { SOLICITED = 0x40, OVERRIDE = 0x20 };

/* For IPv4 over Ethernet: hardware, protocol, the lengths of their addresses. */
static const uint8_t arp_head[6] = {0, 1, 8, 0, 6, 4};
static const uint8_t none[16];

/* The address of one station, neither a group's nor none. */
static bool is_station(const uint8_t *mac)
{
    return !(mac[0] & 1) && memcmp(mac, none, 6) != 0;
}

static bool owns(const hb_owned *owned, uint32_t family, const uint8_t *address)
{
    for (uint32_t i = 0; i < owned->n; i++)
        if (owned->address[i].family == family &&
            !memcmp(owned->address[i].bytes, address, family == 4 ? 4 : 16))
            return true;
    return false;
}

/* ---- ARP ------------------------------------------------------------------------------------- */

/* A request for an owned address, be it a probe (sender 0.0.0.0) or an announcement of somebody who
 * has taken it: whoever owns the address says so. */
static bool arp_asks(const hb_owned *owned, const uint8_t *arp, uint32_t left)
{
    return left >= ARP_BYTES && !memcmp(arp, arp_head, sizeof arp_head) &&
           hb_get_be16(arp + 6) == 1 && is_station(arp + 8) && memcmp(arp + 8, owned->mac, 6) &&
           owns(owned, 4, arp + 24);
}

/* RFC 826: the addresses change places, and the answer goes to whom the request names. What is
 * behind it in a frame of the least length is 0, and not what somebody else wrote there. */
static uint32_t answer_arp(const hb_owned *owned, uint8_t *packet, uint32_t at, uint32_t length)
{
    uint8_t *arp = packet + at, target[4];
    uint32_t end = at + ARP_BYTES, least = end < LEAST_FRAME ? LEAST_FRAME : end;
    memcpy(target, arp + 24, 4);
    hb_put_be16(arp + 6, 2);
    memcpy(arp + 18, arp + 8, 10);
    memcpy(arp + 8, owned->mac, 6);
    memcpy(arp + 14, target, 4);
    memcpy(packet, arp + 18, 6);
    memcpy(packet + 6, owned->mac, 6);
    length = length < least ? length : least;
    memset(packet + end, 0, length - end);
    return length;
}

/* ---- neighbour discovery --------------------------------------------------------------------- */

static uint32_t sum_of(const uint8_t *ip, uint32_t payload)
{
    uint64_t pseudo = payload + ICMPV6;
    for (uint32_t i = 8; i < IPV6_BYTES; i += 2)
        pseudo += hb_get_be16(ip + i);
    return hb_inet_sum(ip + IPV6_BYTES, payload, pseudo);
}

/* ff02::1:ff and the last three bytes of an address: where those are asked who might have it. */
static bool is_solicited_node(const uint8_t *group, const uint8_t *address)
{
    static const uint8_t head[13] = {0xff, 2, [11] = 1, [12] = 0xff};
    return !memcmp(group, head, sizeof head) && !memcmp(group + 13, address + 13, 3);
}

/* The options of a solicitation are sound; *link is the sender's Ethernet address, or NULL. */
static bool read_options(const uint8_t *nd, uint32_t payload, const uint8_t **link)
{
    *link = NULL;
    for (uint32_t at = SOLICIT_BYTES, bytes; at < payload; at += bytes) {
        if (payload - at < 8 || !nd[at + 1])
            return false;
        bytes = nd[at + 1] * 8u;
        if (bytes > payload - at)
            return false;
        if (nd[at] == SOURCE_LINK)
            *link = nd + at + 2;
    }
    return true;
}

/* RFC 4861 section 7.1.1: a solicitation that counts; for an owned address. *to is the Ethernet
 * address that it gives. */
static bool nd_asks(const hb_owned *owned, const uint8_t *packet, uint32_t at, uint32_t length,
                    const uint8_t **to)
{
    const uint8_t *ip = packet + at, *nd = ip + IPV6_BYTES, *target = nd + 8;
    if (length - at < IPV6_BYTES + SOLICIT_BYTES || ip[0] >> 4 != 6 || ip[6] != ICMPV6 ||
        ip[7] != 255 || nd[0] != SOLICITATION || nd[1])
        return false;
    uint32_t payload = hb_get_be16(ip + 4);
    bool to_group = is_solicited_node(ip + 24, target), nobody = !memcmp(ip + 8, none, 16);
    if (payload < SOLICIT_BYTES || payload > length - at - IPV6_BYTES || !owns(owned, 6, target) ||
        (!to_group && (nobody || memcmp(ip + 24, target, 16))) || ip[8] == 0xff)
        return false;
    if (sum_of(ip, payload) || !read_options(nd, payload, to) || (nobody && *to))
        return false;
    if (!*to)
        *to = packet + 6;
    return is_station(*to) && memcmp(*to, owned->mac, 6);
}

/* To the one who asks; to all if he has no address yet, because he wants to have this one. */
static uint32_t answer_nd(const hb_owned *owned, uint8_t *packet, uint32_t at, const uint8_t *to)
{
    static const uint8_t all[16] = {0xff, 2, [15] = 1}, all_link[6] = {0x33, 0x33, [5] = 1};
    uint8_t *ip = packet + at, *nd = ip + IPV6_BYTES, target[16];
    bool nobody = !memcmp(ip + 8, none, 16);
    memcpy(target, nd + 8, 16);
    memmove(packet, nobody ? all_link : to, 6);
    memcpy(packet + 6, owned->mac, 6);
    hb_put_be32(ip, 0x60000000);
    hb_put_be16(ip + 4, ADVERTISE_BYTES);
    memmove(ip + 24, nobody ? all : ip + 8, 16);
    memcpy(ip + 8, target, 16);
    nd[0] = ADVERTISEMENT;
    hb_put_be16(nd + 2, 0);
    hb_put_be32(nd + 4, (uint32_t)(nobody ? OVERRIDE : SOLICITED | OVERRIDE) << 24);
    nd[24] = TARGET_LINK;
    nd[25] = 1;
    memcpy(nd + 26, owned->mac, 6);
    hb_put_be16(nd + 2, sum_of(ip, ADVERTISE_BYTES));
    return at + IPV6_BYTES + ADVERTISE_BYTES;
}

/* ---- both ------------------------------------------------------------------------------------ */

static bool is_tag(uint32_t type)
{
    return type == 0x8100 || type == 0x88a8 || type == 0x9100;
}

uint32_t hb_answer_neighbour(const hb_owned *owned, uint8_t *packet, uint32_t length, uint32_t room)
{
    uint32_t at = ETHERNET_BYTES;
    if (length < at || (!(packet[0] & 1) && memcmp(packet, owned->mac, 6)))
        return 0; /* to another station */
    for (int tags = 0; tags < 2 && at + 4 <= length && is_tag(hb_get_be16(packet + at - 2)); tags++)
        at += 4;
    uint32_t type = hb_get_be16(packet + at - 2);
    if (type == 0x0806 && arp_asks(owned, packet + at, length - at))
        return answer_arp(owned, packet, at, length);
    const uint8_t *to;
    if (type == 0x86dd && at + IPV6_BYTES + ADVERTISE_BYTES <= room &&
        nd_asks(owned, packet, at, length, &to))
        return answer_nd(owned, packet, at, to);
    return 0;
}

/* ---- questions ------------------------------------------------------------------------------- */

static uint32_t ask_arp(uint8_t *packet, uint32_t l3, const uint8_t *mac, const uint8_t *own,
                        const uint8_t *target)
{
    uint8_t *arp = packet + l3;
    uint32_t end = l3 + ARP_BYTES, length = end < LEAST_FRAME ? LEAST_FRAME : end;
    memset(packet, 0xff, 6);
    memset(arp, 0, length - l3);
    memcpy(arp, arp_head, sizeof arp_head);
    hb_put_be16(arp + 6, 1);
    memcpy(arp + 8, mac, 6);
    memcpy(arp + 14, own, 4);
    memcpy(arp + 24, target, 4);
    hb_put_be16(packet + l3 - 2, 0x0806);
    return length;
}

static uint32_t ask_nd(uint8_t *packet, uint32_t l3, const uint8_t *mac, const uint8_t *own,
                       const uint8_t *target)
{
    static const uint8_t group[13] = {0xff, 2, [11] = 1, [12] = 0xff};
    uint8_t *ip = packet + l3, *nd = ip + IPV6_BYTES;
    memset(ip, 0, IPV6_BYTES + ADVERTISE_BYTES);
    ip[0] = 0x60;
    hb_put_be16(ip + 4, ADVERTISE_BYTES);
    ip[6] = ICMPV6;
    ip[7] = 255;
    memcpy(ip + 8, own, 16);
    memcpy(ip + 24, group, sizeof group);
    memcpy(ip + 37, target + 13, 3);
    hb_put_be16(packet, 0x3333);
    memcpy(packet + 2, ip + 36, 4);
    nd[0] = SOLICITATION;
    memcpy(nd + 8, target, 16);
    nd[24] = SOURCE_LINK;
    nd[25] = 1;
    memcpy(nd + 26, mac, 6);
    hb_put_be16(nd + 2, sum_of(ip, ADVERTISE_BYTES));
    hb_put_be16(packet + l3 - 2, 0x86dd);
    return l3 + IPV6_BYTES + ADVERTISE_BYTES;
}

uint32_t hb_ask_neighbour(uint8_t *packet, uint32_t l3, uint32_t family, const uint8_t *mac,
                          const uint8_t *own, const uint8_t *target)
{
    memcpy(packet + 6, mac, 6);
    return (family == 4 ? ask_arp : ask_nd)(packet, l3, mac, own, target);
}

uint32_t hb_answer_question(const hb_ip_address *list, uint32_t n, const uint8_t *mac,
                            uint8_t *packet, uint32_t length, uint32_t room)
{
    hb_owned owned = {.n = n < HB_MOST_ADDRESSES ? n : HB_MOST_ADDRESSES};
    memcpy(owned.mac, mac, sizeof owned.mac);
    memcpy(owned.address, list, owned.n * sizeof *list);
    return hb_answer_neighbour(&owned, packet, length, room);
}
