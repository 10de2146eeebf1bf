/* SPDX-License-Identifier: BSD-3-Clause */
/* pcap.c: captures as input. All of a capture is loaded when the port opens, as Ethernet, so
 * that the packet path reads memory only. */
#include "port.h"

#include <errno.h>
#include <math.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ETHERNET_BYTES 14
#define FIRST_STORE ((size_t)2 << 20)
#define MOST_TAKEN 4096u /* records an rx() looks at, however many of them fit no frame */

/* One packet in the store; its bytes follow, padded to 8. */
typedef struct {
    uint64_t time_ns; /* as captured */
    uint64_t due_ns;  /* after the first packet, where no gap is negative */
    uint32_t length;
    uint32_t pad;
    uint8_t bytes[];
} record;

typedef struct {
    hb_port port;
    uint8_t *store; /* records, back to back */
    size_t size;    /* mapped */
    size_t used;
    const uint8_t *next; /* record */
    uint64_t loops_left; /* with the present one; 0: for ever */
    uint64_t time_shift; /* of the present loop against the capture */
    uint64_t due_shift;
    uint64_t time_span; /* what a loop adds to each */
    uint64_t due_span;
    int pace;
    hb_pacer pacer;       /* HB_PACE_RATE */
    uint64_t start_ticks; /* HB_PACE_ORIGINAL; 0: not started */
    double ns_per_tick;
} pcap_input;

/* ---- receive --------------------------------------------------------------------------------- */

static inline size_t record_bytes(uint32_t length)
{
    return sizeof(record) + ((size_t)length + 7) / 8 * 8;
}

static void end_of_loop(pcap_input *in)
{
    in->next = in->store;
    in->time_shift += in->time_span;
    in->due_shift += in->due_span;
    if (in->loops_left && --in->loops_left == 0)
        atomic_store_explicit(&in->port.done, true, memory_order_relaxed);
}

/* How far (ns after the first packet) the capture has been played by now; `due_ns` is where its
 * next packet stands. A lag too long to be jitter is not made up for, as in hb_pacer_due(). */
static uint64_t played_ns(pcap_input *in, uint64_t due_ns)
{
    uint64_t now = hb_now();
    if (!in->start_ticks)
        in->start_ticks = now;
    if (now < in->start_ticks)
        return 0;
    double played = (double)(now - in->start_ticks) * in->ns_per_tick;
    double lag = played - (double)due_ns - HB_PACER_LATE * 1e9;
    if (lag > 0) {
        in->start_ticks += (uint64_t)(lag / in->ns_per_tick);
        played -= lag;
    }
    return (uint64_t)played;
}

static void deliver(const pcap_input *in, const record *r, const hb_arena *a, uint32_t handle)
{
    hb_mbuf *m = hb_header(a, handle);
    memcpy(hb_data(a, m), r->bytes, r->length);
    m->data_len = (uint16_t)r->length;
    m->time_ns = r->time_ns + in->time_shift;
    m->serial = in->port.serial;
}

static uint32_t pcap_rx(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    pcap_input *in = (pcap_input *)port;
    if (atomic_load_explicit(&port->done, memory_order_relaxed))
        return 0;
    uint64_t until = UINT64_MAX;
    uint32_t due = MOST_TAKEN;
    if (in->pace == HB_PACE_RATE)
        due = hb_pacer_due(&in->pacer, hb_now(), MOST_TAKEN);
    else if (in->pace == HB_PACE_ORIGINAL)
        until = played_ns(in, in->due_shift + ((const record *)in->next)->due_ns);

    uint32_t filled = 0, taken = 0;
    while (filled < n && taken < due) {
        const record *r = (const record *)in->next;
        if (in->due_shift + r->due_ns > until)
            break;
        taken++;
        port->serial++;
        if (r->length <= hb_frame_room(a)) {
            deliver(in, r, a, handles[filled++]);
        } else {
            port->too_long++;
            port->too_long_bytes += r->length;
        }
        in->next += record_bytes(r->length);
        if (in->next == in->store + in->used)
            end_of_loop(in);
        if (atomic_load_explicit(&port->done, memory_order_relaxed))
            break;
    }
    in->pacer.sent += taken;
    return filled;
}

static void pcap_input_close(hb_port *port)
{
    pcap_input *in = (pcap_input *)port;
    if (in->store)
        munmap(in->store, in->size);
    free(in);
}

/* ---- link types ------------------------------------------------------------------------------ */

/* Where the network header starts behind another link header, and what Ethernet says instead. */
typedef struct {
    uint32_t strip;
    uint32_t type;         /* EtherType; 0: not IP */
    const uint8_t *source; /* MAC address, or NULL */
} link_header;

static uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

