/* SPDX-License-Identifier: BSD-3-Clause */
/* nids_view.c: a packet as rules see it. Offsets are those that parsing has found; everything is
 * checked against the packet's length again, since other NFs may have changed it. */
#include <string.h>

#include "nids_rules.h"

enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58, SCTP = 132 };

static inline uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t be32(const uint8_t *p)
{
    return be16(p) << 16 | be16(p + 2);
}

static inline uint64_t be64(const uint8_t *p)
{
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}

/* Addresses and the end of the packet by its own length, or of what was received if that lies.
 * Returns where the payload of IP begins, 0 if there is no whole header. */
static uint32_t view_ip(hb_nids_packet *p)
{
    const uint8_t *ip = p->packet + p->l3;
    uint32_t have = p->length - p->l3;
    p->version = have ? ip[0] >> 4 : 0;
    uint32_t header = p->version == 4 ? (ip[0] & 15) * 4u : 40, total;
    if ((p->version != 4 && p->version != 6) || header < 20 || have < header)
        return 0;
    if (p->version == 4) {
        total = be16(ip + 2);
        p->src[0] = p->dst[0] = 0;
        p->src[1] = (uint64_t)0xffff << 32 | be32(ip + 12);
        p->dst[1] = (uint64_t)0xffff << 32 | be32(ip + 16);
    } else {
        total = be16(ip + 4) ? 40 + be16(ip + 4) : have;
        p->src[0] = be64(ip + 8);
        p->src[1] = be64(ip + 16);
        p->dst[0] = be64(ip + 24);
        p->dst[1] = be64(ip + 32);
    }
    p->end = p->l3 + (total < header || total > have ? have : total);
    return p->l3 + header;
}

/* Bytes in front of the payload, as hb_nids_payload() of nids.cl has it, so that both search the
 * same bytes: a TCP header that claims more than there is, is searched itself. But ICMP's 8 bytes,
 * which that searches, are not payload to a rule. */
static uint32_t transport_bytes(const hb_nids_packet *p)
{
    uint32_t bytes = 0, at = p->l4 + 12;
    if (p->protocol == UDP || p->protocol == ICMP || p->protocol == ICMPV6)
        bytes = 8;
    else if (p->protocol == TCP && at < p->length)
        bytes = (p->packet[at] >> 4) * 4u;
    return p->l4 + bytes > p->end ? 0 : bytes;
}

/* Least bytes of a transport header that rules may ask about. */
static uint32_t least_bytes(uint8_t protocol)
{
    return protocol == TCP ? 20 : protocol == SCTP ? 12 : protocol == UDP ? 8 : 0;
}

bool hb_nids_view(hb_nids_packet *p, const uint8_t *packet, const hb_mbuf *m)
{
    p->packet = packet;
    p->length = m->data_len;
    p->l3 = m->l3;
    p->protocol = m->protocol;
    p->src_port = p->dst_port = 0;
    p->has_l4 = p->has_ports = false;
    if (m->l3 == HB_NO_LAYER || m->l3 >= m->data_len)
        return false;
    uint32_t begin = view_ip(p);
    if (!begin)
        return false;
    p->l4 = m->l4;
    if (m->l4 != HB_NO_LAYER && m->l4 >= begin && m->l4 <= p->end) {
        begin = p->l4 + transport_bytes(p);
        uint32_t least = least_bytes(p->protocol);
        p->has_ports = least && p->end - p->l4 >= least;
        p->has_l4 = p->has_ports || (!least && p->end - p->l4 >= 8);
    }
    if (p->has_ports) {
        p->src_port = (uint16_t)be16(packet + p->l4);
        p->dst_port = (uint16_t)be16(packet + p->l4 + 2);
    }
    p->payload = packet + begin;
    p->size = p->end - begin;
    return true;
}

static bool is_icmp(const hb_nids_packet *p)
{
    return p->has_l4 && (p->protocol == ICMP || p->protocol == ICMPV6);
}

/* Do messages of this type have an identifier and a sequence number? */
static bool icmp_has_id(const hb_nids_packet *p)
{
    uint8_t type = p->packet[p->l4];
    if (p->protocol == ICMPV6)
        return type == 128 || type == 129;
    return type == 0 || type == 8 || (type >= 13 && type <= 18);
}

static bool ipv4_field(const hb_nids_packet *p, uint32_t field, uint32_t *value)
{
    const uint8_t *ip = p->packet + p->l3;
    if (p->version != 4)
        return false;
    switch (field) {
    case HB_NIDS_FIELD_TOS:
        *value = ip[1];
        return true;
    case HB_NIDS_FIELD_IP_ID:
        *value = be16(ip + 4);
        return true;
    default:
        *value = ip[6] >> 5;
        return true;
    }
}

static bool icmp_field(const hb_nids_packet *p, uint32_t field, uint32_t *value)
{
    const uint8_t *l4 = p->packet + p->l4;
    if (!is_icmp(p))
        return false;
    switch (field) {
    case HB_NIDS_FIELD_ICMP_TYPE:
        *value = l4[0];
        return true;
    case HB_NIDS_FIELD_ICMP_CODE:
        *value = l4[1];
        return true;
    default:
        *value = be16(l4 + (field == HB_NIDS_FIELD_ICMP_ID ? 4 : 6));
        return icmp_has_id(p);
    }
}

static bool tcp_field(const hb_nids_packet *p, uint32_t field, uint32_t *value)
{
    const uint8_t *l4 = p->packet + p->l4;
    if (!p->has_l4 || p->protocol != TCP)
        return false;
    switch (field) {
    case HB_NIDS_FIELD_TCP_FLAGS:
        *value = l4[13];
        return true;
    case HB_NIDS_FIELD_TCP_SEQ:
        *value = be32(l4 + 4);
        return true;
    case HB_NIDS_FIELD_TCP_ACK:
        *value = be32(l4 + 8);
        return true;
    default:
        *value = be16(l4 + 14);
        return true;
    }
}

bool hb_nids_field(const hb_nids_packet *p, uint32_t field, uint32_t *value)
{
    switch (field) {
    case HB_NIDS_FIELD_DSIZE:
        *value = p->size;
        return true;
    case HB_NIDS_FIELD_TTL:
        *value = p->packet[p->l3 + (p->version == 4 ? 8 : 7)];
        return true;
    case HB_NIDS_FIELD_IP_PROTOCOL:
        *value = p->protocol;
        return true;
    case HB_NIDS_FIELD_SAME_IP:
        *value = p->src[0] == p->dst[0] && p->src[1] == p->dst[1];
        return true;
    case HB_NIDS_FIELD_TOS:
    case HB_NIDS_FIELD_IP_ID:
    case HB_NIDS_FIELD_FRAGBITS:
        return ipv4_field(p, field, value);
    case HB_NIDS_FIELD_ICMP_TYPE:
    case HB_NIDS_FIELD_ICMP_CODE:
    case HB_NIDS_FIELD_ICMP_ID:
    case HB_NIDS_FIELD_ICMP_SEQ:
        return icmp_field(p, field, value);
    default:
        return tcp_field(p, field, value);
    }
}
