/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * plane.h: a whole data plane in a test, on a fake GPU. Its packets know who they are, its sinks
 * check that each is whole and in order, and at the end every packet and mbuf is accounted for.
 *
 * A test includes plane.c, because each test is compiled from one file. CHECK() counts failures.
 */
#ifndef HB_PLANE_H
#define HB_PLANE_H
#include "dataplane.h"
#include "fake_gpu.h"

/* What plays the device's side; the last one copies all that a kernel needs. */
enum plane_executor { PLANE_PERSISTENT, PLANE_LAUNCH, PLANE_STAGED };
#define PLANE_EACH_EXECUTOR(e) for (uint32_t e = PLANE_PERSISTENT; e <= PLANE_STAGED; e++)

/* NFs: two real ones that need no table, the probe's, and three of these tests (test_nfs.h). Tally
 * has state of flows, which is not there for PLANE_STAGED. */
enum plane_nf {
    NF_forward = 1,
    NF_probe = 5,
    NF_touch = 6,
    NF_sift = 200,
    NF_stamp = 201,
    NF_tally = 202
};
enum plane_type { NORMAL, SUSPICIOUS }; /* of packets, by sift */

typedef struct {
    enum plane_executor executor;
    uint32_t lcores, types, mbufs, queue; /* default 1, 2, 2048, 1024 */
    uint32_t lanes, depth, groups;        /* default 4, 4, 4 */
    uint32_t lifetime_us, idle_us;        /* default 200,000 and 100,000 */
    uint32_t hang_ms;                     /* until a launch is taken to hang; default 10,000 */
    fake_config gpu;                      /* resident: default 2 */
} plane_config;

enum { PLANE_SOURCES = 2, PLANE_FLOWS = 16, PLANE_NODES = 8 };

/* An input port that makes packets number 0, 1, 2, ...; number % PLANE_FLOWS is the flow. */
typedef struct {
    hb_port port;
    uint32_t index; /* of the source */
    uint64_t packets, made;
    uint32_t burst;          /* most packets of a poll */
    uint32_t gap_us;         /* at least this long between two of them */
    _Atomic bool stuck;      /* a poll does not return while it is set */
    _Atomic uint64_t waited; /* turns of such a poll */
    uint64_t polled_ns;
} plane_source;

/* An output port. expect() says what packet `number` should look like by now. */
typedef struct plane_sink plane_sink;
struct plane_sink {
    hb_port port;
    const struct plane *plane;
    uint32_t (*expect)(plane_sink *s, uint8_t *packet, uint32_t source, uint64_t number,
                       const uint8_t *have, uint32_t length);
    _Atomic uint64_t packets;
    uint64_t altered, disordered;
    bool any_order;
    uint64_t next[PLANE_SOURCES][PLANE_FLOWS]; /* least number that may come */
    uint64_t last_number;                      /* of stamp */
};

typedef struct plane {
    plane_config config;
    hb_dataplane *dp;
    fake_gpu *gpu;
    hb_config memory;
    hb_device device;
    uint32_t workgroups; /* of all GNFs and their syncers */
    uint32_t nfs;
    uint32_t sources, sinks;
    plane_source source[PLANE_SOURCES];
    plane_sink sink[PLANE_NODES];
    uint16_t next[PLANE_NODES * HB_MAX_TYPES];
} plane;

plane *plane_new(const plane_config *config);

/* Nodes; each returns its number. A source of 0 packets never ends. */
int plane_add_source(plane *p, uint32_t lcore, uint64_t packets, bool paced);
int plane_add_sink(plane *p, uint32_t lcore, plane_sink **sink);
/* lcores is a bit mask. workgroups: of each syncer; 0 makes it a CNF. */
int plane_add_nf(plane *p, enum plane_nf kind, uint32_t lcores, uint32_t workgroups);
/* Packets of this type go from one node to the other. */
void plane_route(plane *p, uint32_t type, int from, int to);
void plane_route_all(plane *p, int from, int to);

/* source --> GNF --> sink, on one lcore */
plane *plane_short_chain(const plane_config *config, enum plane_nf kind, uint64_t packets,
                         uint32_t workgroups);
/*
 * source 0 --> GNF sift -- normal ------> CNF forward --> sink 0
 * source 1 ------'     '-- suspicious --> GNF forward --> sink 1
 *
 * One lcore does it all; of three, 0 and 1 have a source each and so own flows, 1 and 2 serve sift
 * and the CNF.
 */
plane *plane_long_chain(const plane_config *config, uint64_t packets, uint32_t workgroups);

void plane_start(plane *p);
/* Until the sources have ended and nothing is in flight; a failure if that takes too long, or if
 * the counters are not exact by then. */
void plane_wait(plane *p);
bool plane_wait_for(const _Atomic uint64_t *what, uint64_t least);
/* Until so many more packets have come in. */
bool plane_wait_for_packets(plane *p, uint64_t more);
/* Until some workgroup has all its rows published and none finished: on a held device, for good. */
bool plane_wait_for_full_rows(plane *p);

typedef struct {
    uint64_t received, created, sent, dropped;
    uint64_t reason[HB_REASONS];
    uint64_t in_flight, quarantined;
    uint64_t rows, row_packets;
    uint64_t launches, failures;
    fake_counts gpu;
} plane_totals;
/* Drain and stop, then plane_free(). */
plane_totals plane_end(plane *p);
/* From start to end of the sources, then plane_end(). */
plane_totals plane_run(plane *p);
/* So many came in, all were sent, and the device ran them without a fault. */
void plane_all_sent(const plane_totals *t, uint64_t packets);
/* Once it stopped. Checks that nothing is missing: packets by node and in all, mbufs, rows; and
 * that the device has got all its objects back, unless it hung. */
plane_totals plane_free(plane *p);

/* Packets: UDP, 60 to 1,400 bytes, each different from all others. */
uint32_t plane_packet(uint8_t *packet, uint32_t source, uint64_t number);
/* One in five holds the byte string that the NIDS of these tests looks for. */
bool plane_is_suspicious(uint64_t number);
/* What comes out of the NF stamp. */
uint32_t plane_stamped(plane_sink *s, uint8_t *packet, uint32_t source, uint64_t number,
                       const uint8_t *have, uint32_t length);

#endif
