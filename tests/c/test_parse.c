/* SPDX-License-Identifier: BSD-3-Clause */
/* Packets made by hand, byte by byte, against the parser and the rules. Each is parsed in a buffer
 * of exactly its size, so that the sanitizer sees a byte read too far. */
#include "check.h"
#include "parse.h"

#include <stdlib.h>
#include <string.h>

/* ---- building packets ------------------------------------------------------------------------ */

typedef struct {
    uint8_t b[1600];
    uint32_t n;
} frame;

typedef struct {
    enum hb_reason reason;
    hb_mbuf m;
    hb_key key;
} result;

enum { V4 = 0x0800, V6 = 0x86dd };

static void put8(frame *f, uint32_t v)
{
    f->b[f->n++] = (uint8_t)v;
}

static void put16(frame *f, uint32_t v)
{
    put8(f, v >> 8);
    put8(f, v & 255);
}

static void put32(frame *f, uint32_t v)
{
    put16(f, v >> 16);
    put16(f, v & 65535);
}

static void put_zeros(frame *f, uint32_t n)
{
    memset(f->b + f->n, 0, n);
    f->n += n;
}

static void set16(frame *f, uint32_t at, uint32_t v)
{
    f->b[at] = (uint8_t)(v >> 8);
    f->b[at + 1] = (uint8_t)v;
}

static frame ethernet(uint32_t type)
{
    frame f = {.n = 0};
    put32(&f, 0x02000000);
    put16(&f, 0x0002);
    put32(&f, 0x02000000);
    put16(&f, 0x0001);
    put16(&f, type);
    return f;
}

static frame tagged(uint32_t tpid, uint32_t tci, uint32_t type)
{
    frame f = ethernet(tpid);
    put16(&f, tci);
    put16(&f, type);
    return f;
}

/* An IPv4 header for `payload` bytes; `fragment` is the flags and the offset. */
static void ipv4(frame *f, uint32_t protocol, uint32_t src, uint32_t dst, uint32_t payload,
                 uint32_t fragment)
{
    put16(f, 0x4500);
    put16(f, 20 + payload);
    put16(f, 7);
    put16(f, fragment);
    put8(f, 64);
    put8(f, protocol);
    put16(f, 0);
    put32(f, src);
    put32(f, dst);
}

static void ipv6(frame *f, uint32_t next, uint32_t src, uint32_t dst, uint32_t payload)
{
    put32(f, 0x60000000);
    put16(f, payload);
    put8(f, next);
    put8(f, 64);
    put32(f, 0x20010db8);
    put_zeros(f, 8);
    put32(f, src);
    put32(f, 0x20010db8);
    put_zeros(f, 8);
    put32(f, dst);
}

/* The first 4 bytes of TCP, UDP and SCTP are the ports. */
static void ports(frame *f, uint32_t src, uint32_t dst, uint32_t header)
{
    put16(f, src);
    put16(f, dst);
    put_zeros(f, header - 4);
}

static frame tcp4(uint32_t src, uint32_t dst, uint32_t src_port, uint32_t dst_port)
{
    frame f = ethernet(V4);
    ipv4(&f, 6, src, dst, 20, 0x4000);
    ports(&f, src_port, dst_port, 20);
    return f;
}

static frame tcp6(uint32_t src, uint32_t dst, uint32_t src_port, uint32_t dst_port)
{
    frame f = ethernet(V6);
    ipv6(&f, 6, src, dst, 20);
    ports(&f, src_port, dst_port, 20);
    return f;
}

static frame echo4(uint32_t kind, uint32_t src, uint32_t dst, uint32_t id)
{
    frame f = ethernet(V4);
    ipv4(&f, 1, src, dst, 8, 0);
    put32(&f, kind << 24);
    put16(&f, id);
    put16(&f, 1);
    return f;
}

static uint16_t zone; /* of the input port */

