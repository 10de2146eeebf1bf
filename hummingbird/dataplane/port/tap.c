/* SPDX-License-Identifier: BSD-3-Clause */
/* tap.c: a tap, an Ethernet interface of the kernel whose other side we are. It lives as long
 * as a file of it is open. One system call and one copy for each packet. */
#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define LONGEST 65536 /* bytes of a packet of any interface */
#define TABLE_BYTES 32768
#define MISSED_S 0.05 /* between two looks at what the kernel had to drop */

/* All queues of one port. */
typedef struct {
    char name[IFNAMSIZ];
    uint32_t queues;
    uint32_t users; /* who knows it: the last one frees it */
} group;

typedef struct {
    hb_port port;
    group *group;
    uint32_t number;  /* of this queue in the group; the first one asks for the kernel's drops */
    int fd;           /* -1: not open */
    int table;        /* of all interfaces' counters, a text; -1: not open */
    uint64_t dropped; /* by the kernel, as the table had it last */
    uint64_t look_at; /* tick at which to look again */
    uint64_t look_every;
    uint8_t rest[LONGEST]; /* of a packet that fits no frame: nobody reads it */
    char text[TABLE_BYTES];
} tap;

/* ---- in and out ------------------------------------------------------------------------------ */

/* The line `NAME: ...` of the table; "" if there is none. */
static const char *line_of(const char *text, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = text; (at = strstr(at, name)); at++)
        if (at != text && at[-1] <= ' ' && at[length] == ':')
            return at + length + 1;
    return "";
}

/* How many packets to the interface the kernel has dropped because no one took them. It has no
 * system call for that which waits for nobody, but this file. */
static uint64_t count_dropped(tap *p)
{
    enum { COLUMN = 11 }; /* behind eight of what came from us, and bytes, packets, errors */
    ssize_t n = p->table < 0 ? -1 : pread(p->table, p->text, sizeof p->text - 1, 0);
    p->text[n < 0 ? 0 : n] = 0;
    char *next = (char *)line_of(p->text, p->group->name);
    uint64_t dropped = 0;
    for (int column = 0; column <= COLUMN; column++)
        dropped = strtoull(next, &next, 10);
    return dropped;
}

static void look_for_missed(tap *p)
{
    uint64_t now = count_dropped(p);
    if (now <= p->dropped)
        return;
    p->port.missed += now - p->dropped;
    p->dropped = now;
}

static void too_long(tap *p, uint32_t bytes)
{
    p->port.too_long++;
    p->port.too_long_bytes += bytes;
    if (atomic_load_explicit(&p->port.failed, memory_order_relaxed))
        return;
    snprintf(p->port.error, sizeof p->port.error,
             "interface %s: a packet of %u bytes came, which fits no frame (fix: "
             "memory.frame_size: 4096, or a lower MTU)",
             p->group->name, bytes);
    /* release: who sees the number sees the text */
    atomic_store_explicit(&p->port.failed, EMSGSIZE, memory_order_release);
}

static uint32_t tap_rx(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    tap *p = (tap *)port;
    uint32_t room = hb_frame_room(a), filled = 0;
    uint64_t time_ns = 0, now = hb_now();
    if (now >= p->look_at) {
        p->look_at = now + p->look_every;
        look_for_missed(p);
    }
    for (uint32_t tried = 0; tried < n; tried++) {
        hb_mbuf *m = hb_header(a, handles[filled]);
        struct iovec part[2] = {{hb_data(a, m), room}, {p->rest, sizeof p->rest}};
        ssize_t length = readv(p->fd, part, 2);
        if (length <= 0)
            break;
        port->serial++;
        if (length > room) {
            too_long(p, (uint32_t)length);
            continue;
        }
        m->data_len = (uint16_t)length;
        m->time_ns = time_ns = time_ns ? time_ns : hb_clock_time_ns();
        m->serial = port->serial;
        filled++;
    }
    return filled;
}

static enum hb_reason why(int number)
{
    switch (number) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
        return HB_REASON_port_full;
    case EIO:    /* down */
    case EBADFD: /* gone */
        return HB_REASON_port_down;
    default:
        return HB_REASON_port_error;
    }
}

