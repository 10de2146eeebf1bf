/* SPDX-License-Identifier: BSD-3-Clause */
/* The port drivers by themselves: captures written and read back with libpcap, paces, generated
 * packets. No lcore runs; a test calls rx() and tx() as a port node does. */
#include "api.h"
#include "check.h"
#include "parse.h"
#include "port.h"
#include "zipf.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pcap/pcap.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define MBUFS 1024u
#define FRAME 2048u
#define ROOM (FRAME - HB_FRAME_RESERVED - HB_FRAME_HEADROOM)

static hb_arena arena;
static uint32_t handle[MBUFS];
static char directory[] = "/tmp/hummingbird-ports-XXXXXX";
static char path[256];
static char error[256];

/* ---- helpers --------------------------------------------------------------------------------- */

static const char *in_directory(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* Bytes that tell which packet they belong to. */
static void fill(uint8_t *to, uint32_t packet, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        to[i] = (uint8_t)(packet * 31 + i * 7 + (i >> 8));
}

static uint32_t rx(hb_port *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        hb_header(&arena, handle[i])->data_off = HB_FRAME_RESERVED + HB_FRAME_HEADROOM;
    return p->ops->rx(p, &arena, handle, n);
}

static hb_mbuf *mbuf(uint32_t i)
{
    return hb_header(&arena, handle[i]);
}

static const uint8_t *bytes(uint32_t i)
{
    return hb_data(&arena, mbuf(i));
}

static hb_port *open_input(const char *name, uint64_t loops, int pace, double rate)
{
    hb_pcap_input in = {name, loops, pace, rate};
    error[0] = 0;
    hb_port *p = hb_pcap_input_open(&in, error, sizeof error);
    if (!p)
        printf("%s\n", error);
    return p;
}

/* The input must be refused, with these words in the reason. */
static void refuse_input(const char *name, int pace, double rate, const char *words)
{
    hb_pcap_input in = {name, 1, pace, rate};
    error[0] = 0;
    hb_port *p = hb_pcap_input_open(&in, error, sizeof error);
    CHECK(p == NULL);
    CHECK(strstr(error, words) != NULL);
    CHECK(strchr(error, '\n') == NULL);
    if (!strstr(error, words))
        printf("the error is: %s\n", error);
    if (p)
        p->ops->close(p);
}

static uint64_t fast_time(uint32_t i)
{
    return 1700000000123456789u + (uint64_t)i * 1000003;
}

typedef uint64_t time_of(uint32_t packet);
typedef uint32_t length_of(uint32_t packet);

static uint32_t some_length(uint32_t i)
{
    return 14 + i * 97 % 1501;
}

static void dump(pcap_dumper_t *d, const uint8_t *data, uint32_t length, uint64_t ns)
{
    struct pcap_pkthdr h = {.caplen = length, .len = length};
    h.ts.tv_sec = (time_t)(ns / 1000000000u);
    h.ts.tv_usec = (suseconds_t)(ns % 1000000000u);
    pcap_dump((u_char *)d, &h, data);
}

/* A capture of n packets in the test's directory. */
static const char *capture(uint32_t n, length_of *length, time_of *time)
{
    uint8_t data[4096];
    const char *name = in_directory("in.pcap");
    pcap_t *dead = pcap_open_dead_with_tstamp_precision(DLT_EN10MB, 65535, //
                                                        PCAP_TSTAMP_PRECISION_NANO);
    pcap_dumper_t *d = pcap_dump_open(dead, name);
    for (uint32_t i = 0; i < n; i++) {
        fill(data, i, length(i));
        dump(d, data, length(i), time(i));
    }
    pcap_dump_close(d);
    pcap_close(dead);
    return name;
}

static void write_file(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(name, "w");
    if (n)
        CHECK_EQUAL(fwrite(data, 1, n, f), n);
    fclose(f);
}

static bool is_packet(uint32_t at, uint32_t packet, uint32_t length)
{
    uint8_t data[4096];
    fill(data, packet, length);
    return mbuf(at)->data_len == length && !memcmp(bytes(at), data, length);
}

/* ---- captures as input ----------------------------------------------------------------------- */

static void test_capture(void)
{
    hb_port *p = open_input(capture(3000, some_length, fast_time), 1, HB_PACE_FAST, 0);
    uint32_t seen = 0, n;
    CHECK(p->has_end && !p->paced && !p->done);
    CHECK_EQUAL(p->warning[0], 0);
    while ((n = rx(p, 1 + seen % 256))) {
        for (uint32_t i = 0; i < n; i++, seen++) {
            CHECK(is_packet(i, seen, some_length(seen)));
            CHECK_EQUAL(mbuf(i)->time_ns, fast_time(seen));
        }
        CHECK_EQUAL(p->done, seen == 3000);
    }
    CHECK_EQUAL(seen, 3000);
    CHECK_EQUAL(rx(p, 10), 0);
    CHECK_EQUAL(p->too_long, 0);
    p->ops->close(p);
}

/* A capture may begin again: the bytes are the same, time goes on. */
static void test_loops(void)
{
    hb_port *p = open_input(capture(10, some_length, fast_time), 3, HB_PACE_FAST, 0);
    uint64_t span = fast_time(9) - fast_time(0);
    CHECK_EQUAL(rx(p, 256), 30);
    for (uint32_t i = 0; i < 30; i++) {
        CHECK(is_packet(i, i % 10, some_length(i % 10)));
        CHECK_EQUAL(mbuf(i)->time_ns, fast_time(i % 10) + i / 10 * span);
    }
    CHECK(p->done);
    p->ops->close(p);

    p = open_input(path, 0, HB_PACE_FAST, 0);
    CHECK(!p->has_end);
    for (uint32_t i = 0; i < 100; i++)
        CHECK_EQUAL(rx(p, 256), 256);
    CHECK(!p->done);
    p->ops->close(p);
}

static uint64_t slow_time(uint32_t i)
{
    uint64_t step_back = i >= 10 ? 3600ull * 1000000000 : 0; /* somebody set the clock */
    return fast_time(0) + i * 1000000ull - step_back;
}

/* A loop begins when all of the one before is over. */
static void test_loop_of_times_in_disorder(void)
{
    hb_port *p = open_input(capture(20, some_length, slow_time), 2, HB_PACE_FAST, 0);
    CHECK_EQUAL(rx(p, 256), 40);
    for (uint32_t i = 0; i < 40; i++)
        CHECK_EQUAL(mbuf(i)->time_ns, slow_time(i % 20) + i / 20 * (slow_time(9) - slow_time(10)));
    p->ops->close(p);
}

static void test_no_packets(void)
{
    for (uint64_t loops = 0; loops < 2; loops++) {
        hb_port *p = open_input(capture(0, some_length, fast_time), loops, HB_PACE_FAST, 0);
        CHECK(p->done && p->has_end);
        CHECK_EQUAL(p->warning[0], 0);
        CHECK_EQUAL(rx(p, 256), 0);
        p->ops->close(p);
    }
}

/* 12 packets of which two fit, then none that does. */
static uint32_t mostly_long(uint32_t i)
{
    return i == 3 ? ROOM : i == 7 ? 60 : ROOM + 1 + i;
}

static uint32_t all_long(uint32_t i)
{
    return ROOM + 1 + i % 5;
}

static void test_too_long(void)
{
    hb_port *p = open_input(capture(12, mostly_long, fast_time), 1, HB_PACE_FAST, 0);
    CHECK_EQUAL(rx(p, 1), 1);
    CHECK(is_packet(0, 3, ROOM));
    CHECK_EQUAL(p->too_long, 3);
    CHECK_EQUAL(rx(p, 256), 1);
    CHECK(is_packet(0, 7, 60));
    CHECK_EQUAL(p->too_long, 10);
    CHECK_EQUAL(p->too_long_bytes, 10 * (ROOM + 1) + 66 - 3 - 7);
    CHECK(p->done);
    p->ops->close(p);

    p = open_input(capture(5000, all_long, fast_time), 1, HB_PACE_FAST, 0);
    for (uint32_t i = 0; i < 5000 && !p->done; i++)
        CHECK_EQUAL(rx(p, 1), 0);
    CHECK(p->done);
    CHECK_EQUAL(p->too_long, 5000);
    p->ops->close(p);

    p = open_input(path, 0, HB_PACE_FAST, 0); /* for ever, but each call must return */
    CHECK_EQUAL(rx(p, 256), 0);
    CHECK_EQUAL(rx(p, 256), 0);
    CHECK(p->too_long >= 512);
    p->ops->close(p);
}

/* What was kept of a packet is what there is. */
static void test_snapped(void)
{
    const char *name = in_directory("in.pcap");
    pcap_t *dead = pcap_open_dead(DLT_EN10MB, 65535);
    pcap_dumper_t *d = pcap_dump_open(dead, name);
    struct pcap_pkthdr h = {.caplen = 40, .len = 1500, .ts = {5, 250000}};
    uint8_t data[40];
    fill(data, 0, 40);
    pcap_dump((u_char *)d, &h, data);
    pcap_dump_close(d);
    pcap_close(dead);
    hb_port *p = open_input(name, 1, HB_PACE_FAST, 0);
    CHECK_EQUAL(rx(p, 2), 1);
    CHECK(is_packet(0, 0, 40));
    CHECK_EQUAL(mbuf(0)->time_ns, 5250000000u); /* written in microseconds */
    p->ops->close(p);
}

/* Cut everywhere in the last two of five records: the whole ones before the cut are there. */
static void test_cut(void)
{
    static uint8_t file[8192];
    capture(5, some_length, fast_time);
    FILE *f = fopen(path, "r");
    size_t size = fread(file, 1, sizeof file, f);
    fclose(f);
    size_t third = 24 + 3 * 16 + some_length(0) + some_length(1) + some_length(2);
    size_t fourth = third + 16 + some_length(3);
    for (size_t n = third; n < size; n++) {
        write_file(path, file, n);
        hb_port *p = open_input(path, 1, HB_PACE_FAST, 0);
        uint32_t whole = n < fourth ? 3 : 4;
        CHECK_EQUAL(rx(p, 256), whole);
        CHECK(p->done);
        CHECK_EQUAL(p->warning[0] != 0, n != third && n != fourth);
        if (p->warning[0]) {
            CHECK(strstr(p->warning, "truncated") != NULL);
            CHECK(strstr(p->warning, whole == 3 ? "first 3 " : "first 4 ") != NULL);
        }
        p->ops->close(p);
    }
    write_file(path, file, 30);
    hb_port *p = open_input(path, 1, HB_PACE_FAST, 0);
    CHECK(p->done && p->warning[0]);
    p->ops->close(p);
}

static void test_refused_input(void)
{
    refuse_input("/nowhere/at-all.pcap", HB_PACE_FAST, 0, "No such file");
    refuse_input(directory, HB_PACE_FAST, 0, "directory");
    write_file(in_directory("empty.pcap"), "", 0);
    refuse_input(path, HB_PACE_FAST, 0, "empty.pcap: the file is empty");
    write_file(in_directory("text.pcap"), "packet_type,current_nf,next_nf\n", 31);
    refuse_input(path, HB_PACE_FAST, 0, "unknown file format");
    write_file(in_directory("cut.pcap"), "\xd4\xc3\xb2\xa1\x02", 5);
    refuse_input(path, HB_PACE_FAST, 0, "truncated");
    capture(3, some_length, fast_time);
    refuse_input(path, HB_PACE_RATE, 0, "rate");
    refuse_input(path, HB_PACE_RATE, -1, "rate");
    refuse_input(path, HB_PACE_RATE, 0.0 / 0.0, "rate");
    refuse_input(path, 3, 0, "pace");

    pcap_t *dead = pcap_open_dead(DLT_IEEE802_11, 65535);
    pcap_dump_close(pcap_dump_open(dead, in_directory("wifi.pcap")));
    pcap_close(dead);
    refuse_input(path, HB_PACE_FAST, 0, "link type IEEE802_11 (105) is not supported; Ethernet");
}

/* One section, one interface, one packet: what newer tools write. */
static void test_pcapng(void)
{
    static const uint32_t file[] = {
        0x0a0d0d0a, 28,         0x1a2b3c4d, 1,          0xffffffff, 0xffffffff,
        28,                                                 /* section */
        1,          20,         DLT_EN10MB, 0,          20, /* interface, microseconds */
        6,          52,         0,          0x00050000, 0x00000007, 20,
        20, /* packet: time, lengths */
        0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c, 0x13121110, 52};
    write_file(in_directory("in.pcapng"), file, sizeof file);
    hb_port *p = open_input(path, 1, HB_PACE_FAST, 0);
    CHECK_EQUAL(rx(p, 2), 1);
    CHECK_EQUAL(mbuf(0)->data_len, 20);
    CHECK_EQUAL(bytes(0)[19], 0x13);
    CHECK_EQUAL(mbuf(0)->time_ns, ((5ull << 48) + 7) * 1000);
    p->ops->close(p);
}

/* ---- link types ------------------------------------------------------------------------------ */

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* A capture of one packet: a link header and an IP header's first byte, then more. It must come out
 * as Ethernet of this type, from this source. */
static void check_link(int link, const uint8_t *head, uint32_t head_bytes, uint32_t first,
                       uint32_t type, uint32_t source)
{
    uint8_t data[100], want[100] = {0};
    pcap_t *dead = pcap_open_dead(link, 65535);
    pcap_dumper_t *d = pcap_dump_open(dead, in_directory("link.pcap"));
    fill(data, 1, sizeof data);
    if (head)
        memcpy(data, head, head_bytes);
    data[head_bytes] = (uint8_t)first;
    dump(d, data, sizeof data, 1000000);
    pcap_dump_close(d);
    pcap_close(dead);

    if (source)
        memcpy(want + 6, (uint8_t[]){2, 0, 0, 0, 0, (uint8_t)source}, 6);
    put16(want + 12, type);
    hb_port *p = open_input(path, 1, HB_PACE_FAST, 0);
    CHECK_EQUAL(rx(p, 4), 1);
    CHECK_EQUAL(mbuf(0)->data_len, sizeof data - head_bytes + 14);
    CHECK(!memcmp(bytes(0), want, 14));
    CHECK(!memcmp(bytes(0) + 14, data + head_bytes, sizeof data - head_bytes));
    p->ops->close(p);
}

static void test_raw_links(void)
{
    check_link(DLT_RAW, NULL, 0, 0x45, 0x0800, 0);
    check_link(DLT_RAW, NULL, 0, 0x60, 0x86dd, 0);
    check_link(DLT_IPV4, NULL, 0, 0x45, 0x0800, 0);
    check_link(DLT_IPV6, NULL, 0, 0x60, 0x86dd, 0);
    check_link(DLT_NULL, (uint8_t[]){2, 0, 0, 0}, 4, 0x45, 0x0800, 0);
    check_link(DLT_NULL, (uint8_t[]){0, 0, 0, 2}, 4, 0x45, 0x0800, 0);
    check_link(DLT_NULL, (uint8_t[]){30, 0, 0, 0}, 4, 0x60, 0x86dd, 0);
    check_link(DLT_LOOP, (uint8_t[]){0, 0, 0, 24}, 4, 0x60, 0x86dd, 0);
    check_link(DLT_LOOP, (uint8_t[]){0, 0, 0, 16}, 4, 0x45, 0, 0);
}

static void test_cooked_links(void)
{
    uint8_t sll[16] = {0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 7, 0, 0, 0x08, 0x00};
    uint8_t sll2[20] = {0x86, 0xdd, 0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 2, 0, 0, 0, 0, 9, 0, 0};
    check_link(DLT_LINUX_SLL, sll, 16, 0x45, 0x0800, 7);
    check_link(DLT_LINUX_SLL2, sll2, 20, 0x60, 0x86dd, 9);
    put16(sll + 14, 0x8100); /* a tagged packet: the tag follows, as in Ethernet */
    check_link(DLT_LINUX_SLL, sll, 16, 0x00, 0x8100, 7);
    sll[5] = 0; /* no address, as on a tunnel */
    check_link(DLT_LINUX_SLL, sll, 16, 0x00, 0x8100, 0);
    put16(sll + 2, 824); /* netlink */
    check_link(DLT_LINUX_SLL, sll, 16, 0x45, 0, 0);
}

/* Shorter than the link header: still a packet, and the parser says what it is. */
static void test_short_link(void)
{
    uint8_t data[20] = {0};
    pcap_t *dead = pcap_open_dead(DLT_LINUX_SLL2, 65535);
    pcap_dumper_t *d = pcap_dump_open(dead, in_directory("link.pcap"));
    for (uint32_t n = 0; n <= 20; n++)
        dump(d, data, n, 1000);
    pcap_dump_close(d);
    pcap_close(dead);
    hb_port *p = open_input(path, 1, HB_PACE_FAST, 0);
    CHECK_EQUAL(rx(p, 256), 21);
    for (uint32_t n = 0; n < 20; n++)
        CHECK(mbuf(n)->data_len < 14);
    CHECK_EQUAL(mbuf(20)->data_len, 14);
    p->ops->close(p);
}

/* ---- pace ------------------------------------------------------------------------------------ */

/* Never ahead of `rate`, and not far behind: a machine that tests may be busy. */
static void check_rate(hb_port *p, double rate, uint32_t packets)
{
    uint64_t start = hb_monotonic_ns();
    uint32_t seen = 0;
    CHECK(p->paced);
    while (!p->done) {
        seen += rx(p, 256);
        double seconds = (double)(hb_monotonic_ns() - start) / 1e9;
        CHECK(seen <= seconds * rate * 1.01 + 2);
        if (seconds > 30)
            break;
    }
    CHECK_EQUAL(seen, packets);
    CHECK((double)(hb_monotonic_ns() - start) / 1e9 >= (packets - 2) / rate * 0.99);
}

static void test_rate(void)
{
    hb_port *p = open_input(capture(500, some_length, fast_time), 2, HB_PACE_RATE, 10000);
    check_rate(p, 10000, 1000);
    p->ops->close(p);

    /* After a stall: what is owed for 10 ms, not for all of it. */
    p = open_input(path, 0, HB_PACE_RATE, 10000);
    CHECK_EQUAL(rx(p, 256), 1);
    usleep(50000);
    uint32_t n = rx(p, 256);
    CHECK(n >= 99 && n <= 101);
    p->ops->close(p);

    p = open_input(capture(100, all_long, fast_time), 1, HB_PACE_RATE, 0.01);
    CHECK_EQUAL(rx(p, 256), 0);
    CHECK_EQUAL(rx(p, 256), 0);
    CHECK_EQUAL(p->too_long, 1); /* what fits no frame takes its time, too */
    p->ops->close(p);
}

static void test_original(void)
{
    hb_port *p = open_input(capture(20, some_length, slow_time), 2, HB_PACE_ORIGINAL, 0);
    uint64_t start = hb_monotonic_ns();
    uint32_t seen = 0;
    while (!p->done && hb_monotonic_ns() - start < 30000000000u) {
        seen += rx(p, 256);
        uint64_t us = (hb_monotonic_ns() - start) / 1000;
        /* 20 packets have 18 gaps of 1 ms and one that is none; the loops have none between */
        CHECK(seen <= us * 1.01 / 1000 + 5);
    }
    CHECK_EQUAL(seen, 40);
    CHECK(hb_monotonic_ns() - start >= 35500000);
    p->ops->close(p);

    p = open_input(path, 1, HB_PACE_ORIGINAL, 0);
    CHECK_EQUAL(rx(p, 256), 1);
    usleep(15000);
    CHECK(rx(p, 256) <= 12); /* 15 ms late by now: plays on from 10 ms */
    p->ops->close(p);
}

/* ---- generator ------------------------------------------------------------------------------- */

static hb_generator generator(uint64_t packets)
{
    return (hb_generator){.packets = packets,
                          .flows = 100,
                          .sizes = 1,
                          .size = {60},
                          .weight = {1},
                          .protocols = 1,
                          .protocol = {17},
                          .src = 0x0a000000,
                          .dst = 0xc0a80001,
                          .dst_port = 80,
                          .tcp_flags = 0x10,
                          .seed = 1};
}

static hb_port *open_generator(const hb_generator *g)
{
    hb_port *p = hb_generator_open(g, error, sizeof error);
    if (!p)
        printf("%s\n", error);
    return p;
}

static uint32_t sum16(const uint8_t *p, uint32_t n, uint32_t sum)
{
    for (uint32_t i = 0; i < n; i++)
        sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static bool has_valid_checksums(const uint8_t *p, uint32_t n)
{
    uint32_t protocol = p[23];
    uint32_t pseudo = protocol == 1 ? 0 : sum16(p + 26, 8, protocol + n - 34);
    return sum16(p + 14, 20, 0) == 0xffff && sum16(p + 34, n - 34, pseudo) == 0xffff;
}

static void check_packet(uint32_t at, uint32_t protocol, uint32_t length)
{
    hb_mbuf m = {.zone = 0};
    hb_key key;
    const uint8_t *p = bytes(at);
    CHECK_EQUAL(mbuf(at)->data_len, length);
    CHECK_EQUAL(hb_parse(p, length, &m, &key), HB_REASON_none);
    CHECK_EQUAL(m.protocol, protocol);
    CHECK_EQUAL(m.l4, 34);
    CHECK_EQUAL(p[16] << 8 | p[17], length - 14);
    CHECK(has_valid_checksums(p, length));
    if (protocol != 1)
        CHECK_EQUAL(p[36] << 8 | p[37], 80);
    if (protocol == 17)
        CHECK(p[40] | p[41]);
}

static void test_generated_packets(void)
{
    static const uint16_t sizes[] = {60, 61, 590, 1513, 1514};
    hb_generator g = generator(0);
    g.protocols = 3;
    memcpy(g.protocol, (uint8_t[]){6, 17, 1}, 3);
    g.flows = 1000; /* no multiple of the protocols: a flow must keep its own */
    for (uint32_t s = 0; s < 5; s++) {
        g.size[0] = sizes[s];
        g.src = 0x0a00fff0 + s;
        hb_port *p = open_generator(&g);
        CHECK(!p->has_end && !p->paced);
        for (uint32_t round = 0; round < 20; round++) {
            CHECK_EQUAL(rx(p, 255), 255);
            for (uint32_t i = 0; i < 255; i++)
                check_packet(i, g.protocol[(round * 255 + i) % 1000 % 3], sizes[s]);
        }
        p->ops->close(p);
    }
}

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(hb_key));
}