static result parse_bytes(const uint8_t *bytes, uint32_t n)
{
    result r;
    memset(&r, 0xa5, sizeof r); /* the parser sets what it promises, whatever was there */
    r.m.zone = zone;
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, bytes, n);
    r.reason = hb_parse(n ? exact : exact + 1, n, &r.m, &r.key);
    free(exact);
    return r;
}

static result parse(const frame *f)
{
    return parse_bytes(f->b, f->n);
}

static bool same_flow(const result *a, const result *b)
{
    return !memcmp(&a->key, &b->key, sizeof a->key) && a->m.hash == b->m.hash;
}

static bool is_zero(const hb_key *key)
{
    static const hb_key none;
    return !memcmp(key, &none, sizeof none);
}

/* ---- what is in a packet --------------------------------------------------------------------- */

static void test_tcp4(void)
{
    frame f = tcp4(0x0a000001, 0x0a000002, 1000, 80);
    result r = parse(&f);
    static const uint8_t low[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1};
    static const uint8_t high[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 2};
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.m.l3, 14);
    CHECK_EQUAL(r.m.l4, 34);
    CHECK_EQUAL(r.m.protocol, 6);
    CHECK_EQUAL(r.m.vlan[0], 0);
    CHECK_EQUAL(r.m.vlan[1], 0);
    CHECK_EQUAL(r.m.direction, 0);
    CHECK(!memcmp(r.key.addr[0], low, 16));
    CHECK(!memcmp(r.key.addr[1], high, 16));
    CHECK_EQUAL(r.key.port[0], 1000);
    CHECK_EQUAL(r.key.port[1], 80);
    CHECK_EQUAL(r.key.protocol, 6);
    CHECK_EQUAL(r.key.fragment, 0);
    CHECK_EQUAL(r.key.zone, 0);
    CHECK_EQUAL(hb_key_hash(&r.key), r.m.hash);
}

static void test_tcp6(void)
{
    frame f = tcp6(9, 4, 50000, 443);
    result r = parse(&f);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.m.l3, 14);
    CHECK_EQUAL(r.m.l4, 54);
    CHECK_EQUAL(r.m.direction, 1);
    CHECK_EQUAL(r.key.addr[0][15], 4);
    CHECK_EQUAL(r.key.addr[1][15], 9);
    CHECK_EQUAL(r.key.addr[1][0], 0x20);
    CHECK_EQUAL(r.key.port[0], 443);
    CHECK_EQUAL(r.key.port[1], 50000);
}

/* Both directions: one key and one hash, opposite directions. */
static void check_pair(frame there, frame back)
{
    result a = parse(&there), b = parse(&back);
    CHECK_EQUAL(a.reason, HB_REASON_none);
    CHECK_EQUAL(b.reason, HB_REASON_none);
    CHECK(same_flow(&a, &b));
    CHECK_EQUAL(a.m.direction + b.m.direction, 1);
}

static void test_directions(void)
{
    check_pair(tcp4(1, 2, 3, 4), tcp4(2, 1, 4, 3));
    check_pair(tcp4(0xff000001, 0x01000002, 3, 4), tcp4(0x01000002, 0xff000001, 4, 3));
    check_pair(tcp4(1, 1, 3, 4), tcp4(1, 1, 4, 3));
    check_pair(tcp6(1, 2, 9, 4), tcp6(2, 1, 4, 9));
    check_pair(tcp6(0x80000000, 0x7fffffff, 9, 4), tcp6(0x7fffffff, 0x80000000, 4, 9));
    check_pair(tcp6(5, 5, 9, 4), tcp6(5, 5, 4, 9));
    check_pair(echo4(8, 1, 2, 77), echo4(0, 2, 1, 77));

    frame loop = tcp4(1, 1, 3, 4);
    CHECK_EQUAL(parse(&loop).key.port[0], 3);
    frame self = tcp4(1, 1, 5, 5);
    CHECK_EQUAL(parse(&self).m.direction, 0);
    frame crossed = tcp4(1, 2, 4, 3), straight = tcp4(1, 2, 3, 4);
    result a = parse(&crossed), b = parse(&straight);
    CHECK(!same_flow(&a, &b)); /* not the reverse: other ports at other ends */
}

