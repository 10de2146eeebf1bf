/* SPDX-License-Identifier: BSD-3-Clause */
/* nat_icmp.h: ICMP errors through a NAT (RFC 5508 section 4). */
#ifndef HB_NAT_ICMP_H
#define HB_NAT_ICMP_H
#include "nf/nat_table.h"

/* What an ICMP type is to a NAT. */
enum hb_nat_icmp { HB_NAT_ICMP_REQUEST, HB_NAT_ICMP_REPLY, HB_NAT_ICMP_ERROR, HB_NAT_ICMP_NONE };
enum hb_nat_icmp hb_nat_icmp_of(uint32_t type);

/* Translate an ICMP error: the IPv4 packet at `ip` of `length` bytes, whole, with a right header
 * length, and the packet that it quotes. Returns its verdict. */
uint32_t hb_nat_icmp_error(hb_nat *n, uint16_t zone, uint8_t *ip, uint32_t length);

#endif
