/* SPDX-License-Identifier: BSD-3-Clause */
/* inet.h: bytes and checksums of Internet headers, on the host. */
#ifndef HB_INET_H
#define HB_INET_H
#include <stdint.h>

static inline uint32_t hb_get_be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t hb_get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void hb_put_be16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void hb_put_be32(uint8_t *p, uint32_t v)
{
    hb_put_be16(p, v >> 16);
    hb_put_be16(p + 2, v);
}

/* The Internet checksum (RFC 1071) of n bytes, as it stands in a header; `sum` is that of what
 * goes before: a pseudo header's 16-bit words added up, or 0. */
static inline uint32_t hb_inet_sum(const uint8_t *p, uint32_t n, uint64_t sum)
{
    for (; n > 1; p += 2, n -= 2)
        sum += hb_get_be16(p);
    if (n)
        sum += (uint32_t)p[0] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)~sum & 0xffff;
}

#endif