static void check_protocol(uint32_t protocol, uint32_t header)
{
    frame f = ethernet(V4), g = ethernet(V6);
    ipv4(&f, protocol, 1, 2, header, 0);
    ports(&f, 0x1234, 0xfedc, header);
    ipv6(&g, protocol, 1, 2, header);
    ports(&g, 0x1234, 0xfedc, header);
    result r = parse(&f), s = parse(&g);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(s.reason, HB_REASON_none);
    CHECK_EQUAL(r.key.port[0], 0x1234);
    CHECK_EQUAL(s.key.port[1], 0xfedc);
    CHECK_EQUAL(r.key.protocol, protocol);
    set16(&f, 16, 20 + header - 1); /* cut by the IP length, though the bytes are there */
    set16(&g, 18, header - 1);
    CHECK_EQUAL(parse(&f).reason, HB_REASON_truncated);
    CHECK_EQUAL(parse(&g).reason, HB_REASON_truncated);
}

static void test_protocols(void)
{
    check_protocol(6, 20);
    check_protocol(17, 8);
    check_protocol(132, 12);

    frame esp = ethernet(V4);
    ipv4(&esp, 50, 1, 2, 1, 0);
    put8(&esp, 0xff);
    result r = parse(&esp);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.m.l4, 34);
    CHECK_EQUAL(r.key.protocol, 50);
    CHECK_EQUAL(r.key.port[0] | r.key.port[1], 0);
}

static void test_icmp(void)
{
    frame f = echo4(8, 1, 2, 0xbeef);
    result r = parse(&f);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.key.port[0], 0xbeef);
    CHECK_EQUAL(r.key.port[1], 0xbeef);
    f = echo4(3, 1, 2, 0xbeef); /* unreachable: these bytes are no id */
    r = parse(&f);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.key.port[0], 0);
    set16(&f, 16, 27);
    CHECK_EQUAL(parse(&f).reason, HB_REASON_truncated);

    frame g = ethernet(V6);
    ipv6(&g, 58, 1, 2, 8);
    put32(&g, 129u << 24);
    put16(&g, 0xcafe);
    put16(&g, 1);
    r = parse(&g);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.key.port[1], 0xcafe);
    set16(&g, 18, 6);
    CHECK_EQUAL(parse(&g).reason, HB_REASON_truncated);
    g.b[54] = 135;
    r = parse(&g);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.key.port[1], 0);
    set16(&g, 18, 3);
    CHECK_EQUAL(parse(&g).reason, HB_REASON_truncated);
}

/* ---- tags, options, fragments, extension headers --------------------------------------------- */

static void check_tags(frame f, uint32_t l3, uint32_t outer, uint32_t inner)
{
    ipv4(&f, 17, 1, 2, 8, 0);
    ports(&f, 53, 54, 8);
    result r = parse(&f);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.m.l3, l3);
    CHECK_EQUAL(r.m.l4, l3 + 20);
    CHECK_EQUAL(r.m.vlan[0], outer);
    CHECK_EQUAL(r.m.vlan[1], inner);
    CHECK_EQUAL(r.key.port[0], 53);
}

static void test_tags(void)
{
    check_tags(tagged(0x8100, 0x6064, V4), 18, 0x6064, 0);
    check_tags(tagged(0x88a8, 0xffff, V4), 18, 0xffff, 0);
    frame two = tagged(0x88a8, 300, 0x8100);
    put16(&two, 301);
    put16(&two, V4);
    check_tags(two, 22, 300, 301);
    set16(&two, 12, 0x9100);
    set16(&two, 16, 0x9100);
    check_tags(two, 22, 300, 301);

    frame three = tagged(0x8100, 1, 0x8100);
    put16(&three, 2);
    put16(&three, 0x8100);
    put16(&three, 3);
    put16(&three, V4);
    ipv4(&three, 17, 1, 2, 8, 0);
    ports(&three, 53, 54, 8);
    result r = parse(&three);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.m.l3, HB_NO_LAYER);
    CHECK_EQUAL(r.m.vlan[1], 2);
    CHECK(is_zero(&r.key));
}

