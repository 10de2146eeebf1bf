/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The CPU <-> GPU queue of docs/protocol.md, in small: 2 logical workgroups,
 * 2 lanes, depth 2, 1 or 2 resident groups, over a memory weaker than x86's.
 *
 * Sizes, by -D:  NS            syncers: 1 (owns both workgroups) or 2 (one each)
 *                ROWS0, ROWS1  rows that workgroup 0 and 1 publish (3: a row is reused)
 *                MAXL          launches; the last one ends only when all is done
 *                ABEND         launches that may end abnormally
 * Faults:        -DFAULT_... seeds one; the comment where it is used says what it breaks.
 *                -DHARM_ONLY leaves out the check of the index invariant, so that
 *                a fault is found only by what it does to packets.
 *
 * Memory. A store to a location that another party reads first lies in a store
 * buffer (a bit p_...). The process Memory lets pending stores reach memory at any
 * time and in ANY order. A store-release waits until the earlier stores of its
 * writer have reached memory and is then itself pending; a seq_cst fence waits for
 * everything. A load reads memory. A missing acquire is a reader that has read the
 * row before it reads the index. Single words that order nothing (check-in, rank,
 * state, exit) are stored at once: a late store is the same as a late writer.
 *
 * Time. Lifetime, idleness, exit word and tick are one thing here: a group may
 * leave at any row boundary. A late group is one that starts late. A launch fails at any
 * moment: it is a zombie (HUNG) until it is known to be over (LOST).
 *
 * Content. A row is known by its number, the tag; every field of it carries the tag.
 */

#ifndef NS
#define NS 1
#endif
#ifndef ROWS0
#define ROWS0 3
#endif
#ifndef ROWS1
#define ROWS1 1
#endif
#ifndef MAXL
#define MAXL 2
#endif
#ifndef ABEND
#define ABEND 0
#endif

#define NW    2                          /* logical workgroups */
#define NG    2                          /* groups in a launch */
#define DEPTH 2
#define WRAP  8                          /* stands for 2^32 */
#define START 6                          /* so that every index wraps in the run */

#define DIST(a, b)   ((a + WRAP - b) % WRAP)
#define NEXT(i)      ((i + 1) % WRAP)
#define ROW(w, i)    (w * DEPTH + (i & (DEPTH - 1)))
#define SLOT(w, i, t) (ROW(w, i) * 2 + t)
#define TAG(i)       (DIST(i, START) + 1) /* which row this is: 1, 2, ...; 0: never written */
/* Packets of a row: 2,1,1.. and 1,2,2..: lane 1 is at times a dummy. */
#define COUNT(w, tag) (1 + ((tag == 1) != (w == 1)))
#define BIT(tag, t)  (1 << ((tag - 1) * 2 + t)) /* a packet, in the masks below */
#define PACKETS(w, tag) (BIT(tag, 0) | ((COUNT(w, tag) == 2) -> BIT(tag, 1) : 0))

/* ---- memory shared with the device ------------------------------------- */
byte cpu_index[NW] = START;              /* written by the owning syncer */
byte gpu_index[NW] = START;              /* written by item 0 of the group serving w */
byte rowdesc[NW * DEPTH];                /* host; holds the row's tag (count follows from it) */
byte work[NW * DEPTH * 2];               /* host; holds the row's tag */
byte done[NW * DEPTH * 2];               /* device; the tag it found in work */
byte checkin[NG];                        /* device: launch id */
byte rank[NG];                           /* host: launch id * 4 + code */
#define EXIT 0                           /* code: leave; 1: rank 0 of 1; 2, 3: rank 0, 1 of 2 */
#define SERVES(code, w) (code == 1 || code == w + 2)

/* ---- store buffers: p_ pending, v_ its value ------------------------------- */
bit p_desc[NW]; bit p_work[NW * 2];      /* the row being filled, at index fill[w] */
byte fill[NW] = START;
bit p_cpu[NW]; byte v_cpu[NW] = START;
bit p_done[NG * 2]; byte v_done[NG * 2]; /* at row d_w, d_i of group g */
byte d_w[NG]; byte d_i[NG];
bit p_gpu[NW]; byte v_gpu[NW] = START;
bit p_asleep; bit v_asleep;

