/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * api.h: everything the control plane may call. Plain declarations, because cffi reads this file.
 *
 * Order of calls: hb_new, then ports, device, NFs, types and hb_publish_policy in any order,
 * hb_start, ... hb_drain, hb_stop, hb_free. Only hb_publish_policy, hb_hold, hb_drain and the
 * readers may be called while it runs. One control thread calls; none of these functions is on the
 * packet path. Functions that can fail return a negative number and leave a text in hb_error().
 */
#ifndef HB_API_H
#define HB_API_H
#include <stddef.h>
#include <stdint.h>

#define HB_MAX_NODES 64
#define HB_MAX_TYPES 256
#define HB_MAX_LCORES 32
#define HB_MAX_POLICIES 4
#define HB_ADMISSIONS 8 /* policy slots, in odd and even epochs */
#define HB_HIST_BUCKETS 640
#define HB_FRAME_RESERVED 256 /* bytes at a frame's start that belong to the port driver */
#define HB_FRAME_HEADROOM 128 /* bytes behind them for NFs that grow a packet in front */

typedef struct hb_dataplane hb_dataplane;

/* What state a flow is in, by what the CPU has parsed: it decides how long an idle flow lives. */
#define HB_FLOW_OTHER 0
#define HB_FLOW_TCP_SYN 1         /* no more than a SYN and its answer */
#define HB_FLOW_TCP_ESTABLISHED 2 /* handshake seen, or both ends have sent */
#define HB_FLOW_TCP_MIDSTREAM 3   /* no SYN was seen, and one end has sent */
#define HB_FLOW_TCP_CLOSING 4     /* a FIN or RST was seen */
#define HB_FLOW_UDP 5             /* one end has sent */
#define HB_FLOW_UDP_BOTH 6
#define HB_FLOW_ICMP 7
#define HB_FLOW_FRAGMENT 8 /* of one datagram */
#define HB_FLOW_STATES 9
#define HB_FLOW_TIMEOUT_MOST 43200
/* NULL past the last. */
const char *hb_flow_state_name(uint32_t state);

/* Why a flow is over. */
enum hb_flow_end {
    HB_FLOW_END_IDLE,
    HB_FLOW_END_CLOSED,   /* idle, after a FIN or RST */
    HB_FLOW_END_REPLACED, /* a new connection took its 5-tuple */
    HB_FLOW_END_EVICTED,  /* the table was full */
    HB_FLOW_END_SHUTDOWN  /* the run is over */
};

/* Flow indexes that an lcore with an input port has, for this many flows: twice as many, so that
 * there is room while old ones are in use. The first such lcore has 0 and up, the next those behind
 * them. */
uint32_t hb_flow_places(uint32_t flows);

/* Memory for frames, headers, flows, tables or counters: anonymous, page-aligned, in reserved huge
 * pages if there are enough, else transparent ones asked for; pre-faulted, zero, locked if the
 * limit allows, not inherited by children. NULL: out of memory. */
void *hb_region_new(size_t bytes);
void hb_region_free(void *region, size_t bytes);

typedef struct {
    void *frames;        /* mbufs * frame_size bytes, page-aligned; the caller keeps it */
    void *tables;        /* the tables region (struct hb_tables), or NULL without NFs */
    void *stats;         /* hb_stats_size() bytes, zeroed; may be shared memory */
    uint32_t mbufs;      /* packets that exist at once */
    uint32_t frame_size; /* bytes: 2048 or 4096 */
    uint32_t queue;      /* entries of a node's input and of a ring between lcores; power of two */
    uint32_t flows;      /* that each lcore with an input port can tell apart; power of two */
    int flows_evict;     /* table full: 1 the oldest half-open or closing one goes, 0 a new one is
                            refused */
    uint32_t flow_timeout[HB_FLOW_STATES]; /* seconds, 1 to HB_FLOW_TIMEOUT_MOST, by state */
    uint32_t types;                        /* packet types; type 0 is "other" */
    int profile;                           /* count where the time goes; costs some time itself */
    int samples;                           /* take latency samples and busy times; 0: none */
    uint32_t lcores;                       /* data-plane threads ... */
    int32_t cpus[HB_MAX_LCORES];           /* ... and the CPU each is pinned to, -1 for none */
} hb_config;