/* Every flow is another one, and then they come again in the same order. */
static void test_flows(void)
{
    enum { FLOWS = 200000 };
    hb_key *key = malloc(FLOWS * sizeof *key), *sorted = malloc(FLOWS * sizeof *key), again;
    hb_generator g = generator(0);
    hb_mbuf m = {.zone = 0};
    g.flows = FLOWS;
    hb_port *p = open_generator(&g);
    for (uint32_t i = 0; i < FLOWS; i++) {
        rx(p, 1);
        hb_parse(bytes(0), mbuf(0)->data_len, &m, key + i);
        CHECK(has_valid_checksums(bytes(0), 60) && (bytes(0)[40] | bytes(0)[41]));
    }
    for (uint32_t i = 0; i < 1000; i++) {
        rx(p, 1);
        hb_parse(bytes(0), mbuf(0)->data_len, &m, &again);
        CHECK(!compare_keys(&again, key + i));
    }
    memcpy(sorted, key, FLOWS * sizeof *key);
    qsort(sorted, FLOWS, sizeof *key, compare_keys);
    uint32_t same = 0;
    for (uint32_t i = 1; i < FLOWS; i++)
        same += !compare_keys(sorted + i - 1, sorted + i);
    CHECK_EQUAL(same, 0);
    p->ops->close(p);
    free(key);
    free(sorted);
}

