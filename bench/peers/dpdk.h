/* SPDX-License-Identifier: BSD-3-Clause */
/* dpdk.h: DPDK's start, for the peers that are built on it. */
#ifndef HB_BENCH_DPDK_H
#define HB_BENCH_DPDK_H
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <sched.h>
#include <stdio.h>

#include "peers.h"

#define MEMORY_MIB "1024"

/* DPDK pins the thread that starts it, and has file descriptors and locks in /var/run unless it is
 * told not to. */
static int start_dpdk(char *text)
{
    static int started;
    static char lcores[32];
    static char *argv[] = {"hummingbird",
                           "--lcores",
                           lcores,
                           "-m",
                           MEMORY_MIB,
                           "--no-huge",
                           "--no-pci",
                           "--no-telemetry",
                           "--no-shconf",
                           "--log-level=lib.*:error",
                           "--force-max-simd-bitwidth=512"};
    if (started)
        return 0;
    cpu_set_t before;
    pthread_getaffinity_np(pthread_self(), sizeof before, &before);
    int cpu = 0;
    while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &before))
        cpu++;
    snprintf(lcores, sizeof lcores, "0@%d", cpu);
    int rc = rte_eal_init(sizeof argv / sizeof *argv, argv);
    pthread_setaffinity_np(pthread_self(), sizeof before, &before);
    if (rc < 0 && rte_errno != EALREADY) { /* another peer has started it */
        snprintf(text, PEER_TEXT, "DPDK does not start: %s", rte_strerror(rte_errno));
        return -1;
    }
    started = 1;
    return 0;
}

#endif
