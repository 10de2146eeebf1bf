/* SPDX-License-Identifier: BSD-3-Clause */
/* af_packet.c: a network interface by packet sockets. The kernel copies each packet once, into
 * its frame or out of it. Any interface can be had so. */
#include "inet.h"
#include "port.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING /* since Linux 5.16; older ones bear it */
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000
#endif
#define IN_BYTES (8 << 20) /* of packets that wait in the kernel, as it counts them */
#define OUT_BYTES (2 << 20)
#define MISSED_S 0.05 /* between two looks at what the kernel had to drop */

typedef struct af_packet af_packet;

/* All queues of one port. The kernel gives each flow to one of them. */
typedef struct {
    char name[IFNAMSIZ];
    uint32_t queues;
    uint32_t users; /* who knows it: the last one frees it */
    int fanout;     /* id of the kernel's group */
    af_packet *queue[HB_MAX_LCORES];
} group;

/* Ancillary data of one packet. */
typedef union {
    struct cmsghdr first; /* for its alignment */
    uint8_t bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
} ancillary;

/* The two sockets are apart because an error of one direction would be reported to the other. What
 * the arrays hold is set by ready_messages(), except what rx() and tx() set for each packet. */
struct af_packet {
    hb_port port;
    group *group;
    uint32_t number; /* of this queue in the group */
    int in;          /* sockets; -1: not open */
    int out;
    uint64_t look_at; /* tick at which to ask for the kernel's drops again */
    uint64_t look_every;
    struct mmsghdr got[HB_BURST]; /* by packet: messages of recvmmsg() ... */
    struct iovec part[HB_BURST][2];
    struct virtio_net_hdr head[HB_BURST];
    ancillary more[HB_BURST];
    struct mmsghdr send[HB_BURST]; /* ... and of sendmmsg() */
    struct iovec bytes[HB_BURST];
};

/* ---- in -------------------------------------------------------------------------------------- */

/* The kernel says how many packets found no room, and counts from 0 again. */
static void look_for_missed(af_packet *p)
{
    struct tpacket_stats stats;
    socklen_t size = sizeof stats;
    if (!getsockopt(p->in, SOL_PACKET, PACKET_STATISTICS, &stats, &size))
        p->port.missed += stats.tp_drops;
}

/* A local sender has left the checksum to its interface: the sum over the pseudo header stands in
 * its place. */
static void complete_checksum(uint8_t *packet, uint32_t length, const struct virtio_net_hdr *h)
{
    enum { TCP = 16, UDP = 6 };
    uint32_t start = h->csum_start, at = start + h->csum_offset;
    if ((h->csum_offset != TCP && h->csum_offset != UDP) || at + 2 > length)
        return;
    uint32_t sum = hb_inet_sum(packet + start, length - start, 0);
    hb_put_be16(packet + at, sum ? sum : 0xffff); /* 0 is "none" in UDP, the same in TCP */
}

/* The VLAN tag that the kernel has taken off, or NULL. */
static const struct tpacket_auxdata *tag_of(const struct msghdr *h)
{
    const struct cmsghdr *c = CMSG_FIRSTHDR(h);
    if (!c || c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA)
        return NULL;
    const struct tpacket_auxdata *aux = (const struct tpacket_auxdata *)CMSG_DATA(c);
    return aux->tp_status & TP_STATUS_VLAN_VALID ? aux : NULL;
}

static void put_tag_back(const hb_arena *a, hb_mbuf *m, const struct tpacket_auxdata *tag)
{
    enum { ADDRESSES = 12, TAG = 4 };
    bool known = tag->tp_status & TP_STATUS_VLAN_TPID_VALID;
    m->data_off -= TAG;
    m->data_len += TAG;
    uint8_t *packet = hb_data(a, m);
    memmove(packet, packet + TAG, ADDRESSES);
    hb_put_be16(packet + ADDRESSES, known ? tag->tp_vlan_tpid : ETH_P_8021Q);
    hb_put_be16(packet + ADDRESSES + 2, tag->tp_vlan_tci);
}