#define FILLED(w)    (!p_desc[w] && !p_work[w * 2] && !p_work[w * 2 + 1])
#define LANES_OUT(g) (!p_done[g * 2] && !p_done[g * 2 + 1])

/* ---- host ---------------------------------------------------------------- */
byte creg[NW] = START;                   /* the syncer's own copy of cpu_index */
byte reaped[NW] = START;
mtype = { HEALTHY, HUNG, LOST };
mtype state = HEALTHY;                   /* and lid: written by the executor */
byte lid;                                /* launch id */
byte acked[NS];                          /* by syncer: the launch id it has cleaned up after */
bit asleep, bell;                        /* bell: the futex that the executor sleeps on */
byte abends;

/* ---- the runtime --------------------------------------------------------- */
bit alive[NG];                           /* group is part of a launch and has not ended */
bit killed;                              /* the launch is being torn down */
bit quit;

/* ---- what the checks keep: one bit per packet ------------------------------ */
byte ran[NW];                            /* a lane has begun it */
byte good[NW];                           /* reaped with the right content */
byte lost[NW];                           /* counted device_lost */
byte freed[NW];                          /* its mbuf went back to the pool */
byte all[NW];                            /* what there is to account for */

#define ALLDONE ((good[0] | lost[0]) == all[0] && (good[1] | lost[1]) == all[1])
#define PENDING(w) (cpu_index[w] != gpu_index[w])

#ifdef HARM_ONLY
#define INVARIANT(w) skip
#else
#define INVARIANT(w) assert(DIST(gpu_index[w], reaped[w]) <= DIST(cpu_index[w], reaped[w]) && \
                            DIST(cpu_index[w], reaped[w]) <= DEPTH)
#endif

/* ======================== memory ========================================== */

inline drain_done(g, t) {
    d_step {
        p_done[g * 2 + t] -> /* the frame is written with it: it must still be ours to write */
        assert(!(freed[d_w[g]] & BIT(v_done[g * 2 + t], t)));
        done[SLOT(d_w[g], d_i[g], t)] = v_done[g * 2 + t];
        p_done[g * 2 + t] = 0; v_done[g * 2 + t] = 0
    }
}

inline drain_work(w, t) {
    d_step {
        p_work[w * 2 + t] ->
        work[SLOT(w, fill[w], t)] = TAG(fill[w]); p_work[w * 2 + t] = 0
    }
}

inline drain_host(w) {
    if
    :: d_step { p_desc[w] -> rowdesc[ROW(w, fill[w])] = TAG(fill[w]); p_desc[w] = 0 }
    :: drain_work(w, 0)
    :: drain_work(w, 1)
    :: d_step { p_cpu[w] -> cpu_index[w] = v_cpu[w]; p_cpu[w] = 0; INVARIANT(w) }
    fi
}

proctype Memory() provided (!killed) {
end:
    do
    :: drain_host(0)
    :: drain_host(1)
    :: drain_done(0, 0)
    :: drain_done(0, 1)
    :: drain_done(1, 0)
    :: drain_done(1, 1)
    :: d_step { p_gpu[0] -> gpu_index[0] = v_gpu[0]; p_gpu[0] = 0; INVARIANT(0) }
    :: d_step { p_gpu[1] -> gpu_index[1] = v_gpu[1]; p_gpu[1] = 0; INVARIANT(1) }
    :: d_step { p_asleep -> asleep = v_asleep; p_asleep = 0 }
    od
}

/* ======================== device ========================================== */

#ifdef FAULT_NO_ACQUIRE                  /* the row is read before cpu_index is */
#define DESC    seen[2]
#define WORK(t) seen[t]
#define LOOK(v) d_step { SERVES(code, v) -> w = v; seen[2] = rowdesc[ROW(v, mine[v])]; \
                         seen[0] = work[SLOT(v, mine[v], 0)]; \
                         seen[1] = work[SLOT(v, mine[v], 1)] }; \
                if :: cpu_index[v] != mine[v] :: else -> goto boundary fi