/* Bytes of counters for this many nodes, types and lcores. */
size_t hb_stats_size(uint32_t lcores, uint32_t nodes, uint32_t types);

hb_dataplane *hb_new(const hb_config *config, uint32_t nodes, char *error, size_t error_size);
void hb_free(hb_dataplane *dp);
const char *hb_error(const hb_dataplane *dp);

/* ---- nodes: ports and NFs; each returns its node number, given in the order of the calls -------
 */

/* How an input port paces itself. */
#define HB_PACE_FAST 0     /* as fast as it is taken, with credits: no overload drops */
#define HB_PACE_RATE 1     /* packets per second; drops if the chain is slower */
#define HB_PACE_ORIGINAL 2 /* the capture's own gaps; drops if the chain is slower */

typedef struct {
    const char *path;
    uint64_t loops; /* times the capture is played; 0: for ever */
    int pace;       /* HB_PACE_* */
    double rate;    /* packets per second for HB_PACE_RATE */
} hb_pcap_input;
int hb_add_pcap_input(hb_dataplane *dp, uint32_t lcore, const hb_pcap_input *in);
/* Nanosecond capture, Ethernet; an existing file is replaced. */
int hb_add_pcap_output(hb_dataplane *dp, uint32_t lcore, const char *path);

typedef struct {
    uint64_t packets;    /* to make in all; 0: for ever */
    int pace;            /* HB_PACE_FAST or HB_PACE_RATE */
    double rate;         /* packets per second */
    uint32_t flows;      /* distinct 5-tuples */
    double zipf;         /* 0: taken in turn; else up to 3: drawn, flow i ~ (i + 1)^-zipf */
    uint32_t sizes;      /* entries of size[] and weight[] */
    uint16_t size[8];    /* frame bytes without FCS, 60 to 1514 */
    uint16_t weight[8];  /* of each size in the mix */
    uint32_t protocols;  /* entries of protocol[] */
    uint8_t protocol[4]; /* IP protocols (6, 17 or 1), flow i takes i % protocols */
    uint32_t src;        /* IPv4 of flow 0, host order; low 16 bits vary with the flow */
    uint32_t dst;
    uint16_t dst_port;
    uint8_t tcp_flags; /* of every TCP packet */
    uint64_t seed;     /* of the flows that are drawn, the size mix and the payload */
} hb_generator;
int hb_add_generator(hb_dataplane *dp, uint32_t lcore, const hb_generator *gen);
/* Counts and drops everything: the far end of a benchmark. */
int hb_add_sink(hb_dataplane *dp, uint32_t lcore);

/* A device of one of DPDK's drivers. */
typedef struct {
    const char *plugin; /* the library with these ports, for one build of DPDK; see dpdk.h */
    const char *device; /* as DPDK names it: PCI address or virtual device, arguments behind it */
    const char *arguments; /* of the EAL, one a line; DPDK is started with those of the first */
    void *memory;          /* mDPDK: where it keeps all that is not packets; else NULL */
    uint64_t memory_bytes;
    uint32_t queues; /* that the port serves: the device's first ones */
} hb_dpdk;
/* The text in hb_error() has behind a line feed how to mend it, where that is known. */
int hb_add_dpdk(hb_dataplane *dp, const uint32_t *lcores, const hb_dpdk *params);

/* Packets of an input port are of this zone (default 0): equal addresses in two zones are not the
 * same flow. Before hb_start(). */
void hb_set_zone(hb_dataplane *dp, uint32_t node, uint16_t zone);

/* An IP address. */
typedef struct {
    uint8_t bytes[16]; /* IPv4: the first 4 */
    uint8_t family;    /* 4 or 6 */
} hb_ip_address;
#define HB_MOST_ADDRESSES 16
/* A port that packets come in and go out at answers ARP requests and neighbour solicitations for
 * these addresses by itself, with this Ethernet address (NULL: the one that its driver knows); all
 * others are packets like any other. Also while it runs, in place of what was set before. */