/* ---- flows that are drawn -------------------------------------------------------------------- */

typedef struct {
    hb_key key;
    uint32_t flow;
} known;

static int compare_known(const void *a, const void *b)
{
    return compare_keys(&((const known *)a)->key, &((const known *)b)->key);
}

static hb_key next_key(hb_port *p)
{
    hb_mbuf m;
    hb_key key;
    CHECK_EQUAL(rx(p, 1), 1);
    CHECK_EQUAL(hb_parse(bytes(0), mbuf(0)->data_len, &m, &key), HB_REASON_none);
    return key;
}

/* The flows by their keys, as they come in turn. */
static known *flows_of(hb_generator g)
{
    known *found = calloc(g.flows, sizeof *found);
    g.zipf = 0;
    hb_port *p = open_generator(&g);
    for (uint32_t i = 0; i < g.flows; i++)
        found[i] = (known){next_key(p), i};
    p->ops->close(p);
    qsort(found, g.flows, sizeof *found, compare_known);
    return found;
}

/* How often each flow comes in so many packets. */
static uint32_t *draws(const hb_generator *g, uint32_t packets)
{
    known *all = flows_of(*g);
    uint32_t *seen = calloc(g->flows, sizeof *seen);
    hb_port *p = open_generator(g);
    for (uint32_t i = 0; i < packets; i++) {
        known one = {next_key(p), 0};
        const known *found = bsearch(&one, all, g->flows, sizeof *all, compare_known);
        CHECK(found != NULL);
        if (found)
            seen[found->flow]++;
    }
    p->ops->close(p);
    free(all);
    return seen;
}

