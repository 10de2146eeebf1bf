/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * firewall_state.h: what the firewall knows of a flow, in u32 elements; all 0: no rule has accepted
 * it. Also hummingbird/nfs/firewall.py.
 */
#ifndef HB_FIREWALL_STATE_H
#define HB_FIREWALL_STATE_H

#define HB_FIREWALL_STATUS 0u    /* see below */
#define HB_FIREWALL_VERDICT 1u   /* of the rule that accepted it */
#define HB_FIREWALL_RULE 2u      /* its counter + 1 */
#define HB_FIREWALL_IGNORED 3u   /* a SYN in the connection: bit 31, scale, window; then its end */
#define HB_FIREWALL_CHALLENGE 5u /* what an ACK in answer to a SYN acknowledges */
#define HB_FIREWALL_ENDS 6u      /* of each direction: */
#define HB_FIREWALL_END 5u
#define HB_FIREWALL_LAST 0u
#define HB_FIREWALL_MOST 1u
#define HB_FIREWALL_WINDOW 2u
#define HB_FIREWALL_ACKED 3u
#define HB_FIREWALL_FIN_AT 4u
#define HB_FIREWALL_STATE_BYTES 64u

/* HB_FIREWALL_STATUS: a state ... */
#define HB_FIREWALL_STATE 0xffu
#define HB_FIREWALL_IN_SYN_SENT 1u
#define HB_FIREWALL_IN_SYN_SENT_2 2u /* by both ends */
#define HB_FIREWALL_IN_SYN_RECEIVED 3u
#define HB_FIREWALL_IN_ESTABLISHED 4u
#define HB_FIREWALL_IN_MIDSTREAM 5u /* established; its beginning was not seen */
#define HB_FIREWALL_IN_FIN_WAIT 6u
#define HB_FIREWALL_IN_CLOSE_WAIT 7u
#define HB_FIREWALL_IN_LAST_ACK 8u
#define HB_FIREWALL_IN_TIME_WAIT 9u
#define HB_FIREWALL_IN_CLOSED 10u  /* by RST */
#define HB_FIREWALL_IN_ONE_WAY 11u /* not TCP: nobody has answered yet */
#define HB_FIREWALL_IN_BOTH_WAYS 12u
#define HB_FIREWALL_IN_FRAGMENTS 13u /* of one datagram; accepted */
#define HB_FIREWALL_IN_DENIED 14u    /* the same; denied */
/* ... and bits. */
#define HB_FIREWALL_BEGAN_BIT 8u
#define HB_FIREWALL_BEGAN (1u << HB_FIREWALL_BEGAN_BIT) /* direction of its first packet */
#define HB_FIREWALL_LOOSE (1u << 9)                     /* windows are not known */
#define HB_FIREWALL_FIN_BIT 10u
#define HB_FIREWALL_FIN_SENT (1u << HB_FIREWALL_FIN_BIT) /* by direction 0; then by 1; then the */
                                                         /* same acknowledged */
#define HB_FIREWALL_BOTH_BEGAN (1u << 14)
#define HB_FIREWALL_SCALE_BIT 16u /* of both directions, 4 bits each: shift + 1; 0: none */
#define HB_FIREWALL_SCALES (0xffu << HB_FIREWALL_SCALE_BIT)

static inline hb_u32 hb_firewall_began(hb_u32 status)
{
    return status >> HB_FIREWALL_BEGAN_BIT & 1;
}

#endif