/* The header length of a link type that can be turned into Ethernet, -1 for others. */
static int link_bytes(int link)
{
    switch (link) {
    case DLT_EN10MB:
    case DLT_RAW:
    case DLT_IPV4:
    case DLT_IPV6:
        return 0;
    case DLT_NULL:
    case DLT_LOOP:
        return 4;
    case DLT_LINUX_SLL:
        return 16;
    case DLT_LINUX_SLL2:
        return 20;
    default:
        return -1;
    }
}

static uint32_t type_by_version(const uint8_t *ip, uint32_t length)
{
    return length && ip[0] >> 4 == 6 ? 0x86dd : 0x0800;
}

/* DLT_NULL has the capturing host's byte order; families are small numbers, so at most one byte of
 * it is set. 2 is IPv4 everywhere, IPv6 has as many numbers as there are systems. */
static uint32_t type_by_family(const uint8_t *p)
{
    uint32_t family = p[0] | p[1] | p[2] | p[3];
    if (family == 2)
        return 0x0800;
    return family == 10 || family == 24 || family == 28 || family == 30 ? 0x86dd : 0;
}

/* Devices whose cooked captures do not say an EtherType: netlink, 802.11 radiotap, frame relay. */
static bool has_ethertype(uint32_t hardware)
{
    return hardware != 824 && hardware != 803 && hardware != 770;
}

static link_header read_link(int link, const uint8_t *p, uint32_t length)
{
    link_header h = {(uint32_t)link_bytes(link), 0, NULL};
    uint32_t hardware = 0, address_bytes = 0;
    if (link == DLT_NULL || link == DLT_LOOP) {
        h.type = type_by_family(p);
    } else if (link == DLT_LINUX_SLL) {
        hardware = be16(p + 2);
        address_bytes = be16(p + 4);
        h.source = p + 6;
        h.type = be16(p + 14);
    } else if (link == DLT_LINUX_SLL2) {
        hardware = be16(p + 8);
        address_bytes = p[11];
        h.source = p + 12;
        h.type = be16(p);
    } else {
        h.type = link == DLT_IPV4 ? 0x0800 : link == DLT_IPV6 ? 0x86dd : type_by_version(p, length);
    }
    if (address_bytes != 6)
        h.source = NULL;
    if (!has_ethertype(hardware))
        h.type = 0;
    return h;
}

/* Copies a packet of `length` bytes to `to` as Ethernet; returns its new length, which is at most
 * ETHERNET_BYTES more. What is shorter than its link header becomes a runt. */
static uint32_t copy_as_ethernet(int link, const uint8_t *p, uint32_t length, uint8_t *to)
{
    if (link == DLT_EN10MB) {
        memcpy(to, p, length);
        return length;
    }
    if (length < (uint32_t)link_bytes(link)) {
        uint32_t runt = length < ETHERNET_BYTES ? length : ETHERNET_BYTES - 1;
        memcpy(to, p, runt);
        return runt;
    }
    link_header h = read_link(link, p, length);
    memset(to, 0, ETHERNET_BYTES);
    if (h.source)
        memcpy(to + 6, h.source, 6);
    to[12] = (uint8_t)(h.type >> 8);
    to[13] = (uint8_t)h.type;
    memcpy(to + ETHERNET_BYTES, p + h.strip, length - h.strip);
    return length - h.strip + ETHERNET_BYTES;
}

/* ---- open ------------------------------------------------------------------------------------ */

static bool reserve(pcap_input *in, size_t bytes)
{
    if (in->size - in->used >= bytes)
        return true;
    size_t size = in->size ? in->size : FIRST_STORE;
    while (size - in->used < bytes)
        size *= 2;
    void *store =
        in->store ? mremap(in->store, in->size, size, MREMAP_MAYMOVE)
                  : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (store == MAP_FAILED)
        return false;
    madvise(store, size, MADV_HUGEPAGE); /* a hint: a long capture is read from end to end */
    in->store = store;
    in->size = size;
    return true;
}

/* libpcap reads the file's unsigned 32-bit seconds into a signed number. */
static uint64_t nanoseconds(const struct timeval *t)
{
    uint64_t seconds = t->tv_sec < 0 ? (uint32_t)t->tv_sec : (uint64_t)t->tv_sec;
    bool sound = t->tv_usec >= 0 && t->tv_usec < 1000000000;
    return seconds * 1000000000u + (sound ? (uint64_t)t->tv_usec : 0);
}

/* What all packets of a capture have in common while it is loaded. */
typedef struct {
    int link;
    bool any;
    uint64_t earliest_ns;
    uint64_t latest_ns;
    uint64_t last_ns;
    uint64_t due_ns;
} loading;