static void test_options(void)
{
    frame f = ethernet(V4);
    ipv4(&f, 6, 1, 2, 60, 0);
    f.b[14] = 0x4f; /* 40 bytes of options */
    put_zeros(&f, 40);
    ports(&f, 5, 6, 20);
    result r = parse(&f);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.m.l4, 74);
    CHECK_EQUAL(r.key.port[0], 5);
}

static frame fragment4(uint32_t field, uint32_t payload)
{
    frame f = ethernet(V4);
    ipv4(&f, 17, 1, 2, payload, field);
    put_zeros(&f, payload);
    return f;
}

/* All fragments of a datagram, and no whole packet, have one key. */
static void test_fragments4(void)
{
    frame frames[] = {fragment4(0x2000, 16), fragment4(0x2002, 16), fragment4(0x0004, 3),
                      fragment4(0x1fff, 0)};
    frame short_first = fragment4(0x2000, 2);
    result first = parse(&frames[0]);
    for (uint32_t i = 0; i < 4; i++) {
        result r = parse(&frames[i]);
        CHECK_EQUAL(r.reason, HB_REASON_none);
        CHECK_EQUAL(r.key.fragment, 1);
        CHECK_EQUAL(r.key.port[0], 7); /* the id */
        CHECK_EQUAL(r.key.port[1], 0);
        CHECK_EQUAL(r.m.l4, i == 0 ? 34 : HB_NO_LAYER);
        CHECK(same_flow(&r, &first));
    }
    CHECK_EQUAL(parse(&short_first).reason, HB_REASON_none);
    frame whole = fragment4(0x4000, 16);
    result r = parse(&whole);
    CHECK_EQUAL(r.key.fragment, 0);
    CHECK(!same_flow(&r, &first));
    frames[0].b[19] = 8; /* another datagram */
    r = parse(&frames[0]);
    CHECK_EQUAL(r.key.port[0], 8);
    CHECK(!same_flow(&r, &first));
}

static frame fragment6(uint32_t field, uint32_t next)
{
    frame f = ethernet(V6);
    ipv6(&f, 0, 1, 2, 8 + 8 + 24);
    put32(&f, 44u << 24); /* hop-by-hop, then the fragment header */
    put32(&f, 0);
    put16(&f, next << 8);
    put16(&f, field);
    put32(&f, 99);
    ports(&f, 1111, 2222, 24);
    return f;
}

/* Equal packets of two zones are of two flows, whether the quick way or the walk finds them. */
static void test_zones(void)
{
    frame f[] = {fragment4(0x4000, 16), fragment4(0x2000, 16), fragment6(0, 6)};
    for (uint32_t i = 0; i < 3; i++) {
        result here = parse(&f[i]);
        zone = 0x1234;
        result there = parse(&f[i]);
        zone = 0;
        CHECK_EQUAL(there.key.zone, 0x1234);
        CHECK(!same_flow(&here, &there));
        CHECK(here.m.hash != there.m.hash);
        CHECK_EQUAL(there.key.protocol, here.key.protocol);
    }
}