int hb_set_addresses(hb_dataplane *dp, uint32_t node, const hb_ip_address *list, uint32_t n,
                     const uint8_t *mac);
/* What such a port makes of one packet: the length of the answer that it turns it into, which lies
 * in `room` bytes; 0: it is none of its questions, and stays as it is. For tests and tools. */
uint32_t hb_answer_question(const hb_ip_address *list, uint32_t n, const uint8_t *mac,
                            uint8_t *packet, uint32_t length, uint32_t room);

/* What a port has to say: its first failure, else what was odd about its source, else "". */
const char *hb_port_message(const hb_dataplane *dp, uint32_t node);
/* How a port is used, for the operator, such as the mode of its interface; else "". */
const char *hb_port_note(const hb_dataplane *dp, uint32_t node);
/* While it runs: the interface of a port is gone, so lcores keep off; what is to be sent there is
 * dropped as port_down. */
void hb_port_away(hb_dataplane *dp, uint32_t node);
/* While it runs: the interface is there again; the port is opened anew. It stays away if that
 * fails. */
int hb_port_reopen(hb_dataplane *dp, uint32_t node);

/* What an NF declares about itself (hummingbird/nfs/<name>.py). */
#define HB_READS_HEADER 0 /* at most HB_HEADER_BYTES from the first packet byte */
#define HB_READS_PACKET 1 /* everything */
#define HB_WRITES_NOTHING 0
#define HB_WRITES_HEADER 1
#define HB_WRITES_PACKET 2
#define HB_HEADER_BYTES 128
typedef struct {
    uint32_t kind;     /* HB_NF_KINDS of hummingbird.h */
    uint32_t instance; /* index of its entry in the tables region */
    uint32_t reads;
    uint32_t writes;
    uint32_t head;       /* bytes it may add in front */
    uint32_t tail;       /* bytes it may add behind */
    uint32_t rules;      /* counters its finish() keeps, read with hb_rule_hits() */
    int sticky;          /* a re-type holds for the whole flow from then on */
    uint32_t flow_bytes; /* state that it has of each flow, in the tables region; 0: none */
    uint32_t engine;     /* of a CNF: its number, see hb_nf_engine_name() */
    void *host;      /* what the NF has on the host, made by hb_<nf>_new(); the caller keeps it */
    void *code;      /* hb_nf_kind * of an NF that is not compiled in, else NULL */
    uint32_t lcores; /* lcores that serve it: CNF threads, or syncers for a GNF */
    uint32_t lcore[HB_MAX_LCORES];
} hb_nf;
int hb_add_cnf(hb_dataplane *dp, const hb_nf *nf);
/* workgroups: how many logical workgroups each of its syncers gives it. */
int hb_add_gnf(hb_dataplane *dp, const hb_nf *nf, uint32_t workgroups);
/* An NF that a thread of its own runs: host is its hb_peer, code is hb_peer_kind(); see
 * nf/peer_api.h. */
int hb_add_peer(hb_dataplane *dp, const hb_nf *nf);

/* ---- the device ------------------------------------------------------------------------------ */

#define HB_EXECUTOR_PERSISTENT 1
#define HB_EXECUTOR_LAUNCH 2

typedef struct {
    int executor;        /* HB_EXECUTOR_* */
    void *queue;         /* cl_command_queue, in order */
    void *kernel;        /* cl_kernel: hb_persistent or hb_batch, its memory arguments set */
    void *context;       /* cl_context, for the staging buffers; NULL unless staged */
    void *tables;        /* staged: the tables region ... */
    void *tables_buffer; /* ... and the device's copy of it (cl_mem) */
    uint64_t tables_bytes;
    void *control;       /* control region, hb_control_size() bytes, visible to the device */
    int staged;          /* launch only: frames and control are copied to and from the device */
    int on_cpu;          /* a CPU runtime: it can run a launch on the thread that waits for it */
    uint32_t workgroups; /* logical; the sum over GNFs and their syncers */
    uint32_t lanes;
    uint32_t depth;
    uint32_t groups;      /* groups to launch at first; check-in finds how many are resident */
    uint32_t lifetime_us; /* persistent: a kernel leaves after this long ... */
    uint32_t idle_us;     /* ... or when the device had no row for this long */
} hb_device;
size_t hb_control_size(uint32_t workgroups, uint32_t lanes, uint32_t depth, uint32_t groups);
/* Writes the head of the region and clears its words; hb_set_device() does it too. */
void hb_control_init(void *control, uint32_t workgroups, uint32_t lanes, uint32_t depth,
                     uint32_t groups);
