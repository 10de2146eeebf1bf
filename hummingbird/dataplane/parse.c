/* SPDX-License-Identifier: BSD-3-Clause */
#include "parse.h"

#include <string.h>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#define ETHERNET_BYTES 14
#define TAG_BYTES 4
#define IPV4_BYTES 20
#define IPV6_BYTES 40
#define EXTENSION_BYTES 8 /* of the shortest IPv6 extension header */
#define MOST_EXTENSIONS 8 /* more are an attack on whoever walks them */

enum { TYPE_IPV4 = 0x0800, TYPE_VLAN = 0x8100, TYPE_IPV6 = 0x86dd };
enum { TYPE_QINQ = 0x88a8, TYPE_OLD_QINQ = 0x9100 };

enum { HOP_BY_HOP = 0, ICMP = 1, TCP = 6, UDP = 17, ROUTING = 43, FRAGMENT = 44 };
enum { ICMPV6 = 58, NO_NEXT_HEADER = 59, DESTINATION = 60, SCTP = 132 };

/* What the walk over the headers has found. Offsets are from the first packet byte. */
typedef struct {
    uint64_t src[2]; /* addresses as two numbers, upper half first */
    uint64_t dst[2];
    uint32_t l3;
    uint32_t at;  /* the next header; in the end the transport header */
    uint32_t end; /* of the IP packet: what follows is Ethernet padding */
    uint32_t src_port;
    uint32_t dst_port;
    uint8_t protocol;
    bool fragment;
    bool no_l4; /* nothing of a transport header in here */
} hb_walk;

static inline uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t be32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap32(v) : v;
}

static inline uint64_t be64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap64(v) : v;
}

static inline void put_be64(uint8_t *p, uint64_t v)
{
    v = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap64(v) : v;
    memcpy(p, &v, sizeof v);
}

/* The lower half of ::ffff:a.b.c.d. */
static inline uint64_t mapped(const uint8_t *ipv4)
{
    return (uint64_t)0xffff << 32 | be16(ipv4) << 16 | be16(ipv4 + 2);
}

/* ---- hash ------------------------------------------------------------------------------------ */

#if defined(__SSE4_2__)
#define CRC32C(crc, word) ((uint32_t)_mm_crc32_u64(crc, word))
#elif defined(__ARM_FEATURE_CRC32)
#define CRC32C(crc, word) __crc32cd(crc, word)
#endif

/* The words of a key as they lie in memory. The first half of an IPv4 address is 0 in both, and
 * then costs nothing. */
#ifdef CRC32C
static inline uint32_t hash_words(const uint64_t w[5])
{
    uint32_t crc = CRC32C(0xffffffffu, w[1]);
    crc = CRC32C(crc, w[3]);
    crc = CRC32C(crc, w[4]);
    return w[0] | w[2] ? CRC32C(CRC32C(crc, w[0]), w[2]) : crc;
}
#else
/* Both halves of the product: every bit of a factor reaches every bit of the result. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The constants (wyhash's) keep zero words from wiping out their partner. */
static inline uint32_t hash_words(const uint64_t w[5])
{
    uint64_t first = fold(w[0] ^ 0xa0761d6478bd642fu, w[1] ^ 0xe7037ed1a0b428dbu);
    uint64_t second = fold(w[2] ^ 0x8ebc6af09c88c6e3u, w[3] ^ 0x589965cc75374cc3u);
    return (uint32_t)fold(first ^ second ^ 0x1d8e4e27c47d124fu, w[4] ^ 0xeb44accab455d165u);
}
#endif

uint32_t hb_key_hash(const hb_key *key)
{
    return hash_words(key->word);
}

/* What is not IP is spread by the pair of MAC addresses and the type; both directions meet. */
static uint32_t hash_link(const uint8_t *packet, uint32_t type)
{
    uint64_t to = be64(packet) >> 16;
    uint64_t from = be64(packet + 6) >> 16;
    return hash_words((uint64_t[5]){0, to < from ? to : from, 0, to < from ? from : to, type});
}

