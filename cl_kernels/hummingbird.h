/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hummingbird.h: the memory that CPU and GPU share, and the only way NF code may touch it.
 *
 * This one file is compiled as C11 (data plane), as OpenCL C 3.0 (C11 atomics) and as OpenCL C 1.2
 * (volatile accesses and fences; for devices whose compiler has no all-devices scope).
 * Every shared layout starts with a magic and a version, every line has one writer, and lines that
 * are written at run time are HB_LINE bytes apart, so no two writers ever share one.
 *
 * Three regions:
 *   frames   packet bytes, `frame_size` apart               NIC, CPU and GPU write (one at a time)
 *   control  the circular queue of a device, its indices    see struct hb_control
 *   tables   programs, NF instances and their tables        host writes, device reads
 *            and what NFs know of each flow                 whoever has the flow's packet
 *
 * docs/protocol.md is the contract for who writes which word when.
 */
#ifndef HUMMINGBIRD_H
#define HUMMINGBIRD_H

#ifdef __OPENCL_VERSION__
#define HB_GLOBAL __global
#ifdef HB_LOCAL_IS_TABLE /* as on a CPU, where a copy in local memory would be no nearer */
#define HB_LOCAL __global
#define HB_LOCAL_PART(part) (part)
#else
#define HB_LOCAL __local
#define HB_LOCAL_PART(part) ((__local const uchar *)0) /* the kernel brings its copy */
#endif
typedef uchar hb_u8;
typedef ushort hb_u16;
typedef uint hb_u32;
typedef ulong hb_u64;
#else
#include <stdint.h>
#define HB_GLOBAL
#define HB_LOCAL
#define HB_LOCAL_PART(part) (part)
#define HB_LOCAL_IS_TABLE
typedef uint8_t hb_u8;
typedef uint16_t hb_u16;
typedef uint32_t hb_u32;
typedef uint64_t hb_u64;
#endif

#define HB_LAYOUT_VERSION 3u
#define HB_NF_ABI 3u /* version of the interface at the end of this file */
#define HB_LINE 128u /* bytes: two 64-byte lines, because CPUs prefetch them in pairs */
#define HB_CONTROL_MAGIC 0x48624351u /* "HbCQ" */
#define HB_TABLES_MAGIC 0x48625442u  /* "HbTB" */
#define HB_PROGRAM_NFS 8u            /* NFs that one row may run to completion */

/* ---- control region -------------------------------------------------------------------------- */

/*
 * Head of the control region: written once by the host before the first launch.
 * `*_off` are bytes from the start of the region; per-workgroup words are HB_LINE apart.
 *
 *   word / array               element           writer
 *   exit_off                   u32               executor: 0 run, 1 leave at the next row boundary
 *   tick_off                   u32, microseconds the device's first CPUSyncer
 *   launch_off                 struct hb_launch  executor, before and during check-in
 *   checkin_off [group]        u32 launch id     work-item 0 of the launched group
 *   rank_off    [group]        u32, HB_RANK_*    executor
 *   cpu_off     [w]            u32 CpuIndex      the CPUSyncer that owns w
 *   gpu_off     [w]            u32 GpuIndex      work-item 0 of the group that serves w
 *   rowdesc_off [w][row]       struct hb_rowdesc the CPUSyncer that owns w
 *   work_off    [w][row][lane] struct hb_work    the CPUSyncer that owns w
 *   arg_off     [w][row][lane] u64               the CPUSyncer that owns w
 *   done_off    [w][row][lane] struct hb_done    work-item `lane` of the group that serves w,
 *                                              and `verdict` = 0 by the CPUSyncer at reap
 *   runs_off    [2][w]         struct hb_run     the `launch` executor
 */
struct hb_control {
    hb_u32 magic;
    hb_u32 version;
    hb_u32 workgroups; /* logical workgroups, w = 0 .. workgroups-1 */
    hb_u32 lanes;      /* work-items of a workgroup; KernSize = workgroups * lanes */
    hb_u32 depth;      /* rows of a workgroup, a power of two */
    hb_u32 groups;     /* most groups that one launch may start */
    hb_u32 exit_off;
    hb_u32 tick_off;
    hb_u32 launch_off;
    hb_u32 checkin_off;
    hb_u32 rank_off;
    hb_u32 cpu_off;
    hb_u32 gpu_off;
    hb_u32 rowdesc_off;
    hb_u32 work_off;
    hb_u32 arg_off;
    hb_u32 done_off;
    hb_u32 runs_off;
    hb_u32 size; /* bytes of the whole region */
};