/* One packet fits no frame. The first one is said: `segments`, that a sender of this host has left
 * the segmentation to its interface. */
static void too_long(af_packet *p, uint32_t bytes, bool segments)
{
    p->port.too_long++;
    p->port.too_long_bytes += bytes;
    if (atomic_load_explicit(&p->port.failed, memory_order_relaxed))
        return;
    const char *name = p->group->name;
    if (segments)
        snprintf(p->port.error, sizeof p->port.error,
                 "interface %s: several segments came as one long packet, which is dropped (fix: "
                 "ethtool -K %s gro off, and ethtool -K PEER tso off gso off if its peer is a "
                 "virtual interface)",
                 name, name);
    else
        snprintf(p->port.error, sizeof p->port.error,
                 "interface %s: a packet of %u bytes came, which fits no frame (fix: "
                 "memory.frame_size: 4096, or a lower MTU)",
                 name, bytes);
    /* release: who sees the number sees the text */
    atomic_store_explicit(&p->port.failed, EMSGSIZE, memory_order_release);
}

/* Message i is in the frame of m: true if all of it is. */
static bool take(af_packet *p, const hb_arena *a, uint32_t i, hb_mbuf *m)
{
    const struct virtio_net_hdr *h = &p->head[i];
    const struct tpacket_auxdata *tag = tag_of(&p->got[i].msg_hdr);
    uint32_t length = p->got[i].msg_len - (uint32_t)sizeof *h;
    if (p->got[i].msg_hdr.msg_flags & MSG_TRUNC) {
        too_long(p, length + (tag ? 4 : 0), h->gso_type != VIRTIO_NET_HDR_GSO_NONE);
        return false;
    }
    m->data_len = (uint16_t)length;
    if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        complete_checksum(hb_data(a, m), length, h);
    if (tag)
        put_tag_back(a, m, tag);
    return true;
}

static void offer(af_packet *p, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    uint32_t room = hb_frame_room(a);
    for (uint32_t i = 0; i < n; i++) {
        p->part[i][1] = (struct iovec){hb_data(a, hb_header(a, handles[i])), room};
        p->got[i].msg_hdr.msg_controllen = sizeof p->more[i];
    }
}

static uint32_t af_packet_rx(hb_port *port, const hb_arena *a, uint32_t *handles, uint32_t n)
{
    af_packet *p = (af_packet *)port;
    uint64_t now = hb_now();
    if (now >= p->look_at) {
        p->look_at = now + p->look_every;
        look_for_missed(p);
    }
    offer(p, a, handles, n);
    int got = recvmmsg(p->in, p->got, n, MSG_DONTWAIT | MSG_TRUNC, NULL);
    if (got < 0 && errno == EINVAL) /* segments of a kind that has no virtio_net_hdr: it is gone */
        too_long(p, 0, true);
    uint64_t time_ns = hb_clock_time_ns();
    uint32_t filled = 0;
    for (uint32_t i = 0; (int)i < got; i++) {
        uint32_t handle = handles[i];
        hb_mbuf *m = hb_header(a, handle);
        port->serial++;
        if (!take(p, a, i, m))
            continue;
        m->time_ns = time_ns;
        m->serial = port->serial;
        handles[i] = handles[filled];
        handles[filled++] = handle;
    }
    return filled;
}

/* ---- out ------------------------------------------------------------------------------------- */

static enum hb_reason why(int number)
{
    switch (number) {
    case EAGAIN:
    case ENOBUFS:
        return HB_REASON_port_full;
    case EMSGSIZE:
        return HB_REASON_too_long;
    case ENETDOWN:
    case ENXIO:
    case ENODEV:
        return HB_REASON_port_down;
    default:
        return HB_REASON_port_error;
    }
}