/* Sets the exit word: a persistent kernel on this region leaves at once. */
void hb_control_exit(void *control);
int hb_set_device(hb_dataplane *dp, const hb_device *device);

/* The coherence probe: the real protocol, every byte checked both ways, NF `probe` as instance and
 * program 0 of the tables region. Nothing else may use the device meanwhile. */
typedef struct {
    hb_device device; /* one workgroup */
    void *frames;
    uint32_t frame_size;
    uint32_t frames_used; /* working set in frames; a multiple of lanes */
    void *table;          /* the probe's table: 128 bytes a slot, depth * lanes slots */
    uint32_t rounds;      /* times each frame is used */
    uint32_t stall_ms;    /* no packet for this long is a failure */
} hb_probe_config;
typedef struct {
    uint64_t packets;         /* checked */
    uint64_t stale_on_device; /* words the device saw that were not the latest */
    uint64_t stale_on_host;
    uint64_t launches;
    uint64_t resident;
} hb_probe_result;
/* 0, or -1: the device failed or made no progress. */
int hb_probe(const hb_probe_config *config, hb_probe_result *result);

/* ---- measuring: what the parts of the data plane cost by themselves ----------------------------
 */

/* ns of a round trip of one cache line between threads pinned to two CPUs; negative: these threads
 * cannot be had. */
double hb_ping_pong(int cpu_a, int cpu_b, uint32_t rounds);
/* ns per packet through a ring from a thread on cpu_a, which writes each packet's header, to one on
 * cpu_b, which reads it if `headers`; bursts of 32. Without `headers` only handles are written and
 * read. Negative: as above. */
double hb_ring_hop(int cpu_a, int cpu_b, uint64_t packets, int headers);

/* The queue protocol with neither ports nor routes: one host thread fills rows from the headers of
 * recycled packets, the device runs program 0 of the tables region (NF `touch`, or any that lets
 * these packets pass as they are), answers are checked and applied to the headers. Nothing else may
 * use the device meanwhile. */
typedef struct {
    hb_device device;
    void *frames;
    uint32_t frame_size;
    uint32_t mbufs;  /* packets there are; at least rows * lanes */
    uint32_t rows;   /* in flight, at most workgroups * depth */
    uint32_t count;  /* packets in each, 0 to lanes: the other lanes run dummy packets */
    uint32_t length; /* packet bytes */
    uint32_t touch;  /* NF touch changes the first word of each 64 bytes up to here; 0: other NFs */
    int together;    /* publish all rows at once, then wait until all are finished */
    int cpu;         /* that the host thread is pinned to, -1 for none */
    double seconds;  /* to measure, after a short run that is not */
} hb_bare_config;
typedef struct {
    uint64_t rows; /* while it was measured, like all but the last four */
    uint64_t packets;
    double seconds;
    uint64_t host_ticks; /* in passes of fill, publish, reap that found something to do */
    double trip_p50;     /* ticks from publish to seen finished, with `together` ... */
    double trip_p99;     /* ... else 0 */
    uint64_t touched;    /* packets in all, warm-up included */
    uint64_t wrong;      /* impossible answers, and packets with a word that was not changed once
                          * for each time the packet was sent */
    uint64_t launches;
    uint64_t resident;
} hb_bare_result;
/* 0, or -1: out of memory, or the device failed or made no progress for 10 s. */
int hb_bare_queue(const hb_bare_config *config, hb_bare_result *result);

/* What anyone writes who has no queue: for each batch gather its packets, write them to the device,
 * enqueue one kernel (hb_bare), read back, wait, scatter; on one in-order queue. Where memory is
 * shared, the same without the copies. */
