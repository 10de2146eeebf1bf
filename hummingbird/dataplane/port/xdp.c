/* SPDX-License-Identifier: BSD-3-Clause */
/* xdp.c: the XDP program, its map, and how it gets to the interface and off it again. */
#include "xdp.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Of 10 ms: what a process that was killed had attached goes a bit later. */
#define BUSY_TRIES 100

static int bpf(int command, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, command, attr, sizeof *attr);
}

/* The kernel refuses what has a bit set that the command does not know, and an initialiser need not
 * clear all of a union. */
static union bpf_attr nothing(void)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    return attr;
}

static int make_map(uint32_t queues)
{
    union bpf_attr attr = nothing();
    attr.map_type = BPF_MAP_TYPE_XSKMAP;
    attr.key_size = sizeof(uint32_t);
    attr.value_size = sizeof(int);
    attr.max_entries = queues;
    strcpy(attr.map_name, "hb_sockets");
    return bpf(BPF_MAP_CREATE, &attr);
}

/* The program of xdp.h, as the kernel's verifier takes it (linux/bpf.h). */
static int load_program(int map)
{
    const struct bpf_insn code[] = {
        /* r2 = ctx->rx_queue_index */
        {.code = BPF_LDX | BPF_MEM | BPF_W,
         .dst_reg = BPF_REG_2,
         .src_reg = BPF_REG_1,
         .off = offsetof(struct xdp_md, rx_queue_index)},
        /* r1 = the map: one instruction of two words */
        {.code = BPF_LD | BPF_DW | BPF_IMM,
         .dst_reg = BPF_REG_1,
         .src_reg = BPF_PSEUDO_MAP_FD,
         .imm = map},
        {0},
        /* r3 = what to do without a socket */
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = XDP_PASS},
        {.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attr = nothing();
    attr.prog_type = BPF_PROG_TYPE_XDP;
    attr.insns = (uintptr_t)code;
    attr.insn_cnt = sizeof code / sizeof *code;
    attr.license = (uintptr_t) "BSD";
    strcpy(attr.prog_name, "hb_xdp");
    return bpf(BPF_PROG_LOAD, &attr);
}

static int attach_by(const hb_xdp *x, uint32_t flags)
{
    union bpf_attr attr = nothing();
    attr.link_create.prog_fd = (uint32_t)x->program;
    attr.link_create.target_ifindex = x->ifindex;
    attr.link_create.attach_type = BPF_XDP;
    attr.link_create.flags = flags;
    struct timespec t = {0, 10000000};
    int link;
    for (uint32_t i = 0; (link = bpf(BPF_LINK_CREATE, &attr)) < 0 &&
                         (errno == EBUSY || errno == EEXIST) && i < BUSY_TRIES;
         i++)
        nanosleep(&t, NULL);
    return link;
}

/* Another program is there, or we may not, or the interface is gone: no other way helps. */
static bool is_final(int number)
{
    return number == EBUSY || number == EEXIST || number == EPERM || number == ENODEV;
}

static int attach_program(hb_xdp *x, enum hb_xdp_attach attach)
{
    x->native = attach != HB_XDP_GENERIC;
    if (x->native)
        x->link = attach_by(x, XDP_FLAGS_DRV_MODE);
    if (x->link < 0 && x->native && (attach == HB_XDP_NATIVE || is_final(errno)))
        return -1;
    if (x->link < 0) {
        x->refused = x->native ? errno : 0;
        x->native = false;
        x->link = attach_by(x, XDP_FLAGS_SKB_MODE);
    }
    return x->link < 0 ? -1 : 0;
}

/* By a membership of a socket that gets no packets itself: it ends with the socket. */
static int make_promiscuous(hb_xdp *x)
{
    struct packet_mreq all = {.mr_ifindex = (int)x->ifindex, .mr_type = PACKET_MR_PROMISC};
    x->promisc = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (x->promisc < 0)
        return -1;
    return setsockopt(x->promisc, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all);
}

static int open_steps(hb_xdp *x, const char *interface, uint32_t queues, enum hb_xdp_attach attach,
                      enum hb_xdp_step *step)
{
    *step = HB_XDP_INTERFACE;
    if (!(x->ifindex = if_nametoindex(interface)))
        return -1;
    *step = HB_XDP_PROGRAM;
    if ((x->map = make_map(queues)) < 0 || (x->program = load_program(x->map)) < 0)
        return -1;
    *step = HB_XDP_PROMISC;
    if (make_promiscuous(x))
        return -1;
    *step = HB_XDP_ATTACH;
    return attach_program(x, attach);
}

int hb_xdp_open(hb_xdp *x, const char *interface, uint32_t queues, enum hb_xdp_attach attach,
                hb_xdp_failure *failure)
{
    *x = (hb_xdp){.map = -1, .program = -1, .link = -1, .promisc = -1};
    if (!open_steps(x, interface, queues, attach, &failure->step))
        return 0;
    failure->number = errno;
    hb_xdp_close(x);
    return -1;
}

void hb_xdp_close(hb_xdp *x)
{
    const int fd[] = {x->link, x->program, x->map, x->promisc}; /* off the interface first */
    for (uint32_t i = 0; i < sizeof fd / sizeof *fd; i++)
        if (fd[i] >= 0)
            close(fd[i]);
    *x = (hb_xdp){.map = -1, .program = -1, .link = -1, .promisc = -1};
}

int hb_xdp_enter(const hb_xdp *x, uint32_t queue, int socket, hb_xdp_failure *failure)
{
    union bpf_attr attr = nothing();
    attr.map_fd = (uint32_t)x->map;
    attr.key = (uintptr_t)&queue;
    attr.value = (uintptr_t)&socket;
    if (!bpf(BPF_MAP_UPDATE_ELEM, &attr))
        return 0;
    *failure = (hb_xdp_failure){HB_XDP_ENTER, errno};
    return -1;
}