static uint32_t af_packet_tx(hb_port *port, const hb_arena *a, const uint32_t *handles, uint32_t n)
{
    af_packet *p = (af_packet *)port;
    uint32_t sent = 0;
    for (uint32_t i = 0; i < n; i++) {
        const hb_mbuf *m = hb_header(a, handles[i]);
        p->bytes[i] = (struct iovec){hb_data(a, m), m->data_len};
    }
    while (sent < n) {
        int some = sendmmsg(p->out, p->send + sent, n - sent, MSG_DONTWAIT);
        if (some > 0) {
            sent += (uint32_t)some;
        } else if (errno != EINTR) { /* of the first one: before others it is not told */
            port->unsent = (uint8_t)why(errno);
            break;
        }
    }
    return sent;
}

/* ---- open and close -------------------------------------------------------------------------- */

static void ready_messages(af_packet *p)
{
    for (uint32_t i = 0; i < HB_BURST; i++) {
        p->part[i][0] = (struct iovec){&p->head[i], sizeof p->head[i]};
        p->got[i].msg_hdr =
            (struct msghdr){.msg_iov = p->part[i], .msg_iovlen = 2, .msg_control = &p->more[i]};
        p->send[i].msg_hdr = (struct msghdr){.msg_iov = &p->bytes[i], .msg_iovlen = 1};
    }
}

static bool set(int fd, int level, int option, int value)
{
    return !setsockopt(fd, level, option, &value, sizeof value);
}

/* A bigger buffer than an ordinary user may have, if we have the right. */
static void set_buffer(int fd, int forced, int ordinary, int bytes)
{
    if (!set(fd, SOL_SOCKET, forced, bytes / 2)) /* the kernel doubles it */
        set(fd, SOL_SOCKET, ordinary, bytes / 2);
}

static bool bind_to(int fd, int index, uint16_t protocol)
{
    struct sockaddr_ll to = {
        .sll_family = AF_PACKET, .sll_ifindex = index, .sll_protocol = htobe16(protocol)};
    return !bind(fd, (struct sockaddr *)&to, sizeof to);
}

/* No packets until all queues are there: those that came before would be given to the wrong ones,
 * and twice. */
static bool refuse_all(int fd)
{
    struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {1, &nothing};
    return !setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static void accept_all(const group *g)
{
    for (uint32_t q = 0; q < g->queues; q++)
        set(g->queue[q]->in, SOL_SOCKET, SO_DETACH_FILTER, 0);
}

/* The first queue makes the kernel's group, whose id is one that nobody has. */
static bool join(af_packet *p)
{
    group *g = p->group;
    int how = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    socklen_t size = sizeof g->fanout;
    if (g->queues == 1)
        return true;
    if (p->number)
        return set(p->in, SOL_PACKET, PACKET_FANOUT, (g->fanout & 0xffff) | how << 16);
    return set(p->in, SOL_PACKET, PACKET_FANOUT, (how | PACKET_FANOUT_FLAG_UNIQUEID) << 16) &&
           !getsockopt(p->in, SOL_PACKET, PACKET_FANOUT, &g->fanout, &size);
}

static bool take_all_addresses(int fd, int index)
{
    struct packet_mreq all = {.mr_ifindex = index, .mr_type = PACKET_MR_PROMISC};
    return !setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all);
}

/* NULL, or what failed, with errno. */
static const char *open_in(af_packet *p, int index)
{
    p->in = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (p->in < 0)
        return "a packet socket";
    set_buffer(p->in, SO_RCVBUFFORCE, SO_RCVBUF, IN_BYTES);
    if (!set(p->in, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1))
        return "PACKET_IGNORE_OUTGOING";
    if (!set(p->in, SOL_PACKET, PACKET_AUXDATA, 1) || !set(p->in, SOL_PACKET, PACKET_VNET_HDR, 1))
        return "PACKET_AUXDATA, PACKET_VNET_HDR";
    if (!refuse_all(p->in))
        return "a filter";
    if (!bind_to(p->in, index, ETH_P_ALL))
        return "bind";
    if (!take_all_addresses(p->in, index))
        return "promiscuous mode";
    if (!join(p))
        return "several queues, which needs an interface that is up";
    if (p->number == p->group->queues - 1)
        accept_all(p->group);
    p->port.ready_fd = p->in;
    return NULL;
}