/* Chi-squared against the law, the first 32 flows each by itself, then ever more of them together.
 * In standard deviations from what it should be. */
static double misfit(const uint32_t *seen, uint32_t flows, double zipf, uint32_t packets)
{
    double sum = 0, chi = 0;
    uint32_t groups = 0;
    for (uint32_t i = 0; i < flows; i++)
        sum += pow(i + 1.0, -zipf);
    for (uint32_t i = 0, end; i < flows; i = end, groups++) {
        double wanted = 0, got = 0;
        end = i < 32 ? i + 1 : i + i / 4;
        end = end < flows ? end : flows;
        for (uint32_t k = i; k < end; k++) {
            wanted += packets * pow(k + 1.0, -zipf) / sum;
            got += seen[k];
        }
        chi += (got - wanted) * (got - wanted) / wanted;
    }
    return (chi - (groups - 1)) / sqrt(2.0 * (groups - 1));
}

static void test_zipf(void)
{
    enum { PACKETS = 300000 };
    static const double exponents[] = {0.5, 1.0, 1.1, 1.3};
    hb_generator g = generator(0);
    g.protocols = 2;
    memcpy(g.protocol, (uint8_t[]){17, 6}, 2);
    g.flows = 70001; /* more than there are addresses */
    for (uint32_t i = 0; i < 4; i++) {
        g.zipf = exponents[i];
        uint32_t *seen = draws(&g, PACKETS);
        double off = misfit(seen, g.flows, g.zipf, PACKETS);
        CHECK(fabs(off) < 4);
        CHECK(misfit(seen, g.flows, g.zipf + 0.02, PACKETS) > 4); /* it would be seen */
        free(seen);
    }
}