static void test_fragments6(void)
{
    frame first = fragment6(0x0001, 6), last = fragment6(0x0018, 6), whole = fragment6(0, 6);
    result a = parse(&first), b = parse(&last), c = parse(&whole);
    CHECK_EQUAL(a.reason, HB_REASON_none);
    CHECK_EQUAL(b.reason, HB_REASON_none);
    CHECK(same_flow(&a, &b));
    CHECK_EQUAL(a.m.l4, 70);
    CHECK_EQUAL(b.m.l4, HB_NO_LAYER);
    CHECK_EQUAL(a.key.fragment, 1);
    CHECK_EQUAL(a.key.protocol, 6);
    CHECK_EQUAL((uint32_t)a.key.port[0] << 16 | a.key.port[1], 99);
    CHECK_EQUAL(c.key.fragment, 0); /* a fragment header, but a whole packet */
    CHECK_EQUAL(c.key.port[0], 1111);
    CHECK_EQUAL(c.m.l4, 70);

    whole = fragment6(0x0006, 6); /* reserved bits */
    CHECK_EQUAL(parse(&whole).key.fragment, 0);

    /* Only the first could be walked on to TCP: it must not be another flow than the rest. */
    first = fragment6(0x0001, 60);
    last = fragment6(0x0018, 60);
    a = parse(&first);
    b = parse(&last);
    CHECK_EQUAL(a.reason, HB_REASON_none);
    CHECK(same_flow(&a, &b));
    CHECK_EQUAL(a.key.protocol, 60);
}

/* `count` extension headers of kinds that alternate, then TCP. */
static frame chain(uint32_t count, uint32_t bytes)
{
    static const uint8_t kinds[] = {0, 43, 60};
    frame f = ethernet(V6);
    ipv6(&f, count ? kinds[0] : 6, 1, 2, count * bytes + 20);
    for (uint32_t i = 0; i < count; i++) {
        put8(&f, i + 1 < count ? kinds[(i + 1) % 3] : 6);
        put8(&f, bytes / 8 - 1);
        put_zeros(&f, bytes - 2);
    }
    ports(&f, 7, 8, 20);
    return f;
}

static void test_extensions(void)
{
    for (uint32_t count = 0; count <= 8; count++) {
        frame f = chain(count, 16);
        result r = parse(&f);
        CHECK_EQUAL(r.reason, HB_REASON_none);
        CHECK_EQUAL(r.m.l4, 54 + 16 * count);
        CHECK_EQUAL(r.m.protocol, 6);
        CHECK_EQUAL(r.key.port[1], 8);
    }
    frame many = chain(9, 8);
    CHECK_EQUAL(parse(&many).reason, HB_REASON_malformed);

    frame far = chain(1, 208); /* TCP at 262: its ports are known, but no byte can say where */
    result r = parse(&far);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.m.l4, HB_NO_LAYER);
    CHECK_EQUAL(r.key.port[0], 7);
    far = chain(1, 200);
    CHECK_EQUAL(parse(&far).m.l4, 254);

    frame longer = chain(1, 16);
    longer.b[55] = 200; /* the header says it is longer than the packet */
    CHECK_EQUAL(parse(&longer).reason, HB_REASON_truncated);
}

static void test_ipv6_lengths(void)
{
    frame none = ethernet(V6);
    ipv6(&none, 59, 1, 2, 0);
    result r = parse(&none);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.m.l4, HB_NO_LAYER);
    CHECK_EQUAL(r.m.protocol, 59);

    frame jumbo = chain(1, 8);
    set16(&jumbo, 18, 0);
    r = parse(&jumbo);
    CHECK_EQUAL(r.reason, HB_REASON_none);
    CHECK_EQUAL(r.key.port[0], 7);

    frame claims = tcp6(1, 2, 3, 4);
    set16(&claims, 18, 21);
    CHECK_EQUAL(parse(&claims).reason, HB_REASON_truncated);
    put8(&claims, 0);
    CHECK_EQUAL(parse(&claims).reason, HB_REASON_none);
}

/* ---- what is wrong with a packet ------------------------------------------------------------- */

static void check_every_cut(frame f)
{
    for (uint32_t n = 0; n < f.n; n++) {
        result r = parse_bytes(f.b, n);
        CHECK_EQUAL(r.reason, n < 14 ? HB_REASON_runt : HB_REASON_truncated);
        CHECK_EQUAL(r.m.l3, HB_NO_LAYER);
        CHECK_EQUAL(r.m.l4, HB_NO_LAYER);
        CHECK_EQUAL(r.m.hash, 0);
        CHECK(is_zero(&r.key));
    }
    CHECK_EQUAL(parse(&f).reason, HB_REASON_none);
}

