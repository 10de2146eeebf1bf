/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * peers.h: what bench/nf.py compares the network functions with. Each .c file of this folder is one
 * peer; bench/peer.py compiles it into a library of its own, because each needs another package.
 *
 * peer_<name>_new() returns a context, or NULL and a text. Its run functions have one form: do the
 * work for n packets of `length` bytes each, from the first byte that matters to the peer on.
 */
#ifndef HB_PEERS_H
#define HB_PEERS_H
#include <stdint.h>

#define PEER_TEXT 256 /* bytes of an error text */

/* One burst; result[i] may be left alone where there is nothing to say about a packet. */
typedef void peer_run(void *context, uint8_t *const *packet, uint32_t length, uint64_t *result,
                      uint32_t n);

/* ---- clock.c ----------------------------------------------------------------------------------
 */

/* Core clock in GHz: additions of which each needs the one before, one a cycle. */
double peer_core_ghz(void);

/* ---- ipsec_mb.c: AES-128-CBC and HMAC-SHA1-96 -------------------------------------------------
 */

/* Packets are what ESP puts on the wire: SPI and sequence number, IV, then a multiple of 16 bytes
 * to encrypt in place, then room for the ICV. All but ciphertext and ICV are there already. */
void *peer_ipsec_mb_new(uint32_t skip, const uint8_t *key, const uint8_t *auth_key, char *text);
void peer_ipsec_mb_free(void *context);
/* The same with the library's burst and job interface; each burst is finished when it returns. */
peer_run peer_ipsec_mb_burst, peer_ipsec_mb_job;
const char *peer_ipsec_mb_version(void);

/* ---- hyperscan.c ------------------------------------------------------------------------------
 */

typedef struct {
    const uint8_t *const *bytes; /* [n] */
    const uint32_t *length;      /* [n] */
    uint32_t n;
} peer_patterns;
/* `skip` bytes in front of each payload are not scanned. */
void *peer_hyperscan_new(uint32_t skip, const peer_patterns *patterns, char *text);
void peer_hyperscan_free(void *context);
/* result[i]: 0 if no pattern occurs, else the lowest one's number + 1. */
peer_run peer_hyperscan_scan;
const char *peer_hyperscan_version(void);

/* ---- dfa8.c: Aho-Corasick as a full table, eight packets at a time -----------------------------
 */

void *peer_dfa8_new(uint32_t skip, const peer_patterns *patterns, char *text);
void peer_dfa8_free(void *context);
/* result[i]: as above. Entries of 16 and of 32 bits. */
peer_run peer_dfa8_scan16, peer_dfa8_scan32;

/* ---- fib.c: DPDK's rte_fib, DIR-24-8 with entries of 16 bits -----------------------------------
 */

typedef struct {
    const uint32_t *prefix; /* [n], host order */
    const uint8_t *bits;    /* [n] */
    const uint16_t *hop;    /* [n], below 0x7fff */
    uint32_t n;
} peer_routes;
/* Starts DPDK in this process, once; the calling thread keeps its CPUs. */
void *peer_fib_new(const peer_routes *routes, char *text);
/* hop[i]: the next hop of address[i], or 0x7fff for none. */
typedef void peer_lookup(void *context, const uint32_t *address, uint64_t *hop, uint32_t n);
peer_lookup peer_fib_scalar, peer_fib_vector;
/* 0: this CPU has no AVX-512, and peer_fib_vector() may not be called. */
int peer_fib_has_vector(void *context);
const char *peer_fib_version(void);

/* ---- acl.c: DPDK's rte_acl ---------------------------------------------------------------------
 */

/* IPv4, host order; both ends of a range included. */
typedef struct {
    uint32_t src, dst;
    uint8_t src_bits, dst_bits;
    uint8_t protocol, any_protocol;
    uint16_t sport[2], dport[2];
} peer_rule;
typedef struct {
    const peer_rule *rule; /* [n], the first that matches wins */
    uint32_t n;
} peer_rules;
/* Starts DPDK in this process, once; the calling thread keeps its CPUs. Packets are Ethernet with
 * IPv4 without options. */
void *peer_acl_new(const peer_rules *rules, char *text);
/* result[i]: 0 if no rule matches, else the first one's number + 1. */
peer_run peer_acl_sse, peer_acl_avx2, peer_acl_avx512x16, peer_acl_avx512x32;
/* Does this CPU have it? Of the four in this order. */
int peer_acl_has(void *context, int way);
const char *peer_acl_version(void);

#endif
