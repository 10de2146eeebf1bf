/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ipsec_frame.h: what ESP (RFC 4303) does to a packet apart from cryptography, in four steps:
 *
 *   wrap    header, padding and trailer around a packet      then the caller fills in the IV,
 *                                                            encrypts and writes the ICV
 *   find    where everything lies in an ESP packet           then the caller checks the ICV and
 *                                                            decrypts
 *   unwrap  padding and headers off, the original packet
 *
 *   tunnel      L2 | outer IPv4 | (UDP) | SPI, sequence | IV | packet, padding, trailer | ICV
 *   transport   L2 | IP header  | (UDP) | SPI, sequence | IV | payload, padding, trailer | ICV
 *                                                             '------- encrypted ------'
 */
#ifndef HB_IPSEC_FRAME_H
#define HB_IPSEC_FRAME_H
#include "nf/ipsec_table.h"

#define HB_PROTOCOL_IPV4 4u
#define HB_PROTOCOL_UDP 17u
#define HB_PROTOCOL_IPV6 41u
#define HB_PROTOCOL_ESP 50u
#define HB_PROTOCOL_NONE 59u

#define HB_ECN_ECT1 1u
#define HB_ECN_ECT0 2u
#define HB_ECN_CE 3u

/* Where things lie in an ESP packet; offsets from its first byte. */
typedef struct {
    hb_u32 sa;       /* first word of the SA in the table */
    hb_u32 kind;     /* its HB_SA_KIND */
    hb_u32 sequence; /* sequence number */
    hb_u32 next_at;  /* the byte that names the protocol behind the IP header */
    hb_u32 header;   /* end of the IP header */
    hb_u32 esp;      /* SPI */
    hb_u32 data;     /* first encrypted byte; the IV is in front of it */
    hb_u32 n;        /* encrypted bytes; the ICV follows */
} hb_esp;

/* ---- IP headers ------------------------------------------------------------------------------ */

/* Finds the end of the IP header, IPv6's extension headers for each hop and router included, and
 * the byte that names what follows. 0 if there is none, or a fragment. */
static hb_u32 hb_ip_header(const hb_packet *p, hb_u32 *next_at)
{
    if (hb_ip_version(p) == 4) {
        *next_at = p->l3 + 9;
        return hb_get16(p, p->l3 + 6) & 0x3fff ? 0 : p->l3 + (hb_get8(p, p->l3) & 15) * 4;
    }
    hb_u32 at = p->l3 + 40, next;
    *next_at = p->l3 + 6;
    for (hb_u32 i = 0; i < 8; i++) {
        next = hb_get8(p, *next_at);
        if (next != 0 && next != 43 && next != 60)
            return next == 44 ? 0 : at;
        *next_at = at;
        at += 8 + 8 * hb_get8(p, at + 1);
    }
    return 0;
}