#else
#define DESC    rowdesc[ROW(w, mine[w])]
#define WORK(t) work[SLOT(w, mine[w], t)]
#define LOOK(v) d_step { SERVES(code, v) && cpu_index[v] != mine[v] -> w = v }
#endif

/* Lane t of the row: at or beyond count it is a dummy packet and does nothing. */
inline lane(t) {
    d_step {
        assert(DESC != 0);
        if
        :: t < COUNT(w, DESC) ->
            assert(WORK(t) != 0);
            assert(!(ran[w] & BIT(WORK(t), t)));   /* a row runs at most once */
            assert(!(freed[w] & BIT(WORK(t), t))); /* and its frames are in flight */
            ran[w] = ran[w] | BIT(WORK(t), t);
            d_w[g] = w; d_i[g] = mine[w];
            p_done[g * 2 + t] = 1; v_done[g * 2 + t] = WORK(t)
        :: else
        fi
    }
}

#define STORED(code) (!(SERVES(code, 0) && p_gpu[0]) && !(SERVES(code, 1) && p_gpu[1]))

inline finish() {
    v_gpu[w] = NEXT(mine[w]); p_gpu[w] = 1
}

inline rowend() {
    mine[w] = NEXT(mine[w]); w = 0; d_w[g] = 0; d_i[g] = 0
}

