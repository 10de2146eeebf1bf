/* SPDX-License-Identifier: BSD-3-Clause */
/* start.c: DPDK's start, once in a process, and what it logs. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plugin.h"

#define MOST_ARGUMENTS 64

/* ---- its log: kept from the terminal; of errors the first one is what it all began with --------
 */

static char first_error[160];
static FILE *log_file;

static ssize_t log_write(void *cookie, const char *text, size_t n)
{
    (void)cookie;
    const char *end = memchr(text, '\n', n), *function = memmem(text, n, "(): ", 4);
    int line = (int)((end ? end : text + n) - text);
    if (function && function < text + line) { /* drivers begin with who says it */
        line -= (int)(function + 4 - text);
        text = function + 4;
    }
    if (!first_error[0])
        snprintf(first_error, sizeof first_error, "%.*s", line, text);
    return (ssize_t)n;
}

/* stdio's lock keeps log_write() off meanwhile: lcores may log, too. */
const char *hb_dpdk_log(void)
{
    static char text[sizeof first_error];
    flockfile(log_file);
    memcpy(text, first_error, sizeof text);
    funlockfile(log_file);
    return text;
}

void hb_dpdk_forget_log(void)
{
    flockfile(log_file);
    first_error[0] = '\0';
    funlockfile(log_file);
}

static int take_log(void)
{
    cookie_io_functions_t functions = {.write = log_write};
    log_file = fopencookie(NULL, "w", functions);
    if (!log_file)
        return -1;
    setvbuf(log_file, NULL, _IOLBF, BUFSIZ);
    return rte_openlog_stream(log_file);
}

/* What drivers build upon prints by itself, and what it says of failures DPDK says, too. */
static void silence(const char *library, const char *set_print)
{
    void *loaded = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    void *(*set)(void *) = NULL;
    if (loaded)
        *(void **)&set = dlsym(loaded, set_print);
    if (set)
        set(NULL);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

#ifdef HB_MDPDK
#define PAGE RTE_PGSIZE_2M /* what it takes for one: objects do not cross their ends */

/* From behind the frames, in the memory that they lie in. */
static void *provide(size_t bytes, size_t align, void *arg)
{
    const hb_dpdk *params = arg;
    uintptr_t first = (uintptr_t)params->memory, end = first + params->memory_bytes;
    first = (first + align - 1) / align * align;
    return first + bytes <= end ? (void *)first : NULL;
}

static int provide_memory(const hb_dpdk *params)
{
    return rte_eal_mem_provider_set(&(struct rte_eal_mem_provider){
        .alloc = provide, .arg = (void *)(uintptr_t)params, .page_sz = PAGE});
}
#else
static int provide_memory(const hb_dpdk *params)
{
    (void)params;
    return 0;
}
#endif

/* ---- start -------------------------------------------------------------------------------------
 */

static enum { NOT_YET, RUNS, ENDED } state;

/* Cut the lines of `text` into argv, which DPDK may write to and keeps: both stay. */
static int split(char *text, char **argv)
{
    int n = 0;
    static char name[] = "hummingbird";
    argv[n++] = name;
    for (char *line = strtok(text, "\n"); line && n < MOST_ARGUMENTS; line = strtok(NULL, "\n"))
        argv[n++] = line;
    return n;
}

static int start(const hb_dpdk *params)
{
    static char *argv[MOST_ARGUMENTS + 1];
    char *text = strdup(params->arguments);
    if (!text || take_log())
        return -1;
    if (provide_memory(params))
        return -1;
    cpu_set_t before; /* DPDK pins the thread that starts it */
    pthread_getaffinity_np(pthread_self(), sizeof before, &before);
    int result = rte_eal_init(split(text, argv), argv);
    pthread_setaffinity_np(pthread_self(), sizeof before, &before);
    silence("libbpf.so.1", "libbpf_set_print");
    silence("libxdp.so.1", "libxdp_set_print");
    rmdir(rte_eal_get_runtime_dir()); /* it is empty: nothing is shared with other processes */
    return result < 0 ? -1 : 0;
}

int hb_dpdk_start(const hb_dpdk *params, char *error, size_t error_size)
{
    if (state == ENDED) {
        snprintf(error, error_size,
                 "DPDK has been started and ended in this process, which it bears once only\n"
                 "start a new process");
        return -1;
    }
    if (state == RUNS)
        return 0;
    if (start(params)) {
        state = ENDED;
        snprintf(error, error_size, "DPDK does not start: %s\n%s",
                 log_file && *hb_dpdk_log() ? hb_dpdk_log() : rte_strerror(rte_errno),
                 "run it as root, and correct dpdk.arguments if there are any");
        return -1;
    }
    state = RUNS;
    return 0;
}

void hb_dpdk_end(void)
{
#ifdef HB_MDPDK
    rte_eal_cleanup();
    state = ENDED;
#endif
}