/* A checksum after a 16-bit word under it has changed (RFC 1624). */
static inline hb_u32 hb_sum_changed(hb_u32 sum, hb_u32 from, hb_u32 to)
{
    sum = (~sum & 0xffff) + (~from & 0xffff) + to;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

/* Change 16 bits of the IPv4 header at l3. */
static void hb_ipv4_put16(hb_packet *p, hb_u32 at, hb_u32 to)
{
    hb_u32 sum = hb_get16(p, p->l3 + 10);
    hb_put16(p, p->l3 + 10, hb_sum_changed(sum, hb_get16(p, at), to));
    hb_put16(p, at, to);
}

/* The IP header keeps its place at l3; the packet's length and what follows the header changed. */
static void hb_ip_changed(hb_packet *p, hb_u32 next_at, hb_u32 next)
{
    if (hb_ip_version(p) == 4) {
        hb_ipv4_put16(p, p->l3 + 2, p->length - p->l3);
        hb_ipv4_put16(p, p->l3 + 8, (hb_get16(p, p->l3 + 8) & 0xff00) | next);
    } else {
        hb_put16(p, p->l3 + 4, p->length - p->l3 - 40);
        hb_put8(p, next_at, next);
    }
}

/* The type of the L2 header in front of l3. */
static void hb_set_ethertype(hb_packet *p, hb_u32 version)
{
    if (p->l3 >= 14)
        hb_put16(p, p->l3 - 2, version == 4 ? 0x0800 : 0x86dd);
}

static hb_u32 hb_traffic_class(const hb_packet *p)
{
    return hb_ip_version(p) == 4 ? hb_get8(p, p->l3 + 1) : hb_get16(p, p->l3) >> 4 & 255;
}

static void hb_set_ecn(hb_packet *p, hb_u32 ecn)
{
    hb_u32 first = hb_get16(p, p->l3);
    if (hb_ip_version(p) == 4)
        hb_ipv4_put16(p, p->l3, (first & ~3u) | ecn);
    else
        hb_put16(p, p->l3, (first & ~0x30u) | ecn << 4);
}

/* ---- out ------------------------------------------------------------------------------------- */

/* The outer header's first 16 bytes, without the destination. DSCP is the inner packet's (RFC 4301
 * section 5.1.2), so is ECN (RFC 6040 section 4.1, normal mode), so is DF; IPv6 has no DF: the
 * tunnel may fragment. `length`: of the IP packet. */
static inline hb_block hb_outer_header(const hb_esp *e, hb_block sa, hb_u32 length, hb_u32 tos,
                                       hb_u32 df)
{
    hb_u32 src = sa.c, dst = sa.d;
    hb_u32 protocol = HB_SA_UDP(e->kind) ? HB_PROTOCOL_UDP : HB_PROTOCOL_ESP;
    hb_u32 first = 0x45000000u | tos << 16 | length;
    hb_u32 second = e->sequence << 16 | df; /* identification, flags */
    hb_u32 third = 64u << 24 | protocol << 16;
    hb_u32 sum = (first >> 16) + (first & 0xffff) + (second >> 16) + (second & 0xffff) +
                 (third >> 16) + (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    hb_block b = {hb_swap32(first), hb_swap32(second), hb_swap32(third | (~sum & 0xffff)),
                  hb_swap32(src)};
    return b;
}

/* SPI and sequence number, and the eight bytes in front of them with the same store: UDP (RFC 3948
 * section 2.1), without a checksum, or the end of the outer header. */
static void hb_esp_header(hb_packet *p, const hb_table *t, const hb_esp *e, hb_block sa)
{
    hb_block b = {sa.c, sa.d, sa.b, e->sequence};
    if (HB_SA_UDP(e->kind)) {
        b.a = hb_table32(t, e->sa + HB_SA_PORTS);
        b.b = (p->length - e->header) << 16;
    } else if (!HB_SA_TUNNEL(e->kind)) { /* the IP header stays as it is */
        b.a = hb_get32(p, e->esp - 8);
        b.b = hb_get32(p, e->esp - 4);
    }
    b.a = hb_swap32(b.a), b.b = hb_swap32(b.b), b.c = hb_swap32(b.c), b.d = hb_swap32(b.d);
    hb_put_block(p, e->esp - 8, b);
}

#define HB_PADDING                                                                                 \
    {                                                                                              \
        0x04030201u, 0x08070605u, 0x0c0b0a09u, 0x100f0e0du                                         \
    } /* 1, 2, 3, ... */

/* Padding, its length and the next header (RFC 4303 section 2.4 ff.). */
static void hb_esp_trailer(hb_packet *p, hb_u32 at, hb_u32 pad, hb_u32 next_header)
{
    hb_block all = HB_PADDING;
    if (at + 16 <= p->length) /* what is too much, trailer and ICV write over */
        hb_put_block(p, at, all);
    else
        for (hb_u32 i = 0; i < pad; i++)
            hb_put8(p, at + i, i + 1);
    hb_put16(p, at + pad, pad << 8 | next_header);
}

/* Frames what the packet is for SA e->sa under number e->sequence; fills e. The verdict. */
static hb_u32 hb_esp_wrap(hb_packet *p, const hb_table *t, hb_esp *e)
{
    hb_u32 version = hb_ip_version(p), end = hb_ip_end(p);
    if (!version)
        return HB_DROP(HB_REASON_not_ip);
    if (!end)
        return HB_DROP(HB_REASON_malformed);
    hb_block sa = hb_table_block(t, e->sa / 4); /* kind, SPI, addresses */
    e->kind = sa.a;
    hb_u32 tunnel = HB_SA_TUNNEL(e->kind), kept = p->l3; /* bytes that stay in front of it all */
    hb_u32 next = version == 4 ? HB_PROTOCOL_IPV4 : HB_PROTOCOL_IPV6;
    e->next_at = 0;
    if (!tunnel) {
        kept = hb_ip_header(p, &e->next_at);
        if (!kept)
            return HB_DROP(HB_REASON_esp_fragment);
        if (kept > end)
            return HB_DROP(HB_REASON_malformed);
        next = hb_get8(p, e->next_at);
    }
    hb_u32 payload = end - kept, pad = hb_sa_padding(e->kind, payload);
    hb_u32 head = hb_sa_head_bytes(e->kind);
    hb_u32 tos = hb_traffic_class(p), df = version == 4 ? hb_get16(p, p->l3 + 6) & 0x4000 : 0;
    hb_trim_tail(p, end);
    if (!hb_grow_tail(p, pad + 2 + hb_sa_icv_bytes(e->kind)) || !hb_grow_head(p, head))
        return HB_DROP(HB_REASON_no_room);

    e->header = kept + (tunnel ? 20 : 0);
    e->esp = e->header + (HB_SA_UDP(e->kind) ? 8 : 0);
    e->data = kept + head;
    e->n = payload + pad + 2;
    hb_move(p, 0, head, kept);
    if (tunnel) {
        hb_put_block(p, p->l3, hb_outer_header(e, sa, p->length - p->l3, tos, df));
        hb_put32(p, p->l3 + 16, sa.d);
        if (version != 4)
            hb_set_ethertype(p, 4);
    } else {
        hb_ip_changed(p, e->next_at, HB_SA_UDP(e->kind) ? HB_PROTOCOL_UDP : HB_PROTOCOL_ESP);
    }
    hb_esp_header(p, t, e, sa);
    hb_esp_trailer(p, e->data + payload, pad, next);
    p->l4 = e->header;
    return HB_PASS;
}

/* ---- in -------------------------------------------------------------------------------------- */

/* Finds the ESP packet of SA e->sa; fills e, cuts off what is behind it. The verdict. */
static hb_u32 hb_esp_find(hb_packet *p, const hb_table *t, hb_esp *e)
{
    hb_u32 end = hb_ip_end(p);
    if (!hb_ip_version(p))
        return HB_DROP(HB_REASON_not_ip);
    if (!end)
        return HB_DROP(HB_REASON_malformed);
    e->kind = hb_sa_kind(t, e->sa);
    e->header = hb_ip_header(p, &e->next_at);
    if (!e->header)
        return HB_DROP(HB_REASON_esp_fragment);
    hb_u32 udp = HB_SA_UDP(e->kind), iv = hb_sa_iv_bytes(e->kind), icv = hb_sa_icv_bytes(e->kind);
    if (udp) {
        hb_u32 length = hb_get16(p, e->header + 4);
        if (length < 8 || e->header > end || length > end - e->header)
            return HB_DROP(HB_REASON_esp_malformed);
        end = e->header + length;
    }
    e->esp = e->header + (udp ? 8 : 0);
    e->data = e->esp + 8 + iv;
    if (hb_get8(p, e->next_at) != (udp ? HB_PROTOCOL_UDP : HB_PROTOCOL_ESP) ||
        end < e->data + icv + hb_sa_align(e->kind))
        return HB_DROP(HB_REASON_esp_malformed);
    e->n = end - e->data - icv;
    e->sequence = hb_get32(p, e->esp + 4);
    if (e->n & (hb_sa_align(e->kind) - 1) ||
        hb_get32(p, e->esp) != hb_table32(t, e->sa + HB_SA_SPI))
        return HB_DROP(HB_REASON_esp_malformed);
    hb_trim_tail(p, end);
    return HB_PASS;
}

/* RFC 6040 section 4.2: how congestion on the way through the tunnel shows to the inner packet. 0
 * if the packet must be dropped: it was marked, but its sender had not agreed to marks. */
static hb_u32 hb_ecn_out_of_tunnel(hb_packet *p, hb_u32 outer)
{
    hb_u32 inner = hb_traffic_class(p) & 3;
    outer &= 3;
    if (outer == HB_ECN_CE && inner == 0)
        return 0;
    if ((outer == HB_ECN_CE && inner != HB_ECN_CE) ||
        (outer == HB_ECN_ECT1 && inner == HB_ECN_ECT0))
        hb_set_ecn(p, outer);
    return 1;
}

/* Only the default padding is right: 1, 2, 3, ... */
static hb_u32 hb_padding_is_right(const hb_packet *p, hb_u32 at, hb_u32 pad)
{
    hb_u32 wrong = 0;
    for (hb_u32 i = 0; i < pad; i++)
        wrong |= hb_get8(p, at + i) ^ (i + 1);
    return !wrong;
}

/* The inner packet of a tunnel: all but the L2 header goes that is in front of it. */
static hb_u32 hb_unwrap_tunnel(hb_packet *p, const hb_esp *e, hb_u32 next, hb_u32 end)
{
    hb_u32 l2 = p->l3, outer = hb_traffic_class(p);
    hb_u32 version = next == HB_PROTOCOL_IPV4 ? 4 : next == HB_PROTOCOL_IPV6 ? 6 : 0;
    hb_packet inner = *p;
    inner.l3 = e->data;
    hb_trim_tail(&inner, end);
    hb_u32 inner_end = hb_ip_end(&inner);
    if (!version || hb_ip_version(&inner) != version || !inner_end)
        return HB_DROP(HB_REASON_esp_malformed);
    if (!hb_ecn_out_of_tunnel(&inner, outer))
        return HB_DROP(HB_REASON_bad_ecn);
    hb_trim_tail(p, inner_end); /* what is behind it only hid its length (RFC 4303 section 2.7) */
    hb_move(p, e->data - l2, 0, l2);
    hb_trim_head(p, e->data - l2);
    hb_set_ethertype(p, version);
    p->l4 = HB_NO_LAYER;
    return HB_PASS;
}

/* A transport SA: the IP header moves to its payload. */
static hb_u32 hb_unwrap_transport(hb_packet *p, const hb_esp *e, hb_u32 next, hb_u32 end)
{
    hb_trim_tail(p, end);
    hb_move(p, e->data - e->header, 0, e->header);
    hb_trim_head(p, e->data - e->header);
    hb_ip_changed(p, e->next_at, next);
    p->l4 = e->header;
    return HB_PASS;
}

/* Takes the original packet out of the ESP packet that find() found and the caller decrypted. The
 * verdict. */
static hb_u32 hb_esp_unwrap(hb_packet *p, const hb_esp *e)
{
    hb_u32 trailer = hb_get16(p, e->data + e->n - 2), pad = trailer >> 8, next = trailer & 255;
    if (pad + 2 > e->n)
        return HB_DROP(HB_REASON_esp_malformed);
    hb_u32 end = e->data + e->n - 2 - pad;
    if (!hb_padding_is_right(p, end, pad))
        return HB_DROP(HB_REASON_esp_malformed);
    if (next == HB_PROTOCOL_NONE)
        return HB_DROP(HB_REASON_esp_dummy);
    return HB_SA_TUNNEL(e->kind) ? hb_unwrap_tunnel(p, e, next, end)
                                 : hb_unwrap_transport(p, e, next, end);
}

#endif