static void test_zipf_of_few(void)
{
    hb_generator g = generator(0);
    for (g.flows = 1; g.flows <= 3; g.flows++) {
        g.zipf = HB_ZIPF_STEEPEST;
        uint32_t *seen = draws(&g, 20000);
        if (g.flows == 1)
            CHECK_EQUAL(seen[0], 20000);
        else
            CHECK(fabs(misfit(seen, g.flows, g.zipf, 20000)) < 4);
        free(seen);
    }
}

static void test_tcp_flags(void)
{
    hb_generator g = generator(0);
    g.protocol[0] = 6;
    g.tcp_flags = 0x02;
    hb_port *p = open_generator(&g);
    rx(p, 200);
    for (uint32_t i = 0; i < 200; i++) {
        check_packet(i, 6, 60);
        CHECK_EQUAL(bytes(i)[47], 0x02);
    }
    p->ops->close(p);
}

static void test_sizes(void)
{
    enum { PACKETS = 120000 };
    hb_generator g = generator(0);
    g.sizes = 4;
    memcpy(g.size, (uint16_t[]){60, 590, 1514, 100}, 8);
    memcpy(g.weight, (uint16_t[]){7, 4, 1, 0}, 8);
    hb_port *p = open_generator(&g);
    uint32_t seen[1515] = {0};
    for (uint32_t i = 0; i < PACKETS / 240; i++) {
        rx(p, 240);
        for (uint32_t k = 0; k < 240; k++)
            seen[mbuf(k)->data_len]++;
    }
    CHECK(abs((int)seen[60] - 70000) < 1500);
    CHECK(abs((int)seen[590] - 40000) < 1500);
    CHECK(abs((int)seen[1514] - 10000) < 1000);
    CHECK_EQUAL(seen[60] + seen[590] + seen[1514], PACKETS);
    p->ops->close(p);
}

