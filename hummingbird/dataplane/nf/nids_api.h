/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nids_api.h: the compiled rules of a NIDS as Python hands them over
 * (hummingbird/nfs/nids_rules.py), and its alerts as Python takes them away. Plain declarations:
 * cffi reads this file behind api.h.
 */
#ifndef HB_NIDS_API_H
#define HB_NIDS_API_H
#include <stddef.h>
#include <stdint.h>

/* Consecutive elements of an array. */
typedef struct {
    uint32_t first;
    uint32_t count;
} hb_nids_part;

/* Addresses low .. high, 128 bits as two numbers, upper half first; IPv4 as ::ffff:a.b.c.d. */
typedef struct {
    uint64_t low[2];
    uint64_t high[2];
} hb_nids_addresses;

typedef struct {
    uint16_t low;
    uint16_t high;
} hb_nids_ports;

/* Fields of headers. */
#define HB_NIDS_FIELD_DSIZE 0 /* bytes of payload */
#define HB_NIDS_FIELD_TCP_FLAGS 1
#define HB_NIDS_FIELD_TTL 2 /* or hop limit */
#define HB_NIDS_FIELD_TOS 3
#define HB_NIDS_FIELD_IP_ID 4
#define HB_NIDS_FIELD_IP_PROTOCOL 5
#define HB_NIDS_FIELD_FRAGBITS 6 /* 4 reserved, 2 don't fragment, 1 more fragments */
#define HB_NIDS_FIELD_ICMP_TYPE 7
#define HB_NIDS_FIELD_ICMP_CODE 8
#define HB_NIDS_FIELD_ICMP_ID 9
#define HB_NIDS_FIELD_ICMP_SEQ 10
#define HB_NIDS_FIELD_TCP_SEQ 11
#define HB_NIDS_FIELD_TCP_ACK 12
#define HB_NIDS_FIELD_TCP_WINDOW 13
#define HB_NIDS_FIELD_SAME_IP 14 /* 1: source and destination are the same */

/* (field & mask) lies in low .. high, or, negated, does not. A packet without the field fails. */
typedef struct {
    uint32_t field;
    uint32_t negated;
    uint32_t mask;
    uint32_t low;
    uint32_t high;
} hb_nids_check;

/* What looks at the payload. */
#define HB_NIDS_CONTENT 0
#define HB_NIDS_PCRE 1
#define HB_NIDS_IS_DATA_AT 2
#define HB_NIDS_BYTE_TEST 3
#define HB_NIDS_BYTE_JUMP 4

/* Flags of a step. RELATIVE: places count from the cursor, else from the payload's first byte.
 * NOCASE: the content is stored in lower case. AT_END: it ends where the payload ends. LITTLE:
 * endian number. DIGITS: it is written in digits. ALIGN: byte_jump rounds up to 4. NO_CURSOR: a
 * content that later ones do not count from. */
#define HB_NIDS_NEGATED 1
#define HB_NIDS_RELATIVE 2
#define HB_NIDS_NOCASE 4
#define HB_NIDS_AT_END 8
#define HB_NIDS_LITTLE 16
#define HB_NIDS_DIGITS 32
#define HB_NIDS_ALIGN 64
#define HB_NIDS_NO_CURSOR 128

#define HB_NIDS_LESS 1 /* operators of byte_test; LESS | EQUAL is "at most" */
#define HB_NIDS_EQUAL 2
#define HB_NIDS_GREATER 4
#define HB_NIDS_AND 8
#define HB_NIDS_XOR 16

#define HB_NIDS_HERE 0 /* origins of byte_jump */
#define HB_NIDS_BEGIN 1
#define HB_NIDS_END 2

#define HB_NIDS_ANYWHERE 0xffffffff /* reach without a limit */

typedef struct {
    uint8_t kind;
    uint8_t flags;
    uint8_t how;  /* byte_test: operator, byte_jump: origin */
    uint8_t base; /* of digits: 8, 10, 16, or 0 for C's prefixes */
    /* content: first of `length` bytes of hb_nids_config.bytes; pcre: index in regex[] */
    uint32_t data;
    uint32_t length;     /* of the content, or of the number in bytes */
    int32_t start;       /* first place it may begin at; is_data_at, byte_*: the place */
    uint32_t reach;      /* content: bytes from `start` that it must lie in, or HB_NIDS_ANYWHERE */
    uint32_t multiplier; /* byte_jump */
    int32_t post;        /* byte_jump: added in the end */
    uint64_t value;      /* byte_test: compared with */
} hb_nids_step;

/* A regular expression: bytes of hb_nids_config.bytes; flags are HB_NIDS_REGEX_*. */
typedef struct {
    uint32_t at;
    uint32_t length;
    uint32_t flags;
} hb_nids_regex;
#define HB_NIDS_REGEX_CASELESS 1
#define HB_NIDS_REGEX_MULTILINE 2
#define HB_NIDS_REGEX_DOTALL 4
#define HB_NIDS_REGEX_EXTENDED 8
#define HB_NIDS_REGEX_ANCHORED 16
#define HB_NIDS_REGEX_DOLLAR_END 32
#define HB_NIDS_REGEX_UNGREEDY 64

/* Actions: a lower one goes before a higher one. */
#define HB_NIDS_ACTION_PASS 0
#define HB_NIDS_ACTION_DROP 1
#define HB_NIDS_ACTION_REJECT 2
#define HB_NIDS_ACTION_ALERT 3

/* What is known of a packet's flow, and what a rule asks for: all of these. */
#define HB_NIDS_FLOW_TO_SERVER 1
#define HB_NIDS_FLOW_TO_CLIENT 2
#define HB_NIDS_FLOW_ESTABLISHED 4
#define HB_NIDS_FLOW_NOT_ESTABLISHED 8