/* What a persistent launch needs to know; all but `resident` are written before the launch. */
struct hb_launch {
    hb_u32 id;          /* counts launches, never 0 */
    hb_u32 lifetime_us; /* leave this long after the first tick seen */
    hb_u32 resident;    /* R: groups that got a rank; valid once the rank word is */
};

/* rank word = launch id << HB_RANK_BITS | rank, or HB_RANK_EXIT in the low bits: leave at once. */
#define HB_RANK_BITS 12u
#define HB_RANK_MASK 0xfffu
#define HB_RANK_EXIT 0xfffu

/* One row, 32 bytes: what its lanes shall run. */
struct hb_rowdesc {
    hb_u32 program;    /* index into the program table */
    hb_u16 count;      /* lanes 0..count-1 hold packets, the others are dummy packets */
    hb_u16 head;       /* bytes the program may grow a packet in front ... */
    hb_u16 tail;       /* ... and behind */
    hb_u16 states;     /* 1: a copy of the state of each packet's flow lies in front of its frame */
    hb_u32 generation; /* of the tables */
    hb_u32 route;      /* policy version slot, for the trace; the device ignores it */
    hb_u32 pad2;
    hb_u64 tick; /* host ticks at publish */
};

/* One packet for a lane, 16 bytes. */
struct hb_work {
    hb_u32 frame;  /* in units of the launch's stride from the frame base */
    hb_u16 offset; /* bytes from the frame's start to the first packet byte */
    hb_u16 length; /* bytes */
    hb_u8 l3;      /* bytes from the first packet byte; HB_NO_LAYER if there is none */
    hb_u8 l4;      /* likewise; HB_NO_LAYER also for a later fragment */
    hb_u16 type;   /* packet type */
    hb_u32 flow;   /* flow index | HB_FLOW_FRESH | direction << 31, or HB_NO_FLOW */
};
#define HB_NO_LAYER 0xffu
#define HB_NO_FLOW 0xffffffffu
#define HB_FLOW_INDEX 0x3fffffffu /* the index in hb_work.flow */
#define HB_FLOW_FRESH 0x40000000u /* the flow's first packet at this NF since it was set up */

/* What a lane answers, 16 bytes. The host checks every field before it believes it. */
struct hb_done {
    hb_u16 offset;
    hb_u16 length;
    hb_u16 value;  /* drop reason for HB_VERDICT_DROP, new type for HB_VERDICT_RETYPE */
    hb_u8 verdict; /* HB_VERDICT_*; 0 is never written, so an untouched slot is caught */
    hb_u8 stopped; /* index in the program of the NF that ended it; last one if all passed */
    hb_u64 result; /* the NF's own 64 bits, given to its finish() */
};

/* Consecutive rows of one workgroup for one group of a `launch` executor's kernel:
 * row i is slot row base + ((first + i) & mask). */
struct hb_run {
    hb_u32 base;
    hb_u32 first;
    hb_u32 count;
    hb_u32 mask;
};

/* ---- tables region --------------------------------------------------------------------------- */

/* Head of the tables region; arrays follow at the offsets. Host-written before start. */
struct hb_tables {
    hb_u32 magic;
    hb_u32 version;
    hb_u32 programs; /* entries at programs_off */
    hb_u32 nfs;      /* entries at nfs_off, indexed by NF instance */
    hb_u32 programs_off;
    hb_u32 nfs_off;
};

/* The NFs that a row runs, in order. */
struct hb_program {
    hb_u32 count;
    hb_u32 nf[HB_PROGRAM_NFS]; /* NF instances */
};