/* 600 packets in bursts of this size, as one number. */
static uint64_t digest(uint64_t seed, double zipf, uint32_t burst)
{
    hb_generator g = generator(600);
    g.zipf = zipf;
    g.sizes = 3;
    memcpy(g.size, (uint16_t[]){60, 590, 1514}, 6);
    memcpy(g.weight, (uint16_t[]){1, 1, 1}, 6);
    g.seed = seed;
    hb_port *p = open_generator(&g);
    uint64_t sum = 0;
    uint32_t n, all = 0;
    while ((n = rx(p, burst))) {
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = 0; k < mbuf(i)->data_len; k++)
                sum = sum * 31 + bytes(i)[k];
        all += n;
    }
    CHECK_EQUAL(all, 600);
    CHECK(p->done && p->has_end);
    p->ops->close(p);
    return sum;
}

static void test_seed(void)
{
    static const double exponents[] = {0, 1.1};
    for (uint32_t i = 0; i < 2; i++) {
        CHECK(digest(5, exponents[i], 256) == digest(5, exponents[i], 7));
        CHECK(digest(5, exponents[i], 256) != digest(6, exponents[i], 256));
    }
    CHECK(digest(5, 0, 256) != digest(5, 1.1, 256));
    CHECK(digest(5, 1.0, 256) != digest(5, 1.1, 256));
}