typedef struct {
    uint8_t action;
    uint8_t flow;    /* HB_NIDS_FLOW_* */
    uint8_t version; /* 4 or 6; 0: either */
    uint8_t both;    /* matches in either direction */
    uint8_t any_protocol;
    uint8_t protocol[2]; /* one of these two */
    uint8_t any_port;
    uint32_t src; /* index in hb_nids_config.address_set */
    uint32_t dst;
    uint32_t src_ports; /* index in hb_nids_config.port_set */
    uint32_t dst_ports;
    hb_nids_part checks; /* of check[] */
    hb_nids_part chains; /* of chain[]: each must match, and none depends on another */
} hb_nids_rule;

/* Everything; hb_nids_new() copies it. */
typedef struct {
    const hb_nids_rule *rule; /* in the order of their actions, then of the files */
    const hb_nids_check *check;
    const hb_nids_part *chain; /* steps that are relative to each other, in order */
    const hb_nids_step *step;
    const hb_nids_regex *regex;
    const uint8_t *bytes;
    const hb_nids_part *address_set; /* of addresses[], sorted; none: any address */
    const hb_nids_addresses *addresses;
    const hb_nids_part *port_set; /* of ports[], sorted; none: any port */
    const hb_nids_ports *ports;
    const uint32_t *list;           /* rules, by the parts below */
    const hb_nids_part *of_pattern; /* [patterns]: rules to look at when it is in the payload */
    /* Rules to look at without a pattern, for TCP, UDP and other packets: those for any port ... */
    hb_nids_part always[3];
    /* ... and by the source and the destination port of TCP and of UDP: [65536] indices in
     * port_list[]; NULL: none */
    const uint16_t *by_port[2][2];
    const hb_nids_part *port_list; /* of list[] */
    uint32_t rules;
    uint32_t checks;
    uint32_t chains;
    uint32_t steps;
    uint32_t regexes;
    uint32_t nb_bytes;
    uint32_t address_sets;
    uint32_t nb_addresses;
    uint32_t port_sets;
    uint32_t nb_ports;
    uint32_t lists;
    uint32_t patterns;
    uint32_t port_lists;
    uint32_t on_alert;    /* packets with an alert: HB_NIDS_PASS, _DROP, or _RETYPE + packet type */
    uint32_t assume;      /* take TCP for established though no handshake was seen */
    uint32_t track;       /* HB_NIDS_TRACK_*: which flows rules ask about */
    uint32_t alert_rate;  /* alerts of a rule in a second of packet time; 0: no limit */
    uint32_t most_alerts; /* of one packet; 0: no limit */
    uint32_t ring;        /* alerts that wait for Python on each lcore, a power of two */
} hb_nids_config;
#define HB_NIDS_PASS 0
#define HB_NIDS_DROP 1
#define HB_NIDS_RETYPE 2
#define HB_NIDS_TRACK_TCP 1
#define HB_NIDS_TRACK_OTHERS 2

typedef struct hb_nids hb_nids;

/* NULL: out of memory, or a regular expression is wrong; `error` says which. */
hb_nids *hb_nids_new(const hb_nids_config *config, char *error, size_t size);
/* After the data plane is gone. */
void hb_nids_free(hb_nids *nids);
/* 0, or -1 with PCRE2's words in `error` and the place in *at. */
int hb_nids_check_regex(const uint8_t *regex, uint32_t length, uint32_t flags, char *error,
                        size_t size, uint32_t *at);

/* The rules that one Ethernet frame matches, whatever their patterns say: at most `most`,
 * ascending; returns how many. `flow` is what is known of its flow. For tests and tools: allocates.
 */
uint32_t hb_nids_match(const hb_nids *nids, const uint8_t *packet, uint32_t length, uint32_t flow,
                       uint32_t *rules, uint32_t most);

/* One alert. */
typedef struct {
    uint64_t time_ns; /* of the packet */
    uint64_t flow_id; /* 51 bits: differs from that of every other flow that is remembered */
    uint32_t serial;  /* the packet's number at its input port */
    uint32_t rule;
    uint8_t src[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t dst[16];
    uint16_t src_port; /* or type of ICMP */
    uint16_t dst_port; /* or code */
    uint8_t protocol;
    uint8_t blocked;
    uint8_t flow; /* HB_NIDS_FLOW_* */
    uint8_t in_port;
    uint8_t version; /* of IP */
    uint8_t has_ports;
    uint8_t pad[6];
} hb_nids_alert;

/* Take up to `most` alerts; returns how many there were. One thread. */
uint32_t hb_nids_take(hb_nids *nids, hb_nids_alert *alerts, uint32_t most);

/* Counters of all lcores; may be read while it runs. */
typedef struct {
    uint64_t candidates; /* packets with a rule to look at */
    uint64_t evaluated;  /* rules looked at */
    uint64_t alerts; /* matches of rules that alert, drop or reject, in packets not passed ... */
    uint64_t passed; /* packets in which a pass rule took the alerts away */
    uint64_t suppressed;   /* ... of which so many were over the rate of their rule ... */
    uint64_t surplus;      /* ... and so many had too many others in the same packet */
    uint64_t lost;         /* alerts for which the ring had no room */
    uint64_t gave_up;      /* rules that took too long to look at, and count as not matched */
    uint64_t no_handshake; /* TCP candidates whose handshake was not seen */
} hb_nids_counters;
void hb_nids_count(const hb_nids *nids, hb_nids_counters *sum);
/* suppressed[rules]: alerts of each rule that were over its rate. */
void hb_nids_suppressed(const hb_nids *nids, uint64_t *suppressed);
#endif
