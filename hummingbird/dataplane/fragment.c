/* SPDX-License-Identifier: BSD-3-Clause */
/* fragment.c: cuts an IPv4 packet into fragments (RFC 791 section 3.2). */
#include <string.h>

#include "dataplane.h"
#include "inet.h"

#define MORE 0x2000u
#define DONT 0x4000u
#define MOST_FRAGMENTS 64

/* Options that every fragment carries (RFC 791 section 3.1: bit 7 of their type); the others become
 * no-operations. */
static void keep_copied_options(uint8_t *ip, uint32_t header)
{
    for (uint32_t at = 20; at < header && ip[at] != 0;) {
        uint32_t length = ip[at] == 1 ? 1 : at + 1 < header ? ip[at + 1] : 0;
        if (!length || (length < 2 && ip[at] != 1) || at + length > header)
            return; /* nonsense travels as it is */
        if (!(ip[at] & 0x80))
            memset(ip + at, 1, length);
        at += length;
    }
}

/* Length, flags and offset of one fragment, and its checksum. */
static void finish_header(uint8_t *ip, uint32_t header, uint32_t bytes, uint32_t place)
{
    hb_put_be16(ip + 2, header + bytes);
    hb_put_be16(ip + 6, place);
    hb_put_be16(ip + 10, 0);
    hb_put_be16(ip + 10, hb_inet_sum(ip, header, 0));
}

bool hb_fragment(hb_nf_seat *seat, uint32_t handle, uint32_t mtu)
{
    const hb_arena *a = seat->arena;
    hb_mbuf *m = hb_header(a, handle);
    uint8_t *packet = hb_data(a, m);
    if (m->l3 == HB_NO_LAYER || packet[m->l3] >> 4 != 4)
        return false;
    uint8_t *ip = packet + m->l3;
    uint32_t header = (ip[0] & 15u) * 4, total = hb_get_be16(ip + 2);
    uint32_t place = hb_get_be16(ip + 6), l3 = m->l3, made[MOST_FRAGMENTS], n = 0;
    if (place & DONT || header < 20 || total < header || l3 + total > m->data_len ||
        mtu < header + 8 || total <= mtu)
        return false;
    uint32_t step = (mtu - header) & ~7u, data = total - header;
    uint32_t pieces = (data + step - 1) / step;
    /* First all mbufs: a datagram that misses a piece is worth nothing. */
    for (; pieces <= MOST_FRAGMENTS && n + 1 < pieces; n++)
        if ((made[n] = hb_nf_create(seat, handle)) == HB_NO_MBUF)
            break;
    if (n + 1 < pieces) {
        for (uint32_t i = 0; i < n; i++) /* created, so they have to end */
            hb_drop(seat->lcore, seat->node, HB_REASON_no_mbuf, made[i]);
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t from = (i + 1) * step, bytes = data - from < step ? data - from : step;
        hb_mbuf *f = hb_header(a, made[i]);
        uint8_t *to = hb_data(a, f);
        memcpy(to, packet, l3 + header);
        memcpy(to + l3 + header, ip + header + from, bytes);
        f->data_len = (uint16_t)(l3 + header + bytes);
        keep_copied_options(to + l3, header);
        bool last = i + 1 == n;
        finish_header(to + l3, header, bytes,
                      ((place & 0x1fffu) + from / 8) | (last ? place & MORE : MORE));
        hb_nf_emit(seat, made[i], m->type);
    }
    m->data_len = (uint16_t)(l3 + header + step);
    finish_header(ip, header, step, place | MORE);
    return true;
}