typedef struct {
    void *queue;   /* cl_command_queue, in order */
    void *kernel;  /* cl_kernel hb_bare; where memory is shared its arguments 0 to 2 are set */
    void *context; /* cl_context for the device's buffer; NULL where memory is shared */
    void *shared;  /* batch * 20 bytes of shared memory; NULL: copies */
    void *frames;  /* where the packets are */
    uint32_t frame_size;
    uint32_t mbufs;  /* packets there are; a multiple of batch */
    uint32_t batch;  /* packets of one enqueue, a multiple of group */
    uint32_t group;  /* work-items of a workgroup */
    uint32_t length; /* as above, like the others */
    uint32_t touch;
    int cpu;
    double seconds;
} hb_enqueue_config;
/* As hb_bare_queue(); rows are batches, launches enqueues. -1 also: an OpenCL call failed. */
int hb_bare_enqueue(const hb_enqueue_config *config, hb_bare_result *result);

/* One NF on one core, with neither ports nor routes: an engine, or a peer in its place, gets the
 * same packets again and again. A pass takes all of them once, in bursts; before each pass,
 * untimed, every packet is put back as it was. */
typedef void hb_bare_peer(void *context, uint8_t *const *packet, uint32_t length, uint64_t *result,
                          uint32_t n);
typedef struct {
    const void *tables; /* tables region; the NF is its instance 0 ... */
    uint32_t kind;
    uint32_t engine;    /* number, as for hb_nf_engine_name() */
    uint32_t head;      /* bytes it may add in front ... */
    uint32_t tail;      /* ... and behind */
    hb_bare_peer *peer; /* ... or, if this is not NULL, the peer */
    void *context;
    void *frames;
    uint32_t frame_size;
    uint32_t mbufs;      /* packets there are */
    const void *packets; /* [mbufs][length] bytes: what they are before a pass */
    uint32_t length;     /* of each packet */
    uint32_t first;      /* bytes from a frame's start to its packet, before a pass */
    const uint64_t *arg; /* [mbufs] for the engine; NULL: all 0 */
    int whole;           /* not the engine alone: what the NF does around it on the host, too ... */
    void *host;          /* ... with this (hb_nf.host); the NF may not make packets */
    uint32_t burst;      /* packets, at most 256 */
    int cpu;             /* that the calling thread is pinned to meanwhile, -1 for none */
    double seconds;      /* to measure, in whole passes; 0: one pass */
    /* Of the last pass, [mbufs] each. The packets lie in `frames` as it left them. */
    uint64_t *result;
    uint32_t *verdict; /* HB_PASS, HB_DROP(), HB_RETYPE(); for a peer HB_PASS */
    uint16_t *offset;  /* bytes from the frame's start to the first packet byte */
    uint16_t *end;     /* bytes from there to behind the last one */
} hb_bare_nf_config;
typedef struct {
    double ns; /* CPU time of a packet: lower quartile of the passes, as disturbances only add */
    uint64_t passes;
} hb_bare_nf_result;
/* 0, or -1: out of memory, the engine did not open, a packet is malformed, or no such CPU. */
int hb_bare_nf(const hb_bare_nf_config *config, hb_bare_nf_result *result);

/* Look-ups of addresses by themselves: the router's, or a peer's. */
typedef void hb_bare_lookup16(const void *table, const uint32_t *address, uint16_t *hop,
                              uint32_t n);
typedef void hb_bare_lookup64(void *context, const uint32_t *address, uint64_t *hop, uint32_t n);
typedef struct {
    hb_bare_lookup16 *ours; /* hb_router_lookup_bulk ... */
    hb_bare_lookup64 *peer; /* ... or, if this is not NULL, the peer */
    void *context;          /* table or context */
    const uint32_t *address;
    uint32_t n;
    uint32_t burst; /* addresses a call, at most 256 */
    int cpu;        /* as above, like the next */
    double seconds;
    uint64_t *hop; /* [n] what was found */
} hb_bare_lookup_config;
/* 0, or -1: out of memory, or no such CPU. ns are those of one look-up. */
int hb_bare_lookup(const hb_bare_lookup_config *config, hb_bare_nf_result *result);

