/* SPDX-License-Identifier: BSD-3-Clause */
/* neighbour.h: ARP (RFC 826, RFC 5227) and IPv6 neighbour discovery (RFC 4861): the answers of a
 * port to whoever asks for an address that it owns, and questions. Bytes only: who counts and sends
 * them is node_port.c and the NF that asks. */
#ifndef HB_NEIGHBOUR_H
#define HB_NEIGHBOUR_H
#include <stdbool.h>
#include <stdint.h>

#include "mbuf.h"

/* What a port answers for, and with which Ethernet address. Never changed once lcores see it: the
 * control thread replaces it as a whole (hb_set_addresses). */
struct hb_owned {
    uint8_t mac[6];
    uint32_t n;
    hb_ip_address address[HB_MOST_ADDRESSES];
};
typedef struct hb_owned hb_owned;

/* A parsed packet may be a question: one that is not IP, or ICMPv6. */
static inline bool hb_may_ask(const hb_mbuf *m)
{
    return (m->l3 == HB_NO_LAYER) | (m->protocol == 58);
}

/* If the packet asks for an owned address, make it the answer, VLAN tags and all, and return that
 * one's length. 0: it does not, and has not changed. `room`: bytes that there are from the first
 * packet byte on, at least `length`. */
uint32_t hb_answer_neighbour(const hb_owned *owned, uint8_t *packet, uint32_t length,
                             uint32_t room);

/* Write a question for `target`, an address of this family, by a station with the addresses `mac`
 * and `own`, as RFC 826 and RFC 4861 section 4.3 want it: to all, or to the solicited-node group.
 * The VLAN tags are there: the Ethernet type is at `l3` - 2. Returns its length, at most l3 +
 * HB_QUESTION_BYTES. */
#define HB_QUESTION_BYTES 72
uint32_t hb_ask_neighbour(uint8_t *packet, uint32_t l3, uint32_t family, const uint8_t *mac,
                          const uint8_t *own, const uint8_t *target);

#endif