/* ---- headers, outermost first ---------------------------------------------------------------- */

static inline bool is_tag(uint32_t type)
{
    return type == TYPE_VLAN || type == TYPE_QINQ || type == TYPE_OLD_QINQ;
}

/* Behind the Ethernet header and at most two tags. False if a tag is cut. */
static inline bool parse_link(const uint8_t *p, uint32_t length, hb_mbuf *m, uint32_t *at,
                              uint32_t *type)
{
    m->vlan[0] = m->vlan[1] = 0;
    *at = ETHERNET_BYTES;
    *type = be16(p + 12);
    for (int i = 0; i < 2 && is_tag(*type); i++) {
        if (length - *at < TAG_BYTES)
            return false;
        m->vlan[i] = (uint16_t)be16(p + *at);
        *type = be16(p + *at + 2);
        *at += TAG_BYTES;
    }
    return true;
}

static inline enum hb_reason parse_ipv4(const uint8_t *p, uint32_t length, hb_walk *w)
{
    const uint8_t *ip = p + w->l3;
    if (length - w->l3 < IPV4_BYTES)
        return HB_REASON_truncated;
    uint32_t header = (ip[0] & 15) * 4u;
    uint32_t total = be16(ip + 2);
    if (ip[0] >> 4 != 4 || header < IPV4_BYTES || total < header)
        return HB_REASON_malformed;
    if (total > length - w->l3)
        return HB_REASON_truncated;

    w->src[0] = w->dst[0] = 0;
    w->src[1] = mapped(ip + 12);
    w->dst[1] = mapped(ip + 16);
    uint32_t fragment = be16(ip + 6) & 0x3fff; /* more fragments, offset */
    w->protocol = ip[9];
    w->fragment = fragment != 0;
    w->no_l4 = (fragment & 0x1fff) != 0;
    if (w->fragment)
        w->src_port = be16(ip + 4);
    w->at = w->l3 + header;
    w->end = w->l3 + total;
    return HB_REASON_none;
}

/* One IPv6 fragment header. Its next header is the protocol of all fragments of the datagram, so
 * the walk ends here, even where the first fragment alone could be walked further. */
static void parse_fragment(const uint8_t *header, hb_walk *w)
{
    uint32_t field = be16(header + 2);
    w->fragment = (field & 0xfff9) != 0; /* an "atomic" one is whole (RFC 6946) */
    w->no_l4 = field >> 3 != 0;
    if (w->fragment) {
        w->src_port = be16(header + 4);
        w->dst_port = be16(header + 6);
    }
}

/* Walk the extension headers; w->protocol is the first header's number. */
static enum hb_reason skip_extensions(const uint8_t *p, hb_walk *w)
{
    for (int i = 0; i <= MOST_EXTENSIONS; i++) {
        uint8_t kind = w->protocol;
        if (kind != HOP_BY_HOP && kind != ROUTING && kind != DESTINATION && kind != FRAGMENT) {
            w->no_l4 = kind == NO_NEXT_HEADER;
            return HB_REASON_none;
        }
        if (w->end - w->at < EXTENSION_BYTES)
            return HB_REASON_truncated;
        const uint8_t *header = p + w->at;
        uint32_t bytes = kind == FRAGMENT ? EXTENSION_BYTES : (header[1] + 1u) * 8;
        if (w->end - w->at < bytes)
            return HB_REASON_truncated;
        w->protocol = header[0];
        w->at += bytes;
        if (kind == FRAGMENT)
            parse_fragment(header, w);
        if (w->fragment)
            return HB_REASON_none;
    }
    return HB_REASON_malformed;
}