/* Cut, and the IP length agrees: there are headers missing all the same. */
static void check_every_length(frame f, uint32_t field, uint32_t from)
{
    for (uint32_t n = from; n < f.n; n++) {
        set16(&f, field, n - (field == 16 ? 14 : from));
        CHECK_EQUAL(parse_bytes(f.b, n).reason, HB_REASON_truncated);
    }
}

static void test_cuts(void)
{
    check_every_length(tcp4(1, 2, 3, 4), 16, 34);
    check_every_length(echo4(8, 1, 2, 3), 16, 34);
    check_every_length(tcp6(1, 2, 3, 4), 18, 54);
    check_every_length(chain(8, 24), 18, 54);
    frame atomic = fragment6(0, 6);
    atomic.n -= 4; /* TCP without more */
    check_every_length(atomic, 18, 54);
    frame vlan = tagged(0x88a8, 5, 0x8100);
    put16(&vlan, 6);
    put16(&vlan, V6);
    ipv6(&vlan, 60, 1, 2, 16);
    put32(&vlan, 17u << 24);
    put32(&vlan, 0);
    ports(&vlan, 1, 2, 8);
    check_every_cut(vlan);
    check_every_cut(tcp4(1, 2, 3, 4));
    check_every_cut(tcp6(1, 2, 3, 4));
    check_every_cut(echo4(8, 1, 2, 3));
    check_every_cut(fragment4(0x2000, 16));
    check_every_cut(fragment4(0x2002, 16));
    check_every_cut(fragment6(0x0001, 6));
    check_every_cut(fragment6(0x0018, 17));
    check_every_cut(chain(8, 24));
}

static void test_malformed(void)
{
    frame f = tcp4(1, 2, 3, 4);
    f.b[14] = 0x65;
    CHECK_EQUAL(parse(&f).reason, HB_REASON_malformed);
    f.b[14] = 0x44;
    CHECK_EQUAL(parse(&f).reason, HB_REASON_malformed);
    f.b[14] = 0x45;
    set16(&f, 16, 19);
    CHECK_EQUAL(parse(&f).reason, HB_REASON_malformed);
    set16(&f, 16, 0);
    CHECK_EQUAL(parse(&f).reason, HB_REASON_malformed);
    set16(&f, 16, 41);
    CHECK_EQUAL(parse(&f).reason, HB_REASON_truncated);
    f.b[14] = 0x4f;
    set16(&f, 16, 40);
    CHECK_EQUAL(parse(&f).reason, HB_REASON_malformed);

    frame g = tcp6(1, 2, 3, 4);
    g.b[14] = 0x45;
    CHECK_EQUAL(parse(&g).reason, HB_REASON_malformed);
}

/* Ethernet pads short packets; the padding is no part of the packet. */
static void test_padding(void)
{
    frame f = ethernet(V4);
    ipv4(&f, 17, 1, 2, 8, 0);
    ports(&f, 3, 4, 8);
    put_zeros(&f, 18);
    CHECK_EQUAL(parse(&f).reason, HB_REASON_none);
    set16(&f, 16, 24); /* half a UDP header, then padding */
    CHECK_EQUAL(parse(&f).reason, HB_REASON_truncated);
}

static void test_not_ip(void)
{
    static const uint16_t types[] = {0x0806, 0x88cc, 0x8847, 0x8864, 0x0026, 0x05dc, 0x0000};
    uint32_t seen[7];
    for (uint32_t i = 0; i < 7; i++) {
        frame f = ethernet(types[i]);
        frame back = f;
        memcpy(back.b, f.b + 6, 6);
        memcpy(back.b + 6, f.b, 6);
        result r = parse(&f), s = parse(&back);
        CHECK_EQUAL(r.reason, HB_REASON_none);
        CHECK_EQUAL(r.m.l3, HB_NO_LAYER);
        CHECK_EQUAL(r.m.l4, HB_NO_LAYER);
        CHECK_EQUAL(r.m.protocol, 0);
        CHECK(is_zero(&r.key));
        CHECK_EQUAL(r.m.hash, s.m.hash);
        seen[i] = r.m.hash;
        for (uint32_t k = 0; k < i; k++)
            CHECK(seen[i] != seen[k]);
    }
}