/* ---- packet types and routes ----------------------------------------------------------------- */

/* A 5-tuple rule; first match wins. Addresses are 128 bit, IPv4 as ::ffff:a.b.c.d. */
typedef struct {
    uint16_t type;
    uint8_t any_proto;
    uint8_t proto;
    uint8_t src[16];
    uint8_t dst[16];
    uint8_t src_bits; /* prefix lengths; 0 matches all */
    uint8_t dst_bits;
    uint16_t src_port[2]; /* first and last; 0 and 65535 match also packets without ports */
    uint16_t dst_port[2];
    uint16_t port[2]; /* matches if either port lies in it */
} hb_rule;
int hb_set_rules(hb_dataplane *dp, const hb_rule *rules, uint32_t count);
/* Parse one packet and match it, as an input port does: 0, or the reason it would be dropped for.
 * *rule_index is the first rule that matches, -1 if none does. For tools and tests. */
int hb_classify(const uint8_t *packet, uint32_t length, const hb_rule *rules, uint32_t count,
                int32_t *rule_index);

#define HB_NEXT_DROP 0xffff /* the policy says drop */
#define HB_NEXT_NONE 0xfffe /* the policy has no row */
#define HB_POLICY_STUCK -2
/* next[node * types + type] = next node or HB_NEXT_*. Returns the version number (1, 2, ...), or
 * -1 if HB_MAX_POLICIES versions still have packets in flight, or HB_POLICY_STUCK if an lcore makes
 * no passes any more; then nothing has changed. */
int hb_publish_policy(hb_dataplane *dp, const uint16_t *next);
/* Reloads after which a flow with state may have had packets on its old and its new way at once,
 * because they were not all gone within a second. */
uint32_t hb_undrained_reloads(const hb_dataplane *dp);
/* Versions in use: bit s is set while slot s is current or has packets in flight. */
uint32_t hb_live_policies(hb_dataplane *dp);

/* ---- flows -----------------------------------------------------------------------------------
 * With an NF that has state of flows they are tracked: they have states and end. Else a flow is
 * only remembered, with its types, until its place is needed.
 */

typedef struct {
    uint8_t addr[2][16]; /* IPv4 as ::ffff:a.b.c.d; all zero: not IP */
    uint16_t port[2];    /* of a fragment: its datagram's id */
    uint16_t zone;
    uint8_t protocol;
    uint8_t fragment; /* 1: of a fragmented datagram */
    uint16_t type[2]; /* packet types of directions 0 and 1 */
    uint32_t index;
    uint32_t generation;
    uint8_t state;    /* HB_FLOW_* */
    uint8_t first;    /* the direction of the flow's first packet: which end began */
    uint64_t age_ns;  /* packet time since its first packet ... */
    uint64_t idle_ns; /* ... and since its last one; both to 0.07 s */
} hb_flow_view;
/* The live flows from place *cursor on (0 at first), at most `most`; *cursor moves behind them.
 * Returns how many; 0: there are no more. From any one thread, while packets flow: each is a flow
 * that was there, no instant sees them all. */
uint32_t hb_list_flows(const hb_dataplane *dp, uint64_t *cursor, hb_flow_view *view, uint32_t most);
/* Has the flow been set up at this NF? Its state then is element `index` of the NF's. */
int hb_flow_is_set_up(const hb_dataplane *dp, uint32_t node, uint32_t index, uint32_t generation);

/* ---- running --------------------------------------------------------------------------------- */

int hb_start(hb_dataplane *dp);
/* Inputs that have an end have all reached it, and nothing is in flight. */
int hb_finished(hb_dataplane *dp);
/* Stop taking packets in, then wait until none is in flight: 0, or the packets that were still in
 * flight after the timeout and were dropped as shutdown. Data-plane threads keep running. */