static enum hb_reason parse_ipv6(const uint8_t *p, uint32_t length, hb_walk *w)
{
    const uint8_t *ip = p + w->l3;
    if (length - w->l3 < IPV6_BYTES)
        return HB_REASON_truncated;
    if (ip[0] >> 4 != 6)
        return HB_REASON_malformed;
    uint32_t payload = be16(ip + 4);
    w->protocol = ip[6];
    w->at = w->l3 + IPV6_BYTES;
    if (payload > length - w->at)
        return HB_REASON_truncated;
    w->end = payload ? w->at + payload : length; /* 0: a jumbogram, or nothing that matters */
    w->src[0] = be64(ip + 8);
    w->src[1] = be64(ip + 16);
    w->dst[0] = be64(ip + 24);
    w->dst[1] = be64(ip + 32);
    return skip_extensions(p, w);
}

/* Echo request and reply share a flow: their id stands for both ports. */
static enum hb_reason parse_icmp(const uint8_t *icmp, uint32_t bytes, uint32_t least,
                                 uint32_t request, uint32_t reply, hb_walk *w)
{
    if (bytes < least)
        return HB_REASON_truncated;
    if (icmp[0] != request && icmp[0] != reply)
        return HB_REASON_none;
    if (bytes < 8)
        return HB_REASON_truncated;
    w->src_port = w->dst_port = be16(icmp + 4);
    return HB_REASON_none;
}

static inline enum hb_reason parse_ports(const uint8_t *l4, uint32_t bytes, uint32_t header,
                                         hb_walk *w)
{
    if (bytes < header)
        return HB_REASON_truncated;
    w->src_port = be16(l4);
    w->dst_port = be16(l4 + 2);
    return HB_REASON_none;
}

static inline enum hb_reason parse_transport(const uint8_t *p, uint32_t type, hb_walk *w)
{
    const uint8_t *l4 = p + w->at;
    uint32_t bytes = w->end - w->at;
    if (w->fragment)
        return HB_REASON_none;
    if (w->protocol == TCP)
        return parse_ports(l4, bytes, 20, w);
    if (w->protocol == UDP)
        return parse_ports(l4, bytes, 8, w);
    if (w->protocol == SCTP)
        return parse_ports(l4, bytes, 12, w);
    if (w->protocol == ICMP && type == TYPE_IPV4)
        return parse_icmp(l4, bytes, 8, 8, 0, w);
    if (w->protocol == ICMPV6 && type == TYPE_IPV6)
        return parse_icmp(l4, bytes, 4, 128, 129, w);
    return HB_REASON_none;
}

/* Small fields that are read as a whole right after: written as a whole, too. */
#define LITTLE (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)

/* The last word of a key. */
static inline uint64_t last_word(uint64_t port0, uint64_t port1, uint64_t zone, uint64_t protocol,
                                 uint64_t fragment)
{
    return LITTLE ? port0 | port1 << 16 | zone << 32 | protocol << 48 | fragment << 56
                  : port0 << 48 | port1 << 32 | zone << 16 | protocol << 8 | fragment;
}

/* hb_mbuf.layers. */
static inline uint32_t layers_word(uint32_t l3, uint32_t l4, uint32_t protocol, uint32_t direction)
{
    return LITTLE ? l3 | l4 << 8 | protocol << 16 | direction << 24
                  : l3 << 24 | l4 << 16 | protocol << 8 | direction;
}

/* ---- the key --------------------------------------------------------------------------------- */

/* 1 if the source is the larger end. Without branches: which way a packet goes is a coin toss. */
static inline uint32_t is_reversed(const hb_walk *w)
{
    uint32_t ports = w->src_port > w->dst_port;
    uint32_t low = (w->src[1] > w->dst[1]) | ((w->src[1] == w->dst[1]) & ports);
    return (w->src[0] > w->dst[0]) | ((w->src[0] == w->dst[0]) & low);
}