/* ---- hash ------------------------------------------------------------------------------------ */

/* Flows like a generator's, spread over 256 places by the hash's lower and by its upper bits. */
static void test_spread(void)
{
    uint32_t low[256] = {0}, high[256] = {0};
    for (uint32_t i = 0; i < 65536; i++) {
        frame f = tcp4(0x0a000000 + i, 0xc0a80001, 1024 + i % 4, 80);
        result r = parse(&f);
        low[r.m.hash & 255]++;
        high[r.m.hash >> 24]++;
    }
    for (uint32_t i = 0; i < 256; i++) {
        CHECK(low[i] > 128 && low[i] < 512);
        CHECK(high[i] > 128 && high[i] < 512);
    }
}

/* ---- rules ----------------------------------------------------------------------------------- */

static hb_rule any_rule(uint16_t type)
{
    return (hb_rule){.type = type,
                     .any_proto = 1,
                     .src_port = {0, 65535},
                     .dst_port = {0, 65535},
                     .port = {0, 65535}};
}

static void address4(uint8_t *to, uint32_t address)
{
    memset(to, 0, 10);
    to[10] = to[11] = 0xff;
    for (uint32_t i = 0; i < 4; i++)
        to[12 + i] = (uint8_t)(address >> (24 - 8 * i));
}

static bool hits(hb_rule rule, frame f)
{
    result r = parse(&f);
    return hb_match_rules(&rule, 1, &r.key, r.m.direction) != NULL;
}

static void test_rule_addresses(void)
{
    hb_rule r = any_rule(1);
    address4(r.src, 0x0a010000);
    r.src_bits = 96 + 16;
    CHECK(hits(r, tcp4(0x0a01ffff, 5, 1, 2)));
    CHECK(!hits(r, tcp4(0x0a020000, 5, 1, 2)));
    CHECK(!hits(r, tcp4(5, 0x0a01ffff, 1, 2))); /* a source, not a destination */
    CHECK(!hits(r, tcp6(0x0a010000, 5, 1, 2)));
    r.src_bits = 128;
    CHECK(hits(r, tcp4(0x0a010000, 0xff000000, 1, 2)));
    CHECK(hits(r, tcp4(0x0a010000, 0x01000000, 1, 2)));
    CHECK(!hits(r, tcp4(0x0a010001, 5, 1, 2)));
    address4(r.dst, 0xff000000);
    r.dst_bits = 96 + 8;
    CHECK(hits(r, tcp4(0x0a010000, 0xffaaaaaa, 1, 2)));
    CHECK(!hits(r, tcp4(0x0a010000, 0x01000000, 1, 2)));

    hb_rule v6 = any_rule(1);
    memcpy(v6.dst, (uint8_t[]){0x20, 0x01, 0x0d, 0xb8}, 4);
    v6.dst_bits = 64;
    CHECK(hits(v6, tcp6(1, 2, 3, 4)));
    v6.dst_bits = 127;
    v6.dst[15] = 2;
    CHECK(hits(v6, tcp6(1, 3, 3, 4)));
    CHECK(!hits(v6, tcp6(1, 4, 3, 4)));
    v6.dst_bits = 1;
    CHECK(hits(v6, tcp4(1, 2, 3, 4)));
    v6.dst[0] = 0x80;
    CHECK(!hits(v6, tcp4(1, 2, 3, 4)));
}

