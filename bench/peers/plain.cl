/* SPDX-License-Identifier: BSD-3-Clause */
/* plain.cl: the search of nids as anyone would write it first: a full table in global memory, a
 * work-item a packet. What bench/nf.py compares nids.cl with on an OpenCL runtime. */
__kernel void plain_search(__global const uchar *frames, uint stride, uint first, uint bytes,
                           __global const ushort *next, uint first_match, __global uint *places)
{
    __global const uchar *p = frames + (ulong)get_global_id(0) * stride + first;
    uint state = 0, found = 0;
    for (uint i = 0; i < bytes; i++) {
        state = next[state << 8 | p[i]];
        found += state >= first_match;
    }
    places[get_global_id(0)] = found;
}