static bool append(pcap_input *in, loading *l, const struct pcap_pkthdr *h, const uint8_t *bytes)
{
    if (!reserve(in, record_bytes(h->caplen + ETHERNET_BYTES)))
        return false;
    record *r = (record *)(in->store + in->used);
    uint64_t now = nanoseconds(&h->ts);
    if (l->any && now > l->last_ns)
        l->due_ns += now - l->last_ns;
    if (!l->any || now < l->earliest_ns)
        l->earliest_ns = now;
    if (!l->any || now > l->latest_ns)
        l->latest_ns = now;
    l->last_ns = now;
    l->any = true;
    r->time_ns = now;
    r->due_ns = l->due_ns;
    r->length = copy_as_ethernet(l->link, bytes, h->caplen, r->bytes);
    in->used += record_bytes(r->length);
    return true;
}

/* A file that ends or breaks off in the middle of a record is good up to there. */
static bool load(pcap_input *in, pcap_t *capture, const char *path, char *error, size_t error_size)
{
    loading l = {.link = pcap_datalink(capture)};
    struct pcap_pkthdr *h;
    const uint8_t *bytes;
    uint64_t packets = 0;
    int rc;
    while ((rc = pcap_next_ex(capture, &h, &bytes)) == 1) {
        if (!append(in, &l, h, bytes)) {
            snprintf(error, error_size, "%s: not enough memory after %llu packets", path,
                     (unsigned long long)packets);
            return false;
        }
        packets++;
    }
    if (rc == PCAP_ERROR)
        snprintf(in->port.warning, sizeof in->port.warning,
                 "%.100s: only the first %llu packets can be read: %s", path,
                 (unsigned long long)packets, pcap_geterr(capture));
    in->time_span = l.latest_ns - l.earliest_ns;
    in->due_span = l.due_ns;
    return true;
}

static bool check_link(pcap_t *capture, const char *path, char *error, size_t error_size)
{
    int link = pcap_datalink(capture);
    if (link_bytes(link) >= 0)
        return true;
    const char *name = pcap_datalink_val_to_name(link);
    snprintf(error, error_size,
             "%s: link type %s (%d) is not supported; Ethernet, raw IP, BSD loopback and Linux "
             "cooked captures (SLL, SLL2) are",
             path, name ? name : "unknown", link);
    return false;
}

/* The file, if there is something in it. */
static FILE *open_file(const char *path, char *error, size_t error_size)
{
    FILE *f = fopen(path, "rbe");
    int first = f ? getc(f) : EOF;
    if (first != EOF) {
        ungetc(first, f);
        return f;
    }
    if (!f || ferror(f))
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
    else
        snprintf(error, error_size, "%s: the file is empty", path);
    if (f)
        fclose(f);
    return NULL;
}

static bool read_capture(pcap_input *in, const char *path, char *error, size_t error_size)
{
    FILE *f = open_file(path, error, error_size);
    if (!f)
        return false;
    char reason[PCAP_ERRBUF_SIZE];
    pcap_t *capture =
        pcap_fopen_offline_with_tstamp_precision(f, PCAP_TSTAMP_PRECISION_NANO, reason);
    if (!capture) {
        snprintf(error, error_size, "%s: %s", path, reason);
        fclose(f);
        return false;
    }
    bool ok =
        check_link(capture, path, error, error_size) && load(in, capture, path, error, error_size);
    pcap_close(capture);
    return ok;
}

static bool check_pace(const hb_pcap_input *in, char *error, size_t error_size)
{
    bool known =
        in->pace == HB_PACE_FAST || in->pace == HB_PACE_RATE || in->pace == HB_PACE_ORIGINAL;
    if (known && (in->pace != HB_PACE_RATE || (isfinite(in->rate) && in->rate > 0)))
        return true;
    if (known)
        snprintf(error, error_size, "%s: the rate must be more than 0", in->path);
    else
        snprintf(error, error_size, "%s: there is no pace %d", in->path, in->pace);
    return false;
}

hb_port *hb_pcap_input_open(const hb_pcap_input *config, char *error, size_t error_size)
{
    static const hb_port_ops ops = {.rx = pcap_rx, .close = pcap_input_close};
    if (!check_pace(config, error, error_size))
        return NULL;
    pcap_input *in = calloc(1, sizeof *in);
    if (!in) {
        snprintf(error, error_size, "%s: not enough memory", config->path);
        return NULL;
    }
    in->port.ops = &ops;
    if (!read_capture(in, config->path, error, error_size)) {
        pcap_input_close(&in->port);
        return NULL;
    }
    in->port.paced = config->pace != HB_PACE_FAST;
    in->port.has_end = config->loops || !in->used;
    atomic_store_explicit(&in->port.done, !in->used, memory_order_relaxed);
    in->next = in->store;
    in->loops_left = config->loops;
    in->pace = config->pace;
    if (config->pace == HB_PACE_RATE)
        in->pacer = hb_pacer_at(config->rate);
    in->ns_per_tick = 1e9 / hb_tick_rate();
    return &in->port;
}