int64_t hb_drain(hb_dataplane *dp, uint32_t timeout_ms);
/* Input ports take nothing in (1), or do again (0); whoever has its own queue, such as an
 * interface, keeps or loses there what comes meanwhile. Does not wait: see hb_held_in_flight(). May
 * be called before hb_start(). */
void hb_hold(hb_dataplane *dp, int hold);
/* While inputs are held: packets in flight, which only become fewer; -1: an input may not have seen
 * yet that it is held. */
int64_t hb_held_in_flight(const hb_dataplane *dp);
/* End all threads. After hb_drain nothing is left in flight. -1: one does not end, because an NF
 * does not return; then nothing that was given to the data plane may be freed, nor it itself. */
int hb_stop(hb_dataplane *dp);
/* Packets outside the pool, its caches and the drivers, counted by themselves (not a remainder). */
int64_t hb_in_flight(const hb_dataplane *dp);
/* Free mbufs found by walking pool and caches: only when stopped. */
int64_t hb_count_free(const hb_dataplane *dp);
/* Tables that change while it runs: begin, write and name what was written, end. A device that has
 * a copy of the tables gets all changes between begin and end at once, so it sees none half made.
 * One that shares the memory sees each store: their order must be right for it. */
void hb_tables_begin(hb_dataplane *dp);
void hb_tables_changed(hb_dataplane *dp, const void *at, uint64_t bytes);
void hb_tables_end(hb_dataplane *dp);
/* Wait until nobody reads what was in the tables before this call: every lcore has begun a pass
 * since, and every row that was published before has come back. 0, or -1 if an lcore is stuck: it
 * may read it for good. */
int hb_wait_readers(hb_dataplane *dp);
uint64_t hb_rule_hits(const hb_dataplane *dp, uint32_t node, uint32_t rule);
uint64_t hb_ticks(void); /* of the clock that all latencies use */
double hb_ticks_per_second(void);

/* 0 healthy, 1 the device failed and was restarted at least once, 2 it hangs and is given up. */
int hb_device_state(const hb_dataplane *dp);

/* Names of drop reasons and NF kinds, as compiled in; NULL past the last. */
const char *hb_reason_name(uint32_t reason);
const char *hb_reason_text(uint32_t reason);
const char *hb_nf_kind_name(uint32_t kind);
/* The engines of a kind on the CPU, "cpu" first and the best last; NULL past the last. */
const char *hb_nf_engine_name(uint32_t kind, uint32_t engine);
/* Does it run on this machine? */
int hb_nf_engine_usable(uint32_t kind, uint32_t engine);
/* Run one packet function on n packets laid out as arrays, for tests and tools: no threads, no
 * queue. work[i].frame indexes frames; done[i] gets the answers. */
void hb_run_program(void *frames, uint32_t frame_size, const void *tables, uint32_t program,
                    uint32_t head, uint32_t tail, const void *work, const uint64_t *arg, void *done,
                    uint32_t n);

/* ---- counters -------------------------------------------------------------------------------- */

/*
 * The stats region: this head, then per lcore one block of `lcore_bytes`:
 *   hb_lcore_stats, hb_node_stats[nodes], drops u64[nodes][reasons], hops u64[nodes][types],
 *   ended u64[types][2] (handed to an egress port, dropped), edges u64[nodes][nodes] (packets that
 *   went from a node to a node), latency u64[nodes][HB_HIST_BUCKETS] (an NF's: from when packets
 *   came to it until it had answered; an output port's: from receipt until sent),
 *   chain_latency u64[types][HB_HIST_BUCKETS] (from receipt until sent),
 *   profile u64[nodes + HB_ACCOUNTS]: ticks spent in a node's own code (an input's driver, an NF, a
 *   GNF's CPUSyncer, an output), then in each of HB_ACCOUNT_*; all 0 unless hb_config.profile.
 * and behind the lcores one hb_device_stats. All u64 with one writer each (the lcore; the executor
 * thread); readers just load. Latency is in ticks: bucket b < 16 holds value b, above that 16
 * buckets per power of two: bucket 16 * e + m holds (16 + m) << (e - 1) and up.
 * Of latencies one packet of a burst is sampled; every other figure counts every packet.
 */