proctype Group(byte g) {
    byte w, code, mine[NW];
#ifdef FAULT_NO_ACQUIRE
    byte seen[3];
#endif

end:
    do
    :: d_step { alive[g] && !killed -> checkin[g] = lid };
        /* the runtime starts it: at once, late, or after the others have left */
        {
#ifdef FAULT_STALE_RANK                  /* an earlier launch's rank is taken for this one's */
            d_step {
                rank[g] != 0 ->
#else
            d_step {
                rank[g] / 4 == lid ->
#endif
                code = rank[g] % 4;
                if :: SERVES(code, 0) -> mine[0] = gpu_index[0] :: else fi;
                if :: SERVES(code, 1) -> mine[1] = gpu_index[1] :: else fi
            };
boundary:
            do
            ::  if
                :: (code == EXIT || lid < MAXL || ALLDONE) && STORED(code) -> break
                                         /* a kernel's end completes its stores */
                :: LOOK(0)
                :: LOOK(1)
                fi;
                lane(0);
#ifdef FAULT_MID_ROW                     /* an orderly end inside a row */
                if :: lid < MAXL && STORED(code) -> break :: skip fi;
#endif
#ifdef FAULT_NO_BARRIER                  /* item 0 does not wait for the other lanes */
                d_step { LANES_OUT(g) && !p_gpu[w] -> finish() };
                lane(1);
                d_step { LANES_OUT(g) -> rowend() }
#else
                lane(1);
#ifdef FAULT_NO_RELEASE                  /* gpu_index overtakes the lanes' stores */
                d_step { !p_gpu[w] -> finish() };
                d_step { LANES_OUT(g) -> rowend() }
#else
                d_step { LANES_OUT(g) && !p_gpu[w] -> finish(); rowend() }
#endif
#endif
            od
        } unless { killed };
        atomic { w = 0; code = 0; mine[0] = 0; mine[1] = 0; alive[g] = 0 }
    :: d_step { alive[g] && killed -> alive[g] = 0 }
    od
}

/* ======================== executor ======================================== */

proctype Executor() {
    do
    :: ALLDONE -> break
    :: !ALLDONE && !PENDING(0) && !PENDING(1) ->
        d_step { v_asleep = 1; p_asleep = 1 };
#ifndef FAULT_NO_FENCE_EXEC              /* looks before its "asleep" can be seen */
        !p_asleep;
#endif
        if
        :: PENDING(0)
        :: else ->
            if
            :: PENDING(1)
            :: else -> d_step { bell || ALLDONE -> bell = 0 }
            fi
        fi;
        d_step { v_asleep = 0; p_asleep = 1 }
    :: !ALLDONE && (PENDING(0) || PENDING(1)) ->
        assert(lid < MAXL);
        d_step { lid++; alive[0] = 1; alive[1] = 1 };
        do
        :: d_step {                      /* ranks: to those that have checked in; the rest leave */
               (checkin[0] == lid || checkin[1] == lid) && rank[0] / 4 != lid ->
               if
               :: checkin[0] != lid -> rank[0] = lid * 4; rank[1] = lid * 4 + 1
               :: checkin[1] != lid -> rank[0] = lid * 4 + 1; rank[1] = lid * 4
               :: else -> rank[0] = lid * 4 + 2; rank[1] = lid * 4 + 3
               fi
           }
        :: !alive[0] && !alive[1] -> break   /* orderly end */
        :: abends < ABEND && lid < MAXL ->
            d_step { abends++; state = HUNG };
            killed = 1;                  /* at once, or after the zombie has written some more */
            d_step {                     /* over: what has not landed by now never will */
                !alive[0] && !alive[1] ->
                killed = 0;
                p_gpu[0] = 0; p_gpu[1] = 0;
                p_done[0] = 0; p_done[1] = 0; p_done[2] = 0; p_done[3] = 0;
                v_done[0] = 0; v_done[1] = 0; v_done[2] = 0; v_done[3] = 0;
                d_w[0] = 0; d_w[1] = 0; d_i[0] = 0; d_i[1] = 0;
                state = LOST
            };
#ifndef FAULT_NO_ACK                     /* goes on while rows of that launch are still published */
            acked[0] == lid && acked[NS - 1] == lid;
#endif
            state = HEALTHY;
            break
        od
    od;
    assert(!(good[0] & lost[0]) && !(good[1] & lost[1]));
    assert((ran[0] & good[0]) == good[0] && (ran[1] & good[1]) == good[1]);
    quit = 1
}

/* ======================== syncer ========================================== */

#define SYNCS(w)   (NS == 1 || s == w)
#ifdef FAULT_REUSE                       /* a row is free once the device is done with it */
#define FREE(w)    (DIST(creg[w], gpu_index[w]) < DEPTH)
#else
#define FREE(w)    (DIST(creg[w], reaped[w]) < DEPTH)
#endif
#define MORE(w)    (DIST(creg[w], START) < ((w == 0) -> ROWS0 : ROWS1))
#define CANFILL(w) (SYNCS(w) && state == HEALTHY && MORE(w) && FREE(w))
#define CANREAP(w) (SYNCS(w) && state == HEALTHY && gpu_index[w] != reaped[w])

/* The packets of row i; none of them has met its one fate yet. */
inline unsettled(w, i) {
    mask = PACKETS(w, TAG(i));
    assert(!((good[w] | lost[w]) & mask))
}

#ifdef FAULT_NO_ACQUIRE_HOST             /* done is read before gpu_index is */
#define DONE(w, t) seen[t]
#define HARVEST(w) d_step { SYNCS(w) && state == HEALTHY && creg[w] != reaped[w] -> \
                            seen[0] = done[SLOT(w, reaped[w], 0)]; \
                            seen[1] = done[SLOT(w, reaped[w], 1)] }; \
                   d_step { if :: CANREAP(w) -> reap(w) :: else fi }
#else
#define DONE(w, t) done[SLOT(w, reaped[w], t)]
#define HARVEST(w) d_step { CANREAP(w) -> reap(w) }
#endif

/* What was in the row, the syncer takes from its own record of what it published. */
inline reap(w) {
    assert(DONE(w, 0) == TAG(reaped[w]));
    assert(COUNT(w, TAG(reaped[w])) == 1 || DONE(w, 1) == TAG(reaped[w]));
    unsettled(w, reaped[w]);
    good[w] = good[w] | mask; freed[w] = freed[w] | mask; mask = 0;
    reaped[w] = NEXT(reaped[w])
}