static void test_rule_ports(void)
{
    hb_rule r = any_rule(1);
    r.dst_port[0] = r.dst_port[1] = 80;
    CHECK(hits(r, tcp4(1, 2, 5000, 80)));
    CHECK(hits(r, tcp4(2, 1, 5000, 80)));
    CHECK(!hits(r, tcp4(1, 2, 80, 5000)));
    CHECK(!hits(r, tcp4(2, 1, 80, 5000)));
    r = any_rule(1);
    r.src_port[0] = 80;
    r.src_port[1] = 82;
    CHECK(hits(r, tcp4(1, 2, 80, 5000)));
    CHECK(hits(r, tcp4(1, 2, 82, 5000)));
    CHECK(!hits(r, tcp4(1, 2, 83, 5000)));
    r = any_rule(1);
    r.port[0] = r.port[1] = 80;
    CHECK(hits(r, tcp4(1, 2, 80, 5000)));
    CHECK(hits(r, tcp4(1, 2, 5000, 80)));
    CHECK(!hits(r, tcp4(1, 2, 5000, 81)));
}

static void test_rules_without_ports(void)
{
    frame arp = ethernet(0x0806);
    hb_rule all = any_rule(1), some = any_rule(1), icmp = any_rule(1);
    some.port[1] = 65534;
    CHECK(hits(all, echo4(8, 1, 2, 80)));
    CHECK(hits(all, fragment4(0x2000, 16)));
    CHECK(hits(all, arp));
    CHECK(!hits(some, echo4(8, 1, 2, 80))); /* an echo id is no port */
    CHECK(!hits(some, fragment4(0x2000, 16)));
    CHECK(!hits(some, arp));
    icmp.any_proto = 0;
    icmp.proto = 1;
    CHECK(hits(icmp, echo4(8, 1, 2, 80)));
    CHECK(!hits(icmp, tcp4(1, 2, 3, 4)));
    icmp.proto = 17;
    CHECK(hits(icmp, fragment4(0x2000, 16)));
    icmp.proto = 0; /* a protocol of IP, too; not the lack of it */
    CHECK(!hits(icmp, arp));
    hb_rule zeros = any_rule(1);
    zeros.src_bits = 128;
    CHECK(!hits(zeros, arp));
}

static int classify(frame f, const hb_rule *rules, uint32_t count, int32_t *index)
{
    return hb_classify(f.b, f.n, rules, count, index);
}

static void test_classify(void)
{
    hb_rule rules[3] = {any_rule(4), any_rule(5), any_rule(6)};
    int32_t index = 9;
    rules[0].any_proto = 0;
    rules[0].proto = 17;
    rules[1].dst_port[0] = rules[1].dst_port[1] = 80;
    CHECK_EQUAL(classify(tcp4(1, 2, 3, 80), rules, 3, &index), 0);
    CHECK_EQUAL(index, 1);
    CHECK_EQUAL(classify(tcp4(1, 2, 3, 81), rules, 3, &index), 0);
    CHECK_EQUAL(index, 2);
    CHECK_EQUAL(classify(tcp4(1, 2, 3, 81), rules, 2, &index), 0);
    CHECK_EQUAL(index, -1);
    CHECK_EQUAL(classify(tcp4(1, 2, 3, 81), NULL, 0, &index), 0);
    CHECK_EQUAL(index, -1);
    frame bad = tcp4(1, 2, 3, 80);
    bad.n = 30;
    index = 9;
    CHECK_EQUAL(classify(bad, rules, 3, &index), HB_REASON_truncated);
    CHECK_EQUAL(index, -1);
}

int main(void)
{
    test_tcp4();
    test_tcp6();
    test_directions();
    test_protocols();
    test_icmp();
    test_tags();
    test_options();
    test_fragments4();
    test_fragments6();
    test_zones();
    test_extensions();
    test_ipv6_lengths();
    test_cuts();
    test_malformed();
    test_padding();
    test_not_ip();
    test_spread();
    test_rule_addresses();
    test_rule_ports();
    test_rules_without_ports();
    test_classify();
    return failures != 0;
}
