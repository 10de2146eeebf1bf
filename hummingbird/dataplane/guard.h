/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * guard.h: frames that AddressSanitizer watches; nothing at all without it. To it the arena is one
 * object, in which an NF that reads past its packet goes unseen: so while an NF on the CPU has a
 * packet, the rest of its frame must not be touched. HB_GUARD_SLACK bytes around it may be: words
 * are read as they lie in memory, also those that the packet begins or ends in.
 */
#ifndef HB_GUARD_H
#define HB_GUARD_H
#include "mbuf.h"

#define HB_GUARD_SLACK 16u

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>

/* All of the frame may be touched: it is about to be filled. */
static inline void hb_unguard(const hb_arena *a, uint32_t handle)
{
    __asan_unpoison_memory_region(hb_frame(a, hb_header(a, handle)), a->frame_size);
}

/* Only the packet may, and what it may grow by. */
static inline void hb_guard(const hb_arena *a, uint32_t handle, uint32_t head, uint32_t tail)
{
    const hb_mbuf *m = hb_header(a, handle);
    uint8_t *frame = hb_frame(a, m);
    uint32_t first = m->data_off - head - HB_GUARD_SLACK;
    uint32_t end = (uint32_t)m->data_off + m->data_len + tail + HB_GUARD_SLACK;
    hb_unguard(a, handle);
    __asan_poison_memory_region(frame, first);
    if (end < a->frame_size)
        __asan_poison_memory_region(frame + end, a->frame_size - end);
}
#else
static inline void hb_unguard(const hb_arena *a, uint32_t handle)
{
    (void)a, (void)handle;
}

static inline void hb_guard(const hb_arena *a, uint32_t handle, uint32_t head, uint32_t tail)
{
    (void)a, (void)handle, (void)head, (void)tail;
}
#endif

#endif