static uint32_t tap_tx(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    tap *p = (tap *)port;
    uint32_t sent = 0;
    while (sent < n) {
        const hb_mbuf *m = hb_header(a, handles[sent]);
        if (write(p->fd, hb_data(a, m), m->data_len) == m->data_len) {
            sent++;
        } else if (errno != EINTR) {
            port->unsent = (uint8_t)why(errno);
            break;
        }
    }
    return sent;
}

/* ---- open and close -------------------------------------------------------------------------- */

static int bring_up(const char *name)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int failed = ioctl(fd, SIOCGIFFLAGS, &request);
    request.ifr_flags |= IFF_UP;
    failed = failed || ioctl(fd, SIOCSIFFLAGS, &request);
    int number = errno;
    close(fd);
    errno = number;
    return failed;
}

/* The first queue makes the interface. NULL, or what failed, with errno. */
static const char *open_file(tap *p)
{
    const group *g = p->group;
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    if (g->queues > 1)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    memcpy(request.ifr_name, g->name, sizeof g->name);
    p->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (p->fd < 0)
        return "/dev/net/tun";
    if (ioctl(p->fd, TUNSETIFF, &request))
        return "a tap of this name";
    if (p->number == g->queues - 1 && bring_up(g->name))
        return "bringing it up";
    if (!p->number) /* of the thread's network namespace, not of the process's; without it nothing
                       is missed but a figure */
        p->table = open("/proc/thread-self/net/dev", O_RDONLY | O_CLOEXEC);
    p->dropped = count_dropped(p);
    p->port.ready_fd = p->fd;
    return NULL;
}

static const char *fix_of(int number)
{
    switch (number) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return "load the kernel's module: modprobe tun";
    case EPERM:
    case EACCES:
        return "run it as root, or with the capability CAP_NET_ADMIN";
    case EBUSY:
        return "another program has it: choose another name";
    case EINVAL:
        return "an interface has this name and is no such tap: choose another name";
    default:
        return "choose another name";
    }
}

static void close_file(tap *p)
{
    look_for_missed(p);
    if (p->fd >= 0)
        close(p->fd);
    if (p->table >= 0)
        close(p->table);
    p->fd = p->table = -1;
    p->port.ready_fd = 0;
}

static int tap_reopen(hb_port *port, char *error, size_t error_size)
{
    tap *p = (tap *)port;
    close_file(p);
    const char *failed = open_file(p);
    if (!failed)
        return 0;
    int number = errno;
    snprintf(error, error_size, "interface %s: %s: %s\n%s", p->group->name, failed,
             strerror(number), fix_of(number));
    close_file(p);
    return -1;
}

static void tap_flush(hb_port *port)
{
    look_for_missed((tap *)port);
}

static void leave(group *g)
{
    if (!--g->users)
        free(g);
}

static void tap_close(hb_port *port)
{
    tap *p = (tap *)port;
    close_file(p);
    leave(p->group);
    free(p);
}

/* One queue of the group; NULL and a text in error. */
static hb_port *open_queue(group *g, uint32_t number, char *error, size_t error_size)
{
    static const hb_port_ops ops = {
        .rx = tap_rx, .tx = tap_tx, .flush = tap_flush, .reopen = tap_reopen, .close = tap_close};
    tap *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(error, error_size, "not enough memory");
        return NULL;
    }
    p->port.ops = &ops;
    p->port.paced = p->port.live = true;
    p->number = number;
    p->fd = p->table = -1;
    p->look_every = (uint64_t)(MISSED_S * hb_tick_rate());
    p->group = g;
    g->users++;
    if (!tap_reopen(&p->port, error, error_size))
        return &p->port;
    tap_close(&p->port);
    return NULL;
}

int hb_tap_open(const hb_interface *params, hb_port **queues, char *error, size_t error_size)
{
    uint32_t q = 0;
    group *g = calloc(1, sizeof *g);
    if (!g) {
        snprintf(error, error_size, "not enough memory");
        return -1;
    }
    snprintf(g->name, sizeof g->name, "%s", params->interface);
    g->queues = params->queues;
    g->users = 1; /* this function */
    while (q < g->queues && (queues[q] = open_queue(g, q, error, error_size)))
        q++;
    bool all = q == g->queues;
    if (all)
        snprintf(queues[0]->note, sizeof queues[0]->note,
                 "tap %s made, %u queue%s, the kernel copies each packet once each way", g->name, q,
                 q > 1 ? "s" : "");
    while (!all && q--)
        tap_close(queues[q]);
    leave(g);
    return all ? 0 : -1;
}
