/* SPDX-License-Identifier: BSD-3-Clause */
/* pcap_output.c: a nanosecond capture as output. */
#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_BYTES (1u << 20)
#define LINK_ETHERNET 1

/* The file format, in the byte order of this machine: readers tell by the magic. */
typedef struct {
    uint32_t magic; /* 0xa1b23c4d: nanoseconds */
    uint16_t major;
    uint16_t minor;
    int32_t zone;
    uint32_t accuracy;
    uint32_t longest;
    uint32_t link;
} file_header;

typedef struct {
    uint32_t seconds;
    uint32_t nanoseconds;
    uint32_t length; /* in the file */
    uint32_t full;   /* on the wire */
} record_header;

/* The buffer starts with a whole record and is emptied as a whole: until then `written` bytes of it
 * are in the file, and trying again goes on from there. */
typedef struct {
    hb_port port;
    int fd;
    uint32_t used;
    uint32_t written;
    char path[128]; /* for messages */
    uint8_t buffer[BUFFER_BYTES];
} pcap_output;

/* Only the first failure is kept: the others follow from it. */
static void fail(pcap_output *out, int number, const char *what)
{
    if (atomic_load_explicit(&out->port.failed, memory_order_relaxed))
        return;
    snprintf(out->port.error, sizeof out->port.error, "%s: %s", out->path, what);
    /* release: who sees the number sees the text */
    atomic_store_explicit(&out->port.failed, number, memory_order_release);
}

static bool empty_buffer(pcap_output *out)
{
    while (out->written < out->used) {
        ssize_t n = write(out->fd, out->buffer + out->written, out->used - out->written);
        if (n > 0) {
            out->written += (uint32_t)n;
        } else if (n == 0 || errno != EINTR) {
            int number = n ? errno : EIO;
            fail(out, number, strerror(number));
            return false;
        }
    }
    out->used = out->written = 0;
    return true;
}

static void append(pcap_output *out, const hb_arena *a, const hb_mbuf *m)
{
    record_header h = {.seconds = (uint32_t)(m->time_ns / 1000000000u),
                       .nanoseconds = (uint32_t)(m->time_ns % 1000000000u),
                       .length = m->data_len,
                       .full = m->data_len};
    memcpy(out->buffer + out->used, &h, sizeof h);
    memcpy(out->buffer + out->used + sizeof h, hb_data(a, m), m->data_len);
    out->used += (uint32_t)sizeof h + m->data_len;
}

static uint32_t pcap_tx(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    pcap_output *out = (pcap_output *)port;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(a, handles[i]);
        size_t bytes = sizeof(record_header) + m->data_len;
        if (BUFFER_BYTES - out->used < bytes && !empty_buffer(out))
            return i;
        append(out, a, m);
    }
    return n;
}

/* Give up what cannot be written: count it, and cut the file behind its last whole record. */
static void give_up(pcap_output *out)
{
    uint32_t whole = 0;
    bool in_file = true;
    for (uint32_t at = 0; at < out->used;) {
        record_header h;
        memcpy(&h, out->buffer + at, sizeof h);
        at += (uint32_t)sizeof h + h.length;
        in_file = in_file && at <= out->written;
        if (in_file)
            whole = at;
        else
            out->port.lost++;
    }
    off_t end = lseek(out->fd, 0, SEEK_CUR) - (off_t)(out->written - whole);
    if (end >= 0 && ftruncate(out->fd, end) == 0) /* fails on a pipe, where nothing can be cut */
        lseek(out->fd, end, SEEK_SET);
    out->used = out->written = 0;
}

static void pcap_flush(hb_port *port)
{
    pcap_output *out = (pcap_output *)port;
    if (!empty_buffer(out))
        give_up(out);
}

static void pcap_output_close(hb_port *port)
{
    pcap_output *out = (pcap_output *)port;
    pcap_flush(port);
    if (out->fd >= 0)
        close(out->fd);
    free(out);
}

/* At once, so that a full disk is found before anything runs. */
static bool write_head(pcap_output *out)
{
    file_header head = {0xa1b23c4d, 2, 4, 0, 0, 262144, LINK_ETHERNET};
    memcpy(out->buffer, &head, sizeof head);
    out->used = sizeof head;
    return empty_buffer(out);
}

hb_port *hb_pcap_output_open(const char *path, char *error, size_t error_size)
{
    static const hb_port_ops ops = {.tx = pcap_tx, .flush = pcap_flush, .close = pcap_output_close};
    pcap_output *out = malloc(sizeof *out);
    if (!out) {
        snprintf(error, error_size, "%s: not enough memory", path);
        return NULL;
    }
    memset(out, 0, offsetof(pcap_output, buffer));
    out->port.ops = &ops;
    snprintf(out->path, sizeof out->path, "%s", path);
    out->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (out->fd < 0 || !write_head(out)) {
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
        out->used = out->written = 0;
        pcap_output_close(&out->port);
        return NULL;
    }
    return &out->port;
}
