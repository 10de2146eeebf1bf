# SPDX-License-Identifier: BSD-3-Clause
"""A source of traffic on one CPU that is faster than who forwards it: Linux runs a small BPF
program on frames of its own (BPF_PROG_TEST_RUN, "live frames", since Linux 5.18), and that
redirects them into an interface, as if another one had received them.

    python3 flood.py INTERFACE FRAME_BYTES SRC_MAC DST_MAC SRC_IP DST_IP

It says "ready", and then sends UDP packets of 128 flows until it is killed. All in one system call:
to begin and to end one takes Linux some 30 ms.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys

FLOWS = 128
BATCH = 64
"""Frames that are put into the interface at once, as a driver's poll does."""

# <linux/bpf.h>
_PROG_LOAD, _TEST_RUN, _XDP, _LIVE_FRAMES = 5, 10, 6, 2
FOR_EVER = 0xFFFFFFFF
_DROP = 1
_REDIRECT, _RANDOM = 23, 7  # helpers
_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_libc = ctypes.CDLL(None, use_errno=True)


def checksum(data: bytes) -> int:
    """Of an IPv4 header whose checksum is 0 (RFC 1071)."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(size: int, src_mac: str, dst_mac: str, src: str, dst: str) -> bytes:
    """An Ethernet frame without FCS; UDP without a checksum."""
    payload = bytes(size - 14 - 28)
    udp = struct.pack(">HHHH", 1024, 9, 8 + len(payload), 0) + payload
    ends = socket.inet_aton(src) + socket.inet_aton(dst)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0x4000, 64, 17, 0)
    head = head[:10] + checksum(head + ends).to_bytes(2, "big") + ends
    return bytes.fromhex((dst_mac + src_mac).replace(":", "")) + b"\x08\x00" + head + udp


def _do(code: int, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """An instruction of BPF."""
    return struct.pack("<BBhi", code, of << 4 | to, offset, value)


def program(packet: bytes, interface: int) -> bytes:
    """Write the headers anew, because frames come round again and whoever forwarded them has
    changed them; draw the flow; redirect."""
    written = [
        _do(0x62, 6, offset=at, value=int.from_bytes(packet[at : at + 4], "little", signed=True))
        for at in range(0, 40, 4)
    ]
    body = b"".join(
        [
            *written,
            _do(0x85, value=_RANDOM),
            _do(0x57, 0, value=FLOWS - 1),  # r0 &= FLOWS - 1
            _do(0x07, 0, value=1024),  # r0 += 1024
            _do(0xDC, 0, value=16),  # r0 = htobe16(r0)
            _do(0x6B, 6, 0, offset=34),  # the source port
            _do(0xB7, 1, value=interface),
            _do(0xB7, 2, value=0),
            _do(0x85, value=_REDIRECT),
            _do(0x95),
        ]
    )
    return b"".join(
        [
            _do(0x61, 6, 1, offset=0),  # r6 = data
            _do(0x61, 3, 1, offset=4),  # r3 = data_end
            _do(0xBF, 4, 6),
            _do(0x07, 4, value=42),
            _do(0x2D, 4, 3, offset=len(body) // 8),  # if r4 > r3: drop it, says the verifier
            body,
            _do(0xB7, 0, value=_DROP),
            _do(0x95),
        ]
    )


def _bpf(command: int, attributes: bytes) -> int:
    given = ctypes.create_string_buffer(attributes, len(attributes))
    done = _libc.syscall(_SYS_BPF[platform.machine()], command, given, len(attributes))
    if done < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return int(done)


def _load(code: bytes) -> int:
    text, license_ = (
        ctypes.create_string_buffer(code, len(code)),
        ctypes.create_string_buffer(b"GPL"),
    )
    at = ctypes.addressof
    return _bpf(_PROG_LOAD, struct.pack("<IIQQ", _XDP, len(code) // 8, at(text), at(license_)))


def main() -> None:
    interface, size, *ends = sys.argv[1:]
    packet = frame(int(size), *ends)
    loaded = _load(program(packet, socket.if_nametoindex(interface)))
    data = ctypes.create_string_buffer(packet, len(packet))
    context = ctypes.create_string_buffer(struct.pack("<6I", 0, len(packet), 0, 0, 0, 0), 24)
    # prog_fd retval | data_size in, out | data in, out | repeat duration | ctx_size in, out |
    # ctx in, out | flags cpu batch_size
    attributes = struct.pack(
        "<4I2Q4I2Q3I4x",
        *(loaded, 0, len(packet), 0, ctypes.addressof(data), 0, FOR_EVER, 0),
        *(24, 0, ctypes.addressof(context), 0, _LIVE_FRAMES, 0, BATCH),
    )
    print("ready", flush=True)
    _bpf(_TEST_RUN, attributes)


if __name__ == "__main__":
    main()
