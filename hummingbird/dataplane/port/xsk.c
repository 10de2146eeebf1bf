/* SPDX-License-Identifier: BSD-3-Clause */
/* xsk.c: an AF_XDP socket is opened and closed. */
#include "xsk.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SEND_BUFFER (8 << 20) /* bytes of copies on their way out, where the kernel copies */
#define BUSY_TRIES 100        /* of 10 ms: what a process that was killed had is freed later */

static int set(int fd, int option, const void *value, socklen_t size)
{
    return setsockopt(fd, SOL_XDP, option, value, size);
}

static int register_frames(const hb_xsk *x, const hb_xsk_params *p)
{
    struct xdp_umem_reg reg = {.addr = (uintptr_t)p->frames,
                               .len = p->bytes,
                               .chunk_size = p->frame_size,
                               .headroom = p->headroom};
    return set(x->fd, XDP_UMEM_REG, &reg, sizeof reg);
}

static int map_ring(hb_xsk_ring *r, int fd, const struct xdp_ring_offset *at, uint32_t entries,
                    size_t entry_bytes, off_t page)
{
    size_t bytes = at->desc + entries * entry_bytes;
    uint8_t *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, page);
    if (map == MAP_FAILED)
        return -1;
    *r = (hb_xsk_ring){.producer = (uint32_t *)(map + at->producer),
                       .consumer = (uint32_t *)(map + at->consumer),
                       .flags = (uint32_t *)(map + at->flags),
                       .entry = map + at->desc,
                       .mask = entries - 1,
                       .map = map,
                       .map_bytes = bytes};
    return 0;
}

static int make_rings(hb_xsk *x, uint32_t entries)
{
    struct xdp_mmap_offsets at;
    socklen_t size = sizeof at;
    const size_t desc = sizeof(struct xdp_desc), addr = sizeof(uint64_t);
    return set(x->fd, XDP_UMEM_FILL_RING, &entries, sizeof entries) ||
           set(x->fd, XDP_UMEM_COMPLETION_RING, &entries, sizeof entries) ||
           set(x->fd, XDP_RX_RING, &entries, sizeof entries) ||
           set(x->fd, XDP_TX_RING, &entries, sizeof entries) ||
           getsockopt(x->fd, SOL_XDP, XDP_MMAP_OFFSETS, &at, &size) ||
           map_ring(&x->fill, x->fd, &at.fr, entries, addr, (off_t)XDP_UMEM_PGOFF_FILL_RING) ||
           map_ring(&x->completion, x->fd, &at.cr, entries, addr,
                    (off_t)XDP_UMEM_PGOFF_COMPLETION_RING) ||
           map_ring(&x->rx, x->fd, &at.rx, entries, desc, XDP_PGOFF_RX_RING) ||
           map_ring(&x->tx, x->fd, &at.tx, entries, desc, XDP_PGOFF_TX_RING);
}

static int bind_queue(hb_xsk *x, const hb_xsk_params *p)
{
    struct sockaddr_xdp to = {.sxdp_family = AF_XDP,
                              .sxdp_flags = p->bind_flags | XDP_USE_NEED_WAKEUP,
                              .sxdp_ifindex = p->ifindex,
                              .sxdp_queue_id = p->queue};
    struct timespec t = {0, 10000000};
    int failed;
    for (uint32_t i = 0; (failed = bind(x->fd, (struct sockaddr *)&to, sizeof to)) &&
                         errno == EBUSY && i < BUSY_TRIES;
         i++)
        nanosleep(&t, NULL);
    if (failed)
        return -1;
    struct xdp_options got = {0};
    socklen_t size = sizeof got;
    x->zero_copy =
        !getsockopt(x->fd, SOL_XDP, XDP_OPTIONS, &got, &size) && (got.flags & XDP_OPTIONS_ZEROCOPY);
    return 0;
}

/* The default is too small for a ring of long packets. Past the limit of all sockets if that is
 * allowed. */
static void enlarge_send_buffer(const hb_xsk *x)
{
    int bytes = SEND_BUFFER;
    if (setsockopt(x->fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes))
        setsockopt(x->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

int hb_xsk_open(hb_xsk *x, const hb_xsk_params *params, hb_xdp_failure *failure)
{
    memset(x, 0, sizeof *x);
    failure->step = HB_XDP_SOCKET;
    x->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (x->fd >= 0) {
        failure->step = HB_XDP_UMEM;
        if (!register_frames(x, params)) {
            failure->step = HB_XDP_RINGS;
            if (!make_rings(x, params->entries)) {
                failure->step = HB_XDP_BIND;
                enlarge_send_buffer(x);
                if (!bind_queue(x, params))
                    return 0;
            }
        }
    }
    failure->number = errno;
    hb_xsk_close(x);
    return -1;
}

void hb_xsk_close(hb_xsk *x)
{
    hb_xsk_ring *ring[] = {&x->fill, &x->rx, &x->tx, &x->completion};
    for (uint32_t i = 0; i < sizeof ring / sizeof *ring; i++)
        if (ring[i]->map)
            munmap(ring[i]->map, ring[i]->map_bytes);
    if (x->fd >= 0)
        close(x->fd);
    memset(x, 0, sizeof *x);
    x->fd = -1;
}

uint64_t hb_xsk_missed(const hb_xsk *x)
{
    struct xdp_statistics s = {0};
    socklen_t size = sizeof s;
    if (getsockopt(x->fd, SOL_XDP, XDP_STATISTICS, &s, &size))
        return 0;
    /* a fill ring found empty is not added: where it cost a packet, that is in rx_dropped */
    return s.rx_dropped + s.rx_ring_full;
}