inline publish(w) {
    d_step {
        CANFILL(w) ->
        fill[w] = creg[w];
#ifdef FAULT_EARLY_PUBLISH               /* the index goes out, then the row is filled */
        v_cpu[w] = NEXT(creg[w]); p_cpu[w] = 1
    };
    !p_cpu[w];
    d_step {
#endif
        p_desc[w] = 1;
        p_work[w * 2] = 1; p_work[w * 2 + 1] = (COUNT(w, TAG(creg[w])) == 2)
    };
#ifdef FAULT_NO_RELEASE_HOST             /* cpu_index overtakes the row */
    d_step { creg[w] = NEXT(creg[w]); v_cpu[w] = creg[w]; p_cpu[w] = 1 };
#else
    d_step { FILLED(w) -> creg[w] = NEXT(creg[w]); v_cpu[w] = creg[w]; p_cpu[w] = 1 };
#endif
    atomic {
#ifndef FAULT_NO_FENCE                   /* "asleep" is read before cpu_index is seen */
        !p_cpu[w];
#endif
        sleeps = asleep
    };
    if
    :: sleeps -> d_step { bell = 1; sleeps = 0 }
    :: else
    fi;
#if defined(FAULT_NO_RELEASE_HOST) || defined(FAULT_NO_FENCE)
    !p_cpu[w] && FILLED(w)               /* the buffer holds one row */
#endif
}

/* Rows that are finished by now are reaped, the others are lost. Done once: a zombie may still
 * finish one. */
inline bury(w) {
#ifndef FAULT_RERUN                      /* with it the rows stay published and run again */
    do
    :: reaped[w] != gpu_index[w] -> reap(w)
    :: else -> break
    od;
    i = reaped[w];
    do
    :: i != creg[w] -> unsettled(w, i); lost[w] = lost[w] | mask; mask = 0; i = NEXT(i)
    :: else -> break
    od;
    i = 0;
#endif
#ifdef FAULT_EARLY_RESET                 /* the zombie may still store gpu_index */
    gpu_index[w] = creg[w]; reaped[w] = creg[w];
#endif
#ifdef FAULT_NO_QUARANTINE               /* the zombie may still write the frames */
    freed[w] = good[w] | lost[w];
#endif
    skip
}

/* No launch is alive: the host may write gpu_index and free the quarantined mbufs. */
inline reset(w) {
#if !defined(FAULT_RERUN) && !defined(FAULT_EARLY_RESET)
    gpu_index[w] = creg[w]; reaped[w] = creg[w];
#endif
    freed[w] = good[w] | lost[w];
#ifndef FAULT_RERUN
    ran[w] = good[w] | lost[w]           /* what was lost shall never run from here on */
#endif
}

proctype Syncer(byte s) provided (!killed) {
    byte mask, i, buried;
    bit sleeps;
#ifdef FAULT_NO_ACQUIRE_HOST
    byte seen[2];
#endif

    do
    :: publish(0)
    :: publish(1)
    :: HARVEST(0)
    :: HARVEST(1)
    :: d_step {
           state != HEALTHY && buried != lid ->
           if :: SYNCS(0) -> bury(0) :: else fi;
           if :: SYNCS(1) -> bury(1) :: else fi;
           buried = lid
       }
    :: d_step {
           state == LOST && buried == lid && acked[s] != lid ->
           if :: SYNCS(0) -> reset(0) :: else fi;
           if :: SYNCS(1) -> reset(1) :: else fi;
           acked[s] = lid
       }
    :: quit -> break
    od
}

init {
    byte t;

    d_step {
        t = 1;
        do
        :: t <= ROWS0 -> all[0] = all[0] | PACKETS(0, t); t++
        :: else -> break
        od;
        t = 1;
        do
        :: t <= ROWS1 -> all[1] = all[1] | PACKETS(1, t); t++
        :: else -> break
        od;
        t = 0
    };
    atomic {
        run Group(0); run Group(1);
        run Syncer(0);
        if :: NS == 2 -> run Syncer(1) :: else fi;
        run Memory(); run Executor()
    }
}
