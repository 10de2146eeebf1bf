/* SPDX-License-Identifier: BSD-3-Clause */
/* xdp_error.c: what is wrong when an AF_XDP port cannot be opened, and what mends it. */
#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "af_xdp_api.h"
#include "af_xdp.h"

/* The text of one failure. `what` may be cut, `fix` is whole. */
typedef struct {
    char what[200];
    char fix[200];
} hb_text;

#define SAY(text, ...) snprintf((text)->what, sizeof(text)->what, __VA_ARGS__)
#define MEND(text, ...) snprintf((text)->fix, sizeof(text)->fix, __VA_ARGS__)

static bool has(const struct __user_cap_data_struct *have, uint32_t number)
{
    return have[number / 32].effective >> number % 32 & 1;
}

/* Of the three rights that it takes, those that this thread lacks. CAP_SYS_ADMIN has CAP_BPF in it.
 */
static uint32_t missing_rights(char *names, size_t size)
{
    static const struct {
        uint32_t number;
        const char *name;
    } needed[] = {
        {CAP_NET_RAW, "CAP_NET_RAW"}, {CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {CAP_BPF, "CAP_BPF"}};
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct have[2] = {0};
    uint32_t n = 0;
    size_t used = 0;
    syscall(SYS_capget, &head, have);
    names[0] = 0;
    for (uint32_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (has(have, needed[i].number) ||
            (needed[i].number == CAP_BPF && has(have, CAP_SYS_ADMIN)))
            continue;
        used += (size_t)snprintf(names + used, size - used, "%s%s", n ? " " : "", needed[i].name);
        n++;
    }
    return n;
}

static void say_rights(hb_text *t)
{
    char names[64];
    uint32_t n = missing_rights(names, sizeof names);
    SAY(t, "AF_XDP needs a right that this process has not: %s", n ? names : "the kernel says no");
    if (n)
        MEND(t, "run as root, or with AmbientCapabilities=%s in the systemd unit", names);
    else
        MEND(t, "run it outside of the container or sandbox, or take driver: af_packet");
}

static void say_umem(hb_text *t, const hb_xdp_attempt *a, int number)
{
    struct rlimit limit = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    uint64_t need = a->bytes * a->queues;
    if (number == ENOBUFS) {
        SAY(t,
            "its %u queue%s need%s %llu bytes of locked memory, the limit is %llu for all that "
            "this user has",
            a->queues, a->queues > 1 ? "s" : "", a->queues > 1 ? "" : "s", (unsigned long long)need,
            (unsigned long long)limit.rlim_cur);
        MEND(t, "`ulimit -l unlimited`, LimitMEMLOCK=infinity in the systemd unit, or a lower "
                "memory.mbufs");
    } else {
        SAY(t, "the kernel cannot share the frames with it: %s", strerror(number));
        MEND(t, "take driver: af_packet%s",
             number == EFAULT ? ", or device.use: none: these frames are a device's" : "");
    }
}

static void say_attach(hb_text *t, const hb_xdp_attempt *a, int number)
{
    if (number == EBUSY || number == EEXIST) {
        SAY(t, "another XDP program is attached to it");
        MEND(t, "end what attached it, or `ip link set dev %s xdp off`; `ip -d link show %s` shows",
             a->interface, a->interface);
    } else if (number == EOPNOTSUPP) {
        SAY(t, "its driver does not run XDP programs");
        MEND(t, "write mode: auto or mode: generic");
    } else {
        SAY(t, "the XDP program cannot be attached: %s", strerror(number));
        MEND(t, "%s",
             a->mode == HB_AF_XDP_AUTO || a->mode == HB_AF_XDP_GENERIC
                 ? "use Linux 5.9 or newer, or take driver: af_packet"
                 : "lower its MTU to 1500, or write mode: auto");
    }
}

static void say_bind(hb_text *t, const hb_xdp_attempt *a, int number)
{
    if (number == EBUSY) {
        SAY(t, "its queue %u is taken by another AF_XDP socket", a->queue);
        MEND(t, "end the program that has it (`ss --xdp -p` shows), or take another interface");
    } else if (number == EINVAL || number == ERANGE) {
        SAY(t, "it has no queue %u", a->queue);
        MEND(t, "write queues: %u, or `ethtool -L %s combined %u`", a->queue ? a->queue : 1,
             a->interface, a->queues);
    } else if (number == EOPNOTSUPP && a->mode == HB_AF_XDP_ZERO_COPY) {
        SAY(t, "its driver has no zero-copy");
        MEND(t, "write mode: auto");
    } else {
        SAY(t, "its queue %u cannot be bound: %s", a->queue, strerror(number));
        MEND(t, "%s",
             number == ENETDOWN ? "bring it up: `ip link set dev ... up`"
                                : "write mode: generic, or take driver: af_packet");
    }
}

static void say(hb_text *t, const hb_xdp_failure *failure, const hb_xdp_attempt *a)
{
    int number = failure->number;
    const char *why = strerror(number);
    if (number == EPERM || number == EACCES) {
        say_rights(t);
        return;
    }
    switch (failure->step) {
    case HB_XDP_INTERFACE:
        SAY(t, "there is no such interface");
        MEND(t, "name one that `ip link` shows, in the network namespace of this process");
        return;
    case HB_XDP_SOCKET:
        SAY(t, "there are no AF_XDP sockets in this kernel: %s", why);
        MEND(t, "use a kernel with CONFIG_XDP_SOCKETS, or take driver: af_packet");
        return;
    case HB_XDP_UMEM:
        say_umem(t, a, number);
        return;
    case HB_XDP_ATTACH:
        say_attach(t, a, number);
        return;
    case HB_XDP_BIND:
        say_bind(t, a, number);
        return;
    case HB_XDP_FRAMES:
        SAY(t, "memory.mbufs: %u are too few for its %u queue%s beside the other ports", a->mbufs,
            a->queues, a->queues > 1 ? "s" : "");
        MEND(t, "write memory.mbufs: %u", 2 * a->mbufs);
        return;
    default:
        SAY(t, "%s: %s",
            failure->step == HB_XDP_PROGRAM   ? "the XDP program cannot be loaded"
            : failure->step == HB_XDP_PROMISC ? "it cannot be made promiscuous"
                                              : "the rings of a queue cannot be made",
            why);
        MEND(t, "use Linux 5.9 or newer, or take driver: af_packet");
    }
}

void hb_xdp_explain(const hb_xdp_failure *failure, const hb_xdp_attempt *attempt, char *error,
                    size_t error_size)
{
    hb_text t;
    say(&t, failure, attempt);
    snprintf(error, error_size, "interface %s: %s\n%s", attempt->interface, t.what, t.fix);
}