static void test_generator_pace(void)
{
    hb_generator g = generator(1000);
    g.pace = HB_PACE_RATE;
    g.rate = 20000;
    hb_port *p = open_generator(&g);
    check_rate(p, 20000, 1000);
    p->ops->close(p);
}

static void refuse_generator(hb_generator g, const char *words)
{
    hb_port *p = hb_generator_open(&g, error, sizeof error);
    CHECK(p == NULL);
    CHECK(strstr(error, words) != NULL);
    if (p)
        p->ops->close(p);
}

static void test_refused_generator(void)
{
    hb_generator g = generator(1);
    g.sizes = 0;
    refuse_generator(g, "sizes");
    g.sizes = 9;
    refuse_generator(g, "sizes");
    g = generator(1);
    g.size[0] = 59;
    refuse_generator(g, "60 to 1514");
    g.size[0] = 1515;
    refuse_generator(g, "60 to 1514");
    g = generator(1);
    g.weight[0] = 0;
    refuse_generator(g, "weight");
    g = generator(1);
    g.protocol[0] = 50;
    refuse_generator(g, "protocol");
    g.protocols = 0;
    refuse_generator(g, "protocols");
    g = generator(1);
    g.flows = 0;
    refuse_generator(g, "flow");
    g.flows = (1u << 28) + 1;
    refuse_generator(g, "268435456 flows");
    g = generator(1);
    for (uint32_t i = 0; i < 3; i++) {
        g.zipf = (double[]){-0.1, 3.1, NAN}[i];
        refuse_generator(g, "0 to 3");
    }
    g.zipf = 1;
    g.flows = HB_ZIPF_RANKS + 1;
    refuse_generator(g, "4194304 flows");
    g = generator(1);
    g.pace = HB_PACE_ORIGINAL;
    refuse_generator(g, "pace");
    g.pace = HB_PACE_RATE;
    refuse_generator(g, "rate");
}

/* ---- captures as output ---------------------------------------------------------------------- */

static uint32_t read_back(pcap_t *capture, uint32_t packets, uint32_t first)
{
    struct pcap_pkthdr *h;
    const uint8_t *data;
    uint8_t want[4096];
    uint32_t n = 0;
    for (; n < packets && pcap_next_ex(capture, &h, &data) == 1; n++) {
        uint32_t i = first + n, length = some_length(i);
        fill(want, i, length);
        CHECK_EQUAL(h->caplen, length);
        CHECK_EQUAL(h->len, length);
        CHECK(!memcmp(data, want, length));
        CHECK_EQUAL((uint64_t)h->ts.tv_sec * 1000000000u + (uint64_t)h->ts.tv_usec, fast_time(i));
    }
    return n;
}

/* Reads the capture back: as many packets as were sent, all as they were, then its end. */
static void check_output(const char *name, uint32_t packets)
{
    pcap_t *c = pcap_open_offline_with_tstamp_precision(name, PCAP_TSTAMP_PRECISION_NANO, error);
    CHECK(c != NULL);
    if (!c)
        return;
    CHECK_EQUAL(pcap_datalink(c), DLT_EN10MB);
    CHECK_EQUAL(read_back(c, packets, 0), packets);
    struct pcap_pkthdr *h;
    const uint8_t *data;
    CHECK_EQUAL(pcap_next_ex(c, &h, &data), PCAP_ERROR_BREAK);
    pcap_close(c);
}

/* Sends packets first, first+1, ...; returns how many were taken. */
static uint32_t tx(hb_port *p, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        hb_mbuf *m = mbuf(i);
        m->data_off = (uint16_t)(HB_FRAME_RESERVED + HB_FRAME_HEADROOM - i % 100);
        m->data_len = (uint16_t)some_length(first + i);
        m->time_ns = fast_time(first + i);
        fill(hb_data(&arena, m), first + i, m->data_len);
    }
    return p->ops->tx(p, &arena, handle, n);
}

static void test_output(void)
{
    char name[256];
    snprintf(name, sizeof name, "%s", in_directory("out.pcap"));
    hb_port *p = hb_pcap_output_open(name, error, sizeof error);
    for (uint32_t i = 0; i < 5000; i += 250)
        CHECK_EQUAL(tx(p, i, 250), 250);
    p->ops->flush(p);
    CHECK_EQUAL(p->lost, 0);
    check_output(name, 5000);
    CHECK_EQUAL(tx(p, 5000, 10), 10);
    CHECK_EQUAL(p->failed, 0);
    p->ops->close(p);
    check_output(name, 5010);

    p = hb_pcap_output_open(name, error, sizeof error); /* replaces the file */
    CHECK_EQUAL(tx(p, 0, 10), 10);
    p->ops->close(p);
    check_output(name, 10);
}

