/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow_monitor: counts the packets of each flow, both ways, and passes every one.
 *
 * State of a flow. Of each pair the first is of packets from the end that began the flow, the
 * second of those that came back. Words of 64 bits:
 *   [0] [1]  packets
 *   [2] [3]  octets: total lengths of the IP packets (octetDeltaCount of IPFIX)
 *   [4] [5]  earliest packet time, ns; 0 until there are packets
 *   [6] [7]  latest
 *   [8]      when the next intermediate record is due; 0: none is wanted
 * Words of 32 bits:
 *   [18] [19]  TCP flags seen, as the low 12 bits of their word in the header
 *   [20]       HB_FLOW_MONITOR_*, by flow_setup(); 0: not set up
 *   [21]       not used
 * Table: u32 [0] and [1], low and high half of the time between intermediate records, ns.
 * arg is the packet's time. Result: 1 if a record is due, packets up to this one in it.
 */
#define HB_FLOW_MONITOR_PACKETS 0u
#define HB_FLOW_MONITOR_OCTETS 2u
#define HB_FLOW_MONITOR_FIRST 4u
#define HB_FLOW_MONITOR_LAST 6u
#define HB_FLOW_MONITOR_DUE 8u
#define HB_FLOW_MONITOR_FLAGS 18u
#define HB_FLOW_MONITOR_ABOUT 20u

#define HB_FLOW_MONITOR_SET 1u
#define HB_FLOW_MONITOR_BACK 2u /* who began sends in direction 1 */
#define HB_FLOW_MONITOR_TCP 4u

static inline void hb_flow_monitor_time(hb_packet *p, hb_u32 way, hb_u64 now, hb_u64 before)
{
    hb_u32 first = HB_FLOW_MONITOR_FIRST + way, last = HB_FLOW_MONITOR_LAST + way;
    if (!before || now < hb_state64(p, first))
        hb_set_state64(p, first, now);
    if (!before || now > hb_state64(p, last))
        hb_set_state64(p, last, now);
}

static inline void hb_flow_monitor_flags(hb_packet *p, hb_u32 way)
{
    hb_u32 at = HB_FLOW_MONITOR_FLAGS + way, flags = hb_get16(p, p->l4 + 12) & 0xfff;
    hb_set_state32(p, at, hb_state32(p, at) | flags);
}

static inline hb_u32 hb_nf_flow_monitor(hb_packet *p, const hb_table *t, hb_u64 arg, hb_u64 *result)
{
    hb_u32 about = hb_state32(p, HB_FLOW_MONITOR_ABOUT);
    if (!(about & HB_FLOW_MONITOR_SET))
        return HB_PASS;
    hb_u32 way = (p->direction != 0) != ((about & HB_FLOW_MONITOR_BACK) != 0);
    hb_u32 packets = HB_FLOW_MONITOR_PACKETS + way, octets = HB_FLOW_MONITOR_OCTETS + way;
    hb_u32 end = hb_ip_end(p);
    hb_u64 before = hb_state64(p, packets), due = hb_state64(p, HB_FLOW_MONITOR_DUE);
    hb_set_state64(p, packets, before + 1);
    hb_set_state64(p, octets, hb_state64(p, octets) + (end ? end - p->l3 : 0));
    hb_flow_monitor_time(p, way, arg, before);
    if ((about & HB_FLOW_MONITOR_TCP) && p->l4 != HB_NO_LAYER)
        hb_flow_monitor_flags(p, way);
    if (due && arg >= due) {
        hb_u64 every = (hb_u64)hb_table32(t, 1) << 32 | hb_table32(t, 0);
        hb_set_state64(p, HB_FLOW_MONITOR_DUE, arg + every);
        *result = 1;
    }
    return HB_PASS;
}
