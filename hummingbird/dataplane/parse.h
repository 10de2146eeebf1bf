/* SPDX-License-Identifier: BSD-3-Clause */
/* parse.h: from the bytes of an Ethernet frame to offsets and a 5-tuple. Never reads past `length`.
 */
#ifndef HB_PARSE_H
#define HB_PARSE_H
#include "mbuf.h"

/* The normalised 5-tuple: the smaller (address, port) first, so both directions have one key.
 * IPv4 addresses as ::ffff:a.b.c.d. A fragment of any offset has its datagram's id for ports: of
 * IPv4 for the sender's, of IPv6 one half for each. So all fragments of a datagram are one flow.
 * 40 bytes, no padding: compared and hashed as five 64-bit words. */
typedef union {
    struct {
        uint8_t addr[2][16];
        uint16_t port[2]; /* host order */
        uint16_t zone;
        uint8_t protocol; /* 0: not IP */
        uint8_t fragment; /* 1: of a fragmented datagram */
    };
    uint64_t word[5];
} hb_key;
_Static_assert(sizeof(hb_key) == 40, "a key is five 64-bit words");

/* Fills l3, l4, protocol, vlan, direction and hash of the header and the key; m->zone is given.
 * Returns HB_REASON_none, or why the packet must be dropped: runt, truncated or malformed.
 * Not IP is not an error: l3 is HB_NO_LAYER, the key is all zero, the hash is that of the pair of
 * MAC addresses and the type. A packet to drop looks like that, too, but for its hash, which is 0.
 * The echo id of ICMP stands for both ports, so that request and reply are one flow. */
enum hb_reason hb_parse(const uint8_t *packet, uint32_t length, hb_mbuf *m, hb_key *key);

/* Hash of a key; symmetric because keys are normalised. */
uint32_t hb_key_hash(const hb_key *key);

/* The first rule that a packet with this key and direction matches, or NULL. */
const hb_rule *hb_match_rules(const hb_rule *rules, uint32_t count, const hb_key *key,
                              uint32_t direction);
#endif