static void limit_files(rlim_t most)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = most < limit.rlim_max ? most : limit.rlim_max;
    CHECK_EQUAL(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Sends until the port refuses; returns how many it took. */
static uint32_t fill_up(hb_port *p)
{
    uint32_t sent = 0, n;
    do {
        n = tx(p, sent, 250);
        sent += n;
    } while (n == 250 && sent < 100000);
    return sent;
}

/* A full disk: tx() takes fewer, flush() says what of it was lost, what is in the file is whole. */
static void check_full_disk(rlim_t most, uint32_t fit)
{
    char name[256];
    snprintf(name, sizeof name, "%s", in_directory("full.pcap"));
    limit_files(most);
    hb_port *p = hb_pcap_output_open(name, error, sizeof error);
    uint32_t sent = fill_up(p);
    CHECK(sent > 100 && sent < 3000);
    CHECK_EQUAL(p->failed, EFBIG);
    CHECK(strstr(p->error, "full.pcap: File too large") != NULL);
    CHECK_EQUAL(tx(p, sent, 1), 0);
    CHECK_EQUAL(p->lost, 0);
    p->ops->flush(p);
    CHECK(p->lost > 0 && p->lost < sent);
    sent -= (uint32_t)p->lost;
    CHECK_EQUAL(sent, fit);
    check_output(name, sent);
    limit_files(RLIM_INFINITY);
    CHECK_EQUAL(tx(p, sent, 10), 10);
    p->ops->close(p);
    check_output(name, sent + 10);
}

static void test_full_disk(void)
{
    rlim_t whole = 24;
    for (uint32_t i = 0; i < 120; i++)
        whole += 16 + some_length(i);
    check_full_disk(whole - 1, 119);
    check_full_disk(whole, 120); /* the last record that fits ends where the space does */
    check_full_disk(whole + 1, 120);
    check_full_disk(whole + 16, 120);
}

/* Space again: the port goes on where it was, nothing is lost. */
static void test_full_disk_for_a_while(void)
{
    char name[256];
    snprintf(name, sizeof name, "%s", in_directory("full.pcap"));
    limit_files(100000);
    hb_port *p = hb_pcap_output_open(name, error, sizeof error);
    uint32_t sent = fill_up(p);
    limit_files(RLIM_INFINITY);
    CHECK_EQUAL(tx(p, sent, 250), 250);
    p->ops->flush(p);
    CHECK_EQUAL(p->lost, 0);
    CHECK_EQUAL(p->lost, 0);
    p->ops->close(p);
    check_output(name, sent + 250);
}

static void refuse_output(const char *name, const char *words)
{
    hb_port *p = hb_pcap_output_open(name, error, sizeof error);
    CHECK(p == NULL);
    CHECK(strstr(error, name) == error);
    CHECK(strstr(error, words) != NULL);
    if (p)
        p->ops->close(p);
}

static void test_refused_output(void)
{
    refuse_output("/nowhere/out.pcap", "No such file");
    refuse_output(directory, "directory");
    refuse_output("/dev/full", "No space");
}

static void test_sink(void)
{
    hb_port *p = hb_sink_open();
    CHECK_EQUAL(tx(p, 0, 200), 200);
    p->ops->close(p);
}

/* ---- clock ----------------------------------------------------------------------------------- */

static void test_clock(void)
{
    uint64_t ticks = hb_ticks(), ns = hb_monotonic_ns();
    usleep(20000);
    double measured = (double)(hb_ticks() - ticks) * 1e9 / (double)(hb_monotonic_ns() - ns);
    CHECK(measured > 0.98 * hb_ticks_per_second() && measured < 1.02 * hb_ticks_per_second());
    CHECK(hb_tick_rate() == hb_ticks_per_second());
}

/* ---- all ------------------------------------------------------------------------------------- */

/* Frames and headers alone: no pool is needed where nothing is freed. */
static void set_up(void)
{
    static alignas(64) uint8_t frames[MBUFS * FRAME];
    static hb_mbuf headers[MBUFS];
    arena.frames = frames;
    arena.headers = headers;
    arena.frame_size = FRAME;
    for (uint32_t i = 0; i < MBUFS; i++)
        headers[i].frame = handle[i] = i;
    CHECK(mkdtemp(directory) != NULL);
    signal(SIGXFSZ, SIG_IGN);
}

static void clean_up(void)
{
    static const char *const names[] = {"in.pcap",   "empty.pcap", "text.pcap",
                                        "cut.pcap",  "wifi.pcap",  "in.pcapng",
                                        "link.pcap", "out.pcap",   "full.pcap"};
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_directory(names[i]));
    CHECK_EQUAL(rmdir(directory), 0);
}

int main(void)
{
    set_up();
    test_capture();
    test_loops();
    test_loop_of_times_in_disorder();
    test_no_packets();
    test_too_long();
    test_snapped();
    test_cut();
    test_refused_input();
    test_pcapng();
    test_raw_links();
    test_cooked_links();
    test_short_link();
    test_rate();
    test_original();
    test_generated_packets();
    test_flows();
    test_zipf();
    test_zipf_of_few();
    test_tcp_flags();
    test_sizes();
    test_seed();
    test_generator_pace();
    test_refused_generator();
    test_output();
    test_full_disk();
    test_full_disk_for_a_while();
    test_refused_output();
    test_sink();
    test_clock();
    clean_up();
    return failures != 0;
}