static inline void fill(hb_mbuf *m, hb_key *key, const hb_walk *w)
{
    uint32_t back = is_reversed(w);
    uint64_t a[2] = {back ? w->dst[0] : w->src[0], back ? w->dst[1] : w->src[1]};
    uint64_t b[2] = {back ? w->src[0] : w->dst[0], back ? w->src[1] : w->dst[1]};
    uint32_t port0 = back ? w->dst_port : w->src_port;
    uint32_t port1 = back ? w->src_port : w->dst_port;
    put_be64(key->addr[0], a[0]);
    put_be64(key->addr[0] + 8, a[1]);
    put_be64(key->addr[1], b[0]);
    put_be64(key->addr[1] + 8, b[1]);
    key->word[4] = last_word(port0, port1, m->zone, w->protocol, w->fragment);
    m->hash = hb_key_hash(key);
    uint32_t l4 = w->no_l4 || w->at >= HB_NO_LAYER ? HB_NO_LAYER : w->at;
    m->layers = layers_word(w->l3, l4, w->protocol, back);
}

/* Not IP, or not to be believed. */
static enum hb_reason fill_unknown(hb_mbuf *m, hb_key *key, enum hb_reason reason, uint32_t hash)
{
    memset(key, 0, sizeof *key);
    m->hash = hash;
    m->layers = layers_word(HB_NO_LAYER, HB_NO_LAYER, 0, 0);
    return reason;
}

/* Most packets: IPv4 without options or tags, not a fragment, TCP or UDP. The same answer as the
 * walk over the headers gives; false leaves it to that. Nothing is stored that is read again as
 * part of something larger, and nothing branches on which end is the first: that is a coin toss. */
static inline bool parse_plain(const uint8_t *p, uint32_t length, hb_mbuf *m, hb_key *key)
{
    const uint8_t *ip = p + ETHERNET_BYTES;
    /* EtherType, version and header length in one; the byte behind them is the type of service */
    if (!LITTLE || length < ETHERNET_BYTES + IPV4_BYTES + 8 ||
        (be32(p + 12) & 0xffffff00) != ((uint32_t)TYPE_IPV4 << 16 | 0x4500) ||
        be16(ip + 6) & 0x3fff)
        return false;
    uint32_t protocol = ip[9], total = be16(ip + 2);
    uint32_t least = protocol == UDP ? IPV4_BYTES + 8 : IPV4_BYTES + 20;
    if ((protocol != UDP && protocol != TCP) || total < least || total > length - ETHERNET_BYTES)
        return false;
    uint64_t ends, swapped = be64(ip + 12);
    memcpy(&ends, ip + 12, sizeof ends); /* source in the lower half, bytes as in the packet */
    uint32_t src = (uint32_t)(swapped >> 32), dst = (uint32_t)swapped;
    uint32_t ports = be32(ip + IPV4_BYTES); /* source in the upper half */
    uint32_t back = src > dst;
    if (__builtin_expect(src == dst, 0))
        back = ports >> 16 > (ports & 0xffff);
    ends = back ? ends << 32 | ends >> 32 : ends;
    ports = back ? ports : ports << 16 | ports >> 16;
    uint64_t mapped_bytes = 0xffff0000; /* the two ff of ::ffff:a.b.c.d */
    *key = (hb_key){.word = {0, ends << 32 | mapped_bytes, 0, (ends >> 32) << 32 | mapped_bytes,
                             ports | (uint64_t)m->zone << 32 | (uint64_t)protocol << 48}};
    m->vlan[0] = m->vlan[1] = 0;
    m->hash = hb_key_hash(key);
    m->layers = layers_word(ETHERNET_BYTES, ETHERNET_BYTES + IPV4_BYTES, protocol, back);
    return true;
}

/* From the outermost header in. */
static enum hb_reason walk(const uint8_t *packet, uint32_t length, hb_mbuf *m, hb_key *key)
{
    hb_walk w = {.src_port = 0};
    uint32_t type;
    if (length < ETHERNET_BYTES) {
        m->vlan[0] = m->vlan[1] = 0;
        return fill_unknown(m, key, HB_REASON_runt, 0);
    }
    if (!parse_link(packet, length, m, &w.l3, &type))
        return fill_unknown(m, key, HB_REASON_truncated, 0);
    enum hb_reason bad;
    if (type == TYPE_IPV4)
        bad = parse_ipv4(packet, length, &w);
    else if (type == TYPE_IPV6)
        bad = parse_ipv6(packet, length, &w);
    else
        return fill_unknown(m, key, HB_REASON_none, hash_link(packet, type));
    if (bad == HB_REASON_none)
        bad = parse_transport(packet, type, &w);
    if (bad != HB_REASON_none)
        return fill_unknown(m, key, bad, 0);
    fill(m, key, &w);
    return HB_REASON_none;
}