/* One NF instance: which code, and where its table lies. */
struct hb_nf_instance {
    hb_u32 kind;        /* HB_NF_* below */
    hb_u32 generation;  /* of the table; a row names the one it was published under */
    hb_u64 base;        /* table, bytes from the start of the tables region, HB_LINE aligned */
    hb_u64 length;      /* bytes */
    hb_u32 local_off;   /* the part of the table that a device keeps in local memory ... */
    hb_u32 local_bytes; /* ... in bytes, multiples of 16 */
    /* State of flow f: state_bytes at state_base + f * state_stride. Written by the host before the
     * flow's first packet is published, then by whoever runs the packet function: one at a time. */
    hb_u64 state_base; /* bytes from the start of the tables region, HB_LINE aligned */
    hb_u32 state_flows;
    hb_u32 state_stride; /* bytes, a multiple of 64: no two flows share a line; 0: no state */
    hb_u32 state_bytes;
    hb_u32 pad;
};
#define HB_STATE_MOST 256u /* bytes of state that an NF may have of a flow */

/* NF kinds: a number is never given to another NF. X(number, name); code in nf/<name>.cl. */
#define HB_NF_KINDS(X)                                                                             \
    X(1, forward)                                                                                  \
    X(2, router)                                                                                   \
    X(3, nids)                                                                                     \
    X(4, ipsec)                                                                                    \
    X(5, probe)                                                                                    \
    X(6, touch)                                                                                    \
    X(7, firewall)                                                                                 \
    X(8, load_balancer)                                                                            \
    X(9, nat)                                                                                      \
    X(10, flow_monitor)

/* ---- verdicts and drop reasons --------------------------------------------------------------- */

#define HB_VERDICT_PASS 1u
#define HB_VERDICT_DROP 2u
#define HB_VERDICT_RETYPE 3u

/* What a packet function returns: a verdict, its value in the upper bits. */
#define HB_PASS HB_VERDICT_PASS
#define HB_DROP(reason) (HB_VERDICT_DROP | (hb_u32)(reason) << 8)
#define HB_RETYPE(type) (HB_VERDICT_RETYPE | (hb_u32)(type) << 8)

/* Every reason a packet can be dropped for: X(name, what it means to an operator). */
#define HB_DROP_REASONS(X)                                                                         \
    X(none, "not a drop")                                                                          \
    X(policy, "the route policy says drop")                                                        \
    X(no_route_row, "no row of the policy leads on from here for this type")                       \
    X(no_mbuf, "the mbuf pool was empty")                                                          \
    X(ring_full, "the ring to the lcore of this node was full")                                    \
    X(node_full, "the input queue of this node was full")                                          \
    X(runt, "shorter than an Ethernet header")                                                     \
    X(too_long, "longer than a frame can hold, or than the interface takes")                       \
    X(truncated, "the packet claims more bytes than were received")                                \
    X(malformed, "a header contradicts itself")                                                    \
    X(not_ip, "the NF needs an IP packet")                                                         \
    X(not_ipv4, "the NF needs an IPv4 packet")                                                     \
    X(bad_checksum, "the IPv4 header checksum is wrong")                                           \
    X(ttl_expired, "the time to live ran out")                                                     \
    X(no_route, "no prefix of the routing table covers the destination")                           \
    X(no_room, "the frame has no room for the NF's headers")                                       \
    X(seq_exhausted, "the security association used up its sequence numbers")                      \
    X(nf_action, "the NF was told to drop such packets")                                           \
    X(bad_result, "the device answered something impossible")                                      \
    X(device_lost, "the device failed while it had the packet")                                    \
    X(port_error, "the port could not send it")                                                    \
    X(port_full, "the interface's send queue was full")                                            \
    X(port_down, "the interface was down or gone")                                                 \
    X(bad_icv, "the integrity check of an ESP packet failed")                                      \
    X(esp_malformed, "an ESP packet is too short, or its padding or contents are wrong")           \
    X(esp_fragment, "a fragment, where ESP needs whole packets")                                   \
    X(esp_dummy, "a dummy ESP packet, sent only to hide how much traffic there is")                \
    X(bad_ecn, "marked for congestion inside a tunnel, by a mark the sender did not allow")        \
    X(seq_unsaved, "the disk did not take the next sequence numbers of the security association")  \
    X(no_policy, "no security policy covers the packet")                                           \
    X(clear_text, "it came in the clear, although a security policy wants it encrypted")           \
    X(no_sa, "ESP with an SPI that no inbound security association has")                           \
    X(replay, "it came before, or is older than the replay window")                                \
    X(not_for_sa, "what was encrypted is not what the policies of its security association allow") \
    X(too_big, "longer than the next link takes, and must not be cut")                             \
    X(keepalive, "a NAT keepalive, which ends here")                                               \
    X(link_local, "an IPv6 address that never leads off its link")                                 \
    X(no_neighbour, "the Ethernet address of the next hop is not known")                           \
    X(unreachable, "the route says unreachable or prohibited")                                     \
    X(blackhole, "the route says drop")                                                            \
    X(to_router, "addressed to the router itself")                                                 \
    X(python_error, "the NF's Python function failed on its burst")                                \
    X(flows_full, "the flow table was full")                                                       \
    X(flow_share, "its flow had more than its share of a full queue")                              \
    X(denied, "a rule of the firewall, or its default, denies it")                                 \
    X(bad_state, "it fits no state of its connection")                                             \
    X(out_of_window, "outside the TCP window of its connection")                                   \
    X(no_port, "no port was left to translate to")                                                 \
    X(no_mapping, "addressed to the translator, and of no connection it knows")                    \
    X(no_backend, "the service has no backend for it")                                             \
    X(no_first_fragment, "a fragment that came before the first one of its datagram")              \
    X(shutdown, "still in flight when the drain timed out")