static const char *open_out(af_packet *p, int index)
{
    p->out = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (p->out < 0)
        return "a packet socket";
    set_buffer(p->out, SO_SNDBUFFORCE, SO_SNDBUF, OUT_BYTES);
    if (!set(p->out, SOL_PACKET, PACKET_QDISC_BYPASS, 1))
        return "PACKET_QDISC_BYPASS";
    return bind_to(p->out, index, 0) ? NULL : "bind"; /* 0: nothing comes in */
}

static void close_sockets(af_packet *p)
{
    if (p->in >= 0) {
        look_for_missed(p);
        close(p->in);
    }
    if (p->out >= 0)
        close(p->out);
    p->in = p->out = -1;
    p->port.ready_fd = 0;
}

static bool is_ethernet(const char *name)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool is = !ioctl(fd, SIOCGIFHWADDR, &request) && request.ifr_hwaddr.sa_family == ARPHRD_ETHER;
    close(fd);
    return is;
}

/* Closes it again if that fails: -1 and a text in error. */
static int open_sockets(af_packet *p, char *error, size_t error_size)
{
    const char *name = p->group->name;
    int index = (int)if_nametoindex(name);
    if (!index) {
        snprintf(error, error_size,
                 "there is no interface %s\n"
                 "correct the name: `ip link` shows the interfaces there are",
                 name);
        return -1;
    }
    if (!is_ethernet(name)) {
        snprintf(error, error_size, "%s is no Ethernet interface\nname one that is", name);
        return -1;
    }
    const char *failed = open_in(p, index);
    if (!failed)
        failed = open_out(p, index);
    if (!failed)
        return 0;
    int number = errno;
    const char *fix = number == EPERM ? "run it as root, or with the capability CAP_NET_RAW"
                                      : "`ip link` shows what state it is in";
    snprintf(error, error_size, "interface %s: %s: %s\n%s", name, failed, strerror(number), fix);
    close_sockets(p);
    return -1;
}

static int af_packet_reopen(hb_port *port, char *error, size_t error_size)
{
    af_packet *p = (af_packet *)port;
    close_sockets(p);
    return open_sockets(p, error, error_size);
}

static void af_packet_flush(hb_port *port)
{
    look_for_missed((af_packet *)port);
}

static void leave(group *g)
{
    if (!--g->users)
        free(g);
}

static void af_packet_close(hb_port *port)
{
    af_packet *p = (af_packet *)port;
    close_sockets(p);
    leave(p->group);
    free(p);
}

/* One queue of the group; NULL and a text in error. */
static hb_port *open_queue(group *g, uint32_t number, char *error, size_t error_size)
{
    static const hb_port_ops ops = {.rx = af_packet_rx,
                                    .tx = af_packet_tx,
                                    .flush = af_packet_flush,
                                    .reopen = af_packet_reopen,
                                    .close = af_packet_close};
    af_packet *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(error, error_size, "not enough memory");
        return NULL;
    }
    p->port.ops = &ops;
    p->port.paced = p->port.live = true;
    p->number = number;
    p->in = p->out = -1;
    p->port.ready_fd = 0;
    p->look_every = (uint64_t)(MISSED_S * hb_tick_rate());
    ready_messages(p);
    p->group = g;
    g->queue[number] = p;
    g->users++;
    if (!open_sockets(p, error, error_size))
        return &p->port;
    af_packet_close(&p->port);
    return NULL;
}

int hb_af_packet_open(const hb_interface *params, hb_port **queues, char *error, size_t error_size)
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
                 "af_packet on %s, %u queue%s, the kernel copies each packet once each way",
                 g->name, q, q > 1 ? "s" : "");
    while (!all && q--)
        af_packet_close(queues[q]);
    leave(g);
    return all ? 0 : -1;
}