enum hb_reason hb_parse(const uint8_t *packet, uint32_t length, hb_mbuf *m, hb_key *key)
{
    return parse_plain(packet, length, m, key) ? HB_REASON_none : walk(packet, length, m, key);
}

/* ---- rules ----------------------------------------------------------------------------------- */

/* True if the first `bits` bits are the same. */
static bool in_prefix(const uint8_t *address, const uint8_t *prefix, uint32_t bits)
{
    uint64_t high = be64(address) ^ be64(prefix);
    uint64_t low = be64(address + 8) ^ be64(prefix + 8);
    if (bits == 0)
        return true;
    if (bits <= 64)
        return high >> (64 - bits) == 0;
    return high == 0 && low >> (bits < 128 ? 128 - bits : 0) == 0;
}

static bool in_range(uint32_t port, const uint16_t range[2])
{
    return port >= range[0] && port <= range[1];
}

static bool is_any(const uint16_t range[2])
{
    return range[0] == 0 && range[1] == 65535;
}

static bool asks_for_ports(const hb_rule *r)
{
    return !is_any(r->src_port) || !is_any(r->dst_port) || !is_any(r->port);
}

/* ICMP has a key's ports only to tell flows apart. */
static bool has_ports(const hb_key *key)
{
    return !key->fragment &&
           (key->protocol == TCP || key->protocol == UDP || key->protocol == SCTP);
}

/* An IPv4 address is never all zero here, and protocol 0 in IPv6 is only ever a fragment's. */
static bool is_ip(const hb_key *key)
{
    static const hb_key none;
    return memcmp(key, &none, sizeof none) != 0;
}

static bool matches(const hb_rule *r, const hb_key *key, uint32_t direction)
{
    uint32_t src = direction, dst = !direction;
    uint32_t src_port = key->port[src], dst_port = key->port[dst];
    if (!r->any_proto && r->proto != key->protocol)
        return false;
    if (!in_prefix(key->addr[src], r->src, r->src_bits) ||
        !in_prefix(key->addr[dst], r->dst, r->dst_bits))
        return false;
    if (!asks_for_ports(r))
        return true;
    return has_ports(key) && in_range(src_port, r->src_port) && in_range(dst_port, r->dst_port) &&
           (in_range(src_port, r->port) || in_range(dst_port, r->port));
}

/* What is not IP has no address or protocol that a rule could ask for. */
static bool matches_everything(const hb_rule *r)
{
    return r->any_proto && !r->src_bits && !r->dst_bits && !asks_for_ports(r);
}

const hb_rule *hb_match_rules(const hb_rule *rules, uint32_t count, const hb_key *key,
                              uint32_t direction)
{
    bool ip = is_ip(key);
    for (uint32_t i = 0; i < count; i++)
        if (ip ? matches(rules + i, key, direction) : matches_everything(rules + i))
            return rules + i;
    return NULL;
}

int hb_classify(const uint8_t *packet, uint32_t length, const hb_rule *rules, uint32_t count,
                int32_t *rule_index)
{
    hb_mbuf m = {.zone = 0};
    hb_key key;
    *rule_index = -1;
    enum hb_reason bad = hb_parse(packet, length, &m, &key);
    if (bad != HB_REASON_none)
        return (int)bad;
    const hb_rule *r = hb_match_rules(rules, count, &key, m.direction);
    if (r)
        *rule_index = (int32_t)(r - rules);
    return 0;
}