#define HB_REASON_ENUM(name, text) HB_REASON_##name,
enum hb_reason { HB_DROP_REASONS(HB_REASON_ENUM) HB_REASONS };

/* ---- words both sides read while both run ---------------------------------------------------- */

/* Only loads and stores: an atomic read-modify-write on memory the host shares is dropped or
 * faults on some GPUs. Acquire and release, because each index word guards plain data. */
#ifdef __OPENCL_VERSION__
#ifdef HB_C11_ATOMICS
static inline hb_u32 hb_load_acquire(__global hb_u32 *p)
{
    return atomic_load_explicit((volatile __global atomic_uint *)p, memory_order_acquire,
                                memory_scope_all_svm_devices);
}

static inline void hb_store_release(__global hb_u32 *p, hb_u32 v)
{
    atomic_store_explicit((volatile __global atomic_uint *)p, v, memory_order_release,
                          memory_scope_all_svm_devices);
}
#else
static inline hb_u32 hb_load_acquire(__global hb_u32 *p)
{
    hb_u32 v = *(volatile __global hb_u32 *)p;
    mem_fence(CLK_GLOBAL_MEM_FENCE);
    return v;
}

static inline void hb_store_release(__global hb_u32 *p, hb_u32 v)
{
    mem_fence(CLK_GLOBAL_MEM_FENCE);
    *(volatile __global hb_u32 *)p = v;
}
#endif
#else
static inline hb_u32 hb_load_acquire(const hb_u32 *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void hb_store_release(hb_u32 *p, hb_u32 v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
#endif

/* ---- the NF interface (HB_NF_ABI) ------------------------------------------------------------ */

/*
 * A packet function is
 *     static hb_u32 hb_nf_<name>(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
 * It sees a packet and one table through the checked accessors below and returns HB_PASS,
 * HB_DROP(reason) or HB_RETYPE(type). It may not use a raw global pointer, a barrier, or anything
 * outside the subset that C11 and OpenCL C 1.2 share. `arg` comes from prepare(), `*result` goes
 * to finish(); both are 0 when the NF has no such part.
 * Offsets are bytes from the first packet byte; multi-byte accesses are big-endian.
 * An access outside the packet reads 0 or writes nothing.
 * While it runs on a packet, no other packet of the same flow is in the same NF: the state of the
 * flow is plain data.
 */
typedef struct {
    HB_GLOBAL hb_u8 *frame; /* the frame's first byte */
    hb_u32 low;             /* the packet may grow down to here ... */
    hb_u32 high;            /* ... and up to here; bytes from the frame's start */
    hb_u32 offset;
    hb_u32 length;
    hb_u32 l3;
    hb_u32 l4;
    hb_u32 type;
    hb_u32 flow;      /* index, or HB_NO_FLOW */
    hb_u32 direction; /* 0: sent by the first end of the flow's normalised tuple, 1: by the other */
    HB_GLOBAL hb_u8 *state; /* what this NF knows of the flow; NULL: it has none */
    hb_u32 state_length;    /* bytes */
} hb_packet;

typedef struct {
    HB_GLOBAL const hb_u8 *base;      /* HB_LINE aligned */
    hb_u64 length;                    /* bytes */
    HB_LOCAL const hb_u8 *local_part; /* copy of its local part; on a CPU that part itself */
    hb_u32 local_length;              /* bytes */
} hb_table;

/*
 * Sixteen bytes at once, as four words in memory order: the byte at the lowest address is the low
 * byte of `a`. CPUs and devices are little-endian.
 */
typedef struct {
    hb_u32 a, b, c, d;
} hb_block;

/* The other byte order. */
static inline hb_u32 hb_swap32(hb_u32 x)
{
#ifdef __OPENCL_VERSION__
    return (rotate(x, 8u) & 0x00ff00ffu) | (rotate(x, 24u) & 0xff00ff00u);
#else
    return __builtin_bswap32(x);
#endif
}

#ifdef __OPENCL_VERSION__
/* Devices may fault on a word that is not aligned: take the aligned words around the bytes and
 * shift. A word that holds none of the bytes is not touched. */
static inline hb_u32 hb_load_word(__global const hb_u8 *frame, hb_u32 from)
{
    __global const hb_u32 *w = (__global const hb_u32 *)frame + (from >> 2);
    hb_u32 odd = from & 3;
    return w[0] >> 8 * odd | w[odd ? 1 : 0] << 1 << (31 - 8 * odd);
}

static inline void hb_store_word(__global hb_u8 *frame, hb_u32 to, hb_u32 v)
{
    __global hb_u32 *w = (__global hb_u32 *)frame + (to >> 2);
    hb_u32 odd = to & 3, mask = 0xffffffffu << 8 * odd; /* bytes of the first word to write */
    w[0] = (w[0] & ~mask) | v << 8 * odd;
    if (odd)
        w[1] = (w[1] & mask) | v >> 1 >> (31 - 8 * odd);
}

static inline hb_block hb_load_block(__global const hb_u8 *frame, hb_u32 from)
{
    __global const hb_u32 *w = (__global const hb_u32 *)frame + (from >> 2);
    hb_u32 odd = from & 3, right = 8 * odd, left = 31 - right;
    hb_u32 w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3], w4 = w[odd ? 4 : 3];
    hb_block b;
    b.a = w0 >> right | w1 << 1 << left;
    b.b = w1 >> right | w2 << 1 << left;
    b.c = w2 >> right | w3 << 1 << left;
    b.d = w3 >> right | w4 << 1 << left;
    return b;
}

static inline void hb_store_block(__global hb_u8 *frame, hb_u32 to, hb_block b)
{
    __global hb_u32 *w = (__global hb_u32 *)frame + (to >> 2);
    hb_u32 odd = to & 3, left = 8 * odd, right = 31 - left;
    hb_u32 mask = 0xffffffffu << left; /* bytes of the first word that are the block's */
    w[0] = (w[0] & ~mask) | b.a << left;
    w[1] = b.a >> 1 >> right | b.b << left;
    w[2] = b.b >> 1 >> right | b.c << left;
    w[3] = b.c >> 1 >> right | b.d << left;
    if (odd)
        w[4] = (w[4] & mask) | b.d >> 1 >> right;
}
#else
static inline hb_u32 hb_load_word(const hb_u8 *frame, hb_u32 from)
{
    hb_u32 v;
    __builtin_memcpy(&v, frame + from, sizeof(v));
    return v;
}

static inline void hb_store_word(hb_u8 *frame, hb_u32 to, hb_u32 v)
{
    __builtin_memcpy(frame + to, &v, sizeof(v));
}

static inline hb_block hb_load_block(const hb_u8 *frame, hb_u32 from)
{
    hb_block b;
    __builtin_memcpy(&b, frame + from, sizeof(b));
    return b;
}

static inline void hb_store_block(hb_u8 *frame, hb_u32 to, hb_block b)
{
    __builtin_memcpy(frame + to, &b, sizeof(b));
}
#endif

static inline hb_u32 hb_get8(const hb_packet *p, hb_u32 at)
{
    return at < p->length ? p->frame[p->offset + at] : 0;
}

static inline hb_u32 hb_get16(const hb_packet *p, hb_u32 at)
{
    if (p->length < 2 || at > p->length - 2)
        return 0;
    HB_GLOBAL const hb_u8 *b = p->frame + p->offset + at;
    return (hb_u32)b[0] << 8 | b[1];
}

/* Four bytes in one access, the first in the low bits; only where offset + at is a multiple of 4
 * (frames start at multiples of 4), else 0. */
static inline hb_u32 hb_word(const hb_packet *p, hb_u32 at)
{
    if (p->length < 4 || at > p->length - 4 || (p->offset + at) % 4)
        return 0;
    return *(HB_GLOBAL const hb_u32 *)(p->frame + p->offset + at);
}

static inline hb_u32 hb_get32(const hb_packet *p, hb_u32 at)
{
    if (p->length < 4 || at > p->length - 4)
        return 0;
    return hb_swap32(hb_load_word(p->frame, p->offset + at));
}

static inline void hb_put8(hb_packet *p, hb_u32 at, hb_u32 v)
{
    if (at < p->length)
        p->frame[p->offset + at] = (hb_u8)v;
}

static inline void hb_put16(hb_packet *p, hb_u32 at, hb_u32 v)
{
    if (p->length < 2 || at > p->length - 2)
        return;
    HB_GLOBAL hb_u8 *b = p->frame + p->offset + at;
    b[0] = (hb_u8)(v >> 8);
    b[1] = (hb_u8)v;
}

static inline void hb_put32(hb_packet *p, hb_u32 at, hb_u32 v)
{
    if (p->length < 4 || at > p->length - 4)
        return;
    hb_store_word(p->frame, p->offset + at, hb_swap32(v));
}

/* Grow the packet by n bytes in front (offsets shift: old byte 0 is now byte n). 0 if no room. */
static inline int hb_grow_head(hb_packet *p, hb_u32 n)
{
    if (p->offset < p->low || p->offset - p->low < n)
        return 0;
    p->offset -= n;
    p->length += n;
    return 1;
}

/* Grow (or, with hb_trim_tail, cut) the packet at its end. 0 if no room. */
static inline int hb_grow_tail(hb_packet *p, hb_u32 n)
{
    if (p->offset + p->length > p->high || p->high - p->offset - p->length < n)
        return 0;
    p->length += n;
    return 1;
}

static inline void hb_trim_tail(hb_packet *p, hb_u32 length)
{
    if (length < p->length)
        p->length = length;
}

/* Cut n bytes off the front (offsets shift: old byte n is now byte 0). */
static inline void hb_trim_head(hb_packet *p, hb_u32 n)
{
    if (n > p->length)
        n = p->length;
    p->offset += n;
    p->length -= n;
}

/* Move n bytes inside the packet; the two places may overlap. Nothing if not both are inside. */
static inline void hb_move(hb_packet *p, hb_u32 to, hb_u32 from, hb_u32 n)
{
    hb_u32 last = to > from ? to : from;
    if (n > p->length || last > p->length - n)
        return;
    HB_GLOBAL hb_u8 *b = p->frame + p->offset;
#ifdef __OPENCL_VERSION__
    hb_u32 words = n & ~3u;
    if (to < from) {
        for (hb_u32 i = 0; i < words; i += 4)
            hb_store_word(p->frame, p->offset + to + i,
                          hb_load_word(p->frame, p->offset + from + i));
        for (hb_u32 i = words; i < n; i++)
            b[to + i] = b[from + i];
    } else { /* from the end, so that nothing is overwritten before it has moved */
        for (hb_u32 i = n; i > words; i--)
            b[to + i - 1] = b[from + i - 1];
        for (hb_u32 i = words; i > 0; i -= 4)
            hb_store_word(p->frame, p->offset + to + i - 4,
                          hb_load_word(p->frame, p->offset + from + i - 4));
    }
#else
    if (n < 8 || n > 16) {
        __builtin_memmove(b + to, b + from, n);
    } else { /* L2 headers are this short: a call would take longer */
        hb_u64 first, last;
        __builtin_memcpy(&first, b + from, 8);
        __builtin_memcpy(&last, b + from + n - 8, 8);
        __builtin_memcpy(b + to, &first, 8);
        __builtin_memcpy(b + to + n - 8, &last, 8);
    }
#endif
}

static inline hb_block hb_get_block(const hb_packet *p, hb_u32 at)
{
    hb_block none = {0, 0, 0, 0};
    if (p->length < 16 || at > p->length - 16)
        return none;
    return hb_load_block(p->frame, p->offset + at);
}

static inline void hb_put_block(hb_packet *p, hb_u32 at, hb_block b)
{
    if (p->length < 16 || at > p->length - 16)
        return;
    hb_store_block(p->frame, p->offset + at, b);
}

/* Table element i of the table's bytes taken as an array of u16 or u32 (host order). */
static inline hb_u32 hb_table16(const hb_table *t, hb_u64 i)
{
    return i < t->length / 2 ? ((HB_GLOBAL const hb_u16 *)t->base)[i] : 0;
}

static inline hb_u32 hb_table32(const hb_table *t, hb_u64 i)
{
    return i < t->length / 4 ? ((HB_GLOBAL const hb_u32 *)t->base)[i] : 0;
}

/* Element i of the table's bytes taken as an array of 16-byte blocks. */
static inline hb_block hb_table_block(const hb_table *t, hb_u64 i)
{
    hb_block none = {0, 0, 0, 0};
    return i < t->length / 16 ? ((HB_GLOBAL const hb_block *)t->base)[i] : none;
}

/* The same of the part of the table that is in local memory. */
static inline hb_u32 hb_local16(const hb_table *t, hb_u32 i)
{
    return i < t->local_length / 2 ? ((HB_LOCAL const hb_u16 *)t->local_part)[i] : 0;
}

static inline hb_u32 hb_local32(const hb_table *t, hb_u32 i)
{
    return i < t->local_length / 4 ? ((HB_LOCAL const hb_u32 *)t->local_part)[i] : 0;
}

/* The NF's state of the packet's flow, taken as an array of u32 or u64 (host order). A packet
 * without a flow, such as one that an NF made, has none: reads give 0, writes are lost. */
static inline int hb_has_state(const hb_packet *p)
{
    return p->state_length != 0;
}

static inline hb_u32 hb_state32(const hb_packet *p, hb_u32 i)
{
    return i < p->state_length / 4 ? ((HB_GLOBAL const hb_u32 *)p->state)[i] : 0;
}

static inline void hb_set_state32(hb_packet *p, hb_u32 i, hb_u32 v)
{
    if (i < p->state_length / 4)
        ((HB_GLOBAL hb_u32 *)p->state)[i] = v;
}

static inline hb_u64 hb_state64(const hb_packet *p, hb_u32 i)
{
    return i < p->state_length / 8 ? ((HB_GLOBAL const hb_u64 *)p->state)[i] : 0;
}

static inline void hb_set_state64(hb_packet *p, hb_u32 i, hb_u64 v)
{
    if (i < p->state_length / 8)
        ((HB_GLOBAL hb_u64 *)p->state)[i] = v;
}

/* IP version of the header at l3: 4 or 6; 0 if there is no IP packet. */
static inline hb_u32 hb_ip_version(const hb_packet *p)
{
    hb_u32 version = p->l3 == HB_NO_LAYER ? 0 : hb_get8(p, p->l3) >> 4;
    return version == 4 || version == 6 ? version : 0;
}

/* Offset of the first byte behind the IP packet by its own length field, because Ethernet pads
 * short frames; 0 if there is none, or its header contradicts itself or the bytes received. */
static inline hb_u32 hb_ip_end(const hb_packet *p)
{
    hb_u32 version = hb_ip_version(p);
    hb_u32 header = version == 4 ? (hb_get8(p, p->l3) & 15) * 4 : 40;
    hb_u32 total = version == 4 ? hb_get16(p, p->l3 + 2) : 40 + hb_get16(p, p->l3 + 4);
    /* IPv6 writes a length of 0 for more than 16 bits hold, unless no next header follows. */
    if (version == 6 && total == 40 && hb_get8(p, p->l3 + 6) != 59)
        total = p->length - p->l3;
    if (!version || header < 20 || total < header || total > p->length - p->l3)
        return 0;
    return p->l3 + total;
}

#endif