typedef struct {
    uint64_t magic; /* HB_STATS_MAGIC */
    uint64_t version;
    uint64_t lcores;
    uint64_t nodes;
    uint64_t types;
    uint64_t reasons;
    uint64_t head_bytes;
    uint64_t lcore_bytes;
    uint64_t nodes_off; /* from the start of an lcore's block, like the next seven */
    uint64_t drops_off;
    uint64_t hops_off;
    uint64_t ended_off;
    uint64_t edges_off;
    uint64_t latency_off;
    uint64_t chain_latency_off;
    uint64_t profile_off;
    uint64_t device_off;  /* from the start of the region */
    uint64_t start_ticks; /* when lcores began; 0: not yet */
    uint64_t start_ns;    /* the same moment by CLOCK_REALTIME */
    uint64_t ticks_per_second;
} hb_stats_head;
#define HB_STATS_MAGIC 0x48625354
#define HB_STATS_VERSION 3

/* Where an lcore's time goes beside the nodes: parsing and the flow cache; routing and counting;
 * the poll loop, with polls that find nothing; resting because nothing is to be done. */
#define HB_ACCOUNT_CLASSIFY 0
#define HB_ACCOUNT_FORWARD 1
#define HB_ACCOUNT_POLL 2
#define HB_ACCOUNT_REST 3
#define HB_ACCOUNTS 4

#define HB_BATCH_BUCKETS 12 /* rows of 1, 2 to 3, 4 to 7, ... packets */

typedef struct {
    uint64_t passes; /* of the poll loop */
    uint64_t idle_passes;
    uint64_t busy_ticks; /* spent in passes that found something to do */
    uint64_t sleeps;
    uint64_t born; /* packets that came into being here (received or created) ... */
    uint64_t gone; /* ... and that ended here (sent or dropped) */
    uint64_t flow_hits;
    uint64_t flow_misses;
    uint64_t flow_evictions;          /* flows that had to go because others needed their place */
    uint64_t flow_refusals;           /* packets of new flows for which there was none */
    uint64_t flow_ends;               /* tracked flows that are over, and their places free again */
    uint64_t flows_live;              /* now; tracked flows only */
    uint64_t admitted[HB_ADMISSIONS]; /* packets stamped so (hb_mbuf.route) ... */
    uint64_t retired[HB_ADMISSIONS];  /* ... and gone again */
    uint64_t rows;                    /* published by this lcore's CPUSyncer */
    uint64_t row_packets; /* lanes that held a packet; rows * lanes - row_packets were dummies */
    uint64_t quarantined; /* mbufs never given back because the device hangs */
    uint64_t starved;     /* syncer passes that left packets waiting because no row was free */
    uint64_t batch[HB_BATCH_BUCKETS]; /* rows by how many packets they had */
} hb_lcore_stats;

typedef struct {
    uint64_t in_packets; /* port: received. NF: entered */
    uint64_t in_bytes;
    uint64_t out_packets; /* port: sent. NF: left with a verdict other than drop */
    uint64_t out_bytes;
    uint64_t missed;   /* port: interface or kernel dropped them before we could have them */
    uint64_t answered; /* port: of those received, questions for its addresses; their answers are
                          among those sent */
    uint64_t dropped;  /* sum over reasons */
    uint64_t created;  /* packets this node made */
    uint64_t retyped;
    uint64_t bursts;
    uint64_t busy_ticks; /* port: receiving, parsing and sending; CNF: being given packets and
                            running; GNF and peer: time in which it had packets in its hands */
    uint64_t held_ticks; /* input port that waits: time in which it could not take in a burst,
                            because so many of its packets were in flight */
    uint64_t depth; /* packets that waited here when the lcore last looked; a level, not a count */
    uint64_t end;   /* input port: 1 once all that this lcore reads there is exhausted */
} hb_node_stats;

typedef struct {
    uint64_t launches;
    uint64_t failures;     /* launches that ended in an error */
    uint64_t resident;     /* groups that checked in at the last launch */
    uint64_t copied_bytes; /* staged copies, both ways */
} hb_device_stats;

#endif
