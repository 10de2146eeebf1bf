/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * uml_ptrace.c: lets User-Mode Linux 6.1 run on CPUs with more register state than it knows (AMX).
 * It sets the first part of its processes' extended state; the host wants all or nothing (EFAULT).
 * Preloaded into linux.uml (tests/uml.py): what it leaves out stays as it is.
 */
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define MOST 65536 /* bytes of extended state of any CPU so far: about 11,000 */

typedef long ptrace_fn(enum __ptrace_request, ...);

long ptrace(enum __ptrace_request request, ...)
{
    static ptrace_fn *real;
    va_list list;
    va_start(list, request);
    int pid = va_arg(list, int);
    void *address = va_arg(list, void *), *data = va_arg(list, void *);
    va_end(list);
    if (!real)
        real = (ptrace_fn *)dlsym(RTLD_NEXT, "ptrace");
    if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
        return real(request, pid, address, data);
    static char whole[MOST] __attribute__((aligned(64))); /* its stacks are small */
    struct iovec all = {whole, sizeof whole};
    const struct iovec *part = data;
    if (real(PTRACE_GETREGSET, pid, address, &all) || all.iov_len <= part->iov_len)
        return real(request, pid, address, data);
    memcpy(whole, part->iov_base, part->iov_len);
    return real(request, pid, address, &all);
}
